//! Ends that a column's numbers come near and never reach: 0, 1, 100 and −1, which values have for what they are.

use super::shape::quantile;
use crate::data::{Bounds, Grid};

const LOW: [f64; 2] = [0.0, -1.0];
const HIGH: [f64; 3] = [0.0, 1.0, 100.0];

/// The bounds of `sorted` numbers, where there is evidence for an end or two.
pub(super) fn likely_bounds(sorted: &[f64]) -> Option<Bounds> {
    let low = LOW.into_iter().find(|&end| is_end(sorted, end));
    // The same question from the other side.
    let mirrored: Vec<f64> = sorted.iter().rev().map(|value| -value).collect();
    let high = HIGH.into_iter().find(|&end| is_end(&mirrored, -end));
    (low.is_some() || high.is_some()).then_some(Bounds { low, high })
}

/// Whether numbers crowd above `end` although none is on it or below. A tail that thins out towards the end is no evidence,
/// because in more rows it would go on beyond.
fn is_end(sorted: &[f64], end: f64) -> bool {
    /// The part of the distance from the end to the further quartile that counts as near it.
    const NEAR: f64 = 0.1;
    /// Rows near it, and their share.
    const ROWS: usize = 10;
    const SHARE: f64 = 0.01;
    /// Most rows that may be expected on the end itself, where numbers are rounded.
    const EXPECTED: f64 = 0.1;

    if sorted.is_empty() || sorted[0] <= end {
        return false;
    }
    let width = NEAR * (quantile(sorted, 0.75) - end);
    let near = sorted.partition_point(|&value| value < end + width);
    // The step of rounded numbers, where the end is one of the numbers that they may be rounded to.
    let step = Grid::of(sorted).filter(|grid| grid.holds(end)).map_or(0.0, |grid| grid.step);
    near >= ROWS && near as f64 >= SHARE * sorted.len() as f64 && near as f64 * step < EXPECTED * width
}

#[cfg(test)]
mod tests {
    use super::super::normal;
    use super::*;

    fn bounds(rows: usize, quantile: impl Fn(f64) -> f64) -> Option<[Option<f64>; 2]> {
        let mut values: Vec<f64> = (0..rows).map(|row| quantile((row as f64 + 0.5) / rows as f64)).collect();
        values.sort_by(f64::total_cmp);
        likely_bounds(&values).map(|Bounds { low, high }| [low, high])
    }

    #[test]
    fn ends_are_found_where_values_crowd_and_nowhere_else() {
        let exponential = |u: f64| -(1.0 - u).ln();
        for rows in [200, 5000] {
            assert_eq!(bounds(rows, exponential), Some([Some(0.0), None]));
            assert_eq!(bounds(rows, |u| -exponential(u)), Some([None, Some(0.0)]));
            assert_eq!(bounds(rows, |u| normal(u).exp()), Some([Some(0.0), None]));
            assert_eq!(bounds(rows, |u| u), Some([Some(0.0), Some(1.0)]));
            assert_eq!(bounds(rows, |u| 100.0 * u), Some([Some(0.0), Some(100.0)]));
            assert_eq!(bounds(rows, |u| 2.0 * u - 1.0), Some([Some(-1.0), Some(1.0)]));
            assert_eq!(bounds(rows, |u| 1.0 - 0.5 * u * u), Some([None, Some(1.0)]));
            for (name, found) in [
                ("a normal column far from 0", bounds(rows, |u| 5.0 + normal(u))),
                ("one whose tail just does not reach 0", bounds(rows, |u| 3.6 + normal(u))),
                ("heights", bounds(rows, |u| 170.0 + 10.0 * normal(u))),
                ("a value on the end", bounds(rows, |u| if u < 0.01 { 0.0 } else { exponential(u) })),
                ("a value beyond it", bounds(rows, |u| if u < 0.01 { -0.1 } else { exponential(u) })),
                ("a uniform column from 2 to 3", bounds(rows, |u| 2.0 + u)),
            ] {
                assert_eq!(found, None, "{name}");
            }
        }
        assert_eq!(bounds(60, exponential), None, "too few near it");
    }

    #[test]
    fn rounded_values_that_would_reach_an_end_are_no_evidence() {
        let rounded = |u: f64, digits: f64| ((u * 0.98 + 0.01) * digits).round() / digits;
        assert_eq!(bounds(1000, |u| rounded(u, 100.0)), None);
        assert_eq!(bounds(1000, |u| rounded(u, 1e5)), Some([Some(0.0), Some(1.0)]));
    }
}
