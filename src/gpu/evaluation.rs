//! The plan of evaluation: forward with log-density, inverse, and sampling, `capacity` rows at a time.

use super::fused::Packing;
use super::kernel::LATENT_NOISE;
use super::layered::{Direction, FlowBuffers, Recorder};
use super::plan::{BufferId, Dispatch, Plan, Program, ProgramId, groups_of_256};
use super::tile::Tiling;
use super::uniforms;
use crate::flow::Flow;
use crate::layout::Layout;
use crate::random::NORMAL_TABLE;

/// Buffers and programs with which a flow is evaluated.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// The plan itself.
    pub plan: Plan,
    /// Rows computed at a time.
    pub capacity: usize,
    /// Whether limits or memory kept the capacity below what was asked for.
    pub capacity_limited: bool,
    /// Rows at hand: [`uniforms::Extent`].
    pub extent: BufferId,
    /// Flat parameters `[P]`, or their packed copies.
    pub parameters: BufferId,
    /// How parameters are packed, in the fused plan.
    pub packing: Option<Packing>,
    /// Where the fused plan's sampling reads its [`uniforms::Latent`].
    pub request: Option<BufferId>,
    /// Table of the normal quantile, for sampling.
    pub normal_table: BufferId,
    /// Rows that go in [capacity, D].
    pub input: BufferId,
    /// Rows that come out of either direction [capacity, D].
    pub output: BufferId,
    /// log |det| of the last forward or inverse pass `[capacity]`.
    pub log_det: BufferId,
    /// log p of the last forward pass `[capacity]`.
    pub log_prob: BufferId,
    /// x → z, log_det, log_prob.
    pub forward: ProgramId,
    /// z → x, log_det.
    pub inverse: ProgramId,
    /// Noise → x. Its first dispatch draws the noise; its uniform is a [`uniforms::Latent`].
    pub sample: ProgramId,
}

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
        let shares = plan.buffer("shares of log_det", capacity * features);
        let shared = FlowBuffers { capacity, extent, parameters, order, shares };
        let recorder = Recorder { flow, layout, tiling, shared };
        let activations = recorder.activations(&mut plan, "", &recorder.widest());

        let mut forward = Program::new("log_prob");
        let output = recorder.pass(&mut forward, [input, other], &activations, Direction::Forward);
        recorder.log_density(&mut forward, output, log_prob, log_det);
        let mut inverse = Program::new("inverse");
        recorder.pass(&mut inverse, [input, other], &activations, Direction::Inverse);
        let mut sample = Program::new("sample");
        sample.dispatches.push(Dispatch {
            kernel: &LATENT_NOISE,
            constants: Vec::new(),
            label: "latent noise".into(),
            uniform: bytemuck::bytes_of(&uniforms::Latent::default()).to_vec(),
            buffers: vec![normal_table, input],
            workgroups: groups_of_256(capacity * flow.modelled().div_ceil(2)),
            flops: 0,
            bytes: (4 * capacity * flow.modelled()) as u64,
        });
        sample.dispatches.extend(inverse.dispatches.iter().cloned());
        recorder.log_determinant(&mut inverse, log_det);

        let (forward, inverse, sample) = (plan.program(forward), plan.program(inverse), plan.program(sample));
        Self {
            plan,
            capacity,
            capacity_limited: false,
            extent,
            parameters,
            packing: None,
            request: None,
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
