//! The latent's quantiles against those of a standard normal, feature by feature: a good fit lies on the diagonal.

use super::axes::{self, Frame, Ticks};
use super::colour::{DATA, INK};
use super::panels;
use super::svg::{Area, Stroke, Svg};

/// Where the axes end; one row in 16,000 of a standard normal lies beyond.
const REACH: f64 = 4.0;
/// Points of a curve.
const POINTS: usize = 161;
/// Features drawn at most: more would be a blot.
const DRAWN: usize = 64;

/// One curve a feature; the remark names the feature that is furthest from normal.
pub(super) fn panel(svg: &mut Svg, area: Area, letter: char, latent: &[f64], columns: &[String]) {
    const TITLE: &str = "Latent quantiles";
    let features = columns.len();
    let sorted: Vec<Vec<f64>> = (0..features).map(|feature| column(latent, features, feature)).collect();
    if sorted.iter().any(Vec::is_empty) {
        axes::title(svg, area, letter, TITLE, "");
        return panels::missing(svg, area, "not computed");
    }
    let distances = sorted.iter().map(|values| distance(values));
    let worst = distances.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    let remark = worst.map_or(String::new(), |(feature, distance)| {
        format!("KS at most {distance:.3}, in z{}", feature + 1)
    });
    axes::title(svg, area, letter, TITLE, &remark);

    let frame = Frame::new(area, (-REACH, REACH), (-REACH, REACH));
    let (x_ticks, y_ticks) = (Ticks::new((-REACH, REACH), 8), Ticks::new((-REACH, REACH), 8));
    frame.grid(svg, &x_ticks, &y_ticks);
    svg.line(frame.at((-REACH, -REACH)), frame.at((REACH, REACH)), Stroke::dashed(INK, 1.4));
    let curves: Vec<Vec<(f64, f64)>> = sorted
        .iter()
        .take(DRAWN)
        .map(|values| curve(values).into_iter().map(|point| frame.at(point)).collect())
        .collect();
    svg.clipped(area, |svg| svg.polylines(&curves, Stroke::solid(DATA, 1.8)));
    frame.border(svg);
    frame.label_x(svg, &x_ticks, "standard normal");
    frame.label_y(svg, &y_ticks, "");
}

/// The finite values of one feature in ascending order.
fn column(rows: &[f64], features: usize, feature: usize) -> Vec<f64> {
    let mut values: Vec<f64> =
        rows.iter().skip(feature).step_by(features).copied().filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// (normal quantile, quantile of `sorted`) wherever there is at least one value beyond on either side.
fn curve(sorted: &[f64]) -> Vec<(f64, f64)> {
    let count = sorted.len() as f64;
    normal_grid()
        .filter(|&(_, share)| (1.0..=count - 1.0).contains(&(share * count)))
        .map(|(z, share)| {
            // Value i stands at share (i + ½) / count.
            let place = (share * count - 0.5).clamp(0.0, count - 1.0);
            let (below, part) = (place as usize, place.fract());
            let above = (below + 1).min(sorted.len() - 1);
            (z, sorted[below] + part * (sorted[above] - sorted[below]))
        })
        .collect()
}

/// The Kolmogorov–Smirnov distance of `sorted` to a standard normal, at the points of [`normal_grid`].
fn distance(sorted: &[f64]) -> f64 {
    let count = sorted.len() as f64;
    normal_grid()
        .map(|(z, share)| (sorted.partition_point(|&value| value <= z) as f64 / count - share).abs())
        .fold(0.0, f64::max)
}

/// z from one end of the axis to the other, with the standard normal's mass below: by Simpson's rule between points.
fn normal_grid() -> impl Iterator<Item = (f64, f64)> {
    let step = 2.0 * REACH / (POINTS - 1) as f64;
    let density = |z: f64| (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    // The tail below −4.
    let mut below = 3.167_124_183_312e-5;
    (0..POINTS).map(move |index| {
        let z = -REACH + step * index as f64;
        if index > 0 {
            let from = z - step;
            below += step / 6.0 * (density(from) + 4.0 * density(from + 0.5 * step) + density(z));
        }
        (z, below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    #[test]
    fn the_normal_grid_ends_where_the_normal_does() {
        let grid: Vec<(f64, f64)> = normal_grid().collect();
        assert_eq!((grid.len(), grid[POINTS / 2].0), (POINTS, 0.0));
        assert!((grid[POINTS / 2].1 - 0.5).abs() < 1e-9, "{:?}", grid[POINTS / 2]);
        assert!((grid[POINTS - 1].1 - (1.0 - 3.167_124_183e-5)).abs() < 1e-8);
        let one = grid.iter().find(|point| (point.0 - 1.0).abs() < 1e-9).expect("a point at 1");
        assert!((one.1 - 0.841_344_746_068_543).abs() < 1e-8);
    }

    #[test]
    fn normal_values_lie_on_the_diagonal_and_others_do_not() {
        let mut noise = vec![0.0f32; 20_000];
        random::normals(0, 3, &mut noise);
        let normal = column(&noise.iter().map(|&value| f64::from(value)).collect::<Vec<_>>(), 1, 0);
        assert!(distance(&normal) < 0.015, "{}", distance(&normal));
        let middle = curve(&normal);
        assert!(middle.iter().filter(|point| point.0.abs() < 2.0).all(|(z, q)| (z - q).abs() < 0.1));
        let wide: Vec<f64> = normal.iter().map(|value| 2.0 * value).collect();
        assert!(distance(&wide) > 0.15);
        assert!(curve(&wide).iter().any(|(z, q)| (z - q).abs() > 1.0));
    }

    #[test]
    fn few_values_make_a_short_curve_and_none_make_none() {
        assert!(curve(&[0.5]).is_empty());
        assert!(curve(&[-1.0, 0.0, 1.0]).iter().all(|point| point.0.abs() < 0.5));
        assert!(column(&[f64::NAN, f64::INFINITY], 1, 0).is_empty());
    }
}
