//! The layered plan's building blocks: a flow's dispatches, layer by layer, for any width. With n hidden layers a
//! coupling takes n + 1 dispatches forward and n + 1 backward, each for both networks.
//!
//! Forward: a dispatch for each hidden layer, and one for the last layer together with the coupling. Backward: one
//! for each layer, which makes the gradients of its weights and of its input side by side, for both read the same and
//! neither waits for the other; that of the first layer also takes the gradient through the coupling before.

mod evaluation;
mod training;

use super::kernel::{
    ACTNORM_BACKWARD, ACTNORM_FORWARD, ACTNORM_INVERSE, COUPLING_BACKWARD, COUPLING_FORWARD,
    COUPLING_INVERSE, Constant, Kernel, LINEAR_BACKWARD, LINEAR_FORWARD, LOG_DENSITY, LOG_DENSITY_BACKWARD,
    LOG_DETERMINANT,
};
use super::plan::{BufferId, Dispatch, Plan, Program, grid, groups_of_256, lanes};
use super::tile::{Product, Tile, Tiling};
use super::uniforms;
use crate::flow::{Coupling, Flow, Transform};
use crate::layout::Layout;

/// Buffers through which a flow is computed, `capacity` rows at a time.
struct FlowBuffers {
    capacity: usize,
    extent: BufferId,
    parameters: BufferId,
    /// [L, 2, D], as [`Recorder::order`] has it.
    order: BufferId,
    /// Each feature's share of log_det [capacity, D].
    shares: BufferId,
}

/// What a coupling's networks keep for the backward pass.
struct Activations {
    /// Pre-activations of each hidden layer [2, capacity, width].
    pre: Vec<BufferId>,
    /// What the bijector saves [SAVED, capacity, D], at transformed features.
    saved: BufferId,
}

/// What the backward pass of a training step writes.
struct Gradients {
    /// Of the pre-activations of each hidden layer [2, capacity, width].
    d_pre: Vec<BufferId>,
    /// On its way from transform to transform, and of θ [1 + PARAMETERS, capacity, D].
    d_coupling: BufferId,
    /// Of the parameters [splits, P]. Masked entries are never written and stay zero.
    partials: BufferId,
    /// Rows that a split sums.
    rows_per_split: usize,
}

/// Appends a flow's dispatches to programs.
struct Recorder<'a> {
    flow: &'a Flow,
    layout: &'a Layout,
    tiling: &'a Tiling,
    shared: FlowBuffers,
}

impl Recorder<'_> {
    /// For each transform that is a coupling its features, kept ones first, then for each feature 1 if it is kept:
    /// [L, 2, D].
    fn order(flow: &Flow) -> Vec<u32> {
        let mut order = vec![0; 2 * flow.transforms.len() * flow.features];
        for (transform, order) in flow.transforms.iter().zip(order.chunks_exact_mut(2 * flow.features)) {
            let Some(coupling) = transform.coupling() else { continue };
            let (kept, transformed) = coupling.split();
            let features = kept.into_iter().chain(transformed).map(|feature| feature as u32);
            let flags = coupling.mask.iter().map(|&kept| u32::from(kept));
            order.iter_mut().zip(features.chain(flags)).for_each(|(to, value)| *to = value);
        }
        order
    }

    /// Allocates what the networks of a coupling with these hidden widths keep.
    fn activations(&self, plan: &mut Plan, label: &str, hidden: &[usize]) -> Activations {
        let pre = self.pre_activations(plan, &format!("{label}pre_activations"), hidden);
        let numbers = self.flow.couplings().map(|coupling| coupling.bijector.saved()).max().unwrap_or(1);
        let size = numbers * self.shared.capacity * self.flow.features;
        Activations { pre, saved: plan.buffer(format!("{label}saved by the bijector"), size) }
    }

    /// Allocates one buffer [2, capacity, width] a hidden layer.
    fn pre_activations(&self, plan: &mut Plan, label: &str, hidden: &[usize]) -> Vec<BufferId> {
        let hidden = hidden.iter().enumerate();
        hidden
            .map(|(layer, width)| plan.buffer(format!("{label}.{layer}"), 2 * self.shared.capacity * width))
            .collect()
    }

    /// For each hidden layer the widest that any coupling has.
    fn widest(&self) -> Vec<usize> {
        self.flow.couplings().fold(Vec::new(), |mut widest, coupling| {
            let hidden = &coupling.conditioner.hidden;
            widest.resize(widest.len().max(hidden.len()), 0);
            widest.iter_mut().zip(hidden).for_each(|(widest, width)| *widest = (*widest).max(*width));
            widest
        })
    }

    fn coupling(&self, transform: usize) -> &Coupling {
        self.flow.transforms[transform].coupling().expect("invariant: a coupling is asked for")
    }

    /// What every kernel of transform number `transform` is told; of the coupling before it, if there is one, what its
    /// bijector needs.
    fn uniform(&self, transform: usize) -> uniforms::Layer {
        let features = self.flow.features;
        let before = self.coupling_before(transform);
        uniforms::Layer {
            parameters: self.layout.total as u32,
            capacity: self.shared.capacity as u32,
            features: features as u32,
            order: (2 * transform * features) as u32,
            through: (2 * transform.saturating_sub(1) * features) as u32,
            through_bound: before.map_or(0.0, |coupling| coupling.bijector.bound()),
            lanes: lanes(features),
            modelled: self.flow.modelled() as u32,
            ..Default::default()
        }
    }

    /// A layer as the kernels see it, with its input and output activations.
    fn layer(&self, transform: usize, layer: usize) -> uniforms::Layer {
        let coupling = self.coupling(transform);
        let networks = &self.layout.blocks[transform].networks;
        let span = networks[0].layers[layer];
        let features = self.flow.features;
        let kept = coupling.mask.iter().filter(|kept| **kept).count();
        let (first, last) = (layer == 0, layer + 1 == networks[0].layers.len());
        uniforms::Layer {
            inputs: if first { kept } else { span.inputs } as u32,
            outputs: if last { features - kept } else { span.outputs } as u32,
            input_width: span.inputs as u32,
            output_width: span.outputs as u32,
            weight: span.weight as u32,
            bias: span.bias as u32,
            network_stride: networks[0].range.len() as u32,
            source_stride: if first { 0 } else { (self.shared.capacity * span.inputs) as u32 },
            // Behind the plane of the gradient that goes from transform to transform.
            d_output: if last { (self.shared.capacity * features) as u32 } else { 0 },
            kept: kept as u32,
            bound: coupling.bijector.bound(),
            ..self.uniform(transform)
        }
    }

    /// The coupling before transform number `transform`, where a backward kernel passes its gradient on to it at once.
    fn coupling_before(&self, transform: usize) -> Option<&Coupling> {
        self.flow.transforms[transform.checked_sub(1)?].coupling()
    }

    /// Constants of a kernel that ends in `shaders/layered/through.wgsl`, for transform number `transform`.
    fn through(&self, transform: usize) -> Vec<Constant> {
        match self.coupling_before(transform) {
            Some(before) => [vec![("THROUGH", 1)], before.bijector.constants()].concat(),
            None => vec![("THROUGH", 0)],
        }
    }

    /// Constants of a layer's kernel.
    fn constants(&self, transform: usize, layer: usize, backward: bool, tile: Tile) -> Vec<Constant> {
        let depth = self.layout.blocks[transform].networks[0].layers.len();
        let mut constants = vec![
            ("FIRST", u32::from(layer == 0)),
            ("LAST", u32::from(layer + 1 == depth)),
            ("ACTIVATION", self.flow.activation.code()),
        ];
        constants.extend(tile.constants());
        if layer == 0 && backward {
            constants.extend(self.through(transform));
        } else {
            constants.extend(self.coupling(transform).bijector.constants());
        }
        constants
    }

    fn tile(&self, kernel: &Kernel, layer: &uniforms::Layer) -> Tile {
        self.tiling.tile(&Product {
            kernel: kernel.name,
            rows: self.shared.capacity,
            inputs: layer.inputs as usize,
            outputs: layer.outputs as usize,
        })
    }

    /// A dispatch of `kernel` for layer `layer`; `cost` is (FLOPs, words moved).
    fn dispatch(
        &self,
        kernel: &'static Kernel,
        layer: usize,
        uniform: &uniforms::Layer,
        buffers: Vec<BufferId>,
        workgroups: [u32; 3],
        (flops, words): (usize, usize),
    ) -> Dispatch {
        let transform = uniform.order as usize / (2 * self.flow.features);
        let tile = self.tile(kernel, uniform);
        let backward = kernel.bindings.iter().any(|binding| binding.name == "partials");
        Dispatch {
            kernel,
            label: format!("transforms.{transform} layer {layer}, {tile}"),
            constants: self.constants(transform, layer, backward, tile),
            uniform: bytemuck::bytes_of(uniform).to_vec(),
            buffers,
            workgroups,
            flops: flops as u64,
            bytes: 4 * words as u64,
        }
    }

    /// Transform number `transform`, forward or inverse, from the rows `source` to the rows `destination`; `begins` starts
    /// log_det at zero.
    fn transform(
        &self,
        program: &mut Program,
        direction: Direction,
        transform: usize,
        begins: bool,
        ends: [BufferId; 2],
        activations: &Activations,
    ) {
        match self.flow.transforms[transform] {
            Transform::Coupling(_) => {
                self.coupling_rows(program, direction, transform, begins, ends, activations);
            }
            Transform::Lu | Transform::Permutation { .. } => unreachable!("refused by the engine"),
            Transform::Actnorm => self.actnorm_rows(program, direction, transform, begins, ends),
        }
    }

    fn coupling_rows(
        &self,
        program: &mut Program,
        direction: Direction,
        transform: usize,
        begins: bool,
        [source, destination]: [BufferId; 2],
        activations: &Activations,
    ) {
        let shared = &self.shared;
        let rows = shared.capacity;
        let mut input = source;
        let hidden = self.coupling(transform).conditioner.hidden.len();
        for (layer, &output) in activations.pre[..hidden].iter().enumerate() {
            let uniform = self.layer(transform, layer);
            let tile = self.tile(&LINEAR_FORWARD, &uniform);
            let Operands { inputs, outputs, planes, weights } = Operands::new(&uniform, layer);
            program.dispatches.push(self.dispatch(
                &LINEAR_FORWARD,
                layer,
                &uniform,
                vec![shared.extent, shared.parameters, input, shared.order, output],
                [tile.across(outputs), tile.down(rows), 2],
                (2 * rows * weights, planes * rows * inputs + 2 * rows * outputs + weights),
            ));
            input = output;
        }

        let layer = hidden;
        let uniform = uniforms::Layer { begins: u32::from(begins), ..self.layer(transform, layer) };
        let kernel = match direction {
            Direction::Forward => &COUPLING_FORWARD,
            Direction::Inverse => &COUPLING_INVERSE,
        };
        let tile = self.tile(kernel, &uniform);
        let Operands { inputs, outputs, weights, .. } = Operands::new(&uniform, layer);
        let (features, kept) = (self.flow.features, uniform.kept as usize);
        // Rows in and out, raw log-scales out; shares of log_det in and out, or all of them out.
        let coupled = 2 * features + outputs + if begins { features } else { 2 * outputs };
        program.dispatches.push(self.dispatch(
            kernel,
            layer,
            &uniform,
            vec![
                shared.extent,
                shared.parameters,
                input,
                shared.order,
                source,
                destination,
                shared.shares,
                activations.saved,
            ],
            [tile.across(outputs.max(kept)), tile.down(rows), 1],
            (2 * rows * weights + 15 * rows * outputs, rows * (2 * inputs + coupled) + weights),
        ));
    }

    /// Gradients of transform number `transform`, whose d_coupling is there. `source`: its input; `before`: what the coupling
    /// before it saved.
    fn transform_backward(
        &self,
        program: &mut Program,
        transform: usize,
        source: BufferId,
        pre: &[BufferId],
        before: BufferId,
        gradients: &Gradients,
    ) {
        match self.flow.transforms[transform] {
            Transform::Coupling(_) => {
                self.coupling_backward(program, transform, source, pre, before, gradients);
            }
            Transform::Lu | Transform::Permutation { .. } => unreachable!("refused by the engine"),
            Transform::Actnorm => self.actnorm_backward(program, transform, source, before, gradients),
        }
    }

    /// What the kernels of an actnorm are told: where its shifts and its log-scales begin.
    fn actnorm(&self, transform: usize) -> uniforms::Layer {
        let start = self.layout.blocks[transform].range.start;
        let [weight, bias] = [start, start + self.flow.modelled()].map(|offset| offset as u32);
        uniforms::Layer { weight, bias, ..self.uniform(transform) }
    }

    fn actnorm_rows(
        &self,
        program: &mut Program,
        direction: Direction,
        transform: usize,
        begins: bool,
        [source, destination]: [BufferId; 2],
    ) {
        let shared = &self.shared;
        let values = shared.capacity * self.flow.features;
        let uniform = uniforms::Layer { begins: u32::from(begins), ..self.actnorm(transform) };
        program.dispatches.push(Dispatch {
            kernel: match direction {
                Direction::Forward => &ACTNORM_FORWARD,
                Direction::Inverse => &ACTNORM_INVERSE,
            },
            label: format!("transforms.{transform} actnorm"),
            constants: Vec::new(),
            uniform: bytemuck::bytes_of(&uniform).to_vec(),
            buffers: vec![shared.extent, shared.parameters, source, destination, shared.shares],
            workgroups: groups_of_256(values),
            flops: (12 * values) as u64,
            bytes: (4 * values * if begins { 3 } else { 4 }) as u64,
        });
    }

    fn actnorm_backward(
        &self,
        program: &mut Program,
        transform: usize,
        source: BufferId,
        before: BufferId,
        gradients: &Gradients,
    ) {
        let shared = &self.shared;
        let (rows, features) = (shared.capacity, self.flow.features);
        let splits = rows.div_ceil(gradients.rows_per_split);
        let rows_per_split = gradients.rows_per_split as u32;
        let uniform = uniforms::Layer { rows_per_split, ..self.actnorm(transform) };
        let through = self.coupling_before(transform).map_or(0, |coupling| coupling.split().1.len());
        program.dispatches.push(Dispatch {
            kernel: &ACTNORM_BACKWARD,
            label: format!("transforms.{transform} actnorm"),
            constants: self.through(transform),
            uniform: bytemuck::bytes_of(&uniform).to_vec(),
            buffers: vec![
                shared.extent,
                shared.parameters,
                source,
                shared.order,
                gradients.partials,
                before,
                gradients.d_coupling,
            ],
            workgroups: [features.div_ceil(lanes(features) as usize) as u32, splits as u32, 1],
            flops: (rows * (8 * features + 20 * through)) as u64,
            bytes: (4 * rows * (3 * features + 3 * through)) as u64,
        });
    }

    fn coupling_backward(
        &self,
        program: &mut Program,
        transform: usize,
        source: BufferId,
        pre: &[BufferId],
        before: BufferId,
        gradients: &Gradients,
    ) {
        let shared = &self.shared;
        let rows = shared.capacity;
        let splits = rows.div_ceil(gradients.rows_per_split);
        let mut d_output = gradients.d_coupling;
        for layer in (0..=pre.len()).rev() {
            let mut uniform = self.layer(transform, layer);
            uniform.rows_per_split = gradients.rows_per_split as u32;
            let kernel = if layer == 0 { &COUPLING_BACKWARD } else { &LINEAR_BACKWARD };
            let tile = self.tile(kernel, &uniform);
            let Operands { inputs, outputs, planes, weights } = Operands::new(&uniform, layer);
            let product = 2 * rows * weights;
            let (input_tiles, cost) = match layer {
                // Nothing before the first transform asks for the gradient at its input.
                0 if transform == 0 => (0, (0, 0)),
                0 => {
                    let (features, kept) = (self.flow.features, uniform.kept as usize);
                    let through =
                        self.coupling_before(transform).map_or(0, |coupling| coupling.split().1.len());
                    // The other features of z, the carried gradient in and out; o in, d_o and d_t out.
                    let passed = features - kept + 2 * features + 3 * through;
                    let tiles = tile.across(kept.max(features - kept));
                    (tiles, (product + 20 * rows * features, rows * passed + weights))
                }
                _ => (2 * tile.across(inputs), (product, planes * rows * inputs + weights)),
            };
            let input_groups = input_tiles * tile.down(rows);
            let weight_groups = 2 * tile.across(inputs) as usize * tile.down(outputs) as usize * splits;
            uniform.input_groups = input_groups;
            let mut buffers = vec![shared.extent, shared.parameters, source, shared.order, d_output];
            buffers.push(gradients.partials);
            if layer == 0 {
                buffers.extend([before, gradients.d_coupling]);
            } else {
                buffers[2] = pre[layer - 1];
                d_output = gradients.d_pre[layer - 1];
                buffers.push(d_output);
            }
            let read = planes * rows * inputs + 2 * rows * outputs;
            program.dispatches.push(self.dispatch(
                kernel,
                layer,
                &uniform,
                buffers,
                grid(input_groups as usize + weight_groups),
                (product + cost.0, read + splits * weights + cost.1),
            ));
        }
    }

    /// A dispatch that sums features, [`lanes`] threads to a row.
    fn sum_rows(
        &self,
        program: &mut Program,
        kernel: &'static Kernel,
        buffers: Vec<BufferId>,
        flops: usize,
        words: usize,
    ) {
        let behind = self.flow.transforms.len();
        let uniform = self.uniform(behind);
        let rows = self.shared.capacity;
        program.dispatches.push(Dispatch {
            kernel,
            label: "base density".into(),
            constants: self.through(behind),
            uniform: bytemuck::bytes_of(&uniform).to_vec(),
            buffers,
            workgroups: [(rows * lanes(self.flow.features) as usize).div_ceil(256) as u32, 1, 1],
            flops: (rows * flops) as u64,
            bytes: (4 * rows * words) as u64,
        });
    }

    /// log_det and log p of every row from latent rows.
    fn log_density(&self, program: &mut Program, latent: BufferId, log_prob: BufferId, log_det: BufferId) {
        let (features, shared) = (self.flow.features, &self.shared);
        let buffers = vec![shared.extent, latent, shared.shares, log_prob, log_det];
        self.sum_rows(program, &LOG_DENSITY, buffers, 3 * features, 2 * features + 2);
    }

    /// log_det of every row.
    fn log_determinant(&self, program: &mut Program, log_det: BufferId) {
        let (features, shared) = (self.flow.features, &self.shared);
        let buffers = vec![shared.extent, shared.shares, log_det];
        self.sum_rows(program, &LOG_DETERMINANT, buffers, features, features + 1);
    }

    /// log p of every row from latent rows, and the gradient, through the last transform where that is a coupling, which has
    /// `saved`.
    fn log_density_backward(
        &self,
        program: &mut Program,
        latent: BufferId,
        saved: BufferId,
        log_prob: BufferId,
        d_coupling: BufferId,
    ) {
        let (features, shared) = (self.flow.features, &self.shared);
        let transformed =
            self.coupling_before(self.flow.transforms.len()).map_or(0, |coupling| coupling.split().1.len());
        let buffers = vec![shared.extent, latent, shared.order, saved, d_coupling, shared.shares, log_prob];
        let words = 3 * features + 3 * transformed + 1;
        self.sum_rows(program, &LOG_DENSITY_BACKWARD, buffers, 23 * features, words);
    }

    /// The whole pass between two alternating buffers; returns the one that holds the result.
    fn pass(
        &self,
        program: &mut Program,
        rows: [BufferId; 2],
        activations: &Activations,
        direction: Direction,
    ) -> BufferId {
        let layers = self.flow.transforms.len();
        let mut rows = rows;
        for place in 0..layers {
            let transform = match direction {
                Direction::Forward => place,
                Direction::Inverse => layers - 1 - place,
            };
            self.transform(program, direction, transform, place == 0, rows, activations);
            rows.reverse();
        }
        rows[0]
    }
}

/// Sizes of a layer's products, for their costs.
struct Operands {
    inputs: usize,
    outputs: usize,
    /// Planes of the input: one where both networks read the same rows.
    planes: usize,
    /// Weights in use, of both networks.
    weights: usize,
}

impl Operands {
    fn new(uniform: &uniforms::Layer, layer: usize) -> Self {
        let (inputs, outputs) = (uniform.inputs as usize, uniform.outputs as usize);
        Self { inputs, outputs, planes: if layer == 0 { 1 } else { 2 }, weights: 2 * inputs * outputs }
    }
}

/// The way through a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Data to latent.
    Forward,
    /// Latent to data.
    Inverse,
}
