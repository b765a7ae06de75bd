//! Initial parameters that depend on the training rows.
//!
//! An actnorm begins with the mean and the deviation of the training rows as they reach it, so that what it passes on has
//! mean 0 and deviation 1. Everything is computed in double precision on the CPU, so the bits are the same for every device.

use crate::cpu::CpuEngine;
use crate::error::Result;
use crate::flow::{Flow, Transform};
use crate::layout::Layout;

/// Most rows that initialisation looks at, the first ones: enough for means to have three digits.
const ROWS: usize = 1 << 16;

/// Sets the parameters `[P]` that depend on data from standardised `rows` [N, D]; the others are as they are.
///
/// # Errors
/// Those of the flow.
pub(super) fn initialise_from_rows(flow: &Flow, parameters: &mut [f32], rows: &[f32]) -> Result<()> {
    if !flow.transforms.iter().any(|transform| matches!(transform, Transform::Actnorm)) {
        return Ok(());
    }
    let count = (rows.len() / flow.features).min(ROWS);
    let mut values: Vec<f64> = rows[..count * flow.features].iter().map(|&value| value.into()).collect();
    for (transform, block) in flow.transforms.iter().zip(Layout::new(flow).blocks) {
        let parameters = &mut parameters[block.range];
        if let Transform::Actnorm = transform {
            normalise(&values, flow, parameters);
        }
        let single = Flow { transforms: vec![transform.clone()], ..flow.clone() };
        let mut engine = CpuEngine::<f64>::new(single)?;
        engine.set_parameters(&parameters.iter().map(|&value| value.into()).collect::<Vec<f64>>())?;
        values = engine.forward(&values)?.0;
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
    use crate::optimiser::State;

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
        initialise_from_rows(&flow, &mut parameters, &rows).expect("valid");
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
}
