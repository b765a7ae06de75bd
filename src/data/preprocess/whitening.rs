//! A linear map after which columns are uncorrelated: a flow that starts as the identity then starts as the Gaussian of
//! the data's full covariance, and spends its couplings on what a Gaussian is not.
//! It comes after the standardiser, and its log-determinant is part of log p.

use serde::{Deserialize, Serialize};

use super::stage::Stage;
use crate::error::{Error, Result, expect_length};

/// Added to the unit diagonal of the correlations: columns that are sums of others stay invertible, and the factor's
/// entries below 10³.
const RIDGE: f64 = 1e-6;

/// y = L⁻¹ x, where L·Lᵀ are the correlations of standardised rows x.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whitening {
    /// L, lower triangular, row-major [D, D].
    factor: Vec<f64>,
}

impl Whitening {
    /// The map of standardised `rows`, row-major [N, D].
    ///
    /// # Errors
    /// [`Error::Length`] when `rows` are not whole, [`Error::Argument`] when there are none or their covariance is not
    /// finite.
    ///
    /// # Panics
    /// When there are 0 features.
    pub fn fit(rows: &[f64], features: usize) -> Result<Self> {
        expect_length("rows", rows.len(), rows.len().next_multiple_of(features))?;
        Self::fit_given(rows.len() / features, features, &[], |row, values| {
            values.copy_from_slice(&rows[row * features..(row + 1) * features]);
        })
    }

    /// The map of `count` standardised rows, which `read` puts into a row `[D]` by their numbers. Their last columns are
    /// context, `indicators` `[C]` among it, which are left as they are.
    ///
    /// # Errors
    /// Those of [`Whitening::fit`].
    pub(super) fn fit_given(
        count: usize,
        features: usize,
        indicators: &[bool],
        read: impl Fn(usize, &mut [f64]),
    ) -> Result<Self> {
        let mut factor = vec![0.0; features * features];
        let mut row = vec![0.0; features];
        for number in 0..count {
            read(number, &mut row);
            row.rotate_right(indicators.len());
            for i in 0..features {
                for j in 0..=i {
                    factor[i * features + j] += row[i] * row[j];
                }
            }
        }
        for value in &mut factor {
            *value /= count as f64;
        }
        for i in 0..features {
            let is_indicator = indicators.get(i) == Some(&true);
            // A row's worth of the others' mean: of a level with few rows little is known.
            factor[i * features + i] += if is_indicator { RIDGE + 1.0 / count as f64 } else { RIDGE };
        }
        factorise(&mut factor, features).ok_or_else(|| {
            Error::Argument(format!(
                "whitening needs rows whose covariance is positive and finite, got {count} rows of {features} columns"
            ))
        })?;
        let mut fitted = Self { factor };
        if indicators.contains(&true) {
            fitted.spare(indicators);
        }
        Ok(fitted)
    }

    /// Changes the map so that it passes `indicators` among the first columns on as they are. What follows them stays
    /// uncorrelated with them. Whitened, the indicator of a rare level would be a number far out.
    fn spare(&mut self, indicators: &[bool]) {
        let features = self.features();
        let is_spared = |i: usize| indicators.get(i) == Some(&true);
        // Row i: the old result i by the new ones.
        let mut old = vec![0.0; features * features];
        for i in 0..features {
            let (above, row) = old.split_at_mut(i * features);
            row[i] = 1.0;
            if is_spared(i) {
                for (j, before) in above.chunks_exact(features).enumerate() {
                    let factor = self.factor[i * features + j];
                    row[..i].iter_mut().zip(before).for_each(|(value, before)| *value -= factor * before);
                }
                let own = self.factor[i * features + i];
                row[..=i].iter_mut().for_each(|value| *value /= own);
            }
        }
        for i in 0..features {
            let line = self.factor[i * features..(i + 1) * features].to_vec();
            let new = &mut self.factor[i * features..(i + 1) * features];
            new.fill(0.0);
            if is_spared(i) {
                new[i] = 1.0;
                continue;
            }
            for (j, factor) in line[..=i].iter().enumerate() {
                let old = &old[j * features..=j * features + j];
                new.iter_mut().zip(old).for_each(|(new, old)| *new += factor * old);
            }
        }
    }

    /// The map with the factor L, lower triangular [D, D], as a model file holds it.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is not a lower triangle of finite numbers with a positive diagonal.
    pub fn from_factor(factor: Vec<f64>, features: usize) -> Result<Self> {
        expect_length("whitening factor", factor.len(), features * features)?;
        let sound = factor.iter().enumerate().all(|(index, &value)| {
            let (i, j) = (index / features, index % features);
            value.is_finite() && (j < i || (j == i && value > 0.0) || (j > i && value == 0.0))
        });
        if sound {
            return Ok(Self { factor });
        }
        Err(Error::Argument(
            "a whitening factor must be a lower triangle of finite numbers with a positive diagonal".into(),
        ))
    }

    /// L, lower triangular, row-major [D, D].
    pub fn factor(&self) -> &[f64] {
        &self.factor
    }

    /// Number of features D.
    pub fn features(&self) -> usize {
        self.factor.len().isqrt()
    }

    /// log |det ∂y/∂x| = −Σ ln Lᵢᵢ, the same for every row.
    pub fn log_det(&self) -> f64 {
        self.constant_log_det(self.features())
    }
}

/// Rows are mapped with their context before the other columns, so that these are uncorrelated with the context,
/// and the context of nothing.
impl Stage for Whitening {
    fn constant_log_det(&self, modelled: usize) -> f64 {
        let features = self.features();
        -(features - modelled..features).map(|i| self.factor[i * features + i].ln()).sum::<f64>()
    }

    fn forward(&self, row: &mut [f64], modelled: usize, _log_det: &mut f64) {
        let features = self.features();
        row.rotate_left(modelled);
        for i in 0..features {
            let line = &self.factor[i * features..=i * features + i];
            let known: f64 = line[..i].iter().zip(&*row).map(|(factor, y)| factor * y).sum();
            row[i] = (row[i] - known) / line[i];
        }
        row.rotate_right(modelled);
    }

    fn inverse(&self, row: &mut [f64], modelled: usize) {
        let features = self.features();
        row.rotate_left(modelled);
        for i in (0..features).rev() {
            let line = &self.factor[i * features..=i * features + i];
            row[i] = line.iter().zip(&*row).map(|(factor, y)| factor * y).sum();
        }
        row.rotate_right(modelled);
    }

    fn backward(&self, _row: &[f64], modelled: usize, gradient: &mut [f64]) {
        let features = self.features();
        gradient.rotate_left(modelled);
        for i in (0..features).rev() {
            let known: f64 = (i + 1..features).map(|j| self.factor[j * features + i] * gradient[j]).sum();
            gradient[i] = (gradient[i] - known) / self.factor[i * features + i];
        }
        gradient.rotate_right(modelled);
    }
}

/// Cholesky's factor in place of the lower triangle of a symmetric matrix; `None` where it is not positive definite.
pub(crate) fn factorise(matrix: &mut [f64], size: usize) -> Option<()> {
    for i in 0..size {
        for j in 0..=i {
            let (above, line) = matrix.split_at(i * size);
            let other = if j < i { &above[j * size..] } else { line };
            let known: f64 = line[..j].iter().zip(other).map(|(a, b)| a * b).sum();
            let rest = matrix[i * size + j] - known;
            if i == j {
                if !(rest > 0.0 && rest.is_finite()) {
                    return None;
                }
                matrix[i * size + i] = rest.sqrt();
            } else {
                matrix[i * size + j] = rest / matrix[j * size + j];
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// Correlated rows of mean 0 and about unit deviation.
    fn rows(count: usize) -> Vec<f64> {
        let mut noise = [0.0f32; 3];
        (0..count as u32)
            .flat_map(|row| {
                random::normals(row, 5, &mut noise);
                let [a, b, c] = noise.map(f64::from);
                [a, 0.8 * a + 0.6 * b, 0.5 * c - 0.5 * a + 0.7 * b]
            })
            .collect()
    }

    fn whiten(whitening: &Whitening, rows: &mut [f64]) {
        rows.chunks_exact_mut(3).for_each(|row| whitening.forward(row, 3, &mut 0.0));
    }

    #[test]
    fn whitened_rows_are_uncorrelated_with_unit_variance() {
        let mut rows = rows(4000);
        let whitening = Whitening::fit(&rows, 3).expect("fits");
        whiten(&whitening, &mut rows);
        for i in 0..3 {
            for j in 0..3 {
                let mean = rows.chunks(3).map(|row| row[i] * row[j]).sum::<f64>() / 4000.0;
                let want = f64::from(u8::from(i == j));
                assert!((mean - want).abs() < 1e-4, "[{i}, {j}]: {mean}");
            }
        }
    }

    #[test]
    fn inverting_undoes_whitening_and_the_log_det_is_the_determinants() {
        let original = rows(50);
        let whitening = Whitening::fit(&original, 3).expect("fits");
        let mut rows = original.clone();
        whiten(&whitening, &mut rows);
        // The images of the unit vectors are the columns of L⁻¹, whose determinant is the product of its diagonal.
        let mut unit = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        whiten(&whitening, &mut unit);
        assert!(((unit[0] * unit[4] * unit[8]).ln() - whitening.log_det()).abs() < 1e-12);
        assert!(unit[3] == 0.0 && unit[6] == 0.0 && unit[7] == 0.0, "lower triangular");
        rows.chunks_exact_mut(3).for_each(|row| whitening.inverse(row, 3));
        for (got, want) in rows.iter().zip(original) {
            assert!((got - want).abs() < 1e-12, "got {got}, want {want}");
        }
    }

    #[test]
    fn a_column_that_is_the_sum_of_others_stays_invertible() {
        let mut rows: Vec<f64> =
            rows(100).chunks(3).flat_map(|row| [row[0], row[1], row[0] + row[1]]).collect();
        let original = rows.clone();
        let whitening = Whitening::fit(&rows, 3).expect("fits");
        whiten(&whitening, &mut rows);
        rows.chunks_exact_mut(3).for_each(|row| whitening.inverse(row, 3));
        for (got, want) in rows.iter().zip(original) {
            assert!((got - want).abs() < 1e-9, "got {got}, want {want}");
        }
    }

    #[test]
    fn unusable_rows_and_factors_are_refused() {
        assert!(Whitening::fit(&[], 2).is_err());
        assert!(Whitening::fit(&[1.0, f64::NAN], 2).is_err());
        assert!(Whitening::fit(&[1.0], 2).is_err());
        for factor in [[1.0, 0.5, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, f64::NAN, 1.0]] {
            assert!(Whitening::from_factor(factor.to_vec(), 2).is_err(), "{factor:?}");
        }
        assert_eq!(
            Whitening::from_factor(vec![2.0, 0.0, 1.0, 4.0], 2).expect("sound").log_det(),
            -(8.0f64.ln())
        );
    }
}
