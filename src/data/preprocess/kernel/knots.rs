//! Knots of the curve that takes a mixture of kernels to a standard normal.
//! Places, scores and slopes at knots are exact; knots are where the curve between them would be off the most.

use super::super::curve::{Knot, MonotoneCurve};
use super::Kernel;
use crate::normal;

/// Most knots of a curve.
const KNOTS: usize = 256;
/// Knots to begin with, at equal shares of the mass.
const FIRST: usize = 16;
/// Square of how far the logarithm of the slope may be off in the middle between two knots, times the mass between them:
/// about what the density loses there, in nats.
const TOLERANCE: f64 = 1e-6;
/// Added to that mass, so that tails are followed too.
const TAIL: f64 = 1e-4;
/// How far beyond the outermost kernels the first and the last knot lie, in widths.
const BEYOND: f64 = 4.0;
/// Least distance of two knots in scores, and in places as a part of these.
const LEAST_DISTANCE: f64 = 1e-9;
/// Beyond so many widths a kernel's tail is nothing.
const REACH: f64 = 8.5;

/// A knot with the mass on its left.
#[derive(Clone, Copy)]
struct Point {
    knot: Knot,
    below: f64,
}

/// Two knots and the point in the middle between them.
struct Interval {
    ends: [Point; 2],
    middle: Point,
    error: f64,
}

/// Score, slope and mass at a place.
fn point(kernels: &[Kernel], place: f64) -> Point {
    let (mut below, mut above, mut density) = (0.0, 0.0, 0.0);
    for kernel in kernels {
        let from = (place - kernel.place) / kernel.width;
        if from > REACH {
            below += kernel.share;
        } else if from < -REACH {
            above += kernel.share;
        } else {
            let (lower, upper) = if from > 0.0 {
                let upper = normal::cdf(-from);
                (1.0 - upper, upper)
            } else {
                let lower = normal::cdf(from);
                (lower, 1.0 - lower)
            };
            below += kernel.share * lower;
            above += kernel.share * upper;
            density += kernel.share * (-0.5 * from * from).exp() / kernel.width;
        }
    }
    // From the lesser tail, which has the digits; a share that rounding has lost does not matter there.
    let score = normal::lower_quantile(below.min(above).ln()).copysign(below - above);
    // ln φ(score) lacks the same constant as ln of the density.
    let slope = (density.ln() + 0.5 * score * score).exp();
    Point { knot: Knot { place, score, slope }, below }
}

impl Interval {
    fn new(kernels: &[Kernel], ends: [Point; 2]) -> Self {
        let middle = point(kernels, 0.5 * (ends[0].knot.place + ends[1].knot.place));
        let curve = MonotoneCurve::from_knots(ends.map(|end| end.knot).to_vec());
        let apart = |a: Point, b: Point| {
            let digits = LEAST_DISTANCE * a.knot.place.abs().max(b.knot.place.abs());
            b.knot.score - a.knot.score >= LEAST_DISTANCE && b.knot.place - a.knot.place >= digits
        };
        let error = match curve {
            Ok(curve) if apart(ends[0], middle) && apart(middle, ends[1]) => {
                let off = (curve.forward(middle.knot.place).1 - middle.knot.slope.ln()).abs();
                off * off * (ends[1].below - ends[0].below + TAIL)
            }
            // Nothing lies between them that a curve could show.
            _ => 0.0,
        };
        Self { ends, middle, error }
    }
}

/// The curve after which a density of `kernels`, whose shares sum to 1, is standard normal.
pub(super) fn curve_of(kernels: &[Kernel]) -> MonotoneCurve {
    let end = |kernel: &Kernel, sign: f64| kernel.place + sign * BEYOND * kernel.width;
    let low = kernels.iter().map(|kernel| end(kernel, -1.0)).fold(f64::MAX, f64::min);
    let high = kernels.iter().map(|kernel| end(kernel, 1.0)).fold(f64::MIN, f64::max);
    let mut places: Vec<f64> = kernels.iter().map(|kernel| kernel.place).collect();
    places.sort_unstable_by(f64::total_cmp);
    let mut points = vec![point(kernels, low)];
    let inner = (1..FIRST).map(|index| places[index * (places.len() - 1) / FIRST]);
    for next in inner.chain([high]).map(|place| point(kernels, place)) {
        let last = points[points.len() - 1].knot;
        if next.knot.place > last.place && next.knot.score - last.score >= LEAST_DISTANCE {
            points.push(next);
        }
    }
    let mut knots: Vec<Knot> = refined(kernels, &points).into_iter().map(|point| point.knot).collect();
    knots.sort_unstable_by(|a, b| a.place.total_cmp(&b.place));
    // Numbers at the ends of `f64` may leave no curve.
    MonotoneCurve::from_knots(knots).unwrap_or_else(|_| MonotoneCurve::identity())
}

/// `points`, and those in the middle between two knots where the curve would be off the most.
fn refined(kernels: &[Kernel], points: &[Point]) -> Vec<Point> {
    let mut intervals: Vec<Interval> =
        points.array_windows().map(|ends| Interval::new(kernels, *ends)).collect();
    while intervals.len() + 1 < KNOTS {
        let worst = (0..intervals.len()).max_by(|&a, &b| intervals[a].error.total_cmp(&intervals[b].error));
        let Some(worst) = worst.filter(|&worst| intervals[worst].error > TOLERANCE) else { break };
        let Interval { ends: [left, right], middle, .. } = intervals[worst];
        intervals[worst] = Interval::new(kernels, [left, middle]);
        intervals.push(Interval::new(kernels, [middle, right]));
    }
    let ends = intervals.iter().map(|interval| interval.ends[1]);
    points.first().copied().into_iter().chain(ends).collect()
}
