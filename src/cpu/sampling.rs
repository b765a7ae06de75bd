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
    let temperature = R::from_decimal(noise.temperature);
    let mut normals = vec![0.0f32; features - context];
    for (row, z) in z.chunks_exact_mut(features).enumerate() {
        random::normals(noise.first.wrapping_add(row as u32), noise.seed, &mut normals);
        for (z, &normal) in z.iter_mut().zip(&normals) {
            *z = temperature * R::from_wide(f64::from(normal));
        }
    }
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
}
