// Where a backward kernel hands its input's gradient on: to the coupling before it, elementwise, where THROUGH is 1, or
// as it is. dL/dlog_det is the row's factor (factor.wgsl), negative.
// source holds that coupling's output z.

@group(0) @binding(7) var<storage, read> saved: array<f32>;
// [1 + NUMBERS, capacity, D]: the gradient between transforms, then that of θ, the latter only at
// transformed features; after these planes the rows' factors [capacity].
@group(0) @binding(8) var<storage, read_write> d_coupling: array<f32>;

fn pass_through(row: u32, feature: u32, d_z: f32) {
    let index = row * layer.features + feature;
    if THROUGH == 0u || order[layer.through + layer.features + feature] == 1u {
        d_coupling[index] = d_z;
        return;
    }
    let plane = layer.capacity * layer.features;
    var theta: Theta;
    for (var k = 0u; k < SAVED; k++) {
        theta[k] = saved[k * plane + index];
    }
    var gradient = bijector_backward(d_z, -row_factor(row), source[index], theta, layer.through_bound);
    d_coupling[index] = gradient.d_x;
    for (var k = 0u; k < NUMBERS; k++) {
        d_coupling[(1u + k) * plane + index] = gradient.d_theta[k];
    }
}
