//! Latent noise: the numbers that the inverse pass turns into samples. Twin of `shaders/layered/latent.wgsl`.

use crate::random;

use super::Real;

/// Which noise samples are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Row of the noise that the first row takes.
    pub first: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// Factor on the noise.
    pub temperature: f32,
}

/// z = temperature · noise, where row r of `z` is noise row `first` + r of the seed, whatever the other rows are.
///
/// `z`: row-major [B, D], overwritten but for the last `context` features of each row. The noise is the same `f32` on
/// every engine, before the temperature.
pub fn latent<R: Real>(features: usize, context: usize, noise: Noise, z: &mut [R]) {
    let (whole, rest) = z.split_at_mut(z.len() / (LANES * features) * LANES * features);
    let at = |row: usize| Noise { first: noise.first.wrapping_add(row as u32), ..noise };
    R::vectorised(
        #[inline(always)]
        || {
            for (block, z) in whole.chunks_exact_mut(LANES * features).enumerate() {
                rows::<R, LANES>(features, context, at(block * LANES), z);
            }
        },
    );
    let after = whole.len() / features;
    for (row, z) in rest.chunks_exact_mut(features).enumerate() {
        rows::<R, 1>(features, context, at(after + row), z);
    }
}

/// Rows whose random bits are computed side by side.
const LANES: usize = 16;

/// [`latent`] of N rows.
#[inline(always)]
fn rows<R: Real, const N: usize>(features: usize, context: usize, noise: Noise, z: &mut [R]) {
    let temperature = R::from_decimal(noise.temperature);
    random::normals_of_rows::<N>(noise.first, noise.seed, features - context, |row, feature, normal| {
        z[row * features + feature] = temperature * R::from_wide(f64::from(normal));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_noise_is_its_own_and_scales_with_the_temperature() {
        let mut whole = [f64::NAN; 12];
        latent(3, 0, Noise { first: 10, seed: 7, temperature: 1.0 }, &mut whole);
        let mut tail = [f64::NAN; 6];
        latent(3, 0, Noise { first: 12, seed: 7, temperature: 0.5 }, &mut tail);
        for (tail, whole) in tail.iter().zip(&whole[6..]) {
            assert_eq!(*tail, 0.5 * whole);
        }
        let mut other = [f64::NAN; 12];
        latent(3, 0, Noise { first: 10, seed: 8, temperature: 1.0 }, &mut other);
        assert_ne!(whole, other, "the seed matters");
        let mut given = [f64::NAN; 5];
        latent(5, 2, Noise { first: 10, seed: 7, temperature: 1.0 }, &mut given);
        assert!(given[..3] == whole[..3] && given[3..].iter().all(|value| value.is_nan()), "{given:?}");
    }

    #[test]
    fn rows_side_by_side_have_the_noise_that_each_has_alone() {
        for (features, context) in [(1, 0), (2, 0), (5, 2)] {
            let rows = 2 * LANES + 3;
            let first = u32::MAX - 20;
            let mut z = vec![f32::NAN; rows * features];
            latent(features, context, Noise { first, seed: 1 << 40, temperature: 1.0 }, &mut z);
            for (row, z) in z.chunks_exact(features).enumerate() {
                let mut alone = vec![f32::NAN; features - context];
                random::normals(first.wrapping_add(row as u32), 1 << 40, &mut alone);
                assert_eq!(z[..features - context], alone, "row {row} of {features} features");
            }
        }
    }
}
