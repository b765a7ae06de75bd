//! A table of numbers with named columns, held in memory.
//! It is what training and pictures are made from; scoring reads [`super::Rows`] instead, chunk by chunk.

use std::io::{self, Read, Write};
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use super::input::{Missing, Reader};
use crate::error::Result;

/// Rows of finite numbers, in the user's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What error messages call it: a file or a toy density.
    pub name: String,
    /// Names of the columns `[D]`.
    pub columns: Vec<String>,
    /// The numbers, row-major [N, D].
    pub values: Vec<f64>,
}

impl Table {
    /// Number of rows N.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.features()).unwrap_or(0)
    }

    /// Number of columns D.
    pub fn features(&self) -> usize {
        self.columns.len()
    }

    /// Reads all columns of the file `path`, or of standard input when it is `-`; see [`Reader::open`].
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when it cannot be read, else as [`Table::from_csv`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(path: &Path) -> Result<Self> {
        Self::whole(Reader::open(path, None)?)
    }

    /// Reads numbers in lines of text; `name` is what errors call the table.
    ///
    /// What separates fields (commas, semicolons, tabs, white space), whether numbers have decimal commas, and whether the
    /// first row is a header are decided by the first rows; without a header the columns are x0, x1 and so on. Fields may be
    /// quoted and surrounded by spaces; lines may end in LF or CRLF; a byte-order mark, blank lines and comments (`#`)
    /// are skipped. True and false are 1 and 0; ISO dates and times are seconds since 1970 began in UTC.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when `reader` fails. [`Error::Data`](crate::Error::Data), with line and column
    /// where there is one, for a table without rows, a row of another length than the first, a field that is missing,
    /// not a number or not finite, and a header with an empty or repeated name.
    ///
    /// # Examples
    /// ```
    /// use moonflow::Table;
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let table = Table::from_csv("wine", "acid,sugar\n7.4,1.9\n7.8,2.6\n".as_bytes())?;
    /// assert_eq!(table.columns, ["acid", "sugar"]);
    /// assert_eq!(table.values, [7.4, 1.9, 7.8, 2.6]); // row-major [2, 2]
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_csv(name: &str, reader: impl Read) -> Result<Self> {
        Self::whole(Reader::from_csv(name, reader)?)
    }

    fn whole(reader: Reader<'_>) -> Result<Self> {
        let all: Vec<usize> = (0..reader.columns().len()).collect();
        reader.select(&all, &[], Missing::Refuse)?.into_table(|_, _| Ok(()))
    }

    /// Writes a header and `values`, row-major [N, `columns.len()`], with the fewest digits that read back as the
    /// same number. [`Table::from_csv`] of the result gives both back, unless all names are themselves numbers.
    ///
    /// # Errors
    /// When `writer` fails; [`io::ErrorKind::InvalidInput`] when there are no columns or `values` are not whole rows.
    pub fn write_csv<T: num_traits::Float + std::fmt::Debug>(
        columns: &[String],
        values: &[T],
        writer: impl Write,
    ) -> io::Result<()> {
        if columns.is_empty() || !values.len().is_multiple_of(columns.len()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} values do not make whole rows of {} columns", values.len(), columns.len()),
            ));
        }
        let mut out = csv::Writer::from_writer(writer);
        out.write_record(columns).map_err(io_error)?;
        let mut digits = Vec::new();
        for row in values.chunks_exact(columns.len()) {
            write_csv_row(&mut out, &mut digits, row)?;
            out.write_record(None::<&[u8]>).map_err(io_error)?;
        }
        out.flush()
    }
}

/// Moves `count` rows out of `values`, row-major [N, `width`]: those that are `chosen`, in order. The others move up in their
/// own memory.
pub(super) fn take_rows(
    values: &mut Vec<f64>,
    width: usize,
    count: usize,
    chosen: impl Fn(u32) -> bool,
) -> Vec<f64> {
    let mut taken = Vec::with_capacity(count * width);
    let mut end = 0;
    for row in 0..values.len() / width {
        let place = row * width..(row + 1) * width;
        if chosen(row as u32) {
            taken.extend_from_slice(&values[place]);
        } else {
            values.copy_within(place, end);
            end += width;
        }
    }
    values.truncate(end);
    values.shrink_to_fit();
    taken
}

/// Writes numbers as fields of the current record; `digits` is scratch.
pub(super) fn write_csv_row<T: std::fmt::Debug>(
    out: &mut csv::Writer<impl Write>,
    digits: &mut Vec<u8>,
    row: &[T],
) -> io::Result<()> {
    for value in row {
        digits.clear();
        // `Debug` is the shortest form that round-trips, with an exponent where `Display` has 300 zeros.
        write!(digits, "{value:?}")?;
        out.write_field(&*digits).map_err(io_error)?;
    }
    Ok(())
}

/// The error of the writer below; csv's own conversion hides its kind, by which a closed pipe is told apart.
pub(super) fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
