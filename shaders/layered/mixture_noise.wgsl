// Latent rows drawn from a Gaussian mixture, from which sampling begins.
//
// Equation:  z = mean_k + A_k⁻¹ · ε, with ε the noise of latent.wgsl, times the temperature, and k chosen by random bits of
//            (seed, first_row + r).
// Threads:   one for each row, for every number needs those before it.
// Data:      normal_table [64, 32] of cubics; latent [rows, D], of which the context after the M modelled features is left as
//            it is; parameters from latent_args.base on as in mixture.wgsl.
// Order:     no barriers; sums over increasing feature.
// Twin:      choose and place in src/cpu/reference/mixture.rs. Follows random.wgsl and normal.wgsl.

const STREAM_COMPONENT = 10u;

@group(0) @binding(0) var<uniform> latent_args: Latent;
@group(0) @binding(1) var<storage, read> normal_table: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> latent: array<f32>;
@group(0) @binding(3) var<storage, read> parameters: array<f32>;

fn logit(k: u32) -> f32 {
    return parameters[latent_args.base + k];
}

@compute @workgroup_size(64)
fn mixture_noise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.y * groups.x + group.x) * 64u + local;
    if row >= latent_args.rows {
        return;
    }
    let key = vec2<u32>(latent_args.key_low, latent_args.key_high);
    let bits = philox(vec4<u32>(latent_args.first_row + row, 0u, 0u, STREAM_COMPONENT), key);
    let k = choose_component(f32(bits.x >> 8u) * (1.0 / 16777216.0), latent_args.components);
    let size = latent_args.modelled;
    let at = row * latent_args.features;
    let mean = latent_args.base + latent_args.components + k * size;
    let log_diagonal = mean + latent_args.components * size;
    let lower = latent_args.base + latent_args.components * (1u + 2u * size) + k * size * size;
    var words = vec4<u32>();
    for (var i = 0u; i < size; i++) {
        if i % 2u == 0u {
            words = philox(vec4<u32>(latent_args.first_row + row, i / 2u, 0u, STREAM_LATENT), key);
        } else {
            words = words.zwxy;
        }
        var known = 0.0;
        for (var j = 0u; j < i; j++) {
            known += parameters[lower + i * size + j] * latent[at + j];
        }
        let noise = latent_args.temperature * normal(words.x, words.y);
        latent[at + i] = (noise - known) * exp_accurate(-parameters[log_diagonal + i]);
    }
    for (var i = 0u; i < size; i++) {
        latent[at + i] += parameters[mean + i];
    }
}
