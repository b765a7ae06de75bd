//! What is known of a column while its cells pass.

use std::collections::HashMap;

use super::column::{ColumnFindings, ColumnKind, Odd, counts_rows};
use crate::data::input::Cell;
use crate::data::reading::ValueKind;

/// Most different texts that are counted.
const DIFFERENT: usize = 100_000;

/// The cells of a column.
#[derive(Default)]
pub(super) struct Tally {
    /// Numbers, NaN where there is none.
    values: Vec<f64>,
    /// Cells of each kind: numbers, truths, times, texts and what double precision cannot hold.
    counts: [usize; 4],
    /// The first cell of each kind.
    firsts: [Option<(u64, String)>; 4],
    missing: u64,
    texts: HashMap<String, usize>,
    /// Whether there were more different texts than are counted.
    many: bool,
}

impl Tally {
    pub(super) fn add(&mut self, cell: Cell, text: &str, place: u64) {
        let (value, kind) = match cell {
            Cell::Missing => {
                self.missing += 1;
                self.values.push(f64::NAN);
                return;
            }
            Cell::Value(value, ValueKind::Number) => (value, 0),
            Cell::Value(value, ValueKind::Truth) => (value, 1),
            Cell::Value(value, ValueKind::Time(_)) => (value, 2),
            Cell::Infinite | Cell::Inexact | Cell::Text => (f64::NAN, 3),
        };
        self.values.push(value);
        self.counts[kind] += 1;
        self.firsts[kind].get_or_insert_with(|| (place, text.trim().to_owned()));
        if kind != 3 {
            return;
        }
        if let Some(count) = self.texts.get_mut(text) {
            *count += 1;
        } else if self.texts.len() < DIFFERENT {
            self.texts.insert(text.to_owned(), 1);
        } else {
            self.many = true;
        }
    }

    /// The numbers `[N]`, NaN where there is none.
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// What was found in the column `name` at `place` of its table, from 1, whose rows are counted in `unit`.
    /// Row r is at `rows[r]` of it.
    pub(super) fn findings(
        &self,
        name: String,
        place: usize,
        unit: &'static str,
        rows: &[u64],
    ) -> ColumnFindings {
        let counts = counts_rows(self.values.iter().copied());
        let mut found = ColumnFindings::of_numbers(name, place, self.kind(), &self.values, counts, rows);
        found.different = match (found.different, self.many) {
            (Some(numbers), false) => Some(numbers + self.texts.len()),
            _ => None,
        };
        found.missing = self.missing;
        let most =
            self.counts.iter().enumerate().max_by_key(|(_, count)| **count).map_or(0, |(kind, _)| kind);
        found.odd = self.firsts.iter().enumerate().find_map(|(kind, first)| {
            let (place, cell) = first.clone().filter(|_| kind != most)?;
            Some(Odd { unit, place, cell })
        });
        found
    }

    fn kind(&self) -> ColumnKind {
        match self.counts.map(|count| count > 0) {
            [false, false, false, false] => ColumnKind::Empty,
            [true, false, false, false] => ColumnKind::of_numbers(&self.values),
            [false, true, false, false] => ColumnKind::Truth,
            [false, false, true, false] => ColumnKind::Time,
            _ => ColumnKind::Text,
        }
    }
}
