//! NPY: little-endian `f64` in rows. The header comes first but has to say how many rows there are.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use super::Destination;

/// Keeps the numbers in a temporary file until their count is known.
pub(super) struct NpyWriter {
    destination: Destination,
    numbers: BufWriter<File>,
    columns: usize,
    rows: u64,
}

impl NpyWriter {
    /// A writer of `columns` columns. The temporary file lies beside `path`, where there is room for the result.
    pub(super) fn new(destination: Destination, path: Option<&Path>, columns: usize) -> io::Result<Self> {
        let folder = path.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
        let file = match (folder, path) {
            (Some(folder), Some(path)) if path.is_file() || !path.exists() => tempfile::tempfile_in(folder)?,
            (None, Some(path)) if path.is_file() || !path.exists() => tempfile::tempfile_in(".")?,
            _ => tempfile::tempfile()?,
        };
        Ok(Self { destination, numbers: BufWriter::with_capacity(1 << 16, file), columns, rows: 0 })
    }

    pub(super) fn write(&mut self, numbers: &[f64], rows: usize) -> io::Result<()> {
        for value in numbers {
            self.numbers.write_all(&value.to_le_bytes())?;
        }
        self.rows += rows as u64;
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<Destination> {
        let Self { mut destination, numbers, columns, rows } = self;
        let mut file = numbers.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        destination.write_all(&header(rows, columns))?;
        io::copy(&mut BufReader::with_capacity(1 << 18, file), &mut destination)?;
        Ok(destination)
    }
}

/// Magic, version 1.0, and the dictionary, padded to a multiple of 64 bytes as NumPy does. One column is an array of
/// one dimension.
fn header(rows: u64, columns: usize) -> Vec<u8> {
    const BEFORE: usize = 10;
    const ALIGNMENT: usize = 64;
    let shape = if columns == 1 { format!("({rows},)") } else { format!("({rows}, {columns})") };
    let mut dictionary = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
    while !(BEFORE + dictionary.len() + 1).is_multiple_of(ALIGNMENT) {
        dictionary.push(' ');
    }
    dictionary.push('\n');
    let length = (dictionary.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, dictionary.as_bytes()].concat()
}
