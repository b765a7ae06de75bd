//! Where rows come from: a table of numbers or a toy density, split into training and validation rows.
//! This is the first stage of the data's way; everything here is in `f64` and in the user's own units, and a
//! [`Standardiser`] is the border to the standardised `f32` rows that the engines see.

mod dataset;
mod standardiser;
mod table;
mod test_rows;
mod toy;
mod whitening;
#[cfg(not(target_arch = "wasm32"))]
mod write;

pub use dataset::Dataset;
pub use standardiser::Standardiser;
pub use table::Table;
pub use toy::{Toy, ToyDensity};
pub use whitening::Whitening;
#[cfg(not(target_arch = "wasm32"))]
pub use write::write_atomically;
