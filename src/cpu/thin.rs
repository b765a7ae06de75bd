//! Linear layers with a side of at most [`THIN`]: a flow over few features has two of them in every network, and a
//! general matrix product spends longer on arranging such operands than on multiplying them.

use super::Real;
use super::simd::{LANES, vectorised};

/// Widest side that is thin.
pub(super) const THIN: usize = 4;

/// Calls `$function` with the thin width as a constant, so that its loops are unrolled.
macro_rules! with_width {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            1 => vectorised(#[inline(always)] || $function::<R, 1>($($argument),*)),
            2 => vectorised(#[inline(always)] || $function::<R, 2>($($argument),*)),
            3 => vectorised(#[inline(always)] || $function::<R, 3>($($argument),*)),
            _ => vectorised(#[inline(always)] || $function::<R, 4>($($argument),*)),
        }
    };
}

/// y = x · Wᵀ + b for thin x. Arguments as in [`super::linear::linear_forward`].
pub(super) fn forward_thin_inputs<R: Real>(inputs: usize, x: &[R], weight: &[R], bias: &[R], y: &mut [R]) {
    with_width!(inputs, forward_inputs(x, weight, bias, y));
}

#[inline(always)]
fn forward_inputs<R: Real, const K: usize>(x: &[R], weight: &[R], bias: &[R], y: &mut [R]) {
    let weight = weight.as_chunks::<K>().0;
    for (x, y) in x.as_chunks::<K>().0.iter().zip(y.chunks_exact_mut(bias.len())) {
        for ((y, &bias), weight) in y.iter_mut().zip(bias).zip(weight) {
            let mut sum = bias;
            for k in 0..K {
                sum += x[k] * weight[k];
            }
            *y = sum;
        }
    }
}

/// y = x · Wᵀ + b for thin y.
pub(super) fn forward_thin_outputs<R: Real>(inputs: usize, x: &[R], weight: &[R], bias: &[R], y: &mut [R]) {
    with_width!(bias.len(), forward_outputs(inputs, x, weight, bias, y));
}

#[inline(always)]
fn forward_outputs<R: Real, const K: usize>(inputs: usize, x: &[R], weight: &[R], bias: &[R], y: &mut [R]) {
    for (x, y) in x.chunks_exact(inputs).zip(y.as_chunks_mut::<K>().0) {
        for k in 0..K {
            y[k] = bias[k] + dot(x, &weight[k * inputs..(k + 1) * inputs]);
        }
    }
}

/// Σ a·b over lanes that are added at the end, in a fixed order.
#[inline(always)]
fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [R::zero(); LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let mut sum = R::zero();
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        sum += a * b;
    }
    lanes.iter().fold(sum, |sum, &lane| sum + lane)
}

/// d_x = d_y · W for thin d_y. Arguments as in [`super::linear::linear_backward_input`].
pub(super) fn backward_input_thin_outputs<R: Real>(
    outputs: usize,
    inputs: usize,
    d_y: &[R],
    weight: &[R],
    d_x: &mut [R],
) {
    with_width!(outputs, backward_input_outputs(inputs, d_y, weight, d_x));
}

#[inline(always)]
fn backward_input_outputs<R: Real, const K: usize>(inputs: usize, d_y: &[R], weight: &[R], d_x: &mut [R]) {
    for (d_y, d_x) in d_y.as_chunks::<K>().0.iter().zip(d_x.chunks_exact_mut(inputs)) {
        for (i, d_x) in d_x.iter_mut().enumerate() {
            let mut sum = R::zero();
            for k in 0..K {
                sum += d_y[k] * weight[k * inputs + i];
            }
            *d_x = sum;
        }
    }
}

/// d_W = d_yᵀ · x for thin d_y. Arguments as in [`super::linear::linear_backward_weight`].
pub(super) fn backward_weight_thin_outputs<R: Real>(
    outputs: usize,
    inputs: usize,
    x: &[R],
    d_y: &[R],
    d_weight: &mut [R],
) {
    with_width!(outputs, backward_weight_outputs(inputs, x, d_y, d_weight));
}

#[inline(always)]
fn backward_weight_outputs<R: Real, const K: usize>(inputs: usize, x: &[R], d_y: &[R], d_weight: &mut [R]) {
    d_weight.fill(R::zero());
    for (d_y, x) in d_y.as_chunks::<K>().0.iter().zip(x.chunks_exact(inputs)) {
        for (&d_y, d_weight) in d_y.iter().zip(d_weight.chunks_exact_mut(inputs)) {
            for (d_weight, &x) in d_weight.iter_mut().zip(x) {
                *d_weight += d_y * x;
            }
        }
    }
}

/// d_W = d_yᵀ · x for thin x.
pub(super) fn backward_weight_thin_inputs<R: Real>(
    outputs: usize,
    inputs: usize,
    x: &[R],
    d_y: &[R],
    d_weight: &mut [R],
) {
    with_width!(inputs, backward_weight_inputs(outputs, x, d_y, d_weight));
}

#[inline(always)]
fn backward_weight_inputs<R: Real, const K: usize>(outputs: usize, x: &[R], d_y: &[R], d_weight: &mut [R]) {
    let d_weight = d_weight.as_chunks_mut::<K>().0;
    d_weight.fill([R::zero(); K]);
    for (x, d_y) in x.as_chunks::<K>().0.iter().zip(d_y.chunks_exact(outputs)) {
        for (d_weight, &d_y) in d_weight.iter_mut().zip(d_y) {
            for k in 0..K {
                d_weight[k] += d_y * x[k];
            }
        }
    }
}
