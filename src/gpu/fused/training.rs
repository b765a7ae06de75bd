//! The fused plan of training: a step is the gradient of a batch, the sum of its partial gradients, and the update.

use super::super::kernel::{FUSED_ADAM, FUSED_FORWARD, FUSED_GRADIENT, FUSED_SUM};
use super::super::plan::{BufferId, Dispatch, Plan, Program};
use super::super::training::{
    HISTORY, Shard, TrainingPlan, VALIDATION_TILE, accumulate, close_program, dispatch, rules, shards,
};
use super::super::uniforms;
use super::shape::most_groups;
use super::{FusedLayout, Shape, Work};
use crate::engine::TrainingShape;
use crate::flow::Flow;
use crate::layout::Layout;

/// Parameters for each workgroup that sums or updates them, and most such workgroups.
const PARAMETERS_PER_GROUP: usize = 256;
const MOST_UPDATE_GROUPS: usize = 1024;

/// 32-bit words of the state that a step begins with.
const STATE_WORDS: usize = size_of::<uniforms::TrainState>() / 4;

impl TrainingPlan {
    /// The fused plan of training `flow`, with one shape for its steps and one for its validation.
    pub fn fused(
        flow: &Flow,
        layout: &Layout,
        shape: &TrainingShape,
        [fused, evaluation]: [&Shape; 2],
    ) -> Self {
        let mut plan = Plan::default();
        let fused_layout = FusedLayout::new(flow, layout);
        let buffers = Buffers::new(&mut plan, flow, layout, shape, &fused_layout);
        let validation_capacity = shape.validation_rows.clamp(1, VALIDATION_TILE);
        let groups = shape.batch.div_ceil(fused.rows).clamp(1, most_groups(fused_layout.slot()));
        let update_groups = layout.total.div_ceil(PARAMETERS_PER_GROUP).clamp(1, MOST_UPDATE_GROUPS);
        let rules = rules(flow.features, layout.total, shape, groups, update_groups, validation_capacity);
        let builder = ProgramBuilder {
            features: flow.features,
            uniform: fused_layout.uniform(flow, rules, groups),
            work: Work::new(flow, layout),
            fused_layout: &fused_layout,
            buffers: &buffers,
        };
        let step = builder.step_program(&mut plan, fused);
        let validate = builder.validation_program(&mut plan, evaluation);
        let Buffers { state, validation, history, parameters, moment1, moment2, best, .. } = buffers;
        let close = close_program(&rules, [state, validation, history, parameters, best]);
        let (step, validate, close) = (plan.program(step), plan.program(validate), plan.program(close));
        Self {
            plan,
            train_rows: shape.train_rows as u32,
            batch: shape.batch as u32,
            steps_per_epoch: shape.train_rows.div_ceil(shape.batch.max(1)) as u32,
            validation_tiles: shape.validation_rows.div_ceil(validation_capacity) as u32,
            validation_capacity,
            state,
            validation,
            train: buffers.train,
            validation_rows: buffers.validation_rows,
            parameters,
            weights: buffers.weights,
            packed: Some((buffers.packed, fused_layout.copies())),
            gradient: buffers.gradient,
            moment1,
            moment2,
            best,
            history,
            log_prob: buffers.report,
            log_prob_at: STATE_WORDS,
            step,
            validate,
            close,
        }
    }
}

/// What the programs of a training share.
struct Buffers {
    state: BufferId,
    validation: BufferId,
    history: BufferId,
    train: Vec<Shard>,
    validation_rows: Vec<Shard>,
    roles: BufferId,
    parameters: BufferId,
    packed: BufferId,
    moment1: BufferId,
    moment2: BufferId,
    best: BufferId,
    gradient: BufferId,
    report: BufferId,
    weights: Option<[BufferId; 2]>,
}

impl Buffers {
    fn new(
        plan: &mut Plan,
        flow: &Flow,
        layout: &Layout,
        shape: &TrainingShape,
        fused_layout: &FusedLayout,
    ) -> Self {
        let (total, weighted) = (layout.total, shape.weights.is_some());
        let table = |plan: &mut Plan, label: &str, rows| shards(plan, label, rows, flow.features, usize::MAX);
        Self {
            state: plan.buffer("state", STATE_WORDS),
            validation: plan.buffer("validation", size_of::<uniforms::Validation>() / 4),
            history: plan.buffer("history", HISTORY * size_of::<uniforms::Record>() / 4),
            train: table(plan, "training rows", shape.train_rows),
            validation_rows: table(plan, "validation rows", shape.validation_rows),
            roles: plan.constant("roles", fused_layout.roles()),
            parameters: plan.buffer("parameters", total),
            packed: plan.buffer("packed weights", fused_layout.len()),
            moment1: plan.buffer("moment1", total),
            moment2: plan.buffer("moment2", total),
            best: plan.buffer("best parameters", total),
            gradient: plan.buffer("gradient and parts of its squared norm", total + MOST_UPDATE_GROUPS),
            report: plan.buffer("report", STATE_WORDS + shape.batch * (1 + usize::from(weighted))),
            weights: weighted.then(|| {
                [("training", shape.train_rows), ("validation", shape.validation_rows)]
                    .map(|(of, rows)| plan.buffer(format!("weights of {of} rows"), rows))
            }),
        }
    }
}

/// Builds the programs of a training: a step, and a tile of validation rows.
struct ProgramBuilder<'a> {
    features: usize,
    uniform: uniforms::Fused,
    work: Work,
    fused_layout: &'a FusedLayout,
    buffers: &'a Buffers,
}

impl ProgramBuilder<'_> {
    /// The gradient of a batch by each workgroup, their sum, and the update.
    fn step_program(&self, plan: &mut Plan, shape: &Shape) -> Program {
        let Self { features, ref uniform, ref work, fused_layout, buffers } = *self;
        let rules = &uniform.rules;
        let (batch, total) = (rules.batch as usize, rules.parameters as usize);
        let (groups, update_groups) = (uniform.groups as usize, rules.norm_groups as usize);
        let &Buffers { state, roles, parameters, packed, moment1, moment2, gradient, report, .. } = buffers;
        let saved_words = fused_layout.saved() * groups * 4 * shape.rows;
        let saved = plan.buffer("saved for the backward pass", saved_words);
        let partials = plan.buffer("partial gradients", groups * fused_layout.slot());
        let places = plan.constant("places of parameters", fused_layout.places());
        let slot_places = plan.constant("places in a slot", fused_layout.slot_places());

        // Forward, and once more up to the last layer; gradients of weights, and of all inputs but the data.
        let [hidden, networks] = work.last_hidden;
        let at_hand = if networks <= shape.teams { hidden } else { 0 };
        let products = 4 * work.all - work.last - work.first_transform - at_hand;
        let flops = batch * (2 * products + work.forward + work.backward);
        let moved =
            batch * (features + 1) + fused_layout.len() + 2 * saved_words + groups * fused_layout.slot();
        let mut step = Program::new("training step");
        let label = format!("gradient of a batch: {shape}");
        let weighted = ("WEIGHTED", u32::from(buffers.weights.is_some()));
        let data = buffers.train[0].buffer;
        // Bound where nothing is read.
        let weights = buffers.weights.map_or(data, |[weights, _]| weights);
        let bound = [roles, packed, state, data, saved, partials, report, weights];
        let mut constants = shape.constants();
        constants.push(weighted);
        step.dispatches.push(Dispatch {
            constants,
            ..dispatch(&FUSED_GRADIENT, &label, uniform, &bound, [groups as u32, 1, 1], [flops, moved])
        });
        // A parameter takes groups − 1 sums and a square to be summed; then clip, two moments, their corrections and
        // the decayed update.
        let each = [update_groups as u32, 1, 1];
        let summed = [(groups + 1) * total, (groups + 2) * total];
        let bound = [slot_places, partials, gradient, report];
        step.dispatches.push(Dispatch {
            constants: vec![weighted],
            ..dispatch(&FUSED_SUM, "gradient", uniform, &bound, each, summed)
        });
        let updated = [18 * total + update_groups + batch, 11 * total + update_groups + batch];
        let bound = [report, places, gradient, state, parameters, moment1, moment2, packed];
        let label = "parameters and training state";
        step.dispatches.push(dispatch(&FUSED_ADAM, label, uniform, &bound, each, updated));
        step
    }

    /// A tile of validation rows and its part of their loss.
    fn validation_program(&self, plan: &mut Plan, shape: &Shape) -> Program {
        let Self { features, ref uniform, ref work, fused_layout, buffers } = *self;
        let capacity = uniform.rules.validation_capacity as usize;
        let &Buffers { roles, packed, validation, .. } = buffers;
        let rows = plan.buffer("validation latent", capacity * features);
        let log_det = plan.buffer("validation log_det", capacity);
        let log_prob = plan.buffer("validation log_prob", capacity);

        let mut validate = Program::new("validation tile");
        let label = format!("validation rows: {shape}");
        let bound = [roles, packed, validation, buffers.validation_rows[0].buffer, rows, log_det, log_prob];
        let groups = [capacity.div_ceil(shape.rows) as u32, 1, 1];
        let cost =
            [capacity * (2 * work.all + work.forward), 2 * capacity * (features + 1) + fused_layout.len()];
        validate.dispatches.push(Dispatch {
            constants: shape.constants(),
            ..dispatch(&FUSED_FORWARD, &label, uniform, &bound, groups, cost)
        });
        let weights = buffers.weights.map(|[_, weights]| weights);
        validate.dispatches.push(accumulate(&uniform.rules, [log_prob, validation], weights));
        validate
    }
}
