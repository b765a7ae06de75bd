// The bijector of a coupling whose one network yields all numbers of θ, backward, elementwise.
//
// Equation:  from d_z and θ of a transformed feature, d_x and d_θ, where dL/dlog_det is the row's factor (factor.wgsl), negative.
// Threads:   one for each transformed feature of a row.
// Data:      source is the coupling's input x or its result z [capacity, D], as the bijector's FROM_INPUT says; theta as in
//            elementwise.wgsl, of which the first SAVED numbers are read, and d_theta like it; d_coupling [capacity, D] is
//            d_z, then d_x, which at kept features is the same so far.
// Order:     no barriers and no sums.
// Twin:      coupling_backward in src/cpu/reference/coupling.rs; spline_backward in src/cpu/reference/spline.rs

@group(0) @binding(5) var<storage, read> theta: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_coupling: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_theta: array<f32>;

@compute @workgroup_size(256)
fn elementwise_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = (group.y * groups.x + group.x) * 256u + local;
    let transformed = layer.features - layer.kept;
    let row = number / transformed;
    if row >= extent.rows {
        return;
    }
    let index = row * layer.features + order[layer.order + layer.kept + number % transformed];
    var numbers: Theta;
    for (var k = 0u; k < SAVED; k++) {
        numbers[k] = theta[number * NUMBERS + k];
    }
    var gradient = bijector_backward(d_coupling[index], -row_factor(row), source[index], numbers, layer.bound);
    d_coupling[index] = gradient.d_x;
    for (var k = 0u; k < NUMBERS; k++) {
        d_theta[number * NUMBERS + k] = gradient.d_theta[k];
    }
}
