//! What is said of rows that lie far from all others before they are learned.

use moonflow::data::Table;
use moonflow::shown::shown;

use super::output::grouped;

/// Distance from the median, in deviations as the middle half of the column has them, beyond which a value is far out.
const FAR: f64 = 1000.0;
/// Share of the rows beyond which far ones are no exceptions.
const FEW: f64 = 0.01;
/// Values that are named.
const NAMED: usize = 3;

/// The note on values of `table` far from all others of their columns, where they are few.
pub fn note(table: &Table) -> Option<String> {
    let mut found: Vec<(usize, usize)> = (0..table.features())
        .flat_map(|column| of_column(table, column).into_iter().map(move |row| (row, column)))
        .collect();
    found.sort_unstable();
    let (rows, values) = (table.rows(), found.len());
    if values == 0 || values as f64 > (FEW * rows as f64).max(1.0) {
        return None;
    }
    let name = |&(row, column): &(usize, usize)| {
        let value = table.values[row * table.features() + column];
        let value = if value.abs() < 1e6 { value.to_string() } else { format!("{value:e}") };
        format!("row {} has {value} in `{}`", grouped(row as u64 + 1), shown(&table.columns[column]))
    };
    let named: Vec<String> = found.iter().take(NAMED).map(name).collect();
    let more = match values.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "note: far from all others: {}{more}. Among validation rows such a row does not count; leave it out if it is an error",
        named.join(", ")
    ))
}

/// Rows of a column that are far out.
fn of_column(table: &Table, column: usize) -> Vec<usize> {
    let values = || table.values[column..].iter().step_by(table.features()).copied();
    let mut sorted: Vec<f64> = values().collect();
    if sorted.is_empty() {
        return Vec::new();
    }
    let mut at = |share: f64| {
        let place = (share * (sorted.len() - 1) as f64) as usize;
        *sorted.select_nth_unstable_by(place, f64::total_cmp).1
    };
    let [low, median, high] = [0.25, 0.5, 0.75].map(&mut at);
    let reach = FAR * (high - low) / 1.349;
    if reach <= 0.0 {
        return Vec::new();
    }
    values().enumerate().filter(|(_, value)| (value - median).abs() > reach).map(|(row, _)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_far_out_is_named_and_heavy_tails_are_not() {
        let mut values: Vec<f64> = (0..600).map(|i| f64::from(i * i % 601).tan()).collect();
        values.iter_mut().step_by(2).for_each(|value| *value = value.atan());
        let mut table = Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values };
        assert_eq!(note(&table), None);
        table.values[20] = -1e12;
        let note = note(&table).expect("far");
        assert!(note.contains("row 11 has -1e12 in `a`") && !note.contains("more"), "{note}");
    }
}
