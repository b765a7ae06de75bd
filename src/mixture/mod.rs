//! The Gaussian mixture as the base density of a flow, on the host and in double precision: its beginning by
//! expectation-maximisation, and its distribution functions, by which latent values become standard normal.

mod em;
mod groups;
mod scores;

use crate::flow::{Base, Flow};
use crate::layout::Layout;

pub(crate) use em::fit;

/// Whether so many rows of so many columns are enough for a base of so many Gaussians: each of several has a covariance of
/// its own, which takes rows for each column.
pub(crate) fn has_rows_for(components: usize, rows: usize, columns: usize) -> bool {
    /// Rows for each column that each Gaussian needs.
    const ROWS_EACH: usize = 5;

    components <= 1 || rows / columns.max(1) >= ROWS_EACH * components
}

/// A mixture of K Gaussians over M features. A_k, lower triangular with a positive diagonal, takes component k to the
/// standard normal: y = A_k · (z − mean_k).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mixture {
    features: usize,
    /// Logarithm of each weight `[K]`; the weights add up to 1.
    log_weights: Vec<f64>,
    /// [K, M]
    means: Vec<f64>,
    /// [K, M, M], entries above the diagonal zero.
    factors: Vec<f64>,
}

impl Mixture {
    /// The base density of `flow` with the flat parameters `[P]`; `None` where it is not a mixture.
    pub fn of(flow: &Flow, parameters: &[f32]) -> Option<Self> {
        let Base::Mixture { components } = flow.base else { return None };
        let size = flow.modelled();
        let wide: Vec<f64> = parameters[Layout::new(flow).base].iter().map(|&value| value.into()).collect();
        let (logits, rest) = wide.split_at(components);
        let (means, rest) = rest.split_at(components * size);
        let (log_diagonal, lower) = rest.split_at(components * size);
        let total = log_sum_exp(logits);
        let mut factors = lower.to_vec();
        for (row, factor) in factors.chunks_exact_mut(size).enumerate() {
            let feature = row % size;
            factor[feature] = log_diagonal[row].exp();
            factor[feature + 1..].fill(0.0);
        }
        Some(Self {
            features: size,
            log_weights: logits.iter().map(|logit| logit - total).collect(),
            means: means.to_vec(),
            factors,
        })
    }

    /// Its parameters in the order of the layout, `[K (1 + 2 M + M²)]`.
    pub fn parameters(&self) -> Vec<f32> {
        let size = self.features;
        let rows = || self.factors.chunks_exact(size).enumerate();
        let log_diagonal = rows().map(|(row, factor)| factor[row % size].ln());
        let lower = rows().flat_map(|(row, factor)| {
            factor.iter().enumerate().map(move |(j, &entry)| if j < row % size { entry } else { 0.0 })
        });
        let all = self.log_weights.iter().chain(&self.means).copied().chain(log_diagonal).chain(lower);
        all.map(|value| value as f32).collect()
    }

    /// K.
    fn components(&self) -> usize {
        self.log_weights.len()
    }

    /// y_i of component `k`: row i of A_k times (z − mean_k).
    fn whitened(&self, k: usize, i: usize, z: &[f64]) -> f64 {
        let size = self.features;
        let row = &self.factors[(k * size + i) * size..][..=i];
        let mean = &self.means[k * size..];
        row.iter().zip(z).zip(mean).map(|((entry, z), mean)| entry * (z - mean)).sum()
    }

    /// Logarithm of each component's density at `z` `[M]` times its weight, into `terms` `[K]`, without the constant of all.
    fn log_densities(&self, z: &[f64], terms: &mut [f64]) {
        for (k, term) in terms.iter_mut().enumerate() {
            let of_features = (0..self.features).map(|i| {
                let y = self.whitened(k, i, z);
                self.log_diagonal(k, i) - 0.5 * y * y
            });
            *term = self.log_weights[k] + of_features.sum::<f64>();
        }
    }

    /// ln A_k[i, i].
    fn log_diagonal(&self, k: usize, i: usize) -> f64 {
        self.factors[(k * self.features + i) * self.features + i].ln()
    }
}

/// ln Σ exp of `terms`; −∞ where all are.
pub(crate) fn log_sum_exp(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return terms.iter().sum();
    }
    largest + terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln()
}
