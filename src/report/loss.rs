//! The loss curves: mean negative log-likelihood of training and validation rows over the epochs, with the entropy
//! floor, the best epoch, and a magnified view of the end, where all of them come together.

use super::axes::{self, Frame, REMARK_SIZE, Ticks, signed};
use super::colour::{DATA, DATA_LIGHT, INK, MUTED, TEXT};
use super::svg::{Area, Stroke, Svg, Text};
use super::{LossCurves, font, limits, panels};

/// Points of a curve that are drawn at most: more than a picture has pixels across.
const DRAWN: usize = 4000;
/// Fewest epochs of which the second half is worth magnifying.
const MAGNIFIED: usize = 20;
const TITLE: &str = "Negative log-likelihood (nats)";

/// The loss curves in `area`. Values that are not finite are gaps.
pub(super) fn panel(
    svg: &mut Svg,
    area: Area,
    letter: char,
    history: Option<&LossCurves>,
    floor: Option<f64>,
) {
    let floor = floor.filter(|&value| limits::drawable(value));
    let curves = history.map_or(Vec::new(), curves);
    axes::title(svg, area, letter, TITLE, "");
    let Some(range) = losses(&curves, f64::MIN, floor) else {
        return panels::missing(svg, area, "no loss was recorded");
    };
    let best = history.and_then(LossCurves::best);
    let area = legend(svg, area, &curves, floor, best);

    let (first, last) = epochs(&curves);
    let frame = Frame::new(area, limits::pad((first, last), 0.012), limits::pad(range, 0.06));
    let (x_ticks, y_ticks) = (Ticks::whole((first, last), 8), Ticks::new((frame.y.low, frame.y.high), 6));
    frame.grid(svg, &x_ticks, &y_ticks);
    draw(svg, &frame, &curves, floor, best);
    magnified(svg, &frame, &curves, floor, best);
    frame.border(svg);
    frame.label_x(svg, &x_ticks, "epoch");
    frame.label_y(svg, &y_ticks, "");
}

/// A curve with its name, look and points (epoch, loss).
struct Series {
    name: &'static str,
    stroke: Stroke<'static>,
    points: Vec<(f64, f64)>,
}

/// Those of the two curves that have a finite point.
fn curves(history: &LossCurves) -> Vec<Series> {
    let curve = |name, losses: &[f64], stroke| {
        let stride = losses.len().div_ceil(DRAWN).max(1);
        let points = history.epoch.iter().zip(losses).step_by(stride);
        let points = points
            .map(|(&epoch, &nll)| (f64::from(epoch), if limits::drawable(nll) { nll } else { f64::NAN }))
            .collect();
        Series { name, stroke, points }
    };
    let mut both = vec![
        curve("train", &history.train_nll, Stroke::solid(DATA_LIGHT, 2.4)),
        curve("validation", &history.validation_nll, Stroke::solid(DATA, 2.0)),
    ];
    both.retain(|curve| curve.points.iter().any(|point| point.1.is_finite()));
    both
}

fn epochs(curves: &[Series]) -> (f64, f64) {
    let all = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0));
    all.fold((f64::MAX, f64::MIN), |(low, high), epoch| (low.min(epoch), high.max(epoch)))
}

/// Lowest and highest loss from epoch `from` on, floor included. The highest 2 % (at least 2) are cut off where they
/// lie ten times as far above the lowest as the others: a first epoch or a burst would flatten all that follows.
fn losses(curves: &[Series], from: f64, floor: Option<f64>) -> Option<(f64, f64)> {
    let mut values: Vec<f64> = curves
        .iter()
        .flat_map(|curve| curve.points.iter().filter(|point| point.0 >= from && point.1.is_finite()))
        .map(|point| point.1)
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let (&low, &high) = (values.first()?, values.last()?);
    let low = floor.map_or(low, |floor| low.min(floor));
    let ordinary = values[(values.len() - 1).saturating_sub((values.len() / 50).max(2))];
    let cut = low + 10.0 * (ordinary - low);
    Some((low, if ordinary > low { high.min(cut) } else { high }))
}

fn draw(svg: &mut Svg, frame: &Frame, curves: &[Series], floor: Option<f64>, best: Option<(u32, f64)>) {
    svg.clipped(frame.area, |svg| {
        for curve in curves {
            svg.polyline(curve.points.iter().map(|&point| frame.at(point)), curve.stroke);
            // A line needs two points: a short or broken history shows as dots.
            if curve.points.len() <= MAGNIFIED {
                for &point in curve.points.iter().filter(|&&point| frame.contains(point)) {
                    svg.circle(
                        frame.at(point),
                        3.0,
                        curve.stroke.colour,
                        Stroke::solid(curve.stroke.colour, 1.0),
                    );
                }
            }
        }
        if let Some(floor) = floor {
            let y = frame.y.at(floor);
            svg.line((frame.area.left, y), (frame.area.right(), y), Stroke::dashed(MUTED, 1.8));
        }
    });
    // Not clipped: a best epoch at the very end is a whole ring all the same.
    let best = best.map(|(epoch, nll)| (f64::from(epoch), nll)).filter(|&point| frame.contains(point));
    if let Some(best) = best {
        svg.circle(frame.at(best), 6.0, "#ffffff", Stroke::solid(INK, 2.0));
    }
}

/// The second half of the epochs magnified, in the corner that falling curves leave empty.
fn magnified(svg: &mut Svg, frame: &Frame, curves: &[Series], floor: Option<f64>, best: Option<(u32, f64)>) {
    let (first, last) = epochs(curves);
    let from = (0.5 * (first + last)).ceil();
    let Some(range) = losses(curves, from, floor) else { return };
    let long = curves.iter().any(|curve| curve.points.len() >= MAGNIFIED);
    let flat = range.1 - range.0 < 0.3 * (frame.y.high - frame.y.low);
    if !long || !flat || range.1 <= range.0 {
        return;
    }
    let outer = frame.area;
    let area = Area {
        left: outer.left + 0.44 * outer.width,
        top: outer.top + 44.0,
        width: 0.53 * outer.width,
        height: 0.62 * outer.height - 60.0,
    };
    // The whole corner is cleared: grid lines that end at a frame of their own read as part of it.
    let left = area.left - 64.0;
    let back =
        Area { left, top: outer.top, width: outer.right() - left, height: area.bottom() + 36.0 - outer.top };
    svg.rectangle(back, "#ffffff", None);
    let inner = Frame::new(area, (from, last), limits::pad(range, 0.08));
    let (x_ticks, y_ticks) = (Ticks::whole((from, last), 5), Ticks::new((inner.y.low, inner.y.high), 4));
    inner.grid(svg, &x_ticks, &y_ticks);
    draw(svg, &inner, curves, floor, best);
    inner.border(svg);
    inner.label_x(svg, &x_ticks, "");
    inner.label_y(svg, &y_ticks, "");
    let caption = "second half, magnified";
    svg.text(area.left, area.top - 9.0, &Text::new(caption, REMARK_SIZE, MUTED));
}

/// Names of what is drawn, right-aligned on the title's line, or below it where they do not fit; returns what is
/// left of `area`.
fn legend(
    svg: &mut Svg,
    area: Area,
    curves: &[Series],
    floor: Option<f64>,
    best: Option<(u32, f64)>,
) -> Area {
    const SWATCH: f64 = 24.0;
    const SPACE: f64 = 18.0;
    const LINE: f64 = 27.0;
    let mut entries: Vec<(String, Option<Stroke>)> =
        curves.iter().map(|curve| (curve.name.to_owned(), Some(curve.stroke))).collect();
    if let Some(floor) = floor {
        entries.push((format!("entropy floor {}", signed(floor, 3)), Some(Stroke::dashed(MUTED, 1.8))));
    }
    if let Some((epoch, nll)) = best {
        entries.push((format!("best {} in epoch {epoch}", signed(nll, 3)), None));
    }
    let widths: Vec<f64> =
        entries.iter().map(|(name, _)| SWATCH + 8.0 + font::width(name, REMARK_SIZE)).collect();
    let whole = widths.iter().sum::<f64>() + SPACE * (widths.len() - 1) as f64;
    let beside = axes::title_end(area, TITLE) + SPACE + whole <= area.right();
    let (mut x, mut y) =
        if beside { (area.right() - whole, area.top - 14.0) } else { (area.left, area.top + 14.0) };
    for ((name, stroke), width) in entries.iter().zip(&widths) {
        if !beside && x > area.left && x + width > area.right() {
            (x, y) = (area.left, y + LINE);
        }
        let middle = y - 5.5;
        match stroke {
            Some(stroke) => svg.line((x, middle), (x + SWATCH, middle), *stroke),
            None => svg.circle((x + 0.5 * SWATCH, middle), 6.0, "#ffffff", Stroke::solid(INK, 2.0)),
        }
        svg.text(x + SWATCH + 8.0, y, &Text::new(name, REMARK_SIZE, TEXT));
        x += width + SPACE;
    }
    if beside {
        return area;
    }
    let used = y + 16.0 - area.top;
    Area { top: area.top + used, height: area.height - used, ..area }
}
