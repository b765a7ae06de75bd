//! What a plan of evaluation is, whichever way it computes: forward with log-density, inverse, and sampling, `capacity`
//! rows at a time. `gpu::layered` and `gpu::fused` make such plans.

use super::executor::Executor;
use super::plan::{BufferId, Copies, Plan, ProgramId};
use super::uniforms;

/// How the parameters and the request of a sampling get to the device, in which the plans differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Upload {
    /// Parameters as they are. The request is the uniform of the sampling's first dispatch, which draws the noise.
    Layered,
    /// Packed parameters, and a buffer for the request.
    Fused {
        /// Where packed copies of the parameters lie.
        copies: Copies,
        /// Holds the [`uniforms::Latent`] of a sampling.
        request: BufferId,
    },
}

/// Buffers and programs with which a flow is evaluated.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// The plan itself.
    pub plan: Plan,
    /// Rows computed at a time.
    pub capacity: usize,
    /// Whether limits or memory kept the capacity below what was asked for.
    pub capacity_limited: bool,
    /// Rows that hold data: [`uniforms::Extent`].
    pub extent: BufferId,
    /// Flat parameters `[P]`, or their packed copies.
    pub parameters: BufferId,
    /// How parameters and the request of a sampling get to the device.
    pub upload: Upload,
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
    /// Noise → x, as a [`uniforms::Latent`] asks for it.
    pub sample: ProgramId,
}

impl EvaluationPlan {
    /// Takes `parameters` `[P]` to `executor`, which runs this plan.
    pub fn write_parameters(&self, executor: &Executor, parameters: &[f32]) {
        match &self.upload {
            Upload::Layered => executor.write(self.parameters, parameters),
            Upload::Fused { copies, .. } => executor.write(self.parameters, &copies.pack(parameters)),
        }
    }

    /// Asks `executor`, which runs this plan, for what the next sampling draws.
    pub fn write_request(&self, executor: &Executor, latent: &uniforms::Latent) {
        match &self.upload {
            Upload::Layered => executor.write_uniform(self.sample, 0, latent),
            Upload::Fused { request, .. } => executor.write(*request, &[*latent]),
        }
    }
}
