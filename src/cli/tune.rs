//! `--autotune`: a search for the fastest tiles on this machine's GPU, and the file that remembers what it found.

use std::path::PathBuf;

use moonflow::Result;
use moonflow::device::AnyEngine;
use moonflow::engine::TrainingShape;
use moonflow::flow::Flow;
use moonflow::gpu::GpuEngine;
use moonflow::gpu::autotune::Measured;
use moonflow::gpu::cost::si;
use moonflow::gpu::tile::Product;
use moonflow::gpu::tile_cache::TileCache;
use moonflow::model::{Engines, TableModel};

use super::device::DeviceArgs;
use super::output::note;

/// `--device`, and whether to search.
#[derive(clap::Args)]
pub struct TunedDeviceArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// On a GPU, measure which tiles its matrix products are fastest in, unless that is known, and keep it in the user's
    /// cache folder; no result depends on it
    #[arg(long)]
    autotune: bool,
}

/// What an engine is about to do, as far as tiles go.
pub enum Work {
    /// A training.
    Training(TrainingShape),
    /// Scoring or sampling so many rows.
    Evaluation(usize),
}

impl TunedDeviceArgs {
    /// An engine for `flow` on the device asked for.
    ///
    /// # Errors
    /// Those of [`DeviceArgs::engine`].
    pub async fn engine(&self, flow: Flow) -> Result<AnyEngine> {
        self.device.engine(flow).await
    }

    /// Engines for the members of `model` on the device asked for, tuned for `rows` rows at a time.
    ///
    /// # Errors
    /// Those of [`DeviceArgs::engines`] and [`TunedDeviceArgs::tune`].
    pub async fn engines(&self, model: &TableModel, rows: usize) -> Result<Engines<AnyEngine>> {
        let mut engines = self.device.engines(model).await?;
        for engine in engines.iter_mut() {
            self.tune(engine, Work::Evaluation(rows)).await?;
        }
        Ok(engines)
    }

    /// What `--device` was given.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// What `--plan` was given.
    pub fn plan(&self) -> &'static str {
        self.device.plan()
    }

    /// With `--autotune` on a GPU: measures what is not known yet for `work`, and remembers it. A cache that cannot
    /// be written costs the next run another search, and nothing else.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn tune(&self, engine: &mut AnyEngine, work: Work) -> Result<()> {
        if !self.autotune {
            return Ok(());
        }
        let AnyEngine::Gpu(engine) = engine else {
            note("note: --autotune is for GPUs; the CPU engine has nothing to search");
            return Ok(());
        };
        let measured = match work {
            Work::Training(shape) => engine.tune_training(&shape).await?,
            Work::Evaluation(rows) => engine.tune_evaluation(rows).await?,
        };
        for Measured { product, tile, seconds, default_seconds } in &measured {
            let Product { kernel, rows, inputs, outputs } = product;
            note(format_args!(
                "tuned    {kernel} {inputs}→{outputs}, {rows} rows: {tile}, {} instead of {}",
                si(*seconds, "s"),
                si(*default_seconds, "s")
            ));
        }
        if let (Some(path), false) = (cache_file(), measured.is_empty()) {
            // Read anew: another run may have added to it meanwhile.
            let (mut cache, _) = TileCache::read(&path);
            cache.insert(engine.context(), &measured);
            if let Err(error) = cache.write(&path) {
                note(format_args!("warning: {error}; what was measured is forgotten after this run"));
            }
        }
        Ok(())
    }
}

/// Gives an engine the tiles that were found on its device before. A cache that cannot be used is ignored with a note.
pub fn recall(engine: &mut GpuEngine) {
    let Some(path) = cache_file() else { return };
    let (cache, unusable) = TileCache::read(&path);
    if let Some(reason) = unusable {
        note(format_args!("note: {reason}; --autotune measures anew"));
    }
    engine.set_tiling(cache.tiling(engine.context()));
}

/// Where measured tiles are kept: the user's cache folder, if there is one.
fn cache_file() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("moonflow").join("tiles.json"))
}
