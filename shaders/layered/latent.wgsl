// Latent noise, from which sampling begins.
//
// Equation:  latent[r, j] = temperature · quantile(random bits of (seed, first_row + r, j)), standard normal.
// Threads:   one for two neighbouring features of a row, from one Philox block.
// Data:      normal_table [64, 32] of cubics; latent [rows, D], of which the context after the M modelled features is left as
//            it is; rows · ⌈M / 2⌉ must be below 2³².
// Order:     no barriers and no sums: integers until one exact conversion and one product, so every device gives the same
//            bits.
// Twin:      normals in src/random/normal.rs. Follows random.wgsl and normal.wgsl.

@group(0) @binding(0) var<uniform> latent_args: Latent;
@group(0) @binding(1) var<storage, read> normal_table: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> latent: array<f32>;

@compute @workgroup_size(256)
fn latent_noise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let blocks = (latent_args.modelled + 1u) / 2u;
    let row = index / blocks;
    let block = index % blocks;
    if (row >= latent_args.rows) {
        return;
    }
    let key = vec2<u32>(latent_args.key_low, latent_args.key_high);
    let words = philox(vec4<u32>(latent_args.first_row + row, block, 0u, STREAM_LATENT), key);
    let at = row * latent_args.features + 2u * block;
    latent[at] = latent_args.temperature * normal(words.x, words.y);
    if (2u * block + 1u < latent_args.modelled) {
        latent[at + 1u] = latent_args.temperature * normal(words.z, words.w);
    }
}
