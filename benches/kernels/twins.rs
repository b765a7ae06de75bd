//! The CPU's functions on one thread, one call for the work of the GPU's largest dispatch: those that the CPU engine
//! runs as they stand, and of the fused plan's kernels the engine's pass that each is. The products and couplings of the
//! layered plan have no such function; the engine computes them as part of a pass.

use moonflow::cpu::CpuEngine;
use moonflow::cpu::activation::{activate, activate_backward};
use moonflow::cpu::adam::{AdamState, Rule, adam, global_norm};
use moonflow::cpu::batch::gather;
use moonflow::cpu::loss::negative_log_likelihood;
use moonflow::cpu::sampling::{Noise, latent};
use moonflow::engine::Sampling;
use moonflow::layout::Layout;
use moonflow::random::{self, Stream};
use rayon::ThreadPoolBuilder;

use crate::plans::{ADAM, BATCHES, Plans, SCHEDULE};
use crate::support::{Bench, Cost, Shape, normal_rows, random_parameters, timed};

pub fn measure(bench: &mut Bench, shape: &Shape, plans: &Plans) {
    functions(bench, shape, plans);
    passes(bench, shape, plans);
}

/// Measures the functions of the shape's sizes.
fn functions(bench: &mut Bench, shape: &Shape, plans: &Plans) {
    let rows = shape.batch;
    let features = shape.features;
    let size = rows * features;
    let flow = shape.flow();
    let total = Layout::new(&flow).total;
    let [inputs, outputs] = shape.hidden;
    let wide = &normal_rows(rows, inputs.max(outputs))[..];
    let x = &normal_rows(rows, features)[..];
    let train = &normal_rows(BATCHES * rows, features)[..];
    let log_det = &vec![0.1; rows][..];
    let gradient = &random_parameters(&flow)[..];

    macro_rules! twin {
        ($name:literal, $cost:expr, [$($buffer:ident = $length:expr),*], $call:expr) => {
            if let Some(cost) = $cost {
                bench.measure($name, "cpu", shape, cost, || {
                    $(let mut $buffer = vec![0.0f32; $length];)*
                    move |times| timed(times, || $call)
                });
            }
        };
    }
    let cost = |name| plans.cost(name);
    let elementwise = |flops, words: usize| Some(Cost { rows, flops, bytes: 4 * words as u64 });
    // Both networks of a coupling have a layer of this shape, and the GPU takes them together.
    let hidden = 2 * rows * outputs;

    // On the GPU a part of the linear kernels.
    twin!("activate", elementwise(0, 2 * hidden), [h = hidden], {
        for h in h.chunks_exact_mut(rows * outputs) {
            activate(flow.activation, wide, h);
        }
    });
    twin!("activate_backward", elementwise(0, 3 * hidden), [d_pre = hidden], {
        for d_pre in d_pre.chunks_exact_mut(rows * outputs) {
            activate_backward(flow.activation, wide, wide, d_pre);
        }
    });
    twin!("gather", cost("gather"), [batch = size], gather(features, 0, 1, 0, train, &mut batch));
    twin!("log_density", cost("log_density"), [nll = rows], negative_log_likelihood(0, x, log_det, &mut nll));
    // The half of sum_partials and of fused_sum that is a function of its own.
    twin!("global_norm", elementwise(2 * total as u64, total), [], global_norm(gradient));
    let rule = Rule::<f32>::new(&ADAM);
    let progress = AdamState { learning_rate: SCHEDULE.base, ..AdamState::resume(&rule, 1) };
    twin!(
        "adam",
        cost("adam"),
        [parameters = total, moment1 = total, moment2 = total],
        adam(&rule, &progress, gradient, &mut parameters, &mut moment1, &mut moment2)
    );
    twin!(
        "latent_noise",
        cost("latent_noise"),
        [z = size],
        latent(features, 0, Noise { first: 0, seed: 1, temperature: 1.0 }, &mut z)
    );
    let order = (BATCHES * rows) as u32;
    twin!("permutation", cost("permutation"), [], {
        (0..order).fold(0, |sum: u32, row| sum.wrapping_add(random::permute(row, order, 1, Stream::Epoch, 0)))
    });
}

/// A pass of the engine over rows [B, D].
type Pass = fn(&mut CpuEngine<f32>, Sampling, &[f32]);

/// The engine's passes, by the fused kernels that do the same.
const PASSES: [(&str, Pass); 4] = [
    ("fused_forward", |engine, _, x| drop(engine.log_prob(x).expect("whole rows"))),
    ("fused_inverse", |engine, _, z| drop(engine.inverse(z).expect("whole rows"))),
    ("fused_sample", |engine, sampling, _| drop(engine.sample(sampling, &[]).expect("no context"))),
    ("fused_gradient", |engine, _, x| drop(engine.loss_and_gradient(x).expect("whole rows"))),
];

/// Measures the engine's passes over one batch, for shapes that the fused kernels are for. Operations are counted as the
/// kernels do them, of which the engine leaves out those on masked weights.
fn passes(bench: &mut Bench, shape: &Shape, plans: &Plans) {
    let one = ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let x = normal_rows(shape.batch, shape.features);
    let sampling = Sampling { rows: shape.batch, first: 0, seed: 1, temperature: 1.0 };
    for (name, pass) in PASSES {
        let Some(cost) = plans.cost(name) else { continue };
        bench.measure(name, "cpu", shape, cost, || {
            let flow = shape.flow();
            let parameters = random_parameters(&flow);
            let mut engine = CpuEngine::<f32>::new(flow).expect("a valid shape");
            engine.set_parameters(&parameters).expect("as many parameters as the flow has");
            let (one, x) = (&one, &x);
            move |times| one.install(|| timed(times, || pass(&mut engine, sampling, x)))
        });
    }
}
