// An LU layer inverted, z to x, by substitution: first L · y = z − bias, then U · x = y. The context passes.
//
// Equation:  y_i = z_i − bias_i − Σ_{j<i} L_ij · y_j; x_i = (y_i − Σ_{j>i} U_ij · x_j) · exp(−log_diagonal_i), which takes y_i's
//            place; log_det_j −= log_diagonal_j.
// Threads:   one for each row, for every number needs those before it.
// Data:      rows z, destination x [capacity, D]; log_dets as in coupling.wgsl; parameters from layer.weight on are lower and
//            upper [M, M], log_diagonal and bias [M].
// Order:     no barriers; sums over increasing features.
// Twin:      inverse in src/cpu/reference/lu.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;

@compute @workgroup_size(64)
fn lu_inverse(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.y * groups.x + group.x) * 64u + local;
    if row >= extent.rows {
        return;
    }
    let size = layer.modelled;
    let first = row * layer.features;
    let upper = layer.weight + size * size;
    let log_diagonal = upper + size * size;
    let bias = log_diagonal + size;
    for (var i = 0u; i < size; i++) {
        var known = 0.0;
        for (var j = 0u; j < i; j++) {
            known += parameters[layer.weight + i * size + j] * destination[first + j];
        }
        destination[first + i] = rows[first + i] - parameters[bias + i] - known;
    }
    for (var left = size; left > 0u; left--) {
        let i = left - 1u;
        var known = 0.0;
        for (var j = left; j < size; j++) {
            known += parameters[upper + i * size + j] * destination[first + j];
        }
        let diagonal = parameters[log_diagonal + i];
        destination[first + i] = (destination[first + i] - known) * exp_accurate(-diagonal);
        add_log_det(first + i, -diagonal);
    }
    for (var i = size; i < layer.features; i++) {
        destination[first + i] = rows[first + i];
        pass_log_det(first + i);
    }
}
