//! The standard normal distribution function in double precision, far into its tails, and its inverse.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

/// Where the upper tail is about to underflow, and a continued fraction of few terms has every digit.
const FAR: f64 = 30.0;

/// The distribution function Φ(x).
pub(crate) fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// ln Φ(x), finite for every finite x.
pub(crate) fn log_cdf(x: f64) -> f64 {
    if x > 0.0 {
        return (-cdf(-x)).ln_1p();
    }
    if x > -FAR {
        return cdf(x).ln();
    }
    mills_ratio_far(-x).ln() - 0.5 * x * x - 0.5 * TAU.ln()
}

/// Q(x) / φ(x) of the upper tail Q for large x: Laplace's continued fraction 1/(x + 1/(x + 2/(x + …))).
fn mills_ratio_far(x: f64) -> f64 {
    1.0 / (1..16).rev().fold(x, |tail, numerator| x + f64::from(numerator) / tail)
}

/// Q(x) / φ(x) for x ≥ 0.
fn mills_ratio(x: f64) -> f64 {
    if x < FAR { cdf(-x) * (0.5 * x * x).exp() * TAU.sqrt() } else { mills_ratio_far(x) }
}

/// The x with ln Φ(x) = `log_p`, for log_p ≤ ln ½: by Newton's method on ln Φ.
pub(crate) fn lower_quantile(log_p: f64) -> f64 {
    if log_p == f64::NEG_INFINITY {
        return log_p;
    }
    // ln Q is concave and falls; a start to the right of the root therefore converges from one side.
    let mut z = (-2.0 * log_p).sqrt();
    for _ in 0..20 {
        let step = (log_cdf(-z) - log_p) * mills_ratio(z);
        z = (z + step).max(0.0);
        if step.abs() <= 1e-15 * z {
            break;
        }
    }
    -z
}

/// The x with Φ(x) = `u`.
pub(crate) fn quantile(u: f64) -> f64 {
    if u < 0.5 { lower_quantile(u.ln()) } else { -lower_quantile((1.0 - u).ln()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values computed with 40 digits.
    #[test]
    fn values_are_those_of_reference() {
        for (x, want) in [
            (0.0, 0.5f64.ln()),
            (1.0, 0.841_344_746_068_542_9f64.ln()),
            (-1.959_963_984_540_054_2, 0.025f64.ln()),
            (-10.0, -53.231_285_150_512_47),
            (-40.0, -804.608_442_013_753_6),
        ] {
            assert!(
                (log_cdf(x) - want).abs() <= 2e-14 * want.abs().max(1.0),
                "{x}: {} for {want}",
                log_cdf(x)
            );
        }
        let before = log_cdf(-FAR + 1e-9) - log_cdf(-FAR - 1e-9);
        assert!((before - 2e-9 * (FAR + 1.0 / FAR)).abs() < 1e-11, "the two formulas meet: {before:e}");
        assert!((log_cdf(-1e150) + 0.5e300).abs() < 1e286, "finite far out");
        assert!(((TAU / 4.0).sqrt() - mills_ratio(0.0)).abs() < 1e-15);
    }

    #[test]
    fn the_quantile_inverts_the_distribution_function() {
        for step in 0..4000 {
            let x = -0.0125 * f64::from(step);
            let back = lower_quantile(log_cdf(x));
            assert!((back - x).abs() <= 4e-15 * (1.0 + x.abs()) + 1e-15 / (0.1 + x.abs()), "{x}: {back}");
        }
        assert_eq!(lower_quantile(f64::NEG_INFINITY), f64::NEG_INFINITY);
    }
}
