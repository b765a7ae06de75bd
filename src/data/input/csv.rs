//! CSV and TSV: text lines to numbers.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use csv::ByteRecord;

use super::lines::{LineReader, Lines};
use super::{Chunk, Decoder, Position, Reader};
use crate::data::columns::count;
use crate::error::{Error, Remedy, Result};
use crate::shown::shown;

/// Reads `reader` as far as its first row: the header, unless it is all numbers or missing.
pub(super) fn open<'a>(
    name: &str,
    mut reader: Box<dyn Read + 'a>,
    delimiter: u8,
    position: Position,
) -> Result<Reader<'a>> {
    const MARK: &[u8] = b"\xef\xbb\xbf";

    let mut head = Vec::new();
    reader.by_ref().take(MARK.len() as u64).read_to_end(&mut head).map_err(|error| failure(name, error))?;
    if head == MARK {
        head.clear();
    }
    let (reader, lines) = LineReader::new(io::Cursor::new(head).chain(reader), delimiter);
    let records = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(1 << 16)
        .from_reader(Box::new(reader) as Box<dyn Read + 'a>);
    let mut decoder = CsvDecoder {
        name: name.to_owned(),
        records,
        record: ByteRecord::new(),
        line: 0,
        pending: false,
        lines,
        columns: Vec::new(),
        numbers: Vec::new(),
        extras: Vec::new(),
    };
    if !decoder.advance()? {
        return Err(Error::data(name, "is empty; expected rows of comma-separated numbers"));
    }
    let named = decoder.record.iter().any(|field| !is_missing(field) && parse(field).is_none());
    if named {
        decoder.columns = header(&decoder.record).map_err(|message| decoder.at_line(message))?;
    } else {
        decoder.columns = (0..decoder.record.len()).map(|index| format!("x{index}")).collect();
        decoder.pending = true;
    }
    Ok(Reader {
        name: name.to_owned(),
        columns: decoder.columns.clone(),
        named,
        header: format!("line {}: ", decoder.line),
        unit: "line",
        rows: None,
        position,
        decoder: Box::new(decoder),
    })
}

struct CsvDecoder<'a> {
    name: String,
    records: csv::Reader<Box<dyn Read + 'a>>,
    record: ByteRecord,
    /// Line of `record`.
    line: u64,
    /// Whether `record` is a row that has not been given yet.
    pending: bool,
    lines: Rc<RefCell<Lines>>,
    columns: Vec<String>,
    numbers: Vec<usize>,
    extras: Vec<usize>,
}

impl CsvDecoder<'_> {
    /// Goes to the next record that is not blank; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let more = self.records.read_byte_record(&mut self.record);
            if !more.map_err(|error| self.failure(error))? {
                return Ok(false);
            }
            let start = self.record.position().map_or(0, csv::Position::byte);
            self.line = self.lines.borrow_mut().line_at(start);
            if !is_blank(&self.record) {
                return Ok(true);
            }
        }
    }

    fn failure(&self, error: csv::Error) -> Error {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => failure(&self.name, error),
            other => Error::data(&self.name, format!("is not CSV: {other:?}")),
        }
    }

    fn at_line(&self, message: String) -> Error {
        Error::data(&self.name, format!("line {}: {message}", self.line))
    }
}

impl Decoder for CsvDecoder<'_> {
    fn select(&mut self, numbers: &[usize], extras: &[usize]) -> Result<()> {
        self.numbers = numbers.to_vec();
        self.extras = extras.to_vec();
        Ok(())
    }

    fn read(&mut self, limit: usize, chunk: &mut Chunk) -> Result<()> {
        while chunk.rows < limit && (std::mem::take(&mut self.pending) || self.advance()?) {
            if self.record.len() != self.columns.len() {
                let (want, got) = (count(self.columns.len(), "field"), self.record.len());
                return Err(self.at_line(format!("expected {want}, got {got}")));
            }
            for &place in &self.numbers {
                chunk.numbers.push(number(&self.record[place]).map_err(|(problem, remedy)| {
                    let column = shown(&self.columns[place]);
                    let place = format!("column {} (`{column}`)", place + 1);
                    let error = Error::data(&self.name, format!("line {}, {place}: {problem}", self.line));
                    remedy.into_iter().fold(error, Error::advise)
                })?);
            }
            for (cells, &place) in chunk.extras.iter_mut().zip(&self.extras) {
                cells.push(String::from_utf8_lossy(&self.record[place]).into_owned());
            }
            chunk.places.push(self.line);
            chunk.rows += 1;
        }
        Ok(())
    }
}

/// The error of the bytes behind a table: those of a decompressor are about the data.
pub(super) fn failure(name: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::data(name, format!("is truncated or damaged: {error}"))
        }
        io::ErrorKind::Other => Error::data(name, format!("cannot be read: {error}")),
        _ => Error::io(name, error),
    }
}

/// A line of nothing but spaces.
fn is_blank(record: &ByteRecord) -> bool {
    record.len() == 1 && record[0].trim_ascii().is_empty()
}

/// Whether the field says that there is no number.
fn is_missing(field: &[u8]) -> bool {
    const MARKERS: [&[u8]; 10] =
        [b"na", b"n/a", b"nan", b"-nan", b"null", b"none", b"#n/a", b"<na>", b"n.a.", b"?"];
    let field = field.trim_ascii();
    field.is_empty() || (field.len() <= 4 && MARKERS.iter().any(|marker| field.eq_ignore_ascii_case(marker)))
}

fn parse(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

/// The finite number in `field`, NaN where it is missing, or what is wrong with it and what to do.
fn number(field: &[u8]) -> std::result::Result<f64, (String, Option<Remedy>)> {
    let problem = |problem: &str| format!("`{}` is not {problem}", excerpt(field));
    match parse(field) {
        Some(value) if !value.is_infinite() => Ok(value),
        Some(_) => Err((problem("finite; drop the row or fill in a number"), None)),
        None if is_missing(field) => Ok(f64::NAN),
        None if field.iter().any(|byte| b";\t".contains(byte)) => {
            Err((problem("a number; fields must be separated by commas"), None))
        }
        None => Err((problem("a number"), Some(Remedy::DropColumn))),
    }
}

/// The column names in `record`, or what is wrong with them.
fn header(record: &ByteRecord) -> std::result::Result<Vec<String>, String> {
    let name = |(index, field)| match std::str::from_utf8(field) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(_) => Err(format!("the name of column {}, `{}`, is not UTF-8 text", index + 1, excerpt(field))),
    };
    record.iter().enumerate().map(name).collect()
}

/// The start of `field`, on one line.
pub(super) fn excerpt(field: &[u8]) -> String {
    const LONGEST: usize = 33;
    let field = field.trim_ascii();
    // At most 4 bytes a character.
    let head = String::from_utf8_lossy(&field[..field.len().min(4 * LONGEST + 4)]);
    shown(&head).at_most(LONGEST).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_missing_in_any_case_and_other_words_are_not() {
        for field in
            ["", "  ", "NA", "n/a", "NaN", "nan", "-NaN", "null", "None", " NULL ", "#N/A", "<NA>", "?"]
        {
            assert!(is_missing(field.as_bytes()), "{field:?}");
            assert!(number(field.as_bytes()).expect("missing").is_nan(), "{field:?}");
        }
        for field in ["0", "nay", "no", "x", "inf", "nanan", "-"] {
            assert!(!is_missing(field.as_bytes()), "{field:?}");
        }
    }
}
