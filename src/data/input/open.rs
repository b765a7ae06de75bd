//! From a path to a [`Reader`]: standard input, compression and the format by name.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Cells, Position, Reader, csv};
use crate::data::format::{Compression, Encoding, Format};
use crate::data::reading::{Decimal, Delimiter, Reading};
use crate::error::{Error, Result};

impl Reader<'static> {
    /// Opens the table in the file `path`, or on standard input when that is `-`, as [`Reader::open_as`] does that is told
    /// nothing but the format `wanted`.
    ///
    /// # Errors
    /// Those of [`Reader::open_as`].
    pub fn open(path: &Path, wanted: Option<Encoding>) -> Result<Self> {
        Self::open_as(path, &Reading { encoding: wanted, ..Reading::default() })
    }

    /// Opens the table in the file `path`, or on standard input when that is `-`, as `reading` says.
    ///
    /// The format is the one asked for, else what the name ends in, else text; gzip and zstd around text are told by
    /// their first bytes. NPY and Parquet have to be sought in: from standard input they go through a temporary file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Data`] when it is not what its name says, or has no columns.
    pub fn open_as(path: &Path, reading: &Reading) -> Result<Self> {
        let encoding = Encoding::of_path(Some(path), reading.encoding);
        let standard_input = path.as_os_str() == "-";
        let name = if standard_input { "standard input".to_owned() } else { path.display().to_string() };
        let open = || File::open(path).map_err(|error| Error::io(path, error));
        let told = if standard_input || reading.encoding.is_some() { None } else { format_of(path) };
        let delimiter = match told.unwrap_or(encoding.format) {
            Format::Csv => Delimiter::Byte(b','),
            Format::Tsv => Delimiter::Byte(b'\t'),
            format => {
                let file = if standard_input {
                    spooled().map_err(|error| Error::io(&name, error))?
                } else {
                    open()?
                };
                let reader = seekable(&name, file, format)?;
                return Ok(Self { cells: Cells::new(reading, Decimal::Point), ..reader });
            }
        };
        if standard_input {
            let reader = decompressed(&name, Box::new(io::stdin().lock()))?;
            return csv::open(&name, reader, reading, delimiter, Position::default());
        }
        let file = open()?;
        // Of what is not a regular file, such as a pipe, the length says nothing.
        let total =
            file.metadata().ok().filter(|metadata| metadata.is_file()).map_or(0, |metadata| metadata.len());
        let position = Position { done: Arc::default(), total };
        let counted = Counted { inner: file, done: Arc::clone(&position.done) };
        csv::open(&name, decompressed(&name, Box::new(counted))?, reading, delimiter, position)
    }
}

/// The format that is no text and that the regular file `path` begins like, whatever its name.
fn format_of(path: &Path) -> Option<Format> {
    // What is no regular file, such as a pipe, would lose its first bytes.
    let regular = path.metadata().is_ok_and(|metadata| metadata.is_file());
    let head = head_of(&mut File::open(path).ok().filter(|_| regular)?).ok()?;
    Format::of_bytes(&head)
}

/// The first bytes of `file`, which is left at its start.
fn head_of(file: &mut File) -> io::Result<Vec<u8>> {
    const BYTES: u64 = 64;
    let mut head = Vec::new();
    file.take(BYTES).read_to_end(&mut head)?;
    io::Seek::rewind(file)?;
    Ok(head)
}

/// Counts the bytes that pass.
struct Counted<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The bytes that `reader` holds, compressed or not.
fn decompressed(name: &str, mut reader: Box<dyn Read>) -> Result<Box<dyn Read>> {
    const LONGEST_MARK: u64 = 4;
    let mut head = Vec::new();
    reader.by_ref().take(LONGEST_MARK).read_to_end(&mut head).map_err(|error| Error::io(name, error))?;
    let compression = Compression::of_bytes(&head);
    let whole = BufReader::with_capacity(1 << 16, Cursor::new(head).chain(reader));
    match compression {
        Compression::None => Ok(Box::new(whole)),
        #[cfg(feature = "tables")]
        Compression::Gzip => Ok(Box::new(super::gzip::GzipReader::new(whole))),
        #[cfg(feature = "tables")]
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(whole).map_err(|error| csv::failure(name, error))?;
            Ok(Box::new(decoder))
        }
        #[cfg(not(feature = "tables"))]
        _ => Err(Error::data(
            name,
            "is compressed, and this build reads plain CSV only; build with the feature `tables`",
        )),
    }
}

/// Standard input in a temporary file, read from its start.
fn spooled() -> io::Result<File> {
    use std::io::Seek;
    let mut file = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(feature = "tables")]
fn seekable(name: &str, mut file: File, format: Format) -> Result<Reader<'static>> {
    let head = head_of(&mut file).map_err(|error| Error::io(name, error))?;
    match (Format::of_bytes(&head), format) {
        (Some(told), wanted) if told == wanted => {}
        _ => {
            if let Some(problem) = super::foreign::refusal(&head) {
                return Err(Error::data(name, problem));
            }
        }
    }
    match format {
        Format::Parquet => super::parquet::open(name, file),
        _ if head.starts_with(Format::ZIP) => super::npz::open(name, file),
        _ => super::npy::open(name, file),
    }
}

#[cfg(not(feature = "tables"))]
fn seekable(name: &str, _: File, format: Format) -> Result<Reader<'static>> {
    let format = format.name();
    Err(Error::data(
        name,
        format!("is {format}, and this build reads plain CSV only; build with the feature `tables`"),
    ))
}
