//! `shaders/training/adam.wgsl` against `src/cpu/adam.rs`.

use moonflow::cpu::Real;
use moonflow::cpu::adam::{AdamState, Rule, adam as cpu_adam, advance as cpu_advance, learning_rate};
use moonflow::gpu::kernel::{ADAM_UPDATE, ADVANCE};
use moonflow::gpu::plan::groups_of_256;
use moonflow::gpu::uniforms::{Rules, TrainState};
use moonflow::optimiser::{Adam, Decay, Schedule};

use super::harness::{Call, Case, POISON, poisoned, random, real, words};

pub const ADAM: Adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.05, clip_norm: 2.0 };
const SCHEDULE: Schedule = Schedule { decay: Decay::Cosine, base: 3e-3, warmup_steps: 10, total_steps: 60 };

pub fn rules(adam: &Adam, schedule: &Schedule) -> Rules {
    let [gain1, gain2] = adam.gains().map(|gain| gain as f32);
    Rules {
        gain1,
        gain2,
        epsilon: adam.epsilon,
        weight_decay: adam.weight_decay,
        clip_norm: adam.clip_norm.min(f32::MAX),
        base_rate: schedule.base,
        warmup_steps: schedule.warmup_steps,
        total_steps: schedule.total_steps,
        decay: schedule.decay as u32,
        ..Default::default()
    }
}

/// One situation in which training advances.
#[derive(Clone, Copy)]
pub struct Situation {
    pub label: &'static str,
    pub adam: Adam,
    pub schedule: Schedule,
    pub step: u32,
    pub rows: usize,
    pub first: usize,
    pub train_rows: usize,
    pub batch: usize,
    pub groups: usize,
    /// Size of the partial squares of the norm.
    pub squares: f32,
    pub halted: bool,
    /// A value that takes the place of the last log p, or of the last partial square.
    pub bad_row: Option<f32>,
    pub bad_square: Option<f32>,
    /// Whether rows have weights, of which that of the last one is zero.
    pub weighted: bool,
}

pub const USUAL: Situation = Situation {
    label: "a step amid an epoch",
    adam: ADAM,
    schedule: SCHEDULE,
    step: 27,
    rows: 65,
    first: 130,
    train_rows: 300,
    batch: 65,
    groups: 3,
    squares: 2.0,
    halted: false,
    bad_row: None,
    bad_square: None,
    weighted: false,
};

fn situations() -> Vec<Situation> {
    let schedule =
        |decay, warmup_steps, total_steps| Schedule { decay, base: 3e-3, warmup_steps, total_steps };
    let mut situations = vec![
        USUAL,
        Situation { label: "a gradient that is not clipped", squares: 0.1, ..USUAL },
        Situation { label: "no clipping", adam: Adam { clip_norm: f32::INFINITY, ..ADAM }, ..USUAL },
        Situation { label: "a zero gradient", squares: 0.0, ..USUAL },
        Situation { label: "the rows before the last batch", first: 195, rows: 65, train_rows: 300, ..USUAL },
        Situation { label: "a partial last batch", first: 260, rows: 40, ..USUAL },
        Situation { label: "one row", first: 0, rows: 1, train_rows: 1, batch: 1, ..USUAL },
        Situation { label: "300 rows", rows: 300, train_rows: 700, batch: 300, first: 0, ..USUAL },
        Situation { label: "300 partial squares", groups: 300, squares: 0.02, ..USUAL },
        Situation { label: "halted before", halted: true, ..USUAL },
        Situation { label: "halted before, at the epoch's end", halted: true, first: 260, rows: 40, ..USUAL },
        Situation { label: "a NaN loss", bad_row: Some(f32::NAN), ..USUAL },
        Situation { label: "an infinite loss", bad_row: Some(f32::NEG_INFINITY), ..USUAL },
        Situation { label: "rows with weights", weighted: true, ..USUAL },
        Situation {
            label: "300 rows with weights",
            weighted: true,
            rows: 300,
            batch: 300,
            first: 0,
            ..USUAL
        },
        Situation { label: "a NaN that does not count", weighted: true, bad_row: Some(f32::NAN), ..USUAL },
        Situation { label: "a NaN gradient", bad_square: Some(f32::NAN), ..USUAL },
        Situation { label: "an infinite gradient", bad_square: Some(f32::INFINITY), ..USUAL },
    ];
    for (label, step, schedule) in [
        ("the first step", 0, SCHEDULE),
        ("the last step of warm-up", 9, SCHEDULE),
        ("the first step after warm-up", 10, SCHEDULE),
        ("a late step", 58, SCHEDULE),
        ("the step at the end", 60, SCHEDULE),
        ("a step beyond the end", 99, SCHEDULE),
        ("a constant rate", 27, schedule(Decay::Constant, 0, 60)),
        ("warm-up longer than training", 27, schedule(Decay::Cosine, 80, 60)),
        ("no warm-up", 20, schedule(Decay::Cosine, 0, 60)),
    ] {
        situations.push(Situation { label, step, schedule, ..USUAL });
    }
    situations
}

impl Situation {
    pub fn log_prob(&self) -> Vec<f32> {
        let mut values: Vec<f32> = random(self.rows, 3.0, 3).iter().map(|value| value - 5.0).collect();
        if let Some(bad) = self.bad_row {
            values[self.rows - 1] = bad;
        }
        values
    }

    fn weights(&self) -> Vec<f32> {
        let mut weights: Vec<f32> = random(self.rows, 1.0, 8).iter().map(|weight| weight.abs()).collect();
        weights[self.rows - 1] = 0.0;
        weights
    }

    /// Σ log p, or Σ w · log p.
    fn summed<R: Real>(&self) -> R {
        let log_prob = real::<R>(&self.log_prob());
        if !self.weighted {
            return log_prob.into_iter().fold(R::zero(), |sum, log_prob| sum + log_prob);
        }
        let counted = log_prob.into_iter().zip(real::<R>(&self.weights()));
        let counted = counted.filter(|(_, weight)| *weight != R::zero());
        counted.fold(R::zero(), |sum, (log_prob, weight)| sum + weight * log_prob)
    }

    pub fn norms(&self) -> Vec<f32> {
        let mut values: Vec<f32> =
            random(self.groups, 1.0, 4).iter().map(|value| self.squares * (1.5 + value)).collect();
        if let Some(bad) = self.bad_square {
            values[self.groups - 1] = bad;
        }
        values
    }

    pub fn before(&self) -> TrainState {
        let [bias_correction1, bias_correction2] = self.adam.bias_corrections(self.step);
        TrainState {
            rows: self.rows as u32,
            first: self.first as u32,
            step: self.step,
            epoch: 4,
            halted: u32::from(self.halted),
            improved: 1,
            bias_correction1,
            bias_correction2,
            learning_rate: 0.125,
            clip: 0.25,
            nll_sum: 40.5,
            norm_sum: 3.25,
            norm_steps: 2,
            best_nll: 1.5,
            records: 3,
            padding: 77,
        }
    }

    /// Bias corrections, learning rate, clip factor, nll_sum and norm_sum, as the CPU's [`cpu_advance`] has them,
    /// and whether training is halted.
    pub fn advance<R: Real>(&self) -> ([R; 6], bool) {
        let before = self.before();
        let narrow = |value: f32| R::from_wide(value.into());
        let mut progress = AdamState {
            step: self.step,
            correction1: narrow(before.bias_correction1),
            correction2: narrow(before.bias_correction2),
            learning_rate: narrow(before.learning_rate),
            clip: narrow(before.clip),
            halted: self.halted,
        };
        let sum = |values: &[f32]| real::<R>(values).into_iter().fold(R::zero(), |sum, value| sum + value);
        let nll = -self.summed::<R>();
        let norm = sum(&self.norms()).sqrt();
        let loss = nll / R::from_wide(self.rows as f64);
        cpu_advance(&Rule::new(&self.adam), &self.schedule, loss, norm, &mut progress);
        let mut sums = [narrow(before.nll_sum), narrow(before.norm_sum)];
        if !progress.halted {
            sums[0] += nll;
            sums[1] += norm;
        }
        let AdamState { correction1, correction2, learning_rate, clip, .. } = progress;
        ([correction1, correction2, learning_rate, clip, sums[0], sums[1]], progress.halted)
    }

    /// What is counted in the state afterwards.
    fn after(&self, halted: bool) -> TrainState {
        let before = self.before();
        let mut after = before;
        after.halted = u32::from(halted);
        if !halted {
            after.step += 1;
            after.norm_steps += 1;
        }
        let left = self.train_rows - self.first - self.rows;
        (after.first, after.rows, after.epoch) = if halted {
            (before.first, before.rows, before.epoch)
        } else if left > 0 {
            ((self.first + self.rows) as u32, self.batch.min(left) as u32, before.epoch)
        } else {
            (0, self.batch.min(self.train_rows) as u32, before.epoch + 1)
        };
        after
    }

    /// Describes the buffer bound last as the state that this situation leaves.
    pub fn expect_state(&self, mut call: Call) -> Call {
        let (truth, halted) = self.advance::<f64>();
        let (single, _) = self.advance::<f32>();
        let after = self.after(halted);
        // The real numbers among the state's words.
        let reals = [6, 7, 8, 9, 10, 11];
        let names = ["bias_correction1", "bias_correction2", "learning_rate", "clip", "nll_sum", "norm_sum"];
        let others: Vec<usize> = (0..16).filter(|place| !reals.contains(place)).collect();
        let kept = others.iter().map(|&place| words(&after)[place]).collect();
        call = call.expect_bits("counts", others, kept);
        for (at, name) in names.into_iter().enumerate() {
            call = call.expect(name, [reals[at]], vec![truth[at]], &[single[at]]);
        }
        call
    }

    pub fn rules(&self) -> Rules {
        Rules {
            train_rows: self.train_rows as u32,
            batch: self.batch as u32,
            norm_groups: self.groups as u32,
            ..rules(&self.adam, &self.schedule)
        }
    }

    fn call(&self) -> Call {
        let (log_prob, norms) = (self.log_prob(), self.norms());
        let call = Call::new(format!("{}:", self.label), &self.rules(), [1; 3])
            .values("norms", &norms, norms.len() + 300)
            .values("log_prob", &log_prob, log_prob.len() + 300)
            .constants(&[("WEIGHTED", u32::from(self.weighted))])
            .bind(
                "row_weights",
                if self.weighted { poisoned(&self.weights(), self.rows + 300) } else { vec![POISON; 4] },
            )
            .record("state", &self.before());
        self.expect_state(call)
    }
}

pub fn advance() -> Case {
    Case {
        kernel: &ADVANCE,
        factor: 4.0,
        calls: situations().iter().map(Situation::call).collect(),
        changes: &[
            ("i < rules.norm_groups; i += 256u", "i < min(rules.norm_groups, 256u); i += 256u"),
            ("i < state.rows; i += 256u", "i < rules.batch; i += 256u"),
            ("log_probs += row_weights[i] * log_prob[i];", "log_probs += log_prob[i];"),
            ("} else if row_weights[i] != 0.0 {", "} else {"),
            ("let nll = -sum_workgroup", "let nll = sum_workgroup"),
            ("!is_finite(squared_norm) || !is_finite(nll)", "!is_finite(squared_norm)"),
            ("!is_finite(squared_norm) || !is_finite(nll)", "!is_finite(nll)"),
            ("let norm = sqrt(squared_norm);", "let norm = squared_norm;"),
            ("select(1.0, rules.clip_norm / norm, norm > rules.clip_norm)", "1.0"),
            ("select(1.0, rules.clip_norm / norm, norm > rules.clip_norm)", "rules.clip_norm / norm"),
            (
                "state.learning_rate = learning_rate(rules, state.step);",
                "state.learning_rate = learning_rate(rules, state.step + 1u);",
            ),
            ("rules.gain2 * (1.0 - state.bias_correction2)", "rules.gain1 * (1.0 - state.bias_correction2)"),
            ("f32(step + 1u) / f32(rules.warmup_steps)", "f32(step) / f32(rules.warmup_steps)"),
            ("min(step - rules.warmup_steps, span)", "min(step, span)"),
            ("1.0 / 362880.0", "0.0"),
            ("state.norm_steps += 1u;", ""),
            ("let next = state.first + state.rows;", "let next = state.rows;"),
            ("min(rules.batch, rules.train_rows - next)", "rules.batch"),
            ("state.epoch += 1u;", ""),
            ("if state.halted == 1u {", "if false {"),
        ],
    }
}

/// Parameters and both moments after an update.
fn updated<R: Real>(state: &TrainState, [gradient, parameters, m, v]: &[Vec<f32>; 4]) -> [Vec<R>; 3] {
    let narrow = |value: f32| R::from_wide(value.into());
    let progress = AdamState {
        step: state.step,
        correction1: narrow(state.bias_correction1),
        correction2: narrow(state.bias_correction2),
        learning_rate: narrow(state.learning_rate),
        clip: narrow(state.clip),
        halted: state.halted == 1,
    };
    let mut result = [real(parameters), real(m), real(v)];
    let [parameters, m, v] = &mut result;
    cpu_adam(&Rule::new(&ADAM), &progress, &real(gradient), parameters, m, v);
    result
}

pub fn adam() -> Case {
    // (parameters, workgroups, step, halted).
    let sizes: [(usize, [u32; 3], u32, u32); 7] = [
        (3, [1; 3], 1, 0),
        (1, [1; 3], 50, 0),
        (255, groups_of_256(255), 3, 0),
        (257, groups_of_256(257), 1000, 0),
        (1000, [2, 2, 1], 7, 0),
        (900, [3, 2, 1], 7, 0),
        (300, groups_of_256(300), 7, 1),
    ];
    let call = |(parameters, groups, step, halted): (usize, [u32; 3], u32, u32)| {
        let of = |what: u64, limit| random(parameters, limit, what * 10 + u64::from(step));
        let mut gradient = of(1, 2.0);
        // Parameters that have no gradient, and moments near the epsilon.
        gradient.iter_mut().step_by(5).for_each(|value| *value = 0.0);
        let v = of(3, 1.0).iter().map(|value| if *value < -0.5 { 1e-11 } else { value * value }).collect();
        let values = [gradient, of(2, 1.0), of(4, 0.5), v];
        let [bias_correction1, bias_correction2] = ADAM.bias_corrections(step);
        let state = TrainState {
            step,
            halted,
            bias_correction1,
            bias_correction2,
            learning_rate: learning_rate(&SCHEDULE, step.min(40)),
            clip: 0.375,
            ..Default::default()
        };
        let rules = Rules { parameters: parameters as u32, ..rules(&ADAM, &SCHEDULE) };
        let (truth, single) = (updated::<f64>(&state, &values), updated::<f32>(&state, &values));
        let mut call = Call::new(format!("{parameters} at step {step}, halted {halted}:"), &rules, groups)
            .record("update", &state)
            .values("gradient", &values[0], parameters + 300);
        for (at, (name, truth)) in ["parameters", "moment1", "moment2"].into_iter().zip(truth).enumerate() {
            call = call.values(name, &values[at + 1], parameters + 300).expect(
                "",
                0..parameters,
                truth,
                &single[at],
            );
        }
        call
    };
    Case {
        kernel: &ADAM_UPDATE,
        factor: 4.0,
        calls: sizes.map(call).into(),
        changes: &[
            ("gradient * update.clip", "gradient"),
            ("rules.gain1 * (g - moments.x)", "rules.gain1 * g"),
            ("rules.gain2 * (g * g - moments.y)", "rules.gain1 * (g * g - moments.y)"),
            ("(m / update.bias_correction1)", "m"),
            ("v / update.bias_correction2", "v / update.bias_correction1"),
            (
                "(sqrt(v / update.bias_correction2) + rules.epsilon)",
                "sqrt(v / update.bias_correction2 + rules.epsilon)",
            ),
            ("update.learning_rate * rules.weight_decay * parameter", "rules.weight_decay * parameter"),
            ("vec3<f32>(decayed - update", "vec3<f32>(decayed + update"),
            ("p >= rules.parameters || update.halted == 1u", "p >= rules.parameters"),
            ("p >= rules.parameters || update.halted == 1u", "p > rules.parameters || update.halted == 1u"),
            ("(group.y * groups.x + group.x) * 256u", "group.x * 256u"),
        ],
    }
}
