//! The loop over epochs: how many to ask the engine for, what to do with steps that fail, and when to end.

use std::ops::ControlFlow;

use super::{Average, Checkpoint, Epoch, Event, History, Observer, Options};
use crate::engine::{Engine, EpochRecord, Training};
use crate::error::Result;
use crate::model::{Outcome, Recipe};
use crate::optimiser::State;

/// Seconds of training between two looks at the observer, where an epoch takes less.
const CHUNK_SECONDS: f64 = 0.05;
/// Most epochs between two looks at the observer.
const MAX_CHUNK: f64 = 10.0;
/// Steps that are skipped one after the other before training ends: this many, or a whole epoch of them.
const MOST_SKIPPED_IN_A_ROW: u32 = 10;
/// Times that training goes back to an earlier state; what comes after that is taken as it is.
const MOST_ROLLBACKS: u32 = 8;
/// Rise of a loss from one epoch to the next, in nats per feature, that a rollback answers.
const SPIKE: f64 = 0.5;

/// What a training has done and counted so far, besides the engine's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainerState {
    /// Completed epochs.
    pub history: History,
    /// The average of the weights, where the recipe asks for one.
    pub average: Option<Average>,
    /// Steps skipped because their loss or gradient was not finite.
    pub skipped: u32,
    /// Those of them that follow on one another up to now.
    pub skipped_in_a_row: u32,
    /// Completed steps at the last of them.
    pub last_skipped: u32,
    /// Times that training went back to an earlier state, each at half the rate before.
    pub rollbacks: u32,
}

/// Part of an epoch that ended with a skipped step.
#[derive(Clone, Copy, Default)]
struct PartialEpoch {
    rows: f64,
    nll_sum: f64,
    steps: f64,
    norm_sum: f64,
    skipped: u32,
}

/// A training under way.
pub(super) struct TrainingLoop<'a, E, O> {
    pub engine: &'a mut E,
    pub observer: &'a mut O,
    pub recipe: &'a Recipe,
    pub options: &'a Options,
    pub training: Training,
    /// Where a rollback goes back to, and what becomes the next checkpoint: its state is that of the last one, or of the last
    /// good epoch.
    pub saved: Checkpoint,
    pub trainer: TrainerState,
    /// The preprocessing's mean log-determinant over training and validation rows, in nats.
    pub log_det: [f64; 2],
    /// Epoch of the last checkpoint that the observer was given.
    pub written: Option<u32>,
}

/// What an epoch's record means for training.
enum Verdict {
    Completed(Epoch),
    /// Go on from where the engine was put.
    Again,
    End(Outcome),
}

impl<E: Engine, O: Observer> TrainingLoop<'_, E, O> {
    /// Trains from the saved state to the end.
    pub async fn run(&mut self) -> Result<Outcome> {
        self.begin(self.saved.state.clone())?;
        let begun = self.observer.seconds();
        let start = begun - self.trainer.history.epochs.last().map_or(0.0, |epoch| epoch.seconds);
        let mut chunk = 1;
        // Rows of the epoch under way before a step that was skipped.
        let mut part = PartialEpoch::default();
        self.snapshot().await?;
        loop {
            let wanted = match self.most_epochs() {
                0 if self.completed() < self.recipe.epochs => return Ok(Outcome::EarlyStop),
                0 => return Ok(Outcome::Finished),
                most => most.min(chunk),
            };
            let before = self.observer.seconds();
            let records = self.engine.train(wanted).await?;
            let each = (self.observer.seconds() - before) / records.len().max(1) as f64;
            let (mut stop, mut within) = (false, false);
            for (index, record) in records.iter().enumerate() {
                let seconds = before - start + each * (index + 1) as f64;
                match self.judge(record, seconds, &mut part).await? {
                    Verdict::Completed(epoch) => {
                        within = false;
                        self.trainer.history.epochs.push(epoch);
                        stop |= self.observer.epoch(&epoch) == ControlFlow::Break(());
                    }
                    Verdict::Again => within = true,
                    Verdict::End(outcome) => return Ok(outcome),
                }
            }
            // Training is looked at, kept and ended between epochs only.
            if within {
                continue;
            }
            self.keep_good_state().await?;
            self.snapshot().await?;
            if self.most_epochs() > 0 {
                if stop {
                    return Ok(Outcome::Interrupted);
                }
                if let Some(limit) = self.options.time_limit
                    && self.observer.seconds() - begun >= limit
                {
                    return Ok(Outcome::TimeLimit);
                }
                if self.options.checkpoint_every.is_some_and(|every| self.completed().is_multiple_of(every)) {
                    self.checkpoint().await?;
                }
            }
            chunk = (CHUNK_SECONDS / each).clamp(1.0, MAX_CHUNK) as u32;
        }
    }

    fn completed(&self) -> u32 {
        self.trainer.history.epochs.len() as u32
    }

    /// Whether every epoch's state is looked at, so that the engine is asked for one at a time.
    fn looks_at_every_epoch(&self) -> bool {
        self.recipe.ema.is_some() || self.recipe.rollback
    }

    /// Epochs that can be trained without missing a decision: the end, patience running out, a checkpoint or a snapshot. How
    /// training is cut into chunks, which depends on time, must not change what it computes.
    fn most_epochs(&self) -> u32 {
        let done = self.completed();
        let mut most = self.recipe.epochs.saturating_sub(done);
        if let Some(patience) = self.recipe.patience {
            let best = self.trainer.history.best().map_or(0, |epoch| epoch.epoch);
            most = most.min(patience.saturating_sub(done - best));
        }
        if let Some(every) = self.options.checkpoint_every {
            most = most.min(every - done % every);
        }
        if let Some(next) = self.options.snapshots.iter().find(|&&epoch| epoch > done) {
            most = most.min(next - done);
        }
        if self.looks_at_every_epoch() { most.min(1) } else { most }
    }

    /// Puts `state` on the engine, with the rate that the rollbacks so far leave.
    fn begin(&mut self, state: State) -> Result<()> {
        let mut training = self.training.clone();
        training.schedule.base *= 0.5f32.powi(self.trainer.rollbacks as i32);
        self.engine.begin_training(training, state)
    }

    async fn judge(
        &mut self,
        record: &EpochRecord,
        seconds: f64,
        part: &mut PartialEpoch,
    ) -> Result<Verdict> {
        let features = self.engine.flow().features;
        let rows = (self.training.train.len() / features) as u32;
        if record.halted {
            let mut state = self.engine.training_state().await?;
            part.add(record, f64::from(state.row), self.training.batch);
            return self.skip(record, &mut state, rows, part);
        }
        let mut record = *record;
        if part.skipped > 0 {
            part.add(&record, f64::from(rows), self.training.batch);
            (record.train_nll, record.grad_norm) = (part.nll_sum / part.rows, part.norm_sum / part.steps);
        }
        self.average(&mut record).await?;
        let mut epoch = Epoch::new(&record, self.log_det, seconds);
        epoch.skipped = std::mem::take(part).skipped;
        if self.recipe.rollback
            && self.trainer.rollbacks < MOST_ROLLBACKS
            && self
                .trainer
                .history
                .epochs
                .last()
                .is_some_and(|last| rise(last, &epoch) > SPIKE * features as f64)
        {
            self.roll_back(epoch.epoch)?;
            return Ok(Verdict::Again);
        }
        Ok(Verdict::Completed(epoch))
    }

    /// Goes on after the step that was not finite, or ends when there were too many.
    fn skip(
        &mut self,
        record: &EpochRecord,
        state: &mut State,
        rows: u32,
        part: &mut PartialEpoch,
    ) -> Result<Verdict> {
        let trainer = &mut self.trainer;
        let follows = trainer.skipped > 0 && trainer.last_skipped == state.step;
        trainer.skipped += 1;
        trainer.skipped_in_a_row = if follows { trainer.skipped_in_a_row + 1 } else { 1 };
        trainer.last_skipped = state.step;
        part.skipped += 1;
        let steps_per_epoch = rows.div_ceil(self.training.batch);
        if trainer.skipped_in_a_row < MOST_SKIPPED_IN_A_ROW.min(steps_per_epoch) {
            state.row = state.row.saturating_add(self.training.batch).min(rows);
            self.begin(state.clone())?;
            self.observer.event(Event::Skipped { epoch: record.epoch });
            return Ok(Verdict::Again);
        }
        if self.recipe.rollback && self.trainer.rollbacks < MOST_ROLLBACKS {
            *part = PartialEpoch::default();
            self.roll_back(record.epoch)?;
            return Ok(Verdict::Again);
        }
        Ok(Verdict::End(Outcome::NonFinite { epoch: record.epoch }))
    }

    /// Back to the state of the last good epoch, at half the rate.
    fn roll_back(&mut self, epoch: u32) -> Result<()> {
        self.trainer.rollbacks += 1;
        self.trainer.skipped_in_a_row = 0;
        self.trainer.average.clone_from(&self.saved.trainer.average);
        self.begin(self.saved.state.clone())?;
        self.observer.event(Event::RolledBack { epoch, to: self.completed() });
        Ok(())
    }

    /// Takes the epoch's parameters into the average and judges that in their place.
    async fn average(&mut self, record: &mut EpochRecord) -> Result<()> {
        let (Some(average), Some(decay)) = (&mut self.trainer.average, self.recipe.ema) else {
            return Ok(());
        };
        let parameters = self.engine.training_state().await?.parameters;
        average.take(&parameters, decay);
        if record.validation_nll.is_some() {
            self.engine.set_parameters(&average.narrow())?;
            let nll = validation_nll(self.engine, &self.training).await;
            self.engine.set_parameters(&parameters)?;
            let nll = nll?;
            record.validation_nll = Some(nll);
            record.improved = average.judge(nll);
        }
        Ok(())
    }

    /// Remembers the state after a good epoch where a rollback may want it.
    async fn keep_good_state(&mut self) -> Result<()> {
        if self.recipe.rollback && self.saved.trainer.history.epochs.len() < self.trainer.history.epochs.len()
        {
            self.keep_state().await?;
        }
        Ok(())
    }

    /// Shows the observer the parameters where it asked for them.
    async fn snapshot(&mut self) -> Result<()> {
        let done = self.completed();
        if !self.options.snapshots.contains(&done) {
            return Ok(());
        }
        let parameters = match &self.trainer.average {
            Some(average) if average.epochs > 0 => average.narrow(),
            _ => self.engine.training_state().await?.parameters,
        };
        self.observer.snapshot(done, &parameters);
        Ok(())
    }

    async fn keep_state(&mut self) -> Result<()> {
        self.saved.state = self.engine.training_state().await?;
        self.saved.trainer.clone_from(&self.trainer);
        Ok(())
    }

    /// Gives the observer the training as it stands.
    async fn checkpoint(&mut self) -> Result<()> {
        self.keep_state().await?;
        self.observer.checkpoint(&self.saved)?;
        self.written = Some(self.completed());
        Ok(())
    }

    /// Gives the observer the training as it ended, unless it has it already.
    pub async fn last_checkpoint(&mut self) -> Result<()> {
        if self.written == Some(self.completed()) {
            return Ok(());
        }
        self.keep_state().await?;
        self.observer.last_checkpoint(self.saved.clone())
    }
}

impl PartialEpoch {
    /// Adds the rows from where the part ends to row `end` of the epoch.
    fn add(&mut self, record: &EpochRecord, end: f64, batch: u32) {
        let before = self.rows + f64::from(self.skipped) * f64::from(batch);
        let rows = (end - before).max(0.0);
        if rows > 0.0 {
            let steps = (rows / f64::from(batch)).ceil();
            self.rows += rows;
            self.nll_sum += rows * record.train_nll;
            self.steps += steps;
            self.norm_sum += steps * record.grad_norm;
        }
    }
}

/// The weighted mean of −log p over the validation rows, by an engine that has the parameters.
///
/// # Errors
/// Those of the engine.
pub(super) async fn validation_nll<E: Engine>(engine: &mut E, training: &Training) -> Result<f64> {
    let log_prob = engine.log_prob(&training.validation).await?;
    let weights = training.weights.as_ref().map(|weights| &weights.validation);
    let weight = |row: usize| weights.map_or(1.0, |weights| f64::from(weights[row]));
    let counted = || log_prob.iter().enumerate().map(|(row, &log_p)| (weight(row), f64::from(log_p)));
    // A row that does not count may have a density of 0.
    let sum: f64 = counted().filter(|(weight, _)| *weight > 0.0).map(|(weight, log_p)| weight * log_p).sum();
    Ok(-sum / counted().map(|(weight, _)| weight).sum::<f64>())
}

/// By how much the worse of the two losses rose from one epoch to the next, in nats.
fn rise(from: &Epoch, to: &Epoch) -> f64 {
    let validation = match (from.validation_nll, to.validation_nll) {
        (Some(from), Some(to)) if from.is_finite() => to - from,
        _ => 0.0,
    };
    (to.train_nll - from.train_nll).max(validation)
}
