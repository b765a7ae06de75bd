// A permutation of the features, in either direction.
//
// Equation:  destination_j = rows_{order[j]}; the inverse is given the order of the inverse. log_det is 0.
// Threads:   one for each feature of a row.
// Data:      rows, destination, log_dets as in coupling.wgsl; D places at layer.order in order.
// Order:     no barriers and no sums.
// Twin:      reorder in tests/suite/parity/reorder.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;

@compute @workgroup_size(256)
fn reorder(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let row = index / layer.features;
    if row >= extent.rows {
        return;
    }
    destination[index] = rows[row * layer.features + order[layer.order + index % layer.features]];
    pass_log_det(index);
}
