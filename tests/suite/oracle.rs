//! Every engine against PyTorch autograd in double precision, tensor by tensor: the CPU engine on every flow, the GPU on
//! those that between them have every kind of transform, conditioner, bijector and base density. A software driver compiles
//! for ten seconds per flow, and the modules of `parity` compare the GPU with the CPU on flows of every kind.
//!
//! `cargo test --test suite oracle -- --nocapture` prints the largest relative error of each quantity.
//!
//! A flow that expands, or whose inverse does, enlarges rounding errors, and so do steps of training. By how much is
//! measured on the oracle's own parameters and rows ([`Amplification`]) and widens tolerances. In `mixed_6d` the splines have
//! slopes down to 1e-5: the inverse enlarges an error by 2e8 at one row, by 1e7 and 4e6 at two more, elsewhere by less than
//! 2e5. Its loss falls from 54 to 27 nats in ten steps of Adam. On the way one row after the other passes such a slope, where
//! single precision is off by up to 1e-4 of the whole gradient, and a small error of the parameters grows by 3e5 in the
//! gradient. So ten losses are compared with PyTorch's, but parameters after ten steps by how far they have moved.

use std::collections::HashMap;

use moonflow::cpu::{CpuEngine, Real};
use moonflow::engine::Engine;
use moonflow::gpu::PlanKind;

use crate::common::{
    Comparison, Cpu, Oracle, Subject, cpu_subjects, from_wide, part_errors, subjects, uniform, wide,
};

/// What all roundings of an engine may do to a tensor, as a multiple of what those of its inputs do.
const ROUNDINGS: f64 = 8.0;
/// The same for one part of it, whose few numbers show less of what the draws might do.
const ROUNDINGS_OF_A_PART: f64 = 16.0;
/// Amplification by ten steps of training from which their tolerances are widened.
const STEEP: f64 = 64.0;
/// By how much parameters may then be off, as a fraction of the largest movement of a tensor in these steps.
const MOVEMENT: f64 = 0.25;

/// Largest tolerance, relative to the largest value of a tensor, of a comparison that says anything; and the share of the
/// rows that may have a larger one.
const MEANINGFUL: f64 = 0.05;
const MEANINGLESS_ROWS: f64 = 0.1;

/// What a tensor is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Value,
    Gradient,
    /// After one step of training.
    Step,
    /// During ten steps, and after them.
    Losses,
    Steps,
}

impl Kind {
    /// Largest relative error in single precision, in multiples of its epsilon (1.2e-7), where little is amplified.
    ///
    /// They are some four times the worst that `wide_12d` shows: its log-determinants reach 18 and enlarge rounding errors
    /// by e to some part of that. Double precision is off by the same multiples of its own epsilon (12 for z, 92 for a
    /// gradient), so they are the flow's, not the code's.
    fn multiple(self) -> f64 {
        match self {
            Self::Value | Self::Step | Self::Losses => 32.0,
            Self::Gradient => 128.0,
            Self::Steps => 256.0,
        }
    }
}

/// The flows that the GPU is held to directly. The first takes both plans. The layered plan alone takes the others, which
/// mix bijectors.
const ON_THE_GPU: [&str; 3] = ["moons_2d", "mixed_6d", "mixture_3d"];

fn on_the_gpu(oracle: &Oracle) -> bool {
    ON_THE_GPU.contains(&oracle.name)
}

/// A tensor of the oracle's, or what a subject computes in its place.
struct Quantity {
    name: String,
    kind: Kind,
    values: Vec<f64>,
    /// Equal parts that have a tolerance each: rows, steps, or the whole.
    parts: usize,
}

impl Quantity {
    fn new(name: impl Into<String>, kind: Kind, values: Vec<f64>, parts: usize) -> Self {
        Self { name: name.into(), kind, values, parts }
    }
}

/// What a subject yields at rows x and latent rows z; `gradient` where it has one.
struct Results {
    forward: (Vec<f64>, Vec<f64>),
    log_prob: Vec<f64>,
    inverse: (Vec<f64>, Vec<f64>),
    losses: Vec<f64>,
    gradient: Option<Vec<f64>>,
    adam1: Vec<f64>,
    adam10: Vec<f64>,
}

impl Results {
    /// Computed by subjects with the parameters to be looked at, which `fresh` makes.
    fn of(fresh: &dyn Fn() -> Box<dyn Subject>, x: &[f64], z: &[f64]) -> Self {
        let mut subject = fresh();
        let (adam1, _) = fresh().adam(x, 1);
        let (adam10, losses) = fresh().adam(x, 10);
        Self {
            forward: subject.forward(x),
            log_prob: subject.log_prob(x),
            inverse: subject.inverse(z),
            losses,
            gradient: subject.gradient(x),
            adam1,
            adam10,
        }
    }

    /// PyTorch's.
    fn wanted(oracle: &Oracle) -> Self {
        Self {
            forward: (oracle.z.clone(), oracle.log_det.clone()),
            log_prob: oracle.log_prob.clone(),
            inverse: (oracle.x.clone(), oracle.log_det.iter().map(|log_det| -log_det).collect()),
            losses: oracle.losses[..10].to_vec(),
            gradient: Some(oracle.gradient()),
            adam1: oracle.adam1(),
            adam10: oracle.adam10(),
        }
    }

    fn quantities(self, oracle: &Oracle) -> Vec<Quantity> {
        let rows = oracle.log_det.len();
        let mut quantities = vec![
            Quantity::new("z", Kind::Value, self.forward.0, 1),
            Quantity::new("log_det", Kind::Value, self.forward.1, 1),
            Quantity::new("log_prob", Kind::Value, self.log_prob, 1),
            Quantity::new("inverse: x", Kind::Value, self.inverse.0, rows),
            Quantity::new("inverse: log_det", Kind::Value, self.inverse.1, rows),
            Quantity::new("losses", Kind::Losses, self.losses, 10),
        ];
        for (what, kind, values) in [
            ("grad", Kind::Gradient, self.gradient),
            ("adam1", Kind::Step, Some(self.adam1)),
            ("adam10", Kind::Steps, Some(self.adam10)),
        ] {
            let Some(values) = values else { continue };
            assert_eq!(values.len(), oracle.layout.total, "{what}");
            quantities.extend(oracle.layout.tensors.iter().map(|tensor| {
                Quantity::new(format!("{what}.{}", tensor.name), kind, values[tensor.range()].to_vec(), 1)
            }));
        }
        quantities
    }
}

/// By what factor relative errors of rows and parameters come out enlarged: the worst of 16 draws, for in any single one the
/// errors of a row may happen to cancel.
struct Amplification {
    /// In each part of each quantity, relative to the quantity's largest value.
    of: HashMap<String, Vec<f64>>,
    /// In the gradient at x.
    score: f64,
    /// In all parameters together after ten steps.
    training: f64,
}

impl Amplification {
    fn of(oracle: &Oracle) -> Self {
        /// Twice the largest error of the inputs: far above roundings in double precision, and so small that all is in
        /// proportion to it.
        const ERROR: f64 = 1e-12;

        let off = |values: &[f64], seed: u64| -> Vec<f64> {
            let errors = uniform(values.len(), 0.5 * ERROR, seed);
            values.iter().zip(errors).map(|(value, error)| value * (1.0 + error)).collect()
        };
        let factors = |got: &[f64], want: &[f64], parts: usize| {
            part_errors(got, want, parts).into_iter().map(|error| error / ERROR)
        };
        let wanted = Results::wanted(oracle).quantities(oracle);
        let mut worst = Self { of: HashMap::new(), score: 0.0, training: 0.0 };
        for draw in 0..16 {
            let parameters = off(&oracle.parameters(), 2 * draw);
            let fresh = || Cpu::<f64>::new("cpu f64", &oracle.flow, &parameters);
            let [x, z] = [&oracle.x, &oracle.z].map(|rows| off(rows, 2 * draw + 1));
            if let Some(want) = oracle.score() {
                worst.score = factors(&fresh().score(&x), &want, 1).fold(worst.score, f64::max);
            }
            let got = Results::of(&|| Box::new(fresh()), &x, &z);
            worst.training = factors(&got.adam10, &oracle.adam10(), 1).fold(worst.training, f64::max);
            for (got, want) in got.quantities(oracle).iter().zip(&wanted) {
                let factors = factors(&got.values, &want.values, want.parts);
                let worst = worst.of.entry(want.name.clone()).or_insert_with(|| vec![0.0; want.parts]);
                worst.iter_mut().zip(factors).for_each(|(worst, factor)| *worst = worst.max(factor));
            }
        }
        worst
    }

    /// Relative tolerances of a quantity's parts: in double precision 1e-9, in single precision a multiple of epsilon, and
    /// more where roundings are amplified to more.
    fn tolerances(&self, oracle: &Oracle, quantity: &Quantity, epsilon: f64) -> Vec<f64> {
        let single = epsilon > f64::EPSILON;
        let least = if single { quantity.kind.multiple() * epsilon } else { 1e-9 };
        let factors = &self.of[&quantity.name];
        let most = ROUNDINGS * factors.iter().copied().fold(0.0, f64::max);
        let widened = match quantity.kind {
            Kind::Value | Kind::Gradient => true,
            Kind::Step => false,
            Kind::Losses => self.training > STEEP,
            Kind::Steps if single && self.training > STEEP => {
                return vec![least.max(MOVEMENT * moved(oracle, quantity))];
            }
            Kind::Steps => false,
        };
        let of_part = |&factor: &f64| {
            if widened { least.max(epsilon * most.min(ROUNDINGS_OF_A_PART * factor)) } else { least }
        };
        factors.iter().map(of_part).collect()
    }
}

/// Largest movement of a tensor in ten steps of training, relative to its largest value after them.
fn moved(oracle: &Oracle, adam10: &Quantity) -> f64 {
    let mut tensors = oracle.layout.tensors.iter();
    let tensor = tensors.find(|tensor| adam10.name == format!("adam10.{}", tensor.name));
    let range = tensor.expect("named after a tensor").range();
    part_errors(&oracle.parameters()[range], &adam10.values, 1)[0]
}

/// A tensor that an engine computed, and what PyTorch says.
struct Case {
    name: String,
    kind: Kind,
    got: Vec<f64>,
    want: Vec<f64>,
    /// Of equal parts.
    tolerances: Vec<f64>,
}

/// Everything that the oracle knows, computed by subjects with the oracle's parameters, which `fresh` makes.
fn cases(oracle: &Oracle, amplification: &Amplification, fresh: &dyn Fn() -> Box<dyn Subject>) -> Vec<Case> {
    let epsilon = fresh().epsilon();
    let mut got: HashMap<String, Vec<f64>> = Results::of(fresh, &oracle.x, &oracle.z)
        .quantities(oracle)
        .into_iter()
        .map(|quantity| (quantity.name, quantity.values))
        .collect();
    let wanted = Results::wanted(oracle).quantities(oracle).into_iter();
    let pairs = wanted.filter_map(|want| Some((got.remove(&want.name)?, want)));
    let cases = pairs.map(|(got, want)| Case {
        tolerances: amplification.tolerances(oracle, &want, epsilon),
        name: want.name,
        kind: want.kind,
        got,
        want: want.values,
    });
    cases.collect()
}

/// How many parts of a case have a tolerance under which nothing would fail.
fn meaningless(case: &Case) -> usize {
    if case.kind == Kind::Steps {
        return 0;
    }
    case.tolerances.iter().filter(|&&tolerance| tolerance > MEANINGFUL).count()
}

fn check(comparison: &mut Comparison, case: &Case) {
    comparison.check_parts(&case.name, &case.got, &case.want, &case.tolerances);
    // Weights of masked inputs and unread outputs have no gradient at all.
    if case.kind == Kind::Gradient {
        comparison.check_zeros(&case.name, &case.got, &case.want);
    }
}

/// Fails unless `case` fails once a value of it, or its length, is wrong.
fn every_corruption_is_found(title: &str, mut case: Case) {
    let scale = case.want.iter().fold(0.0f64, |scale, value| scale.max(value.abs()));
    let at = case.got.len() / 2;
    let tolerance = case.tolerances[at / (case.got.len() / case.tolerances.len())];
    for corrupted in [case.want[at] + 1.1 * tolerance * scale + 1e-300, f64::NAN] {
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

fn weights_and_score_agree(oracle: &Oracle, amplification: &Amplification) {
    weights_and_score::<f64>(oracle, [1e-9; 3]);
    let Amplification { of, score, .. } = amplification;
    let gradient = of.iter().filter(|(name, _)| name.starts_with("grad")).map(|(_, factors)| factors[0]);
    let widened = |factor: f64| f64::from(f32::EPSILON) * (ROUNDINGS * factor).max(128.0);
    let tolerances = [of["log_prob"][0], gradient.fold(0.0, f64::max), *score].map(widened);
    weights_and_score::<f32>(oracle, tolerances);
    if on_the_gpu(oracle) {
        weights_and_score_on_the_gpu(oracle, tolerances);
    }
}

fn every_engine_agrees(oracle: &Oracle, amplification: &Amplification) {
    let subjects = if on_the_gpu(oracle) { subjects } else { cpu_subjects };
    let all = || subjects(&oracle.flow, &oracle.parameters());
    for index in 0..all().len() {
        let fresh = || all().swap_remove(index);
        let title = format!("{} on {}", oracle.name, fresh().name());
        let cases = cases(oracle, amplification, &fresh);
        let mut comparison = Comparison::new(&title);
        for case in &cases {
            check(&mut comparison, case);
            let (meaningless, all) = (meaningless(case), case.tolerances.len());
            assert!(
                meaningless as f64 <= MEANINGLESS_ROWS * all as f64,
                "{title}: {}: {meaningless} of {all} parts are allowed to be off by more than {MEANINGFUL}",
                case.name
            );
        }
        comparison.finish();
        cases.into_iter().for_each(|case| every_corruption_is_found(&title, case));
    }
}

/// A test for each file, so that they run side by side.
macro_rules! agree_with_pytorch {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let oracle = Oracle::load(stringify!($name));
            let amplification = Amplification::of(&oracle);
            every_engine_agrees(&oracle, &amplification);
            weights_and_score_agree(&oracle, &amplification);
        })*

        #[test]
        fn every_file_has_a_test() {
            assert_eq!(Oracle::NAMES, [$(stringify!($name)),*]);
        }
    };
}

agree_with_pytorch!(
    moons_2d odd_3d deep_5d wide_12d affine_given_4d actnorm_4d affine_joint_4d spline_2d spline_given_5d mixed_6d
    mixture_3d
);
