//! `moonflow inspect`: what a table holds, and what to train it with.

use std::path::PathBuf;

use moonflow::data::{ColumnFindings, ColumnKind, Dependence, Inspection};
use moonflow::shown::{shown, shown_path};
use moonflow::{Error, Result};
use serde::Serialize;

use super::columns::TableArgs;
use super::output::{grouped, say};
use super::progress::RowProgress;
use super::table_notes::is_index_name;

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

/// Flags of `train` that suit a table.
#[derive(Default, Serialize)]
struct Advice {
    drop: Vec<String>,
    dequantize: Vec<String>,
    missing: Option<&'static str>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    table: String,
    #[serde(flatten)]
    found: &'a Inspection,
    advice: &'a Advice,
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
    let advice = Advice::of(&found);
    if args.json {
        let report = Report { table: name, found: &found, advice: &advice };
        let line = serde_json::to_string(&report)
            .map_err(|error| Error::data(args.data.display().to_string(), error.to_string()))?;
        say(line);
        return Ok(());
    }
    let columns = found.columns.len();
    let plural = if columns == 1 { "" } else { "s" };
    say(format_args!(
        "table    {}: {} rows, {columns} column{plural}",
        shown_path(&args.data),
        grouped(found.rows)
    ));
    for column in &found.columns {
        say(format_args!("column   `{}`: {}", shown(&column.name), described(column)));
    }
    for dependence in &found.dependences {
        say(format_args!("follows  {}", equation(dependence)));
    }
    say(format_args!("train    moonflow train {}{}", quoted(&args.data.to_string_lossy()), advice.flags()));
    Ok(())
}

/// What there is to say of a column.
fn described(column: &ColumnFindings) -> String {
    let mut parts = vec![match column.kind {
        ColumnKind::Number => "numbers".to_owned(),
        ColumnKind::Whole => "whole numbers".to_owned(),
        ColumnKind::Truth => "true or false".to_owned(),
        ColumnKind::Time => "dates or times, in seconds".to_owned(),
        ColumnKind::Text => "text".to_owned(),
        _ => "no values".to_owned(),
    }];
    if let Some([least, greatest]) = column.range {
        parts.push(format!("{least} to {greatest}"));
    }
    match column.different {
        Some(1) => parts.push("always the same".into()),
        Some(different) => parts.push(format!("{} different", grouped(different as u64))),
        None => parts.push("very many different".into()),
    }
    if let Some(grid) = column.grid.filter(|_| column.kind != ColumnKind::Time) {
        parts.push(format!("in steps of {grid}"));
    }
    if let Some(atom) = column.atom {
        parts.push(format!("{} in {:.1} % of the rows", atom.value, 100.0 * atom.share));
    }
    if column.missing > 0 {
        parts.push(format!("{} missing", grouped(column.missing)));
    }
    if let Some(odd) = &column.odd {
        parts.push(format!("unlike most is `{}` in {} {}", shown(&odd.cell), odd.unit, odd.place));
    }
    if let Some(far) = &column.far_out {
        let places: Vec<String> = far.places.iter().map(u64::to_string).collect();
        let more = if far.rows > places.len() { ", …" } else { "" };
        parts.push(format!("{} far out: {}{more}", far.rows, places.join(", ")));
    }
    if column.counts_rows {
        parts.push("counts the rows, as an index does".into());
    }
    parts.join(", ")
}

/// `c` = 1·`a` + 2·`b` + 3.
fn equation(dependence: &Dependence) -> String {
    let terms = dependence.terms.iter().map(|term| format!("{}·`{}`", rounded(term.factor), shown(&term.of)));
    let constant = rounded(dependence.constant);
    let constant = (constant != "0").then_some(constant);
    let sum: Vec<String> = terms.chain(constant).collect();
    format!("`{}` = {}", shown(&dependence.column), sum.join(" + "))
}

/// `value` to six digits.
fn rounded(value: f64) -> String {
    let text = format!("{value:.5e}").parse::<f64>().unwrap_or(value);
    if text.abs() < 1e-9 { "0".into() } else { text.to_string() }
}

impl Advice {
    fn of(found: &Inspection) -> Self {
        let mut advice = Self::default();
        for (place, column) in found.columns.iter().enumerate() {
            let follows = found.dependences.iter().any(|dependence| dependence.column == column.name);
            let index = is_index_name(&column.name) || (place == 0 && column.counts_rows);
            // A name that says nothing is found by its position.
            let name = if column.name.is_empty() { (place + 1).to_string() } else { column.name.clone() };
            if !column.kind.is_number() || column.different == Some(1) || follows || index {
                advice.drop.push(name);
                continue;
            }
            let numbers = found.rows - column.missing;
            let discrete = column.different.is_some_and(|different| 2 * different as u64 <= numbers);
            if discrete && matches!(column.kind, ColumnKind::Whole | ColumnKind::Truth) {
                advice.dequantize.push(name);
            }
            if column.missing > 0 {
                advice.missing = Some("drop");
            }
        }
        advice
    }

    fn flags(&self) -> String {
        let list = |flag: &str, names: &[String]| match names {
            [] => String::new(),
            names => {
                let fields: Vec<String> = names.iter().map(|name| csv_field(name)).collect();
                format!(" --{flag} {}", quoted(&fields.join(",")))
            }
        };
        let missing = self.missing.map(|missing| format!(" --missing {missing}")).unwrap_or_default();
        list("drop", &self.drop) + &list("dequantize", &self.dequantize) + &missing
    }
}

/// A name as a field of a list.
fn csv_field(name: &str) -> String {
    if name.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// `text` as a word of a shell.
fn quoted(text: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "_-./,:".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
