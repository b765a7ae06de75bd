//! A smoothed table of the conditional probabilities of one discrete variable given a few others.
//!
//! Several tables are mixed. One is given nothing, the next one variable, and so on; each is drawn towards the one before it
//! (interpolated Dirichlet smoothing; MacKay and Peto, "A hierarchical Dirichlet language model", 1995): with counts n and
//! strength s, P(v | a, b) = (n(v, a, b) + s · P(v | a)) / (n(a, b) + s), and so on down to the uniform distribution. The
//! last one is given all of them and drawn to the uniform distribution at once, which suits variables of which none tells
//! anything alone. Strengths and shares of the mixture make the rows likeliest when each is left out in turn, which counts
//! give in closed form. Of few rows, a mixture loses less than the one table that seems best.

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
/// Gain of a parent, in nats for all rows together, below which the search for the next one ends.
const LEAST_GAIN: f64 = 2.0;
/// Cells for each row up to which all variables are parents.
const CELLS_OF_A_ROW: usize = 4;
/// Rows' worth of a prior against weak smoothing: P(strength) ∝ (s / (1 + s)) to this power.
const CAUTION: f64 = 2.0;
/// Rows that each table is credited with when shares are estimated, the share below which it is left out, and the steps of
/// expectation-maximisation.
const CREDIT: f64 = 0.3;
const LEAST_SHARE: f64 = 0.005;
const STEPS: usize = 50;

impl ConditionalTable {
    /// Places of the variables that it is given.
    pub fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// The table of `variable` in `chain`: given the variables before it that help most, one after the other, and then all
    /// others where the combinations are few.
    pub(super) fn fit(chain: &Discrete, variable: usize, codes: &[u32], weights: &[f64]) -> Self {
        let width = chain.levels.len();
        let step = weights.len().div_ceil(ROWS).max(1);
        let some: Vec<u32> = codes.chunks_exact(width).step_by(step).flatten().copied().collect();
        let some_weights: Vec<f64> = weights.iter().step_by(step).copied().collect();
        let levels = &chain.levels[..];
        let order = Rows { levels, variable, codes: &some, weights: &some_weights }.order(chain);
        let rows = Rows { levels, variable, codes, weights };
        let mut tables = vec![rows.refined(&Smoothed::uniform(levels[variable]), &[])];
        for depth in 1..=order.len() {
            tables.push(rows.refined(&tables[depth - 1], &order[..depth]));
        }
        if !order.is_empty() {
            tables.push(rows.refined(&Smoothed::uniform(levels[variable]), &order));
        }
        let shares = shares(&tables, &rows.counts(&order), levels[variable]);
        let probabilities = mixed(&tables, &shares, levels[variable]);
        let is_given = |depth: &usize| cells(levels, variable, &order[..*depth]) == probabilities.len();
        let depth = (0..=order.len()).find(is_given).unwrap_or(order.len());
        Self { parents: order[..depth].to_vec(), probabilities }
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

/// Rows to which the tables of a variable are fitted.
struct Rows<'a> {
    levels: &'a [usize],
    variable: usize,
    codes: &'a [u32],
    weights: &'a [f64],
}

impl Rows<'_> {
    /// The variables to be given, those that help most first.
    fn order(&self, chain: &Discrete) -> Vec<usize> {
        let mut best = self.refined(&Smoothed::uniform(self.levels[self.variable]), &[]);
        let mut order = Vec::new();
        loop {
            let others = chain.before(self.variable).filter(|place| !order.contains(place));
            let longer = others.map(|place| [&order[..], &[place]].concat());
            let fitting = longer.filter(|parents| cells(self.levels, self.variable, parents) <= MOST_CELLS);
            let tried = fitting.map(|parents| (self.refined(&best, &parents), parents));
            match tried.max_by(|(a, _), (b, _)| a.left_out.total_cmp(&b.left_out)) {
                Some((next, parents)) if next.left_out > best.left_out + LEAST_GAIN => {
                    (best, order) = (next, parents);
                }
                _ => break,
            }
        }
        // Variables may tell something together of which none tells anything alone.
        let rest = chain.before(self.variable).filter(|place| !order.contains(place));
        let all: Vec<usize> = order.iter().copied().chain(rest).collect();
        let few = (CELLS_OF_A_ROW * self.weights.len()).min(MOST_CELLS);
        if cells(self.levels, self.variable, &all) <= few { all } else { order }
    }

    /// Weights of the rows in each cell, row-major [cells of the parents, levels].
    fn counts(&self, parents: &[usize]) -> Vec<f64> {
        let count = self.levels[self.variable];
        let mut counts = vec![0.0; cells(self.levels, self.variable, parents)];
        for (codes, weight) in self.codes.chunks_exact(self.levels.len()).zip(self.weights) {
            counts[cell(self.levels, parents, codes) * count + codes[self.variable] as usize] += weight;
        }
        counts
    }

    /// The table given `parents`, drawn towards `coarser`, which is given the first of them.
    fn refined(&self, coarser: &Smoothed, parents: &[usize]) -> Smoothed {
        let counts = self.counts(parents);
        let fan = counts.len() / coarser.probabilities.len();
        let level = Level { count: self.levels[self.variable], fan, counts };
        let mut best = (f64::NEG_INFINITY, 1.0);
        for strength in strengths() {
            let score = level.left_out(&coarser.without, strength) - CAUTION * (1.0 + 1.0 / strength).ln();
            if score > best.0 {
                best = (score, strength);
            }
        }
        let (left_out, strength) = best;
        let probabilities = level.smoothed(&coarser.probabilities, strength, 0.0);
        Smoothed { probabilities, without: level.smoothed(&coarser.without, strength, 1.0), left_out }
    }
}

/// One of the tables that are mixed.
struct Smoothed {
    /// Row-major [cells of the parents, levels].
    probabilities: Vec<f64>,
    /// That of a row that is in the cell, when it is left out.
    without: Vec<f64>,
    /// Sum over rows of the log-probability, each row left out of the counts in turn.
    left_out: f64,
}

impl Smoothed {
    fn uniform(count: usize) -> Self {
        let uniform = vec![1.0 / count as f64; count];
        Self { probabilities: uniform.clone(), without: uniform, left_out: f64::NEG_INFINITY }
    }
}

/// The share of each table under which rows, `counts` of them in each cell of the finest, are likeliest when they are left out.
fn shares(tables: &[Smoothed], counts: &[f64], count: usize) -> Vec<f64> {
    let mut shares = vec![1.0 / tables.len() as f64; tables.len()];
    for _ in 0..STEPS {
        let mut sums = vec![CREDIT; tables.len()];
        for (place, own) in counts.iter().enumerate().filter(|(_, own)| **own > 0.0) {
            let likely = |(table, share): (&Smoothed, &f64)| {
                share * table.without[coarse(place, counts.len(), table.without.len(), count)]
            };
            let likely: Vec<f64> = tables.iter().zip(&shares).map(likely).collect();
            let total: f64 = likely.iter().sum();
            sums.iter_mut().zip(likely).for_each(|(sum, likely)| *sum += own * likely / total);
        }
        let total: f64 = sums.iter().sum();
        shares = sums.into_iter().map(|sum| sum / total).collect();
    }
    shares
}

/// The tables' mixture, as a table of the finest that has a share to speak of.
fn mixed(tables: &[Smoothed], shares: &[f64], count: usize) -> Vec<f64> {
    let kept = || tables.iter().zip(shares).filter(|(_, share)| **share >= LEAST_SHARE);
    let size = kept().map(|(table, _)| table.probabilities.len()).max().unwrap_or(count);
    let mut probabilities: Vec<f64> = (0..size)
        .map(|place| {
            kept()
                .map(|(Smoothed { probabilities, .. }, share)| {
                    share * probabilities[coarse(place, size, probabilities.len(), count)]
                })
                .sum()
        })
        .collect();
    for row in probabilities.chunks_exact_mut(count) {
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|probability| *probability /= sum);
    }
    probabilities
}

/// Where the probability at `place` of a table of `size` numbers is in one of `coarser` numbers.
fn coarse(place: usize, size: usize, coarser: usize, count: usize) -> usize {
    place / count / (size / coarser) * count + place % count
}

/// Strengths that are tried, from that of half a row to that of thousands. Weaker ones would believe that what few rows do
/// not have is not there.
fn strengths() -> impl Iterator<Item = f64> {
    (0..=28).map(|step| 2f64.powf(f64::from(step) / 2.0 - 1.0))
}

/// Counts, of which `fan` cells are one in the coarser table.
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
