//! `moonflow score`: the log-density of every row of a table, chunk by chunk.

use std::path::PathBuf;

use moonflow::Result;
use moonflow::data::{Encoding, TableWriter, chunk_rows};
use moonflow::model::Model;

use super::columns::{self, TableArgs};
use super::memory;
use super::output;
use super::progress::RowProgress;
use super::tune::{TunedDeviceArgs, Work};

/// Arguments of `moonflow score`.
#[derive(clap::Args)]
pub struct ScoreArgs {
    /// Model file that `moonflow train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Table with the model's columns, in any order: .csv, .tsv (.gz and .zst too), .npy or .parquet; `-` reads CSV
    /// from standard input. Other columns are passed on to the output, before `log_prob`
    data: PathBuf,
    #[command(flatten)]
    table: TableArgs,
    /// Write here instead of standard output, in the format that the name ends in
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Format of the output, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = columns::encoding)]
    out_format: Option<Encoding>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

/// Name of the column that is written.
const LOG_PROB: &str = "log_prob";

/// Writes one column, `log_prob`: nats, in the user's units, a line per row; behind the table's other columns.
///
/// # Errors
/// When the output is the model or the table, or these cannot be read or do not fit each other, and those of the engine and
/// the output.
pub async fn run(args: ScoreArgs) -> Result<()> {
    output::Inputs::new([args.model.as_path(), &args.data]).spare(args.out.as_deref())?;
    let model = Model::load(&args.model)?;
    let mut rows = args.table.open_for(&model, &args.data)?;
    if rows.extras().iter().any(|name| name == LOG_PROB) {
        return Err(moonflow::Error::data(
            args.data.display().to_string(),
            format!(
                "has a column `{LOG_PROB}` of its own; leave it out with --drop {LOG_PROB}, or rename it"
            ),
        ));
    }
    let limit = chunk_rows(model.columns.len() + rows.extras().len());
    // Before the output is begun: most tables that cannot be read say so in their first rows.
    let mut next = rows.next(limit)?;
    memory::check_model(&model)?;
    let mut engine = args.device.engine(model.flow.clone()).await?;
    args.device.tune(&mut engine, Work::Evaluation(next.as_ref().map_or(1, |chunk| chunk.rows))).await?;
    let mut writer =
        TableWriter::create(args.out.as_deref(), args.out_format, rows.extras(), &[LOG_PROB.to_owned()])?;
    let mut progress = RowProgress::new("scoring");
    let (mut scored, mut not_finite, mut outside) = (0, 0, 0);
    while let Some(chunk) = next {
        let log_prob = model.log_prob(&mut engine, &chunk.numbers).await?;
        if !model.preprocessing.is_plain() {
            let rows = chunk.numbers.chunks_exact(model.columns.len());
            outside += rows.filter(|row| !model.preprocessing.accepts(row)).count();
        }
        not_finite += log_prob.iter().filter(|value| !value.is_finite()).count();
        scored += log_prob.len();
        writer.write(&chunk.extras, &log_prob)?;
        progress.update(scored as u64, rows.fraction());
        next = rows.next(limit)?;
    }
    writer.finish()?;
    progress.finish();
    columns::report_dropped(rows.dropped());
    if outside > 0 {
        output::note(format_args!(
            "note: {outside} of {scored} rows lie outside of the model's bounds, or are not whole where it has whole \
             numbers: their log-density is -inf"
        ));
    }
    not_finite -= outside;
    if not_finite > 0 {
        output::note(format_args!(
            "warning: the log-density of {not_finite} of {scored} rows is not finite; they lie far outside of the training data"
        ));
    }
    Ok(())
}
