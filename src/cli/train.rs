//! `moonflow train`: data in; model file, history and picture out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::value_parser;
use moonflow::data::{Chunk, Dataset, Rows, write_atomically};
use moonflow::engine::{Engine, Training};
use moonflow::gpu::training::TrainingShape;
use moonflow::model::Outcome;
use moonflow::shown::{shown, shown_path};
use moonflow::train::{Checkpoint, Fitted, Options, fit_with};
use moonflow::{Error, Result};
use serde_json::json;

use super::animate::Animated;
use super::columns::{self, TableArgs};
use super::config::{self, Resolved};
use super::info::{
    describe_check, describe_columns, describe_flow, describe_held_out, describe_recipe, describe_rows,
};
use super::memory::Need;
use super::output::{self, grouped, note};
use super::plot::Picture;
use super::preprocess::{self, PreprocessArgs};
use super::progress::{Busy, LogFormat, Progress, duration};
use super::recipe::RecipeArgs;
use super::source::Source;
use super::test_rows::{self, TestRows};
use super::tune::{TunedDeviceArgs, Work};
use super::values;

/// Arguments of `moonflow train`.
#[derive(clap::Args)]
pub struct TrainArgs {
    /// A toy density (moons, circles, blobs, pinwheel, checkerboard, spirals, swiss-roll) or a table's file: .csv, .tsv
    /// (.gz and .zst too), .npy or .parquet; `-` reads CSV from standard input
    #[arg(default_value = "moons")]
    data: String,
    /// TOML file of options, by the names of these flags, and `data`; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the training in DIR from its last checkpoint, under the options written there
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Rows to draw from a toy density [default: 10000]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(4..=10_000_000))]
    rows: Option<u32>,
    /// Standard deviation of a toy density's noise [default: its own]
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::noise)]
    noise: Option<f64>,
    /// Table to score once after training, read like DATA
    #[arg(long, value_name = "FILE", conflicts_with = "test_fraction")]
    test: Option<PathBuf>,
    /// Share of the rows that is kept for a test, scored once after training
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::decay)]
    test_fraction: Option<f64>,
    /// End with the epoch under way after so many seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = values::seconds)]
    time_limit: Option<f64>,
    /// Write a checkpoint to go on from every N epochs, and after the last
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..))]
    checkpoint_every: Option<u32>,
    /// Moving picture to write of the training of a flow with two features: samples and density, a .gif
    #[arg(long, value_name = "FILE")]
    animate: Option<PathBuf>,
    /// What to print: text for a person, or a line of JSON for each epoch and for the end
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    /// Folder to write into [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

impl TrainArgs {
    fn source(&self) -> Result<Source> {
        match Source::parse(&self.data)? {
            // How a test is read may be said of a toy density too.
            Source::Toy(_)
                if (self.table.are_given() && self.test.is_none()) || self.preprocess.context.is_some() =>
            {
                Err(Error::Argument(format!(
                    "--format, --columns, --drop, --missing and --context are for tables; `{}` is a toy density (./{0} is a file)",
                    shown(&self.data)
                )))
            }
            Source::Toy(toy) => Ok(Source::Toy(match self.noise {
                Some(noise) => toy.with_noise(noise)?,
                None => toy,
            })),
            Source::File(path) if self.resume.is_some() && path.as_os_str() != "-" && !path.exists() => {
                let message =
                    "is not where it was; name the data beside --resume: moonflow train DATA --resume DIR";
                Err(Error::data(path.display().to_string(), message))
            }
            Source::File(_) if self.rows.is_some() || self.noise.is_some() => Err(Error::Argument(format!(
                "--rows and --noise are for toy densities; `{}` is read as a file, whole and as it is",
                shown(&self.data)
            ))),
            file => Ok(file),
        }
    }

    fn test_rows(&self) -> TestRows<'_> {
        match (&self.test, self.test_fraction) {
            (Some(path), _) => TestRows::File(path),
            (None, Some(fraction)) => TestRows::Fraction(fraction),
            (None, None) => TestRows::None,
        }
    }
}

/// Trains and writes `model.safetensors`, `history.csv`, `config.toml` and a picture, and checkpoints where asked to.
///
/// # Errors
/// Bad arguments or data, a folder that cannot be written (found before training starts), those of the engine, and
/// [`Error::NonFinite`], after what there was has been written.
pub async fn run(args: TrainArgs) -> Result<()> {
    const TOY_ROWS: u32 = 10_000;
    const TOY_COLUMNS: usize = 2;

    let text = args.log_format == LogFormat::Text;
    let say = |line: std::fmt::Arguments| {
        if text {
            output::say(line)
        }
    };
    let recipe = args.recipe.resolve()?;
    let source = args.source()?;
    let rows = args.rows.unwrap_or(TOY_ROWS);
    let mut context = 0;
    let drawn = matches!(source, Source::Toy(_));
    let need = Need::new(&recipe, args.preprocess.has_bounds(), drawn, args.device.name());
    if drawn {
        recipe.flow(TOY_COLUMNS)?;
        need.check(f64::from(rows), TOY_COLUMNS).map_err(Error::Argument)?;
    }
    let table = source.table(rows as usize, recipe.seed, |path| {
        let rows;
        (rows, context) = args.table.open(path, args.preprocess.context.as_deref())?;
        let (name, columns, unit) = (rows.name().to_owned(), rows.columns(), rows.unit());
        let plan = args.preprocess.plan(&name, &columns, context)?;
        let check = |chunk: &Chunk, _: &Rows<'_>| preprocess::check(&plan, &name, &columns, unit, chunk);
        columns::into_table(rows, check, |rows, columns| need.check(rows, columns))
    })?;
    let plan = args.preprocess.plan(&table.name, &table.columns, context)?;
    if table.features() < 2 {
        return Err(Error::data(
            &table.name,
            "has 1 column; a coupling needs at least 2 features, one to keep and one to transform",
        ));
    }
    let data = source.record(&table);
    let (table, test) =
        args.test_rows().set_aside(table, &args.table, args.preprocess.context.as_deref(), recipe.seed)?;
    let preparing = Busy::new("preparing");
    let dataset = Dataset::split_with(&table, recipe.validation_fraction, recipe.seed, &plan)?;
    drop(preparing);
    let flow = recipe.flow_over(&dataset)?;
    let mut engine = args.device.engine(flow).await?;
    let folder = args.resume.as_ref().or(args.out.as_ref());
    let out = folder.cloned().unwrap_or_else(|| Path::new("runs").join(source.name()));
    let checkpoint = args.resume.as_deref().map(load_checkpoint).transpose()?;
    let files = Files::in_folder(&out, &source.name())?;
    let animation =
        args.animate.as_deref().map(|path| Animated::new(path, engine.flow(), recipe.epochs)).transpose()?;

    let (train_rows, validation_rows) =
        (dataset.train.len() / dataset.features(), dataset.validation.len() / dataset.features());
    say(format_args!(
        "data     {}: {} rows for training and {} for validation{}, columns {}",
        shown_path(Path::new(&table.name)),
        grouped(train_rows as u64),
        grouped(validation_rows as u64),
        test.as_ref()
            .map(|test| format!(", {} for the test", grouped(test.rows() as u64)))
            .unwrap_or_default(),
        describe_columns(&table.columns, context)
    ));
    if matches!(source, Source::File(_)) {
        preprocess::point_out_discrete(&table, &plan);
    }
    say(format_args!("flow     {}", describe_flow(engine.flow())));
    say(format_args!("recipe   {}", describe_recipe(&recipe)));
    say(format_args!("device   {}", engine.describe()));
    if let Some(checkpoint) = &checkpoint {
        say(format_args!("resumed  after epoch {}", checkpoint.progress.history.epochs.len()));
        if !checkpoint.has_the_bits_of(engine.device()) {
            note(format_args!(
                "warning: the checkpoint was made on {}; on another device training goes on, but not with the same bits",
                shown(&checkpoint.device)
            ));
        }
    }
    let toy = match &source {
        Source::Toy(toy) => Some(toy),
        Source::File(_) => None,
    };
    let resolved = Resolved {
        data: &source,
        rows: toy.map(|_| rows),
        noise: toy.map(|toy| toy.noise()),
        table: &args.table,
        preprocess: &args.preprocess,
        recipe: &recipe,
        test: args.test.as_deref(),
        test_fraction: args.test_fraction,
        time_limit: args.time_limit,
        checkpoint_every: args.checkpoint_every,
        animate: args.animate.as_deref(),
        device: args.device.name(),
        plan: args.device.plan(),
        out: &out,
    };
    let shape = TrainingShape {
        train_rows,
        validation_rows,
        batch: train_rows.min(recipe.batch as usize),
        adam: recipe.adam(),
        schedule: recipe.schedule(Training::steps_per_epoch(train_rows, recipe.batch))?,
        seed: recipe.seed,
    };
    need.check_engine(&engine, &shape)?;
    args.device.tune(&mut engine, Work::Training(shape)).await?;

    let floor = source.floor();
    let options = Options {
        time_limit: args.time_limit,
        checkpoint_every: args.checkpoint_every,
        snapshots: animation.as_ref().map(|animation| animation.epochs.clone()).unwrap_or_default(),
        resume: checkpoint,
    };
    // The configuration goes with the first checkpoint, since both are needed to go on, and not before: a refused
    // --resume must leave the folder as it was.
    let mut configured = false;
    let keep = |checkpoint: &Checkpoint| {
        if !std::mem::replace(&mut configured, true) {
            resolved.write(&files.config)?;
        }
        checkpoint.save(&files.checkpoint)
    };
    let mut progress = Progress::new(recipe.epochs, train_rows, floor, stop_on_interrupt());
    progress.format = args.log_format;
    progress.keep = Some(Box::new(keep));
    let fitted = fit_with(&mut engine, &dataset, &recipe, data, options, &mut progress).await;
    progress.finish();
    let snapshots = std::mem::take(&mut progress.snapshots);
    drop(progress);
    let Fitted { mut model, history, outcome } = fitted?;

    model.record.held_out = source.hold_out(&model, &mut engine, recipe.seed).await?;
    // A test that fails must not cost the training: its error comes last.
    let tested = match &test {
        Some(test) => test_rows::score(&model, &mut engine, test).await.map(Some),
        None => Ok(None),
    };
    model.record.test = tested.as_ref().copied().unwrap_or_default();
    if let Some(last) = history.epochs.last() {
        let rows_per_second = train_rows as f64 * f64::from(last.epoch) / last.seconds.max(f64::EPSILON);
        say(format_args!(
            "trained  {} epochs in {}, {} rows/s",
            last.epoch,
            duration(last.seconds),
            grouped(rows_per_second as u64)
        ));
    }
    let record = &model.record;
    if record.skipped_steps > 0 {
        say(format_args!("skipped  {} steps whose loss or gradient was not finite", record.skipped_steps));
    }
    if record.rollbacks > 0 {
        say(format_args!("rolled   back {} times, each time to half the rate", record.rollbacks));
    }
    if outcome == Outcome::EarlyStop {
        say(format_args!(
            "stopped  no lower validation loss for {} epochs",
            recipe.patience.unwrap_or_default()
        ));
    }
    if let (Some(epoch), Some(nll)) = (record.best_epoch, record.validation_nll) {
        say(format_args!("best     epoch {epoch}, validation NLL {nll:.4} nats"));
    }
    if let Some(test) = &record.test {
        say(format_args!("test     {}", describe_rows(test, "test")));
    }
    if let Some(held_out) = &record.held_out {
        say(format_args!("held out {}", describe_held_out(held_out)));
    }
    if let Some(check) = &record.check {
        let lines = describe_check(check);
        for (index, line) in lines.iter().enumerate() {
            say(format_args!("{} {line}", if index == 0 { "check   " } else { "        " }));
        }
    }

    resolved.write(&files.config)?;
    model.save(&files.model)?;
    write_atomically(&files.history, |writer| history.write_csv(writer))?;
    let picture = Picture { model: &model, data: &table.values, history: Some(&history), floor };
    picture.write(&mut engine, &files.picture).await?;
    if let Some(animation) = &animation {
        animation.write(&model, &mut engine, &table.values, &history, snapshots).await?;
    }
    say(format_args!("wrote    {}", shown_path(&files.model)));
    let animated = animation.as_ref().map(|animation| &animation.path);
    for file in [&files.history, &files.config, &files.picture].into_iter().chain(animated) {
        say(format_args!("         {}", shown_path(file)));
    }
    if !text {
        output::say_json(&json!({
            "event": "end", "record": output::as_json(&model.record), "model": files.model, "history": files.history,
            "config": files.config, "picture": files.picture, "animation": animated,
        }));
    }
    tested?;
    match outcome {
        Outcome::Finished | Outcome::EarlyStop => Ok(()),
        Outcome::Interrupted | Outcome::TimeLimit => {
            let why = if outcome == Outcome::TimeLimit { "the time is up" } else { "interrupted" };
            note(format_args!(
                "{why}: what was written is the best up to the last whole epoch; `moonflow train --resume {}` goes on",
                shown_path(&out)
            ));
            Ok(())
        }
        Outcome::NonFinite { epoch } => Err(Error::NonFinite { epoch }),
    }
}

/// Name of the checkpoint's file.
const CHECKPOINT: &str = "checkpoint.safetensors";

fn load_checkpoint(folder: &Path) -> Result<Checkpoint> {
    let path = folder.join(CHECKPOINT);
    if !path.exists() {
        return Err(Error::Argument(format!(
            "there is no {} to go on from; training writes one with --checkpoint-every, at Ctrl-C and at --time-limit",
            shown_path(&path)
        )));
    }
    Checkpoint::load(&path)
}

/// What a training writes.
struct Files {
    model: PathBuf,
    history: PathBuf,
    picture: PathBuf,
    config: PathBuf,
    checkpoint: PathBuf,
}

impl Files {
    /// The files in `folder`, which is made, and tried by writing to it: better now than after the training.
    fn in_folder(folder: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
        let files = Self {
            model: folder.join("model.safetensors"),
            history: folder.join("history.csv"),
            picture: folder.join(format!("{name}.png")),
            config: folder.join(config::FILE_NAME),
            checkpoint: folder.join(CHECKPOINT),
        };
        tempfile::tempfile_in(folder).map_err(|source| Error::io(folder, source))?;
        for file in [&files.model, &files.history, &files.picture, &files.config, &files.checkpoint] {
            if file.is_dir() {
                return Err(Error::io(file, std::io::ErrorKind::IsADirectory.into()));
            }
        }
        Ok(files)
    }
}

/// A flag that the first Ctrl-C sets. The second ends the program at once.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    /// 128 + SIGINT, as shells report a program that Ctrl-C has ended.
    const ENDED_BY_INTERRUPT: i32 = 130;

    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(ENDED_BY_INTERRUPT);
        }
        note("stopping after this epoch; press Ctrl-C again to stop at once and write nothing");
    });
    if let Err(error) = handler {
        note(format_args!("warning: Ctrl-C will stop without writing anything: {error}"));
    }
    stop
}
