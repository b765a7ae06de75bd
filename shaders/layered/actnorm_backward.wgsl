// Activation normalisation backward, from z = (x − b) · exp(−s).
//
// Equation:  d_x = d_z · exp(−s), d_b = −Σ_rows d_x, d_s = Σ_rows (factor − d_z · z); d_x is passed on (through.wgsl).
// Threads:   a workgroup of 256 takes `lanes` features and the rows of a split: 256 / lanes threads share a feature.
// Data:      source is x [capacity, D], of which z is computed anew; partials [splits, P]; d_coupling as in through.wgsl,
//            d_z and then d_x.
// Order:     sums over rows thread by thread, then by a fixed tree over threads.
// Twin:      actnorm_backward in src/cpu/actnorm.rs, then coupling_backward in src/cpu/reference/coupling.rs

@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn actnorm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let feature = group.x * layer.lanes + local % layer.lanes;
    let begin = group.y * layer.rows_per_split;
    let end = min(extent.rows, begin + layer.rows_per_split);
    let modelled = feature < layer.modelled;
    var shift = 0.0;
    var shrink = 1.0;
    if modelled {
        shift = parameters[layer.weight + feature];
        shrink = exp_accurate(-parameters[layer.bias + feature]);
    }
    var sum = vec2<f32>();
    if feature < layer.features {
        for (var row = begin + local / layer.lanes; row < end; row += 256u / layer.lanes) {
            let index = row * layer.features + feature;
            let d_z = d_coupling[index];
            let d_x = d_z * shrink;
            let z = (source[index] - shift) * shrink;
            sum += vec2<f32>(-d_x, row_factor(row) - d_z * z);
            pass_through(row, feature, d_x);
        }
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var stride = 128u; stride >= layer.lanes; stride /= 2u) {
        if local < stride {
            sums[local] += sums[local + stride];
        }
        workgroupBarrier();
    }
    if FACTOR != SCORE && local < layer.lanes && modelled {
        let base = group.y * layer.parameters;
        partials[base + layer.weight + feature] = sums[local].x;
        partials[base + layer.bias + feature] = sums[local].y;
    }
}
