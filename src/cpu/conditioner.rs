//! One conditioner network over a tile of rows: forward, and backward into a packed gradient.
//! The composition of the functions in [`super::reference::linear`], on packed weights and with the nonlinearity in the
//! products.

use crate::flow::{Activation, LEAKY_SLOPE};

use super::Real;
use super::activation::{activate, scale_by_slope};
use super::buffer::Buffer;
use super::packed::{Layer, NetworkPlan, Place, stride};
use super::product::{Finish, Matrix, Panels, Start, dots, padded, panels};
use super::simd::{LANES, vectorised};

/// A tile's rows at the kept features [T, kept + 1]; the last column is 1, which makes the bias one more weight in the
/// first layer's gradient.
#[derive(Debug, Default)]
pub(super) struct Kept<R> {
    pub values: Buffer<R>,
    pub rows: usize,
}

/// What a network computed, for its way back.
#[derive(Debug, Default)]
pub(super) struct Trace<R> {
    /// Before the activation, for each hidden layer, in rows [`stride`] apart; only where the activation's slope cannot
    /// be told from its result.
    pre: Vec<Buffer<R>>,
    /// After it.
    hidden: Vec<Buffer<R>>,
}

/// Gradients on their way through a network: at the layer at hand and at the one before.
#[derive(Debug, Default)]
pub(super) struct Gradients<R> {
    above: Buffer<R>,
    below: Buffer<R>,
}

/// Whether a' is known from a's sign alone, so that the pre-activation need not be kept.
fn piecewise_linear<R: Real>(activation: Activation) -> Option<R> {
    match activation {
        Activation::Relu => Some(R::zero()),
        Activation::LeakyRelu => Some(R::from_decimal(LEAKY_SLOPE)),
        Activation::Tanh | Activation::Silu => None,
    }
}

impl<R: Real> Trace<R> {
    /// Runs the network of packed `weights` over `kept`. `output`: at transformed features, in rows
    /// [`Ports::transformed_stride`](super::packed::Ports::transformed_stride) apart.
    pub fn forward(
        &mut self,
        plan: &NetworkPlan,
        activation: Activation,
        weights: &[R],
        kept: &Kept<R>,
        output: &mut [R],
    ) {
        let rows = kept.rows;
        let hidden = plan.layers.len() - 1;
        self.hidden.resize_with(hidden, Buffer::default);
        self.pre.resize_with(hidden, Buffer::default);
        let mut source: (&[R], usize) = (&kept.values, plan.ports.kept.len() + 1);
        for (layer, (h, pre)) in plan.layers.iter().zip(self.hidden.iter_mut().zip(&mut self.pre)) {
            let to_stride = stride::<R>(layer.outputs);
            h.resize(rows * to_stride);
            let finish = match activation {
                Activation::Relu => Finish::Relu,
                Activation::LeakyRelu => Finish::Leaky(R::from_decimal(LEAKY_SLOPE)),
                Activation::Tanh | Activation::Silu => Finish::Identity,
            };
            let smooth = piecewise_linear::<R>(activation).is_none();
            let to = if smooth {
                pre.resize(rows * to_stride);
                &mut *pre
            } else {
                &mut *h
            };
            forward(rows, layer, weights, source, finish, (to, to_stride));
            if smooth {
                activate(activation, pre, h);
            }
            source = (&*h, to_stride);
        }
        let last = &plan.layers[hidden];
        let to_stride = plan.ports.transformed_stride::<R>();
        if plan.ports.thin_output() {
            let depth = padded::<R>(last.inputs);
            let (weight, bias) = (&weights[last.forward..], &weights[last.bias..]);
            let shape = [rows, last.outputs, depth];
            dots(shape, source, weight, Some(bias), output, to_stride);
        } else {
            forward(rows, last, weights, source, Finish::Identity, (output, to_stride));
        }
    }

    /// Backward through the network.
    ///
    /// `d_output`: the gradient at the network's output, in rows as [`Trace::forward`] leaves them; `gradient`: the
    /// network's packed gradient, overwritten, or added to where `add` says so; `d_kept`: the gradient at its input, in
    /// rows [`Ports::kept_stride`](super::packed::Ports::kept_stride) apart, unless nobody wants it.
    #[expect(clippy::too_many_arguments, reason = "the network, its trace, and gradients in and out")]
    pub fn backward(
        &self,
        plan: &NetworkPlan,
        activation: Activation,
        weights: &[R],
        kept: &Kept<R>,
        d_output: &[R],
        gradients: &mut Gradients<R>,
        (gradient, add): (&mut [R], bool),
        d_kept: Option<&mut [R]>,
    ) {
        let rows = kept.rows;
        // The tile's own sum is complete before it is added: so a slot's bits do not depend on what it held.
        let whole = if add { Finish::Add } else { Finish::Identity };
        let Gradients { above, below } = gradients;
        let mut d = (d_output, plan.ports.transformed_stride::<R>());
        for (index, layer) in plan.layers.iter().enumerate().skip(1).rev() {
            let &Layer { inputs, outputs, .. } = layer;
            let (wide, from_stride) = (padded::<R>(inputs), stride::<R>(inputs));
            let source = &self.hidden[index - 1];
            let (left, right) = (Matrix::transposed(d.0, d.1), Panels::rows(source, from_stride));
            let to = &mut gradient[layer.gradient..];
            panels([outputs, wide, rows], left, right, Start::Zero, whole, to, wide);
            sum_rows(d, add, &mut gradient[layer.d_bias..layer.d_bias + outputs]);

            below.resize(rows * from_stride);
            let slope = piecewise_linear(activation);
            let finish = match slope {
                Some(slope) => Finish::Gate { gate: source, slope },
                None => Finish::Identity,
            };
            let (left, right) = (Matrix::rows(d.0, d.1), Panels::packed(&weights[layer.backward..], outputs));
            panels([rows, wide, outputs], left, right, Start::Zero, finish, below, from_stride);
            if slope.is_none() {
                scale_by_slope(activation, &self.pre[index - 1], below);
            }
            std::mem::swap(above, below);
            d = (above, from_stride);
        }

        let first = &plan.layers[0];
        let (wide, kept_stride) = (padded::<R>(first.outputs), first.inputs + 1);
        let (left, right) = (Matrix::transposed(&kept.values, kept_stride), Panels::rows(d.0, d.1));
        let to = &mut gradient[first.gradient..];
        panels([first.inputs + 1, wide, rows], left, right, Start::Zero, whole, to, wide);
        let Some(d_kept) = d_kept else { return };
        let (weight, to_stride) = (&weights[first.backward..], plan.ports.kept_stride::<R>());
        if plan.ports.thin_input() {
            dots([rows, first.inputs, wide], d, weight, None, d_kept, to_stride);
        } else {
            let (left, right) = (Matrix::rows(d.0, d.1), Panels::packed(weight, first.outputs));
            let shape = [rows, to_stride, first.outputs];
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
    let shape = [rows, padded::<R>(layer.outputs), layer.inputs];
    debug_assert!(layer.place != Place::First || source_stride == layer.inputs + 1);
    panels(shape, left, right, start, finish, to, to_stride);
}

/// d_bias = Σ over rows of d, or += where `add`, in the order of the rows.
fn sum_rows<R: Real>((d, stride): (&[R], usize), add: bool, d_bias: &mut [R]) {
    vectorised(
        #[inline(always)]
        || {
            let (blocks, rest) = d_bias.as_chunks_mut::<LANES>();
            let from = blocks.len() * LANES;
            for (place, d_bias) in blocks.iter_mut().enumerate() {
                let mut sums = [R::zero(); LANES];
                for row in d[place * LANES..].chunks(stride) {
                    let Some(row) = row.first_chunk::<LANES>() else { break };
                    for (sum, &d) in sums.iter_mut().zip(row) {
                        *sum += d;
                    }
                }
                for (d_bias, sum) in d_bias.iter_mut().zip(sums) {
                    *d_bias = if add { *d_bias + sum } else { sum };
                }
            }
            for (place, d_bias) in rest.iter_mut().enumerate() {
                let sum = d[from + place..].iter().step_by(stride).fold(R::zero(), |sum, &d| sum + d);
                *d_bias = if add { *d_bias + sum } else { sum };
            }
        },
    );
}
