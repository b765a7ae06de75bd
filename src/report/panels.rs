//! The panels of a flow with two features: rows of a table, density, latent.

use super::axes::{self, Frame, LABEL_SIZE, REMARK_SIZE, TICK_SIZE, Ticks, count};
use super::colour::{DATA, FRAME, INK, MUTED, TEXT, hex, ramp};
use super::svg::{Anchor, Area, Stroke, Svg, Text};
use super::{DensityGrid, contour, limits, raster};
use crate::error::Result;
use crate::random::{self, Stream};

/// Rows that a scatter plot draws at most.
const DRAWN: usize = 4000;
/// Probability within the contour lines of the density.
const MASSES: [f64; 3] = [0.5, 0.8, 0.95];
/// How far the colours of the density reach below its outermost contour, in nats.
const BELOW_CONTOURS: f64 = 4.5;
/// Probability within k standard deviations of a standard normal point of the plane, 1 − exp(−k²/2), in per cent.
const WITHIN: [f64; 3] = [39.347, 86.466, 98.889];

/// At most `most` of `rows` ([N, `features`]), as points of two of the features.
///
/// A fixed pseudorandom choice, in a pseudorandom order: tables are often sorted, and neither the choice nor which
/// dot covers which may depend on that.
pub(super) fn chosen(rows: &[f64], features: usize, axes: [usize; 2], most: usize) -> Vec<(f64, f64)> {
    let total = u32::try_from(rows.len() / features).unwrap_or(u32::MAX);
    (0..total.min(most as u32))
        .map(|index| random::permute(index, total, 0, Stream::Split, 0) as usize * features)
        .map(|start| (rows[start + axes[0]], rows[start + axes[1]]))
        .collect()
}

/// Dots at those of `points` that lie in the frame; the more there are, the smaller and fainter.
pub(super) fn dots(svg: &mut Svg, frame: &Frame, points: &[(f64, f64)], colour: &str) {
    let inside: Vec<_> =
        points.iter().filter(|&&point| frame.contains(point)).map(|&p| frame.at(p)).collect();
    let crowding = inside.len() as f64 / (frame.area.width * frame.area.height);
    let distance = crowding.max(1e-6).sqrt().recip();
    let radius = (0.26 * distance).clamp(1.2, 3.2);
    let opacity = (0.065 * distance).clamp(0.36, 0.8);
    svg.dots(&inside, radius, colour, opacity);
}

/// Rows of a table as a scatter plot. An empty name of y leaves the numbers off as well, for the panel to the left
/// shares them.
pub(super) fn rows(
    svg: &mut Svg,
    frame: &Frame,
    (letter, title): (char, &str),
    rows: &[f64],
    colour: &str,
    names: [&str; 2],
) {
    let points = chosen(rows, 2, [0, 1], DRAWN);
    let total = rows.len() / 2;
    let mut remark = format!("{} rows", count(total));
    if points.len() < total {
        remark = format!("{} of {remark}", count(points.len()));
    }
    let outside = points.iter().filter(|&&point| !frame.contains(point)).count();
    if outside > 0 {
        remark += &format!(", {} outside", count(outside));
    }
    axes::title(svg, frame.area, letter, title, &remark);
    let (x, y) = plane_ticks(frame);
    frame.grid(svg, &x, &y);
    dots(svg, frame, &points, colour);
    frame.border(svg);
    label_plane(svg, frame, names);
}

/// The density as a heat map of log p with contours of the highest-density regions and a colour bar at the right.
///
/// # Errors
/// Those of [`raster::data_uri`].
pub(super) fn density(
    svg: &mut Svg,
    frame: &Frame,
    (letter, title): (char, &str),
    grid: Option<&DensityGrid>,
    name: &str,
) -> Result<()> {
    let grid = grid.map(without_the_absurd);
    let levels = grid.as_ref().map_or(Vec::new(), |grid| contour::levels(&grid.log_density, &MASSES));
    let (Some(grid), Some(&outermost)) = (&grid, levels.last()) else {
        axes::title(svg, frame.area, letter, title, "");
        missing(svg, frame.area, "not computed");
        label_plane(svg, frame, [name, ""]);
        return Ok(());
    };
    let finite = grid.log_density.iter().copied().filter(|value| value.is_finite());
    let highest = finite.fold(f64::MIN, f64::max);
    // All of one height: any span does.
    let lowest = (outermost - BELOW_CONTOURS).min(highest - 1.0);
    axes::title(svg, frame.area, letter, title, "lines enclose 50, 80, 95 %");
    svg.rectangle(frame.area, &hex(ramp(0.0)), None);

    let shade = |value: f64| ramp((value - lowest) / (highest - lowest));
    let rows = grid.log_density.chunks_exact(grid.columns).rev();
    let pixels: Vec<u8> = rows
        .flatten()
        .flat_map(|&value| {
            // Grey says that there is no number; −∞ is the white of the paper.
            let [red, green, blue] = if value.is_nan() { [128; 3] } else { shade(value) };
            [red, green, blue, 255]
        })
        .collect();
    let href = raster::data_uri(&pixels, grid.columns as u32, grid.rows as u32)?;
    let (left, top) = frame.at((grid.x.0, grid.y.1));
    let (right, bottom) = frame.at((grid.x.1, grid.y.0));
    let place = Area { left, top, width: right - left, height: bottom - top };
    svg.clipped(frame.area, |svg| {
        svg.image(place, &href);
        for (&level, width) in levels.iter().zip([1.6, 1.3, 1.0]) {
            let lines: Vec<Vec<_>> = contour::contour(grid, level)
                .into_iter()
                .map(|line| line.into_iter().map(|point| frame.at(point)).collect())
                .collect();
            svg.polylines(&lines, Stroke::solid(contour_colour(shade(level)), width));
        }
    });
    frame.border(svg);
    label_plane(svg, frame, [name, ""]);
    let mass = grid.mass();
    if mass < 10.0 {
        let (x, y) = (frame.area.right(), frame.area.bottom() + 50.0);
        svg.text(
            x,
            y,
            &Text::new(&format!("mass in view {mass:.3}"), REMARK_SIZE, MUTED).anchor(Anchor::End),
        );
    }
    colour_bar(svg, frame.area, (lowest, highest), &levels);
    Ok(())
}

/// `grid` without log-densities whose differences of one nat a float cannot tell: −∞ for those far down, where there is no
/// density either way, and NaN for those far up, +∞ too.
fn without_the_absurd(grid: &DensityGrid) -> DensityGrid {
    let sane = |value: f64| match value {
        ..=-1e9 => f64::NEG_INFINITY,
        1e9.. => f64::NAN,
        value => value,
    };
    DensityGrid { log_density: grid.log_density.iter().copied().map(sane).collect(), ..*grid }
}

/// Dark on a light ground and light on a dark one.
fn contour_colour(ground: [u8; 3]) -> &'static str {
    let brightness = 0.3 * f64::from(ground[0]) + 0.59 * f64::from(ground[1]) + 0.11 * f64::from(ground[2]);
    if brightness > 120.0 { INK } else { "#ffffff" }
}

/// The ramp beside `area` with the numbers of log p, and the contours' masses where their levels lie.
fn colour_bar(svg: &mut Svg, area: Area, range: (f64, f64), levels: &[f64]) {
    let bar = Area { left: area.right() + 16.0, width: 20.0, ..area };
    let frame = Frame::new(bar, (0.0, 1.0), range);
    // Steps of less than two pixels read as a smooth ramp in every viewer.
    const STEPS: u32 = 160;
    let step = bar.height / f64::from(STEPS);
    for index in 0..STEPS {
        let colour = hex(ramp((f64::from(index) + 0.5) / f64::from(STEPS)));
        let top = bar.bottom() - f64::from(index + 1) * step;
        // Each step reaches under the one above, so that no paper shines through between them.
        let height = (2.0 * step).min(bar.bottom() - top);
        svg.rectangle(Area { top, height, ..bar }, &colour, None);
    }
    for &level in levels {
        let y = frame.y.at(level);
        let shade = ramp((level - range.0) / (range.1 - range.0));
        svg.line((bar.left, y), (bar.right(), y), Stroke::solid(contour_colour(shade), 1.3));
    }
    frame.border(svg);
    // A low bar has fewer labels, and wide ones move the name aside, so that none overlaps another.
    let ticks = Ticks::new(range, ((bar.height / (2.0 * TICK_SIZE)) as usize).clamp(1, 6));
    for &value in &ticks.values {
        let y = frame.y.at(value);
        svg.line((bar.right(), y), (bar.right() + 5.0, y), Stroke::solid(FRAME, 1.2));
        svg.text(bar.right() + 10.0, y + 6.0, &Text::new(&ticks.label(value), TICK_SIZE, TEXT));
    }
    let x = bar.right() + (34.0 + ticks.width()).max(64.0);
    let y = bar.top + 0.5 * bar.height;
    svg.text(x, y, &Text::new("log p (nats)", LABEL_SIZE, TEXT).anchor(Anchor::Middle).upright());
}

/// The data's latent among the circles of the standard normal, with the share of rows within each.
pub(super) fn latent(svg: &mut Svg, area: Area, (letter, title): (char, &str), latent: &[f64]) {
    let points = chosen(latent, 2, [0, 1], DRAWN);
    let mut reach: Vec<f64> =
        points.iter().map(|&(x, y)| x.abs().max(y.abs())).filter(|&value| limits::drawable(value)).collect();
    reach.sort_unstable_by(f64::total_cmp);
    let far = reach.get((0.995 * reach.len() as f64) as usize).copied().unwrap_or_default();
    let half = far.clamp(4.0, 8.0);
    let frame = Frame::new(area, (-half, half), (-half, half));
    let normal = WITHIN.map(|share| format!("{share:.1}")).join(", ");
    axes::title(svg, area, letter, title, &format!("expected: {normal} %"));
    let ticks = Ticks::new((-half, half), 5);
    frame.grid(svg, &ticks, &ticks);
    dots(svg, &frame, &points, DATA);
    let rows = (latent.len() / 2) as f64;
    for sigma in 1..=3 {
        let radius = f64::from(sigma);
        let pixels = frame.x.at(radius) - frame.x.at(0.0);
        svg.circle(frame.at((0.0, 0.0)), pixels, "none", Stroke::dashed(INK, 1.3));
        let within = latent.chunks_exact(2).filter(|z| z[0].hypot(z[1]) <= radius).count() as f64;
        let label = if rows > 0.0 {
            format!("{sigma}σ {:.1} %", 100.0 * within / rows)
        } else {
            format!("{sigma}σ")
        };
        let (x, y) = frame.at((0.0, radius));
        svg.label(x, y - 5.0, &Text::new(&label, TICK_SIZE, INK).anchor(Anchor::Middle));
    }
    frame.border(svg);
    frame.label_x(svg, &ticks, "z₁");
    frame.label_y(svg, &ticks, "z₂");
}

/// Ticks of x and y; of the same steps where both axes have the same scale, so that the grid is of squares.
fn plane_ticks(frame: &Frame) -> (Ticks, Ticks) {
    let [x, y] = [(frame.x.low, frame.x.high), (frame.y.low, frame.y.high)];
    let along_x = Ticks::new(x, 5);
    let along_y = if limits::equal_scale([x, y]) { along_x.over(y) } else { Ticks::new(y, 5) };
    (along_x, along_y)
}

fn label_plane(svg: &mut Svg, frame: &Frame, [x_name, y_name]: [&str; 2]) {
    let (x, y) = plane_ticks(frame);
    let fitted = |name, length| super::svg::fit(name, LABEL_SIZE, length);
    frame.label_x(svg, &x, &fitted(x_name, frame.area.width));
    if !y_name.is_empty() {
        frame.label_y(svg, &y, &fitted(y_name, frame.area.height));
    }
}

/// Says in an empty panel why it is empty.
pub(super) fn missing(svg: &mut Svg, area: Area, why: &str) {
    svg.rectangle(area, "none", Some(Stroke::solid(FRAME, 1.2)));
    let (x, y) = (area.left + 0.5 * area.width, area.top + 0.5 * area.height);
    svg.text(x, y, &Text::new(why, LABEL_SIZE, MUTED).anchor(Anchor::Middle));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::font;

    #[test]
    fn no_label_of_a_colour_bar_is_on_another() {
        for (height, lowest) in [(400.0, -9.0), (400.0, -250_000.0), (90.0, -20.0), (20.0, -9.0)] {
            let mut svg = Svg::default();
            let area = Area { left: 1040.0, top: 172.0, width: 410.0, height };
            colour_bar(&mut svg, area, (lowest, 0.0), &[]);
            let drawn = svg.finish(1600.0, 900.0, "");
            let number = |line: &str, from: &str| -> Option<f64> {
                line.split_once(from)?.1.split([' ', '"']).next()?.parse().ok()
            };
            let (mut right, mut rows, mut name) = (0.0f64, Vec::new(), None);
            for line in drawn.lines().filter(|line| line.starts_with("<text")) {
                let label = line.split(['>', '<']).nth(2).expect("a label");
                match number(line, "translate(") {
                    Some(x) => name = Some(x),
                    None => {
                        right = right.max(number(line, "x=\"").expect("x") + font::width(label, TICK_SIZE));
                        rows.push(number(line, "y=\"").expect("y"));
                    }
                }
            }
            let name = name.expect("the name of what is shown");
            assert!(
                !rows.is_empty() && right < name - LABEL_SIZE && name < 1600.0,
                "{right} {name}: {drawn}"
            );
            assert!(rows.windows(2).all(|pair| (pair[0] - pair[1]).abs() > TICK_SIZE), "{rows:?}");
        }
    }

    #[test]
    fn far_down_is_no_density_and_far_up_no_number() {
        let log_density = vec![-2e10, -1e8, 0.0, 2e10, f64::INFINITY, f64::NAN];
        let grid = DensityGrid { x: (0.0, 1.0), y: (0.0, 1.0), columns: 3, rows: 2, log_density };
        let kept = without_the_absurd(&grid).log_density;
        assert_eq!(kept[..3], [f64::NEG_INFINITY, -1e8, 0.0]);
        assert!(kept[3..].iter().all(|value| value.is_nan()), "{kept:?}");
    }

    #[test]
    fn of_a_sorted_table_all_parts_are_drawn_and_no_row_twice() {
        let rows: Vec<f64> = (0..3000).map(f64::from).collect();
        let mut points = chosen(&rows, 3, [2, 0], 100);
        assert_eq!(points.len(), 100);
        assert!(points.iter().all(|&(x, y)| x == y + 2.0 && y % 3.0 == 0.0));
        assert!(!points.is_sorted_by_key(|point| point.0));
        let first_half = points.iter().filter(|point| point.0 < 1500.0).count();
        assert!((30..70).contains(&first_half), "{first_half}");
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup();
        assert_eq!(points.len(), 100);
        assert_eq!(chosen(&rows, 3, [0, 1], 5000).len(), 1000);
    }
}
