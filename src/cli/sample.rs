//! `moonflow sample`: new rows from a model.

use std::path::{Path, PathBuf};

use moonflow::data::{
    Chunk, Coding, Encoding, Missing, Rows, Selection, TableColumn, TableWriter, ValueKind, chunk_rows,
    find_columns, unknown_column,
};
use moonflow::engine::Sampling;
use moonflow::model::TableModel;
use moonflow::shown::{shown, shown_list};
use moonflow::{Error, Result};

use super::columns::TextArgs;
use super::output::Inputs;
use super::progress::RowProgress;
use super::ranges::Ranges;
use super::tune::TunedDeviceArgs;
use super::{columns, values};

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
    /// with the context's columns and categories; `-` reads CSV from standard input
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
    let (mut given, fixed_of_all) = Given::new(&args, &model)?;
    let limit = chunk_rows(model.columns().len());
    // Before the output is begun: most tables that cannot be read say so in their first rows.
    let each = args.rows as usize;
    let mut next = given.next((limit / each).max(1))?;
    let mut engines = args.device.engines(&model, limit.min(each)).await?;
    let mut writer = SampleWriter::new(&args, &model)?;
    let mut progress = RowProgress::new("sampling");
    let mut sampled: usize = 0;
    let mut ranges = Ranges::new(&model);
    while let Some(ContextRows { rows: contexts, values, fixed, fraction, places }) = next {
        ranges.see(&model, &values, |row| match places.get(row) {
            Some(place) => format!("{} {place}", given.unit()),
            None => "what is given".to_owned(),
        })?;
        let (start, wanted) = (sampled, contexts * each);
        let width = model.context();
        while sampled < start + wanted {
            let rows = limit.min(start + wanted - sampled);
            let given = sampled - start..sampled - start + rows;
            let context = repeated(&values, each, width, given.clone());
            let of_rows = repeated(&fixed, each, model.columns().len() - width, given);
            let fixed = if fixed.is_empty() { &fixed_of_all } else { &of_rows };
            let first = u32::try_from(sampled).map_err(|_| too_many())?;
            let sampling = Sampling { rows, first, seed: args.seed, temperature: args.temperature };
            let drawn = model.sample(&mut engines, sampling, &context, fixed).await;
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
        let to_text = Encoding::of_path(args.out.as_deref(), args.format).format.is_text();
        // Other formats have a type for truths.
        let is_text =
            |place: &usize| columns[*place].levels().is_some_and(|levels| to_text || !levels.is_truth());
        let (texts, numbers): (Vec<usize>, Vec<usize>) = (0..columns.len()).partition(is_text);
        let names: Vec<String> = texts.iter().map(|&place| columns[place].name.clone()).collect();
        let kinds: Vec<(String, ValueKind)> =
            numbers.iter().map(|&place| (columns[place].name.clone(), columns[place].kind())).collect();
        let written: Vec<usize> = texts.iter().chain(&numbers).copied().collect();
        let order = (0..columns.len()).filter_map(|place| written.iter().position(|&at| at == place));
        let order: Vec<usize> = order.collect();
        let out = args.out.as_deref();
        let table = TableWriter::create_typed(out, args.format, &names, &kinds, &order)?;
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

/// Rows `rows` of `values`, row-major [N, width], each of which comes `each` times; nothing of no values.
fn repeated<T: Copy>(values: &[T], each: usize, width: usize, rows: std::ops::Range<usize>) -> Vec<T> {
    let rows = if values.is_empty() { 0..0 } else { rows };
    rows.flat_map(|row| &values[row / each * width..(row / each + 1) * width]).copied().collect()
}

fn too_many() -> Error {
    Error::Argument(format!("at most {} rows can be sampled from one seed", u32::MAX))
}

/// Some rows of context, and between which shares of the whole they lie, where that is known.
struct ContextRows {
    rows: usize,
    values: Vec<f64>,
    /// The level that each row fixes of each modelled column `[rows, D − C]`; empty where a table fixes none.
    fixed: Vec<Option<u32>>,
    fraction: Option<[f64; 2]>,
    /// Where each row is in its table; none where it is in none.
    places: Vec<u64>,
}

/// Where the context comes from.
enum Given {
    /// The same for all rows; taken once.
    Once(Option<Vec<f64>>),
    /// A row of the table after the other.
    Table(Box<GivenTable>),
}

/// A table with the context, and with categories that its rows are to have.
struct GivenTable {
    rows: Rows<'static>,
    /// Columns of the context, which come first.
    context: usize,
    /// Places of the categories among the modelled columns, and how many these are.
    categories: Vec<usize>,
    modelled: usize,
}

impl GivenTable {
    fn open(args: &SampleArgs, path: &Path, model: &TableModel) -> Result<Self> {
        let modelled = model.columns().len() - model.context();
        let (own, wanted) = model.columns().split_at(modelled);
        let reader = args.text.open(path, args.given_format)?;
        let find = |name: &str| reader.columns().iter().position(|column| column == name);
        let categories: Vec<usize> = (0..modelled)
            .filter(|&place| own[place].levels().is_some() && find(&own[place].name).is_some())
            .collect();
        if wanted.is_empty() && categories.is_empty() {
            return Err(Error::data(
                reader.name(),
                "has no column that can be given: the model has no context, and its categories are not there",
            ));
        }
        let names: Vec<String> = wanted.iter().map(|column| column.name.clone()).collect();
        let conditioned = "the model is conditioned on";
        let (places, _) = match names.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => find_columns(&names, conditioned, reader.name(), reader.columns(), reader.has_names())?,
        };
        let mut codings: Vec<(usize, Coding)> =
            places.into_iter().zip(wanted.iter().map(Coding::from)).collect();
        let coding = |&place: &usize| Some((find(&own[place].name)?, Coding::from(&own[place])));
        codings.extend(categories.iter().filter_map(coding));
        let rows = reader.select_coded(codings, &[], Missing::Refuse)?;
        Ok(Self { rows, context: wanted.len(), categories, modelled })
    }

    fn next(&mut self, limit: usize) -> Result<Option<ContextRows>> {
        let before = self.rows.fraction();
        let Some(Chunk { rows, numbers, places, .. }) = self.rows.next(limit)? else { return Ok(None) };
        let fraction = before.zip(self.rows.fraction()).map(|(from, to)| [from, to]);
        let width = self.context + self.categories.len();
        let mut given = ContextRows { rows, values: Vec::new(), fixed: Vec::new(), fraction, places };
        for row in numbers.chunks_exact(width) {
            let (context, levels) = row.split_at(self.context);
            given.values.extend(context);
            if !self.categories.is_empty() {
                let start = given.fixed.len();
                given.fixed.resize(start + self.modelled, None);
                for (place, level) in self.categories.iter().zip(levels) {
                    given.fixed[start + place] = Some(*level as u32);
                }
            }
        }
        Ok(Some(given))
    }
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
            Some(path) => Ok((Self::Table(Box::new(GivenTable::open(args, Path::new(path), model)?)), free)),
        }
    }

    /// At most `limit` rows of context.
    fn next(&mut self, limit: usize) -> Result<Option<ContextRows>> {
        match self {
            Self::Once(values) => {
                let (fraction, places, fixed) = (Some([0.0, 1.0]), Vec::new(), Vec::new());
                Ok(values.take().map(|values| ContextRows { rows: 1, values, fixed, fraction, places }))
            }
            Self::Table(table) => table.next(limit),
        }
    }

    /// What the places of rows are.
    fn unit(&self) -> &'static str {
        match self {
            Self::Once(_) => "row",
            Self::Table(table) => table.rows.unit(),
        }
    }
}

/// A value of a column that is given.
fn example(column: &TableColumn) -> String {
    let value = column.levels().map_or("0", |levels| &levels.names()[0]);
    format!("{}={}", shown(&column.name), shown(value))
}

/// The level that stands for the atom `value` of `column`, where it has that: one more than its place.
fn atom(column: &TableColumn, value: &str) -> Option<usize> {
    let value = column.parse(value)?;
    column.atoms.iter().position(|atom| *atom == value).map(|place| place + 1)
}

/// That `column`, a number among the `modelled` ones of `columns`, has no value that can be given, and what can be.
fn not_given(column: &TableColumn, columns: &[TableColumn], modelled: usize) -> String {
    let atoms = |column: &TableColumn| -> Vec<String> {
        column.atoms.iter().map(|atom| format!("{}={atom}", column.name)).collect()
    };
    let name = shown(&column.name);
    if !column.atoms.is_empty() {
        return format!(
            "of `{name}`, a number that is modelled, only these can be given: {}",
            shown_list(&atoms(column))
        );
    }
    let (own, context) = columns.split_at(modelled);
    let categories = own.iter().chain(context).filter(|column| column.levels().is_some());
    let numbers = context.iter().filter(|column| column.levels().is_none());
    let names = categories.chain(numbers).map(|column| column.name.clone());
    let can: Vec<String> = names.chain(own.iter().flat_map(atoms)).collect();
    format!("`{name}` is a number that is modelled and cannot be given; these can: {}", shown_list(&can))
}

/// The values of `a=1.5,class=b`: those of the context of `columns`, which are behind the `modelled` ones, and the levels that
/// modelled categories are to have, and atoms of numbers as [`atom`] has them.
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
            None if place < modelled => match atom(&columns[place], value) {
                Some(level) => level as f64,
                None => return fail(not_given(&columns[place], columns, modelled)),
            },
            None => match columns[place].parse(value) {
                Some(value) if value.is_finite() => value,
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
        let x = TableColumn { atoms: vec![0.0, 100.0], ..TableColumn::number("x") };
        let others = ["y", "age", "a=b", "c, d"].map(TableColumn::number);
        let wanted: Vec<TableColumn> = [kind, x].into_iter().chain(others).collect();
        let assignments = |text: &str| assignments(text, &wanted, 3);
        let values = assignments("c, d").expect_err("no value").to_string();
        assert!(values.contains("`c` is no value"), "{values}");
        let (values, fixed) = assignments("\"c, d=-2e3\", age = 1.5,a=b=0,kind=b").expect("whole");
        assert_eq!((values, fixed), (vec![1.5, 0.0, -2000.0], vec![Some(1), None, None]));
        let (_, fixed) = assignments("\"c, d=1\",age=1,a=b=0,x=1e2").expect("an atom");
        assert_eq!(fixed, [None, Some(2), None]);
        for (text, want) in [
            ("age=1", "the model needs a=b, c, d too"),
            ("agee=1", "did you mean `age`?"),
            ("age=x", "`x` is not a finite number"),
            ("age=inf", "not a finite number"),
            ("age=1,age=2", "given twice"),
            ("kind=c", "column `kind`: `c` is none of the known categories `a`, `b`"),
            ("x=1", "of `x`, a number that is modelled, only these can be given: x=0, x=100"),
            (
                "y=0",
                "`y` is a number that is modelled and cannot be given; these can: kind, age, a=b, c, d, x=0, x=100",
            ),
        ] {
            let message = assignments(text).expect_err(want).to_string();
            assert!(message.starts_with("--given ") && message.contains(want), "{message}");
        }
    }
}
