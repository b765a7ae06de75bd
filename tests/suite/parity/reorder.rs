//! `shaders/layered/reorder.wgsl` and `reorder_backward.wgsl` against the definition of a permutation.

use moonflow::gpu::kernel::{REORDER, REORDER_BACKWARD};
use moonflow::gpu::plan::groups_of_256;
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, bits, poisoned, random};
use super::layer::{Before, Factor, order};
use crate::common::wide;

/// (features, rows, capacity): less than a workgroup, and several.
const SIZES: [(usize, usize, usize); 4] = [(5, 130, 133), (3, 3, 5), (2, 1, 1), (33, 64, 70)];

/// Where each feature comes from; no power of it below the third is the identity, but for two features.
fn permutation(features: usize) -> Vec<usize> {
    (0..features).map(|to| (to + features.div_ceil(3)) % features).collect()
}

fn call((features, rows, capacity): (usize, usize, usize), uniform: uniforms::Layer, mask: &[bool]) -> Call {
    let uniform = uniforms::Layer {
        capacity: capacity as u32,
        features: features as u32,
        // Beside the last of three transforms.
        order: 6 * features as u32,
        ..uniform
    };
    let mut order = order(&[mask]);
    order.extend(permutation(features).into_iter().map(|from| from as u32));
    let label = format!("{rows} of {capacity} rows of {features}:");
    Call::new(label, &uniform, groups_of_256(capacity * features))
        .record("extent", &uniforms::Extent { rows: rows as u32, first: 9 })
        .bind("order", order)
}

/// Number `from[j]` of each row at its place j.
fn moved<T: Copy>(values: &[T], from: &[usize]) -> Vec<T> {
    values.chunks_exact(from.len()).flat_map(|row| from.iter().map(|&from| row[from])).collect()
}

pub fn reorder() -> Case {
    let calls = SIZES.into_iter().flat_map(|size| {
        [true, false].map(|begins| {
            let (features, rows, capacity) = size;
            let values = random(rows * features, 3.0, features as u64);
            let log_dets = random(rows * features, 3.0, 9);
            let all = 0..rows * features;
            let uniform = uniforms::Layer { begins: u32::from(begins), ..Default::default() };
            let call = call(size, uniform, &vec![true; features])
                .values("rows", &values, capacity * features)
                .bind("destination", vec![POISON; capacity * features])
                .expect_bits("", all.clone(), bits(&moved(&values, &permutation(features))))
                .values("log_dets", &log_dets, capacity * features);
            if begins { call.expect_bits("", all.clone(), vec![0; all.len()]) } else { call }
        })
    });
    Case {
        kernel: &REORDER,
        factor: 1.0,
        calls: calls.collect(),
        changes: &[
            ("order[layer.order + index % layer.features]", "order[index % layer.features]"),
            ("rows[row * layer.features + order", "rows[order"),
            ("if row >= extent.rows {", "if row >= layer.capacity {"),
            ("pass_log_det(index);", ""),
            (
                "if layer.begins == 1u {\n        log_dets[index] = 0.0;",
                "if true {\n        log_dets[index] = 0.0;",
            ),
        ],
    }
}

pub fn reorder_backward() -> Case {
    let forms =
        [(true, Factor::Mean), (false, Factor::Mean), (true, Factor::Weighted), (true, Factor::Score)];
    let calls = forms.into_iter().flat_map(|(passes, factor)| {
        SIZES.map(|size| {
            let (features, rows, capacity) = size;
            let d_z = random(rows * features, 1.0, 5);
            let d_x = moved(&d_z, &permutation(features));
            let before = Before { factor, ..Before::new(rows, features, features, rows as u64) };
            let words = capacity * features;
            let call = call(size, before.uniform(capacity), &before.mask)
                .constants(&[("THROUGH", u32::from(passes)), factor.constant()])
                .values("source", &before.z, words)
                .values("saved", &before.raw, words)
                .bind("d_output", poisoned(&d_z, words));
            before.expect(call, passes, (capacity, features), vec![POISON; words], (&wide(&d_x), &d_x))
        })
    });
    Case {
        kernel: &REORDER_BACKWARD,
        factor: 4.0,
        calls: calls.collect(),
        changes: &[
            ("order[layer.order + feature]", "order[feature]"),
            ("d_output[row * layer.features + order", "d_output[order"),
            ("if row >= extent.rows {", "if row >= layer.capacity {"),
            ("pass_through(row, feature, d_output", "pass_through(row, 0u, d_output"),
            ("if THROUGH == 0u ||", "if"),
        ],
    }
}
