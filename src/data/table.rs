//! A table of numbers with named columns, read from CSV and written as CSV.
//! It is the way in for the user's data and the way out for scores and samples.

use std::collections::HashMap;
use std::io::{self, Read, Write};
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use csv::ByteRecord;

use crate::error::{Error, Result};

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

    /// Reads the CSV file `path`, or standard input when it is `-`; see [`Table::from_csv`].
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, else as [`Table::from_csv`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Self::from_csv("standard input", io::stdin().lock());
        }
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|error| Error::io(path, error))?;
        Self::from_csv(&name, file)
    }

    /// Reads comma-separated numbers; `name` is what errors call the table.
    ///
    /// A first row that is not all numbers is the header; without one the columns are x0, x1 and so on. Fields may
    /// be quoted and surrounded by spaces; lines may end in LF or CRLF; a byte-order mark and blank lines are
    /// skipped. The text is held in memory while it is read.
    ///
    /// # Errors
    /// [`Error::Io`] when `reader` fails. [`Error::Data`], with line and column where there is one, for a table
    /// without rows, a row of another length than the first, a field that is empty, not a number or not finite,
    /// and a header with an empty or repeated name.
    pub fn from_csv(name: &str, mut reader: impl Read) -> Result<Self> {
        // The whole text, because line numbers that match an editor's are counted in it once an error is found:
        // those of the csv crate count neither a pending LF of CRLF nor the blank lines before a record.
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map_err(|error| Error::io(name, error))?;
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let fail = |message: String| Error::data(name, message);
        let fail_at =
            |record: &ByteRecord, message: String| fail(format!("line {}: {message}", line_of(text, record)));

        let mut records = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut record = ByteRecord::new();
        let mut columns: Vec<String> = Vec::new();
        let mut values = Vec::new();
        // Reading a slice with `flexible` cannot fail; the error is passed on all the same.
        while records.read_byte_record(&mut record).map_err(|error| fail(error.to_string()))? {
            if is_blank(&record) {
                continue;
            }
            if columns.is_empty() {
                if record.iter().any(|field| parse(field).is_none()) {
                    columns = header(&record).map_err(|message| fail_at(&record, message))?;
                    continue;
                }
                columns = (0..record.len()).map(|index| format!("x{index}")).collect();
            }
            if record.len() != columns.len() {
                let (want, got) = (columns.len(), record.len());
                let plural = if want == 1 { "" } else { "s" };
                return Err(fail_at(&record, format!("expected {want} field{plural}, got {got}")));
            }
            for (index, (field, column)) in record.iter().zip(&columns).enumerate() {
                values.push(number(field).map_err(|problem| {
                    let line = line_of(text, &record);
                    fail(format!("line {line}, column {} (`{column}`): {problem}", index + 1))
                })?);
            }
        }
        if values.is_empty() {
            return Err(fail(if columns.is_empty() {
                "is empty; expected rows of comma-separated numbers".into()
            } else {
                "has a header but no rows; expected rows of comma-separated numbers below it".into()
            }));
        }
        Ok(Self { name: name.into(), columns, values })
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
            for value in row {
                digits.clear();
                // `Debug` is the shortest form that round-trips, with an exponent where `Display` has 300 zeros.
                write!(digits, "{value:?}")?;
                out.write_field(&digits).map_err(io_error)?;
            }
            out.write_record(None::<&[u8]>).map_err(io_error)?;
        }
        out.flush()
    }
}

/// The error of the writer below; csv's own conversion hides its kind, by which a closed pipe is told apart.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A line of nothing but spaces.
fn is_blank(record: &ByteRecord) -> bool {
    record.len() == 1 && record[0].trim_ascii().is_empty()
}

fn parse(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

/// The finite number in `field`, or what is wrong with it.
fn number(field: &[u8]) -> std::result::Result<f64, String> {
    match parse(field) {
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err(format!("`{}` is not finite; drop the row or fill in a number", excerpt(field))),
        None if field.trim_ascii().is_empty() => {
            Err("the field is empty; drop the row or fill in a number".into())
        }
        None if field.iter().any(|byte| b";\t".contains(byte)) => {
            Err(format!("`{}` is not a number; fields must be separated by commas", excerpt(field)))
        }
        None => Err(format!("`{}` is not a number", excerpt(field))),
    }
}

/// The column names in `record`, or what is wrong with them.
fn header(record: &ByteRecord) -> std::result::Result<Vec<String>, String> {
    let mut first_use = HashMap::with_capacity(record.len());
    let mut names = Vec::with_capacity(record.len());
    for (index, field) in record.iter().enumerate() {
        let place = index + 1;
        let name = std::str::from_utf8(field)
            .map_err(|_| format!("the name of column {place}, `{}`, is not UTF-8 text", excerpt(field)))?
            .trim();
        if name.is_empty() {
            return Err(format!(
                "column {place} has no name in the header; name it, or leave it out if it is an index"
            ));
        }
        if let Some(earlier) = first_use.insert(name, place) {
            let name = excerpt(name.as_bytes());
            return Err(format!("columns {earlier} and {place} are both named `{name}`; rename one"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The start of `field`, on one line.
fn excerpt(field: &[u8]) -> String {
    const LONGEST: usize = 32;
    // At most 4 bytes a character.
    let head = String::from_utf8_lossy(&field[..field.len().min(4 * LONGEST + 4)]);
    let mut shown: String = head.trim().chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if head.trim().chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}

/// The line of `text`, counted from 1 as editors do, on which `record` begins.
fn line_of(text: &[u8], record: &ByteRecord) -> usize {
    let start = record.position().map_or(0, |position| position.byte() as usize).min(text.len());
    // The position may come before the end of the previous line and before blank lines.
    let blank = text[start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let before = &text[..start + blank];
    let ends = before
        .iter()
        .enumerate()
        .filter(|&(index, &byte)| byte == b'\n' || (byte == b'\r' && before.get(index + 1) != Some(&b'\n')));
    ends.count() + 1
}
