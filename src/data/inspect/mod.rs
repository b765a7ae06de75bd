//! What a table holds, found before anything is fitted to it: of each column its kind, range, missing and different
//! values, the grid that they lie on, a value that stands out and rows far out; and which columns follow from others.
//! It reads every column as text, as [`super::Rows`] pass it on, so that a word among numbers is found and not refused.

mod column;
mod dependence;

use serde::Serialize;

use super::input::{Missing, Reader, chunk_rows};
use crate::error::Result;
use column::Tally;
pub use column::{Atom, ColumnFindings, ColumnKind, FarOut, Odd};
pub use dependence::{Dependence, Term};

/// What was found in a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Number of rows N.
    pub rows: u64,
    /// Each column, in the table's order.
    pub columns: Vec<ColumnFindings>,
    /// Columns of numbers that are sums of earlier ones.
    pub dependences: Vec<Dependence>,
}

impl Inspection {
    /// Reads the columns of `reader` at these `places`; `observe` is told the number of rows read and the share of the table that they are.
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
        while let Some(chunk) = rows.next(chunk_rows(names.len()))? {
            for (tally, column) in tallies.iter_mut().zip(&chunk.extras) {
                for (cell, &place) in column.iter().zip(&chunk.places) {
                    tally.add(cells.read(cell.as_bytes()), cell, place);
                }
            }
            observe(rows.rows_read(), rows.fraction());
        }
        let unit = rows.unit();
        let columns: Vec<ColumnFindings> =
            names.into_iter().zip(&tallies).map(|(name, tally)| tally.findings(name, unit)).collect();
        let numbers: Vec<(&str, &[f64])> = columns
            .iter()
            .zip(&tallies)
            .filter(|(column, _)| column.kind.is_number() && column.different != Some(1))
            .map(|(column, tally)| (column.name.as_str(), tally.values()))
            .collect();
        let dependences = dependence::dependences(&numbers);
        Ok(Self { rows: rows.rows_read(), columns, dependences })
    }
}
