//! What the beginning of a text tells: the comments above it, what separates its fields and how its numbers are written.

use std::io::{self, Read};

use csv::ByteRecord;

use super::cell::{Cell, Cells};
use super::white_space::WhiteSpaceReader;
use crate::data::reading::{Decimal, Delimiter, Reading};

/// Rows that are looked at.
const ROWS: usize = 500;

/// The beginning of a text.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    /// Whether there is no more.
    whole: bool,
    /// The comment above the first row, without its mark.
    comment: Option<Vec<u8>>,
}

impl Head {
    /// Reads as much of `reader` as decides, without a byte-order mark. Comments above the first row become blank lines.
    pub(super) fn read(reader: &mut impl Read) -> io::Result<Self> {
        const BYTES: u64 = 1 << 18;
        const MOST: u64 = 1 << 20;
        const LINES: usize = 20;
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let mut bytes = Vec::new();
        let mut whole = false;
        while !whole && (bytes.len() as u64) < MOST {
            whole = (reader.by_ref().take(BYTES).read_to_end(&mut bytes)? as u64) < BYTES;
            if bytes.iter().filter(|&&byte| byte == b'\n').count() > LINES {
                break;
            }
        }
        if bytes.starts_with(MARK) {
            bytes.drain(..MARK.len());
        }
        let mut head = Self { bytes, whole, comment: None };
        head.blank_comments();
        Ok(head)
    }

    fn blank_comments(&mut self) {
        let (mut kept, mut rest) = (Vec::new(), &self.bytes[..]);
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(rest.len());
            let line = rest[..end].trim_ascii();
            let Some(text) = line.strip_prefix(b"#") else {
                if !line.is_empty() {
                    break;
                }
                kept.extend(rest.get(end));
                rest = rest.get(end + 1..).unwrap_or_default();
                continue;
            };
            self.comment = Some(if text.trim_ascii_start().first().is_some_and(u8::is_ascii_punctuation) {
                // The mark is the first column's name.
                line.to_vec()
            } else {
                text.trim_ascii().to_vec()
            });
            kept.extend(rest.get(end));
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        if self.comment.is_some() {
            kept.extend_from_slice(rest);
            self.bytes = kept;
        }
    }

    /// The first rows, split at `delimiter`, without one that is cut short.
    pub(super) fn rows(&self, delimiter: Delimiter) -> Vec<ByteRecord> {
        let mut rows = split(&self.bytes, delimiter);
        if !self.whole && rows.len() > 1 {
            rows.pop();
        }
        rows.truncate(ROWS);
        rows
    }

    /// The comment above the first row, split like it.
    pub(super) fn comment(&self, delimiter: Delimiter) -> Option<ByteRecord> {
        split(self.comment.as_deref()?, delimiter).into_iter().next()
    }
}

/// The rows of `bytes` that are not blank, as far as they are looked at.
fn split(bytes: &[u8], delimiter: Delimiter) -> Vec<ByteRecord> {
    let (bytes, byte): (Box<dyn Read + '_>, u8) = match delimiter {
        Delimiter::Byte(byte) => (Box::new(bytes), byte),
        Delimiter::WhiteSpace => (Box::new(WhiteSpaceReader::new(bytes)), b'\t'),
    };
    let reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(byte).from_reader(bytes);
    let rows = reader.into_byte_records().map_while(std::result::Result::ok);
    rows.filter(|row| !super::csv::is_blank(row)).take(ROWS + 1).collect()
}

/// The delimiter and the decimal of `head`: those wanted, else those under which its rows are most like a table.
/// `usual` is the delimiter that the file's name promises.
pub(super) fn dialect(head: &Head, reading: &Reading, usual: Delimiter) -> (Delimiter, Decimal) {
    let delimiters = match reading.delimiter {
        Some(delimiter) => vec![delimiter],
        None => {
            let all =
                [b',', b'\t', b';', b'|'].map(Delimiter::Byte).into_iter().chain([Delimiter::WhiteSpace]);
            std::iter::once(usual).chain(all.filter(|&delimiter| delimiter != usual)).collect()
        }
    };
    let decimals = reading.decimal.map_or(vec![Decimal::Point, Decimal::Comma], |decimal| vec![decimal]);
    let mut best = (delimiters[0], decimals[0]);
    let mut most = (0.0, false);
    for &delimiter in &delimiters {
        let rows = head.rows(delimiter);
        let (width, regular) = width(&rows, delimiter);
        for &decimal in &decimals {
            // A comma in the one field of a row rather separates two.
            if width == 1 && decimal == Decimal::Comma && decimals.len() > 1 {
                continue;
            }
            let score = (regular * likeness(&rows, delimiter, &Cells::new(reading, decimal)), width > 1);
            if score > most {
                (best, most) = ((delimiter, decimal), score);
            }
        }
    }
    best
}

/// The commonest number of fields, and the share of the rows that have as many.
fn width(rows: &[ByteRecord], delimiter: Delimiter) -> (usize, f64) {
    let mut widths: Vec<usize> = rows.iter().map(ByteRecord::len).collect();
    // R gives the names of rows none of their own.
    if let [first, second, ..] = &mut widths[..]
        && delimiter == Delimiter::WhiteSpace
        && *first + 1 == *second
    {
        *first += 1;
    }
    widths.sort_unstable();
    let runs = widths.chunk_by(|a, b| a == b).map(|run| (run.len(), run[0]));
    let (count, width) = runs.max().unwrap_or_default();
    (width, count as f64 / rows.len().max(1) as f64)
}

/// How much the fields below the first row are like those of a table: most where all are numbers, less where they are
/// texts, not at all where texts hold what separates fields elsewhere.
fn likeness(rows: &[ByteRecord], delimiter: Delimiter, cells: &Cells) -> f64 {
    const TEXT: f64 = 0.7;
    let others: Vec<u8> =
        b",;\t|".iter().copied().filter(|&byte| delimiter != Delimiter::Byte(byte)).collect();
    let (mut sum, mut count) = (0.0, 0usize);
    let below = if rows.len() > 1 { &rows[1..] } else { rows };
    for field in below.iter().flatten() {
        let like = match cells.read(field) {
            Cell::Missing => continue,
            Cell::Text if field.iter().any(|byte| others.contains(byte)) => 0.0,
            Cell::Text => TEXT,
            Cell::Value(..) | Cell::Infinite | Cell::Inexact => 1.0,
        };
        sum += like;
        count += 1;
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::read(&mut text.as_bytes()).expect("a slice reads")
    }

    #[test]
    fn delimiters_and_decimals_are_those_that_make_a_table() {
        use Decimal::{Comma, Point};
        let [comma, semicolon, tab, bar] = [b',', b';', b'\t', b'|'].map(Delimiter::Byte);
        let space = Delimiter::WhiteSpace;
        for (text, want) in [
            ("a,b\n1,2\n", (comma, Point)),
            ("a\n1\n2\n", (comma, Point)),
            ("a,b\n", (comma, Point)),
            ("a;b\n", (semicolon, Point)),
            ("a;b\n1;2\n", (semicolon, Point)),
            ("a;b\n1,5;2,5\n1,25;3\n", (semicolon, Comma)),
            ("a;b;c;d;e\n1,5;x;y;z;u\n1,25;x;y;z;u\n", (semicolon, Comma)),
            ("a;b\n1.5;x, y\n1.25;z, u\n", (semicolon, Point)),
            ("a\tb\n1\t2\n", (tab, Point)),
            ("a|b\n1.5|x, y\n1.25|z\n", (bar, Point)),
            ("a|b\n1,5|2\n1,25|3\n", (bar, Comma)),
            ("a|b,c\n1,x|y\n2,z|y\n", (comma, Point)),
            ("a\tb\n1,5\t2\n", (tab, Comma)),
            ("  1.5   2.5\n 10.5  -3\n", (space, Point)),
            ("18.0   8   307.0\t\"chevrolet chevelle\"\n15.0   8   350.0\t\"buick\"\n", (space, Point)),
            ("1, 2, 3\n4, 5, 6\n", (comma, Point)),
            ("t,x\n2024-01-01 10:00:00,1.5\n2024-01-01 11:00:00,1.5\n", (comma, Point)),
            ("t\n2024-01-01 10:00:00\n2024-01-01 11:00:00\n", (comma, Point)),
            ("a,b\n1,2\n3\n", (comma, Point)),
            ("a b\nr1 1.5 2\n", (space, Point)),
            ("a\n1,2\n", (comma, Point)),
            ("name,b\n\"Smith, John\",1.5\n\"Roe, Jane\",2.5\n", (comma, Point)),
            ("a,b\n\"1,5\",\"2,5\"\n\"1,25\",\"2,75\"\n", (comma, Comma)),
            ("name,city\nJohn Smith,New York\nJane Roe,Los Angeles\n", (comma, Point)),
        ] {
            let got = dialect(&head(text), &Reading::default(), comma);
            assert_eq!(got, want, "{text:?}");
        }
        let wanted = Reading { delimiter: Some(comma), ..Reading::default() };
        assert_eq!(dialect(&head("a;b\n1,5;2,5\n"), &wanted, comma), (comma, Point));
    }

    #[test]
    fn comments_above_the_rows_become_blank_lines_and_the_last_is_kept() {
        for (text, bytes, comment) in [
            ("# made by x\r\n\n#a,b\n1,2\n#3\n", "\r\n\n\n1,2\n#3\n", Some("a,b")),
            ("\u{feff}#,Name\n1,x\n", "\n1,x\n", Some("#,Name")),
            ("a\n#b\n", "a\n#b\n", None),
            ("\n\na\n", "\n\na\n", None),
            ("# only", "", Some("only")),
        ] {
            let head = head(text);
            let got = head.comment.as_deref().map(String::from_utf8_lossy);
            assert_eq!(
                (String::from_utf8_lossy(&head.bytes).as_ref(), got.as_deref()),
                (bytes, comment),
                "{text:?}"
            );
        }
    }
}
