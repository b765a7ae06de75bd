//! Mixtures of Gaussians with equal shares, and the area-preserving twist that makes a pinwheel of one.
//! Both have their densities in closed form.

use std::f64::consts::{SQRT_2, TAU};

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use super::grid::{LogDensity, TAIL, square_around};

/// A Gaussian in the plane with its axes.
#[derive(Clone, Debug)]
pub(super) struct Gaussian {
    mean: [f64; 2],
    /// Unit vector of the first axis; the second is its quarter turn to the left.
    axis: [f64; 2],
    /// Standard deviations along the axes.
    std: [f64; 2],
}

impl Gaussian {
    /// At `angle` and `radius` from the origin, with deviations `along` and across the line from the origin.
    fn spoke(angle: f64, radius: f64, along: f64, across: f64) -> Self {
        let axis = [angle.cos(), angle.sin()];
        Self { mean: axis.map(|value| radius * value), axis, std: [along, across] }
    }

    /// Coordinates of `x` along the axes, from the mean.
    fn local(&self, x: [f64; 2]) -> [f64; 2] {
        let [dx, dy] = [x[0] - self.mean[0], x[1] - self.mean[1]];
        let [c, s] = self.axis;
        [c * dx + s * dy, c * dy - s * dx]
    }
}

/// Eight round Gaussians with deviation `noise`.
pub(super) fn blobs(noise: f64) -> Vec<Gaussian> {
    (0..8).map(|arm| Gaussian::spoke(TAU / 8.0 * f64::from(arm), 4.0, noise, noise)).collect()
}

/// The pinwheel's five arms before the [`twist`].
pub(super) fn pinwheel(noise: f64) -> Vec<Gaussian> {
    (0..5).map(|arm| Gaussian::spoke(TAU / 5.0 * f64::from(arm), 2.0, 0.6, noise)).collect()
}

/// Turns `x` clockwise by exp(r / 2) / 4, r its distance from the origin; with `direction` −1 it turns back.
/// A rotation by an angle that depends on r alone keeps r and areas: its Jacobian determinant is 1.
pub(super) fn twist(x: [f64; 2], direction: f64) -> [f64; 2] {
    // Beyond r = 40 the angle stays, so that it remains exact in f64 and never infinite.
    let angle = -direction * 0.25 * (0.5 * x[0].hypot(x[1]).min(40.0)).exp();
    let (s, c) = angle.sin_cos();
    [c * x[0] - s * x[1], s * x[0] + c * x[1]]
}

/// A random point of the mixture.
pub(super) fn draw(gaussians: &[Gaussian], rng: &mut impl Rng) -> [f64; 2] {
    let Gaussian { mean, axis: [c, s], std } = &gaussians[rng.random_range(0..gaussians.len())];
    let [u, v] = std.map(|std| std * rng.sample::<f64, _>(StandardNormal));
    [mean[0] + c * u - s * v, mean[1] + s * u + c * v]
}

impl LogDensity for [Gaussian] {
    fn log_density(&self, x: [f64; 2]) -> f64 {
        let term = |gaussian: &Gaussian| {
            let [u, v] = gaussian.local(x);
            let [a, b] = gaussian.std;
            -0.5 * ((u / a).powi(2) + (v / b).powi(2)) - TAU.ln() - a.ln() - b.ln()
        };
        let largest = self.iter().map(term).fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return largest;
        }
        let sum: f64 = self.iter().map(|gaussian| (term(gaussian) - largest).exp()).sum();
        largest + (sum / self.len() as f64).ln()
    }

    fn beyond(&self, x: [f64; 2]) -> f64 {
        let outside = |gaussian: &Gaussian| {
            let [u, v] = gaussian.local(x);
            let [a, b] = gaussian.std;
            (u.abs() - TAIL * a).max(v.abs() - TAIL * b)
        };
        self.iter().map(outside).fold(f64::INFINITY, f64::min)
    }

    fn square(&self) -> ([f64; 2], f64) {
        let widest = self.iter().flat_map(|gaussian| gaussian.std).fold(0.0, f64::max);
        square_around(self.iter().map(|gaussian| gaussian.mean), TAIL * SQRT_2 * widest)
    }

    fn finest(&self) -> f64 {
        self.iter().flat_map(|gaussian| gaussian.std).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twist_turns_back_and_keeps_areas() {
        for x in [[0.3, -0.2], [2.0, 0.5], [-3.0, 2.5], [0.01, 0.0], [-20.0, 70.0]] {
            let back = twist(twist(x, 1.0), -1.0);
            assert!((back[0] - x[0]).hypot(back[1] - x[1]) < 1e-6, "{x:?} came back as {back:?}");
        }
        let step = 1e-5;
        for x in [[0.3, -0.2], [2.0, 0.5], [-3.0, 2.5]] {
            let slope = |dx: f64, dy: f64| {
                let [ahead, behind] =
                    [1.0, -1.0].map(|sign| twist([x[0] + sign * dx, x[1] + sign * dy], 1.0));
                [0, 1].map(|axis| (ahead[axis] - behind[axis]) / (2.0 * step))
            };
            let (along_x, along_y) = (slope(step, 0.0), slope(0.0, step));
            let determinant = along_x[0] * along_y[1] - along_x[1] * along_y[0];
            assert!((determinant - 1.0).abs() < 1e-8, "at {x:?}: {determinant}");
        }
    }

    #[test]
    fn density_of_one_slanted_gaussian_is_the_textbook_one() {
        let gaussian = [Gaussian::spoke(0.5, 2.0, 0.6, 0.2)];
        let (s, c) = 0.5f64.sin_cos();
        // One deviation along the axis and two across.
        let x = [2.0 * c + 0.6 * c - 0.4 * s, 2.0 * s + 0.6 * s + 0.4 * c];
        let want = -0.5 * (1.0 + 4.0) - (TAU * 0.6 * 0.2).ln();
        approx::assert_relative_eq!(gaussian.log_density(x), want, max_relative = 1e-14);
    }
}
