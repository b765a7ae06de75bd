//! The layered plan of the score function: the way of a training step, without its weight gradients.

use super::super::plan::{Plan, Program};
use super::super::score::ScorePlan;
use super::super::tile::Tiling;
use super::{Factor, FlowBuffers, Recorder};
use crate::flow::Flow;
use crate::layout::Layout;

impl ScorePlan {
    /// The plan of `flow` for `capacity` rows at a time with the tiles of `tiling`.
    pub fn tiled(flow: &Flow, layout: &Layout, capacity: usize, tiling: &Tiling) -> Self {
        let mut plan = Plan::default();
        let extent = plan.buffer("extent", 2);
        let parameters = plan.buffer("parameters", layout.total);
        let order = plan.constant("order", &Recorder::order(flow));
        let log_prob = plan.buffer("log_prob", capacity);
        let log_dets = plan.buffer("log_det of each feature", capacity * flow.features);
        let whitened = Recorder::whitened(&mut plan, flow, capacity);
        let shared = FlowBuffers { capacity, extent, parameters, order, log_dets, whitened };
        let recorder = Recorder { flow, layout, tiling, factor: Factor::Score, shared };
        let rows = recorder.rows(&mut plan);
        let stored = recorder.store_each(&mut plan);
        // Bound where nothing is written.
        let partials = plan.buffer("no partial gradients", 0);
        let gradients = recorder.gradients(&mut plan, partials, capacity);
        let mut program = Program::new("score");
        recorder.forward(&mut program, &rows, &stored);
        let score = recorder.backward(&mut program, &rows, &stored, &gradients, log_prob);
        let program = plan.program(program);
        Self { plan, capacity, extent, parameters, input: rows[0], log_prob, score, program }
    }
}
