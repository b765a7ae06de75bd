//! `shaders/training/weigh.wgsl` against the definition of a weighted mean.

use moonflow::cpu::Real;
use moonflow::cpu::batch::gather;
use moonflow::gpu::kernel::WEIGH;
use moonflow::gpu::uniforms::{Rules, TrainState};
use moonflow::random;

use super::harness::{Call, Case, POISON, bits, random, real};

/// Weights of the batch, and each row's part of their sum.
fn weighed<R: Real>(weights: &[f32]) -> Vec<R> {
    let weights = real::<R>(weights);
    let total = weights.iter().fold(R::zero(), |sum, &weight| sum + weight);
    let part = |weight: R| if total > R::zero() { weight / total } else { R::zero() };
    weights.into_iter().map(part).collect()
}

pub fn weigh() -> Case {
    // (rows of the table, first row, rows, capacity, whether any counts).
    let sizes = [(700, 130, 300, 333, true), (5, 0, 5, 7, true), (1, 0, 1, 1, true), (40, 32, 8, 32, false)];
    let call = |(all, first, rows, capacity, counts): (usize, usize, usize, usize, bool)| {
        let mut table: Vec<f32> = random(all, 1.0, all as u64).iter().map(|weight| weight.abs()).collect();
        // Rows that do not count.
        table.iter_mut().step_by(if counts { 3 } else { 1 }).for_each(|weight| *weight = 0.0);
        let (seed, epoch, before) = (5, 2, 11);
        let mut of_batch = vec![f32::NAN; rows];
        gather(1, first, seed, epoch, &table, &mut of_batch);
        let [key_low, key_high] = random::key(seed);
        let rules =
            Rules { train_rows: all as u32, key_low, key_high, factors: before, ..Default::default() };
        let state = TrainState { rows: rows as u32, first: first as u32, epoch, ..Default::default() };
        Call::new(format!("{rows} of {all} rows:"), &rules, [1; 3])
            .record("state", &state)
            .values("weights", &table, all)
            .bind("batch_weights", vec![POISON; capacity])
            .expect_bits("", 0..rows, bits(&of_batch))
            .bind("d_coupling", vec![POISON; before as usize + capacity])
            .expect("", before as usize..before as usize + rows, weighed(&of_batch), &weighed(&of_batch))
    };
    Case {
        kernel: &WEIGH,
        factor: 4.0,
        calls: sizes.map(call).into(),
        changes: &[
            ("permute(state.first + row,", "permute(row,"),
            ("batch_weights[row] / total", "batch_weights[row] / f32(state.rows)"),
            ("d_coupling[rules.factors + row]", "d_coupling[row]"),
            ("sum += weight;", "sum += 1.0;"),
            (", total > 0.0)", ", true)"),
            ("batch_weights[row] = weight;\n        sum", "batch_weights[row] = 1.0;\n        sum"),
        ],
    }
}
