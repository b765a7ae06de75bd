//! Each WGSL kernel on the first GPU adapter, and its CPU twin on one thread, at the sizes of a training step.
//!
//! `cargo bench --bench kernels`, with a filter such as `linear_forward` where wanted. Of the dispatches that a plan
//! has of a kernel, the one with the most work is measured. It is repeated within a submission until submitting and
//! waiting weigh little; what remains includes recording and launching a dispatch, which for the small shape is most
//! of it.

mod support;

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use moonflow::cpu::activation::{activate, activate_backward};
use moonflow::cpu::adam::{Progress, Rule, adam, global_norm};
use moonflow::cpu::batch::gather;
use moonflow::cpu::loss::negative_log_likelihood;
use moonflow::cpu::sampling::latent;
use moonflow::flow::Flow;
use moonflow::gpu::Context;
use moonflow::gpu::evaluation::EvaluationPlan;
use moonflow::gpu::executor::Executor;
use moonflow::gpu::kernel::{ACCUMULATE, KERNELS, Kernel, LATENT_NOISE, PERMUTE};
use moonflow::gpu::plan::{BufferId, Dispatch, Plan, Program, ProgramId, groups_of_256};
use moonflow::gpu::training::{TrainingPlan, TrainingShape};
use moonflow::gpu::uniforms;
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule};
use moonflow::random::{self, NORMAL_TABLE, Stream};
use pollster::block_on;
use support::{Bench, Cost, SHAPES, Shape, context, normal_rows, random_parameters, timed};

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
    for shape in &SHAPES {
        let plans = Plans::new(shape);
        twins(&mut bench, shape, &plans);
        if let Some(context) = &context {
            kernels(&mut bench, shape, &plans, context);
        }
    }
    bench.finish();
}

/// Training rows, in batches.
const BATCHES: usize = 8;

const ADAM: Adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip_norm: 5.0 };

/// Hardly any change, so that numbers stay what they are however often a kernel runs.
const SCHEDULE: Schedule =
    Schedule { decay: Decay::Constant, base: 1e-9, warmup_steps: 0, total_steps: u32::MAX };

/// The plans of a shape, each with one more program for every kernel.
struct Plans {
    flow: Flow,
    parameters: Vec<f32>,
    training: TrainingPlan,
    evaluation: EvaluationPlan,
    isolated: Vec<Isolated>,
}

/// A kernel as a program of one dispatch.
struct Isolated {
    kernel: &'static Kernel,
    /// Whether the program is the training's or the evaluation's.
    in_training: bool,
    program: ProgramId,
    cost: Cost,
}

impl Plans {
    fn new(shape: &Shape) -> Self {
        let flow = shape.flow();
        let layout = Layout::new(&flow);
        let sizes = TrainingShape {
            train_rows: BATCHES * shape.batch,
            validation_rows: shape.batch,
            batch: shape.batch,
            adam: ADAM,
            schedule: SCHEDULE,
            seed: 1,
        };
        let mut training = TrainingPlan::new(&flow, &layout, &sizes);
        // Tiles without end: after the last one there would be nothing more to accumulate.
        change_uniform(&mut training.plan, &ACCUMULATE, |rules: &mut uniforms::Rules| {
            rules.validation_rows = u32::MAX;
        });
        let mut evaluation = EvaluationPlan::new(&flow, &layout, shape.batch);
        change_uniform(&mut evaluation.plan, &LATENT_NOISE, |latent: &mut uniforms::Latent| {
            *latent = uniforms::Latent {
                rows: shape.batch as u32,
                features: shape.features as u32,
                modelled: shape.features as u32,
                temperature: 1.0,
                ..*latent
            };
        });
        add_permutation(&mut evaluation.plan, BATCHES * shape.batch);

        let isolated = KERNELS
            .iter()
            .map(|&kernel| {
                let (in_training, plan) = match largest(&training.plan, kernel) {
                    Some(_) => (true, &mut training.plan),
                    None => (false, &mut evaluation.plan),
                };
                let dispatch = largest(plan, kernel).expect("every kernel has its place in a plan").clone();
                // The permutation is the epoch's; all others serve a batch.
                let batches = if kernel == &PERMUTE { BATCHES } else { 1 };
                let cost = Cost { rows: batches * shape.batch, flops: dispatch.flops, bytes: dispatch.bytes };
                let program = plan.program(Program { name: kernel.name, dispatches: vec![dispatch] });
                Isolated { kernel, in_training, program, cost }
            })
            .collect();
        Self { parameters: random_parameters(&flow), flow, training, evaluation, isolated }
    }

    fn cost(&self, kernel: &str) -> Cost {
        let isolated = self.isolated.iter().find(|isolated| isolated.kernel.name == kernel);
        isolated.expect("a kernel of this name").cost
    }
}

/// The dispatch of `kernel` with the most work.
fn largest<'a>(plan: &'a Plan, kernel: &Kernel) -> Option<&'a Dispatch> {
    let dispatches = plan.programs.iter().flat_map(|program| &program.dispatches);
    dispatches
        .filter(|dispatch| dispatch.kernel.name == kernel.name)
        .max_by_key(|dispatch| (dispatch.flops, dispatch.bytes))
}

fn change_uniform<U: bytemuck::Pod>(plan: &mut Plan, kernel: &Kernel, change: impl Fn(&mut U)) {
    for dispatch in plan.programs.iter_mut().flat_map(|program| &mut program.dispatches) {
        if dispatch.kernel.name == kernel.name {
            let mut uniform = bytemuck::pod_read_unaligned(&dispatch.uniform);
            change(&mut uniform);
            dispatch.uniform = bytemuck::bytes_of(&uniform).to_vec();
        }
    }
}

/// The epoch's order as a table, which no engine needs; `gather` has it inside.
fn add_permutation(plan: &mut Plan, rows: usize) {
    let places = plan.buffer("places", rows);
    let uniform = uniforms::Permutation {
        n: rows as u32,
        stream: Stream::Epoch as u32,
        key_low: 1,
        ..Default::default()
    };
    plan.program(Program {
        name: "permutation",
        dispatches: vec![Dispatch {
            kernel: &PERMUTE,
            constants: Vec::new(),
            label: "order of an epoch".into(),
            uniform: bytemuck::bytes_of(&uniform).to_vec(),
            buffers: vec![places],
            workgroups: groups_of_256(rows),
            flops: 0,
            bytes: 4 * rows as u64,
        }],
    });
}

/// Measures every kernel of a shape on the GPU.
fn kernels(bench: &mut Bench, shape: &Shape, plans: &Plans, context: &Context) {
    // Made when the first bench that no filter leaves out asks for it.
    let device = OnceCell::new();
    for isolated in &plans.isolated {
        let &Isolated { kernel, in_training, program, cost } = isolated;
        bench.measure(kernel.name, "gpu", shape, cost, || {
            let device: &Rc<Device> = device.get_or_init(|| Rc::new(Device::new(shape, plans, context)));
            device.refresh(shape, plans);
            let executor = if in_training { &device.training } else { &device.evaluation };
            let repeats = repeats(executor, program);
            let device = Rc::clone(device);
            move |times| {
                let executor = if in_training { &device.training } else { &device.evaluation };
                run(executor, program, times * repeats).div_f64(repeats as f64)
            }
        });
    }
}

/// A shape's plans on a device.
struct Device {
    training: Executor,
    evaluation: Executor,
}

impl Device {
    fn new(shape: &Shape, plans: &Plans, context: &Context) -> Self {
        let Plans { flow, training: plan, evaluation, .. } = plans;
        // The features of each coupling, kept ones first, then which they are.
        let order: Vec<u32> = flow
            .couplings()
            .flat_map(|moonflow::flow::Coupling { mask, .. }| {
                let of = move |wanted: bool| (0..).zip(mask).filter(move |(_, kept)| **kept == wanted);
                let features = of(true).chain(of(false)).map(|(feature, _)| feature);
                features.chain(mask.iter().map(|&kept| u32::from(kept)))
            })
            .collect();
        let training = Executor::new(context, &plan.plan).expect("the adapter holds the plan");
        fill(&training, &plan.plan, &[plan.state, plan.validation, plan.history]);
        training.write(plan.order, &order);

        let plan = evaluation;
        let evaluation = Executor::new(context, &plan.plan).expect("the adapter holds the plan");
        fill(&evaluation, &plan.plan, &[plan.extent]);
        evaluation.write(plan.order, &order);
        evaluation.write(plan.normal_table, NORMAL_TABLE.as_flattened());
        evaluation.write(plan.extent, &[uniforms::Extent { rows: shape.batch as u32, first: 0 }]);
        Self { training, evaluation }
    }

    /// Sets back what kernels advance, to the end of an epoch that improved: `adam` updates and `keep_best` copies.
    fn refresh(&self, shape: &Shape, plans: &Plans) {
        let plan = &plans.training;
        let state = uniforms::TrainState {
            rows: shape.batch as u32,
            improved: 1,
            bias_correction1: 0.1,
            bias_correction2: 0.001,
            learning_rate: SCHEDULE.base,
            clip: 1.0,
            best_nll: f32::MAX,
            ..Default::default()
        };
        let rows = plan.validation_capacity as u32;
        self.training.write(plan.state, &[state]);
        self.training.write(plan.validation, &[uniforms::Validation { rows, ..Default::default() }]);
    }
}

/// Fills all buffers of a plan with numbers in (0, 1], except those that hold structs. Zeros would be multiplied
/// faster by some hardware, and a norm or a second moment must not be negative.
fn fill(executor: &Executor, plan: &Plan, structs: &[BufferId]) {
    let numbers: Vec<f32> = (1..=1021).map(|place| place as f32 / 1021.0).collect();
    for (index, buffer) in plan.buffers.iter().enumerate() {
        if !structs.contains(&BufferId(index)) {
            let values: Vec<f32> = numbers.iter().copied().cycle().take(buffer.bytes as usize / 4).collect();
            executor.write(BufferId(index), &values);
        }
    }
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
    loop {
        let seconds = run(executor, program, repeats).as_secs_f64();
        if seconds >= TOGETHER || repeats >= 4096 {
            return repeats;
        }
        repeats *= 2;
    }
}

/// Measures the CPU's functions, one call for the work of the GPU's largest dispatch: those that the CPU engine runs as
/// they stand. Its products and couplings are measured as part of a whole step, by the bench `steps`.
fn twins(bench: &mut Bench, shape: &Shape, plans: &Plans) {
    let rows = shape.batch;
    let features = shape.features;
    let size = rows * features;
    let flow = &plans.flow;
    let layout = Layout::new(flow);
    let total = layout.total;
    let [inputs, outputs] = shape.hidden;
    let wide = &normal_rows(rows, inputs.max(outputs))[..];
    let x = &normal_rows(rows, features)[..];
    let train = &normal_rows(BATCHES * rows, features)[..];
    let log_det = &vec![0.1; rows][..];
    let gradient = &plans.parameters[..];

    macro_rules! twin {
        ($name:literal, $cost:expr, [$($buffer:ident = $length:expr),*], $call:expr) => {
            bench.measure($name, "cpu", shape, $cost, || {
                $(let mut $buffer = vec![0.0f32; $length];)*
                move |times| timed(times, || $call)
            });
        };
    }
    let cost = |name| plans.cost(name);
    let elementwise = |flops, words: usize| Cost { rows, flops, bytes: 4 * words as u64 };
    // Both networks of a coupling have a layer of this shape, and the GPU takes them together.
    let hidden = 2 * rows * outputs;

    // On the GPU a part of the linear kernels.
    twin!("activate", elementwise(0, 2 * hidden), [h = hidden], {
        for h in h.chunks_exact_mut(rows * outputs) {
            activate(flow.activation, wide, h);
        }
    });
    twin!("activate_backward", elementwise(0, 3 * hidden), [d_pre = hidden], {
        for d_pre in d_pre.chunks_exact_mut(rows * outputs) {
            activate_backward(flow.activation, wide, wide, d_pre);
        }
    });
    twin!("gather", cost("gather"), [batch = size], gather(features, 0, 1, 0, train, &mut batch));
    twin!("log_density", cost("log_density"), [nll = rows], negative_log_likelihood(0, x, log_det, &mut nll));
    // The half of sum_partials that is a function of its own.
    twin!("global_norm", elementwise(2 * total as u64, total), [], global_norm(gradient));
    let rule = Rule::<f32>::new(&ADAM);
    let progress = Progress { learning_rate: SCHEDULE.base, ..Progress::resume(&rule, 1) };
    twin!(
        "adam",
        cost("adam"),
        [parameters = total, moment1 = total, moment2 = total],
        adam(&rule, &progress, gradient, &mut parameters, &mut moment1, &mut moment2)
    );
    twin!("latent_noise", cost("latent_noise"), [z = size], latent(features, 0, 0, 1, 1.0, &mut z));
    let order = (BATCHES * rows) as u32;
    twin!("permutation", cost("permutation"), [], {
        (0..order).fold(0, |sum: u32, row| sum.wrapping_add(random::permute(row, order, 1, Stream::Epoch, 0)))
    });
}
