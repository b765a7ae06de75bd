//! Curves blurred by Gaussian noise: p(x) = ∫ N(x; c(s), σ²I) dP(s).
//! The integral is a sum over fixed Gauss–Legendre nodes along the curves, of which only those near x count.

use std::f64::consts::PI;

use super::curve::Curve;
use super::grid::{Density, TAIL, square_around};

/// Gauss–Legendre nodes in a panel. With panels of up to [`PANEL_LENGTH`] noises, 16 reach rounding error for x up
/// to 10 noises from the curve; further out the integrand varies faster, and the relative error grows slowly.
const NODES: usize = 16;
/// Longest panel in units of σ.
const PANEL_LENGTH: f64 = 2.0;
/// Longest panel in s: no curve turns by more than a tenth of a circle within it.
const PANEL_STEP: f64 = 1.0 / 16.0;
/// More panels than this are not made.
const MAX_PANELS: usize = 1 << 15;
/// Nodes whose exponent is this much below the nearest one's are left out: e⁻⁴⁰ is below rounding error.
const NEGLIGIBLE: f64 = 40.0;

/// Quadrature nodes along the curves, in panels.
#[derive(Clone, Debug)]
pub(super) struct Tube {
    noise: f64,
    panels: Vec<Panel>,
    /// x, y and weight of every node; the weights sum to 1. Panel i holds `nodes` of them from i · `nodes`.
    nodes: Vec<[f64; 3]>,
    nodes_per_panel: usize,
}

/// A disc that holds all nodes of a stretch of curve.
#[derive(Clone, Copy, Debug)]
struct Panel {
    centre: [f64; 2],
    radius: f64,
}

impl Panel {
    /// Distance from `x` to the centre.
    fn distance(&self, x: [f64; 2]) -> f64 {
        (x[0] - self.centre[0]).hypot(x[1] - self.centre[1])
    }
}

impl Tube {
    /// `curves`, each with an equal share, blurred by `noise` > 0; `None` when that takes too many nodes.
    pub fn new(curves: &[Curve], noise: f64) -> Option<Self> {
        Self::with_nodes(curves, noise, NODES)
    }

    fn with_nodes(curves: &[Curve], noise: f64, nodes_per_panel: usize) -> Option<Self> {
        let rule = gauss_legendre(nodes_per_panel);
        let mut tube = Self { noise, panels: Vec::new(), nodes: Vec::new(), nodes_per_panel };
        for curve in curves {
            let mut stretches = vec![(0.0, 1.0)];
            while let Some((start, end)) = stretches.pop() {
                let (middle, half) = (0.5 * (start + end), 0.5 * (end - start));
                let [first, centre, last] = [start, middle, end].map(curve.point);
                let length = distance(first, centre) + distance(centre, last);
                if 2.0 * half > PANEL_STEP || length > PANEL_LENGTH * noise {
                    // Bounds the stack as well: it holds one stretch for each halving.
                    if stretches.len() + tube.panels.len() >= MAX_PANELS || half < f64::EPSILON {
                        return None;
                    }
                    stretches.extend([(middle, end), (start, middle)]);
                    continue;
                }
                let mut radius = 0f64;
                for &(node, weight) in &rule {
                    let s = middle + half * node;
                    let point = (curve.point)(s);
                    radius = radius.max(distance(point, centre));
                    let weight = weight * half * curve.spread.density(s) / curves.len() as f64;
                    tube.nodes.push([point[0], point[1], weight]);
                }
                tube.panels.push(Panel { centre, radius });
            }
        }
        Some(tube)
    }

    fn nodes(&self, panel: usize) -> &[[f64; 3]] {
        &self.nodes[panel * self.nodes_per_panel..][..self.nodes_per_panel]
    }

    /// The nodes of every panel of which some part may be nearer to `x` than `reach`.
    fn within(&self, x: [f64; 2], reach: f64) -> impl Iterator<Item = &[f64; 3]> {
        let panels = self.panels.iter().enumerate();
        let near = panels.filter(move |(_, panel)| panel.distance(x) - panel.radius <= reach);
        near.flat_map(|(index, _)| self.nodes(index))
    }
}

impl Density for Tube {
    fn log_density(&self, x: [f64; 2]) -> f64 {
        let square = |node: &[f64; 3]| (x[0] - node[0]).powi(2) + (x[1] - node[1]).powi(2);
        let bound =
            self.panels.iter().map(|panel| panel.distance(x) + panel.radius).fold(f64::INFINITY, f64::min);
        let nearest = self.within(x, bound).map(square).fold(f64::INFINITY, f64::min);
        if nearest == f64::INFINITY {
            return f64::NEG_INFINITY;
        }
        let variance = self.noise * self.noise;
        // Scaled by the nearest node's term, so that nothing underflows far away.
        let reach = (nearest + 2.0 * NEGLIGIBLE * variance).sqrt();
        let sum: f64 = self
            .within(x, reach)
            .map(|node| node[2] * ((nearest - square(node)) / (2.0 * variance)).exp())
            .sum();
        sum.ln() - nearest / (2.0 * variance) - (2.0 * PI * variance).ln()
    }

    fn beyond(&self, x: [f64; 2]) -> f64 {
        let distance = self.panels.iter().map(|panel| panel.distance(x) - panel.radius);
        distance.fold(f64::INFINITY, f64::min) - TAIL * self.noise
    }

    fn square(&self) -> ([f64; 2], f64) {
        square_around(self.nodes.iter().map(|node| [node[0], node[1]]), TAIL * self.noise)
    }

    fn finest(&self) -> f64 {
        self.noise
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Nodes and weights of the Gauss–Legendre rule with `count` nodes on [−1, 1].
///
/// Newton's method on the Legendre polynomial, from the usual cosine guess; see Press et al., "Numerical recipes",
/// section 4.6.
fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    let n = count as f64;
    let root = |index: usize| {
        let mut x = (PI * (index as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        // Quadratic convergence: from this guess 4 steps reach rounding error, for any count.
        for _ in 0..6 {
            let (mut previous, mut value) = (1.0, x);
            for degree in 2..=count {
                let k = degree as f64;
                (previous, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * previous) / k);
            }
            slope = n * (x * value - previous) / (x * x - 1.0);
            x -= value / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..count).map(root).collect()
}

#[cfg(test)]
mod tests {
    use super::super::curve;
    use super::*;

    const SHAPES: [(&str, &[Curve], f64); 4] = [
        ("moons", &curve::MOONS, 1.0),
        ("circles", &curve::CIRCLES, 1.0),
        ("spirals", &curve::SPIRALS, 3.0),
        ("swiss-roll", &curve::SWISS_ROLL, 14.0),
    ];

    /// Points from on the curve to 10 noises away, beside it and beyond its ends.
    fn probes(curves: &[Curve], noise: f64) -> Vec<[f64; 2]> {
        let mut probes = Vec::new();
        for curve in curves {
            for step in 0..=7 {
                let [x, y] = (curve.point)(f64::from(step) / 7.0);
                for (index, distance) in [0.0, 0.7, 2.3, 5.0, 10.0].into_iter().enumerate() {
                    let (sin, cos) = (f64::from(step) + 2.0 * index as f64).sin_cos();
                    probes.push([x + distance * noise * cos, y + distance * noise * sin]);
                }
            }
        }
        probes
    }

    /// The largest difference of log-densities between two numbers of nodes.
    fn largest_difference(curves: &[Curve], noise: f64, counts: [usize; 2]) -> f64 {
        let [first, second] = counts.map(|count| Tube::with_nodes(curves, noise, count).expect("fits"));
        let probes = probes(curves, noise);
        let differences = probes.iter().map(|&x| (first.log_density(x) - second.log_density(x)).abs());
        differences.fold(0.0, f64::max)
    }

    #[test]
    fn gauss_legendre_integrates_polynomials_exactly() {
        for count in [1, 2, 5, NODES, 2 * NODES] {
            let rule = gauss_legendre(count);
            for degree in 0..2 * count as i32 {
                let got: f64 = rule.iter().map(|(x, weight)| weight * x.powi(degree)).sum();
                let want = if degree % 2 == 0 { 2.0 / f64::from(degree + 1) } else { 0.0 };
                assert!((got - want).abs() < 1e-14, "{count} nodes, degree {degree}: {got}, want {want}");
            }
        }
    }

    #[test]
    fn weights_along_the_curves_sum_to_one() {
        for (name, curves, scale) in SHAPES {
            for noise in [0.005, 0.05, 2.0] {
                let tube = Tube::new(curves, noise * scale).expect("fits");
                let sum: f64 = tube.nodes.iter().map(|node| node[2]).sum();
                assert!((sum - 1.0).abs() < 1e-13, "{name} with noise {noise}: {sum}");
            }
        }
    }

    #[test]
    fn twice_the_nodes_give_the_same_density() {
        for (name, curves, scale) in SHAPES {
            for noise in [0.01, 0.05, 0.2, 1.0] {
                let difference = largest_difference(curves, noise * scale, [NODES, 2 * NODES]);
                assert!(difference < 1e-10, "{name} with noise {noise}: {difference:e}");
                let coarse = largest_difference(curves, noise * scale, [4, NODES]);
                assert!(coarse > 1e-10, "{name} with noise {noise}: the check cannot fail");
            }
        }
    }
}
