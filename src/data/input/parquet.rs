//! Parquet: columns of typed values in groups of rows, read page by page.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;

use super::parquet_value::{Meaning, Value};
use super::{Chunk, Decoder, Position, Reader};
use crate::data::reading::ValueKind;
use crate::error::{Error, Remedy, Result};
use crate::guard;
use crate::shown::shown;

/// Characters of the decoder's own messages that are shown; they quote the file.
const LONGEST_ERROR: usize = 300;

/// What the decoder gives. On some damaged files it panics: negative offsets, levels and dictionary indices out of
/// range. That is an error like its own.
fn guarded<T>(work: impl FnOnce() -> std::result::Result<T, ParquetError>) -> std::result::Result<T, String> {
    guard::guarded(work)?.map_err(|error| error.to_string())
}

/// Reads the metadata of `file`.
pub(super) fn open(name: &str, file: File) -> Result<Reader<'static>> {
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(|error| failure(name, &error))?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr_ptr();
    let rows = metadata
        .row_groups()
        .iter()
        .try_fold(0u64, |sum, group| sum.checked_add(u64::try_from(group.num_rows()).ok()?));
    let rows = rows.ok_or_else(|| Error::data(name, "is damaged: it claims a negative number of rows"))?;
    let columns: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    if columns.is_empty() {
        return Err(Error::data(name, "has no columns; expected columns of numbers"));
    }
    let position = Position { done: Arc::default(), total: rows };
    let kind = |column: &ColumnDescPtr| {
        let meaning = Meaning::of(column);
        meaning.is_number().then(|| meaning.kind(column))
    };
    let decoder = ParquetDecoder {
        name: name.to_owned(),
        done: Arc::clone(&position.done),
        descriptions: schema.columns().to_vec(),
        reader,
        numbers: Vec::new(),
        extras: Vec::new(),
        group: 0,
        left: 0,
        open: Vec::new(),
        row: 0,
    };
    Ok(Reader {
        name: name.to_owned(),
        columns,
        named: true,
        header: String::new(),
        unit: "row",
        rows: Some(rows),
        position,
        dialect: None,
        cells: super::Cells::default(),
        kinds: schema.columns().iter().map(kind).collect(),
        decoder: Box::new(decoder),
    })
}

fn failure(name: &str, error: &str) -> Error {
    let error = shown(error).at_most(LONGEST_ERROR);
    Error::data(name, format!("is not a usable Parquet file: {error}"))
}

struct ParquetDecoder {
    name: String,
    done: Arc<AtomicU64>,
    descriptions: Vec<ColumnDescPtr>,
    reader: SerializedFileReader<File>,
    numbers: Vec<(usize, Meaning)>,
    extras: Vec<(usize, Meaning)>,
    /// Groups opened.
    group: usize,
    /// Rows left in the group that is open.
    left: usize,
    /// Readers of its columns: those of `numbers`, then those of `extras`.
    open: Vec<ColumnReader>,
    /// Rows given.
    row: u64,
}

impl ParquetDecoder {
    /// The columns at `places`, which must be flat, and numbers where `number` says so.
    fn columns(&self, places: &[usize], number: bool) -> Result<Vec<(usize, Meaning)>> {
        let column = |&place: &usize| {
            let description = &self.descriptions[place];
            let fail = |problem: &str| {
                let path = description.path().string();
                let (column, name) = (place + 1, shown(&path));
                Error::data(&self.name, format!("column {column} (`{name}`) {problem}"))
                    .advise(Remedy::DropColumn)
            };
            if description.max_rep_level() > 0 {
                return Err(fail("holds lists"));
            }
            let meaning = Meaning::of(description);
            if number && !meaning.is_number() {
                return Err(fail("holds texts, not numbers"));
            }
            Ok((place, meaning))
        };
        places.iter().map(column).collect()
    }

    /// Opens the next group with rows; `false` when there is none.
    fn next_group(&mut self) -> Result<bool> {
        while self.left == 0 {
            if self.group == self.reader.num_row_groups() {
                return Ok(false);
            }
            let places = || self.numbers.iter().chain(&self.extras);
            let opened = guarded(|| {
                let group = self.reader.get_row_group(self.group)?;
                let columns = places().map(|&(place, _)| group.get_column_reader(place));
                Ok((group.metadata().num_rows(), columns.collect::<std::result::Result<_, _>>()?))
            });
            let (rows, open) = opened.map_err(|error| failure(&self.name, &error))?;
            self.left = usize::try_from(rows).unwrap_or(0);
            self.open = open;
            self.group += 1;
        }
        Ok(true)
    }

    /// The error of a cell, by its row from the last that was given on.
    fn bad_cell(&self, row: usize, place: usize, problem: &str) -> Error {
        let (row, column) = (self.row + row as u64 + 1, self.descriptions[place].path().string());
        let column = format!("column {} (`{}`)", place + 1, shown(&column));
        Error::data(&self.name, format!("row {row}, {column} {problem}"))
    }

    fn cut_short(&self, place: usize) -> Error {
        let column = self.descriptions[place].path().string();
        Error::data(
            &self.name,
            format!("is damaged: group {} has too few rows of column `{}`", self.group, shown(&column)),
        )
    }
}

impl Decoder for ParquetDecoder {
    fn select(&mut self, numbers: &[usize], extras: &[usize]) -> Result<()> {
        self.numbers = self.columns(numbers, true)?;
        self.extras = self.columns(extras, false)?;
        Ok(())
    }

    fn kinds(&self) -> Vec<ValueKind> {
        self.numbers.iter().map(|&(place, meaning)| meaning.kind(&self.descriptions[place])).collect()
    }

    fn read(&mut self, limit: usize, chunk: &mut Chunk) -> Result<()> {
        if !self.next_group()? {
            return Ok(());
        }
        let rows = self.left.min(limit);
        // What the file claims is believed only as far as there are values.
        let mut columns: Vec<Vec<f64>> = Vec::with_capacity(self.numbers.len());
        let mut open = std::mem::take(&mut self.open);
        let (number_readers, extra_readers) = open.split_at_mut(self.numbers.len());
        for (reader, &(place, meaning)) in number_readers.iter_mut().zip(&self.numbers) {
            let (mut values, mut problem) = (Vec::new(), None);
            let push = |value: Value<'_>| {
                let number = meaning.number(value);
                if let Err(what) = number {
                    problem.get_or_insert((values.len(), what));
                }
                values.push(number.unwrap_or(f64::NAN));
            };
            guarded(|| read_column(reader, &self.descriptions[place], rows, push))
                .map_err(|error| failure(&self.name, &error))?;
            if values.len() != rows {
                return Err(self.cut_short(place));
            }
            if let Some((row, problem)) = problem {
                return Err(self.bad_cell(row, place, problem));
            }
            columns.push(values);
        }
        for ((reader, &(place, meaning)), cells) in
            extra_readers.iter_mut().zip(&self.extras).zip(&mut chunk.extras)
        {
            let (before, mut problem) = (cells.len(), None);
            let push = |value: Value<'_>| {
                let text = meaning.text(value);
                if text.is_none() {
                    problem.get_or_insert(cells.len() - before);
                }
                cells.push(text.unwrap_or_default());
            };
            guarded(|| read_column(reader, &self.descriptions[place], rows, push))
                .map_err(|error| failure(&self.name, &error))?;
            if cells.len() - before != rows {
                return Err(self.cut_short(place));
            }
            if let Some(row) = problem {
                return Err(self.bad_cell(row, place, "is not UTF-8 text").advise(Remedy::DropColumn));
            }
        }
        self.open = open;
        chunk.numbers.reserve(rows * columns.len());
        for row in 0..rows {
            chunk.numbers.extend(columns.iter().map(|column| column[row]));
        }
        chunk.places.extend((1..=rows as u64).map(|row| self.row + row));
        chunk.rows += rows;
        self.left -= rows;
        self.row += rows as u64;
        self.done.store(self.row, Ordering::Relaxed);
        Ok(())
    }
}

/// Gives `push` the next `rows` values of a column, fewer where the file ends early.
fn read_column(
    reader: &mut ColumnReader,
    description: &ColumnDescPtr,
    rows: usize,
    mut push: impl FnMut(Value<'_>),
) -> std::result::Result<(), ParquetError> {
    let present = description.max_def_level();
    match reader {
        ColumnReader::BoolColumnReader(reader) => {
            typed(reader, present, rows, |value| push(value.map_or(Value::Null, |&value| Value::Bool(value))))
        }
        ColumnReader::Int32ColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |&value| Value::Int(i64::from(value), 32)))
        }),
        ColumnReader::Int64ColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |&value| Value::Int(value, 64)))
        }),
        ColumnReader::Int96ColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |value| Value::Int96(value.data())))
        }),
        ColumnReader::FloatColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |&value| Value::Float(value)))
        }),
        ColumnReader::DoubleColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |&value| Value::Double(value)))
        }),
        ColumnReader::ByteArrayColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |value| Value::Bytes(value.data())))
        }),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => typed(reader, present, rows, |value| {
            push(value.map_or(Value::Null, |value| Value::Bytes(value.data())))
        }),
    }
}

/// [`read_column`] of one physical type. `present` is the definition level of a value that is there.
fn typed<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    present: i16,
    rows: usize,
    mut push: impl FnMut(Option<&T::T>),
) -> std::result::Result<(), ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut left = rows;
    while left > 0 {
        levels.clear();
        values.clear();
        let (records, _, _) = reader.read_records(left, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        left = left.saturating_sub(records);
        if present == 0 {
            values.iter().for_each(|value| push(Some(value)));
        } else {
            let mut values = values.iter();
            for &level in &levels {
                push(if level == present { values.next() } else { None });
            }
        }
    }
    Ok(())
}
