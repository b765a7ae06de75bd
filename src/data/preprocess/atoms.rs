//! Atoms: values of a column that have a probability of their own, such as a zero in two rows of five.
//! Which atom a row is at is told by indicators in its context. There the column has no number for the flow to model, and is
//! filled with noise that has the distribution of its other rows: x(u) with u uniform and x the inverse of the column's own
//! maps. The noise looks like the rest of the column, so it bends no margin, and scores integrate it out.

use serde::{Deserialize, Serialize};

use super::CountedRows;
use super::{
    CategoryMoments, ColumnDomain, Preprocessing, PreprocessingPlan, StageKind, Standardise, Whitening,
};
use crate::error::{Error, Result};
use crate::normal::quantile;
use crate::random::{Stream, key, philox, uniform_inside};
use crate::shown::shown;

/// The atoms of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Atoms {
    /// The column, from 0.
    pub column: usize,
    /// The values that have a probability of their own.
    pub values: Vec<f64>,
    /// Column of the first value's indicator; those of the others follow. They are context: 1 in rows at the atom, else 0.
    pub indicator: usize,
}

/// Rows that are at no atom below which their distribution is not known.
const LEAST_ROWS: usize = 20;

impl Atoms {
    /// The atom that `row` `[D]` is at.
    pub fn at(&self, row: &[f64]) -> Option<f64> {
        indicated(row, self.indicator, self.values.len()).map(|place| self.values[place])
    }

    /// Checks `atoms` against the columns `columns` `[D]`, the last `context` of which are given, and their `domains` `[D]`;
    /// these are empty where all are the default.
    ///
    /// # Errors
    /// [`Error::Argument`] for a column that is not modelled or named twice, values that are not finite or are there twice,
    /// indicators that are not context, and an atom that a dequantised column has as another value too.
    pub(crate) fn validate(
        atoms: &[Self],
        domains: &[ColumnDomain],
        columns: &[String],
        context: usize,
    ) -> Result<()> {
        let modelled = columns.len() - context;
        for (place, Self { column, values, indicator }) in atoms.iter().enumerate() {
            let fail = |problem: &str| {
                let name = columns.get(*column).map_or("?", String::as_str);
                Err(Error::Argument(format!("the atoms of column `{}` {problem}", shown(name))))
            };
            if *column >= modelled || atoms[..place].iter().any(|other| other.column == *column) {
                return fail("must be those of a modelled column, named once");
            }
            let twice = |index: usize| values[..index].contains(&values[index]);
            if values.is_empty() || (0..values.len()).any(|index| !values[index].is_finite() || twice(index))
            {
                return fail("must be finite and different");
            }
            if let Some(domain) = domains.get(*column).filter(|domain| domain.grid.is_some())
                && let Some(value) = values.iter().find(|value| domain.refusal(**value).is_none())
            {
                return fail(&format!(
                    "must lie outside of its bounds, because it is dequantised and {value} has a probability already"
                ));
            }
            let end = indicator.checked_add(values.len());
            if *indicator < modelled || end.is_none_or(|end| end > columns.len()) {
                return fail("must have an indicator each among the context");
            }
        }
        Ok(())
    }
}

/// The maps of one column from the user's units to a standard normal shape: what stands before the whitening, without the
/// steps of a grid.
pub(crate) struct OwnMaps {
    /// The column.
    pub column: usize,
    maps: Preprocessing,
}

impl OwnMaps {
    /// The value x(z) that the maps take to `z`, with ln dx/dz.
    pub fn place(&self, z: f64) -> (f64, f64) {
        let stages = self.maps.stages();
        let mut row = [z];
        stages.iter().rev().for_each(|stage| stage.inverse(&mut row, 1));
        let x = row[0];
        let mut log_det = stages.iter().map(|stage| stage.constant_log_det(1)).sum();
        stages.iter().for_each(|stage| stage.forward(&mut row, 1, &mut log_det));
        (x, -log_det)
    }

    /// The noise of row `row` under `seed`.
    pub fn noise(&self, row: u32, seed: u64) -> f64 {
        let words = philox([row, self.column as u32, 0, Stream::Atom as u32], key(seed));
        self.place(quantile(uniform_inside(words[0]))).0
    }

    /// Puts the maps into those of the whole row where stages of `kind` are fitted.
    fn put(&self, kind: StageKind, fitted: &mut Preprocessing) {
        let column = self.column;
        match kind {
            StageKind::Standardiser => {
                fitted.standardiser.mean[column] = self.maps.standardiser.mean[0];
                fitted.standardiser.std[column] = self.maps.standardiser.std[0];
            }
            StageKind::Curves => fitted.curves[column].clone_from(&self.maps.curves[0]),
            StageKind::Kernel => fitted.kernel[column].clone_from(&self.maps.kernel[0]),
            // Columns with atoms have no moments by category.
            StageKind::Domains
            | StageKind::CategoryMoments
            | StageKind::Whitening
            | StageKind::WhitenedCurves
            | StageKind::WhitenedKernel => {}
        }
    }
}

/// [`OwnMaps::put`] of each of `own`.
pub(super) fn put_all(own: &[OwnMaps], kind: StageKind, fitted: &mut Preprocessing) {
    own.iter().for_each(|own| own.put(kind, fitted));
}

impl Preprocessing {
    /// The own maps of each column with atoms, in the order of [`Preprocessing::atoms`].
    pub(crate) fn own_maps(&self) -> Vec<OwnMaps> {
        self.atoms.iter().map(|atoms| self.own_maps_of(atoms.column)).collect()
    }

    /// Puts the atoms of `rows`, row-major [B, D], where rows are at them.
    pub(crate) fn restore_atoms(&self, rows: &mut [f64]) {
        for row in rows.chunks_exact_mut(self.domains.len()) {
            for atoms in &self.atoms {
                if let Some(value) = atoms.at(row) {
                    row[atoms.column] = value;
                }
            }
        }
    }

    /// The widest of three cells of the dequantised `column` whose values are this far apart, in the middle of its values and
    /// to both sides, by the normal shape that the column's own maps give it.
    pub(crate) fn cell_width(&self, column: usize, step: f64) -> f64 {
        let own = self.own_maps_of(column);
        [-1.0, 0.0, 1.0].map(|z| step * (-own.place(z).1).exp()).into_iter().fold(0.0, f64::max)
    }

    fn own_maps_of(&self, column: usize) -> OwnMaps {
        let of = |values: &[f64]| vec![values[column]];
        let maps = Self {
            domains: vec![self.domains[column].without_grid()],
            standardise: Standardise::Mean,
            standardiser: super::Standardiser {
                mean: of(&self.standardiser.mean),
                std: of(&self.standardiser.std),
            },
            category_moments: CategoryMoments::default(),
            whitening: None::<Whitening>,
            curves: self.curves.get(column).cloned().into_iter().collect(),
            kernel: self.kernel.get(column).cloned().into_iter().collect(),
            whitened_curves: Vec::new(),
            whitened_kernel: Vec::new(),
            context: 0,
            atoms: Vec::new(),
        };
        OwnMaps { column, maps }
    }
}

impl PreprocessingPlan {
    /// Fits the own maps of each column with atoms to those of `rows` that are at none. Errors name `source_name`.
    ///
    /// # Errors
    /// [`Error::Data`] when too few rows are at no atom; those of [`PreprocessingPlan::fit`].
    pub(super) fn fit_own(
        &self,
        source_name: &str,
        rows: &CountedRows<'_>,
        columns: &[String],
    ) -> Result<Vec<OwnMaps>> {
        let of_column = |atoms: &Atoms| {
            let (column, name) = (atoms.column, &columns[atoms.column]);
            let of_others = |number: &dyn Fn(usize) -> f64| -> Vec<f64> {
                let others = (0..rows.len()).filter(|&row| atoms.at(rows.row(row)).is_none());
                others.map(number).collect()
            };
            let others = of_others(&|row| rows.row(row)[column]);
            if others.len() < LEAST_ROWS {
                return Err(Error::data(
                    source_name,
                    format!(
                        "column {} (`{}`) has {} training rows with another value than its atoms, expected at least \
                         {LEAST_ROWS}; leave it out, or make it a category",
                        column + 1,
                        shown(name),
                        others.len()
                    ),
                ));
            }
            let plan = Self {
                domains: vec![self.domains.get(column).copied().unwrap_or_default()],
                standardise: match self.standardise {
                    Standardise::Robust => Standardise::Robust,
                    Standardise::Mean | Standardise::Whiten => Standardise::Mean,
                },
                margins: self.margins,
                ..Self::default()
            };
            let weights = rows.are_weighted().then(|| of_others(&|row| rows.weight(row)));
            let fitted =
                plan.fit(source_name, &others, weights.as_deref(), std::slice::from_ref(name), &[])?;
            Ok(OwnMaps { column, ..fitted.own_maps_of(0) })
        };
        self.atoms.iter().map(of_column).collect()
    }

    /// Whether the row `[D]` holds an atom where its indicators say so, and nowhere else.
    pub(in crate::data) fn is_encoded(&self, row: &[f64]) -> bool {
        let told = |atoms: &Atoms| {
            let value = row[atoms.column];
            atoms.at(row) == atoms.values.iter().copied().find(|&atom| atom == value)
        };
        self.atoms.iter().all(told)
    }
}

/// Which of the `count` indicators of `row` `[D]` from column `first` on is 1, from 0; `None` where none is.
pub(super) fn indicated(row: &[f64], first: usize, count: usize) -> Option<usize> {
    row[first..first + count].iter().position(|&indicator| indicator > 0.5)
}

/// Whether `row` `[D]` is at an atom of `column`.
pub(super) fn is_at_atom(atoms: &[Atoms], column: usize, row: &[f64]) -> bool {
    atoms.iter().any(|atoms| atoms.column == column && atoms.at(row).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Bounds, ColumnDomain, Grid, Margins};

    /// Rows of a price that is 0 in two rows of five and else at least 1, a number, and the indicator of the zero.
    fn rows() -> Vec<f64> {
        (0..500)
            .flat_map(|i| {
                let t = f64::from(i) * 0.7;
                let zero = i % 5 < 2;
                let price = if zero { 0.0 } else { (1.0 + t.sin() + 0.3 * (1.7 * t).cos()).exp() };
                [price, t.cos(), f64::from(u8::from(zero))]
            })
            .collect()
    }

    fn plan(margins: Margins, standardise: Standardise) -> PreprocessingPlan {
        let price =
            ColumnDomain { bounds: Some(Bounds { low: Some(0.0), high: None }), ..Default::default() };
        PreprocessingPlan {
            domains: vec![price, ColumnDomain::default(), ColumnDomain::default()],
            standardise,
            margins,
            context: 1,
            category_moments: CategoryMoments::default(),
            atoms: vec![Atoms { column: 0, values: vec![0.0], indicator: 2 }],
        }
    }

    fn columns() -> Vec<String> {
        ["price", "x", "price=0"].map(String::from).into()
    }

    #[test]
    fn own_maps_are_fitted_to_the_other_rows_alone_and_are_those_of_the_whole() {
        for (_, margins) in Margins::ALL {
            for standardise in [Standardise::Mean, Standardise::Robust, Standardise::Whiten] {
                let rows = rows();
                let fitted = plan(margins, standardise).fit("t", &rows, None, &columns(), &[]).expect("fits");
                let others: Vec<f64> =
                    rows.chunks(3).filter(|row| row[2] == 0.0).flat_map(|row| [row[0], row[1]]).collect();
                let alone = PreprocessingPlan {
                    domains: plan(margins, standardise).domains[..2].to_vec(),
                    standardise,
                    margins,
                    ..PreprocessingPlan::default()
                };
                let alone = alone.fit("t", &others, None, &columns()[..2], &[]).expect("fits");
                let [own] = &fitted.own_maps()[..] else { panic!("one column has atoms") };
                for z in [-7.75, -1.3, 0.0, 0.4, 7.75] {
                    assert_eq!(
                        own.place(z),
                        alone.own_maps_of(0).place(z),
                        "{margins:?} {standardise:?}: {z}"
                    );
                }
                let moments = |mean: &[f64], std: &[f64]| (mean[0], std[0]);
                assert_eq!(
                    moments(&fitted.standardiser.mean, &fitted.standardiser.std),
                    moments(&alone.standardiser.mean, &alone.standardiser.std)
                );
            }
        }
    }

    #[test]
    fn places_have_the_slope_of_differences_and_noise_is_like_the_other_rows() {
        for (_, margins) in Margins::ALL {
            let fitted =
                plan(margins, Standardise::Mean).fit("t", &rows(), None, &columns(), &[]).expect("fits");
            let [own] = &fitted.own_maps()[..] else { panic!("one column has atoms") };
            for z in [-2.1, -0.7, 0.05, 1.3] {
                let step = 1e-5;
                let want = ((own.place(z + step).0 - own.place(z - step).0) / (2.0 * step)).ln();
                let got = own.place(z).1;
                assert!((got - want).abs() < 1e-3, "{margins:?}: {z}: {got}, differences {want}");
            }
            let mut noise: Vec<f64> = (0..4000).map(|row| own.noise(row, 7)).collect();
            let mut others: Vec<f64> =
                rows().chunks(3).filter(|row| row[2] == 0.0).map(|row| row[0]).collect();
            noise.sort_by(f64::total_cmp);
            others.sort_by(f64::total_cmp);
            assert!(noise[0] > 0.0, "within the bounds");
            if margins == Margins::Kernel {
                for share in [0.1, 0.25, 0.5, 0.75, 0.9] {
                    let at = |values: &[f64]| values[(share * values.len() as f64) as usize];
                    let (got, want) = (at(&noise), at(&others));
                    assert!((got / want - 1.0).abs() < 0.1, "{share}: {got}, expected {want}");
                }
            }
        }
    }

    #[test]
    fn a_grids_noise_is_not_stepped() {
        let domain = ColumnDomain {
            grid: Some(Grid::WHOLE),
            bounds: Some(Bounds { low: Some(1.0), high: None }),
            ..ColumnDomain::default()
        };
        let counted = |domain| PreprocessingPlan {
            domains: vec![domain, ColumnDomain::default(), ColumnDomain::default()],
            ..plan(Margins::None, Standardise::Mean)
        };
        let above: Vec<f64> = rows().chunks(3).flat_map(|row| [row[0] + 1.0, row[1], row[2]]).collect();
        let fitted = counted(domain).fit("t", &above, None, &columns(), &[]).expect("fits");
        let (x, _) = fitted.own_maps()[0].place(0.3);
        assert!(x.fract() != 0.0 && fitted.own_maps()[0].place(0.31).0 > x);
        let message = counted(ColumnDomain { bounds: None, ..domain })
            .validate(&columns())
            .expect_err("0 is a count")
            .to_string();
        assert!(message.contains("`price` must lie outside of its bounds"), "{message}");
    }

    #[test]
    fn impossible_atoms_are_refused_with_their_column() {
        let atoms = |column, values: &[f64], indicator| Atoms { column, values: values.into(), indicator };
        for (atoms, want) in [
            (vec![atoms(2, &[0.0], 2)], "modelled column"),
            (vec![atoms(0, &[0.0], 2), atoms(0, &[1.0], 2)], "named once"),
            (vec![atoms(0, &[], 2)], "finite and different"),
            (vec![atoms(0, &[f64::NAN], 2)], "finite and different"),
            (vec![atoms(0, &[0.0], 1)], "an indicator each"),
            (vec![atoms(0, &[0.0, 1.0], 2)], "an indicator each"),
            (vec![atoms(0, &[0.0], usize::MAX)], "an indicator each"),
        ] {
            let plan = PreprocessingPlan { atoms, ..plan(Margins::None, Standardise::Mean) };
            let message = plan.validate(&columns()).expect_err(want).to_string();
            assert!(message.contains(want), "{message}");
        }
        let rows: Vec<f64> = rows().chunks(3).flat_map(|row| [0.0, row[1], 1.0]).collect();
        let message = plan(Margins::None, Standardise::Mean)
            .fit("t", &rows, None, &columns(), &[])
            .expect_err("few")
            .to_string();
        assert!(message.contains("column 1 (`price`) has 0 training rows with another value"), "{message}");
    }
}
