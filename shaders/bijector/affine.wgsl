// The affine bijector of one feature: raw log-scale o and shift t, with s = c · tanh(o / c).
// Value and log-determinant always come together: .x is the value, .y the log-determinant's share.

fn log_scale(raw: f32, bound: f32) -> f32 {
    return bound * tanh_stable(raw / bound);
}

// z = (x − t) · exp(−s), log |dz/dx| = −s.
fn affine_forward(x: f32, raw: f32, shift: f32, bound: f32) -> vec2<f32> {
    let s = log_scale(raw, bound);
    return vec2<f32>((x - shift) * exp_accurate(-s), -s);
}

// x = z · exp(s) + t, log |dx/dz| = s.
fn affine_inverse(z: f32, raw: f32, shift: f32, bound: f32) -> vec2<f32> {
    let s = log_scale(raw, bound);
    return vec2<f32>(z * exp_accurate(s) + shift, s);
}

// From d_z and the weight of log_det in the loss (d_log_det): .x = d_x, .y = d_raw, .z = d_shift.
fn affine_backward(d_z: f32, d_log_det: f32, z: f32, raw: f32, bound: f32) -> vec3<f32> {
    let d_x = d_z * exp_accurate(-log_scale(raw, bound));
    let d_s = -d_z * z - d_log_det;
    return vec3<f32>(d_x, d_s * tanh_slope(raw / bound), -d_x);
}
