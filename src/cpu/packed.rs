//! Weights and gradients as the products of [`super::product`] read and write them, and the way between that and the
//! flat buffer of [`crate::layout::Layout`].
//!
//! Only what a coupling's mask lets through is kept: the first layer's inputs are the kept features, the last layer's
//! outputs the numbers of θ of transformed ones. Wide sides are cut into panels, and their ends filled up with zeros.

use crate::layout::{LinearSpan, NetworkSpan};

use super::Real;
use super::product::{padded, panel};
use super::simd::each;

/// Columns up to which a product is made of dots instead of panels.
pub(super) const THIN: usize = 8;

/// Place of a layer in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Middle,
    Last,
}

/// A linear layer of a network, in compact form.
///
/// Offsets count from the beginning of the network's weights or gradients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    pub place: Place,
    /// Kept features in the first layer.
    pub inputs: usize,
    /// In the last layer the network's numbers of θ at transformed features.
    pub outputs: usize,
    /// Whether its input passes through the activation.
    pub activated: bool,
    /// The layer whose result is added to its own.
    pub skip: Option<usize>,
    /// Whether its result is read as it is: by a layer without activation, or by one that adds it to its own result.
    pub read_plain: bool,
    /// Its place in the flat buffer, from the beginning of the network.
    span: LinearSpan,
    /// Weights of the forward pass: panels of outputs `[outputs / panel][inputs][panel]`, or, where the last layer is
    /// thin, rows [outputs, padded inputs].
    pub forward: usize,
    /// `[padded outputs]`.
    pub bias: usize,
    /// Weights of the backward pass: panels of inputs `[inputs / panel][outputs][panel]`, or, where the first layer is
    /// thin, rows [inputs, padded outputs].
    pub backward: usize,
    /// Gradient: [outputs, padded inputs]; in the first layer its transpose, with the bias as a last row,
    /// [inputs + 1, padded outputs].
    pub gradient: usize,
    /// Gradient of the bias `[padded outputs]`; in the first layer part of `gradient`.
    pub d_bias: usize,
}

/// What enters a coupling's networks and what leaves them.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub kept: Vec<usize>,
    pub transformed: Vec<usize>,
}

/// A network between its coupling's ports.
#[derive(Clone, Debug)]
pub(super) struct PackedNetwork {
    pub ports: Ports,
    /// Numbers of θ that it yields for each transformed feature.
    pub numbers: usize,
    /// Outputs of the last linear layer that are used, number by number: output k · T + j is number k of the j-th of T
    /// transformed features.
    outputs: Vec<usize>,
    pub layers: Vec<Layer>,
    /// Values of its packed weights, and of its packed gradient.
    pub weights: usize,
    pub gradient: usize,
}

/// Distance between rows of `width` values: whole panels, and an odd number of them, so that a column's values spread
/// over all sets of a cache.
pub(super) fn stride<R>(width: usize) -> usize {
    (width.div_ceil(panel::<R>()) | 1) * panel::<R>()
}

/// Distance between rows of a network's `count` results: thin ones come as dots and lie side by side, others in padded
/// rows.
fn output_stride<R>(count: usize) -> usize {
    if count <= THIN { count } else { padded::<R>(count) }
}

impl Ports {
    /// Whether the gradient at a network's input comes as dots.
    pub fn thin_input(&self) -> bool {
        self.kept.len() <= THIN
    }

    /// Distance between rows of values at transformed features.
    pub fn transformed_stride<R>(&self) -> usize {
        output_stride::<R>(self.transformed.len())
    }

    /// Distance between rows of gradients at kept features.
    pub fn kept_stride<R>(&self) -> usize {
        let count = self.kept.len();
        if self.thin_input() { count } else { padded::<R>(count) }
    }
}

impl PackedNetwork {
    pub fn new<R>(span: &NetworkSpan, ports: &Ports) -> Self {
        let last = span.layers.len() - 1;
        let numbers = span.numbers;
        let outputs: Vec<usize> = (0..numbers)
            .flat_map(|number| ports.transformed.iter().map(move |feature| feature * numbers + number))
            .collect();
        let used = outputs.len();
        let (mut weights, mut gradient) = (0, 0);
        let take = |total: &mut usize, count: usize| {
            let start = *total;
            *total += padded::<R>(count);
            start
        };
        let layers = (0..=last)
            .map(|layer| {
                let linear = span.layers[layer];
                let [weight, bias] = [linear.weight, linear.bias].map(|offset| offset - span.range.start);
                let linear = LinearSpan { weight, bias, ..linear };
                let (place, inputs, outputs) = match layer {
                    0 => (Place::First, ports.kept.len(), linear.outputs),
                    _ if layer == last => (Place::Last, linear.inputs, used),
                    _ => (Place::Middle, linear.inputs, linear.outputs),
                };
                let (wide_inputs, wide_outputs) = (padded::<R>(inputs), padded::<R>(outputs));
                let (rows, columns) = match place {
                    Place::First => (inputs + 1, wide_outputs),
                    _ => (outputs, wide_inputs),
                };
                Layer {
                    place,
                    inputs,
                    outputs,
                    activated: linear.activated,
                    skip: linear.skip,
                    read_plain: span.layers.iter().enumerate().any(|(reader, other)| {
                        other.skip == Some(layer) || reader == layer + 1 && !other.activated
                    }),
                    span: linear,
                    forward: take(&mut weights, (inputs * wide_outputs).max(outputs * wide_inputs)),
                    bias: take(&mut weights, wide_outputs),
                    backward: take(&mut weights, (outputs * wide_inputs).max(inputs * wide_outputs)),
                    gradient: take(&mut gradient, rows * columns),
                    d_bias: if place == Place::First {
                        gradient - columns
                    } else {
                        take(&mut gradient, wide_outputs)
                    },
                }
            })
            .collect();
        Self { ports: ports.clone(), numbers, outputs, layers, weights, gradient }
    }

    /// Whether its results come as dots, one value an output, and not in padded rows.
    pub fn thin_output(&self) -> bool {
        self.outputs.len() <= THIN
    }

    /// Distance between rows of its results.
    pub fn output_stride<R>(&self) -> usize {
        output_stride::<R>(self.outputs.len())
    }

    /// Packs its weights from its stretch of the flat buffer.
    pub fn pack<R: Real>(&self, flat: &[R], to: &mut [R]) {
        R::vectorised(
            #[inline(always)]
            || {
                for layer in &self.layers {
                    self.pack_layer(layer, flat, to);
                }
            },
        );
    }

    #[inline(always)]
    fn pack_layer<R: Real>(&self, layer: &Layer, flat: &[R], to: &mut [R]) {
        let ports = &self.ports;
        let &Layer { inputs, outputs, span, .. } = layer;
        let weight = &flat[span.weight..span.weight + span.inputs * span.outputs];
        let bias = &flat[span.bias..span.bias + span.outputs];
        match layer.place {
            Place::First => {
                let at = |k: usize, o: usize| weight[o * span.inputs + ports.kept[k]];
                pack_panels(inputs, outputs, at, &mut to[layer.forward..]);
                if ports.thin_input() {
                    pack_rows(inputs, outputs, at, &mut to[layer.backward..]);
                } else {
                    pack_panels(outputs, inputs, |o, k| at(k, o), &mut to[layer.backward..]);
                }
                to[layer.bias..layer.bias + outputs].copy_from_slice(bias);
            }
            Place::Middle => {
                pack_transposed(inputs, weight, &mut to[layer.forward..]);
                pack_panels(outputs, inputs, |o, i| weight[o * inputs + i], &mut to[layer.backward..]);
                to[layer.bias..layer.bias + outputs].copy_from_slice(bias);
            }
            Place::Last => {
                let at = |o: usize, i: usize| weight[self.outputs[o] * inputs + i];
                if self.thin_output() {
                    pack_rows(outputs, inputs, at, &mut to[layer.forward..]);
                } else {
                    pack_panels(inputs, outputs, |i, o| at(o, i), &mut to[layer.forward..]);
                }
                pack_panels(outputs, inputs, at, &mut to[layer.backward..]);
                each(&mut to[layer.bias..], &self.outputs, |to, &output| *to = bias[output]);
            }
        }
    }

    /// Unpacks the sum of packed gradients into its stretch of the flat gradient. Where a mask lets nothing through the
    /// flat gradient stays as it is, which is zero.
    pub fn unpack<R: Real>(&self, sum: &[R], flat: &mut [R]) {
        let ports = &self.ports;
        for layer in &self.layers {
            let &Layer { inputs, outputs, span, .. } = layer;
            let rows = match layer.place {
                Place::First => sum[layer.gradient..].chunks_exact(padded::<R>(outputs)),
                _ => sum[layer.gradient..].chunks_exact(padded::<R>(inputs)),
            };
            let d_bias = &sum[layer.d_bias..layer.d_bias + outputs];
            match layer.place {
                Place::First => {
                    for (row, &feature) in rows.zip(&ports.kept) {
                        for (o, &value) in row[..outputs].iter().enumerate() {
                            flat[span.weight + o * span.inputs + feature] = value;
                        }
                    }
                    flat[span.bias..span.bias + outputs].copy_from_slice(d_bias);
                }
                Place::Middle => {
                    let weights = flat[span.weight..span.bias].chunks_exact_mut(inputs);
                    for (to, row) in weights.zip(rows) {
                        to.copy_from_slice(&row[..inputs]);
                    }
                    flat[span.bias..span.bias + outputs].copy_from_slice(d_bias);
                }
                Place::Last => {
                    for ((row, &output), &d_bias) in rows.zip(&self.outputs).zip(d_bias) {
                        let to = span.weight + output * inputs;
                        flat[to..to + inputs].copy_from_slice(&row[..inputs]);
                        flat[span.bias + output] = d_bias;
                    }
                }
            }
        }
    }
}

/// `[columns / panel][depth][panel]` of `at(depth, column)`, filled up with zeros.
#[inline(always)]
pub(super) fn pack_panels<R: Real>(
    depth: usize,
    columns: usize,
    at: impl Fn(usize, usize) -> R,
    to: &mut [R],
) {
    if depth == 0 {
        return;
    }
    let width = panel::<R>();
    for (place, to) in to.chunks_exact_mut(depth * width).enumerate().take(columns.div_ceil(width)) {
        let first = place * width;
        let count = width.min(columns - first);
        for (k, to) in to.chunks_exact_mut(width).enumerate() {
            if count == width {
                for (j, to) in to.iter_mut().enumerate() {
                    *to = at(k, first + j);
                }
            } else {
                for (j, to) in to.iter_mut().enumerate() {
                    *to = if j < count { at(k, first + j) } else { R::zero() };
                }
            }
        }
    }
}

/// `[rows / panel][width][panel]` of the transpose of `matrix` [rows, width], filled up with zeros.
#[inline(always)]
fn pack_transposed<R: Real>(width: usize, matrix: &[R], to: &mut [R]) {
    let panel = panel::<R>();
    for (place, rows) in matrix.chunks(panel * width).enumerate() {
        let to = &mut to[place * width * panel..][..width * panel];
        if rows.len() < panel * width {
            to.fill(R::zero());
        }
        for (place, row) in rows.chunks_exact(width).enumerate().take(panel) {
            for (column, &value) in row.iter().enumerate() {
                to[column * panel + place] = value;
            }
        }
    }
}

/// Rows [rows, padded width] of `at(row, column)`, filled up with zeros.
#[inline(always)]
fn pack_rows<R: Real>(rows: usize, width: usize, at: impl Fn(usize, usize) -> R, to: &mut [R]) {
    for (row, to) in to.chunks_exact_mut(padded::<R>(width)).take(rows).enumerate() {
        for (column, to) in to[..width].iter_mut().enumerate() {
            *to = at(row, column);
        }
        to[width..].fill(R::zero());
    }
}
