//! The fused plan of training: a step is the gradient of a batch, the sum of its partial gradients, and the update.

use super::super::kernel::{ACCUMULATE, FUSED_ADAM, FUSED_FORWARD, FUSED_GRADIENT, FUSED_SUM, Kernel};
use super::super::plan::{BufferId, Dispatch, Plan, Program};
use super::super::training::{
    HISTORY, TrainingPlan, TrainingShape, VALIDATION_TILE, close_program, rules, shards,
};
use super::super::uniforms;
use super::{Packing, Shape, Weights};
use crate::flow::Flow;
use crate::layout::Layout;

/// Most workgroups that share a batch; each has a partial gradient as large as the parameters.
const MOST_GROUPS: usize = 64;
/// Bytes of partial gradients from which workgroups take several blocks of rows instead.
const PARTIAL_BYTES: usize = 64 << 20;
/// Parameters for each workgroup that sums or updates them, and most such workgroups.
const PARAMETERS_PER_GROUP: usize = 1024;
const MOST_UPDATE_GROUPS: usize = 64;

impl TrainingPlan {
    /// The fused plan of training `flow`, with one shape for its steps and one for its validation.
    pub fn fused(
        flow: &Flow,
        layout: &Layout,
        shape: &TrainingShape,
        [fused, evaluation]: [&Shape; 2],
    ) -> Self {
        let mut plan = Plan::default();
        let (features, batch, total) = (flow.features, shape.batch, layout.total);
        let validation_capacity = shape.validation_rows.clamp(1, VALIDATION_TILE);
        let packing = Packing::new(flow, layout);

        let state = plan.buffer("state", size_of::<uniforms::TrainState>() / 4);
        let validation = plan.buffer("validation", size_of::<uniforms::Validation>() / 4);
        let history = plan.buffer("history", HISTORY * size_of::<uniforms::Record>() / 4);
        let train = shards(&mut plan, "training rows", shape.train_rows, features, usize::MAX);
        let validation_rows =
            shards(&mut plan, "validation rows", shape.validation_rows, features, usize::MAX);
        let roles = plan.constant("roles", packing.roles());
        let parameters = plan.buffer("parameters", total);
        let packed = plan.buffer("packed weights", packing.len());
        let moment1 = plan.buffer("moment1", total);
        let moment2 = plan.buffer("moment2", total);
        let best = plan.buffer("best parameters", total);

        let most = (PARTIAL_BYTES / (4 * packing.slot())).clamp(1, MOST_GROUPS);
        let groups = batch.div_ceil(fused.rows).clamp(1, most);
        let update_groups = total.div_ceil(PARAMETERS_PER_GROUP).clamp(1, MOST_UPDATE_GROUPS);
        let saved_words = packing.saved() * groups * 4 * fused.rows;
        let saved = plan.buffer("saved for the way back", saved_words);
        let partials = plan.buffer("partial gradients", groups * packing.slot());
        let gradient = plan.buffer("gradient and parts of its squared norm", total + update_groups);
        let places = plan.constant("places of parameters", packing.places());
        let slot_places = plan.constant("places in a slot", packing.slot_places());
        let state_words = size_of::<uniforms::TrainState>() / 4;
        let report = plan.buffer("report", state_words + batch);
        let tile_rows = plan.buffer("validation latent", validation_capacity * features);
        let tile_log_det = plan.buffer("validation log_det", validation_capacity);
        let tile_log_prob = plan.buffer("validation log_prob", validation_capacity);

        let rules = rules(features, total, shape, groups, update_groups, validation_capacity);
        let uniform = packing.uniform(flow, rules, groups);
        let uniform = bytemuck::bytes_of(&uniform).to_vec();
        // Cost: floating-point operations, and 32-bit words moved.
        let dispatch = |kernel: &'static Kernel,
                        uniform: &[u8],
                        label: String,
                        buffers: &[BufferId],
                        workgroups: [u32; 3],
                        [flops, words]: [usize; 2]| {
            Dispatch {
                kernel,
                constants: Vec::new(),
                label,
                uniform: uniform.to_vec(),
                buffers: buffers.to_vec(),
                workgroups,
                flops: flops as u64,
                bytes: 4 * words as u64,
            }
        };

        let weights = Weights::new(flow, layout);
        // Forward, and once more up to the last layer; gradients of weights, and of all inputs but the data.
        let products = 4 * weights.all - weights.last - weights.first_transform;
        let elements = batch * features * flow.transforms.len();
        let moved = batch * (features + 1) + packing.len() + 2 * saved_words + groups * packing.slot();
        let mut step = Program::new("training step");
        step.dispatches.push(Dispatch {
            constants: fused.constants(),
            ..dispatch(
                &FUSED_GRADIENT,
                &uniform,
                format!("gradient of a batch: {fused}"),
                &[roles, packed, state, train[0].buffer, saved, partials, report],
                [groups as u32, 1, 1],
                [2 * batch * products + 35 * elements, moved],
            )
        });
        // A parameter takes groups − 1 sums and a square to be summed; then clip, two moments, their corrections and
        // the decayed update.
        let each = [update_groups as u32, 1, 1];
        let summed = [(groups + 1) * total, (groups + 2) * total];
        step.dispatches.push(dispatch(
            &FUSED_SUM,
            &uniform,
            "gradient".into(),
            &[slot_places, partials, gradient],
            each,
            summed,
        ));
        step.dispatches.push(dispatch(
            &FUSED_ADAM,
            &uniform,
            "parameters and training state".into(),
            &[report, places, gradient, state, parameters, moment1, moment2, packed],
            each,
            [18 * total + update_groups + batch, 11 * total + update_groups + batch],
        ));

        let mut validate = Program::new("validation tile");
        validate.dispatches.push(Dispatch {
            constants: evaluation.constants(),
            ..dispatch(
                &FUSED_FORWARD,
                &uniform,
                format!("validation rows: {evaluation}"),
                &[
                    roles,
                    packed,
                    validation,
                    validation_rows[0].buffer,
                    tile_rows,
                    tile_log_det,
                    tile_log_prob,
                ],
                [validation_capacity.div_ceil(evaluation.rows) as u32, 1, 1],
                [
                    2 * validation_capacity * weights.all
                        + 15 * validation_capacity * features * flow.transforms.len(),
                    2 * validation_capacity * (features + 1) + packing.len(),
                ],
            )
        });
        let sum = [tile_log_prob, validation];
        validate.dispatches.push(dispatch(
            &ACCUMULATE,
            bytemuck::bytes_of(&rules),
            "validation loss".into(),
            &sum,
            [1; 3],
            [validation_capacity; 2],
        ));

        let close = close_program(&rules, [state, validation, history, parameters, best]);
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
            packed: Some((packed, packing.copies())),
            gradient,
            moment1,
            moment2,
            best,
            history,
            log_prob: report,
            log_prob_at: state_words,
            step,
            validate,
            close,
        }
    }
}
