//! Linear layers and their nonlinearities, forward and backward: what conditioner networks are made of.
//! Twin of `shaders/linear.wgsl`; every matrix is row-major, rows are the rows of a batch.

use gemm::Parallelism;

use crate::flow::{Activation, LEAKY_SLOPE};

use super::Real;
use super::simd::vectorised;
use super::thin::{self, THIN};

/// h = a(pre), elementwise. A NaN stays a NaN.
pub fn activate<R: Real>(activation: Activation, pre: &[R], h: &mut [R]) {
    let slope = R::from_decimal(LEAKY_SLOPE);
    let (zero, one) = (R::zero(), R::one());
    match activation {
        Activation::Relu => map(pre, h, |x| if x < zero { zero } else { x }),
        Activation::Tanh => map(pre, h, R::tanh),
        Activation::LeakyRelu => map(pre, h, |x| if x > zero { x } else { slope * x }),
        Activation::Silu => map(pre, h, |x| x / (one + (-x).exp())),
    }
}

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
    let slope = R::from_decimal(LEAKY_SLOPE);
    let (zero, one) = (R::zero(), R::one());
    match activation {
        Activation::Relu => map_backward(pre, d_h, d_pre, |x, d| if x > zero { d } else { zero }),
        Activation::Tanh => map_backward(pre, d_h, d_pre, |x, d| d * tanh_slope(x)),
        Activation::LeakyRelu => map_backward(pre, d_h, d_pre, |x, d| if x > zero { d } else { slope * d }),
        Activation::Silu => map_backward(pre, d_h, d_pre, |x, d| {
            let sigmoid = one / (one + (-x).exp());
            d * sigmoid * (one + x * (one - sigmoid))
        }),
    }
}

/// 1 − tanh² x = 4e / (1 + e)² with e = exp(−2|x|): without the cancellation that saturation brings.
pub fn tanh_slope<R: Real>(x: R) -> R {
    let (one, two) = (R::one(), R::one() + R::one());
    let e = (-two * x.abs()).exp();
    two * two * e / ((one + e) * (one + e))
}

fn map_backward<R: Real>(pre: &[R], d_h: &[R], d_pre: &mut [R], f: impl Fn(R, R) -> R) {
    vectorised(
        #[inline(always)]
        || {
            for ((d_pre, &pre), &d_h) in d_pre.iter_mut().zip(pre).zip(d_h) {
                *d_pre = f(pre, d_h);
            }
        },
    );
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
    let (x, y) = (&x[..rows * inputs], &mut y[..rows * outputs]);
    if inputs <= THIN {
        return thin::forward_thin_inputs(inputs, x, weight, bias, y);
    }
    if outputs <= THIN {
        return thin::forward_thin_outputs(inputs, x, weight, bias, y);
    }
    for y in y.chunks_exact_mut(outputs) {
        y.copy_from_slice(bias);
    }
    multiply(
        [rows, outputs, inputs],
        Matrix::rows(x, inputs),
        Matrix::transposed(weight, inputs),
        Store::Add,
        y,
    );
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
    if outputs <= THIN {
        let (d_y, d_x) = (&d_y[..rows * outputs], &mut d_x[..rows * inputs]);
        return thin::backward_input_thin_outputs(outputs, inputs, d_y, weight, d_x);
    }
    multiply(
        [rows, inputs, outputs],
        Matrix::rows(d_y, outputs),
        Matrix::rows(weight, inputs),
        Store::Set,
        d_x,
    );
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
    let (x, d_y) = (&x[..rows * inputs], &d_y[..rows * outputs]);
    if outputs <= THIN {
        thin::backward_weight_thin_outputs(outputs, inputs, x, d_y, d_weight);
    } else if inputs <= THIN {
        thin::backward_weight_thin_inputs(outputs, inputs, x, d_y, d_weight);
    } else {
        multiply(
            [outputs, inputs, rows],
            Matrix::transposed(d_y, outputs),
            Matrix::rows(x, inputs),
            Store::Set,
            d_weight,
        );
    }
    vectorised(
        #[inline(always)]
        || {
            d_bias.fill(R::zero());
            for d_y in d_y.chunks_exact(outputs) {
                for (sum, &d) in d_bias.iter_mut().zip(d_y) {
                    *sum += d;
                }
            }
        },
    );
}

/// A matrix that lies in `values`, with its distances between rows and between columns.
#[derive(Clone, Copy)]
struct Matrix<'a, R> {
    values: &'a [R],
    row_stride: usize,
    column_stride: usize,
}

impl<'a, R> Matrix<'a, R> {
    /// `values` as rows of `width` values.
    fn rows(values: &'a [R], width: usize) -> Self {
        Self { values, row_stride: width, column_stride: 1 }
    }

    /// The transpose of `values` as rows of `width` values.
    fn transposed(values: &'a [R], width: usize) -> Self {
        Self { values, row_stride: 1, column_stride: width }
    }

    /// Values that a view of this many rows and columns reaches.
    fn reach(&self, rows: usize, columns: usize) -> usize {
        if rows == 0 || columns == 0 {
            return 0;
        }
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride + 1
    }
}

/// What happens to the values that the destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Set,
    Add,
}

/// `y` = left · right, or `y` += left · right, for left [m, k], right [k, n] and y row-major [m, n].
///
/// On the calling thread, so that the order of summation depends on the shape alone.
fn multiply<R: Real>([m, n, k]: [usize; 3], left: Matrix<R>, right: Matrix<R>, store: Store, y: &mut [R]) {
    assert!(left.values.len() >= left.reach(m, k), "left factor holds less than [{m}, {k}]");
    assert!(right.values.len() >= right.reach(k, n), "right factor holds less than [{k}, {n}]");
    assert!(y.len() >= m * n, "product holds less than [{m}, {n}]");
    // SAFETY: the assertions above keep every index inside of the three slices; a slice's length fits isize, so
    // the strides do; `y` is borrowed exclusively and overlaps neither factor; R is f32 or f64, which gemm has.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            store == Store::Add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            R::one(),
            R::one(),
            false,
            false,
            false,
            Parallelism::None,
        );
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
