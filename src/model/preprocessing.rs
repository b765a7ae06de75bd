//! The preprocessing as tensors of a model file: the standardiser, the whitening and the curves of columns.
//! [`file`](super::file) has what stands beside them in the JSON.

use super::container::{Parsed, StoredTensor, Tensors};
use super::file::Header;
use crate::data::{Johnson, Knot, MonotoneCurve, Preprocessing, Standardise, Standardiser, Whitening};
use crate::error::{Error, Result};
use crate::shown::shown;

/// Name of the whitening's factor.
const WHITENING: &str = "standardiser.whitening";

/// Names of the curves of standardised and of whitened columns.
const CURVES: [&str; 2] = ["standardiser.johnson", "standardiser.whitened_johnson"];

/// Names of the curves by kernel densities of standardised and of whitened columns.
const KERNEL: [&str; 2] = ["standardiser.kernel", "standardiser.whitened_kernel"];

/// How many knots each curve by a kernel density has: a list for each stage of such curves.
pub(super) fn knot_counts(preprocessing: &Preprocessing) -> Vec<Vec<usize>> {
    let stages = [&preprocessing.kernel, &preprocessing.whitened_kernel].into_iter();
    let counts = |curves: &Vec<MonotoneCurve>| curves.iter().map(|curve| curve.knots().len()).collect();
    stages.filter(|curves| !curves.is_empty()).map(counts).collect()
}

/// The tensors of `preprocessing`.
pub(super) fn stored(preprocessing: &Preprocessing) -> Vec<StoredTensor> {
    let Preprocessing { standardiser, whitening, curves, whitened_curves, kernel, whitened_kernel, .. } =
        preprocessing;
    let mut tensors = Vec::new();
    for (name, values) in [("mean", &standardiser.mean), ("std", &standardiser.std)] {
        tensors.push(StoredTensor::f64(format!("standardiser.{name}"), vec![values.len()], values));
    }
    if let Some(whitening) = whitening {
        let features = whitening.features();
        tensors.push(StoredTensor::f64(WHITENING, vec![features, features], whitening.factor()));
    }
    for (name, curves) in CURVES.into_iter().zip([curves, whitened_curves]) {
        if !curves.is_empty() {
            let numbers: Vec<f64> = curves.iter().flat_map(Johnson::numbers).collect();
            tensors.push(StoredTensor::f64(name, vec![curves.len(), 4], &numbers));
        }
    }
    for (name, curves) in KERNEL.into_iter().zip([kernel, whitened_kernel]) {
        if !curves.is_empty() {
            let knots = curves.iter().flat_map(MonotoneCurve::knots);
            let numbers: Vec<f64> = knots.flat_map(|knot| [knot.place, knot.score, knot.slope]).collect();
            tensors.push(StoredTensor::f64(name, vec![numbers.len() / 3, 3], &numbers));
        }
    }
    tensors
}

pub(super) fn read_standardiser(tensors: &Tensors, features: usize) -> Parsed<Standardiser> {
    let standardiser = Standardiser {
        mean: tensors.f64("standardiser.mean", &[features])?,
        std: tensors.f64("standardiser.std", &[features])?,
    };
    // A subnormal one has lost digits, and its reciprocal may not be finite.
    if let Some(feature) = standardiser.std.iter().position(|&std| !(std > 0.0 && std.is_normal())) {
        let (std, rule) = (standardiser.std[feature], "tensor `standardiser.std` must");
        return Err(if std > 0.0 {
            format!("{rule} not be subnormal, got {std:e} at {feature}")
        } else {
            format!("{rule} be positive, got {std} at {feature}")
        });
    }
    Ok(standardiser)
}

pub(super) fn read_whitening(tensors: &Tensors, header: &Header) -> Parsed<Option<Whitening>> {
    let features = header.flow.features;
    match header.standardise {
        Standardise::Mean | Standardise::Robust => Ok(None),
        Standardise::Whiten => {
            let factor = tensors.f64(WHITENING, &[features, features])?;
            let fail = |error: Error| format!("tensor `{WHITENING}`: {error}");
            Ok(Some(Whitening::from_factor(factor, features).map_err(fail)?))
        }
    }
}

/// The curves of standardised and of whitened columns, `[D]` each; empty where there are none.
pub(super) fn read_curves(tensors: &Tensors, header: &Header) -> Parsed<[Vec<Johnson>; 2]> {
    let whitened = header.standardise == Standardise::Whiten;
    let read = |name: &str, there: bool| -> Parsed<Vec<Johnson>> {
        if !there {
            return Ok(Vec::new());
        }
        let numbers = tensors.f64(name, &[header.flow.features, 4])?;
        let curve = |numbers: &[f64; 4]| Johnson::from_numbers(*numbers);
        let curves: Result<Vec<Johnson>> = numbers.as_chunks::<4>().0.iter().map(curve).collect();
        curves.map_err(|error| format!("tensor `{name}`: {error}"))
    };
    Ok([read(CURVES[0], header.gaussianise)?, read(CURVES[1], header.gaussianise && whitened)?])
}

/// That curves by kernel densities follow Johnson's wherever these are, with a number of knots for each column.
fn check_knots(header: &Header) -> Parsed<()> {
    let (stages, features) = (header.kernel_knots.len(), header.flow.features);
    let expected = match (header.gaussianise, header.standardise) {
        (false, _) => 0,
        (true, Standardise::Whiten) => 2,
        (true, Standardise::Mean | Standardise::Robust) => 1,
    };
    if ![0, expected].contains(&stages) {
        return Err(format!("it has {stages} lists of `kernel_knots`, expected {expected}"));
    }
    let most = MonotoneCurve::MOST_KNOTS;
    for counts in &header.kernel_knots {
        if counts.len() != features {
            return Err(format!(
                "it has `kernel_knots` of {} columns, but its flow has {features} features",
                counts.len()
            ));
        }
        if let Some((name, knots)) =
            header.columns.iter().zip(counts).find(|(_, knots)| !(2..=most).contains(*knots))
        {
            return Err(format!("it has {knots} knots for column `{}`, expected 2 to {most}", shown(name)));
        }
    }
    Ok(())
}

/// The curves by kernel densities of standardised and of whitened columns, `[D]` each; empty where there are none.
pub(super) fn read_kernel(tensors: &Tensors, header: &Header) -> Parsed<[Vec<MonotoneCurve>; 2]> {
    check_knots(header)?;
    let mut stages = [Vec::new(), Vec::new()];
    for ((stage, name), counts) in stages.iter_mut().zip(KERNEL).zip(&header.kernel_knots) {
        let numbers = tensors.f64(name, &[counts.iter().sum(), 3])?;
        let mut knots =
            numbers.as_chunks::<3>().0.iter().map(|&[place, score, slope]| Knot { place, score, slope });
        for (column, &count) in header.columns.iter().zip(counts) {
            let curve = MonotoneCurve::from_knots(knots.by_ref().take(count).collect());
            let fail = |error: Error| format!("tensor `{name}`, column `{}`: {error}", shown(column));
            stage.push(curve.map_err(fail)?);
        }
    }
    Ok(stages)
}
