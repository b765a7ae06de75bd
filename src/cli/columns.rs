//! The flags that say how a table is read: its format, its columns, its missing values.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use moonflow::data::{Chunk, Encoding, Missing, Reader, Rows, Selection, Table, find_columns};
use moonflow::model::Model;
use moonflow::shown::shown;
use moonflow::{Error, Result};

use super::output::{grouped, note};
use super::progress::RowProgress;

/// Flags of every command that reads a table.
#[derive(clap::Args, Default)]
pub struct TableArgs {
    /// Format of the table, whatever its name: csv, tsv, npy or parquet
    #[arg(long, value_name = "FORMAT", value_parser = encoding)]
    format: Option<Encoding>,
    /// Columns to use, by name or position from 1, such as a,b,3-7 [default: all]
    #[arg(long, value_name = "LIST")]
    columns: Option<String>,
    /// Columns to leave out, written like --columns
    #[arg(long, value_name = "LIST")]
    drop: Option<String>,
    /// Rows in which a value is missing (empty, NA, NaN, null, none): refuse the table, or drop the rows
    #[arg(long, default_value = "refuse", value_parser = PossibleValuesParser::new(["refuse", "drop"]))]
    missing: String,
}

/// What columns are that a table has besides those that are modelled, as lists of names or positions.
#[derive(Clone, Copy, Default)]
pub struct Roles<'a> {
    pub context: Option<&'a str>,
    pub weights: Option<&'a str>,
}

/// Places of columns in a table.
struct Chosen {
    /// Those to be read as numbers, the context last, and how many it has.
    columns: Vec<usize>,
    context: usize,
    weights: Option<usize>,
}

/// Numbers of the column of weights in `chunk`, the first of its extras.
///
/// # Errors
/// [`Error::Data`] with the row of one that is not a finite number of at least 0.
pub fn weights(chunk: &Chunk, rows: &Rows<'_>) -> Result<Vec<f64>> {
    let Some(cells) = chunk.extras.first() else { return Ok(Vec::new()) };
    let weight = |(cell, place): (&String, &u64)| {
        cell.trim().parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0).ok_or_else(
            || {
                let (unit, cell) = (rows.unit(), shown(cell));
                let message =
                    format!("{unit} {place} has the weight `{cell}`; expected a finite number of at least 0");
                Error::data(rows.name(), message)
            },
        )
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

impl TableArgs {
    /// Whether any of the flags was given: a toy density has no use for them.
    pub fn are_given(&self) -> bool {
        self.format.is_some() || self.columns.is_some() || self.drop.is_some() || self.missing == "drop"
    }

    /// The flags as a configuration has them: key and value, where one was given or always holds.
    pub fn entries(&self) -> [(&'static str, Option<String>); 4] {
        [
            ("format", self.format.map(|format| format.to_string())),
            ("columns", self.columns.clone()),
            ("drop", self.drop.clone()),
            ("missing", (self.missing == "drop").then(|| self.missing.clone())),
        ]
    }

    /// Opens the table in `path` for training: every column chosen, as a number, those of `context` behind the others, and
    /// the column of weights as text. Yields besides how many the context has.
    ///
    /// # Errors
    /// Those of [`Reader::open`] and [`Reader::select`], of an unknown column, and when all are context.
    pub fn open(&self, path: &Path, roles: Roles<'_>) -> Result<(Rows<'static>, usize)> {
        let reader = Reader::open(path, self.format)?;
        let Chosen { columns, context, weights } = self.choose(&reader, roles)?;
        Ok((reader.select(&columns, weights.as_slice(), self.missing())?, context))
    }

    /// Opens the table in `path` beside one that was opened for training and has `columns`, the last of them `context`: the
    /// same columns, found by name; a table without names is laid out like the other one or has just these columns.
    ///
    /// # Errors
    /// As [`TableArgs::open`], and when a column is not there.
    pub fn open_beside(&self, path: &Path, columns: &[String], roles: Roles<'_>) -> Result<Rows<'static>> {
        let reader = Reader::open(path, self.format)?;
        let laid_out_alike = match self.choose(&reader, roles) {
            Ok(chosen) if !reader.has_names() && chosen.columns.len() == columns.len() => {
                Some(chosen.columns)
            }
            _ => None,
        };
        let places = match laid_out_alike {
            Some(places) => places,
            None => {
                find_columns(columns, "training is on", reader.name(), reader.columns(), reader.has_names())?
                    .0
            }
        };
        reader.select(&places, &[], self.missing())
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
        Ok(Chosen { columns, context: given.len(), weights: weights.first().copied() })
    }

    /// Opens the table in `path` for `model`: its columns as numbers in the model's order, the others as text.
    ///
    /// # Errors
    /// As [`TableArgs::open`], and when a column of the model is not there.
    pub fn open_for(&self, model: &Model, path: &Path) -> Result<Rows<'static>> {
        let reader = Reader::open(path, self.format)?;
        let chosen = self.selection().resolve(reader.name(), reader.columns())?;
        let columns: Vec<String> = chosen.iter().map(|&place| reader.columns()[place].clone()).collect();
        let (numbers, extras) = model.find_columns(reader.name(), &columns, reader.has_names())?;
        let places = |of: Vec<usize>| of.into_iter().map(|index| chosen[index]).collect::<Vec<_>>();
        reader.select(&places(numbers), &places(extras), self.missing())
    }

    fn selection(&self) -> Selection {
        let split = |list: &Option<String>| Selection::split(list.as_deref().unwrap_or_default());
        Selection { keep: split(&self.columns), drop: split(&self.drop) }
    }

    fn missing(&self) -> Missing {
        if self.missing == "drop" { Missing::Drop } else { Missing::Refuse }
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
) -> Result<Table> {
    let mut progress = RowProgress::new("reading");
    let mut dropped = 0;
    let table = rows.into_table(|chunk, rows| {
        check(chunk, rows)?;
        progress.update(rows.rows_read(), rows.fraction());
        dropped = rows.dropped();
        // By the first rows where the table's size is known, else by those that have been read.
        let expected = rows.rows_read() as f64 / rows.fraction().unwrap_or(1.0).max(f64::EPSILON);
        fits(expected, chunk.numbers.len() / chunk.rows.max(1))
            .map_err(|message| Error::data(rows.name(), message))
    });
    progress.finish();
    report_dropped(dropped);
    table
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
