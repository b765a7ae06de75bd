//! Plans as data: the same every time, and refused with the limit that they exceed.

use moonflow::engine::{Training, TrainingShape};
use moonflow::flow::Flow;
use moonflow::gpu::evaluation::EvaluationPlan;
use moonflow::gpu::kernel::{Access, Binding, Kernel};
use moonflow::gpu::plan::Plan;
use moonflow::gpu::training::TrainingPlan;
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule};

use super::harness::{Call, run};
use crate::gpu::context;

fn flow() -> Flow {
    Flow::new(5, 3, &[70, 33]).expect("valid")
}

fn training_plan(rows: usize, batch: u32) -> TrainingPlan {
    let training = Training {
        weights: None,
        train: vec![0.0; 5 * rows].into(),
        validation: vec![0.0; 5 * 37].into(),
        batch,
        adam: Adam::default(),
        schedule: Schedule { decay: Decay::Cosine, base: 1e-3, warmup_steps: 0, total_steps: 10 },
        seed: 1,
    };
    TrainingPlan::new(&flow(), &Layout::new(&flow()), &TrainingShape::new(&training, 5))
}

fn evaluation_plan(capacity: usize) -> EvaluationPlan {
    EvaluationPlan::new(&flow(), &Layout::new(&flow()), capacity)
}

/// All that the executor reads.
fn text(plan: &Plan) -> String {
    let uniforms: Vec<_> = plan
        .programs
        .iter()
        .flat_map(|program| &program.dispatches)
        .map(|dispatch| &dispatch.uniform)
        .collect();
    let programs: Vec<_> = plan.programs.iter().map(ToString::to_string).collect();
    format!("{:?}\n{programs:?}\n{uniforms:?}\n{plan:?}", plan.buffers)
}

#[test]
fn a_plan_is_the_same_every_time_and_another_for_another_size() {
    assert_eq!(text(&training_plan(157, 32).plan), text(&training_plan(157, 32).plan));
    assert_ne!(text(&training_plan(157, 32).plan), text(&training_plan(157, 33).plan));
    assert_eq!(text(&evaluation_plan(64).plan), text(&evaluation_plan(64).plan));
    assert_ne!(text(&evaluation_plan(64).plan), text(&evaluation_plan(128).plan));
}

#[test]
fn every_dispatch_names_a_buffer_of_the_plan_for_each_binding() {
    for plan in [training_plan(157, 32).plan, evaluation_plan(64).plan] {
        for dispatch in plan.programs.iter().flat_map(|program| &program.dispatches) {
            assert_eq!(
                dispatch.buffers.len() + 1,
                dispatch.kernel.bindings.len(),
                "{}",
                dispatch.kernel.name
            );
            assert!(
                dispatch.buffers.iter().all(|buffer| buffer.0 < plan.buffers.len()),
                "{}",
                dispatch.kernel.name
            );
            assert!(dispatch.workgroups.iter().all(|&groups| groups > 0), "{}", dispatch.kernel.name);
        }
    }
}

#[test]
fn a_plan_beyond_a_limit_is_refused_with_its_name_the_need_and_the_size() {
    let plan = training_plan(1000, 300).plan;
    let enough = wgpu::Limits::default();
    plan.check(&enough).expect("the limits that every WebGPU adapter has");
    let largest = plan.buffers.iter().map(|buffer| buffer.bytes).max().expect("buffers");
    let most = plan.programs.iter().flat_map(|program| &program.dispatches).flat_map(|d| d.workgroups).max();
    let most = most.expect("dispatches");
    for (limits, name, need, have) in [
        (
            wgpu::Limits { max_storage_buffer_binding_size: largest - 4, ..enough.clone() },
            "max_storage_buffer_binding_size",
            largest,
            largest - 4,
        ),
        (
            wgpu::Limits { max_buffer_size: largest - 4, ..enough.clone() },
            "max_buffer_size",
            largest,
            largest - 4,
        ),
        (
            wgpu::Limits { max_compute_workgroups_per_dimension: most - 1, ..enough.clone() },
            "max_compute_workgroups_per_dimension",
            u64::from(most),
            u64::from(most - 1),
        ),
    ] {
        let message = plan.check(&limits).expect_err("too small a limit").to_string();
        for part in [name, "the CPU engine", &format!("needs {need} "), &format!("at most {have} ")] {
            assert!(message.contains(part), "'{part}' is missing: {message}");
        }
    }
    // What just fits is no reason to refuse.
    plan.check(&wgpu::Limits {
        max_storage_buffer_binding_size: largest,
        max_buffer_size: largest,
        max_compute_workgroups_per_dimension: most,
        ..enough
    })
    .expect("limits that are just met");
}

#[test]
fn a_dispatch_decides_the_constants_of_its_kernel() {
    static KERNEL: Kernel = Kernel {
        name: "constants",
        texts: &["@group(0) @binding(1) var<storage, read_write> numbers: array<u32>;
            @compute @workgroup_size(1) fn constants() { numbers[0] = FIRST; numbers[1] = SECOND; }"],
        bindings: &[Binding { number: 1, name: "numbers", access: Access::ReadWrite }],
        constants: &[("FIRST", 3), ("SECOND", 4)],
    };
    let Some(context) = context() else { return };
    let call = |constants: &[_]| {
        Call::new("constants", &[0u32; 0], [1; 3]).constants(constants).bind("numbers", vec![0; 4])
    };
    let got = run(context, &KERNEL, &[call(&[]), call(&[("SECOND", 5)]), call(&[])]);
    assert_eq!(got, [[3, 4, 0, 0], [3, 5, 0, 0], [3, 4, 0, 0]]);
}
