//! Linear layers and their nonlinearities, forward and backward: what conditioner networks are made of.
//! Twin of `shaders/linear.wgsl`; every matrix is row-major, rows are the rows of a batch.
//!
//! The products here are the definition, sum by sum, each term rounded once; the engine runs them through
//! `cpu::conditioner`.

use crate::flow::{Activation, LEAKY_SLOPE};

use super::Real;
use super::simd::vectorised;

/// h = a(pre), elementwise. A NaN stays a NaN.
pub fn activate<R: Real>(activation: Activation, pre: &[R], h: &mut [R]) {
    let slope = R::from_decimal(LEAKY_SLOPE);
    let (zero, one) = (R::zero(), R::one());
    match activation {
        Activation::Relu => map(pre, h, |x| if x < zero { zero } else { x }),
        Activation::Tanh => map(pre, h, R::tanh_lane),
        Activation::LeakyRelu => map(pre, h, |x| if x > zero { x } else { slope * x }),
        Activation::Silu => map(pre, h, |x| x / (one + (-x).exp_lane())),
    }
}

#[inline(always)]
fn map<R: Real>(from: &[R], to: &mut [R], f: impl Fn(R) -> R) {
    vectorised(
        #[inline(always)]
        || {
            for (to, &from) in to.iter_mut().zip(from) {
                *to = f(from);
            }
        },
    );
}

/// d_pre = d_h · a′(pre), elementwise. The derivatives of ReLU and leaky ReLU at 0 are those of the left side.
pub fn activate_backward<R: Real>(activation: Activation, pre: &[R], d_h: &[R], d_pre: &mut [R]) {
    d_pre.copy_from_slice(&d_h[..d_pre.len()]);
    scale_by_slope(activation, pre, d_pre);
}

/// d ← d · a′(pre), elementwise: [`activate_backward`] in place.
pub(super) fn scale_by_slope<R: Real>(activation: Activation, pre: &[R], d: &mut [R]) {
    let slope = R::from_decimal(LEAKY_SLOPE);
    let (zero, one) = (R::zero(), R::one());
    match activation {
        Activation::Relu => update(pre, d, |x, d| if x > zero { d } else { zero }),
        Activation::Tanh => update(pre, d, |x, d| d * x.tanh_slope_lane()),
        Activation::LeakyRelu => update(pre, d, |x, d| if x > zero { d } else { slope * d }),
        Activation::Silu => update(pre, d, |x, d| {
            let sigmoid = one / (one + (-x).exp_lane());
            d * sigmoid * (one + x * (one - sigmoid))
        }),
    }
}

#[inline(always)]
fn update<R: Real>(pre: &[R], d: &mut [R], f: impl Fn(R, R) -> R) {
    vectorised(
        #[inline(always)]
        || {
            for (d, &pre) in d.iter_mut().zip(pre) {
                *d = f(pre, *d);
            }
        },
    );
}

/// 1 − tanh² x = 4e / (1 + e)² with e = exp(−2|x|): without the cancellation that saturation brings.
pub fn tanh_slope<R: Real>(x: R) -> R {
    x.tanh_slope_lane()
}

/// y = x · Wᵀ + b.
///
/// `x`: [rows, inputs]; `weight`: [outputs, inputs]; `bias`: `[outputs]`; `y`: [rows, outputs].
pub fn linear_forward<R: Real>(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[R],
    weight: &[R],
    bias: &[R],
    y: &mut [R],
) {
    for row in 0..rows {
        for out in 0..outputs {
            y[row * outputs + out] = (0..inputs)
                .fold(bias[out], |sum, i| x[row * inputs + i].mul_add(weight[out * inputs + i], sum));
        }
    }
}

/// d_x = d_y · W: the gradient passed on to what x was computed from.
///
/// `d_y`: [rows, outputs]; `weight`: [outputs, inputs]; `d_x`: [rows, inputs], overwritten.
pub fn linear_backward_input<R: Real>(
    rows: usize,
    inputs: usize,
    outputs: usize,
    d_y: &[R],
    weight: &[R],
    d_x: &mut [R],
) {
    for row in 0..rows {
        for i in 0..inputs {
            d_x[row * inputs + i] = (0..outputs)
                .fold(R::zero(), |sum, out| d_y[row * outputs + out].mul_add(weight[out * inputs + i], sum));
        }
    }
}

/// d_W = d_yᵀ · x and d_b = Σ over rows of d_y, in the order of the rows.
///
/// `x`: [rows, inputs]; `d_y`: [rows, outputs]; `d_weight`: [outputs, inputs] and `d_bias`: `[outputs]`, both
/// overwritten.
pub fn linear_backward_weight<R: Real>(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[R],
    d_y: &[R],
    d_weight: &mut [R],
    d_bias: &mut [R],
) {
    d_weight.fill(R::zero());
    d_bias.fill(R::zero());
    for row in 0..rows {
        for out in 0..outputs {
            let d_y = d_y[row * outputs + out];
            d_bias[out] += d_y;
            for i in 0..inputs {
                let sum = &mut d_weight[out * inputs + i];
                *sum = d_y.mul_add(x[row * inputs + i], *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{self, Stream};

    /// Asymmetric values in ±1 that are no multiples of each other.
    fn values(count: usize, stream: u32) -> Vec<f64> {
        (0..count as u32)
            .map(|i| {
                2.0 * f64::from(random::uniform(
                    random::philox([i, stream, 0, Stream::Data as u32], [7, 0])[0],
                )) - 1.0
            })
            .collect()
    }

    fn assert_close(got: &[f64], want: impl Fn(usize) -> f64, what: &str) {
        for (index, &got) in got.iter().enumerate() {
            let want = want(index);
            assert!((got - want).abs() < 1e-12, "{what}[{index}]: got {got}, want {want}");
        }
    }

    #[test]
    fn linear_layers_equal_their_sums_on_ragged_shapes() {
        for (rows, inputs, outputs) in [(1, 1, 1), (1, 3, 2), (3, 1, 5), (2, 7, 1), (17, 5, 9), (33, 65, 31)]
        {
            let x = values(rows * inputs, 0);
            let weight = values(outputs * inputs, 1);
            let bias = values(outputs, 2);
            let d_y = values(rows * outputs, 3);
            let poisoned = |len: usize| vec![f64::NAN; len];

            let mut y = poisoned(rows * outputs);
            linear_forward(rows, inputs, outputs, &x, &weight, &bias, &mut y);
            let want = |at: usize| {
                let (r, o) = (at / outputs, at % outputs);
                bias[o] + (0..inputs).map(|i| x[r * inputs + i] * weight[o * inputs + i]).sum::<f64>()
            };
            assert_close(&y, want, "y");

            let mut d_x = poisoned(rows * inputs);
            linear_backward_input(rows, inputs, outputs, &d_y, &weight, &mut d_x);
            let want = |at: usize| {
                let (r, i) = (at / inputs, at % inputs);
                (0..outputs).map(|o| d_y[r * outputs + o] * weight[o * inputs + i]).sum()
            };
            assert_close(&d_x, want, "d_x");

            let (mut d_weight, mut d_bias) = (poisoned(outputs * inputs), poisoned(outputs));
            linear_backward_weight(rows, inputs, outputs, &x, &d_y, &mut d_weight, &mut d_bias);
            let want = |at: usize| {
                let (o, i) = (at / inputs, at % inputs);
                (0..rows).map(|r| d_y[r * outputs + o] * x[r * inputs + i]).sum()
            };
            assert_close(&d_weight, want, "d_weight");
            assert_close(&d_bias, |o| (0..rows).map(|r| d_y[r * outputs + o]).sum(), "d_bias");
        }
    }

    #[test]
    fn activations_and_derivatives_take_their_known_values() {
        let pre = [-2.0, 0.0, 3.0];
        for (activation, h_want, slope_want) in [
            (Activation::Relu, [0.0, 0.0, 3.0], [0.0, 0.0, 1.0]),
            (Activation::LeakyRelu, [-0.02, 0.0, 3.0], [0.01, 0.01, 1.0]),
            (
                Activation::Tanh,
                [-0.964_027_580_075_816_9, 0.0, 0.995_054_753_686_730_5],
                [0.070_650_824_853_164_47, 1.0, 0.009_866_037_165_440_211],
            ),
            (
                Activation::Silu,
                [-0.238_405_844_044_235_14, 0.0, 2.857_722_380_467_3],
                [-0.090_784_248_784_894_9, 0.5, 1.088_104_106_015_169_3],
            ),
        ] {
            let (mut h, mut d_pre) = ([f64::NAN; 3], [f64::NAN; 3]);
            activate(activation, &pre, &mut h);
            activate_backward(activation, &pre, &[2.0; 3], &mut d_pre);
            assert_close(&h, |i| h_want[i], "h");
            assert_close(&d_pre, |i| 2.0 * slope_want[i], "d_pre");
            activate(activation, &[f64::NAN], &mut h);
            assert!(h[0].is_nan(), "{activation:?} hides a NaN");
        }
    }
}
