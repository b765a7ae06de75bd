//! Rows that are kept for a test: taken from the table before anything else sees it.

use super::Table;
use super::table::take_rows;
use crate::error::{Error, Result};
use crate::random::{Permutation, Stream};

impl Table {
    /// Whether each row `[N]` is one of a random `fraction` of them that is kept for a test.
    ///
    /// T = ⌊fraction · rows + ½⌋, at least 1. Row r is a test row when the permutation of [`Stream::Test`] under `seed`
    /// places it below T.
    ///
    /// # Errors
    /// [`Error::Argument`] when the fraction does not lie between 0 and 1, [`Error::Data`] when no row would be left.
    pub fn test_rows(&self, fraction: f64, seed: u64) -> Result<Vec<bool>> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::Argument(format!(
                "the share of test rows must lie between 0 and 1, got {fraction}"
            )));
        }
        let rows = self.rows();
        let count = u32::try_from(rows).map_err(|_| {
            Error::data(&self.name, format!("{rows} rows are too many; at most {}", u32::MAX))
        })?;
        let test_rows = ((f64::from(count) * fraction).round() as u32).max(1);
        if test_rows >= count {
            return Err(Error::data(
                &self.name,
                format!("of {rows} rows, {test_rows} would be kept for the test"),
            ));
        }
        let order = Permutation::new(count, seed, Stream::Test, 0);
        Ok((0..count).map(|row| order.place(row) < test_rows).collect())
    }

    /// The table without its [`Table::test_rows`], and those rows, both in the table's order.
    ///
    /// # Errors
    /// Those of [`Table::test_rows`].
    pub fn without_test_rows(mut self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let is_test = self.test_rows(fraction, seed)?;
        let (features, count) = (self.features(), is_test.iter().filter(|&&is_test| is_test).count());
        let values = take_rows(&mut self.values, features, count, |row| is_test[row as usize]);
        let test = Self { name: self.name.clone(), columns: self.columns.clone(), values };
        Ok((self, test))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: u32) -> Table {
        let values = (0..rows).flat_map(|row| [f64::from(row), -f64::from(row)]).collect();
        Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values }
    }

    #[test]
    fn every_row_lands_on_one_side_in_order_and_the_seed_decides_which() {
        let (rest, test) = table(40).without_test_rows(0.25, 3).expect("splits");
        assert_eq!((rest.rows(), test.rows()), (30, 10));
        for part in [&rest, &test] {
            let rows: Vec<&[f64]> = part.values.chunks(2).collect();
            assert!(rows.iter().all(|row| row[0] == -row[1]) && rows.is_sorted_by(|a, b| a[0] < b[0]));
        }
        let mut all: Vec<f64> = rest.values.iter().chain(&test.values).copied().step_by(2).collect();
        all.sort_by(f64::total_cmp);
        assert!(all.into_iter().eq((0..40).map(f64::from)));
        assert_ne!(table(40).without_test_rows(0.25, 4).expect("splits").1, test);
    }

    #[test]
    fn impossible_shares_are_refused() {
        for (rows, fraction, want) in [
            (40, 0.0, "got 0"),
            (40, 1.0, "got 1"),
            (40, f64::NAN, "got NaN"),
            (1, 0.1, "of 1 rows, 1 would be kept"),
            (0, 0.1, "of 0 rows, 1 would be kept"),
        ] {
            let message = table(rows).without_test_rows(fraction, 1).expect_err(want).to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
