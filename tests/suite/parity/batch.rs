//! `shaders/training/batch.wgsl` against `src/cpu/batch.rs`: rows are copied, so their bits are the same.

use std::ops::Range;

use moonflow::cpu::batch::gather as cpu_gather;
use moonflow::gpu::kernel::{GATHER, TAKE};
use moonflow::gpu::plan::copy_groups;
use moonflow::gpu::uniforms::{Extent, Rules, TrainState};
use moonflow::random::{self, Stream};

use super::harness::{Call, Case, POISON, bits, random as values};

/// (features, rows in the table, first row of the batch, rows of the batch, capacity).
const SIZES: [(usize, usize, usize, usize, usize); 7] = [
    (2, 7, 2, 3, 4),
    (3, 1, 0, 1, 1),
    (5, 130, 64, 63, 64),
    (3, 129, 64, 65, 65),
    // More rows than a workgroup takes; the second one is not full.
    (12, 1000, 300, 300, 310),
    (33, 600, 513, 87, 512),
    (2, 257, 0, 257, 257),
];

/// Workgroups for so many rows, on a grid of two lines.
fn on_two_lines(rows: usize, features: usize) -> [u32; 3] {
    let [groups, ..] = copy_groups(rows, features);
    [groups.div_ceil(2), 2, 1]
}

pub fn gather() -> Case {
    let call = |(features, table, first, rows, capacity): (usize, usize, usize, usize, usize)| {
        let (seed, epoch) = (0x0123_4567_89AB_CDEF ^ table as u64, first as u32 + 3);
        let data = values(table * features, 9.0, 1);
        let mut batch = vec![f32::NAN; rows * features];
        cpu_gather(features, first, seed, epoch, &data, &mut batch);
        let [key_low, key_high] = random::key(seed);
        let rules = Rules {
            train_rows: table as u32,
            batch: capacity as u32,
            features: features as u32,
            key_low,
            key_high,
            ..Default::default()
        };
        let state =
            TrainState { rows: rows as u32, first: first as u32, epoch, step: 77, ..Default::default() };
        Call::new(
            format!("rows {first} + {rows} of {table} × {features}:"),
            &rules,
            on_two_lines(capacity, features),
        )
        .record("state", &state)
        .values("data", &data, data.len())
        .bind("batch", vec![POISON; capacity * features])
        .expect_bits("", 0..rows * features, bits(&batch))
    };
    // A buffer that holds some of the table's rows: only those are written.
    let part = |(features, table, first, rows, shard): (usize, usize, usize, usize, Range<usize>)| {
        let (seed, epoch) = (99 + table as u64, 4);
        let data = values(table * features, 9.0, 1);
        let [key_low, key_high] = random::key(seed);
        let rules = Rules {
            train_rows: table as u32,
            features: features as u32,
            key_low,
            key_high,
            shard_first: shard.start as u32,
            ..Default::default()
        };
        let state = TrainState { rows: rows as u32, first: first as u32, epoch, ..Default::default() };
        let (mut places, mut want) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let place = (first + row) as u32;
            let source = random::permute(place, table as u32, seed, Stream::Epoch, epoch) as usize;
            if shard.contains(&source) {
                places.extend(row * features..(row + 1) * features);
                want.extend_from_slice(&data[source * features..(source + 1) * features]);
            }
        }
        let held = &data[shard.start * features..shard.end * features];
        Call::new(format!("rows {shard:?} of {table} × {features}:"), &rules, on_two_lines(rows, features))
            .record("state", &state)
            .values("data", held, held.len())
            .bind("batch", vec![POISON; rows * features])
            .expect_bits("", places, bits(&want))
    };
    let parts = [(3, 130, 60, 65, 0..50), (3, 130, 60, 65, 50..100), (5, 300, 0, 300, 290..300)].map(part);
    Case {
        kernel: &GATHER,
        factor: 0.0,
        calls: SIZES.map(call).into_iter().chain(parts).collect(),
        changes: &[
            ("const EPOCH_STREAM: u32 = 1u;", "const EPOCH_STREAM: u32 = 2u;"),
            ("key, EPOCH_STREAM, state.epoch)", "key, EPOCH_STREAM, state.step)"),
            ("vec2<u32>(rules.key_low, rules.key_high)", "vec2<u32>(rules.key_high, rules.key_low)"),
            ("permute(state.first + row,", "permute(row,"),
            ("copy_rows(first, local, state.rows);", "copy_rows(first, local, state.rows - 1u);"),
            ("copy_rows(first, local, state.rows);", "copy_rows(first, local, rules.batch);"),
            ("+ i % rules.features]", "+ (i + 1u) % rules.features]"),
            ("- rules.shard_first", ""),
            ("if source < arrayLength(&data) / rules.features", "if true"),
            ("batch[begin * rules.features + i]", "batch[i]"),
            ("min(rows_of_group(), rows - min(rows, begin))", "min(rows_of_group(), rows)"),
            ("max(8u, 256u / rules.features)", "min(8u, 256u / rules.features)"),
            ("(group.y * groups.x + group.x)", "group.x"),
        ],
    }
}

pub fn take() -> Case {
    let call = |(features, table, first, rows, capacity): (usize, usize, usize, usize, usize)| {
        let data = values(table * features, 9.0, 2);
        let rules = Rules { train_rows: 5, features: features as u32, ..Default::default() };
        Call::new(
            format!("rows {first} + {rows} of {table} × {features}:"),
            &rules,
            on_two_lines(capacity, features),
        )
        .record("extent", &Extent { rows: rows as u32, first: first as u32 })
        .values("data", &data, data.len())
        .bind("batch", vec![POISON; capacity * features])
        .expect_bits(
            "",
            0..rows * features,
            bits(&data[first * features..(first + rows) * features]),
        )
    };
    Case {
        kernel: &TAKE,
        factor: 0.0,
        calls: SIZES.map(call).into(),
        changes: &[
            ("extent.first + first + local;", "first + local;"),
            ("extent.first + first + local;", "extent.first + local;"),
            ("copy_rows(first, local, extent.rows);", "copy_rows(first, local, extent.rows + 1u);"),
        ],
    }
}
