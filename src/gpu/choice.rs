//! Which plan a flow and a training take where none is asked for.

use std::fmt;

use super::fused::Shape;
use super::fused::shape::widest;
use super::plan::PlanKind;
use super::target::Target;
use super::training::TrainingPlan;
use crate::engine::TrainingShape;
use crate::flow::Flow;
use crate::layout::Layout;

/// Widest hidden layer and rows of a batch from which a hardware GPU trains faster by the layered plan.
///
/// Steps a second by the fused plan, with the rows of a block that it takes, and by the layered one on an H200
/// (`benches/runs/2026-11-27-h200-rows` and `…-h200-again`):
///
/// | widest | batch | affine | spline | joint affine |
/// |-|-|-|-|-|
/// | 64 | 256 | 11,238 and 3,791 | 9,246 and 3,120 | 12,211 and 3,868 |
/// | 64 | 65,536 | 565 and 181 | 871 and 193 | |
/// | 64 | 1,048,576 | 23.5 and 10.9, with blocks of 16 rows | | |
/// | 128 | 512 | 2,969 and 1,747 | 2,415 and 1,257 | 3,722 and 1,450 |
/// | 128 | 65,536 | 59 and 70 | 58 and 78 | |
///
/// Their product alone would not do: narrow layers are for the fused plan whatever the batch. A block of rows loads all
/// weights again, which grow as the square of the width. The time that a row adds is 0.32 and 0.22 of the layered plan's
/// where layers are 64 wide, affine and spline, and 1.2 and 1.3 where they are 128 wide: powers of the width through these
/// are 1 at 118 and 114. There the fused plan takes 1.05 ms for each 4,096 rows, as many as its 128 workgroups take at once,
/// and the layered one, by a line through its times, 1.3 ms for 4,096 rows and 2.2 ms for 8,192.
const LAYERED_FROM: [usize; 2] = [112, 8192];

/// Most bytes of its buffers for which it is taken instead: it keeps the activations of the whole batch.
const MOST_BYTES: u64 = 4 << 30;

impl PlanKind {
    /// The fused plan where `flow` fits `target`, else the layered one.
    pub fn choose(flow: &Flow, target: &Target) -> Self {
        if Shape::fit(flow, target).is_ok() { Self::Fused } else { Self::Layered }
    }
}

/// Why a training takes the layered plan, though its flow takes the fused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// The fused plan reads rows from one buffer, and there are more.
    Rows,
    /// It is faster with such layers and batches.
    Batch,
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows => "training is layered, because its rows need more than one buffer",
            Self::Batch => {
                "training is layered, which is faster with batches as large and layers as wide as these"
            }
        })
    }
}

impl Instead {
    /// Why a training of `shape` takes the layered plan, where `flow` takes `kind`, `asked` for or not, and a buffer holds
    /// `shard_rows` rows. `None` where it takes `kind` too.
    pub fn of(
        flow: &Flow,
        target: &Target,
        (kind, asked): (PlanKind, bool),
        shape: &TrainingShape,
        shard_rows: usize,
    ) -> Option<Self> {
        if kind == PlanKind::Layered {
            None
        } else if shape.train_rows.max(shape.validation_rows) > shard_rows {
            Some(Self::Rows)
        } else if !asked && layered_is_faster(flow, target, shape) {
            Some(Self::Batch)
        } else {
            None
        }
    }
}

/// Whether `target` is faster by the layered plan, and has room for it. A software adapter has one speed for both.
fn layered_is_faster(flow: &Flow, target: &Target, shape: &TrainingShape) -> bool {
    let large = [widest(flow), shape.batch].iter().zip(LAYERED_FROM).all(|(size, from)| *size >= from);
    large && !target.software && {
        let plan = TrainingPlan::new(flow, &Layout::new(flow), shape).plan;
        plan.bytes() <= MOST_BYTES && plan.check(&target.limits).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Bijector, ConditionerForm};
    use crate::optimiser::{Adam, Decay, Schedule};

    /// What a hardware GPU with buffers of up to 2 GiB trains by instead, on batches of `batch` of twice as many rows.
    fn instead(flow: &Flow, batch: usize, change: impl Fn(&mut Target, &mut bool)) -> Option<Instead> {
        let schedule = Schedule { decay: Decay::Constant, base: 1e-3, warmup_steps: 0, total_steps: 1 };
        let (train_rows, validation_rows) = (2 * batch, 0);
        let adam = Adam::default();
        let shape =
            TrainingShape { train_rows, validation_rows, batch, adam, schedule, seed: 0, weights: None };
        let (mut target, mut asked) = (Target::default(), false);
        target.limits.max_storage_buffer_binding_size = (1 << 31) - 4;
        target.limits.max_buffer_size = 1 << 31;
        change(&mut target, &mut asked);
        let kind = PlanKind::choose(flow, &target);
        Instead::of(flow, &target, (kind, asked), &shape, 1 << 22)
    }

    fn flow(width: usize) -> Flow {
        let (features, layers) = if width == 64 { (2, 4) } else { (8, 8) };
        Flow::new(features, layers, &[width; 2]).expect("valid")
    }

    #[test]
    fn training_takes_the_plan_that_was_faster_wherever_both_were_measured() {
        let spline = |flow: Flow| {
            flow.with_bijector(Bijector::Spline { bins: 8, bound: 4.0 })
                .with_conditioner(ConditionerForm::Joint)
        };
        let joint = |flow: Flow| flow.with_conditioner(ConditionerForm::Joint);
        for (flow, batch, [fused, layered]) in [
            (flow(64), 256, [11_238.0, 3791.0]),
            (spline(flow(64)), 256, [9246.0, 3120.0]),
            (joint(flow(64)), 256, [12_211.0, 3868.0]),
            (flow(64), 65_536, [565.0, 181.0]),
            (spline(flow(64)), 65_536, [871.0, 193.0]),
            (flow(64), 1_048_576, [23.5, 10.9]),
            (flow(128), 512, [2969.0, 1747.0]),
            (spline(flow(128)), 512, [2415.0, 1257.0]),
            (joint(flow(128)), 512, [3722.0, 1450.0]),
            (flow(128), 65_536, [58.9, 69.7]),
            (spline(flow(128)), 65_536, [58.1, 78.0]),
        ] {
            let want = (layered > fused).then_some(Instead::Batch);
            assert_eq!(instead(&flow, batch, |_, _| ()), want, "{batch} rows: {flow:?}");
        }
    }

    #[test]
    fn a_plan_that_was_asked_for_a_software_adapter_and_little_memory_keep_the_fused_plan() {
        let wide = flow(128);
        assert_eq!(instead(&wide, 1 << 16, |_, asked| *asked = true), None);
        assert_eq!(instead(&wide, 1 << 16, |target, _| target.software = true), None);
        let small = |target: &mut Target| target.limits.max_storage_buffer_binding_size = 1 << 25;
        assert_eq!(instead(&wide, 1 << 16, |target, _| small(target)), None);
        assert_eq!(instead(&wide, 1 << 20, |_, _| ()), None, "its buffers would take more than 4 GiB");
        let rows = (1 << 21) + 1;
        assert_eq!(instead(&wide, rows, |_, asked| *asked = true), Some(Instead::Rows));
        assert_eq!(instead(&flow(129), 1 << 16, |_, _| ()), None, "it is layered as it is");
    }
}
