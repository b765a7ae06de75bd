// The affine bijector of one feature: θ = (o, t), a raw log-scale and a shift, with s = c · tanh(o / c).
// What every bijector text defines: the three constants and the three functions below. Value and log-determinant come
// together: .x is the value, .y the feature's share of the log-determinant.
// Twin: src/cpu/bijector/affine.rs

// Numbers of θ; those of them, the first ones, that the backward pass reads; and whether it reads x instead of z.
const NUMBERS: u32 = 2u;
const SAVED: u32 = 1u;
const FROM_INPUT: bool = false;

alias Theta = array<f32, NUMBERS>;

struct BijectorGradient {
    d_x: f32,
    d_theta: Theta,
}

fn log_scale(raw: f32, bound: f32) -> f32 {
    return bound * tanh_stable(raw / bound);
}

// z = (x − t) · exp(−s), log |dz/dx| = −s.
fn bijector_forward(x: f32, theta: Theta, bound: f32) -> vec2<f32> {
    let s = log_scale(theta[0], bound);
    return vec2<f32>((x - theta[1]) * exp_accurate(-s), -s);
}

// x = z · exp(s) + t, log |dx/dz| = s.
fn bijector_inverse(z: f32, theta: Theta, bound: f32) -> vec2<f32> {
    let s = log_scale(theta[0], bound);
    return vec2<f32>(z * exp_accurate(s) + theta[1], s);
}

// From d_z, the weight of log_det in the loss, the result z (or x, see FROM_INPUT) and the first SAVED numbers of θ: d_x,
// and d_θ = (d_o, d_t).
fn bijector_backward(d_z: f32, d_log_det: f32, z: f32, theta: Theta, bound: f32) -> BijectorGradient {
    let d_x = d_z * exp_accurate(-log_scale(theta[0], bound));
    let d_s = -d_z * z - d_log_det;
    return BijectorGradient(d_x, Theta(d_s * tanh_slope(theta[0] / bound), -d_x));
}
