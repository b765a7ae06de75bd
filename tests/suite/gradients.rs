//! Hand-written gradients against central differences, in double precision, parameter by parameter.

use moonflow::cpu::CpuEngine;
use moonflow::flow::{Activation, Bijector, ConditionerForm, Flow, Masking, Transform};
use moonflow::layout::Layout;

use crate::common::{Comparison, random_parameters, uniform};

/// Step of the differences: truncation and rounding are both near 1e-10 there.
const STEP: f64 = 1e-5;
/// Relative to each tensor's largest value.
const TOLERANCE: f64 = 1e-7;

/// Gradient by formula and by differences.
fn gradients(flow: &Flow, rows: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let parameters = random_parameters(flow, seed);
    let x = uniform(rows * flow.features, 2.0, seed + 1);
    let mut engine = CpuEngine::<f64>::new(flow.clone()).expect("valid flow");
    engine.set_parameters(&parameters).expect("as many as the flow has");
    let (loss, gradient) = engine.loss_and_gradient(&x).expect("whole rows");

    let loss_at = |engine: &mut CpuEngine<f64>, parameters: &[f64]| {
        engine.set_parameters(parameters).expect("as many as the flow has");
        -engine.log_prob(&x).expect("whole rows").iter().sum::<f64>() / rows as f64
    };
    assert!((loss - loss_at(&mut engine, &parameters)).abs() < 1e-12 * loss.abs());
    let mut nudged = parameters.clone();
    let mut differences = Vec::new();
    for index in 0..parameters.len() {
        let mut at = |by: f64| {
            nudged[index] = parameters[index] + by;
            loss_at(&mut engine, &nudged)
        };
        differences.push((at(STEP) - at(-STEP)) / (2.0 * STEP));
        nudged[index] = parameters[index];
    }
    (gradient, differences)
}

fn check(flow: &Flow, gradient: &[f64], differences: &[f64], title: String) -> Comparison {
    let mut comparison = Comparison::new(title);
    for tensor in &Layout::new(flow).tensors {
        let range = tensor.range();
        comparison.check(&tensor.name, &gradient[range.clone()], &differences[range], TOLERANCE);
    }
    comparison
}

#[test]
fn gradients_equal_central_differences_for_every_activation_and_shape() {
    for (name, activation) in Activation::ALL {
        // The last shape's rows fill more than one tile, the last one in part.
        for (features, layers, hidden, rows) in
            [(2, 3, vec![4], 7), (3, 2, vec![5], 1), (5, 2, vec![6, 5, 4], 9), (3, 1, vec![4], 70)]
        {
            let flow = Flow::new(features, layers, &hidden).expect("valid").with_activation(activation);
            let (gradient, differences) = gradients(&flow, rows, 11);
            let title = format!("{name}, D = {features}, {hidden:?}, {rows} rows");
            check(&flow, &gradient, &differences, title).finish();
        }
    }
}

#[test]
fn gradients_equal_central_differences_for_every_masking_and_another_bound() {
    for masking in [Masking::HalfSplit, Masking::Random { seed: 3 }] {
        let flow = Flow::new(5, 3, &[7]).expect("valid").with_masking(masking);
        let flow = flow.with_bijector(Bijector::Affine { bound: 0.5 });
        let (gradient, differences) = gradients(&flow, 6, 5);
        check(&flow, &gradient, &differences, format!("{masking:?}")).finish();
    }
}

#[test]
fn gradients_of_other_transforms_equal_central_differences() {
    for (features, context) in [(1, 0), (3, 0), (2, 2)] {
        let flow = Flow::conditional(features, context, 2, &[5]).expect("valid");
        let mut flow = flow.before_each_coupling(&[Transform::Actnorm]);
        flow.transforms.push(Transform::Actnorm);
        let (gradient, differences) = gradients(&flow, 7, 29);
        check(&flow, &gradient, &differences, format!("actnorm, {features} given {context}")).finish();
    }
}

#[test]
fn gradients_of_joint_and_residual_conditioners_equal_central_differences() {
    for form in [ConditionerForm::Joint, ConditionerForm::Residual] {
        for (name, activation) in Activation::ALL {
            // One with more outputs than a thin product has, and one block or several.
            for (features, context, hidden) in [(2, 0, vec![6, 6, 6]), (12, 1, vec![5])] {
                let flow = Flow::conditional(features, context, 2, &hidden).expect("valid");
                let flow = flow.with_activation(activation).with_conditioner(form);
                flow.validate().expect("valid");
                let (gradient, differences) = gradients(&flow, 7, 31);
                check(&flow, &gradient, &differences, format!("{form:?}, {name}, {hidden:?}")).finish();
            }
        }
    }
}

#[test]
fn gradients_of_splines_equal_central_differences() {
    for (form, bins, bound) in [
        (ConditionerForm::Joint, 2, 1.5),
        (ConditionerForm::Joint, 9, 4.0),
        (ConditionerForm::Residual, 5, 2.0),
    ] {
        for (features, context, hidden) in [(2, 0, vec![6, 6]), (9, 2, vec![5])] {
            let flow = Flow::conditional(features, context, 2, &hidden).expect("valid");
            let flow = flow.with_conditioner(form).with_bijector(Bijector::Spline { bins, bound });
            let flow = flow.with_activation(Activation::Tanh);
            flow.validate().expect("valid");
            let (gradient, differences) = gradients(&flow, 7, 37);
            check(&flow, &gradient, &differences, format!("{form:?}, {bins} bins, {hidden:?}")).finish();
        }
    }
}

#[test]
fn gradients_of_lu_layers_and_permutations_equal_central_differences() {
    for (features, context) in [(3, 1), (9, 0)] {
        let mut flow = Flow::conditional(features, context, 2, &[5]).expect("valid");
        let permutation = Transform::Permutation { permutation: (0..features).rev().collect() };
        flow = flow.before_each_coupling(&[permutation, Transform::Lu]);
        flow.transforms.push(Transform::Lu);
        flow.validate().expect("valid");
        let (gradient, differences) = gradients(&flow, 70, 41);
        check(&flow, &gradient, &differences, format!("LU, {features} given {context}")).finish();
    }
}

#[test]
fn gradients_of_conditional_flows_equal_central_differences() {
    for (features, context, hidden) in [(1, 1, vec![4]), (2, 3, vec![5, 4]), (3, 9, vec![6])] {
        let flow = Flow::conditional(features, context, 3, &hidden).expect("valid");
        let (gradient, differences) = gradients(&flow, 7, 23);
        check(&flow, &gradient, &differences, format!("{features} given {context}")).finish();
    }
}

#[test]
fn a_gradient_with_one_wrong_value_is_found_in_every_tensor() {
    let flow = Flow::new(3, 2, &[5, 4]).expect("valid").with_activation(Activation::Tanh);
    let (gradient, differences) = gradients(&flow, 6, 2);
    for tensor in &Layout::new(&flow).tensors {
        let mut wrong = gradient.clone();
        let largest = tensor.range().max_by(|&a, &b| wrong[a].abs().total_cmp(&wrong[b].abs()));
        wrong[largest.expect("a tensor has values")] *= 1.0 + 1e-4;
        let comparison = check(&flow, &wrong, &differences, "corrupted".into());
        assert_eq!(comparison.failures().len(), 1, "{}", tensor.name);
        assert!(comparison.failures()[0].starts_with(&tensor.name));
    }
}
