// The log-density of each row under a flow whose base density is a Gaussian mixture, and each component's part in it.
//
// Equation:  t_k = ln π_k + Σ_i log_diagonal_ki − ½ |y_k|² − M/2 · ln 2π with π the softmax of the logits;
//            log p(x) = log_det + ln Σ_k exp(t_k), log_det = Σ_j log_det_j; r_k = factor · exp(t_k) / Σ_l exp(t_l).
// Threads:   a row takes `lanes` neighbouring threads of a workgroup of 256 (a power of two), each every lanes-th component.
// Data:      whitened as mixture_whiten leaves it; log_dets [capacity, D]; log_det and log_prob [capacity]; d_coupling holds the
//            rows' factors (factor.wgsl). mixture_responsibilities leaves r where mixture.wgsl says.
// Order:     y over increasing feature, log_dets lane by lane; over lanes by a fixed tree.
// Twin:      log_density in src/cpu/reference/mixture.rs

const LOWEST: f32 = -3.4e38;

@group(0) @binding(5) var<storage, read_write> whitened: array<f32>;
@group(0) @binding(8) var<storage, read> d_coupling: array<f32>;

// t_k, but for what is the same for all components.
fn term(row: u32, k: u32) -> f32 {
    var squares = 0.0;
    var diagonal = 0.0;
    for (var i = 0u; i < layer.modelled; i++) {
        let y = whitened[whitened_at(k, row, i)];
        squares += y * y;
        diagonal += parameters[log_diagonal_at(k, i)];
    }
    return logit(k) + diagonal - 0.5 * squares;
}

// ln Σ_k exp(t_k) of a row, on all of its lanes.
fn log_sum_of(local: u32, row: u32, lane: u32) -> f32 {
    var largest = LOWEST;
    if row < extent.rows {
        for (var k = lane; k < layer.components; k += layer.lanes) {
            largest = max(largest, term(row, k));
        }
    }
    largest = max_lanes(local, layer.lanes, largest);
    var sum = 0.0;
    if row < extent.rows {
        for (var k = lane; k < layer.components; k += layer.lanes) {
            sum += exp_or_zero(term(row, k) - largest);
        }
    }
    let total = spread_lanes(local, layer.lanes, sum_lanes(local, layer.lanes, sum));
    // So far out that every term has overflown, log p does too, and training sees it.
    return select(largest + ln_accurate(total), 2.0 * largest, total == 0.0);
}

fn density(determinant: f32, log_sum: f32) -> f32 {
    return determinant + (log_sum - log_weight_sum(layer.components) - f32(layer.modelled) * HALF_LN_TAU);
}

@compute @workgroup_size(256)
fn mixture_density(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group.x, local);
    let lane = local % layer.lanes;
    let determinant = sum_lanes(local, layer.lanes, sum_log_dets(row, lane));
    let log_sum = log_sum_of(local, row, lane);
    if lane == 0u && row < extent.rows {
        log_det[row] = determinant;
        log_prob[row] = density(determinant, log_sum);
    }
}

@compute @workgroup_size(256)
fn mixture_responsibilities(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_of(group.x, local);
    let lane = local % layer.lanes;
    let determinant = sum_lanes(local, layer.lanes, sum_log_dets(row, lane));
    let log_sum = log_sum_of(local, row, lane);
    if lane == 0u && row < extent.rows {
        log_prob[row] = density(determinant, log_sum);
    }
    if row < extent.rows {
        for (var k = lane; k < layer.components; k += layer.lanes) {
            whitened[responsibility_at(k, row)] = row_factor(row) * exp_or_zero(term(row, k) - log_sum);
        }
    }
}
