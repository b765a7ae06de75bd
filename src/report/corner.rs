//! The panels of a flow that has not two features: pairs of features of data and samples, and the radius of the
//! latent against that of a standard normal.

use super::axes::{self, Frame, LABEL_SIZE, REMARK_SIZE, Ticks};
use super::colour::{DATA, FRAME, INK, MODEL, TEXT};
use super::svg::{self, Anchor, Area, Stroke, Svg, Text};
use super::{CORNER, DensityGrid, contour, limits, panels};

/// Between two cells.
const GAP: f64 = 8.0;
/// Rows that a cell draws at most.
const DRAWN: usize = 900;
/// Rows that a cell's lines are made of at most.
const SMOOTHED: usize = 20_000;
/// Cells of their histogram on either side, and the width of its smoothing in cells.
const CELLS: usize = 56;
const SMOOTHING: f64 = 1.3;

/// The first [`CORNER`] features: histograms of both on the diagonal, the data below it, the samples above it, so that
/// a good fit is a picture symmetric about the diagonal. The lines are of the other table: around the samples' dots
/// those of the data, and the other way round.
pub(super) fn panel(
    svg: &mut Svg,
    area: Area,
    letter: char,
    columns: &[String],
    data: &[f64],
    samples: &[f64],
) {
    let features = columns.len();
    let shown = features.min(CORNER);
    let title = if shown < features {
        format!("First {shown} of {features} features")
    } else {
        "Features".to_owned()
    };
    axes::title(svg, area, letter, &title, "");
    key(svg, area, shown);
    let side = (area.width - GAP * (shown - 1) as f64) / shown as f64;
    let ranges: Vec<_> = (0..shown)
        .map(|feature| limits::pad(limits::range(data, samples, features, feature), 0.06))
        .collect();
    let ticks: Vec<_> = ranges.iter().map(|&range| Ticks::new(range, 3)).collect();
    let widest = ticks.iter().map(Ticks::width).fold(0.0, f64::max);
    for row in 0..shown {
        for column in 0..shown {
            let cell = Area {
                left: area.left + column as f64 * (side + GAP),
                top: area.top + row as f64 * (side + GAP),
                width: side,
                height: side,
            };
            let frame = Frame::new(cell, ranges[column], ranges[row]);
            let (x_ticks, y_ticks) = (&ticks[column], &ticks[row]);
            if row == column {
                marginals(svg, cell, ranges[row], [data, samples].map(|rows| (rows, features, row)));
            } else {
                frame.grid(svg, x_ticks, y_ticks);
                let mut both = [(data, DATA), (samples, MODEL)];
                if row < column {
                    both.reverse();
                }
                let [(rows, colour), (others, line)] = both;
                let points = panels::chosen(rows, features, [column, row], DRAWN);
                panels::dots(svg, &frame, &points, colour);
                outlines(svg, &frame, others, features, [column, row], line);
            }
            frame.border(svg);
            let name = |feature: usize| svg::fit(&columns[feature], LABEL_SIZE, side);
            if row + 1 == shown {
                frame.label_x(svg, x_ticks, &name(column));
            }
            if column == 0 {
                let (x, y) = (cell.left - 24.0 - widest, cell.top + 0.5 * side);
                svg.text(x, y, &Text::new(&name(row), LABEL_SIZE, TEXT).anchor(Anchor::Middle).upright());
                // The first row's y is a density here; its feature has its numbers below the column.
                if row > 0 {
                    frame.label_y(svg, y_ticks, "");
                }
            }
        }
    }
}

/// The borders of the smallest regions that hold 50 and 90 per cent of `rows`, by a smoothed histogram.
fn outlines(svg: &mut Svg, frame: &Frame, rows: &[f64], features: usize, axes: [usize; 2], colour: &str) {
    let points = panels::chosen(rows, features, axes, SMOOTHED);
    let grid = smoothed(&points, (frame.x.low, frame.x.high), (frame.y.low, frame.y.high));
    svg.clipped(frame.area, |svg| {
        for (level, width) in contour::levels(&grid.log_density, &[0.5, 0.9]).into_iter().zip([2.0, 1.3]) {
            let lines: Vec<Vec<_>> = contour::contour(&grid, level)
                .into_iter()
                .map(|line| line.into_iter().map(|point| frame.at(point)).collect())
                .collect();
            svg.polylines(&lines, Stroke::solid(colour, width));
        }
    });
}

/// The log-density of `points` on a square grid: counts, smoothed along either axis by a Gaussian of [`SMOOTHING`]
/// cells.
fn smoothed(points: &[(f64, f64)], x: (f64, f64), y: (f64, f64)) -> DensityGrid {
    let place = |value: f64, (low, high): (f64, f64)| {
        let place = (value - low) / (high - low) * CELLS as f64;
        (0.0..CELLS as f64).contains(&place).then_some(place as usize)
    };
    let mut counts = vec![0.0f64; CELLS * CELLS];
    for &(px, py) in points {
        if let (Some(column), Some(row)) = (place(px, x), place(py, y)) {
            counts[row * CELLS + column] += 1.0;
        }
    }
    let reach = (4.0 * SMOOTHING).ceil() as isize;
    let weight = |distance: isize| (-0.5 * (distance as f64 / SMOOTHING).powi(2)).exp();
    let blur = |counts: &[f64], step: usize| -> Vec<f64> {
        (0..CELLS * CELLS)
            .map(|cell| {
                let at = (cell / step % CELLS) as isize;
                let start = cell - at as usize * step;
                (-reach..=reach)
                    .filter(|offset| (0..CELLS as isize).contains(&(at + offset)))
                    .map(|offset| weight(offset) * counts[start + (at + offset) as usize * step])
                    .sum()
            })
            .collect()
    };
    let counts = blur(&blur(&counts, 1), CELLS);
    DensityGrid { x, y, columns: CELLS, rows: CELLS, log_density: counts.into_iter().map(f64::ln).collect() }
}

/// Which colour is which, at the right end of the title's line, in a plot of so many features.
fn key(svg: &mut Svg, area: Area, shown: usize) {
    let y = area.top - 14.0;
    let mut right = area.right();
    let names = match shown {
        1 => ["samples", "data"],
        _ => ["samples, upper right; lines: data", "data, lower left; lines: samples"],
    };
    for (name, colour) in names.into_iter().zip([MODEL, DATA]) {
        svg.text(right, y, &Text::new(name, REMARK_SIZE, TEXT).anchor(Anchor::End));
        let x = right - super::font::width(name, REMARK_SIZE) - 14.0;
        svg.circle((x, y - 5.5), 5.0, colour, Stroke::solid(colour, 1.0));
        right = x - 30.0;
    }
}

/// Histograms of one feature: the data filled, the samples as an outline.
fn marginals(svg: &mut Svg, cell: Area, range: (f64, f64), [data, samples]: [(&[f64], usize, usize); 2]) {
    let bins = ((cell.width / 6.0) as usize).max(1);
    let [data, samples] = [data, samples].map(|(rows, features, feature)| {
        histogram(rows.iter().skip(feature).step_by(features).copied(), range, bins)
    });
    let highest = data.iter().chain(&samples).copied().fold(f64::MIN_POSITIVE, f64::max);
    let frame = Frame::new(cell, range, (0.0, 1.12 * highest));
    svg.polygon(staircase(&frame, &data), DATA, 0.35);
    svg.polyline(staircase(&frame, &samples), Stroke::solid(MODEL, 1.8));
}

/// The radius |z| of the latent as a histogram, with the χ density of `features` degrees of freedom that a standard
/// normal has.
pub(super) fn radius(svg: &mut Svg, area: Area, letter: char, latent: &[f64], features: usize) {
    axes::title(svg, area, letter, "Latent radius of the data", "curve: standard normal");
    let centre = (features as f64).sqrt();
    let range = ((centre - 4.0).max(0.0), centre + 4.0);
    let radii =
        latent.chunks_exact(features).map(|z| z.iter().map(|value| value * value).sum::<f64>().sqrt());
    let heights = histogram(radii, range, 48);
    let chi: Vec<(f64, f64)> = (0..=200)
        .map(|index| range.0 + (range.1 - range.0) * f64::from(index) / 200.0)
        .map(|r| (r, chi_density(r, features)))
        .collect();
    let highest = heights.iter().copied().chain(chi.iter().map(|point| point.1)).fold(0.0, f64::max);
    let frame = Frame::new(area, range, (0.0, 1.1 * highest));
    let (x_ticks, y_ticks) = (Ticks::new(range, 8), Ticks::new((0.0, 1.1 * highest), 5));
    frame.grid(svg, &x_ticks, &y_ticks);
    svg.polygon(staircase(&frame, &heights), DATA, 0.35);
    svg.polyline(chi.into_iter().map(|point| frame.at(point)), Stroke::solid(INK, 2.0));
    svg.rectangle(area, "none", Some(Stroke::solid(FRAME, 1.2)));
    frame.label_x(svg, &x_ticks, "|z|");
    frame.label_y(svg, &y_ticks, "density");
}

/// Density of the radius of a standard normal point of `features` dimensions:
/// r^(D−1) exp(−r²/2) / (2^(D/2−1) Γ(D/2)).
fn chi_density(r: f64, features: usize) -> f64 {
    if r == 0.0 && features > 1 {
        return 0.0;
    }
    let d = features as f64;
    // ln Γ(D/2) by Γ(x + 1) = x Γ(x), from Γ(1) = 1 or Γ(1/2) = √π.
    let start = if features.is_multiple_of(2) { 1.0 } else { 0.5 };
    let base = if features.is_multiple_of(2) { 0.0 } else { 0.5 * std::f64::consts::PI.ln() };
    let steps = (0.5 * d - start) as usize;
    let ln_gamma = base + (0..steps).map(|step| (start + step as f64).ln()).sum::<f64>();
    // Of a single feature, r⁰ is 1 at 0 too.
    let power = if features == 1 { 0.0 } else { (d - 1.0) * r.ln() };
    (power - 0.5 * r * r - (0.5 * d - 1.0) * std::f64::consts::LN_2 - ln_gamma).exp()
}

/// Densities of `values` in `bins` equal bins over `range`; what lies outside counts in the whole alone.
fn histogram(values: impl Iterator<Item = f64>, range: (f64, f64), bins: usize) -> Vec<f64> {
    let mut counts = vec![0u64; bins];
    let mut all = 0u64;
    for value in values.filter(|value| value.is_finite()) {
        all += 1;
        let place = (value - range.0) / (range.1 - range.0) * bins as f64;
        if (0.0..bins as f64).contains(&place) {
            counts[place as usize] += 1;
        }
    }
    let width = (range.1 - range.0) / bins as f64;
    counts.into_iter().map(|count| count as f64 / (all.max(1) as f64 * width)).collect()
}

/// The outline of a histogram over the whole width of `frame`, from its lower left to its lower right.
fn staircase(frame: &Frame, heights: &[f64]) -> Vec<(f64, f64)> {
    let edge = |index: usize| frame.area.left + frame.area.width * index as f64 / heights.len() as f64;
    let bottom = frame.y.at(0.0);
    let steps = heights.iter().enumerate().flat_map(|(index, &height)| {
        let y = frame.y.at(height);
        [(edge(index), y), (edge(index + 1), y)]
    });
    let ends = [(frame.area.left, bottom), (frame.area.right(), bottom)];
    std::iter::once(ends[0]).chain(steps).chain(std::iter::once(ends[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radius_of_a_normal_point_has_mass_one_and_second_moment_d() {
        for features in [1, 2, 3, 7, 40] {
            let step = 1e-3;
            let points = (1..20_000).map(|index| f64::from(index) * step);
            let (mass, square) = points.fold((0.0, 0.0), |(mass, square), r| {
                let weight = chi_density(r, features) * step;
                (mass + weight, square + weight * r * r)
            });
            // The sum lacks half a step at 0, where only the density of a single feature is above 0.
            let mass = mass + 0.5 * step * chi_density(0.0, features);
            assert!((mass - 1.0).abs() < 1e-6, "D = {features}: mass {mass}");
            assert!((square / features as f64 - 1.0).abs() < 1e-6, "D = {features}: E r² = {square}");
        }
    }

    #[test]
    fn smoothing_keeps_the_mass_and_puts_the_peak_where_the_points_are() {
        let grid = smoothed(&[(0.25, 0.75); 10], (0.0, 1.0), (0.0, 1.0));
        let peak = (0..CELLS * CELLS).max_by(|&a, &b| grid.log_density[a].total_cmp(&grid.log_density[b]));
        let (x, y) = grid.centre(peak.expect("cells"));
        assert!((x - 0.25).abs() < 0.02 && (y - 0.75).abs() < 0.02, "({x}, {y})");
        let mass: f64 = grid.log_density.iter().map(|value| value.exp()).sum();
        let want = 10.0 * std::f64::consts::TAU * SMOOTHING * SMOOTHING;
        assert!((mass / want - 1.0).abs() < 1e-2, "{mass} for {want}");
    }

    #[test]
    fn a_histogram_integrates_to_the_share_within_its_range() {
        let values = (0..1000).map(|index| f64::from(index) / 500.0).chain([f64::NAN, f64::INFINITY]);
        let heights = histogram(values, (0.0, 1.0), 10);
        let mass: f64 = heights.iter().sum::<f64>() * 0.1;
        assert!((mass - 0.5).abs() < 1e-12, "{heights:?}");
    }
}
