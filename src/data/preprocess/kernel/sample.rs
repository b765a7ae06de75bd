//! The rows of a column, sorted and gathered to a few hundred places: what kernels are laid on.

use crate::normal;

/// Different values up to which each is a place of its own.
const PLACES: usize = 1000;
/// Beyond these, the mass of a place is at most one in `SHARES`, and its ranks as normal scores are apart by no more than one
/// in `SCORES`, so that tails are not gathered to a point.
const SHARES: f64 = 512.0;
const SCORES: f64 = 20.0;
/// Least width of a kernel, in deviations.
const LEAST_WIDTH: f64 = 1e-4;
/// Interquartile range of a normal variable in deviations.
const NORMAL_RANGE: f64 = 1.349;

/// Rows that lie at one place, or near to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    /// Mean of the rows.
    pub place: f64,
    /// Their part of all weight.
    pub share: f64,
    /// Their variance.
    pub variance: f64,
    /// How many different values there are.
    pub values: f64,
    /// How many rows there are.
    pub rows: f64,
}

/// A column: groups in ascending order, and what scales it has.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub groups: Vec<Group>,
    /// The mass on the left of each group.
    below: Vec<f64>,
    /// Rows of equal weight that would know as much: (Σ w)² / Σ w².
    pub count: f64,
    pub mean: f64,
    pub std: f64,
    /// The lesser of the deviation and that of a normal variable with the same quartiles.
    pub spread: f64,
    /// Least width of a kernel.
    pub least_width: f64,
}

impl Sample {
    /// The sample of a column of `rows`, each a value and its weight, with kernels no narrower than `least_width`; `None` where
    /// fewer than two different finite values have weight.
    pub fn new(mut rows: Vec<[f64; 2]>, least_width: f64) -> Option<Self> {
        rows.retain(|[value, weight]| value.is_finite() && *weight > 0.0);
        rows.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
        let largest = rows.iter().fold(0.0f64, |largest, row| largest.max(row[1]));
        // Weights near either end of `f64` have neither a sum nor a square.
        rows.iter_mut().for_each(|row| row[1] /= largest);
        let total = rows.iter().map(|row| row[1]).sum::<f64>();
        let squares = rows.iter().map(|row| row[1] * row[1]).sum::<f64>();
        let groups = gather(&rows, total);
        let mean = groups.iter().map(|group| group.share * group.place).sum::<f64>();
        let variance =
            groups.iter().map(|group| group.share * ((group.place - mean).powi(2) + group.variance));
        let std = variance.sum::<f64>().sqrt();
        if groups.len() < 2 || !std.is_normal() {
            return None;
        }
        let below = groups.iter().scan(0.0, |below, group| {
            let before = *below;
            *below += group.share;
            Some(before)
        });
        let mut sample = Self {
            below: below.collect(),
            groups,
            count: total * total / squares,
            mean,
            std,
            spread: std,
            least_width: 0.0,
        };
        let quartiles = (sample.quantile(0.75) - sample.quantile(0.25)) / NORMAL_RANGE;
        if quartiles > 0.0 {
            sample.spread = quartiles.min(std);
        }
        sample.least_width = (0.5 * median_gap(&rows)).max(LEAST_WIDTH * std).max(least_width);
        Some(sample)
    }

    /// The place below which a share of the mass lies; a group's own is spread evenly.
    fn quantile(&self, share: f64) -> f64 {
        let group = self.below.partition_point(|below| *below <= share).max(1) - 1;
        let Group { place, share: own, variance, .. } = self.groups[group];
        let at = ((share - self.below[group]) / own).clamp(0.0, 1.0) - 0.5;
        place + at * (12.0 * variance).sqrt()
    }

    /// The stretch about each group that holds `rows` rows on either side, over the share of the mass in it: 1 / density.
    pub fn stretches(&self, rows: f64) -> Vec<f64> {
        let half = rows / self.count;
        let of = |(below, group): (&f64, &Group)| {
            let middle = below + 0.5 * group.share;
            let (low, high) = ((middle - half).max(0.0), (middle + half).min(1.0));
            (self.quantile(high) - self.quantile(low)) / (high - low)
        };
        self.below.iter().zip(&self.groups).map(of).collect()
    }
}

/// Sorted `rows`, each a value and its weight, as groups. Equal values are in one group.
fn gather(rows: &[[f64; 2]], total: f64) -> Vec<Group> {
    let values = || rows.chunk_by(|a, b| a[0] == b[0]);
    let exact = values().take(PLACES + 1).count() <= PLACES;
    let mut groups: Vec<Group> = Vec::new();
    let (mut below, mut cell) = (0.0, None);
    for equal in values() {
        let share = equal.iter().map(|row| row[1]).sum::<f64>() / total;
        let middle = (below + 0.5 * share).clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        let score = normal::lower_quantile(middle.min(1.0 - middle).ln()).copysign(middle - 0.5);
        let next = ((middle * SHARES).floor(), (score * SCORES).floor());
        let (value, rows) = (equal[0][0], equal.len() as f64);
        match groups.last_mut().filter(|_| !exact && cell == Some(next)) {
            Some(group) => group.add(value, share, rows),
            None => groups.push(Group { place: value, share, variance: 0.0, values: 1.0, rows }),
        }
        (cell, below) = (Some(next), below + share);
    }
    groups
}

impl Group {
    /// Takes in rows of one value: West's update of mean and variance (1979).
    fn add(&mut self, value: f64, share: f64, rows: f64) {
        let total = self.share + share;
        let from = value - self.place;
        self.variance = (self.variance * self.share + from * from * self.share * share / total) / total;
        self.place += from * share / total;
        (self.share, self.values, self.rows) = (total, self.values + 1.0, self.rows + rows);
    }
}

/// Median distance of neighbours among the different values of sorted `rows`: the step of a grid that values are rounded
/// to, or next to nothing.
fn median_gap(rows: &[[f64; 2]]) -> f64 {
    let gaps = rows.array_windows().map(|[a, b]| b[0] - a[0]).filter(|gap| *gap > 0.0);
    let mut gaps: Vec<f64> = gaps.collect();
    let middle = gaps.len() / 2;
    if gaps.is_empty() { 0.0 } else { *gaps.select_nth_unstable_by(middle, f64::total_cmp).1 }
}
