//! The findings of one column, most of them from its numbers in order.

use serde::Serialize;

use super::bounds::likely_bounds;
use super::repeated::{Atom, atoms, runs};
use super::shape::{Shape, quantile};
use crate::data::{Bounds, Grid, SharedValues, far};

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ColumnKind {
    /// Numbers, some of them not whole.
    Number,
    /// Whole numbers.
    Whole,
    /// True and false.
    Truth,
    /// Dates and times, in seconds since 1970 began in UTC.
    Time,
    /// Texts, or cells of several kinds.
    Text,
    /// Nothing but missing values.
    Empty,
}

impl ColumnKind {
    /// Whether a flow can be fitted to the column.
    pub fn is_number(self) -> bool {
        !matches!(self, Self::Text | Self::Empty)
    }

    /// The kind of a column of numbers, NaN where one is missing.
    pub(super) fn of_numbers(values: &[f64]) -> Self {
        let whole = values.iter().all(|value| value.is_nan() || value.fract() == 0.0);
        if whole { Self::Whole } else { Self::Number }
    }
}

/// What was found in a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnFindings {
    /// Its name.
    pub name: String,
    /// Its position in the table, from 1.
    pub place: usize,
    /// What its cells are.
    pub kind: ColumnKind,
    /// Cells without a value.
    pub missing: u64,
    /// Different values; `None` when there are more texts than are counted.
    pub different: Option<usize>,
    /// Least and greatest number.
    pub range: Option<[f64; 2]>,
    /// The step between the values that numbers take, where values come again and lie on such a grid.
    pub grid: Option<f64>,
    /// Values that have a share of the rows although others are hardly ever taken twice, the commonest first.
    pub atoms: Vec<Atom>,
    /// What many rows share, where no density is bounded.
    pub shared: Option<SharedValues>,
    /// Tails and skewness, of numbers that have them.
    pub shape: Option<Shape>,
    /// Ends that the numbers come near and never reach.
    pub bounds: Option<Bounds>,
    /// Rows far from the others.
    pub far_out: Option<FarOut>,
    /// The first cell that is not like most.
    pub odd: Option<Odd>,
    /// Whether its numbers count the rows, up by one from 0 or 1.
    pub counts_rows: bool,
    /// Whether it is an index: the first column of its table that counts rows, or one that pandas wrote as such.
    pub is_index: bool,
}

/// Rows far from the quartiles, by ten times the distance between these, and by fifteen times that to the outer twentieth
/// where the tail is a heavy one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FarOut {
    /// How many.
    pub rows: usize,
    /// Where the first few are: their lines, else their rows, from 1.
    pub places: Vec<u64>,
}

/// A cell that is not like most of its column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Odd {
    /// Where it is: `line` or `row`, and its number from 1.
    pub unit: &'static str,
    /// See `unit`.
    pub place: u64,
    /// What it holds.
    pub cell: String,
}

impl ColumnFindings {
    /// Those of the column `name`, at `place` of its table from 1, whose numbers are `values` `[N]`, NaN where there is
    /// none, at these `rows` `[N]` of the table; `counts` says whether they count rows.
    pub(super) fn of_numbers(
        name: String,
        place: usize,
        kind: ColumnKind,
        values: &[f64],
        counts: bool,
        rows: &[u64],
    ) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let runs = runs(&sorted);
        let number = kind.is_number();
        // Of texts there are no numbers to look at, however many of them are there.
        let numbers = if number { &sorted[..] } else { &[] };
        let discrete = number && 2 * runs.len() <= numbers.len();
        let measured = matches!(kind, ColumnKind::Number | ColumnKind::Whole);
        let shared = SharedValues::of_sorted(numbers);
        let counts_rows = counts && kind == ColumnKind::Whole;
        let few = shared.is_some_and(|shared| shared.is_of_few(numbers.len()));
        let is_continuous = measured && !counts_rows && !few;
        let atoms = if number { atoms(&runs, numbers.len()) } else { Vec::new() };
        // What stands out has a probability of its own, and says nothing of the ends of the others.
        let is_atom = |value: &f64| atoms.iter().any(|atom| atom.value == *value);
        let others: Vec<f64> = numbers.iter().copied().filter(|value| !is_atom(value)).collect();
        Self {
            is_index: is_index_name(&name) || (place == 1 && counts_rows),
            name,
            place,
            kind,
            missing: 0,
            different: Some(runs.len()),
            range: numbers.first().copied().zip(numbers.last().copied()).map(Into::into),
            grid: if discrete && kind != ColumnKind::Truth {
                Grid::of(numbers).map(|grid| grid.step)
            } else {
                None
            },
            atoms,
            shared,
            shape: if measured && !counts_rows { Shape::of(numbers, runs.len()) } else { None },
            bounds: if is_continuous { likely_bounds(&others) } else { None },
            far_out: if number { far_out(values, rows, numbers) } else { None },
            odd: None,
            counts_rows,
        }
    }
}

/// Whether pandas calls the numbers of rows so.
fn is_index_name(name: &str) -> bool {
    ["Unnamed: 0", "__index_level_0__"].contains(&name)
}

fn far_out(values: &[f64], places: &[u64], sorted: &[f64]) -> Option<FarOut> {
    const NAMED: usize = 5;
    const ROWS: usize = 20;
    if sorted.len() < ROWS {
        return None;
    }
    let [below, above] = far::ends(far::SHARES.map(|share| quantile(sorted, share)), 1.0);
    let far = values.iter().zip(places).filter(|(value, _)| **value < below || **value > above);
    let places: Vec<u64> = far.map(|(_, &place)| place).collect();
    (!places.is_empty())
        .then(|| FarOut { rows: places.len(), places: places[..places.len().min(NAMED)].to_vec() })
}

/// Whether `values` go up by one from 0 or 1.
pub(super) fn counts_rows(values: impl Iterator<Item = f64>) -> bool {
    /// Rows below which a column that counts up may do so by chance.
    const ROWS: usize = 10;
    let (mut first, mut rows) = (0.0, 0usize);
    for value in values {
        if rows == 0 {
            first = value;
        }
        if !(first == 0.0 || first == 1.0) || value != first + rows as f64 {
            return false;
        }
        rows += 1;
    }
    rows >= ROWS
}

#[cfg(test)]
mod tests {
    use super::super::normal;
    use super::*;

    fn of(values: &[f64]) -> ColumnFindings {
        let places: Vec<u64> = (1..).take(values.len()).collect();
        ColumnFindings::of_numbers("c".into(), 1, ColumnKind::of_numbers(values), values, false, &places)
    }

    /// Quantiles of a distribution, in a mixed order.
    fn spread(rows: usize, quantile: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..rows).map(|row| quantile(((row * 389 % rows) as f64 + 0.5) / rows as f64)).collect()
    }

    #[test]
    fn rows_far_out_of_a_heavy_tail_are_the_tail_and_others_are_named() {
        let log_normal = |u: f64| (1.5 * normal(u)).exp();
        let mut values = spread(997, log_normal);
        assert_eq!(of(&values).far_out, None, "{:?}", of(&values).range);
        values[70] = 1e6;
        assert_eq!(of(&values).far_out, Some(FarOut { rows: 1, places: vec![71] }));
        let mut values = spread(997, normal);
        assert_eq!(of(&values).far_out, None);
        values[3] = -30.0;
        values[4] = 30.0;
        assert_eq!(of(&values).far_out, Some(FarOut { rows: 2, places: vec![4, 5] }));
        assert_eq!(of(&values[..19]).far_out, None, "too few rows");
    }

    #[test]
    fn a_few_values_have_no_bounds() {
        let eighths = spread(997, |u| (8.0 * u).floor() / 8.0 + 0.01);
        assert_eq!((of(&eighths).different, of(&eighths).bounds), (Some(8), None));
        let both = Bounds { low: Some(0.0), high: Some(1.0) };
        assert_eq!(of(&spread(997, |u| u)).bounds, Some(both));
    }

    #[test]
    fn an_index_is_first_or_named_so() {
        let counting: Vec<f64> = (0..30).map(f64::from).collect();
        let index = |name: &str, place, values: &[f64]| {
            let counts = counts_rows(values.iter().copied());
            let found =
                ColumnFindings::of_numbers(name.into(), place, ColumnKind::Whole, values, counts, &[0; 30]);
            (found.counts_rows, found.is_index)
        };
        assert_eq!(index("k", 1, &counting), (true, true));
        assert_eq!(index("k", 2, &counting), (true, false));
        assert_eq!(index("k", 1, &counting[5..]), (false, false));
        assert_eq!(index("Unnamed: 0", 2, &counting[5..]), (false, true));
    }
}
