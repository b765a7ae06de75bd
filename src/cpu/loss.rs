//! The loss: negative log-likelihood under the standard normal base, in nats.
//! It is where the forward pass ends and the backward pass begins. `shaders/layered/density.wgsl` is held to it.

use super::Real;

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
    for ((nll, z), &log_det) in nll.iter_mut().zip(z.chunks_exact(features)).zip(log_det) {
        let mut squares = R::zero();
        for &z in &z[..modelled] {
            squares += z * z;
        }
        *nll = half * squares + constant - log_det;
    }
}

/// d_z = z / `rows`: the gradient of the mean of −log p over a batch of `rows` rows, of which z may be a part. What it
/// says of a context has no meaning and goes nowhere: a context is never transformed.
pub fn negative_log_likelihood_backward<R: Real>(rows: usize, z: &[R], d_z: &mut [R]) {
    let weight = R::from_wide(1.0 / rows as f64);
    for (d_z, &z) in d_z.iter_mut().zip(z) {
        *d_z = weight * z;
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
        negative_log_likelihood_backward(2, &[0.0, 1.0, 3.0, 4.0], &mut d_z);
        assert_eq!(d_z, [0.0, 0.5, 1.5, 2.0]);
    }
}
