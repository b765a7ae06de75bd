//! The flags that say how a table is read: its format, its columns, its missing values.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use moonflow::data::{
    Chunk, Coding, Decimal, Delimiter, Encoding, Missing, Reader, Reading, Rows, Selection, Table,
    TableColumn, find_columns,
};
use moonflow::model::TableModel;
use moonflow::shown::shown;
use moonflow::{Error, Result};

use super::output::{grouped, note};
use super::progress::RowProgress;
use super::table_notes;

/// Flags of every command that reads a table.
#[derive(clap::Args, Default)]
pub struct TableArgs {
    /// Format of the table, whatever its name: csv, tsv, npy or parquet
    #[arg(long, value_name = "FORMAT", value_parser = encoding)]
    format: Option<Encoding>,
    #[command(flatten)]
    pub text: TextArgs,
    /// Columns to use, by name or position from 1, such as a,b,3-7 [default: all]
    #[arg(long, value_name = "LIST")]
    columns: Option<String>,
    /// Columns to leave out, written like --columns
    #[arg(long, value_name = "LIST")]
    drop: Option<String>,
    /// Rows in which a value is missing (empty, NA, NaN, NaT, null, none, ?, - or .): refuse the table, or drop the rows
    /// [default: refuse]
    #[arg(long, value_parser = PossibleValuesParser::new(["refuse", "drop"]))]
    missing: Option<String>,
}

/// Flags of how the cells of a table are read.
#[derive(clap::Args, Default)]
pub struct TextArgs {
    /// Whether the first row of a text names the columns: yes or no [default: by the rows below]
    #[arg(long, value_name = "YES|NO", value_parser = yes_or_no)]
    header: Option<bool>,
    /// What separates the fields of a text: comma, semicolon, tab, space (any white space) or another character
    /// [default: by the first rows]
    #[arg(long, value_name = "DELIMITER", value_parser = delimiter)]
    delimiter: Option<Delimiter>,
    /// Whether numbers in a text have a decimal point or a decimal comma [default: by the first rows]
    #[arg(long, value_name = "POINT|COMMA", value_parser = decimal)]
    decimal: Option<Decimal>,
    /// Words and numbers that mean that a value is missing too, such as -999,unknown
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    missing_values: Option<String>,
}

/// What columns are that a table has besides those that are modelled, as lists of names or positions.
#[derive(Clone, Copy, Default)]
pub struct Roles<'a> {
    pub context: Option<&'a str>,
    pub weights: Option<&'a str>,
    pub categorical: Option<&'a str>,
}

/// Places of columns in a table.
pub struct Chosen {
    /// Those to be modelled or given, the context last, and how many it has.
    pub columns: Vec<usize>,
    pub context: usize,
    weights: Option<usize>,
    /// Those that are to be categories whatever they hold.
    pub categorical: Vec<usize>,
}

impl Chosen {
    /// How the cells of each column become numbers.
    fn codings(&self, reader: &Reader<'_>) -> Vec<(usize, Coding)> {
        let coding = |&place: &usize| match self.categorical.contains(&place) {
            true => Coding::Texts,
            false => reader.coding(place),
        };
        self.columns.iter().map(|place| (*place, coding(place))).collect()
    }
}

/// Numbers of the column of weights in `chunk`, the first of its extras.
///
/// # Errors
/// [`Error::Data`] with the row of one that is not a finite number of at least 0.
pub fn weights(chunk: &Chunk, rows: &Rows<'_>) -> Result<Vec<f64>> {
    let Some(cells) = chunk.extras.first() else { return Ok(Vec::new()) };
    let weight = |(cell, place): (&String, &u64)| {
        rows.number(cell).filter(|weight| weight.is_finite() && *weight >= 0.0).ok_or_else(|| {
            let (unit, cell) = (rows.unit(), shown(cell));
            let message =
                format!("{unit} {place} has the weight `{cell}`; expected a finite number of at least 0");
            Error::data(rows.name(), message)
        })
    };
    cells.iter().zip(&chunk.places).map(weight).collect()
}

/// What `--format` and `--out-format` take.
///
/// # Errors
/// The list of formats, when it is another.
pub fn encoding(text: &str) -> std::result::Result<Encoding, String> {
    Encoding::parse(text).map_err(|error| error.to_string())
}

/// What `--header` takes.
const YES_OR_NO: [&str; 2] = ["yes", "no"];

fn yes_or_no(text: &str) -> std::result::Result<bool, String> {
    let place = YES_OR_NO.iter().position(|&word| word == text);
    place.map(|place| place == 0).ok_or_else(|| "expected yes or no".to_owned())
}

fn delimiter(text: &str) -> std::result::Result<Delimiter, String> {
    Delimiter::parse(text).map_err(|error| error.to_string())
}

fn decimal(text: &str) -> std::result::Result<Decimal, String> {
    let written = match text {
        "." => Some(Decimal::Point),
        "," => Some(Decimal::Comma),
        name => Decimal::ALL.iter().find(|(known, _)| *known == name).map(|(_, decimal)| *decimal),
    };
    written.ok_or_else(|| "expected point or comma".to_owned())
}

impl TextArgs {
    fn reading(&self, encoding: Option<Encoding>) -> Reading {
        Reading {
            encoding,
            header: self.header,
            delimiter: self.delimiter,
            decimal: self.decimal,
            missing_values: Selection::split(self.missing_values.as_deref().unwrap_or_default()),
        }
    }

    /// Opens the table in `path`, of the format `encoding` or that of its name, and says how it is read, where that is not
    /// as the name promises.
    ///
    /// # Errors
    /// Those of [`Reader::open_as`].
    pub fn open(&self, path: &Path, encoding: Option<Encoding>) -> Result<Reader<'static>> {
        let reading = self.reading(encoding);
        let reader = Reader::open_as(path, &reading)?;
        table_notes::reading(&reader, &reading).iter().for_each(note);
        Ok(reader)
    }
}

impl TableArgs {
    /// Whether any of the flags was given: a toy density has no use for them.
    pub fn are_given(&self) -> bool {
        self.entries().iter().any(|(_, value)| value.is_some())
    }

    /// The flags as a configuration has them: key and value, where one was given.
    pub fn entries(&self) -> [(&'static str, Option<String>); 8] {
        [
            ("format", self.format.map(|format| format.to_string())),
            ("header", self.text.header.map(|header| YES_OR_NO[usize::from(!header)].to_owned())),
            ("delimiter", self.text.delimiter.map(Delimiter::name)),
            ("decimal", self.text.decimal.map(|decimal| decimal.name().to_owned())),
            ("columns", self.columns.clone()),
            ("drop", self.drop.clone()),
            ("missing", self.missing.clone().filter(|missing| missing == "drop")),
            ("missing-values", self.text.missing_values.clone()),
        ]
    }

    /// Whether a flag says what becomes of rows without a value.
    pub fn says_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// Gives the flag `name` another value; `false` where it is not among these.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let flag = match name {
            "drop" => &mut self.drop,
            "missing" => &mut self.missing,
            _ => return false,
        };
        *flag = Some(value.to_owned());
        true
    }

    /// Opens the table in `path` and says how it is read, where that is not as its name promises.
    fn reader(&self, path: &Path) -> Result<Reader<'static>> {
        self.text.open(path, self.format)
    }

    /// Opens the table in `path` and yields the places of the columns chosen.
    ///
    /// # Errors
    /// Those of [`Reader::open_as`], and of an unknown column.
    pub fn open_columns(&self, path: &Path) -> Result<(Reader<'static>, Vec<usize>)> {
        let reader = self.reader(path)?;
        let places = self.selection().resolve(reader.name(), reader.columns())?;
        Ok((reader, places))
    }

    /// Opens the table in `path` to look at it before it is opened for training, which says how it is read. Yields besides
    /// the columns chosen.
    ///
    /// # Errors
    /// As [`TableArgs::open`].
    pub fn open_beforehand(&self, path: &Path, roles: Roles<'_>) -> Result<(Reader<'static>, Chosen)> {
        let reader = Reader::open_as(path, &self.text.reading(self.format))?;
        let chosen = self.choose(&reader, roles)?;
        Ok((reader, chosen))
    }

    /// Opens the table in `path` for training: every column chosen, as a number or a category, those of `context` behind the
    /// others, and the column of weights as text. Yields besides how many the context has.
    ///
    /// # Errors
    /// Those of [`Reader::open`] and [`Reader::select`], of an unknown column, and when all are context.
    pub fn open(&self, path: &Path, roles: Roles<'_>) -> Result<(Rows<'static>, usize)> {
        let reader = self.reader(path)?;
        let chosen = self.choose(&reader, roles)?;
        let codings = chosen.codings(&reader);
        Ok((reader.select_coded(codings, chosen.weights.as_slice(), self.missing())?, chosen.context))
    }

    /// Opens the table in `path` beside one that was opened for training and has `types`: the same columns, found by name; a
    /// table without names is laid out like the other one or has just these columns.
    ///
    /// # Errors
    /// As [`TableArgs::open`], and when a column is not there.
    pub fn open_beside(&self, path: &Path, types: &[TableColumn], roles: Roles<'_>) -> Result<Rows<'static>> {
        let reader = self.reader(path)?;
        let columns: Vec<String> = types.iter().map(|column| column.name.clone()).collect();
        let laid_out_alike = match self.choose(&reader, roles) {
            Ok(chosen) if !reader.has_names() && chosen.columns.len() == columns.len() => {
                Some(chosen.columns)
            }
            _ => None,
        };
        let places = match laid_out_alike {
            Some(places) => places,
            None => {
                find_columns(&columns, "training is on", reader.name(), reader.columns(), reader.has_names())?
                    .0
            }
        };
        let codings = places.into_iter().zip(types.iter().map(Coding::from)).collect();
        reader.select_coded(codings, &[], self.missing())
    }

    /// The places in `reader` of the columns chosen, by their roles.
    fn choose(&self, reader: &Reader<'_>, roles: Roles<'_>) -> Result<Chosen> {
        let mut columns = self.selection().resolve(reader.name(), reader.columns())?;
        let places = |list: Option<&str>| match list {
            Some(list) => Selection { keep: Selection::split(list), drop: Vec::new() }
                .resolve(reader.name(), reader.columns()),
            None => Ok(Vec::new()),
        };
        let (given, weights) = (places(roles.context)?, places(roles.weights)?);
        let categorical = places(roles.categorical)?;
        if weights.len() > 1 {
            let count = weights.len();
            return Err(Error::data(reader.name(), format!("--weights names {count} columns; name one")));
        }
        if weights.iter().any(|place| given.contains(place)) {
            return Err(Error::data(
                reader.name(),
                "the column of weights is context too; it can be one only",
            ));
        }
        columns.retain(|place| !given.contains(place) && !weights.contains(place));
        if columns.is_empty() {
            return Err(Error::data(
                reader.name(),
                "every column is context or weight; leave at least one to be modelled",
            ));
        }
        columns.extend(&given);
        if let Some(&place) = categorical.iter().find(|place| !columns.contains(place)) {
            let name = shown(&reader.columns()[place]);
            return Err(Error::data(
                reader.name(),
                format!("column `{name}` is --categorical, but it is left out or the weight"),
            ));
        }
        Ok(Chosen { columns, context: given.len(), weights: weights.first().copied(), categorical })
    }

    /// Opens the table in `path` for `model`: its columns as numbers and levels in the model's order, the others as text.
    ///
    /// # Errors
    /// As [`TableArgs::open`], and when a column of the model is not there.
    pub fn open_for(&self, model: &TableModel, path: &Path) -> Result<Rows<'static>> {
        let reader = self.reader(path)?;
        let chosen = self.selection().resolve(reader.name(), reader.columns())?;
        let columns: Vec<String> = chosen.iter().map(|&place| reader.columns()[place].clone()).collect();
        let (numbers, extras) = model.find_columns(reader.name(), &columns, reader.has_names())?;
        let places = |of: Vec<usize>| of.into_iter().map(|index| chosen[index]).collect::<Vec<_>>();
        let codings = places(numbers).into_iter().zip(model.columns().iter().map(Coding::from)).collect();
        reader.select_coded(codings, &places(extras), self.missing())
    }

    fn selection(&self) -> Selection {
        let split = |list: &Option<String>| Selection::split(list.as_deref().unwrap_or_default());
        Selection { keep: split(&self.columns), drop: split(&self.drop) }
    }

    fn missing(&self) -> Missing {
        if self.missing.as_deref() == Some("drop") { Missing::Drop } else { Missing::Refuse }
    }
}

/// Reads all `rows` into memory, with a progress bar. `check` sees each chunk; `fits` is told how many rows and columns
/// there will be, as soon as the first rows tell.
///
/// # Errors
/// Those of [`Rows::next`] and `check`; [`Error::Data`] of what `fits` says.
pub fn into_table(
    rows: Rows<'_>,
    mut check: impl FnMut(&Chunk, &Rows<'_>) -> Result<()>,
    fits: impl Fn(f64, usize) -> std::result::Result<(), String>,
) -> Result<(Table, Vec<TableColumn>)> {
    let mut progress = RowProgress::new("reading");
    let (mut dropped, mut kinds) = (0, Vec::new());
    let table = rows.into_coded(|chunk, rows| {
        check(chunk, rows)?;
        kinds = rows.kinds();
        progress.update(rows.rows_read(), rows.fraction());
        dropped = rows.dropped();
        // By the first rows where the table's size is known, else by those that have been read.
        let expected = rows.rows_read() as f64 / rows.fraction().unwrap_or(1.0).max(f64::EPSILON);
        fits(expected, chunk.numbers.len() / chunk.rows.max(1))
            .map_err(|message| Error::data(rows.name(), message))
    });
    progress.finish();
    report_dropped(dropped);
    let (table, columns) = table?;
    table_notes::report_kinds(&table.columns, &kinds);
    Ok((table, columns))
}

/// Says how many rows were left out.
pub fn report_dropped(rows: u64) {
    if rows > 0 {
        let (plural, verb) = if rows == 1 { ("", "lacks") } else { ("s", "lack") };
        note(format_args!("note: {} row{plural} that {verb} a value left out", grouped(rows)));
    }
}

/// A path as the user named it, for a default name of output: without folder, compression and extension.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    PathBuf::from(name).file_stem().map_or_else(|| "data".into(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_drop_folder_compression_and_extension() {
        for (path, want) in
            [("a/b.csv", "b"), ("b.tsv.gz", "b"), ("b.c.csv.zst", "b.c"), ("b", "b"), ("b.npy", "b")]
        {
            assert_eq!(stem(Path::new(path)), want, "{path}");
        }
    }
}
