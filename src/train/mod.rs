//! Training: runs an engine epoch by epoch over a dataset and keeps the parameters that do best on validation rows.
//! It stands between a [`Dataset`] and a [`Model`], and decides nothing that the [`Recipe`] does not say.

mod history;

use std::ops::ControlFlow;

pub use history::{Epoch, History};

pub use crate::model::{Outcome, Recipe};

use crate::data::Dataset;
use crate::engine::{Engine, Training};
use crate::error::{Error, Result};
use crate::model::{DataSource, Model, TrainingRecord};
use crate::optimiser::State;

/// What watches a training, and may end it.
pub trait Observer {
    /// Seconds on a clock that never goes back. Its zero is free.
    ///
    /// The default reads the operating system's clock; where there is none (wasm32) it always gives 0, so that a
    /// browser host gives its own.
    fn seconds(&mut self) -> f64 {
        clock()
    }

    /// Is told of every completed epoch, in order. [`ControlFlow::Break`] ends the training; what has been reached
    /// by then is kept.
    fn epoch(&mut self, epoch: &Epoch) -> ControlFlow<()>;
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

/// Seconds of training between two looks at the observer, where an epoch takes less.
const CHUNK_SECONDS: f64 = 0.05;

/// Most epochs between two looks at the observer.
const MAX_CHUNK: f64 = 10.0;

/// Trains `engine`'s flow on `dataset` from the initial weights of the recipe's seed.
///
/// The parameters kept are those after the epoch with the lowest validation loss; without validation rows, the
/// last ones. A non-finite loss or gradient ends the training as [`Outcome::NonFinite`], with the best parameters
/// from before it. `source` goes into the model's record.
///
/// # Errors
/// [`Error::Argument`] when recipe, engine and dataset do not fit each other; those of the engine.
pub async fn fit<E: Engine>(
    engine: &mut E,
    dataset: &Dataset,
    recipe: &Recipe,
    source: DataSource,
    observer: &mut impl Observer,
) -> Result<Fitted> {
    let flow = engine.flow().clone();
    let features = dataset.features();
    if flow != recipe.flow(features)? {
        return Err(Error::Argument(format!(
            "the engine's flow is not the recipe's over the dataset's {features} columns; make the engine from \
             `recipe.flow({features})`"
        )));
    }
    let steps_per_epoch = Training::steps_per_epoch(dataset.train.len() / features, recipe.batch);
    let training = Training {
        train: dataset.preprocessing.forward(&dataset.train).values,
        validation: dataset.preprocessing.forward(&dataset.validation).values,
        batch: recipe.batch,
        adam: recipe.adam(),
        schedule: recipe.schedule(steps_per_epoch)?,
        seed: recipe.seed,
    };
    engine.begin_training(training, State::initial(&flow, recipe.seed))?;
    let log_det = [&dataset.train, &dataset.validation].map(|rows| dataset.preprocessing.mean_log_det(rows));
    let (history, outcome) = run_epochs(engine, recipe.epochs, log_det, observer).await?;

    let parameters = engine.best_parameters().await?;
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
        held_out: None,
    };
    let model = Model {
        flow,
        parameters,
        preprocessing: dataset.preprocessing.clone(),
        columns: dataset.columns.clone(),
        record,
    };
    Ok(Fitted { model, history, outcome })
}

/// Trains for `epochs` epochs, fewer when the observer or a non-finite number ends it.
///
/// The engine is asked for as many epochs at once as keep the observer informed: short epochs would otherwise cost
/// a readback each. How they are cut does not change what they compute.
async fn run_epochs<E: Engine>(
    engine: &mut E,
    epochs: u32,
    log_det: [f64; 2],
    observer: &mut impl Observer,
) -> Result<(History, Outcome)> {
    let mut history = History::default();
    let start = observer.seconds();
    let (mut done, mut chunk) = (0, 1);
    while done < epochs {
        let before = observer.seconds();
        let records = engine.train(chunk.min(epochs - done)).await?;
        let each = (observer.seconds() - before) / records.len().max(1) as f64;
        let mut stop = false;
        for (index, record) in records.iter().enumerate() {
            if record.halted {
                return Ok((history, Outcome::NonFinite { epoch: record.epoch }));
            }
            let epoch = Epoch::new(record, log_det, before - start + each * (index + 1) as f64);
            history.epochs.push(epoch);
            stop |= observer.epoch(&epoch).is_break();
        }
        done += records.len().max(1) as u32;
        if stop && done < epochs {
            return Ok((history, Outcome::Interrupted));
        }
        chunk = (CHUNK_SECONDS / each).clamp(1.0, MAX_CHUNK) as u32;
    }
    Ok((history, Outcome::Finished))
}
