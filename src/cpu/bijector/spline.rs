//! The monotone rational-quadratic spline, elementwise: what θ = (w, h, d) does to a transformed feature.
//! Twin of `shaders/shared/bijector/spline.wgsl`; defined in [`super::super::reference::spline`]. Durkan, Bekasov, Murray
//! and Papamakarios, "Neural Spline Flows", 2019.

use super::super::Real;
use super::super::simd::{each, filled};
use super::{Elementwise, Planes, Traced};

/// Values that are computed side by side.
const LANES: usize = 16;

type Lanes<R> = [R; LANES];

/// Least width and height of a bin as a fraction of all, and least slope at a knot.
pub(in super::super) const LEAST: f32 = 1e-3;

/// ln(e^(1 − [`LEAST`]) − 1): what softplus takes to 1 − [`LEAST`], so that a d of 0 is a slope of 1.
pub(in super::super) const UNIT_SLOPE: f64 = 0.539_742_417_236_952;

/// A spline of `bins` bins on [−bound, bound] in both directions; the identity outside of it.
#[derive(Debug)]
pub(super) struct Spline<R> {
    pub bins: usize,
    pub bound: R,
}

/// Fractions of the width or the height that each bin has beyond its least one: softmax of a part of θ.
struct Fractions<R, const MOST: usize>([Lanes<R>; MOST]);

/// The bin that a value lies in: its lower left corner, its size, and what its slopes come from.
struct Bin<R> {
    number: [u32; LANES],
    x0: Lanes<R>,
    y0: Lanes<R>,
    width: Lanes<R>,
    height: Lanes<R>,
    /// d at its left and right knot, as θ has them.
    left: Lanes<R>,
    right: Lanes<R>,
}

/// The rational quadratic of a bin at the place ξ of its width: y = y0 + height · top / bottom, with the slope
/// steepness² · rise / bottom².
#[derive(Clone, Copy)]
struct Piece<R> {
    /// 1 − ξ, and ξ · (1 − ξ).
    rest: R,
    product: R,
    /// height / width.
    steepness: R,
    /// Slopes at the knots, and their sum less twice the steepness.
    slopes: [R; 2],
    excess: R,
    top: R,
    bottom: R,
    rise: R,
}

#[inline(always)]
fn softplus<R: Real>(x: R) -> R {
    // ln(1 + e) with what the sum 1 + e loses of e.
    let (e, zero) = ((-x.abs()).exp_lane(), R::zero());
    let sum = R::one() + e;
    let tail = sum.ln_lane() + (e - (sum - R::one())) / sum;
    R::pick(x > zero, x, zero) + tail
}

#[inline(always)]
fn sigmoid<R: Real>(x: R) -> R {
    let e = (-x.abs()).exp_lane();
    R::pick(x >= R::zero(), R::one(), e) / (R::one() + e)
}

/// Slope at an inner knot.
#[inline(always)]
fn slope<R: Real>(d: R) -> R {
    R::from_decimal(LEAST) + softplus(d + R::from_wide(UNIT_SLOPE))
}

impl<R: Real> Piece<R> {
    #[inline(always)]
    fn new(at: R, steepness: R, slopes: [R; 2]) -> Self {
        let rest = R::one() - at;
        let (product, two) = (at * rest, R::one() + R::one());
        let excess = slopes[0] + slopes[1] - two * steepness;
        Self {
            rest,
            product,
            steepness,
            slopes,
            excess,
            top: steepness * at * at + slopes[0] * product,
            // steepness + excess · product, as a sum of positive terms.
            bottom: steepness * (R::one() - two * product) + (slopes[0] + slopes[1]) * product,
            rise: slopes[1] * at * at + two * steepness * product + slopes[0] * rest * rest,
        }
    }

    /// ln of the slope.
    #[inline(always)]
    fn log_slope(&self) -> R {
        let ratio = self.steepness / self.bottom;
        (ratio * ratio * self.rise).ln_lane()
    }
}

/// The place ξ of a bin's width at the fraction `r` of its height: the positive root of a ξ² + b ξ − steepness · r, with a + b =
/// steepness.
///
/// Both forms of the discriminant, and both of the root, add what has one sign, so that the root is as exact as slopes that
/// are off by a few ulp would leave it.
#[inline(always)]
fn solve<R: Real>(r: R, steepness: R, [left, right]: [R; 2]) -> R {
    let (one, two) = (R::one(), R::one() + R::one());
    let rest = one - r;
    let outer = left * rest - right * r;
    let (a, b) = (steepness * (one - two * r) - outer, two * steepness * r + outer);
    let sum = steepness + a;
    let four = two * two;
    let discriminant =
        R::pick(a >= R::zero(), b * b + four * a * steepness * r, sum * sum - four * a * steepness * rest);
    let root = discriminant.sqrt();
    R::pick(b >= R::zero(), two * steepness * r / (b + root), (root - b) / (two * a))
}

/// Values at `place` and after it, and zeros beyond the last.
#[inline(always)]
fn load<R: Real>(values: &[R], place: usize) -> Lanes<R> {
    let rest = &values[place..];
    let few: Lanes<R>;
    // Both cases give an address: where they give values, the compiler takes the lanes apart.
    *match rest.first_chunk() {
        Some(chunk) => chunk,
        None => {
            few = filled(|lane| rest.get(lane).copied().unwrap_or_default());
            &few
        }
    }
}

#[inline(always)]
fn store<R: Real>(lanes: &Lanes<R>, values: &mut [R], place: usize) {
    let rest = &mut values[place..];
    match rest.first_chunk_mut() {
        Some(chunk) => *chunk = *lanes,
        None => each(rest, lanes, |to, &lane| *to = lane),
    }
}

impl<R: Real> Spline<R> {
    /// Width of a bin whose fraction is zero, and how much all fractions together add.
    #[inline(always)]
    fn scale(&self) -> [R; 2] {
        let (least, bins) = (R::from_decimal(LEAST), R::from_wide(self.bins as f64));
        let whole = self.bound + self.bound;
        [whole * least, whole * (R::one() - bins * least)]
    }

    /// Softmax of the planes of θ from number `first` on.
    #[inline(always)]
    fn fractions<const MOST: usize>(
        &self,
        theta: &Planes<R>,
        first: usize,
        place: usize,
    ) -> Fractions<R, MOST> {
        let mut fractions = [[R::neg_infinity(); LANES]; MOST];
        for (k, values) in fractions.iter_mut().enumerate().take(self.bins) {
            *values = load(theta.plane(first + k), place);
        }
        // Loops over lanes are vectorised where each passes through all bins, whose number the compiler knows.
        let count = if R::VECTORISED { MOST } else { self.bins };
        let mut most = [R::zero(); LANES];
        for (lane, most) in most.iter_mut().enumerate() {
            *most = fractions[0][lane];
            for values in &fractions[1..count] {
                *most = R::pick(values[lane] > *most, values[lane], *most);
            }
        }
        for values in &mut fractions[..self.bins] {
            each(values, &most, |value, &most| *value = (*value - most).exp_lane());
        }
        fractions[self.bins..].fill([R::zero(); LANES]);
        for lane in 0..LANES {
            let mut sum = R::zero();
            for values in &fractions[..count] {
                sum += values[lane];
            }
            let factor = sum.recip();
            for values in &mut fractions[..count] {
                values[lane] *= factor;
            }
        }
        Fractions(fractions)
    }

    /// The bins that `values` lie in, along x or, for the inverse, along y.
    #[inline(always)]
    fn find<const MOST: usize>(
        &self,
        values: &Lanes<R>,
        [widths, heights]: [&Fractions<R, MOST>; 2],
        theta: &Planes<R>,
        place: usize,
        inverse: bool,
    ) -> Bin<R> {
        let [least, scale] = self.scale();
        let size = |fraction: R| least + scale * fraction;
        let begin = [-self.bound; LANES];
        let (mut x, mut y) = (begin, begin);
        let mut bin = Bin {
            number: [0; LANES],
            x0: begin,
            y0: begin,
            width: filled(|lane| size(widths.0[0][lane])),
            height: filled(|lane| size(heights.0[0][lane])),
            left: [R::zero(); LANES],
            right: load(theta.plane(2 * self.bins), place),
        };
        for k in 1..self.bins {
            let left = load(theta.plane(2 * self.bins + k - 1), place);
            let right = if k + 1 < self.bins {
                load(theta.plane(2 * self.bins + k), place)
            } else {
                [R::zero(); LANES]
            };
            let (before, here) = ([&widths.0[k - 1], &heights.0[k - 1]], [&widths.0[k], &heights.0[k]]);
            for lane in 0..LANES {
                x[lane] += size(before[0][lane]);
                y[lane] += size(before[1][lane]);
                let along = if inverse { y[lane] } else { x[lane] };
                let reached = values[lane] >= along;
                let choose = |new: R, old: R| R::pick(reached, new, old);
                bin.number[lane] += u32::from(reached);
                bin.x0[lane] = choose(x[lane], bin.x0[lane]);
                bin.y0[lane] = choose(y[lane], bin.y0[lane]);
                bin.width[lane] = choose(size(here[0][lane]), bin.width[lane]);
                bin.height[lane] = choose(size(here[1][lane]), bin.height[lane]);
                bin.left[lane] = choose(left[lane], bin.left[lane]);
                bin.right[lane] = choose(right[lane], bin.right[lane]);
            }
        }
        bin
    }

    /// Slopes at the knots of a lane's bin: 1 at both ends of the spline.
    #[inline(always)]
    fn slopes(&self, bin: &Bin<R>, lane: usize) -> [R; 2] {
        let number = bin.number[lane];
        let (left, right) = (slope(bin.left[lane]), slope(bin.right[lane]));
        [R::pick(number == 0, R::one(), left), R::pick(number + 1 == self.bins as u32, R::one(), right)]
    }

    #[inline(always)]
    fn inside(&self, value: R) -> bool {
        value > -self.bound && value < self.bound
    }

    #[inline(always)]
    fn forward_lanes<const MOST: usize>(
        &self,
        theta: &Planes<R>,
        place: usize,
        values: &mut [R],
        log_det: &mut [R],
        saved: &mut Planes<R>,
    ) {
        let x = load(values, place);
        let widths = self.fractions::<MOST>(theta, 0, place);
        let heights = self.fractions::<MOST>(theta, self.bins, place);
        let bin = self.find(&x, [&widths, &heights], theta, place, false);
        let (mut z, mut log_dets) = (x, [R::zero(); LANES]);
        for lane in 0..LANES {
            let at = (x[lane] - bin.x0[lane]) / bin.width[lane];
            let piece = Piece::new(at, bin.height[lane] / bin.width[lane], self.slopes(&bin, lane));
            let y = bin.y0[lane] + bin.height[lane] * (piece.top / piece.bottom);
            let log_slope = piece.log_slope();
            let inside = self.inside(x[lane]);
            z[lane] = R::pick(inside, y, x[lane]);
            log_dets[lane] = R::pick(inside, log_slope, R::zero());
        }
        store(&z, values, place);
        store(&log_dets, log_det, place);
        store(&x, saved.plane_mut(0), place);
        for k in 0..self.bins {
            store(&widths.0[k], saved.plane_mut(1 + k), place);
            store(&heights.0[k], saved.plane_mut(1 + self.bins + k), place);
        }
    }

    #[inline(always)]
    fn inverse_lanes<const MOST: usize>(
        &self,
        theta: &Planes<R>,
        place: usize,
        values: &mut [R],
        log_det: &mut [R],
    ) {
        let z = load(values, place);
        let widths = self.fractions::<MOST>(theta, 0, place);
        let heights = self.fractions::<MOST>(theta, self.bins, place);
        let bin = self.find(&z, [&widths, &heights], theta, place, true);
        let (mut x, mut log_dets) = (z, [R::zero(); LANES]);
        for lane in 0..LANES {
            let slopes = self.slopes(&bin, lane);
            let (height, width) = (bin.height[lane], bin.width[lane]);
            let steepness = height / width;
            let at = solve((z[lane] - bin.y0[lane]) / height, steepness, slopes);
            let log_slope = Piece::new(at, steepness, slopes).log_slope();
            let inside = self.inside(z[lane]);
            x[lane] = R::pick(inside, at * width + bin.x0[lane], z[lane]);
            log_dets[lane] = R::pick(inside, -log_slope, R::zero());
        }
        store(&x, values, place);
        store(&log_dets, log_det, place);
    }

    #[inline(always)]
    fn backward_lanes<const MOST: usize>(
        &self,
        traced: &Traced<R>,
        place: usize,
        d_log_det: &[R],
        values: &mut [R],
        d_theta: &mut Planes<R>,
    ) {
        let Traced { theta, saved, .. } = traced;
        let x = load(saved.plane(0), place);
        let (mut widths, mut heights) =
            (Fractions([[R::zero(); LANES]; MOST]), Fractions([[R::zero(); LANES]; MOST]));
        for k in 0..self.bins {
            widths.0[k] = load(saved.plane(1 + k), place);
            heights.0[k] = load(saved.plane(1 + self.bins + k), place);
        }
        let bin = self.find(&x, [&widths, &heights], theta, place, false);
        let (d_z, d_log_det) = (load(values, place), load(d_log_det, place));
        let zero = [R::zero(); LANES];
        // Gradients at x, and at the bin's corner, size and both d.
        let (mut d_x, mut d_x0, mut d_y0) = (d_z, zero, zero);
        let (mut d_width, mut d_height, mut d_left, mut d_right) = (zero, zero, zero, zero);
        let (one, two) = (R::one(), R::one() + R::one());
        for lane in 0..LANES {
            let inside = self.inside(x[lane]);
            let keep = |gradient: R| R::pick(inside, gradient, R::zero());
            let (width, height) = (bin.width[lane], bin.height[lane]);
            let (d_z, d_log_det) = (d_z[lane], d_log_det[lane]);
            let at = (x[lane] - bin.x0[lane]) / width;
            let piece = Piece::new(at, height / width, self.slopes(&bin, lane));
            let Piece { rest, product, steepness, slopes, excess, top, bottom, rise, .. } = piece;
            let ratio = top / bottom;
            let inverse = bottom.recip();
            let d_top = d_z * height * inverse;
            let d_bottom = -(d_top * ratio + two * d_log_det * inverse);
            let d_rise = d_log_det / rise;
            let turn = one - two * at;
            let d_at = d_top * (two * steepness * at + slopes[0] * turn)
                + d_bottom * excess * turn
                + d_rise * two * (slopes[1] * at + steepness * turn - slopes[0] * rest);
            let d_steepness = d_top * at * at
                + d_bottom * (one - two * product)
                + d_rise * two * product
                + two * d_log_det / steepness;
            let d_slopes =
                [(d_top + d_bottom) * product + d_rise * rest * rest, d_bottom * product + d_rise * at * at];
            d_x[lane] = R::pick(inside, d_at / width, d_z);
            d_x0[lane] = keep(-d_at / width);
            d_width[lane] = keep(-(d_at * at + d_steepness * steepness) / width);
            d_y0[lane] = keep(d_z);
            d_height[lane] = keep(d_z * ratio + d_steepness / width);
            let shift = R::from_wide(UNIT_SLOPE);
            d_left[lane] = keep(d_slopes[0] * sigmoid(bin.left[lane] + shift));
            d_right[lane] = keep(d_slopes[1] * sigmoid(bin.right[lane] + shift));
        }
        store(&d_x, values, place);
        self.fractions_backward(&widths, &bin.number, [&d_x0, &d_width], d_theta, 0, place);
        self.fractions_backward(&heights, &bin.number, [&d_y0, &d_height], d_theta, self.bins, place);
        for k in 1..self.bins {
            let d = filled(|lane| {
                let left = R::pick(bin.number[lane] == k as u32, d_left[lane], R::zero());
                R::pick(bin.number[lane] + 1 == k as u32, d_right[lane], left)
            });
            store(&d, d_theta.plane_mut(2 * self.bins + k - 1), place);
        }
    }

    /// From the gradients at the beginning and the size of a bin to those at the part of θ that both come from: a bin's
    /// beginning is the sum of the sizes before it.
    #[inline(always)]
    fn fractions_backward<const MOST: usize>(
        &self,
        fractions: &Fractions<R, MOST>,
        number: &[u32; LANES],
        [d_begin, d_size]: [&Lanes<R>; 2],
        d_theta: &mut Planes<R>,
        first: usize,
        place: usize,
    ) {
        let [_, scale] = self.scale();
        let d_fraction = |k: usize, lane: usize| {
            let k = k as u32;
            let here = R::pick(k == number[lane], d_size[lane], R::zero());
            R::pick(k < number[lane], d_begin[lane], here)
        };
        let mut mean = [R::zero(); LANES];
        for (k, fractions) in fractions.0.iter().enumerate().take(self.bins) {
            for lane in 0..LANES {
                mean[lane] += fractions[lane] * d_fraction(k, lane);
            }
        }
        for (k, fractions) in fractions.0.iter().enumerate().take(self.bins) {
            let d = filled(|lane| scale * fractions[lane] * (d_fraction(k, lane) - mean[lane]));
            store(&d, d_theta.plane_mut(first + k), place);
        }
    }
}

/// Calls a method with the least of a few capacities that holds the bins; where the loops are not vectorised, there is one.
macro_rules! with_capacity {
    ($spline:expr, $method:ident, $($argument:expr),*) => {
        match $spline.bins {
            0..=8 if const { R::VECTORISED } => $spline.$method::<8>($($argument),*),
            9..=16 if const { R::VECTORISED } => $spline.$method::<16>($($argument),*),
            _ => $spline.$method::<64>($($argument),*),
        }
    };
}

impl<R: Real> Elementwise<R> for Spline<R> {
    /// x, then both fractions of every bin.
    fn saved(&self) -> usize {
        1 + 2 * self.bins
    }

    fn forward(&self, theta: &Planes<R>, values: &mut [R], log_det: &mut [R], saved: &mut Planes<R>) {
        R::vectorised(
            #[inline(always)]
            || {
                for place in (0..values.len()).step_by(LANES) {
                    with_capacity!(self, forward_lanes, theta, place, values, log_det, saved);
                }
            },
        );
    }

    fn inverse(&self, theta: &Planes<R>, values: &mut [R], log_det: &mut [R]) {
        R::vectorised(
            #[inline(always)]
            || {
                for place in (0..values.len()).step_by(LANES) {
                    with_capacity!(self, inverse_lanes, theta, place, values, log_det);
                }
            },
        );
    }

    fn backward(&self, traced: Traced<R>, d_log_det: &[R], values: &mut [R], d_theta: &mut Planes<R>) {
        R::vectorised(
            #[inline(always)]
            || {
                for place in (0..values.len()).step_by(LANES) {
                    with_capacity!(self, backward_lanes, &traced, place, d_log_det, values, d_theta);
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference::spline::{spline_backward, spline_forward, spline_inverse};
    use super::*;
    use crate::random;

    const BOUND: f64 = 3.0;

    /// Numbers between −1 and 1.
    fn numbers(count: usize, seed: u64) -> Vec<f64> {
        let bits = |index| random::philox([index as u32, 0, 0, 0], random::key(seed))[0];
        (0..count).map(|index| 2.0 * f64::from(random::uniform(bits(index))) - 1.0).collect()
    }

    /// Values inside, at the tails' edge and far out, and θ for each of them, of which every fourth is ±50.
    fn case(bins: usize, scale: f64) -> (Vec<f64>, Vec<Vec<f64>>) {
        let mut x: Vec<f64> = numbers(85, 1).iter().map(|value| 3.2 * value).collect();
        x.extend([BOUND, -BOUND, BOUND.next_down(), (-BOUND).next_up(), 1e6, -1e6, 0.0, -0.0]);
        let theta = |row: usize| {
            let mut theta: Vec<f64> =
                numbers(3 * bins - 1, 2 + row as u64).iter().map(|value| scale * value).collect();
            theta.iter_mut().step_by(4).for_each(|value| *value = 50f64.copysign(*value));
            theta
        };
        let theta = (0..x.len()).map(theta).collect();
        (x, theta)
    }

    fn planes<R: Real>(rows: &[Vec<f64>]) -> Planes<R> {
        let mut planes = Planes::default();
        planes.resize(rows[0].len(), rows.len());
        for (k, place) in (0..rows[0].len()).flat_map(|k| (0..rows.len()).map(move |row| (k, row))) {
            planes.plane_mut(k)[place] = R::from_wide(rows[place][k]);
        }
        planes
    }

    fn forward<R: Real>(spline: &Spline<R>, x: &[R], theta: &Planes<R>) -> (Vec<R>, Vec<R>, Planes<R>) {
        let (mut z, mut log_det, mut saved) = (x.to_vec(), vec![R::nan(); x.len()], Planes::default());
        saved.resize(spline.saved(), x.len());
        spline.forward(theta, &mut z, &mut log_det, &mut saved);
        (z, log_det, saved)
    }

    #[test]
    fn values_are_those_of_the_definition() {
        for bins in [2, 3, 8, 13, 64] {
            let spline = Spline { bins, bound: BOUND };
            let (x, theta) = case(bins, 4.0);
            let (z, log_det, _) = forward(&spline, &x, &planes(&theta));
            let (mut back, mut log_det_back) = (z.clone(), vec![f64::NAN; z.len()]);
            spline.inverse(&planes(&theta), &mut back, &mut log_det_back);
            for row in 0..x.len() {
                let want = spline_forward(x[row], &theta[row], BOUND);
                let close = |got: f64, want: f64| (got - want).abs() <= 1e-9 * (1.0 + want.abs());
                let got = [z[row], log_det[row]];
                assert!(
                    close(got[0], want[0]) && close(got[1], want[1]),
                    "{bins}: {} gives {got:?}, {want:?}",
                    x[row]
                );
                let slope = log_det[row].exp().min(1.0);
                let error = (back[row] - x[row]).abs() / x[row].abs().max(BOUND);
                assert!(
                    error <= 16.0 * f64::EPSILON / slope,
                    "{bins}: {} came back as {}",
                    x[row],
                    back[row]
                );
                // The formula as it is published cancels where the slope is small.
                let want = spline_inverse(z[row], &theta[row], BOUND);
                let error = (back[row] - want[0]).abs().max((log_det_back[row] - want[1]).abs());
                assert!(error <= 1e-12 / slope, "{bins}: {} gives {}, {want:?}", z[row], back[row]);
            }
        }
    }

    #[test]
    fn a_theta_of_zero_is_the_identity() {
        let spline = Spline { bins: 8, bound: BOUND };
        let x: Vec<f64> = (-40..=40).map(|i| f64::from(i) / 10.0).collect();
        let (z, log_det, _) = forward(&spline, &x, &planes(&vec![vec![0.0; 23]; x.len()]));
        for ((x, z), log_det) in x.iter().zip(z).zip(log_det) {
            assert!((x - z).abs() < 1e-14 && log_det.abs() < 1e-14, "{x}: {z}, {log_det}");
        }
    }

    #[test]
    fn the_inverse_of_single_precision_is_as_exact_as_its_slope_allows() {
        for (bins, scale) in [(2, 1.0), (5, 4.0), (8, 2.0), (8, 12.0), (64, 4.0)] {
            let spline = Spline { bins, bound: BOUND as f32 };
            let (x, theta) = case(bins, scale);
            let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let planes = planes::<f32>(&theta);
            let (z, log_det, _) = forward(&spline, &x, &planes);
            let (mut back, mut log_det_back) = (z.clone(), vec![f32::NAN; z.len()]);
            spline.inverse(&planes, &mut back, &mut log_det_back);
            for row in 0..x.len() {
                assert!(log_det[row].is_finite() && log_det_back[row].is_finite());
                let slope = f64::from(log_det[row]).exp();
                let scale = BOUND.max(f64::from(x[row]).abs());
                let allowed = 16.0 * f64::from(f32::EPSILON) * scale / slope.min(1.0);
                let error = f64::from(back[row] - x[row]).abs();
                assert!(
                    error <= allowed,
                    "{bins}, {scale}: {} came back as {}, {error} > {allowed}",
                    x[row],
                    back[row]
                );
            }
        }
    }

    #[test]
    fn backward_equals_finite_differences() {
        for bins in [2, 3, 8, 13] {
            let spline = Spline { bins, bound: BOUND };
            let x: Vec<f64> = numbers(40, 9).iter().map(|value| 3.4 * value).collect();
            let theta: Vec<Vec<f64>> = (0..x.len())
                .map(|row| numbers(3 * bins - 1, 50 + row as u64).iter().map(|value| 2.0 * value).collect())
                .collect();
            let d_z = numbers(x.len(), 10);
            let theta_planes = planes(&theta);
            let (z, _, saved) = forward(&spline, &x, &theta_planes);
            let (mut d_x, mut d_theta) = (d_z.clone(), planes(&vec![vec![f64::NAN; 3 * bins - 1]; x.len()]));
            let traced = Traced { theta: &theta_planes, z: &z, saved: &saved };
            spline.backward(traced, &vec![-0.3; x.len()], &mut d_x, &mut d_theta);
            for row in 0..x.len() {
                let (want, want_theta) = spline_backward(d_z[row], -0.3, x[row], &theta[row], BOUND);
                assert!(
                    (d_x[row] - want).abs() < 1e-6 * (1.0 + want.abs()),
                    "{bins}, d_x at {}: {} {want}",
                    x[row],
                    d_x[row]
                );
                for (k, want) in want_theta.iter().enumerate() {
                    let got = d_theta.plane(k)[row];
                    assert!(
                        (got - want).abs() < 1e-6 * (1.0 + want.abs()),
                        "{bins}, d_theta[{k}] at {}: {got} {want}",
                        x[row]
                    );
                }
            }
        }
    }
}
