//! How the columns of a table are to be preprocessed, before their statistics are known, and the fit to the training rows,
//! which gives a [`Preprocessing`].

use serde::{Deserialize, Serialize};

use super::CountedRows;
use super::atoms::{is_at_atom, put_all};
use super::stage::ColumnMap;
use super::{
    Atoms, CategoryMoments, ColumnDomain, Grid, Johnson, MonotoneCurve, ORDER, Preprocessing, StageKind,
    Standardiser, Whitening, first_refusal, johnson, kernel,
};
use crate::data::far;
use crate::error::{Error, Result};
use crate::random::{Stream, key, philox, uniform_inside};
use crate::shown::shown;

/// What the standardiser is fitted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Standardise {
    /// Mean and standard deviation.
    #[default]
    Mean,
    /// Median and interquartile range / 1.349, which is the standard deviation where the column is normal.
    Robust,
    /// Mean and standard deviation, and then the linear map after which columns are uncorrelated.
    Whiten,
}

/// By which curves each column is bent to a normal shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Margins {
    /// By none.
    #[default]
    None,
    /// By Johnson's, which has four numbers.
    Johnson,
    /// By Johnson's, and then by the distribution function of a kernel density.
    Kernel,
}

impl Margins {
    /// Every kind by its name.
    pub const ALL: [(&str, Self); 3] =
        [("none", Self::None), ("johnson", Self::Johnson), ("kernel", Self::Kernel)];
}

/// How to preprocess the columns of a table whose statistics are not known yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreprocessingPlan {
    /// Domain of each column `[D]`; empty where all are the default.
    pub domains: Vec<ColumnDomain>,
    /// How to standardise the results.
    pub standardise: Standardise,
    /// How to bend each column to a normal shape: after the standardiser, and again after the whitening.
    pub margins: Margins,
    /// Which columns to shift and scale by the category of the row, and by which; [`Dataset::with_category_moments`] chooses
    /// them. Moments that these have count nothing.
    ///
    /// [`Dataset::with_category_moments`]: crate::Dataset::with_category_moments
    pub category_moments: CategoryMoments,
    /// How many of the columns, the last ones, are context: given, not modelled.
    pub context: usize,
    /// The atoms of columns that have some.
    pub atoms: Vec<Atoms>,
}

impl PreprocessingPlan {
    /// The first value of `rows`, row-major [B, D], that cannot be modelled: its row and column from 0, and what is
    /// wrong with it.
    pub fn first_refusal(&self, rows: &[f64]) -> Option<(usize, usize, String)> {
        first_refusal(&self.domains, &self.atoms, rows)
    }

    /// Checks the domains and their number against the columns `columns` `[D]`.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the column.
    pub fn validate(&self, columns: &[String]) -> Result<()> {
        if !self.domains.is_empty() {
            crate::error::expect_length("domains of the columns", self.domains.len(), columns.len())?;
        }
        if self.context >= columns.len() {
            return Err(Error::Argument("every column is context; at least one must be modelled".into()));
        }
        for (index, (domain, name)) in self.domains.iter().zip(columns).enumerate() {
            domain.validate(name)?;
            if domain.indicator && index < columns.len() - self.context {
                return Err(Error::Argument(format!(
                    "column `{}` is an indicator, which can only be context",
                    shown(name)
                )));
            }
            if domain.grid.is_some() && index >= columns.len() - self.context {
                return Err(Error::Argument(format!(
                    "column `{}` is context, whose density is not modelled: it cannot be dequantised",
                    shown(name)
                )));
            }
        }
        self.category_moments.validate(&self.domains, &self.atoms, columns, self.context)?;
        Atoms::validate(&self.atoms, &self.domains, columns, self.context)
    }

    /// Row and column, from 0, of each value of `sides`, the training and the validation rows, row-major [N, D] and [V, D],
    /// that lies so far from the training rows of its column that it does harm; none where so many do that they are no
    /// exceptions. A column that has bounds counts as it is mapped, and atoms are not looked at.
    pub(in crate::data) fn far_out(&self, sides: [&[f64]; 2], features: usize) -> [Vec<(usize, usize)>; 2] {
        let mut found = [Vec::new(), Vec::new()];
        // One for all columns, and no longer than it may have to be: an allocator may keep what is freed.
        let mut training = Vec::with_capacity(sides[0].len() / features);
        for column in 0..features {
            training.clear();
            training.extend(self.mapped(sides[0], column, features).map(|(_, value)| value));
            if training.is_empty() {
                continue;
            }
            let ends = far::harmful_ends(&mut training);
            for ((found, rows), [low, high]) in found.iter_mut().zip(sides).zip(ends) {
                let mapped = self.mapped(rows, column, features);
                let far = mapped.filter(|(_, value)| *value < low || *value > high);
                found.extend(far.map(|(row, _)| (row, column)));
            }
        }
        found.iter_mut().for_each(|found| found.sort_unstable());
        let [count, rows] =
            [found.iter().map(Vec::len).sum(), sides.map(<[f64]>::len).iter().sum::<usize>() / features];
        if far::are_few(count, rows) { found } else { Default::default() }
    }

    /// The values of `column` among `rows`, row-major [B, D], that are at no atom, each with its row and as its domain maps
    /// it; none of an indicator.
    fn mapped(&self, rows: &[f64], column: usize, features: usize) -> impl Iterator<Item = (usize, f64)> {
        let domain = self.domains.get(column).copied().unwrap_or_default();
        let rows = rows.chunks_exact(features).enumerate().filter(move |_| !domain.indicator);
        let others = rows.filter(move |(_, row)| !is_at_atom(&self.atoms, column, row));
        others.map(move |(place, row)| (place, domain.forward(row[column]).0))
    }

    /// The training rows of values `far` out, where nothing brings them near the others, so that they alone would decide
    /// scales and losses.
    pub(in crate::data) fn left_out(&self, far: &[(usize, usize)]) -> Vec<usize> {
        if self.margins == Margins::None { far::rows(far) } else { Vec::new() }
    }

    /// Adds to a row `[D]` the noise of its dequantised columns: uniform in its cell, of row `row` under
    /// `seed`.
    pub(in crate::data) fn add_noise(&self, values: &mut [f64], row: u32, seed: u64) {
        for (column, domain) in self.domains.iter().enumerate() {
            if let Some(grid) = domain.grid.filter(|_| !is_at_atom(&self.atoms, column, values)) {
                let words = philox([row, column as u32, 0, Stream::Dequantize as u32], key(seed));
                values[column] = grid.nearest(values[column]) + uniform_inside(words[0]) * grid.step;
            }
        }
    }

    /// Whether a stage of this kind is fitted.
    fn includes(&self, kind: StageKind) -> bool {
        match kind {
            // Known from the start.
            StageKind::Domains => false,
            StageKind::CategoryMoments => !self.category_moments.columns.is_empty(),
            StageKind::Standardiser => true,
            StageKind::Curves => self.margins != Margins::None,
            StageKind::Kernel => self.margins == Margins::Kernel,
            StageKind::Whitening => self.standardise == Standardise::Whiten,
            StageKind::WhitenedCurves => {
                self.includes(StageKind::Curves) && self.includes(StageKind::Whitening)
            }
            StageKind::WhitenedKernel => {
                self.includes(StageKind::Kernel) && self.includes(StageKind::Whitening)
            }
        }
    }

    /// Fits each stage in turn to the training rows `values`, row-major [N, D], as the stages before it leave them. What maps
    /// a column with atoms alone is fitted to its rows that are at none. They have their noise; errors name `source_name`.
    /// Kernel densities count each row by its weight `[N]`, where there are any; everything else counts all rows alike, but
    /// for those of the values `far` out that nothing brings near the others.
    ///
    /// # Errors
    /// Those of [`Standardiser::fit`], and [`Error::Data`] for a column whose middle half is one value, when robust.
    pub(in crate::data) fn fit(
        &self,
        source_name: &str,
        values: &[f64],
        weights: Option<&[f64]>,
        columns: &[String],
        far: &[(usize, usize)],
    ) -> Result<Preprocessing> {
        self.validate(columns)?;
        let features = columns.len();
        let rows = CountedRows::new(values, features, weights, &self.left_out(far));
        let own = self.fit_own(source_name, &rows, columns)?;
        let mut fitted = Preprocessing {
            domains: if self.domains.is_empty() {
                vec![ColumnDomain::default(); features]
            } else {
                self.domains.clone()
            },
            standardise: self.standardise,
            context: self.context,
            atoms: self.atoms.clone(),
            ..Standardiser::identity(features).into()
        };
        let johnson = |fitted: &Preprocessing| {
            let fit = |_, column: Vec<f64>| Johnson::fit(&column);
            rows.thinned(johnson::ROWS).fit_columns(fitted, &own, &Johnson::IDENTITY, fit)
        };
        let kernel = |fitted: &Preprocessing, least_widths: &[f64]| {
            let rows = rows.thinned(kernel::ROWS);
            let fit = |column, values: Vec<f64>| {
                let weighted = values.into_iter().enumerate().map(|(row, value)| [value, rows.weight(row)]);
                kernel::fit(weighted.collect(), least_widths[column])
            };
            rows.fit_columns(fitted, &own, &MonotoneCurve::identity(), fit)
        };
        for kind in ORDER.into_iter().filter(|&kind| self.includes(kind)) {
            match kind {
                StageKind::Domains => {}
                StageKind::CategoryMoments => {
                    fitted.category_moments = self.category_moments.fit(&rows, &fitted);
                }
                StageKind::Standardiser => {
                    fitted.standardiser = self.fit_standardiser(source_name, &rows, columns, &fitted)?;
                }
                StageKind::Curves => fitted.curves = johnson(&fitted),
                StageKind::Kernel => fitted.kernel = kernel(&fitted, &least_widths(&rows, &fitted)),
                StageKind::Whitening => {
                    let given = &fitted.domains[features - self.context..];
                    let indicators: Vec<bool> = given.iter().map(|domain| domain.indicator).collect();
                    let mapped = rows.mapped(&fitted, &own);
                    fitted.whitening = Some(Whitening::fit_given(rows.len(), features, &indicators, mapped)?);
                }
                StageKind::WhitenedCurves => fitted.whitened_curves = johnson(&fitted),
                StageKind::WhitenedKernel => fitted.whitened_kernel = kernel(&fitted, &vec![0.0; features]),
            }
            put_all(&own, kind, &mut fitted);
        }
        Ok(fitted)
    }

    /// The standardiser of `rows`, as the stages of `fitted` before it leave them. Indicators keep their scale, and columns
    /// with atoms are left to maps of their own.
    ///
    /// # Errors
    /// Those of [`PreprocessingPlan::fit`].
    fn fit_standardiser(
        &self,
        source_name: &str,
        rows: &CountedRows<'_>,
        columns: &[String],
        fitted: &Preprocessing,
    ) -> Result<Standardiser> {
        let robust = self.standardise == Standardise::Robust;
        let mut standardiser = Standardiser::identity(columns.len());
        for column in (0..columns.len()).filter(|&column| !fitted.has_atoms(column)) {
            let values = rows.iter().map(|row| fitted.column_forward(column, row));
            let (mean, std) = if fitted.domains[column].indicator {
                (values.sum::<f64>() / rows.len() as f64, 1.0)
            } else {
                Standardiser::fit_column(source_name, columns, column, values, robust)?
            };
            (standardiser.mean[column], standardiser.std[column]) = (mean, std);
        }
        Ok(standardiser)
    }
}

/// The least width of a kernel for each column `[D]` of `rows`, as the stages of `fitted` map it: a part of the cell that a
/// value is spread over, so that the few nodes of its probability see all of the density.
fn least_widths(rows: &CountedRows<'_>, fitted: &Preprocessing) -> Vec<f64> {
    const PART: f64 = 0.25;

    let features = fitted.domains.len();
    let mapped = |column: usize, value: f64| {
        let mut row = vec![0.0; features];
        row[column] = value;
        fitted.column_forward(column, &row)
    };
    let cell = |column: usize, grid: Grid| {
        let mut cells: Vec<f64> = rows.iter().map(|row| grid.floor(row[column])).collect();
        cells.sort_unstable_by(f64::total_cmp);
        cells.dedup();
        let centres = cells.iter().map(|cell| (*cell, mapped(column, cell + 0.5 * grid.step)));
        let centres: Vec<(f64, f64)> = centres.collect();
        let mut widths: Vec<f64> = centres.array_windows().map(|[a, b]| (b.1 - a.1) / (b.0 - a.0)).collect();
        widths.sort_unstable_by(f64::total_cmp);
        widths.get(widths.len() / 2).map_or(0.0, |width| PART * width * grid.step)
    };
    let grids = fitted.domains.iter().map(|domain| domain.grid).enumerate();
    grids.map(|(column, grid)| grid.map_or(0.0, |grid| cell(column, grid))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_inside_its_cell_repeats_and_differs_by_row_column_and_seed() {
        let plan = PreprocessingPlan {
            domains: vec![
                ColumnDomain { grid: Some(Grid::WHOLE), bounds: None, ..ColumnDomain::default() };
                2
            ],
            ..PreprocessingPlan::default()
        };
        let draw = |row, seed| {
            let mut values = [0.0; 2];
            plan.add_noise(&mut values, row, seed);
            values
        };
        assert_eq!(draw(3, 1), draw(3, 1));
        assert!(draw(3, 1) != draw(4, 1) && draw(3, 1) != draw(3, 2) && draw(3, 1)[0] != draw(3, 1)[1]);
        let all: Vec<f64> = (0..5000).flat_map(|row| draw(row, 7)).collect();
        assert!(all.iter().all(|&u| u > 0.0 && u < 1.0));
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / 10_000.0).sqrt(), "{mean}");
    }
}
