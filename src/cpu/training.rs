//! Training on the CPU: single steps in both precisions, and whole epochs over a training set.

use rayon::prelude::*;

use crate::engine::{EpochRecord, Training};
use crate::error::{Error, Result, expect_length};
use crate::optimiser::{Adam, Schedule, State};

use super::adam::{Progress, Rule, adam, advance, global_norm};
use super::batch::{batches, gather};
use super::{CpuEngine, Real, STRETCH, mean};

/// Adam's moments and progress: all that steps change besides the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimiser<R> {
    rule: Rule<R>,
    schedule: Schedule,
    moment1: Vec<R>,
    moment2: Vec<R>,
    progress: Progress<R>,
}

/// What one training step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// Mean of −log p over the batch before the update, in nats.
    pub loss: f64,
    /// The gradient's Euclidean norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Whether this or an earlier loss or gradient was not finite, so that nothing was updated.
    pub halted: bool,
}

impl<R: Real> Optimiser<R> {
    /// The optimiser of `parameters` parameters before its first step.
    pub fn new(adam: &Adam, schedule: Schedule, parameters: usize) -> Self {
        let rule = Rule::new(adam);
        let zeros = vec![R::zero(); parameters];
        Self { rule, schedule, moment1: zeros.clone(), moment2: zeros, progress: Progress::resume(&rule, 0) }
    }

    /// The optimiser as `state` left it; agrees in every bit with one that was never interrupted.
    fn resume(adam: &Adam, schedule: Schedule, state: &State) -> Self {
        let rule = Rule::new(adam);
        Self {
            rule,
            schedule,
            moment1: state.moment1.iter().map(|&value| R::from_wide(value.into())).collect(),
            moment2: state.moment2.iter().map(|&value| R::from_wide(value.into())).collect(),
            progress: Progress::resume(&rule, state.step),
        }
    }
}

/// A training over epochs.
#[derive(Debug)]
pub(super) struct Run<R> {
    train: Vec<R>,
    validation: Vec<R>,
    batch: usize,
    seed: u64,
    optimiser: Optimiser<R>,
    /// Completed epochs.
    epoch: u32,
    /// Lowest validation loss, and the parameters that had it.
    best: Option<(f64, Vec<R>)>,
    /// Rows of the step under way [B, D].
    x: Vec<R>,
}

impl<R: Real> CpuEngine<R> {
    /// One step of Adam on the batch `x` [B, D].
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows or the optimiser is another flow's, [`Error::Argument`] when
    /// `x` has no rows.
    pub fn train_step(&mut self, x: &[R], optimiser: &mut Optimiser<R>) -> Result<StepRecord> {
        expect_length("optimiser", optimiser.moment1.len(), self.layout.total)?;
        let loss = self.differentiate(x)?;
        let norm = global_norm(&self.gradient);
        let Optimiser { rule, schedule, moment1, moment2, progress } = optimiser;
        advance(rule, schedule, R::from_wide(loss), norm, progress);
        (
            self.gradient.par_chunks(STRETCH),
            self.parameters.par_chunks_mut(STRETCH),
            moment1.par_chunks_mut(STRETCH),
            moment2.par_chunks_mut(STRETCH),
        )
            .into_par_iter()
            .for_each(|(gradient, parameters, moment1, moment2)| {
                adam(rule, progress, gradient, parameters, moment1, moment2);
            });
        Ok(StepRecord {
            loss,
            grad_norm: norm.wide(),
            learning_rate: progress.learning_rate.wide(),
            halted: progress.halted,
        })
    }

    /// Takes the data and starts from `state`; see [`crate::engine::Engine::begin_training`].
    ///
    /// # Errors
    /// [`Error::Length`] when rows are not whole or the state is another flow's, [`Error::Argument`] when there
    /// are no training rows, more than `u32` counts, or the batch is 0.
    pub fn begin_training(&mut self, training: &Training, state: &State) -> Result<()> {
        let convert =
            |values: &[f32]| -> Vec<R> { values.iter().map(|&value| R::from_wide(value.into())).collect() };
        let train = convert(&training.train);
        let validation = convert(&training.validation);
        let rows = self.rows("training rows", &train)?;
        self.rows("validation rows", &validation)?;
        if rows == 0 || u32::try_from(rows).is_err() {
            return Err(Error::Argument(format!(
                "training needs between 1 and {} rows, got {rows}",
                u32::MAX
            )));
        }
        if training.batch == 0 {
            return Err(Error::Argument("the batch must hold at least 1 row, got 0".into()));
        }
        for (what, values) in [
            ("parameters of the state", &state.parameters),
            ("first moment of the state", &state.moment1),
            ("second moment of the state", &state.moment2),
        ] {
            expect_length(what, values.len(), self.layout.total)?;
        }
        self.parameters = convert(&state.parameters);
        self.run = Some(Run {
            train,
            validation,
            batch: training.batch as usize,
            seed: training.seed,
            optimiser: Optimiser::resume(&training.adam, training.schedule, state),
            epoch: state.epoch,
            best: None,
            x: Vec::new(),
        });
        Ok(())
    }

    /// Trains for `epochs` whole epochs and reports them in order; see [`crate::engine::Engine::train`].
    ///
    /// A non-finite loss or gradient ends training at once: the epoch it falls in is the last one reported and
    /// does not count as completed, and the parameters stay as they were before the step.
    ///
    /// # Errors
    /// [`Error::Argument`] before [`CpuEngine::begin_training`].
    pub fn train(&mut self, epochs: u32) -> Result<Vec<EpochRecord>> {
        let mut run = self.run.take().ok_or_else(no_run)?;
        let mut records = Vec::new();
        for _ in 0..epochs {
            let record = self.train_epoch(&mut run);
            let stop = !matches!(record, Ok(EpochRecord { halted: false, .. }));
            records.push(record);
            if stop {
                break;
            }
        }
        self.run = Some(run);
        records.into_iter().collect()
    }

    fn train_epoch(&mut self, run: &mut Run<R>) -> Result<EpochRecord> {
        let features = self.flow.features;
        let (mut nll_sum, mut norm_sum, mut rows, mut steps) = (0.0, 0.0, 0.0, 0.0);
        let mut learning_rate = 0.0;
        let mut halted = false;
        for batch in batches(run.train.len() / features, run.batch) {
            super::resize(&mut run.x, batch.len() * features);
            gather(features, batch.start, run.seed, run.epoch, &run.train, &mut run.x);
            let step = self.train_step(&run.x, &mut run.optimiser)?;
            nll_sum += step.loss * batch.len() as f64;
            rows += batch.len() as f64;
            norm_sum += step.grad_norm;
            steps += 1.0;
            learning_rate = step.learning_rate;
            halted = step.halted;
            if halted {
                break;
            }
        }
        let validation_nll = self.validate(&run.validation)?;
        let lowest = run.best.as_ref().map_or(f64::INFINITY, |(lowest, _)| *lowest);
        let improved = !halted && validation_nll.is_some_and(|nll| nll < lowest);
        if let (true, Some(nll)) = (improved, validation_nll) {
            run.best = Some((nll, self.parameters.clone()));
        }
        let epoch = run.epoch + 1;
        if !halted {
            run.epoch = epoch;
        }
        Ok(EpochRecord {
            epoch,
            train_nll: nll_sum / rows,
            validation_nll,
            learning_rate,
            grad_norm: norm_sum / steps,
            improved,
            halted,
        })
    }

    /// Mean of −log p over the validation rows; `None` without rows.
    fn validate(&self, validation: &[R]) -> Result<Option<f64>> {
        if validation.is_empty() {
            return Ok(None);
        }
        Ok(Some(-mean(&self.log_prob(validation)?)))
    }

    /// The state after the last completed step, rounded to `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] before [`CpuEngine::begin_training`].
    pub fn training_state(&self) -> Result<State> {
        let run = self.run.as_ref().ok_or_else(no_run)?;
        Ok(State {
            parameters: narrow(&self.parameters),
            moment1: narrow(&run.optimiser.moment1),
            moment2: narrow(&run.optimiser.moment2),
            step: run.optimiser.progress.step,
            epoch: run.epoch,
        })
    }

    /// The parameters [P] after the epoch with the lowest validation loss; the current ones where there is none.
    pub fn best_parameters(&self) -> &[R] {
        let best = self.run.as_ref().and_then(|run| run.best.as_ref());
        best.map_or(&self.parameters, |(_, parameters)| parameters)
    }
}

fn no_run() -> Error {
    Error::Argument("no training under way; call begin_training first".into())
}

fn narrow<R: Real>(values: &[R]) -> Vec<f32> {
    values.iter().map(|value| value.wide() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;
    use crate::optimiser::Decay;
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
            train: rows(ROWS, 1),
            validation: rows(37, 2),
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
        let training = training(100, 0.01);
        let one = outcome(1, &training, 3);
        for threads in [2, 3, 5] {
            assert_eq!(outcome(threads, &training, 3), one, "{threads} threads");
        }
        let other = outcome(1, &Training { seed: 5, ..training }, 3);
        assert_ne!(other.1.parameters, one.1.parameters, "the seed of the order matters");
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
        let mut engine = begun::<f32>(&Training { validation: Vec::new(), ..training(32, 0.01) });
        let records = engine.train(2).expect("training");
        assert!(records.iter().all(|record| record.validation_nll.is_none() && !record.improved));
        assert!(records[1].train_nll < records[0].train_nll, "{records:?}");
        assert_eq!(engine.best_parameters(), engine.parameters());
    }

    #[test]
    fn a_loss_that_is_not_finite_halts_training_and_changes_nothing() {
        let mut training = training(32, 0.01);
        let row = (0..ROWS).position(|index| {
            random::permute(index as u32, ROWS as u32, training.seed, Stream::Epoch, 1) == 50
        });
        let steps = 4 + row.expect("a permutation") as u32 / 32;
        let healthy = training.clone();
        training.train[3 * 50] = f32::MAX;
        // The first epoch meets the row too; so start after it.
        let mut engine = begun::<f32>(&healthy);
        engine.train(1).expect("training");
        let state = engine.training_state().expect("training");
        engine.begin_training(&training, &state).expect("fits");
        let records = engine.train(5).expect("training");
        assert_eq!(records.len(), 1, "training ends with the epoch that halts");
        assert!(records[0].halted && !records[0].improved && records[0].epoch == 2, "{records:?}");
        assert!(!records[0].train_nll.is_finite() && records[0].validation_nll.is_some_and(f64::is_finite));
        let halted = engine.training_state().expect("training");
        assert_eq!((halted.step, halted.epoch), (steps, 1));
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
        let empty = Training { train: Vec::new(), ..training.clone() };
        let ragged = Training { train: vec![0.0; 4], ..training.clone() };
        let batchless = Training { batch: 0, ..training.clone() };
        let short = State { moment2: vec![0.0], ..state.clone() };
        for (training, state) in
            [(&empty, &state), (&ragged, &state), (&batchless, &state), (&training, &short)]
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
}
