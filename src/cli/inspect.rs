//! `moonflow inspect`: what a table holds, and what to train it with.

use std::path::PathBuf;

use moonflow::data::Inspection;
use moonflow::shown::{shown, shown_path};
use moonflow::{Error, Result};
use serde::Serialize;

use super::columns::TableArgs;
use super::findings::{self, Advice, Settled, described, equation, quoted};
use super::output::{grouped, say};
use super::progress::RowProgress;

/// Arguments of `moonflow inspect`.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// Table to look at, read as `train` reads it; `-` reads CSV from standard input
    data: PathBuf,
    /// Write one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    table: TableArgs,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    table: String,
    #[serde(flatten)]
    found: &'a Inspection,
    advice: &'a [Advice],
    /// Columns of a few whole numbers, which may be codes.
    codes: Vec<String>,
}

/// Reads the table and says what each column holds, what stands out, and which flags of `train` suit it.
///
/// # Errors
/// When the table cannot be read.
pub fn run(args: &InspectArgs) -> Result<()> {
    let (reader, places) = args.table.open_columns(&args.data)?;
    let name = reader.name().to_owned();
    let mut progress = RowProgress::new("reading");
    let found = Inspection::of(reader, &places, |rows, share| progress.update(rows, share))?;
    progress.finish();
    let advice = findings::advice(&found, |_| Settled::default().with_missing(args.table.says_missing()));
    if args.json {
        let report = Report { table: name, found: &found, advice: &advice, codes: findings::codes(&found) };
        let line = serde_json::to_string(&report)
            .map_err(|error| Error::data(args.data.display().to_string(), error.to_string()))?;
        say(line);
    } else {
        args.print(&found, &advice);
    }
    Ok(())
}

impl InspectArgs {
    fn print(&self, found: &Inspection, advice: &[Advice]) {
        let columns = found.columns.len();
        let plural = if columns == 1 { "" } else { "s" };
        say(format_args!(
            "table    {}: {} rows, {columns} column{plural}",
            shown_path(&self.data),
            grouped(found.rows)
        ));
        for column in &found.columns {
            say(format_args!("column   `{}`: {}", shown(&column.name), described(column)));
        }
        for dependence in &found.dependences {
            say(format_args!("follows  {}", equation(dependence)));
        }
        let rank = found.rank;
        if rank.independent < rank.columns {
            say(format_args!("rank     {} of {} columns of numbers", rank.independent, rank.columns));
        }
        for advice in advice {
            say(format_args!("advice   {}: {}", advice.flag(), advice.reason));
        }
        let codes = findings::codes(found);
        if !codes.is_empty() {
            let flag = findings::flag("categorical", &codes.join(","));
            say(format_args!(
                "perhaps  {flag}: a few whole numbers, where they are codes and their order means nothing"
            ));
        }
        let given: Vec<_> =
            self.table.entries().into_iter().filter_map(|(flag, value)| Some((flag, value?))).collect();
        let advised = findings::flags(advice, &given);
        let given = given.into_iter().filter(|(flag, _)| advised.iter().all(|(advised, _)| advised != flag));
        let flags: Vec<String> =
            given.chain(advised.clone()).map(|(flag, value)| findings::flag(flag, &value)).collect();
        let words = [vec![quoted(&self.data.to_string_lossy())], flags].concat();
        say(format_args!("train    moonflow train {}", words.join(" ")));
    }
}
