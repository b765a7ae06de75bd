//! What is said of rows that lie far from all others before they are learned.

use moonflow::data::{Margins, PreprocessingPlan, Table};
use moonflow::shown::shown;

use super::output::grouped;

/// Values that are named.
const NAMED: usize = 3;

/// The note on values of `table` far from all others of their columns under `plan`, where they are few. Row r is the one at
/// `places[r]` of its file, in `unit`s.
pub fn note(table: &Table, plan: &PreprocessingPlan, unit: &str, places: &[f64]) -> Option<String> {
    let found = plan.far_out(&table.values, &table.values, table.features());
    if found.is_empty() {
        return None;
    }
    let name = |&(row, column): &(usize, usize)| {
        let value = table.values[row * table.features() + column];
        let value = if value.abs() < 1e6 { value.to_string() } else { format!("{value:e}") };
        let place = grouped(places.get(row).map_or(row as u64 + 1, |&place| place as u64));
        format!("{unit} {place} has {value} in `{}`", shown(&table.columns[column]))
    };
    let named: Vec<String> = found.iter().take(NAMED).map(name).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let effect = match plan.margins {
        Margins::None => "Such a row counts nothing, neither in scales nor in losses",
        _ => "The margins bring such a row near the others",
    };
    Some(format!(
        "note: far from all others: {}{more}. {effect}; leave it out if it is an error",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_far_out_is_named_by_its_place_and_heavy_tails_are_not() {
        let mut values: Vec<f64> = (0..600).map(|i| f64::from(i * i % 601).tan()).collect();
        values.iter_mut().step_by(2).for_each(|value| *value = value.atan());
        let mut table = Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values };
        let plan = PreprocessingPlan::default();
        assert_eq!(note(&table, &plan, "row", &[]), None);
        table.values[20] = -1e12;
        let said = note(&table, &plan, "row", &[]).expect("far");
        assert!(said.contains("row 11 has -1e12 in `a`. Such a row counts nothing"), "{said}");
        let places: Vec<f64> = (0..300).map(|row| f64::from(5 * row)).collect();
        let kernel = PreprocessingPlan { margins: Margins::Kernel, ..plan };
        let said = note(&table, &kernel, "line", &places).expect("far");
        assert!(said.contains("line 50 has -1e12 in `a`. The margins"), "{said}");
    }
}
