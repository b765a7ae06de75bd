//! Values that come again: a few that stand out of an otherwise fine column.

use serde::Serialize;

/// A value with a share of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Atom {
    /// The value.
    pub value: f64,
    /// Its share of the numbers.
    pub share: f64,
}

/// How often each of `sorted` numbers is there.
pub(super) fn runs(sorted: &[f64]) -> Vec<(usize, f64)> {
    sorted.chunk_by(|a, b| a == b).map(|equal| (equal.len(), equal[0])).collect()
}

/// The commonest of many different values, given as [`runs`] of so many `numbers`, where they stand out from the others.
pub(super) fn atoms(runs: &[(usize, f64)], numbers: usize) -> Vec<Atom> {
    const MOST: usize = 4;
    const SHARE: f64 = 0.05;
    const ROWS: usize = 10;
    const DIFFERENT: usize = 20;
    /// How much commoner than the next value one is that stands out.
    const FACTOR: usize = 3;

    let mut commonest = runs.to_vec();
    commonest.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)));
    let is_common = |(count, _): &(usize, f64)| *count >= ROWS && *count as f64 >= SHARE * numbers as f64;
    let common = commonest.iter().take(MOST).take_while(|run| is_common(run)).count();
    let stands_out = |&count: &usize| {
        commonest.len() > DIFFERENT + count && commonest[count - 1].0 > FACTOR * commonest[count].0
    };
    let count = (1..=common).rev().find(stands_out).unwrap_or(0);
    let atom = |&(count, value): &(usize, f64)| Atom { value, share: count as f64 / numbers as f64 };
    commonest[..count].iter().map(atom).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_stand_out_of_fine_values_and_not_of_a_grid() {
        // 100 fine values, and so many of each of the atoms.
        let found = |counts: &[(usize, f64)]| -> Vec<f64> {
            let fine = (0..100).map(|row| (1, 0.5 + f64::from(row)));
            let runs: Vec<(usize, f64)> = fine.chain(counts.iter().copied()).collect();
            let numbers = runs.iter().map(|(count, _)| count).sum();
            atoms(&runs, numbers).iter().map(|atom| atom.value).collect()
        };
        assert_eq!(found(&[(20, 0.0)]), [0.0]);
        assert_eq!(found(&[(20, 0.0), (40, 1.0), (11, -1.0)]), [1.0, 0.0, -1.0]);
        assert_eq!(found(&[(60, 0.0), (25, 1.0), (8, 2.0)]), [0.0, 1.0], "the third is too rare");
        assert_eq!(found(&[(9, 0.0)]), [0.0; 0], "too few rows");
        assert_eq!(found(&[(14, 0.0), (9, 1.0)]), [0.0; 0], "not apart from the next");
        assert_eq!(found(&[20; 5].map(|count| (count, count as f64))), [0.0; 0], "too many");
        let grid: Vec<(usize, f64)> =
            (0..20).map(|value| (1 + 50 * usize::from(value == 0), f64::from(value))).collect();
        assert_eq!(atoms(&grid, 70), [], "few values");
    }
}
