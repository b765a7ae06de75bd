//! Training: runs an engine epoch by epoch over a dataset and keeps the parameters that do best on validation rows.
//! It stands between a [`Dataset`] and a [`Model`], and decides nothing that the [`Recipe`] does not say.

mod average;
mod check;
mod checkpoint;
mod history;
mod initialise;
mod training_loop;

use std::fmt;
use std::ops::ControlFlow;

pub use average::Average;
pub use check::self_check;
pub use checkpoint::{CHECKPOINT_VERSION, Checkpoint, fingerprint};
pub use history::{Epoch, History};
pub use training_loop::TrainerState;

pub use crate::model::{Outcome, Recipe};

use crate::data::Dataset;
use crate::engine::{Engine, Training};
use crate::error::{Error, Result};
use crate::model::{DataSource, Model, TrainingRecord};
use crate::optimiser::State;

use training_loop::TrainingLoop;

/// Something that happened within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step was skipped, because its loss or gradient was not finite.
    Skipped {
        /// The epoch, counted from 1.
        epoch: u32,
    },
    /// A loss rose steeply, or was never finite, and training went back to an earlier state at half the rate.
    RolledBack {
        /// The epoch, counted from 1.
        epoch: u32,
        /// The epoch whose end it went back to.
        to: u32,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped { epoch } => {
                write!(f, "epoch {epoch}: skipped a step whose loss or gradient was not finite")
            }
            Self::RolledBack { epoch, to } => {
                write!(
                    f,
                    "epoch {epoch}: the loss rose steeply; back to the end of epoch {to}, at half the rate"
                )
            }
        }
    }
}

/// What watches a training, and may end it.
pub trait Observer {
    /// Seconds on a clock that never goes back. The epoch is arbitrary.
    ///
    /// The default reads the operating system's clock; where there is none (wasm32) it always gives 0, so that a
    /// browser host gives its own.
    fn seconds(&mut self) -> f64 {
        clock()
    }

    /// Is told of every completed epoch, in order. [`ControlFlow::Break`] ends the training; what has been reached
    /// by then is kept.
    fn epoch(&mut self, epoch: &Epoch) -> ControlFlow<()>;

    /// Is told of what happened within an epoch.
    fn event(&mut self, _: Event) {}

    /// Is given the training as it stands, to go on from another time: see [`Options`] for when.
    ///
    /// # Errors
    /// What goes wrong in keeping it, which ends the training.
    fn checkpoint(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    /// Is given the training as it ended, in the place of [`Observer::checkpoint`]: for an observer that first wants the
    /// model in safety.
    ///
    /// # Errors
    /// Those of [`Observer::checkpoint`].
    fn last_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.checkpoint(&checkpoint)
    }

    /// Is given the parameters `[P]` after `epoch` epochs, for the epochs of [`Options::snapshots`]: their average where
    /// the recipe asks for one.
    fn snapshot(&mut self, _epoch: u32, _parameters: &[f32]) {}
}

/// Watches nothing.
impl Observer for () {
    fn epoch(&mut self, _: &Epoch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn clock() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

#[cfg(target_arch = "wasm32")]
fn clock() -> f64 {
    0.0
}

/// How a training is carried out, besides what its recipe says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Seconds after which training ends with the epoch under way.
    pub time_limit: Option<f64>,
    /// Epochs from one checkpoint to the next, the last epoch included. Without it, a checkpoint is made only of a
    /// training that the observer or the time limit ends.
    pub checkpoint_every: Option<u32>,
    /// Epochs, ascending, after which the observer is given the parameters; 0 is before the first.
    pub snapshots: Vec<u32>,
    /// The training to go on with.
    pub resume: Option<Checkpoint>,
}

/// The result of [`fit`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The model with the best parameters found.
    pub model: Model,
    /// What every epoch did.
    pub history: History,
    /// How training ended.
    pub outcome: Outcome,
}

/// [`fit_with`] the usual options.
///
/// # Errors
/// Those of [`fit_with`].
pub async fn fit<E: Engine>(
    engine: &mut E,
    dataset: &Dataset,
    recipe: &Recipe,
    source: DataSource,
    observer: &mut impl Observer,
) -> Result<Fitted> {
    fit_with(engine, dataset, recipe, source, Options::default(), observer).await
}

/// Trains `engine`'s flow on `dataset` from the initial weights of the recipe's seed, or from a checkpoint.
///
/// The parameters kept are those after the epoch with the lowest validation loss; without validation rows, the
/// last ones. A step whose loss or gradient is not finite is skipped; ten in a row, or as many as an epoch has, end
/// the training as [`Outcome::NonFinite`], with the best parameters from before them. `source` goes into the model's record, together
/// with a [`self_check`] of the model.
///
/// # Errors
/// [`Error::Argument`] when recipe, engine, dataset and checkpoint do not fit each other; those of the engine and of
/// the observer.
pub async fn fit_with<E: Engine>(
    engine: &mut E,
    dataset: &Dataset,
    recipe: &Recipe,
    source: DataSource,
    mut options: Options,
    observer: &mut impl Observer,
) -> Result<Fitted> {
    let flow = engine.flow().clone();
    let features = dataset.features();
    if flow != recipe.flow_over(dataset)? {
        return Err(Error::Argument(format!(
            "the engine's flow is not the recipe's over the dataset's {features} columns; make the engine from \
             `recipe.flow_over(&dataset)`"
        )));
    }
    if recipe.patience.is_some() && dataset.validation.is_empty() {
        return Err(Error::Argument(
            "patience needs validation rows to judge by; keep some, or leave it out".into(),
        ));
    }
    if options.checkpoint_every == Some(0) {
        return Err(Error::Argument("checkpoints must be at least 1 epoch apart, got 0".into()));
    }
    let [(train, train_log_det), (validation, validation_log_det)] =
        [&dataset.train, &dataset.validation].map(|rows| dataset.preprocessing.forward_table(rows));
    let log_det = [train_log_det, validation_log_det];
    let steps_per_epoch = Training::steps_per_epoch(dataset.train.len() / features, recipe.batch);
    let training = Training {
        train: train.into(),
        validation: validation.into(),
        batch: recipe.batch,
        adam: recipe.adam(),
        schedule: recipe.schedule(steps_per_epoch)?,
        seed: recipe.seed,
    };
    let mut state = State::initial(&flow, recipe.seed);
    initialise::initialise_from_rows(&flow, &mut state.parameters, &training.train)?;
    let fresh = Checkpoint {
        recipe: recipe.clone(),
        columns: dataset.columns.clone(),
        device: engine.device().to_string(),
        rows: fingerprint(&training, log_det),
        state,
        trainer: TrainerState::default(),
    };
    let (kept, resumed) = match options.resume.take() {
        Some(checkpoint) => (checkpoint.fitted_to(fresh)?, true),
        None => (fresh, false),
    };
    let mut trainer = kept.trainer.clone();
    if recipe.ema.is_some() && trainer.average.is_none() {
        trainer.average = Some(Average::new(kept.state.parameters.len()));
    }
    let written = resumed.then_some(trainer.history.epochs.len() as u32);
    let mut run = TrainingLoop {
        engine,
        observer,
        recipe,
        options: &options,
        training,
        kept,
        trainer,
        log_det,
        written,
    };
    let outcome = run.run().await?;
    if matches!(outcome, Outcome::Interrupted | Outcome::TimeLimit)
        || (options.checkpoint_every.is_some() && !matches!(outcome, Outcome::NonFinite { .. }))
    {
        run.last_checkpoint().await?;
    }

    let TrainerState { history, average, skipped, rollbacks, .. } = run.trainer;
    let parameters = match average {
        Some(average) if average.epochs > 0 => match average.best {
            Some(best) => best.parameters,
            None => average.narrow(),
        },
        _ => engine.best_parameters().await?,
    };
    let kept = if dataset.validation.is_empty() { history.epochs.last() } else { history.best() };
    let record = TrainingRecord {
        moonflow: env!("CARGO_PKG_VERSION").into(),
        data: source,
        recipe: recipe.clone(),
        device: engine.device().to_string(),
        outcome,
        epochs: history.epochs.len() as u32,
        best_epoch: kept.map(|epoch| epoch.epoch),
        train_nll: kept.map(|epoch| epoch.train_nll),
        validation_nll: kept.and_then(|epoch| epoch.validation_nll),
        skipped_steps: skipped,
        rollbacks,
        held_out: None,
        test: None,
        check: None,
    };
    let mut model = Model {
        flow,
        parameters,
        preprocessing: dataset.preprocessing.clone(),
        columns: dataset.columns.clone(),
        record,
    };
    model.record.check = Some(self_check(&model, engine, dataset).await?);
    Ok(Fitted { model, history, outcome })
}
