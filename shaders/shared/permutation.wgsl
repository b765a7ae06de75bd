// The keyed permutation as a table: for tests of what the kernels of a batch call for each row.
//
// Equation:  places[i] = permute(i, n, key, stream, step), a bijection of 0..n.
// Threads:   one for each index.
// Data:      places [n].
// Order:     no barriers and no sums: integers only, so every device gives the same bits.
// Twin:      permute in src/random/mod.rs. Follows random.wgsl.

struct Permutation {
    n: u32,
    stream: u32,
    step: u32,
    key_low: u32,
    key_high: u32,
    padding0: u32,
    padding1: u32,
    padding2: u32,
}

@group(0) @binding(0) var<uniform> permutation_args: Permutation;
@group(0) @binding(1) var<storage, read_write> places: array<u32>;

@compute @workgroup_size(256)
fn permutation(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    if (index < permutation_args.n) {
        let key = vec2<u32>(permutation_args.key_low, permutation_args.key_high);
        places[index] = permute(index, permutation_args.n, key, permutation_args.stream, permutation_args.step);
    }
}
