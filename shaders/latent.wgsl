// Latent noise: latent[r, j] = temperature * quantile(random bits of (seed, first_row + r, j)), standard normal.
// One thread makes two neighbouring features of a row from one Philox block; 256 threads a workgroup, on a 2-D grid.
// In: normal_table [64, 32] of cubics. Out: latent [rows, features]; rows * ceil(features / 2) must be below 2^32.
// No barriers and no sums: integers until one exact conversion and one product, so every device gives the same bits.
// Twin: src/random/normal.rs. Follows random.wgsl.

struct Latent {
    rows: u32,
    features: u32,
    first_row: u32,
    key_low: u32,
    key_high: u32,
    temperature: f32,
    padding0: u32,
    padding1: u32,
}

const STREAM_LATENT = 2u;

@group(0) @binding(0) var<uniform> latent_args: Latent;
@group(0) @binding(1) var<storage, read> normal_table: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> latent: array<f32>;

// |z| in units of 2^-28 for the upper-tail probability (high * 2^32 + low) * 2^-65; low is odd.
fn normal_magnitude(low: u32, high: u32) -> u32 {
    // Shift the leading one to the top. The last shift is split, because a shift by 32 is a shift by 0.
    let whole = high == 0u;
    let upper = select(high, low, whole);
    let lower = select(low, 0u, whole);
    let shift = countLeadingZeros(upper);
    let mantissa_high = (upper << shift) | ((lower >> 1u) >> (31u - shift));
    let mantissa_low = lower << shift;
    let octave = shift + select(0u, 32u, whole);
    let segment = (mantissa_high >> 26u) & 31u;
    let t = (mantissa_high << 6u) | (mantissa_low >> 26u);
    let c = normal_table[octave * 32u + segment];
    var slope = c.z - (mul_wide(c.w, t).y >> 7u);
    slope = c.y - (mul_wide(slope, t).y >> 7u);
    return c.x - ((mul_wide(slope, t).y + 64u) >> 7u);
}

// The standard normal number of 64 random bits.
fn normal(low: u32, high: u32) -> f32 {
    let magnitude = normal_magnitude((low << 1u) | 1u, (high << 1u) | (low >> 31u));
    // To f32 by hand, to nearest and ties to even: WGSL leaves the rounding of a conversion open. The sum lets the
    // significand's leading one, and a carry of the rounding, raise the exponent.
    let zeros = countLeadingZeros(magnitude);
    let aligned = magnitude << (zeros & 31u);
    let round_up = (aligned & 0x80u) != 0u && (aligned & 0x17fu) != 0u;
    let bits = ((129u - zeros) << 23u) + (aligned >> 8u) + select(0u, 1u, round_up);
    return bitcast<f32>(select(bits, 0u, magnitude == 0u) | (high & 0x80000000u));
}

@compute @workgroup_size(256)
fn latent_noise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    let blocks = (latent_args.features + 1u) / 2u;
    let row = index / blocks;
    let block = index % blocks;
    if (row >= latent_args.rows) {
        return;
    }
    let key = vec2<u32>(latent_args.key_low, latent_args.key_high);
    let words = philox(vec4<u32>(latent_args.first_row + row, block, 0u, STREAM_LATENT), key);
    let at = row * latent_args.features + 2u * block;
    latent[at] = latent_args.temperature * normal(words.x, words.y);
    if (2u * block + 1u < latent_args.features) {
        latent[at + 1u] = latent_args.temperature * normal(words.z, words.w);
    }
}
