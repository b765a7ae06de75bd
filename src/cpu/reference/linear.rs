//! Linear layers, forward and backward: what conditioner networks are made of.
//! Every matrix is row-major, rows are the rows of a batch; each term of a sum is rounded once.

use super::super::Real;

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
}
