// Latent rows as each component of a mixture sees them: standard normal, if they were drawn from it.
//
// Equation:  y_k = A_k · (z − mean_k).
// Threads:   one for each number of y.
// Data:      source is z [capacity, D]; whitened as in mixture.wgsl.
// Order:     no barriers; sums over increasing feature.
// Twin:      whiten in src/cpu/reference/mixture.rs

@group(0) @binding(5) var<storage, read_write> whitened: array<f32>;

@compute @workgroup_size(256)
fn mixture_whiten(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let i = index % layer.modelled;
    let row = index / layer.modelled % layer.capacity;
    let k = index / layer.modelled / layer.capacity;
    if row >= extent.rows || k >= layer.components {
        return;
    }
    let first = row * layer.features;
    var sum = 0.0;
    for (var j = 0u; j < i; j++) {
        sum += parameters[lower_at(k, i, j)] * (source[first + j] - parameters[mean_at(k, j)]);
    }
    sum += factor_entry(k, i, i) * (source[first + i] - parameters[mean_at(k, i)]);
    whitened[whitened_at(k, row, i)] = sum;
}
