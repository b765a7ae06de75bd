//! `--test` and `--test-fraction`: rows that neither training nor validation sees, scored once in the end.

use std::path::Path;

use moonflow::Result;
use moonflow::data::{Table, TableColumn};

use super::columns::{Roles, TableArgs, into_table};
use super::memory;

/// Where the rows of a test come from.
pub enum TestRows<'a> {
    /// There is none.
    None,
    /// A share of the table's rows.
    Fraction(f64),
    /// A table's file, read as the training's was.
    File(&'a Path),
}

impl TestRows<'_> {
    /// The rows of `table` to train and validate on, and those of the test, in the same columns.
    ///
    /// # Errors
    /// Those of [`Table::without_test_rows`], and of reading a file whose columns must be the table's.
    pub fn set_aside(
        &self,
        table: Table,
        columns: &[TableColumn],
        args: &TableArgs,
        roles: Roles<'_>,
        seed: u64,
    ) -> Result<(Table, Option<Table>)> {
        match *self {
            Self::None => Ok((table, None)),
            Self::Fraction(fraction) => {
                let (rest, test) = table.without_test_rows(fraction, seed)?;
                Ok((rest, Some(test)))
            }
            Self::File(path) => {
                let rows = args.open_beside(path, columns, roles)?;
                let (test, _) = into_table(
                    rows,
                    |_, _| Ok(()),
                    |rows, columns| memory::check_table(rows * columns as f64),
                )?;
                Ok((table, Some(test)))
            }
        }
    }
}
