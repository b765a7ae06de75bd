//! `moonflow sample`: new rows from a model.

use std::path::PathBuf;

use moonflow::Result;
use moonflow::data::Table;
use moonflow::engine::Sampling;
use moonflow::model::Model;

use super::tune::{TunedDeviceArgs, Work};
use super::{output, values};

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
    /// Write here instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

/// Writes the rows as CSV under the training data's column names, in the user's units.
///
/// # Errors
/// When the model cannot be read, and those of the engine and the output.
pub async fn run(args: SampleArgs) -> Result<()> {
    let model = Model::load(&args.model)?;
    let mut engine = args.device.engine(model.flow.clone()).await?;
    args.device.tune(&mut engine, Work::Evaluation(args.rows as usize)).await?;
    let sampling =
        Sampling { rows: args.rows as usize, first: 0, seed: args.seed, temperature: args.temperature };
    let rows = model.sample(&mut engine, sampling).await?;
    output::write(args.out.as_deref(), |out| Table::write_csv(&model.columns, &rows, out))
}
