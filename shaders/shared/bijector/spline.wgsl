// The monotone rational-quadratic spline of one feature: θ = (w, h, d), K = BINS numbers for the widths of the bins, K for
// their heights and K − 1 for the slopes between them, on [−bound, bound]; the identity outside of it.
// Value and log-determinant come together, as in affine.wgsl.
// Twin: src/cpu/bijector/spline.rs. Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019.

const PARAMETERS: u32 = 3u * BINS - 1u;
const SAVED: u32 = PARAMETERS;
const FROM_INPUT: bool = true;

// Least width and height of a bin as a fraction of all, and least slope at a knot.
const LEAST: f32 = 1e-3;
// ln(e^(1 − LEAST) − 1): what softplus takes to 1 − LEAST, so that a d of 0 is a slope of 1.
const UNIT_SLOPE: f32 = 0.539742417;

alias Theta = array<f32, PARAMETERS>;

struct BijectorGradient {
    d_x: f32,
    d_theta: Theta,
}

// Softmax of K numbers of θ: e^(θ − most) · factor.
struct Fractions {
    most: f32,
    factor: f32,
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

fn fractions(theta: ptr<function, Theta>, first: u32) -> Fractions {
    var most = (*theta)[first];
    for (var k = 1u; k < BINS; k++) {
        most = max(most, (*theta)[first + k]);
    }
    var sum = 0.0;
    for (var k = 0u; k < BINS; k++) {
        sum += exp_accurate((*theta)[first + k] - most);
    }
    return Fractions(most, 1.0 / sum);
}

// Width or height of bin number `k`.
fn bin_size(theta: ptr<function, Theta>, first: u32, k: u32, fractions: Fractions, bound: f32) -> f32 {
    let fraction = exp_accurate((*theta)[first + k] - fractions.most) * fractions.factor;
    return 2.0 * bound * (LEAST + (1.0 - f32(BINS) * LEAST) * fraction);
}

fn find_bin(theta: ptr<function, Theta>, sizes: array<Fractions, 2>, value: f32, bound: f32, inverse: bool) -> Bin {
    var x = -bound;
    var y = -bound;
    var bin = Bin();
    for (var k = 0u; k < BINS; k++) {
        let width = bin_size(theta, 0u, k, sizes[0], bound);
        let height = bin_size(theta, BINS, k, sizes[1], bound);
        if k == 0u || value >= select(x, y, inverse) {
            bin = Bin(x, y, width, height, k, 0.0, 0.0);
        }
        x += width;
        y += height;
    }
    if bin.number > 0u {
        bin.left = (*theta)[2u * BINS + bin.number - 1u];
    }
    if bin.number + 1u < BINS {
        bin.right = (*theta)[2u * BINS + bin.number];
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
    let sizes = array<Fractions, 2>(fractions(&theta, 0u), fractions(&theta, BINS));
    let bin = find_bin(&theta, sizes, x, bound, false);
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
    let sizes = array<Fractions, 2>(fractions(&theta, 0u), fractions(&theta, BINS));
    let bin = find_bin(&theta, sizes, z, bound, true);
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

// From d_z, the weight of log_det in the loss, x and θ: d_x and d_θ.
fn bijector_backward(d_z: f32, d_log_det: f32, x: f32, given: Theta, bound: f32) -> BijectorGradient {
    var gradient = BijectorGradient();
    if !(abs(x) < bound) {
        gradient.d_x = d_z;
        return gradient;
    }
    var theta = given;
    let sizes = array<Fractions, 2>(fractions(&theta, 0u), fractions(&theta, BINS));
    let bin = find_bin(&theta, sizes, x, bound, false);
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
    for (var k = 0u; k <= bin.number; k++) {
        let d = select(d_begin, d_size, k == bin.number);
        mean += d * spline_fractions(&theta, sizes, k);
    }
    let scale = 2.0 * bound * (1.0 - f32(BINS) * LEAST);
    for (var k = 0u; k < BINS; k++) {
        var d = vec2<f32>();
        if k <= bin.number {
            d = select(d_begin, d_size, k == bin.number);
        }
        let d_fraction = scale * spline_fractions(&theta, sizes, k) * (d - mean);
        gradient.d_theta[k] = d_fraction.x;
        gradient.d_theta[BINS + k] = d_fraction.y;
    }
    if bin.number > 0u {
        let d_left = (d_top + d_bottom) * piece.product + d_rise * rest * rest;
        gradient.d_theta[2u * BINS + bin.number - 1u] = d_left * spline_sigmoid(bin.left + UNIT_SLOPE);
    }
    if bin.number + 1u < BINS {
        let d_right = d_bottom * piece.product + d_rise * at * at;
        gradient.d_theta[2u * BINS + bin.number] = d_right * spline_sigmoid(bin.right + UNIT_SLOPE);
    }
    return gradient;
}

// Fractions of the width and the height that bin number `k` has beyond the least.
fn spline_fractions(theta: ptr<function, Theta>, sizes: array<Fractions, 2>, k: u32) -> vec2<f32> {
    return vec2<f32>(
        exp_accurate((*theta)[k] - sizes[0].most) * sizes[0].factor,
        exp_accurate((*theta)[BINS + k] - sizes[1].most) * sizes[1].factor,
    );
}
