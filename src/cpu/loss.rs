//! The loss: negative log-likelihood under the standard normal base, in nats.
//! It is where the forward pass ends and the backward pass begins. `shaders/layered/density.wgsl` is compared with it.

use super::Real;
use super::simd::{clear, each};

/// −log p per row: ½ Σ z² + ½ M ln 2π − log_det over the M modelled features, which are all but the last `context`.
///
/// `z`: row-major [B, D]; `log_det` and `nll`: `[B]`, nats.
pub fn negative_log_likelihood<R: Real>(context: usize, z: &[R], log_det: &[R], nll: &mut [R]) {
    if nll.is_empty() {
        return;
    }
    let features = z.len() / nll.len();
    let modelled = features - context;
    let half = R::from_wide(0.5);
    let constant = R::from_wide(0.5 * modelled as f64 * std::f64::consts::TAU.ln());
    for (row, z) in z.chunks_exact(features).enumerate() {
        let mut squares = R::zero();
        for &z in &z[..modelled] {
            squares += z * z;
        }
        nll[row] = half * squares + constant - log_det[row];
    }
}

/// d_z = factor · z: the gradient of Σ factor · (−log p) over rows, with `factors` `[B]`. It is zero at the context, the last
/// `context` features, which the base density does not see.
pub fn negative_log_likelihood_backward<R: Real>(context: usize, factors: &[R], z: &[R], d_z: &mut [R]) {
    if factors.is_empty() {
        return;
    }
    let features = z.len() / factors.len();
    for (row, &factor) in factors.iter().enumerate() {
        let place = row * features..(row + 1) * features;
        let (d_z, z) = (&mut d_z[place.clone()], &z[place]);
        let (d_z, d_context) = d_z.split_at_mut(features - context);
        each(d_z, z, |d_z, &z| *d_z = factor * z);
        clear(d_context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_normal_density_is_the_textbook_one() {
        let mut nll = [f64::NAN; 2];
        negative_log_likelihood(0, &[0.0, 0.0, 3.0, 4.0], &[0.0, 0.25], &mut nll);
        let origin = std::f64::consts::TAU.ln();
        assert!(
            (nll[0] - origin).abs() < 1e-15 && (nll[1] - (origin + 12.5 - 0.25)).abs() < 1e-14,
            "{nll:?}"
        );
        let mut given = [f64::NAN];
        negative_log_likelihood(2, &[3.0, 7.0, -8.0], &[0.5], &mut given);
        assert!((given[0] - (0.5 * origin + 4.5 - 0.5)).abs() < 1e-14, "{given:?}");
        let mut d_z = [f64::NAN; 4];
        negative_log_likelihood_backward(0, &[0.5, 0.25], &[0.0, 1.0, 3.0, 4.0], &mut d_z);
        assert_eq!(d_z, [0.0, 0.5, 0.75, 1.0]);
        negative_log_likelihood_backward(1, &[0.5, 0.25], &[0.0, 1.0, 3.0, 4.0], &mut d_z);
        assert_eq!(d_z, [0.0, 0.0, 0.75, 0.0]);
    }
}
