//! NPY: one NumPy array, row after row or column after column.
//!
//! The header is read here rather than by a crate, because it may lie: its sizes are held against the file's before
//! anything is made of them.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::f16;

use super::cell::exceeds_doubles;
use super::{Chunk, Decoder, Position, Reader};
use crate::data::reading::ValueKind;
use crate::error::{Error, Result};

/// Most columns of an array. One with more is most likely transposed.
const MOST_COLUMNS: u64 = 1 << 16;

/// Reads the header of `file` and holds it against the file's length.
pub(super) fn open(name: &str, mut file: File) -> Result<Reader<'static>> {
    let length = file.seek(SeekFrom::End(0)).map_err(|error| Error::io(name, error))?;
    open_at(name, file, 0, length)
}

/// Reads the array that takes `length` bytes of `file` from byte `first` on.
pub(super) fn open_at(name: &str, mut file: File, first: u64, length: u64) -> Result<Reader<'static>> {
    file.seek(SeekFrom::Start(first)).map_err(|error| Error::io(name, error))?;
    let (header, start) = NpyHeader::read(&mut file).map_err(|message| Error::data(name, message))?;
    let (rows, columns) = header.size().map_err(|message| Error::data(name, message))?;
    let needed = rows.checked_mul(columns).and_then(|values| values.checked_mul(header.dtype.size() as u64));
    let there = length.saturating_sub(start);
    if needed != Some(there) {
        let needed =
            needed.map_or("more bytes than 64 bits can count".to_owned(), |needed| format!("{needed} bytes"));
        return Err(Error::data(
            name,
            format!(
                "is truncated or damaged: its header claims {rows} × {columns} values, {needed}, and {there} are there"
            ),
        ));
    }
    let names: Vec<String> = (0..columns).map(|index| format!("x{index}")).collect();
    let position = Position { done: Arc::default(), total: rows };
    let decoder = NpyDecoder {
        name: name.to_owned(),
        done: Arc::clone(&position.done),
        file: BufReader::with_capacity(1 << 18, file),
        start: first + start,
        header,
        rows,
        columns: columns as usize,
        row: 0,
        numbers: Vec::new(),
        extras: Vec::new(),
    };
    let kind = if decoder.header.dtype == Dtype::Bool { ValueKind::Truth } else { ValueKind::Number };
    Ok(Reader {
        name: name.to_owned(),
        kinds: vec![Some(kind); names.len()],
        columns: names,
        named: false,
        header: String::new(),
        unit: "row",
        rows: Some(rows),
        position,
        dialect: None,
        cells: super::Cells::default(),
        decoder: Box::new(decoder),
    })
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dtype {
    Bool,
    Signed(usize),
    Unsigned(usize),
    Float(usize),
}

impl Dtype {
    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Signed(size) | Self::Unsigned(size) | Self::Float(size) => size,
        }
    }

    /// The number in `bytes`, of [`Dtype::size`] bytes, little-endian.
    fn number(self, bytes: &[u8]) -> f64 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::Bool => f64::from(u8::from(bits != 0)),
            Self::Unsigned(_) => bits as f64,
            Self::Signed(_) => signed(bits, bytes.len()) as f64,
            Self::Float(2) => f16::from_bits(bits as u16).to_f64(),
            Self::Float(4) => f64::from(f32::from_bits(bits as u32)),
            Self::Float(_) => f64::from_bits(bits),
        }
    }

    /// The number in `bytes` with all its digits.
    fn text(self, bytes: &[u8]) -> String {
        match (self, self.number(bytes), bytes.try_into().map(u64::from_le_bytes)) {
            (Self::Unsigned(_), _, Ok(wide)) => wide.to_string(),
            (Self::Signed(_), _, Ok(wide)) => (wide as i64).to_string(),
            (Self::Float(4), value, _) => format!("{:?}", value as f32),
            (Self::Float(_), value, _) => format!("{value:?}"),
            (_, value, _) => value.to_string(),
        }
    }

    /// Whether `bytes` are a whole number that double precision would change.
    fn is_inexact(self, bytes: &[u8]) -> bool {
        let Ok(wide) = bytes.try_into().map(u64::from_le_bytes) else { return false };
        match self {
            Self::Unsigned(_) => exceeds_doubles(i128::from(wide)),
            Self::Signed(_) => exceeds_doubles(i128::from(wide as i64)),
            Self::Bool | Self::Float(_) => false,
        }
    }
}

/// The integer in the lowest `size` bytes of `bits`.
fn signed(bits: u64, size: usize) -> i64 {
    let unused = 64 - 8 * size as u32;
    (bits << unused) as i64 >> unused
}

/// What the header says.
#[derive(Clone, Debug, PartialEq)]
struct NpyHeader {
    dtype: Dtype,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl NpyHeader {
    /// Reads magic, version and the dictionary that follows them; also gives their length.
    fn read(reader: &mut impl Read) -> std::result::Result<(Self, u64), String> {
        /// Longest dictionary; one of plain numbers has about a hundred bytes.
        const LONGEST: u64 = 1 << 16;
        let foreign = || "is not an NPY file, or only the beginning of one".to_owned();
        let mut bytes = |count: u64| {
            let mut bytes = Vec::new();
            let got = reader.take(count).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            if got as u64 == count { Ok(bytes) } else { Err(foreign()) }
        };
        let magic = bytes(8)?;
        if !magic.starts_with(b"\x93NUMPY") {
            return Err(foreign());
        }
        let width = match magic[6] {
            1 => 2,
            2 | 3 => 4,
            version => return Err(format!("has NPY version {version}; expected 1, 2 or 3")),
        };
        let mut length = [0; 8];
        length[..width as usize].copy_from_slice(&bytes(width)?);
        let length = u64::from_le_bytes(length);
        if length > LONGEST {
            return Err(format!("has a header of {length} bytes; expected at most {LONGEST}"));
        }
        let text = bytes(length)?;
        let header = Self::parse(&String::from_utf8_lossy(&text))?;
        Ok((header, 8 + width + length))
    }

    /// Reads `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }`.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let value = |key: &str| {
            let quoted = [format!("'{key}'"), format!("\"{key}\"")];
            let after = quoted
                .iter()
                .find_map(|key| text.split_once(key.as_str()))
                .map(|(_, after)| after.trim_start());
            after
                .and_then(|after| after.strip_prefix(':'))
                .map(str::trim_start)
                .ok_or_else(|| format!("is not an NPY file: its header has no `{key}`"))
        };
        let descr = value("descr")?;
        let quote = descr.chars().next().filter(|quote| "'\"".contains(*quote));
        let Some((descr, _)) = quote.and_then(|quote| descr[1..].split_once(quote)) else {
            return Err("holds an array of structures; save its columns as one array of numbers".into());
        };
        let order = value("fortran_order")?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return Err("is not an NPY file: its `fortran_order` is neither True nor False".into());
        }
        let shape = value("shape")?.strip_prefix('(').and_then(|shape| shape.split_once(')'));
        let shape = shape.and_then(|(list, _)| {
            let sizes = list.split(',').map(str::trim).filter(|size| !size.is_empty());
            sizes.map(|size| size.trim_end_matches('L').parse().ok()).collect::<Option<Vec<u64>>>()
        });
        let shape = shape.ok_or("is not an NPY file: its `shape` is no list of sizes below 2⁶⁴")?;
        let (dtype, big_endian) = Self::dtype(descr).ok_or_else(|| {
            format!(
                "holds `{}`; expected numbers: b1, i1 to i8, u1 to u8, f2, f4 or f8",
                super::csv::excerpt(descr.as_bytes())
            )
        })?;
        Ok(Self { dtype, big_endian, fortran_order, shape })
    }

    /// The type of numbers that NumPy calls `descr`, such as `<f8`, and whether its highest byte comes first.
    fn dtype(descr: &str) -> Option<(Dtype, bool)> {
        let (order, rest) = match descr.as_bytes() {
            [order @ (b'<' | b'>' | b'|' | b'='), rest @ ..] => (*order, rest),
            rest => (b'=', rest),
        };
        let dtype = match rest {
            b"b1" | b"?" => Dtype::Bool,
            [b'i', size @ (b'1' | b'2' | b'4' | b'8')] => Dtype::Signed(usize::from(size - b'0')),
            [b'u', size @ (b'1' | b'2' | b'4' | b'8')] => Dtype::Unsigned(usize::from(size - b'0')),
            [b'f', size @ (b'2' | b'4' | b'8')] => Dtype::Float(usize::from(size - b'0')),
            _ => return None,
        };
        let big_endian = order == b'>' || (order == b'=' && cfg!(target_endian = "big"));
        Some((dtype, big_endian))
    }

    /// Rows and columns.
    fn size(&self) -> std::result::Result<(u64, u64), String> {
        let (rows, columns) = match *self.shape.as_slice() {
            [rows] => (rows, 1),
            [rows, columns] => (rows, columns),
            _ => {
                return Err(format!(
                    "has {} dimensions, {:?}; expected rows and columns: reshape it",
                    self.shape.len(),
                    self.shape
                ));
            }
        };
        if !(1..=MOST_COLUMNS).contains(&columns) {
            return Err(format!(
                "has {rows} rows of {columns} columns; expected 1 to {MOST_COLUMNS}; is it transposed?"
            ));
        }
        Ok((rows, columns))
    }
}

struct NpyDecoder {
    name: String,
    done: Arc<AtomicU64>,
    file: BufReader<File>,
    /// Where the numbers begin.
    start: u64,
    header: NpyHeader,
    rows: u64,
    columns: usize,
    /// The next row.
    row: u64,
    numbers: Vec<usize>,
    extras: Vec<usize>,
}

impl NpyDecoder {
    /// The numbers of the next `rows` rows, as their bytes lie: row-major, or each column's bytes in turn.
    fn bytes(&mut self, rows: usize) -> std::io::Result<Vec<u8>> {
        let size = self.header.dtype.size();
        let mut bytes = vec![0; rows * self.columns * size];
        if self.header.fortran_order {
            for (column, bytes) in bytes.chunks_exact_mut(rows * size).enumerate() {
                let index = column as u64 * self.rows + self.row;
                self.file.seek(SeekFrom::Start(self.start + index * size as u64))?;
                self.file.read_exact(bytes)?;
            }
        } else {
            self.file.read_exact(&mut bytes)?;
        }
        if self.header.big_endian {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }
}

impl Decoder for NpyDecoder {
    fn select(&mut self, numbers: &[usize], extras: &[usize]) -> Result<()> {
        self.numbers = numbers.to_vec();
        self.extras = extras.to_vec();
        Ok(())
    }

    fn kinds(&self) -> Vec<ValueKind> {
        let kind = if self.header.dtype == Dtype::Bool { ValueKind::Truth } else { ValueKind::Number };
        vec![kind; self.numbers.len()]
    }

    fn read(&mut self, limit: usize, chunk: &mut Chunk) -> Result<()> {
        // Every column of a row is read, chosen or not.
        let limit = limit.min(super::chunk_rows(self.columns));
        let rows = (self.rows - self.row).min(limit as u64) as usize;
        if rows == 0 {
            return Ok(());
        }
        let bytes = self.bytes(rows).map_err(|error| super::csv::failure(&self.name, error))?;
        let (dtype, size, columns) = (self.header.dtype, self.header.dtype.size(), self.columns);
        let fortran_order = self.header.fortran_order;
        let cell = |row: usize, column: usize| {
            let index = if fortran_order { column * rows + row } else { row * columns + column };
            &bytes[index * size..(index + 1) * size]
        };
        chunk.numbers.reserve(rows * self.numbers.len());
        for row in 0..rows {
            let place = self.row + row as u64 + 1;
            for &column in &self.numbers {
                let value = dtype.number(cell(row, column));
                let problem = if value.is_infinite() {
                    "is not finite; drop the row or fill in a number"
                } else if dtype.is_inexact(cell(row, column)) {
                    super::csv::INEXACT
                } else {
                    chunk.numbers.push(value);
                    continue;
                };
                let column = column + 1;
                return Err(Error::data(
                    &self.name,
                    format!("row {place}, column {column}: `{value}` {problem}"),
                ));
            }
            chunk.places.push(place);
        }
        for (cells, &column) in chunk.extras.iter_mut().zip(&self.extras) {
            cells.extend((0..rows).map(|row| dtype.text(cell(row, column))));
        }
        chunk.rows += rows;
        self.row += rows as u64;
        self.done.store(self.row, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_numpy_and_others_write_them_are_read() {
        let want = |dtype, big_endian, fortran_order, shape: &[u64]| NpyHeader {
            dtype,
            big_endian,
            fortran_order,
            shape: shape.to_vec(),
        };
        for (text, header) in [
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }   \n",
                want(Dtype::Float(8), false, false, &[3, 2]),
            ),
            (
                "{\"shape\":(7,),\"fortran_order\":True,\"descr\":\">i2\"}",
                want(Dtype::Signed(2), true, true, &[7]),
            ),
            (
                "{'descr': '|b1', 'fortran_order': False, 'shape': (10L, 1L)}",
                want(Dtype::Bool, false, false, &[10, 1]),
            ),
        ] {
            assert_eq!(NpyHeader::parse(text).expect(text), header);
        }
        for (text, problem) in [
            ("", "no `descr`"),
            ("{'descr' '<f8'}", "no `descr`"),
            ("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3,)}", "array of structures"),
            ("{'descr': '<c16', 'fortran_order': False, 'shape': (3,)}", "holds `<c16`"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", "holds `|O`"),
            ("{'descr': '<f8', 'fortran_order': 0, 'shape': (3,)}", "neither True nor False"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}", "no list of sizes"),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                "no list of sizes",
            ),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (3", "no list of sizes"),
        ] {
            let message = NpyHeader::parse(text).expect_err(problem);
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn every_kind_of_number_is_read_with_its_sign() {
        for (dtype, bytes, want) in [
            (Dtype::Bool, &[2][..], 1.0),
            (Dtype::Signed(1), &[0xff], -1.0),
            (Dtype::Unsigned(1), &[0xff], 255.0),
            (Dtype::Signed(2), &(-300i16).to_le_bytes(), -300.0),
            (Dtype::Unsigned(4), &u32::MAX.to_le_bytes(), 4_294_967_295.0),
            (Dtype::Signed(8), &(-5i64).to_le_bytes(), -5.0),
            (Dtype::Float(4), &(-0.1f32).to_le_bytes(), f64::from(-0.1f32)),
            (Dtype::Float(8), &0.1f64.to_le_bytes(), 0.1),
            (Dtype::Float(2), &0x3c00u16.to_le_bytes(), 1.0),
            (Dtype::Float(2), &0xc500u16.to_le_bytes(), -5.0),
            (Dtype::Float(2), &0x0001u16.to_le_bytes(), 2f64.powi(-24)),
            (Dtype::Float(2), &0xfc00u16.to_le_bytes(), f64::NEG_INFINITY),
        ] {
            assert_eq!(dtype.number(bytes), want, "{dtype:?} {bytes:?}");
        }
        assert!(Dtype::Float(2).number(&0x7e00u16.to_le_bytes()).is_nan());
    }

    #[test]
    fn long_integers_are_told_apart_and_keep_their_digits_as_text() {
        const FIRST: i64 = (1 << 53) + 1;
        for (dtype, bytes, inexact, text) in [
            (Dtype::Signed(8), FIRST.to_le_bytes(), true, "9007199254740993"),
            (Dtype::Signed(8), (-FIRST).to_le_bytes(), true, "-9007199254740993"),
            (Dtype::Signed(8), (1i64 - FIRST).to_le_bytes(), false, "-9007199254740992"),
            (Dtype::Unsigned(8), u64::MAX.to_le_bytes(), true, "18446744073709551615"),
            (Dtype::Float(8), 1e300f64.to_le_bytes(), false, "1e300"),
        ] {
            assert_eq!((dtype.is_inexact(&bytes), dtype.text(&bytes)), (inexact, text.to_owned()), "{text}");
        }
        assert!(!Dtype::Signed(4).is_inexact(&[0xff; 4]));
    }
}
