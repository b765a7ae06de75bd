//! The dispatches of a coupling. A network with n hidden layers has n + 1 linear ones.
//!
//! Where each number of θ has a network of its own, the last layers and the bijector [share a dispatch](shares_a_dispatch),
//! because a workgroup computes the same tile of each number. That makes n + 1 dispatches forward, and n + 1 backward:
//! the gradient has been through the bijector before, in the last kernel of the transform behind. Where one network yields
//! θ, the bijector takes a dispatch of its own in either direction.
//!
//! Backward, a dispatch makes the gradients of a layer's weights and of its input side by side, for both read the same and
//! neither waits for the other; that of the first layer hands the gradient on to the transform before.

use std::ops::Range;

use super::super::kernel::{
    COUPLING_FORWARD, COUPLING_INVERSE, Constant, ELEMENTWISE_BACKWARD, ELEMENTWISE_FORWARD,
    ELEMENTWISE_INVERSE, FIRST_LAYER_BACKWARD, Kernel, LINEAR_BACKWARD, LINEAR_FORWARD,
};
use super::super::plan::{BufferId, Dispatch, Plan, Program, grid, groups_of_256};
use super::super::tile::{Product, Tile};
use super::super::uniforms;
use super::{Cost, Direction, Gradients, Recorder, Stored, TransformBackward, TransformPass};
use crate::flow::{ConditionerForm, Coupling};
use crate::layout::{LinearSpan, NetworkSpan};

/// Whether the last layers of a coupling's networks and its bijector share a dispatch.
pub(super) fn shares_a_dispatch(coupling: &Coupling) -> bool {
    coupling.conditioner.form == ConditionerForm::Separate
}

/// Its features, kept ones first, then for each feature 1 if it is kept: [2, D].
pub(super) fn order(coupling: &Coupling) -> Vec<u32> {
    let (kept, transformed) = coupling.split();
    let features = kept.into_iter().chain(transformed).map(|feature| feature as u32);
    features.chain(coupling.mask.iter().map(|&kept| u32::from(kept))).collect()
}

/// Values of a row of [`Gradients`].
#[derive(Default)]
pub(super) struct Widths {
    pub coupling: usize,
    pub pre: [usize; 2],
    pub theta: usize,
}

/// A linear layer of a coupling, in all of its networks.
#[derive(Clone, Copy)]
struct Linear<'a> {
    transform: usize,
    coupling: &'a Coupling,
    networks: &'a [NetworkSpan],
    /// Its place among the layers of each network.
    index: usize,
    /// Features that feed the first layer, and that the last one yields θ for.
    kept: usize,
    transformed: usize,
}

impl<'a> Linear<'a> {
    fn layers(&self) -> &'a [LinearSpan] {
        &self.networks[0].layers
    }

    fn span(&self) -> &'a LinearSpan {
        &self.layers()[self.index]
    }

    fn is_first(&self) -> bool {
        self.index == 0
    }

    fn is_last(&self) -> bool {
        self.index + 1 == self.layers().len()
    }

    /// Inputs that feed it.
    fn inputs(&self) -> usize {
        if self.is_first() { self.kept } else { self.span().inputs }
    }

    /// Outputs that leave it.
    fn outputs(&self) -> usize {
        if self.is_last() { self.transformed * self.networks[0].numbers } else { self.span().outputs }
    }

    /// Weights in use, of all networks.
    fn weights(&self) -> usize {
        self.networks.len() * self.inputs() * self.outputs()
    }

    /// Values of a row of its input: one plane where all networks read the same.
    fn input_values(&self) -> usize {
        if self.is_first() { self.inputs() } else { self.networks.len() * self.inputs() }
    }

    /// Values of a row of its result.
    fn output_values(&self) -> usize {
        self.networks.len() * self.outputs()
    }

    /// Whether its input is added to the result of a later layer too.
    fn begins_skip(&self) -> bool {
        !self.is_first() && self.layers().iter().any(|layer| layer.skip == Some(self.index - 1))
    }
}

/// Values of a row of each layer's result but the last.
fn hidden_values(networks: &[NetworkSpan]) -> impl Iterator<Item = usize> {
    let layers = networks.first().map_or(&[][..], |network| &network.layers);
    layers.iter().take(layers.len().saturating_sub(1)).map(|layer| networks.len() * layer.outputs)
}

impl Recorder<'_> {
    /// Allocates what the couplings among these transforms keep, if only one of them does at a time.
    pub(super) fn store_couplings(&self, plan: &mut Plan, label: &str, transforms: Range<usize>) -> Stored {
        let (mut hidden, mut theta) = (Vec::<usize>::new(), 0);
        for transform in transforms {
            let Some(coupling) = self.flow.transforms[transform].coupling() else { continue };
            let networks = &self.layout.blocks[transform].networks;
            for (layer, values) in hidden_values(networks).enumerate() {
                hidden.resize(hidden.len().max(layer + 1), 0);
                hidden[layer] = hidden[layer].max(values);
            }
            theta = theta.max(if shares_a_dispatch(coupling) {
                coupling.bijector.saved() * self.flow.features
            } else {
                coupling.bijector.parameters() * coupling.split().1.len()
            });
        }
        let rows = self.shared.capacity;
        let hidden = hidden.iter().enumerate();
        Stored {
            pre: hidden
                .map(|(layer, values)| plan.buffer(format!("{label}pre_activations.{layer}"), rows * values))
                .collect(),
            theta: (theta > 0).then(|| plan.buffer(format!("{label}theta"), rows * theta)),
            ..Stored::default()
        }
    }

    /// Values of a row of what couplings need in the backward pass.
    pub(super) fn gradient_widths(&self) -> Widths {
        let mut widths = Widths { coupling: self.flow.features, ..Widths::default() };
        for (transform, block) in self.flow.transforms.iter().zip(&self.layout.blocks) {
            let Some(coupling) = transform.coupling() else { continue };
            // A skip connection leads over two layers: its gradient adds up in one of the two buffers.
            for (layer, values) in hidden_values(&block.networks).enumerate() {
                widths.pre[layer % 2] = values.max(widths.pre[layer % 2]);
            }
            let parameters = coupling.bijector.parameters();
            if shares_a_dispatch(coupling) {
                widths.coupling = widths.coupling.max((1 + parameters) * self.flow.features);
            } else {
                widths.theta = widths.theta.max(parameters * coupling.split().1.len());
            }
        }
        widths
    }

    fn linear(&self, transform: usize, index: usize) -> Linear<'_> {
        let coupling = self.flow.transforms[transform].coupling();
        let coupling = coupling.expect("invariant: the dispatches of a coupling are asked for");
        let kept = coupling.mask.iter().filter(|kept| **kept).count();
        let networks = &self.layout.blocks[transform].networks;
        Linear { transform, coupling, networks, index, kept, transformed: self.flow.features - kept }
    }

    /// A layer as the kernels see it, with its input and output activations.
    fn layer(&self, linear: &Linear) -> uniforms::Layer {
        let span = linear.span();
        let plane = self.shared.capacity * self.flow.features;
        // Behind the plane of the gradient that goes from transform to transform.
        let behind = linear.is_last() && shares_a_dispatch(linear.coupling);
        uniforms::Layer {
            inputs: linear.inputs() as u32,
            outputs: linear.outputs() as u32,
            input_width: span.inputs as u32,
            output_width: span.outputs as u32,
            weight: span.weight as u32,
            bias: span.bias as u32,
            network_stride: linear.networks[0].range.len() as u32,
            source_stride: if linear.is_first() { 0 } else { (self.shared.capacity * span.inputs) as u32 },
            d_output: if behind { plane as u32 } else { 0 },
            ..self.bijection(linear)
        }
    }

    /// What its bijector is told.
    fn bijection(&self, linear: &Linear) -> uniforms::Layer {
        uniforms::Layer {
            kept: linear.kept as u32,
            bound: linear.coupling.bijector.bound(),
            ..self.uniform(linear.transform)
        }
    }

    fn tile(&self, kernel: &Kernel, linear: &Linear) -> Tile {
        self.tiling.tile(&Product {
            kernel: kernel.name,
            rows: self.shared.capacity,
            inputs: linear.inputs(),
            outputs: linear.outputs(),
        })
    }

    /// Constants of a layer's kernel; `adds`: a skip connection adds to its result; `passes`: it passes a gradient on.
    fn constants(&self, linear: &Linear, tile: Tile, adds: bool, passes: bool) -> Vec<Constant> {
        let mut constants = vec![
            ("NETWORKS", linear.networks.len() as u32),
            ("FIRST", u32::from(linear.is_first())),
            ("LAST", u32::from(linear.is_last())),
            ("NETWORK_NUMBERS", linear.networks[0].numbers as u32),
            ("ACTIVATION", self.flow.activation.code()),
            ("ACTIVATED", u32::from(linear.span().activated)),
            ("ADDS", u32::from(adds)),
        ];
        constants.extend(tile.constants());
        if passes {
            constants.extend(self.through(linear.transform));
        } else {
            constants.extend(linear.coupling.bijector.constants());
        }
        constants
    }

    /// A dispatch of a layer.
    fn tiled(
        &self,
        kernel: &'static Kernel,
        linear: &Linear,
        (uniform, constants): (&uniforms::Layer, Vec<Constant>),
        buffers: Vec<BufferId>,
        workgroups: [u32; 3],
        cost: Cost,
    ) -> Dispatch {
        let tile = self.tile(kernel, linear);
        let label = format!("transforms.{} layer {}, {tile}", linear.transform, linear.index);
        Self::untiled(kernel, label, constants, uniform, buffers, workgroups, cost)
    }

    pub(super) fn coupling_rows(&self, program: &mut Program, pass: &TransformPass) {
        let first = self.linear(pass.transform, 0);
        let apart = !shares_a_dispatch(first.coupling);
        let depth = first.layers().len();
        let theta = pass.stored.theta.expect("invariant: a coupling stores θ");
        let mut input = pass.source;
        for index in 0..depth - usize::from(!apart) {
            let linear = Linear { index, ..first };
            let output = if linear.is_last() { theta } else { pass.stored.pre[index] };
            let skip = linear.span().skip.map(|from| pass.stored.pre[from]);
            program.dispatches.push(self.linear_forward(&linear, input, skip, output));
            input = output;
        }
        program.dispatches.push(if apart {
            self.elementwise(&first, pass, theta)
        } else {
            self.last_layers(&Linear { index: depth - 1, ..first }, pass, input, theta)
        });
    }

    /// A layer forward; `skip` is added to its result.
    fn linear_forward(
        &self,
        linear: &Linear,
        input: BufferId,
        skip: Option<BufferId>,
        output: BufferId,
    ) -> Dispatch {
        let shared = &self.shared;
        let rows = shared.capacity;
        let tile = self.tile(&LINEAR_FORWARD, linear);
        let (weights, results) = (linear.weights(), linear.output_values());
        let added = if skip.is_some() { results } else { 0 };
        self.tiled(
            &LINEAR_FORWARD,
            linear,
            (&self.layer(linear), self.constants(linear, tile, skip.is_some(), false)),
            // Without a skip connection nothing is read in its place.
            vec![shared.extent, shared.parameters, input, shared.order, output, skip.unwrap_or(input)],
            [tile.across(linear.outputs()), tile.down(rows), linear.networks.len() as u32],
            Cost {
                flops: rows * (2 * weights + added),
                words: rows * (linear.input_values() + results + added) + weights,
            },
        )
    }

    /// The last layers of separate networks with the bijector.
    fn last_layers(
        &self,
        linear: &Linear,
        pass: &TransformPass,
        input: BufferId,
        saved: BufferId,
    ) -> Dispatch {
        let shared = &self.shared;
        let rows = shared.capacity;
        let kernel = match pass.direction {
            Direction::Forward => &COUPLING_FORWARD,
            Direction::Inverse => &COUPLING_INVERSE,
        };
        let tile = self.tile(kernel, linear);
        let uniform = uniforms::Layer { begins: u32::from(pass.begins), ..self.layer(linear) };
        let (weights, features, transformed) = (linear.weights(), self.flow.features, linear.transformed);
        let [each, _] = linear.coupling.bijector.flops();
        // Rows in and out, what is saved out; log_det of features in and out, or of all of them out.
        let saved_values = linear.coupling.bijector.saved() * transformed;
        let coupled = 2 * features + saved_values + if pass.begins { features } else { 2 * transformed };
        self.tiled(
            kernel,
            linear,
            (&uniform, self.constants(linear, tile, false, false)),
            vec![
                shared.extent,
                shared.parameters,
                input,
                shared.order,
                pass.source,
                pass.destination,
                shared.log_dets,
                saved,
            ],
            [tile.across(transformed.max(linear.kept)), tile.down(rows), 1],
            Cost {
                flops: rows * (2 * weights + each * transformed),
                words: rows * (linear.input_values() + coupled) + weights,
            },
        )
    }

    /// The bijector by itself, on θ as one network left it.
    fn elementwise(&self, linear: &Linear, pass: &TransformPass, theta: BufferId) -> Dispatch {
        let shared = &self.shared;
        let (rows, features, transformed) = (shared.capacity, self.flow.features, linear.transformed);
        let bijector = linear.coupling.bijector;
        let [each, _] = bijector.flops();
        let summed = if pass.begins { features } else { 2 * transformed };
        Self::untiled(
            match pass.direction {
                Direction::Forward => &ELEMENTWISE_FORWARD,
                Direction::Inverse => &ELEMENTWISE_INVERSE,
            },
            format!("transforms.{} bijector", pass.transform),
            bijector.constants(),
            &uniforms::Layer { begins: u32::from(pass.begins), ..self.bijection(linear) },
            vec![shared.extent, shared.order, pass.source, pass.destination, shared.log_dets, theta],
            groups_of_256(rows * features),
            Cost {
                flops: rows * each * transformed,
                words: rows * (bijector.parameters() * transformed + 2 * features + summed),
            },
        )
    }

    pub(super) fn coupling_backward(&self, program: &mut Program, pass: &TransformBackward) {
        let first = self.linear(pass.transform, 0);
        let Gradients { d_pre, .. } = pass.gradients;
        let mut d_output = pass.d_coupling;
        if !shares_a_dispatch(first.coupling) {
            d_output =
                pass.gradients.d_theta.expect("invariant: allocated for couplings whose bijector is apart");
            program.dispatches.push(self.elementwise_backward(&first, pass, d_output));
        }
        for index in (1..first.layers().len()).rev() {
            let linear = Linear { index, ..first };
            let source = pass.stored.pre[index - 1];
            let ends = [d_output, d_pre[(index - 1) % 2]];
            program.dispatches.push(self.linear_backward(&linear, pass.gradients, source, ends));
            d_output = ends[1];
        }
        program.dispatches.push(self.first_layer_backward(&first, pass, d_output));
    }

    /// The bijector by itself, backward: from the gradient at the coupling's result those at its input and at θ.
    fn elementwise_backward(&self, linear: &Linear, pass: &TransformBackward, d_theta: BufferId) -> Dispatch {
        let shared = &self.shared;
        let values = shared.capacity * linear.transformed;
        let bijector = linear.coupling.bijector;
        let [_, each] = bijector.flops();
        let [input, result] = pass.rows;
        let theta = pass.stored.theta.expect("invariant: a coupling stores θ");
        Self::untiled(
            &ELEMENTWISE_BACKWARD,
            format!("transforms.{} bijector", pass.transform),
            [vec![self.differentiated()], bijector.constants()].concat(),
            &self.bijection(linear),
            vec![
                shared.extent,
                if bijector.from_input() { input } else { result },
                shared.order,
                theta,
                pass.d_coupling,
                d_theta,
            ],
            groups_of_256(values),
            // The gradient in and out, a value, what is read of θ, and its gradient.
            Cost { flops: values * each, words: values * (3 + bijector.saved() + bijector.parameters()) },
        )
    }

    /// What the weight gradient of a layer takes: workgroups, and its cost.
    fn weight_gradient(&self, linear: &Linear, tile: Tile, gradients: &Gradients) -> (usize, Cost) {
        let rows = self.shared.capacity;
        let splits = self.splits(gradients);
        // One at least: it makes the gradient of the bias too.
        let tiles = tile.across(linear.inputs().max(1)) as usize * tile.down(linear.outputs()) as usize;
        let weights = linear.weights();
        let read = rows * (linear.input_values() + linear.output_values());
        let flops = if splits > 0 { 2 * rows * weights } else { 0 };
        let cost = Cost { flops, words: read + splits * weights };
        (linear.networks.len() * tiles * splits, cost)
    }

    /// A layer after the first, backward; `ends`: the gradient at its result, and where that at its input goes.
    fn linear_backward(
        &self,
        linear: &Linear,
        gradients: &Gradients,
        source: BufferId,
        ends: [BufferId; 2],
    ) -> Dispatch {
        let shared = &self.shared;
        let rows = shared.capacity;
        let tile = self.tile(&LINEAR_BACKWARD, linear);
        let (weight_groups, Cost { flops, words }) = self.weight_gradient(linear, tile, gradients);
        let input_groups = linear.networks.len() as u32 * tile.across(linear.inputs()) * tile.down(rows);
        let rows_per_split = gradients.rows_per_split as u32;
        let uniform = uniforms::Layer { input_groups, rows_per_split, ..self.layer(linear) };
        let (weights, adds) = (linear.weights(), linear.begins_skip());
        let mut constants = self.constants(linear, tile, adds, false);
        constants.push(self.differentiated());
        let added = if adds { linear.input_values() } else { 0 };
        self.tiled(
            &LINEAR_BACKWARD,
            linear,
            (&uniform, constants),
            vec![
                shared.extent,
                shared.parameters,
                source,
                shared.order,
                ends[0],
                gradients.partials,
                ends[1],
            ],
            grid(input_groups as usize + weight_groups),
            Cost {
                flops: flops + rows * (2 * weights + added),
                words: words + rows * (linear.input_values() + added) + weights,
            },
        )
    }

    /// The first layer backward, and the gradient's way on to the transform before, through its bijector where that has
    /// no dispatch of its own.
    fn first_layer_backward(
        &self,
        linear: &Linear,
        pass: &TransformBackward,
        d_output: BufferId,
    ) -> Dispatch {
        let shared = &self.shared;
        let (rows, features, kept) = (shared.capacity, self.flow.features, linear.kept);
        let tile = self.tile(&FIRST_LAYER_BACKWARD, linear);
        let (weight_groups, mut cost) = self.weight_gradient(linear, tile, pass.gradients);
        let mut input_groups = 0;
        if self.wants_input_gradient(pass.transform) {
            let [passed, each] = self.passed(pass.transform);
            // The gradient that is carried, in and out; through a bijector also the other features of z; o in, d_o and
            // d_t out.
            let (moved, others) = match self.coupling_before(pass.transform) {
                Some(_) => (2 * features + linear.transformed + 3 * passed, linear.transformed),
                None => (2 * kept, 0),
            };
            input_groups = tile.across(kept.max(others)) * tile.down(rows);
            cost.flops += rows * (2 * linear.weights() + each * passed);
            cost.words += rows * moved + linear.weights();
        }
        let rows_per_split = pass.gradients.rows_per_split as u32;
        let source = pass.rows[0];
        self.tiled(
            &FIRST_LAYER_BACKWARD,
            linear,
            (
                &uniforms::Layer { input_groups, rows_per_split, ..self.layer(linear) },
                self.constants(linear, tile, false, true),
            ),
            vec![
                shared.extent,
                shared.parameters,
                source,
                shared.order,
                d_output,
                pass.gradients.partials,
                self.saved(pass.transform, pass.before, source),
                pass.d_coupling,
            ],
            grid(input_groups as usize + weight_groups),
            cost,
        )
    }
}
