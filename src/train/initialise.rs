//! Initial parameters that depend on the training rows.
//!
//! An actnorm begins with the mean and the deviation of the training rows as they reach it, so that what it passes on has
//! mean 0 and deviation 1. A mixture begins as expectation-maximisation fits it to the rows as they reach the base.
//! Everything is computed in double precision on the CPU, so the bits are the same for every device.

use crate::cpu::CpuEngine;
use crate::engine::Training;
use crate::error::Result;
use crate::flow::{Base, Flow, Transform};
use crate::layout::Layout;
use crate::mixture;

/// Most rows that means and deviations are taken over, the first ones: enough for three digits.
const ROWS: usize = 1 << 16;
/// Most rows that a mixture is fitted to, the first ones of them.
const MIXTURE_ROWS: usize = 1 << 14;

/// Sets the parameters `[P]` that depend on the rows of `training`; the others are as they are.
///
/// # Errors
/// Those of the flow.
pub(super) fn initialise_from_rows(flow: &Flow, parameters: &mut [f32], training: &Training) -> Result<()> {
    let has_actnorm = flow.transforms.iter().any(|transform| matches!(transform, Transform::Actnorm));
    if !has_actnorm && flow.base == Base::StandardNormal {
        return Ok(());
    }
    let rows = &training.train;
    let count = (rows.len() / flow.features).min(ROWS);
    let mut values: Vec<f64> = rows[..count * flow.features].iter().map(|&value| value.into()).collect();
    let layout = Layout::new(flow);
    for (transform, block) in flow.transforms.iter().zip(&layout.blocks) {
        let parameters = &mut parameters[block.range.clone()];
        if let Transform::Actnorm = transform {
            normalise(&values, flow, parameters);
        }
        let single = Flow { transforms: vec![transform.clone()], base: Base::StandardNormal, ..flow.clone() };
        let mut engine = CpuEngine::<f64>::new(single)?;
        engine.set_parameters(&parameters.iter().map(|&value| value.into()).collect::<Vec<f64>>())?;
        values = engine.forward(&values)?.0;
    }
    if let Base::Mixture { components } = flow.base {
        let count = count.min(MIXTURE_ROWS);
        let modelled = flow.modelled();
        let rows: Vec<f64> = values
            .chunks_exact(flow.features)
            .take(count)
            .flat_map(|row| &row[..modelled])
            .copied()
            .collect();
        let weights: Option<Vec<f64>> = training
            .weights
            .as_ref()
            .map(|weights| weights.train[..count].iter().map(|&weight| weight.into()).collect());
        // Weights that are all zero among these rows say nothing of them.
        let weights = weights.filter(|weights| weights.iter().any(|&weight| weight > 0.0));
        let fitted = mixture::fit(&rows, weights.as_deref(), modelled, components, training.seed);
        parameters[layout.base].copy_from_slice(&fitted.parameters());
    }
    Ok(())
}

/// Sets shift and log-scale, `numbers` [2, M], to mean and logarithm of the deviation of each modelled column. A column
/// without deviation keeps its scale.
fn normalise(values: &[f64], flow: &Flow, numbers: &mut [f32]) {
    let (shift, log_scale) = numbers.split_at_mut(flow.modelled());
    let rows = (values.len() / flow.features) as f64;
    for (feature, (shift, log_scale)) in shift.iter_mut().zip(log_scale).enumerate() {
        let column = || values[feature..].iter().step_by(flow.features);
        let mean = column().sum::<f64>() / rows;
        let variance = column().map(|value| (value - mean).powi(2)).sum::<f64>() / rows;
        *shift = mean as f32;
        *log_scale = if variance > 0.0 { (0.5 * variance.ln()) as f32 } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Recipe;
    use crate::optimiser::State;

    fn training(rows: Vec<f32>) -> Training {
        let recipe = Recipe::default();
        Training {
            train: rows.into(),
            validation: Vec::new().into(),
            weights: None,
            batch: 1,
            adam: recipe.adam(),
            schedule: recipe.schedule(1).expect("short"),
            seed: 1,
        }
    }

    #[test]
    fn rows_leave_an_actnorm_with_mean_zero_and_deviation_one() {
        let mut flow = Flow::conditional(2, 1, 2, &[4]).expect("valid");
        flow.transforms.insert(1, Transform::Actnorm);
        flow.validate().expect("valid");
        let rows: Vec<f32> = (0..50)
            .flat_map(|row| {
                let x = row as f32;
                [3.0 + (x * 0.7).sin(), 0.2 * x, -x]
            })
            .collect();
        let mut parameters = State::initial(&flow, 1).parameters;
        initialise_from_rows(&flow, &mut parameters, &training(rows.clone())).expect("valid");
        let mut engine = CpuEngine::<f32>::new(flow).expect("valid");
        engine.set_parameters(&parameters).expect("fits");
        let z = engine.forward(&rows).expect("whole rows").0;
        for feature in 0..2 {
            let column: Vec<f32> = z[feature..].iter().step_by(3).copied().collect();
            let mean = column.iter().sum::<f32>() / 50.0;
            let variance = column.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 50.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "mean {mean}, variance {variance}");
        }
    }

    #[test]
    fn a_mixture_begins_as_the_gaussian_of_the_rows_that_reach_it() {
        let flow =
            Flow::conditional(2, 1, 2, &[4]).expect("valid").with_base(Base::Mixture { components: 1 });
        let rows: Vec<f32> = (0..400)
            .flat_map(|row| {
                let x = row as f32;
                [2.0 * (x * 0.7).sin(), (x * 0.7).sin() + (x * 1.3).cos(), 5.0 + x]
            })
            .collect();
        let mut parameters = State::initial(&flow, 1).parameters;
        initialise_from_rows(&flow, &mut parameters, &training(rows.clone())).expect("valid");
        let mut engine = CpuEngine::<f32>::new(flow).expect("valid");
        engine.set_parameters(&parameters).expect("fits");
        let log_prob = engine.log_prob(&rows).expect("whole rows");
        let mean = log_prob.iter().map(|&value| f64::from(value)).sum::<f64>() / 400.0;
        // −½ ln det(2πe Σ) of the rows' covariance [[2, 1], [1, 1]], whose determinant is 1.
        let want = -(std::f64::consts::TAU.ln() + 1.0);
        assert!((mean - want).abs() < 0.01, "{mean} for {want}");
    }
}
