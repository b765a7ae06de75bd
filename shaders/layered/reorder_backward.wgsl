// A permutation of the features backward.
//
// Equation:  d_x_i = d_z_{inverse[i]}, which is passed on (through.wgsl).
// Threads:   one for each feature of a row.
// Data:      d_output is d_z [capacity, D], source x; D places of the inverse at layer.order in order; d_coupling as in
//            through.wgsl.
// Order:     no barriers and no sums.
// Twin:      reorder_backward in tests/suite/parity/reorder.rs, then coupling_backward in src/cpu/reference/coupling.rs

@group(0) @binding(5) var<storage, read> d_output: array<f32>;

@compute @workgroup_size(256)
fn reorder_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let row = index / layer.features;
    if row >= extent.rows {
        return;
    }
    let feature = index % layer.features;
    pass_through(row, feature, d_output[row * layer.features + order[layer.order + feature]]);
}
