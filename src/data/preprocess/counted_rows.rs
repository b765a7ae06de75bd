//! Rows that have a part in a fit: what stages are fitted to, as the stages before leave them, and what losses are taken over.
//! They are mapped where they are read, so that fitting holds no second table.

use rayon::prelude::*;

use super::{OwnMaps, Preprocessing};

/// Rows of a table `[N, D]`, or some of them, in the user's units.
#[derive(Clone)]
pub(crate) struct CountedRows<'a> {
    /// Row-major [N, D].
    values: &'a [f64],
    features: usize,
    /// How much each row counts `[N]`.
    weights: Option<&'a [f64]>,
    /// Of each row that is left out, in ascending order, how many rows before it are not.
    gaps: Vec<usize>,
    /// Every how many of the others one is looked at.
    step: usize,
}

impl<'a> CountedRows<'a> {
    /// The rows of `values`, row-major [N, D], that count by `weights` `[N]`, but for those at the places `left_out`, which
    /// ascend.
    pub fn new(values: &'a [f64], features: usize, weights: Option<&'a [f64]>, left_out: &[usize]) -> Self {
        let gaps = left_out.iter().enumerate().map(|(before, row)| row - before).collect();
        Self { values, features, weights, gaps, step: 1 }
    }

    /// All rows of `values`, row-major [N, D], which count alike.
    pub fn alike(values: &'a [f64], features: usize) -> Self {
        Self::new(values, features, None, &[])
    }

    /// At most `most` of them, evenly spaced.
    pub fn thinned(&self, most: usize) -> Self {
        let step = self.step * self.len().div_ceil(most).max(1);
        Self { step, ..self.clone() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        (self.values.len() / self.features - self.gaps.len()).div_ceil(self.step)
    }

    /// The place in the table of each.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|row| self.place(row))
    }

    /// The place in the table of row `row`.
    fn place(&self, row: usize) -> usize {
        let row = row * self.step;
        row + self.gaps.partition_point(|gap| *gap <= row)
    }

    /// Row `row` `[D]`.
    pub fn row(&self, row: usize) -> &'a [f64] {
        let place = self.place(row);
        &self.values[place * self.features..(place + 1) * self.features]
    }

    /// Whether they count differently.
    pub fn are_weighted(&self) -> bool {
        self.weights.is_some()
    }

    /// How much row `row` counts.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[self.place(row)])
    }

    /// How much each row counts.
    pub fn weights(&self) -> impl Iterator<Item = f64> {
        (0..self.len()).map(|row| self.weight(row))
    }

    /// All of them, each `[D]`.
    pub fn iter(&self) -> impl Iterator<Item = &'a [f64]> + Clone {
        (0..self.len()).map(|row| self.row(row))
    }

    /// What makes a row `[D]` of its number, as the stages of `fitted` leave it; at an atom stands noise of the maps `own`,
    /// one for each column with atoms.
    pub(super) fn mapped(&self, fitted: &Preprocessing, own: &[OwnMaps]) -> impl Fn(usize, &mut [f64]) {
        let stages = fitted.stages();
        move |row, mapped| {
            let values = self.row(row);
            mapped.copy_from_slice(values);
            for (atoms, own) in fitted.atoms.iter().zip(own) {
                if atoms.at(values).is_some() {
                    mapped[atoms.column] = own.noise((row * self.step) as u32, 0);
                }
            }
            stages.iter().for_each(|stage| stage.forward(mapped, fitted.modelled(), &mut 0.0));
        }
    }

    /// The result of `fit` for each column `[D]`, from its number and its values as the stages of `fitted` leave them; `idle`
    /// for indicators, which stay as they are, and before a whitening for columns with atoms, which have maps of their `own`.
    pub(super) fn fit_columns<C: Clone + Send + Sync>(
        &self,
        fitted: &Preprocessing,
        own: &[OwnMaps],
        idle: &C,
        fit: impl Fn(usize, Vec<f64>) -> C + Sync,
    ) -> Vec<C> {
        let whitened = fitted.whitening.as_ref().map(|_| {
            let mut rows = vec![0.0; self.len() * self.features];
            let mapped = self.mapped(fitted, own);
            rows.chunks_exact_mut(self.features).enumerate().for_each(|(row, values)| mapped(row, values));
            rows
        });
        let of_column = |column: usize| {
            let has_own = whitened.is_none() && fitted.has_atoms(column);
            if has_own || fitted.domains[column].indicator {
                return idle.clone();
            }
            let values = match &whitened {
                Some(rows) => rows[column..].iter().step_by(self.features).copied().collect(),
                None => self.iter().map(|row| fitted.column_forward(column, row)).collect(),
            };
            fit(column, values)
        };
        (0..self.features).into_par_iter().map(of_column).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_left_out_are_passed_over_and_the_others_thinned() {
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        let weights: Vec<f64> = (0..10).map(|row| f64::from(row) + 0.5).collect();
        for left_out in [vec![], vec![0], vec![9], vec![0, 1, 2], vec![3, 4, 7], vec![0, 5, 9]] {
            let rows = CountedRows::new(&values, 2, Some(&weights), &left_out);
            let kept: Vec<usize> = (0..10).filter(|row| !left_out.contains(row)).collect();
            for most in [100, 5, 3] {
                let step = kept.len().div_ceil(most);
                let rows = rows.thinned(most);
                let want: Vec<usize> = kept.iter().copied().step_by(step).collect();
                let got: Vec<&[f64]> = rows.iter().collect();
                let of_table: Vec<&[f64]> = want.iter().map(|&row| &values[2 * row..2 * row + 2]).collect();
                assert_eq!(got, of_table, "{left_out:?}, {most}");
                assert!(rows.places().eq(want.iter().copied()));
                assert!(rows.weights().eq(want.iter().map(|&row| weights[row])));
            }
        }
    }
}
