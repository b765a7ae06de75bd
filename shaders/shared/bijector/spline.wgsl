// The monotone rational-quadratic spline of one feature: θ = (w, h, d), K = BINS numbers for the widths of the bins, K for
// their heights and K − 1 for the slopes between them, on [−bound, bound]; the identity outside of it.
// Value and log-determinant come together, as in affine.wgsl. Loops have constant bounds, and what depends on the bin is
// chosen in them: once they are unrolled, no index of θ is dynamic and it stays in registers.
// Twin: src/cpu/bijector/spline.rs. Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019.

const NUMBERS: u32 = 3u * BINS - 1u;
const SAVED: u32 = NUMBERS;
const FROM_INPUT: bool = true;

// Least width and height of a bin as a fraction of all, and least slope at a knot.
const LEAST: f32 = 1e-3;
// ln(e^(1 − LEAST) − 1): what softplus takes to 1 − LEAST, so that a d of 0 is a slope of 1.
const UNIT_SLOPE: f32 = 0.539742417;

alias Theta = array<f32, NUMBERS>;

struct BijectorGradient {
    d_x: f32,
    d_theta: Theta,
}

// The bin of a value: its lower left corner, its size, its number, and d at its knots as θ has them.
struct Bin {
    x0: f32,
    y0: f32,
    width: f32,
    height: f32,
    number: u32,
    left: f32,
    right: f32,
}

// The rational quadratic of a bin at the place ξ of its width: y = y0 + height · top / bottom, with the slope
// steepness² · rise / bottom².
struct Piece {
    // ξ · (1 − ξ), and height / width.
    product: f32,
    steepness: f32,
    // Slopes at its knots.
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
    rise: f32,
}

// Puts e^(θ − most) in the place of K numbers of θ, and returns 1 / Σ, which makes a softmax of them.
fn exponentials(theta: ptr<function, Theta>, first: u32) -> f32 {
    var most = (*theta)[first];
    for (var k = 1u; k < BINS; k++) {
        most = max(most, (*theta)[first + k]);
    }
    var sum = 0.0;
    for (var k = 0u; k < BINS; k++) {
        let e = exp_accurate((*theta)[first + k] - most);
        (*theta)[first + k] = e;
        sum += e;
    }
    return 1.0 / sum;
}

// Fractions of the width and the height that bin number `k` has beyond the least, from what exponentials left.
fn bin_fractions(theta: ptr<function, Theta>, factors: vec2<f32>, k: u32) -> vec2<f32> {
    return vec2<f32>((*theta)[k], (*theta)[BINS + k]) * factors;
}

// The bin of a value, from what exponentials left.
fn find_bin(theta: ptr<function, Theta>, factors: vec2<f32>, value: f32, bound: f32, inverse: bool) -> Bin {
    var corner = vec2<f32>(-bound);
    var bin = Bin();
    for (var k = 0u; k < BINS; k++) {
        let size = 2.0 * bound * (LEAST + (1.0 - f32(BINS) * LEAST) * bin_fractions(theta, factors, k));
        if k == 0u || value >= select(corner.x, corner.y, inverse) {
            bin = Bin(corner.x, corner.y, size.x, size.y, k, 0.0, 0.0);
            if k > 0u {
                bin.left = (*theta)[2u * BINS + k - 1u];
            }
            if k + 1u < BINS {
                bin.right = (*theta)[2u * BINS + k];
            }
        }
        corner += size;
    }
    return bin;
}

// ln(1 + eˣ), with what the sum 1 + e loses of e.
fn softplus(x: f32) -> f32 {
    let e = exp_accurate(-abs(x));
    let sum = 1.0 + e;
    return max(x, 0.0) + (ln_accurate(sum) + (e - (sum - 1.0)) / sum);
}

fn knot_slope(d: f32, end: bool) -> f32 {
    return select(LEAST + softplus(d + UNIT_SLOPE), 1.0, end);
}

fn piece_at(at: f32, steepness: f32, left: f32, right: f32) -> Piece {
    let rest = 1.0 - at;
    let product = at * rest;
    return Piece(
        product,
        steepness,
        left,
        right,
        steepness * at * at + left * product,
        steepness * (1.0 - 2.0 * product) + (left + right) * product,
        right * at * at + 2.0 * steepness * product + left * rest * rest,
    );
}

fn piece_of(bin: Bin, at: f32) -> Piece {
    let left = knot_slope(bin.left, bin.number == 0u);
    let right = knot_slope(bin.right, bin.number + 1u == BINS);
    return piece_at(at, bin.height / bin.width, left, right);
}

fn log_slope(piece: Piece) -> f32 {
    let ratio = piece.steepness / piece.bottom;
    return ln_accurate(ratio * ratio * piece.rise);
}

// z on the spline, log |dz/dx|.
fn bijector_forward(x: f32, given: Theta, bound: f32) -> vec2<f32> {
    if !(abs(x) < bound) {
        return vec2<f32>(x, 0.0);
    }
    var theta = given;
    let factors = vec2<f32>(exponentials(&theta, 0u), exponentials(&theta, BINS));
    let bin = find_bin(&theta, factors, x, bound, false);
    let piece = piece_of(bin, (x - bin.x0) / bin.width);
    return vec2<f32>(bin.y0 + bin.height * (piece.top / piece.bottom), log_slope(piece));
}

// The place ξ of a bin's width at the fraction r of its height: the positive root of a ξ² + b ξ − steepness · r, with a + b =
// steepness. Both forms of the discriminant, and both of the root, add what has one sign.
fn spline_root(r: f32, steepness: f32, left: f32, right: f32) -> f32 {
    let rest = 1.0 - r;
    let outer = left * rest - right * r;
    let a = steepness * (1.0 - 2.0 * r) - outer;
    let b = 2.0 * steepness * r + outer;
    let sum = steepness + a;
    let discriminant = select(sum * sum - 4.0 * a * steepness * rest, b * b + 4.0 * a * steepness * r, a >= 0.0);
    let root = sqrt(max(discriminant, 0.0));
    if b >= 0.0 {
        return 2.0 * steepness * r / (b + root);
    }
    return (root - b) / (2.0 * a);
}

// x, log |dx/dz|.
fn bijector_inverse(z: f32, given: Theta, bound: f32) -> vec2<f32> {
    if !(abs(z) < bound) {
        return vec2<f32>(z, 0.0);
    }
    var theta = given;
    let factors = vec2<f32>(exponentials(&theta, 0u), exponentials(&theta, BINS));
    let bin = find_bin(&theta, factors, z, bound, true);
    let steepness = bin.height / bin.width;
    let left = knot_slope(bin.left, bin.number == 0u);
    let right = knot_slope(bin.right, bin.number + 1u == BINS);
    let at = spline_root((z - bin.y0) / bin.height, steepness, left, right);
    return vec2<f32>(at * bin.width + bin.x0, -log_slope(piece_at(at, steepness, left, right)));
}

fn spline_sigmoid(x: f32) -> f32 {
    let e = exp_accurate(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// The gradient at the size of bin `k` for a value in bin `number`: every bin before it moves its beginning.
fn at_bin(k: u32, number: u32, begin: vec2<f32>, own: vec2<f32>) -> vec2<f32> {
    if k > number {
        return vec2<f32>();
    }
    return select(begin, own, k == number);
}

// From d_z, the weight of log_det in the loss, x and θ: d_x and d_θ.
fn bijector_backward(d_z: f32, d_log_det: f32, x: f32, given: Theta, bound: f32) -> BijectorGradient {
    var gradient = BijectorGradient();
    if !(abs(x) < bound) {
        gradient.d_x = d_z;
        return gradient;
    }
    var theta = given;
    let factors = vec2<f32>(exponentials(&theta, 0u), exponentials(&theta, BINS));
    let bin = find_bin(&theta, factors, x, bound, false);
    let at = (x - bin.x0) / bin.width;
    let rest = 1.0 - at;
    let piece = piece_of(bin, at);
    let ratio = piece.top / piece.bottom;
    let d_top = d_z * bin.height / piece.bottom;
    let d_bottom = -(d_top * ratio + 2.0 * d_log_det / piece.bottom);
    let d_rise = d_log_det / piece.rise;
    let turn = 1.0 - 2.0 * at;
    let excess = piece.left + piece.right - 2.0 * piece.steepness;
    let d_at = d_top * (2.0 * piece.steepness * at + piece.left * turn) + d_bottom * excess * turn
        + d_rise * 2.0 * (piece.right * at + piece.steepness * turn - piece.left * rest);
    let d_steepness = d_top * at * at + d_bottom * (1.0 - 2.0 * piece.product) + d_rise * 2.0 * piece.product
        + 2.0 * d_log_det / piece.steepness;
    gradient.d_x = d_at / bin.width;
    // At the beginning and the size of the bin, along x and along y.
    let d_begin = vec2<f32>(-gradient.d_x, d_z);
    let d_size = vec2<f32>(-(d_at * at + d_steepness * piece.steepness), d_z * ratio * bin.width + d_steepness) / bin.width;
    var mean = vec2<f32>();
    for (var k = 0u; k < BINS; k++) {
        mean += at_bin(k, bin.number, d_begin, d_size) * bin_fractions(&theta, factors, k);
    }
    let scale = 2.0 * bound * (1.0 - f32(BINS) * LEAST);
    for (var k = 0u; k < BINS; k++) {
        let d = at_bin(k, bin.number, d_begin, d_size);
        let d_fraction = scale * bin_fractions(&theta, factors, k) * (d - mean);
        gradient.d_theta[k] = d_fraction.x;
        gradient.d_theta[BINS + k] = d_fraction.y;
    }
    let d_left = ((d_top + d_bottom) * piece.product + d_rise * rest * rest) * spline_sigmoid(bin.left + UNIT_SLOPE);
    let d_right = (d_bottom * piece.product + d_rise * at * at) * spline_sigmoid(bin.right + UNIT_SLOPE);
    for (var k = 0u; k + 1u < BINS; k++) {
        gradient.d_theta[2u * BINS + k] = select(select(0.0, d_right, k == bin.number), d_left, k + 1u == bin.number);
    }
    return gradient;
}
