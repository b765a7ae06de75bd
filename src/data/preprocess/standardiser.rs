//! The affine map between the user's units and standardised ones.
//! It stands between a dataset and an engine, and its log-determinant keeps log p in the user's units.

use serde::{Deserialize, Serialize};

use super::stage::Stage;
use crate::error::{Error, Remedy, Result, expect_length};
use crate::shown::shown;

/// What errors name where no table has a name.
const SOURCE: &str = "training rows";

/// z = (x − mean) / std for each feature, with the statistics of the training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standardiser {
    /// Mean of each feature `[D]`, in the user's units.
    pub mean: Vec<f64>,
    /// Standard deviation of each feature `[D]` (divided by N, not N − 1), in the user's units; positive.
    pub std: Vec<f64>,
}

impl Standardiser {
    /// The standardiser that changes nothing, for `features` features.
    pub fn identity(features: usize) -> Self {
        Self { mean: vec![0.0; features], std: vec![1.0; features] }
    }

    /// Mean and standard deviation of `values`, row-major [N, D] with D = `columns.len()`.
    ///
    /// # Errors
    /// [`Error::Length`] when `values` are not whole rows. [`Error::Data`] for fewer than 2 rows, and, naming the
    /// column, for one that is constant, varies too little or too much for `f64`, or holds NaN or infinity.
    pub fn fit(values: &[f64], columns: &[String]) -> Result<Self> {
        let features = columns.len();
        let rows = values.len().checked_div(features).unwrap_or(0);
        expect_length("values to standardise", values.len(), rows * features)?;
        if rows < 2 {
            return Err(Error::data(SOURCE, format!("expected at least 2 training rows, got {rows}")));
        }
        let mut standardiser = Self::identity(features);
        for feature in 0..features {
            let column = values[feature..].iter().step_by(features).copied();
            (standardiser.mean[feature], standardiser.std[feature]) =
                Self::fit_column(SOURCE, columns, feature, column, false)?;
        }
        Ok(standardiser)
    }

    /// Mean and standard deviation of the `values` of column number `column`, from 0, of `columns` `[D]`, or their median and
    /// interquartile range / 1.349 where `robust`. Errors name `source_name` and the column.
    ///
    /// # Errors
    /// Those of [`Standardiser::fit`], and [`Error::Data`] where half of the values are equal, when robust.
    pub(super) fn fit_column(
        source_name: &str,
        columns: &[String],
        column: usize,
        values: impl Iterator<Item = f64> + Clone,
        robust: bool,
    ) -> Result<(f64, f64)> {
        let fail = |problem: &str| {
            let name = shown(&columns[column]);
            Error::data(source_name, format!("column {} (`{name}`) {problem}", column + 1))
        };
        let moments = moments(values.clone()).map_err(|problem| fail(&problem))?;
        if !robust {
            return Ok(moments);
        }
        median_and_spread(values.collect()).ok_or_else(|| {
            fail("has no spread: half of its values are equal").advise(Remedy::StandardiseByMean)
        })
    }

    /// Number of features D.
    pub fn features(&self) -> usize {
        self.mean.len()
    }

    /// log |det ∂z/∂x| = −Σ ln std, in nats: added to a log-density of z it gives that of x in the user's units.
    pub fn log_det(&self) -> f64 {
        self.constant_log_det(self.features())
    }
}

impl Stage for Standardiser {
    fn constant_log_det(&self, modelled: usize) -> f64 {
        -self.std[..modelled].iter().map(|std| std.ln()).sum::<f64>()
    }

    fn forward(&self, row: &mut [f64], _modelled: usize, _log_det: &mut f64) {
        for (x, (mean, std)) in row.iter_mut().zip(self.mean.iter().zip(&self.std)) {
            *x = (*x - mean) / std;
        }
    }

    fn inverse(&self, row: &mut [f64], _modelled: usize) {
        for (z, (mean, std)) in row.iter_mut().zip(self.mean.iter().zip(&self.std)) {
            *z = *z * std + mean;
        }
    }

    fn backward(&self, _row: &[f64], _modelled: usize, gradient: &mut [f64]) {
        gradient.iter_mut().zip(&self.std).for_each(|(gradient, std)| *gradient /= std);
    }
}

/// Mean and standard deviation of one column, or what is wrong with it, to be read after the column's name.
///
/// Two passes, the second about the first one's mean and corrected for its rounding (Chan, Golub and LeVeque,
/// "Algorithms for computing the sample variance", 1983), so that mean 1e9 with deviation 1 loses nothing.
fn moments(column: impl Iterator<Item = f64> + Clone) -> std::result::Result<(f64, f64), String> {
    let (mut count, mut mean, mut low, mut high) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for value in column.clone() {
        if !value.is_finite() {
            return Err(format!("holds {value}; expected finite numbers"));
        }
        count += 1.0;
        // A running mean: the sum itself could overflow.
        mean += (value - mean) / count;
        (low, high) = (low.min(value), high.max(value));
    }
    if low == high {
        return Err(format!(
            "is constant: every training row holds {low}. It has no density; drop the column from the table"
        ));
    }
    let (mut sum, mut squares) = (0.0, 0.0);
    for value in column {
        let deviation = value - mean;
        sum += deviation;
        squares += deviation * deviation;
    }
    let correction = sum / count;
    let variance = squares / count - correction * correction;
    let std = variance.sqrt();
    mean += correction;
    if !(mean.is_finite() && std.is_finite()) {
        return Err(format!(
            "is too large: values from {low:e} to {high:e} overflow in squares; rescale the column"
        ));
    }
    if !variance.is_normal() {
        return Err(format!(
            "varies too little: values from {low:e} to {high:e} underflow in squares; rescale or drop the column"
        ));
    }
    Ok((mean, std))
}

/// Median and interquartile range / 1.349 of finite numbers; `None` when the latter is nothing.
fn median_and_spread(mut column: Vec<f64>) -> Option<(f64, f64)> {
    /// Interquartile range of a normal variable in standard deviations.
    const NORMAL_RANGE: f64 = 1.349;

    column.sort_unstable_by(f64::total_cmp);
    // Between neighbours, as NumPy does by default.
    let quantile = |share: f64| {
        let place = share * (column.len() - 1) as f64;
        let (low, high) = (column[place.floor() as usize], column[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    let spread = (quantile(0.75) - quantile(0.25)) / NORMAL_RANGE;
    (spread.is_normal() && spread > 0.0).then(|| (quantile(0.5), spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("c{i}")).collect()
    }

    #[test]
    fn statistics_are_those_of_each_column() {
        let fitted = Standardiser::fit(&[1.0, -10.0, 3.0, 10.0, 5.0, 30.0], &names(2)).expect("fits");
        assert_eq!(fitted.mean, [3.0, 10.0]);
        approx::assert_relative_eq!(fitted.std[0], (8f64 / 3.0).sqrt(), max_relative = 1e-15);
        approx::assert_relative_eq!(fitted.std[1], (800f64 / 3.0).sqrt(), max_relative = 1e-15);
        approx::assert_relative_eq!(
            fitted.log_det(),
            -(fitted.std[0] * fitted.std[1]).ln(),
            max_relative = 1e-15
        );
    }

    #[test]
    fn a_large_mean_costs_no_precision() {
        // Offsets ±1 about 1e9 in a pattern whose variance is known exactly: half of them 0.
        let values: Vec<f64> = (0..40_000).map(|i| 1e9 + [0.0, 1.0, 0.0, -1.0][i % 4]).collect();
        let fitted = Standardiser::fit(&values, &names(1)).expect("fits");
        assert_eq!(fitted.mean, [1e9]);
        approx::assert_relative_eq!(fitted.std[0], 0.5f64.sqrt(), max_relative = 1e-12);
    }

    #[test]
    fn standardised_columns_have_mean_0_and_deviation_1_and_identity_changes_nothing() {
        let values = [1.5, -10.25, 3.0, 10.5, 5.125, 30.0, 2.0, 2.0];
        let fitted = Standardiser::fit(&values, &names(2)).expect("fits");
        let mut rows = values;
        rows.chunks_mut(2).for_each(|row| fitted.forward(row, 2, &mut 0.0));
        let standardised = Standardiser::fit(&rows, &names(2)).expect("fits");
        for feature in 0..2 {
            approx::assert_relative_eq!(standardised.mean[feature], 0.0, epsilon = 1e-15);
            approx::assert_relative_eq!(standardised.std[feature], 1.0, epsilon = 1e-15);
        }
        let mut rows = values;
        rows.chunks_mut(2).for_each(|row| Standardiser::identity(2).forward(row, 2, &mut 0.0));
        assert_eq!(rows, values);
        assert_eq!(Standardiser::identity(2).log_det(), 0.0);
    }

    #[test]
    fn robust_statistics_are_median_and_quartiles_and_ignore_outliers() {
        let column: Vec<f64> = (0..101).map(|i| if i == 100 { 1e9 } else { f64::from(i) }).collect();
        let (median, spread) = median_and_spread(column).expect("spread");
        assert_eq!(median, 50.0);
        approx::assert_relative_eq!(spread, 50.0 / 1.349, max_relative = 1e-12);
        assert_eq!(median_and_spread(vec![1.0, 2.0, 2.0, 2.0, 2.0, 9.0]), None);
    }

    #[test]
    fn unusable_columns_are_named_with_what_to_do() {
        for (second, want) in [
            ([0.1; 3], "column 2 (`c1`) is constant: every training row holds 0.1"),
            ([f64::MAX, -f64::MAX, 1.0], "column 2 (`c1`) is too large"),
            ([1e200, 2e200, 3e200], "rescale the column"),
            ([1e-200, 2e-200, 3e-200], "varies too little"),
            ([1.0, f64::NAN, 3.0], "holds NaN"),
            ([1.0, f64::INFINITY, 3.0], "holds inf"),
        ] {
            let values: Vec<f64> = second.iter().enumerate().flat_map(|(i, &b)| [i as f64, b]).collect();
            let message = Standardiser::fit(&values, &names(2)).expect_err("must be refused").to_string();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn too_few_rows_and_broken_rows_are_refused() {
        for rows in 0..2 {
            let message =
                Standardiser::fit(&vec![1.0; 2 * rows], &names(2)).expect_err("refused").to_string();
            assert!(message.contains("at least 2 training rows"), "{message}");
        }
        assert!(matches!(Standardiser::fit(&[1.0; 5], &names(2)), Err(Error::Length { .. })));
        assert!(Standardiser::fit(&[1.0; 5], &[]).is_err());
    }
}
