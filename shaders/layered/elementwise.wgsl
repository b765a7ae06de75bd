// The bijector of a coupling whose one network yields all numbers of θ, elementwise.
//
// Equation:  a transformed feature goes through the bijector by its own θ, in either direction; log_det_j += its
//            log-determinant. Kept features pass.
// Threads:   one for each transformed feature of a row, then one for each kept feature: neighbours do the same.
// Data:      theta [capacity, T · NUMBERS] for the T transformed features in order; rows, destination and log_dets as in
//            coupling.wgsl.
// Order:     no barriers; log_dets over transforms.
// Twin:      coupling_forward and coupling_inverse in src/cpu/reference/coupling.rs; spline_forward and spline_inverse in
//            src/cpu/reference/spline.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;
@group(0) @binding(8) var<storage, read> theta: array<f32>;

// Number of a thread on a grid of two dimensions.
fn thread_number(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * 256u + local;
}

fn transform_feature(number: u32, inverse: bool) {
    let transformed = layer.features - layer.kept;
    let row = number / transformed;
    if row >= extent.rows {
        return;
    }
    let index = row * layer.features + order[layer.order + layer.kept + number % transformed];
    var numbers: Theta;
    for (var k = 0u; k < NUMBERS; k++) {
        numbers[k] = theta[number * NUMBERS + k];
    }
    var result: vec2<f32>;
    if inverse {
        result = bijector_inverse(rows[index], numbers, layer.bound);
    } else {
        result = bijector_forward(rows[index], numbers, layer.bound);
    }
    destination[index] = result.x;
    add_log_det(index, result.y);
}

fn keep_feature(number: u32) {
    if layer.kept == 0u {
        return;
    }
    let row = number / layer.kept;
    if row >= extent.rows {
        return;
    }
    let index = row * layer.features + order[layer.order + number % layer.kept];
    destination[index] = rows[index];
    pass_log_det(index);
}

fn apply(number: u32, inverse: bool) {
    let transformed = layer.capacity * (layer.features - layer.kept);
    if number < transformed {
        transform_feature(number, inverse);
    } else {
        keep_feature(number - transformed);
    }
}

@compute @workgroup_size(256)
fn elementwise_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    apply(thread_number(group, groups, local), false);
}

@compute @workgroup_size(256)
fn elementwise_inverse(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    apply(thread_number(group, groups, local), true);
}
