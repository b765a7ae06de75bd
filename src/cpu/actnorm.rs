//! Activation normalisation on a tile of rows: z = (x − b) · e⁻ˢ for each modelled feature (Kingma and Dhariwal, "Glow",
//! 2018). The functions are the definition that `shaders/layered/actnorm.wgsl` is compared with, and the engine runs them.
//!
//! Matrices are row-major [T, D]. `shift` b and `log_scale` s are `[M]`; the context, the last D − M features, passes.

use crate::flow::Flow;

use super::Real;
use super::buffer::Buffer;
use super::code::{Backward, Parameters, Scratch, SegmentSize, Sum, Tile, Trace, TransformCode};

/// Data → latent, in place; log_det −= Σ s for every row.
pub fn actnorm_forward<R: Real>(
    features: usize,
    shift: &[R],
    log_scale: &[R],
    values: &mut [R],
    log_det: &mut [R],
) {
    let shrink: Vec<R> = log_scale.iter().map(|&s| (-s).exp_lane()).collect();
    for row in values.chunks_exact_mut(features) {
        for at in 0..shrink.len() {
            row[at] = (row[at] - shift[at]) * shrink[at];
        }
    }
    let total = log_scale.iter().fold(R::zero(), |sum, &s| sum + s);
    log_det.iter_mut().for_each(|log_det| *log_det -= total);
}

/// Latent → data, in place; log_det += Σ s for every row.
pub fn actnorm_inverse<R: Real>(
    features: usize,
    shift: &[R],
    log_scale: &[R],
    values: &mut [R],
    log_det: &mut [R],
) {
    let grow: Vec<R> = log_scale.iter().map(|&s| s.exp_lane()).collect();
    for row in values.chunks_exact_mut(features) {
        for at in 0..grow.len() {
            row[at] = row[at] * grow[at] + shift[at];
        }
    }
    let total = log_scale.iter().fold(R::zero(), |sum, &s| sum + s);
    log_det.iter_mut().for_each(|log_det| *log_det += total);
}

/// Backward of [`actnorm_forward`], whose result is `z`, where each log-determinant has the gradient `d_log_det` `[T]`.
///
/// `values`: d_z, then d_x = d_z · e⁻ˢ; `d_shift` = −Σ_rows d_x and `d_log_scale` = −Σ_rows (d_z · z + d_log_det), both `[M]`
/// and overwritten.
pub fn actnorm_backward<R: Real>(
    log_scale: &[R],
    d_log_det: &[R],
    z: &[R],
    values: &mut [R],
    d_shift: &mut [R],
    d_log_scale: &mut [R],
    features: usize,
) {
    let shrink: Vec<R> = log_scale.iter().map(|&s| (-s).exp_lane()).collect();
    d_shift.fill(R::zero());
    d_log_scale.fill(R::zero());
    for (row, &d_log_det) in d_log_det.iter().enumerate() {
        let place = row * features..row * features + shrink.len();
        let (d, z) = (&mut values[place.clone()], &z[place]);
        for at in 0..shrink.len() {
            d_log_scale[at] -= d[at] * z[at] + d_log_det;
            d[at] *= shrink[at];
            d_shift[at] -= d[at];
        }
    }
}

/// An actnorm; packed are b and s, one after the other, as the flat buffer has them.
#[derive(Debug)]
pub(super) struct ActnormCode {
    features: usize,
    modelled: usize,
}

impl ActnormCode {
    pub fn new(flow: &Flow) -> Self {
        Self { features: flow.features, modelled: flow.modelled() }
    }

    fn numbers<'a, R: Real>(&self, weights: &'a [Buffer<R>]) -> (&'a [R], &'a [R]) {
        weights[0].split_at(self.modelled)
    }
}

impl<R: Real> Parameters<R> for ActnormCode {
    fn segments(&self) -> Vec<SegmentSize> {
        vec![SegmentSize { weights: 2 * self.modelled, gradient: 2 * self.modelled }]
    }

    fn pack(&self, _segment: usize, flat: &[R], packed: &mut [R]) {
        packed.copy_from_slice(flat);
    }

    fn unpack(&self, _segment: usize, _weights: &[R], packed: &[R], flat: &mut [R]) {
        flat.copy_from_slice(packed);
    }
}

impl<R: Real> TransformCode<R> for ActnormCode {
    fn forward(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        trace: &mut Trace<R>,
        _scratch: &mut Scratch<R>,
    ) {
        let (shift, log_scale) = self.numbers(weights);
        actnorm_forward(self.features, shift, log_scale, tile.values, tile.log_det);
        trace.z.resize(tile.values.len());
        trace.z.copy_from_slice(tile.values);
    }

    fn inverse(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        _trace: &mut Trace<R>,
        _scratch: &mut Scratch<R>,
    ) {
        let (shift, log_scale) = self.numbers(weights);
        actnorm_inverse(self.features, shift, log_scale, tile.values, tile.log_det);
    }

    fn backward(
        &self,
        weights: &[Buffer<R>],
        trace: &Trace<R>,
        pass: &mut Backward<R>,
        scratch: &mut Scratch<R>,
    ) {
        // The tile's own sum is complete before it is added: so a slot's bits do not depend on what it held.
        scratch.d_values.resize(2 * self.modelled);
        let (d_shift, d_log_scale) = scratch.d_values.split_at_mut(self.modelled);
        let log_scale = self.numbers(weights).1;
        actnorm_backward(
            log_scale,
            pass.d_log_det,
            &trace.z,
            pass.values,
            d_shift,
            d_log_scale,
            self.features,
        );
        let Some(Sum { values, add }) = &mut pass.gradient else { return };
        for (to, &sum) in values.iter_mut().zip(&*scratch.d_values) {
            *to = if *add { *to + sum } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 6] = [0.5, -1.0, 7.0, 1.5, 0.25, -9.0];
    const SHIFT: [f64; 2] = [0.3, -0.2];
    const LOG_SCALE: [f64; 2] = [0.4, -0.7];

    fn forward(x: [f64; 6], shift: [f64; 2], log_scale: [f64; 2]) -> ([f64; 6], [f64; 2]) {
        let (mut z, mut log_det) = (x, [0.5, 0.0]);
        actnorm_forward(3, &shift, &log_scale, &mut z, &mut log_det);
        (z, log_det)
    }

    #[test]
    fn forward_follows_its_formula_and_the_context_passes() {
        let (z, log_det) = forward(X, SHIFT, LOG_SCALE);
        let want = [
            0.2 * (-0.4f64).exp(),
            -0.8 * 0.7f64.exp(),
            7.0,
            1.2 * (-0.4f64).exp(),
            0.45 * 0.7f64.exp(),
            -9.0,
        ];
        for (got, want) in z.iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "got {got}, want {want}");
        }
        assert!((log_det[0] - 0.8).abs() < 1e-14 && (log_det[1] - 0.3).abs() < 1e-14, "{log_det:?}");
    }

    #[test]
    fn inverse_undoes_forward() {
        let (mut x, mut log_det) = forward(X, SHIFT, LOG_SCALE);
        actnorm_inverse(3, &SHIFT, &LOG_SCALE, &mut x, &mut log_det);
        for (got, want) in x.iter().zip(X) {
            assert!((got - want).abs() < 1e-14, "got {got}, want {want}");
        }
        assert!((log_det[0] - 0.5).abs() < 1e-14 && log_det[1].abs() < 1e-14, "{log_det:?}");
    }

    #[test]
    fn backward_equals_finite_differences() {
        let (d_z, d_log_det, h) = ([0.3, -0.8, 0.0, 1.7, 0.6, 0.0], -0.25, 1e-6);
        let loss = |x: [f64; 6], shift: [f64; 2], log_scale: [f64; 2]| -> f64 {
            let (z, log_det) = forward(x, shift, log_scale);
            z.iter().zip(d_z).map(|(z, d)| z * d).sum::<f64>() + d_log_det * log_det.iter().sum::<f64>()
        };
        let (z, _) = forward(X, SHIFT, LOG_SCALE);
        let (mut d_x, mut d_shift, mut d_log_scale) = (d_z, [f64::NAN; 2], [f64::NAN; 2]);
        actnorm_backward(&LOG_SCALE, &[d_log_det; 2], &z, &mut d_x, &mut d_shift, &mut d_log_scale, 3);
        let nudged = |mut values: [f64; 2], at: usize, by: f64| {
            values[at] += by;
            values
        };
        for at in 0..2 {
            let slope = |loss: &dyn Fn(f64) -> f64| (loss(h) - loss(-h)) / (2.0 * h);
            let want = [
                slope(&|by| loss(X, nudged(SHIFT, at, by), LOG_SCALE)),
                slope(&|by| loss(X, SHIFT, nudged(LOG_SCALE, at, by))),
                slope(&|by| {
                    loss(
                        {
                            let mut x = X;
                            x[3 + at] += by;
                            x
                        },
                        SHIFT,
                        LOG_SCALE,
                    )
                }),
            ];
            for (got, want) in [d_shift[at], d_log_scale[at], d_x[3 + at]].iter().zip(want) {
                assert!((got - want).abs() < 1e-8, "[{at}]: got {got}, want {want}");
            }
        }
    }
}
