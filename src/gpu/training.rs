//! What a plan of training is, whichever way it computes: programs for a step, for a tile of validation rows and for the
//! end of an epoch, each the same every time. Everything that changes from step to step lives in buffers, so the host
//! only replays. `gpu::layered` and `gpu::fused` make such plans.

use super::fused::Shape;
use super::kernel::{ACCUMULATE, CLOSE_EPOCH, KEEP_BEST, Kernel};
use super::plan::{BufferId, Copies, Dispatch, Plan, PlanKind, Program, ProgramId, groups_of_256};
use super::target::Target;
use super::tile::Tiling;
use super::uniforms;
use crate::engine::TrainingShape;
use crate::error::Result;
use crate::flow::Flow;
use crate::layout::Layout;
use crate::random;

/// Epoch records that the device holds before the host must read them.
pub const HISTORY: usize = 256;

/// Most rows that validation takes at a time.
pub(super) const VALIDATION_TILE: usize = 8192;

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
    pub(super) fn rules(&self, rules: uniforms::Rules) -> uniforms::Rules {
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

/// Rows of `features` that a buffer holds on a device with these limits.
pub fn shard_rows(features: usize, limits: &wgpu::Limits) -> usize {
    let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    (bytes / (4 * features as u64)) as usize
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
    /// Weights of training and validation rows, `[N]` and `[V]`, where rows have any.
    pub weights: Option<[BufferId; 2]>,
    /// Parameters `[P]`.
    pub parameters: BufferId,
    /// Packed copies of the parameters, and how they are packed, in the fused plan.
    pub packed: Option<(BufferId, Copies)>,
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
    /// The plan of kind `kind` of training `flow` on `target`. The layered one has the tiles of `tiling` and buffers of
    /// `shard_rows` rows. [`TrainingPlan::sharded`] is in `gpu/layered/training.rs`, [`TrainingPlan::fused`] in
    /// `gpu/fused/training.rs`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the flow does not fit the fused plan.
    pub fn on(
        target: &Target,
        (flow, layout): (&Flow, &Layout),
        shape: &TrainingShape,
        (kind, tiling): (PlanKind, &Tiling),
        shard_rows: usize,
    ) -> Result<Self> {
        Ok(match kind {
            PlanKind::Layered => Self::sharded(flow, layout, shape, tiling, shard_rows),
            PlanKind::Fused => {
                let step = Shape::training(flow, target, shape.batch)?;
                let evaluation = Shape::evaluation(flow, target)?;
                Self::fused(flow, layout, shape, [&step, &evaluation])
            }
        })
    }
}

/// What the kernels of a training keep to.
pub(super) fn rules(
    features: usize,
    parameters: usize,
    shape: &TrainingShape,
    splits: usize,
    norm_groups: usize,
    validation_capacity: usize,
) -> uniforms::Rules {
    let [key_low, key_high] = random::key(shape.seed);
    let [gain1, gain2] = shape.adam.gains().map(|gain| gain as f32);
    let even = [shape.train_rows as f32, shape.validation_rows as f32];
    let [train_weight, validation_weight] = shape.weights.unwrap_or(even);
    uniforms::Rules {
        train_rows: shape.train_rows as u32,
        batch: shape.batch as u32,
        features: features as u32,
        parameters: parameters as u32,
        key_low,
        key_high,
        norm_groups: norm_groups as u32,
        splits: splits as u32,
        gain1,
        gain2,
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
        train_weight,
        validation_weight,
        factors: 0,
        padding: 0,
    }
}

/// A dispatch of a kernel that reads `uniform`. Cost: floating-point operations, and 32-bit words moved.
pub(super) fn dispatch(
    kernel: &'static Kernel,
    label: &str,
    uniform: &impl bytemuck::Pod,
    buffers: &[BufferId],
    workgroups: [u32; 3],
    [flops, words]: [usize; 2],
) -> Dispatch {
    Dispatch {
        kernel,
        constants: Vec::new(),
        label: label.into(),
        uniform: bytemuck::bytes_of(uniform).to_vec(),
        buffers: buffers.to_vec(),
        workgroups,
        flops: flops as u64,
        bytes: 4 * words as u64,
    }
}

/// The loss of a tile of validation rows, from the buffers with their log p and the validation, and with the weights of all
/// rows where they have any.
pub(super) fn accumulate(
    rules: &uniforms::Rules,
    [log_prob, validation]: [BufferId; 2],
    weights: Option<BufferId>,
) -> Dispatch {
    let rows = rules.validation_capacity as usize;
    let weighted = weights.is_some();
    let bound = [log_prob, validation, weights.unwrap_or(log_prob)];
    let words = if weighted { 2 * rows } else { rows };
    Dispatch {
        constants: vec![("WEIGHTED", u32::from(weighted))],
        ..dispatch(&ACCUMULATE, "validation loss", rules, &bound, [1; 3], [words, words])
    }
}

/// The end of an epoch, from the buffers with the state, the validation, the history, the parameters and the best ones.
pub(super) fn close_program(
    rules: &uniforms::Rules,
    [state, validation, history, parameters, best]: [BufferId; 5],
) -> Program {
    let total = rules.parameters as usize;
    let record = [state, validation, history];
    let copied = [0, 2 * total];
    let mut close = Program::new("end of epoch");
    close.dispatches.push(dispatch(&CLOSE_EPOCH, "epoch's record", rules, &record, [1; 3], [3, 8]));
    close.dispatches.push(dispatch(
        &KEEP_BEST,
        "best parameters",
        rules,
        &[state, parameters, best],
        groups_of_256(total),
        copied,
    ));
    close
}
