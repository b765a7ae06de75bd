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
        training.validate(state, self.flow.features, self.layout.total)?;
        let convert =
            |values: &[f32]| -> Vec<R> { values.iter().map(|&value| R::from_wide(value.into())).collect() };
        let train = convert(&training.train);
        let validation = convert(&training.validation);
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

    /// The parameters `[P]` after the epoch with the lowest validation loss; the current ones where there is none.
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
