// The rows of a batch: gathered in the epoch's random order, or taken in sequence.
//
// Equation:  batch[r] = data[π(first + r)], π the epoch's permutation (random.wgsl), or the identity.
// Threads:   a workgroup takes some 256 numbers, but 8 rows at least: a thread for each row finds its source, then all copy
//            features side by side.
// Data:      data [N, D], or the rows of it from rules.shard_first on that a buffer holds: others are left to the
//            dispatches over the other buffers; batch [capacity, D].
// Order:     one barrier between finding and copying; nothing is summed.
// Twin:      gather in src/cpu/batch.rs

const EPOCH_STREAM: u32 = 1u;

@group(0) @binding(0) var<uniform> rules: Rules;
@group(0) @binding(1) var<storage, read> state: TrainState;
@group(0) @binding(2) var<storage, read> extent: Extent;
@group(0) @binding(3) var<storage, read> data: array<f32>;
@group(0) @binding(4) var<storage, read_write> batch: array<f32>;

var<workgroup> sources: array<u32, 256>;

// Rows of a workgroup; copy_groups in src/gpu/plan.rs.
fn rows_of_group() -> u32 {
    return max(8u, 256u / rules.features);
}

fn first_of(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return (group.y * groups.x + group.x) * rows_of_group();
}

fn copy_rows(begin: u32, local: u32, rows: u32) {
    let count = min(rows_of_group(), rows - min(rows, begin)) * rules.features;
    for (var i = local; i < count; i += 256u) {
        let source = sources[i / rules.features] - rules.shard_first;
        if source < arrayLength(&data) / rules.features {
            batch[begin * rules.features + i] = data[source * rules.features + i % rules.features];
        }
    }
}

@compute @workgroup_size(256)
fn gather(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_of(group, groups);
    let row = first + local;
    if local < rows_of_group() && row < state.rows {
        let key = vec2<u32>(rules.key_low, rules.key_high);
        sources[local] = permute(state.first + row, rules.train_rows, key, EPOCH_STREAM, state.epoch);
    }
    workgroupBarrier();
    copy_rows(first, local, state.rows);
}

@compute @workgroup_size(256)
fn take(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_of(group, groups);
    sources[local] = extent.first + first + local;
    workgroupBarrier();
    copy_rows(first, local, extent.rows);
}
