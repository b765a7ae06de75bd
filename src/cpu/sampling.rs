//! Latent noise: the numbers that the inverse pass turns into samples. Twin of `shaders/layered/latent.wgsl`.

use crate::random;

use super::Real;

/// z = temperature · noise, where row r of `z` is noise row `first` + r of `seed`, whatever the other rows are.
///
/// `z`: row-major [B, D], overwritten but for the last `context` features of each row. The noise is the same `f32` on
/// every engine, before the temperature.
pub fn latent<R: Real>(
    features: usize,
    context: usize,
    first: u32,
    seed: u64,
    temperature: f32,
    z: &mut [R],
) {
    let temperature = R::from_decimal(temperature);
    let mut noise = vec![0.0f32; features - context];
    for (row, z) in z.chunks_exact_mut(features).enumerate() {
        random::normals(first.wrapping_add(row as u32), seed, &mut noise);
        for (z, &noise) in z.iter_mut().zip(&noise) {
            *z = temperature * R::from_wide(f64::from(noise));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_noise_is_its_own_and_scales_with_the_temperature() {
        let mut whole = [f64::NAN; 12];
        latent(3, 0, 10, 7, 1.0, &mut whole);
        let mut tail = [f64::NAN; 6];
        latent(3, 0, 12, 7, 0.5, &mut tail);
        for (tail, whole) in tail.iter().zip(&whole[6..]) {
            assert_eq!(*tail, 0.5 * whole);
        }
        let mut other = [f64::NAN; 12];
        latent(3, 0, 10, 8, 1.0, &mut other);
        assert_ne!(whole, other, "the seed matters");
        let mut given = [f64::NAN; 5];
        latent(5, 2, 10, 7, 1.0, &mut given);
        assert!(given[..3] == whole[..3] && given[3..].iter().all(|value| value.is_nan()), "{given:?}");
    }
}
