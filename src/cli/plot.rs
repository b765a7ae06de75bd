//! `moonflow plot`: the picture of a model: data, samples, density, latent and loss curves.

use std::path::{Path, PathBuf};

use moonflow::data::ToyDensity;
use moonflow::engine::{Engine, Sampling};
use moonflow::files::{read_text, write_atomically};
use moonflow::model::{Engines, Ensemble, Model, TableModel, TrainingRecord};
use moonflow::report::{DensityGrid, Figure, LossCurves, limits};
use moonflow::shown::shown_path;
use moonflow::train::History;
use moonflow::{Error, Result};

use super::columns::{self, TableArgs};
use super::device::DeviceArgs;
use super::folder::HISTORY;
use super::info::describe_held_out;
use super::memory::check_table;
use super::output::{Inputs, note, say};
use super::progress::Busy;
use super::source::Source;

/// Arguments of `moonflow plot`.
#[derive(clap::Args)]
pub struct PlotArgs {
    /// Model file that `moonflow train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Data to show beside the model: a toy density or a table [default: the toy density it was trained on]
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Picture to write, .png or .svg [default: the data's name, .png, beside the model]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Most rows of data, and most samples, in a picture.
pub const ROWS: usize = 10_000;
/// Width of a PNG in pixels.
const WIDTH: u32 = 1600;
/// Cells of the density grid along a side.
const CELLS: usize = 256;

/// Draws the model's picture.
///
/// # Errors
/// When the picture would be written over what is read, when the model or data cannot be read or do not fit each other, and
/// those of the engine, the drawing and the output.
pub async fn run(args: PlotArgs) -> Result<()> {
    let table_model = TableModel::load(&args.model)?;
    let Some(ensemble) = table_model.density() else {
        return Err(Error::Argument(
            "every modelled column of it is a category; a picture shows numbers".into(),
        ));
    };
    let (model, record) = (ensemble.first(), ensemble.record());
    let has_categories = table_model.encoding().has_categories();
    if has_categories {
        note("note: the picture shows the columns of numbers; categories are left out");
    }
    let source = match &args.data {
        Some(data) => Some(Source::parse(data)?),
        None if record.data.toy => ToyDensity::parse(&record.data.name).map(Source::Toy),
        None => None,
    };
    let source = match (source, record.data.noise) {
        (Some(Source::Toy(toy)), Some(noise)) if toy.name() == record.data.name => {
            Some(Source::Toy(toy.with_noise(noise)?))
        }
        (source, _) => source,
    };
    let out = args.out.clone().unwrap_or_else(|| {
        let name = Path::new(&record.data.name).file_stem().unwrap_or_default();
        args.model.with_file_name(name).with_extension("png")
    });
    image_format(&out)?;
    let history_file = args.model.with_file_name(HISTORY);
    let table = source.as_ref().and_then(Source::file);
    Inputs::new([args.model.as_path(), &history_file].into_iter().chain(table)).spare(Some(&out))?;
    let data = match &source {
        Some(source) => {
            let (table, _) = source.table(record.data.rows.clamp(1, ROWS), record.recipe.seed, |path| {
                let fits = |rows, columns: usize| check_table(rows * columns as f64);
                columns::into_table(args.table.open_for(&table_model, path)?, |_, _| Ok(()), fits)
            })?;
            let _busy = Busy::new("looking for rows outside of the bounds");
            if has_categories {
                inside(model, &table_model.encode(&table.values))
            } else {
                inside(model, &model.arrange(&table)?)
            }
        }
        None if has_categories => {
            return Err(Error::Argument(
                "the model has categories, and its samples follow those of the data's rows; name the data with --data"
                    .into(),
            ));
        }
        None if model.flow.context > 0 => {
            return Err(Error::Argument(
                "the model is conditional, and its samples follow the context of the data's rows; name the data with \
                 --data"
                    .into(),
            ));
        }
        None => {
            note("the training data are not shown: they are in a file; name it with --data");
            Vec::new()
        }
    };
    let history = history_in(&history_file, model);
    let mut engines = args.device.engines(&table_model).await?;
    let floor = source.as_ref().and_then(Source::floor);
    let picture = Picture { ensemble, data: &data, history: history.as_ref(), floor };
    picture.write(&mut engines, &out).await?;
    say(format_args!("wrote {}", shown_path(&out)));
    Ok(())
}

/// The rows that lie within the model's bounds; the others have no place in its picture.
fn inside(model: &Model, rows: &[f64]) -> Vec<f64> {
    let features = model.flow.features;
    let inside: Vec<f64> = rows
        .chunks_exact(features)
        .filter(|row| model.preprocessing.accepts(row))
        .flatten()
        .copied()
        .collect();
    let outside = (rows.len() - inside.len()) / features;
    if outside > 0 {
        note(format_args!("note: {outside} rows outside of the model's bounds are not shown"));
    }
    inside
}

/// Most bytes of `history.csv`: those of as many epochs as a training can have.
pub const HISTORY_BYTES: u64 = 256 << 20;

/// The training's history, where the file beside the model is still there and belongs to it.
fn history_in(path: &Path, model: &Model) -> Option<History> {
    let text = read_text(path, HISTORY_BYTES).ok()?;
    match History::from_csv(&path.display().to_string(), &text) {
        Ok(history) if history.epochs.len() == model.record.epochs as usize => Some(history),
        Ok(_) => {
            note(format_args!(
                "warning: {} is of another training; no loss curves are drawn",
                shown_path(path)
            ));
            None
        }
        Err(error) => {
            note(format_args!("warning: {error}; no loss curves are drawn"));
            None
        }
    }
}

/// What a picture is made of.
pub struct Picture<'a> {
    /// The model; its latent variable and its loss curves are those of its first member.
    pub ensemble: &'a Ensemble,
    /// Rows beside it, row-major [N, D], in the user's units and the model's order of columns; may be empty.
    pub data: &'a [f64],
    /// The training.
    pub history: Option<&'a History>,
    /// Entropy of the true density, in nats.
    pub floor: Option<f64>,
}

impl Picture<'_> {
    /// Computes what the picture shows and writes it to `path`, as SVG where its extension says so, else as PNG.
    ///
    /// # Errors
    /// Those of the engine, the drawing and the file.
    pub async fn write<E: Engine>(&self, engines: &mut Engines<E>, path: &Path) -> Result<()> {
        let _busy = Busy::new("drawing");
        let Self { ensemble, data, history, floor } = *self;
        let model = ensemble.first();
        let features = model.flow.features;
        let data = &data[..data.len().min(ROWS * features)];
        let modelled = model.flow.modelled();
        // Samples of a conditional model follow the context of the data's rows, so that both are of one joint density.
        let context: Vec<f64> =
            data.chunks_exact(features).flat_map(|row| &row[modelled..]).copied().collect();
        let rows = if model.flow.context > 0 { data.len() / features } else { ROWS };
        let sampling = Sampling { rows, first: 0, seed: model.record.recipe.seed, temperature: 1.0 };
        let samples = ensemble.sample_given(engines, sampling, &context).await?;
        let latent = ensemble.latent(engines, data).await?;
        let latent: Vec<f64> =
            latent.chunks_exact(features).flat_map(|row| &row[..modelled]).copied().collect();
        let density = if features == 2 && modelled == 2 {
            let [x, y] = limits(data, &samples);
            let centres = DensityGrid::centres(x, y, CELLS, CELLS);
            let log_density = ensemble.log_density(engines, &centres).await?;
            Some(DensityGrid { x, y, columns: CELLS, rows: CELLS, log_density })
        } else {
            None
        };
        let curves = history.map(loss_curves);
        let indicators = model.preprocessing.domains.iter().filter(|domain| domain.indicator).count();
        let shown = features - indicators;
        let without_indicators = |rows: &[f64]| -> Vec<f64> {
            rows.chunks_exact(features).flat_map(|row| &row[..shown]).copied().collect()
        };
        let (data, samples) = (without_indicators(data), without_indicators(&samples));
        let figure = Figure {
            title: title(model, ensemble.members().len()),
            subtitle: subtitle(ensemble.record()),
            columns: &model.columns[..shown],
            context: model.flow.context - indicators,
            data: &data,
            samples: &samples,
            latent: &latent,
            density,
            history: curves.as_ref(),
            floor,
        };
        let bytes = match image_format(path)? {
            PictureFormat::Png => figure.png(WIDTH)?,
            PictureFormat::Svg => figure.svg()?.into_bytes(),
        };
        write_atomically(path, |writer| writer.write_all(&bytes))
    }
}

enum PictureFormat {
    Png,
    Svg,
}

fn image_format(path: &Path) -> Result<PictureFormat> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "png" => Ok(PictureFormat::Png),
        "svg" => Ok(PictureFormat::Svg),
        _ => Err(Error::Argument(format!("{}: a picture's name must end in .png or .svg", shown_path(path)))),
    }
}

fn loss_curves(history: &History) -> LossCurves {
    let epochs = &history.epochs;
    LossCurves {
        epoch: epochs.iter().map(|epoch| epoch.epoch).collect(),
        train_nll: epochs.iter().map(|epoch| epoch.train_nll).collect(),
        validation_nll: epochs.iter().map(|epoch| epoch.validation_nll.unwrap_or(f64::NAN)).collect(),
    }
}

/// The heading of a picture of `model`, the first of `members` that are averaged.
pub fn title(model: &Model, members: usize) -> String {
    let flow = &model.flow;
    let networks =
        flow.couplings().next().map_or(String::new(), |coupling| format!(", {} networks", coupling.hidden()));
    let average = match members {
        1 => String::new(),
        _ => format!("average of {members}, "),
    };
    format!("{}: {average}{} of {}{networks}", model.record.data.name, flow.family(), flow.contents())
}

fn subtitle(record: &TrainingRecord) -> String {
    let loss = match (&record.held_out, record.validation_nll) {
        (Some(held_out), _) => format!("{} · ", describe_held_out(held_out)),
        (None, Some(nll)) => format!("validation NLL {nll:.4} nats · "),
        (None, None) => String::new(),
    };
    let plural = if record.epochs == 1 { "" } else { "s" };
    format!("{loss}{} epoch{plural} on {}", record.epochs, record.device)
}
