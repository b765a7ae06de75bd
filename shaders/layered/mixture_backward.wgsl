// A Gaussian mixture backward: where the gradient of −log p begins, and the gradients of the mixture's parameters.
//
// Equation:  with w_k = r_k · y_k: d_z = Σ_k A_kᵀ · w_k, zero at the context, which is passed on (through.wgsl);
//            d_mean_k = −Σ_rows A_kᵀ · w_k, d_lower_kij = Σ_rows w_ki · (z − mean_k)_j,
//            d_log_diagonal_ki = Σ_rows (w_ki · (z − mean_k)_i · exp(log_diagonal_ki) − r_k),
//            d_logit_k = Σ_rows (factor · π_k − r_k).
// Threads:   the first input_groups workgroups take d_z, a feature of a row to a thread. Then, for each split of the rows, a
//            workgroup takes logit and mean of a component, and others the entries of all A_k, one to a thread.
// Data:      source is z [capacity, D]; whitened has y and r (mixture.wgsl); partials [splits, P]; d_coupling as in
//            through.wgsl.
// Order:     sums over increasing component and feature, or over increasing row; two barriers for each 256 features.
// Twin:      backward in src/cpu/reference/mixture.rs, then coupling_backward in src/cpu/reference/coupling.rs

@group(0) @binding(5) var<storage, read> whitened: array<f32>;
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

// Σ_rows w_ki of 256 features i.
var<workgroup> sums: array<f32, 256>;

// w_ki.
fn weighted(k: u32, row: u32, i: u32) -> f32 {
    return whitened[responsibility_at(k, row)] * whitened[whitened_at(k, row, i)];
}

fn centred(k: u32, row: u32, j: u32) -> f32 {
    return source[row * layer.features + j] - parameters[mean_at(k, j)];
}

fn row_gradient(index: u32) {
    let row = index / layer.features;
    let feature = index % layer.features;
    if row >= extent.rows {
        return;
    }
    var sum = 0.0;
    // None where the feature is context.
    for (var k = 0u; k < layer.components; k++) {
        for (var i = feature; i < layer.modelled; i++) {
            sum += factor_entry(k, i, feature) * weighted(k, row, i);
        }
    }
    pass_through(row, feature, sum);
}

// Rows of a split: its first, and the one behind its last.
fn split_rows(split: u32) -> vec2<u32> {
    let begin = split * layer.rows_per_split;
    return vec2<u32>(begin, min(extent.rows, begin + layer.rows_per_split));
}

// d_mean_k, from Σ_rows w_k.
fn put_mean_gradient(local: u32, k: u32, split: u32) {
    let rows = split_rows(split);
    for (var first_j = 0u; first_j < layer.modelled; first_j += 256u) {
        let j = first_j + local;
        var pulled = 0.0;
        // A_k is triangular: features before j do not reach it.
        for (var first_i = first_j; first_i < layer.modelled; first_i += 256u) {
            var sum = 0.0;
            for (var row = rows.x; first_i + local < layer.modelled && row < rows.y; row++) {
                sum += weighted(k, row, first_i + local);
            }
            sums[local] = sum;
            workgroupBarrier();
            for (var i = max(first_i, j); i < min(first_i + 256u, layer.modelled); i++) {
                pulled += factor_entry(k, i, j) * sums[i - first_i];
            }
            workgroupBarrier();
        }
        if j < layer.modelled {
            partials[split * layer.parameters + mean_at(k, j)] = -pulled;
        }
    }
}

fn put_logit_gradient(k: u32, split: u32) {
    let rows = split_rows(split);
    let weight = exp_or_zero(logit(k) - log_weight_sum(layer.components));
    var sum = 0.0;
    for (var row = rows.x; row < rows.y; row++) {
        sum += row_factor(row) * weight - whitened[responsibility_at(k, row)];
    }
    partials[split * layer.parameters + layer.weight + k] = sum;
}

// d of entry number `entry` of all A_k, of which those above a diagonal have none.
fn put_entry_gradient(entry: u32, split: u32) {
    let j = entry % layer.modelled;
    let i = entry / layer.modelled % layer.modelled;
    let k = entry / layer.modelled / layer.modelled;
    if k >= layer.components || j > i {
        return;
    }
    let rows = split_rows(split);
    let base = split * layer.parameters;
    var sum = 0.0;
    if i == j {
        let diagonal = factor_entry(k, i, i);
        for (var row = rows.x; row < rows.y; row++) {
            sum += weighted(k, row, i) * centred(k, row, i) * diagonal - whitened[responsibility_at(k, row)];
        }
        partials[base + log_diagonal_at(k, i)] = sum;
    } else {
        for (var row = rows.x; row < rows.y; row++) {
            sum += weighted(k, row, i) * centred(k, row, j);
        }
        partials[base + lower_at(k, i, j)] = sum;
    }
}

@compute @workgroup_size(256)
fn mixture_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group.y * groups.x + group.x;
    if number < layer.input_groups {
        row_gradient(number * 256u + local);
        return;
    }
    if FACTOR == SCORE {
        return;
    }
    let splits = (layer.capacity + layer.rows_per_split - 1u) / layer.rows_per_split;
    let entry_groups = (layer.components * layer.modelled * layer.modelled + 255u) / 256u;
    let place = number - layer.input_groups;
    let split = place % splits;
    let task = place / splits;
    if task < layer.components {
        put_mean_gradient(local, task, split);
        if local == 0u {
            put_logit_gradient(task, split);
        }
    } else if task < layer.components + entry_groups {
        put_entry_gradient((task - layer.components) * 256u + local, split);
    }
}
