//! Columns that are sums of others: found one after the other, each against those before it that are free.

use serde::Serialize;

/// A column that follows from others: `column` = `constant` + Σ `factor` · `of`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dependence {
    /// The column that follows.
    pub column: String,
    /// What it follows from.
    pub terms: Vec<Term>,
    /// What is added to them.
    pub constant: f64,
    /// The share of the column's variance that is left; 0 but for rounding where it follows exactly.
    pub left: f64,
    /// Whether it follows exactly, as far as numbers are written.
    pub exact: bool,
}

/// A column and its factor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// The column.
    pub of: String,
    /// Its factor.
    pub factor: f64,
}

/// How many columns there are that a flow can be fitted to, and how many of them do not follow from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rank {
    /// Columns of numbers that are not always the same, without an index.
    pub columns: usize,
    /// Those that do not follow from others exactly.
    pub independent: usize,
}

/// Share of a column's variance below which it follows from others, and below which it nearly does.
const EXACT: f64 = 1e-6;
const NEAR: f64 = 1e-3;

/// Share of the variance that a term must have to be one.
const TERM: f64 = 1e-9;

/// The columns called `names` that follow from earlier ones, exactly or nearly, by the `rows` of `value(row, column)` that
/// are complete.
pub(super) fn dependences(
    names: &[&str],
    rows: usize,
    value: impl Fn(usize, usize) -> f64,
) -> (Vec<Dependence>, Rank) {
    /// Rows that are looked at, and most columns. The work grows with the rows and the square of the columns.
    const ROWS: usize = 10_000;
    const WORK: usize = 200_000_000;
    const COLUMNS: usize = 300;

    let unknown = (Vec::new(), Rank { columns: names.len(), independent: names.len() });
    if names.is_empty() || names.len() > COLUMNS {
        return unknown;
    }
    let complete: Vec<usize> =
        (0..rows).filter(|&row| (0..names.len()).all(|column| !value(row, column).is_nan())).collect();
    if complete.len() < 2 * names.len().max(2) {
        return unknown;
    }
    // Evenly from all of the table, which may be sorted.
    let most = ROWS.min(WORK / (names.len() * names.len()));
    let complete: Vec<usize> = complete.iter().copied().step_by(complete.len().div_ceil(most)).collect();
    let columns: Vec<Standard<'_>> = names
        .iter()
        .enumerate()
        .map(|(column, name)| Standard {
            name,
            ..Standard::of(complete.iter().map(|&row| value(row, column)))
        })
        .collect();
    let (mut free, mut found): (Vec<Residual<'_>>, Vec<Dependence>) = (Vec::new(), Vec::new());
    for column in columns.iter().filter(|column| column.deviation > 0.0) {
        let residual = Residual::of(column, &free);
        if residual.left < NEAR {
            found.push(residual.dependence(&free));
        }
        if residual.left >= EXACT {
            free.push(residual);
        }
    }
    let follow = found.iter().filter(|dependence| dependence.exact).count();
    (found, Rank { columns: names.len(), independent: names.len() - follow })
}

/// A column with mean 0 and deviation 1.
#[derive(Default)]
struct Standard<'a> {
    name: &'a str,
    mean: f64,
    deviation: f64,
    values: Vec<f64>,
}

impl Standard<'_> {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        let count = values.len() as f64;
        let mean = values.iter().map(|value| value / count).sum::<f64>();
        values.iter_mut().for_each(|value| *value -= mean);
        let deviation = (values.iter().map(|value| value * (value / count)).sum::<f64>()).sqrt();
        if deviation > 0.0 && deviation.is_finite() {
            values.iter_mut().for_each(|value| *value /= deviation);
            Self { name: "", mean, deviation, values }
        } else {
            Self { deviation: 0.0, ..Self::default() }
        }
    }
}

/// What is left of a column when those before it are taken out, and how it is made of standard columns.
struct Residual<'a> {
    column: &'a Standard<'a>,
    /// The residual, of length 1.
    direction: Vec<f64>,
    /// How much of each earlier direction was taken out, and the length of the residual last.
    taken: Vec<f64>,
    /// The share of the variance that is left.
    left: f64,
}

impl<'a> Residual<'a> {
    /// Gram and Schmidt's, twice, which is as good as rounding allows.
    fn of(column: &'a Standard<'a>, free: &[Self]) -> Self {
        let count = (column.values.len() as f64).sqrt();
        let mut direction: Vec<f64> = column.values.iter().map(|value| value / count).collect();
        let mut taken = vec![0.0; free.len()];
        for _ in 0..2 {
            for (other, taken) in free.iter().zip(&mut taken) {
                let share: f64 = direction.iter().zip(&other.direction).map(|(a, b)| a * b).sum();
                direction.iter_mut().zip(&other.direction).for_each(|(a, b)| *a -= share * b);
                *taken += share;
            }
        }
        let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|value| *value /= length);
        taken.push(length);
        Self { column, direction, taken, left: length * length }
    }

    /// The column as a sum of the free ones: their triangular system from the last to the first.
    fn dependence(&self, free: &[Self]) -> Dependence {
        let mut shares = self.taken[..free.len()].to_vec();
        let mut factors = vec![0.0; free.len()];
        for index in (0..free.len()).rev() {
            factors[index] = shares[index] / free[index].taken[index];
            for (share, taken) in shares.iter_mut().zip(&free[index].taken).take(index) {
                *share -= factors[index] * taken;
            }
        }
        let mut constant = self.column.mean;
        let mut terms = Vec::new();
        for (factor, other) in factors.iter().zip(free) {
            if factor * factor > TERM {
                let factor = factor * self.column.deviation / other.column.deviation;
                constant -= factor * other.column.mean;
                terms.push(Term { of: other.column.name.to_owned(), factor });
            }
        }
        Dependence {
            column: self.column.name.to_owned(),
            terms,
            constant,
            left: self.left,
            exact: self.left < EXACT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_with_their_factors_and_others_are_free() {
        let column = |f: &dyn Fn(f64) -> f64| (0..400).map(|row| f(f64::from(row))).collect::<Vec<f64>>();
        let (a, b) = (|t: f64| (0.7 * t).sin() + 5.0, |t: f64| (1.3 * t).cos() * 10.0);
        let columns = [
            ("a", column(&a)),
            ("b", column(&b)),
            ("c", column(&|t| 2.0 * a(t) + 3.0 * b(t) - 4.0)),
            ("d", column(&|t| a(t) + 0.01 * (2.9 * t).sin())),
            ("g", column(&|t| a(t) + 0.04 * (3.7 * t).sin())),
            ("e", column(&|t| 10.0 * a(t))),
            ("f", column(&|_| 7.0)),
        ];
        let names = columns.each_ref().map(|(name, _)| *name);
        let (found, rank) = dependences(&names, 400, |row, column| columns[column].1[row]);
        let names: Vec<(&str, bool)> =
            found.iter().map(|found| (found.column.as_str(), found.exact)).collect();
        assert_eq!(names, [("c", true), ("d", false), ("e", true)]);
        assert_eq!(rank, Rank { columns: 7, independent: 5 });
        let near = &found[1];
        assert!((near.left.sqrt() - 0.01).abs() < 1e-3 && near.terms.len() == 1, "{near:?}");
        for (found, want, constant) in
            [(&found[0], &[("a", 2.0), ("b", 3.0)][..], -4.0), (&found[2], &[("a", 10.0)], 0.0)]
        {
            assert!((found.constant - constant).abs() < 1e-3 && found.left < 1e-12, "{found:?}");
            assert_eq!(found.terms.len(), want.len(), "{found:?}");
            for (term, (name, factor)) in found.terms.iter().zip(want) {
                assert!(term.of == *name && (term.factor - factor).abs() < 1e-6, "{found:?}");
            }
        }
    }
}
