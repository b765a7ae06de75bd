//! A training from a dataset to a model: what must fit together, where it starts, and what is kept of it.
//! It stands between a [`Dataset`] and a [`Model`]; the epochs between are those of the training loop.

use super::initialise::initialise_from_rows;
use super::margins::settle;
use super::training_loop::{TrainerState, TrainingLoop, validation_nll};
use super::{Average, Checkpoint, History, Observer, fingerprint, self_check};
use crate::data::{CountedRows, Dataset};
use crate::engine::{Engine, RowWeights, Training};
use crate::error::{Error, Result};
use crate::flow::{Base, Flow};
use crate::model::{DataSource, Model, Outcome, Recipe, TrainingRecord};
use crate::optimiser::{Best, State};

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
    /// Leaves the self-check out: for a model that is compared with others and not kept.
    pub unchecked: bool,
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
    check_together(&flow, dataset, recipe, &options)?;
    // Before the engine's rows are made: the ranges hold a column.
    let begun = TrainingRecord {
        context_ranges: dataset.context_ranges(),
        narrow_cells: !dataset.preprocessing.dequantized().is_empty(),
        ..TrainingRecord::begun(recipe.clone(), source, engine.device().to_string())
    };
    let (training, log_det) = prepare(dataset, recipe)?;
    let fresh = beginning(engine, dataset, recipe, &training, log_det).await?;
    let (saved, resumed) = match options.resume.take() {
        Some(checkpoint) => (checkpoint.fitted_to(fresh)?, true),
        None => (fresh, false),
    };
    let mut trainer = saved.trainer.clone();
    if recipe.ema.is_some() && trainer.average.is_none() {
        let best = saved.state.best.clone();
        trainer.average = Some(Average { best, ..Average::new(saved.state.parameters.len()) });
    }
    let written = resumed.then_some(trainer.history.epochs.len() as u32);
    let mut run = TrainingLoop {
        engine,
        observer,
        recipe,
        options: &options,
        training: training.clone(),
        saved,
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

    let mut trainer = run.trainer;
    let unbeaten = initial_loss(engine, &trainer).await?.map(|nll| nll - log_det[1]);
    let parameters = best_parameters(engine, trainer.average.take()).await?;
    let mut record = record(begun, dataset, outcome, &trainer);
    if unbeaten.is_some() {
        (record.best_epoch, record.train_nll, record.validation_nll) = (Some(0), None, unbeaten);
    }
    let mut model = Model {
        flow,
        parameters,
        preprocessing: dataset.preprocessing.clone(),
        columns: dataset.columns.clone(),
        record,
    };
    let gains = settle(&mut model, engine, dataset, &training).await?;
    let losses = [&mut model.record.train_nll, &mut model.record.validation_nll];
    losses.into_iter().zip(gains).for_each(|(loss, gain)| *loss = loss.map(|loss| loss - gain));
    if !options.unchecked {
        model.record.check = Some(self_check(&model, engine, dataset).await?);
    }
    Ok(Fitted { model, history: trainer.history, outcome })
}

/// That the flow is the recipe's over the dataset, and that the options can be followed.
fn check_together(flow: &Flow, dataset: &Dataset, recipe: &Recipe, options: &Options) -> Result<()> {
    if *flow != recipe.flow_over(dataset)? {
        return Err(Error::Argument(format!(
            "the engine's flow is not the recipe's over the dataset's {} columns; make the engine from \
             `recipe.flow_over(&dataset)`",
            dataset.features()
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
    Ok(())
}

/// The dataset in the engine's units with the recipe's rules, and the preprocessing's mean log-determinant over training
/// and validation rows, in nats.
fn prepare(dataset: &Dataset, recipe: &Recipe) -> Result<(Training, [f64; 2])> {
    let sides = [0, 1].map(|side| dataset.rows(side));
    let [(train, train_log_det), (validation, validation_log_det)] = sides.each_ref().map(|rows| {
        let (mut mapped, log_det) = dataset.preprocessing.forward_table(rows);
        clear_far_rows(&mut mapped, rows, dataset.features());
        (mapped, log_det)
    });
    let [of_training, of_validation] = &sides;
    let single =
        |rows: &CountedRows<'_>| rows.weights().map(|weight| weight as f32).collect::<Vec<f32>>().into();
    let steps_per_epoch = Training::steps_per_epoch(of_training.len(), recipe.batch);
    let training = Training {
        weights: of_training
            .are_weighted()
            .then(|| RowWeights { train: single(of_training), validation: single(of_validation) }),
        train: train.into(),
        validation: validation.into(),
        batch: recipe.batch,
        adam: recipe.adam(),
        schedule: recipe.schedule(steps_per_epoch)?,
        seed: recipe.seed,
    };
    Ok((training, [train_log_det, validation_log_det]))
}

/// Puts zeros in the place of `rows`, which are `mapped` to the engine's units, row-major [N, D], that count nothing and lie so
/// far out that single precision may not hold what becomes of them: nothing times infinity is not nothing.
fn clear_far_rows(mapped: &mut [f32], rows: &CountedRows<'_>, features: usize) {
    /// Standard deviations that no network minds.
    const NEAR: f32 = 1000.0;

    let mapped = mapped.chunks_exact_mut(features).zip(rows.weights());
    for (row, _) in mapped.filter(|(_, weight)| *weight == 0.0) {
        if !row.iter().all(|value| value.abs() <= NEAR) {
            row.fill(0.0);
        }
    }
}

/// The training before its first step: initial weights, nothing counted. Where they hold a mixture that is fitted to the rows,
/// they are the best so far, so that training cannot end below them.
async fn beginning(
    engine: &mut impl Engine,
    dataset: &Dataset,
    recipe: &Recipe,
    training: &Training,
    log_det: [f64; 2],
) -> Result<Checkpoint> {
    let mut state = State::initial(engine.flow(), recipe.seed);
    initialise_from_rows(engine.flow(), &mut state.parameters, training)?;
    if engine.flow().base != Base::StandardNormal && !training.validation.is_empty() {
        engine.set_parameters(&state.parameters)?;
        let nll = validation_nll(engine, training).await?;
        state.best = nll.is_finite().then(|| Best { nll, parameters: state.parameters.clone() });
    }
    Ok(Checkpoint {
        recipe: recipe.clone(),
        columns: dataset.columns.clone(),
        device: engine.device().to_string(),
        rows: fingerprint(training, log_det),
        state,
        trainer: TrainerState::default(),
    })
}

/// The parameters `[P]` that are kept: those of the average where there is one, else the engine's best.
async fn best_parameters(engine: &mut impl Engine, average: Option<Average>) -> Result<Vec<f32>> {
    match average {
        Some(average) if average.epochs > 0 => Ok(match average.best {
            Some(best) => best.parameters,
            None => average.narrow(),
        }),
        _ => engine.best_parameters().await,
    }
}

/// The validation loss of the initial parameters where they are kept, because no epoch did better.
async fn initial_loss(engine: &mut impl Engine, trainer: &TrainerState) -> Result<Option<f64>> {
    if engine.flow().base == Base::StandardNormal || trainer.history.best().is_some() {
        return Ok(None);
    }
    Ok(engine.training_state().await?.best.map(|best| best.nll))
}

/// What the model file says of the training that was `begun`, before the model is looked at.
fn record(
    begun: TrainingRecord,
    dataset: &Dataset,
    outcome: Outcome,
    trainer: &TrainerState,
) -> TrainingRecord {
    let TrainerState { history, skipped, rollbacks, .. } = trainer;
    // Without validation rows no epoch is better than another, and the last one is kept.
    let kept = if dataset.validation.is_empty() { history.epochs.last() } else { history.best() };
    TrainingRecord {
        outcome,
        epochs: history.epochs.len() as u32,
        best_epoch: kept.map(|epoch| epoch.epoch),
        train_nll: kept.map(|epoch| epoch.train_nll),
        validation_nll: kept.and_then(|epoch| epoch.validation_nll),
        skipped_steps: *skipped,
        rollbacks: *rollbacks,
        ..begun
    }
}
