//! Tables written in pieces, in every format that is read: the way out for scores and samples.

mod destination;
#[cfg(feature = "tables")]
mod npy;
#[cfg(feature = "tables")]
mod parquet;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use super::format::{Encoding, Format};
use super::reading::ValueKind;
use crate::error::{Error, Remedy, Result};
use crate::shown::{shown_list, shown_path};
use destination::Destination;
use text::TextWriter;

/// A table that is written to a file or to standard output.
///
/// A file is whole or not there: it takes its place in [`TableWriter::finish`], and a writer that is dropped before
/// leaves nothing behind. Standard output gets the rows as they come.
///
/// # Examples
/// ```no_run
/// use moonflow::data::TableWriter;
/// use std::path::Path;
///
/// # fn main() -> moonflow::Result<()> {
/// let columns = ["a", "b"].map(String::from);
/// let mut writer = TableWriter::create(Some(Path::new("rows.csv.gz")), None, &[], &columns)?;
/// writer.write(&[], &[1.0, 2.0, 3.0, 4.0])?; // row-major [2, 2]
/// writer.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct TableWriter {
    name: PathBuf,
    texts: usize,
    numbers: usize,
    sink: Sink,
}

enum Sink {
    Text(Box<TextWriter>),
    #[cfg(feature = "tables")]
    Npy(Box<npy::NpyWriter>),
    #[cfg(feature = "tables")]
    Parquet(Box<parquet::ParquetWriter>),
}

impl TableWriter {
    /// Begins a table in the file `path`; `None` and `-` are standard output. The format is `wanted`, else what the
    /// name ends in, else CSV. Its columns are `texts`, then `numbers`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be made; [`Error::Argument`] for texts in NPY, which holds numbers only.
    pub fn create(
        path: Option<&Path>,
        wanted: Option<Encoding>,
        texts: &[String],
        numbers: &[String],
    ) -> Result<Self> {
        let order: Vec<usize> = (0..texts.len() + numbers.len()).collect();
        let numbers: Vec<_> = numbers.iter().map(|name| (name.clone(), ValueKind::Number)).collect();
        Self::create_typed(path, wanted, texts, &numbers, &order)
    }

    /// As [`TableWriter::create`], where numbers may stand for dates and times, which are written as such, and for truths,
    /// which Parquet has as such; and with the columns in another order: `order` has their places in `texts` and then
    /// `numbers`, each once.
    ///
    /// # Errors
    /// Those of [`TableWriter::create`]; [`Error::Argument`] when `order` is none.
    pub fn create_typed(
        path: Option<&Path>,
        wanted: Option<Encoding>,
        texts: &[String],
        numbers: &[(String, ValueKind)],
        order: &[usize],
    ) -> Result<Self> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..texts.len() + numbers.len()) {
            return Err(Error::Argument("every column to write needs one place".into()));
        }
        let path = path.filter(|path| path.as_os_str() != "-");
        let encoding = Encoding::of_path(path, wanted);
        let name = path.unwrap_or(Path::new("standard output")).to_path_buf();
        if encoding.format == Format::Npy && !texts.is_empty() {
            let error = Error::Argument(format!(
                "{}: NPY holds numbers only, and the columns {} are passed through as text",
                shown_path(&name),
                shown_list(texts)
            ));
            return Err(error.advise(Remedy::DropTexts));
        }
        #[cfg(not(feature = "tables"))]
        if encoding != Encoding::CSV && encoding.format != Format::Tsv {
            let name = shown_path(&name);
            return Err(Error::Argument(format!(
                "{name}: this build writes plain CSV only; build with the feature `tables`"
            )));
        }
        let open = || -> io::Result<Sink> {
            let destination = Destination::open(path)?;
            Ok(match encoding.format {
                #[cfg(feature = "tables")]
                Format::Npy => Sink::Npy(Box::new(npy::NpyWriter::new(destination, path, numbers.len())?)),
                #[cfg(feature = "tables")]
                Format::Parquet => {
                    Sink::Parquet(Box::new(parquet::ParquetWriter::new(destination, texts, numbers, order)?))
                }
                _ => Sink::Text(Box::new(TextWriter::new(destination, encoding, texts, numbers, order)?)),
            })
        };
        let sink = open().map_err(|error| Error::io(&name, error))?;
        Ok(Self { name, texts: texts.len(), numbers: numbers.len(), sink })
    }

    /// Appends rows: `texts`, one list of B cells for each column, and `numbers`, row-major [B, D].
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails; [`Error::Length`] when the columns do not have the same rows.
    pub fn write(&mut self, texts: &[Vec<String>], numbers: &[f64]) -> Result<()> {
        crate::error::expect_length("columns of text", texts.len(), self.texts)?;
        let texts_alone = texts.first().map_or(0, Vec::len);
        let rows = numbers.len().checked_div(self.numbers).unwrap_or(texts_alone);
        crate::error::expect_length("numbers to write", numbers.len(), rows * self.numbers)?;
        for cells in texts {
            crate::error::expect_length("cells of a column of text", cells.len(), rows)?;
        }
        match &mut self.sink {
            Sink::Text(writer) => writer.write(texts, numbers, rows),
            #[cfg(feature = "tables")]
            Sink::Npy(writer) => writer.write(numbers, rows),
            #[cfg(feature = "tables")]
            Sink::Parquet(writer) => writer.write(texts, numbers),
        }
        .map_err(|error| Error::io(&self.name, error))
    }

    /// Ends the table and puts its file in place.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails.
    pub fn finish(self) -> Result<()> {
        match self.sink {
            Sink::Text(writer) => writer.finish(),
            #[cfg(feature = "tables")]
            Sink::Npy(writer) => writer.finish(),
            #[cfg(feature = "tables")]
            Sink::Parquet(writer) => writer.finish(),
        }
        .and_then(Destination::commit)
        .map_err(|error| Error::io(&self.name, error))
    }
}
