//! The time of each dispatch on the device, by timestamp queries.

use std::time::Instant;

use moonflow::engine::{Engine, Training, TrainingShape};
use moonflow::gpu::executor::Executor;
use moonflow::gpu::plan::{Plan, Program, ProgramId};
use moonflow::gpu::training::TrainingPlan;
use moonflow::gpu::{Context, PlanKind, adapters};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule, State};
use pollster::block_on;

use super::training::flow;
use crate::gpu::{context, engine, on_both_plans};

on_both_plans! {
    every_dispatch_of_a_step_takes_some_time_and_all_together_no_more_than_passes
}

/// 100 rows in batches of 32.
fn training() -> Training {
    Training {
        weights: None,
        train: vec![0.5; 3 * 100].into(),
        validation: Vec::new().into(),
        batch: 32,
        adam: Adam::default(),
        schedule: Schedule { decay: Decay::Constant, base: 1e-3, warmup_steps: 0, total_steps: 10 },
        seed: 1,
    }
}

fn plan() -> TrainingPlan {
    TrainingPlan::new(&flow(), &Layout::new(&flow()), &TrainingShape::new(&training(), 3))
}

/// The times of a program's dispatches, each positive, their sum at most what the caller waits.
fn times(executor: &Executor, plan: &Plan, ProgramId(index): ProgramId) {
    let program = &plan.programs[index];
    let start = Instant::now();
    let seconds = block_on(executor.time(ProgramId(index))).expect("timestamps");
    let passed = start.elapsed().as_secs_f64();
    assert_eq!(seconds.len(), program.dispatches.len(), "{}", program.name);
    for (dispatch, &seconds) in program.dispatches.iter().zip(&seconds) {
        let name = dispatch.kernel.name;
        assert!(seconds.is_finite() && seconds > 0.0, "{name} ({}): {seconds} s", dispatch.label);
    }
    let sum: f64 = seconds.iter().sum();
    assert!(sum <= passed, "{}: {sum} s in {passed} s", program.name);
}

/// Whether the device has timestamps; says so where it has none.
fn has_timestamps(context: &Context) -> bool {
    let has = context.has_timestamps();
    if !has {
        println!("skipped: {} has no timestamp queries", context.info());
    }
    has
}

fn every_dispatch_of_a_step_takes_some_time_and_all_together_no_more_than_passes(plan: PlanKind) {
    let Some(mut engine) = engine(&flow(), plan) else { return };
    if !has_timestamps(engine.context()) {
        return;
    }
    assert!(engine.training_at_hand().is_none() && engine.evaluation_at_hand().is_none());
    let state = State::from_parameters(vec![0.0; Layout::new(&flow()).total]);
    engine.begin_training(training(), state).expect("fits");
    let (executor, training) = engine.training_at_hand().expect("begun");
    times(executor, &training.plan, training.step);
    block_on(engine.log_prob(&[0.0; 3 * 70])).expect("whole rows");
    let (executor, evaluation) = engine.evaluation_at_hand().expect("prepared");
    times(executor, &evaluation.plan, evaluation.forward);
}

#[test]
fn a_program_may_have_more_dispatches_than_a_query_set_has_room_for() {
    let Some(context) = context().filter(|context| has_timestamps(context)) else { return };
    let TrainingPlan { mut plan, close, .. } = plan();
    let dispatch = plan.programs[close.0].dispatches[0].clone();
    let count = wgpu::QUERY_SET_MAX_QUERIES as usize / 2 + 1;
    let program = plan.program(Program { name: "many", dispatches: vec![dispatch; count] });
    let executor = Executor::new(context, &plan).expect("fits");
    times(&executor, &plan, program);
}

#[test]
fn a_device_opened_without_timestamps_says_what_is_missing() {
    if context().is_none() {
        return;
    }
    let adapter = block_on(adapters()).into_iter().next().expect("the adapter of the other tests");
    let context = block_on(adapter.open_with(wgpu::Features::empty())).expect("opens");
    assert!(!context.has_timestamps());
    let TrainingPlan { plan, step, .. } = plan();
    let executor = Executor::new(&context, &plan).expect("fits");
    let error = block_on(executor.time(step)).expect_err("no timestamps").to_string();
    assert!(error.contains("TIMESTAMP_QUERY") && error.contains("submissions"), "{error}");
}
