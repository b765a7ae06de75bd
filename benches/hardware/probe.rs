//! One measurement for `benches/hardware/run`, in a process of its own, so that a device that hangs or is lost costs that
//! measurement and no other.
//!
//! `hardware_probe JOB` takes a job as JSON and prints a line of JSON after each stage of it, so that what is done stays
//! known when the process is ended. Jobs are `{"job": "dispatch"}`, what a dispatch costs whatever it does, and
//! `{"job": "case", …}`: training, log-density and sampling of one flow at one batch by one plan.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "criterion and the tables are for the benches beside this")]
mod support;

use std::error::Error;
use std::time::Instant;

use moonflow::Recipe;
use moonflow::engine::{Engine, Sampling, Training, TrainingShape};
use moonflow::flow::{BijectorKind, ConditionerForm, Flow};
use moonflow::gpu::cost::Roofline;
use moonflow::gpu::executor::Executor;
use moonflow::gpu::kernel::KEEP_BEST;
use moonflow::gpu::plan::{Plan, Program, ProgramId};
use moonflow::gpu::training::TrainingPlan;
use moonflow::gpu::{Context, GpuEngine, PlanKind, adapters};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule, State};
use pollster::block_on;
use serde::Deserialize;
use serde_json::{Value, json};
use support::{normal_rows, random_parameters};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is run before anything is measured.
const WARM_UP_RUNS: u32 = 3;
/// Windows of a rate, of which the median counts.
const WINDOWS: usize = 5;
/// Runs of which a dispatch's time is the median.
const TIMED_RUNS: usize = 9;

/// What a process measures.
#[derive(Deserialize)]
#[serde(tag = "job", rename_all = "lowercase")]
enum Job {
    Dispatch,
    Case(Case),
}

/// What a case's couplings are.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Couplings {
    /// Affine, with a network for the scale and one for the translation.
    Affine,
    /// Affine, with one network.
    Joint,
    /// Rational-quadratic splines of 8 bins with tails from ±4, with one network.
    Spline,
}

/// A flow, a batch and a plan.
#[derive(Deserialize)]
struct Case {
    flow: Couplings,
    features: usize,
    layers: usize,
    hidden: usize,
    /// Rows of a training step, of a scoring and of a sampling.
    batch: usize,
    /// Training steps in an epoch, the least that a window holds.
    steps: usize,
    fused: bool,
    /// Whether the layered plan's tiles are searched for first.
    autotune: bool,
    /// Seconds that each rate is measured for.
    seconds: f64,
    /// The device's floating-point operations and bytes a second, and what a dispatch costs it in seconds, if known.
    roofline: Option<[f64; 3]>,
}

fn main() {
    if let Err(error) = run() {
        print(json!({ "error": error.to_string() }));
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let job = std::env::args().nth(1).ok_or("the job is missing: hardware_probe JOB, where JOB is JSON")?;
    match serde_json::from_str(&job).map_err(|error| format!("{error} in the job {job}"))? {
        Job::Dispatch => dispatch_cost(&open()?),
        Job::Case(case) => case.measure(),
    }
}

fn print(line: Value) {
    println!("{line}");
}

fn open() -> Result<Context> {
    let found = block_on(adapters());
    Ok(block_on(found.first().ok_or("no GPU adapter was found: install a driver")?.open())?)
}

/// What a dispatch costs that has next to nothing to do and waits for the one before: the slope of time over dispatches
/// in one submission.
fn dispatch_cost(context: &Context) -> Result<()> {
    const FEW: usize = 64;
    const MANY: usize = 1024;

    let flow = Flow::new(2, 1, &[1])?;
    let shape = TrainingShape {
        train_rows: 1,
        validation_rows: 0,
        batch: 1,
        adam: Adam::default(),
        schedule: constant(0.0),
        seed: 1,
        weights: None,
    };
    let mut plan = TrainingPlan::new(&flow, &Layout::new(&flow), &shape).plan;
    let of_kernel = plan.programs.iter().flat_map(|program| &program.dispatches);
    let dispatch = of_kernel.clone().find(|dispatch| dispatch.kernel == &KEEP_BEST).cloned();
    let dispatch = dispatch.ok_or("invariant: an epoch ends with keep_best")?;
    let program = plan.program(Program { name: "nothing", dispatches: vec![dispatch] });
    let executor = Executor::new(context, &plan)?;
    let seconds = |count| sampled(f64::INFINITY, || Ok(submission(&executor, program, count)?.1));
    submission(&executor, program, MANY)?;
    let (few, many) = (seconds(FEW)?, seconds(MANY)?);
    print(json!({
        "adapter": context.info().to_string(), "driver": context.driver(),
        "dispatch_seconds": (many - few).max(0.0) / (MANY - FEW) as f64,
        "submission_seconds": few,
    }));
    Ok(())
}

impl Case {
    fn measure(&self) -> Result<()> {
        let start = Instant::now();
        let context = open()?;
        let flow = self.flow()?;
        let kind = if self.fused { PlanKind::Fused } else { PlanKind::Layered };
        let parameters = random_parameters(&flow);
        let mut engine = GpuEngine::with_plan(flow, context.clone(), kind)?;
        print(json!({ "adapter": context.info().to_string(), "plan": kind.to_string() }));
        if self.autotune {
            let tuning = Instant::now();
            let found =
                block_on(engine.tune_training(&TrainingShape::new(&self.training(1), self.features)))?;
            let tuned = found.len() + block_on(engine.tune_evaluation(self.batch))?.len();
            print(json!({ "tuned": tuned, "tuning_seconds": tuning.elapsed().as_secs_f64() }));
        }
        self.train(&mut engine, parameters.clone(), start)?;
        engine.set_parameters(&parameters)?;
        self.evaluate(&mut engine)
    }

    fn flow(&self) -> Result<Flow> {
        let (bijector, conditioner) = match self.flow {
            Couplings::Affine => (BijectorKind::Affine, ConditionerForm::Separate),
            Couplings::Joint => (BijectorKind::Affine, ConditionerForm::Joint),
            Couplings::Spline => (BijectorKind::Spline, ConditionerForm::Joint),
        };
        let (layers, hidden) = (self.layers, vec![self.hidden; 2]);
        let mut recipe = Recipe { layers, hidden, bijector, conditioner, ..Recipe::default() };
        if bijector == BijectorKind::Spline {
            (recipe.bins, recipe.tail_bound) = (8, 4.0);
        }
        Ok(recipe.flow(self.features)?)
    }

    /// A training on `steps` batches, at a rate that leaves random parameters where they are.
    fn training(&self, steps: usize) -> Training {
        Training {
            weights: None,
            train: normal_rows(steps * self.batch, self.features).into(),
            validation: Vec::new().into(),
            batch: self.batch as u32,
            adam: Adam { clip_norm: 5.0, ..Adam::default() },
            schedule: constant(1e-6),
            seed: 1,
        }
    }

    fn train(&self, engine: &mut GpuEngine, parameters: Vec<f32>, start: Instant) -> Result<()> {
        let state = State::from_parameters(parameters);
        engine.begin_training(self.training(1), state.clone())?;
        epochs(engine, 1)?;
        let first_step = start.elapsed().as_secs_f64();

        engine.begin_training(self.training(self.steps), state)?;
        let rates = windows(self.seconds, |times| epochs(engine, times))?;
        let rates: Vec<f64> = rates.into_iter().map(|rate| rate * self.steps as f64).collect();
        let (executor, plan) = engine.training_at_hand().ok_or("invariant: a training was begun")?;
        print(json!({ "train": {
            "steps_per_second": rates, "seconds_to_first_step": first_step,
            "least_seconds": self.least(&plan.plan, plan.step, 1),
        }}));
        print(json!({ "host": self.host(executor, plan.step)? }));
        print(json!({ "step": self.dispatches(executor, &plan.plan, plan.step)? }));
        Ok(())
    }

    fn evaluate(&self, engine: &mut GpuEngine) -> Result<()> {
        let x = normal_rows(self.batch, self.features);
        let mut seed = 0;
        for name in ["log_prob", "sample"] {
            let rates = windows(self.seconds, |times| {
                for _ in 0..times {
                    if name == "log_prob" {
                        std::hint::black_box(block_on(engine.log_prob(&x))?);
                    } else {
                        seed += 1;
                        let request = Sampling { rows: self.batch, first: 0, seed, temperature: 1.0 };
                        std::hint::black_box(block_on(engine.sample(request))?);
                    }
                }
                Ok(())
            })?;
            let rates: Vec<f64> = rates.into_iter().map(|rate| rate * self.batch as f64).collect();
            let (executor, plan) = engine.evaluation_at_hand().ok_or("invariant: rows were evaluated")?;
            let program = if name == "log_prob" { plan.forward } else { plan.sample };
            let tiles = self.batch.div_ceil(plan.capacity);
            print(json!({ name: {
                "rows_per_second": rates, "tile_rows": plan.capacity,
                "least_seconds": self.least(&plan.plan, program, tiles),
                "dispatches": self.dispatches(executor, &plan.plan, program)?,
            }}));
        }
        Ok(())
    }

    /// Seconds that the host spends on recording one step more and on submitting, by submissions of one step and of
    /// many, as many as take the device about a third of a second.
    fn host(&self, executor: &Executor, step: ProgramId) -> Result<Value> {
        const MOST: f64 = 256.0;

        submission(executor, step, 1)?;
        let (_, whole) = submission(executor, step, 1)?;
        let many = (0.3 / whole).clamp(2.0, MOST) as usize;
        let spent = |count| sampled(self.seconds, || Ok(submission(executor, step, count)?.0));
        let (one, all) = (spent(1)?, spent(many)?);
        let encode = (all - one).max(0.0) / (many - 1) as f64;
        Ok(
            json!({ "encode_seconds_per_step": encode, "submit_seconds": (one - encode).max(0.0), "steps": many }),
        )
    }

    fn roofline(&self) -> Option<Roofline> {
        self.roofline.map(|[flops, bandwidth, dispatch_cost]| Roofline { flops, bandwidth, dispatch_cost })
    }

    /// Seconds that so many runs of a program take at least.
    fn least(&self, plan: &Plan, ProgramId(index): ProgramId, times: usize) -> Option<f64> {
        self.roofline().map(|roofline| times as f64 * roofline.program(&plan.programs[index]))
    }

    /// Every dispatch of a program with its work, its time by timestamps and its least time; `null` where the device
    /// has no timestamps.
    fn dispatches(&self, executor: &Executor, plan: &Plan, program: ProgramId) -> Result<Value> {
        if !executor.context().has_timestamps() {
            return Ok(Value::Null);
        }
        let runs = several(self.seconds, || Ok(block_on(executor.time(program))?))?;
        let lines = plan.programs[program.0].dispatches.iter().enumerate().map(|(index, dispatch)| {
            let mut times: Vec<f64> = runs.iter().map(|run| run[index]).collect();
            json!({
                "kernel": dispatch.kernel.name, "label": dispatch.label, "workgroups": dispatch.workgroups,
                "flops": dispatch.flops, "bytes": dispatch.bytes, "seconds": median(&mut times),
                "least_seconds": self.roofline().map(|roofline| roofline.dispatch(dispatch)),
            })
        });
        Ok(lines.collect())
    }
}

/// Seconds until `count` runs of a program were submitted, and until they were done.
fn submission(executor: &Executor, program: ProgramId, count: usize) -> Result<(f64, f64)> {
    let start = Instant::now();
    let submitted = executor.submit(std::iter::repeat_n(program, count));
    let host = start.elapsed().as_secs_f64();
    block_on(executor.wait(submitted))?;
    Ok((host, start.elapsed().as_secs_f64()))
}

fn epochs(engine: &mut GpuEngine, count: u32) -> Result<()> {
    if block_on(engine.train(count))?.iter().any(|record| record.halted) {
        return Err("the training met a number that is not finite".into());
    }
    Ok(())
}

/// Runs a second in each of [`WINDOWS`] windows, which take `seconds` together. `run` does so many runs and returns when
/// they are done.
fn windows(seconds: f64, mut run: impl FnMut(u32) -> Result<()>) -> Result<Vec<f64>> {
    let mut one = f64::INFINITY;
    for _ in 0..WARM_UP_RUNS {
        let start = Instant::now();
        run(1)?;
        one = one.min(start.elapsed().as_secs_f64());
    }
    let window = seconds / WINDOWS as f64;
    let mut rates = Vec::new();
    for _ in 0..WINDOWS {
        let times = (window / one).ceil().clamp(1.0, 1e6) as u32;
        let start = Instant::now();
        run(times)?;
        let each = start.elapsed().as_secs_f64() / f64::from(times);
        rates.push(1.0 / each);
        // A window of many runs tells better how long one takes than the first ones did, with a wait after each.
        one = one.min(each);
    }
    Ok(rates)
}

/// What [`TIMED_RUNS`] runs give; fewer, but three at least, where they take longer than `seconds`.
fn several<T>(seconds: f64, mut run: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    let (mut results, start) = (Vec::new(), Instant::now());
    while results.len() < TIMED_RUNS && (results.len() < 3 || start.elapsed().as_secs_f64() < seconds) {
        results.push(run()?);
    }
    Ok(results)
}

/// Median of [`several`] times.
fn sampled(seconds: f64, run: impl FnMut() -> Result<f64>) -> Result<f64> {
    Ok(median(&mut several(seconds, run)?))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn constant(base: f32) -> Schedule {
    Schedule { decay: Decay::Constant, base, warmup_steps: 0, total_steps: u32::MAX }
}
