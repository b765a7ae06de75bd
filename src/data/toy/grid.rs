//! Differential entropy of a density in the plane, by the trapezoidal rule on a grid.
//! The rule converges faster than any power of the spacing for smooth integrands that vanish at the border.

use std::f64::consts::SQRT_2;

use rayon::prelude::*;

/// A density that [`entropy`] can integrate.
pub(super) trait LogDensity: Sync {
    /// log p(x) in nats.
    fn log_density(&self, x: [f64; 2]) -> f64;

    /// A lower bound of the distance from `x` to the [`TAIL`] of the density, negative inside: what lies further out
    /// has no weight in the entropy.
    fn beyond(&self, x: [f64; 2]) -> f64;

    /// A square that holds all that is not beyond the tail: its centre and half its side.
    fn square(&self) -> ([f64; 2], f64);

    /// The smallest standard deviation of the Gaussians that the density is made of.
    fn finest(&self) -> f64;
}

/// Standard deviations at which a Gaussian's tail is cut. In the plane e⁻³² = 10⁻¹⁴ of the mass lies beyond.
pub(super) const TAIL: f64 = 8.0;
/// Grid points per finest standard deviation: more of them move the moons' entropy by less than 10⁻⁶.
const POINTS_PER_STD: f64 = 2.0;
/// Points along the side of a leaf of the quadtree.
const LEAF: u32 = 8;
/// Halvings of the square: the grid has at most LEAF · 2¹⁰ = 8192 points a side.
const MAX_DEPTH: u32 = 10;

/// −∫ p ln p in nats; `None` when the density is too fine for the largest grid.
///
/// A quadtree skips squares without weight, so the work goes with the area near the curves and not with the whole.
pub(super) fn entropy<D: LogDensity + ?Sized>(density: &D) -> Option<f64> {
    entropy_with(density, POINTS_PER_STD)
}

fn entropy_with<D: LogDensity + ?Sized>(density: &D, points_per_std: f64) -> Option<f64> {
    let spacing = density.finest() / points_per_std;
    let (centre, half) = density.square();
    let leaf = 0.5 * f64::from(LEAF) * spacing;
    // Also false when tiny noise makes the ratio infinite or NaN.
    let depth = (half / leaf).log2().ceil().max(0.0);
    (depth <= f64::from(MAX_DEPTH)).then(|| {
        let depth = depth as u32;
        let half = leaf * f64::from(1u32 << depth);
        spacing * spacing * integrate(density, centre, half, depth, spacing)
    })
}

/// Sum of −p ln p over the grid points in the square about `centre` with half side `half`.
fn integrate<D: LogDensity + ?Sized>(
    density: &D,
    centre: [f64; 2],
    half: f64,
    depth: u32,
    spacing: f64,
) -> f64 {
    if density.beyond(centre) > SQRT_2 * half {
        return 0.0;
    }
    if depth > 0 {
        let quarter = 0.5 * half;
        let offsets = [[-quarter, -quarter], [quarter, -quarter], [-quarter, quarter], [quarter, quarter]];
        let child = |[dx, dy]: [f64; 2]| {
            integrate(density, [centre[0] + dx, centre[1] + dy], quarter, depth - 1, spacing)
        };
        // Added in order, whichever is known first.
        let parts: Vec<f64> = offsets.into_par_iter().map(child).collect();
        return parts.iter().sum();
    }
    let offset = |index: u32| (f64::from(index) + 0.5) * spacing - half;
    let term = |index: u32| {
        let log_density =
            density.log_density([centre[0] + offset(index % LEAF), centre[1] + offset(index / LEAF)]);
        // The limit of −p ln p for p → 0 is 0.
        if log_density > f64::NEG_INFINITY { -log_density * log_density.exp() } else { 0.0 }
    };
    (0..LEAF * LEAF).map(term).sum()
}

/// The smallest square that holds all `points` with a margin: its centre and half its side.
pub(super) fn square_around(points: impl Iterator<Item = [f64; 2]>, margin: f64) -> ([f64; 2], f64) {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for point in points {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let centre = [0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1])];
    (centre, 0.5 * (high[0] - low[0]).max(high[1] - low[1]) + margin)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::super::{curve, gaussians, tube::Tube};
    use super::*;

    #[test]
    fn separate_gaussians_have_their_closed_form_entropy() {
        let round = |noise: f64| 1.0 + (2.0 * PI * noise * noise).ln();
        let blobs = entropy(&gaussians::blobs(0.1)[..]).expect("known");
        assert!((blobs - 8f64.ln() - round(0.1)).abs() < 1e-9, "{blobs}");
        let one = entropy(&gaussians::blobs(2.0)[..1]).expect("known");
        assert!((one - round(2.0)).abs() < 1e-9, "{one}");
        let slanted = entropy(&gaussians::pinwheel(0.02)[1..2]).expect("known");
        assert!((slanted - 1.0 - (2.0 * PI * 0.6 * 0.02).ln()).abs() < 1e-9, "{slanted}");
    }

    #[test]
    fn a_finer_grid_gives_the_same_entropy() {
        let same = |name: &str, coarse: Option<f64>, fine: Option<f64>| {
            let difference = (coarse.expect("known") - fine.expect("known")).abs();
            assert!(difference < 1e-6, "{name}: {difference:e}");
        };
        for (name, curves, noise) in [
            ("moons", &curve::MOONS[..], 0.05),
            ("moons", &curve::MOONS, 0.2),
            ("circles", &curve::CIRCLES, 0.05),
            ("spirals", &curve::SPIRALS, 0.1),
            ("swiss-roll", &curve::SWISS_ROLL, 1.0),
        ] {
            let tube = Tube::new(curves, noise).expect("fits");
            same(name, entropy(&tube), entropy_with(&tube, 1.7 * POINTS_PER_STD));
        }
        for gaussians in [gaussians::blobs(0.5), gaussians::pinwheel(0.2)] {
            same("gaussians", entropy(&gaussians[..]), entropy_with(&gaussians[..], 1.7 * POINTS_PER_STD));
        }
    }

    #[test]
    fn densities_too_fine_for_the_grid_have_no_entropy() {
        assert!(entropy(&gaussians::blobs(1e-5)[..]).is_none());
        assert!(entropy(&gaussians::blobs(f64::MIN_POSITIVE)[..]).is_none());
    }
}
