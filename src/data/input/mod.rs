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
use super::categories::{Coder, Coding, TableColumn};
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
    /// What each column holds by the file's types or first rows; `None` for texts.
    kinds: Vec<Option<ValueKind>>,
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

    /// What each column of [`Reader::columns`] holds, by the types in the file or by its first rows: `None` for texts.
    pub fn kinds(&self) -> &[Option<ValueKind>] {
        &self.kinds
    }

    /// How the cells of the column at `place` become numbers: texts and truths as categories.
    pub fn coding(&self, place: usize) -> Coding {
        match self.kinds[place] {
            None => Coding::Texts,
            Some(ValueKind::Truth) => Coding::Truths,
            Some(_) => Coding::Number,
        }
    }

    /// The table of all columns, texts and truths as the places of their levels, and what the columns are.
    ///
    /// # Errors
    /// Those of [`Reader::select_coded`] and [`Rows::into_coded`]; a missing value is refused.
    pub fn into_typed(self) -> Result<(Table, Vec<TableColumn>)> {
        let columns = (0..self.columns.len()).map(|place| (place, self.coding(place))).collect();
        self.select_coded(columns, &[], Missing::Refuse)?.into_coded(|_, _| Ok(()))
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
    pub fn select(self, numbers: &[usize], extras: &[usize], missing: Missing) -> Result<Rows<'a>> {
        let columns = numbers.iter().map(|&place| (place, Coding::Number)).collect();
        self.select_coded(columns, extras, missing)
    }

    /// As [`Reader::select`], for columns of which some are categories: their cells become the places of their levels, among
    /// the numbers of the other columns.
    ///
    /// # Errors
    /// Those of [`Reader::select`].
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Coding, Missing, Reader};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let reader = Reader::from_csv("t", "a,kind\n1,x\n2,y\n3,x\n".as_bytes())?;
    /// let rows = reader.select_coded(vec![(0, Coding::Number), (1, Coding::Texts)], &[], Missing::Refuse)?;
    /// let (table, columns) = rows.into_coded(|_, _| Ok(()))?;
    /// assert_eq!(table.values, [1.0, 0.0, 2.0, 1.0, 3.0, 0.0]);
    /// assert_eq!(columns[1].levels().map(|levels| levels.names().join(" ")), Some("x y".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn select_coded(
        mut self,
        columns: Vec<(usize, Coding)>,
        extras: &[usize],
        missing: Missing,
    ) -> Result<Rows<'a>> {
        let numbers: Vec<usize> = columns.iter().map(|(place, _)| *place).collect();
        let coders: Vec<Coder> = columns.into_iter().map(|(_, coding)| coding.into()).collect();
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
        let places = |number: bool| {
            let of_kind = numbers.iter().zip(&coders).filter(move |(_, coder)| coder.is_number() == number);
            of_kind.map(|(&place, _)| place)
        };
        let texts: Vec<usize> = places(false).chain(extras.iter().copied()).collect();
        self.decoder.select(&places(true).collect::<Vec<_>>(), &texts)?;
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
            coders,
            decoder: self.decoder,
        })
    }
}

/// The rows of a table, in order, with the columns that were chosen.
pub struct Rows<'a> {
    name: String,
    /// Place in the table and name of each column of numbers, categories included.
    numbers: Vec<(usize, String)>,
    /// How the cells of each of them become numbers.
    coders: Vec<Coder>,
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

    /// What the columns of numbers have held in the rows read so far `[D]`; numbers where they are categories.
    pub fn kinds(&self) -> Vec<ValueKind> {
        let mut kinds = self.decoder.kinds().into_iter();
        let kind = |coder: &Coder| if coder.is_number() { kinds.next() } else { None };
        self.coders.iter().map(kind).map(|kind| kind.unwrap_or(ValueKind::Number)).collect()
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
    pub fn into_table(self, observe: impl FnMut(&Chunk, &Self) -> Result<()>) -> Result<Table> {
        Ok(self.into_coded(observe)?.0)
    }

    /// All rows that are left, and what their columns are. The chunks that `observe` sees have the levels of
    /// [`Coding::Texts`] in the order in which they come, the table has them in their own.
    ///
    /// # Errors
    /// Those of [`Rows::into_table`], and for a category whose texts are as many as names of the rows.
    pub fn into_coded(
        mut self,
        mut observe: impl FnMut(&Chunk, &Self) -> Result<()>,
    ) -> Result<(Table, Vec<TableColumn>)> {
        let limit = chunk_rows(self.numbers.len());
        let mut values = Vec::new();
        while let Some(chunk) = self.next(limit)? {
            observe(&chunk, &self)?;
            values.extend_from_slice(&chunk.numbers);
        }
        let (kinds, features) = (self.kinds(), self.numbers.len());
        let rows = values.len() / features.max(1);
        let columns: Vec<String> = self.numbers.into_iter().map(|(_, name)| name).collect();
        let mut types = Vec::with_capacity(features);
        for (index, (coder, kind)) in self.coders.into_iter().zip(kinds).enumerate() {
            let (column, places) = coder.finish(&self.name, &columns[index], kind, rows)?;
            types.push(column);
            if let Some(places) = places {
                let codes = values.iter_mut().skip(index).step_by(features);
                codes.for_each(|code| *code = places[*code as usize] as f64);
            }
        }
        Ok((Table { name: self.name, columns, values }, types))
    }

    fn read_chunk(&mut self, limit: usize) -> Result<Chunk> {
        let categories = self.coders.iter().filter(|coder| !coder.is_number()).count();
        let extras = vec![Vec::new(); categories + self.extras.len()];
        let mut chunk = Chunk { extras, ..Chunk::default() };
        self.decoder.read(limit.max(1), &mut chunk)?;
        let numbers = &self.cells.missing_numbers;
        if !numbers.is_empty() {
            let missing = chunk.numbers.iter_mut().filter(|value| numbers.contains(value));
            missing.for_each(|value| *value = f64::NAN);
        }
        if categories > 0 {
            self.code(&mut chunk, categories)?;
        }
        debug_assert_eq!(chunk.numbers.len(), chunk.rows * self.numbers.len());
        self.read += chunk.rows as u64;
        Ok(chunk)
    }

    /// Puts the first `categories` of the chunk's texts among its numbers.
    fn code(&mut self, chunk: &mut Chunk, categories: usize) -> Result<()> {
        let texts: Vec<Vec<String>> = chunk.extras.drain(..categories).collect();
        let mut numbers = std::mem::take(&mut chunk.numbers).into_iter();
        chunk.numbers.reserve(chunk.rows * self.numbers.len());
        for (row, place) in chunk.places.iter().enumerate() {
            let mut texts = texts.iter();
            for (coder, (column, name)) in self.coders.iter_mut().zip(&self.numbers) {
                if coder.is_number() {
                    chunk.numbers.extend(numbers.next());
                    continue;
                }
                let cell = texts.next().map_or("", |cells| &cells[row]);
                if self.cells.is_missing_category(cell) {
                    chunk.numbers.push(f64::NAN);
                    continue;
                }
                let code = coder.code(cell).map_err(|problem| {
                    let place = format!("{} {place}, column {} (`{}`)", self.unit, column + 1, shown(name));
                    Error::data(&self.name, format!("{place}: {problem}"))
                });
                chunk.numbers.push(match coder {
                    Coder::Texts { .. } => code.map_err(|error| error.advise(Remedy::DropColumn))?,
                    _ => code?,
                });
            }
        }
        Ok(())
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
