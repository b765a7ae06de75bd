//! The layered plan of training.

use super::super::kernel::{ADAM_UPDATE, ADVANCE, GATHER, SUM_PARTIALS, TAKE, WEIGH};
use super::super::plan::{BufferId, Dispatch, Plan, Program, copy_groups, groups_of_256};
use super::super::tile::Tiling;
use super::super::training::{
    HISTORY, Shard, TrainingPlan, VALIDATION_TILE, accumulate, close_program, dispatch, rules, shards,
};
use super::super::uniforms;
use super::{Direction, Factor, FlowBuffers, Recorder};
use crate::engine::TrainingShape;
use crate::flow::Flow;
use crate::layout::Layout;

/// Rows of the batch that one partial weight gradient sums, where the batch is not so large that more are needed.
const ROWS_PER_SPLIT: usize = 256;
/// Most partial gradients; each is as large as the parameters.
const MOST_SPLITS: usize = 16;

impl TrainingPlan {
    /// The plan of training `flow`.
    pub fn new(flow: &Flow, layout: &Layout, shape: &TrainingShape) -> Self {
        Self::tiled(flow, layout, shape, &Tiling::default())
    }

    /// The same plan with the tiles of `tiling`.
    pub fn tiled(flow: &Flow, layout: &Layout, shape: &TrainingShape, tiling: &Tiling) -> Self {
        Self::sharded(flow, layout, shape, tiling, usize::MAX)
    }

    /// The same plan, its tables cut into buffers of at most `shard_rows` rows: a batch is gathered from one after the
    /// other.
    pub fn sharded(
        flow: &Flow,
        layout: &Layout,
        shape: &TrainingShape,
        tiling: &Tiling,
        shard_rows: usize,
    ) -> Self {
        let mut plan = Plan::default();
        let buffers = Buffers::new(&mut plan, flow, layout, shape, shard_rows);
        let validation_capacity = shape.validation_rows.clamp(1, VALIDATION_TILE);
        let (_, splits) = row_splits(shape.batch);
        let norm_groups = norm_groups(layout.total);
        let rules = rules(flow.features, layout.total, shape, splits, norm_groups, validation_capacity);
        let factor = if shape.weights.is_some() { Factor::Weighted } else { Factor::Mean };
        let builder = ProgramBuilder { flow, layout, tiling, rules, factor, buffers: &buffers };
        let step = builder.step_program(&mut plan);
        let validate = builder.validation_program(&mut plan);
        let Buffers { state, validation, history, parameters, gradient, moment1, moment2, best, .. } =
            buffers;
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
            packed: None,
            gradient,
            moment1,
            moment2,
            best,
            history,
            log_prob: buffers.log_prob,
            log_prob_at: 0,
            step,
            validate,
            close,
        }
    }
}

/// Rows that a split of the batch has, and the number of splits.
fn row_splits(batch: usize) -> (usize, usize) {
    let rows = batch.div_ceil(batch.div_ceil(ROWS_PER_SPLIT).clamp(1, MOST_SPLITS)).max(1);
    (rows, batch.div_ceil(rows))
}

/// Workgroups that sum the squares of the gradient.
fn norm_groups(parameters: usize) -> usize {
    parameters.div_ceil(256).min(1024)
}

/// What the programs of a training share.
struct Buffers {
    state: BufferId,
    validation: BufferId,
    history: BufferId,
    train: Vec<Shard>,
    validation_rows: Vec<Shard>,
    weights: Option<[BufferId; 2]>,
    order: BufferId,
    parameters: BufferId,
    gradient: BufferId,
    moment1: BufferId,
    moment2: BufferId,
    best: BufferId,
    log_prob: BufferId,
}

impl Buffers {
    fn new(plan: &mut Plan, flow: &Flow, layout: &Layout, shape: &TrainingShape, shard_rows: usize) -> Self {
        let words = |bytes: usize| bytes.div_ceil(4);
        let table = |plan: &mut Plan, label: &str, rows| shards(plan, label, rows, flow.features, shard_rows);
        Self {
            state: plan.buffer("state", words(size_of::<uniforms::TrainState>())),
            validation: plan.buffer("validation", words(size_of::<uniforms::Validation>())),
            history: plan.buffer("history", HISTORY * words(size_of::<uniforms::Record>())),
            train: table(plan, "training rows", shape.train_rows),
            validation_rows: table(plan, "validation rows", shape.validation_rows),
            weights: shape.weights.map(|_| {
                [("training", shape.train_rows), ("validation", shape.validation_rows)]
                    .map(|(of, rows)| plan.buffer(format!("weights of {of} rows"), rows))
            }),
            order: plan.constant("order", &Recorder::order(flow)),
            parameters: plan.buffer("parameters", layout.total),
            gradient: plan.buffer("gradient", layout.total),
            moment1: plan.buffer("moment1", layout.total),
            moment2: plan.buffer("moment2", layout.total),
            best: plan.buffer("best parameters", layout.total),
            log_prob: plan.buffer("log_prob", shape.batch),
        }
    }
}

/// Builds the programs of a training: a step, and a tile of validation rows.
struct ProgramBuilder<'a> {
    flow: &'a Flow,
    layout: &'a Layout,
    tiling: &'a Tiling,
    rules: uniforms::Rules,
    factor: Factor,
    buffers: &'a Buffers,
}

impl ProgramBuilder<'_> {
    fn recorder(
        &self,
        plan: &mut Plan,
        capacity: usize,
        extent: BufferId,
        log_dets: BufferId,
    ) -> Recorder<'_> {
        let Self { flow, layout, tiling, factor, buffers: &Buffers { parameters, order, .. }, .. } = *self;
        let whitened = Recorder::whitened(plan, flow, capacity);
        let shared = FlowBuffers { capacity, extent, parameters, order, log_dets, whitened };
        Recorder { flow, layout, tiling, factor, shared }
    }

    /// Rows of the batch, the forward and the backward pass, and the update.
    fn step_program(&self, plan: &mut Plan) -> Program {
        let Self { flow, rules, buffers, .. } = self;
        let (features, batch) = (flow.features, rules.batch as usize);
        let &Buffers { state, log_prob, .. } = *buffers;
        let partials = plan.buffer("partial gradients", rules.splits as usize * self.layout.total);
        let log_dets = plan.buffer("log_det of each feature", batch * features);
        let recorder = self.recorder(plan, batch, state, log_dets);
        let rows = recorder.rows(plan);
        let stored = recorder.store_each(plan);
        let (rows_per_split, _) = row_splits(batch);
        let gradients = recorder.gradients(plan, partials, rows_per_split);

        let mut step = Program::new("training step");
        let batch_groups = copy_groups(batch, features);
        let gathered = [0, 2 * batch * features];
        for shard in &buffers.train {
            let bound = [state, shard.buffer, rows[0]];
            let rules = shard.rules(*rules);
            step.dispatches.push(dispatch(
                &GATHER,
                "rows of the batch",
                &rules,
                &bound,
                batch_groups,
                gathered,
            ));
        }
        let batch_weights = buffers.weights.map(|[weights, _]| {
            let batch_weights = plan.buffer("weights of the batch", batch);
            let rules = uniforms::Rules { factors: recorder.factors() as u32, ..*rules };
            for &d_coupling in &gradients.d_coupling {
                let bound = [state, weights, batch_weights, d_coupling];
                let cost = [2 * batch, 4 * batch];
                step.dispatches.push(dispatch(&WEIGH, "weights of the batch", &rules, &bound, [1; 3], cost));
            }
            batch_weights
        });
        recorder.forward(&mut step, &rows, &stored);
        recorder.backward(&mut step, &rows, &stored, &gradients, log_prob);
        self.update(plan, &mut step, partials, batch_weights);
        step
    }

    /// The gradient of the batch from those of its splits, and the step that it is taken for.
    fn update(
        &self,
        plan: &mut Plan,
        step: &mut Program,
        partials: BufferId,
        batch_weights: Option<BufferId>,
    ) {
        let Self { rules, layout, .. } = self;
        let &Buffers { state, parameters, gradient, moment1, moment2, log_prob, .. } = self.buffers;
        let (total, splits) = (layout.total, rules.splits as usize);
        let (batch, norm_groups) = (rules.batch as usize, rules.norm_groups as usize);
        let norms = plan.buffer("norms", norm_groups);
        let bound = [partials, gradient, norms];
        // A parameter takes splits − 1 sums and a square to be summed; then clip, two moments, their corrections and
        // the decayed update.
        let summed = [(splits + 1) * total, (splits + 1) * total];
        let sums = [norm_groups as u32, 1, 1];
        step.dispatches.push(dispatch(&SUM_PARTIALS, "gradient", rules, &bound, sums, summed));
        let bound = [state, norms, log_prob, batch_weights.unwrap_or(log_prob)];
        let advanced = [norm_groups + batch; 2];
        step.dispatches.push(Dispatch {
            constants: vec![("WEIGHTED", u32::from(batch_weights.is_some()))],
            ..dispatch(&ADVANCE, "training state", rules, &bound, [1; 3], advanced)
        });
        let bound = [state, gradient, parameters, moment1, moment2];
        let updated = [18 * total, 7 * total];
        let groups = groups_of_256(total);
        step.dispatches.push(dispatch(&ADAM_UPDATE, "parameters", rules, &bound, groups, updated));
    }

    /// A tile of validation rows and its part of their loss.
    fn validation_program(&self, plan: &mut Plan) -> Program {
        let Self { flow, rules, buffers, .. } = self;
        let (features, capacity) = (flow.features, rules.validation_capacity as usize);
        let &Buffers { validation, .. } = *buffers;
        let log_dets = plan.buffer("validation log_det of each feature", capacity * features);
        let ends = [0, 1].map(|i| plan.buffer(format!("validation rows.{i}"), capacity * features));
        let log_det = plan.buffer("validation log_det", capacity);
        let recorder = self.recorder(plan, capacity, validation, log_dets);
        let stored = recorder.store(plan, "validation ", 0..flow.transforms.len());
        let log_prob = plan.buffer("validation log_prob", capacity);

        let mut validate = Program::new("validation tile");
        let groups = copy_groups(capacity, features);
        let taken = [0, 2 * capacity * features];
        for shard in &buffers.validation_rows {
            let bound = [validation, shard.buffer, ends[0]];
            let rules = shard.rules(*rules);
            validate.dispatches.push(dispatch(&TAKE, "validation rows", &rules, &bound, groups, taken));
        }
        let latent = recorder.pass(&mut validate, ends, &stored, Direction::Forward);
        recorder.log_density(&mut validate, latent, log_prob, log_det);
        let weights = buffers.weights.map(|[_, weights]| weights);
        validate.dispatches.push(accumulate(rules, [log_prob, validation], weights));
        validate
    }
}
