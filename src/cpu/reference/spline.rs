//! The rational-quadratic spline of one feature, by the formulas of Durkan, Bekasov, Murray and Papamakarios, "Neural Spline
//! Flows", 2019, equations 4 to 8.
//!
//! `theta` is (w, h, d): K numbers for the widths of the bins, K for their heights, K − 1 for the slopes at inner knots.

use super::super::Real;

/// Least width and height of a bin as a fraction of all, and least slope at a knot.
const LEAST: f64 = 1e-3;

/// Knots along one axis, K + 1 of them from −bound on.
fn knots<R: Real>(raw: &[R], bound: R) -> Vec<R> {
    let (least, bins) = (R::from_wide(LEAST), R::from_wide(raw.len() as f64));
    let most = raw.iter().fold(R::neg_infinity(), |most, &value| if value > most { value } else { most });
    let sum = raw.iter().fold(R::zero(), |sum, &value| sum + (value - most).exp());
    let mut knot = -bound;
    let sizes = raw.iter().map(|&value| {
        let fraction = (value - most).exp() / sum;
        knot += (bound + bound) * (least + (R::one() - bins * least) * fraction);
        knot
    });
    std::iter::once(-bound).chain(sizes).collect()
}

/// Slopes at all K + 1 knots.
fn slopes<R: Real>(raw: &[R]) -> Vec<R> {
    let unit = R::from_wide((1.0 - LEAST).exp_m1().ln());
    let inner = raw.iter().map(|&d| {
        let x = d + unit;
        R::from_wide(LEAST) + x.max(R::zero()) + (-x.abs()).exp().ln_1p()
    });
    std::iter::once(R::one()).chain(inner).chain([R::one()]).collect()
}

/// The piece of the spline that `value` lies in: corner, size and slopes at its ends.
fn piece<R: Real>(value: R, theta: &[R], bound: R, inverse: bool) -> [R; 6] {
    let bins = theta.len().div_ceil(3);
    let (x, y) = (knots(&theta[..bins], bound), knots(&theta[bins..2 * bins], bound));
    let slopes = slopes(&theta[2 * bins..]);
    let along = if inverse { &y } else { &x };
    let bin = along[1..bins].iter().filter(|&&knot| value >= knot).count();
    [x[bin], y[bin], x[bin + 1] - x[bin], y[bin + 1] - y[bin], slopes[bin], slopes[bin + 1]]
}

/// ln of the slope at the place `at` of a bin's width.
fn log_slope<R: Real>(at: R, steepness: R, [left, right]: [R; 2]) -> R {
    let two = R::one() + R::one();
    let rest = R::one() - at;
    let bottom = steepness + (left + right - two * steepness) * at * rest;
    let rise = right * at * at + two * steepness * at * rest + left * rest * rest;
    two * steepness.ln() + rise.ln() - two * bottom.ln()
}

/// Data → latent: z and ln |dz/dx|.
pub fn spline_forward<R: Real>(x: R, theta: &[R], bound: R) -> [R; 2] {
    if x.abs() >= bound {
        return [x, R::zero()];
    }
    let [x0, y0, width, height, left, right] = piece(x, theta, bound, false);
    let (at, steepness) = ((x - x0) / width, height / width);
    let rest = R::one() - at;
    let two = R::one() + R::one();
    let bottom = steepness + (left + right - two * steepness) * at * rest;
    let z = y0 + height * (steepness * at * at + left * at * rest) / bottom;
    [z, log_slope(at, steepness, [left, right])]
}

/// Latent → data: x and ln |dx/dz|.
pub fn spline_inverse<R: Real>(z: R, theta: &[R], bound: R) -> [R; 2] {
    if z.abs() >= bound {
        return [z, R::zero()];
    }
    let [x0, y0, width, height, left, right] = piece(z, theta, bound, true);
    let (y, steepness) = (z - y0, height / width);
    let two = R::one() + R::one();
    let excess = left + right - two * steepness;
    let a = height * (steepness - left) + y * excess;
    let b = height * left - y * excess;
    let c = -steepness * y;
    let at = two * c / (-b - (b * b - two * two * a * c).max(R::zero()).sqrt());
    [at * width + x0, -log_slope(at, steepness, [left, right])]
}

/// From d_z and d_log_det at x: d_x and d_θ, by central differences of [`spline_forward`] in double precision. Their error is
/// near 1e-9 of the largest, and larger where x is within 1e-5 of a knot.
pub fn spline_backward(d_z: f64, d_log_det: f64, x: f64, theta: &[f64], bound: f64) -> (f64, Vec<f64>) {
    const STEP: f64 = 1e-5;
    let loss = |x: f64, theta: &[f64]| {
        let [z, log_det] = spline_forward(x, theta, bound);
        d_z * z + d_log_det * log_det
    };
    let slope = |low: f64, high: f64| (high - low) / (2.0 * STEP);
    let d_x = slope(loss(x - STEP, theta), loss(x + STEP, theta));
    let d_theta = (0..theta.len())
        .map(|k| {
            let at = |by: f64| {
                let mut moved = theta.to_vec();
                moved[k] += by;
                loss(x, &moved)
            };
            slope(at(-STEP), at(STEP))
        })
        .collect();
    (d_x, d_theta)
}
