//! `moonflow plot`: the picture of a model.
use moonflow::Result;
use moonflow::engine::Engine;
use moonflow::model::Model;
use moonflow::train::History;
use std::path::{Path, PathBuf};
#[derive(clap::Args)]
pub struct PlotArgs {
    file: PathBuf,
}
pub async fn run(_args: PlotArgs) -> Result<()> {
    Ok(())
}
pub async fn draw<E: Engine>(
    _m: &Model,
    _e: &mut E,
    _d: Option<&[f64]>,
    _h: Option<&History>,
    _f: Option<f64>,
    _p: &Path,
) -> Result<()> {
    Ok(())
}
