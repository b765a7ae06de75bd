//! The border between the user's units and the engine's: each column's steps, then the standardiser.
//! It stands between a dataset or a table and an engine, there and back, with the log-determinant that keeps log p in
//! the user's units.

use serde::{Deserialize, Serialize};

use super::{Standardiser, Steps};
use crate::error::{Error, Result};
use crate::random::{Stream, key, philox};

/// What the standardiser is fitted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standardise {
    /// Mean and standard deviation.
    #[default]
    Mean,
    /// Median and interquartile range / 1.349, which is the standard deviation where the column is normal.
    Robust,
}

/// What to do to the columns of a table, before it is known which statistics they have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreprocessingPlan {
    /// Steps of each column `[D]`; empty for none at all.
    pub steps: Vec<Steps>,
    /// How to standardise what comes of them.
    pub standardise: Standardise,
}

impl PreprocessingPlan {
    /// The first value of `rows`, row-major [B, D], that cannot be modelled: its row and column from 0, and what is
    /// wrong with it.
    pub fn first_refusal(&self, rows: &[f64]) -> Option<(usize, usize, String)> {
        first_refusal(&self.steps, rows)
    }

    /// Checks number and rules of the steps against the columns `columns` `[D]`.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the column.
    pub fn validate(&self, columns: &[String]) -> Result<()> {
        if !self.steps.is_empty() {
            crate::error::expect_length("steps of the columns", self.steps.len(), columns.len())?;
        }
        self.steps.iter().zip(columns).try_for_each(|(steps, name)| steps.validate(name))
    }

    /// Adds to a row `[D]` the noise of its dequantised columns: uniform in (0, 1), of row `row` under `seed`.
    pub(super) fn add_noise(&self, values: &mut [f64], row: u32, seed: u64) {
        for (column, (value, steps)) in values.iter_mut().zip(&self.steps).enumerate() {
            if steps.dequantize {
                let words = philox([row, column as u32, 0, Stream::Dequantize as u32], key(seed));
                // The middle of one of 2³² cells, so that neither 0 nor 1 is drawn.
                *value += (f64::from(words[0]) + 0.5) * 0.5f64.powi(32);
            }
        }
    }

    /// Fits to the training rows `values`, row-major [N, D], which have their noise; errors name `source_name`.
    ///
    /// # Errors
    /// Those of [`Standardiser::fit`], and [`Error::Data`] for a column whose middle half is one value, when robust.
    pub(super) fn fit(&self, source_name: &str, values: &[f64], columns: &[String]) -> Result<Preprocessing> {
        self.validate(columns)?;
        let steps =
            if self.steps.is_empty() { vec![Steps::default(); columns.len()] } else { self.steps.clone() };
        let mapped: Vec<f64>;
        let mut seen = values;
        if steps.iter().any(|steps| steps.bounds.is_some()) {
            mapped = values.iter().zip(steps.iter().cycle()).map(|(&x, steps)| steps.forward(x).0).collect();
            seen = &mapped;
        }
        let mut standardiser = Standardiser::fit_named(source_name, seen, columns)?;
        if self.standardise == Standardise::Robust {
            for (feature, name) in columns.iter().enumerate() {
                let column = seen[feature..].iter().step_by(columns.len()).copied().collect();
                (standardiser.mean[feature], standardiser.std[feature]) = median_and_spread(column).ok_or_else(|| {
                    Error::data(
                        source_name,
                        format!(
                            "column {} (`{name}`) has no spread: half of its values are equal; use --standardise mean",
                            feature + 1
                        ),
                    )
                })?;
            }
        }
        Ok(Preprocessing { steps, standardise: self.standardise, standardiser })
    }
}

/// The steps of every column and the standardiser behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    /// Steps of each column `[D]`.
    pub steps: Vec<Steps>,
    /// What the standardiser was fitted to.
    pub standardise: Standardise,
    /// Between the real line and standardised units.
    pub standardiser: Standardiser,
}

/// Rows in standardised units with their log-determinants.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessed {
    /// Row-major [B, D]; zeros in a row without density.
    pub values: Vec<f32>,
    /// log |det ∂z/∂x| of each row `[B]`, in nats; −∞ in a row without density.
    pub log_det: Vec<f64>,
}

impl From<Standardiser> for Preprocessing {
    /// No steps but the standardiser.
    fn from(standardiser: Standardiser) -> Self {
        let steps = vec![Steps::default(); standardiser.features()];
        Self { steps, standardise: Standardise::Mean, standardiser }
    }
}

impl Preprocessing {
    /// Whether no column has a step before the standardiser.
    pub fn is_plain(&self) -> bool {
        self.steps.iter().all(|steps| *steps == Steps::default())
    }

    /// The dequantised columns.
    pub fn dequantized(&self) -> Vec<usize> {
        (0..self.steps.len()).filter(|&column| self.steps[column].dequantize).collect()
    }

    /// Whether the row `[D]`, in the user's units and without noise, can have a density.
    pub fn accepts(&self, row: &[f64]) -> bool {
        first_refusal(&self.steps, row).is_none()
    }

    /// User's units → standardised, with log-determinants: `rows` row-major [B, D], whose dequantised columns have
    /// their noise. Computed in `f64`, rounded once.
    pub fn forward(&self, rows: &[f64]) -> Preprocessed {
        let constant = self.standardiser.log_det();
        let features = self.steps.len();
        if self.is_plain() {
            let log_det = vec![constant; rows.len() / features];
            return Preprocessed { values: self.standardiser.apply(rows), log_det };
        }
        let mut mapped = Vec::with_capacity(rows.len());
        let mut log_det = Vec::with_capacity(rows.len() / features);
        for row in rows.chunks_exact(features) {
            let mut sum = constant;
            for (&x, steps) in row.iter().zip(&self.steps) {
                let (y, slope) = steps.forward(x);
                mapped.push(y);
                sum += slope;
            }
            if sum == f64::NEG_INFINITY {
                // The engine must not meet a number that is not finite.
                let start = mapped.len() - features;
                mapped[start..].copy_from_slice(&self.standardiser.mean);
            }
            log_det.push(sum);
        }
        Preprocessed { values: self.standardiser.apply(&mapped), log_det }
    }

    /// Standardised → user's units, row-major [B, D]; dequantised columns hold whole numbers.
    pub fn inverse(&self, rows: &[f32]) -> Vec<f64> {
        let mut values = self.standardiser.invert(rows);
        if !self.is_plain() {
            for (value, steps) in values.iter_mut().zip(self.steps.iter().cycle()) {
                *value = steps.inverse(*value);
            }
        }
        values
    }

    /// Mean of the log-determinants of `rows`, as for [`Preprocessing::forward`], in nats.
    pub fn mean_log_det(&self, rows: &[f64]) -> f64 {
        let sum: f64 = if self.is_plain() {
            0.0
        } else {
            rows.iter().zip(self.steps.iter().cycle()).map(|(&x, steps)| steps.forward(x).1).sum()
        };
        let count = (rows.len() / self.steps.len()).max(1) as f64;
        self.standardiser.log_det() + sum / count
    }
}

fn first_refusal(steps: &[Steps], rows: &[f64]) -> Option<(usize, usize, String)> {
    if steps.iter().all(|steps| *steps == Steps::default()) {
        return None;
    }
    let mut values = rows.iter().zip(steps.iter().cycle()).enumerate();
    values.find_map(|(index, (&x, of))| {
        of.refusal(x).map(|problem| (index / steps.len(), index % steps.len(), problem))
    })
}

/// Median and interquartile range / 1.349 of finite numbers; `None` when the latter is nothing.
fn median_and_spread(mut column: Vec<f64>) -> Option<(f64, f64)> {
    /// Interquartile range of a normal variable in standard deviations.
    const NORMAL_RANGE: f64 = 1.349;

    column.sort_by(f64::total_cmp);
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
    use crate::data::Bounds;

    fn fitted(standardise: Standardise) -> (Preprocessing, Vec<f64>) {
        let plan = PreprocessingPlan {
            steps: vec![
                Steps::default(),
                Steps { dequantize: false, bounds: Some(Bounds { low: Some(0.0), high: Some(2.0) }) },
                Steps { dequantize: true, bounds: None },
            ],
            standardise,
        };
        let mut rows: Vec<f64> =
            (1..60).flat_map(|i| [f64::from(i * i), f64::from(i) / 30.0, f64::from(i % 4)]).collect();
        assert_eq!(plan.first_refusal(&rows), None);
        for (row, values) in rows.chunks_mut(3).enumerate() {
            plan.add_noise(values, row as u32, 1);
        }
        let columns = ["a", "b", "c"].map(String::from);
        (plan.fit("t", &rows, &columns).expect("fits"), rows)
    }

    #[test]
    fn inverse_undoes_forward_with_whole_numbers_whole_again() {
        for standardise in [Standardise::Mean, Standardise::Robust] {
            let (preprocessing, rows) = fitted(standardise);
            let there = preprocessing.forward(&rows);
            let back = preprocessing.inverse(&there.values);
            for (back, row) in back.chunks(3).zip(rows.chunks(3)) {
                approx::assert_relative_eq!(back[0], row[0], max_relative = 1e-4, epsilon = 1e-3);
                approx::assert_relative_eq!(back[1], row[1], epsilon = 1e-5);
                assert_eq!(back[2], row[2].floor());
            }
            let mean = there.log_det.iter().sum::<f64>() / there.log_det.len() as f64;
            approx::assert_relative_eq!(mean, preprocessing.mean_log_det(&rows), epsilon = 1e-12);
        }
    }

    #[test]
    fn log_det_is_the_sum_of_the_columns_slopes_by_hand() {
        let (preprocessing, _) = fitted(Standardise::Mean);
        let std = &preprocessing.standardiser.std;
        let got = preprocessing.forward(&[4.0, 0.5, 1.25]).log_det[0];
        // d/dx ln(x / (2 − x)) = 2 / (x (2 − x)).
        let want = (2.0f64 / (0.5 * 1.5)).ln() - (std[0] * std[1] * std[2]).ln();
        approx::assert_relative_eq!(got, want, epsilon = 1e-12);
        let outside = preprocessing.forward(&[4.0, 2.5, 1.25, 4.0, 0.5, 1.25]);
        assert_eq!(outside.log_det[0], f64::NEG_INFINITY);
        assert!(outside.values.iter().all(|value| value.is_finite()) && outside.log_det[1] == got);
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
    fn noise_is_inside_its_cell_repeats_and_differs_by_row_column_and_seed() {
        let plan = PreprocessingPlan {
            steps: vec![Steps { dequantize: true, bounds: None }; 2],
            standardise: Standardise::Mean,
        };
        let draw = |row, seed| {
            let mut values = [0.0; 2];
            plan.add_noise(&mut values, row, seed);
            values
        };
        assert_eq!(draw(3, 1), draw(3, 1));
        assert!(draw(3, 1) != draw(4, 1) && draw(3, 1) != draw(3, 2) && draw(3, 1)[0] != draw(3, 1)[1]);
        let all: Vec<f64> = (0..5000).flat_map(|row| draw(row, 7)).collect();
        assert!(all.iter().all(|&u| u > 0.0 && u < 1.0));
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / 10_000.0).sqrt(), "{mean}");
    }
}
