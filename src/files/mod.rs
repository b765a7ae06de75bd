//! Files of any content: regular ones that are read whole, and ones that are written whole or not at all.
//! Tables, models, checkpoints, pictures and settings are all read and written through here.

mod read;
mod write;

pub use read::{open_regular, read_text};
pub(crate) use write::AtomicFile;
pub use write::{remove_stale, remove_unfinished, write_atomically};
