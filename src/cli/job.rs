//! A training from its rows to its files: what it says, what it keeps on the way, and what it writes at the end.

use std::path::Path;
use std::time::Instant;

use moonflow::Dataset;
use moonflow::device::AnyEngine;
use moonflow::engine::Engine;
use moonflow::files::{read_text, write_atomically};
use moonflow::model::{Engines, Ensemble, Model, Outcome, Recipe, TableModel};
use moonflow::shown::{shown, shown_path};
use moonflow::train::{Checkpoint, Fitted, History, Members, Options, TestSets, fit_with, training_shape};
use moonflow::{Error, Result};
use serde_json::json;

use super::animate::Animated;
use super::categories;
use super::check::describe_check;
use super::config::Resolved;
use super::folder::{Files, HISTORY};
use super::info::{
    describe_base, describe_columns, describe_flow, describe_held_out, describe_recipe, describe_rows,
};
use super::output::{self, grouped, note};
use super::plot::{HISTORY_BYTES, Picture};

use super::progress::{EpochProgress, LogFormat, duration};
use super::results::Results;
use super::signals::stop_flag;
use super::source::Source;
use super::train::{Data, TrainArgs};
use super::tune::Work;

/// A training with all that it needs but an engine.
pub struct TrainingJob<'a> {
    pub args: &'a TrainArgs,
    pub recipe: &'a Recipe,
    pub source: &'a Source,
    pub files: Files,
    pub resolved: Resolved<'a>,
    pub data: Data,
    pub animation: Option<Animated>,
}

/// Training and validation rows.
fn rows(dataset: &Dataset) -> [usize; 2] {
    [&dataset.train, &dataset.validation].map(|rows| rows.len() / dataset.features())
}

/// What a training leaves besides its model.
pub struct Artifacts {
    /// Of the first fit.
    pub history: History,
    /// Of the last fit.
    pub outcome: Outcome,
    checkpoint: Option<Checkpoint>,
    /// Epochs and parameters of the first fit, for the moving picture.
    snapshots: Vec<(u32, Vec<f32>)>,
}

/// One fit of the job's ensemble.
struct Fit<'a> {
    /// Of how many, from 0.
    index: usize,
    recipe: Recipe,
    dataset: &'a Dataset,
}

impl TrainingJob<'_> {
    /// Prints a line for a person; a program reads JSON instead.
    fn say(&self, line: impl std::fmt::Display) {
        if self.args.log_format == LogFormat::Text {
            output::say(line);
        }
    }

    /// Says what is about to be trained, by the engine of the first fit.
    fn introduce(&self, dataset: &Dataset, engine: &AnyEngine, checkpoint: Option<&Checkpoint>) {
        let Data { test, notes, categories, .. } = &self.data;
        let [train, validation] = rows(dataset).map(|rows| grouped(rows as u64));
        let test = test.as_ref().map(|test| format!(", {} for the test", grouped(test.rows() as u64)));
        self.say(format_args!(
            "data     {}: {train} rows for training and {validation} for validation{}, columns {}",
            shown_path(Path::new(&dataset.name)),
            test.unwrap_or_default(),
            describe_columns(&categories.columns, categories.context)
        ));
        notes.iter().for_each(note);
        self.say(format_args!("flow     {}", describe_flow(engine.flow())));
        self.say(format_args!("recipe   {}", describe_recipe(self.recipe)));
        self.say(format_args!("device   {}", engine.describe()));
        if let Some(checkpoint) = checkpoint {
            let epochs = checkpoint.trainer.history.epochs.len();
            let fit = match self.index_of(checkpoint) {
                0 => String::new(),
                fit => format!(" of fit {}", fit + 1),
            };
            self.say(format_args!("resumed  after epoch {epochs}{fit}"));
            if !checkpoint.has_the_bits_of(engine.device()) {
                note(format_args!(
                    "warning: the checkpoint was made on {}; on another device training goes on, but not with the same bits",
                    shown(&checkpoint.device)
                ));
            }
        }
    }

    /// Checks that the engine has room for the training, and finds the fastest tiles for it where that is asked for.
    async fn tune(&self, engine: &mut AnyEngine, fit: &Fit<'_>) -> Result<()> {
        let [train_rows, validation_rows] = rows(fit.dataset);
        let shape = training_shape(&fit.recipe, train_rows, validation_rows)?;
        self.data.need.check_engine(engine, &shape)?;
        if let AnyEngine::Gpu(engine) = engine
            && let Some(instead) = engine.trains_by(&shape)
            && fit.index == 0
        {
            note(format_args!("note: {instead}"));
        }
        self.args.device.tune(engine, Work::Training(shape)).await
    }

    /// Which fit a checkpoint is of, by its seed; the first where it is of none.
    fn index_of(&self, checkpoint: &Checkpoint) -> usize {
        let index = checkpoint.recipe.seed.wrapping_sub(self.recipe.seed);
        usize::try_from(index).ok().filter(|index| *index < self.recipe.ensemble).unwrap_or(0)
    }

    /// Trains every fit of the recipe's ensemble, from `checkpoint` where there is one, and writes checkpoints on the way. A
    /// fit that is ended before its time is left out, unless it is the first, and so are those after it. The folder is
    /// prepared once all is known to fit together.
    pub async fn fit(
        &mut self,
        dataset: Dataset,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Ensemble, Engines<AnyEngine>, Artifacts)> {
        let begun = Instant::now();
        let mut fits = Members::new(self.recipe, dataset);
        let (mut models, mut engines) = (self.finished(checkpoint.as_ref()), Vec::new());
        let resumed = checkpoint.as_ref().map(|checkpoint| self.index_of(checkpoint));
        let mut checkpoint = checkpoint;
        let mut artifacts: Option<Artifacts> = None;
        let mut index = 0;
        while let Some((recipe, dataset)) = fits.next_fit()? {
            let fit = Fit { index, recipe, dataset };
            index += 1;
            let mut engine = self.args.device.engine(fit.recipe.flow_over(dataset)?).await?;
            if fit.index == 0 {
                self.files.prepare()?;
                self.animation = (self.args.animated())
                    .map(|path| Animated::new(path, engine.flow(), self.recipe.epochs))
                    .transpose()?;
                self.introduce(dataset, &engine, checkpoint.as_ref());
            }
            if fit.index < models.len() {
                engines.push(engine);
                artifacts.get_or_insert_with(|| self.kept_before(models[0].record.outcome));
                continue;
            }
            self.tune(&mut engine, &fit).await?;
            let from = (resumed == Some(fit.index)).then(|| checkpoint.take()).flatten();
            let limit = self.args.time_limit.map(|limit| limit - begun.elapsed().as_secs_f64());
            let (fitted, left) = self.fit_one(&mut engine, &fit, from, limit).await?;
            let Fitted { model, outcome, .. } = fitted;
            if matches!(outcome, Outcome::NonFinite { .. }) && index < self.recipe.ensemble {
                note(format_args!("warning: fit {index} is left out: {outcome}"));
                continue;
            }
            let whole = outcome.is_whole();
            if whole || models.is_empty() {
                models.push(model);
                engines.push(engine);
            }
            artifacts = Some(match artifacts {
                None => Artifacts { history: fitted.history, outcome, ..left },
                Some(first) => Artifacts { outcome, checkpoint: left.checkpoint, ..first },
            });
            if !whole {
                break;
            }
            if self.args.checkpoint_every.is_some() && index < self.recipe.ensemble {
                let fitted = self.model(Ensemble::average(models.clone(), self.recipe)?)?;
                if let Err(error) = self.keep_fits(&fitted, artifacts.as_ref()) {
                    note(format_args!(
                        "warning: the fits so far were not written: {error}; training goes on"
                    ));
                }
            }
        }
        let ensemble = Ensemble::average(models, self.recipe)?;
        let artifacts = artifacts.expect("invariant: a recipe has a fit");
        Ok((ensemble, Engines::of_each(engines), artifacts))
    }

    /// The model of the whole table, of which `ensemble` has the numbers.
    ///
    /// # Errors
    /// Those of [`CategoryFit::model`](moonflow::train::CategoryFit::model).
    pub fn model(&self, ensemble: Ensemble) -> Result<TableModel> {
        self.data.categories.model(Some(ensemble), self.recipe, &self.data.record)
    }

    /// Writes what a later checkpoint goes on from: the fits before it.
    fn keep_fits(&self, fitted: &TableModel, artifacts: Option<&Artifacts>) -> Result<()> {
        fitted.save(&self.files.model)?;
        artifacts.map_or(Ok(()), |Artifacts { history, .. }| {
            write_atomically(&self.files.history, |writer| history.write_csv(writer))
        })
    }

    /// What an earlier training left of the first fit.
    fn kept_before(&self, outcome: Outcome) -> Artifacts {
        let text = read_text(&self.files.history, HISTORY_BYTES).unwrap_or_default();
        let history = History::from_csv(HISTORY, &text).unwrap_or_default();
        Artifacts { history, outcome, checkpoint: None, snapshots: Vec::new() }
    }

    /// The fits before the one that `checkpoint` is of, as far as the model file beside it has them; others are trained anew.
    fn finished(&self, checkpoint: Option<&Checkpoint>) -> Vec<Model> {
        let before = checkpoint.map_or(0, |checkpoint| self.index_of(checkpoint));
        if before == 0 {
            return Vec::new();
        }
        let Ok(model) = TableModel::load(&self.files.model) else { return Vec::new() };
        let members = model.density().map_or(&[][..], Ensemble::members).iter().take(before).enumerate();
        members
            .take_while(|(index, model)| model.record.recipe == self.recipe.of_member(*index))
            .map(|(_, model)| model.clone())
            .collect()
    }

    /// Trains one fit, within `limit` seconds.
    async fn fit_one(
        &self,
        engine: &mut AnyEngine,
        fit: &Fit<'_>,
        checkpoint: Option<Checkpoint>,
        limit: Option<f64>,
    ) -> Result<(Fitted, Artifacts)> {
        let first = fit.index == 0;
        let options = Options {
            time_limit: limit,
            checkpoint_every: self.args.checkpoint_every,
            snapshots: self
                .animation
                .as_ref()
                .filter(|_| first)
                .map(|animation| animation.epochs.clone())
                .unwrap_or_default(),
            resume: checkpoint,
            unchecked: false,
        };
        // The configuration goes with the first checkpoint, since both are needed to go on, and not before: a refused
        // --resume must leave the folder as it was.
        let mut configured = false;
        let keep = |checkpoint: &Checkpoint| {
            if !configured {
                self.resolved.write(&self.files.config)?;
                configured = true;
            }
            checkpoint.save(&self.files.checkpoint)
        };
        let [train_rows, _] = rows(fit.dataset);
        let mut progress =
            EpochProgress::new(self.recipe.epochs, train_rows, self.source.floor(), stop_flag());
        progress.format = self.args.log_format;
        progress.keep = Some(Box::new(keep));
        if self.recipe.ensemble > 1 {
            progress.of_fit(fit.index + 1, self.recipe.ensemble);
        }
        let Data { record, .. } = &self.data;
        let fitted = fit_with(engine, fit.dataset, &fit.recipe, record.clone(), options, &mut progress).await;
        progress.finish();
        let fitted = fitted?;
        let artifacts = Artifacts {
            history: History::default(),
            outcome: fitted.outcome,
            checkpoint: progress.last.take(),
            snapshots: std::mem::take(&mut progress.snapshots),
        };
        self.report_fit(fit, &fitted);
        Ok((fitted, artifacts))
    }

    /// Prints the result of one fit: alone in full, among several in a line.
    fn report_fit(&self, fit: &Fit<'_>, fitted: &Fitted) {
        let Fitted { model, history, .. } = fitted;
        let Some(last) = history.epochs.last() else { return };
        let [train_rows, _] = rows(fit.dataset);
        if self.recipe.ensemble == 1 {
            let rows_per_second = train_rows as f64 * f64::from(last.epoch) / last.seconds.max(f64::EPSILON);
            self.say(format_args!(
                "trained  {} epochs in {}, {} rows/s",
                last.epoch,
                duration(last.seconds),
                grouped(rows_per_second as u64)
            ));
            return;
        }
        let nll = model.record.validation_nll.map(|nll| format!(", validation NLL {nll:.4} nats"));
        let number = format!("fit {}/{}", fit.index + 1, self.recipe.ensemble);
        self.say(format_args!(
            "{number:<8} {}: {} epochs in {}{}",
            describe_base(&model.flow.base),
            last.epoch,
            duration(last.seconds),
            nll.unwrap_or_default()
        ));
    }

    /// Puts the losses on rows that training has not seen into the model's record.
    pub async fn judge(&self, model: &mut TableModel, engines: &mut Engines<AnyEngine>) -> Result<()> {
        let rows = self.data.test.as_ref().map(|test| test.values.as_slice());
        TestSets { density: self.source.toy(), rows }.score(model, engines).await
    }

    /// Prints the result of training.
    pub fn report(&self, model: &TableModel, outcome: Outcome) {
        let record = model.record();
        let members = model.density().map_or(&[][..], Ensemble::members);
        if record.skipped_steps > 0 {
            self.say(format_args!(
                "skipped  {} steps whose loss or gradient was not finite",
                record.skipped_steps
            ));
        }
        if record.rollbacks > 0 {
            self.say(format_args!("rolled   back {} times, each time to half the rate", record.rollbacks));
        }
        if outcome == Outcome::EarlyStop {
            let patience = self.recipe.patience.unwrap_or_default();
            self.say(format_args!("stopped  no lower validation loss for {patience} epochs"));
        }
        if let (Some(epoch), Some(nll)) = (record.best_epoch, record.validation_nll) {
            self.say(format_args!("best     epoch {epoch}, validation NLL {nll:.4} nats"));
        } else if let (count @ 2.., Some(nll)) = (members.len(), record.validation_nll) {
            self.say(format_args!(
                "average  of {count} fits; their mean validation NLL is {nll:.4} nats, and the average's is lower"
            ));
        }
        if let Some(line) = categories::describe_losses(&self.data.categories) {
            self.say(line);
        }
        if let Some(test) = &record.test {
            self.say(format_args!("test     {}", describe_rows(test, "test")));
        }
        if let Some(held_out) = &record.held_out {
            self.say(format_args!("held out {}", describe_held_out(held_out)));
        }
        let check = record.check.as_ref().zip(members.first());
        let lines = check.map(|(check, model)| describe_check(check, model)).unwrap_or_default();
        for (index, line) in lines.iter().enumerate() {
            self.say(format_args!("{} {line}", if index == 0 { "check   " } else { "        " }));
        }
    }

    /// Writes every file, the model before all else and pictures last.
    pub async fn write(
        &self,
        engines: &mut Engines<AnyEngine>,
        model: &TableModel,
        artifacts: Artifacts,
    ) -> Results {
        let Self { files, data, .. } = self;
        let Artifacts { history, checkpoint, snapshots, .. } = artifacts;
        let mut results = Results::default();
        results.add_model(&files.model, model);
        results.add(
            &files.history,
            true,
            write_atomically(&files.history, |writer| history.write_csv(writer)),
        );
        results.add(&files.config, true, self.resolved.write(&files.config));
        if let Some(checkpoint) = checkpoint {
            results.add(&files.checkpoint, true, checkpoint.save(&files.checkpoint));
        }
        let floor = self.source.floor();
        let Some(ensemble) = model.density() else { return results };
        let picture = Picture { ensemble, data: &data.head, history: Some(&history), floor };
        results.add(&files.picture, false, picture.write(engines, &files.picture).await);
        if let Some(animation) = &self.animation {
            let (model, engine) = (ensemble.first(), engines.of(0));
            let drawn = animation.write(model, engine, &data.head, &history, snapshots).await;
            results.add(&animation.path, true, drawn);
        }
        results
    }

    /// Says what was written.
    pub fn conclude(&self, model: &TableModel, results: &Results) {
        for line in results.lines() {
            self.say(line);
        }
        if self.args.log_format == LogFormat::Json {
            let Files { model: file, history, config, picture, .. } = &self.files;
            let [file, history, config, picture] =
                [file, history, config, picture].map(|path| results.path(path));
            let animation = self.animation.as_ref().and_then(|animation| results.path(&animation.path));
            output::say_json(&json!({
                "event": "end", "record": output::as_json(model.record()), "model": file, "history": history,
                "config": config, "picture": picture, "animation": animation, "not_written": results.missing(),
            }));
        }
    }

    /// Says why training ended before its time.
    ///
    /// # Errors
    /// [`Error::NonFinite`].
    pub fn end(&self, outcome: Outcome) -> Result<()> {
        let why = match outcome {
            Outcome::Finished | Outcome::EarlyStop => return Ok(()),
            Outcome::NonFinite { epoch } => return Err(Error::NonFinite { epoch }),
            Outcome::TimeLimit => "the time is up".to_owned(),
            other => other.to_string(),
        };
        let mut text = format!("{why}: what was written is the best up to the last whole epoch");
        if self.files.checkpoint.exists() {
            text += &format!("; `moonflow train --resume {}` goes on", shown_path(self.resolved.out));
        }
        note(text);
        Ok(())
    }
}
