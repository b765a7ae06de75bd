// The log-density of each row under the flow.
//
// Equation:  log p(x) = log_det − ½ Σ_j z_j² − D/2 · ln 2π, in nats, for the standard normal base.
// Threads:   a row takes `lanes` neighbouring threads of a workgroup of 256 (a power of two).
// Data:      latent z [capacity, D], log_det [capacity]; log_prob [capacity].
// Order:     squares are summed lane by lane over increasing feature, then over lanes by a fixed tree.
// Twin:      src/cpu/loss.rs

const HALF_LN_TAU: f32 = 0.9189385332046727;

struct Density {
    features: u32,
    lanes: u32,
    padding0: u32,
    padding1: u32,
}

@group(0) @binding(0) var<uniform> density: Density;
@group(0) @binding(1) var<storage, read> extent: Extent;
@group(0) @binding(2) var<storage, read> latent: array<f32>;
@group(0) @binding(3) var<storage, read> log_det: array<f32>;
@group(0) @binding(4) var<storage, read_write> log_prob: array<f32>;

@compute @workgroup_size(256)
fn log_density(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.x * (256u / density.lanes) + local / density.lanes;
    let lane = local % density.lanes;
    var share = 0.0;
    if row < extent.rows {
        for (var j = lane; j < density.features; j += density.lanes) {
            let z = latent[row * density.features + j];
            share += z * z;
        }
    }
    let squares = sum_lanes(local, density.lanes, share);
    if lane == 0u && row < extent.rows {
        log_prob[row] = log_det[row] - 0.5 * squares - f32(density.features) * HALF_LN_TAU;
    }
}
