//! The probability of a row's discrete variables, given discrete variables and numbers: a chain of conditionals, each of
//! which is exactly normalised.
//! It stands beside the flow, which has the density of the numbers given the discrete variables. A variable is no more than
//! its number of levels here.

mod regression;
mod sample;
mod table;

pub use regression::Regression;
pub(super) use regression::inputs;
pub use sample::Draws;
pub use table::ConditionalTable;
pub(super) use table::{MOST_CELLS, cells};

use crate::error::{Error, Result, expect_length};

/// P(v₁, …, v_V | given) = Π P(vᵢ | v₁, …, vᵢ₋₁, given).
#[derive(Clone, Debug, PartialEq)]
pub struct Discrete {
    /// Number of levels of each variable, the V modelled ones first and the G given ones behind them.
    levels: Vec<usize>,
    modelled: usize,
    /// Numbers C that are given.
    numbers: usize,
    /// A conditional for each modelled variable.
    links: Vec<Link>,
}

/// The conditional of one variable.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Link {
    /// A smoothed table over some of the variables before it and the given ones: where no numbers are given.
    Table(ConditionalTable),
    /// A multinomial logistic regression on all of them and the numbers.
    Regression(Regression),
}

/// Discrete variables of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiscreteRows {
    /// Levels, row-major [N, V + G].
    pub codes: Vec<u32>,
    /// Numbers that are given, row-major [N, C].
    pub numbers: Vec<f64>,
}

impl Discrete {
    /// Fits the chain to `rows`, which count by `weights` `[N]` where there are any. `levels` has the number of levels of each
    /// variable `[V + G]`, the `modelled` ones first, and `numbers` is how many numbers are given. The same rows give the
    /// same bits.
    ///
    /// # Errors
    /// [`Error::Length`] when rows, numbers and weights do not belong together; [`Error::Argument`] for a code that is no
    /// level, and without rows or modelled variables.
    pub fn fit(
        levels: &[usize],
        modelled: usize,
        numbers: usize,
        rows: &DiscreteRows,
        weights: Option<&[f64]>,
    ) -> Result<Self> {
        if modelled == 0 || modelled > levels.len() {
            return Err(Error::Argument("there is no discrete variable to be modelled".into()));
        }
        let chain = Self { levels: levels.to_vec(), modelled, numbers, links: Vec::new() };
        let count = chain.check(rows)?;
        if let Some(weights) = weights {
            expect_length("weights", weights.len(), count)?;
        }
        let weights = scaled(weights, count)?;
        let links = (0..modelled).map(|variable| {
            if numbers == 0 {
                Link::Table(ConditionalTable::fit(&chain, variable, &rows.codes, &weights))
            } else {
                Link::Regression(Regression::fit(&chain, variable, rows, &weights))
            }
        });
        Ok(Self { links: links.collect(), ..chain })
    }

    /// The chain of these conditionals, as a model file has it.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not conditionals of its variables.
    pub(super) fn of_links(
        levels: Vec<usize>,
        modelled: usize,
        numbers: usize,
        links: Vec<Link>,
    ) -> Result<Self> {
        expect_length("conditionals of discrete variables", links.len(), modelled)?;
        let chain = Self { levels, modelled, numbers, links };
        for (variable, link) in chain.links.iter().enumerate() {
            match link {
                Link::Table(table) => table.validate(&chain, variable)?,
                Link::Regression(regression) => regression.validate(&chain, variable)?,
            }
        }
        Ok(chain)
    }

    /// Number of levels of each variable `[V + G]`, the modelled ones first.
    pub fn levels(&self) -> &[usize] {
        &self.levels
    }

    /// Number of the variables that are modelled.
    pub fn modelled(&self) -> usize {
        self.modelled
    }

    /// Numbers that are given.
    pub fn numbers(&self) -> usize {
        self.numbers
    }

    /// The conditional of each modelled variable.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The logarithm of the probability of each row's modelled variables given the others `[N]`, in nats.
    ///
    /// # Errors
    /// As [`Discrete::fit`], of the rows.
    pub fn log_prob(&self, rows: &DiscreteRows) -> Result<Vec<f64>> {
        self.check(rows)?;
        let codes = rows.codes.chunks_exact(self.levels.len());
        let mut scratch = Vec::new();
        let log_prob = codes.enumerate().map(|(row, codes)| {
            let numbers = &rows.numbers[row * self.numbers..(row + 1) * self.numbers];
            let term = |variable: usize| {
                self.probabilities(variable, codes, numbers, &mut scratch);
                scratch[codes[variable] as usize].ln()
            };
            (0..self.modelled).map(term).sum()
        });
        Ok(log_prob.collect())
    }

    /// The probability of each level of `variable`, given those of `codes` `[V + G]` that it depends on.
    fn probabilities(&self, variable: usize, codes: &[u32], numbers: &[f64], into: &mut Vec<f64>) {
        into.clear();
        match &self.links[variable] {
            Link::Table(table) => into.extend_from_slice(table.row(&self.levels, codes)),
            Link::Regression(regression) => regression.probabilities(self, variable, codes, numbers, into),
        }
    }

    /// The variables that the conditional of `variable` may depend on.
    fn before(&self, variable: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        (0..variable).chain(self.modelled..self.levels.len())
    }

    /// That `rows` are rows of these variables; how many.
    fn check(&self, rows: &DiscreteRows) -> Result<usize> {
        let width = self.levels.len();
        let count = rows.codes.len() / width;
        expect_length("codes of discrete variables", rows.codes.len(), count * width)?;
        expect_length("numbers that are given", rows.numbers.len(), count * self.numbers)?;
        for codes in rows.codes.chunks_exact(width) {
            if let Some(place) = (0..width).find(|&place| codes[place] as usize >= self.levels[place]) {
                let (code, levels) = (codes[place], self.levels[place]);
                return Err(Error::Argument(format!(
                    "level {code} of discrete variable {place}, which has {levels}"
                )));
            }
        }
        Ok(count)
    }
}

/// Weights that add up to the number of equal ones that would say as much (Kish, "Survey sampling", 1965).
fn scaled(weights: Option<&[f64]>, count: usize) -> Result<Vec<f64>> {
    let Some(weights) = weights else {
        return if count > 0 {
            Ok(vec![1.0; count])
        } else {
            Err(Error::Argument("discrete variables need rows to be fitted to".into()))
        };
    };
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    let factor = sum / squares;
    if !(sum > 0.0 && factor.is_normal()) {
        return Err(Error::Argument(format!(
            "the sum of the weights must be positive and finite, got {sum}"
        )));
    }
    Ok(weights.iter().map(|weight| weight * factor).collect())
}

#[cfg(test)]
mod tests;
