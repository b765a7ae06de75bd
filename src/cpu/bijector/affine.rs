//! The affine bijector, elementwise: what a raw log-scale o and a shift t do to a transformed feature.
//! Twin of `shaders/shared/bijector/affine.wgsl`. Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017.

use super::super::Real;
use super::{Elementwise, Planes, Traced};

/// θ = (o, t), s = c · tanh(o / c), z = (x − t) · e⁻ˢ.
#[derive(Debug)]
pub(super) struct Affine<R> {
    /// c, by which the log-scale is bounded softly.
    pub bound: R,
}

impl<R: Real> Elementwise<R> for Affine<R> {
    /// e⁻ˢ.
    fn saved(&self) -> usize {
        1
    }

    fn forward(&self, theta: &Planes<R>, values: &mut [R], log_det: &mut [R], saved: &mut Planes<R>) {
        let bound = self.bound;
        let (raw, shift, [shrink]) = (theta.plane(0), theta.plane(1), saved.planes_mut());
        R::vectorised(
            #[inline(always)]
            || {
                let count = values.len();
                let (log_det, shrink) = (&mut log_det[..count], &mut shrink[..count]);
                let (raw, shift) = (&raw[..count], &shift[..count]);
                for at in 0..count {
                    let s = bound * (raw[at] / bound).tanh_lane();
                    log_det[at] = -s;
                    shrink[at] = (-s).exp_lane();
                    values[at] = (values[at] - shift[at]) * shrink[at];
                }
            },
        );
    }

    fn inverse(&self, theta: &Planes<R>, values: &mut [R], log_det: &mut [R]) {
        let bound = self.bound;
        let (raw, shift) = (theta.plane(0), theta.plane(1));
        R::vectorised(
            #[inline(always)]
            || {
                let count = values.len();
                let (log_det, raw, shift) = (&mut log_det[..count], &raw[..count], &shift[..count]);
                for at in 0..count {
                    log_det[at] = bound * (raw[at] / bound).tanh_lane();
                    values[at] = values[at] * log_det[at].exp_lane() + shift[at];
                }
            },
        );
    }

    // d_x = d_z · e⁻ˢ, d_t = −d_x, d_o = (−d_log_det − d_z · z) · (1 − tanh²(o / c)).
    fn backward(&self, traced: Traced<R>, d_log_det: &[R], values: &mut [R], d_theta: &mut Planes<R>) {
        let bound = self.bound;
        let Traced { theta, z, saved } = traced;
        let (raw, shrink, [d_raw, d_shift]) = (theta.plane(0), saved.plane(0), d_theta.planes_mut());
        R::vectorised(
            #[inline(always)]
            || {
                let count = values.len();
                let (z, shrink, raw) = (&z[..count], &shrink[..count], &raw[..count]);
                let (d_log_det, d_raw, d_shift) =
                    (&d_log_det[..count], &mut d_raw[..count], &mut d_shift[..count]);
                for at in 0..count {
                    let slope = (raw[at] / bound).tanh_slope_lane();
                    d_raw[at] = (-d_log_det[at] - values[at] * z[at]) * slope;
                    values[at] *= shrink[at];
                    d_shift[at] = -values[at];
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 3] = [0.5, -1.0, 2.0];
    const THETA: [[f64; 3]; 2] = [[0.7, -3.0, 40.0], [0.1, -0.2, 0.4]];
    const AFFINE: Affine<f64> = Affine { bound: 2.0 };

    fn planes(rows: [[f64; 3]; 2]) -> Planes<f64> {
        let mut planes = Planes::default();
        planes.resize(2, 3);
        for (index, row) in rows.iter().enumerate() {
            planes.plane_mut(index).copy_from_slice(row);
        }
        planes
    }

    fn forward(x: [f64; 3], theta: &Planes<f64>) -> ([f64; 3], [f64; 3], Planes<f64>) {
        let (mut z, mut log_det, mut saved) = (x, [f64::NAN; 3], Planes::default());
        saved.resize(AFFINE.saved(), 3);
        AFFINE.forward(theta, &mut z, &mut log_det, &mut saved);
        (z, log_det, saved)
    }

    #[test]
    fn the_inverse_undoes_forward_and_its_log_det() {
        let theta = planes(THETA);
        let (z, log_det, _) = forward(X, &theta);
        let (mut x, mut back) = (z, [f64::NAN; 3]);
        AFFINE.inverse(&theta, &mut x, &mut back);
        for at in 0..3 {
            assert!((x[at] - X[at]).abs() < 1e-14 && (log_det[at] + back[at]).abs() < 1e-14, "[{at}]");
        }
        assert!((log_det[2] + 2.0).abs() < 1e-14, "the log-scale is bounded by c");
    }

    #[test]
    fn backward_equals_finite_differences() {
        let (d_z, d_log_det, h) = ([0.3, -0.8, 1.7], -0.25, 1e-6);
        let loss = |x: [f64; 3], theta: [[f64; 3]; 2]| -> f64 {
            let (z, log_det, _) = forward(x, &planes(theta));
            (0..3).map(|at| d_z[at] * z[at] + d_log_det * log_det[at]).sum()
        };
        let theta = planes(THETA);
        let (z, _, saved) = forward(X, &theta);
        let (mut d_x, mut d_theta) = (d_z, planes([[f64::NAN; 3]; 2]));
        AFFINE.backward(
            Traced { theta: &theta, z: &z, saved: &saved },
            &[d_log_det; 3],
            &mut d_x,
            &mut d_theta,
        );
        for at in 0..3 {
            let (mut low, mut high) = (X, X);
            (low[at], high[at]) = (X[at] - h, X[at] + h);
            let want = (loss(high, THETA) - loss(low, THETA)) / (2.0 * h);
            assert!((d_x[at] - want).abs() < 1e-8, "d_x[{at}]: got {}, want {want}", d_x[at]);
            for plane in 0..2 {
                let (mut low, mut high) = (THETA, THETA);
                (low[plane][at], high[plane][at]) = (THETA[plane][at] - h, THETA[plane][at] + h);
                let want = (loss(X, high) - loss(X, low)) / (2.0 * h);
                let got = d_theta.plane(plane)[at];
                assert!((got - want).abs() < 1e-8, "d_theta[{plane}][{at}]: got {got}, want {want}");
            }
        }
    }
}
