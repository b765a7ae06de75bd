//! `moonflow score`: the log-density of every row of a table.

use std::path::PathBuf;

use moonflow::Result;
use moonflow::data::Table;
use moonflow::model::Model;

use super::output;
use super::tune::{TunedDeviceArgs, Work};

/// Arguments of `moonflow score`.
#[derive(clap::Args)]
pub struct ScoreArgs {
    /// Model file that `moonflow train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// CSV file with the model's columns, in any order; `-` reads standard input
    data: PathBuf,
    /// Write here instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

/// Writes one column, `log_prob`: nats, in the user's units, a line per row.
///
/// # Errors
/// When the model or table cannot be read or do not fit each other, and those of the engine and the output.
pub async fn run(args: ScoreArgs) -> Result<()> {
    let model = Model::load(&args.model)?;
    let table = Table::read(&args.data)?;
    let rows = model.arrange(&table)?;
    let mut engine = args.device.engine(model.flow.clone()).await?;
    args.device.tune(&mut engine, Work::Evaluation(rows.len() / model.flow.features)).await?;
    let log_prob = model.log_prob(&mut engine, &rows).await?;
    let not_finite = log_prob.iter().filter(|value| !value.is_finite()).count();
    if not_finite > 0 {
        output::note(format_args!(
            "warning: the log-density of {not_finite} of {} rows is not finite; they lie far outside of the training data",
            log_prob.len()
        ));
    }
    output::write(args.out.as_deref(), |out| Table::write_csv(&["log_prob".into()], &log_prob, out))
}
