//! CSV and TSV, compressed or not.

use std::io::{self, Write};

use super::Destination;
use crate::data::format::{Compression, Encoding, Format};
use crate::data::table::{io_error, write_csv_row};

/// Writes rows as lines.
pub(super) struct TextWriter {
    out: csv::Writer<Compressed>,
    digits: Vec<u8>,
}

impl TextWriter {
    pub(super) fn new(
        destination: Destination,
        encoding: Encoding,
        texts: &[String],
        numbers: &[String],
    ) -> io::Result<Self> {
        let delimiter = if encoding.format == Format::Tsv { b'\t' } else { b',' };
        let compressed = Compressed::new(destination, encoding.compression)?;
        let mut out = csv::WriterBuilder::new().delimiter(delimiter).from_writer(compressed);
        out.write_record(texts.iter().chain(numbers)).map_err(io_error)?;
        Ok(Self { out, digits: Vec::new() })
    }

    pub(super) fn write(&mut self, texts: &[Vec<String>], numbers: &[f64], rows: usize) -> io::Result<()> {
        for (row, numbers) in numbers.chunks_exact(numbers.len() / rows.max(1)).enumerate() {
            for cells in texts {
                self.out.write_field(&cells[row]).map_err(io_error)?;
            }
            write_csv_row(&mut self.out, &mut self.digits, numbers)?;
            self.out.write_record(None::<&[u8]>).map_err(io_error)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<Destination> {
        self.out.into_inner().map_err(csv::IntoInnerError::into_error)?.finish()
    }
}

/// A destination, with a compressor before it.
enum Compressed {
    Plain(Destination),
    #[cfg(feature = "tables")]
    Gzip(flate2::write::GzEncoder<Destination>),
    #[cfg(feature = "tables")]
    Zstd(zstd::Encoder<'static, Destination>),
}

impl Compressed {
    fn new(destination: Destination, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            #[cfg(feature = "tables")]
            Compression::Gzip => {
                Self::Gzip(flate2::write::GzEncoder::new(destination, flate2::Compression::default()))
            }
            #[cfg(feature = "tables")]
            Compression::Zstd => {
                Self::Zstd(zstd::Encoder::new(destination, zstd::DEFAULT_COMPRESSION_LEVEL)?)
            }
            _ => Self::Plain(destination),
        })
    }

    fn finish(self) -> io::Result<Destination> {
        match self {
            Self::Plain(destination) => Ok(destination),
            #[cfg(feature = "tables")]
            Self::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "tables")]
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(destination) => destination.write(bytes),
            #[cfg(feature = "tables")]
            Self::Gzip(encoder) => encoder.write(bytes),
            #[cfg(feature = "tables")]
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    // The csv writer flushes what it is dropped with; a compressor is only flushed at its end, where it costs no ratio.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(destination) => destination.flush(),
            #[cfg(feature = "tables")]
            _ => Ok(()),
        }
    }
}
