//! The fused plan for narrow networks: a training step in three dispatches, an evaluation in one.
//!
//! A workgroup carries a block of rows through the whole flow with its activations in workgroup memory. [`shape`]
//! decides how large the block is and whether it fits a device, [`layout`] lays weights out for it, and the plans of
//! training and evaluation have the same form as the layered ones.

mod evaluation;
pub mod layout;
pub mod shape;
mod training;

pub use layout::FusedLayout;
use layout::Work;
pub use shape::Shape;
