//! One conditioner network over a tile of rows: forward, and backward into a packed gradient.
//! The composition of the functions in [`super::reference::linear`], on packed weights and with the nonlinearity in the
//! products.

use crate::flow::{Activation, LEAKY_SLOPE};

use super::Real;
use super::activation::{activate, scale_by_slope};
use super::buffer::Buffer;
use super::code::Sum;
use super::packed::{Layer, PackedNetwork, Place, stride};
use super::product::{Finish, Matrix, Panels, Start, dots, padded, panels};
use super::simd::{LANES, each};

/// A tile's rows at the kept features [T, kept + 1]; the last column is 1, which makes the bias one more weight in the
/// first layer's gradient.
#[derive(Debug, Default)]
pub(super) struct Kept<R> {
    pub values: Buffer<R>,
    pub rows: usize,
}

/// What the forward pass of a network leaves for the backward pass.
#[derive(Debug, Default)]
pub(super) struct Trace<R> {
    /// Before the activation, for each layer but the last, in rows [`stride`] apart; only where the activation's slope
    /// cannot be told from its result, and where a later layer reads it.
    pre: Vec<Buffer<R>>,
    /// After it, where a later layer reads it.
    hidden: Vec<Buffer<R>>,
}

impl<R> Trace<R> {
    /// What layer number `index` > 0 reads.
    fn input(&self, layer: &Layer, index: usize) -> &Buffer<R> {
        if layer.activated { &self.hidden[index - 1] } else { &self.pre[index - 1] }
    }
}

/// Gradients in the backward pass through a network: at the current layer, at the one before, and at one whose result is
/// also added to a later layer's.
#[derive(Debug, Default)]
pub(super) struct LayerGradients<R> {
    above: Buffer<R>,
    below: Buffer<R>,
    skipped: Buffer<R>,
}

/// Whether a' is known from a's sign alone, so that the pre-activation need not be kept.
fn piecewise_linear<R: Real>(activation: Activation) -> Option<R> {
    match activation {
        Activation::Relu => Some(R::zero()),
        Activation::LeakyRelu => Some(R::from_decimal(LEAKY_SLOPE)),
        Activation::Tanh | Activation::Silu => None,
    }
}

impl PackedNetwork {
    /// Runs the network with its packed `weights` over `kept`. `output`: its results, in rows
    /// [`PackedNetwork::output_stride`] apart.
    pub fn forward<R: Real>(
        &self,
        activation: Activation,
        weights: &[R],
        kept: &Kept<R>,
        trace: &mut Trace<R>,
        output: &mut [R],
    ) {
        let rows = kept.rows;
        let hidden = self.layers.len() - 1;
        trace.hidden.resize_with(hidden, Buffer::default);
        trace.pre.resize_with(hidden, Buffer::default);
        for (index, layer) in self.layers[..hidden].iter().enumerate() {
            self.hidden_layer(index, layer, activation, weights, kept, trace);
        }
        let last = &self.layers[hidden];
        let source: (&[R], usize) = (trace.input(last, hidden), stride::<R>(last.inputs));
        let to_stride = self.output_stride::<R>();
        if self.thin_output() {
            let depth = padded::<R>(last.inputs);
            let (weight, bias) = (&weights[last.forward..], &weights[last.bias..]);
            let shape = [rows, last.outputs, depth];
            dots(shape, source, weight, Some(bias), output, to_stride);
        } else {
            forward(rows, last, weights, source, Finish::Identity, (output, to_stride));
        }
    }

    /// Layer number `index` of those before the last, with the activation of its result.
    fn hidden_layer<R: Real>(
        &self,
        index: usize,
        layer: &Layer,
        activation: Activation,
        weights: &[R],
        kept: &Kept<R>,
        trace: &mut Trace<R>,
    ) {
        let rows = kept.rows;
        let to_stride = stride::<R>(layer.outputs);
        let (mut pre, mut h) =
            (std::mem::take(&mut trace.pre[index]), std::mem::take(&mut trace.hidden[index]));
        let source: (&[R], usize) = match index {
            0 => (&kept.values, self.ports.kept.len() + 1),
            _ => (trace.input(layer, index), stride::<R>(layer.inputs)),
        };
        let finish = match activation {
            Activation::Relu => Finish::Relu,
            Activation::LeakyRelu => Finish::Leaky(R::from_decimal(LEAKY_SLOPE)),
            Activation::Tanh | Activation::Silu => Finish::Identity,
        };
        if layer.read_plain || piecewise_linear::<R>(activation).is_none() {
            pre.resize(rows * to_stride);
            let finish = match layer.skip {
                Some(skip) => {
                    pre.copy_from_slice(&trace.pre[skip]);
                    Finish::Add
                }
                None => Finish::Identity,
            };
            forward(rows, layer, weights, source, finish, (&mut pre, to_stride));
            if self.layers[index + 1].activated {
                h.resize(rows * to_stride);
                activate(activation, &pre, &mut h);
            }
        } else {
            h.resize(rows * to_stride);
            forward(rows, layer, weights, source, finish, (&mut h, to_stride));
        }
        (trace.pre[index], trace.hidden[index]) = (pre, h);
    }

    /// Backward through the network, which left `trace`.
    ///
    /// `d_output`: the gradient at its results, in rows as [`PackedNetwork::forward`] leaves them; `gradient`: its packed
    /// gradient; `d_kept`: the gradient at its input, in rows [`Ports::kept_stride`](super::packed::Ports::kept_stride)
    /// apart. What is `None` is not computed.
    #[expect(clippy::too_many_arguments, reason = "the network, its trace, and gradients in and out")]
    pub fn backward<R: Real>(
        &self,
        activation: Activation,
        weights: &[R],
        kept: &Kept<R>,
        trace: &Trace<R>,
        d_output: &[R],
        gradients: &mut LayerGradients<R>,
        mut gradient: Option<Sum<R>>,
        d_kept: Option<&mut [R]>,
    ) {
        let rows = kept.rows;
        // The tile's own sum is complete before it is added: so a slot's bits do not depend on what it held.
        let finish = |add: bool| if add { Finish::Add } else { Finish::Identity };
        let LayerGradients { above, below, skipped } = gradients;
        let mut d = (d_output, self.output_stride::<R>());
        let mut added_to = None;
        for (index, layer) in self.layers.iter().enumerate().skip(1).rev() {
            let &Layer { inputs, outputs, .. } = layer;
            let (wide, from_stride) = (padded::<R>(inputs), stride::<R>(inputs));
            let source = trace.input(layer, index);
            if let Some(Sum { values, add }) = &mut gradient {
                let (left, right) = (Matrix::transposed(d.0, d.1), Panels::rows(source, from_stride));
                let to = &mut values[layer.gradient..];
                panels([outputs, inputs, rows], left, right, Start::Zero, finish(*add), to, wide);
                sum_rows(d, *add, &mut values[layer.d_bias..layer.d_bias + outputs]);
            }

            if layer.skip.is_some() {
                added_to = layer.skip;
                skipped.resize(d.0.len());
                skipped.copy_from_slice(d.0);
            }
            below.resize(rows * from_stride);
            let slope = piecewise_linear(activation);
            let finish = match slope {
                Some(slope) if layer.activated => Finish::Gate { gate: source, slope },
                _ => Finish::Identity,
            };
            let (left, right) = (Matrix::rows(d.0, d.1), Panels::packed(&weights[layer.backward..], outputs));
            panels([rows, inputs, outputs], left, right, Start::Zero, finish, below, from_stride);
            if layer.activated && slope.is_none() {
                scale_by_slope(activation, &trace.pre[index - 1], below);
            }
            if added_to == Some(index - 1) {
                each(below, skipped, |d, &skipped| *d += skipped);
            }
            std::mem::swap(above, below);
            d = (above, from_stride);
        }

        let first = &self.layers[0];
        let (wide, kept_stride) = (padded::<R>(first.outputs), first.inputs + 1);
        if let Some(Sum { values, add }) = &mut gradient {
            let (left, right) = (Matrix::transposed(&kept.values, kept_stride), Panels::rows(d.0, d.1));
            let to = &mut values[first.gradient..];
            let shape = [first.inputs + 1, first.outputs, rows];
            panels(shape, left, right, Start::Zero, finish(*add), to, wide);
        }
        let Some(d_kept) = d_kept else { return };
        let (weight, to_stride) = (&weights[first.backward..], self.ports.kept_stride::<R>());
        if self.ports.thin_input() {
            dots([rows, first.inputs, wide], d, weight, None, d_kept, to_stride);
        } else {
            let (left, right) = (Matrix::rows(d.0, d.1), Panels::packed(weight, first.outputs));
            let shape = [rows, first.inputs, first.outputs];
            panels(shape, left, right, Start::Zero, Finish::Identity, d_kept, to_stride);
        }
    }
}

/// A layer's result by panels: to = finish(source · Wᵀ + b), in padded rows.
fn forward<R: Real>(
    rows: usize,
    layer: &Layer,
    weights: &[R],
    (source, source_stride): (&[R], usize),
    finish: Finish<R>,
    (to, to_stride): (&mut [R], usize),
) {
    let (left, right) =
        (Matrix::rows(source, source_stride), Panels::packed(&weights[layer.forward..], layer.inputs));
    let start = Start::Bias(&weights[layer.bias..]);
    let shape = [rows, layer.outputs, layer.inputs];
    debug_assert!(layer.place != Place::First || source_stride == layer.inputs + 1);
    panels(shape, left, right, start, finish, to, to_stride);
}

/// d_bias = Σ over rows of d, or += where `add`, in the order of the rows.
fn sum_rows<R: Real>(d: (&[R], usize), add: bool, d_bias: &mut [R]) {
    R::vectorised(
        #[inline(always)]
        || match d.1 {
            LANES.. => sum_blocks::<R, LANES>(d, add, d_bias),
            HALF.. => sum_blocks::<R, HALF>(d, add, d_bias),
            _ => sum_blocks::<R, 1>(d, add, d_bias),
        },
    );
}

const HALF: usize = LANES / 2;

/// The same in blocks of `BLOCK` outputs, at most a row. What lies between a row's outputs and the next row is summed with
/// them and dropped.
#[inline(always)]
fn sum_blocks<R: Real, const BLOCK: usize>((d, stride): (&[R], usize), add: bool, d_bias: &mut [R]) {
    for (place, d_bias) in d_bias.chunks_mut(BLOCK).enumerate() {
        let mut sums = [R::zero(); BLOCK];
        for row in d[place * BLOCK..].chunks(stride) {
            if let Some(row) = row.first_chunk::<BLOCK>() {
                each(&mut sums, row, |sum, &d| *sum += d);
            } else {
                // The last row may end within the block.
                let mut last = [R::zero(); BLOCK];
                each(&mut last, row, |last, &d| *last = d);
                each(&mut sums, &last, |sum, &d| *sum += d);
            }
        }
        each(d_bias, &sums, |d_bias, &sum| *d_bias = if add { *d_bias + sum } else { sum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of the columns of 5 rows `stride` apart, each value another power of 2, with NaN beyond the `outputs`.
    fn sums_every_row<R: Real>(outputs: usize, stride: usize) {
        let value = |row: usize| R::from_wide(f64::from(1u32 << row));
        let at = |place: usize| if place % stride < outputs { value(place / stride) } else { R::nan() };
        let d: Vec<R> = (0..5 * stride).map(at).collect();
        for (add, all) in [(false, 31.0), (true, 131.0)] {
            let mut sums = vec![R::from_wide(100.0); outputs];
            sum_rows((&d, stride), add, &mut sums);
            assert!(sums.iter().all(|sum| sum.wide() == all), "{outputs} of {stride}: {sums:?}");
        }
    }

    #[test]
    fn gradients_of_biases_sum_every_row_whatever_the_width() {
        for outputs in 1..=3 * LANES {
            for stride in [outputs, outputs + 1, outputs.next_multiple_of(HALF)] {
                sums_every_row::<f32>(outputs, stride);
                sums_every_row::<f64>(outputs, stride);
            }
        }
    }
}
