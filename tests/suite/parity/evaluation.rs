//! Scoring, inversion and sampling on the GPU, tile by tile, against the CPU engine.

use moonflow::cpu::CpuEngine;
use moonflow::engine::{Engine, Sampling, Transformed};
use moonflow::flow::{Activation, Flow, Masking};
use moonflow::gpu::{GpuEngine, PlanKind};
use moonflow::random;

use super::plans::cases;
use crate::common::{Comparison, from_wide, random_parameters, relative_error, uniform, wide};
use crate::gpu::{context, engine, on_both_plans};

on_both_plans! {
    a_row_has_the_same_bits_whatever_rows_and_tiles_are_beside_it
    more_rows_than_a_tile_holds_are_cut_and_put_together_again
    samples_are_the_same_however_they_are_cut
    samples_are_the_inverse_of_the_noise_that_the_cpu_draws
    every_answer_is_that_of_the_cpu
    a_conditional_flow_answers_as_on_the_cpu_and_hands_the_context_back
    one_changed_parameter_changes_every_answer
    no_rows_give_empty_answers
    wrong_lengths_are_refused_with_both_numbers
}

#[test]
fn kernels_that_a_call_does_not_run_are_not_compiled() {
    let Some(context) = context() else { return };
    // As wide as no other flow that this device may have seen.
    let flow = Flow::new(47, 1, &[3]).expect("valid");
    let mut engine = GpuEngine::with_plan(flow, context.clone(), PlanKind::Fused).expect("a narrow flow");
    let mut before = context.compiled();
    log_prob(&mut engine, &rows_of(47, 2));
    let mut now = context.compiled();
    now.retain(|name| before.iter().position(|other| other == name).map(|at| before.remove(at)).is_none());
    assert_eq!(now, ["fused_forward"]);
}

const FEATURES: usize = 5;
const SEED: u64 = 11;

fn flow() -> Flow {
    let flow = Flow::new(FEATURES, 3, &[19, 7]).expect("valid");
    flow.with_activation(Activation::Silu).with_masking(Masking::HalfSplit)
}

fn parameters() -> Vec<f32> {
    from_wide(&random_parameters(&flow(), SEED))
}

/// The GPU engine with parameters of which no layer is zero.
fn trained(plan: PlanKind) -> Option<GpuEngine> {
    let mut engine = engine(&flow(), plan)?;
    engine.set_parameters(&parameters()).expect("fits");
    Some(engine)
}

fn rows(count: usize) -> Vec<f32> {
    rows_of(FEATURES, count)
}

fn rows_of(features: usize, count: usize) -> Vec<f32> {
    from_wide(&uniform(count * features, 2.0, 3))
}

fn forward(engine: &mut GpuEngine, x: &[f32]) -> Transformed {
    pollster::block_on(engine.forward(x)).expect("whole rows")
}

fn inverse(engine: &mut GpuEngine, z: &[f32]) -> Transformed {
    pollster::block_on(engine.inverse(z)).expect("whole rows")
}

fn log_prob(engine: &mut GpuEngine, x: &[f32]) -> Vec<f32> {
    pollster::block_on(engine.log_prob(x)).expect("whole rows")
}

fn sample(engine: &mut GpuEngine, rows: usize, first: u32, temperature: f32) -> Vec<f32> {
    let sampling = Sampling { rows, first, seed: SEED, temperature };
    pollster::block_on(engine.sample(sampling)).expect("samples")
}

fn a_row_has_the_same_bits_whatever_rows_and_tiles_are_beside_it(plan: PlanKind) {
    let Some(mut whole) = trained(plan) else { return };
    const MOST: usize = 200;
    let x = rows(MOST);
    let forward_whole = forward(&mut whole, &x);
    let inverse_whole = inverse(&mut whole, &x);
    let log_prob_whole = log_prob(&mut whole, &x);
    let sample_whole = sample(&mut whole, MOST, 7, 0.9);
    for count in [1, 63, 64, 65, MOST] {
        // An engine of its own has the smallest tile that holds these rows; the other one keeps its tile.
        let mut fresh = trained(plan).expect("as before");
        for engine in [&mut fresh, &mut whole] {
            let values = count * FEATURES;
            let got = forward(engine, &x[..values]);
            assert_eq!(got.values, forward_whole.values[..values], "{count} rows");
            assert_eq!(got.log_det, forward_whole.log_det[..count], "{count} rows");
            let got = inverse(engine, &x[..values]);
            assert_eq!(got.values, inverse_whole.values[..values], "{count} rows");
            assert_eq!(got.log_det, inverse_whole.log_det[..count], "{count} rows");
            assert_eq!(log_prob(engine, &x[..values]), log_prob_whole[..count], "{count} rows");
            assert_eq!(sample(engine, count, 7, 0.9), sample_whole[..values], "{count} rows");
        }
    }
}

fn more_rows_than_a_tile_holds_are_cut_and_put_together_again(plan: PlanKind) {
    // More tiles than are under way at once.
    const TILES: usize = 3 * 65_536;
    let flow = Flow::new(2, 1, &[1]).expect("valid");
    let fresh = || {
        let mut engine = engine(&flow, plan)?;
        engine.set_parameters(&from_wide(&random_parameters(&flow, SEED))).expect("fits");
        Some(engine)
    };
    let (Some(mut large), Some(mut small)) = (fresh(), fresh()) else { return };
    let x: Vec<f32> = from_wide(&uniform(2 * (TILES + 3), 2.0, 3));
    // The last row of the third tile and all of the fourth.
    let (tail, rows) = (TILES - 1, 4);
    let (whole, part) = (forward(&mut large, &x), forward(&mut small, &x[2 * tail..]));
    assert_eq!(whole.values[2 * tail..], part.values);
    assert_eq!(whole.log_det[tail..], part.log_det);
    assert_eq!(log_prob(&mut large, &x)[tail..], log_prob(&mut small, &x[2 * tail..]));
    assert_eq!(sample(&mut large, TILES + 3, 0, 1.0)[2 * tail..], sample(&mut small, rows, tail as u32, 1.0));
}

fn samples_are_the_same_however_they_are_cut(plan: PlanKind) {
    let Some(mut engine) = trained(plan) else { return };
    let whole = sample(&mut engine, 150, 20, 0.8);
    for (from, count) in [(0, 1), (5, 64), (63, 66), (149, 1)] {
        let part = sample(&mut engine, count, 20 + from as u32, 0.8);
        assert_eq!(part, whole[from * FEATURES..(from + count) * FEATURES], "rows {from} + {count}");
    }
    // Row numbers wrap around.
    let around = sample(&mut engine, 3, u32::MAX - 1, 1.0);
    assert_eq!(around[2 * FEATURES..], sample(&mut engine, 1, 0, 1.0));
}

fn samples_are_the_inverse_of_the_noise_that_the_cpu_draws(plan: PlanKind) {
    let Some(mut engine) = trained(plan) else { return };
    for temperature in [0.0, 1.0] {
        let mut noise = vec![0.0; 70 * FEATURES];
        for (row, noise) in noise.chunks_mut(FEATURES).enumerate() {
            random::normals(4 + row as u32, SEED, noise);
        }
        noise.iter_mut().for_each(|noise| *noise *= temperature);
        let samples = sample(&mut engine, 70, 4, temperature);
        assert_eq!(samples, inverse(&mut engine, &noise).values, "temperature {temperature}");
    }
}

/// What the GPU gives for some rows: each against double precision, off by at most 4 times as much as the CPU is in
/// single precision, or 4 epsilons, relative to the largest value.
fn against_the_cpu(engine: &mut GpuEngine, count: usize) -> Comparison {
    let flow = engine.flow().clone();
    let parameters: Vec<f32> = from_wide(&random_parameters(&flow, SEED));
    let mut exact = CpuEngine::<f64>::new(flow.clone()).expect("valid");
    let mut single = CpuEngine::<f32>::new(flow.clone()).expect("valid");
    exact.set_parameters(&wide(&parameters)).expect("fits");
    single.set_parameters(&parameters).expect("fits");
    let x = rows_of(flow.features, count);
    let context = context_of(&flow, &x);
    let mut comparison = Comparison::new(format!("{count} rows"));
    let mut check = |name: &str, got: &[f32], want: &[f64], single: &[f32]| {
        let own = relative_error(&wide(single), want);
        comparison.check(
            &format!("{name} (cpu {own:.1e})"),
            &wide(got),
            want,
            4.0 * own.max(f64::from(f32::EPSILON)),
        );
    };
    let got = forward(engine, &x);
    let (want, single_values) = (exact.forward(&wide(&x)).expect("rows"), single.forward(&x).expect("rows"));
    check("z", &got.values, &want.0, &single_values.0);
    check("forward log_det", &got.log_det, &want.1, &single_values.1);
    let got = inverse(engine, &x);
    let (want, single_values) = (exact.inverse(&wide(&x)).expect("rows"), single.inverse(&x).expect("rows"));
    check("x", &got.values, &want.0, &single_values.0);
    check("inverse log_det", &got.log_det, &want.1, &single_values.1);
    let (want, single_values) =
        (exact.log_prob(&wide(&x)).expect("rows"), single.log_prob(&x).expect("rows"));
    check("log_prob", &log_prob(engine, &x), &want, &single_values);
    let sampling = Sampling { rows: count, first: 9, seed: SEED, temperature: 0.75 };
    let (want, single_values) = (
        exact.sample(sampling, &wide(&context)).expect("rows"),
        single.sample(sampling, &context).expect("rows"),
    );
    let got = pollster::block_on(engine.sample_given(sampling, &context)).expect("samples");
    check("samples", &got, &want, &single_values);
    comparison
}

/// What the rows of `x` give a conditional flow.
fn context_of(flow: &Flow, x: &[f32]) -> Vec<f32> {
    x.chunks_exact(flow.features).flat_map(|row| &row[flow.modelled()..]).copied().collect()
}

fn a_conditional_flow_answers_as_on_the_cpu_and_hands_the_context_back(plan: PlanKind) {
    for (_, (features, context)) in cases(plan, 2, vec![(1, 0), (3, 2), (1, 1), (2, 7)]) {
        let flow = Flow::conditional(features, context, 3, &[9]).expect("valid");
        let Some(mut engine) = engine(&flow, plan) else { return };
        engine.set_parameters(&from_wide(&random_parameters(&flow, SEED))).expect("fits");
        for count in [1, 70] {
            against_the_cpu(&mut engine, count).finish();
        }
        let given = context_of(&flow, &rows_of(flow.features, 5));
        let sampling = Sampling { rows: 5, first: 0, seed: 3, temperature: 1.0 };
        let samples = pollster::block_on(engine.sample_given(sampling, &given)).expect("samples");
        assert_eq!(context_of(&flow, &samples), given);
        if context == 0 {
            continue;
        }
        let message = pollster::block_on(engine.sample(sampling)).expect_err("no context").to_string();
        assert_eq!(message, format!("context: got 0 values, expected {}", 5 * context));
    }
}

fn every_answer_is_that_of_the_cpu(plan: PlanKind) {
    let Some(mut engine) = trained(plan) else { return };
    for count in [1, 65, 200] {
        against_the_cpu(&mut engine, count).finish();
    }
}

fn one_changed_parameter_changes_every_answer(plan: PlanKind) {
    let Some(mut engine) = trained(plan) else { return };
    // The evaluation plan exists already when the parameters are replaced.
    against_the_cpu(&mut engine, 65).finish();
    let mut changed = parameters();
    let last = changed.len() - 5;
    for index in [0, last] {
        changed[index] += 1e-3;
    }
    engine.set_parameters(&changed).expect("fits");
    assert_eq!(against_the_cpu(&mut engine, 65).failures().len(), 6);
}

fn no_rows_give_empty_answers(plan: PlanKind) {
    let Some(mut engine) = trained(plan) else { return };
    let empty = Transformed { values: vec![], log_det: vec![] };
    assert_eq!(forward(&mut engine, &[]), empty);
    assert_eq!(inverse(&mut engine, &[]), empty);
    assert_eq!(log_prob(&mut engine, &[]), [0.0; 0]);
    assert_eq!(sample(&mut engine, 0, 3, 1.0), [0.0; 0]);
}

fn wrong_lengths_are_refused_with_both_numbers(plan: PlanKind) {
    let Some(mut engine) = trained(plan) else { return };
    let total = parameters().len();
    for (message, want) in [
        (
            pollster::block_on(engine.forward(&[0.0; 6])).expect_err("6").to_string(),
            "x: got 6 values, expected 10".into(),
        ),
        (
            pollster::block_on(engine.inverse(&[0.0; 4])).expect_err("4").to_string(),
            "z: got 4 values, expected 5".into(),
        ),
        (
            pollster::block_on(engine.log_prob(&[0.0; 1])).expect_err("1").to_string(),
            "x: got 1 values, expected 5".into(),
        ),
        (
            engine.set_parameters(&[0.0; 5]).expect_err("5").to_string(),
            format!("parameters: got 5 values, expected {total}"),
        ),
    ] {
        assert_eq!(message, want);
    }
}
