//! The layered plan of evaluation.

use super::super::evaluation::{EvaluationPlan, Upload};
use super::super::plan::{Plan, Program};
use super::super::tile::Tiling;
use super::{Direction, Factor, FlowBuffers, Recorder};
use crate::flow::Flow;
use crate::layout::Layout;
use crate::random::NORMAL_TABLE;

impl EvaluationPlan {
    /// The plan of `flow` for `capacity` rows at a time.
    pub fn new(flow: &Flow, layout: &Layout, capacity: usize) -> Self {
        Self::tiled(flow, layout, capacity, &Tiling::default())
    }

    /// The same plan with the tiles of `tiling`.
    pub fn tiled(flow: &Flow, layout: &Layout, capacity: usize, tiling: &Tiling) -> Self {
        let mut plan = Plan::default();
        let features = flow.features;
        let extent = plan.buffer("extent", 2);
        let parameters = plan.buffer("parameters", layout.total);
        let order = plan.constant("order", &Recorder::order(flow));
        let normal_table = plan.buffer("normal_table", NORMAL_TABLE.as_flattened().len());
        let input = plan.buffer("rows.0", capacity * features);
        let other = plan.buffer("rows.1", capacity * features);
        let log_det = plan.buffer("log_det", capacity);
        let log_prob = plan.buffer("log_prob", capacity);
        let log_dets = plan.buffer("log_det of each feature", capacity * features);
        let whitened = Recorder::whitened(&mut plan, flow, capacity);
        let shared = FlowBuffers { capacity, extent, parameters, order, log_dets, whitened };
        let recorder = Recorder { flow, layout, tiling, factor: Factor::Mean, shared };
        let stored = recorder.store(&mut plan, "", 0..flow.transforms.len());

        let mut forward = Program::new("log_prob");
        let output = recorder.pass(&mut forward, [input, other], &stored, Direction::Forward);
        recorder.log_density(&mut forward, output, log_prob, log_det);
        let mut inverse = Program::new("inverse");
        recorder.pass(&mut inverse, [input, other], &stored, Direction::Inverse);
        let mut sample = Program::new("sample");
        sample.dispatches.push(recorder.draw(normal_table, input));
        sample.dispatches.extend(inverse.dispatches.iter().cloned());
        recorder.log_determinant(&mut inverse, log_det);

        let (forward, inverse, sample) = (plan.program(forward), plan.program(inverse), plan.program(sample));
        Self {
            plan,
            capacity,
            capacity_limited: false,
            extent,
            parameters,
            upload: Upload::Layered,
            normal_table,
            input,
            output,
            log_det,
            log_prob,
            forward,
            inverse,
            sample,
        }
    }
}
