//! The fused plan of evaluation: one dispatch for the forward pass with its log-density, one for the inverse, and one
//! for sampling, its noise included.

use super::super::evaluation::{EvaluationPlan, Upload};
use super::super::kernel::{FUSED_FORWARD, FUSED_INVERSE, FUSED_SAMPLE, Kernel};
use super::super::plan::{BufferId, Dispatch, Plan, Program};
use super::super::uniforms;
use super::{FusedLayout, Shape, Work};
use crate::flow::Flow;
use crate::layout::Layout;
use crate::random::NORMAL_TABLE;

impl EvaluationPlan {
    /// The fused plan of `flow` for `capacity` rows at a time with blocks of `shape`.
    pub fn fused(flow: &Flow, layout: &Layout, capacity: usize, shape: &Shape) -> Self {
        let mut plan = Plan::default();
        let features = flow.features;
        let fused_layout = FusedLayout::new(flow, layout);
        let extent = plan.buffer("extent", 2);
        let request = plan.buffer("request", size_of::<uniforms::Latent>() / 4);
        let parameters = plan.buffer("packed weights", fused_layout.len());
        let roles = plan.constant("roles", fused_layout.roles());
        let normal_table = plan.buffer("normal_table", NORMAL_TABLE.as_flattened().len());
        let input = plan.buffer("rows.0", capacity * features);
        let output = plan.buffer("rows.1", capacity * features);
        let log_det = plan.buffer("log_det", capacity);
        let log_prob = plan.buffer("log_prob", capacity);

        let uniform = bytemuck::bytes_of(&fused_layout.uniform(flow, uniforms::Rules::default(), 0)).to_vec();
        let work = Work::new(flow, layout);
        let flops = capacity * (2 * work.all + work.forward);
        let mut program = |name, kernel: &'static Kernel, label: &str, buffers: &[BufferId], words: usize| {
            let mut program = Program::new(name);
            program.dispatches.push(Dispatch {
                kernel,
                constants: shape.constants(),
                label: format!("{label}: {shape}"),
                uniform: uniform.clone(),
                buffers: buffers.to_vec(),
                workgroups: [capacity.div_ceil(shape.rows) as u32, 1, 1],
                flops: flops as u64,
                bytes: 4 * (words + fused_layout.len()) as u64,
            });
            plan.program(program)
        };
        let rows = capacity * features;
        let forward = program(
            "log_prob",
            &FUSED_FORWARD,
            "data to latent",
            &[roles, parameters, extent, input, output, log_det, log_prob],
            2 * (rows + capacity),
        );
        let inverse = program(
            "inverse",
            &FUSED_INVERSE,
            "latent to data",
            &[roles, parameters, extent, input, output, log_det],
            2 * rows + capacity,
        );
        let sample = program(
            "sample",
            &FUSED_SAMPLE,
            "noise to data",
            &[roles, parameters, request, normal_table, output, input],
            rows + capacity * flow.context,
        );
        Self {
            plan,
            capacity,
            capacity_limited: false,
            extent,
            parameters,
            upload: Upload::Fused { copies: fused_layout.copies(), request },
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
