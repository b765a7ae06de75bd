//! `shaders/training/reduce.wgsl` against the sums and [`global_norm`] of `src/cpu/adam.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::adam::global_norm;
use moonflow::gpu::kernel::SUM_PARTIALS;
use moonflow::gpu::uniforms::Rules;

use super::harness::{Call, Case, POISON, random, real};

/// The sum over splits, in their order.
fn gradient<R: Real>(partials: &[f32], parameters: usize) -> Vec<R> {
    let mut sum = vec![R::zero(); parameters];
    for split in real::<R>(partials).chunks_exact(parameters) {
        for (sum, &value) in sum.iter_mut().zip(split) {
            *sum += value;
        }
    }
    sum
}

/// The squared norm of each workgroup's parameters: those of every stretch of 256 whose turn it is.
fn norms<R: Real>(gradient: &[R], groups: usize) -> Vec<R> {
    let of = |group: usize| -> Vec<R> {
        gradient.chunks(256).skip(group).step_by(groups).flatten().copied().collect()
    };
    (0..groups).map(|group| global_norm(&of(group)).powi(2)).collect()
}

pub fn sum_partials() -> Case {
    // (parameters, splits, workgroups).
    let sizes = [(3, 1, 1), (1, 3, 1), (255, 2, 1), (257, 3, 2), (1000, 16, 3), (1025, 1, 2), (700, 5, 5)];
    let call = |(parameters, splits, groups): (usize, usize, usize)| {
        let partials = random(splits * parameters, 1.0, (parameters + splits) as u64);
        let (truth, single) =
            (gradient::<f64>(&partials, parameters), gradient::<f32>(&partials, parameters));
        let rules = Rules {
            parameters: parameters as u32,
            splits: splits as u32,
            norm_groups: groups as u32,
            ..Default::default()
        };
        Call::new(format!("{splits} × {parameters} by {groups}:"), &rules, [groups as u32, 1, 1])
            .values("partials", &partials, partials.len() + 300)
            .bind("norms", vec![POISON; groups + 4])
            .expect("", 0..groups, norms(&truth, groups), &norms(&single, groups))
            .bind("gradient", vec![POISON; parameters + 300])
            .expect("", 0..parameters, truth, &single)
    };
    Case {
        kernel: &SUM_PARTIALS,
        factor: 4.0,
        calls: sizes.map(call).into(),
        changes: &[
            ("partials[split * rules.parameters + p]", "partials[p * rules.splits + split]"),
            ("split < rules.splits; split++", "split + 1u < rules.splits; split++"),
            ("squares += sum * sum;", "squares = sum * sum;"),
            ("p < rules.parameters; p += rules.norm_groups * 256u", "p < rules.parameters; p += 256u"),
            (
                "p < rules.parameters; p += rules.norm_groups * 256u",
                "p <= rules.parameters; p += rules.norm_groups * 256u",
            ),
            (
                "p < rules.parameters; p += rules.norm_groups * 256u",
                "p < rules.parameters; p += rules.parameters",
            ),
            ("var stride = 128u;", "var stride = 64u;"),
            ("norms[group.x] = total;", "norms[0] = total;"),
        ],
    }
}
