//! `moonflow score`: the log-density of every row of a table, chunk by chunk.

use std::path::PathBuf;

use moonflow::Result;
use moonflow::data::{Encoding, TableWriter, chunk_rows};
use moonflow::engine::Engine;
use moonflow::model::{Engines, TableModel, median_loss};
use moonflow::shown::shown;

use super::columns::{self, TableArgs};
use super::output;
use super::progress::RowProgress;
use super::ranges::Ranges;
use super::table_notes;
use super::tune::TunedDeviceArgs;

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
    /// Write the gradient of the log-density too: a column grad_NAME behind it for each column of the model
    #[arg(long)]
    gradient: bool,
    /// Format of the output, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = columns::encoding)]
    out_format: Option<Encoding>,
    #[command(flatten)]
    device: TunedDeviceArgs,
}

/// Name of the column that is written.
const LOG_PROB: &str = "log_prob";

/// Names of the columns that are written.
fn names(model: &TableModel, gradient: bool) -> Vec<String> {
    let columns = if gradient { model.gradient_columns() } else { Vec::new() };
    std::iter::once(LOG_PROB.to_owned()).chain(columns.iter().map(|name| format!("grad_{name}"))).collect()
}

/// log p of each row of a chunk, and with `gradient` its gradient behind it.
async fn score<E: Engine>(
    model: &TableModel,
    engines: &mut Engines<E>,
    rows: &[f64],
    gradient: bool,
) -> Result<Vec<f64>> {
    let log_prob = model.log_prob(engines, rows).await?;
    if !gradient {
        return Ok(log_prob);
    }
    let scores = model.score(engines, rows).await?;
    let scores = scores.chunks_exact(model.gradient_columns().len());
    Ok(log_prob.iter().zip(scores).flat_map(|(log_prob, score)| [&[*log_prob], score].concat()).collect())
}

/// Writes the column `log_prob`: nats, in the user's units, a line per row; behind the table's other columns.
///
/// # Errors
/// When the output is the model or the table, or these cannot be read or do not fit each other, and those of the engine and
/// the output.
pub async fn run(args: ScoreArgs) -> Result<()> {
    output::Inputs::new([args.model.as_path(), &args.data]).spare(args.out.as_deref())?;
    let model = TableModel::load(&args.model)?;
    let mut rows = args.table.open_for(&model, &args.data)?;
    let names = names(&model, args.gradient);
    if let Some(name) = rows.extras().iter().find(|name| names.contains(name)) {
        let name = shown(name);
        return Err(moonflow::Error::data(
            args.data.display().to_string(),
            format!("has a column `{name}` of its own; leave it out with --drop {name}, or rename it"),
        ));
    }
    let limit = chunk_rows(model.columns().len() + rows.extras().len() + names.len() - 1);
    // Before the output is begun: most tables that cannot be read say so in their first rows.
    let mut next = rows.next(limit)?;
    let mut engines = args.device.engines(&model, next.as_ref().map_or(1, |chunk| chunk.rows)).await?;
    let mut writer = TableWriter::create(args.out.as_deref(), args.out_format, rows.extras(), &names)?;
    let mut progress = RowProgress::new("scoring");
    let (mut scored, mut not_finite, mut outside, mut losses) = (0, 0, 0, Losses::default());
    let mut ranges = Ranges::new(&model);
    while let Some(chunk) = next {
        let results = score(&model, &mut engines, &chunk.numbers, args.gradient).await?;
        let cells = chunk.numbers.chunks_exact(model.columns().len());
        outside += cells.clone().filter(|row| !model.accepts(row)).count();
        let modelled = model.columns().len() - model.context();
        let context: Vec<f64> = cells.flat_map(|row| &row[modelled..]).copied().collect();
        ranges.see(&model, &context, |row| format!("{} {}", rows.unit(), chunk.places[row]))?;
        let log_probs = results.iter().step_by(names.len());
        not_finite += log_probs.clone().filter(|value| !value.is_finite()).count();
        log_probs.for_each(|&log_prob| losses.add(log_prob));
        scored += results.len() / names.len();
        writer.write(&chunk.extras, &results)?;
        progress.update(scored as u64, rows.fraction());
        next = rows.next(limit)?;
    }
    writer.finish()?;
    progress.finish();
    columns::report_dropped(rows.dropped());
    table_notes::report_kinds(&rows.columns(), &rows.kinds());
    ranges.report(&model);
    if outside > 0 {
        output::note(format_args!(
            "note: {outside} of {scored} rows lie outside of the model's bounds, or between the values of a dequantised column: \
             their log-density is -inf"
        ));
    }
    not_finite -= outside;
    if not_finite > 0 {
        output::note(format_args!(
            "warning: the log-density of {not_finite} of {scored} rows is not finite; they lie far outside of the training data"
        ));
    }
    losses.describe(scored as u64).iter().for_each(output::note);
    Ok(())
}

/// The finite losses of rows, as far as their mean and their median need them.
#[derive(Default)]
struct Losses {
    sum: f64,
    count: u64,
    /// log p of every `2^halvings`-th of them.
    kept: Vec<f64>,
    halvings: u32,
}

impl Losses {
    /// Most losses that are kept, so that a long table takes no more memory than that. The median of so many is as good as
    /// that of all.
    const MOST: usize = 1 << 20;

    fn add(&mut self, log_prob: f64) {
        if !log_prob.is_finite() {
            return;
        }
        if self.count.is_multiple_of(1 << self.halvings) {
            self.kept.push(log_prob);
        }
        self.sum -= log_prob;
        self.count += 1;
        if self.kept.len() > Self::MOST {
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.halvings += 1;
        }
    }

    /// Mean and median, of `rows` rows; nothing where none has a finite loss.
    fn describe(self, rows: u64) -> Option<String> {
        let (mean, median) = (self.sum / self.count as f64, median_loss(&self.kept)?);
        let counted = output::grouped(self.count);
        let of = match rows - self.count {
            0 if rows == 1 => "1 row".to_owned(),
            0 => format!("{counted} rows"),
            _ => format!("the {counted} rows of {} with a finite one", output::grouped(rows)),
        };
        Some(format!("note: mean NLL {mean:.4} nats, median {median:.4}, of {of}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(losses: impl Iterator<Item = f64>) -> Option<String> {
        let (mut all, mut rows) = (Losses::default(), 0);
        for loss in losses {
            all.add(-loss);
            rows += 1;
        }
        all.describe(rows)
    }

    #[test]
    fn losses_are_summed_up_and_those_that_are_not_finite_are_left_out() {
        let said = |losses: &[f64]| described(losses.iter().copied());
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[f64::INFINITY]), None);
        assert_eq!(said(&[2.5]).as_deref(), Some("note: mean NLL 2.5000 nats, median 2.5000, of 1 row"));
        let want = "note: mean NLL 4.0000 nats, median 2.0000, of 3 rows";
        assert_eq!(said(&[9.0, 1.0, 2.0]).as_deref(), Some(want));
        let want = "note: mean NLL 3.7500 nats, median 2.5000, of the 4 rows of 6 with a finite one";
        assert_eq!(said(&[9.0, f64::INFINITY, 1.0, 2.0, f64::NAN, 3.0]).as_deref(), Some(want));
    }

    #[test]
    fn the_median_of_very_many_rows_is_that_of_some_of_them() {
        let rows = 5 * Losses::MOST as u64;
        let mut losses = Losses::default();
        (0..rows)
            .for_each(|row| losses.add(-((row.wrapping_mul(2_654_435_761) % rows) as f64 / rows as f64)));
        assert!(losses.kept.len() <= Losses::MOST && losses.count == rows);
        let said = losses.describe(rows).expect("rows");
        assert!(said.contains("mean NLL 0.5000 nats, median 0.5") || said.contains("median 0.49"), "{said}");
    }
}
