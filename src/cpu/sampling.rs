//! Latent noise: the numbers that the inverse pass turns into samples. Twin of `shaders/sampling.wgsl`.

use crate::random::{self, Philox, Stream};

use super::Real;

/// z = temperature · noise, where row r of `z` is noise row `first` + r of `seed`, whatever the other rows are.
///
/// `z`: row-major [B, D], overwritten. The noise is the same `f32` on every engine, before the temperature.
pub fn latent<R: Real>(features: usize, first: u32, seed: u64, temperature: f32, z: &mut [R]) {
    let temperature = R::from_decimal(temperature);
    let mut noise = vec![0.0f32; features];
    for (row, z) in z.chunks_exact_mut(features).enumerate() {
        normals(first.wrapping_add(row as u32), features, seed, &mut noise);
        for (z, &noise) in z.iter_mut().zip(&noise) {
            *z = temperature * R::from_wide(f64::from(noise));
        }
    }
}

/// Standard normal numbers by Box and Muller.
fn normals(row: u32, _features: usize, seed: u64, out: &mut [f32]) {
    use rand::Rng;
    let mut words = Philox::new(seed, Stream::Latent, row);
    for pair in out.chunks_mut(2) {
        let u = 1.0 - random::uniform(words.next_u32());
        let angle = std::f32::consts::TAU * random::uniform(words.next_u32());
        let radius = (-2.0 * u.ln()).sqrt();
        for (value, turn) in pair.iter_mut().zip([angle.cos(), angle.sin()]) {
            *value = radius * turn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_noise_is_its_own_and_scales_with_the_temperature() {
        let mut whole = [f64::NAN; 12];
        latent(3, 10, 7, 1.0, &mut whole);
        let mut tail = [f64::NAN; 6];
        latent(3, 12, 7, 0.5, &mut tail);
        for (tail, whole) in tail.iter().zip(&whole[6..]) {
            assert_eq!(*tail, 0.5 * whole);
        }
        let mut other = [f64::NAN; 12];
        latent(3, 10, 8, 1.0, &mut other);
        assert_ne!(whole, other, "the seed matters");
    }
}
