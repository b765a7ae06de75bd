//! Where rows come from: a table of numbers or a toy density, split into training and validation rows.
//! Everything here is in `f64` and in the user's own units, and
//! [`Preprocessing`] is the border to the standardised `f32` rows that the engines see.

mod categories;
mod columns;
mod dataset;
mod far;
mod format;
mod input;
mod inspect;
#[cfg(not(target_arch = "wasm32"))]
mod output;
mod preprocess;
mod reading;
mod shared_values;
mod table;
mod test_rows;
mod time;
mod toy;

pub use categories::{Coding, ColumnType, Levels, TableColumn};
pub(crate) use columns::repeated;
pub use columns::{Selection, find_columns, near_matches, unknown_column};
pub use dataset::Dataset;
pub use format::{Compression, Encoding, Format};
pub use input::{Chunk, Missing, Reader, Rows, chunk_rows};
pub use inspect::{
    Atom, ColumnFindings, ColumnKind, Dependence, FarOut, Inspection, Odd, Rank, Shape, Tails, Term,
};
#[cfg(not(target_arch = "wasm32"))]
pub use output::TableWriter;
pub(crate) use preprocess::CountedRows;
pub(crate) use preprocess::OwnMaps;
pub(crate) use preprocess::factorise;
pub use preprocess::{
    Atoms, Bounds, CategoryMoments, ColumnDomain, Grid, Johnson, Knot, LevelMoments, Margins, MonotoneCurve,
    Preprocessed, Preprocessing, PreprocessingPlan, Standardise, Standardiser, Whitening,
};
pub use reading::{Decimal, Delimiter, Dialect, Names, Reading, ValueKind};
pub use shared_values::SharedValues;
pub use table::Table;
pub use time::TimeFormat;
pub use toy::{Toy, ToyDensity};
