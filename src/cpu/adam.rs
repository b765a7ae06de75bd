//! The optimiser: learning rate, gradient norm, clipping and Adam's update, after each backward pass.
//! Twin of `shaders/training/adam.wgsl`. Kingma and Ba 2015; decoupled weight decay of Loshchilov and Hutter 2019.

use crate::optimiser::{Adam, Decay, Schedule, decimal};

use super::Real;
use super::simd::{LANES, each};

/// [`Adam`]'s numbers in the precision computed with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule<R> {
    /// 1 − β₁, from the decimal β₁: in `f32`, 1 − 0.999 would lose 4 of 7 digits.
    pub gain1: R,
    /// 1 − β₂, likewise.
    pub gain2: R,
    /// Added to the root of the second moment.
    pub epsilon: R,
    /// Decoupled weight decay.
    pub weight_decay: R,
    /// Largest global norm of the gradient.
    pub clip_norm: R,
}

impl<R: Real> Rule<R> {
    /// The numbers of `adam`.
    pub fn new(adam: &Adam) -> Self {
        let [gain1, gain2] = adam.gains().map(R::from_wide);
        Self {
            gain1,
            gain2,
            epsilon: R::from_decimal(adam.epsilon),
            weight_decay: R::from_decimal(adam.weight_decay),
            clip_norm: R::from_decimal(adam.clip_norm),
        }
    }
}

/// What [`advance`] decides before each update; the GPU keeps the same numbers in a buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamState<R> {
    /// Completed steps.
    pub step: u32,
    /// 1 − β₁ˢ after s steps.
    pub correction1: R,
    /// 1 − β₂ˢ after s steps.
    pub correction2: R,
    /// Learning rate of the step under way.
    pub learning_rate: R,
    /// Factor on the gradient that brings its norm down to the rule's.
    pub clip: R,
    /// Whether a loss or gradient was not finite. From then on nothing changes.
    pub halted: bool,
}

impl<R: Real> AdamState<R> {
    /// The progress of a training that has completed `step` steps, with the bias corrections that it had then.
    pub fn new(step: u32, [correction1, correction2]: [R; 2]) -> Self {
        let (learning_rate, clip) = (R::zero(), R::one());
        Self { step, correction1, correction2, learning_rate, clip, halted: false }
    }

    /// The progress after `step` steps, its corrections computed by the recurrence that training itself uses.
    pub fn resume(rule: &Rule<R>, step: u32) -> Self {
        let mut progress = Self::new(step, [R::zero(); 2]);
        for _ in 0..step {
            progress.correct(rule);
        }
        progress
    }

    /// c ← c + (1 − β)(1 − c), which is 1 − βˢ without a power and without cancellation.
    fn correct(&mut self, rule: &Rule<R>) {
        self.correction1 += rule.gain1 * (R::one() - self.correction1);
        self.correction2 += rule.gain2 * (R::one() - self.correction2);
    }
}

/// The learning rate of step `step`, counted from 0; see [`Schedule`].
pub fn learning_rate<R: Real>(schedule: &Schedule, step: u32) -> R {
    let base = decimal(schedule.base);
    let warmup = schedule.warmup_steps;
    let rate = if step < warmup {
        base * f64::from(step + 1) / f64::from(warmup)
    } else {
        match schedule.decay {
            Decay::Constant => base,
            Decay::Cosine => {
                let span = schedule.total_steps.saturating_sub(warmup).max(1);
                let left = span.saturating_sub(step - warmup);
                // cos(π/2 · (1 − x)) = sin(π/2 · x), which is exactly zero at the end.
                base * (std::f64::consts::FRAC_PI_2 * f64::from(left) / f64::from(span)).sin().powi(2)
            }
        }
    };
    R::from_wide(rate)
}

/// Values whose squares [`squared_norm`] sums at a time: long enough to be fast, short enough to be accurate.
const NORM_BLOCK: usize = 1024;

/// The Euclidean norm of the whole gradient `[P]`, summed in a fixed order.
pub fn global_norm<R: Real>(gradient: &[R]) -> R {
    squared_norm(gradient).sqrt()
}

/// Σ g², summed in a fixed order: blocks, lanes within a block.
pub(super) fn squared_norm<R: Real>(gradient: &[R]) -> R {
    R::vectorised(
        #[inline(always)]
        || {
            let mut total = R::zero();
            for block in gradient.chunks(NORM_BLOCK) {
                let mut lanes = [R::zero(); LANES];
                let (groups, rest) = block.as_chunks::<LANES>();
                for values in groups {
                    each(&mut lanes, values, |lane, &value| *lane += value * value);
                }
                each(&mut lanes, rest, |lane, &value| *lane += value * value);
                total += lanes.into_iter().fold(R::zero(), |sum, lane| sum + lane);
            }
            total
        },
    )
}

/// Takes the step's loss and gradient norm and decides its learning rate, bias corrections and clip factor,
/// min(1, clip_norm / norm). A loss or norm that is not finite halts training for good.
pub fn advance<R: Real>(rule: &Rule<R>, schedule: &Schedule, loss: R, norm: R, progress: &mut AdamState<R>) {
    progress.halted |= !(loss.is_finite() && norm.is_finite());
    if progress.halted {
        return;
    }
    progress.learning_rate = learning_rate(schedule, progress.step);
    progress.correct(rule);
    progress.clip = (rule.clip_norm / norm).min(R::one());
    progress.step += 1;
}

/// One update of parameters, or of a stretch of them; all slices have the same length.
///
/// With g the clipped gradient: m += (1 − β₁)(g − m); v += (1 − β₂)(g² − v); θ −= lr · decay · θ;
/// θ −= lr · (m / c₁) / (√(v / c₂) + ε). Does nothing once halted.
///
/// Moments that have all but vanished become zero. Those of a unit that no longer fires decay for ever, and would end among the
/// subnormal numbers, on which a processor takes many times as long.
pub fn adam<R: Real>(
    rule: &Rule<R>,
    progress: &AdamState<R>,
    gradient: &[R],
    parameters: &mut [R],
    moment1: &mut [R],
    moment2: &mut [R],
) {
    if progress.halted {
        return;
    }
    let shrink = progress.learning_rate * rule.weight_decay;
    let least = [1e-30, 1e-34].map(R::from_wide);
    let settled = |moment: R, least: R| R::pick(moment.abs() < least, R::zero(), moment);
    let count = gradient.len();
    let (parameters, moment1, moment2) =
        (&mut parameters[..count], &mut moment1[..count], &mut moment2[..count]);
    R::vectorised(
        #[inline(always)]
        || {
            for at in 0..count {
                let g = progress.clip * gradient[at];
                let (parameter, m, v) = (&mut parameters[at], &mut moment1[at], &mut moment2[at]);
                *m = settled(*m + rule.gain1 * (g - *m), least[0]);
                *v = settled(*v + rule.gain2 * (g * g - *v), least[1]);
                *parameter -= shrink * *parameter;
                let root = (*v / progress.correction2).sqrt();
                *parameter -= progress.learning_rate * (*m / progress.correction1) / (root + rule.epsilon);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTANT: Schedule =
        Schedule { decay: Decay::Constant, base: 0.1, warmup_steps: 0, total_steps: 100 };

    #[test]
    fn schedule_warms_up_then_decays_to_zero() {
        let schedule = Schedule { decay: Decay::Cosine, base: 0.5, warmup_steps: 4, total_steps: 12 };
        let rate = |step| learning_rate::<f64>(&schedule, step);
        for (step, want) in [(0, 0.125), (3, 0.5), (4, 0.5), (8, 0.25), (12, 0.0), (99, 0.0)] {
            assert!((rate(step) - want).abs() < 1e-16, "step {step}: {}", rate(step));
        }
        assert_eq!(learning_rate::<f64>(&Schedule { decay: Decay::Constant, ..schedule }, 11), 0.5);
    }

    /// Nothing subnormal is left of a gradient that has ended, and the parameter does not move any more.
    #[test]
    fn moments_of_an_ended_gradient_become_zero() {
        let rule = Rule::<f32>::new(&Adam::default());
        let mut progress = AdamState::resume(&rule, 1);
        progress.learning_rate = 0.1;
        let (mut parameter, mut m, mut v) = ([0.5f32], [0.01f32], [1e-20f32]);
        let mut before = [f32::NAN];
        for _ in 0..40_000 {
            before = parameter;
            adam(&rule, &progress, &[0.0], &mut parameter, &mut m, &mut v);
            assert!(m[0] == 0.0 || m[0].is_normal(), "{m:?}");
            assert!(v[0] == 0.0 || v[0].is_normal(), "{v:?}");
        }
        assert_eq!((m[0], v[0], parameter), (0.0, 0.0, before));
    }

    #[test]
    fn corrections_are_one_minus_beta_to_the_step() {
        let rule = Rule::<f64>::new(&Adam::default());
        for step in [1, 2, 10, 1000] {
            let progress = AdamState::resume(&rule, step);
            let power = f64::from(step);
            assert!((progress.correction1 - (1.0 - 0.9f64.powf(power))).abs() < 1e-14);
            assert!((progress.correction2 - (1.0 - 0.999f64.powf(power))).abs() < 1e-14);
        }
    }

    #[test]
    fn norm_is_euclidean_across_blocks_and_lanes() {
        for len in [0, 1, 15, 17, 1023, 1024, 1025, 5000] {
            let gradient: Vec<f64> = (0..len).map(|i| f64::from(i % 7) - 2.5).collect();
            let want = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!((global_norm(&gradient) - want).abs() <= 1e-13 * want, "{len} values");
        }
    }

    #[test]
    fn first_step_moves_by_the_learning_rate_against_the_gradient_after_decay() {
        let rule = Rule::<f64>::new(&Adam { weight_decay: 0.5, ..Adam::default() });
        let mut progress = AdamState::resume(&rule, 0);
        advance(&rule, &CONSTANT, 1.0, 1.0, &mut progress);
        let (mut parameters, mut m, mut v) = ([1.0, -2.0, 3.0], [0.0; 3], [0.0; 3]);
        adam(&rule, &progress, &[0.3, -40.0, 0.0], &mut parameters, &mut m, &mut v);
        for (got, want) in parameters.iter().zip([0.95 - 0.1, -1.9 + 0.1, 2.85]) {
            assert!((got - want).abs() < 1e-8, "got {got}, want {want}");
        }
        assert!((m[1] + 4.0).abs() < 1e-12 && (v[1] - 1.6).abs() < 1e-12, "{m:?} {v:?}");
    }

    #[test]
    fn clipping_scales_long_gradients_and_leaves_short_ones() {
        let rule = Rule::<f64>::new(&Adam { clip_norm: 5.0, ..Adam::default() });
        for (norm, want) in [(0.0, 1.0), (4.0, 1.0), (5.0, 1.0), (20.0, 0.25)] {
            let mut progress = AdamState::resume(&rule, 0);
            advance(&rule, &CONSTANT, 1.0, norm, &mut progress);
            assert_eq!(progress.clip, want, "norm {norm}");
            let (mut parameters, mut m, mut v) = ([1.0], [0.0], [0.0]);
            adam(&rule, &progress, &[8.0], &mut parameters, &mut m, &mut v);
            assert!((m[0] - 0.8 * want).abs() < 1e-12, "norm {norm}: the moments see the clipped gradient");
        }
    }

    #[test]
    fn training_halts_for_good_when_loss_or_norm_is_not_finite() {
        let rule = Rule::<f32>::new(&Adam::default());
        for (loss, norm) in [(f32::NAN, 1.0), (f32::INFINITY, 1.0), (1.0, f32::NAN), (1.0, f32::INFINITY)] {
            let mut progress = AdamState::resume(&rule, 3);
            let before = progress;
            advance(&rule, &CONSTANT, loss, norm, &mut progress);
            advance(&rule, &CONSTANT, 1.0, 1.0, &mut progress);
            assert_eq!(progress, AdamState { halted: true, ..before });
            let (mut parameters, mut m, mut v) = ([1.0], [0.5], [0.25]);
            adam(&rule, &progress, &[1.0], &mut parameters, &mut m, &mut v);
            assert_eq!((parameters, m, v), ([1.0], [0.5], [0.25]));
        }
    }
}
