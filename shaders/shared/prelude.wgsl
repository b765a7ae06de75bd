// What every kernel shares: the extent of the rows that hold data, the numbers of activations, and bit tests.

// Rows that a dispatch works on. Kernels are dispatched for a buffer's whole capacity and mask what lies beyond.
struct Extent {
    // Rows of this batch or tile.
    rows: u32,
    // Place of its first row among all rows of the epoch or table.
    first: u32,
}

const RELU: u32 = 0u;
const TANH: u32 = 1u;
const LEAKY_RELU: u32 = 2u;
const SILU: u32 = 3u;
const LEAKY_SLOPE: f32 = 0.01;
// ½ · ln 2π: the constant of a normal density.
const HALF_LN_TAU: f32 = 0.9189385332046727;

// WGSL may assume that no NaN or infinity occurs, so finiteness is read from the exponent's bits.
fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

// eˣ within 1 ulp. The built-in may be off by 3 + 2|x| ulp, and a flow multiplies such errors from coupling to
// coupling. Cody and Waite's reduction x = n · ln 2 + r with |r| ≤ ln 2 / 2, then the series of eʳ to r⁷, whose
// remainder is below 6e-9. A NaN stays one, so that training can see it.
fn exp_accurate(x: f32) -> f32 {
    let n = round(clamp(x, -87.3, 88.7) * 1.44269504);
    let r = (clamp(x, -87.3, 88.7) - n * 0.693359375) + n * 2.12194440e-4;
    let tail = r * r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0))))));
    let value = (1.0 + (r + tail)) * bitcast<f32>(u32(i32(n) + 127) << 23u);
    return select(value, x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u);
}

// ln x of a positive normal number within 1.5 ulp; the built-in may be off by 2⁻²¹ near 1. x = m · 2ᵉ with m between √½ and
// √2, and ln m = 2 artanh s with s = (m − 1) / (m + 1), by its series to s⁹, whose remainder is below 1e-9. What is not
// positive and finite stays as it is, a NaN too, so that training can see it.
fn ln_accurate(x: f32) -> f32 {
    let bits = bitcast<i32>(x);
    let e = (bits - 0x3f3504f3) >> 23u;
    let f = bitcast<f32>(bits - (e << 23u)) - 1.0;
    let s = f / (2.0 + f);
    let q = s * s;
    let tail = q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0))));
    let value = f32(e) * 0.693359375 + (f - (s * (f - 2.0 * tail) + f32(e) * 2.12194440e-4));
    return select(value, x, bits <= 0 || bits >= 0x7f800000);
}

// tanh without overflow for large |x| and without cancellation for small |x|.
fn tanh_stable(x: f32) -> f32 {
    let a = abs(x);
    if a < 0.3 {
        let q = x * x;
        let series = q * (-1.0 / 3.0 + q * (2.0 / 15.0 + q * (-17.0 / 315.0 + q * (62.0 / 2835.0 - q * (1382.0 / 155925.0)))));
        return x + x * series;
    }
    let e = exp_accurate(-2.0 * a);
    return sign(x) * ((1.0 - e) / (1.0 + e));
}

// 1 − tanh² x without the cancellation that saturation brings.
fn tanh_slope(x: f32) -> f32 {
    let e = exp_accurate(-2.0 * abs(x));
    return 4.0 * e / ((1.0 + e) * (1.0 + e));
}
