//! The DATA argument: a toy density's name or a file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use moonflow::data::{Table, TableColumn, ToyDensity, near_matches};
use moonflow::model::DataSource;
use moonflow::shown::shown;
use moonflow::{Error, Result};

use super::columns;

/// Where rows come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A toy density.
    Toy(ToyDensity),
    /// A table's file, or `-` for standard input.
    File(PathBuf),
}

impl Source {
    /// What `text` names: a toy density first (`./moons` is a file), then a file.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is neither and does not look like a file's name: lists the toy densities.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(toy) = ToyDensity::parse(text) {
            return Ok(Self::Toy(toy));
        }
        let path = Path::new(text);
        let looks_like_a_file = path.extension().is_some() || path.components().count() > 1 || text == "-";
        if looks_like_a_file || path.exists() {
            return Ok(Self::File(path.to_owned()));
        }
        let near = near_matches(text, &ToyDensity::NAMES.map(String::from))
            .first()
            .map(|name| format!(" Did you mean `{name}`?"))
            .unwrap_or_default();
        Err(Error::Argument(format!(
            "there is no toy density and no file called `{}`.{near} The toy densities are {}; anything else is \
             the path of a table: CSV, TSV, NPY or Parquet",
            shown(text),
            ToyDensity::NAMES.join(", ")
        )))
    }

    /// The file that rows come from; `-` is standard input.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Toy(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// What pictures and the default folder are called: the density, or the file without folder and extensions.
    pub fn name(&self) -> String {
        match self {
            Self::Toy(toy) => toy.name().to_owned(),
            Self::File(path) if path.as_os_str() == "-" => "stdin".to_owned(),
            Self::File(path) => columns::stem(path),
        }
    }

    /// The rows and what their columns are; a toy density draws `rows` of them under `seed`, a file is read by `read`.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn table(
        &self,
        rows: usize,
        seed: u64,
        read: impl FnOnce(&Path) -> Result<(Table, Vec<TableColumn>)>,
    ) -> Result<(Table, Vec<TableColumn>)> {
        match self {
            Self::Toy(toy) => {
                let table = toy.table(rows, seed);
                let columns = table.columns.iter().map(TableColumn::number).collect();
                Ok((table, columns))
            }
            Self::File(path) => read(path),
        }
    }

    /// What the model file says of `table`.
    pub fn record(&self, table: &Table) -> DataSource {
        match self {
            Self::Toy(toy) => DataSource::toy(toy, table.rows()),
            Self::File(path) => {
                let name = path.file_name().unwrap_or(OsStr::new("-")).to_string_lossy();
                DataSource::table(name, table.rows())
            }
        }
    }

    /// The toy density, where it is one.
    pub fn toy(&self) -> Option<&ToyDensity> {
        match self {
            Self::Toy(toy) => Some(toy),
            Self::File(_) => None,
        }
    }

    /// Entropy of the true density in nats, where it is known.
    pub fn floor(&self) -> Option<f64> {
        self.toy().and_then(ToyDensity::entropy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_toys_paths_are_files_and_typos_are_helped() {
        assert!(matches!(Source::parse("moons"), Ok(Source::Toy(_))));
        for path in ["./moons", "data.csv", "a/b", "-"] {
            assert!(matches!(Source::parse(path), Ok(Source::File(_))), "{path}");
        }
        let message = Source::parse("moon").expect_err("a typo").to_string();
        assert!(message.contains("Did you mean `moons`?") && message.contains("circles"), "{message}");
        let message = Source::parse("zzz").expect_err("unlike any").to_string();
        assert!(!message.contains("Did you mean") && message.contains("swiss-roll"), "{message}");
    }

    #[test]
    fn names_drop_folder_and_extension() {
        for (text, name) in [("moons", "moons"), ("a/b.c.csv", "b.c"), ("b.csv.gz", "b"), ("-", "stdin")] {
            assert_eq!(Source::parse(text).expect("valid").name(), name);
        }
    }
}
