//! Laws that hold for every flow, on every engine: the inverse undoes the forward pass, log-determinants are those
//! of the map, and densities integrate to one. Parameters are random in every layer, because an untrained flow is
//! the identity, for which all of this is trivial.

use moonflow::flow::{Activation, Flow, Masking, Transform};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::common::{Comparison, Cpu, Subject, general_subjects, random_parameters, uniform};

/// A flow with its parameters and some rows of data.
#[derive(Clone, Debug)]
struct Case {
    flow: Flow,
    parameters: Vec<f64>,
    x: Vec<f64>,
}

impl Case {
    fn subjects(&self) -> Vec<Box<dyn Subject>> {
        general_subjects(&self.flow, &self.parameters)
    }

    /// How much more the inverse moves than z does, relative to both: the factor on rounding errors.
    fn amplification(&self) -> f64 {
        let mut exact = Cpu::<f64>::new("cpu f64", &self.flow, &self.parameters);
        let z = exact.forward(&self.x).0;
        let step = 1e-7;
        let moved: Vec<f64> =
            z.iter().zip(uniform(z.len(), step, 9)).map(|(z, by)| z + by * (1.0 + z.abs())).collect();
        let (from, to) = (exact.inverse(&z).0, exact.inverse(&moved).0);
        let largest = from.iter().zip(&to).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        1.0 + largest / step
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let masking = prop_oneof![
        Just(Masking::Alternating),
        Just(Masking::HalfSplit),
        any::<u64>().prop_map(|seed| Masking::Random { seed }),
    ];
    (
        2..=6usize,
        1..=4usize,
        prop::collection::vec(1..=9usize, 1..=3),
        0..4usize,
        masking,
        1..=9usize,
        any::<u64>(),
        prop_oneof![Just(vec![]), Just(vec![Transform::Actnorm])],
    )
        .prop_map(|(features, layers, hidden, activation, masking, rows, seed, mixing)| {
            let flow = Flow::new(features, layers, &hidden)
                .expect("valid")
                .with_masking(masking)
                .with_activation(Activation::ALL[activation].1)
                .before_each_coupling(&mixing);
            let parameters = random_parameters(&flow, seed);
            Case { x: uniform(rows * features, 2.0, seed ^ 1), flow, parameters }
        })
}

/// The inverse gives x back, and its log-determinant is the forward one negated.
fn inverse_undoes_forward(case: &Case, subject: &mut dyn Subject) -> Comparison {
    let mut comparison = Comparison::new(subject.name());
    let (z, log_det) = subject.forward(&case.x);
    let (x, inverse_log_det) = subject.inverse(&z);
    let tolerance = 8.0 * subject.epsilon() * case.amplification();
    comparison.check("x", &x, &case.x, tolerance);
    let sums: Vec<f64> = log_det.iter().zip(inverse_log_det).map(|(a, b)| 10.0 + a + b).collect();
    comparison.check("sum of log-determinants + 10", &sums, &vec![10.0; sums.len()], tolerance);
    comparison
}

/// The log-determinant is that of the Jacobian by central differences of the subject's own forward pass.
fn log_det_is_that_of_the_numerical_jacobian(case: &Case, subject: &mut dyn Subject) -> Comparison {
    let features = case.flow.features;
    let rows = case.x.len() / features;
    let step = subject.epsilon().cbrt();
    let columns: Vec<Vec<f64>> = (0..features)
        .map(|column| {
            let mut shifted = |by: f64| {
                let mut x = case.x.clone();
                x.iter_mut().skip(column).step_by(features).for_each(|x| *x += by);
                subject.forward(&x).0
            };
            let (up, down) = (shifted(step), shifted(-step));
            up.iter().zip(down).map(|(up, down)| (up - down) / (2.0 * step)).collect()
        })
        .collect();
    let jacobian = |row: usize| -> Vec<Vec<f64>> {
        let line = |at: usize| columns.iter().map(|column| column[row * features + at]).collect();
        (0..features).map(line).collect()
    };
    let want: Vec<f64> = (0..rows).map(|row| 10.0 + log_abs_determinant(jacobian(row))).collect();
    let got: Vec<f64> = subject.forward(&case.x).1.iter().map(|log_det| 10.0 + log_det).collect();
    let mut comparison = Comparison::new(subject.name());
    // Central differences are good to ε^⅔ at best; the inverse's growth enlarges that in the determinant.
    let tolerance = 2.0 * subject.epsilon().powf(2.0 / 3.0) * case.amplification();
    comparison.check("log_det + 10", &got, &want, tolerance);
    comparison
}

/// ln |det| by Gaussian elimination with row pivoting.
fn log_abs_determinant(mut matrix: Vec<Vec<f64>>) -> f64 {
    let size = matrix.len();
    let mut sum = 0.0;
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))
            .expect("a row is left");
        matrix.swap(column, pivot);
        let (done, below) = matrix.split_at_mut(column + 1);
        let pivot = &done[column];
        sum += pivot[column].abs().ln();
        for row in below {
            let factor = row[column] / pivot[column];
            for (value, pivot) in row.iter_mut().zip(pivot).skip(column) {
                *value -= factor * pivot;
            }
        }
    }
    sum
}

/// The density of a flow over the plane sums to one over a grid around all of its mass.
fn total_mass_is_one(case: &Case, subject: &mut dyn Subject) -> Comparison {
    const SIDE: usize = 160;
    let edge: Vec<f64> = (0..400)
        .map(|turn| f64::from(turn) * std::f64::consts::TAU / 400.0)
        .flat_map(|angle| [5.5 * angle.cos(), 5.5 * angle.sin()])
        .collect();
    let mut exact = Cpu::<f64>::new("cpu f64", &case.flow, &case.parameters);
    let outline = exact.inverse(&edge).0;
    let span = |axis: usize| {
        let values = || outline.iter().skip(axis).step_by(2).copied();
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        (low, (high - low) / SIDE as f64)
    };
    let [(left, dx), (bottom, dy)] = [span(0), span(1)];
    let grid: Vec<f64> = (0..SIDE * SIDE)
        .flat_map(|cell| {
            let (i, j) = (cell % SIDE, cell / SIDE);
            [left + (i as f64 + 0.5) * dx, bottom + (j as f64 + 0.5) * dy]
        })
        .collect();
    let mass = subject.log_prob(&grid).iter().map(|log_prob| log_prob.exp()).sum::<f64>() * dx * dy;
    let mut comparison = Comparison::new(subject.name());
    comparison.check("mass", &[mass], &[1.0], 1e-4);
    comparison
}

/// Fails the property with all failures of a comparison.
fn hold(comparison: &Comparison) -> Result<(), TestCaseError> {
    prop_assert!(comparison.failures().is_empty(), "{}", comparison.failures().join("\n"));
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn inverse_undoes_forward_for_every_flow(case in cases()) {
        for mut subject in case.subjects() {
            hold(&inverse_undoes_forward(&case, subject.as_mut()))?;
        }
    }

    #[test]
    fn log_det_is_that_of_the_jacobian_for_every_flow(case in cases()) {
        for mut subject in case.subjects() {
            // A coarse step meets the kinks of ReLU, where there is no Jacobian.
            let smooth = matches!(case.flow.activation, Activation::Tanh | Activation::Silu);
            if smooth || subject.epsilon() < 1e-15 {
                hold(&log_det_is_that_of_the_numerical_jacobian(&case, subject.as_mut()))?;
            }
        }
    }
}

/// Flows over the plane, mild enough that a grid resolves them.
fn plane_case(activation: Activation, seed: u64) -> Case {
    let flow = Flow::new(2, 4, &[8, 8]).expect("valid").with_activation(activation);
    let parameters = random_parameters(&flow, seed).iter().map(|value| 0.6 * value).collect();
    Case { x: uniform(6, 2.0, seed), flow, parameters }
}

#[test]
fn total_mass_is_one_over_the_plane() {
    for (seed, (_, activation)) in Activation::ALL.into_iter().enumerate() {
        let case = plane_case(activation, seed as u64);
        for mut subject in case.subjects() {
            total_mass_is_one(&case, subject.as_mut()).finish();
        }
    }
}

/// A subject with one small mistake in each of its answers.
struct Broken(Cpu<f64>);

impl Subject for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn epsilon(&self) -> f64 {
        f64::EPSILON
    }

    fn forward(&mut self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (z, log_det) = self.0.forward(x);
        (z, log_det.iter().map(|log_det| 1.001 * log_det).collect())
    }

    fn inverse(&mut self, z: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut x, log_det) = self.0.inverse(z);
        x[0] += 1e-6;
        (x, log_det)
    }

    fn log_prob(&mut self, x: &[f64]) -> Vec<f64> {
        self.0.log_prob(x).iter().map(|log_prob| log_prob + 0.002).collect()
    }

    fn gradient(&mut self, x: &[f64]) -> Option<Vec<f64>> {
        self.0.gradient(x)
    }

    fn adam(&mut self, x: &[f64], steps: u32) -> (Vec<f64>, Vec<f64>) {
        self.0.adam(x, steps)
    }
}

#[test]
fn a_small_mistake_breaks_every_law() {
    let case = plane_case(Activation::Tanh, 7);
    let broken = || Broken(Cpu::new("broken", &case.flow, &case.parameters));
    let failures = inverse_undoes_forward(&case, &mut broken()).failures().len();
    assert_eq!(failures, 2, "a wrong x and a wrong log-determinant");
    assert_eq!(log_det_is_that_of_the_numerical_jacobian(&case, &mut broken()).failures().len(), 1);
    assert_eq!(total_mass_is_one(&case, &mut broken()).failures().len(), 1);
}

#[test]
fn a_conditional_density_integrates_to_one_whatever_is_given() {
    const CELLS: usize = 4000;
    let flow = Flow::conditional(1, 2, 3, &[8, 5]).expect("valid");
    let parameters = random_parameters(&flow, 4);
    let mut engine = Cpu::<f64>::new("cpu f64", &flow, &parameters);
    let mut middles = Vec::new();
    for given in [[0.0, 0.0], [1.5, -2.0], [-3.0, 0.25]] {
        // ±8 in latent units, carried to the data's.
        let ends = engine.inverse(&[-8.0, given[0], given[1], 8.0, given[0], given[1]]).0;
        let (low, step) = (ends[0], (ends[3] - ends[0]) / CELLS as f64);
        let rows: Vec<f64> =
            (0..CELLS).flat_map(|cell| [low + (cell as f64 + 0.5) * step, given[0], given[1]]).collect();
        let mass: f64 = engine.log_prob(&rows).iter().map(|log_prob| log_prob.exp() * step).sum();
        assert!((mass - 1.0).abs() < 1e-6, "given {given:?}: {mass}");
        middles.push(low + 0.5 * step * CELLS as f64);
    }
    assert!(middles.windows(2).all(|pair| pair[0] != pair[1]), "the context has no effect: {middles:?}");
}
