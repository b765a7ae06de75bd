//! Every engine against PyTorch autograd in double precision, tensor by tensor.
//!
//! `cargo test --test suite oracle -- --nocapture` prints the largest relative error of each quantity.

use std::ops::Range;

use moonflow::cpu::{CpuEngine, Real};
use moonflow::engine::Engine;
use moonflow::gpu::PlanKind;

use crate::common::{Comparison, Cpu, Oracle, Subject, from_wide, relative_error, subjects, uniform, wide};

/// Largest relative errors allowed, scaled by each tensor's largest value.
struct Tolerances {
    /// z, log_det, log p and losses.
    value: f64,
    gradient: f64,
    adam1: f64,
    adam10: f64,
}

impl Tolerances {
    /// In double precision 1e-9 throughout.
    ///
    /// In single precision, multiples of its epsilon (1.2e-7), some four times the worst that `wide_12d` shows: its
    /// log-determinants reach 18 and enlarge rounding errors by e to some part of that. Double precision is off by
    /// the same multiples of its own epsilon (12 for z, 92 for a gradient), so they are the flow's, not the code's.
    fn of(epsilon: f64) -> Self {
        if epsilon < 1e-15 {
            return Self { value: 1e-9, gradient: 1e-9, adam1: 1e-9, adam10: 1e-9 };
        }
        Self {
            value: 32.0 * epsilon,
            gradient: 128.0 * epsilon,
            adam1: 32.0 * epsilon,
            adam10: 256.0 * epsilon,
        }
    }
}

/// A tensor that an engine computed, and what PyTorch says.
struct Case {
    name: String,
    got: Vec<f64>,
    want: Vec<f64>,
    tolerance: f64,
    /// Whether zeros must be exact: weights of masked inputs and unread outputs have no gradient at all.
    exact_zeros: bool,
}

/// Everything that the oracle knows, computed by `subject`. `fresh` makes a subject with the oracle's parameters.
fn cases(oracle: &Oracle, roundings: &Roundings, fresh: &dyn Fn() -> Box<dyn Subject>) -> Vec<Case> {
    let mut subject = fresh();
    let tolerances = Tolerances::of(subject.epsilon());
    let mut cases = Vec::new();
    let mut add = |name: &str, got: Vec<f64>, want: Vec<f64>, tolerance: f64| {
        cases.push(Case { name: name.to_owned(), got, want, tolerance, exact_zeros: false });
    };
    let (z, log_det) = subject.forward(&oracle.x);
    // A flow that expands, or one whose inverse does, enlarges every rounding error on its way, so single precision is
    // held to a multiple of what roundings of its inputs do, as double precision sees it.
    let single = subject.epsilon() > 1e-15;
    let enlarged =
        |tolerance: f64, rounding: f64| if single { tolerance.max(8.0 * rounding) } else { tolerance };
    let [of_z, of_log_det, of_log_prob] = roundings.forward.map(|error| enlarged(tolerances.value, error));
    add("z", z, oracle.z.clone(), of_z);
    add("log_det", log_det, oracle.log_det.clone(), of_log_det);
    add("log_prob", subject.log_prob(&oracle.x), oracle.log_prob.clone(), of_log_prob);
    let (x, log_det) = subject.inverse(&oracle.z);
    let rounding = if single { roundings.inverse } else { roundings.inverse_double };
    add("inverse: x", x, oracle.x.clone(), tolerances.value + 8.0 * rounding[0]);
    add("inverse: log_det", log_det, inverse_log_det(oracle), tolerances.value + 8.0 * rounding[1]);

    let (adam1, _) = fresh().adam(&oracle.x, 1);
    let (adam10, losses) = fresh().adam(&oracle.x, 10);
    // Ten steps may enlarge roundings until nothing of their size is left; then single precision is followed for one.
    let chaotic = single && roundings.adam10 > 64.0 * subject.epsilon();
    let followed = if chaotic { 1 } else { 10 };
    add("losses", losses[..followed].to_vec(), oracle.losses[..followed].to_vec(), tolerances.value);

    for (quantity, got, want, tolerance) in [
        ("grad", subject.gradient(&oracle.x), oracle.gradient(), tolerances.gradient),
        ("adam1", Some(adam1), oracle.adam1(), tolerances.adam1),
        ("adam10", (!chaotic).then_some(adam10), oracle.adam10(), tolerances.adam10),
    ] {
        let Some(got) = got else { continue };
        assert_eq!(got.len(), want.len(), "{quantity}");
        for (tensor, &rounding) in oracle.layout.tensors.iter().zip(&roundings.gradient) {
            cases.push(Case {
                name: format!("{quantity}.{}", tensor.name),
                got: got[tensor.range()].to_vec(),
                want: want[tensor.range()].to_vec(),
                tolerance: if quantity == "grad" { enlarged(tolerance, rounding) } else { tolerance },
                exact_zeros: quantity == "grad",
            });
        }
    }
    cases
}

/// The log-determinant of the inverse at each latent row.
fn inverse_log_det(oracle: &Oracle) -> Vec<f64> {
    oracle.log_det.iter().map(|log_det| -log_det).collect()
}

/// Largest relative errors, in double precision, where rows and parameters are off by up to half an epsilon of single
/// precision: the worst of 16 draws, for in any single one the errors of a row may happen to cancel.
#[derive(Default)]
struct Roundings {
    /// z, log_det, log p; x and log_det of the inverse.
    forward: [f64; 3],
    inverse: [f64; 2],
    /// The latter where latent rows are off by as much of double precision.
    inverse_double: [f64; 2],
    /// Of each tensor's gradient, and of the gradient at x.
    gradient: Vec<f64>,
    score: f64,
    /// Of all parameters after ten steps of Adam.
    adam10: f64,
}

impl Roundings {
    fn of(oracle: &Oracle) -> Self {
        let log_det_back = inverse_log_det(oracle);
        let off = |values: &[f64], epsilon: f64, seed: u64| -> Vec<f64> {
            let errors = uniform(values.len(), 0.5 * epsilon, seed);
            values.iter().zip(errors).map(|(value, error)| value * (1.0 + error)).collect()
        };
        let rounded = |values: &[f64], seed: u64| off(values, f64::from(f32::EPSILON), seed);
        let mut unrounded = Cpu::<f64>::new("cpu f64", &oracle.flow, &oracle.parameters());
        let want = oracle.gradient();
        let mut worst = Self { gradient: vec![0.0; oracle.layout.tensors.len()], ..Self::default() };
        for draw in 0..16 {
            let parameters = rounded(&oracle.parameters(), 2 * draw);
            let mut exact = Cpu::<f64>::new("cpu f64", &oracle.flow, &parameters);
            let x = rounded(&oracle.x, 2 * draw + 1);
            let (z, log_det) = exact.forward(&x);
            let back = exact.inverse(&rounded(&oracle.z, 2 * draw + 1));
            let gradient = exact.gradient(&x).expect("the CPU engine has gradients");
            if let Some(want) = oracle.score() {
                worst.score = worst.score.max(relative_error(&exact.score(&x), &want));
            }
            let (adam10, _) = Cpu::<f64>::new("cpu f64", &oracle.flow, &parameters).adam(&x, 10);
            worst.adam10 = worst.adam10.max(relative_error(&adam10, &oracle.adam10()));
            let forward = [
                relative_error(&z, &oracle.z),
                relative_error(&log_det, &oracle.log_det),
                relative_error(&exact.log_prob(&x), &oracle.log_prob),
            ];
            let errors_back = |back: &(Vec<f64>, Vec<f64>)| {
                [relative_error(&back.0, &oracle.x), relative_error(&back.1, &log_det_back)]
            };
            let inverse = errors_back(&back);
            // Of the true parameters: roundings of those are as good as of rows.
            let double = errors_back(&unrounded.inverse(&off(&oracle.z, f64::EPSILON, draw)));
            let tensors = oracle.layout.tensors.iter().map(|tensor| tensor.range());
            let of_tensor = |range: Range<usize>| relative_error(&gradient[range.clone()], &want[range]);
            let errors = forward.into_iter().chain(inverse).chain(double).chain(tensors.map(of_tensor));
            let all = worst.forward.iter_mut().chain(&mut worst.inverse).chain(&mut worst.inverse_double);
            let all = all.chain(&mut worst.gradient);
            all.zip(errors).for_each(|(worst, error)| *worst = worst.max(error));
        }
        worst
    }
}

fn check(comparison: &mut Comparison, case: &Case) {
    comparison.check(&case.name, &case.got, &case.want, case.tolerance);
    if case.exact_zeros {
        comparison.check_zeros(&case.name, &case.got, &case.want);
    }
}

/// Fails unless `case` fails once a value of it, or its length, is wrong.
fn every_corruption_is_found(title: &str, mut case: Case) {
    let scale = case.want.iter().fold(0.0f64, |scale, value| scale.max(value.abs()));
    let at = case.got.len() / 2;
    for corrupted in [case.want[at] + 1.1 * case.tolerance * scale + 1e-300, f64::NAN] {
        let honest = std::mem::replace(&mut case.got[at], corrupted);
        let mut comparison = Comparison::new(title);
        check(&mut comparison, &case);
        assert!(!comparison.failures().is_empty(), "{title}: {} let {corrupted} pass", case.name);
        case.got[at] = honest;
    }
    case.got.pop();
    let mut comparison = Comparison::new(title);
    check(&mut comparison, &case);
    assert!(!comparison.failures().is_empty(), "{title}: {} let a short tensor pass", case.name);
}

/// The CPU engine in precision `R` with row weights, and its score function.
fn weights_and_score<R: Real>(oracle: &Oracle, tolerances: [f64; 3]) {
    let [loss_tolerance, gradient_tolerance, score_tolerance] = tolerances;
    let narrow = |values: &[f64]| values.iter().map(|&value| R::from_wide(value)).collect::<Vec<R>>();
    let wide = |values: &[R]| values.iter().map(|value| value.wide()).collect::<Vec<f64>>();
    let mut engine = CpuEngine::<R>::new(oracle.flow.clone()).expect("valid flow");
    engine.set_parameters(&narrow(&oracle.parameters())).expect("as many as the flow has");
    let mut comparison = Comparison::new(format!("{}, epsilon {:e}", oracle.name, R::epsilon().wide()));
    if let Some((weights, want, gradient)) = oracle.weighted() {
        let x = narrow(&oracle.x);
        let (loss, got) = engine.weighted_loss_and_gradient(&x, &narrow(&weights)).expect("rows");
        comparison.check("weighted loss", &[loss.wide()], &[want], loss_tolerance);
        comparison.check("weighted gradient", &wide(&got), &gradient, gradient_tolerance);
        let scaled: Vec<R> = narrow(&weights).iter().map(|&weight| weight * R::from_wide(8.0)).collect();
        let same = engine.weighted_loss_and_gradient(&x, &scaled).expect("rows");
        assert!(same == (loss, got.clone()), "{}: eight times the weights give other bits", oracle.name);
        // Rows that count twice, and rows that are there twice.
        let features = oracle.flow.features;
        let twice = [&x[..], &x[..3 * features]].concat();
        let mut counted = vec![R::one(); oracle.x.len() / features];
        counted[..3].fill(R::from_wide(2.0));
        let (_, doubled) = engine.loss_and_gradient(&twice).expect("rows");
        let (_, got) = engine.weighted_loss_and_gradient(&x, &counted).expect("rows");
        comparison.check("rows that count twice", &wide(&got), &wide(&doubled), gradient_tolerance);
    }
    if let Some(want) = oracle.score() {
        let (log_prob, score) = engine.score(&narrow(&oracle.x)).expect("rows");
        assert!(log_prob == engine.log_prob(&narrow(&oracle.x)).expect("rows"), "{}", oracle.name);
        comparison.check("score", &wide(&score), &want, score_tolerance);
    }
    comparison.finish();
}

/// The same by the layered plan, with the tolerances of single precision.
fn weights_and_score_on_the_gpu(oracle: &Oracle, tolerances: [f64; 3]) {
    let [loss_tolerance, gradient_tolerance, score_tolerance] = tolerances;
    let Some(mut gpu) = crate::gpu::engine(&oracle.flow, PlanKind::Layered) else { return };
    let (x, parameters) = (from_wide::<f32>(&oracle.x), from_wide::<f32>(&oracle.parameters()));
    Engine::set_parameters(&mut gpu, &parameters).expect("as many as the flow has");
    let mut comparison = Comparison::new(format!("{} on the GPU", oracle.name));
    if let Some((weights, want, gradient)) = oracle.weighted() {
        let weights = from_wide::<f32>(&weights);
        let (loss, got) = pollster::block_on(gpu.weighted_loss_and_gradient(&x, &weights)).expect("rows");
        comparison.check("weighted loss", &[loss], &[want], loss_tolerance);
        comparison.check("weighted gradient", &wide(&got), &gradient, gradient_tolerance);
    }
    if let Some(want) = oracle.score() {
        let score = pollster::block_on(gpu.score(&x)).expect("rows");
        comparison.check("score", &wide(&score), &want, score_tolerance);
        // Of fewer rows it is the same, and of other parameters another.
        let some = 3 * oracle.flow.features;
        let again = pollster::block_on(gpu.score(&x[..some])).expect("rows");
        assert!(again == score[..some], "{}: rows depend on each other", oracle.name);
        let halved: Vec<f32> = parameters.iter().map(|parameter| 0.5 * parameter).collect();
        Engine::set_parameters(&mut gpu, &halved).expect("as before");
        assert_ne!(pollster::block_on(gpu.score(&x[..some])).expect("rows"), again, "{}", oracle.name);
    }
    comparison.finish();
}

#[test]
fn row_weights_and_the_score_function_agree_with_pytorch() {
    for oracle in Oracle::NAMES.map(Oracle::load) {
        weights_and_score::<f64>(&oracle, [1e-9; 3]);
        let roundings = Roundings::of(&oracle);
        let of_gradient = roundings.gradient.iter().copied().fold(0.0, f64::max);
        let epsilon = f64::from(f32::EPSILON);
        let enlarged = |rounding: f64| (128.0 * epsilon).max(8.0 * rounding);
        let tolerances = [enlarged(roundings.forward[2]), enlarged(of_gradient), enlarged(roundings.score)];
        weights_and_score::<f32>(&oracle, tolerances);
        weights_and_score_on_the_gpu(&oracle, tolerances);
    }
}

#[test]
fn every_engine_agrees_with_pytorch_and_no_corruption_does() {
    for oracle in Oracle::NAMES.map(Oracle::load) {
        let all = || subjects(&oracle.flow, &oracle.parameters());
        let roundings = Roundings::of(&oracle);
        for index in 0..all().len() {
            let fresh = || all().swap_remove(index);
            let title = format!("{} on {}", oracle.name, fresh().name());
            let cases = cases(&oracle, &roundings, &fresh);
            let mut comparison = Comparison::new(&title);
            for case in &cases {
                check(&mut comparison, case);
            }
            comparison.finish();
            cases.into_iter().for_each(|case| every_corruption_is_found(&title, case));
        }
    }
}
