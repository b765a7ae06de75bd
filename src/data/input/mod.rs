//! Tables read in pieces: a [`Reader`] knows a table's columns, [`Rows`] give the chosen ones chunk by chunk, at
//! constant memory whatever the number of rows. They are the way in for training, scoring and pictures.

mod cell;
mod csv;
mod foreign;
#[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
mod gzip;
mod header;
mod lines;
#[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
mod npy;
#[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
mod npz;
#[cfg(not(target_arch = "wasm32"))]
mod open;
#[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
mod parquet;
#[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
mod parquet_value;
mod sniff;
mod white_space;

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Table;
use super::columns::count;
use super::reading::{Delimiter, Dialect, Reading, ValueKind};
use crate::error::{Error, Remedy, Result};
use crate::shown::shown;
pub(super) use cell::{Cell, Cells};

/// What to do with a row that lacks a number: an empty field, NA, N/A, NaN, NaT, null, none, ?, - or . in text, a null in
/// Parquet, NaN in NPY, and [`Reading::missing_values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// An error that counts the missing values and says where the first ones are.
    Refuse,
    /// Leave the row out, and count it.
    Drop,
}

/// Consecutive rows of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// Number of rows B.
    pub rows: usize,
    /// The columns chosen as numbers, row-major [B, D]; finite.
    pub numbers: Vec<f64>,
    /// The columns passed through as text, one list of B cells for each.
    pub extras: Vec<Vec<String>>,
    /// Where each row is in its file `[B]`: its line in text, else its row, from 1.
    pub places: Vec<u64>,
}

/// A format's way of reading rows.
trait Decoder {
    /// Chooses columns, once, before any row is read.
    fn select(&mut self, numbers: &[usize], extras: &[usize]) -> Result<()>;

    /// What the columns of numbers have held so far.
    fn kinds(&self) -> Vec<ValueKind>;

    /// Appends at most `limit` rows to `chunk`, none at the end. Missing numbers are NaN; the others are finite.
    fn read(&mut self, limit: usize, chunk: &mut Chunk) -> Result<()>;
}

/// How far reading has come, as far as the format knows.
#[derive(Clone, Debug, Default)]
struct Position {
    /// Bytes or rows done.
    done: Arc<AtomicU64>,
    /// Of how many; 0 when that is unknown.
    total: u64,
}

/// A table of which nothing but the names of its columns is known yet.
///
/// # Examples
/// ```
/// use moonflow::data::{Missing, Reader};
///
/// # fn main() -> moonflow::Result<()> {
/// let text = "name,a,b\nx,1,2\ny,,4\nz,5,6\n";
/// let reader = Reader::from_csv("t", text.as_bytes())?;
/// assert_eq!(reader.columns(), ["name", "a", "b"]);
/// // Columns 2 and 1 as numbers, column 0 as text; the row without a number is left out.
/// let mut rows = reader.select(&[2, 1], &[0], Missing::Drop)?;
/// let mut sums = Vec::new();
/// while let Some(chunk) = rows.next(1000)? {
///     sums.extend(chunk.numbers.chunks(2).map(|row| row[0] + row[1]));
///     assert_eq!(chunk.extras, [["x", "z"]]);
/// }
/// assert_eq!((sums, rows.dropped()), (vec![3.0, 11.0], 1));
/// # Ok(())
/// # }
/// ```
pub struct Reader<'a> {
    name: String,
    columns: Vec<String>,
    named: bool,
    /// What to put before a message about the header.
    header: String,
    /// What a row's place is called.
    unit: &'static str,
    rows: Option<u64>,
    position: Position,
    /// How a text is read.
    dialect: Option<Dialect>,
    /// How its texts and missing values are understood.
    cells: Cells,
    decoder: Box<dyn Decoder + 'a>,
}

impl<'a> Reader<'a> {
    /// Reads comma-separated text; `name` is what errors call it. See [`Table::from_csv`] for what is accepted.
    ///
    /// # Errors
    /// [`Error::Io`] when `reader` fails; [`Error::Data`] when there is no first row, or it is no usable header.
    pub fn from_csv(name: &str, reader: impl Read + 'a) -> Result<Self> {
        Self::from_text(name, reader, &Reading::default())
    }

    /// Reads text as `reading` says, and where it says nothing, as the first rows tell; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Reader::from_csv`].
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Decimal, Delimiter, Names, Reader, Reading};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let reader = Reader::from_text("t", "2021;2022\n0,5;17\n0,25;19\n".as_bytes(), &Reading::default())?;
    /// assert_eq!(reader.columns(), ["2021", "2022"]);
    /// let dialect = reader.dialect().expect("text has one");
    /// assert_eq!((dialect.delimiter, dialect.decimal), (Delimiter::Byte(b';'), Decimal::Comma));
    /// assert_eq!(dialect.names, Names::FirstRowOfNumbers);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_text(name: &str, reader: impl Read + 'a, reading: &Reading) -> Result<Self> {
        csv::open(name, Box::new(reader), reading, Delimiter::Byte(b','), Position::default())
    }

    /// How its cells are understood.
    pub(super) fn cells(&self) -> &Cells {
        &self.cells
    }

    /// How its text is read; `None` for a format that is no text.
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// What errors call the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of all columns, in the table's order; x0, x1 and so on where it has none.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether the table itself names its columns.
    pub fn has_names(&self) -> bool {
        self.named
    }

    /// How many rows there are, where that is known beforehand.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Chooses the columns to read, by their places in [`Reader::columns`]: `numbers` in the order wanted, and
    /// `extras`, which are passed on as text.
    ///
    /// # Errors
    /// [`Error::Data`] when a column of `numbers` has no name or shares it with another, or holds no numbers as far
    /// as its type says, and when two of `extras` have one name.
    pub fn select(mut self, numbers: &[usize], extras: &[usize], missing: Missing) -> Result<Rows<'a>> {
        let fail = |message: String| Error::data(&self.name, format!("{}{message}", self.header));
        let mut first_use = HashMap::with_capacity(self.columns.len());
        let (mut number, mut used) = (vec![false; self.columns.len()], vec![false; self.columns.len()]);
        numbers.iter().for_each(|&place| number[place] = true);
        numbers.iter().chain(extras).for_each(|&place| used[place] = true);
        for (place, name) in self.columns.iter().enumerate() {
            if name.is_empty() && number[place] {
                let place = place + 1;
                let error = fail(format!("column {place} has no name in the header"));
                return Err(error.advise(Remedy::NameOrDropColumn(place)));
            }
            match first_use.get(name) {
                // A number must not be mistaken for a column that is not used either.
                Some(&earlier) if number[place] || number[earlier] || (used[place] && used[earlier]) => {
                    let name = shown(name);
                    return Err(fail(format!(
                        "columns {} and {} are both named `{name}`; rename one",
                        earlier + 1,
                        place + 1
                    )));
                }
                Some(_) => {}
                None => {
                    first_use.insert(name, place);
                }
            }
        }
        self.decoder.select(numbers, extras)?;
        let names = numbers.iter().map(|&place| (place, self.columns[place].clone())).collect();
        let extras = extras.iter().map(|&place| self.columns[place].clone()).collect();
        Ok(Rows {
            name: self.name,
            numbers: names,
            extras,
            unit: self.unit,
            has_header: self.named,
            position: self.position,
            cells: self.cells,
            missing,
            read: 0,
            dropped: 0,
            decoder: self.decoder,
        })
    }
}

/// The rows of a table, in order, with the columns that were chosen.
pub struct Rows<'a> {
    name: String,
    /// Place in the table and name of each column of numbers.
    numbers: Vec<(usize, String)>,
    extras: Vec<String>,
    unit: &'static str,
    has_header: bool,
    position: Position,
    cells: Cells,
    missing: Missing,
    read: u64,
    dropped: u64,
    decoder: Box<dyn Decoder + 'a>,
}

impl Rows<'_> {
    /// Names of the columns of numbers `[D]`.
    pub fn columns(&self) -> Vec<String> {
        self.numbers.iter().map(|(_, name)| name.clone()).collect()
    }

    /// What errors call the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the columns passed on as text.
    pub fn extras(&self) -> &[String] {
        &self.extras
    }

    /// What the columns of numbers have held in the rows read so far `[D]`.
    pub fn kinds(&self) -> Vec<ValueKind> {
        self.decoder.kinds()
    }

    /// The number, written as those of the table are, in a cell that was passed on as text.
    pub fn number(&self, cell: &str) -> Option<f64> {
        cell::parse(cell.as_bytes(), self.cells.decimal)
    }

    /// What the entries of [`Chunk::places`] are: `line` or `row`.
    pub fn unit(&self) -> &'static str {
        self.unit
    }

    /// Rows read so far, those left out included.
    pub fn rows_read(&self) -> u64 {
        self.read
    }

    /// Rows left out so far because they lack a number.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The share of the table that has been read, where its size is known.
    pub fn fraction(&self) -> Option<f64> {
        let done = self.position.done.load(Ordering::Relaxed);
        (self.position.total > 0).then(|| (done as f64 / self.position.total as f64).min(1.0))
    }

    /// The next rows, at most `limit` (at least 1), or `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`] when reading fails. [`Error::Data`], with the place, for a row that is not as long as the first,
    /// a text or an infinity where a number should be, a damaged file, missing values when they are refused, and a
    /// table without any usable row.
    pub fn next(&mut self, limit: usize) -> Result<Option<Chunk>> {
        loop {
            let mut chunk = self.read_chunk(limit)?;
            if chunk.rows == 0 {
                return if self.read > self.dropped { Ok(None) } else { Err(self.without_rows()) };
            }
            if !chunk.numbers.iter().any(|value| value.is_nan()) {
                return Ok(Some(chunk));
            }
            if self.missing == Missing::Refuse {
                return Err(self.refuse(chunk));
            }
            self.dropped += drop_incomplete(&mut chunk, self.numbers.len());
            if chunk.rows > 0 {
                return Ok(Some(chunk));
            }
        }
    }

    /// All rows that are left. `observe` is called after each chunk, and may end the reading.
    ///
    /// # Errors
    /// Those of [`Rows::next`] and of `observe`.
    pub fn into_table(mut self, mut observe: impl FnMut(&Chunk, &Self) -> Result<()>) -> Result<Table> {
        let limit = chunk_rows(self.numbers.len());
        let mut values = Vec::new();
        while let Some(chunk) = self.next(limit)? {
            observe(&chunk, &self)?;
            values.extend_from_slice(&chunk.numbers);
        }
        let columns = self.numbers.into_iter().map(|(_, name)| name).collect();
        Ok(Table { name: self.name, columns, values })
    }

    fn read_chunk(&mut self, limit: usize) -> Result<Chunk> {
        let mut chunk = Chunk { extras: vec![Vec::new(); self.extras.len()], ..Chunk::default() };
        self.decoder.read(limit.max(1), &mut chunk)?;
        debug_assert_eq!(chunk.numbers.len(), chunk.rows * self.numbers.len());
        let numbers = &self.cells.missing_numbers;
        if !numbers.is_empty() {
            let missing = chunk.numbers.iter_mut().filter(|value| numbers.contains(value));
            missing.for_each(|value| *value = f64::NAN);
        }
        self.read += chunk.rows as u64;
        Ok(chunk)
    }

    fn without_rows(&self) -> Error {
        Error::data(
            &self.name,
            match self.read {
                0 if self.has_header => {
                    "has a header but no rows; expected rows of numbers below it".to_owned()
                }
                0 => "has no rows; expected rows of numbers".to_owned(),
                rows => format!(
                    "a value is missing in each of its {}; fill in numbers",
                    count(rows as usize, "row")
                ),
            },
        )
    }

    /// The error of missing values, of which `chunk` has the first. The rest of the table is read to count them.
    fn refuse(&mut self, chunk: Chunk) -> Error {
        /// Places named.
        const NAMED: usize = 5;
        /// Rows searched. An endless input must not keep the error back.
        const SEARCHED: u64 = 10_000_000;

        let (mut values, mut rows, mut places) = (0u64, 0u64, Vec::new());
        let (mut chunk, mut searched) = (chunk, 0);
        let mut at_least = "";
        while chunk.rows > 0 {
            for (row, place) in chunk.numbers.chunks_exact(self.numbers.len()).zip(&chunk.places) {
                let before = values;
                for (value, (column, name)) in row.iter().zip(&self.numbers) {
                    if value.is_nan() {
                        values += 1;
                        if places.len() < NAMED {
                            let name = shown(name);
                            places.push(format!("{} {place}, column {} (`{name}`)", self.unit, column + 1));
                        }
                    }
                }
                rows += u64::from(values > before);
            }
            searched += chunk.rows as u64;
            if searched > SEARCHED {
                at_least = "at least ";
                break;
            }
            chunk = match self.read_chunk(chunk_rows(self.numbers.len())) {
                Ok(chunk) => chunk,
                Err(error) => return error,
            };
        }
        let more = if values > places.len() as u64 { "; …" } else { "" };
        let values = count(values as usize, "value");
        Error::data(
            &self.name,
            format!(
                "{at_least}{values} missing, in {rows} of {} rows: {}{more}",
                self.read,
                places.join("; ")
            ),
        )
        .advise(Remedy::DropMissing)
    }
}

/// Rows of `columns` columns that are read at a time: a few megabytes.
pub fn chunk_rows(columns: usize) -> usize {
    const VALUES: usize = 1 << 19;
    const MOST: usize = 1 << 16;
    (VALUES / columns.max(1)).clamp(1, MOST)
}

/// Takes the rows with a NaN out of `chunk`; how many there were.
fn drop_incomplete(chunk: &mut Chunk, columns: usize) -> u64 {
    let keep: Vec<bool> =
        chunk.numbers.chunks_exact(columns).map(|row| !row.iter().any(|value| value.is_nan())).collect();
    retain(&mut chunk.places, &keep, 1);
    retain(&mut chunk.numbers, &keep, columns);
    for cells in &mut chunk.extras {
        retain(cells, &keep, 1);
    }
    let dropped = keep.iter().filter(|&&keep| !keep).count();
    chunk.rows -= dropped;
    dropped as u64
}

/// Keeps of `items`, `each` a row, those of the rows to keep.
fn retain<T>(items: &mut Vec<T>, keep: &[bool], each: usize) {
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        keep[(index - 1) / each]
    });
}
