//! The self-check of a fitted model: what would be wrong with it if something were, found without being asked.
//! It comes after training, looks at the model from outside, and goes into the record.

mod baseline;
mod findings;
mod latent;
mod sample;
mod units;

use crate::cpu::CpuEngine;
use crate::data::{CountedRows, Dataset, SharedValues};
use crate::engine::Engine;
use crate::error::Result;
use crate::flow::Flow;
use crate::model::{Comparison, Model, SelfCheck, SharedColumn, median_loss};

use sample::Sample;

/// Rows of the round trip through inverse, forward and inverse.
const ROUND_TRIP_ROWS: usize = 300;
/// Rows whose log-determinant is compared with finite differences.
const DIFFERENCE_ROWS: usize = 4;
/// Most features for which it is: the work grows with their cube.
const DIFFERENCE_FEATURES: usize = 128;
/// Steps of the differences, in standardised units: the cube root of the resolution of `f64`, and one that a kink of a
/// network hardly falls into, at which differences still have six digits.
const STEPS: [f64; 2] = [6e-6, 6e-8];
/// Most rows of either side that losses and latent features are taken over.
const LOSS_ROWS: usize = 10_000;

/// Checks `model`, fitted to `dataset`, on `engine`, and some numbers on the CPU in double precision.
///
/// Rows are evenly spaced: validation rows, or training rows where there are none. They count by their weights, and
/// rows without weight or [left out of losses](Dataset::left_out) have no part in it.
///
/// # Errors
/// Those of the engine.
pub async fn self_check<E: Engine>(model: &Model, engine: &mut E, dataset: &Dataset) -> Result<SelfCheck> {
    let (features, modelled) = (model.flow.features, model.flow.modelled());
    let [training, validation] = [0, 1].map(|side| Sample::spaced(&dataset.rows(side), LOSS_ROWS));
    let has_validation = !validation.rows.is_empty();
    let unseen = if has_validation { &validation } else { &training };

    // The dataset's rows have the noise of dequantised columns.
    let base = model.base_values(engine, &unseen.rows).await?;
    let some = Sample::spaced(&CountedRows::alike(&base, features), ROUND_TRIP_ROWS).rows;
    let some: Vec<f32> = some.into_iter().map(|value| value as f32).collect();
    let mut latent = base;
    model.normal_scores(&mut latent);
    let x = engine.inverse(&some).await?.values;
    let there = engine.forward(&x).await?.values;
    let back = engine.inverse(&there).await?.values;
    let round_trip = largest(back.iter().zip(&x).map(|(back, x)| f64::from(back - x)));
    let log_det = if features <= DIFFERENCE_FEATURES { Some(log_det_error(model, &x)?) } else { None };

    let seen_density = model.log_density(engine, &training.rows).await?;
    let mut far: Vec<_> = findings::far_rows(&seen_density, &training, false).into_iter().collect();
    let (mut gap, mut gap_error, mut validation_median) = (None, None, None);
    let mut kernel = None;
    let density = if has_validation {
        let density = model.log_density(engine, &validation.rows).await?;
        far.extend(findings::far_rows(&density, &validation, true));
        let (seen, unseen) = (training.mean_and_error(&seen_density), validation.mean_and_error(&density));
        gap = Some(seen.0 - unseen.0);
        validation_median = median_loss(&density);
        // One row has a loss, but nothing to tell its error from.
        gap_error = (density.len() > 1).then(|| seen.1.hypot(unseen.1));
        kernel = baseline::beside_kernels(dataset, [&training, &validation], [&seen_density, &density]);
        density
    } else {
        seen_density
    };
    let scores =
        if has_validation { model.latent_of_noisy(engine, &training.rows).await? } else { latent.clone() };
    let mut check = SelfCheck {
        round_trip,
        log_det,
        gap,
        gap_error,
        validation_median,
        comparison: Some(Comparison { kernel, ..baseline::compare(model, &training, unseen, &density) }),
        latent_rows: latent.len() / features,
        latent: (0..modelled)
            .map(|feature| latent::latent_feature(&latent, unseen, features, feature))
            .collect(),
        structure: Some(latent::structure(&scores, &training, features, modelled)),
        units: units::hidden_units(model, &training)?,
        ..SelfCheck::default()
    };
    let effective = unseen.effective(check.latent_rows);
    // Noise has parted the values of dequantised columns.
    let shared = SharedValues::of_columns(&training.rows, features, modelled);
    let shared = shared.into_iter().map(|(feature, shared)| SharedColumn { feature, shared }).collect();
    check.findings = findings::findings(&check, effective, far, shared);
    check.suspicious = check.findings.iter().map(|finding| finding.sentence(&model.columns)).collect();
    Ok(check)
}

/// Largest size; NaN if a value is.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(
        0.0,
        |most: f64, value| if most.is_nan() || value.is_nan() { f64::NAN } else { most.max(value.abs()) },
    )
}

/// Largest difference between log-determinants and those of central differences over the first rows of `x` `[B, D]`, of
/// which the modelled features are moved. For each row that step counts which agrees better.
fn log_det_error(model: &Model, x: &[f32]) -> Result<f64> {
    let features = model.flow.features;
    let mut engine = CpuEngine::<f64>::new(model.flow.clone())?;
    let parameters: Vec<f64> = model.parameters.iter().map(|&value| f64::from(value)).collect();
    engine.set_parameters(&parameters)?;
    let mut errors = Vec::new();
    for row in x.chunks_exact(features).take(DIFFERENCE_ROWS) {
        let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        let log_det = engine.forward(&row)?.1[0];
        let mut by_step = [0.0; STEPS.len()];
        for (error, step) in by_step.iter_mut().zip(STEPS) {
            *error = (log_det - log_det_by_differences(&engine, &model.flow, &row, step)?).abs();
        }
        errors.push(if by_step.iter().any(|error| error.is_nan()) {
            f64::NAN
        } else {
            by_step[0].min(by_step[1])
        });
    }
    Ok(largest(errors.into_iter()))
}

/// The log-determinant of `engine`'s flow at `row` `[D]` by central differences over `step`.
fn log_det_by_differences(engine: &CpuEngine<f64>, flow: &Flow, row: &[f64], step: f64) -> Result<f64> {
    let (features, modelled) = (flow.features, flow.modelled());
    let moved = |by: f64| -> Vec<f64> {
        (0..modelled)
            .flat_map(|moved| row.iter().enumerate().map(move |(i, x)| if i == moved { x + by } else { *x }))
            .collect()
    };
    let (up, _) = engine.forward(&moved(step))?;
    let (down, _) = engine.forward(&moved(-step))?;
    let jacobian = std::iter::zip(up.chunks_exact(features), down.chunks_exact(features))
        .flat_map(|(up, down)| std::iter::zip(&up[..modelled], &down[..modelled]))
        .map(|(up, down)| (up - down) / (2.0 * step))
        .collect();
    Ok(log_abs_determinant(jacobian, modelled))
}

/// log |det| of a square matrix, row-major, by elimination with row exchange.
fn log_abs_determinant(mut matrix: Vec<f64>, size: usize) -> f64 {
    let mut sum = 0.0;
    for column in 0..size {
        let magnitude = |row: &usize| matrix[row * size + column].abs();
        let pivot = (column..size).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b))).unwrap_or(column);
        for k in 0..size {
            matrix.swap(column * size + k, pivot * size + k);
        }
        let diagonal = matrix[column * size + column];
        sum += diagonal.abs().ln();
        for row in column + 1..size {
            let factor = matrix[row * size + column] / diagonal;
            for k in column..size {
                matrix[row * size + k] -= factor * matrix[column * size + k];
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn determinants_are_those_of_a_hand_and_exchange_rows() {
        assert!((log_abs_determinant(vec![0.0, 2.0, -3.0, 5.0], 2) - 6f64.ln()).abs() < 1e-15);
        let matrix = vec![2.0, 1.0, 0.0, 4.0, 2.0, 1.0, 1.0, 3.0, 5.0];
        // 2·(2·5 − 1·3) − 1·(4·5 − 1·1)
        assert!((log_abs_determinant(matrix, 3) - 5f64.ln()).abs() < 1e-14);
    }
}
