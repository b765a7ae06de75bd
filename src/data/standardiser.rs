//! The affine map between the user's units and standardised ones.
//! It stands between a dataset and an engine, and its log-determinant keeps log p in the user's units.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, expect_length};
use crate::shown::shown;

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
        Self::fit_named("training rows", values, columns)
    }

    /// [`Standardiser::fit`] whose errors name `source_name`.
    pub(super) fn fit_named(source_name: &str, values: &[f64], columns: &[String]) -> Result<Self> {
        let features = columns.len();
        let rows = values.len().checked_div(features).unwrap_or(0);
        expect_length("values to standardise", values.len(), rows * features)?;
        if rows < 2 {
            return Err(Error::data(source_name, format!("expected at least 2 training rows, got {rows}")));
        }
        let mut standardiser = Self::identity(features);
        for (feature, name) in columns.iter().enumerate() {
            let column = values[feature..].iter().step_by(features).copied();
            (standardiser.mean[feature], standardiser.std[feature]) = moments(column).map_err(|problem| {
                Error::data(source_name, format!("column {} (`{}`) {problem}", feature + 1, shown(name)))
            })?;
        }
        Ok(standardiser)
    }

    /// Number of features D.
    pub fn features(&self) -> usize {
        self.mean.len()
    }

    /// User's units → standardised: `x` and the result row-major [B, D]. Computed in `f64`, rounded once.
    pub fn apply(&self, x: &[f64]) -> Vec<f32> {
        self.map(x, |x, mean, std| ((x - mean) / std) as f32)
    }

    /// [`Standardiser::apply`] without the rounding to `f32`.
    pub fn apply64(&self, x: &[f64]) -> Vec<f64> {
        self.map(x, |x, mean, std| (x - mean) / std)
    }

    /// Standardised → user's units: `z` and the result row-major [B, D].
    pub fn invert(&self, z: &[f32]) -> Vec<f64> {
        self.map(z, |z, mean, std| f64::from(z) * std + mean)
    }

    /// [`Standardiser::invert`] of numbers that were never rounded to `f32`.
    pub fn invert64(&self, z: &[f64]) -> Vec<f64> {
        self.map(z, |z, mean, std| z * std + mean)
    }

    /// log |det ∂z/∂x| = −Σ ln std, in nats: added to a log-density of z it gives that of x in the user's units.
    pub fn log_det(&self) -> f64 {
        -self.std.iter().map(|std| std.ln()).sum::<f64>()
    }

    fn map<T: Copy, U>(&self, values: &[T], f: impl Fn(T, f64, f64) -> U) -> Vec<U> {
        debug_assert_eq!(values.len() % self.features().max(1), 0, "values must be whole rows");
        let statistics = self.mean.iter().zip(&self.std).cycle();
        values.iter().zip(statistics).map(|(&value, (&mean, &std))| f(value, mean, std)).collect()
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
    fn inverting_undoes_applying_and_identity_changes_nothing() {
        let values = [1.5, -10.25, 3.0, 10.5, 5.125, 30.0, 2.0, 2.0];
        let fitted = Standardiser::fit(&values, &names(2)).expect("fits");
        for (back, value) in fitted.invert(&fitted.apply(&values)).iter().zip(values) {
            approx::assert_relative_eq!(*back, value, epsilon = 1e-5);
        }
        let standardised = Standardiser::fit(&fitted.apply64(&values), &names(2)).expect("fits");
        for feature in 0..2 {
            approx::assert_relative_eq!(standardised.mean[feature], 0.0, epsilon = 1e-15);
            approx::assert_relative_eq!(standardised.std[feature], 1.0, epsilon = 1e-15);
        }
        assert_eq!(Standardiser::identity(2).apply64(&values), values);
        assert_eq!(Standardiser::identity(2).log_det(), 0.0);
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
