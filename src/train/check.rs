//! The self-check of a fitted model: what would be wrong with it if something were, found without being asked.
//! It comes after training, looks at the model from outside, and goes into the record.

use crate::cpu::CpuEngine;
use crate::data::Dataset;
use crate::engine::Engine;
use crate::error::Result;
use crate::model::{LatentFeature, Model, SelfCheck, mean_and_error};
use crate::normal;
use crate::shown::shown;

/// Rows of the round trip through inverse, forward and inverse.
const ROUND_TRIP_ROWS: usize = 300;
/// Rows whose log-determinant is compared with finite differences.
const DIFFERENCE_ROWS: usize = 4;
/// Most features for which it is: the work grows with their cube.
const DIFFERENCE_FEATURES: usize = 128;
/// Step of the differences, in standardised units: the cube root of the resolution of `f64`.
const STEP: f64 = 6e-6;
/// Most rows of either side that losses and latent features are taken over.
const LOSS_ROWS: usize = 10_000;

/// Errors of a round trip in single precision, in standardised units, from which a model is suspicious.
const ROUND_TRIP_LIMIT: f64 = 1e-2;
/// Likewise the log-determinant, in nats. The networks have kinks, which differences see.
const LOG_DET_LIMIT: f64 = 1e-3;
/// Standard errors beyond which a difference is no accident.
const ERRORS: f64 = 4.0;
/// Gap in nats, distance of a latent feature, and what its mean and deviation may be off by, below which none matters
/// however sure it is.
const GAP_LIMIT: f64 = 0.05;
const DISTANCE_LIMIT: f64 = 0.1;
const MOMENT_LIMIT: f64 = 0.2;

/// Checks `model`, fitted to `dataset`, on `engine`, and one number on the CPU in double precision.
///
/// Rows are evenly spaced: validation rows, or training rows where there are none.
///
/// # Errors
/// Those of the engine.
pub async fn self_check<E: Engine>(model: &Model, engine: &mut E, dataset: &Dataset) -> Result<SelfCheck> {
    let (features, modelled) = (model.flow.features, model.flow.modelled());
    let unseen = if dataset.validation.is_empty() { &dataset.train } else { &dataset.validation };
    let unseen = spaced(unseen, features, LOSS_ROWS);

    // The dataset's rows have the noise of dequantised columns.
    let base = model.base_values(engine, &unseen).await?;
    let some: Vec<f32> =
        spaced(&base, features, ROUND_TRIP_ROWS).into_iter().map(|value| value as f32).collect();
    let mut latent = base;
    model.normal_scores(&mut latent);
    let x = engine.inverse(&some).await?.values;
    let there = engine.forward(&x).await?.values;
    let back = engine.inverse(&there).await?.values;
    let round_trip = largest(back.iter().zip(&x).map(|(back, x)| f64::from(back - x)));
    let log_det = if features <= DIFFERENCE_FEATURES { Some(log_det_error(model, &x)?) } else { None };

    let (mut gap, mut gap_error) = (None, None);
    if !dataset.validation.is_empty() {
        let seen = spaced(&dataset.train, features, LOSS_ROWS);
        let seen = mean_and_error(&model.log_density(engine, &seen).await?);
        let unseen = mean_and_error(&model.log_density(engine, &unseen).await?);
        gap = Some(seen.0 - unseen.0);
        // One row has a loss, but nothing to tell its error from.
        gap_error = (dataset.validation.len() > features).then(|| seen.1.hypot(unseen.1));
    }
    let mut check = SelfCheck {
        round_trip,
        log_det,
        gap,
        gap_error,
        latent_rows: latent.len() / features,
        latent: (0..modelled).map(|feature| latent_feature(&latent[feature..], features)).collect(),
        suspicious: Vec::new(),
    };
    check.suspicious = suspicions(&check, &model.columns);
    Ok(check)
}

/// Sentences on what is suspicious in `check`. Numbers that are not finite leave nothing else to say.
fn suspicions(check: &SelfCheck, columns: &[String]) -> Vec<String> {
    let mut sentences = Vec::new();
    let latent = check.latent.iter().flat_map(|feature| [feature.mean, feature.std, feature.distance]);
    let others = [Some(check.round_trip), check.log_det, check.gap, check.gap_error].into_iter().flatten();
    if latent.chain(others).any(|number| !number.is_finite()) {
        return vec![
            "scores, samples or latent values of some rows are not finite: the model cannot be used. Train with a \
             smaller rate, or look for extreme values in the data"
                .into(),
        ];
    }
    let exceeds = |value: f64, limit: f64| value.abs() > limit;
    if exceeds(check.round_trip, ROUND_TRIP_LIMIT) {
        sentences.push(format!(
            "a pass to the latent variable and back is off by {:.1e}: the flow stretches more than single precision \
             resolves, so its samples and scores are rough",
            check.round_trip
        ));
    }
    if check.log_det.is_some_and(|error| exceeds(error, LOG_DET_LIMIT)) {
        sentences.push(format!(
            "the log-determinant differs from finite differences by {:.1e} nats: densities are wrong or the flow is \
             very steep",
            check.log_det.unwrap_or_default()
        ));
    }
    if let (Some(gap), Some(error)) = (check.gap, check.gap_error)
        && gap > GAP_LIMIT.max(ERRORS * error)
    {
        sentences.push(format!(
            "validation rows lose {gap:.3} ± {error:.3} nats against training rows: the flow has learnt rows by heart. \
             Train for less long, with fewer parameters, or on more rows"
        ));
    }
    let rows = check.latent_rows.max(1) as f64;
    // 1.95 / √n is exceeded once in a thousand times by a normal sample (Kolmogorov).
    let distance_limit = DISTANCE_LIMIT.max(1.95 / rows.sqrt());
    let mean_limit = MOMENT_LIMIT.max(ERRORS / rows.sqrt());
    let std_limit = MOMENT_LIMIT.max(ERRORS / (2.0 * rows).sqrt());
    let off: Vec<String> = std::iter::zip(&check.latent, columns)
        .filter(|(feature, _)| {
            exceeds(feature.distance, distance_limit)
                || exceeds(feature.mean, mean_limit)
                || exceeds(feature.std - 1.0, std_limit)
        })
        .map(|(_, column)| shown(column).to_string())
        .collect();
    if !off.is_empty() {
        const LISTED: usize = 6;
        let more =
            if off.len() > LISTED { format!(" and {} more", off.len() - LISTED) } else { String::new() };
        sentences.push(format!(
            "the latent variable is not normal in {}{more}: the flow does not fit there. Train longer or with more \
             couplings, or look for rounded values and outliers",
            off[..off.len().min(LISTED)].join(", ")
        ));
    }
    sentences
}

/// At most `most` rows of `values` [N, D], evenly spaced.
fn spaced(values: &[f64], features: usize, most: usize) -> Vec<f64> {
    let rows = values.len() / features;
    let wanted = rows.min(most);
    (0..wanted)
        .flat_map(|index| {
            let row = index * rows / wanted;
            &values[row * features..(row + 1) * features]
        })
        .copied()
        .collect()
}

/// Largest size; NaN if a value is.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(
        0.0,
        |most: f64, value| if most.is_nan() || value.is_nan() { f64::NAN } else { most.max(value.abs()) },
    )
}

/// Largest difference between log-determinants and those of central differences over the first rows of `x` [B, D], of
/// which the modelled features are moved.
fn log_det_error(model: &Model, x: &[f32]) -> Result<f64> {
    let (features, modelled) = (model.flow.features, model.flow.modelled());
    let mut engine = CpuEngine::<f64>::new(model.flow.clone())?;
    let parameters: Vec<f64> = model.parameters.iter().map(|&value| f64::from(value)).collect();
    engine.set_parameters(&parameters)?;
    let mut errors = Vec::new();
    for row in x.chunks_exact(features).take(DIFFERENCE_ROWS) {
        let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        let moved = |by: f64| -> Vec<f64> {
            (0..modelled)
                .flat_map(|moved| {
                    row.iter().enumerate().map(move |(i, x)| if i == moved { x + by } else { *x })
                })
                .collect()
        };
        let (_, log_det) = engine.forward(&row)?;
        let (up, _) = engine.forward(&moved(STEP))?;
        let (down, _) = engine.forward(&moved(-STEP))?;
        let jacobian = std::iter::zip(up.chunks_exact(features), down.chunks_exact(features))
            .flat_map(|(up, down)| std::iter::zip(&up[..modelled], &down[..modelled]))
            .map(|(up, down)| (up - down) / (2.0 * STEP))
            .collect();
        errors.push(log_det[0] - log_abs_determinant(jacobian, modelled));
    }
    Ok(largest(errors.into_iter()))
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

/// One latent feature: every `features`-th value.
fn latent_feature(values: &[f64], features: usize) -> LatentFeature {
    let mut sorted: Vec<f64> = values.iter().step_by(features).copied().collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / count;
    let std = (sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let distances = sorted.iter().enumerate().map(|(rank, &value)| {
        let below = normal::cdf(value);
        let rank = rank as f64;
        if below.is_nan() { below } else { (below - rank / count).abs().max((rank + 1.0) / count - below) }
    });
    LatentFeature { mean, std, distance: largest(distances) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normals;

    #[test]
    fn determinants_are_those_of_a_hand_and_exchange_rows() {
        assert!((log_abs_determinant(vec![0.0, 2.0, -3.0, 5.0], 2) - 6f64.ln()).abs() < 1e-15);
        let matrix = vec![2.0, 1.0, 0.0, 4.0, 2.0, 1.0, 1.0, 3.0, 5.0];
        // 2·(2·5 − 1·3) − 1·(4·5 − 1·1)
        assert!((log_abs_determinant(matrix, 3) - 5f64.ln()).abs() < 1e-14);
    }

    #[test]
    fn rows_are_evenly_spaced_and_never_repeated() {
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        assert_eq!(spaced(&values, 2, 3), [0.0, 1.0, 6.0, 7.0, 12.0, 13.0]);
        assert_eq!(spaced(&values, 2, 100), values);
    }

    #[test]
    fn a_normal_sample_is_normal_and_a_shifted_wide_or_rounded_one_is_not() {
        let mut noise = [0.0f32; 1];
        let sample: Vec<f64> = (0..2000)
            .map(|row| {
                normals(row, 1, &mut noise);
                f64::from(noise[0])
            })
            .collect();
        let check = |values: &[f64]| {
            let check = SelfCheck {
                round_trip: 0.0,
                log_det: Some(0.0),
                gap: Some(0.0),
                gap_error: Some(0.1),
                latent_rows: values.len(),
                latent: vec![latent_feature(values, 1)],
                suspicious: Vec::new(),
            };
            suspicions(&check, &["width".into()])
        };
        assert_eq!(check(&sample), [""; 0]);
        let broken = |bad: fn(f64) -> f64| check(&sample.iter().copied().map(bad).collect::<Vec<_>>());
        for bad in [|x: f64| x + 0.3, |x: f64| 1.4 * x, |x: f64| x.round()] {
            let sentences = broken(bad);
            assert!(sentences.len() == 1 && sentences[0].contains("not normal in width"), "{sentences:?}");
        }
        let sentences = broken(|_| f64::NAN);
        assert!(sentences.len() == 1 && sentences[0].contains("not finite"), "{sentences:?}");
    }
}
