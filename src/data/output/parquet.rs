//! Parquet: texts as UTF-8 strings, numbers as doubles, truths, dates and times as such, compressed by Snappy.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, TimestampType, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::Destination;
use crate::data::reading::ValueKind;
use crate::data::time::TimeFormat;

/// Values of a row group: 16 MB of numbers.
const GROUP_VALUES: usize = 1 << 21;

/// Collects rows for a row group and writes it when it is full.
pub(super) struct ParquetWriter {
    writer: SerializedFileWriter<Destination>,
    texts: Vec<Vec<ByteArray>>,
    /// A list for each column of numbers.
    numbers: Vec<Vec<f64>>,
    kinds: Vec<ValueKind>,
    /// Places of the file's columns in the texts and then the numbers.
    order: Vec<usize>,
}

impl ParquetWriter {
    pub(super) fn new(
        destination: Destination,
        texts: &[String],
        numbers: &[(String, ValueKind)],
        order: &[usize],
    ) -> io::Result<Self> {
        let text = |name: &String| {
            let column = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY);
            column.with_repetition(Repetition::REQUIRED).with_logical_type(Some(LogicalType::String)).build()
        };
        let number = |(name, kind): &(String, ValueKind)| {
            let (physical, logical) = types(*kind);
            let column = Type::primitive_type_builder(name, physical);
            column.with_repetition(Repetition::REQUIRED).with_logical_type(logical).build()
        };
        let columns = texts.iter().map(text).chain(numbers.iter().map(number));
        let columns: Vec<Arc<Type>> =
            columns.map(|column| column.map(Arc::new)).collect::<Result<_, _>>().map_err(io_error)?;
        let columns = order.iter().map(|&place| Arc::clone(&columns[place])).collect();
        let schema = Type::group_type_builder("schema").with_fields(columns).build().map_err(io_error)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(destination, Arc::new(schema), Arc::new(properties))
            .map_err(io_error)?;
        let kinds = numbers.iter().map(|(_, kind)| *kind).collect();
        let (texts, numbers) = (vec![Vec::new(); texts.len()], vec![Vec::new(); numbers.len()]);
        Ok(Self { writer, texts, numbers, kinds, order: order.to_vec() })
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
                    Some(place) => write_numbers(&mut writer, self.kinds[place], &self.numbers[place])?,
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

/// What a column of numbers of this kind is in a file.
fn types(kind: ValueKind) -> (PhysicalType, Option<LogicalType>) {
    match kind {
        ValueKind::Number => (PhysicalType::DOUBLE, None),
        ValueKind::Truth => (PhysicalType::BOOLEAN, None),
        ValueKind::Time(TimeFormat { date: true, .. }) => (PhysicalType::INT32, Some(LogicalType::Date)),
        ValueKind::Time(TimeFormat { zoned, .. }) => {
            let stamp = TimestampType { is_adjusted_to_u_t_c: zoned, unit: TimeUnit::MICROS };
            (PhysicalType::INT64, Some(LogicalType::Timestamp(stamp)))
        }
    }
}

/// Writes a column of numbers; how many there were.
fn write_numbers(
    writer: &mut SerializedColumnWriter<'_>,
    kind: ValueKind,
    numbers: &[f64],
) -> Result<usize, ParquetError> {
    match kind {
        ValueKind::Number => writer.typed::<DoubleType>().write_batch(numbers, None, None),
        ValueKind::Truth => {
            let truths: Vec<bool> = numbers.iter().map(|&number| number != 0.0).collect();
            writer.typed::<BoolType>().write_batch(&truths, None, None)
        }
        ValueKind::Time(TimeFormat { date: true, .. }) => {
            let days: Vec<i32> = numbers.iter().map(|&seconds| TimeFormat::days(seconds) as i32).collect();
            writer.typed::<Int32Type>().write_batch(&days, None, None)
        }
        ValueKind::Time(format) => {
            let micros: Vec<i64> = numbers.iter().map(|&seconds| format.microseconds(seconds)).collect();
            writer.typed::<Int64Type>().write_batch(&micros, None, None)
        }
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
