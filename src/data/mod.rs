//! Where rows come from: a table of numbers or a toy density, split into training and validation rows.
//! This is the first stage of the data's way; everything here is in `f64` and in the user's own units, and
//! [`Preprocessing`] is the border to the standardised `f32` rows that the engines see.

mod columns;
mod dataset;
mod format;
mod input;
#[cfg(not(target_arch = "wasm32"))]
mod output;
mod preprocess;
#[cfg(not(target_arch = "wasm32"))]
mod read;
mod table;
mod test_rows;
mod toy;
#[cfg(not(target_arch = "wasm32"))]
mod write;

pub(crate) use columns::repeated;
pub use columns::{Selection, find_columns, near_matches, unknown_column};
pub use dataset::Dataset;
pub use format::{Compression, Encoding, Format};
pub use input::{Chunk, Missing, Reader, Rows, chunk_rows};
#[cfg(not(target_arch = "wasm32"))]
pub use output::TableWriter;
pub use preprocess::{
    Bounds, ColumnSteps, Johnson, Knot, Margins, MonotoneCurve, Preprocessed, Preprocessing,
    PreprocessingPlan, Standardise, Standardiser, Whitening,
};
#[cfg(not(target_arch = "wasm32"))]
pub use read::{open_regular, read_text};
pub use table::Table;
pub use toy::{Toy, ToyDensity};
#[cfg(not(target_arch = "wasm32"))]
pub use write::{remove_stale, remove_unfinished, write_atomically};
