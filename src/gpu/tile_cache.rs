//! Tiles that were measured, in a file: by adapter, driver and shape. Read and written only where a caller says so.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::adapter::Context;
use super::autotune::Measured;
use super::tile::{Product, Tile, Tiling};
use crate::error::{Error, Result};
use crate::files::write_atomically;

/// Version of the file; another one is ignored.
const FORMAT: u32 = 1;

/// What was measured, on any adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TileCache {
    format: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    adapter: String,
    driver: String,
    kernel: String,
    rows: usize,
    inputs: usize,
    outputs: usize,
    tile: Tile,
    microseconds: f64,
}

impl TileCache {
    /// Reads a cache file. One that is not there is empty; so is one that cannot be used, with the reason.
    pub fn read(path: &Path) -> (Self, Option<String>) {
        let unusable = |reason: String| {
            let note = format!("{}: ignored, {reason}", path.display());
            (Self::default(), Some(note))
        };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (Self::default(), None),
            Err(error) => return unusable(error.to_string()),
        };
        match serde_json::from_slice::<Self>(&text) {
            Err(error) => unusable(format!("no cache of tiles: {error}")),
            Ok(cache) if cache.format != FORMAT => {
                unusable(format!("its format is {}, expected {FORMAT}", cache.format))
            }
            Ok(cache) => (cache, None),
        }
    }

    /// Writes the cache, whole or not at all, and makes its folder.
    ///
    /// # Errors
    /// [`Error::Io`] of the file or its folder.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        let text = serde_json::to_string_pretty(&Self { format: FORMAT, ..self.clone() });
        let text = text.map_err(|error| Error::io(path, error.into()))?;
        write_atomically(path, |out| writeln!(out, "{text}"))
    }

    /// What was measured on the device of `context`. Entries of unknown kernels or impossible tiles are left out.
    pub fn tiling(&self, context: &Context) -> Tiling {
        let mut tiling = Tiling::on(&context.target());
        for entry in self.entries.iter().filter(|entry| entry.is_of(context) && entry.tile.is_portable()) {
            if let Some(kernel) = Product::kernel_named(&entry.kernel) {
                let &Entry { rows, inputs, outputs, tile, .. } = entry;
                tiling.insert(Product { kernel, rows, inputs, outputs }, tile);
            }
        }
        tiling
    }

    /// Adds what was measured on the device of `context`, in the place of what there was for the same products.
    pub fn insert(&mut self, context: &Context, measured: &[Measured]) {
        for Measured { product, tile, seconds, .. } in measured {
            let same = |entry: &Entry| {
                entry.is_of(context)
                    && entry.kernel == product.kernel
                    && [entry.rows, entry.inputs, entry.outputs]
                        == [product.rows, product.inputs, product.outputs]
            };
            self.entries.retain(|entry| !same(entry));
            self.entries.push(Entry {
                adapter: context.info().name.clone(),
                driver: context.driver().to_owned(),
                kernel: product.kernel.to_owned(),
                rows: product.rows,
                inputs: product.inputs,
                outputs: product.outputs,
                tile: *tile,
                microseconds: 1e6 * seconds,
            });
        }
    }
}

impl Entry {
    fn is_of(&self, context: &Context) -> bool {
        self.adapter == context.info().name && self.driver == context.driver()
    }
}
