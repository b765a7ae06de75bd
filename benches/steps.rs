//! A whole training step, the log-density and sampling of one batch, on the CPU engine and on the first GPU adapter;
//! and, to hold the CPU engine to, the product of a hidden layer by the crate `gemm` on as many threads.
//!
//! `cargo bench --bench steps`, with a filter such as `train_step/cpu` where wanted. A training step is measured as
//! the host sees it: an epoch of 8 steps from the call to the records read back, divided by 8. Where a step takes
//! longer than 0.3 s, as on a software adapter, an epoch has one step. `encode` is what the host spends on a step.

mod support;

use std::time::{Duration, Instant};

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;
use moonflow::cpu::CpuEngine;
use moonflow::engine::{Engine, Sampling, Training, TrainingShape};
use moonflow::gpu::evaluation::EvaluationPlan;
use moonflow::gpu::executor::Executor;
use moonflow::gpu::plan::{Plan, ProgramId};
use moonflow::gpu::training::TrainingPlan;
use moonflow::gpu::{Context, GpuEngine, PlanKind, fused};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule, State};
use pollster::block_on;
use support::{Bench, Cost, Shape, context, normal_rows, random_parameters, shapes, testing, timed};

fn main() {
    let mut bench = Bench::new("One batch at a time, whole; a train_step includes the update.", "steps/s");
    let context = context();
    for (index, shape) in shapes().iter().enumerate() {
        let cpu = CpuEngine::<f32>::new(shape.flow()).expect("a valid shape");
        if index == 0 {
            bench.device("cpu", Engine::device(&cpu));
            if let Some(context) = &context {
                bench.device("gpu", context.info());
            }
        }
        product(&mut bench, shape);
        measure(&mut bench, "cpu", shape, cpu);
        // A test compiles the kernels of the first shape, which both plans take.
        if let Some(context) = context.as_ref().filter(|_| index == 0 || !testing()) {
            let fits = PlanKind::choose(&shape.flow(), &context.target()) == PlanKind::Fused;
            for plan in [PlanKind::Layered, PlanKind::Fused].into_iter().take(if fits { 2 } else { 1 }) {
                measure(&mut bench, &format!("gpu {plan}"), shape, gpu(shape, context, plan));
            }
        }
    }
    if let Some(context) = &context {
        encoding(&mut bench, context);
    }
    bench.finish();
}

fn gpu(shape: &Shape, context: &Context, plan: PlanKind) -> GpuEngine {
    GpuEngine::with_plan(shape.flow(), context.clone(), plan).expect("a flow that fits")
}

/// What the host spends on a training step: recording and submitting its dispatches, 256 steps at a time. The device has
/// next to nothing to do, and is not waited for within a measurement.
fn encoding(bench: &mut Bench, context: &Context) {
    const STEPS: u32 = 256;

    let small = Shape { hidden: [1, 1], batch: 1, ..shapes()[0] };
    // A test has kernels of the shape itself.
    let shape = if testing() { shapes()[0] } else { small };
    let (flow, target) = (shape.flow(), context.target());
    let layout = Layout::new(&flow);
    let sizes = TrainingShape::new(&training(&shape, 1), shape.features);
    for kind in [PlanKind::Layered, PlanKind::Fused] {
        let plan = match kind {
            PlanKind::Layered => TrainingPlan::new(&flow, &layout, &sizes),
            PlanKind::Fused => {
                let blocks = fused::Shape::training(&flow, &target, shape.batch).expect("narrow");
                let evaluation = fused::Shape::evaluation(&flow, &target).expect("narrow");
                TrainingPlan::fused(&flow, &layout, &sizes, [&blocks, &evaluation])
            }
        };
        let cost = Cost { rows: shape.batch, flops: 0, bytes: 0 };
        bench.measure("encode", &format!("gpu {kind}"), &shape, cost, || {
            let executor = Executor::new(context, &plan.plan).expect("fits");
            let step = plan.step;
            move |times| {
                let spent = (0..times).map(|_| {
                    let start = Instant::now();
                    let submission = executor.submit(std::iter::repeat_n(step, STEPS as usize));
                    let spent = start.elapsed();
                    block_on(executor.wait(submission)).expect("a healthy device");
                    spent
                });
                spent.sum::<Duration>() / STEPS
            }
        });
    }
}

/// [B, H] · [H, H] by `gemm`, on all threads: the rate that a step consisting of nothing else could have.
fn product(bench: &mut Bench, shape: &Shape) {
    let (rows, [inputs, outputs]) = (shape.batch, shape.hidden);
    let x = normal_rows(rows, inputs);
    let weight = normal_rows(outputs, inputs);
    let mut y = vec![0.0f32; rows * outputs];
    let (flops, bytes) = (2 * rows * inputs * outputs, 4 * (x.len() + weight.len() + y.len()));
    let cost = Cost { rows, flops: flops as u64, bytes: bytes as u64 };
    let multiply = get_gemm_fn();
    bench.measure("product", "cpu gemm", shape, cost, || {
        move |times| {
            timed(times, || {
                let (threads, [n, k]) =
                    (Parallelism::Rayon(0), [outputs, inputs].map(|width| width as isize));
                // The transpose, [H, H] · [H, B], in columns: the form that the crate's kernels want.
                // SAFETY: y is [rows, outputs], x [rows, inputs] and weight [outputs, inputs], all row-major; y is
                // borrowed exclusively.
                unsafe {
                    multiply(
                        outputs,
                        rows,
                        inputs,
                        y.as_mut_ptr(),
                        n,
                        1,
                        false,
                        weight.as_ptr(),
                        1,
                        k,
                        x.as_ptr(),
                        k,
                        1,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        threads,
                    );
                }
            })
        }
    });
}

/// The three ways to use `engine`, each on one batch of `shape`.
fn measure(bench: &mut Bench, name: &str, shape: &Shape, mut engine: impl Engine) {
    let flow = shape.flow();
    let layout = Layout::new(&flow);
    let parameters = random_parameters(&flow);
    let x = normal_rows(shape.batch, shape.features);
    engine.set_parameters(&parameters).expect("as many parameters as the flow has");

    let sizes = TrainingShape::new(&training(shape, 1), shape.features);
    let plan = TrainingPlan::new(&flow, &layout, &sizes);
    let step = cost(shape, &plan.plan, plan.step);
    let evaluation = EvaluationPlan::new(&flow, &layout, shape.batch);
    let [log_prob, sample] =
        [evaluation.forward, evaluation.sample].map(|program| cost(shape, &evaluation.plan, program));

    let state = State::from_parameters(parameters);
    bench.measure("train_step", name, shape, step, || {
        let steps = begin(&mut engine, shape, &state);
        let engine = &mut engine;
        move |times| train(engine, times).div_f64(f64::from(steps))
    });
    bench.measure("log_prob", name, shape, log_prob, || {
        |times| timed(times, || block_on(engine.log_prob(&x)).expect("whole rows"))
    });
    let sampling = Sampling { rows: shape.batch, first: 0, seed: 1, temperature: 1.0 };
    bench.measure("sample", name, shape, sample, || {
        |times| timed(times, || block_on(engine.sample(sampling)).expect("samples"))
    });
}

fn cost(shape: &Shape, plan: &Plan, ProgramId(index): ProgramId) -> Cost {
    let program = &plan.programs[index];
    Cost { rows: shape.batch, flops: program.flops(), bytes: program.bytes() }
}

/// A training on `steps` batches, at a rate that leaves random parameters where they are.
fn training(shape: &Shape, steps: usize) -> Training {
    Training {
        weights: None,
        train: normal_rows(steps * shape.batch, shape.features).into(),
        validation: Vec::new().into(),
        batch: shape.batch as u32,
        adam: Adam { clip_norm: 5.0, ..Adam::default() },
        schedule: Schedule { decay: Decay::Constant, base: 1e-6, warmup_steps: 0, total_steps: u32::MAX },
        seed: 1,
    }
}

/// Begins a training whose epochs have 8 steps, or 1 where a step takes so long that reading the records back weighs
/// nothing. Returns the number of steps.
fn begin(engine: &mut impl Engine, shape: &Shape, state: &State) -> u32 {
    const LONG: Duration = Duration::from_millis(300);

    engine.begin_training(training(shape, 1), state.clone()).expect("a fitting state");
    // The first step compiles and allocates; it says enough only where it takes far longer than that.
    if train(engine, 1) > 10 * LONG || train(engine, 1) > LONG {
        return 1;
    }
    engine.begin_training(training(shape, 8), state.clone()).expect("a fitting state");
    train(engine, 1);
    8
}

/// Time of `epochs` epochs, one call each.
fn train(engine: &mut impl Engine, epochs: u64) -> Duration {
    timed(epochs, || {
        let records = block_on(engine.train(1)).expect("training");
        assert!(!records[0].halted, "a halted step does nothing that could be measured");
    })
}
