//! The density of one column by kernels of many widths, and the curve that takes it to a standard normal.
//! It is fitted to columns behind Johnson's curve, which has brought their tails within reach; [`MonotoneCurve`] is kept.

use super::curve::MonotoneCurve;

mod knots;
mod sample;
mod stack;

use knots::curve_of;
use sample::Sample;
use stack::Stack;

/// A normal density with a share of the mass.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    place: f64,
    width: f64,
    share: f64,
}

/// Most rows of a column that are looked at, evenly spaced: the error of a density of so many is far below that of a flow.
pub(super) const ROWS: usize = 1 << 17;

/// The curve of a column of `rows`, each a value and its weight, with kernels no narrower than `least_width`; the identity
/// where fewer than two different finite values have weight.
pub(super) fn fit(rows: Vec<[f64; 2]>, least_width: f64) -> MonotoneCurve {
    let sample = Sample::new(rows, least_width);
    sample.map_or_else(MonotoneCurve::identity, |sample| curve_of(&Stack::fit(&sample).kernels(&sample)))
}

/// Logarithm of the density of each row of `column` `[N]` under kernels on the other rows; `None` where fewer than two
/// different finite values are there.
pub(super) fn left_out_log_density(column: &[f64]) -> Option<Vec<f64>> {
    let sample = Sample::new(column.iter().map(|value| [*value, 1.0]).collect(), 0.0)?;
    let left_out = Stack::fit(&sample).left_out;
    let of_nearest = |value: &f64| {
        let above = sample.groups.partition_point(|group| group.place < *value).min(left_out.len() - 1);
        let below = above.saturating_sub(1);
        let from = |group: usize| (sample.groups[group].place - value).abs();
        left_out[if from(below) < from(above) { below } else { above }]
    };
    Some(column.iter().map(of_nearest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normals;

    /// `count` standard normal numbers.
    fn noise(count: u32, seed: u64) -> Vec<f64> {
        let mut noise = [0.0f32; 1];
        let draw = |row| {
            normals(row, seed, &mut noise);
            f64::from(noise[0])
        };
        (0..count).map(draw).collect()
    }

    fn fitted(column: &[f64]) -> MonotoneCurve {
        fit(column.iter().map(|value| [*value, 1.0]).collect(), 0.0)
    }

    /// Logarithm of the density of a standard normal behind the curve.
    fn log_density(curve: &MonotoneCurve, u: f64) -> f64 {
        let (y, log_slope) = curve.forward(u);
        log_slope - 0.5 * y * y - 0.5 * std::f64::consts::TAU.ln()
    }

    fn mean_log_density(curve: &MonotoneCurve, column: &[f64]) -> f64 {
        column.iter().map(|&u| log_density(curve, u)).sum::<f64>() / column.len() as f64
    }

    /// Columns that a density may meet, by name.
    fn columns() -> Vec<(&'static str, Vec<f64>)> {
        let normal = noise(3000, 1);
        let cauchy = noise(1000, 2).iter().zip(noise(1000, 3)).map(|(a, b)| a / b).collect();
        let modes = |(i, y): (usize, &f64)| if i % 4 == 0 { 8.0 + 0.1 * y } else { *y };
        let atom = |(i, y): (usize, &f64)| if i % 2 == 0 { 0.0 } else { 2.0 + y };
        vec![
            ("normal", normal.clone()),
            ("long", noise(20_000, 4)),
            ("modes", normal.iter().enumerate().map(modes).collect()),
            ("half of it one value", normal.iter().enumerate().map(atom).collect()),
            ("rounded", normal.iter().map(|y| (y * 4.0).round() / 4.0).collect()),
            ("two values", normal.iter().map(|y| y.signum()).collect()),
            ("uniform", (0..500).map(|i| f64::from(i * 211 % 500) / 250.0 - 1.0).collect()),
            ("heavy tails", cauchy),
            ("one row far out", normal[..200].iter().copied().chain([1e6]).collect()),
            ("two rows", vec![-1.0, 1.0]),
            ("three rows", vec![-0.5, -0.4, 2.0]),
        ]
    }

    #[test]
    fn every_density_has_mass_1_and_its_curve_rises_and_stays_finite() {
        for (name, column) in columns() {
            let curve = fitted(&column);
            // Between knots the rule is exact enough; beyond them the density is that of a normal variable.
            let tail = |y: f64| crate::normal::cdf(-y.abs());
            let (first, last) = (curve.knots()[0], curve.knots()[curve.knots().len() - 1]);
            let mut mass = tail(first.score) + tail(last.score);
            for [left, right] in curve.knots().array_windows() {
                const CELLS: u32 = 200;
                let width = (right.place - left.place) / f64::from(CELLS);
                let at = |cell: f64| log_density(&curve, left.place + width * cell).exp();
                // Gauss and Legendre's rule of two nodes.
                let nodes = [0.5 - 0.75f64.sqrt() / 3.0, 0.5 + 0.75f64.sqrt() / 3.0];
                let cells = (0..CELLS).flat_map(|cell| nodes.map(|node| at(f64::from(cell) + node)));
                mass += 0.5 * width * cells.sum::<f64>();
            }
            assert!((mass - 1.0).abs() < 1e-6, "{name}: mass {mass}");
            for u in column.iter().copied().chain([-1e9, -20.0, 1e9, 1e30]) {
                let (y, log_slope) = curve.forward(u);
                assert!(y.is_finite() && log_slope.is_finite() && log_slope.abs() < 20.0, "{name}, {u}: {y}");
            }
            assert!(first.score < -3.0 && last.score > 3.0, "{name}: {first:?} {last:?}");
            assert!(curve.knots().len() <= 256, "{name}: {}", curve.knots().len());
        }
    }

    #[test]
    fn scores_are_normal_and_inverses_within_1e_12() {
        for (name, column) in columns() {
            let curve = fitted(&column);
            for (index, u) in column.iter().enumerate().step_by(column.len() / 50 + 1) {
                let (y, log_slope) = curve.forward(*u);
                let digit = 4.0 * f64::EPSILON * u.abs() * log_slope.exp();
                let back = curve.forward(curve.inverse(y)).0;
                assert!((back - y).abs() <= 1e-12 + digit, "{name}, row {index}: {back} for {y}");
            }
            if ["normal", "long", "modes", "uniform", "heavy tails"].contains(&name) {
                let scores: Vec<f64> = column.iter().map(|&u| curve.forward(u).0).collect();
                let moment =
                    |power: i32| scores.iter().map(|y| y.powi(power)).sum::<f64>() / scores.len() as f64;
                let moments = [moment(1), moment(2) - 1.0, moment(3), moment(4) - 3.0];
                let limits = [0.05, 0.15, 0.2, 1.0];
                assert!(
                    moments.iter().zip(limits).all(|(moment, limit)| moment.abs() < limit),
                    "{name}: {moments:?}"
                );
            }
        }
    }

    #[test]
    fn rows_not_seen_are_as_likely_as_under_the_truth_but_for_what_few_rows_do_not_say() {
        let normal = |u: f64| -0.5 * u * u - 0.5 * std::f64::consts::TAU.ln();
        let narrow = |u: f64| {
            let density = |mean: f64, std: f64, share: f64| (share / std).ln() + normal((u - mean) / std);
            let (a, b) = (density(0.0, 1.0, 0.7), density(1.0, 0.01, 0.3));
            a.max(b) + (-(a - b).abs()).exp().ln_1p()
        };
        for (count, normal_gap, narrow_gap) in
            [(200, 0.06, 0.09), (2000, 0.015, 0.025), (50_000, 0.003, 0.006)]
        {
            let (seen, unseen) = (noise(count, 5), noise(20_000, 6));
            let curve = fitted(&seen);
            let truth = unseen.iter().map(|&u| normal(u)).sum::<f64>() / unseen.len() as f64;
            let gap = truth - mean_log_density(&curve, &unseen);
            assert!(gap < normal_gap, "normal, {count} rows: {gap}");
            // A spike of a hundredth of the width.
            let spike = |(i, y): (usize, &f64)| if i % 10 < 3 { 1.0 + 0.01 * y } else { *y };
            let [seen, unseen] =
                [seen, unseen].map(|rows| rows.iter().enumerate().map(spike).collect::<Vec<_>>());
            let curve = fitted(&seen);
            let truth = unseen.iter().map(|&u| narrow(u)).sum::<f64>() / unseen.len() as f64;
            let gap = truth - mean_log_density(&curve, &unseen);
            assert!(gap < narrow_gap, "spike, {count} rows: {gap}");
        }
    }

    #[test]
    fn rows_beyond_all_others_cost_about_as_much_as_under_a_gaussian() {
        let curve = fitted(&noise(1000, 7));
        for u in [-30.0, -10.0, -6.0, 6.0, 10.0, 30.0f64] {
            let (y, _) = curve.forward(u);
            assert!(y * u > 0.0 && y.abs() < 1.0 + u.abs(), "{u}: {y}");
        }
        // A Gaussian has -18.9 there: what no row has shown is worth two rows.
        for u in [-6.0, 6.0] {
            assert!(log_density(&curve, u) > -14.0, "{u}: {}", log_density(&curve, u));
        }
        // One row far out does not bend the rest.
        let rows = noise(1000, 7);
        let with_outlier = fitted(&rows.iter().copied().chain([40.0]).collect::<Vec<_>>());
        for u in [-2.0, -1.0, 0.0, 1.0, 2.0] {
            let (a, b) = (curve.forward(u), with_outlier.forward(u));
            assert!((a.0 - b.0).abs() < 0.05 && (a.1 - b.1).abs() < 0.15, "{u}: {a:?} {b:?}");
        }
    }

    #[test]
    fn a_rounded_column_is_as_smooth_as_its_grid_is_fine() {
        let rows: Vec<f64> = noise(20_000, 8).iter().map(|y| (y * 10.0).round() / 10.0).collect();
        let curve = fitted(&rows);
        // No valley between the values that there are.
        for u in [-1.0, -0.5, 0.0, 0.5, 1.0] {
            let valley = log_density(&curve, u) - log_density(&curve, u + 0.05);
            assert!(valley.abs() < 0.1, "{u}: {valley}");
        }
    }

    #[test]
    fn rows_count_by_their_weights() {
        let rows: Vec<f64> =
            noise(4000, 9).iter().enumerate().map(|(i, y)| y + f64::from(i as u32 % 2) * 4.0).collect();
        let every = |part: usize| -> Vec<f64> { rows.iter().copied().skip(part).step_by(2).collect() };
        let weights = |even: f64, odd: f64| -> Vec<f64> {
            (0..rows.len()).map(|row| if row % 2 == 0 { even } else { odd }).collect()
        };
        let weighted = |weights: Vec<f64>| {
            fit(std::iter::zip(&rows, weights).map(|(value, weight)| [*value, weight]).collect(), 0.0)
        };
        assert_eq!(weighted(weights(1.0, 0.0)), fitted(&every(0)));
        assert_eq!(weighted(weights(0.0, 1e-300)), fitted(&every(1)));
        assert_eq!(weighted(weights(3.0, 3.0)), fitted(&rows));
        // Nine of ten rows belong to the left mode.
        let y = weighted(weights(9.0, 1.0)).forward(2.0).0;
        assert!((crate::normal::cdf(y) - 0.9 + 0.9 * 0.0228 - 0.1 * 0.0228).abs() < 0.01, "{y}");
        assert_eq!(weighted(weights(0.0, 0.0)), MonotoneCurve::identity());
    }

    #[test]
    fn columns_without_a_density_keep_the_identity_and_any_units_fit() {
        for column in [vec![], vec![1.0], vec![2.0; 50], vec![f64::NAN, 1.0], vec![f64::INFINITY, 1.0, 1.0]] {
            assert_eq!(fitted(&column), MonotoneCurve::identity(), "{column:?}");
        }
        let rows = noise(500, 10);
        let plain = fitted(&rows);
        for (scale, shift) in [(1e-6, 0.0), (1e9, 0.0), (1.0, 1e6)] {
            let curve = fitted(&rows.iter().map(|y| y * scale + shift).collect::<Vec<_>>());
            for u in [-2.5, -0.3, 0.0, 1.0, 3.5] {
                let (got, want) = (curve.forward(u * scale + shift).0, plain.forward(u).0);
                assert!((got - want).abs() < 1e-3, "{scale} {shift}: {got} {want}");
            }
        }
    }

    #[test]
    fn many_rows_need_no_more_knots_and_keep_their_tails() {
        let curve = fitted(&noise(100_000, 11));
        assert!(curve.knots().len() < 256, "{}", curve.knots().len());
        let far = curve.forward(3.5);
        assert!((far.0 - 3.5).abs() < 0.15, "{far:?}");
    }
}
