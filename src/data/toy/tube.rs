//! Curves blurred by Gaussian noise: p(x) = ∫ N(x; c(s), σ²I) dP(s).
//! The integral is a sum over fixed Gauss–Legendre nodes along the curves, of which only those near x count.

use std::f64::consts::PI;
use std::ops::Range;

use super::curve::Curve;
use super::grid::{LogDensity, TAIL, square_around};

/// Gauss–Legendre nodes in a panel; with [`PANEL_LENGTH`] they reach rounding error.
const NODES: usize = 16;
/// Longest panel in units of σ.
const PANEL_LENGTH: f64 = 3.0;
/// Longest panel at an end of a curve, in units of σ: seen from a point d beyond it, the integrand falls as
/// exp(−d · length / σ²), which is steeper the further away the point is.
const END_LENGTH: f64 = PANEL_LENGTH / 256.0;
/// Longest panel in s: no curve turns by more than a tenth of a circle within it.
const PANEL_STEP: f64 = 1.0 / 16.0;
/// More nodes than this are not made.
const MAX_NODES: usize = 1 << 19;
/// Nodes whose exponent is this much below the nearest one's are left out: e⁻⁴⁰ is below rounding error.
const NEGLIGIBLE: f64 = 40.0;

/// Quadrature nodes along the curves, under a binary tree of discs that finds those near a point.
#[derive(Clone, Debug)]
pub(super) struct Tube {
    noise: f64,
    /// x, y and weight of every node; the weights sum to 1.
    nodes: Vec<[f64; 3]>,
    /// The disc of each whole curve.
    roots: Vec<Disc>,
}

/// A disc that holds the nodes of a stretch of curve.
#[derive(Clone, Debug)]
struct Disc {
    centre: [f64; 2],
    radius: f64,
    inside: Inside,
}

#[derive(Clone, Debug)]
enum Inside {
    Halves(Box<[Disc; 2]>),
    /// A panel: its range in [`Tube::nodes`].
    Nodes(Range<usize>),
}

impl Tube {
    /// `curves`, each with an equal share, blurred by `noise` > 0; `None` when that takes too many nodes.
    pub fn new(curves: &[Curve], noise: f64) -> Option<Self> {
        Self::with_nodes(curves, noise, NODES)
    }

    /// [`Tube::new`] with another number of nodes in a panel.
    fn with_nodes(curves: &[Curve], noise: f64, nodes_per_panel: usize) -> Option<Self> {
        let rule = gauss_legendre(nodes_per_panel);
        let mut tube = Self { noise, nodes: Vec::new(), roots: Vec::new() };
        for curve in curves {
            let root = tube.stretch(curve, &rule, 0.0, 1.0)?;
            tube.roots.push(root);
        }
        for node in &mut tube.nodes {
            node[2] /= curves.len() as f64;
        }
        Some(tube)
    }

    /// Makes the nodes of `curve` between s = `start` and `end`, halving until the panels are short enough.
    fn stretch(&mut self, curve: &Curve, rule: &[(f64, f64)], start: f64, end: f64) -> Option<Disc> {
        let (middle, half) = (0.5 * (start + end), 0.5 * (end - start));
        let [first, centre, last] = [start, middle, end].map(curve.point);
        let length = distance(first, centre) + distance(centre, last);
        let longest = if start == 0.0 || end == 1.0 { END_LENGTH } else { PANEL_LENGTH } * self.noise;
        if 2.0 * half > PANEL_STEP || length > longest {
            // Noise below the resolution of s would halve for ever.
            if half < f64::EPSILON || self.nodes.len() > MAX_NODES {
                return None;
            }
            let halves = [self.stretch(curve, rule, start, middle)?, self.stretch(curve, rule, middle, end)?];
            let reaches = halves.iter().map(|disc| distance(disc.centre, centre) + disc.radius);
            let radius = reaches.fold(0.0, f64::max);
            return Some(Disc { centre, radius, inside: Inside::Halves(Box::new(halves)) });
        }
        let before = self.nodes.len();
        self.nodes.extend(rule.iter().map(|&(node, weight)| {
            let s = middle + half * node;
            let [x, y] = (curve.point)(s);
            [x, y, weight * half * curve.spread.density(s)]
        }));
        let made = before..self.nodes.len();
        let radius = self.nodes[made.clone()]
            .iter()
            .map(|node| distance([node[0], node[1]], centre))
            .fold(0.0, f64::max);
        Some(Disc { centre, radius, inside: Inside::Nodes(made) })
    }

    /// Squared distance from `x` to the nearest node.
    fn nearest(&self, x: [f64; 2]) -> f64 {
        self.roots.iter().fold(f64::INFINITY, |best, disc| self.nearer(disc, x, best))
    }

    /// The smaller of `best` and the squared distance from `x` to the nearest node under `disc`.
    fn nearer(&self, disc: &Disc, x: [f64; 2], best: f64) -> f64 {
        let gap = (distance(disc.centre, x) - disc.radius).max(0.0);
        if gap * gap >= best {
            return best;
        }
        match &disc.inside {
            Inside::Nodes(range) => {
                self.nodes[range.clone()].iter().map(|node| square(node, x)).fold(best, f64::min)
            }
            Inside::Halves(halves) => {
                let [a, b] = &**halves;
                let a_first = distance(a.centre, x) - a.radius < distance(b.centre, x) - b.radius;
                let (near, far) = if a_first { (a, b) } else { (b, a) };
                self.nearer(far, x, self.nearer(near, x, best))
            }
        }
    }

    /// Sum over the panels under `disc` that come within `reach` of `x` of their nodes' weights times
    /// exp((`nearest` − squared distance) / 2σ²).
    fn sum(&self, disc: &Disc, x: [f64; 2], nearest: f64, reach: f64) -> f64 {
        if distance(disc.centre, x) - disc.radius > reach {
            return 0.0;
        }
        match &disc.inside {
            Inside::Halves(halves) => halves.iter().map(|half| self.sum(half, x, nearest, reach)).sum(),
            Inside::Nodes(range) => {
                let precision = 0.5 / (self.noise * self.noise);
                let term = |node: &[f64; 3]| node[2] * ((nearest - square(node, x)) * precision).exp();
                self.nodes[range.clone()].iter().map(term).sum()
            }
        }
    }
}

impl LogDensity for Tube {
    fn log_density(&self, x: [f64; 2]) -> f64 {
        let variance = self.noise * self.noise;
        // Terms are relative to the nearest node's, so that the sum cannot underflow.
        let nearest = self.nearest(x);
        if nearest == f64::INFINITY {
            return f64::NEG_INFINITY;
        }
        let reach = (nearest + 2.0 * NEGLIGIBLE * variance).sqrt();
        let sum: f64 = self.roots.iter().map(|root| self.sum(root, x, nearest, reach)).sum();
        sum.ln() - nearest / (2.0 * variance) - (2.0 * PI * variance).ln()
    }

    fn beyond(&self, x: [f64; 2]) -> f64 {
        self.nearest(x).sqrt() - TAIL * self.noise
    }

    fn square(&self) -> ([f64; 2], f64) {
        square_around(self.nodes.iter().map(|node| [node[0], node[1]]), TAIL * self.noise)
    }

    fn finest(&self) -> f64 {
        self.noise
    }
}

/// Squared distance from a node to `x`.
fn square(node: &[f64; 3], x: [f64; 2]) -> f64 {
    let [dx, dy] = [node[0] - x[0], node[1] - x[1]];
    dx * dx + dy * dy
}

/// Distance of two points; faster than `hypot`, whose care for overflow is of no use next to [`square`].
fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    square(&[a[0], a[1], 0.0], b).sqrt()
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

    /// Points from on the curve to 10 noises and 3 times its size away, beside it and beyond its ends.
    fn probes(curves: &[Curve], noise: f64, scale: f64) -> Vec<[f64; 2]> {
        let distances = [0.0, 0.7 * noise, 2.3 * noise, 5.0 * noise, 10.0 * noise, scale, 3.0 * scale];
        let mut probes = Vec::new();
        for curve in curves {
            for step in 0..=7 {
                let [x, y] = (curve.point)(f64::from(step) / 7.0);
                for (index, distance) in distances.into_iter().enumerate() {
                    let (sin, cos) = (f64::from(step) + 2.0 * index as f64).sin_cos();
                    probes.push([x + distance * cos, y + distance * sin]);
                }
            }
        }
        probes
    }

    /// The largest difference of log-densities between two numbers of nodes.
    fn largest_difference(curves: &[Curve], noise: f64, scale: f64, counts: [usize; 2]) -> f64 {
        let [first, second] =
            counts.map(|count| Tube::with_nodes(curves, noise * scale, count).expect("fits"));
        let probes = probes(curves, noise * scale, scale);
        let differences = probes.iter().map(|&x| {
            let difference = (first.log_density(x) - second.log_density(x)).abs();
            assert!(difference.is_finite(), "at {x:?}");
            difference
        });
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
                let difference = largest_difference(curves, noise, scale, [NODES, 2 * NODES]);
                assert!(difference < 1e-10, "{name} with noise {noise}: {difference:e}");
                let coarse = largest_difference(curves, noise, scale, [4, NODES]);
                assert!(coarse > 1e-10, "{name} with noise {noise}: the check cannot fail");
            }
        }
    }
}
