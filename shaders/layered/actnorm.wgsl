// Activation normalisation: a shift and a scale for each modelled feature. The context passes.
//
// Equation:  forward z = (x − b) · exp(−s), log_det_j −= s; inverse x = z · exp(s) + b, log_det_j += s.
// Threads:   one for each feature of a row.
// Data:      rows, destination, log_dets as in coupling.wgsl; b at layer.weight and s at layer.bias in parameters.
// Order:     no barriers and no sums.
// Twin:      actnorm_forward and actnorm_inverse in src/cpu/actnorm.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;

fn normalise(group: vec3<u32>, groups: vec3<u32>, local: u32, inverse: bool) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let row = index / layer.features;
    let feature = index % layer.features;
    if row >= extent.rows {
        return;
    }
    var value = rows[index];
    var log_det = 0.0;
    if feature < layer.modelled {
        let shift = parameters[layer.weight + feature];
        let s = parameters[layer.bias + feature];
        if inverse {
            value = value * exp_accurate(s) + shift;
            log_det = s;
        } else {
            value = (value - shift) * exp_accurate(-s);
            log_det = -s;
        }
    }
    destination[index] = value;
    add_log_det(index, log_det);
}

@compute @workgroup_size(256)
fn actnorm_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    normalise(group, groups, local, false);
}

@compute @workgroup_size(256)
fn actnorm_inverse(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    normalise(group, groups, local, true);
}
