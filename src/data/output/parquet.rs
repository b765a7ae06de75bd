//! Parquet: texts as UTF-8 strings, numbers as doubles, compressed by Snappy.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::Destination;

/// Values of a row group: 16 MB of numbers.
const GROUP_VALUES: usize = 1 << 21;

/// Collects rows for a row group and writes it when it is full.
pub(super) struct ParquetWriter {
    writer: SerializedFileWriter<Destination>,
    texts: Vec<Vec<ByteArray>>,
    /// A list for each column of numbers.
    numbers: Vec<Vec<f64>>,
    /// Places of the file's columns in the texts and then the numbers.
    order: Vec<usize>,
}

impl ParquetWriter {
    pub(super) fn new(
        destination: Destination,
        texts: &[String],
        numbers: &[String],
        order: &[usize],
    ) -> io::Result<Self> {
        let text = |name: &String| {
            let column = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY);
            column.with_repetition(Repetition::REQUIRED).with_logical_type(Some(LogicalType::String)).build()
        };
        let number = |name: &String| {
            let column = Type::primitive_type_builder(name, PhysicalType::DOUBLE);
            column.with_repetition(Repetition::REQUIRED).build()
        };
        let columns = texts.iter().map(text).chain(numbers.iter().map(number));
        let columns: Vec<Arc<Type>> =
            columns.map(|column| column.map(Arc::new)).collect::<Result<_, _>>().map_err(io_error)?;
        let columns = order.iter().map(|&place| Arc::clone(&columns[place])).collect();
        let schema = Type::group_type_builder("schema").with_fields(columns).build().map_err(io_error)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(destination, Arc::new(schema), Arc::new(properties))
            .map_err(io_error)?;
        let (texts, numbers) = (vec![Vec::new(); texts.len()], vec![Vec::new(); numbers.len()]);
        Ok(Self { writer, texts, numbers, order: order.to_vec() })
    }

    pub(super) fn write(&mut self, texts: &[Vec<String>], numbers: &[f64]) -> io::Result<()> {
        for (column, cells) in self.texts.iter_mut().zip(texts) {
            column.extend(cells.iter().map(|cell| ByteArray::from(cell.as_str())));
        }
        let columns = self.numbers.len();
        for (index, column) in self.numbers.iter_mut().enumerate() {
            column.extend(numbers.iter().skip(index).step_by(columns));
        }
        let rows = self.rows();
        if rows * (columns + self.texts.len()) >= GROUP_VALUES { self.close_group() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<Destination> {
        if self.rows() > 0 {
            self.close_group()?;
        }
        self.writer.into_inner().map_err(io_error)
    }

    /// Rows that are not written yet.
    fn rows(&self) -> usize {
        let texts = self.texts.first().map_or(0, Vec::len);
        self.numbers.first().map_or(texts, Vec::len)
    }

    fn close_group(&mut self) -> io::Result<()> {
        let mut write = || -> Result<(), ParquetError> {
            let mut group = self.writer.next_row_group()?;
            for &place in &self.order {
                let Some(mut writer) = group.next_column()? else { continue };
                match place.checked_sub(self.texts.len()) {
                    None => writer.typed::<ByteArrayType>().write_batch(&self.texts[place], None, None)?,
                    Some(place) => {
                        writer.typed::<DoubleType>().write_batch(&self.numbers[place], None, None)?
                    }
                };
                writer.close()?;
            }
            self.texts.iter_mut().for_each(Vec::clear);
            self.numbers.iter_mut().for_each(Vec::clear);
            group.close()?;
            Ok(())
        };
        write().map_err(io_error)
    }
}

/// The error of the file below, by which a closed pipe is told apart.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}
