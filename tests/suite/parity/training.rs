//! Whole trainings on the GPU against the CPU engine, from the same state with the same data.

use std::collections::BTreeMap;
use std::sync::Arc;

use moonflow::cpu::CpuEngine;
use moonflow::engine::{Engine, EpochRecord, RowWeights, Training};
use moonflow::flow::{Activation, Flow};
use moonflow::gpu::{GpuEngine, PlanKind};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Best, Decay, Schedule, State};
use moonflow::random::{self, Permutation, Stream};

use crate::common::{Comparison, from_wide, random_parameters, relative_error, uniform, wide};
use crate::gpu::{engine, on_both_plans};

on_both_plans! {
    a_best_from_before_is_kept_until_it_is_beaten
    fifty_steps_follow_the_cpu_in_every_loss_flag_and_tensor
    a_training_that_differs_in_one_setting_is_found
    fifty_steps_with_row_weights_follow_the_cpu
    an_epoch_that_halts_counts_the_weights_of_the_rows_taken
    the_same_seed_gives_the_same_bits_and_another_does_not
    tables_larger_than_a_buffer_train_to_the_bits_of_the_layered_plan
    four_epochs_have_the_bits_of_two_and_two_and_of_a_resumed_training
    a_training_resumed_after_every_epoch_has_the_bits_of_one_never_interrupted
    best_parameters_are_those_of_the_lowest_validation_loss
    without_validation_rows_the_current_parameters_are_the_best
    a_loss_that_is_not_finite_halts_training_and_changes_nothing_from_then_on
    validation_rows_that_are_not_finite_never_improve_and_do_not_halt
    unusable_trainings_are_refused_with_the_reason
}

const ROWS: usize = 157;
/// Four batches of 32 and one of 29.
const STEPS_PER_EPOCH: u32 = 5;
/// 50 steps.
const EPOCHS: u32 = 10;

pub fn flow() -> Flow {
    Flow::new(3, 2, &[17]).expect("valid").with_activation(Activation::Tanh)
}

/// Skewed, correlated rows.
fn rows(count: usize, seed: u64) -> Vec<f32> {
    let mut noise = [0.0; 3];
    (0..count as u32)
        .flat_map(|row| {
            random::normals(row, seed, &mut noise);
            let [a, b, c] = noise;
            [a, 0.5 * b + a * a, 0.3 * c - a]
        })
        .collect()
}

/// A training in which everything is in use: validation, a partial batch, warm-up and cosine, clipping and decay.
fn training() -> Training {
    Training {
        weights: None,
        train: rows(ROWS, 1).into(),
        validation: rows(37, 2).into(),
        batch: 32,
        adam: Adam { weight_decay: 0.05, clip_norm: 1.5, ..Adam::default() },
        schedule: Schedule { decay: Decay::Cosine, base: 0.02, warmup_steps: 6, total_steps: 50 },
        seed: 4,
    }
}

/// A state whose last layers are not zero.
fn state() -> State {
    State::from_parameters(
        from_wide::<f32>(&random_parameters(&flow(), 3)).iter().map(|value| 0.5 * value).collect(),
    )
}

/// Everything that a training yields, in double precision.
struct Outcome {
    records: Vec<EpochRecord>,
    parameters: Vec<f64>,
    moment1: Vec<f64>,
    moment2: Vec<f64>,
    best: Vec<f64>,
    counts: (u32, u32),
}

impl Outcome {
    fn new<E: Engine>(engine: &mut E, training: Training, state: State, epochs: u32) -> Self {
        engine.begin_training(training, state).expect("fits");
        let records = pollster::block_on(engine.train(epochs)).expect("training");
        let state = pollster::block_on(engine.training_state()).expect("training");
        Self {
            records,
            parameters: wide(&state.parameters),
            moment1: wide(&state.moment1),
            moment2: wide(&state.moment2),
            best: wide(&pollster::block_on(engine.best_parameters()).expect("training")),
            counts: (state.step, state.epoch),
        }
    }

    /// The truth. Moments are rounded to single precision on output.
    fn exact(training: &Training, epochs: u32) -> Self {
        let mut engine = CpuEngine::<f64>::new(flow()).expect("valid");
        engine.begin_training(training, &state()).expect("fits");
        let records = engine.train(epochs).expect("training");
        let state = engine.training_state().expect("training");
        Self {
            records,
            parameters: engine.parameters().to_vec(),
            moment1: wide(&state.moment1),
            moment2: wide(&state.moment2),
            best: engine.best_parameters().to_vec(),
            counts: (state.step, state.epoch),
        }
    }

    fn cpu(training: Training, epochs: u32) -> Self {
        Self::new(&mut CpuEngine::<f32>::new(flow()).expect("valid"), training, state(), epochs)
    }

    fn gpu(plan: PlanKind, training: Training, epochs: u32) -> Option<Self> {
        Some(Self::new(&mut engine(&flow(), plan)?, training, state(), epochs))
    }

    /// Each trajectory over epochs, and each tensor after them: quantity, its part and its values.
    fn quantities(&self) -> Vec<(&'static str, String, Vec<f64>)> {
        let over = |value: fn(&EpochRecord) -> f64| self.records.iter().map(value).collect();
        let mut quantities = vec![
            ("train_nll", String::new(), over(|record| record.train_nll)),
            ("validation_nll", String::new(), over(|record| record.validation_nll.unwrap_or(f64::NAN))),
            ("learning_rate", String::new(), over(|record| record.learning_rate)),
            ("grad_norm", String::new(), over(|record| record.grad_norm)),
        ];
        for (name, values) in [
            ("parameters", &self.parameters),
            ("moment1", &self.moment1),
            ("moment2", &self.moment2),
            ("best", &self.best),
        ] {
            for tensor in &Layout::new(&flow()).tensors {
                quantities.push((name, tensor.name.clone(), values[tensor.range()].to_vec()));
            }
        }
        quantities
    }

    /// What is counted and not computed.
    fn counts(&self) -> Vec<f64> {
        let flags =
            |record: &EpochRecord| [record.epoch, u32::from(record.improved), u32::from(record.halted)];
        let counts = self.records.iter().flat_map(flags).chain([self.counts.0, self.counts.1]);
        counts.map(f64::from).collect()
    }
}

/// The GPU's outcome against the truth. 50 steps enlarge rounding errors, each tensor's by chance; how much, the CPU in
/// single precision shows: the GPU may be off by 4 times the largest error, relative to the tensor's largest value,
/// that the CPU has in any tensor of the same quantity.
fn compare(got: &Outcome, truth: &Outcome, single: &Outcome) -> Comparison {
    let (want, single) = (truth.quantities(), single.quantities());
    let mut own: BTreeMap<&str, f64> = BTreeMap::new();
    for ((quantity, _, want), (_, _, single)) in want.iter().zip(&single) {
        let worst = own.entry(quantity).or_insert(f64::from(f32::EPSILON));
        *worst = worst.max(relative_error(single, want));
    }
    let mut comparison = Comparison::new("training on the GPU");
    comparison.check("counts", &got.counts(), &truth.counts(), 0.0);
    for ((quantity, part, got), (_, _, want)) in got.quantities().iter().zip(&want) {
        comparison.check(&format!("{quantity} {part}"), got, want, 4.0 * own[quantity]);
    }
    comparison
}

fn fifty_steps_follow_the_cpu_in_every_loss_flag_and_tensor(plan: PlanKind) {
    let Some(got) = Outcome::gpu(plan, training(), EPOCHS) else { return };
    let (truth, single) = (Outcome::exact(&training(), EPOCHS), Outcome::cpu(training(), EPOCHS));
    assert_eq!(truth.counts, (EPOCHS * STEPS_PER_EPOCH, EPOCHS));
    let clipped = truth.records.iter().filter(|record| record.grad_norm > 1.5).count();
    assert!((1..EPOCHS as usize).contains(&clipped), "some epochs clip and some do not: {clipped}");
    compare(&got, &truth, &single).finish();
}

/// The same training with weights, of which every fifth is zero.
fn weighted() -> Training {
    let weights = |count: usize, seed| -> Arc<Vec<f32>> {
        let weights = uniform(count, 1.0, seed).into_iter().enumerate();
        let weight = |(at, value): (usize, f64)| if at % 5 == 3 { 0.0 } else { 1.5 + value as f32 };
        Arc::new(weights.map(weight).collect())
    };
    let weights = RowWeights { train: weights(ROWS, 8), validation: weights(37, 9) };
    Training { weights: Some(weights), ..training() }
}

fn fifty_steps_with_row_weights_follow_the_cpu(plan: PlanKind) {
    let Some(got) = Outcome::gpu(plan, weighted(), EPOCHS) else { return };
    let (truth, single) = (Outcome::exact(&weighted(), EPOCHS), Outcome::cpu(weighted(), EPOCHS));
    compare(&got, &truth, &single).finish();
    for changed in 0..2 {
        let mut other = weighted();
        let weights = other.weights.as_mut().expect("weighted");
        let changed = if changed == 0 { &mut weights.train } else { &mut weights.validation };
        Arc::make_mut(changed)[1] += 0.01;
        let got = Outcome::gpu(plan, other, EPOCHS).expect("as before");
        assert!(!compare(&got, &truth, &single).failures().is_empty(), "a weight makes no difference");
    }
    // A common factor that is a power of two changes no bit.
    let mut scaled = weighted();
    let weights = scaled.weights.as_mut().expect("weighted");
    for weights in [&mut weights.train, &mut weights.validation] {
        Arc::make_mut(weights).iter_mut().for_each(|weight| *weight *= 8.0);
    }
    let scaled = Outcome::gpu(plan, scaled, EPOCHS).expect("as before");
    assert_eq!(scaled.records, got.records);
    assert!(scaled.parameters == got.parameters && scaled.best == got.best);
}

fn an_epoch_that_halts_counts_the_weights_of_the_rows_taken(plan: PlanKind) {
    let mut training = weighted();
    // The row of the third batch of the second epoch with a weight.
    let weights = training.weights.as_ref().expect("weighted").train.clone();
    let order = Permutation::new(ROWS as u32, training.seed, Stream::Epoch, 1);
    let row = (64..96).map(|place| order.place(place) as usize).find(|&row| weights[row] > 0.0);
    let row = row.expect("a row that counts");
    Arc::make_mut(&mut training.train)[3 * row] = f32::MAX;
    let Some(mut gpu) = engine(&flow(), plan) else { return };
    let mut cpu = CpuEngine::<f32>::new(flow()).expect("valid");
    // The first epoch meets the row wherever it is there: begin after it.
    let state = State { epoch: 1, step: STEPS_PER_EPOCH, ..state() };
    cpu.begin_training(&training, &state).expect("fits");
    let want = cpu.train(2).expect("training");
    let (got, _) = run(&mut gpu, training, state, 2);
    assert_eq!((got.len(), want.len()), (1, 1));
    assert!(got[0].halted && want[0].halted && got[0].epoch == want[0].epoch, "{got:?} {want:?}");
    let error = (got[0].train_nll - want[0].train_nll).abs();
    assert!(error < 1e-5 * want[0].train_nll.abs(), "{got:?} {want:?}");
}

fn a_training_that_differs_in_one_setting_is_found(plan: PlanKind) {
    const EPOCHS: u32 = 4;
    let (truth, single) = (Outcome::exact(&training(), EPOCHS), Outcome::cpu(training(), EPOCHS));
    let usual = training;
    let adam = usual().adam;
    let schedule = usual().schedule;
    let mut swapped = usual();
    Arc::make_mut(&mut swapped.train).swap(0, 3);
    for (setting, training) in [
        ("seed", Training { seed: 5, ..usual() }),
        ("batch", Training { batch: 31, ..usual() }),
        ("weight decay", Training { adam: Adam { weight_decay: 0.0501, ..adam }, ..usual() }),
        ("clipping", Training { adam: Adam { clip_norm: 1.501, ..adam }, ..usual() }),
        ("beta1", Training { adam: Adam { beta1: 0.9001, ..adam }, ..usual() }),
        ("beta2", Training { adam: Adam { beta2: 0.99901, ..adam }, ..usual() }),
        ("epsilon", Training { adam: Adam { epsilon: 1e-6, ..adam }, ..usual() }),
        ("warm-up", Training { schedule: Schedule { warmup_steps: 7, ..schedule }, ..usual() }),
        ("total steps", Training { schedule: Schedule { total_steps: 51, ..schedule }, ..usual() }),
        ("a training row", swapped),
        ("a validation row", Training { validation: rows(38, 2).into(), ..usual() }),
    ] {
        let Some(got) = Outcome::gpu(plan, training, EPOCHS) else { return };
        assert!(!compare(&got, &truth, &single).failures().is_empty(), "{setting} makes no difference");
    }
}

/// Records and state after `epochs` epochs from `state`.
fn run(engine: &mut GpuEngine, training: Training, state: State, epochs: u32) -> (Vec<EpochRecord>, State) {
    engine.begin_training(training, state).expect("fits");
    go_on(engine, epochs)
}

fn go_on(engine: &mut GpuEngine, epochs: u32) -> (Vec<EpochRecord>, State) {
    let records = pollster::block_on(engine.train(epochs)).expect("training");
    (records, pollster::block_on(engine.training_state()).expect("training"))
}

fn tables_larger_than_a_buffer_train_to_the_bits_of_the_layered_plan(plan: PlanKind) {
    let Some(whole) = Outcome::gpu(PlanKind::Layered, training(), 2) else { return };
    // Four buffers of training rows and one of validation rows, then 16 and 4.
    for rows in [50, 10] {
        let mut engine = engine(&flow(), plan).expect("as before");
        engine.limit_shards(rows);
        let cut = Outcome::new(&mut engine, training(), state(), 2);
        assert_eq!(cut.records, whole.records, "{rows} rows");
        assert!(cut.parameters == whole.parameters && cut.best == whole.best, "{rows} rows");
    }
}

fn the_same_seed_gives_the_same_bits_and_another_does_not(plan: PlanKind) {
    let Some(mut first) = engine(&flow(), plan) else { return };
    let Some(mut second) = engine(&flow(), plan) else { return };
    let one = run(&mut first, training(), state(), 3);
    assert_eq!(run(&mut second, training(), state(), 3), one);
    // Nor does it matter what an engine trained before.
    assert_eq!(run(&mut first, training(), state(), 3), one);
    let other = run(&mut first, Training { seed: 5, ..training() }, state(), 3);
    assert_ne!(other.1.parameters, one.1.parameters);
}

fn four_epochs_have_the_bits_of_two_and_two_and_of_a_resumed_training(plan: PlanKind) {
    let Some(mut engine) = engine(&flow(), plan) else { return };
    let whole = run(&mut engine, training(), state(), 4);
    let half = run(&mut engine, training(), state(), 2);
    let rest = go_on(&mut engine, 2);
    assert_eq!(rest.1, whole.1);
    assert_eq!([half.0, rest.0.clone()].concat(), whole.0);

    assert_eq!((half.1.step, half.1.epoch), (2 * STEPS_PER_EPOCH, 2));
    let resumed = run(&mut engine, training(), half.1, 2);
    assert_eq!(resumed, rest);
}

fn a_best_from_before_is_kept_until_it_is_beaten(plan: PlanKind) {
    let Some(mut gpu) = engine(&flow(), plan) else { return };
    let mut cpu = CpuEngine::<f32>::new(flow()).expect("valid");
    for (nll, beaten) in [(-1e3, false), (1e3, true)] {
        let best = Best { nll, parameters: vec![0.5; state().parameters.len()] };
        let begun = State { best: Some(best.clone()), ..state() };
        cpu.begin_training(&training(), &begun).expect("fits");
        let on_cpu = (cpu.train(1).expect("training"), cpu.training_state().expect("training"));
        for (records, after) in [on_cpu, run(&mut gpu, training(), begun, 1)] {
            assert_eq!((records[0].improved, after.best != Some(best.clone())), (beaten, beaten));
        }
        for kept in [cpu.best_parameters(), &pollster::block_on(gpu.best_parameters()).expect("training")] {
            assert_eq!(kept != best.parameters, beaten);
        }
    }
}

fn a_training_resumed_after_every_epoch_has_the_bits_of_one_never_interrupted(plan: PlanKind) {
    let Some(mut engine) = engine(&flow(), plan) else { return };
    let training =
        || Training { train: rows(8, 1).into(), validation: Vec::new().into(), batch: 7, ..training() };
    let state = State::initial(engine.flow(), 1);
    let steps = 12 * 2;
    let whole = run(&mut engine, training(), state.clone(), 12);
    assert_eq!(whole.1.step, steps);
    let mut state = state;
    for _ in 0..12 {
        state = run(&mut engine, training(), state, 1).1;
    }
    assert_eq!(state, whole.1);
}

fn best_parameters_are_those_of_the_lowest_validation_loss(plan: PlanKind) {
    let Some(mut engine) = engine(&flow(), plan) else { return };
    // A rate far too high after the first epochs makes validation worse.
    let schedule = Schedule { decay: Decay::Constant, base: 0.08, warmup_steps: 30, total_steps: 50 };
    engine.begin_training(Training { schedule, ..training() }, state()).expect("fits");
    let mut best = (f64::INFINITY, wide(&state().parameters));
    let mut worsened = false;
    for epoch in 1..=EPOCHS {
        let (records, state) = go_on(&mut engine, 1);
        let nll = records[0].validation_nll.expect("validation rows");
        assert_eq!((records[0].epoch, records[0].improved), (epoch, nll < best.0));
        if records[0].improved {
            best = (nll, wide(&state.parameters));
        }
        worsened |= !records[0].improved;
        assert_eq!(wide(&pollster::block_on(engine.best_parameters()).expect("training")), best.1);
    }
    assert!(worsened, "the case must be one where the last parameters are not the best");
}

fn without_validation_rows_the_current_parameters_are_the_best(plan: PlanKind) {
    let Some(mut engine) = engine(&flow(), plan) else { return };
    let (records, state) =
        run(&mut engine, Training { validation: Vec::new().into(), ..training() }, state(), 2);
    assert!(records.iter().all(|record| record.validation_nll.is_none() && !record.improved));
    assert_eq!(pollster::block_on(engine.best_parameters()).expect("training"), state.parameters);
}

/// Where row `row` stands in the order of epoch `epoch`.
fn place(row: u32, epoch: u32) -> u32 {
    let at = |place: &u32| random::permute(*place, ROWS as u32, training().seed, Stream::Epoch, epoch) == row;
    (0..ROWS as u32).find(at).expect("a permutation")
}

fn a_loss_that_is_not_finite_halts_training_and_changes_nothing_from_then_on(plan: PlanKind) {
    let Some(mut gpu) = engine(&flow(), plan) else { return };
    let healthy = run(&mut gpu, training(), state(), 1).1;
    // One row in the first batch of the second epoch, and one in its partial last batch.
    let early = (0..ROWS as u32).find(|&row| place(row, 1) < 32).expect("a row");
    let late = (0..ROWS as u32).find(|&row| place(row, 1) >= 128).expect("a row");
    for (row, steps_before) in [(early, 0), (late, STEPS_PER_EPOCH - 1)] {
        for bad in [f32::INFINITY, f32::NAN, f32::MAX] {
            let mut training = training();
            Arc::make_mut(&mut training.train)[3 * row as usize + 1] = bad;
            let (records, halted) = run(&mut gpu, training.clone(), healthy.clone(), 2);

            assert_eq!(records.len(), 1, "training ends with the epoch that halts");
            let EpochRecord { epoch, improved, halted: stopped, validation_nll, .. } = records[0];
            assert_eq!((epoch, improved, stopped), (2, false, true), "{bad} in row {row}");
            assert!(validation_nll.is_some_and(f64::is_finite), "{records:?}");
            assert_eq!((halted.step, halted.epoch), (healthy.step + steps_before, 1), "{bad} in row {row}");
            for values in [&halted.parameters, &halted.moment1, &halted.moment2] {
                assert!(values.iter().all(|value| value.is_finite()), "{bad} in row {row}");
            }
            if steps_before == 0 {
                assert_eq!(halted, healthy);
            } else {
                assert_ne!(halted.parameters, healthy.parameters);
            }
            let (records, after) = go_on(&mut gpu, 1);
            assert_eq!((records.len(), records[0].halted, records[0].improved), (1, true, false));
            assert_eq!(after, halted);

            // The CPU engine stops at the same step, in the same epoch, with the same verdicts.
            let mut cpu = CpuEngine::<f32>::new(flow()).expect("valid");
            cpu.begin_training(&training, &healthy).expect("fits");
            let on_cpu = cpu.train(2).expect("training");
            let state = cpu.training_state().expect("training");
            assert_eq!((on_cpu.len(), on_cpu[0].epoch, on_cpu[0].halted), (1, 2, true));
            assert_eq!((state.step, state.epoch), (halted.step, halted.epoch));
        }
    }
}

fn validation_rows_that_are_not_finite_never_improve_and_do_not_halt(plan: PlanKind) {
    let Some(mut gpu) = engine(&flow(), plan) else { return };
    for bad in [f32::INFINITY, f32::NAN] {
        let mut training = training();
        Arc::make_mut(&mut training.validation)[4] = bad;
        let (records, state) = run(&mut gpu, training, state(), 2);
        assert_eq!(records.len(), 2);
        for record in &records {
            assert!(!record.improved && !record.halted, "{record:?}");
            assert!(record.validation_nll.is_some_and(|nll| !nll.is_finite()), "{record:?}");
        }
        assert_eq!(pollster::block_on(gpu.best_parameters()).expect("training"), state.parameters);
    }
}

fn unusable_trainings_are_refused_with_the_reason(plan: PlanKind) {
    let Some(mut gpu) = engine(&flow(), plan) else { return };
    let mut messages = vec![
        pollster::block_on(gpu.train(1)).expect_err("no data").to_string(),
        pollster::block_on(gpu.training_state()).expect_err("no data").to_string(),
    ];
    for (training, state) in [
        (Training { train: Vec::new().into(), ..training() }, state()),
        (Training { train: vec![0.0; 4].into(), ..training() }, state()),
        (Training { validation: vec![0.0; 5].into(), ..training() }, state()),
        (Training { batch: 0, ..training() }, state()),
        (training(), State { moment2: vec![0.0], ..state() }),
    ] {
        messages.push(gpu.begin_training(training, state).expect_err("must be refused").to_string());
    }
    for (message, want) in messages.iter().zip([
        "begin_training",
        "begin_training",
        "got 0",
        "training rows: got 4 values, expected 6",
        "validation rows: got 5 values, expected 6",
        "batch",
        "second moment of the state: got 1 values",
    ]) {
        assert!(message.contains(want), "{message}");
    }
}
