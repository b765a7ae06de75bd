//! Levels drawn from a chain of conditionals, where some are fixed.

use super::Discrete;
use crate::error::{Error, Result, expect_length};
use crate::random::{Stream, key, philox};

/// Draws rows, each from the distribution that its givens leave.
///
/// Where variables are fixed that stand behind free ones, all combinations of these are weighed if they are few; else rows
/// are drawn until one is taken, with the probability of the fixed levels. Both are exact.
#[derive(Debug)]
pub struct Draws<'a> {
    chain: &'a Discrete,
    /// The level of each modelled variable that is fixed `[V]`.
    fixed: Vec<Option<u32>>,
    /// Free variables before the last fixed one.
    early: Vec<usize>,
    /// How many combinations these have.
    pub(super) combinations: usize,
    seed: u64,
    /// What the combinations of the last row weigh, added up, and what that row was given.
    weighed: Option<(Vec<u32>, Vec<f64>, Vec<f64>)>,
}

/// Combinations that are weighed, at most.
const MOST_COMBINATIONS: usize = 1 << 12;
/// Tries for a row.
const TRIES: u32 = 100_000;

impl Discrete {
    /// Draws under `seed`, where the modelled variables with a level in `fixed` `[V]` have it.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many; [`Error::Argument`] for a level that a variable does not have.
    pub fn draws(&self, fixed: &[Option<u32>], seed: u64) -> Result<Draws<'_>> {
        expect_length("fixed discrete variables", fixed.len(), self.modelled)?;
        for (variable, level) in fixed.iter().enumerate() {
            if level.is_some_and(|level| level as usize >= self.levels[variable]) {
                return Err(Error::Argument(format!("discrete variable {variable} has no level {level:?}")));
            }
        }
        let end = fixed.iter().rposition(Option::is_some).unwrap_or(0);
        let early: Vec<usize> = (0..end).filter(|&variable| fixed[variable].is_none()).collect();
        let sizes = early.iter().map(|&variable| self.levels[variable]);
        let combinations = sizes.fold(1, usize::saturating_mul);
        Ok(Draws { chain: self, fixed: fixed.to_vec(), early, combinations, seed, weighed: None })
    }
}

impl Draws<'_> {
    /// The levels `[V]` of row `row`, given the levels `given` `[G]` and `numbers` `[C]`.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many; [`Error::Argument`] where the fixed levels are so unlikely that none of
    /// many rows has them.
    pub fn row(&mut self, row: u32, given: &[u32], numbers: &[f64]) -> Result<Vec<u32>> {
        let chain = self.chain;
        expect_length("given discrete variables", given.len(), chain.levels.len() - chain.modelled)?;
        expect_length("numbers that are given", numbers.len(), chain.numbers)?;
        let mut codes = vec![0; chain.levels.len()];
        codes[chain.modelled..].copy_from_slice(given);
        for (code, fixed) in codes.iter_mut().zip(&self.fixed) {
            *code = fixed.unwrap_or(0);
        }
        if self.early.is_empty() || self.combinations <= MOST_COMBINATIONS {
            self.set_early(row, &mut codes, numbers);
            self.draw_free(row, 0, &mut codes, numbers);
            codes.truncate(chain.modelled);
            return Ok(codes);
        }
        for attempt in 0..TRIES {
            let likely = self.draw_free(row, attempt, &mut codes, numbers);
            if uniform(row, attempt, u32::MAX, self.seed) < likely {
                codes.truncate(chain.modelled);
                return Ok(codes);
            }
        }
        Err(Error::Argument(format!(
            "the given categories are so unlikely that none of {TRIES} rows has them; give fewer"
        )))
    }

    /// Draws the variables before the last fixed one, weighed by all that is fixed.
    fn set_early(&mut self, row: u32, codes: &mut [u32], numbers: &[f64]) {
        if self.early.is_empty() {
            return;
        }
        let given = &codes[self.chain.modelled..];
        let is_known = self.weighed.as_ref().is_some_and(|(known, at, _)| known == given && at == numbers);
        if !is_known {
            let (given, mut sum) = (given.to_vec(), 0.0);
            let sums = (0..self.combinations).map(|combination| {
                self.put(combination, codes);
                sum += self.weigh(codes, numbers);
                sum
            });
            let sums = sums.collect();
            self.weighed = Some((given, numbers.to_vec(), sums));
        }
        let Some((_, _, sums)) = &self.weighed else { return };
        let total = sums.last().copied().unwrap_or_default();
        let wanted = uniform(row, 0, u32::MAX, self.seed) * total;
        let combination = sums.partition_point(|sum| *sum <= wanted).min(self.combinations - 1);
        self.put(combination, codes);
    }

    /// Gives the early variables the levels of a combination.
    fn put(&self, mut combination: usize, codes: &mut [u32]) {
        for &variable in &self.early {
            codes[variable] = (combination % self.chain.levels[variable]) as u32;
            combination /= self.chain.levels[variable];
        }
    }

    /// Probability of the variables up to the last fixed one.
    fn weigh(&self, codes: &[u32], numbers: &[f64]) -> f64 {
        let end = self.fixed.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let mut scratch = Vec::new();
        let factor = |variable: usize| {
            self.chain.probabilities(variable, codes, numbers, &mut scratch);
            scratch[codes[variable] as usize]
        };
        (0..end).map(factor).product()
    }

    /// Draws each free variable that has not been weighed after those before it; the probability of the fixed ones that stand
    /// behind a free one.
    fn draw_free(&self, row: u32, attempt: u32, codes: &mut [u32], numbers: &[f64]) -> f64 {
        let (mut likely, mut scratch) = (1.0, Vec::new());
        let weighed = self.combinations <= MOST_COMBINATIONS;
        let first = self.early.first().copied().unwrap_or(usize::MAX);
        for variable in 0..self.chain.modelled {
            if weighed && self.early.contains(&variable) {
                continue;
            }
            match self.fixed[variable] {
                Some(_) if variable < first => {}
                Some(level) => {
                    self.chain.probabilities(variable, codes, numbers, &mut scratch);
                    likely *= scratch[level as usize];
                }
                None => {
                    self.chain.probabilities(variable, codes, numbers, &mut scratch);
                    let mut wanted = uniform(row, attempt, variable as u32, self.seed);
                    let level = scratch.iter().position(|probability| {
                        wanted -= probability;
                        wanted < 0.0
                    });
                    // Rounding may leave a little of the last one.
                    codes[variable] = level.unwrap_or(scratch.len() - 1) as u32;
                }
            }
        }
        likely
    }
}

/// A number in [0, 1) for `variable` of row `row`.
fn uniform(row: u32, attempt: u32, variable: u32, seed: u64) -> f64 {
    let [low, high, ..] = philox([row, attempt, variable, Stream::Category as u32], key(seed));
    ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 * 0.5f64.powi(53)
}
