// Counter-based randomness: Philox4x32-10 and the keyed permutation, in 32-bit integers only, so every device gives the same
// bits. Library text without bindings; each function is pure.
// Twin: philox, mix and permute in src/random/mod.rs

// The 64-bit product of a and b as (low, high) words, from 16-bit halves: WGSL has no wide multiplication.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    // Neither sum overflows: (2^16 - 1)^2 + (2^16 - 1) < 2^32.
    let cross = a_high * b_low + ((a_low * b_low) >> 16u);
    let middle = a_low * b_high + (cross & 0xffffu);
    return vec2<u32>(a * b, a_high * b_high + (cross >> 16u) + (middle >> 16u));
}

// 128 random bits for a 128-bit counter and a 64-bit key.
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let p0 = mul_wide(0xd2511f53u, c.x);
        let p1 = mul_wide(0xcd9e8d57u, c.z);
        c = vec4<u32>(p1.y ^ c.y ^ k.x, p1.x, p0.y ^ c.w ^ k.y, p0.x);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// A 32-bit finaliser with full avalanche.
fn mix_bits(bits: u32) -> u32 {
    var x = (bits ^ (bits >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

// One Feistel round on (left, right).
fn feistel(halves: vec2<u32>, round_key: u32, mask: u32) -> vec2<u32> {
    return vec2<u32>(halves.y, halves.x ^ (mix_bits(halves.y ^ round_key) & mask));
}

// Place `index` < n of the pseudorandom permutation of 0..n chosen by (key, stream, step).
// An index outside of the domain need not end the walk: the caller checks it.
fn permute(index: u32, n: u32, key: vec2<u32>, stream: u32, step: u32) -> u32 {
    if (n < 2u) {
        return 0u;
    }
    let half_bits = (33u - countLeadingZeros(n - 1u)) / 2u;
    let mask = (1u << half_bits) - 1u;
    let low = philox(vec4<u32>(0u, 0u, step, stream), key);
    let high = philox(vec4<u32>(1u, 0u, step, stream), key);
    var value = index;
    loop {
        var halves = vec2<u32>(value >> half_bits, value & mask);
        halves = feistel(halves, low.x, mask);
        halves = feistel(halves, low.y, mask);
        halves = feistel(halves, low.z, mask);
        halves = feistel(halves, low.w, mask);
        halves = feistel(halves, high.x, mask);
        halves = feistel(halves, high.y, mask);
        halves = feistel(halves, high.z, mask);
        halves = feistel(halves, high.w, mask);
        value = (halves.x << half_bits) | halves.y;
        if (value < n) {
            break;
        }
    }
    return value;
}
