//! The border between the user's units and the engine's: a list of invertible stages, from the domain of each column to
//! the standardiser and what may follow it.
//! It stands between a dataset or a table and an engine, in both directions, with the log-determinant that keeps log p in
//! the user's units.

mod atoms;
mod bounds;
mod category_moments;
mod counted_rows;
mod curve;
mod domain;
mod grid;
mod johnson;
mod kernel;
mod plan;
mod stage;
mod standardiser;
mod whitening;

pub use atoms::Atoms;
pub(crate) use atoms::OwnMaps;
pub use bounds::Bounds;
pub use category_moments::{CategoryMoments, LevelMoments};
pub(crate) use counted_rows::CountedRows;
pub use curve::{Knot, MonotoneCurve};
pub use domain::ColumnDomain;
pub use grid::Grid;
pub use johnson::Johnson;
pub use plan::{Margins, PreprocessingPlan, Standardise};
pub use standardiser::Standardiser;
pub use whitening::Whitening;
pub(crate) use whitening::factorise;

use crate::error::{Error, Result};
use crate::shown::shown;

use atoms::is_at_atom;
use stage::{ColumnMap, Stage};

/// The kinds of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StageKind {
    /// Each column from its domain to the real line: noise for values on a grid, a map for bounds.
    Domains,
    /// The shift and scale of columns by the category of the row.
    CategoryMoments,
    /// Mean 0 and deviation 1, or median 0 and a robust deviation of 1.
    Standardiser,
    /// Johnson's curve for each standardised column.
    Curves,
    /// A curve by a kernel density for each of these.
    Kernel,
    /// The linear map after which columns are uncorrelated.
    Whitening,
    /// Johnson's curve for each whitened column.
    WhitenedCurves,
    /// A curve by a kernel density for each of these.
    WhitenedKernel,
}

/// The order of the stages, from the user's units to the engine's. Fitting, mapping and its inverse all follow it.
const ORDER: [StageKind; 8] = [
    StageKind::Domains,
    StageKind::CategoryMoments,
    StageKind::Standardiser,
    StageKind::Curves,
    StageKind::Kernel,
    StageKind::Whitening,
    StageKind::WhitenedCurves,
    StageKind::WhitenedKernel,
];

/// The stages between the user's units and the engine's, in their order: the domain of every column, the moments of
/// columns by category, the standardiser, curves of each column, a whitening, and curves again.
///
/// The last columns may be context. They are mapped like the others, but their log-determinant does not count: log p is
/// that of the others given them.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    /// Domain of each column `[D]`.
    pub domains: Vec<ColumnDomain>,
    /// What the standardiser was fitted to.
    pub standardise: Standardise,
    /// Between the real line and standardised units.
    pub standardiser: Standardiser,
    /// Shift and scale of columns by the category of the row, before the standardiser.
    pub category_moments: CategoryMoments,
    /// Of [`Standardise::Whiten`]: the map of rows whose context stands before the other columns, so that these are
    /// uncorrelated with it, and the context depends on itself alone.
    pub whitening: Option<Whitening>,
    /// Where columns are gaussianised, Johnson's curves of standardised columns `[D]`, else empty.
    pub curves: Vec<Johnson>,
    /// Of [`Margins::Kernel`]: the curves that follow these `[D]`, else empty.
    pub kernel: Vec<MonotoneCurve>,
    /// Where columns are gaussianised and there is a whitening, Johnson's curves of whitened columns `[D]`, else empty.
    pub whitened_curves: Vec<Johnson>,
    /// Of [`Margins::Kernel`] and a whitening: the curves that follow these `[D]`, else empty.
    pub whitened_kernel: Vec<MonotoneCurve>,
    /// How many of the columns, the last ones, are context.
    pub context: usize,
    /// The atoms of columns that have some.
    pub atoms: Vec<Atoms>,
}

/// Rows in standardised units with their log-determinants.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessed {
    /// Row-major [B, D]; zeros in a row without density.
    pub values: Vec<f32>,
    /// log |det ∂z/∂x| of each row `[B]`, in nats; −∞ in a row without density.
    pub log_det: Vec<f64>,
}

impl Preprocessed {
    /// Mean of the log-determinants, in nats; 0 without rows.
    pub fn mean_log_det(&self) -> f64 {
        let mut mean = MeanLogDet::default();
        mean.add(&self.log_det, |_| 1.0);
        mean.mean()
    }
}

/// A mean that is its values to the last digit where all of them are the same.
#[derive(Default)]
struct MeanLogDet {
    first: Option<f64>,
    beyond: f64,
    total: f64,
}

impl MeanLogDet {
    fn add(&mut self, log_det: &[f64], weight: impl Fn(usize) -> f64) {
        let Some(&value) = log_det.first() else { return };
        let first = *self.first.get_or_insert(value);
        for (row, log_det) in log_det.iter().enumerate() {
            let weight = weight(row);
            if weight > 0.0 {
                self.beyond += weight * (log_det - first);
                self.total += weight;
            }
        }
    }

    fn mean(&self) -> f64 {
        self.first.map_or(0.0, |first| first + self.beyond / self.total.max(f64::MIN_POSITIVE))
    }
}

impl From<Standardiser> for Preprocessing {
    /// No stage but the standardiser.
    fn from(standardiser: Standardiser) -> Self {
        Self {
            domains: vec![ColumnDomain::default(); standardiser.features()],
            standardise: Standardise::Mean,
            standardiser,
            category_moments: CategoryMoments::default(),
            whitening: None,
            curves: Vec::new(),
            kernel: Vec::new(),
            whitened_curves: Vec::new(),
            whitened_kernel: Vec::new(),
            context: 0,
            atoms: Vec::new(),
        }
    }
}

impl Preprocessing {
    /// The stage of a kind, where there is one and it does something.
    fn stage(&self, kind: StageKind) -> Option<&dyn Stage> {
        fn curves<C: ColumnMap>(curves: &Vec<C>) -> Option<&dyn Stage> {
            (!curves.is_empty()).then_some(curves)
        }

        match kind {
            StageKind::Domains => (!self.is_plain()).then_some(&self.domains),
            StageKind::CategoryMoments => {
                (!self.category_moments.columns.is_empty()).then_some(&self.category_moments)
            }
            StageKind::Standardiser => Some(&self.standardiser),
            StageKind::Curves => curves(&self.curves),
            StageKind::Kernel => curves(&self.kernel),
            StageKind::Whitening => self.whitening.as_ref().map(|whitening| whitening as &dyn Stage),
            StageKind::WhitenedCurves => curves(&self.whitened_curves),
            StageKind::WhitenedKernel => curves(&self.whitened_kernel),
        }
    }

    /// The stages from the user's units to the engine's.
    fn stages(&self) -> Vec<&dyn Stage> {
        ORDER.into_iter().filter_map(|kind| self.stage(kind)).collect()
    }

    /// Whether no column is mapped before the standardiser.
    pub fn is_plain(&self) -> bool {
        self.domains.iter().all(|domain| *domain == ColumnDomain::default())
    }

    /// The dequantised columns with the grids of their values.
    pub fn dequantized(&self) -> Vec<(usize, Grid)> {
        let grids = self.domains.iter().enumerate();
        grids.filter_map(|(column, domain)| Some((column, domain.grid?))).collect()
    }

    /// Whether the row `[D]`, in the user's units and without noise, can have a density.
    pub fn accepts(&self, row: &[f64]) -> bool {
        first_refusal(&self.domains, &self.atoms, row).is_none()
    }

    /// Number of the columns that are modelled: all but the context.
    pub fn modelled(&self) -> usize {
        self.domains.len() - self.context
    }

    /// Whether columns are bent to a normal shape.
    pub fn is_gaussianised(&self) -> bool {
        !self.curves.is_empty()
    }

    /// By which curves columns are bent to a normal shape.
    pub fn margins(&self) -> Margins {
        match (self.is_gaussianised(), self.kernel.is_empty()) {
            (false, _) => Margins::None,
            (true, true) => Margins::Johnson,
            (true, false) => Margins::Kernel,
        }
    }

    /// What was to be done to the columns.
    pub(in crate::data) fn plan(&self) -> PreprocessingPlan {
        PreprocessingPlan {
            domains: self.domains.clone(),
            standardise: self.standardise,
            margins: self.margins(),
            category_moments: self.category_moments.clone(),
            context: self.context,
            atoms: self.atoms.clone(),
        }
    }

    /// Whether a column has atoms, and before a whitening maps that are fitted to its other rows alone.
    fn has_atoms(&self, column: usize) -> bool {
        self.atoms.iter().any(|atoms| atoms.column == column)
    }

    /// What the stages before a whitening make of the value of `column` in `row` `[D]`, in the user's units.
    fn column_forward(&self, column: usize, row: &[f64]) -> f64 {
        let on_line = self.domains[column].forward(row[column]).0;
        let moments = self.category_moments.of(column);
        let [mean, std] = moments.map_or([0.0, 1.0], |moments| moments.of_row(row));
        let shifted = (on_line - mean) / std;
        let standardised = (shifted - self.standardiser.mean[column]) / self.standardiser.std[column];
        let curved = self.curves.get(column).map_or(standardised, |curve| curve.forward(standardised).0);
        self.kernel.get(column).map_or(curved, |curve| curve.forward(curved).0)
    }

    /// User's units → standardised, with log-determinants: `rows` row-major [B, D], whose dequantised columns have
    /// their noise. Computed in `f64`, rounded once.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Preprocessing, Standardiser};
    ///
    /// let units = Standardiser { mean: vec![100.0, -1.0], std: vec![10.0, 0.5] };
    /// let preprocessing = Preprocessing::from(units);
    /// let standardised = preprocessing.forward(&[120.0, -1.5]);
    /// assert_eq!(standardised.values, [2.0, -1.0]);
    /// assert_eq!(standardised.log_det, [-(10f64.ln() + 0.5f64.ln())]);
    /// assert_eq!(preprocessing.inverse(&standardised.values), [120.0, -1.5]);
    /// ```
    pub fn forward(&self, rows: &[f64]) -> Preprocessed {
        let (features, modelled) = (self.domains.len(), self.modelled());
        debug_assert!(rows.len().is_multiple_of(features), "values must be whole rows");
        let stages = self.stages();
        let constant = stages.iter().fold(0.0, |sum, stage| sum + stage.constant_log_det(modelled));
        let mut values = Vec::with_capacity(rows.len());
        let mut log_det = Vec::with_capacity(rows.len() / features);
        let mut mapped = vec![0.0; features];
        for row in rows.chunks_exact(features) {
            mapped.copy_from_slice(row);
            let mut sum = constant;
            for stage in &stages {
                stage.forward(&mut mapped, modelled, &mut sum);
                if sum == f64::NEG_INFINITY {
                    // The engine must not meet a number that is not finite.
                    mapped.fill(0.0);
                    break;
                }
            }
            values.extend(mapped.iter().map(|&value| value as f32));
            log_det.push(sum);
        }
        Preprocessed { values, log_det }
    }

    /// Backward of [`Preprocessing::forward`]: from gradients at the results, row-major [B, D], in place, those of the same
    /// numbers and the log-determinants together at `rows`. NaN in a row without density.
    pub fn backward(&self, rows: &[f64], gradients: &mut [f64]) {
        let (features, modelled) = (self.domains.len(), self.modelled());
        let stages = self.stages();
        let mut inputs = vec![0.0; stages.len() * features];
        let mut mapped = vec![0.0; features];
        for (row, gradient) in rows.chunks_exact(features).zip(gradients.chunks_exact_mut(features)) {
            mapped.copy_from_slice(row);
            let has_density = stages.iter().zip(inputs.chunks_exact_mut(features)).all(|(stage, input)| {
                input.copy_from_slice(&mapped);
                let mut log_det = 0.0;
                stage.forward(&mut mapped, modelled, &mut log_det);
                log_det > f64::NEG_INFINITY
            });
            if !has_density {
                gradient.fill(f64::NAN);
                continue;
            }
            for (stage, input) in stages.iter().zip(inputs.chunks_exact(features)).rev() {
                stage.backward(input, modelled, gradient);
            }
        }
    }

    /// As [`Preprocessing::forward`], piece by piece, so that a long table takes little more memory than its result: the
    /// standardised rows, row-major [N, D], and the mean of their log-determinants in nats, by how much each row counts; 0
    /// without rows.
    pub(crate) fn forward_table(&self, rows: &CountedRows<'_>) -> (Vec<f32>, f64) {
        /// Values of a piece.
        const PIECE: usize = 1 << 16;

        let features = self.domains.len();
        let piece = (PIECE / features).max(1);
        let mut values = Vec::with_capacity(rows.len() * features);
        let mut given = Vec::with_capacity(piece.min(rows.len()) * features);
        let mut mean = MeanLogDet::default();
        for first in (0..rows.len()).step_by(piece) {
            given.clear();
            (first..rows.len().min(first + piece)).for_each(|row| given.extend_from_slice(rows.row(row)));
            let part = self.forward(&given);
            mean.add(&part.log_det, |row| rows.weight(first + row));
            values.extend_from_slice(&part.values);
        }
        (values, mean.mean())
    }

    /// A context in the user's units, row-major [B, C] → what an engine is given, row-major [B, C].
    ///
    /// # Errors
    /// [`Error::Length`] when `rows` are not whole, [`Error::Argument`] for a value that its column cannot have.
    pub fn context_forward(&self, rows: &[f64], columns: &[String]) -> Result<Vec<f32>> {
        let (modelled, context) = (self.modelled(), self.context);
        crate::error::expect_length("context", rows.len(), rows.len().next_multiple_of(context.max(1)))?;
        let stages = self.stages();
        let mut values = Vec::with_capacity(rows.len());
        let mut mapped = vec![0.0; self.domains.len()];
        for (row, given) in rows.chunks_exact(context.max(1)).enumerate() {
            for ((&x, domain), column) in
                given.iter().zip(&self.domains[modelled..]).zip(&columns[modelled..])
            {
                let problem =
                    if x.is_finite() { domain.refusal(x) } else { Some(format!("{x} is not finite")) };
                if let Some(problem) = problem {
                    return Err(Error::Argument(format!(
                        "context {}, column `{}`: {problem}",
                        row + 1,
                        shown(column)
                    )));
                }
            }
            // In no stage does the context depend on the features, so any values will do for them.
            mapped[..modelled].fill(0.0);
            mapped[modelled..].copy_from_slice(given);
            stages.iter().for_each(|stage| stage.forward(&mut mapped, modelled, &mut 0.0));
            values.extend(mapped[modelled..].iter().map(|&value| value as f32));
        }
        Ok(values)
    }

    /// Puts `next` behind the kernel density's curve of a column, where both make a curve together.
    pub(crate) fn bend(&mut self, column: usize, next: &MonotoneCurve) {
        if let Some(curve) = self.kernel[column].then(next) {
            self.kernel[column] = curve;
        }
    }

    /// Standardised → user's units, row-major [B, D]; dequantised columns hold values of their grids.
    pub fn inverse(&self, rows: &[f32]) -> Vec<f64> {
        let stages = self.stages();
        let mut values: Vec<f64> = rows.iter().map(|&value| f64::from(value)).collect();
        for row in values.chunks_exact_mut(self.domains.len()) {
            stages.iter().rev().for_each(|stage| stage.inverse(row, self.modelled()));
        }
        values
    }
}

/// The first value of `rows`, row-major [B, D], that its column cannot have and that is no atom.
fn first_refusal(domains: &[ColumnDomain], atoms: &[Atoms], rows: &[f64]) -> Option<(usize, usize, String)> {
    if domains.iter().all(|domain| *domain == ColumnDomain::default()) {
        return None;
    }
    rows.chunks_exact(domains.len()).enumerate().find_map(|(place, row)| {
        let mut values = row.iter().zip(domains).enumerate();
        values.find_map(|(column, (&x, domain))| {
            let problem = domain.refusal(x)?;
            (!is_at_atom(atoms, column, row)).then_some((place, column, problem))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Bounds;

    fn fitted(standardise: Standardise) -> (Preprocessing, Vec<f64>) {
        fitted_given((standardise, Margins::None), [0, 1, 2], 0)
    }

    /// Every way to standardise, with curves and without.
    fn ways() -> impl Iterator<Item = (Standardise, Margins)> {
        let all = [Standardise::Mean, Standardise::Robust, Standardise::Whiten];
        all.into_iter().flat_map(|standardise| Margins::ALL.map(|(_, margins)| (standardise, margins)))
    }

    /// Columns `a`, `b`, `c` in the order `order`, of which the last `context` are given.
    fn fitted_given(
        (standardise, margins): (Standardise, Margins),
        order: [usize; 3],
        context: usize,
    ) -> (Preprocessing, Vec<f64>) {
        let plan = PreprocessingPlan {
            domains: order
                .map(|column| match column {
                    0 => ColumnDomain::default(),
                    1 => ColumnDomain {
                        bounds: Some(Bounds { low: Some(0.0), high: Some(2.0) }),
                        ..ColumnDomain::default()
                    },
                    _ => ColumnDomain { grid: Some(Grid::WHOLE), ..ColumnDomain::default() },
                })
                .into(),
            standardise,
            margins,
            context,
            ..PreprocessingPlan::default()
        };
        let mut rows: Vec<f64> = (1..60)
            .flat_map(|i| {
                let row = [f64::from(i * i), f64::from(i) / 30.0, f64::from(i % 4)];
                order.map(|column| row[column])
            })
            .collect();
        assert_eq!(plan.first_refusal(&rows), None);
        for (row, values) in rows.chunks_mut(3).enumerate() {
            plan.add_noise(values, row as u32, 1);
        }
        let columns = order.map(|column| ["a", "b", "c"][column].to_owned());
        (plan.fit("t", &rows, None, &columns, &[]).expect("fits"), rows)
    }

    #[test]
    fn inverse_undoes_forward_with_whole_numbers_whole_again() {
        for way in ways() {
            let (preprocessing, rows) = fitted_given(way, [0, 1, 2], 0);
            assert_eq!(preprocessing.margins(), way.1);
            let there = preprocessing.forward(&rows);
            let back = preprocessing.inverse(&there.values);
            for (back, row) in back.chunks(3).zip(rows.chunks(3)) {
                approx::assert_relative_eq!(back[0], row[0], max_relative = 1e-4, epsilon = 1e-3);
                approx::assert_relative_eq!(back[1], row[1], epsilon = 1e-5);
                assert_eq!(back[2], row[2].floor());
            }
            let mean = there.log_det.iter().sum::<f64>() / there.log_det.len() as f64;
            approx::assert_relative_eq!(mean, there.mean_log_det(), epsilon = 1e-12);
        }
    }

    #[test]
    fn a_column_alone_is_mapped_as_in_its_row_before_a_whitening() {
        for way in ways() {
            let (mut preprocessing, rows) = fitted_given(way, [0, 1, 2], 0);
            let levels = vec![[0.5, 3.0], [-1.0, 0.25]];
            preprocessing.category_moments.columns = vec![LevelMoments { column: 0, indicator: 2, levels }];
            for row in rows.chunks_exact(3) {
                let mut mapped = row.to_vec();
                for kind in ORDER.into_iter().take_while(|kind| *kind != StageKind::Whitening) {
                    let stage = preprocessing.stage(kind);
                    stage.iter().for_each(|stage| stage.forward(&mut mapped, 3, &mut 0.0));
                }
                let alone: Vec<f64> =
                    (0..3).map(|column| preprocessing.column_forward(column, row)).collect();
                assert_eq!(alone, mapped, "{way:?}");
            }
        }
    }

    #[test]
    fn log_det_is_the_sum_of_the_columns_slopes_by_hand() {
        let (preprocessing, _) = fitted(Standardise::Mean);
        let std = &preprocessing.standardiser.std;
        let got = preprocessing.forward(&[4.0, 0.5, 1.25]).log_det[0];
        // d/dx ln(x / (2 − x)) = 2 / (x (2 − x)).
        let want = (2.0f64 / (0.5 * 1.5)).ln() - (std[0] * std[1] * std[2]).ln();
        approx::assert_relative_eq!(got, want, epsilon = 1e-12);
        let outside = preprocessing.forward(&[4.0, 2.5, 1.25, 4.0, 0.5, 1.25]);
        assert_eq!(outside.log_det[0], f64::NEG_INFINITY);
        assert!(outside.values.iter().all(|value| value.is_finite()) && outside.log_det[1] == got);
    }

    #[test]
    fn whitened_columns_are_uncorrelated() {
        for (order, context) in ORDERS {
            let (preprocessing, rows) = fitted_given((Standardise::Whiten, Margins::None), order, context);
            let values = preprocessing.forward(&rows).values;
            for (i, j) in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)] {
                let products = values.chunks(3).map(|row| f64::from(row[i]) * f64::from(row[j]));
                let covariance = products.sum::<f64>() / (rows.len() / 3) as f64;
                let want = f64::from(u8::from(i == j));
                assert!((covariance - want).abs() < 1e-4, "{order:?} {context}: {i}, {j}: {covariance}");
            }
        }
    }

    /// Orders of the columns with how many are context.
    const ORDERS: [([usize; 3], usize); 4] = [([0, 1, 2], 0), ([2, 1, 0], 1), ([2, 0, 1], 2), ([0, 2, 1], 1)];

    #[test]
    fn log_det_is_that_of_finite_differences_of_the_modelled_columns() {
        let all = ways().flat_map(|way| ORDERS.map(|(order, context)| (way, order, context)));
        for (way, order, context) in all {
            let (preprocessing, rows) = fitted_given(way, order, context);
            // The Jacobian of the modelled columns by differences, expanded along its first row.
            let modelled = 3 - context;
            // Between training rows, where a kernel's curve may have its knots.
            let row: Vec<f64> = std::iter::zip(&rows[30..33], order)
                .map(|(value, column)| value + [7.0, 0.011, 0.007][column])
                .collect();
            let column = |moved: usize| -> Vec<f64> {
                let at = |by: f64| {
                    let mut row = row.clone();
                    row[moved] += by;
                    preprocessing.forward(&row).values
                };
                // Single precision resolves no less of column `a`, which goes up to 3,481.
                let step = if order[moved] == 0 { 10.0 } else { 1e-2 };
                // A kernel's curve bends within less.
                let step = if way.1 == Margins::Kernel { 0.03 * step } else { step };
                std::iter::zip(at(step), at(-step))
                    .map(|(up, down)| f64::from(up - down) / (2.0 * step))
                    .collect()
            };
            let jacobian: Vec<Vec<f64>> = (0..modelled).map(column).collect();
            let minor = |a: usize, b: usize, rows: [usize; 2]| {
                jacobian[a][rows[0]] * jacobian[b][rows[1]] - jacobian[a][rows[1]] * jacobian[b][rows[0]]
            };
            let determinant = match modelled {
                1 => jacobian[0][0],
                2 => minor(0, 1, [0, 1]),
                _ => {
                    jacobian[0][0] * minor(1, 2, [1, 2]) - jacobian[0][1] * minor(1, 2, [0, 2])
                        + jacobian[0][2] * minor(1, 2, [0, 1])
                }
            };
            let log_det = preprocessing.forward(&row).log_det[0];
            let want = determinant.abs().ln();
            assert!((want - log_det).abs() < 3e-3, "{way:?} {order:?} {context}: {log_det}, expected {want}");
        }
    }

    #[test]
    fn curves_make_columns_normal_and_keep_outliers_and_samples_within_reach() {
        let heavy: Vec<f64> = (1..400)
            .flat_map(|i| [f64::from(i).tan() * 3.0, f64::from(i * i % 83 / 4).exp2() + f64::from(i) / 500.0])
            .collect();
        let columns = ["a", "b"].map(String::from);
        for standardise in [Standardise::Mean, Standardise::Robust, Standardise::Whiten] {
            let plan = |margins| PreprocessingPlan { standardise, margins, ..Default::default() };
            let fit = |margins| plan(margins).fit("t", &heavy, None, &columns, &[]).expect("fits");
            let [plain, bent, kernel] = Margins::ALL.map(|(_, margins)| fit(margins));
            let loss = |preprocessing: &Preprocessing| {
                let Preprocessed { values, log_det } = preprocessing.forward(&heavy);
                let squares = values.chunks(2).map(|row| row.iter().map(|y| 0.5 * y * y).sum::<f32>());
                squares.zip(log_det).map(|(square, log_det)| f64::from(square) - log_det).sum::<f64>() / 399.0
            };
            assert!(loss(&bent) < loss(&plain) - 1.0, "{standardise:?}: {} {}", loss(&bent), loss(&plain));
            assert!(loss(&kernel) < loss(&bent) - 0.1, "{standardise:?}: {} {}", loss(&kernel), loss(&bent));
            for curves in [bent, kernel] {
                let far = curves.forward(&[1e9, -1e30, -1e15, 1e60]).values;
                assert!(far.iter().all(|y| y.abs() < 500.0), "{standardise:?}: {far:?}");
                let back = curves.inverse(&[1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, 40.0, -40.0]);
                assert!(back.iter().all(|x| x.is_finite()), "{standardise:?}: {back:?}");
            }
        }
    }

    #[test]
    fn a_context_is_mapped_as_in_its_rows_counts_nothing_and_is_checked() {
        let names = ["c", "a", "b"].map(String::from);
        for way in ways() {
            let (preprocessing, rows) = fitted_given(way, [2, 0, 1], 2);
            let there = preprocessing.forward(&rows);
            let given: Vec<f64> = rows.chunks(3).flat_map(|row| [row[1], row[2]]).collect();
            let mapped = preprocessing.context_forward(&given, &names).expect("fits");
            let want: Vec<f32> = there.values.chunks(3).flat_map(|row| [row[1], row[2]]).collect();
            assert_eq!(mapped, want);
            // One column is modelled, and no bound: without a curve the same log-determinant in every row.
            assert!(
                way.1 != Margins::None || there.log_det.iter().all(|log_det| *log_det == there.log_det[0])
            );
            for (given, part) in [
                ([1.0, 2.5], "context 1, column `b`: 2.5 does not lie between"),
                ([f64::NAN, 1.0], "context 1, column `a`: NaN is not finite"),
            ] {
                let message = preprocessing.context_forward(&given, &names).expect_err(part).to_string();
                assert!(message.contains(part), "{message}");
            }
            assert!(preprocessing.context_forward(&[1.0], &names).is_err());
        }
        let plan = |domains: Vec<ColumnDomain>, context| PreprocessingPlan {
            domains,
            context,
            ..Default::default()
        };
        let counts = ColumnDomain { grid: Some(Grid::WHOLE), ..ColumnDomain::default() };
        let message = plan(vec![ColumnDomain::default(), counts], 1)
            .validate(&names[..2])
            .expect_err("noise")
            .to_string();
        assert!(message.contains("`a` is context"), "{message}");
        assert!(plan(Vec::new(), 2).validate(&names[..2]).is_err());
    }
}
