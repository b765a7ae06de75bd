//! `shaders/training/epoch.wgsl` against what `src/cpu/training.rs` does after an epoch's steps.

use moonflow::cpu::Real;
use moonflow::gpu::kernel::{ACCUMULATE, CLOSE_EPOCH, KEEP_BEST};
use moonflow::gpu::plan::groups_of_256;
use moonflow::gpu::uniforms::{Record, Rules, TrainState, Validation};

use super::harness::{Call, Case, POISON, bits, random, real, words};

fn sum<R: Real>(start: f32, values: &[f32]) -> R {
    real::<R>(values).into_iter().fold(R::from_wide(start.into()), |sum, value| sum + value)
}

pub fn accumulate() -> Case {
    // (validation rows, capacity, rows before the tile).
    let sizes =
        [(3, 5, 0), (1, 1, 0), (130, 64, 0), (130, 64, 64), (130, 64, 128), (700, 300, 300), (257, 257, 0)];
    let call = |(all, capacity, first, weighted): (usize, usize, usize, bool)| {
        let rows = capacity.min(all - first);
        let log_prob: Vec<f32> =
            random(rows, 3.0, (all + first) as u64).iter().map(|value| value - 5.0).collect();
        let before = Validation {
            rows: rows as u32,
            first: first as u32,
            log_prob_sum: if first == 0 { 0.0 } else { -55.5 },
            padding: 77,
        };
        let after = Validation {
            rows: capacity.min(all - first - rows) as u32,
            first: (first + rows) as u32,
            ..before
        };
        let rules =
            Rules { validation_rows: all as u32, validation_capacity: capacity as u32, ..Default::default() };
        let mut log_prob = log_prob;
        let mut counted = log_prob.clone();
        let mut weights = vec![POISON; 4];
        if weighted {
            let mut table: Vec<f32> = random(all, 1.0, 31).iter().map(|weight| weight.abs()).collect();
            // A row that does not count may have any log p.
            table[first] = 0.0;
            log_prob[0] = f32::NAN;
            counted[0] = 0.0;
            counted.iter_mut().zip(&table[first..]).for_each(|(value, weight)| *value *= weight);
            weights = bits(&table);
        }
        let start = before.log_prob_sum;
        Call::new(format!("rows {first} + {rows} of {all}:"), &rules, [1; 3])
            .values("log_prob", &log_prob, capacity + 300)
            .record("validation", &before)
            .expect_bits("counts", [0, 1, 3], [0, 1, 3].map(|place| words(&after)[place]).into())
            .expect("log_prob_sum", [2], vec![sum(start, &counted)], &[sum(start, &counted)])
            .constants(&[("WEIGHTED", u32::from(weighted))])
            .bind("row_weights", weights)
    };
    let calls = [false, true]
        .into_iter()
        .flat_map(|weighted| sizes.map(|(all, capacity, first)| call((all, capacity, first, weighted))));
    Case {
        kernel: &ACCUMULATE,
        factor: 4.0,
        calls: calls.collect(),
        changes: &[
            ("row_weights[validation.first + i] * log_prob[i]", "row_weights[i] * log_prob[i]"),
            ("row_weights[validation.first + i] != 0.0", "true"),
            ("i < validation.rows; i += 256u", "i < rules.validation_capacity; i += 256u"),
            ("i < validation.rows; i += 256u", "i < min(validation.rows, 256u); i += 256u"),
            ("validation.log_prob_sum += total;", "validation.log_prob_sum = total;"),
            ("validation.first += validation.rows;", "validation.first += rules.validation_capacity;"),
            ("rules.validation_rows - validation.first", "rules.validation_rows"),
        ],
    }
}

/// The words of [`TrainState`] that stay, and those of [`Record`] that are counts.
const COUNTS: [usize; 4] = [4, 5, 6, 7];

/// Label, validation rows, sum of log p, lowest loss before, halted, norm_steps, and whether this loss is the lowest.
type Situation = (&'static str, u32, f32, f32, u32, u32, bool);

pub fn close_epoch() -> Case {
    let situations: [Situation; 8] = [
        ("the lowest loss", 130, -200.0, 2.0, 0, 5, true),
        ("the first epoch", 3, 100.0, f32::MAX, 0, 1, true),
        ("a higher loss", 130, -200.0, 1.5, 0, 5, false),
        ("the same loss", 128, -192.0, 1.5, 0, 5, false),
        ("halted", 130, -200.0, 2.0, 1, 2, false),
        ("a loss of NaN", 130, f32::NAN, 2.0, 0, 5, false),
        ("a loss of minus infinity", 130, f32::INFINITY, 2.0, 0, 5, false),
        ("no validation rows and no step", 0, 0.0, f32::MAX, 0, 0, false),
    ];
    let call = |(label, rows, log_prob_sum, best_nll, halted, norm_steps, improved): Situation| {
        let before = TrainState {
            rows: 33,
            first: 44,
            step: 21,
            epoch: 4,
            halted,
            // What an earlier epoch left.
            improved: u32::from(!improved),
            bias_correction1: 0.5,
            bias_correction2: 0.25,
            learning_rate: 0.0625,
            clip: 0.75,
            nll_sum: 777.0,
            norm_sum: 11.0,
            norm_steps,
            best_nll,
            records: 2,
            padding: 77,
        };
        let validation_nll = if rows > 0 { -f64::from(log_prob_sum) / f64::from(rows) } else { 0.0 };
        let after = TrainState {
            improved: u32::from(improved),
            nll_sum: 0.0,
            norm_sum: 0.0,
            norm_steps: 0,
            records: 3,
            ..before
        };
        let rules = Rules {
            train_rows: 513,
            train_weight: 513.0,
            validation_rows: rows,
            validation_weight: rows as f32,
            validation_capacity: 64,
            ..Default::default()
        };
        let epoch = before.epoch + halted;
        let record = words(&Record { improved: u32::from(improved), halted, epoch, ..Default::default() });
        let reals = [777.0 / 513.0, validation_nll, 0.0625, 11.0 / f64::from(norm_steps.max(1))];
        let best = if improved { validation_nll } else { best_nll.into() };
        let fresh = Validation { rows: rows.min(64), ..Default::default() };
        let mut call = Call::new(format!("{label}:"), &rules, [1; 3])
            .record("validation", &Validation { rows: 0, first: rows, log_prob_sum, padding: 0 })
            .expect_bits("", 0..4, words(&fresh))
            .record("state", &before)
            .expect("best_nll", [13], vec![best], &[best as f32])
            .expect_bits("counts", (0..16).filter(|place| *place != 13), {
                let mut words = words(&after);
                words.remove(13);
                words
            })
            .bind("history", vec![POISON; 5 * 8])
            .expect_bits(
                "counts",
                COUNTS.map(|place| 2 * 8 + place),
                COUNTS.map(|place| record[place]).into(),
            );
        for (place, (name, want)) in
            ["train_nll", "validation_nll", "learning_rate", "grad_norm"].into_iter().zip(reals).enumerate()
        {
            let places = [2 * 8 + place];
            call = if want.is_finite() {
                call.expect(name, places, vec![want], &[want as f32])
            } else {
                // A loss that is not finite is reported as such, whichever it is.
                call.unchecked(places)
            };
        }
        call
    };
    Case {
        kernel: &CLOSE_EPOCH,
        factor: 4.0,
        calls: situations.map(call).into(),
        changes: &[
            ("state.nll_sum / rules.train_weight", "state.nll_sum / rules.validation_weight"),
            (
                "-validation.log_prob_sum / rules.validation_weight",
                "validation.log_prob_sum / rules.validation_weight",
            ),
            ("state.norm_sum / f32(max(state.norm_steps, 1u))", "state.norm_sum"),
            ("state.halted == 0u && is_finite", "is_finite"),
            ("is_finite(validation.log_prob_sum) && ", ""),
            ("record.validation_nll < state.best_nll", "record.validation_nll <= state.best_nll"),
            ("state.best_nll = record.validation_nll;", ""),
            ("state.improved = 0u;", ""),
            ("state.epoch + state.halted", "state.epoch"),
            ("history[state.records] = record;", "history[0] = record;"),
            ("state.records += 1u;", ""),
            ("state.norm_steps = 0u;", ""),
            (
                "validation.rows = min(rules.validation_capacity, rules.validation_rows);",
                "validation.rows = rules.validation_capacity;",
            ),
            ("validation.log_prob_sum = 0.0;", ""),
        ],
    }
}

pub fn keep_best() -> Case {
    let sizes: [(usize, [u32; 3], u32); 6] = [
        (3, [1; 3], 1),
        (3, [1; 3], 0),
        (255, groups_of_256(255), 1),
        (257, groups_of_256(257), 1),
        (1000, [2, 2, 1], 1),
        (1000, [2, 2, 1], 0),
    ];
    let call = |(count, groups, improved): (usize, [u32; 3], u32)| {
        let parameters = random(count, 1.0, 1);
        let rules = Rules { parameters: count as u32, ..Default::default() };
        let call = Call::new(format!("{count}, improved {improved}:"), &rules, groups)
            .record("verdict", &TrainState { improved, halted: 1, ..Default::default() })
            .values("parameters", &parameters, count + 300)
            .values("best", &random(count, 1.0, 2), count + 300);
        // Where nothing improved, every word stays.
        if improved == 1 { call.expect_bits("", 0..count, bits(&parameters)) } else { call }
    };
    Case {
        kernel: &KEEP_BEST,
        factor: 0.0,
        calls: sizes.map(call).into(),
        changes: &[
            ("verdict.improved == 1u", "true"),
            ("verdict.improved == 1u", "verdict.improved == 0u"),
            ("p < rules.parameters", "p <= rules.parameters"),
            ("(group.y * groups.x + group.x) * 256u", "group.x * 256u"),
        ],
    }
}
