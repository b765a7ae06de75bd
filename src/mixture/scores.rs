//! Latent values as normal scores. Feature i of a mixture, given those before it, is again a mixture of Gaussians: of y_i of
//! each component, with the weights that the features before leave. Its distribution function, and then the normal quantile,
//! turn z one feature after the other into independent standard normal numbers (Rosenblatt 1952).

use super::{Mixture, log_sum_exp};
use crate::normal::{log_cdf, lower_quantile};

impl Mixture {
    /// Replaces the modelled features of rows `z` [B, D] by their normal scores; what follows them stays. NaN stays NaN.
    pub fn normal_scores(&self, features: usize, z: &mut [f64]) {
        let count = self.components();
        let (mut log_weights, mut lower, mut upper) = (vec![0.0; count], vec![0.0; count], vec![0.0; count]);
        let mut scores = vec![0.0; self.features];
        for row in z.chunks_exact_mut(features) {
            let z = &mut row[..self.features];
            if z.iter().any(|value| value.is_nan()) {
                z.fill(f64::NAN);
                continue;
            }
            log_weights.copy_from_slice(&self.log_weights);
            for (i, score) in scores.iter_mut().enumerate() {
                for k in 0..count {
                    let y = self.whitened(k, i, z);
                    lower[k] = log_weights[k] + log_cdf(y);
                    upper[k] = log_weights[k] + log_cdf(-y);
                    log_weights[k] += self.log_diagonal(k, i) - 0.5 * y * y;
                }
                let (below, above) = (log_sum_exp(&lower), log_sum_exp(&upper));
                let total = log_sum_exp(&[below, above]);
                *score = if below < above {
                    lower_quantile(below - total)
                } else {
                    -lower_quantile(above - total)
                };
            }
            z.copy_from_slice(&scores);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture() -> Mixture {
        Mixture {
            features: 2,
            log_weights: vec![0.25f64.ln(), 0.75f64.ln()],
            means: vec![-3.0, 1.0, 2.0, -0.5],
            factors: vec![2.0, 0.0, -1.5, 0.8, 0.5, 0.0, 0.4, 3.0],
        }
    }

    #[test]
    fn a_single_gaussian_gives_its_own_whitening() {
        let single = Mixture {
            features: 2,
            log_weights: vec![0.0],
            means: vec![1.0, -2.0],
            factors: vec![2.0, 0.0, -1.0, 0.5],
        };
        let mut z = [1.5, 3.0, 7.0, -60.0, 40.0, 8.0];
        single.normal_scores(3, &mut z);
        for (got, want) in z.iter().zip([1.0, 2.0, 7.0, -122.0, 82.0, 8.0]) {
            assert!((got - want).abs() < 1e-11, "got {got}, want {want}");
        }
    }

    /// The density of the scores, pulled back, is the mixture's: φ(s₁) φ(s₂) |det ∂s/∂z| = p(z).
    #[test]
    fn scores_of_a_mixture_are_standard_normal() {
        let (mixture, h) = (mixture(), 1e-5);
        for z in [[-3.0, 1.0], [-1.0, 0.3], [0.5, -0.5], [2.5, -1.0], [5.0, 2.0]] {
            let scores = |a: f64, b: f64| {
                let mut row = [z[0] + a, z[1] + b];
                mixture.normal_scores(2, &mut row);
                row
            };
            let slope = |plus: [f64; 2], minus: [f64; 2], i: usize| (plus[i] - minus[i]) / (2.0 * h);
            let at = scores(0.0, 0.0);
            let (by_a, by_b) = ((scores(h, 0.0), scores(-h, 0.0)), (scores(0.0, h), scores(0.0, -h)));
            assert_eq!(by_b.0[0], by_b.1[0], "a score depends on no later feature");
            let determinant = slope(by_a.0, by_a.1, 0) * slope(by_b.0, by_b.1, 1);
            let want = log_sum_exp(
                &(0..2)
                    .map(|k| {
                        let terms = (0..2)
                            .map(|i| mixture.log_diagonal(k, i) - 0.5 * mixture.whitened(k, i, &z).powi(2));
                        mixture.log_weights[k] + terms.sum::<f64>()
                    })
                    .collect::<Vec<f64>>(),
            );
            let got = -0.5 * (at[0] * at[0] + at[1] * at[1]) + determinant.abs().ln();
            assert!((got - want).abs() < 1e-7, "{z:?}: {got} for {want}");
        }
    }

    #[test]
    fn rows_far_out_stay_finite_and_nan_stays() {
        let mut z = [1e6, -1e6, f64::NAN, 0.0];
        mixture().normal_scores(2, &mut z);
        assert!(z[0].is_finite() && z[1].is_finite(), "{z:?}");
        assert!(z[2].is_nan() && z[3].is_nan(), "{z:?}");
    }
}
