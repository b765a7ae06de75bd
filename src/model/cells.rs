//! Where in a cell the density of dequantised columns is taken, to integrate it: P(x) = step · ∫ p(x + u · step) du.
//! The nodes are fixed, so that a score repeats.

use std::f64::consts::PI;

/// Nodes in the unit cube of the dequantised columns, with weights that sum to 1.
pub(super) struct Cells {
    /// Offsets u, row-major [K, M].
    pub offsets: Vec<f64>,
    /// ln of the weights `[K]`.
    pub log_weights: Vec<f64>,
}

/// Nodes along a side of the cube in 1, 2 and 3 dimensions, by Gauss and Legendre. A trained flow's density falls
/// steeply at the faces of a cell, where these nodes are dense.
const SIDES: [usize; 3] = [32, 12, 6];

/// Nodes in more dimensions than that.
const POINTS: usize = 256;

impl Cells {
    /// The nodes for `dimensions` columns, at least 1.
    pub(super) fn new(dimensions: usize) -> Self {
        match SIDES.get(dimensions - 1) {
            Some(&side) => Self::product(side, dimensions),
            None => Self::recurrence(dimensions),
        }
    }

    /// Number of nodes K.
    pub(super) fn len(&self) -> usize {
        self.log_weights.len()
    }

    /// The product of Gauss–Legendre rules with `side` nodes.
    fn product(side: usize, dimensions: usize) -> Self {
        let rule: Vec<(f64, f64)> = (0..side).map(|index| legendre(index, side)).collect();
        let (mut offsets, mut log_weights) = (Vec::new(), Vec::new());
        for node in 0..side.pow(dimensions as u32) {
            let mut log_weight = 0.0;
            for dimension in 0..dimensions {
                let (offset, weight) = rule[node / side.pow(dimension as u32) % side];
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
    fn recurrence(dimensions: usize) -> Self {
        let mut base = 1.5f64;
        for _ in 0..64 {
            base = (1.0 + base).powf(1.0 / (dimensions as f64 + 1.0));
        }
        let steps: Vec<f64> = (1..=dimensions).map(|power| base.powi(-(power as i32))).collect();
        let offsets = (0..POINTS)
            .flat_map(|point| steps.iter().map(move |step| fold((0.5 + (point as f64 + 1.0) * step).fract())))
            .collect();
        Self { offsets, log_weights: vec![-(POINTS as f64).ln(); POINTS] }
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
        let cells = Cells::new(dimensions);
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
            let cells = Cells::new(dimensions);
            assert_eq!(cells.offsets.len(), cells.len() * dimensions);
            assert!(cells.offsets.iter().all(|&u| u > 0.0 && u < 1.0));
            assert!(log_sum_exp(&cells.log_weights).abs() < 1e-12);
        }
    }

    #[test]
    fn sums_of_nothing_and_of_not_a_number_stay_so() {
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
        assert!((log_sum_exp(&[1000.0, 1000.0]) - 1000.0 - 2f64.ln()).abs() < 1e-12);
    }
}
