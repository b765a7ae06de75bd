//! Columns in which many rows share a value: whole numbers, values on a grid, or one value that returns.
//! No density is bounded there, because it may put ever more mass on a point; whoever fits one wants to know.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Grid;

/// The values of a column that many rows share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedValues {
    /// Number of different values.
    pub different: usize,
    /// Whether all of them are whole numbers.
    pub whole: bool,
    /// The value that the most rows hold, the lowest of several.
    pub value: f64,
    /// Their share of the rows.
    pub share: f64,
}

impl SharedValues {
    /// Rows below which shared values may be chance.
    const ROWS: usize = 50;
    /// Most different values that a grid has, where at most one in two rows has one of its own. Steps finer than that are
    /// next to none.
    const DIFFERENT: usize = 500;
    /// Share of the rows, and number of rows, from which a single value is no chance.
    const SHARE: f64 = 0.05;
    const EQUAL: usize = 10;

    /// What the rows of a column share; `None` where there is nothing that keeps a density from being bounded.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::SharedValues;
    ///
    /// let rain: Vec<f64> = (0..300).map(|day| f64::from((day * day % 97 - 40).max(0)) + 0.001 * f64::from(day)).collect();
    /// assert_eq!(SharedValues::of(&rain), None);
    /// let measured: Vec<f64> = rain.iter().map(|rain| rain.round()).collect();
    /// assert!(SharedValues::of(&measured).is_some_and(|shared| shared.whole));
    /// ```
    pub fn of(column: &[f64]) -> Option<Self> {
        if column.len() < Self::ROWS {
            return None;
        }
        let mut sorted = column.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Self::of_sorted(&sorted)
    }

    /// The same of a column in ascending order.
    pub(super) fn of_sorted(sorted: &[f64]) -> Option<Self> {
        let rows = sorted.len();
        if rows < Self::ROWS {
            return None;
        }
        let (mut different, mut most, mut value) = (0, 0, 0.0);
        for equal in sorted.chunk_by(|a, b| a == b) {
            different += 1;
            if equal.len() > most {
                (most, value) = (equal.len(), equal[0]);
            }
        }
        let share = most as f64 / rows as f64;
        let is_grid = Self::is_grid(different, rows);
        let is_common = most >= Self::EQUAL && share >= Self::SHARE;
        let whole = is_grid && sorted.iter().all(|value| value.fract() == 0.0);
        (is_grid || is_common).then_some(Self { different, whole, value, share })
    }

    /// Whether one value is far more common than the others.
    pub fn stands_out(&self) -> bool {
        /// Rows of the most common value, in units of the mean of all values.
        const STANDS_OUT: f64 = 5.0;

        !self.whole && self.share * self.different as f64 >= STANDS_OUT && self.share >= Self::SHARE
    }

    /// The grid that a column's values lie on, where many rows share each of a few.
    pub fn grid(column: &[f64]) -> Option<Grid> {
        let shared = Self::of(column)?;
        if Self::is_grid(shared.different, column.len()) { Grid::of(column) } else { None }
    }

    /// The grid that a column's values lie on where they come again, twice each or more, but are too many for the rows to share
    /// a few: steps so fine do not matter to a density, and to a person who reads samples they do.
    pub fn fine_grid(mut column: impl ExactSizeIterator<Item = f64> + Clone) -> Option<Grid> {
        // Most columns of measurements end here, at their first value.
        let grid = Grid::of_all(column.clone())?;
        let most = column.len() / 2;
        let mut different = HashSet::new();
        let is_few = column.all(|value| {
            // Adding 0 makes one of the two zeros.
            different.insert((value + 0.0).to_bits());
            different.len() <= most
        });
        (is_few && different.len() > Self::DIFFERENT).then_some(grid)
    }

    /// Whether many of the column's `rows` share each of a few values.
    pub fn is_of_few(&self, rows: usize) -> bool {
        Self::is_grid(self.different, rows)
    }

    fn is_grid(different: usize, rows: usize) -> bool {
        different <= Self::DIFFERENT && 2 * different <= rows
    }

    /// That of each of the first `modelled` columns of `rows`, row-major [N, D] with D = `features`, which has some.
    pub(crate) fn of_columns(rows: &[f64], features: usize, modelled: usize) -> Vec<(usize, Self)> {
        let of = |column: usize| {
            let values: Vec<f64> = rows[column.min(rows.len())..].iter().step_by(features).copied().collect();
            Self::of(&values).map(|shared| (column, shared))
        };
        (0..modelled).filter_map(of).collect()
    }
}

impl std::fmt::Display for SharedValues {
    /// The one value where it stands out, else how many there are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.stands_out() {
            write!(f, "{} in {:.0} % of the rows", self.value, 100.0 * self.share)
        } else {
            write!(f, "{} different", self.different)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400 different numbers.
    fn smooth() -> Vec<f64> {
        (0..400).map(|i| f64::from(i * 211 % 400) / 7.0).collect()
    }

    fn shown(column: &[f64]) -> Option<String> {
        SharedValues::of(column).map(|shared| shared.to_string())
    }

    #[test]
    fn atoms_grids_and_whole_numbers_are_seen_and_smooth_columns_are_not() {
        let with_zeros = |zeros: usize| -> Vec<f64> {
            smooth().iter().enumerate().map(|(i, y)| if i < zeros { 0.0 } else { *y }).collect()
        };
        assert_eq!(shown(&smooth()), None);
        assert_eq!(shown(&with_zeros(19)), None, "less than one in twenty");
        assert_eq!(shown(&with_zeros(21)).as_deref(), Some("0 in 5 % of the rows"));
        assert_eq!(shown(&with_zeros(200)).as_deref(), Some("0 in 50 % of the rows"));
        let grid: Vec<f64> = smooth().iter().map(|y| (y * 2.0).round() / 2.0).collect();
        assert_eq!(shown(&grid).as_deref(), Some("115 different"));
        assert_eq!(SharedValues::grid(&grid), Some(Grid { step: 0.5, offset: 0.0 }));
        assert_eq!(SharedValues::grid(&with_zeros(200)), None, "one value is no grid");
        assert!(!SharedValues::of(&grid).expect("a grid").whole);
        let whole: Vec<f64> = smooth().iter().map(|y| y.round()).collect();
        assert!(SharedValues::of(&whole).expect("whole numbers").whole);
        assert_eq!(shown(&whole[..40]), None, "too few rows to tell");
        let many: Vec<f64> = (0..5000).map(|i| f64::from(i % 600)).collect();
        assert_eq!(shown(&many), None, "steps so fine that they do not matter");
        let fine = |values: &[f64]| SharedValues::fine_grid(values.iter().copied());
        assert_eq!(fine(&many), Some(Grid::WHOLE));
        assert_eq!((fine(&many[..1000]), fine(&grid), fine(&[])), (None, None, None));
    }

    #[test]
    fn columns_keep_their_places_and_context_is_left_out() {
        let rows: Vec<f64> = (0..60).flat_map(|i| [f64::from(i) * 0.3, f64::from(i % 4), 1.0]).collect();
        let places = |modelled| -> Vec<usize> {
            SharedValues::of_columns(&rows, 3, modelled).into_iter().map(|(column, _)| column).collect()
        };
        assert_eq!((places(3), places(2)), (vec![1, 2], vec![1]));
        assert_eq!(SharedValues::of_columns(&[], 3, 3), []);
    }
}
