//! CSV and TSV, compressed or not.

use std::io::{self, Write};

use super::Destination;
use crate::data::format::{Compression, Encoding, Format};
use crate::data::reading::ValueKind;
use crate::data::table::{io_error, write_csv_row};

/// Writes rows as lines.
pub(super) struct TextWriter {
    out: csv::Writer<Compressed>,
    digits: Vec<u8>,
    /// Places of the columns in the texts and then the numbers; empty where that is their order and numbers are numbers.
    order: Vec<usize>,
    kinds: Vec<ValueKind>,
}

impl TextWriter {
    pub(super) fn new(
        destination: Destination,
        encoding: Encoding,
        texts: &[String],
        numbers: &[(String, ValueKind)],
        order: &[usize],
    ) -> io::Result<Self> {
        let delimiter = if encoding.format == Format::Tsv { b'\t' } else { b',' };
        let compressed = Compressed::new(destination, encoding.compression)?;
        let mut out = csv::WriterBuilder::new().delimiter(delimiter).from_writer(compressed);
        let names: Vec<&String> = texts.iter().chain(numbers.iter().map(|(name, _)| name)).collect();
        out.write_record(order.iter().map(|&place| names[place])).map_err(io_error)?;
        let kinds: Vec<ValueKind> = numbers.iter().map(|(_, kind)| *kind).collect();
        let is_plain = order.is_sorted() && kinds.iter().all(|kind| *kind == ValueKind::Number);
        let order = if is_plain { Vec::new() } else { order.to_vec() };
        Ok(Self { out, digits: Vec::new(), order, kinds })
    }

    pub(super) fn write(&mut self, texts: &[Vec<String>], numbers: &[f64], rows: usize) -> io::Result<()> {
        let width = numbers.len() / rows.max(1);
        for row in 0..rows {
            let numbers = &numbers[row * width..(row + 1) * width];
            if !self.order.is_empty() {
                self.write_in_order(texts, numbers, row)?;
                continue;
            }
            for cells in texts {
                self.out.write_field(&cells[row]).map_err(io_error)?;
            }
            write_csv_row(&mut self.out, &mut self.digits, numbers)?;
            self.out.write_record(None::<&[u8]>).map_err(io_error)?;
        }
        Ok(())
    }

    fn write_in_order(&mut self, texts: &[Vec<String>], numbers: &[f64], row: usize) -> io::Result<()> {
        for &place in &self.order {
            let Some(place) = place.checked_sub(texts.len()) else {
                self.out.write_field(&texts[place][row]).map_err(io_error)?;
                continue;
            };
            match self.kinds[place] {
                ValueKind::Number => {
                    write_csv_row(&mut self.out, &mut self.digits, &numbers[place..=place])?;
                }
                ValueKind::Truth => {
                    self.out.write_field((numbers[place] != 0.0).to_string()).map_err(io_error)?;
                }
                ValueKind::Time(format) => {
                    self.out.write_field(format.text(numbers[place])).map_err(io_error)?;
                }
            }
        }
        self.out.write_record(None::<&[u8]>).map_err(io_error)
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
