//! Affine couplings, elementwise: what the conditioner's numbers do to the transformed features.
//! Formulas: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017.
//!
//! All matrices are row-major [B, D], with D the length of `mask`, in which `true` marks a kept feature. The raw
//! log-scale o and the shift t come in full width; at kept features they are not read. The log-scale is bounded
//! softly, s = c · tanh(o / c).

use super::super::Real;
use super::super::activation::tanh_slope;

/// The conditioner's input: x at kept features, 0 elsewhere.
pub fn coupling_input<R: Real>(mask: &[bool], x: &[R], input: &mut [R]) {
    let features = mask.len();
    for (input, x) in input.chunks_exact_mut(features).zip(x.chunks_exact(features)) {
        for ((input, &x), &kept) in input.iter_mut().zip(x).zip(mask) {
            *input = if kept { x } else { R::zero() };
        }
    }
}

/// Adds the gradient of a conditioner's input, `d_input`, to that of the coupling's input, `d_x`, where features
/// are kept. Both networks read the same input, so it is called once for each.
pub fn coupling_input_backward<R: Real>(mask: &[bool], d_input: &[R], d_x: &mut [R]) {
    let features = mask.len();
    for (d_x, d_input) in d_x.chunks_exact_mut(features).zip(d_input.chunks_exact(features)) {
        for ((d_x, &d_input), &kept) in d_x.iter_mut().zip(d_input).zip(mask) {
            if kept {
                *d_x += d_input;
            }
        }
    }
}

/// Data → latent: z = x at kept features, (x − t) · exp(−s) at the others; log_det −= Σ s.
///
/// `log_det`: `[B]` in nats, carried through the couplings.
pub fn coupling_forward<R: Real>(
    bound: R,
    mask: &[bool],
    x: &[R],
    log_scale: &[R],
    shift: &[R],
    z: &mut [R],
    log_det: &mut [R],
) {
    let features = mask.len();
    for (row, log_det) in log_det.iter_mut().enumerate() {
        for (feature, &kept) in mask.iter().enumerate() {
            let at = row * features + feature;
            if kept {
                z[at] = x[at];
            } else {
                let s = bounded(bound, log_scale[at]);
                z[at] = (x[at] - shift[at]) * (-s).exp();
                *log_det -= s;
            }
        }
    }
}

/// Latent → data: x = z at kept features, z · exp(s) + t at the others; log_det += Σ s.
///
/// `log_det`: `[B]` in nats, carried through the couplings.
pub fn coupling_inverse<R: Real>(
    bound: R,
    mask: &[bool],
    z: &[R],
    log_scale: &[R],
    shift: &[R],
    x: &mut [R],
    log_det: &mut [R],
) {
    let features = mask.len();
    for (row, log_det) in log_det.iter_mut().enumerate() {
        for (feature, &kept) in mask.iter().enumerate() {
            let at = row * features + feature;
            if kept {
                x[at] = z[at];
            } else {
                let s = bounded(bound, log_scale[at]);
                x[at] = z[at] * s.exp() + shift[at];
                *log_det += s;
            }
        }
    }
}

/// Backward of [`coupling_forward`] under the loss Σ factor · (−log p), so that dL/dlog_det = −factor.
///
/// `factors` `[B]`: of each row. From `d_z`, the gradient at the coupling's output `z`, come the gradients at the raw
/// log-scale, the shift and, by the direct way, the coupling's input:
///
/// at transformed features, d_x = d_z · exp(−s), d_t = −d_x, d_s = factor − d_z · z, d_o = d_s · (1 − tanh²(o / c));
/// at kept features, d_x = d_z, d_t = d_o = 0.
#[expect(clippy::too_many_arguments, reason = "one argument per binding of the shader")]
pub fn coupling_backward<R: Real>(
    bound: R,
    factors: &[R],
    mask: &[bool],
    d_z: &[R],
    z: &[R],
    log_scale: &[R],
    d_log_scale: &mut [R],
    d_shift: &mut [R],
    d_x: &mut [R],
) {
    let features = mask.len();
    for (row, &factor) in factors.iter().enumerate() {
        for (feature, &kept) in mask.iter().enumerate() {
            let at = row * features + feature;
            if kept {
                d_x[at] = d_z[at];
                d_shift[at] = R::zero();
                d_log_scale[at] = R::zero();
            } else {
                d_x[at] = d_z[at] * (-bounded(bound, log_scale[at])).exp();
                d_shift[at] = -d_x[at];
                d_log_scale[at] = (factor - d_z[at] * z[at]) * tanh_slope(log_scale[at] / bound);
            }
        }
    }
}

/// s = c · tanh(o / c).
fn bounded<R: Real>(bound: R, log_scale: R) -> R {
    bound * (log_scale / bound).tanh()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [bool; 3] = [true, false, false];
    const X: [f64; 6] = [0.5, -1.0, 2.0, 1.5, 0.25, -0.75];
    const LOG_SCALE: [f64; 6] = [9.0, 0.7, -3.0, 9.0, 0.0, 40.0];
    const SHIFT: [f64; 6] = [9.0, 0.1, -0.2, 9.0, 0.3, 0.4];

    fn forward() -> (Vec<f64>, Vec<f64>) {
        let (mut z, mut log_det) = (vec![f64::NAN; 6], vec![0.5, 0.0]);
        coupling_forward(2.0, &MASK, &X, &LOG_SCALE, &SHIFT, &mut z, &mut log_det);
        (z, log_det)
    }

    #[test]
    fn coupling_forward_follows_its_formula() {
        let (z, log_det) = forward();
        let s = |o: f64| 2.0 * (o / 2.0).tanh();
        let want = [
            0.5,
            -1.1 * (-s(0.7)).exp(),
            2.2 * (-s(-3.0)).exp(),
            1.5,
            0.25 - 0.3,
            (-0.75 - 0.4) * (-2.0f64).exp(),
        ];
        for (got, want) in z.iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "got {got}, want {want}");
        }
        assert!((log_det[0] - (0.5 - s(0.7) - s(-3.0))).abs() < 1e-15);
        assert!((log_det[1] + 2.0).abs() < 1e-15, "the log-scale is bounded by c");
    }

    #[test]
    fn coupling_inverse_undoes_forward() {
        let (z, mut log_det) = forward();
        let mut x = vec![f64::NAN; 6];
        coupling_inverse(2.0, &MASK, &z, &LOG_SCALE, &SHIFT, &mut x, &mut log_det);
        for (got, want) in x.iter().zip(X) {
            assert!((got - want).abs() < 1e-15, "got {got}, want {want}");
        }
        assert!((log_det[0] - 0.5).abs() < 1e-15 && log_det[1].abs() < 1e-15, "{log_det:?}");
    }

    /// The loss that [`coupling_backward`] differentiates, with ½ z² in the place of all that follows.
    fn loss(x: &[f64], log_scale: &[f64], shift: &[f64]) -> f64 {
        let (mut z, mut log_det) = (vec![0.0; 6], vec![0.0; 2]);
        coupling_forward(2.0, &MASK, x, log_scale, shift, &mut z, &mut log_det);
        (z.iter().map(|z| 0.5 * z * z).sum::<f64>() - log_det.iter().sum::<f64>()) / 2.0
    }

    #[test]
    fn coupling_backward_equals_finite_differences() {
        let (z, _) = forward();
        let d_z: Vec<f64> = z.iter().map(|z| z / 2.0).collect();
        let (mut d_o, mut d_t, mut d_x) = (vec![f64::NAN; 6], vec![f64::NAN; 6], vec![f64::NAN; 6]);
        coupling_backward(2.0, &[0.5; 2], &MASK, &d_z, &z, &LOG_SCALE, &mut d_o, &mut d_t, &mut d_x);
        for at in 0..6 {
            let h = 1e-6;
            let nudged = |values: [f64; 6], by: f64| {
                let mut values = values;
                values[at] += by;
                values
            };
            let slope = |loss: &dyn Fn(f64) -> f64| (loss(h) - loss(-h)) / (2.0 * h);
            let want_x = slope(&|by| loss(&nudged(X, by), &LOG_SCALE, &SHIFT));
            let want_o = slope(&|by| loss(&X, &nudged(LOG_SCALE, by), &SHIFT));
            let want_t = slope(&|by| loss(&X, &LOG_SCALE, &nudged(SHIFT, by)));
            for (name, got, want) in [("x", d_x[at], want_x), ("o", d_o[at], want_o), ("t", d_t[at], want_t)]
            {
                assert!((got - want).abs() < 1e-8, "d_{name}[{at}]: got {got}, want {want}");
            }
        }
    }

    #[test]
    fn conditioner_sees_kept_features_only() {
        let mut input = vec![f64::NAN; 6];
        coupling_input(&MASK, &X, &mut input);
        assert_eq!(input, [0.5, 0.0, 0.0, 1.5, 0.0, 0.0]);
        let mut d_x = vec![1.0; 6];
        coupling_input_backward(&MASK, &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0], &mut d_x);
        assert_eq!(d_x, [3.0, 1.0, 1.0, 6.0, 1.0, 1.0]);
    }
}
