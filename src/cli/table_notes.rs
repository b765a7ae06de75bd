//! What there is to say of how a table was read, and of what its columns were.

use std::path::Path;

use moonflow::data::{Decimal, Delimiter, Names, Reader, Reading, ValueKind};
use moonflow::shown::{shown_list, shown_path};

use super::output::note;

/// What was decided of how `reader` reads its text and is not as usual, with the flags that decide otherwise.
pub fn reading(reader: &Reader<'_>, reading: &Reading) -> Vec<String> {
    let Some(dialect) = reader.dialect() else { return Vec::new() };
    let name = shown_path(Path::new(reader.name()));
    let mut notes = Vec::new();
    let delimiter =
        (reading.delimiter.is_none() && dialect.delimiter != dialect.usual).then(|| {
            match dialect.delimiter {
                Delimiter::WhiteSpace => "white space between fields".to_owned(),
                delimiter => format!("a {} between fields", delimiter.name()),
            }
        });
    let decimal =
        (reading.decimal.is_none() && dialect.decimal == Decimal::Comma).then(|| "decimal commas".to_owned());
    let taken: Vec<String> = delimiter.into_iter().chain(decimal).collect();
    if !taken.is_empty() {
        notes.push(format!(
            "note: {name} is read with {}; --delimiter and --decimal force others",
            taken.join(" and ")
        ));
    }
    let columns = shown_list(reader.columns());
    match dialect.names {
        _ if reading.header.is_some() => {}
        Names::Absent => notes.push(format!(
            "note: {name} has no header by its first rows; its columns are called {columns} (--header yes takes the first \
             row as their names)"
        )),
        Names::FirstRowOfNumbers => notes.push(format!(
            "note: the first row of {name} is taken as names, although they are numbers: {columns} (--header no takes it \
             as a row)"
        )),
        Names::Comment => notes.push(format!("note: the comment above the rows of {name} names its columns: {columns}")),
        _ => {}
    }
    notes
}

/// Says which columns were not numbers, and what they are now.
pub fn report_kinds(columns: &[String], kinds: &[ValueKind]) {
    for (is_of_kind, what) in [
        ((|kind| *kind == ValueKind::Truth) as fn(&ValueKind) -> bool, "true is 1 and false is 0"),
        (|kind| matches!(kind, ValueKind::Time(_)), "dates and times are seconds since 1970-01-01 in UTC"),
    ] {
        let of_kind = columns.iter().zip(kinds).filter(|(_, kind)| is_of_kind(kind));
        let names: Vec<&String> = of_kind.map(|(name, _)| name).collect();
        if !names.is_empty() {
            note(format_args!("note: in {}, {what}", shown_list(&names)));
        }
    }
}
