//! Text: lines of fields to numbers, whatever separates them.

use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use csv::ByteRecord;

use super::cell::{self, Cell, Cells};
use super::lines::{LineReader, Lines};
use super::sniff::{Head, dialect};
use super::white_space::WhiteSpaceReader;
use super::{Chunk, Decoder, Position, Reader, foreign, header};
use crate::data::columns::count;
use crate::data::reading::{Delimiter, Dialect, Names, Reading, ValueKind};
use crate::error::{Error, Remedy, Result};
use crate::shown::shown;

/// Reads `reader` as far as its first row, as `reading` says; `usual` is the delimiter that its name promises.
pub(super) fn open<'a>(
    name: &str,
    mut reader: Box<dyn Read + 'a>,
    reading: &Reading,
    usual: Delimiter,
    position: Position,
) -> Result<Reader<'a>> {
    let head = Head::read(&mut reader).map_err(|error| failure(name, error))?;
    if let Some(problem) = foreign::refusal(&head.bytes) {
        return Err(Error::data(name, problem));
    }
    let (delimiter, decimal) = dialect(&head, reading, usual);
    let cells = Cells::new(reading, decimal);
    let rows = head.rows(delimiter);
    let Some((first, below)) = rows.split_first() else {
        return Err(Error::data(name, "is empty; expected rows of comma-separated numbers"));
    };
    let names = match reading.header {
        Some(true) => Names::FirstRow,
        Some(false) => Names::Absent,
        None => header::names(first, below, &cells),
    };
    let comment = head.comment(delimiter).filter(|comment| {
        reading.header.is_none()
            && names == Names::Absent
            && comment.len() == first.len()
            && header::names(comment, &rows, &cells) == Names::FirstRow
    });
    let sampled = if matches!(names, Names::Absent) { &rows[..] } else { below };
    let kinds = header::kinds(sampled, &cells);
    let width = below.first().map_or(first.len(), ByteRecord::len);
    let mut decoder = CsvDecoder::new(name, head, reader, delimiter, cells);
    if !decoder.advance()? {
        return Err(Error::data(name, "is empty; expected rows of comma-separated numbers"));
    }
    let names = if comment.is_some() { Names::Comment } else { names };
    decoder.pending = matches!(names, Names::Absent | Names::Comment);
    decoder.columns = match (names, comment) {
        (Names::Absent, _) => Ok((0..decoder.record.len()).map(|index| format!("x{index}")).collect()),
        (_, Some(comment)) => header_names(&comment),
        (_, None) => header_names(&decoder.record),
    }
    .map_err(|message| decoder.at_line(message))?;
    // R gives the names of rows none of their own.
    if !decoder.pending && delimiter == Delimiter::WhiteSpace && width == decoder.columns.len() + 1 {
        decoder.columns.insert(0, String::new());
    }
    let kind = |index: usize| kinds.get(index).copied().unwrap_or(Some(ValueKind::Number));
    Ok(Reader {
        name: name.to_owned(),
        kinds: (0..decoder.columns.len()).map(kind).collect(),
        columns: decoder.columns.clone(),
        named: names != Names::Absent,
        header: format!("line {}: ", decoder.line),
        unit: "line",
        rows: None,
        position,
        dialect: Some(Dialect { delimiter, usual, decimal, names }),
        cells: decoder.cells.clone(),
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
    cells: Cells,
    columns: Vec<String>,
    numbers: Vec<usize>,
    /// What the cells of `numbers` have been so far.
    kinds: Vec<Option<ValueKind>>,
    extras: Vec<usize>,
}

impl<'a> CsvDecoder<'a> {
    /// Reads the rows of `head` and what follows it in `rest`.
    fn new(name: &str, head: Head, rest: Box<dyn Read + 'a>, delimiter: Delimiter, cells: Cells) -> Self {
        let text: Box<dyn Read + 'a> = Box::new(Cursor::new(head.bytes).chain(rest));
        let (text, byte): (Box<dyn Read + 'a>, u8) = match delimiter {
            Delimiter::Byte(byte) => (text, byte),
            Delimiter::WhiteSpace => (Box::new(WhiteSpaceReader::new(text)), b'\t'),
        };
        let (text, lines) = LineReader::new(text, byte);
        let records = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(byte)
            .buffer_capacity(1 << 16)
            .from_reader(Box::new(text) as Box<dyn Read + 'a>);
        Self {
            name: name.to_owned(),
            records,
            record: ByteRecord::new(),
            line: 0,
            pending: false,
            lines,
            cells,
            columns: Vec::new(),
            numbers: Vec::new(),
            kinds: Vec::new(),
            extras: Vec::new(),
        }
    }

    /// Goes to the next record that is neither blank nor a comment; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let more = self.records.read_byte_record(&mut self.record);
            if !more.map_err(|error| self.failure(error))? {
                return Ok(false);
            }
            let start = self.record.position().map_or(0, csv::Position::byte);
            self.line = self.lines.borrow_mut().line_at(start);
            if !is_blank(&self.record) && !self.is_comment() {
                return Ok(true);
            }
        }
    }

    /// Whether the record is a comment between rows. One with the fields of a row may be a row that begins with a text.
    fn is_comment(&self) -> bool {
        self.record[0].trim_ascii_start().starts_with(b"#")
            && !self.columns.is_empty()
            && (self.record.len() != self.columns.len() || self.numbers.contains(&0))
    }

    /// The number in the cell of the column `self.numbers[index]`, NaN where it is missing.
    fn number(&mut self, index: usize) -> Result<f64> {
        let place = self.numbers[index];
        let field = &self.record[place];
        let (problem, remedy) = match self.cells.read(field) {
            Cell::Missing => return Ok(f64::NAN),
            Cell::Value(value, kind) => {
                let before = self.kinds[index].unwrap_or(kind);
                self.kinds[index] = before.join(kind);
                if self.kinds[index].is_some() {
                    return Ok(value);
                }
                let (kind, before) = (described(kind)[0], described(before)[1]);
                (format!("is {kind}, and those above are {before}"), Some(Remedy::DropColumn))
            }
            Cell::Infinite => ("is not finite; drop the row or fill in a number".into(), None),
            Cell::Inexact => (INEXACT.into(), Some(Remedy::DropColumn)),
            Cell::Text => {
                let other = self.cells.decimal.other();
                let remedy = match cell::parse(field, other) {
                    Some(_) => Remedy::Decimal(other.name()),
                    None => Remedy::CategoryOrDrop,
                };
                ("is not a number".into(), Some(remedy))
            }
        };
        let column = shown(&self.columns[place]);
        let place = format!("column {} (`{column}`): `{}`", place + 1, excerpt(field));
        let error = Error::data(&self.name, format!("line {}, {place} {problem}", self.line));
        Err(remedy.into_iter().fold(error, Error::advise))
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
        self.kinds = vec![None; numbers.len()];
        self.extras = extras.to_vec();
        Ok(())
    }

    fn kinds(&self) -> Vec<ValueKind> {
        self.kinds.iter().map(|kind| kind.unwrap_or(ValueKind::Number)).collect()
    }

    fn read(&mut self, limit: usize, chunk: &mut Chunk) -> Result<()> {
        while chunk.rows < limit && (std::mem::take(&mut self.pending) || self.advance()?) {
            if self.record.len() != self.columns.len() {
                let (want, got) = (count(self.columns.len(), "field"), self.record.len());
                return Err(self.at_line(format!("expected {want}, got {got}")));
            }
            for index in 0..self.numbers.len() {
                let number = self.number(index)?;
                chunk.numbers.push(number);
            }
            for (cells, &place) in chunk.extras.iter_mut().zip(&self.extras) {
                let text = std::str::from_utf8(&self.record[place]).map_err(|_| {
                    let (column, cell) = (shown(&self.columns[place]), excerpt(&self.record[place]));
                    let problem = format!("column {} (`{column}`): `{cell}` is not UTF-8 text", place + 1);
                    let error = Error::data(&self.name, format!("line {}, {problem}", self.line));
                    error.advise(Remedy::Utf8)
                })?;
                cells.push(text.to_owned());
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
pub(super) fn is_blank(record: &ByteRecord) -> bool {
    record.len() == 1 && record[0].trim_ascii().is_empty()
}

/// What is wrong with a whole number beyond 2⁵³.
pub(super) const INEXACT: &str =
    "is a whole number beyond 2^53, where double precision has gaps; count from a nearer zero, or scale it";

/// One of the kind, and several.
fn described(kind: ValueKind) -> [&'static str; 2] {
    match kind {
        ValueKind::Number => ["a number", "numbers"],
        ValueKind::Truth => ["true or false", "true or false"],
        ValueKind::Time(_) => ["a date or time", "dates or times"],
    }
}

/// The column names in `record`, or what is wrong with them.
fn header_names(record: &ByteRecord) -> std::result::Result<Vec<String>, String> {
    let name = |(index, field)| match std::str::from_utf8(field) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(_) => Err(format!(
            "the name of column {}, `{}`, is not UTF-8 text; save the file as UTF-8",
            index + 1,
            excerpt(field)
        )),
    };
    record.iter().enumerate().map(name).collect()
}

/// The start of `field`, on one line; bytes that are no text are escapes.
pub(super) fn excerpt(field: &[u8]) -> String {
    const LONGEST: usize = 33;
    let field = field.trim_ascii();
    // At most 4 bytes a character.
    let head = &field[..field.len().min(4 * LONGEST + 4)];
    let text: String = head
        .utf8_chunks()
        .map(|chunk| format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii()))
        .collect();
    shown(&text).at_most(LONGEST).to_string()
}
