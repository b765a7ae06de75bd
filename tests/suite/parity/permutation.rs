//! `shaders/shared/permutation.wgsl` against `src/random/mod.rs`: integers, so every word is the same.

use moonflow::gpu::kernel::PERMUTE;
use moonflow::gpu::uniforms::Permutation;
use moonflow::random::{self, Stream};

use super::harness::{Call, Case, POISON};

pub fn permutation() -> Case {
    let sizes: [(u32, Stream, u32, u64, [u32; 2]); 9] = [
        (1, Stream::Epoch, 0, 0, [1, 1]),
        (2, Stream::Epoch, 1, 9, [1, 1]),
        (3, Stream::Split, 0, 1 << 40, [1, 1]),
        (5, Stream::Masks, 7, 3, [1, 1]),
        (256, Stream::Epoch, 2, 3, [1, 1]),
        (257, Stream::Epoch, u32::MAX, 3, [2, 1]),
        (4097, Stream::Epoch, 3, u64::MAX, [5, 4]),
        // Only the first places are computed; half the words' bits are 16.
        (3_000_000_000, Stream::Epoch, 0, 5, [2, 1]),
        (u32::MAX, Stream::Epoch, 0, 5, [2, 1]),
    ];
    let call = |(n, stream, step, seed, [x, y]): (u32, Stream, u32, u64, [u32; 2])| {
        let [key_low, key_high] = random::key(seed);
        let uniform = Permutation { n, stream: stream as u32, step, key_low, key_high, ..Default::default() };
        let computed = n.min(x * y * 256);
        let want = (0..computed).map(|index| random::permute(index, n, seed, stream, step)).collect();
        // Where all places fit, there is room beyond that must stay as it is.
        let room = if computed == n { 8 } else { 0 };
        Call::new(format!("n = {n}:"), &uniform, [x, y, 1])
            .bind("places", vec![POISON; computed as usize + room])
            .expect_bits("", 0..computed as usize, want)
    };
    Case {
        kernel: &PERMUTE,
        factor: 0.0,
        calls: sizes.map(call).into(),
        changes: &[
            (
                "vec2<u32>(permutation_args.key_low, permutation_args.key_high)",
                "vec2<u32>(permutation_args.key_low, 0u)",
            ),
            ("(33u - countLeadingZeros(n - 1u)) / 2u", "(32u - countLeadingZeros(n - 1u)) / 2u"),
            ("feistel(halves, high.w, mask)", "feistel(halves, high.z, mask)"),
            ("0x7feb352du", "0x7feb352fu"),
            ("vec4<u32>(1u, 0u, step, stream)", "vec4<u32>(1u, 0u, 0u, stream)"),
            ("index < permutation_args.n", "index <= permutation_args.n"),
            ("(middle >> 16u))", "0u)"),
            ("round < 10u", "round < 9u"),
            ("(group.y * groups.x + group.x) * 256u", "group.x * 256u"),
        ],
    }
}
