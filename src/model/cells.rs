//! Where the density of columns with noise is taken, to integrate the noise out: in the cells of dequantised columns,
//! P(x) = step · ∫ p(x + u · step) du, and over the whole line where a row is at an atom, ∫ p(x(z)) · dx/dz dz.
//! The nodes are fixed, so that a score repeats.

use std::f64::consts::{PI, TAU};

use crate::normal::quantile;

/// What a dimension is integrated over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// u in the unit interval, with weights that sum to 1.
    Cell,
    /// z on the real line, of which the integrand is some normal density, more or less.
    Line,
}

/// Places in a narrow cell beside its middle, few and more. The faces are among them, so that a bend of log p shows wherever
/// it is.
pub(super) const NARROW: [&[f64]; 2] = [&[0.0, 1.0], &[0.0, 0.25, 0.75, 1.0]];

/// What the places beside the middle add to the integral over a narrow cell, and how far off the sum may be, from the values
/// at its middle and at these.
///
/// Of two it is Simpson's rule, whose error is Σ k(t) · s over the changes s of slope, at t = min(t, 1 − t) from a face, with
/// k = t (3t − 1) / 6. The second difference has t · s, so where all bend one way, as a convex density does, the error is no
/// more than a sixth of it. Of four it is Simpson's rule in each half. There a single change of slope in a cubic shows in the
/// second differences at ¼, ½ and ¾ as s · max(¼ − |t − ¼|, 0) and so on, and the error is no more than a twelfth of the
/// largest difference between these.
pub(super) fn narrow(middle: f64, beside: &[f64]) -> (f64, f64) {
    let [first, .., last] = *beside else { return (0.0, f64::INFINITY) };
    let [_, quarter, three_quarters, _] = *beside else {
        let second = first - 2.0 * middle + last;
        return (second / 6.0, second.abs() / 6.0);
    };
    let sum = first + last + 4.0 * (quarter + three_quarters);
    let second = [
        first - 2.0 * quarter + middle,
        quarter - 2.0 * middle + three_quarters,
        middle - 2.0 * three_quarters + last,
    ];
    let [most, least] = [f64::max, f64::min].map(|extreme| second.into_iter().fold(second[0], extreme));
    ((sum - 10.0 * middle) / 12.0, (most - least) / 12.0)
}

/// Nodes in the product of some axes.
pub(super) struct Cells {
    /// Places u or z, row-major [K, M].
    pub offsets: Vec<f64>,
    /// ln of the weights `[K]`.
    pub log_weights: Vec<f64>,
}

/// Nodes along a cell in 1, 2 and 3 dimensions, by Gauss and Legendre: a trained flow's density falls steeply at its faces,
/// where these nodes are dense.
const SIDES: [usize; 3] = [32, 12, 6];

/// Nodes along the line in as many dimensions and their distance: the trapezoidal rule is exact to many digits for a smooth
/// density with light tails. That of a flow has bends, for which nodes 0.9 apart are too few: they are off by a hundredth.
const LINES: [(usize, f64); 3] = [(32, 0.5), (24, 0.5), (12, 0.9)];

/// Nodes in more dimensions than that.
const POINTS: usize = 256;

/// Distribution functions no nearer than this to 0 and 1, whose normal scores are infinite.
const EDGE: f64 = 1e-9;

impl Cells {
    /// The nodes over `axes`, no more along each than there would be with so many `others`; a single one without axes.
    pub(super) fn new(axes: &[Axis], others: usize) -> Self {
        let all = axes.len() + others;
        let dimensions = if all <= SIDES.len() { all } else { axes.len() };
        match dimensions.checked_sub(1) {
            Some(place) if place < SIDES.len() => Self::product(SIDES[place], LINES[place], axes),
            Some(_) => Self::recurrence(axes),
            None => Self { offsets: Vec::new(), log_weights: vec![0.0] },
        }
    }

    /// Most nodes over up to `dimensions` axes.
    pub(super) fn most(dimensions: usize) -> usize {
        let side = |count: usize| SIDES[count - 1].max(LINES[count - 1].0);
        let products = (1..=dimensions.min(SIDES.len())).map(|count| side(count).pow(count as u32));
        products.chain((dimensions > SIDES.len()).then_some(POINTS)).max().unwrap_or(1)
    }

    /// The product of rules with `side` nodes in a cell, and on the line with as many as `line` says and so far apart.
    fn product(side: usize, (count, spacing): (usize, f64), axes: &[Axis]) -> Self {
        let legendre: Vec<(f64, f64)> = (0..side).map(|index| legendre(index, side)).collect();
        let middle = (count as f64 - 1.0) / 2.0;
        let even = |index: usize| ((index as f64 - middle) * spacing, spacing);
        let even: Vec<(f64, f64)> = (0..count).map(even).collect();
        let rules: Vec<&[(f64, f64)]> = axes
            .iter()
            .map(|axis| match axis {
                Axis::Cell => &legendre[..],
                Axis::Line => &even[..],
            })
            .collect();
        let (mut offsets, mut log_weights) = (Vec::new(), Vec::new());
        for node in 0..rules.iter().map(|rule| rule.len()).product() {
            let (mut log_weight, mut place) = (0.0, node);
            for rule in &rules {
                let (offset, weight) = rule[place % rule.len()];
                place /= rule.len();
                offsets.push(offset);
                log_weight += weight.ln();
            }
            log_weights.push(log_weight);
        }
        Self { offsets, log_weights }
    }

    /// Equal weights at an additive recurrence whose steps are powers of 1/g, g^(M+1) = g + 1: points that keep their
    /// distance in every dimension (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018). Each coordinate is folded in the middle
    /// (Hickernell's baker's transformation), which takes the error in the tests below to a fifth.
    /// On the line these are distribution functions.
    fn recurrence(axes: &[Axis]) -> Self {
        let dimensions = axes.len();
        let mut base = 1.5f64;
        for _ in 0..64 {
            base = (1.0 + base).powf(1.0 / (dimensions as f64 + 1.0));
        }
        let steps: Vec<f64> = (1..=dimensions).map(|power| base.powi(-(power as i32))).collect();
        let (mut offsets, mut log_weights) = (Vec::new(), Vec::new());
        for point in 0..POINTS {
            let mut log_weight = -(POINTS as f64).ln();
            for (axis, step) in axes.iter().zip(&steps) {
                let u = fold((0.5 + (point as f64 + 1.0) * step).fract());
                match axis {
                    Axis::Cell => offsets.push(u),
                    Axis::Line => {
                        let z = quantile(u.clamp(EDGE, 1.0 - EDGE));
                        offsets.push(z);
                        log_weight += 0.5 * (z * z + TAU.ln());
                    }
                }
            }
            log_weights.push(log_weight);
        }
        Self { offsets, log_weights }
    }
}

/// The unit interval folded at ½ and stretched again.
fn fold(u: f64) -> f64 {
    1.0 - (2.0 * u - 1.0).abs()
}

/// Node `index` and its weight, of the Gauss–Legendre rule with `count` nodes on [0, 1]: Newton's iteration from
/// Tricomi's estimate.
fn legendre(index: usize, count: usize) -> (f64, f64) {
    let n = count as f64;
    let mut x = (PI * (index as f64 + 0.75) / (n + 0.5)).cos();
    let mut slope = 0.0;
    for _ in 0..100 {
        let (mut previous, mut value) = (1.0, x);
        for degree in 2..=count {
            let degree = degree as f64;
            (previous, value) =
                (value, ((2.0 * degree - 1.0) * x * value - (degree - 1.0) * previous) / degree);
        }
        slope = n * (x * value - previous) / (x * x - 1.0);
        let step = value / slope;
        x -= step;
        if step.abs() < 1e-15 {
            break;
        }
    }
    ((1.0 - x) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::log_sum_exp;

    /// ∫ over the unit cube of Π exp(−a u), whose value is Π (1 − e^−a) / a.
    fn error(dimensions: usize, a: f64) -> f64 {
        let cells = Cells::new(&vec![Axis::Cell; dimensions], 0);
        let terms: Vec<f64> = cells
            .offsets
            .chunks(dimensions)
            .zip(&cells.log_weights)
            .map(|(u, weight)| weight - a * u.iter().sum::<f64>())
            .collect();
        let want = ((1.0 - (-a).exp()) / a).powi(dimensions as i32);
        (log_sum_exp(&terms) - want.ln()).abs()
    }

    #[test]
    fn nodes_integrate_steep_exponentials_over_the_cell() {
        for (dimensions, a, tolerance) in [
            (1, 1.0, 1e-12),
            (1, 20.0, 1e-12),
            (2, 8.0, 1e-9),
            (3, 4.0, 1e-6),
            (4, 1.0, 0.01),
            (8, 1.0, 0.01),
        ] {
            let error = error(dimensions, a);
            assert!(error < tolerance, "{dimensions} dimensions: off by {error:e}");
        }
    }

    #[test]
    fn nodes_lie_inside_of_the_cell_and_weigh_1_together() {
        for dimensions in 1..6 {
            let cells = Cells::new(&vec![Axis::Cell; dimensions], 0);
            assert_eq!(cells.offsets.len(), cells.log_weights.len() * dimensions);
            assert!(
                cells.log_weights.len() <= Cells::most(dimensions)
                    && Cells::most(dimensions) <= Cells::most(9)
            );
            assert!(cells.offsets.iter().all(|&u| u > 0.0 && u < 1.0));
            assert!(log_sum_exp(&cells.log_weights).abs() < 1e-12);
        }
    }

    #[test]
    fn normal_densities_on_the_line_have_a_mass_of_1_beside_cells() {
        let log_normal = |z: f64, mean: f64, deviation: f64| {
            -0.5 * (((z - mean) / deviation).powi(2) + TAU.ln()) - deviation.ln()
        };
        for (axes, mean, deviation, tolerance) in [
            (&[Axis::Line][..], 0.0, 1.0, 1e-12),
            (&[Axis::Line], 0.3, 0.6, 1e-5),
            (&[Axis::Line], -0.5, 1.6, 1e-4),
            (&[Axis::Cell, Axis::Line], 0.2, 0.9, 1e-4),
            (&[Axis::Line, Axis::Line], -0.2, 1.1, 1e-4),
            (&[Axis::Line, Axis::Cell, Axis::Line], 0.1, 0.95, 2e-3),
            (&[Axis::Line, Axis::Cell, Axis::Line, Axis::Cell, Axis::Line], 0.1, 0.95, 2e-2),
        ] {
            let cells = Cells::new(axes, 0);
            let terms: Vec<f64> = cells
                .offsets
                .chunks(axes.len())
                .zip(&cells.log_weights)
                .map(|(places, weight)| {
                    let along = axes.iter().zip(places).map(|(axis, &place)| match axis {
                        // A density of the unit interval.
                        Axis::Cell => (0.5 + place).ln(),
                        Axis::Line => log_normal(place, mean, deviation),
                    });
                    weight + along.sum::<f64>()
                })
                .collect();
            let error = log_sum_exp(&terms).abs();
            assert!(error < tolerance, "{axes:?} {mean} {deviation}: off by {error:e}");
        }
        assert_eq!((Cells::new(&[], 0).log_weights.len(), Cells::most(0)), (1, 1));
    }

    #[test]
    fn sums_of_nothing_and_of_not_a_number_stay_so() {
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
        assert!((log_sum_exp(&[1000.0, 1000.0]) - 1000.0 - 2f64.ln()).abs() < 1e-12);
    }
}
