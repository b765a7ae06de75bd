//! Tails and skewness of a column by its quantiles, which rows far out do not move.

use serde::Serialize;

/// How far the outer hundredths of a column reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tails {
    /// Less far than those of a normal column, as where it has ends.
    Light,
    /// About as far.
    Normal,
    /// Further.
    Heavy,
}

/// The shape of a column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Its tails in a word.
    pub tails: Tails,
    /// The distance between the outer hundredths over that between the quartiles, where that of a normal column is 1.
    pub tail_ratio: f64,
    /// How much further the upper twentieth is from the median than the lower one, over their distance: between −1 and 1.
    pub skewness: f64,
}

impl Shape {
    /// What [`Shape::skewness`] is at least where a column is said to be skewed.
    pub const SKEWED: f64 = 0.25;

    /// The shape of `sorted` numbers of which so many are `different`; `None` where there are too few of them to tell.
    pub(super) fn of(sorted: &[f64], different: usize) -> Option<Self> {
        const ROWS: usize = 200;
        const DIFFERENT: usize = 20;
        /// The ratio of quantiles of a normal column.
        const NORMAL: f64 = 3.449;
        /// Ratios are about 0.57 of a uniform column, 1.2 of an exponential one, 1.6 of Laplace's and 2 of a log-normal one.
        const LIGHT: f64 = 0.75;
        const HEAVY: f64 = 1.45;

        let at = |share| quantile(sorted, share);
        let middle = at(0.75) - at(0.25);
        if sorted.len() < ROWS || different <= DIFFERENT || middle <= 0.0 {
            return None;
        }
        let tail_ratio = (at(0.99) - at(0.01)) / middle / NORMAL;
        let (low, median, high) = (at(0.05), at(0.5), at(0.95));
        let tails = match tail_ratio {
            ratio if ratio < LIGHT => Tails::Light,
            ratio if ratio > HEAVY => Tails::Heavy,
            _ => Tails::Normal,
        };
        Some(Self { tails, tail_ratio, skewness: ((high - median) - (median - low)) / (high - low) })
    }
}

/// The number below which a `share` of `sorted` ones lies, of which there is one.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::super::normal;
    use super::*;

    #[test]
    fn tails_and_skewness_are_those_of_the_distribution() {
        use Tails::{Heavy, Light, Normal};
        type Quantile = fn(f64) -> f64;
        for (name, quantile, tails, skewed) in [
            ("normal", normal as Quantile, Normal, 0.0),
            ("uniform", |u| u, Light, 0.0),
            ("exponential", |u| -(1.0 - u).ln(), Normal, 1.0),
            ("Laplace", |u| if u < 0.5 { (2.0 * u).ln() } else { -(2.0 - 2.0 * u).ln() }, Heavy, 0.0),
            ("Cauchy", |u| (std::f64::consts::PI * (u - 0.5)).tan(), Heavy, 0.0),
            ("log-normal", |u| normal(u).exp(), Heavy, 1.0),
            ("mirrored", |u| -normal(u).exp(), Heavy, -1.0),
        ] {
            for rows in [200u32, 5000] {
                let mut values: Vec<f64> =
                    (0..rows).map(|row| quantile((f64::from(row) + 0.5) / f64::from(rows))).collect();
                values.sort_by(f64::total_cmp);
                let found = Shape::of(&values, values.len()).expect("enough rows");
                assert_eq!(found.tails, tails, "{name}: {found:?}");
                let said = if found.skewness.abs() < Shape::SKEWED { 0.0 } else { found.skewness.signum() };
                assert_eq!(said, skewed, "{name}: {found:?}");
            }
        }
        let values: Vec<f64> = (0..300).map(|row| f64::from(row % 20)).collect();
        assert_eq!(Shape::of(&values, 20), None, "few values");
        assert_eq!(Shape::of(&vec![0.0; 300], 21), None, "no middle");
    }
}
