//! One invertible map of rows on the host, in double precision: what each part of the preprocessing is.
//! A list of stages stands between the user's units and an engine. Values go through it forwards, samples backwards.

/// An invertible map of a row `[D]`, of which the first `modelled` columns are modelled and the others are context.
///
/// The context of the result depends on the context alone, and the log-determinant is that of the modelled columns given
/// it, in nats.
pub(super) trait Stage {
    /// The part of the log-determinant that is the same for every row.
    fn constant_log_det(&self, _modelled: usize) -> f64 {
        0.0
    }

    /// Towards the engine's units, in place. Adds to `log_det` what differs from row to row, −∞ for a row without density.
    fn forward(&self, row: &mut [f64], modelled: usize, log_det: &mut f64);

    /// Undoes [`Stage::forward`], in place.
    fn inverse(&self, row: &mut [f64], modelled: usize);

    /// Backward of [`Stage::forward`] at the input `row`: from the gradient of a number at the result, in place, that of the
    /// number and the log-determinant together at the input.
    fn backward(&self, row: &[f64], modelled: usize, gradient: &mut [f64]);
}

/// A monotone map of one column. A list of them, one for each column, is a [`Stage`].
pub(super) trait ColumnMap {
    /// The mapped value with the logarithm of the slope, which is −∞ where there is no density.
    fn forward(&self, x: f64) -> (f64, f64);

    /// Undoes [`ColumnMap::forward`].
    fn inverse(&self, y: f64) -> f64;

    /// Derivative of the logarithm of the slope at `x`.
    fn log_slope_derivative(&self, x: f64) -> f64;
}

impl<C: ColumnMap> Stage for Vec<C> {
    fn forward(&self, row: &mut [f64], modelled: usize, log_det: &mut f64) {
        for (column, (value, map)) in row.iter_mut().zip(self).enumerate() {
            let (mapped, slope) = map.forward(*value);
            *value = mapped;
            if column < modelled || slope == f64::NEG_INFINITY {
                *log_det += slope;
            }
        }
    }

    fn inverse(&self, row: &mut [f64], _modelled: usize) {
        for (value, map) in row.iter_mut().zip(self) {
            *value = map.inverse(*value);
        }
    }

    fn backward(&self, row: &[f64], modelled: usize, gradient: &mut [f64]) {
        for (column, ((gradient, map), &x)) in gradient.iter_mut().zip(self).zip(row).enumerate() {
            *gradient *= map.forward(x).1.exp();
            if column < modelled {
                *gradient += map.log_slope_derivative(x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel;
    use super::super::{
        Bounds, CategoryMoments, ColumnDomain, Johnson, Knot, LevelMoments, MonotoneCurve, Standardiser,
        Whitening,
    };
    use super::*;

    /// A stage by name, with rows of its input.
    type Subject = (&'static str, Box<dyn Stage>, Vec<Vec<f64>>);

    /// Every kind of stage over as many columns as its rows have.
    fn stages() -> Vec<Subject> {
        let bounds =
            |low, high| ColumnDomain { bounds: Some(Bounds { low, high }), ..ColumnDomain::default() };
        let domains = vec![
            ColumnDomain::default(),
            bounds(Some(-1.5), Some(2.0)),
            bounds(Some(3.0), None),
            bounds(None, Some(-2.0)),
        ];
        // Values of the real line, which each column maps into its bounds.
        let inside = [-4.0, -0.5, 0.0, 0.25, 3.0]
            .map(|unit| domains.iter().map(|domain| ColumnMap::inverse(domain, unit)).collect())
            .into();
        let curve = |numbers| Johnson::from_numbers(numbers).expect("a curve");
        let curves = vec![
            Johnson::IDENTITY,
            curve([0.0, 1.0, 0.0, 1.0]),
            curve([-0.5, 0.3, 1.5, 0.7]),
            curve([2.0, 40.0, -3.0, 35.0]),
            curve([0.1, 0.01, 0.0, 0.3]),
        ];
        let knots =
            [[-2.0, -3.0, 0.5], [-1.0, -2.0, 2.0], [-0.9, -1.0, 30.0], [3.0, -0.9, 1e-3], [4.0, 2.0, 1.5]];
        let knots = knots.map(|[place, score, slope]| Knot { place, score, slope });
        let few = MonotoneCurve::from_knots(knots.into()).expect("a curve");
        // Half of the second column is one value.
        let columns: [fn(i32) -> f64; 2] =
            [|i| f64::from(i * i % 83 - 40) / 20.0, |i| (f64::from(i % 40) - 20.0).max(0.0).sin()];
        let kernel = columns.map(|column| kernel::fit((0..400).map(|i| [column(i), 1.0]).collect(), 0.0));
        let kernel: Vec<MonotoneCurve> = [few, MonotoneCurve::identity()].into_iter().chain(kernel).collect();
        let along = [-9.0, -1.4517, -0.957, 0.303, 1.0123, 2.9, 3.3, 11.0].map(|u| vec![u; 4]).into();
        let outliers = [-30.0, -2.5, -0.1, 0.0, 0.4, 1.0, 7.0, 400.0].map(|w| vec![w; 5]).into();
        let standardiser = Standardiser { mean: vec![1.0, -250.0, 1e4], std: vec![0.25, 40.0, 3.0] };
        let factor = vec![2.0, 0.0, 0.0, 0.5, 1.5, 0.0, -0.75, 0.3, 0.5];
        let whitening = Whitening::from_factor(factor, 3).expect("a triangle");
        let rows = vec![vec![0.5, -1.25, 2.0], vec![1.0, 0.0, 1e4], vec![-3.0, 40.0, 0.125]];
        let levels = vec![[0.5, 0.25], [-3.0, 2.0], [10.0, 0.01]];
        let moments = CategoryMoments { columns: vec![LevelMoments { column: 0, indicator: 1, levels }] };
        let of_levels = [[1.5, 0.0, 0.0], [-2.0, 1.0, 0.0], [9.99, 0.0, 1.0]].map(Vec::from).into();
        vec![
            ("moments by category", Box::new(moments), of_levels),
            ("domains of the columns", Box::new(domains), inside),
            ("curves", Box::new(curves), outliers),
            ("kernel", Box::new(kernel), along),
            ("standardiser", Box::new(standardiser), rows.clone()),
            ("whitening", Box::new(whitening), rows),
        ]
    }

    /// ln |det| of a matrix, row-major [n, n], by elimination with pivots.
    fn log_abs_det(mut matrix: Vec<f64>, n: usize) -> f64 {
        let mut log_det = 0.0;
        for column in 0..n {
            let size = |row: &usize| matrix[row * n + column].abs();
            let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b))).expect("not empty");
            (0..n).for_each(|at| matrix.swap(column * n + at, pivot * n + at));
            log_det += matrix[column * n + column].abs().ln();
            for row in column + 1..n {
                let factor = matrix[row * n + column] / matrix[column * n + column];
                (column..n).for_each(|at| matrix[row * n + at] -= factor * matrix[column * n + at]);
            }
        }
        log_det
    }

    fn log_det(stage: &dyn Stage, row: &[f64], modelled: usize) -> (Vec<f64>, f64) {
        let (mut mapped, mut log_det) = (row.to_vec(), stage.constant_log_det(modelled));
        stage.forward(&mut mapped, modelled, &mut log_det);
        (mapped, log_det)
    }

    /// What any stage owes: each violation by `row`, whose first `modelled` columns are modelled.
    fn violations(stage: &dyn Stage, row: &[f64], modelled: usize) -> Vec<String> {
        const STEP: f64 = 1e-6;

        let mut found = Vec::new();
        let (mapped, got) = log_det(stage, row, modelled);
        let mut back = mapped.clone();
        stage.inverse(&mut back, modelled);
        for (back, want) in back.iter().zip(row) {
            if (back - want).abs() > 1e-9 * want.abs().max(1e-3) {
                found.push(format!("inverse: got {back}, want {want}"));
            }
        }
        // The Jacobian of the modelled columns by differences.
        let mut jacobian = Vec::new();
        for moved in 0..modelled {
            let step = STEP * row[moved].abs().max(1e-2);
            let at = |by: f64| {
                let mut row = row.to_vec();
                row[moved] += by;
                log_det(stage, &row, modelled).0
            };
            let (up, down) = (at(step), at(-step));
            jacobian.extend(
                std::iter::zip(&up, &down).take(modelled).map(|(up, down)| (up - down) / (2.0 * step)),
            );
            if up[modelled..] != mapped[modelled..] {
                found.push(format!("column {moved} bears on the context"));
            }
        }
        // Backward of a number whose gradient at the result is 1, 2, 3 and so on.
        let number = |row: &[f64]| {
            let (mapped, log_det) = log_det(stage, row, modelled);
            mapped.iter().zip(1..).map(|(value, factor)| value * f64::from(factor)).sum::<f64>() + log_det
        };
        let mut gradient: Vec<f64> = (1..=row.len()).map(|factor| factor as f64).collect();
        stage.backward(row, modelled, &mut gradient);
        for (moved, got) in gradient.iter().enumerate() {
            let step = STEP * row[moved].abs().max(1e-2);
            let at = |by: f64| {
                let mut row = row.to_vec();
                row[moved] += by;
                number(&row)
            };
            let want = (at(step) - at(-step)) / (2.0 * step);
            let rounding = f64::EPSILON * number(row).abs() / step;
            if (got - want).abs() > 1e-4 * want.abs().max(1.0) + rounding {
                found.push(format!("backward to column {moved}: got {got}, finite differences {want}"));
            }
        }
        let want = log_abs_det(jacobian, modelled);
        if (got - want).abs() > 1e-4 * want.abs().max(1.0) {
            found.push(format!("log-determinant: got {got}, finite differences {want}"));
        }
        found
    }

    #[test]
    fn every_stage_undoes_itself_and_its_log_det_is_that_of_finite_differences() {
        let mut found = Vec::new();
        for (name, stage, rows) in stages() {
            for row in rows {
                for modelled in 1..=row.len() {
                    let violations = violations(&*stage, &row, modelled).into_iter();
                    found.extend(violations.map(|violation| {
                        format!("{name}, {modelled} columns modelled, {row:?}: {violation}")
                    }));
                }
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn stages_that_break_a_law_are_found() {
        /// x + y, y; doubled, with a wrong inverse and a wrong log-determinant.
        struct Broken;

        impl Stage for Broken {
            fn forward(&self, row: &mut [f64], _: usize, log_det: &mut f64) {
                (row[0], row[1]) = (2.0 * row[0], row[0] + row[1]);
                *log_det += 0.5;
            }

            fn inverse(&self, row: &mut [f64], _: usize) {
                row[0] /= 2.0;
            }

            fn backward(&self, _: &[f64], _: usize, _: &mut [f64]) {}
        }

        let found = violations(&Broken, &[1.0, 0.5], 1).join("\n");
        for part in [
            "inverse: got 1.5, want 0.5",
            "bears on the context",
            "log-determinant: got 0.5",
            "backward to column 0: got 1",
        ] {
            assert!(found.contains(part), "`{part}` is not in: {found}");
        }
    }

    #[test]
    fn a_value_without_density_counts_even_in_the_context() {
        let domain =
            ColumnDomain { bounds: Some(Bounds { low: Some(0.0), high: None }), ..ColumnDomain::default() };
        let stage = vec![ColumnDomain::default(), domain];
        for (row, want) in [([1.0, -1.0], f64::NEG_INFINITY), ([1.0, 2.0], 0.0)] {
            assert_eq!(log_det(&stage, &row, 1).1, want);
        }
    }
}
