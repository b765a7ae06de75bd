//! `moonflow sample`: new rows from a model.

use std::path::PathBuf;

use moonflow::Result;
use moonflow::data::{Encoding, TableWriter, chunk_rows};
use moonflow::engine::Sampling;
use moonflow::model::Model;

use super::progress::RowProgress;
use super::tune::{TunedDeviceArgs, Work};
use super::{columns, values};

/// Arguments of `moonflow sample`.
#[derive(clap::Args)]
pub struct SampleArgs {
    /// Model file that `moonflow train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Number of rows
    #[arg(short = 'n', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rows: u32,
    /// Seed of the latent noise: the same seed, model and device give the same rows
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    seed: u64,
    /// Factor on the latent noise: 1 samples the model, less stays nearer to its modes
    #[arg(long, value_name = "F", allow_negative_numbers = true, default_value = "1", value_parser = values::temperature)]
    temperature: f32,
    /// Write here instead of standard output: .csv, .tsv (.gz and .zst too), .npy or .parquet
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Format of the output, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = columns::encoding)]
    format: Option<Encoding>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

/// Writes the rows under the training data's column names, in the user's units, chunk by chunk.
///
/// # Errors
/// When the model cannot be read, and those of the engine and the output.
pub async fn run(args: SampleArgs) -> Result<()> {
    let model = Model::load(&args.model)?;
    let mut engine = args.device.engine(model.flow.clone()).await?;
    let limit = chunk_rows(model.columns.len()) as u32;
    args.device.tune(&mut engine, Work::Evaluation(limit.min(args.rows) as usize)).await?;
    let mut writer = TableWriter::create(args.out.as_deref(), args.format, &[], &model.columns)?;
    let mut progress = RowProgress::new("sampling");
    let mut first = 0;
    while first < args.rows {
        let rows = limit.min(args.rows - first);
        let sampling =
            Sampling { rows: rows as usize, first, seed: args.seed, temperature: args.temperature };
        writer.write(&[], &model.sample(&mut engine, sampling).await?)?;
        first += rows;
        progress.update(u64::from(first), Some(f64::from(first) / f64::from(args.rows)));
    }
    progress.finish();
    writer.finish()
}
