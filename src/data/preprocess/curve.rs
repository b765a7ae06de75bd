//! A monotone curve through knots, after which one column is about normal: what is kept of a kernel density.
//! It follows Johnson's curve; value and slope come together, so that log p is exact for the curve as it is stored.

use super::stage::ColumnMap;
use crate::error::{Error, Result};

/// A curve u → y of quotients of quadratics between knots (Gregory and Delbourgo, "Piecewise rational quadratic
/// interpolation to monotonic data", 1982), with straight lines beyond the first and the last.
#[derive(Clone, Debug, PartialEq)]
pub struct MonotoneCurve {
    knots: Vec<Knot>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knot {
    /// u.
    pub place: f64,
    /// y.
    pub score: f64,
    /// dy/du, positive.
    pub slope: f64,
}

/// The curve between two knots, at the fraction `at` of their distance.
struct Piece {
    at: f64,
    /// Distance of the knots in place and in score, and the latter over the former.
    width: f64,
    height: f64,
    chord: f64,
    left: f64,
    right: f64,
}

impl Piece {
    fn new([left, right]: &[Knot; 2], at: f64) -> Self {
        let (width, height) = (right.place - left.place, right.score - left.score);
        Self { at, width, height, chord: height / width, left: left.slope, right: right.slope }
    }

    /// Fraction of the height, its denominator, and the numerator of the slope; each a sum of positive terms.
    fn parts(&self) -> (f64, f64, f64) {
        let Self { at, chord, left, right, .. } = *self;
        let rest = 1.0 - at;
        let product = at * rest;
        let bottom = chord * (1.0 - 2.0 * product) + (left + right) * product;
        let rise = right * at * at + 2.0 * chord * product + left * rest * rest;
        ((chord * at * at + left * product) / bottom, bottom, rise)
    }

    fn log_slope(&self) -> f64 {
        let (_, bottom, rise) = self.parts();
        rise.ln() + 2.0 * (self.chord / bottom).ln()
    }

    /// Derivative of the logarithm of the slope.
    fn log_slope_derivative(&self) -> f64 {
        let Self { at, width, chord, left, right, .. } = *self;
        let (_, bottom, rise) = self.parts();
        let d_bottom = (left + right - 2.0 * chord) * (1.0 - 2.0 * at);
        let d_rise = 2.0 * (right * at + chord * (1.0 - 2.0 * at) - left * (1.0 - at));
        (d_rise / rise - 2.0 * d_bottom / bottom) / width
    }

    /// The fraction of the distance at which the curve has the fraction `share` of its height: a root of a ξ² + b ξ −
    /// chord · share, with a + b = chord. Both forms of the discriminant and of the root add what has one sign.
    fn solve(&self, share: f64) -> f64 {
        let Self { chord, left, right, .. } = *self;
        let rest = 1.0 - share;
        let outer = left * rest - right * share;
        let (a, b) = (chord * (1.0 - 2.0 * share) - outer, 2.0 * chord * share + outer);
        let discriminant = if a >= 0.0 {
            b * b + 4.0 * a * chord * share
        } else {
            (chord + a).powi(2) - 4.0 * a * chord * rest
        };
        let root = discriminant.sqrt();
        let at = if b >= 0.0 { 2.0 * chord * share / (b + root) } else { (root - b) / (2.0 * a) };
        at.clamp(0.0, 1.0)
    }
}

impl MonotoneCurve {
    /// Most knots of a curve in a model file.
    pub const MOST_KNOTS: usize = 1024;

    /// Slopes, of knots and between them, lie between this and its reciprocal: no product of a few leaves `f64`.
    const LEAST_SLOPE: f64 = 1e-60;

    /// The curve through `knots`, as a model file holds it.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are fewer than 2 knots or too many, a number is not finite, places or scores do not
    /// ascend, or a slope is not positive or too steep or too flat for `f64`.
    pub fn from_knots(knots: Vec<Knot>) -> Result<Self> {
        let fail = |problem: String| Err(Error::Argument(format!("a curve {problem}")));
        if !(2..=Self::MOST_KNOTS).contains(&knots.len()) {
            return fail(format!("needs 2 to {} knots, got {}", Self::MOST_KNOTS, knots.len()));
        }
        let usable = |slope: f64| (Self::LEAST_SLOPE..=1.0 / Self::LEAST_SLOPE).contains(&slope);
        for (index, knot) in knots.iter().enumerate() {
            if ![knot.place, knot.score].iter().all(|number| number.is_finite()) || !usable(knot.slope) {
                return fail(format!("needs finite knots with positive slopes, got {knot:?} at {index}"));
            }
        }
        for (index, [left, right]) in knots.array_windows().enumerate() {
            let ascends = right.place > left.place && right.score > left.score;
            if !ascends || !usable((right.score - left.score) / (right.place - left.place)) {
                return fail(format!("needs knots that ascend, got {left:?} before {right:?} at {index}"));
            }
        }
        Ok(Self { knots })
    }

    /// The curve that changes nothing.
    pub fn identity() -> Self {
        let knot = |place| Knot { place, score: place, slope: 1.0 };
        Self { knots: vec![knot(-1.0), knot(1.0)] }
    }

    /// The knots, from left to right.
    pub fn knots(&self) -> &[Knot] {
        &self.knots
    }

    /// The knots about the place where `of` a knot reaches `value`, or the end that lies beyond.
    fn around(&self, value: f64, of: impl Fn(&Knot) -> f64) -> std::result::Result<&[Knot; 2], &Knot> {
        let (first, last) = (&self.knots[0], &self.knots[self.knots.len() - 1]);
        // A value that is not a number counts as beyond, and stays what it is.
        if value.is_nan() || value < of(first) {
            return Err(first);
        }
        if value >= of(last) {
            return Err(last);
        }
        let right = self.knots.partition_point(|knot| of(knot) <= value);
        Ok(self.knots[right - 1..].first_chunk().expect("invariant: the value lies before the last knot"))
    }

    /// This curve and `next` behind it, exactly so at the knots of both; `None` where slopes leave what a curve may have.
    pub(super) fn then(&self, next: &Self) -> Option<Self> {
        /// Places nearer to each other than this part of the curve's width are one.
        const NEAR: f64 = 1e-9;

        let of_next = next.knots.iter().map(|knot| self.inverse(knot.place));
        let mut places: Vec<f64> = self.knots.iter().map(|knot| knot.place).chain(of_next).collect();
        places.sort_unstable_by(f64::total_cmp);
        let near = NEAR * (places[places.len() - 1] - places[0]);
        places.dedup_by(|right, left| *right - *left <= near);
        let knot = |place: f64| {
            let (between, log_slope) = self.forward(place);
            let (score, next_log_slope) = next.forward(between);
            Knot { place, score, slope: (log_slope + next_log_slope).exp() }
        };
        Self::from_knots(places.into_iter().map(knot).collect()).ok()
    }

    /// u → y, with ln dy/du.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Knot, MonotoneCurve};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let knot = |place, score, slope| Knot { place, score, slope };
    /// let curve = MonotoneCurve::from_knots(vec![knot(-1.0, -2.0, 1.0), knot(0.0, 0.0, 3.0), knot(2.0, 1.0, 0.5)])?;
    /// assert_eq!(curve.forward(0.0), (0.0, 3f64.ln()));
    /// assert_eq!(curve.forward(4.0), (2.0, 0.5f64.ln()));
    /// assert!((curve.inverse(curve.forward(0.7).0) - 0.7).abs() < 1e-12);
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward(&self, u: f64) -> (f64, f64) {
        match self.around(u, |knot| knot.place) {
            Err(end) => (end.score + end.slope * (u - end.place), end.slope.ln()),
            Ok(knots) => {
                let width = knots[1].place - knots[0].place;
                let piece = Piece::new(knots, (u - knots[0].place) / width);
                (knots[0].score + piece.height * piece.parts().0, piece.log_slope())
            }
        }
    }

    /// y → u, finite for every y but NaN.
    pub fn inverse(&self, y: f64) -> f64 {
        match self.around(y, |knot| knot.score) {
            Err(end) => (end.place + (y - end.score) / end.slope).clamp(f64::MIN, f64::MAX),
            Ok(knots) => {
                let piece = Piece::new(knots, 0.0);
                knots[0].place + piece.width * piece.solve((y - knots[0].score) / piece.height)
            }
        }
    }
}

impl ColumnMap for MonotoneCurve {
    fn forward(&self, u: f64) -> (f64, f64) {
        self.forward(u)
    }

    fn inverse(&self, y: f64) -> f64 {
        self.inverse(y)
    }

    fn log_slope_derivative(&self, u: f64) -> f64 {
        match self.around(u, |knot| knot.place) {
            Err(_) => 0.0,
            Ok(knots) => {
                let width = knots[1].place - knots[0].place;
                Piece::new(knots, (u - knots[0].place) / width).log_slope_derivative()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(knots: &[[f64; 3]]) -> Result<MonotoneCurve> {
        let knots = knots.iter().map(|&[place, score, slope]| Knot { place, score, slope });
        MonotoneCurve::from_knots(knots.collect())
    }

    /// Slopes and distances of very different sizes.
    fn rough() -> MonotoneCurve {
        curve(&[
            [-3.0, -5.0, 0.25],
            [-1.0, -2.0, 1.5],
            [-0.999, -1.0, 2e3],
            [0.5, -0.999, 1e-4],
            [0.75, 3.0, 4.0],
            [9.0, 4.0, 0.5],
        ])
        .expect("a curve")
    }

    #[test]
    fn a_curve_passes_its_knots_with_their_slopes_and_is_straight_beyond() {
        let curve = rough();
        for knot in curve.knots() {
            let (score, log_slope) = curve.forward(knot.place);
            assert!((score - knot.score).abs() < 1e-12 && (log_slope - knot.slope.ln()).abs() < 1e-12);
        }
        assert_eq!(curve.forward(-7.0), (-6.0, 0.25f64.ln()));
        assert_eq!(curve.forward(13.0), (6.0, 0.5f64.ln()));
        for u in [-1e9, -2.0, 0.0, 0.5, 7.0] {
            assert_eq!(MonotoneCurve::identity().forward(u), (u, 0.0));
        }
    }

    #[test]
    fn it_rises_everywhere_and_its_inverse_is_within_1e_12_in_the_scores_units() {
        let curve = rough();
        let mut last = f64::NEG_INFINITY;
        for step in 0..200_000 {
            let u = -4.0 + 14.0 * f64::from(step) / 200_000.0;
            let (y, log_slope) = curve.forward(u);
            assert!(y > last && log_slope.is_finite(), "{u}: {y} after {last}");
            last = y;
        }
        for step in 0..20_000 {
            let y = -6.0 + 11.0 * f64::from(step) / 20_000.0;
            let u = curve.inverse(y);
            let (back, log_slope) = curve.forward(u);
            // A steep curve shows the last digit of the place.
            let digit = 2.0 * f64::EPSILON * u.abs() * log_slope.exp();
            assert!((back - y).abs() <= 1e-12 + digit, "{y}: {back:e} from {u}");
        }
    }

    #[test]
    fn two_curves_one_after_the_other_are_one_at_the_knots_of_both() {
        let next = curve(&[[-4.0, -4.5, 1.0], [-0.5, 0.25, 2.0], [3.5, 3.0, 1.0]]).expect("a curve");
        let both = rough().then(&next).expect("a curve");
        assert_eq!(both.knots().len(), 9);
        for u in both.knots().iter().map(|knot| knot.place).chain([-1e3, 1e3]) {
            let ((between, first), got) = (rough().forward(u), both.forward(u));
            let (want, second) = next.forward(between);
            assert!((got.0 - want).abs() < 1e-9 * want.abs().max(1.0), "{u}: {got:?} {want}");
            assert!((got.1 - first - second).abs() < 1e-6, "{u}: {got:?} {}", first + second);
        }
    }

    #[test]
    fn inverses_are_finite_however_far_out() {
        for y in [f64::NEG_INFINITY, f64::MIN, -1e200, 1e200, f64::MAX, f64::INFINITY] {
            let u = rough().inverse(y);
            assert!(u.is_finite() && u * y > 0.0, "{y}: {u}");
        }
        assert!(rough().inverse(f64::NAN).is_nan() && rough().forward(f64::NAN).0.is_nan());
    }

    #[test]
    fn knots_that_make_no_curve_are_refused() {
        for (knots, want) in [
            (&[[0.0, 0.0, 1.0]][..], "needs 2 to 1024 knots, got 1"),
            (&[[0.0; 3]; 2000], "got 2000"),
            (&[[0.0, 0.0, 1.0], [f64::NAN, 1.0, 1.0]], "needs finite knots"),
            (&[[0.0, 0.0, 1.0], [1.0, f64::INFINITY, 1.0]], "needs finite knots"),
            (&[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "with positive slopes"),
            (&[[0.0, 0.0, 1.0], [1.0, 1.0, 1e70]], "at 1"),
            (&[[0.0, 0.0, 1.0], [1.0, 1.0, f64::NAN]], "at 1"),
            (&[[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]], "knots that ascend"),
            (&[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], "knots that ascend"),
            (&[[0.0, 0.0, 1.0], [1e-300, 1.0, 1.0]], "knots that ascend"),
        ] {
            let message = curve(knots).expect_err(want).to_string();
            assert!(message.contains(want), "`{want}` is not in: {message}");
        }
    }
}
