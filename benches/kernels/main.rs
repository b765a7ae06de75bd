//! Each WGSL kernel on the first GPU adapter, beside its CPU twin on one thread, at the sizes of a training step.
//!
//! `cargo bench --bench kernels`, with a filter such as `linear_forward` or `fused` where wanted. Of the dispatches that
//! the plans of a kind, layered or fused, have of a kernel, the one with the most work is measured, alone and on buffers
//! of its own. It is repeated within a submission until submitting and waiting weigh little; what remains includes
//! recording and launching a dispatch, which for the small shape is most of it.

mod plans;
#[path = "../support/mod.rs"]
mod support;
mod twins;

use std::time::{Duration, Instant};

use moonflow::gpu::executor::Executor;
use moonflow::gpu::plan::ProgramId;
use moonflow::gpu::uniforms::TrainState;
use moonflow::gpu::{Context, Target};
use plans::{Largest, Plans};
use pollster::block_on;
use support::{Bench, Shape, context, shapes, testing};

fn main() {
    let mut bench = Bench::new(
        "Kernels at the sizes of a training step: the GPU's largest dispatch of each, and the same work on one CPU \
         thread.",
        "runs/s",
    );
    let context = context();
    bench.device("cpu", "one thread");
    if let Some(context) = &context {
        bench.device("gpu", context.info());
    }
    let target = context.as_ref().map_or_else(Target::default, Context::target);
    for (index, shape) in shapes().iter().enumerate() {
        let plans = Plans::new(shape, &target);
        if let Some(refusal) = &plans.refusal {
            let missing = plans.missing().join(", ");
            bench.note(format!("left out at {shape}: {missing} ({refusal})"));
        }
        // A test compiles the kernels of the first shape, which has those of both plans.
        if let Some(context) = context.as_ref().filter(|_| index == 0 || !testing()) {
            kernels(&mut bench, shape, &plans, context);
        }
        twins::measure(&mut bench, shape, &plans);
    }
    bench.finish();
}

fn kernels(bench: &mut Bench, shape: &Shape, plans: &Plans, context: &Context) {
    for group in &plans.groups {
        for largest in group.kernels() {
            let (name, cost) = (largest.kernel().name, largest.cost());
            bench.measure(name, &group.engine, shape, cost, || prepare(context, largest));
        }
    }
}

/// A function that runs a dispatch a number of times and tells how long that took.
fn prepare(context: &Context, largest: Largest) -> impl FnMut(u64) -> Duration + use<> {
    let alone = largest.alone();
    let executor = Executor::new(context, &alone.plan).expect("the adapter holds the plan");
    let program = alone.program;
    let repeats = repeats(&executor, program);
    if let Some(state) = alone.state {
        let [state] = block_on(executor.read::<TrainState, 1>([(state, 1)])).expect("the device works");
        assert_eq!(
            state[0].halted,
            0,
            "{}: a halted training does nothing to measure",
            largest.kernel().name
        );
    }
    move |times| run(&executor, program, times * repeats).div_f64(repeats as f64)
}

/// Most dispatches in a submission, so that recording the next one and running the last overlap.
const MOST_DISPATCHES: u64 = 256;

/// Time of `times` runs of a program, from the first recording to the last result.
fn run(executor: &Executor, program: ProgramId, times: u64) -> Duration {
    let start = Instant::now();
    let mut left = times;
    while left > 0 {
        let now = left.min(MOST_DISPATCHES);
        left -= now;
        let submission = executor.submit(std::iter::repeat_n(program, now as usize));
        if left == 0 {
            block_on(executor.wait(submission)).expect("the device works");
        }
    }
    start.elapsed()
}

/// Runs that take about 10 ms together, beside which one submission and one wait are short.
fn repeats(executor: &Executor, program: ProgramId) -> u64 {
    const TOGETHER: f64 = 10e-3;

    run(executor, program, 1);
    let mut repeats = 1;
    while !testing() && repeats < 4096 && run(executor, program, repeats).as_secs_f64() < TOGETHER {
        repeats *= 2;
    }
    repeats
}
