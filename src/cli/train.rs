//! `moonflow train`: data in; model file, history and picture out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::value_parser;
use moonflow::data::{Dataset, write_atomically};
use moonflow::engine::Engine;
use moonflow::model::Outcome;
use moonflow::train::{Fitted, fit};
use moonflow::{Error, Result};

use super::device::DeviceArgs;
use super::info::{describe_flow, describe_held_out, describe_recipe};
use super::output::{grouped, note, say};
use super::plot::Picture;
use super::progress::{Progress, duration};
use super::recipe::RecipeArgs;
use super::source::Source;
use super::values;

/// Arguments of `moonflow train`.
#[derive(clap::Args)]
pub struct TrainArgs {
    /// A toy density (moons, circles, blobs, pinwheel, checkerboard, spirals, swiss-roll) or a CSV file; `-` reads
    /// standard input
    #[arg(default_value = "moons")]
    data: String,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Rows to draw from a toy density [default: 10000]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(4..=10_000_000))]
    rows: Option<u32>,
    /// Standard deviation of a toy density's noise [default: its own]
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::noise)]
    noise: Option<f64>,
    /// Folder to write into [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl TrainArgs {
    fn source(&self) -> Result<Source> {
        match Source::parse(&self.data)? {
            Source::Toy(toy) => Ok(Source::Toy(match self.noise {
                Some(noise) => toy.with_noise(noise)?,
                None => toy,
            })),
            Source::File(_) if self.rows.is_some() || self.noise.is_some() => Err(Error::Argument(format!(
                "--rows and --noise are for toy densities; `{}` is read as a file, whole and as it is",
                self.data
            ))),
            file => Ok(file),
        }
    }
}

/// Trains and writes `model.safetensors`, `history.csv` and a picture.
///
/// # Errors
/// Bad arguments or data, a folder that cannot be written (found before training starts), those of the engine, and
/// [`Error::NonFinite`], after what there was has been written.
pub async fn run(args: TrainArgs) -> Result<()> {
    const TOY_ROWS: u32 = 10_000;

    let recipe = args.recipe.resolve()?;
    let source = args.source()?;
    let table = source.table(args.rows.unwrap_or(TOY_ROWS) as usize, recipe.seed)?;
    if table.features() < 2 {
        return Err(Error::data(
            &table.name,
            "has 1 column; a coupling needs at least 2 features, one to keep and one to transform",
        ));
    }
    let dataset = Dataset::split(&table, recipe.validation_fraction, recipe.seed)?;
    let flow = recipe.flow(dataset.features())?;
    let mut engine = args.device.engine(flow).await?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(source.name()));
    let files = Files::in_folder(out, &source.name())?;

    let (train_rows, validation_rows) =
        (dataset.train.len() / dataset.features(), dataset.validation.len() / dataset.features());
    say(format_args!(
        "data     {}: {} rows for training and {} for validation, columns {}",
        table.name,
        grouped(train_rows as u64),
        grouped(validation_rows as u64),
        table.columns.join(", ")
    ));
    say(format_args!("flow     {}", describe_flow(engine.flow())));
    say(format_args!("recipe   {}", describe_recipe(&recipe)));
    say(format_args!("device   {}", engine.describe()));

    let floor = source.floor();
    let mut progress = Progress::new(recipe.epochs, train_rows, floor, stop_on_interrupt());
    let fitted = fit(&mut engine, &dataset, &recipe, source.record(&table), &mut progress).await;
    progress.finish();
    let Fitted { mut model, history, outcome } = fitted?;

    model.record.held_out = source.hold_out(&model, &mut engine, recipe.seed).await?;
    if let Some(last) = history.epochs.last() {
        let rows_per_second = train_rows as f64 * f64::from(last.epoch) / last.seconds.max(f64::EPSILON);
        say(format_args!(
            "trained  {} epochs in {}, {} rows/s",
            last.epoch,
            duration(last.seconds),
            grouped(rows_per_second as u64)
        ));
    }
    if let (Some(epoch), Some(nll)) = (model.record.best_epoch, model.record.validation_nll) {
        say(format_args!("best     epoch {epoch}, validation NLL {nll:.4} nats"));
    }
    if let Some(held_out) = &model.record.held_out {
        say(format_args!("held out {}", describe_held_out(held_out)));
    }

    model.save(&files.model)?;
    write_atomically(&files.history, |writer| history.write_csv(writer))?;
    let picture = Picture { model: &model, data: &table.values, history: Some(&history), floor };
    picture.write(&mut engine, &files.picture).await?;
    say(format_args!("wrote    {}", files.model.display()));
    say(format_args!("         {}", files.history.display()));
    say(format_args!("         {}", files.picture.display()));
    match outcome {
        Outcome::Finished => Ok(()),
        Outcome::Interrupted => {
            note("interrupted: what was written is the best up to the last whole epoch");
            Ok(())
        }
        Outcome::NonFinite { epoch } => Err(Error::NonFinite { epoch }),
    }
}

/// What a training writes.
struct Files {
    model: PathBuf,
    history: PathBuf,
    picture: PathBuf,
}

impl Files {
    /// The files in `folder`, which is made, and tried by writing to it: better now than after the training.
    fn in_folder(folder: PathBuf, name: &str) -> Result<Self> {
        std::fs::create_dir_all(&folder).map_err(|source| Error::io(&folder, source))?;
        let files = Self {
            model: folder.join("model.safetensors"),
            history: folder.join("history.csv"),
            picture: folder.join(format!("{name}.png")),
        };
        tempfile::tempfile_in(&folder).map_err(|source| Error::io(&folder, source))?;
        for file in [&files.model, &files.history, &files.picture] {
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
