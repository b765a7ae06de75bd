// Each feature's share of log_det, summed over transforms; the first transform begins it. [capacity, D].

@group(0) @binding(7) var<storage, read_write> shares: array<f32>;

fn add_share(index: u32, value: f32) {
    if layer.begins == 1u {
        shares[index] = value;
    } else {
        shares[index] += value;
    }
}

// The share of a feature that passes.
fn pass_share(index: u32) {
    if layer.begins == 1u {
        shares[index] = 0.0;
    }
}
