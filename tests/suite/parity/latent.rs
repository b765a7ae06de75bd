//! `shaders/layered/latent.wgsl` against `src/random/normal.rs`: integer arithmetic up to one exact conversion and one
//! product, so every bit is the same.

use moonflow::gpu::kernel::{Access, Binding, Kernel, LATENT_NOISE};
use moonflow::gpu::uniforms::Latent;
use moonflow::random::{self, NORMAL_TABLE};

use super::harness::{Call, Case, POISON, run};
use crate::gpu::context;

pub fn latent_noise() -> Case {
    // Rows, modelled features and context, first row, seed, temperature, workgroups.
    type Size = (u32, [u32; 2], u32, u64, f32, [u32; 2]);
    let sizes: [Size; 8] = [
        (3, [2, 0], 5, 42, 1.0, [1, 1]),
        (1, [1, 0], 0, 0, 1.0, [1, 1]),
        (257, [1, 0], 0, u64::MAX, 0.7, [2, 1]),
        (128, [5, 0], 1_000_000, 0x0123_4567_89AB_CDEF, 1.3, [2, 1]),
        (1000, [7, 0], u32::MAX - 10, 1 << 32, 0.0, [3, 6]),
        (1000, [6, 0], 99, 3, 0.8, [5, 3]),
        (70, [3, 2], 8, 5, 1.0, [1, 1]),
        (70, [2, 1], 8, 6, 0.9, [1, 1]),
    ];
    let call = |(rows, [modelled, context], first_row, seed, temperature, [x, y]): Size| {
        let features = modelled + context;
        let [key_low, key_high] = random::key(seed);
        let uniform = Latent {
            rows,
            features,
            first_row,
            key_low,
            key_high,
            temperature,
            modelled,
            ..Default::default()
        };
        let (mut want, mut places) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let mut noise = vec![0.0; modelled as usize];
            random::normals(first_row.wrapping_add(row), seed, &mut noise);
            want.extend(noise.iter().map(|z| (temperature * z).to_bits()));
            // The context behind it stays what it was.
            places.extend((row * features) as usize..(row * features + modelled) as usize);
        }
        Call::new(
            format!("{rows} × {modelled} + {context} from row {first_row}, seed {seed}:"),
            &uniform,
            [x, y, 1],
        )
        .bind("normal_table", NORMAL_TABLE.as_flattened().to_vec())
        .bind("latent", vec![POISON; (rows * features) as usize + 8])
        .expect_bits("", places, want)
    };
    Case {
        kernel: &LATENT_NOISE,
        factor: 0.0,
        calls: sizes.map(call).into(),
        changes: &[
            ("const STREAM_LATENT = 2u;", "const STREAM_LATENT = 1u;"),
            ("latent_args.first_row + row, block", "row, block"),
            ("latent_args.temperature * normal(words.z, words.w)", "normal(words.z, words.w)"),
            ("normal(words.x, words.y)", "normal(words.y, words.x)"),
            ("(latent_args.modelled + 1u) / 2u", "latent_args.modelled / 2u + 1u"),
            ("(latent_args.modelled + 1u) / 2u", "(latent_args.features + 1u) / 2u"),
            ("2u * block + 1u < latent_args.modelled", "true"),
            ("row >= latent_args.rows", "row > latent_args.rows"),
            ("high & 0x80000000u", "low & 0x80000000u"),
            ("+ 64u) >> 7u", ") >> 7u"),
            ("select(0u, 1u, round_up)", "0u"),
        ],
    }
}

/// Calls `normal` on words of the test's choice.
const NORMALS_OF_WORDS: &str = "
@group(0) @binding(3) var<storage, read> words: array<vec2<u32>>;
@compute @workgroup_size(256)
fn normals_of_words(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&words)) {
        latent[id.x] = normal(words[id.x].x, words[id.x].y);
    }
}";

/// Both signs of 63-bit numbers at and beside every power of two and every segment's borders, and random words.
fn words(random: u32) -> Vec<[u32; 2]> {
    let mut numbers = vec![0, (1 << 63) - 1];
    for octave in 0..63 {
        for segment in 32u64..64 {
            let start = (segment << 57) >> octave;
            numbers.extend([start.saturating_sub(1), start, start + 1]);
        }
    }
    let mut words: Vec<[u32; 2]> = numbers
        .into_iter()
        .flat_map(|u| [u, u | 1 << 63])
        .map(|bits: u64| [bits as u32, (bits >> 32) as u32])
        .collect();
    for i in 0..random / 2 {
        let [a, b, c, d] = random::philox([i, 0, 0, 77], [1, 2]);
        // The second pair is thinned out, so that high octaves occur.
        words.extend([[a, b], [c, d >> (i % 32)]]);
    }
    words
}

/// Places at which the GPU, with `table`, and the CPU differ.
fn mismatches(table: &[[u32; 4]], words: &[[u32; 2]]) -> Option<Vec<usize>> {
    let texts = [LATENT_NOISE.texts, &[NORMALS_OF_WORDS]].concat();
    let kernel: &'static Kernel = Box::leak(Box::new(Kernel {
        name: "normals_of_words",
        texts: texts.leak(),
        bindings: &[
            Binding { number: 1, name: "normal_table", access: Access::Read },
            Binding { number: 2, name: "latent", access: Access::ReadWrite },
            Binding { number: 3, name: "words", access: Access::Read },
        ],
        constants: &[],
    }));
    let call = Call::new("normals of words", &[0u32; 0], [words.len().div_ceil(256) as u32, 1, 1])
        .bind("normal_table", table.as_flattened().to_vec())
        .bind("words", words.as_flattened().to_vec())
        .bind("latent", vec![POISON; words.len()]);
    let got = run(context()?, kernel, &[call]).swap_remove(0);
    assert_eq!(got.len(), words.len());
    let want = |&[low, high]: &[u32; 2]| random::normal(low, high).to_bits();
    Some((0..words.len()).filter(|&at| got[at] != want(&words[at])).collect())
}

#[test]
fn normal_has_the_same_bits_on_the_gpu() {
    let words = words(100_000);
    let Some(wrong) = mismatches(&NORMAL_TABLE, &words) else { return };
    let first: Vec<_> = wrong.iter().take(10).map(|&at| words[at]).collect();
    assert!(wrong.is_empty(), "{} of {} differ, such as those of {first:x?}", wrong.len(), words.len());
}

#[test]
fn normal_on_the_gpu_follows_its_table() {
    let words = words(0);
    for column in 0..4 {
        let mut corrupted = NORMAL_TABLE;
        // In the smallest coefficient this is 2⁻²² of the result at the segment's end, still above its last place.
        corrupted[40][column] ^= 1 << 27;
        let Some(wrong) = mismatches(&corrupted, &words) else { return };
        assert!((1..20).contains(&wrong.len()), "column {column}: {} words changed", wrong.len());
    }
}
