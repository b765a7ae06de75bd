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
}

/// A column and its factor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// The column.
    pub of: String,
    /// Its factor.
    pub factor: f64,
}

/// Share of a column's variance below which it follows from others.
const LEFT: f64 = 1e-6;

/// Share of the variance that a term must have to be one.
const TERM: f64 = 1e-9;

/// The columns among `columns`, names with numbers `[N]`, that follow from earlier ones, by rows that are complete.
pub(super) fn dependences(columns: &[(&str, &[f64])]) -> Vec<Dependence> {
    /// Rows that are looked at, and most columns, whose work grows with the cube of their number.
    const ROWS: usize = 20_000;
    const COLUMNS: usize = 300;
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    let complete: Vec<usize> =
        (0..rows).filter(|&row| columns.iter().all(|(_, values)| !values[row].is_nan())).take(ROWS).collect();
    if columns.len() > COLUMNS || complete.len() < 2 * columns.len().max(2) {
        return Vec::new();
    }
    let columns: Vec<Standard> = columns
        .iter()
        .map(|(_, values)| Standard::of(complete.iter().map(|&row| values[row])))
        .zip(columns)
        .map(|(standard, (name, _))| Standard { name, ..standard })
        .collect();
    let (mut free, mut found): (Vec<Residual<'_>>, Vec<Dependence>) = (Vec::new(), Vec::new());
    for column in &columns {
        if column.deviation == 0.0 {
            continue;
        }
        let residual = Residual::of(column, &free);
        if residual.left < LEFT {
            found.push(residual.dependence(&free));
        } else {
            free.push(residual);
        }
    }
    found
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
        Dependence { column: self.column.name.to_owned(), terms, constant, left: self.left }
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
            ("e", column(&|t| 10.0 * a(t))),
            ("f", column(&|_| 7.0)),
        ];
        let columns: Vec<(&str, &[f64])> =
            columns.iter().map(|(name, values)| (*name, &values[..])).collect();
        let found = dependences(&columns);
        let names: Vec<&str> = found.iter().map(|found| found.column.as_str()).collect();
        assert_eq!(names, ["c", "e"]);
        for (found, want, constant) in
            [(&found[0], &[("a", 2.0), ("b", 3.0)][..], -4.0), (&found[1], &[("a", 10.0)], 0.0)]
        {
            assert!((found.constant - constant).abs() < 1e-3 && found.left < 1e-12, "{found:?}");
            assert_eq!(found.terms.len(), want.len(), "{found:?}");
            for (term, (name, factor)) in found.terms.iter().zip(want) {
                assert!(term.of == *name && (term.factor - factor).abs() < 1e-6, "{found:?}");
            }
        }
    }
}
