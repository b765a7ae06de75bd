// Standard normal numbers from random bits: a piecewise cubic of the upper-tail probability, in fixed point.
//
// Equation:  |z| = quantile(1 − p/2) with p the 63 random bits below the sign, as a cubic of each of 64 × 32 segments.
// Threads:   none: library text that reads normal_table, which the text that follows binds.
// Data:      normal_table [64, 32] of cubics.
// Order:     no barriers and no sums: integers until one exact conversion, so every device gives the same bits.
// Twin:      src/random/normal.rs. Follows random.wgsl.

struct Latent {
    rows: u32,
    features: u32,
    first_row: u32,
    key_low: u32,
    key_high: u32,
    temperature: f32,
    // Features that get noise: all but the context.
    modelled: u32,
    // Where the parameters of a mixture begin, if the base density is one, and its components.
    base: u32,
    components: u32,
}

const STREAM_LATENT = 2u;

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
