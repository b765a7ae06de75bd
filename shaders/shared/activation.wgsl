// The conditioner's nonlinearities and their derivatives, both as functions of the pre-activation.

fn sigmoid(x: f32) -> f32 {
    let e = exp_accurate(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn activate(code: u32, x: f32) -> f32 {
    switch code {
        case RELU: { return max(x, 0.0); }
        case TANH: { return tanh_stable(x); }
        case LEAKY_RELU: { return select(LEAKY_SLOPE * x, x, x > 0.0); }
        case SILU: { return x * sigmoid(x); }
        // No activation has another number.
        default: { return 0.0; }
    }
}

fn activation_slope(code: u32, x: f32) -> f32 {
    switch code {
        case RELU: { return select(0.0, 1.0, x > 0.0); }
        case TANH: { return tanh_slope(x); }
        case LEAKY_RELU: { return select(LEAKY_SLOPE, 1.0, x > 0.0); }
        case SILU: {
            let s = sigmoid(x);
            return s * (1.0 + x * (1.0 - s));
        }
        default: { return 0.0; }
    }
}
