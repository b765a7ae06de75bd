//! `moonflow sample`: new rows from a model.

use std::path::{Path, PathBuf};

use moonflow::data::{
    Chunk, Encoding, Missing, Reader, Rows, Selection, TableWriter, chunk_rows, unknown_column,
};
use moonflow::engine::Sampling;
use moonflow::model::{Ensemble, Model};
use moonflow::shown::{shown, shown_list};
use moonflow::{Error, Result};

use super::output::Inputs;
use super::progress::RowProgress;
use super::ranges::Ranges;
use super::tune::{TunedDeviceArgs, Work};
use super::{columns, memory, values};

/// Arguments of `moonflow sample`.
#[derive(clap::Args)]
pub struct SampleArgs {
    /// Model file that `moonflow train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Number of rows; with a table of --given, for each of its rows
    #[arg(short = 'n', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rows: u32,
    /// What a conditional model is given: values of its context as in a=1.5,b=0, or a table with these columns; `-` reads
    /// CSV from standard input
    #[arg(long, value_name = "VALUES|FILE", allow_hyphen_values = true)]
    given: Option<String>,
    /// Seed of the latent noise: the same seed, model and device give the same rows
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    seed: u64,
    /// Factor on the latent noise: 1 samples the model, less stays nearer to its modes
    #[arg(long, value_name = "F", allow_negative_numbers = true, default_value = "1", value_parser = values::temperature)]
    temperature: f32,
    /// Write here instead of standard output: .csv, .tsv (.gz and .zst too), .npy or .parquet
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Format of the output, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = columns::encoding)]
    format: Option<Encoding>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

/// Writes the rows under the training data's column names, in the user's units, chunk by chunk.
///
/// # Errors
/// When the output is the model or what it is given, or these cannot be read or do not fit each other, and those of the
/// engine and the output.
pub async fn run(args: SampleArgs) -> Result<()> {
    let inputs = [Some(args.model.as_path()), args.given.as_deref().map(Path::new)];
    Inputs::new(inputs.into_iter().flatten()).spare(args.out.as_deref())?;
    let ensemble = Ensemble::load(&args.model)?;
    let model = ensemble.first();
    let mut given = Given::new(args.given.as_deref(), model)?;
    let limit = chunk_rows(model.columns.len());
    // Before the output is begun: most tables that cannot be read say so in their first rows.
    let each = args.rows as usize;
    let mut next = given.next((limit / each).max(1))?;
    memory::check_model(&ensemble)?;
    let mut engines = args.device.engines(&ensemble).await?;
    for engine in engines.iter_mut() {
        args.device.tune(engine, Work::Evaluation(limit.min(each))).await?;
    }
    let mut writer = TableWriter::create(args.out.as_deref(), args.format, &[], &model.columns)?;
    let mut progress = RowProgress::new("sampling");
    let mut sampled: usize = 0;
    let mut ranges = Ranges::new(model);
    while let Some(ContextRows { rows: contexts, values, fraction, places }) = next {
        ranges.see(model, &values, |row| match places.get(row) {
            Some(place) => format!("{} {place}", given.unit()),
            None => "what is given".to_owned(),
        })?;
        let (start, wanted) = (sampled, contexts * each);
        let width = model.flow.context;
        while sampled < start + wanted {
            let rows = limit.min(start + wanted - sampled);
            let context: Vec<f64> = (sampled - start..sampled - start + rows)
                .flat_map(|row| &values[row / each * width..(row / each + 1) * width])
                .copied()
                .collect();
            let first = u32::try_from(sampled).map_err(|_| too_many())?;
            let sampling = Sampling { rows, first, seed: args.seed, temperature: args.temperature };
            let rows_drawn = ensemble.sample_given(&mut engines, sampling, &context).await;
            if rows_drawn.is_err() {
                ranges.report(model);
            }
            writer.write(&[], &rows_drawn?)?;
            sampled += rows;
            let within = (sampled - start) as f64 / wanted as f64;
            progress.update(sampled as u64, fraction.map(|[from, to]| from + within * (to - from)));
        }
        next = given.next((limit / each).max(1))?;
    }
    progress.finish();
    ranges.report(model);
    writer.finish()
}

fn too_many() -> Error {
    Error::Argument(format!("at most {} rows can be sampled from one seed", u32::MAX))
}

/// Some rows of context, and between which shares of the whole they lie, where that is known.
struct ContextRows {
    rows: usize,
    values: Vec<f64>,
    fraction: Option<[f64; 2]>,
    /// Where each row is in its table; none where it is in none.
    places: Vec<u64>,
}

/// Where the context comes from.
enum Given {
    /// The same for all rows; taken once.
    Once(Option<Vec<f64>>),
    /// A row of the table after the other.
    Table(Rows<'static>),
}

impl Given {
    fn new(text: Option<&str>, model: &Model) -> Result<Self> {
        let wanted = &model.columns[model.flow.modelled()..];
        match text {
            None if wanted.is_empty() => Ok(Self::Once(Some(Vec::new()))),
            None => Err(Error::Argument(format!(
                "the model is conditional; give it values, such as --given {}, or a table with {}",
                wanted.iter().map(|name| format!("{}=0", shown(name))).collect::<Vec<_>>().join(","),
                if wanted.len() == 1 { "this column" } else { "these columns" }
            ))),
            Some(_) if wanted.is_empty() => {
                Err(Error::Argument("the model is not conditional: there is nothing to be --given".into()))
            }
            Some(text) if text != "-" && text.contains('=') && !Path::new(text).exists() => {
                Ok(Self::Once(Some(assignments(text, wanted)?)))
            }
            Some(path) => {
                let reader = Reader::open(Path::new(path), None)?;
                let places = model.find_context(reader.name(), reader.columns(), reader.has_names())?;
                Ok(Self::Table(reader.select(&places, &[], Missing::Refuse)?))
            }
        }
    }

    /// At most `limit` rows of context.
    fn next(&mut self, limit: usize) -> Result<Option<ContextRows>> {
        match self {
            Self::Once(values) => {
                let rows =
                    |values| ContextRows { rows: 1, values, fraction: Some([0.0, 1.0]), places: Vec::new() };
                Ok(values.take().map(rows))
            }
            Self::Table(table) => {
                let before = table.fraction();
                let chunk = table.next(limit)?;
                let fraction = before.zip(table.fraction()).map(|(from, to)| [from, to]);
                Ok(chunk.map(|Chunk { rows, numbers, places, .. }| ContextRows {
                    rows,
                    values: numbers,
                    fraction,
                    places,
                }))
            }
        }
    }

    /// What the places of rows are.
    fn unit(&self) -> &'static str {
        match self {
            Self::Once(_) => "row",
            Self::Table(table) => table.unit(),
        }
    }
}

/// The values of `a=1.5,b=0`, in the order of `wanted`.
fn assignments(text: &str, wanted: &[String]) -> Result<Vec<f64>> {
    let mut values = vec![None; wanted.len()];
    for item in Selection::split(text) {
        let fail = |message: String| Err(Error::Argument(format!("--given {}: {message}", shown(text))));
        let Some((name, value)) = item.rsplit_once('=') else {
            return fail(format!("`{}` is no value of a column; expected one such as a=1.5", shown(&item)));
        };
        let Some(place) = wanted.iter().position(|column| column == name.trim()) else {
            return fail(unknown_column(name.trim(), wanted));
        };
        match value.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => {
                if values[place].replace(value).is_some() {
                    return fail(format!("column `{}` is given twice", shown(name)));
                }
            }
            _ => return fail(format!("`{}` is not a finite number", shown(value))),
        }
    }
    let missing: Vec<&String> =
        std::iter::zip(wanted, &values).filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
    if missing.is_empty() {
        return Ok(values.into_iter().flatten().collect());
    }
    Err(Error::Argument(format!("--given {}: the model needs {} too", shown(text), shown_list(&missing))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_mistakes_say_what_is_wrong() {
        let wanted = ["age", "a=b", "c, d"].map(String::from);
        let values = assignments("c, d", &wanted).expect_err("no value").to_string();
        assert!(values.contains("`c` is no value"), "{values}");
        let values = assignments("\"c, d=-2e3\", age = 1.5,a=b=0", &wanted).expect("whole");
        assert_eq!(values, [1.5, 0.0, -2000.0]);
        for (text, want) in [
            ("age=1", "the model needs a=b, c, d too"),
            ("agee=1", "did you mean `age`?"),
            ("age=x", "`x` is not a finite number"),
            ("age=inf", "not a finite number"),
            ("age=1,age=2", "given twice"),
        ] {
            let message = assignments(text, &wanted).expect_err(want).to_string();
            assert!(message.starts_with("--given ") && message.contains(want), "{message}");
        }
    }
}
