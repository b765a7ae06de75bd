// The affine coupling: kept features pass, transformed features go through the bijector.
//
// Equation:  forward z_b = (x_b − t) · exp(−s), log_det −= Σ_b s;  inverse x_b = z_b · exp(s) + t, log_det += Σ_b s;
//            backward, for the loss mean(−log p): d_t = −d_z · exp(−s), d_s = 1/rows − d_z · z, d_x = d_z · exp(−s).
// Threads:   a row takes `lanes` neighbouring threads of a workgroup of 256 (a power of two); backward takes a thread
//            for each element.
// Data:      raw [2, capacity, D]: raw log-scale o and shift t; source, destination [capacity, D]; log_det [capacity].
// Order:     log_det is summed lane by lane over increasing feature, then over lanes by a fixed tree.
// Twin:      src/cpu/coupling.rs

struct Coupling {
    features: u32,
    // Offset of this coupling's mask in masks.
    mask: u32,
    capacity: u32,
    // Threads that share a row.
    lanes: u32,
    bound: f32,
    // 1 where log_det starts at zero instead of being added to.
    first: u32,
    // 1 for the coupling whose output is the latent variable: its d_z is z / rows.
    last: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> coupling: Coupling;
@group(0) @binding(1) var<storage, read> extent: Extent;
@group(0) @binding(2) var<storage, read> masks: array<f32>;
@group(0) @binding(3) var<storage, read> raw: array<f32>;
@group(0) @binding(4) var<storage, read> source: array<f32>;
@group(0) @binding(5) var<storage, read_write> destination: array<f32>;
@group(0) @binding(6) var<storage, read_write> log_det: array<f32>;
@group(0) @binding(7) var<storage, read> d_network: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_raw: array<f32>;

fn transform_row(group: u32, local: u32, inverse: bool) {
    let row = group * (256u / coupling.lanes) + local / coupling.lanes;
    let lane = local % coupling.lanes;
    let plane = coupling.capacity * coupling.features;
    var share = 0.0;
    if row < extent.rows {
        for (var j = lane; j < coupling.features; j += coupling.lanes) {
            let index = row * coupling.features + j;
            let value = source[index];
            if masks[coupling.mask + j] == 1.0 {
                destination[index] = value;
            } else {
                var moved: vec2<f32>;
                if inverse {
                    moved = affine_inverse(value, raw[index], raw[plane + index], coupling.bound);
                } else {
                    moved = affine_forward(value, raw[index], raw[plane + index], coupling.bound);
                }
                destination[index] = moved.x;
                share += moved.y;
            }
        }
    }
    let total = sum_lanes(local, coupling.lanes, share);
    if lane == 0u && row < extent.rows {
        if coupling.first == 1u {
            log_det[row] = total;
        } else {
            log_det[row] += total;
        }
    }
}

@compute @workgroup_size(256)
fn coupling_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    transform_row(group.x, local, false);
}

@compute @workgroup_size(256)
fn coupling_inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    transform_row(group.x, local, true);
}

// Here source is the coupling's output z, destination carries d_z in and d_x's direct part out, and d_network
// [2, capacity, D] is what the following coupling's networks add to d_z.
@compute @workgroup_size(256)
fn coupling_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let plane = coupling.capacity * coupling.features;
    if index >= extent.rows * coupling.features {
        return;
    }
    let z = source[index];
    let per_row = 1.0 / f32(extent.rows);
    var d_z = z * per_row;
    if coupling.last == 0u {
        d_z = destination[index] + d_network[index] + d_network[plane + index];
    }
    if masks[coupling.mask + index % coupling.features] == 1.0 {
        destination[index] = d_z;
        d_raw[index] = 0.0;
        d_raw[plane + index] = 0.0;
    } else {
        let gradient = affine_backward(d_z, -per_row, z, raw[index], coupling.bound);
        destination[index] = gradient.x;
        d_raw[index] = gradient.y;
        d_raw[plane + index] = gradient.z;
    }
}
