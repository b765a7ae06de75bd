//! Expectation-maximisation (Dempster, Laird and Rubin 1977), begun by k-means++ (Arthur and Vassilvitskii 2007).
//!
//! Sums over rows are taken in blocks of fixed size and added in order, so the bits do not depend on the number of threads.

use rand::RngExt;
use rayon::prelude::*;

use super::{Mixture, log_sum_exp};
use crate::random::{Philox, Stream};

/// Most passes over the rows by k-means and by expectation-maximisation.
const K_MEANS_PASSES: usize = 30;
const EM_PASSES: usize = 100;
/// Gain in nats a row below which expectation-maximisation ends.
const LEAST_GAIN: f64 = 1e-4;
/// Added to every variance, in the units of the rows, which are about standard deviations: no component falls onto a point.
const LEAST_VARIANCE: f64 = 3e-4;
/// Rows of a block.
const BLOCK: usize = 512;

/// What one component takes of some rows: Σ w, Σ w z `[M]`, Σ w z zᵀ [M, M] (its lower triangle).
#[derive(Clone, Debug)]
struct Moments {
    weight: f64,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Moments {
    fn zero(size: usize) -> Self {
        Self { weight: 0.0, first: vec![0.0; size], second: vec![0.0; size * size] }
    }

    fn add_row(&mut self, weight: f64, z: &[f64]) {
        self.weight += weight;
        for (i, &value) in z.iter().enumerate() {
            let weighted = weight * value;
            self.first[i] += weighted;
            let row = &mut self.second[i * z.len()..][..=i];
            row.iter_mut().zip(z).for_each(|(sum, &other)| *sum += weighted * other);
        }
    }

    fn add(&mut self, other: &Self) {
        self.weight += other.weight;
        self.first.iter_mut().zip(&other.first).for_each(|(sum, value)| *sum += value);
        self.second.iter_mut().zip(&other.second).for_each(|(sum, value)| *sum += value);
    }

    /// Mean `[M]` and covariance [M, M] (its lower triangle), with the least variance added.
    fn gaussian(&self) -> (Vec<f64>, Vec<f64>) {
        let size = self.first.len();
        let mean: Vec<f64> = self.first.iter().map(|sum| sum / self.weight).collect();
        let mut covariance: Vec<f64> = self.second.iter().map(|sum| sum / self.weight).collect();
        for i in 0..size {
            for j in 0..=i {
                covariance[i * size + j] -= mean[i] * mean[j];
            }
            // A difference of nearly equal squares may round below zero.
            covariance[i * size + i] = covariance[i * size + i].max(0.0) + LEAST_VARIANCE;
        }
        (mean, covariance)
    }
}

/// Rows to fit to, and how much each counts.
struct Sample<'a> {
    /// [N, M]
    rows: &'a [f64],
    /// `[N]`; `None` where all count alike.
    weights: Option<&'a [f64]>,
    size: usize,
}

impl Sample<'_> {
    fn len(&self) -> usize {
        self.rows.len() / self.size
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.rows[row * self.size..][..self.size]
    }

    fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[row])
    }

    fn total(&self) -> f64 {
        (0..self.len()).map(|row| self.weight(row)).sum()
    }

    /// The moments of `components` components, to each of which a row counts by its weight times what `responsibilities`
    /// fills in for the component; and the sum of what that returns, times the rows' weights.
    fn moments(
        &self,
        components: usize,
        responsibilities: impl Fn(&[f64], &mut [f64]) -> f64 + Sync,
    ) -> (Vec<Moments>, f64) {
        let zero = || vec![Moments::zero(self.size); components];
        let blocks: Vec<(Vec<Moments>, f64)> = (0..self.len().div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let (mut moments, mut sum, mut of_row) = (zero(), 0.0, vec![0.0; components]);
                for row in block * BLOCK..((block + 1) * BLOCK).min(self.len()) {
                    let (z, weight) = (self.row(row), self.weight(row));
                    if weight > 0.0 {
                        sum += weight * responsibilities(z, &mut of_row);
                        let counted = moments.iter_mut().zip(&of_row).filter(|(_, part)| **part > 0.0);
                        counted.for_each(|(moments, part)| moments.add_row(weight * part, z));
                    }
                }
                (moments, sum)
            })
            .collect();
        let (mut moments, mut sum) = (zero(), 0.0);
        for (block, part) in &blocks {
            moments.iter_mut().zip(block).for_each(|(all, block)| all.add(block));
            sum += part;
        }
        (moments, sum)
    }
}

/// The mixture of `components` Gaussians that fits `rows` [N, M], N ≥ 1, with `weights` `[N]`. `seed` decides where k-means
/// begins.
pub(crate) fn fit(
    rows: &[f64],
    weights: Option<&[f64]>,
    size: usize,
    components: usize,
    seed: u64,
) -> Mixture {
    let sample = Sample { rows, weights, size };
    let whole = sample.moments(1, |_, of_row| {
        of_row[0] = 1.0;
        0.0
    });
    let whole = whole.0.into_iter().next().unwrap_or_else(|| Moments::zero(size));
    if components == 1 {
        return Mixture::from_moments(std::slice::from_ref(&whole), &whole);
    }
    let mut mixture = k_means(&sample, components, seed, &whole);
    let (total, mut before) = (sample.total(), f64::NEG_INFINITY);
    for _ in 0..EM_PASSES {
        let (moments, log_likelihood) =
            sample.moments(components, |z, of_row| mixture.responsibilities(z, of_row));
        let mean = log_likelihood / total;
        if mean - before < LEAST_GAIN {
            break;
        }
        before = mean;
        mixture = Mixture::from_moments(&moments, &whole);
    }
    mixture
}

/// Means of groups of rows, then the groups' own Gaussians.
fn k_means(sample: &Sample, components: usize, seed: u64, whole: &Moments) -> Mixture {
    let mut centres = first_centres(sample, components, seed);
    let nearest = |centres: &[Vec<f64>], z: &[f64], of_row: &mut [f64]| {
        let distances = centres.iter().map(|centre| distance(centre, z));
        let (place, least) = distances.enumerate().fold((0, f64::INFINITY), |least, (place, distance)| {
            if distance < least.1 { (place, distance) } else { least }
        });
        of_row.fill(0.0);
        of_row[place] = 1.0;
        least
    };
    let (mut moments, mut before) = sample.moments(components, |z, of_row| nearest(&centres, z, of_row));
    for _ in 0..K_MEANS_PASSES {
        for (centre, moments) in centres.iter_mut().zip(&moments).filter(|(_, moments)| moments.weight > 0.0)
        {
            centre.iter_mut().zip(&moments.first).for_each(|(centre, sum)| *centre = sum / moments.weight);
        }
        let (next, spread) = sample.moments(components, |z, of_row| nearest(&centres, z, of_row));
        moments = next;
        if spread >= 0.999 * before {
            break;
        }
        before = spread;
    }
    Mixture::from_moments(&moments, whole)
}

/// Rows drawn one after the other, each with a probability in proportion to its squared distance from those before.
fn first_centres(sample: &Sample, components: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut random = Philox::new(seed, Stream::Mixture, 0);
    let mut chance: Vec<f64> = (0..sample.len()).map(|row| sample.weight(row)).collect();
    let mut centres: Vec<Vec<f64>> = Vec::with_capacity(components);
    while centres.len() < components {
        let mut left = random.random::<f64>() * chance.iter().sum::<f64>();
        let mut chosen = 0;
        for (row, &chance) in chance.iter().enumerate().filter(|(_, chance)| **chance > 0.0) {
            chosen = row;
            left -= chance;
            if left < 0.0 {
                break;
            }
        }
        let centre = sample.row(chosen).to_vec();
        for (row, chance) in chance.iter_mut().enumerate() {
            let own = sample.weight(row) * distance(&centre, sample.row(row));
            *chance = if centres.is_empty() { own } else { chance.min(own) };
        }
        centres.push(centre);
    }
    centres
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

impl Mixture {
    /// The Gaussians of `moments`. A component without rows gets the Gaussian of the `whole` and a weight of nearly nothing.
    fn from_moments(moments: &[Moments], whole: &Moments) -> Self {
        let size = whole.first.len();
        let least = 1e-6 * whole.weight / moments.len() as f64;
        let weight = |moments: &Moments| moments.weight.max(least);
        let total: f64 = moments.iter().map(weight).sum();
        let mut mixture = Self { features: size, log_weights: vec![], means: vec![], factors: vec![] };
        for moments in moments {
            mixture.log_weights.push((weight(moments) / total).ln());
            let (mean, covariance) = if moments.weight > least { moments } else { whole }.gaussian();
            mixture.means.extend(mean);
            mixture.factors.extend(whitening_factor(covariance, size));
        }
        mixture
    }

    /// The responsibility of each component for `z`, its share of the density there; returns log p(z) without its constant.
    fn responsibilities(&self, z: &[f64], of_row: &mut [f64]) -> f64 {
        self.log_densities(z, of_row);
        let log_p = log_sum_exp(of_row);
        of_row.iter_mut().for_each(|value| *value = (*value - log_p).exp());
        log_p
    }
}

/// A with AᵀA the inverse of the positive definite `covariance` [M, M] (its lower triangle): the inverse of its Cholesky
/// factor, lower triangular.
fn whitening_factor(mut covariance: Vec<f64>, size: usize) -> Vec<f64> {
    for j in 0..size {
        for i in j..size {
            let known: f64 = (0..j).map(|k| covariance[i * size + k] * covariance[j * size + k]).sum();
            let rest = covariance[i * size + j] - known;
            covariance[i * size + j] =
                if i == j { rest.max(0.5 * LEAST_VARIANCE).sqrt() } else { rest / covariance[j * size + j] };
        }
    }
    let cholesky = covariance;
    let mut inverse = vec![0.0; size * size];
    for j in 0..size {
        inverse[j * size + j] = 1.0 / cholesky[j * size + j];
        for i in j + 1..size {
            let known: f64 = (j..i).map(|k| cholesky[i * size + k] * inverse[k * size + j]).sum();
            inverse[i * size + j] = -known / cholesky[i * size + i];
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normals;

    /// `count` rows of two far Gaussians over 2 features, three quarters of them in the second, which is correlated.
    fn rows(count: u32) -> Vec<f64> {
        let mut noise = [0.0f32; 2];
        (0..count)
            .flat_map(|row| {
                normals(row, 5, &mut noise);
                let [a, b] = noise.map(f64::from);
                if row % 4 == 0 { [6.0 + 0.5 * a, -2.0 + b] } else { [-1.0 + a, 0.8 * a + 0.6 * b] }
            })
            .collect()
    }

    #[test]
    fn groups_are_found_with_their_weights_and_covariances() {
        let mixture = fit(&rows(8000), None, 2, 2, 1);
        let far = usize::from(mixture.means[2] > mixture.means[0]);
        assert!((mixture.log_weights[far].exp() - 0.25).abs() < 0.01, "{mixture:?}");
        let near = 1 - far;
        for (got, want) in mixture.means[2 * far..].iter().zip([6.0, -2.0]) {
            assert!((got - want).abs() < 0.06, "{mixture:?}");
        }
        // The inverse of the Cholesky factor of [[1, 0.8], [0.8, 1]].
        for (got, want) in mixture.factors[4 * near..].iter().zip([1.0, 0.0, -0.8 / 0.6, 1.0 / 0.6]) {
            assert!((got - want).abs() < 0.06, "{mixture:?}");
        }
    }

    #[test]
    fn one_component_is_the_gaussian_of_the_rows() {
        let rows = rows(500);
        let mixture = fit(&rows, None, 2, 1, 1);
        let mean = rows.iter().step_by(2).sum::<f64>() / 500.0;
        assert!((mixture.means[0] - mean).abs() < 1e-12);
        let variance = rows.iter().step_by(2).map(|x| (x - mean).powi(2)).sum::<f64>() / 500.0;
        let want = (variance + LEAST_VARIANCE).sqrt().recip();
        assert!((mixture.factors[0] - want).abs() < 1e-9, "{} for {want}", mixture.factors[0]);
    }

    #[test]
    fn a_weight_of_two_is_the_row_twice_and_a_weight_of_zero_is_no_row() {
        let rows = rows(300);
        let doubled: Vec<f64> = rows.iter().chain(&rows[..100]).copied().collect();
        let mut weights = vec![1.0; 300];
        weights[..50].fill(2.0);
        let [a, b] = [fit(&doubled, None, 2, 1, 1), fit(&rows, Some(&weights), 2, 1, 1)];
        assert!((a.means[0] - b.means[0]).abs() < 1e-12 && (a.factors[3] - b.factors[3]).abs() < 1e-9);
        let padded: Vec<f64> = rows.iter().copied().chain([1e9, -1e9]).collect();
        let mut weights = vec![1.0; 301];
        weights[300] = 0.0;
        assert_eq!(fit(&padded, Some(&weights), 2, 3, 1), fit(&rows, Some(&[1.0; 300]), 2, 3, 1));
    }

    #[test]
    fn few_or_equal_rows_give_finite_parameters() {
        for (rows, components) in [(vec![1.0, 2.0], 3), (vec![0.5; 40], 4), (vec![0.0, 0.0, 1.0, 1.0], 5)] {
            let mixture = fit(&rows, None, 2, components, 7);
            assert!(mixture.parameters().iter().all(|value| value.is_finite()), "{mixture:?}");
        }
    }
}
