//! The layered plan: a flow's dispatches, layer by layer, for any width.
//!
//! [`training`] makes the plan of a training; there a batch begins, is gathered, goes forward and back, and updates the
//! parameters. [`Recorder`] appends the dispatches of the passes: [`Recorder::forward`] and [`Recorder::backward`] call what
//! each kind of transform has in a file of its own ([`coupling`], [`actnorm`], [`lu`], [`permutation`]), and [`density`] what
//! the base density has. `evaluation` and `score` are the plans without an update.

mod actnorm;
mod coupling;
mod density;
mod evaluation;
mod lu;
mod mixture;
mod permutation;
mod score;
mod training;

use std::ops::Range;

use super::kernel::{Constant, Kernel};
use super::plan::{BufferId, Dispatch, Plan, Program, lanes};
use super::tile::Tiling;
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
    /// log_det of each feature [capacity, D], which the base density's kernels sum.
    log_dets: BufferId,
    /// Of a base density that is a mixture, [`Recorder::whitened`].
    whitened: Option<BufferId>,
}

/// What transforms keep for the backward pass. A kind uses what it needs.
#[derive(Default)]
struct Stored {
    /// Of a coupling, pre-activations of each layer but the last [networks, capacity, width].
    pre: Vec<BufferId>,
    /// Of a coupling's θ, what its bijector reads in the backward pass: [SAVED, capacity, D] at transformed features, or all
    /// of it, [capacity, T · NUMBERS]; see [`coupling::shares_a_dispatch`].
    theta: Option<BufferId>,
    /// Of an LU layer, U · x [capacity, D], at modelled features.
    between: Option<BufferId>,
}

/// What the backward pass of a training step writes.
struct Gradients {
    /// The gradient between transforms, then of each number of θ that has a network of its own:
    /// [1 + numbers, capacity, D]. Two, in alternation, where a transform cannot leave its result in place.
    d_coupling: Vec<BufferId>,
    /// Of θ where one network yields it [capacity, T · NUMBERS].
    d_theta: Option<BufferId>,
    /// Of the pre-activations of layers, in two alternating buffers [networks, capacity, width] at most: while that of one
    /// layer is computed, the other holds that of the layer after it.
    d_pre: Vec<BufferId>,
    /// Of what lies between the triangles of an LU layer [capacity, D].
    d_between: Option<BufferId>,
    /// Of the parameters [splits, P]. Masked entries are never written and stay zero.
    partials: BufferId,
    /// Rows that a split sums.
    rows_per_split: usize,
}

/// What a backward pass differentiates: `shaders/layered/layer.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factor {
    /// The mean of −log p over rows.
    Mean,
    /// Their mean by the rows' weights.
    Weighted,
    /// log p of each row, with respect to the row.
    Score,
}

/// Appends a flow's dispatches to programs.
struct Recorder<'a> {
    flow: &'a Flow,
    layout: &'a Layout,
    tiling: &'a Tiling,
    factor: Factor,
    shared: FlowBuffers,
}

/// What a transform's forward pass, or its inverse, reads and writes.
struct TransformPass<'a> {
    direction: Direction,
    /// Number of the transform.
    transform: usize,
    /// Whether log_det starts with it.
    begins: bool,
    source: BufferId,
    destination: BufferId,
    stored: &'a Stored,
}

/// What a transform's backward pass reads and writes.
struct TransformBackward<'a> {
    /// Number of the transform.
    transform: usize,
    /// Which of [`Gradients::d_coupling`] holds the gradient at its result.
    d_coupling: BufferId,
    /// Its input and its result.
    rows: [BufferId; 2],
    stored: &'a Stored,
    /// What the transform before it stored.
    before: Option<&'a Stored>,
    gradients: &'a Gradients,
}

/// What a dispatch costs: floating-point operations, and 32-bit words moved.
#[derive(Clone, Copy)]
struct Cost {
    flops: usize,
    words: usize,
}

impl Recorder<'_> {
    /// What kernels know of the order of features, for each transform [L, 2, D]: `shaders/layered/layer.wgsl`.
    fn order(flow: &Flow) -> Vec<u32> {
        let order = |transform: &Transform| match transform {
            Transform::Coupling(coupling) => coupling::order(coupling),
            Transform::Permutation { permutation } => permutation::places(permutation, flow.features),
            Transform::Actnorm | Transform::Lu => vec![0; 2 * flow.features],
        };
        flow.transforms.iter().flat_map(order).collect()
    }

    /// Allocates what these transforms keep, if only one of them keeps anything at a time.
    fn store(&self, plan: &mut Plan, label: &str, transforms: Range<usize>) -> Stored {
        let lu = self.flow.transforms[transforms.clone()].contains(&Transform::Lu);
        let size = self.shared.capacity * self.flow.features;
        let between = lu.then(|| plan.buffer(format!("{label}between L and U"), size));
        Stored { between, ..self.store_couplings(plan, label, transforms) }
    }

    /// Allocates the input of each transform, and what the last one yields [capacity, D].
    fn rows(&self, plan: &mut Plan) -> Vec<BufferId> {
        let size = self.shared.capacity * self.flow.features;
        (0..=self.flow.transforms.len())
            .map(|place| plan.buffer(format!("input of transform {place}"), size))
            .collect()
    }

    /// Allocates what each transform keeps.
    fn store_each(&self, plan: &mut Plan) -> Vec<Stored> {
        (0..self.flow.transforms.len())
            .map(|index| self.store(plan, &format!("transforms.{index} "), index..index + 1))
            .collect()
    }

    /// Allocates what the backward pass of a training step writes.
    fn gradients(&self, plan: &mut Plan, partials: BufferId, rows_per_split: usize) -> Gradients {
        let has = |wanted: fn(&Transform) -> bool| self.flow.transforms.iter().any(wanted);
        // See Gradients::d_coupling.
        let alternating =
            1 + usize::from(has(|transform| matches!(transform, Transform::Permutation { .. })));
        let mut widths = self.gradient_widths();
        if self.factor == Factor::Weighted {
            widths.coupling += 1;
        }
        let rows = self.shared.capacity;
        let mut some = |label: String, width: usize| (width > 0).then(|| plan.buffer(label, rows * width));
        let mut several = |label: &str, widths: &[usize]| -> Vec<BufferId> {
            let widths = widths.iter().enumerate();
            widths.filter_map(|(number, &width)| some(format!("{label}.{number}"), width)).collect()
        };
        Gradients {
            d_coupling: several("d_coupling", &vec![widths.coupling; alternating]),
            d_pre: several("d_pre_activations", &widths.pre),
            d_theta: some("d_theta".into(), widths.theta),
            d_between: some(
                "d_between L and U".into(),
                if has(|t| *t == Transform::Lu) { self.flow.features } else { 0 },
            ),
            partials,
            rows_per_split,
        }
    }

    /// What every kernel of transform number `transform` is told; of the coupling that a backward one passes its gradient
    /// through, what that one's bijector needs.
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
            factors: self.factors() as u32,
            ..Default::default()
        }
    }

    /// Place of the rows' factors in [`Gradients::d_coupling`], where they have any.
    fn factors(&self) -> usize {
        self.gradient_widths().coupling * self.shared.capacity
    }

    /// Constants of every kernel of the backward pass.
    fn differentiated(&self) -> Constant {
        ("FACTOR", self.factor as u32)
    }

    /// Whether the gradient at the input of transform number `transform` is wanted: at the data, only for the score function.
    fn wants_input_gradient(&self, transform: usize) -> bool {
        transform > 0 || self.factor == Factor::Score
    }

    /// Splits of the rows, of which each has a sum of weight gradients; none where these are not wanted.
    fn splits(&self, gradients: &Gradients) -> usize {
        match self.factor {
            Factor::Score => 0,
            Factor::Mean | Factor::Weighted => self.shared.capacity.div_ceil(gradients.rows_per_split),
        }
    }

    /// The coupling before transform number `transform`, where a backward kernel passes its gradient on through it at
    /// once.
    fn coupling_before(&self, transform: usize) -> Option<&Coupling> {
        let before = self.flow.transforms[transform.checked_sub(1)?].coupling();
        before.filter(|coupling| coupling::shares_a_dispatch(coupling))
    }

    /// Constants of a kernel that ends in `shaders/layered/through.wgsl`, for transform number `transform`.
    fn through(&self, transform: usize) -> Vec<Constant> {
        match self.coupling_before(transform) {
            Some(before) => {
                [vec![self.differentiated(), ("THROUGH", 1)], before.bijector.constants()].concat()
            }
            None => vec![self.differentiated(), ("THROUGH", 0)],
        }
    }

    /// What such a kernel reads of the coupling before: what that one stored, or anything where it reads nothing.
    fn saved(&self, transform: usize, before: Option<&Stored>, anything: BufferId) -> BufferId {
        let saved = self.coupling_before(transform).and(before).and_then(|stored| stored.theta);
        saved.unwrap_or(anything)
    }

    /// Features that such a kernel passes its gradient through, and the operations that each takes.
    fn passed(&self, transform: usize) -> [usize; 2] {
        let passed = |coupling: &Coupling| [coupling.split().1.len(), coupling.bijector.flops()[1]];
        self.coupling_before(transform).map_or([0, 0], passed)
    }

    /// A dispatch over the rows that hold data, without a tile.
    fn untiled(
        kernel: &'static Kernel,
        label: String,
        constants: Vec<Constant>,
        uniform: &uniforms::Layer,
        buffers: Vec<BufferId>,
        workgroups: [u32; 3],
        cost: Cost,
    ) -> Dispatch {
        Dispatch {
            kernel,
            label,
            constants,
            uniform: bytemuck::bytes_of(uniform).to_vec(),
            buffers,
            workgroups,
            flops: cost.flops as u64,
            bytes: 4 * cost.words as u64,
        }
    }

    /// A transform, forward or inverse.
    fn transform(&self, program: &mut Program, pass: &TransformPass) {
        match &self.flow.transforms[pass.transform] {
            Transform::Coupling(_) => self.coupling_rows(program, pass),
            Transform::Actnorm => self.actnorm_rows(program, pass),
            Transform::Lu => self.lu_rows(program, pass),
            Transform::Permutation { .. } => self.permutation_rows(program, pass),
        }
    }

    /// A transform's gradients; the buffer that holds the one at its input.
    fn transform_backward(&self, program: &mut Program, pass: &TransformBackward) -> BufferId {
        match &self.flow.transforms[pass.transform] {
            Transform::Coupling(_) => self.coupling_backward(program, pass),
            Transform::Actnorm => self.actnorm_backward(program, pass),
            Transform::Lu => self.lu_backward(program, pass),
            Transform::Permutation { .. } => return self.permutation_backward(program, pass),
        }
        pass.d_coupling
    }

    /// Forward through all transforms, from the first of `rows` to the last.
    fn forward(&self, program: &mut Program, rows: &[BufferId], stored: &[Stored]) {
        for (transform, stored) in stored.iter().enumerate() {
            let [source, destination] = [rows[transform], rows[transform + 1]];
            let (direction, begins) = (Direction::Forward, transform == 0);
            self.transform(
                program,
                &TransformPass { direction, transform, begins, source, destination, stored },
            );
        }
    }

    /// log p of the rows that were taken forward, and back through all transforms; the buffer that holds the gradient at the
    /// first of `rows`, if that is asked for.
    fn backward(
        &self,
        program: &mut Program,
        rows: &[BufferId],
        stored: &[Stored],
        gradients: &Gradients,
        log_prob: BufferId,
    ) -> BufferId {
        let mut d_coupling = gradients.d_coupling[0];
        let last = stored.len() - 1;
        self.base_backward(program, rows[last + 1], &stored[last], gradients, log_prob);
        for transform in (0..=last).rev() {
            let before = transform.checked_sub(1).map(|before| &stored[before]);
            let rows = [rows[transform], rows[transform + 1]];
            let stored = &stored[transform];
            let pass = TransformBackward { transform, d_coupling, rows, stored, before, gradients };
            d_coupling = self.transform_backward(program, &pass);
        }
        d_coupling
    }

    /// The whole pass between two alternating buffers; returns the one that holds the result.
    fn pass(
        &self,
        program: &mut Program,
        rows: [BufferId; 2],
        stored: &Stored,
        direction: Direction,
    ) -> BufferId {
        let transforms = self.flow.transforms.len();
        let [mut source, mut destination] = rows;
        for place in 0..transforms {
            let transform = match direction {
                Direction::Forward => place,
                Direction::Inverse => transforms - 1 - place,
            };
            let begins = place == 0;
            self.transform(
                program,
                &TransformPass { direction, transform, begins, source, destination, stored },
            );
            std::mem::swap(&mut source, &mut destination);
        }
        source
    }
}

/// The direction of a pass through a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// Data to latent.
    Forward,
    /// Latent to data.
    Inverse,
}
