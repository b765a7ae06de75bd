//! Training on the CPU: single steps in both precisions, and whole epochs over a training set.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::{EpochRecord, RowWeights, Training};
use crate::error::{Error, Result, expect_length};
use crate::optimiser::{Adam, Best, Schedule, State};

use super::adam::{AdamState, Rule, adam, advance};
use super::batch::{batches, gather};
use super::team::Team;
use super::{BatchWeights, CpuEngine, Real, copy_rows, cut, mean, weighted_mean};

/// Adam's moments and progress: all that steps change besides the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimiser<R> {
    rule: Rule<R>,
    schedule: Schedule,
    moment1: Vec<R>,
    moment2: Vec<R>,
    progress: AdamState<R>,
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
        Self {
            rule,
            schedule,
            moment1: zeros.clone(),
            moment2: zeros,
            progress: AdamState::new(0, [R::zero(); 2]),
        }
    }

    /// The optimiser as `state` left it; agrees in every bit with one that was never interrupted.
    fn resume(adam: &Adam, schedule: Schedule, state: &State) -> Self {
        Self {
            rule: Rule::new(adam),
            schedule,
            moment1: widen(&state.moment1),
            moment2: widen(&state.moment2),
            progress: AdamState::new(state.step, state.corrections.map(R::from_wide)),
        }
    }
}

/// A training over epochs.
#[derive(Debug)]
pub(super) struct LoadedTraining<R> {
    train: Arc<Vec<R>>,
    validation: Arc<Vec<R>>,
    /// Weights of both.
    weights: Option<[Arc<Vec<R>>; 2]>,
    batch: usize,
    seed: u64,
    optimiser: Optimiser<R>,
    /// Completed epochs.
    epoch: u32,
    /// Rows of the epoch under way that steps have been taken on.
    row: usize,
    /// Lowest validation loss, and the parameters that had it.
    best: Option<(f64, Vec<R>)>,
}

impl<R: Real> LoadedTraining<R> {
    /// Weights of the rows at these places of the epoch's order.
    fn batch_weights(&self, batch: Range<usize>) -> BatchWeights<R> {
        match &self.weights {
            None => BatchWeights::even(batch.len()),
            Some([weights, _]) => {
                let mut of_batch = vec![R::zero(); batch.len()];
                gather(1, batch.start, self.seed, self.epoch, weights, &mut of_batch);
                BatchWeights::new(of_batch)
            }
        }
    }
}

impl<R: Real> CpuEngine<R> {
    /// One step of Adam on the batch `x` [B, D].
    ///
    /// # Errors
    /// [`Error::Length`] when `x` is not whole rows or the optimiser is another flow's, [`Error::Argument`] when
    /// `x` has no rows.
    pub fn train_step(&mut self, x: &[R], optimiser: &mut Optimiser<R>) -> Result<StepRecord> {
        expect_length("optimiser", optimiser.moment1.len(), self.layout.total)?;
        let rows = self.rows_of_a_batch(x)?;
        let features = self.flow.features;
        let fill = |first: usize, to: &mut [R]| copy_rows(x, features, first, to);
        Ok(Team::gather(|team| self.step(team, BatchWeights::even(rows), fill, optimiser)))
    }

    /// One step of Adam on a batch; see [`CpuEngine::differentiate`] for `fill`.
    fn step(
        &mut self,
        team: &Team,
        batch: BatchWeights<R>,
        fill: impl Fn(usize, &mut [R]) + Sync,
        optimiser: &mut Optimiser<R>,
    ) -> StepRecord {
        let (loss, squared_norm) = self.differentiate(team, batch, fill);
        let norm = squared_norm.sqrt();
        let Optimiser { rule, schedule, moment1, moment2, progress } = optimiser;
        advance(rule, schedule, R::from_wide(loss), norm, progress);
        let ranges = || self.code.ranges();
        let moments = cut(moment1, ranges()).zip(cut(moment2, ranges()));
        let values = cut(&mut self.parameters, ranges()).zip(ranges().map(|range| &self.gradient[range]));
        let all = self.packed.iter_mut().zip(values.zip(moments)).enumerate();
        team.each(all, |(segment, (packed, ((parameters, gradient), (moment1, moment2))))| {
            adam(rule, progress, gradient, parameters, moment1, moment2);
            self.code.pack(segment, parameters, packed);
        });
        StepRecord {
            loss,
            grad_norm: norm.wide(),
            learning_rate: progress.learning_rate.wide(),
            halted: progress.halted,
        }
    }

    /// Takes the data and starts from `state`; see [`crate::engine::Engine::begin_training`].
    ///
    /// # Errors
    /// [`Error::Length`] when rows are not whole or the state is another flow's, [`Error::Argument`] when there
    /// are no training rows, more than `u32` counts, or the batch is 0.
    pub fn begin_training(&mut self, training: &Training, state: &State) -> Result<()> {
        training.validate(state, self.flow.features, self.layout.total)?;
        self.parameters = widen(&state.parameters);
        self.pack();
        self.training = Some(LoadedTraining {
            train: R::shared(&training.train),
            validation: R::shared(&training.validation),
            weights: training.weights.as_ref().map(|weights| {
                let RowWeights { train, validation } = weights;
                [R::shared(train), R::shared(validation)]
            }),
            batch: training.batch as usize,
            seed: training.seed,
            optimiser: Optimiser::resume(&training.adam, training.schedule, state),
            epoch: state.epoch,
            row: state.row as usize,
            best: state.best.as_ref().map(|best| (best.nll, widen(&best.parameters))),
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
        let mut training = self.training.take().ok_or_else(not_training)?;
        let records = Team::gather(|team| {
            let mut records = Vec::new();
            for _ in 0..epochs {
                records.push(self.train_epoch(team, &mut training));
                if records.last().is_some_and(|record| record.halted) {
                    break;
                }
            }
            records
        });
        self.training = Some(training);
        Ok(records)
    }

    fn train_epoch(&mut self, team: &Team, training: &mut LoadedTraining<R>) -> EpochRecord {
        let features = self.flow.features;
        let (mut nll_sum, mut norm_sum, mut rows, mut steps) = (0.0, 0.0, 0.0, 0.0);
        let mut learning_rate = 0.0;
        let mut halted = false;
        for batch in batches(training.row..training.train.len() / features, training.batch) {
            let (seed, epoch, train) = (training.seed, training.epoch, &training.train[..]);
            let fill =
                |first: usize, to: &mut [R]| gather(features, batch.start + first, seed, epoch, train, to);
            let weights = training.batch_weights(batch.clone());
            let counted = weights.total();
            let step = self.step(team, weights, fill, &mut training.optimiser);
            learning_rate = step.learning_rate;
            halted = step.halted;
            if halted {
                break;
            }
            nll_sum += step.loss * counted;
            rows += counted;
            norm_sum += step.grad_norm;
            steps += 1.0;
            training.row = batch.end;
        }
        let validation_nll = self.validate(team, training);
        let lowest = training.best.as_ref().map_or(f64::INFINITY, |(lowest, _)| *lowest);
        let improved = !halted && validation_nll.is_some_and(|nll| nll < lowest);
        if let (true, Some(nll)) = (improved, validation_nll) {
            training.best = Some((nll, self.parameters.clone()));
        }
        let epoch = training.epoch + 1;
        if !halted {
            (training.epoch, training.row) = (epoch, 0);
        }
        EpochRecord {
            epoch,
            train_nll: nll_sum / rows,
            validation_nll,
            learning_rate,
            grad_norm: norm_sum / steps,
            improved,
            halted,
        }
    }

    /// Mean of −log p over the validation rows; `None` without rows.
    fn validate(&self, team: &Team, training: &LoadedTraining<R>) -> Option<f64> {
        (!training.validation.is_empty()).then(|| {
            let log_prob = self.log_prob_by(team, &training.validation);
            match &training.weights {
                None => -mean(&log_prob),
                Some([_, weights]) => -weighted_mean(&log_prob, weights),
            }
        })
    }

    /// The state after the last completed step, rounded to `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] before [`CpuEngine::begin_training`].
    pub fn training_state(&self) -> Result<State> {
        let training = self.training.as_ref().ok_or_else(not_training)?;
        Ok(State {
            parameters: narrow(&self.parameters),
            moment1: narrow(&training.optimiser.moment1),
            moment2: narrow(&training.optimiser.moment2),
            step: training.optimiser.progress.step,
            epoch: training.epoch,
            row: training.row as u32,
            corrections: [training.optimiser.progress.correction1, training.optimiser.progress.correction2]
                .map(Real::wide),
            best: training.best.as_ref().map(|(nll, best)| Best { nll: *nll, parameters: narrow(best) }),
        })
    }

    /// The parameters `[P]` after the epoch with the lowest validation loss; the current ones where there is none.
    pub fn best_parameters(&self) -> &[R] {
        let best = self.training.as_ref().and_then(|training| training.best.as_ref());
        best.map_or(&self.parameters, |(_, parameters)| parameters)
    }
}

fn not_training() -> Error {
    Error::Argument("no training under way; call begin_training first".into())
}

fn widen<R: Real>(values: &[f32]) -> Vec<R> {
    values.iter().map(|&value| R::from_wide(value.into())).collect()
}

fn narrow<R: Real>(values: &[R]) -> Vec<f32> {
    values.iter().map(|value| value.wide() as f32).collect()
}
