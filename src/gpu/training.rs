//! The layered plan of training: a step, a validation tile and the end of an epoch, each the same every time.
//! Everything that changes from step to step lives in buffers, so the host only replays.

use super::fused::Packing;
use super::kernel::{
    ACCUMULATE, ADAM_UPDATE, ADVANCE, CLOSE_EPOCH, GATHER, KEEP_BEST, Kernel, SUM_PARTIALS, TAKE,
};
use super::layered::{Activations, Direction, FlowBuffers, Gradients, Recorder};
use super::plan::{BufferId, Dispatch, Plan, Program, ProgramId, groups_of_256};
use super::tile::Tiling;
use super::uniforms;
use crate::engine::Training;
use crate::flow::Flow;
use crate::layout::Layout;
use crate::optimiser::{Adam, Schedule};
use crate::random;

/// Epoch records that the device holds before the host must read them.
pub const HISTORY: usize = 256;

/// Rows of the batch that one partial weight gradient sums, where the batch is not so large that more are needed.
const ROWS_PER_SPLIT: usize = 256;
/// Most partial gradients; each is as large as the parameters.
const MOST_SPLITS: usize = 16;
/// Most rows that validation takes at a time.
pub(super) const VALIDATION_TILE: usize = 8192;

/// Sizes and rules of a training, without its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingShape {
    /// Training rows N.
    pub train_rows: usize,
    /// Validation rows V.
    pub validation_rows: usize,
    /// Rows of a step.
    pub batch: usize,
    /// The update rule.
    pub adam: Adam,
    /// The learning rate.
    pub schedule: Schedule,
    /// Seed of the epochs' row orders.
    pub seed: u64,
}

impl TrainingShape {
    /// The shape of `training` for rows of `features`.
    pub fn new(training: &Training, features: usize) -> Self {
        let train_rows = training.train.len() / features;
        Self {
            train_rows,
            validation_rows: training.validation.len() / features,
            batch: (training.batch as usize).min(train_rows),
            adam: training.adam,
            schedule: training.schedule,
            seed: training.seed,
        }
    }
}

/// Some rows of a table, in a buffer of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The buffer.
    pub buffer: BufferId,
    /// Place of its first row in the table.
    pub first: usize,
    /// Its rows.
    pub rows: usize,
}

impl Shard {
    /// `rules` for a dispatch over this buffer.
    fn rules(&self, rules: uniforms::Rules) -> uniforms::Rules {
        uniforms::Rules { shard_first: self.first as u32, ..rules }
    }
}

/// Buffers for a table of `rows` rows of `features`, none with more than `most` rows.
pub(super) fn shards(plan: &mut Plan, label: &str, rows: usize, features: usize, most: usize) -> Vec<Shard> {
    let most = most.max(1);
    let places = (0..rows.max(1)).step_by(most.min(rows.max(1)));
    let shard = |first: usize| {
        let rows = most.min(rows - first);
        Shard { buffer: plan.buffer(label, rows * features), first, rows }
    };
    places.map(shard).collect()
}

/// Buffers and programs with which a flow is trained.
#[derive(Clone, Debug)]
pub struct TrainingPlan {
    /// The plan itself.
    pub plan: Plan,
    /// Training rows N.
    pub train_rows: u32,
    /// Rows of a full batch.
    pub batch: u32,
    /// Steps in an epoch.
    pub steps_per_epoch: u32,
    /// Validation tiles after an epoch.
    pub validation_tiles: u32,
    /// Rows in a validation tile.
    pub validation_capacity: usize,
    /// [`uniforms::TrainState`].
    pub state: BufferId,
    /// [`uniforms::Validation`].
    pub validation: BufferId,
    /// Training rows [N, D].
    pub train: Vec<Shard>,
    /// Validation rows [V, D].
    pub validation_rows: Vec<Shard>,
    /// Parameters `[P]`.
    pub parameters: BufferId,
    /// Packed copies of the parameters, in the fused plan.
    pub packed: Option<(BufferId, Packing)>,
    /// Gradient of the last step before clipping `[P]`.
    pub gradient: BufferId,
    /// First moment `[P]`.
    pub moment1: BufferId,
    /// Second moment `[P]`.
    pub moment2: BufferId,
    /// Best parameters `[P]`.
    pub best: BufferId,
    /// [`HISTORY`] records: [`uniforms::Record`].
    pub history: BufferId,
    /// log p of the step's rows `[batch]`.
    pub log_prob: BufferId,
    /// Index of the first of them in their buffer.
    pub log_prob_at: usize,
    /// One step: gather, forward, density, backward, update.
    pub step: ProgramId,
    /// One validation tile.
    pub validate: ProgramId,
    /// The epoch's record and the best parameters.
    pub close: ProgramId,
}

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
        let (features, batch, total) = (flow.features, shape.batch, layout.total);
        let words = |bytes: usize| bytes.div_ceil(4);
        let validation_capacity = shape.validation_rows.clamp(1, VALIDATION_TILE);

        let state = plan.buffer("state", words(size_of::<uniforms::TrainState>()));
        let validation = plan.buffer("validation", words(size_of::<uniforms::Validation>()));
        let history = plan.buffer("history", HISTORY * words(size_of::<uniforms::Record>()));
        let train = shards(&mut plan, "training rows", shape.train_rows, features, shard_rows);
        let validation_rows =
            shards(&mut plan, "validation rows", shape.validation_rows, features, shard_rows);
        let order = plan.constant("order", &Recorder::order(flow));
        let parameters = plan.buffer("parameters", total);
        let gradient = plan.buffer("gradient", total);
        let moment1 = plan.buffer("moment1", total);
        let moment2 = plan.buffer("moment2", total);
        let best = plan.buffer("best parameters", total);

        let rows_per_split = batch.div_ceil(batch.div_ceil(ROWS_PER_SPLIT).clamp(1, MOST_SPLITS)).max(1);
        let splits = batch.div_ceil(rows_per_split);
        let norm_groups = total.div_ceil(256).min(1024);
        let partials = plan.buffer("partial gradients", splits * total);
        let norms = plan.buffer("norms", norm_groups);
        let log_prob = plan.buffer("log_prob", batch);
        let shares = plan.buffer("shares of log_det", batch * features);
        let shared = FlowBuffers { capacity: batch, extent: state, parameters, order, shares };
        let recorder = Recorder { flow, layout, tiling, shared };
        let rows: Vec<BufferId> = (0..=flow.transforms.len())
            .map(|place| plan.buffer(format!("input of transform {place}"), batch * features))
            .collect();
        let stored: Vec<Activations> = flow
            .transforms
            .iter()
            .enumerate()
            .map(|(index, transform)| match transform.coupling() {
                Some(coupling) => {
                    let hidden = &coupling.conditioner.hidden;
                    recorder.activations(&mut plan, &format!("transforms.{index} "), hidden)
                }
                // Bound where nothing is read.
                None => Activations { pre: Vec::new(), saved: rows[index] },
            })
            .collect();
        let d_pre = recorder.pre_activations(&mut plan, "d_pre_activations", &recorder.widest());
        let numbers = flow.couplings().map(|coupling| coupling.bijector.parameters()).max().unwrap_or(0);
        let d_coupling = plan.buffer("d_coupling", (1 + numbers) * batch * features);
        let gradients = Gradients { d_pre, d_coupling, partials, rows_per_split };

        let rules = rules(features, total, shape, splits, norm_groups, validation_capacity);
        // Cost: floating-point operations, and 32-bit words moved.
        let record = |program: &mut Program,
                      rules: &uniforms::Rules,
                      kernel: &'static Kernel,
                      label: &str,
                      buffers: &[BufferId],
                      workgroups: [u32; 3],
                      [flops, words]: [usize; 2]| {
            program.dispatches.push(Dispatch {
                kernel,
                constants: Vec::new(),
                label: label.into(),
                uniform: bytemuck::bytes_of(rules).to_vec(),
                buffers: buffers.to_vec(),
                workgroups,
                flops: flops as u64,
                bytes: 4 * words as u64,
            });
        };

        let mut step = Program::new("training step");
        let batch_groups = [batch.div_ceil(256) as u32, 1, 1];
        let gathered = [0, 2 * batch * features];
        for part in &train {
            let buffers = [state, part.buffer, rows[0]];
            record(
                &mut step,
                &part.rules(rules),
                &GATHER,
                "rows of the batch",
                &buffers,
                batch_groups,
                gathered,
            );
        }
        for transform in 0..flow.transforms.len() {
            let ends = [rows[transform], rows[transform + 1]];
            let begins = transform == 0;
            recorder.transform(&mut step, Direction::Forward, transform, begins, ends, &stored[transform]);
        }
        let last = flow.transforms.len() - 1;
        recorder.log_density_backward(&mut step, rows[last + 1], stored[last].saved, log_prob, d_coupling);
        for transform in (0..flow.transforms.len()).rev() {
            let before = stored[transform.saturating_sub(1)].saved;
            let Activations { pre, .. } = &stored[transform];
            recorder.transform_backward(&mut step, transform, rows[transform], pre, before, &gradients);
        }
        let each = groups_of_256(total);
        let sums = [norm_groups as u32, 1, 1];
        // A parameter takes splits − 1 sums and a square to be summed; then clip, two moments, their corrections and
        // the decayed update.
        let summed = [(splits + 1) * total, (splits + 1) * total];
        record(&mut step, &rules, &SUM_PARTIALS, "gradient", &[partials, gradient, norms], sums, summed);
        let advanced = [norm_groups + batch; 2];
        record(&mut step, &rules, &ADVANCE, "training state", &[state, norms, log_prob], [1; 3], advanced);
        let updated = [18 * total, 7 * total];
        let moments = [state, gradient, parameters, moment1, moment2];
        record(&mut step, &rules, &ADAM_UPDATE, "parameters", &moments, each, updated);

        let mut validate = Program::new("validation tile");
        let tile = FlowBuffers {
            capacity: validation_capacity,
            extent: validation,
            parameters,
            order,
            shares: plan.buffer("validation shares of log_det", validation_capacity * features),
        };
        let recorder = Recorder { flow, layout, tiling, shared: tile };
        let ends =
            [0, 1].map(|i| plan.buffer(format!("validation rows.{i}"), validation_capacity * features));
        let tile_log_det = plan.buffer("validation log_det", validation_capacity);
        let tile_activations = recorder.activations(&mut plan, "validation ", &recorder.widest());
        let tile_log_prob = plan.buffer("validation log_prob", validation_capacity);
        let tile_groups = [validation_capacity.div_ceil(256) as u32, 1, 1];
        let taken = [0, 2 * validation_capacity * features];
        for part in &validation_rows {
            let buffers = [validation, part.buffer, ends[0]];
            record(&mut validate, &part.rules(rules), &TAKE, "validation rows", &buffers, tile_groups, taken);
        }
        let latent = recorder.pass(&mut validate, ends, &tile_activations, Direction::Forward);
        recorder.log_density(&mut validate, latent, tile_log_prob, tile_log_det);
        let accumulated = [validation_capacity; 2];
        let sum = [tile_log_prob, validation];
        record(&mut validate, &rules, &ACCUMULATE, "validation loss", &sum, [1; 3], accumulated);

        let mut close = Program::new("end of epoch");
        record(
            &mut close,
            &rules,
            &CLOSE_EPOCH,
            "epoch's record",
            &[state, validation, history],
            [1; 3],
            [3, 8],
        );
        record(
            &mut close,
            &rules,
            &KEEP_BEST,
            "best parameters",
            &[state, parameters, best],
            each,
            [0, 2 * total],
        );

        let (step, validate, close) = (plan.program(step), plan.program(validate), plan.program(close));
        Self {
            plan,
            train_rows: shape.train_rows as u32,
            batch: batch as u32,
            steps_per_epoch: shape.train_rows.div_ceil(batch.max(1)) as u32,
            validation_tiles: shape.validation_rows.div_ceil(validation_capacity) as u32,
            validation_capacity,
            state,
            validation,
            train,
            validation_rows,
            parameters,
            packed: None,
            gradient,
            moment1,
            moment2,
            best,
            history,
            log_prob,
            log_prob_at: 0,
            step,
            validate,
            close,
        }
    }
}

pub(super) fn rules(
    features: usize,
    parameters: usize,
    shape: &TrainingShape,
    splits: usize,
    norm_groups: usize,
    validation_capacity: usize,
) -> uniforms::Rules {
    let [key_low, key_high] = random::key(shape.seed);
    let [rate1, rate2] = shape.adam.rates().map(|rate| rate as f32);
    uniforms::Rules {
        train_rows: shape.train_rows as u32,
        batch: shape.batch as u32,
        features: features as u32,
        parameters: parameters as u32,
        key_low,
        key_high,
        norm_groups: norm_groups as u32,
        splits: splits as u32,
        rate1,
        rate2,
        epsilon: shape.adam.epsilon,
        weight_decay: shape.adam.weight_decay,
        // WGSL has no infinity.
        clip_norm: shape.adam.clip_norm.min(f32::MAX),
        base_rate: shape.schedule.base,
        warmup_steps: shape.schedule.warmup_steps,
        total_steps: shape.schedule.total_steps,
        decay: shape.schedule.decay as u32,
        validation_rows: shape.validation_rows as u32,
        validation_capacity: validation_capacity as u32,
        shard_first: 0,
    }
}
