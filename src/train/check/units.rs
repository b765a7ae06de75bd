//! Hidden units that are never on. A unit of a ReLU network whose input is negative at every row has no gradient: it is
//! dead for the rest of the training, and a layer of such units no longer computes anything.

use rayon::prelude::*;

use super::sample::Sample;
use crate::cpu::CpuEngine;
use crate::data::CountedRows;
use crate::error::Result;
use crate::flow::{Activation, Base, Coupling, Flow, Transform};
use crate::layout::{Layout, NetworkSpan};
use crate::model::{CouplingUnits, LayerUnits, Model};

/// Rows that units are looked at over: fewest, most, and products of weights and rows that they may take together.
const FEWEST_ROWS: usize = 200;
const MOST_ROWS: usize = 2000;
const PRODUCTS: usize = 200_000_000;
/// Rows that go through a network together.
const BLOCK: usize = 50;

/// The hidden units of every coupling over the training rows; none where the activation lets none die.
///
/// # Errors
/// Those of the flow.
pub(super) fn hidden_units(model: &Model, training: &Sample) -> Result<Vec<CouplingUnits>> {
    let flow = &model.flow;
    if flow.activation != Activation::Relu || flow.couplings().next().is_none() {
        return Ok(Vec::new());
    }
    let features = flow.features;
    let rows = (PRODUCTS / model.parameters.len().max(1)).clamp(FEWEST_ROWS, MOST_ROWS);
    let rows = Sample::spaced(&CountedRows::alike(&training.rows, features), rows).rows;
    let mut values: Vec<f64> = model.preprocessing.forward(&rows).values.into_iter().map(f64::from).collect();
    let parameters: Vec<f64> = model.parameters.iter().map(|&value| f64::from(value)).collect();
    let mut units = Vec::new();
    for (index, (transform, block)) in flow.transforms.iter().zip(Layout::new(flow).blocks).enumerate() {
        if let Some(coupling) = transform.coupling() {
            units.extend(coupling_units(index, coupling, &block.networks, &parameters, &values));
        }
        values = transformed(flow, transform, &parameters[block.range], &values)?;
    }
    Ok(units)
}

/// `values` `[B, D]` after one transform of `flow`.
fn transformed(flow: &Flow, transform: &Transform, parameters: &[f64], values: &[f64]) -> Result<Vec<f64>> {
    let single = Flow { transforms: vec![transform.clone()], base: Base::StandardNormal, ..flow.clone() };
    let mut engine = CpuEngine::<f64>::new(single)?;
    engine.set_parameters(parameters)?;
    Ok(engine.forward(values)?.0)
}

fn coupling_units(
    index: usize,
    coupling: &Coupling,
    networks: &[NetworkSpan],
    parameters: &[f64],
    values: &[f64],
) -> Option<CouplingUnits> {
    let features = coupling.mask.len();
    if !coupling.mask.contains(&true) {
        // Its θ is a constant, whatever its units do.
        return None;
    }
    let names = coupling.networks(features);
    let mut layers = Vec::new();
    for (network, shape) in networks.iter().zip(&names) {
        let on = values
            .par_chunks(BLOCK * features)
            .map(|rows| units_on(network, &coupling.mask, parameters, rows))
            .reduce_with(|mut all, part| {
                all.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(on, part)| *on |= part);
                all
            });
        for (layer, on) in on.into_iter().flatten().filter(|on| !on.is_empty()).enumerate() {
            layers.push(LayerUnits {
                network: shape.name.to_owned(),
                layer: layer + 1,
                units: on.len(),
                dead: on.iter().filter(|on| !**on).count(),
            });
        }
    }
    let (units, dead) = layers.iter().fold((0, 0), |sum, layer| (sum.0 + layer.units, sum.1 + layer.dead));
    let share = |layer: &LayerUnits| layer.dead as f64 / layer.units as f64;
    // The first of equals.
    let worst = layers.into_iter().rev().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    Some(CouplingUnits { transform: index, units, dead, worst })
}

/// For each linear layer of a network that reads activations, whether each of them is on at one of `rows` `[B, D]`;
/// nothing for the others.
fn units_on(network: &NetworkSpan, mask: &[bool], parameters: &[f64], rows: &[f64]) -> Vec<Vec<bool>> {
    let features = mask.len();
    let mut on: Vec<Vec<bool>> = network
        .layers
        .iter()
        .map(|layer| vec![false; if layer.activated { layer.inputs } else { 0 }])
        .collect();
    let mut outputs: Vec<Vec<f64>> = vec![Vec::new(); network.layers.len()];
    for row in rows.chunks_exact(features) {
        for (index, layer) in network.layers.iter().enumerate() {
            let mut input: Vec<f64> = match index {
                0 => {
                    std::iter::zip(row, mask).map(|(value, &kept)| if kept { *value } else { 0.0 }).collect()
                }
                _ => outputs[index - 1].clone(),
            };
            if layer.activated {
                on[index].iter_mut().zip(&input).for_each(|(on, value)| *on |= *value > 0.0);
                input.iter_mut().for_each(|value| *value = value.max(0.0));
            }
            if index + 1 == network.layers.len() {
                break;
            }
            let weight = &parameters[layer.weight..layer.weight + layer.inputs * layer.outputs];
            let bias = &parameters[layer.bias..layer.bias + layer.outputs];
            let mut output: Vec<f64> = std::iter::zip(weight.chunks_exact(layer.inputs), bias)
                .map(|(weight, bias)| bias + dot(weight, &input))
                .collect();
            if let Some(skip) = layer.skip {
                output.iter_mut().zip(&outputs[skip]).for_each(|(sum, value)| *sum += value);
            }
            outputs[index] = output;
        }
    }
    on
}

/// Σ a · b over the places of both, in sums that need not wait for each other.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in std::iter::zip(a, b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + std::iter::zip(a_rest, b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Standardiser;
    use crate::flow::{Bijector, ConditionerForm};
    use crate::model::{DataSource, Recipe, TrainingRecord};
    use crate::optimiser::State;

    /// A model of an untrained flow over two columns.
    fn untrained(flow: Flow) -> Model {
        let parameters = State::initial(&flow, 3).parameters;
        Model {
            parameters,
            preprocessing: Standardiser { mean: vec![0.0; 2], std: vec![1.0; 2] }.into(),
            columns: vec!["a".into(), "b".into()],
            record: TrainingRecord::begun(Recipe::default(), DataSource::table("t", 2), String::new()),
            flow,
        }
    }

    fn rows() -> Sample {
        let values: Vec<f64> = (0..600).map(|i| 2.0 * (f64::from(i) * 0.73).sin()).collect();
        Sample::spaced(&CountedRows::alike(&values, 2), 300)
    }

    /// Turns off the first `count` units that layer `layer` of the first network of transform 1 yields.
    fn kill(model: &mut Model, layer: usize, count: usize) {
        let span = Layout::new(&model.flow).blocks[1].networks[0].layers[layer];
        model.parameters[span.bias..span.bias + count].fill(-1e3);
    }

    #[test]
    fn dead_units_are_counted_in_every_form_of_conditioner() {
        let spline = Bijector::Spline { bins: 4, bound: 3.0 };
        let plain = || Flow::new(2, 2, &[12, 10]).expect("valid");
        let residual = Flow::new(2, 2, &[12, 12]).expect("valid");
        for (flow, network, layers) in [
            (plain(), "scale", [(0, 1, 12), (1, 2, 10)]),
            (
                plain().with_conditioner(ConditionerForm::Joint).with_bijector(spline),
                "conditioner",
                [(0, 1, 12), (1, 2, 10)],
            ),
            // Layers in, blocks.0.0, blocks.0.1, blocks.1.0, …; the second hidden layer is within the first block.
            (residual.with_conditioner(ConditionerForm::Residual), "conditioner", [(0, 1, 12), (1, 2, 12)]),
        ] {
            let healthy = hidden_units(&untrained(flow.clone()), &rows()).expect("valid");
            assert_eq!(healthy.iter().map(|units| units.transform).collect::<Vec<_>>(), [0, 1]);
            for (linear, layer, units) in layers {
                let mut model = untrained(flow.clone());
                kill(&mut model, linear, units - 1);
                let found = hidden_units(&model, &rows()).expect("valid");
                assert_eq!(found[0], healthy[0], "{network} {layer}");
                let LayerUnits { dead, .. } = found[1].worst;
                let want = LayerUnits { network: network.into(), layer, units, dead };
                assert_eq!(found[1].worst, want, "{flow:?}");
                assert!(dead >= units - 1 && found[1].dead >= dead, "{network} {layer}: {found:?}");
            }
        }
    }

    #[test]
    fn other_activations_have_no_dead_units_to_look_for() {
        let flow = Flow::new(2, 2, &[12]).expect("valid").with_activation(Activation::Silu);
        assert_eq!(hidden_units(&untrained(flow), &rows()).expect("valid"), []);
    }
}
