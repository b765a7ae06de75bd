//! `moonflow sample`: new rows from a model.

use std::path::{Path, PathBuf};

use moonflow::data::{
    Chunk, Coding, Encoding, Missing, Rows, Selection, TableColumn, TableWriter, chunk_rows, find_columns,
    unknown_column,
};
use moonflow::engine::Sampling;
use moonflow::model::TableModel;
use moonflow::shown::{shown, shown_list};
use moonflow::{Error, Result};

use super::columns::TextArgs;
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
    /// What the model is given: values of its context, and categories that rows are to have, as in a=1.5,class=b; or a table
    /// with the context's columns; `-` reads CSV from standard input
    #[arg(long, value_name = "VALUES|FILE", allow_hyphen_values = true)]
    given: Option<String>,
    /// Format of the table of --given, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = columns::encoding, requires = "given")]
    given_format: Option<Encoding>,
    #[command(flatten)]
    text: TextArgs,
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
    let model = TableModel::load(&args.model)?;
    let (mut given, fixed) = Given::new(&args, &model)?;
    let limit = chunk_rows(model.columns().len());
    // Before the output is begun: most tables that cannot be read say so in their first rows.
    let each = args.rows as usize;
    let mut next = given.next((limit / each).max(1))?;
    memory::check_model(&model)?;
    let mut engines = args.device.engines(&model).await?;
    for engine in engines.iter_mut() {
        args.device.tune(engine, Work::Evaluation(limit.min(each))).await?;
    }
    let mut writer = SampleWriter::new(&args, &model)?;
    let mut progress = RowProgress::new("sampling");
    let mut sampled: usize = 0;
    let mut ranges = Ranges::new(&model);
    while let Some(ContextRows { rows: contexts, values, fraction, places }) = next {
        ranges.see(&model, &values, |row| match places.get(row) {
            Some(place) => format!("{} {place}", given.unit()),
            None => "what is given".to_owned(),
        })?;
        let (start, wanted) = (sampled, contexts * each);
        let width = model.context();
        while sampled < start + wanted {
            let rows = limit.min(start + wanted - sampled);
            let context: Vec<f64> = (sampled - start..sampled - start + rows)
                .flat_map(|row| &values[row / each * width..(row / each + 1) * width])
                .copied()
                .collect();
            let first = u32::try_from(sampled).map_err(|_| too_many())?;
            let sampling = Sampling { rows, first, seed: args.seed, temperature: args.temperature };
            let drawn = model.sample(&mut engines, sampling, &context, &fixed).await;
            if drawn.is_err() {
                ranges.report(&model);
            }
            writer.write(&drawn?)?;
            sampled += rows;
            let within = (sampled - start) as f64 / wanted as f64;
            progress.update(sampled as u64, fraction.map(|[from, to]| from + within * (to - from)));
        }
        next = given.next((limit / each).max(1))?;
    }
    progress.finish();
    ranges.report(&model);
    writer.table.finish()
}

/// Writes rows in the model's order of columns, categories by the names of their levels.
struct SampleWriter<'a> {
    table: TableWriter,
    model: &'a TableModel,
    /// Places of the categories and of the numbers.
    texts: Vec<usize>,
    numbers: Vec<usize>,
}

impl<'a> SampleWriter<'a> {
    fn new(args: &SampleArgs, model: &'a TableModel) -> Result<Self> {
        let columns = model.columns();
        let (texts, numbers): (Vec<usize>, Vec<usize>) =
            (0..columns.len()).partition(|&place| columns[place].levels().is_some());
        let names = |places: &[usize]| {
            places.iter().map(|&place| columns[place].name.clone()).collect::<Vec<String>>()
        };
        let written: Vec<usize> = texts.iter().chain(&numbers).copied().collect();
        let order = (0..columns.len()).filter_map(|place| written.iter().position(|&at| at == place));
        let order: Vec<usize> = order.collect();
        let out = args.out.as_deref();
        let table = TableWriter::create_in_order(out, args.format, &names(&texts), &names(&numbers), &order)?;
        Ok(Self { table, model, texts, numbers })
    }

    /// Writes `rows`, row-major [B, D].
    fn write(&mut self, rows: &[f64]) -> Result<()> {
        if self.texts.is_empty() {
            return self.table.write(&[], rows);
        }
        let texts: Vec<Vec<String>> =
            self.texts.iter().filter_map(|&place| self.model.texts(place, rows)).collect();
        let width = self.model.columns().len();
        let numbers: Vec<f64> =
            rows.chunks_exact(width).flat_map(|row| self.numbers.iter().map(|&place| row[place])).collect();
        self.table.write(&texts, &numbers)
    }
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
    /// What --given gives `model`, and the level that it fixes of each modelled column, where it does.
    fn new(args: &SampleArgs, model: &TableModel) -> Result<(Self, Vec<Option<u32>>)> {
        let modelled = model.columns().len() - model.context();
        let wanted = &model.columns()[modelled..];
        let free = vec![None; modelled];
        match args.given.as_deref() {
            None if wanted.is_empty() => Ok((Self::Once(Some(Vec::new())), free)),
            None => Err(Error::Argument(format!(
                "the model is conditional; give it values, such as --given {}, or a table with {}",
                wanted.iter().map(example).collect::<Vec<_>>().join(","),
                if wanted.len() == 1 { "this column" } else { "these columns" }
            ))),
            Some(_) if wanted.is_empty() && model.categories().is_none() => {
                Err(Error::Argument("the model is not conditional: there is nothing to be --given".into()))
            }
            Some(text) if text != "-" && text.contains('=') && !Path::new(text).exists() => {
                let (context, fixed) = assignments(text, model.columns(), modelled)?;
                Ok((Self::Once(Some(context)), fixed))
            }
            Some(_) if wanted.is_empty() => Err(Error::Argument(
                "the model has no context, which a table could give; categories are given as in --given class=b".into(),
            )),
            Some(path) => {
                let reader = args.text.open(Path::new(path), args.given_format)?;
                let names: Vec<String> = wanted.iter().map(|column| column.name.clone()).collect();
                let conditioned = "the model is conditioned on";
                let (places, _) =
                    find_columns(&names, conditioned, reader.name(), reader.columns(), reader.has_names())?;
                let codings = places.into_iter().zip(wanted.iter().map(Coding::from)).collect();
                Ok((Self::Table(reader.select_coded(codings, &[], Missing::Refuse)?), free))
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

/// A value of a column that is given.
fn example(column: &TableColumn) -> String {
    let value = column.levels().map_or("0", |levels| &levels.names()[0]);
    format!("{}={}", shown(&column.name), shown(value))
}

/// The values of `a=1.5,class=b`: those of the context of `columns`, which are behind the `modelled` ones, and the levels that
/// modelled categories are to have.
fn assignments(text: &str, columns: &[TableColumn], modelled: usize) -> Result<(Vec<f64>, Vec<Option<u32>>)> {
    let mut values = vec![None; columns.len()];
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    for item in Selection::split(text) {
        let fail = |message: String| Err(Error::Argument(format!("--given {}: {message}", shown(text))));
        let Some((name, value)) = item.rsplit_once('=') else {
            return fail(format!("`{}` is no value of a column; expected one such as a=1.5", shown(&item)));
        };
        let Some(place) = names.iter().position(|column| column == name.trim()) else {
            return fail(unknown_column(name.trim(), &names));
        };
        let value = match columns[place].levels() {
            Some(levels) => match levels.place(value) {
                Some(level) => level as f64,
                None => return fail(format!("column `{}`: {}", shown(name), levels.unknown(value.trim()))),
            },
            None if place < modelled => {
                return fail(format!("`{}` is a number that is modelled; it cannot be given", shown(name)));
            }
            None => match value.trim().parse::<f64>() {
                Ok(value) if value.is_finite() => value,
                _ => return fail(format!("`{}` is not a finite number", shown(value))),
            },
        };
        if values[place].replace(value).is_some() {
            return fail(format!("column `{}` is given twice", shown(name)));
        }
    }
    let context = values.split_off(modelled);
    let missing: Vec<&String> = std::iter::zip(&names[modelled..], &context)
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        let fixed = values.into_iter().map(|level| level.map(|level| level as u32)).collect();
        return Ok((context.into_iter().flatten().collect(), fixed));
    }
    Err(Error::Argument(format!("--given {}: the model needs {} too", shown(text), shown_list(&missing))))
}

#[cfg(test)]
mod tests {
    use moonflow::data::Levels;

    use super::*;

    #[test]
    fn values_are_found_by_name_and_mistakes_say_what_is_wrong() {
        let levels = Levels::new(["a", "b"].map(String::from).into()).expect("levels");
        let kind = TableColumn::category("kind", levels);
        let numbers = ["x", "age", "a=b", "c, d"].map(TableColumn::number);
        let wanted: Vec<TableColumn> = std::iter::once(kind).chain(numbers).collect();
        let assignments = |text: &str| assignments(text, &wanted, 2);
        let values = assignments("c, d").expect_err("no value").to_string();
        assert!(values.contains("`c` is no value"), "{values}");
        let (values, fixed) = assignments("\"c, d=-2e3\", age = 1.5,a=b=0,kind=b").expect("whole");
        assert_eq!((values, fixed), (vec![1.5, 0.0, -2000.0], vec![Some(1), None]));
        for (text, want) in [
            ("age=1", "the model needs a=b, c, d too"),
            ("agee=1", "did you mean `age`?"),
            ("age=x", "`x` is not a finite number"),
            ("age=inf", "not a finite number"),
            ("age=1,age=2", "given twice"),
            ("kind=c", "column `kind`: `c` is none of the known categories `a`, `b`"),
            ("x=1", "`x` is a number that is modelled"),
        ] {
            let message = assignments(text).expect_err(want).to_string();
            assert!(message.starts_with("--given ") && message.contains(want), "{message}");
        }
    }
}
