//! A smoothed table of the conditional probabilities of one discrete variable given a few others.
//!
//! Its probabilities are those of fewer given variables, drawn towards what was counted (interpolated Dirichlet smoothing;
//! MacKay and Peto, "A hierarchical Dirichlet language model", 1995): with counts n and strength s,
//! P(v | a, b) = (n(v, a, b) + s · P(v | a)) / (n(a, b) + s), and so on down to the uniform distribution. Each strength makes
//! the rows likeliest when each is left out in turn, which counts give in closed form.

use super::Discrete;
use crate::error::{Error, Result, expect_length};

/// P(variable | parents).
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionalTable {
    /// Places of the given variables.
    pub(in crate::model) parents: Vec<usize>,
    /// Row-major [cells of the parents, levels]; each row adds up to 1.
    pub(in crate::model) probabilities: Vec<f64>,
}

/// Most probabilities of a table.
pub(in crate::model) const MOST_CELLS: usize = 1 << 17;
/// Rows that decide which variables are parents, at most.
const ROWS: usize = 1 << 16;
/// Gain of a parent, in nats for all rows together, below which it is left out.
const LEAST_GAIN: f64 = 2.0;

impl ConditionalTable {
    /// Places of the variables that it is given.
    pub fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// The table of `variable` in `chain`: given all variables before it where the combinations are few, or else given those
    /// that help most, one after the other; whichever makes rows that are left out likelier.
    pub(super) fn fit(chain: &Discrete, variable: usize, codes: &[u32], weights: &[f64]) -> Self {
        let width = chain.levels.len();
        let step = weights.len().div_ceil(ROWS).max(1);
        let some: Vec<u32> = codes.chunks_exact(width).step_by(step).flatten().copied().collect();
        let some_weights: Vec<f64> = weights.iter().step_by(step).copied().collect();
        let try_parents = |parents: &[usize]| {
            let fitted = Smoothed::fit(&chain.levels, variable, parents, &some, &some_weights);
            (fitted.left_out, parents.to_vec())
        };
        let mut best = try_parents(&[]);
        loop {
            let candidates = chain.before(variable).filter(|place| !best.1.contains(place));
            let sizes = candidates.map(|place| [&best.1[..], &[place]].concat());
            let fitting = sizes.filter(|parents| cells(&chain.levels, variable, parents) <= MOST_CELLS);
            let next = fitting.map(|parents| try_parents(&parents)).max_by(|a, b| a.0.total_cmp(&b.0));
            match next {
                Some(next) if next.0 > best.0 + LEAST_GAIN => best = next,
                _ => break,
            }
        }
        // Variables may tell something together of which none tells anything alone.
        let all: Vec<usize> = chain.before(variable).collect();
        if all.len() > 1 && cells(&chain.levels, variable, &all) <= 4 * some_weights.len().min(MOST_CELLS / 4)
        {
            let whole = try_parents(&all);
            if whole.0 > best.0 + LEAST_GAIN {
                best = whole;
            }
        }
        let fitted = Smoothed::fit(&chain.levels, variable, &best.1, codes, weights);
        Self { parents: best.1, probabilities: fitted.probabilities }
    }

    /// The probabilities of the levels, given the parents among `codes` `[V + G]`.
    pub(super) fn row(&self, levels: &[usize], codes: &[u32]) -> &[f64] {
        let cell = cell(levels, &self.parents, codes);
        let count =
            self.probabilities.len() / self.parents.iter().map(|&place| levels[place]).product::<usize>();
        &self.probabilities[cell * count..(cell + 1) * count]
    }

    /// That it is a table of `variable` in `chain`.
    pub(super) fn validate(&self, chain: &Discrete, variable: usize) -> Result<()> {
        let fail = |problem: String| {
            Err(Error::Argument(format!("the table of discrete variable {variable} {problem}")))
        };
        for (index, parent) in self.parents.iter().enumerate() {
            if !chain.before(variable).any(|place| place == *parent) || self.parents[..index].contains(parent)
            {
                return fail(format!("depends on variable {parent}"));
            }
        }
        let (count, size) = (chain.levels[variable], cells(&chain.levels, variable, &self.parents));
        expect_length("probabilities of a discrete variable", self.probabilities.len(), size)?;
        for (cell, row) in self.probabilities.chunks_exact(count).enumerate() {
            let sum: f64 = row.iter().sum();
            if !(row.iter().all(|&probability| probability > 0.0) && (sum - 1.0).abs() < 1e-9) {
                return fail(format!(
                    "needs positive probabilities that add up to 1, got {sum} in row {cell}"
                ));
            }
        }
        Ok(())
    }
}

/// Numbers that a table of `variable` given `parents` has.
pub(in crate::model) fn cells(levels: &[usize], variable: usize, parents: &[usize]) -> usize {
    let sizes = parents.iter().chain([&variable]).map(|&place| levels[place]);
    sizes.fold(1, usize::saturating_mul)
}

/// The place of the combination of `parents` that `codes` has: that of the first ones counts most.
fn cell(levels: &[usize], parents: &[usize], codes: &[u32]) -> usize {
    parents.iter().fold(0, |cell, &place| cell * levels[place] + codes[place] as usize)
}

/// Tables given more and more of the parents.
struct Smoothed {
    probabilities: Vec<f64>,
    /// Sum over rows of the log-probability, each row left out of the counts in turn.
    left_out: f64,
}

impl Smoothed {
    fn fit(levels: &[usize], variable: usize, parents: &[usize], codes: &[u32], weights: &[f64]) -> Self {
        let count = levels[variable];
        let uniform = vec![1.0 / count as f64; count];
        let (mut probabilities, mut without) = (uniform.clone(), uniform);
        let mut left_out = f64::NEG_INFINITY;
        for depth in 0..=parents.len() {
            let given = &parents[..depth];
            let combinations = cells(levels, variable, given) / count;
            let mut counts = vec![0.0; combinations * count];
            for (codes, weight) in codes.chunks_exact(levels.len()).zip(weights) {
                counts[cell(levels, given, codes) * count + codes[variable] as usize] += weight;
            }
            let fan = depth.checked_sub(1).map_or(1, |last| levels[parents[last]]);
            let level = Level { count, fan, counts };
            let mut best = (f64::NEG_INFINITY, 1.0);
            for strength in strengths() {
                let score = level.left_out(&without, strength);
                if score > best.0 {
                    best = (score, strength);
                }
            }
            left_out = best.0;
            (probabilities, without) =
                (level.smoothed(&probabilities, best.1, 0.0), level.smoothed(&without, best.1, 1.0));
        }
        for row in probabilities.chunks_exact_mut(count) {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|probability| *probability /= sum);
        }
        Self { probabilities, left_out }
    }
}

/// Strengths that are tried, from that of a sixteenth of a row to that of thousands.
fn strengths() -> impl Iterator<Item = f64> {
    (0..=34).map(|step| 2f64.powf(f64::from(step) / 2.0 - 4.0))
}

/// Counts given some of the parents, of which the last has `fan` levels.
struct Level {
    count: usize,
    fan: usize,
    counts: Vec<f64>,
}

impl Level {
    /// What `number` yields for each count, the sum of its row, and where its probability given one parent fewer is.
    fn map(&self, mut number: impl FnMut(f64, f64, usize)) {
        for (cell, row) in self.counts.chunks_exact(self.count).enumerate() {
            let sum: f64 = row.iter().sum();
            for (level, &own) in row.iter().enumerate() {
                number(own, sum, cell / self.fan * self.count + level);
            }
        }
    }

    /// Log-probability of all rows, each left out in turn.
    fn left_out(&self, coarser: &[f64], strength: f64) -> f64 {
        let mut total = 0.0;
        self.map(|own, sum, place| {
            if own > 0.0 {
                let probability =
                    smooth((own - 1.0).max(0.0), (sum - 1.0).max(0.0), strength, coarser[place]);
                total += own * probability.ln();
            }
        });
        total
    }

    /// Probabilities, after `removed` of a row is taken away from where it is.
    fn smoothed(&self, coarser: &[f64], strength: f64, removed: f64) -> Vec<f64> {
        let mut probabilities = Vec::with_capacity(self.counts.len());
        self.map(|own, sum, place| {
            let (own, sum) = ((own - removed).max(0.0), (sum - removed).max(0.0));
            probabilities.push(smooth(own, sum, strength, coarser[place]));
        });
        probabilities
    }
}

fn smooth(own: f64, sum: f64, strength: f64, coarser: f64) -> f64 {
    (own + strength * coarser) / (sum + strength)
}
