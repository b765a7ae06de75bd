//! Which components of a mixture belong together: those that no valley parts.

use super::{Mixture, log_sum_exp};

/// Deviations from either mean to the valley between two components that are apart: the density there is 1 % of that at
/// their means.
const APART: f64 = 3.0;
/// Share of the mass from which components that belong together count as a group.
const LEAST_SHARE: f64 = 0.02;

impl Mixture {
    /// The number of groups of components that are apart from all others, small ones left out.
    pub fn groups(&self) -> usize {
        let count = self.components();
        let mut group: Vec<usize> = (0..count).collect();
        for a in 0..count {
            for b in a + 1..count {
                if !self.are_apart(a, b) && group[a] != group[b] {
                    let (kept, joined) = (group[a], group[b]);
                    group.iter_mut().filter(|group| **group == joined).for_each(|group| *group = kept);
                }
            }
        }
        let share = |wanted: usize| {
            let members = group.iter().zip(&self.log_weights).filter(|(group, _)| **group == wanted);
            members.map(|(_, log_weight)| log_weight.exp()).sum::<f64>()
        };
        (0..count).filter(|&group| share(group) >= LEAST_SHARE).count()
    }

    /// Whether the density falls to next to nothing on the line between the means of two components. Component k falls by
    /// exp(−½ (t d_k)²) at the part t of the way, and both are as low where t d_a = (1 − t) d_b.
    fn are_apart(&self, a: usize, b: usize) -> bool {
        let distance = |from: usize, to: usize| {
            let mean = &self.means[to * self.features..][..self.features];
            (0..self.features).map(|i| self.whitened(from, i, mean).powi(2)).sum::<f64>().sqrt()
        };
        let [a, b] = [distance(a, b), distance(b, a)];
        a * b >= APART * (a + b)
    }

    /// Mean of log p(z) over `rows` [N, M] with `weights` `[N]`, but for the constant −½ M ln 2π.
    pub fn mean_log_density(&self, rows: &[f64], weights: Option<&[f64]>) -> f64 {
        let mut terms = vec![0.0; self.components()];
        let (mut sum, mut total) = (0.0, 0.0);
        for (row, z) in rows.chunks_exact(self.features).enumerate() {
            let weight = weights.map_or(1.0, |weights| weights[row]);
            self.log_densities(z, &mut terms);
            sum += weight * log_sum_exp(&terms);
            total += weight;
        }
        sum / total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaussians with identity factors at these places of one feature, all of one weight.
    fn mixture(means: &[f64], stds: &[f64]) -> Mixture {
        let log_weights = vec![-(means.len() as f64).ln(); means.len()];
        let factors = stds.iter().map(|std| 1.0 / std).collect();
        Mixture { features: 1, log_weights, means: means.to_vec(), factors }
    }

    #[test]
    fn components_are_grouped_by_the_valleys_between_them() {
        for (means, stds, want) in [
            (&[0.0, 5.9][..], &[1.0, 1.0][..], 1),
            (&[0.0, 6.1], &[1.0, 1.0], 2),
            (&[0.0, 9.0], &[1.0, 2.0], 2),
            (&[0.0, 8.9], &[1.0, 2.0], 1),
            (&[0.0, 10.0, 5.0, 30.0], &[1.0; 4], 2),
            (&[0.0, 0.1, 0.2], &[1.0; 3], 1),
        ] {
            assert_eq!(mixture(means, stds).groups(), want, "{means:?} {stds:?}");
        }
        let mut small = mixture(&[0.0, 20.0], &[1.0, 1.0]);
        small.log_weights = vec![0.985f64.ln(), 0.015f64.ln()];
        assert_eq!(small.groups(), 1);
    }

    #[test]
    fn the_mean_log_density_counts_rows_by_their_weights() {
        let mixture = mixture(&[0.0, 4.0], &[1.0, 1.0]);
        let at = |z: f64| {
            let density = |mean: f64| 0.5 * (-0.5 * (z - mean).powi(2)).exp();
            (density(0.0) + density(4.0)).ln()
        };
        let mean = mixture.mean_log_density(&[1.0, 5.0], Some(&[3.0, 1.0]));
        assert!((mean - 0.75 * at(1.0) - 0.25 * at(5.0)).abs() < 1e-12);
    }
}
