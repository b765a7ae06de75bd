//! A training from its rows to its files: what it says, what it keeps on the way, and what it writes at the end.

use std::path::Path;

use moonflow::device::AnyEngine;
use moonflow::engine::Engine;
use moonflow::files::write_atomically;
use moonflow::model::{Model, Outcome, Recipe};
use moonflow::shown::{shown, shown_path};
use moonflow::train::{Checkpoint, Fitted, History, Options, TestSets, fit_with, training_shape};
use moonflow::{Error, Result};
use serde_json::json;

use super::animate::Animated;
use super::check::describe_check;
use super::config::Resolved;
use super::folder::Files;
use super::info::{describe_columns, describe_flow, describe_held_out, describe_recipe, describe_rows};
use super::output::{self, grouped, note};
use super::plan::SHARDED;
use super::plot::Picture;

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

/// What a training leaves besides its result.
pub struct Artifacts {
    checkpoint: Option<Checkpoint>,
    /// Epochs and parameters for the moving picture.
    snapshots: Vec<(u32, Vec<f32>)>,
}

impl TrainingJob<'_> {
    /// Prints a line for a person; a program reads JSON instead.
    fn say(&self, line: impl std::fmt::Display) {
        if self.args.log_format == LogFormat::Text {
            output::say(line);
        }
    }

    /// Training and validation rows.
    fn rows(&self) -> [usize; 2] {
        let dataset = &self.data.dataset;
        [&dataset.train, &dataset.validation].map(|rows| rows.len() / dataset.features())
    }

    /// Says what is about to be trained.
    pub fn introduce(&self, engine: &AnyEngine, checkpoint: Option<&Checkpoint>) {
        let Data { test, dataset, notes, context, .. } = &self.data;
        let [train, validation] = self.rows().map(|rows| grouped(rows as u64));
        let test = test.as_ref().map(|test| format!(", {} for the test", grouped(test.rows() as u64)));
        self.say(format_args!(
            "data     {}: {train} rows for training and {validation} for validation{}, columns {}",
            shown_path(Path::new(&dataset.name)),
            test.unwrap_or_default(),
            describe_columns(&dataset.columns, *context)
        ));
        notes.iter().for_each(note);
        self.say(format_args!("flow     {}", describe_flow(engine.flow())));
        self.say(format_args!("recipe   {}", describe_recipe(self.recipe)));
        self.say(format_args!("device   {}", engine.describe()));
        if let Some(checkpoint) = checkpoint {
            self.say(format_args!("resumed  after epoch {}", checkpoint.trainer.history.epochs.len()));
            if !checkpoint.has_the_bits_of(engine.device()) {
                note(format_args!(
                    "warning: the checkpoint was made on {}; on another device training goes on, but not with the same bits",
                    shown(&checkpoint.device)
                ));
            }
        }
    }

    /// Checks that the engine has room for the training, and finds the fastest tiles for it where that is asked for.
    pub async fn tune(&self, engine: &mut AnyEngine) -> Result<()> {
        let [train_rows, validation_rows] = self.rows();
        let shape = training_shape(self.recipe, train_rows, validation_rows)?;
        self.data.need.check_engine(engine, &shape)?;
        if let AnyEngine::Gpu(engine) = engine
            && engine.training_kind(&shape) != engine.plan_kind()
        {
            note(format_args!("note: {SHARDED}"));
        }
        self.args.device.tune(engine, Work::Training(shape)).await
    }

    /// Trains, from `checkpoint` where there is one, and writes checkpoints on the way.
    pub async fn fit(
        &self,
        engine: &mut AnyEngine,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Fitted, Artifacts)> {
        let options = Options {
            time_limit: self.args.time_limit,
            checkpoint_every: self.args.checkpoint_every,
            snapshots: self.animation.as_ref().map(|animation| animation.epochs.clone()).unwrap_or_default(),
            resume: checkpoint,
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
        let [train_rows, _] = self.rows();
        let mut progress =
            EpochProgress::new(self.recipe.epochs, train_rows, self.source.floor(), stop_flag());
        progress.format = self.args.log_format;
        progress.keep = Some(Box::new(keep));
        let Data { dataset, record, .. } = &self.data;
        let fitted = fit_with(engine, dataset, self.recipe, record.clone(), options, &mut progress).await;
        progress.finish();
        let artifacts = Artifacts {
            checkpoint: progress.last.take(),
            snapshots: std::mem::take(&mut progress.snapshots),
        };
        Ok((fitted?, artifacts))
    }

    /// Puts the losses on rows that training has not seen into the model's record.
    pub async fn judge(&self, model: &mut Model, engine: &mut AnyEngine) -> Result<()> {
        let test = self.data.test.as_ref();
        let sets = TestSets { density: self.source.toy(), rows: test.map(|test| test.values.as_slice()) };
        sets.score(model, engine).await
    }

    /// Prints the result of training.
    pub fn report(&self, model: &Model, history: &History, outcome: Outcome) {
        if let Some(last) = history.epochs.last() {
            let [train_rows, _] = self.rows();
            let rows_per_second = train_rows as f64 * f64::from(last.epoch) / last.seconds.max(f64::EPSILON);
            self.say(format_args!(
                "trained  {} epochs in {}, {} rows/s",
                last.epoch,
                duration(last.seconds),
                grouped(rows_per_second as u64)
            ));
        }
        let record = &model.record;
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
        }
        if let Some(test) = &record.test {
            self.say(format_args!("test     {}", describe_rows(test, "test")));
        }
        if let Some(held_out) = &record.held_out {
            self.say(format_args!("held out {}", describe_held_out(held_out)));
        }
        let lines = record.check.as_ref().map(|check| describe_check(check, model)).unwrap_or_default();
        for (index, line) in lines.iter().enumerate() {
            self.say(format_args!("{} {line}", if index == 0 { "check   " } else { "        " }));
        }
    }

    /// Writes every file, the model before all else and pictures last.
    pub async fn write(
        &self,
        engine: &mut AnyEngine,
        model: &Model,
        history: &History,
        artifacts: Artifacts,
    ) -> Results {
        let Self { files, data, .. } = self;
        let mut results = Results::default();
        results.add(&files.model, true, model.save(&files.model));
        results.add(
            &files.history,
            true,
            write_atomically(&files.history, |writer| history.write_csv(writer)),
        );
        results.add(&files.config, true, self.resolved.write(&files.config));
        if let Some(checkpoint) = artifacts.checkpoint {
            results.add(&files.checkpoint, true, checkpoint.save(&files.checkpoint));
        }
        let floor = self.source.floor();
        let picture = Picture { model, data: &data.head, history: Some(history), floor };
        results.add(&files.picture, false, picture.write(engine, &files.picture).await);
        if let Some(animation) = &self.animation {
            let drawn = animation.write(model, engine, &data.head, history, artifacts.snapshots).await;
            results.add(&animation.path, true, drawn);
        }
        results
    }

    /// Says what was written.
    pub fn conclude(&self, model: &Model, results: &Results) {
        for line in results.lines() {
            self.say(line);
        }
        if self.args.log_format == LogFormat::Json {
            let Files { model: file, history, config, picture, .. } = &self.files;
            let [file, history, config, picture] =
                [file, history, config, picture].map(|path| results.path(path));
            let animation = self.animation.as_ref().and_then(|animation| results.path(&animation.path));
            output::say_json(&json!({
                "event": "end", "record": output::as_json(&model.record), "model": file, "history": history,
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
