//! moonflow behind the line protocol of `benches/peers`: reads one JSON job a line, answers with one JSON line.
//!
//! `moonflow-worker --device cpu|gpu --threads N`. Uses the public interface only, as any program would.

mod protocol;

use moonflow::Recipe;
use moonflow::cpu::CpuEngine;
use moonflow::engine::{Engine, Sampling, Training};
use moonflow::flow::{BijectorKind, ConditionerForm, Flow};
use moonflow::gpu::{GpuEngine, adapters};
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule, State};
use moonflow::random;
use pollster::block_on;
use protocol::{Checked, Job, Result, Work, check_rows, chirp};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let flag = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    let threads = flag("--threads").map_or(Ok(0), |threads| threads.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    if flag("--device").as_deref() == Some("gpu") {
        let found = block_on(adapters());
        let context = block_on(found.first().ok_or("no GPU adapter was found")?.open())?;
        let name = context.info().to_string();
        serve(&name, |flow| Ok(GpuEngine::on(flow, context.clone())?))
    } else {
        serve("CPU", |flow| Ok(CpuEngine::<f32>::new(flow)?))
    }
}

fn serve<E: Engine + 'static>(device: &str, make: impl Fn(Flow) -> Result<E>) -> Result<()> {
    let hello = json!({ "versions": {}, "device": device });
    protocol::serve(hello, |job| prepare(job, make(flow(job)?)?), |job| check(job, make(flow(job)?)?))
}

fn prepare<E: Engine + 'static>(job: &Job, mut engine: E) -> Result<Work> {
    let parameters = parameters(engine.flow());
    let (steps, rows) = (job.steps, job.rows);
    Ok(match job.job.as_str() {
        "train" => {
            let data = normal_rows(steps * job.batch, job.features);
            engine.begin_training(training(job, data, 1e-3), State::from_parameters(parameters))?;
            Box::new(move |epochs| {
                let records = block_on(engine.train(epochs))?;
                if records.iter().any(|record| record.halted) {
                    return Err("the training met a number that is not finite".into());
                }
                Ok(epochs as usize * steps)
            })
        }
        "log_prob" => {
            engine.set_parameters(&parameters)?;
            let x = normal_rows(rows, job.features);
            Box::new(move |times| {
                for _ in 0..times {
                    std::hint::black_box(block_on(engine.log_prob(&x))?);
                }
                Ok(times as usize * rows)
            })
        }
        "sample" => {
            engine.set_parameters(&parameters)?;
            let mut seed = 0;
            Box::new(move |times| {
                for _ in 0..times {
                    seed += 1;
                    let request = Sampling { rows, first: 0, seed, temperature: 1.0 };
                    std::hint::black_box(block_on(engine.sample(request))?);
                }
                Ok(times as usize * rows)
            })
        }
        other => return Err(format!("job {other:?} is not known").into()),
    })
}

/// One step at a rate of 0 over all rows of the check.
fn check(job: &Job, mut engine: impl Engine) -> Result<Checked> {
    let parameters = parameters(engine.flow());
    let (count, couplings) = (parameters.len(), couplings(engine.flow()));
    engine.begin_training(training(job, check_rows(job), 0.0), State::from_parameters(parameters))?;
    let record = block_on(engine.train(1))?[0];
    Ok(Checked { nll: record.train_nll, grad_norm: record.grad_norm, parameters: count, couplings })
}

fn flow(job: &Job) -> Result<Flow> {
    let (bijector, conditioner, depth) = match job.flow.as_str() {
        "" | "affine" => (BijectorKind::Affine, ConditionerForm::Separate, 2),
        "joint" => (BijectorKind::Affine, ConditionerForm::Joint, 2),
        "spline" => (BijectorKind::Spline, ConditionerForm::Joint, 2),
        // One block, which has two linear layers.
        "residual-spline" => (BijectorKind::Spline, ConditionerForm::Residual, 1),
        other => return Err(format!("flow {other:?} is not known").into()),
    };
    let (layers, hidden) = (job.layers, vec![job.hidden; depth]);
    let mut recipe = Recipe { layers, hidden, bijector, conditioner, ..Recipe::default() };
    if bijector == BijectorKind::Spline {
        (recipe.bins, recipe.tail_bound) = (job.bins, job.tail_bound);
    }
    Ok(recipe.flow(job.features)?)
}

/// The networks of each coupling, as a check tells them.
fn couplings(flow: &Flow) -> Vec<Value> {
    let mut couplings = Vec::new();
    for coupling in flow.transforms.iter().filter_map(|transform| transform.coupling()) {
        let (kept, moved) = coupling.split();
        for network in coupling.networks(flow.features) {
            let mut widths = vec![kept.len()];
            widths.extend(network.layers.iter().map(|layer| layer.outputs));
            widths.pop();
            widths.push(moved.len() * network.numbers);
            couplings.push(json!({ "kept": kept, "widths": widths }));
        }
    }
    couplings
}

/// A training on `train` [N, D] at a constant rate.
fn training(job: &Job, train: Vec<f32>, rate: f32) -> Training {
    Training {
        weights: None,
        train: train.into(),
        validation: Vec::new().into(),
        batch: job.batch as u32,
        adam: Adam { clip_norm: 5.0, ..Adam::default() },
        schedule: Schedule { decay: Decay::Constant, base: rate, warmup_steps: 0, total_steps: u32::MAX },
        seed: 1,
    }
}

/// Parameters [P]: value k is chirp(k) / √inputs, with D inputs for a bias.
fn parameters(flow: &Flow) -> Vec<f32> {
    let layout = Layout::new(flow);
    let mut parameters = vec![0.0; layout.total];
    for tensor in &layout.tensors {
        let inputs = tensor.shape.get(1).copied().unwrap_or(flow.features);
        for index in tensor.range() {
            parameters[index] = (chirp(index) / (inputs as f64).sqrt()) as f32;
        }
    }
    parameters
}

/// Standard normal rows [count, features].
fn normal_rows(count: usize, features: usize) -> Vec<f32> {
    let mut rows = vec![0.0; count * features];
    for (row, values) in rows.chunks_exact_mut(features).enumerate() {
        random::normals(row as u32, 1, values);
    }
    rows
}
