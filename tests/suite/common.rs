//! What several test modules share: oracle files, a comparison that collects every failure, and one interface to
//! all engines and precisions under test.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use moonflow::cpu::{CpuEngine, Optimiser, Real};
use moonflow::engine::{Engine, Training};
use moonflow::flow::{Activation, Base, Bijector, Flow, Transform};
use moonflow::gpu::{PlanKind, Target};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule, State};
use moonflow::random::{self, Stream};
use safetensors::SafeTensors;

use crate::gpu::Gpu;

/// The folder that holds `tests/`: that of the sources, unless `MOONFLOW_ROOT` names another, on a machine that was given
/// the test binary and its data alone.
pub fn root() -> PathBuf {
    std::env::var_os("MOONFLOW_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Collects the failures of many comparisons; [`Comparison::finish`] reports them together.
pub struct Comparison {
    subject: String,
    failures: Vec<String>,
    /// Name, largest relative error and tolerance of each check.
    table: Vec<(String, f64, f64)>,
}

impl Comparison {
    /// A comparison that reports under the name `subject`.
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), failures: Vec::new(), table: Vec::new() }
    }

    /// Compares a tensor: max |got − want| must not exceed `tolerance` · max |want|. A NaN or another length fails.
    pub fn check(&mut self, name: &str, got: &[f64], want: &[f64], tolerance: f64) {
        self.check_parts(name, got, want, &[tolerance]);
    }

    /// As [`Comparison::check`], with a tolerance for each of so many equal parts of the tensor.
    pub fn check_parts(&mut self, name: &str, got: &[f64], want: &[f64], tolerances: &[f64]) {
        if got.len() != want.len() {
            self.failures.push(format!("{name}: got {} values, want {}", got.len(), want.len()));
            return;
        }
        let scale = largest(want);
        let part = want.len() / tolerances.len();
        let mut bad = Vec::new();
        for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
            // A NaN is within nothing.
            let tolerance = tolerances[index / part];
            let within = (got - want).abs() <= tolerance * scale;
            if !within {
                bad.push((tolerance, format!("[{index}] got {got:e}, want {want:e}")));
            }
        }
        if let Some((tolerance, _)) = bad.first() {
            let few: Vec<&str> = bad.iter().take(3).map(|(_, text)| &**text).collect();
            self.failures.push(format!(
                "{name}: {} of {} values off by more than {tolerance:e} · {scale:e}: {}",
                bad.len(),
                want.len(),
                few.join("; ")
            ));
        }
        let errors = part_errors(got, want, tolerances.len());
        // The part that comes nearest to its tolerance, or exceeds it by most.
        let shares = errors.into_iter().zip(tolerances);
        let worst = shares.max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        self.table.extend(worst.map(|(error, &tolerance)| (name.to_owned(), error, tolerance)));
    }

    /// Checks that `got` is exactly zero wherever `want` is.
    pub fn check_zeros(&mut self, name: &str, got: &[f64], want: &[f64]) {
        for (index, (&got, _)) in got.iter().zip(want).enumerate().filter(|(_, (_, want))| **want == 0.0) {
            if got != 0.0 {
                self.failures.push(format!("{name}[{index}]: got {got:e}, want exactly 0"));
            }
        }
    }

    /// What failed so far.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Prints the table of errors and panics if anything failed.
    pub fn finish(self) {
        let mut text = format!("{}\n", self.subject);
        for (name, error, tolerance) in &self.table {
            let _ = writeln!(text, "  {name:<40} {error:9.2e}  of {tolerance:9.2e}");
        }
        print!("{text}");
        assert!(
            self.failures.is_empty(),
            "{}: {} checks failed\n{}",
            self.subject,
            self.failures.len(),
            self.failures.join("\n")
        );
    }
}

/// The largest size of a value.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// max |got − want| / max |want|; 0 where both are the same, NaN where a value is.
pub fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    part_errors(got, want, 1).first().copied().unwrap_or(0.0)
}

/// [`relative_error`] of each of `parts` equal parts, relative to the largest value of the whole.
pub fn part_errors(got: &[f64], want: &[f64], parts: usize) -> Vec<f64> {
    let (part, scale) = ((want.len() / parts).max(1), largest(want));
    let of_part = |(got, want): (&[f64], &[f64])| {
        let mut worst = 0.0f64;
        for (got, want) in got.iter().zip(want) {
            let difference = (got - want).abs();
            worst = if difference.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(difference) };
        }
        if worst == 0.0 { 0.0 } else { worst / scale }
    };
    got.chunks(part).zip(want.chunks(part)).map(of_part).collect()
}

/// One configuration's values from PyTorch in double precision; see `tests/oracle/make_oracle.py` and
/// `make_transforms.py`.
pub struct Oracle {
    /// File name without its ending.
    pub name: &'static str,
    pub flow: Flow,
    pub layout: Layout,
    /// Rows in standardised units [N, D].
    pub x: Vec<f64>,
    /// [N, D].
    pub z: Vec<f64>,
    /// Of the flow alone [N].
    pub log_det: Vec<f64>,
    /// In standardised units [N].
    pub log_prob: Vec<f64>,
    /// Mean of −log p in standardised units, before each of 10 Adam steps and after the last [11].
    pub losses: Vec<f64>,
    tensors: HashMap<String, Vec<f64>>,
}

impl Oracle {
    /// Every file.
    pub const NAMES: [&'static str; 11] = [
        "moons_2d",
        "odd_3d",
        "deep_5d",
        "wide_12d",
        "affine_given_4d",
        "actnorm_4d",
        "affine_joint_4d",
        "spline_2d",
        "spline_given_5d",
        "mixed_6d",
        "mixture_3d",
    ];

    /// Reads `tests/oracle/<name>.safetensors`.
    pub fn load(name: &'static str) -> Self {
        let path = root().join("tests/oracle").join(name).with_extension("safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("header");
        let metadata = header.metadata().clone().expect("metadata");
        let tensors: HashMap<String, Vec<f64>> = SafeTensors::deserialize(&bytes)
            .expect("tensors")
            .iter()
            .map(|(name, view)| {
                assert_eq!(view.dtype(), safetensors::Dtype::F64, "{name}");
                let numbers = view.data().as_chunks::<8>().0;
                (name.to_owned(), numbers.iter().map(|&number| f64::from_le_bytes(number)).collect())
            })
            .collect();

        let (mean, std) = (&tensors["standardiser.mean"], &tensors["standardiser.std"]);
        let features = mean.len();
        let flow = match metadata.get("flow") {
            Some(json) => listed_flow(json),
            None => uniform_flow(&metadata, &tensors, features),
        };
        flow.validate().expect("valid flow");

        let unit = std[..flow.modelled()].iter().map(|std| std.ln()).sum::<f64>();
        let at = |index: usize, x: f64| (x - mean[index % features]) / std[index % features];
        Self {
            name,
            layout: Layout::new(&flow),
            flow,
            x: tensors["x"].iter().enumerate().map(|(index, &x)| at(index, x)).collect(),
            z: tensors["z"].clone(),
            log_det: tensors["log_det"].clone(),
            log_prob: tensors["log_prob"].iter().map(|log_prob| log_prob + unit).collect(),
            losses: tensors["loss"].iter().map(|loss| loss - unit).collect(),
            tensors,
        }
    }

    /// Parameters [P] in the order of the layout.
    pub fn parameters(&self) -> Vec<f64> {
        self.flat("")
    }

    /// ∇ₓ log p in standardised units [N, D], in the files of `make_transforms.py`.
    pub fn score(&self) -> Option<Vec<f64>> {
        let std = &self.tensors["standardiser.std"];
        let score = self.tensors.get("score")?;
        Some(score.iter().enumerate().map(|(index, score)| score * std[index % std.len()]).collect())
    }

    /// Row weights [N], the weighted mean of −log p in standardised units, and its gradient [P], in the same files.
    pub fn weighted(&self) -> Option<(Vec<f64>, f64, Vec<f64>)> {
        let weights = self.tensors.get("weights")?.clone();
        let std = &self.tensors["standardiser.std"][..self.flow.modelled()];
        let unit = std.iter().map(|std| std.ln()).sum::<f64>();
        Some((weights, self.tensors["weighted.loss"][0] - unit, self.flat("weighted.grad.")))
    }

    /// Gradient [P] of the mean of −log p.
    pub fn gradient(&self) -> Vec<f64> {
        self.flat("grad.")
    }

    /// Parameters [P] after 1 step of Adam on all rows.
    pub fn adam1(&self) -> Vec<f64> {
        self.flat("adam1.")
    }

    /// Parameters [P] after 10 steps of Adam on all rows.
    pub fn adam10(&self) -> Vec<f64> {
        self.flat("adam10.")
    }

    fn flat(&self, prefix: &str) -> Vec<f64> {
        let mut flat = Vec::new();
        for tensor in &self.layout.tensors {
            let values = &self.tensors[&format!("{prefix}{}", tensor.name)];
            assert_eq!(values.len(), tensor.len(), "{}", tensor.name);
            flat.extend(values);
        }
        flat
    }
}

/// The flow of a file of `make_transforms.py`.
fn listed_flow(json: &str) -> Flow {
    #[derive(serde::Deserialize)]
    struct Listed {
        modelled: usize,
        context: usize,
        activation: Activation,
        transforms: Vec<Transform>,
        #[serde(default)]
        base: Base,
    }
    let Listed { modelled, context, activation, transforms, base } =
        serde_json::from_str(json).expect("a flow");
    Flow { features: modelled + context, context, activation, transforms, base }
}

/// The flow of a file of `make_oracle.py`.
fn uniform_flow(
    metadata: &HashMap<String, String>,
    tensors: &HashMap<String, Vec<f64>>,
    features: usize,
) -> Flow {
    assert_eq!(metadata["activation"], "relu");
    let hidden: Vec<usize> =
        metadata["hidden"].split(',').map(|width| width.parse().expect("width")).collect();
    let masks: Vec<Vec<bool>> = (0..)
        .map_while(|layer| tensors.get(&format!("transforms.{layer}.mask")))
        .map(|mask| mask.iter().map(|&kept| kept == 1.0).collect())
        .collect();
    Flow::new(features, masks.len(), &hidden)
        .expect("valid flow")
        .with_masks(masks)
        .with_bijector(Bijector::Affine { bound: metadata["c"].parse().expect("bound") })
}

/// Adam as the oracle used it.
pub const ORACLE_SCHEDULE: Schedule =
    Schedule { decay: Decay::Constant, base: 1e-3, warmup_steps: 0, total_steps: 10 };

/// An engine in some precision, with a flow and parameters; numbers cross its border in double precision.
pub trait Subject {
    /// For messages.
    fn name(&self) -> &'static str;
    /// Distance from 1 to the next number of its precision.
    fn epsilon(&self) -> f64;
    /// z and log |det ∂z/∂x|.
    fn forward(&mut self, x: &[f64]) -> (Vec<f64>, Vec<f64>);
    /// x and log |det ∂x/∂z|.
    fn inverse(&mut self, z: &[f64]) -> (Vec<f64>, Vec<f64>);
    /// log p(x).
    fn log_prob(&mut self, x: &[f64]) -> Vec<f64>;
    /// Gradient of the mean of −log p; `None` where the engine keeps it to itself.
    fn gradient(&mut self, x: &[f64]) -> Option<Vec<f64>>;
    /// Takes `steps` steps of Adam on all rows of `x`: parameters afterwards, loss before each step.
    fn adam(&mut self, x: &[f64], steps: u32) -> (Vec<f64>, Vec<f64>);
}

/// Every subject that oracles hold for. Another engine is one more line.
pub fn subjects(flow: &Flow, parameters: &[f64]) -> Vec<Box<dyn Subject>> {
    let mut subjects = general_subjects(flow, parameters);
    if PlanKind::choose(flow, &Target::default()) == PlanKind::Fused {
        subjects.extend(Gpu::subject(flow, parameters, PlanKind::Fused));
    }
    subjects
}

/// Those that laws are tried on with many flows. The layered plan takes those with SiLU, so that kernels that are compiled
/// for one serve others; its kernels are held to their twins with every activation. The fused plan, which is compiled anew
/// for every shape, is compared with the CPU instead.
pub fn general_subjects(flow: &Flow, parameters: &[f64]) -> Vec<Box<dyn Subject>> {
    let mut subjects = cpu_subjects(flow, parameters);
    if flow.activation == Activation::Silu {
        subjects.extend(Gpu::subject(flow, parameters, PlanKind::Layered));
    }
    subjects
}

/// Those without a GPU.
pub fn cpu_subjects(flow: &Flow, parameters: &[f64]) -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(Cpu::<f64>::new("cpu f64", flow, parameters)),
        Box::new(Cpu::<f32>::new("cpu f32", flow, parameters)),
        Box::new(Single::new("cpu engine", CpuEngine::new(flow.clone()).expect("valid flow"), parameters)),
    ]
}

/// The CPU engine by its own methods, in either precision.
pub struct Cpu<R: Real> {
    name: &'static str,
    engine: CpuEngine<R>,
}

impl<R: Real> Cpu<R> {
    pub fn new(name: &'static str, flow: &Flow, parameters: &[f64]) -> Self {
        let mut engine = CpuEngine::new(flow.clone()).expect("valid flow");
        engine.set_parameters(&from_wide::<R>(parameters)).expect("as many parameters as the flow has");
        Self { name, engine }
    }
}

impl Cpu<f64> {
    /// ∇ₓ log p [N, D].
    pub fn score(&self, x: &[f64]) -> Vec<f64> {
        self.engine.score(x).expect("whole rows").1
    }
}

impl<R: Real> Subject for Cpu<R> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn epsilon(&self) -> f64 {
        R::epsilon().wide()
    }

    fn forward(&mut self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (z, log_det) = self.engine.forward(&from_wide::<R>(x)).expect("whole rows");
        (wide(&z), wide(&log_det))
    }

    fn inverse(&mut self, z: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (x, log_det) = self.engine.inverse(&from_wide::<R>(z)).expect("whole rows");
        (wide(&x), wide(&log_det))
    }

    fn log_prob(&mut self, x: &[f64]) -> Vec<f64> {
        wide(&self.engine.log_prob(&from_wide::<R>(x)).expect("whole rows"))
    }

    fn gradient(&mut self, x: &[f64]) -> Option<Vec<f64>> {
        Some(wide(&self.engine.loss_and_gradient(&from_wide::<R>(x)).expect("whole rows").1))
    }

    fn adam(&mut self, x: &[f64], steps: u32) -> (Vec<f64>, Vec<f64>) {
        let parameters = self.engine.parameters().len();
        let mut optimiser = Optimiser::new(&Adam::default(), ORACLE_SCHEDULE, parameters);
        let x = from_wide::<R>(x);
        let mut step = || self.engine.train_step(&x, &mut optimiser).expect("whole rows").loss;
        let losses = (0..steps).map(|_| step()).collect();
        (wide(self.engine.parameters()), losses)
    }
}

/// Any engine by the engine interface, in single precision.
pub struct Single<E: Engine> {
    name: &'static str,
    pub engine: E,
    parameters: Vec<f32>,
}

impl<E: Engine> Single<E> {
    pub fn new(name: &'static str, mut engine: E, parameters: &[f64]) -> Self {
        let parameters = from_wide::<f32>(parameters);
        engine.set_parameters(&parameters).expect("as many parameters as the flow has");
        Self { name, engine, parameters }
    }
}

impl<E: Engine> Subject for Single<E> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn epsilon(&self) -> f64 {
        f64::from(f32::EPSILON)
    }

    fn forward(&mut self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let result = pollster::block_on(self.engine.forward(&from_wide::<f32>(x))).expect("whole rows");
        (wide(&result.values), wide(&result.log_det))
    }

    fn inverse(&mut self, z: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let result = pollster::block_on(self.engine.inverse(&from_wide::<f32>(z))).expect("whole rows");
        (wide(&result.values), wide(&result.log_det))
    }

    fn log_prob(&mut self, x: &[f64]) -> Vec<f64> {
        wide(&pollster::block_on(self.engine.log_prob(&from_wide::<f32>(x))).expect("whole rows"))
    }

    fn gradient(&mut self, _x: &[f64]) -> Option<Vec<f64>> {
        None
    }

    fn adam(&mut self, x: &[f64], steps: u32) -> (Vec<f64>, Vec<f64>) {
        let rows = x.len() / self.engine.flow().features;
        let training = Training {
            weights: None,
            train: from_wide(x).into(),
            validation: Vec::new().into(),
            batch: rows as u32,
            adam: Adam::default(),
            schedule: ORACLE_SCHEDULE,
            seed: 3,
        };
        self.engine
            .begin_training(training, State::from_parameters(self.parameters.clone()))
            .expect("a fitting state");
        let records = pollster::block_on(self.engine.train(steps)).expect("training");
        let state = pollster::block_on(self.engine.training_state()).expect("training");
        (wide(&state.parameters), records.iter().map(|record| record.train_nll).collect())
    }
}

/// Rounds to a precision.
pub fn from_wide<R: Real>(values: &[f64]) -> Vec<R> {
    values.iter().map(|&value| R::from_wide(value)).collect()
}

/// Widens to double precision.
pub fn wide<R: Real>(values: &[R]) -> Vec<f64> {
    values.iter().map(|value| value.wide()).collect()
}

/// `count` numbers uniform in ±`limit`, the same for the same `seed`.
pub fn uniform(count: usize, limit: f64, seed: u64) -> Vec<f64> {
    let number =
        |index| random::uniform(random::philox([index, 0, 0, Stream::Data as u32], random::key(seed))[0]);
    (0..count as u32).map(|index| limit * (2.0 * f64::from(number(index)) - 1.0)).collect()
}

/// Parameters uniform in ±1.5/√inputs in every layer: last layers too, without which a flow is the identity and
/// its laws hold trivially.
pub fn random_parameters(flow: &Flow, seed: u64) -> Vec<f64> {
    let layout = Layout::new(flow);
    let mut parameters = uniform(layout.total, 1.5, seed);
    for tensor in &layout.tensors {
        let inputs = tensor.shape.get(1).map_or(9.0, |&inputs| inputs as f64);
        for value in &mut parameters[tensor.range()] {
            *value /= inputs.sqrt();
        }
    }
    parameters
}
