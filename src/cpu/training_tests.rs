//! Training on the CPU as a whole: the same bits under every circumstance, the best parameters, a halt.

use super::{CpuEngine, Real, mean};
use crate::engine::{EpochRecord, Training};
use crate::flow::Flow;
use crate::optimiser::{Adam, Decay, Schedule, State};
use crate::random::{self, Stream};

const ROWS: usize = 101;

fn flow() -> Flow {
    Flow::new(3, 3, &[70, 40]).expect("valid")
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

fn training(batch: u32, base: f32) -> Training {
    Training {
        weights: None,
        train: rows(ROWS, 1).into(),
        validation: rows(37, 2).into(),
        batch,
        adam: Adam { weight_decay: 1e-3, clip_norm: 1.0, ..Adam::default() },
        schedule: Schedule { decay: Decay::Cosine, base, warmup_steps: 3, total_steps: 60 },
        seed: 4,
    }
}

fn begun<R: Real>(training: &Training) -> CpuEngine<R> {
    let mut engine = CpuEngine::new(flow()).expect("valid");
    engine.begin_training(training, &State::initial(&flow(), 3)).expect("fits");
    engine
}

/// Everything a training and a scoring yield, on a pool of `threads` threads.
fn outcome(threads: usize, training: &Training, epochs: u32) -> (Vec<EpochRecord>, State, Vec<f32>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(|| {
        let mut engine = begun::<f32>(training);
        let records = engine.train(epochs).expect("training");
        let scores = engine.log_prob(&rows(1000, 5)).expect("whole rows");
        (records, engine.training_state().expect("training"), scores)
    })
}

#[test]
fn training_and_scoring_have_the_same_bits_on_any_number_of_threads() {
    // So many tiles that threads add several to one slot, and tiles of two slots.
    let large = Training { train: rows(450, 1).into(), ..training(450, 0.01) };
    let training = training(100, 0.01);
    let one = [&large, &training].map(|training| {
        let one = outcome(1, training, 3);
        for threads in [2, 3, 5] {
            assert_eq!(outcome(threads, training, 3), one, "{threads} threads");
        }
        one
    });
    let other = outcome(1, &Training { seed: 5, ..training }, 3);
    assert_ne!(other.1.parameters, one[1].1.parameters, "the seed of the order matters");
}

#[test]
fn a_resumed_training_has_the_bits_of_one_never_interrupted() {
    let training = training(32, 0.01);
    let whole = outcome(1, &training, 5);
    let mut engine = begun::<f32>(&training);
    let mut records = engine.train(2).expect("training");
    let state = engine.training_state().expect("training");
    assert_eq!((state.step, state.epoch), (8, 2));
    let mut engine = CpuEngine::<f32>::new(flow()).expect("valid");
    engine.begin_training(&training, &state).expect("fits");
    records.extend(engine.train(3).expect("training"));
    assert_eq!(engine.training_state().expect("training"), whole.1);
    for (resumed, whole) in records.iter().zip(&whole.0) {
        assert_eq!((resumed.epoch, resumed.train_nll), (whole.epoch, whole.train_nll));
        assert_eq!(resumed.validation_nll, whole.validation_nll);
    }
}

#[test]
fn an_epoch_sees_each_row_once_the_partial_batch_included() {
    // At a rate of zero the parameters stay, so an epoch's loss is the mean over all rows in any order.
    let mut engine = begun::<f64>(&training(32, 0.0));
    let all: Vec<f64> = rows(ROWS, 1).into_iter().map(f64::from).collect();
    let (want, _) = engine.loss_and_gradient(&all).expect("whole rows");
    for record in engine.train(2).expect("training") {
        assert!((record.train_nll - want).abs() < 1e-12, "{record:?}, want {want}");
    }
    assert_eq!(engine.training_state().expect("training").step, 8);
}

#[test]
fn best_parameters_are_those_of_the_lowest_validation_loss() {
    // A rate far too high after the first epochs makes validation worse.
    let training = Training {
        schedule: Schedule { decay: Decay::Constant, base: 0.05, warmup_steps: 40, total_steps: 80 },
        ..training(16, 0.0)
    };
    let mut engine = begun::<f32>(&training);
    let mut best = (f64::INFINITY, Vec::new());
    let mut worsened = false;
    for epoch in 1..=12 {
        let record = engine.train(1).expect("training").remove(0);
        let nll = record.validation_nll.expect("validation rows");
        assert_eq!((record.epoch, record.improved), (epoch, nll < best.0));
        if record.improved {
            best = (nll, engine.parameters().to_vec());
        }
        worsened |= !record.improved;
        assert_eq!(engine.best_parameters(), best.1);
    }
    assert!(worsened, "the case must be one where the last parameters are not the best");
    let mut scorer = CpuEngine::<f32>::new(flow()).expect("valid");
    scorer.set_parameters(&best.1).expect("fits");
    let log_prob = scorer.log_prob(&training.validation).expect("whole rows");
    assert_eq!(-mean(&log_prob), best.0);
}

#[test]
fn without_validation_rows_the_current_parameters_are_the_best() {
    let mut engine = begun::<f32>(&Training { validation: Vec::new().into(), ..training(32, 0.01) });
    let records = engine.train(2).expect("training");
    assert!(records.iter().all(|record| record.validation_nll.is_none() && !record.improved));
    assert!(records[1].train_nll < records[0].train_nll, "{records:?}");
    assert_eq!(engine.best_parameters(), engine.parameters());
}

#[test]
fn a_loss_that_is_not_finite_halts_training_and_changes_nothing() {
    let mut training = training(32, 0.01);
    let row = (0..ROWS)
        .position(|index| random::permute(index as u32, ROWS as u32, training.seed, Stream::Epoch, 1) == 50);
    let batches_before = row.expect("a permutation") as u32 / 32;
    let steps = 4 + batches_before;
    let healthy = training.clone();
    std::sync::Arc::make_mut(&mut training.train)[3 * 50] = f32::MAX;
    // The first epoch meets the row too; so start after it.
    let mut engine = begun::<f32>(&healthy);
    engine.train(1).expect("training");
    let state = engine.training_state().expect("training");
    engine.begin_training(&training, &state).expect("fits");
    let records = engine.train(5).expect("training");
    assert_eq!(records.len(), 1, "training ends with the epoch that halts");
    assert!(records[0].halted && !records[0].improved && records[0].epoch == 2, "{records:?}");
    assert_eq!(
        records[0].train_nll.is_finite(),
        batches_before > 0,
        "a mean over the rows before: {records:?}"
    );
    assert!(records[0].validation_nll.is_some_and(f64::is_finite));
    let halted = engine.training_state().expect("training");
    assert_eq!((halted.step, halted.epoch, halted.row), (steps, 1, 32 * batches_before));
    assert!(halted.parameters.iter().all(|value| value.is_finite()));
    assert!(engine.train(1).expect("training")[0].halted);
    assert_eq!(engine.training_state().expect("training"), halted);
}

#[test]
fn unusable_requests_are_refused_with_the_reason() {
    let training = training(32, 0.01);
    let state = State::initial(&flow(), 3);
    let mut engine = CpuEngine::<f32>::new(flow()).expect("valid");
    let mut messages = vec![
        engine.train(1).expect_err("no data").to_string(),
        engine.training_state().expect_err("no data").to_string(),
    ];
    let empty = Training { train: Vec::new().into(), ..training.clone() };
    let ragged = Training { train: vec![0.0; 4].into(), ..training.clone() };
    let batchless = Training { batch: 0, ..training.clone() };
    let short = State { moment2: vec![0.0], ..state.clone() };
    for (training, state) in [(&empty, &state), (&ragged, &state), (&batchless, &state), (&training, &short)]
    {
        messages.push(engine.begin_training(training, state).expect_err("must be refused").to_string());
    }
    for (message, want) in messages.iter().zip([
        "begin_training",
        "begin_training",
        "got 0",
        "training rows: got 4 values, expected 6",
        "batch",
        "second moment of the state: got 1 values",
    ]) {
        assert!(message.contains(want), "{message}");
    }
}
