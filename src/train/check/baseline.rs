//! The simple densities that a fit begins from: columns as the preprocessing leaves them, as independent standard
//! normals, and as the Gaussian that fits the training rows. A flow that is no better than they are has learnt nothing.

use std::f64::consts::TAU;

use super::latent::structure;
use super::sample::Sample;
use crate::data::{Dataset, Margins, Preprocessed, Preprocessing, factorise};
use crate::model::{Comparison, KernelGain, Model};

/// Most features for which the Gaussian is fitted: the work grows with their square.
const FEATURES: usize = 256;
/// Most features of which kernel densities are made: 32 of them take two seconds.
const KERNEL_FEATURES: usize = 16;
/// Added to variances, in the units of the preprocessed columns: columns that are sums of others stay invertible.
const RIDGE: f64 = 1e-6;

/// The model, whose log-densities are `log_density` `[B]`, beside the simple densities over the same rows `unseen` `[B,
/// D]`.
pub(super) fn compare(model: &Model, training: &Sample, unseen: &Sample, log_density: &[f64]) -> Comparison {
    let (features, modelled) = (model.flow.features, model.flow.modelled());
    let seen = model.preprocessing.forward(&training.rows).values;
    let gaussian = Gaussian::of(&seen, training, features, modelled);
    let simple = Simple::of(&model.preprocessing, gaussian.as_ref(), &unseen.rows);
    let mut scores: Vec<f64> = seen.into_iter().map(f64::from).collect();
    if let Some(gaussian) = &gaussian {
        scores.chunks_exact_mut(features).for_each(|row| gaussian.whiten(row));
    }
    let beyond = structure(&scores, training, features, modelled).total();
    let mean = |values: &[f64]| unseen.mean_and_error(values).0;
    let means = (mean(&simple.independent), simple.gaussian.as_deref().map(mean));
    let (gain, gain_error) = simple.gain(log_density, unseen);
    Comparison {
        rows: log_density.len(),
        model: mean(log_density),
        independent: means.0,
        gaussian: means.1,
        gain,
        gain_error,
        beyond,
        kernel: None,
    }
}

/// The model, whose log-densities over `rows` of training and validation are `log_density`, beside kernel densities of
/// the columns; `None` where `dataset` has no such densities.
pub(super) fn beside_kernels(
    dataset: &Dataset,
    rows: [&Sample; 2],
    log_density: [&[f64]; 2],
) -> Option<KernelGain> {
    let preprocessing = &dataset.preprocessing;
    let (features, modelled) = (dataset.features(), preprocessing.modelled());
    let has_them = preprocessing.margins() == Margins::Kernel || !preprocessing.atoms.is_empty();
    if has_them || features > KERNEL_FEATURES || rows.iter().any(|rows| rows.rows.is_empty()) {
        return None;
    }
    let preprocessing = dataset.with_kernels().ok()?;
    let seen = preprocessing.forward(&rows[0].rows).values;
    let gaussian = Gaussian::of(&seen, rows[0], features, modelled);
    let gain = |side: usize| {
        Simple::of(&preprocessing, gaussian.as_ref(), &rows[side].rows).gain(log_density[side], rows[side])
    };
    let ((training, training_error), (validation, _)) = (gain(0), gain(1));
    Some(KernelGain { training, training_error, validation })
}

/// log p of some rows `[B]` under the simple densities.
struct Simple {
    independent: Vec<f64>,
    gaussian: Option<Vec<f64>>,
}

impl Simple {
    /// Of `rows` `[B, D]`, whose columns `preprocessing` leaves as `gaussian` has them.
    fn of(preprocessing: &Preprocessing, gaussian: Option<&Gaussian>, rows: &[f64]) -> Self {
        let (features, modelled) = (preprocessing.domains.len(), preprocessing.modelled());
        let Preprocessed { values, log_det } = preprocessing.forward(rows);
        let of_rows = |density: &dyn Fn(&[f32]) -> f64| -> Vec<f64> {
            let rows = std::iter::zip(values.chunks_exact(features), &log_det);
            rows.map(|(row, log_det)| log_det + density(row)).collect()
        };
        Self {
            independent: of_rows(&|row| row[..modelled].iter().map(|&y| standard_normal(f64::from(y))).sum()),
            gaussian: gaussian.map(|gaussian| of_rows(&|row| gaussian.log_density(row))),
        }
    }

    /// How much better `log_density` `[B]` is than the better of them over the rows `sample`, and the standard error.
    fn gain(&self, log_density: &[f64], sample: &Sample) -> (f64, f64) {
        let mean = |values: &[f64]| sample.mean_and_error(values).0;
        let gaussian = self.gaussian.as_deref().filter(|gaussian| mean(gaussian) > mean(&self.independent));
        let simple = gaussian.unwrap_or(&self.independent);
        let gains: Vec<f64> =
            std::iter::zip(log_density, simple).map(|(model, simple)| model - simple).collect();
        sample.mean_and_error(&gains)
    }
}

fn standard_normal(y: f64) -> f64 {
    -0.5 * (y * y + TAU.ln())
}

/// A Gaussian over rows `[B, D]`, of which it gives the density of the first M features given the others.
struct Gaussian {
    modelled: usize,
    /// `[D]`, the context first, like all of it.
    mean: Vec<f64>,
    /// Cholesky's factor L of the covariance L·Lᵀ, row-major `[D, D]`.
    factor: Vec<f64>,
}

impl Gaussian {
    /// [`Gaussian::fit`], where there are not too many features for it.
    fn of(rows: &[f32], sample: &Sample, features: usize, modelled: usize) -> Option<Self> {
        (features <= FEATURES).then(|| Self::fit(rows, sample, features, modelled)).flatten()
    }

    /// With mean and covariance of `rows` `[N, D]`, whose weights `sample` has; `None` where they are not finite.
    fn fit(rows: &[f32], sample: &Sample, features: usize, modelled: usize) -> Option<Self> {
        let ordered = |row: &[f32]| -> Vec<f64> {
            row[modelled..].iter().chain(&row[..modelled]).map(|&value| f64::from(value)).collect()
        };
        let rows = || {
            rows.chunks_exact(features).enumerate().map(|(row, values)| (sample.weight(row), ordered(values)))
        };
        let total: f64 = rows().map(|(weight, _)| weight).sum();
        let mut mean = vec![0.0; features];
        for (weight, row) in rows() {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += weight * value / total);
        }
        let mut covariance = vec![0.0; features * features];
        for (weight, mut row) in rows() {
            row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
            for (i, line) in covariance.chunks_exact_mut(features).enumerate() {
                let scaled = weight * row[i] / total;
                line[..=i].iter_mut().zip(&row).for_each(|(sum, value)| *sum += scaled * value);
            }
        }
        (0..features).for_each(|i| covariance[i * features + i] += RIDGE);
        factorise(&mut covariance, features)?;
        Some(Self { modelled, mean, factor: covariance })
    }

    /// Replaces the first M features of `row` `[D]` by independent standard normals given the others, which stay.
    fn whiten(&self, row: &mut [f64]) {
        let features = row.len();
        let context = features - self.modelled;
        let mut white: Vec<f64> = Vec::with_capacity(features);
        for (i, line) in self.factor.chunks_exact(features).enumerate() {
            let value = row[(i + self.modelled) % features] - self.mean[i];
            let known: f64 = line[..i].iter().zip(&white).map(|(factor, white)| factor * white).sum();
            white.push((value - known) / line[i]);
        }
        row[..self.modelled].copy_from_slice(&white[context..]);
    }

    /// log p of the first M features of `row` `[D]` given the others.
    fn log_density(&self, row: &[f32]) -> f64 {
        let features = row.len();
        let mut white: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        self.whiten(&mut white);
        let context = features - self.modelled;
        let log_det: f64 = (context..features).map(|i| self.factor[i * features + i].ln()).sum();
        white[..self.modelled].iter().map(|&y| standard_normal(y)).sum::<f64>() - log_det
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normal;
    use crate::random::normals;

    const ALL: Sample = Sample { rows: Vec::new(), weights: None };

    /// Rows (a, b, c) where c is context and a = 2 c + noise.
    fn rows() -> Vec<f32> {
        (0..3000)
            .flat_map(|row| {
                let t = row as f32;
                let (c, noise) = ((t * 0.7).sin() * 1.5, (t * 1.3).sin() * 0.3);
                [2.0 * c + noise, (t * 2.1).cos(), c]
            })
            .collect()
    }

    #[test]
    fn the_gaussian_of_some_features_given_the_others_is_the_quotient_of_two() {
        let rows = rows();
        let given = Gaussian::fit(&rows, &ALL, 3, 2).expect("positive definite");
        let joint = Gaussian::fit(&rows, &ALL, 3, 3).expect("positive definite");
        let context: Vec<f32> = rows.iter().skip(2).step_by(3).copied().collect();
        let alone = Gaussian::fit(&context, &ALL, 1, 1).expect("positive definite");
        for row in rows.chunks_exact(3).take(20) {
            let want = joint.log_density(row) - alone.log_density(&row[2..]);
            assert!((given.log_density(row) - want).abs() < 1e-5, "{} for {want}", given.log_density(row));
        }
    }

    #[test]
    fn its_mean_log_density_is_that_of_its_entropy_and_weights_count() {
        let rows = rows();
        let gaussian = Gaussian::fit(&rows, &ALL, 3, 3).expect("positive definite");
        let mean = rows.chunks_exact(3).map(|row| gaussian.log_density(row)).sum::<f64>() / 3000.0;
        let log_det: f64 = (0..3).map(|i| gaussian.factor[4 * i].ln()).sum();
        let entropy = 1.5 * (TAU.ln() + 1.0) + log_det;
        assert!((mean + entropy).abs() < 1e-4, "{mean} for −{entropy}");

        let weights = (0..1000).map(|row| if row < 300 { 2.0 } else { 1.0 }).collect();
        let weighted = Sample { rows: Vec::new(), weights: Some(weights) };
        let by_weight = Gaussian::fit(&rows[..3000], &weighted, 3, 3).expect("positive definite");
        let by_rows =
            Gaussian::fit(&[&rows[..3000], &rows[..900]].concat(), &ALL, 3, 3).expect("positive definite");
        assert!(std::iter::zip(&by_weight.factor, &by_rows.factor).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn a_column_that_is_the_sum_of_others_has_a_density() {
        let rows: Vec<f32> =
            rows().chunks_exact(3).flat_map(|row| [row[0], row[1], row[0] + row[1]]).collect();
        let gaussian = Gaussian::fit(&rows, &ALL, 3, 3).expect("the ridge makes it positive definite");
        assert!(gaussian.log_density(&rows[..3]).is_finite());
        assert!(Gaussian::fit(&[f32::NAN; 6], &ALL, 3, 3).is_none());
    }

    #[test]
    fn rows_of_a_gaussian_have_nothing_beyond_it_in_200_samples_and_uniform_rows_always_have() {
        let mut noise = [0.0f32; 2];
        for seed in 0..200 {
            let beyond = |change: fn([f32; 2]) -> [f32; 2], noise: &mut [f32; 2]| {
                let rows = (0..2000).flat_map(|row| {
                    normals(row, seed, noise);
                    change(*noise)
                });
                let rows: Vec<f32> = rows.collect();
                let gaussian = Gaussian::fit(&rows, &ALL, 2, 2).expect("positive definite");
                let mut scores: Vec<f64> = rows.into_iter().map(f64::from).collect();
                scores.chunks_exact_mut(2).for_each(|row| gaussian.whiten(row));
                structure(&scores, &ALL, 2, 2).total()
            };
            let of_gaussian = beyond(|[a, b]| [3.0 + 2.0 * a, 0.8 * a + 0.6 * b], &mut noise);
            assert_eq!(of_gaussian, 0.0, "seed {seed}");
            let of_uniform = beyond(|row| row.map(|z| normal::cdf(f64::from(z)) as f32), &mut noise);
            assert!(of_uniform > 0.1, "seed {seed}: {of_uniform}");
        }
    }
}
