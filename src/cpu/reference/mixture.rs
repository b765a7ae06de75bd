//! The Gaussian mixture with full covariances, row by row: log p(z) = log Σ_k π_k N(z; mean_k, (A_kᵀ A_k)⁻¹), where A_k is
//! lower triangular with exp(log_diagonal_k) on its diagonal and π is the softmax of the logits.
//!
//! A row has M values. Entries of `lower` on and above the diagonal are not read.

use super::super::Real;

/// Parameters of a mixture of K components over M features.
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a, R> {
    /// `[K]`
    pub logits: &'a [R],
    /// [K, M]
    pub mean: &'a [R],
    /// [K, M]
    pub log_diagonal: &'a [R],
    /// [K, M, M]
    pub lower: &'a [R],
}

impl<'a, R: Real> Mixture<'a, R> {
    /// From the flat parameters of a base of `components` components over `modelled` features.
    pub fn new(flat: &'a [R], components: usize, modelled: usize) -> Self {
        let (logits, rest) = flat.split_at(components);
        let (mean, rest) = rest.split_at(components * modelled);
        let (log_diagonal, lower) = rest.split_at(components * modelled);
        Self { logits, mean, log_diagonal, lower }
    }

    /// K.
    pub fn components(&self) -> usize {
        self.logits.len()
    }

    /// M.
    pub fn modelled(&self) -> usize {
        self.mean.len() / self.logits.len()
    }

    /// A_k[i, j].
    pub fn factor(&self, k: usize, i: usize, j: usize) -> R {
        let size = self.modelled();
        match i.cmp(&j) {
            std::cmp::Ordering::Less => R::zero(),
            std::cmp::Ordering::Equal => self.log_diagonal[k * size + i].exp(),
            std::cmp::Ordering::Greater => self.lower[(k * size + i) * size + j],
        }
    }

    /// Weights π `[K]`.
    pub fn weights(&self) -> Vec<R> {
        let largest = self.logits.iter().fold(R::neg_infinity(), |a, &b| a.max(b));
        let powers: Vec<R> = self.logits.iter().map(|&logit| (logit - largest).exp()).collect();
        let sum = powers.iter().fold(R::zero(), |sum, &power| sum + power);
        powers.into_iter().map(|power| power / sum).collect()
    }

    /// y_k = A_k · (z − mean_k), in the place of `y` `[M]`.
    fn whiten(&self, k: usize, z: &[R], y: &mut [R]) {
        let size = self.modelled();
        for (i, y) in y.iter_mut().enumerate() {
            *y = (0..=i)
                .fold(R::zero(), |sum, j| sum + self.factor(k, i, j) * (z[j] - self.mean[k * size + j]));
        }
    }

    /// log of weight and density of each component at `z` `[M]`, `[K]`.
    pub fn terms(&self, z: &[R]) -> Vec<R> {
        let size = self.modelled();
        let half = R::from_wide(0.5);
        let constant = R::from_wide(0.5 * size as f64 * std::f64::consts::TAU.ln());
        let mut y = vec![R::zero(); size];
        let weights = self.weights();
        (0..self.components())
            .map(|k| {
                self.whiten(k, z, &mut y);
                let squares = y.iter().fold(R::zero(), |sum, &y| sum + y * y);
                let diagonal =
                    self.log_diagonal[k * size..][..size].iter().fold(R::zero(), |sum, &d| sum + d);
                weights[k].ln() + diagonal - half * squares - constant
            })
            .collect()
    }

    /// log p(z), and the responsibility of each component for it `[K]`.
    pub fn log_density(&self, z: &[R]) -> (R, Vec<R>) {
        let terms = self.terms(z);
        let largest = terms.iter().fold(R::neg_infinity(), |a, &b| a.max(b));
        let powers: Vec<R> = terms.iter().map(|&term| (term - largest).exp()).collect();
        let sum = powers.iter().fold(R::zero(), |sum, &power| sum + power);
        (largest + sum.ln(), powers.into_iter().map(|power| power / sum).collect())
    }

    /// The gradient of `factor` · (−log p) at `z` `[M]`: `d_z` `[M]`, overwritten, and that of the parameters, in the order of
    /// the layout, added to `gradient`.
    pub fn backward(&self, factor: R, z: &[R], d_z: &mut [R], gradient: &mut [R]) {
        let (size, count) = (self.modelled(), self.components());
        let (_, responsibilities) = self.log_density(z);
        let weights = self.weights();
        let (logits, rest) = gradient.split_at_mut(count);
        let (mean, rest) = rest.split_at_mut(count * size);
        let (log_diagonal, lower) = rest.split_at_mut(count * size);
        d_z.fill(R::zero());
        let mut y = vec![R::zero(); size];
        for k in 0..count {
            self.whiten(k, z, &mut y);
            let counted = factor * responsibilities[k];
            logits[k] += factor * (weights[k] - responsibilities[k]);
            for j in 0..size {
                let pulled = counted * (j..size).fold(R::zero(), |sum, i| sum + self.factor(k, i, j) * y[i]);
                d_z[j] += pulled;
                mean[k * size + j] -= pulled;
            }
            for i in 0..size {
                for j in 0..i {
                    lower[(k * size + i) * size + j] += counted * y[i] * (z[j] - self.mean[k * size + j]);
                }
                let along = y[i] * (z[i] - self.mean[k * size + i]) * self.factor(k, i, i);
                log_diagonal[k * size + i] += counted * (along - R::one());
            }
        }
    }

    /// The component that `uniform` in [0, 1) chooses; see [`choose`].
    pub fn choose(&self, uniform: R) -> usize {
        choose(&self.weights(), uniform)
    }

    /// mean_k + A_k⁻¹ · noise, in the place of `noise` `[M]`.
    pub fn place(&self, k: usize, noise: &mut [R]) {
        let size = self.modelled();
        for i in 0..size {
            let known = (0..i).fold(R::zero(), |sum, j| sum + self.factor(k, i, j) * noise[j]);
            noise[i] = (noise[i] - known) / self.factor(k, i, i);
        }
        for (value, &mean) in noise.iter_mut().zip(&self.mean[k * size..]) {
            *value += mean;
        }
    }
}

/// The component that `uniform` in [0, 1) chooses by the `weights` π `[K]`: the first whose weight, added to those before it,
/// exceeds it; else the last that has a weight.
pub fn choose<R: Real>(weights: &[R], uniform: R) -> usize {
    let (mut chosen, mut sum) = (0, R::zero());
    for (k, &weight) in weights.iter().enumerate() {
        sum += weight;
        if weight > R::zero() {
            chosen = k;
        }
        if uniform < sum {
            break;
        }
    }
    chosen
}
