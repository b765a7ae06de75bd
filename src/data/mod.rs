//! Where rows come from: a table of numbers or a toy density, split into training and validation rows.
//! This is the first stage of the data's way; everything here is in `f64` and in the user's own units, and
//! [`Preprocessing`] is the border to the standardised `f32` rows that the engines see.

mod columns;
mod dataset;
mod format;
mod input;
mod johnson;
#[cfg(not(target_arch = "wasm32"))]
mod output;
mod preprocess;
#[cfg(not(target_arch = "wasm32"))]
mod read;
mod standardiser;
mod steps;
mod table;
mod test_rows;
mod toy;
mod whitening;
#[cfg(not(target_arch = "wasm32"))]
mod write;

pub(crate) use columns::repeated;
pub use columns::{Selection, find_columns, near_matches, unknown_column};
pub use dataset::Dataset;
pub use format::{Compression, Encoding, Format};
pub use input::{Chunk, Missing, Reader, Rows, chunk_rows};
pub use johnson::Johnson;
#[cfg(not(target_arch = "wasm32"))]
pub use output::TableWriter;
pub use preprocess::{Preprocessed, Preprocessing, PreprocessingPlan, Standardise};
#[cfg(not(target_arch = "wasm32"))]
pub use read::{open_regular, read_text};
pub use standardiser::Standardiser;
pub use steps::{Bounds, Steps};
pub use table::Table;
pub use toy::{Toy, ToyDensity};
pub use whitening::Whitening;
#[cfg(not(target_arch = "wasm32"))]
pub use write::{remove_stale, remove_unfinished, write_atomically};
