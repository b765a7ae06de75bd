// The log-density of each row under the flow, and the log-determinant that is a part of it.
//
// Equation:  log_det = Σ_j log_det_j; log p(x) = log_det − ½ Σ_j z_j² − M/2 · ln 2π, in nats, for the standard normal
//            base, over the M modelled features; those after them are context.
// Threads:   a row takes `lanes` neighbouring threads of a workgroup of 256 (a power of two).
//            log_density_backward also starts the backward pass: d_z = factor · z (factor.wgsl), zero at the context, passed
//            on as in through.wgsl.
// Data:      log_dets, log_det of each feature, and source, the latent z [capacity, D]; log_det, log_prob
//            [capacity]; saved and d_coupling as in through.wgsl.
// Order:     log_dets and squares are summed lane by lane over increasing feature, then over lanes by a fixed tree.
// Twin:      negative_log_likelihood and negative_log_likelihood_backward in src/cpu/loss.rs, then coupling_backward in
//            src/cpu/reference/coupling.rs

// Each thread's part of Σ_j z_j².
fn sum_squares(row: u32, lane: u32) -> f32 {
    var sum = 0.0;
    if row < extent.rows {
        for (var j = lane; j < layer.modelled; j += layer.lanes) {
            let z = source[row * layer.features + j];
            sum += z * z;
        }
    }
    return sum;
}

fn density(determinant: f32, squares: f32) -> f32 {
    return determinant - 0.5 * squares - f32(layer.modelled) * HALF_LN_TAU;
}

fn latent_gradient(row: u32, feature: u32) -> f32 {
    if feature >= layer.modelled {
        return 0.0;
    }
    let z = source[row * layer.features + feature];
    if FACTOR == MEAN {
        return z / f32(extent.rows);
    }
    return row_factor(row) * z;
}

@compute @workgroup_size(256)
fn log_determinant(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group.x, local);
    let lane = local % layer.lanes;
    let determinant = sum_lanes(local, layer.lanes, sum_log_dets(row, lane));
    if lane == 0u && row < extent.rows {
        log_det[row] = determinant;
    }
}

@compute @workgroup_size(256)
fn log_density(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group.x, local);
    let lane = local % layer.lanes;
    let determinant = sum_lanes(local, layer.lanes, sum_log_dets(row, lane));
    let squares = sum_lanes(local, layer.lanes, sum_squares(row, lane));
    if lane == 0u && row < extent.rows {
        log_det[row] = determinant;
        log_prob[row] = density(determinant, squares);
    }
}

@compute @workgroup_size(256)
fn log_density_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group.x, local);
    let lane = local % layer.lanes;
    let determinant = sum_lanes(local, layer.lanes, sum_log_dets(row, lane));
    let squares = sum_lanes(local, layer.lanes, sum_squares(row, lane));
    if lane == 0u && row < extent.rows {
        log_prob[row] = density(determinant, squares);
    }
    if row < extent.rows {
        for (var j = lane; j < layer.features; j += layer.lanes) {
            pass_through(row, j, latent_gradient(row, j));
        }
    }
}
