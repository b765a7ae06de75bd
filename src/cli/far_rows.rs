//! What is said of rows that lie far from all others before they are learned.

use moonflow::Dataset;
use moonflow::data::Margins;
use moonflow::shown::shown;

use super::output::grouped;

/// Values that are named.
const NAMED: usize = 3;

/// Where the rows of a table are in its file.
#[derive(Debug, PartialEq)]
pub struct Places {
    /// What a place is called: `line` or `row`.
    unit: &'static str,
    rows: usize,
    /// Each row from 0 that is not right behind the one before, with its place from 1.
    jumps: Vec<(usize, u64)>,
}

impl Places {
    /// Places, none so far, in `unit`s.
    pub fn new(unit: &'static str) -> Self {
        Self { unit, rows: 0, jumps: Vec::new() }
    }

    /// Takes in the place of the next row.
    pub fn push(&mut self, place: u64) {
        if self.of(self.rows) != place {
            self.jumps.push((self.rows, place));
        }
        self.rows += 1;
    }

    /// The place of row `row`: of one that is not known, where it is when nothing is left out.
    fn of(&self, row: usize) -> u64 {
        let before = self.jumps.partition_point(|(first, _)| *first <= row);
        let (first, place) = before.checked_sub(1).map_or((0, 1), |index| self.jumps[index]);
        place + (row - first) as u64
    }

    /// The places of the rows that are not `left_out` `[N]`.
    pub fn without(&self, left_out: &[bool]) -> Self {
        let mut places = Self::new(self.unit);
        let kept = left_out.iter().enumerate().filter(|(_, left_out)| !**left_out);
        kept.for_each(|(row, _)| places.push(self.of(row)));
        places
    }
}

/// The note on values of `dataset` far from all others of their columns, where they are few.
pub fn note(dataset: &Dataset, places: &Places) -> Option<String> {
    let found = dataset.far_values();
    if found.is_empty() {
        return None;
    }
    let name = |&(row, column, value): &(usize, usize, f64)| {
        let value = if value.abs() < 1e6 { value.to_string() } else { format!("{value:e}") };
        let (unit, place) = (places.unit, grouped(places.of(row)));
        format!("{unit} {place} has {value} in `{}`", shown(&dataset.columns[column]))
    };
    let named: Vec<String> = found.iter().take(NAMED).map(name).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let effect = match dataset.preprocessing.margins() {
        Margins::None => "Such a row counts nothing, neither in scales nor in losses",
        _ => "The margins bring such a row near the others, and for validation it counts nothing",
    };
    Some(format!(
        "note: far from all others: {}{more}. {effect}; leave it out if it is an error",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use moonflow::data::{PreprocessingPlan, Table};

    use super::*;

    #[test]
    fn a_row_far_out_is_named_by_its_place_and_heavy_tails_are_not() {
        let mut values: Vec<f64> = (0..600).map(|i| f64::from(i * i % 601).tan()).collect();
        values.iter_mut().step_by(2).for_each(|value| *value = value.atan());
        let mut table = Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values };
        let note = |table: &Table, margins, places: &Places| {
            let plan = PreprocessingPlan { margins, ..PreprocessingPlan::default() };
            note(&Dataset::split_with(table, 0.1, 0, &plan).expect("splits"), places)
        };
        let rows = Places::new("row");
        assert_eq!(note(&table, Margins::None, &rows), None);
        // One of them is for validation, whichever it is.
        for row in 10..30 {
            let before = std::mem::replace(&mut table.values[2 * row], -1e12);
            let said = note(&table, Margins::None, &rows).expect("far");
            let want = format!("row {} has -1e12 in `a`. Such a row counts nothing", row + 1);
            assert!(said.contains(&want), "{said}");
            table.values[2 * row] = before;
        }
        table.values[20] = -1e12;
        let mut lines = Places::new("line");
        (0..300).for_each(|row| lines.push(5 * row));
        let said = note(&table, Margins::Kernel, &lines).expect("far");
        assert!(said.contains("line 50 has -1e12 in `a`. The margins"), "{said}");
    }

    #[test]
    fn places_are_those_of_the_rows_that_are_kept() {
        let of = |given: &[u64]| {
            let mut places = Places::new("line");
            given.iter().for_each(|&place| places.push(place));
            places
        };
        let given = [2, 3, 4, 7, 8, 20, 21, 23];
        let places = of(&given);
        assert!((0..8).all(|row| places.of(row) == given[row]));
        assert_eq!(places.jumps.len(), 4);
        let left_out = [false, true, false, false, true, false, false, false];
        assert_eq!(places.without(&left_out), of(&[2, 4, 7, 20, 21, 23]));
        assert_eq!((of(&[1, 2]).jumps.len(), Places::new("row").of(6)), (0, 7));
    }
}
