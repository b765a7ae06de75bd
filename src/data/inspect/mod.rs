//! What a table holds, found before anything is fitted to it: of each column its kind, range, missing and different
//! values, the grid that they lie on, values that stand out, tails, likely bounds and rows far out; and which columns follow
//! from others. A file's columns are read as text, as [`super::Rows`] pass it on, so that a word among numbers is found and
//! not refused.

mod bounds;
mod column;
mod dependence;
mod repeated;
mod shape;
mod tally;

use serde::Serialize;

use super::input::{Missing, Reader, chunk_rows};
use super::{Bounds, Table};
use crate::error::Result;
use column::counts_rows;
pub use column::{ColumnFindings, ColumnKind, FarOut, Odd};
pub use dependence::{Dependence, Rank, Term};
pub use repeated::Atom;
pub use shape::{Shape, Tails};
use tally::Tally;

/// What was found in a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Number of rows N.
    pub rows: u64,
    /// Each column, in the order asked for.
    pub columns: Vec<ColumnFindings>,
    /// Columns of numbers that are sums of earlier ones, or nearly so.
    pub dependences: Vec<Dependence>,
    /// How many columns do not follow from others.
    pub rank: Rank,
}

impl Inspection {
    /// Reads the columns of `reader` at these `places`; `observe` is told the number of rows read and
    /// the share of the table that they are.
    ///
    /// # Errors
    /// Those of [`Rows::next`](super::Rows::next), but for cells that are no numbers.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{ColumnKind, Inspection, Reader};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let text: String = (0..40).map(|i| format!("{},{},{}\n", i % 4, i * i, i % 4 + i * i + 1)).collect();
    /// let reader = Reader::from_csv("t", text.as_bytes())?;
    /// let found = Inspection::of(reader, &[0, 1, 2], |_, _| ())?;
    /// assert_eq!((found.rows, found.columns[0].kind, found.columns[0].different), (40, ColumnKind::Whole, Some(4)));
    /// // x2 = 1 + x0 + x1
    /// assert_eq!(found.dependences[0].column, "x2");
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(
        reader: Reader<'_>,
        places: &[usize],
        mut observe: impl FnMut(u64, Option<f64>),
    ) -> Result<Self> {
        let cells = reader.cells().clone();
        let mut rows = reader.select(&[], places, Missing::Drop)?;
        let names = rows.extras().to_vec();
        let mut tallies: Vec<Tally> = names.iter().map(|_| Tally::default()).collect();
        let mut numbers = Vec::new();
        while let Some(chunk) = rows.next(chunk_rows(names.len()))? {
            numbers.extend_from_slice(&chunk.places);
            for (tally, column) in tallies.iter_mut().zip(&chunk.extras) {
                for (cell, &place) in column.iter().zip(&chunk.places) {
                    tally.add(cells.read(cell.as_bytes()), cell, place);
                }
            }
            observe(rows.rows_read(), rows.fraction());
        }
        let unit = rows.unit();
        let columns: Vec<ColumnFindings> = names
            .into_iter()
            .zip(places)
            .zip(&tallies)
            .map(|((name, place), tally)| tally.findings(name, place + 1, unit, &numbers))
            .collect();
        let count = rows.rows_read();
        Ok(Self::with_dependences(count, columns, |row, column| tallies[column].values()[row]))
    }

    /// Looks at the columns of `table` at these `places`, which have no missing values: at some of its rows where there are
    /// very many, so that next to the table there is little to be kept.
    pub fn of_table(table: &Table, places: &[usize]) -> Self {
        const ROWS: usize = 100_000;

        let (features, count) = (table.features(), table.rows());
        let step = count.div_ceil(ROWS).max(1);
        let rows: Vec<u64> = (1..=count as u64).step_by(step).collect();
        let findings = |&place: &usize| {
            let all = || table.values[place.min(table.values.len())..].iter().step_by(features).copied();
            let values: Vec<f64> = all().step_by(step).collect();
            let kind = ColumnKind::of_numbers(&values);
            let name = table.columns[place].clone();
            let found = ColumnFindings::of_numbers(name, place + 1, kind, &values, counts_rows(all()), &rows);
            let is_atom = |value: f64| found.atoms.iter().any(|atom| atom.value == value);
            let contains = |bounds: &Bounds| all().all(|value| is_atom(value) || bounds.contain(value));
            let bounds = found.bounds.filter(contains);
            ColumnFindings { bounds, ..found }
        };
        let columns = places.iter().map(findings).collect();
        let value = |row: usize, column: usize| table.values[row * step * features + places[column]];
        Self { rows: count as u64, ..Self::with_dependences(rows.len() as u64, columns, value) }
    }

    /// The findings of `columns`, whose numbers are `value(row, column)`, and how these depend on each other.
    fn with_dependences(
        rows: u64,
        columns: Vec<ColumnFindings>,
        value: impl Fn(usize, usize) -> f64,
    ) -> Self {
        let varies = |column: &ColumnFindings| {
            column.kind.is_number() && column.different != Some(1) && !column.is_index
        };
        // Complete rows are looked at, and a column with hardly any number would leave none.
        let chosen: Vec<usize> = (0..columns.len())
            .filter(|&index| varies(&columns[index]) && 2 * columns[index].missing <= rows)
            .collect();
        let names: Vec<&str> = chosen.iter().map(|&index| columns[index].name.as_str()).collect();
        let (dependences, rank) =
            dependence::dependences(&names, rows as usize, |row, index| value(row, chosen[index]));
        Self { rows, columns, dependences, rank }
    }
}

/// The quantile of the standard normal distribution at `u`.
#[cfg(test)]
fn normal(u: f64) -> f64 {
    let lower = |u: f64| crate::normal::lower_quantile(u.ln());
    if u < 0.5 { lower(u) } else { -lower(1.0 - u) }
}
