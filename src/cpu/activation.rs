//! Nonlinearities of conditioner networks and their derivatives, elementwise.
//! Twin of `shaders/shared/activation.wgsl`.

use crate::flow::{Activation, LEAKY_SLOPE};

use super::Real;
use super::simd::each;

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
    R::vectorised(
        #[inline(always)]
        || {
            each(to, from, |to, &from| *to = f(from));
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
    R::vectorised(
        #[inline(always)]
        || {
            each(d, pre, |d, &pre| *d = f(pre, *d));
        },
    );
}

/// 1 − tanh² x = 4e / (1 + e)² with e = exp(−2|x|): without the cancellation that saturation brings.
pub fn tanh_slope<R: Real>(x: R) -> R {
    x.tanh_slope_lane()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            for i in 0..3 {
                assert!((h[i] - h_want[i]).abs() < 1e-12, "h[{i}]: got {}, want {}", h[i], h_want[i]);
                let want = 2.0 * slope_want[i];
                assert!((d_pre[i] - want).abs() < 1e-12, "d_pre[{i}]: got {}, want {want}", d_pre[i]);
            }
            activate(activation, &[f64::NAN], &mut h);
            assert!(h[0].is_nan(), "{activation:?} hides a NaN");
        }
    }
}
