//! A flow as the fused kernels read it: a table of steps, and the parameters of each, padded to whole quads.
//! Mirrors `shaders/fused/layout.wgsl`; training keeps the packed copies up to date on the device.

use super::super::plan::{Copies, NOWHERE};
use super::super::uniforms::{self, MOST_SPANS, MOST_STEPS, Span, Step};
use crate::flow::{Coupling, Flow, NetworkShape, Transform};
use crate::layout::{Block, Layout, LinearSpan, NetworkSpan};

/// Kinds of transforms, as the shaders number them.
const COUPLING: u32 = 0;
const ACTNORM: u32 = 1;

/// The role of a feature that a coupling keeps, and of what is no feature.
const KEPT: u32 = u32::MAX;

/// Where everything lies in the packed parameters. All offsets count quads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packing {
    steps: Vec<Step>,
    spans: Vec<Span>,
    /// What each feature is to each step [steps, quads, 4]: kept, or its place among the transformed features.
    roles: Vec<u32>,
    /// Places of both packed copies of each parameter, which are one where there is a single copy; and its place in a
    /// slot. In values, not quads; or [`NOWHERE`].
    places: Vec<[u32; 2]>,
    slot_places: Vec<u32>,
    /// Quads of the packed parameters, of a slot, and of what is saved of a row.
    packed: usize,
    slot: usize,
    saved: usize,
}

fn quads(width: usize) -> usize {
    width.div_ceil(4)
}

/// Quads of a row of what each network of `coupling` gives out, as its kernels lay them out.
pub(super) fn output_quads(flow: &Flow, coupling: &Coupling) -> usize {
    match coupling.networks(flow.features).len() {
        1 => coupling.split().1.len() * quads(coupling.bijector.parameters()),
        _ => quads(flow.features),
    }
}

/// What each feature is to a transform, padded to whole quads.
fn roles(flow: &Flow, transform: &Transform) -> Vec<u32> {
    let mut roles = vec![KEPT; 4 * quads(flow.features)];
    if let Some(coupling) = transform.coupling() {
        for (place, &feature) in coupling.split().1.iter().enumerate() {
            roles[feature] = place as u32;
        }
    }
    roles
}

impl Packing {
    /// The packing of a flow's `layout`.
    pub fn new(flow: &Flow, layout: &Layout) -> Self {
        let mut packing = Self::default();
        for (transform, block) in flow.transforms.iter().zip(&layout.blocks) {
            packing.add(flow, transform, block);
        }
        packing
    }

    /// Whether the kernels' tables have room for `flow`, and all its couplings have one kind of bijector.
    pub fn holds(flow: &Flow) -> bool {
        let widths = |coupling: &Coupling| {
            let shape = |network: NetworkShape| -> Vec<[usize; 2]> {
                network.layers.iter().map(|layer| [layer.inputs, layer.outputs]).collect()
            };
            let shapes: Vec<_> = coupling.networks(flow.features).into_iter().map(shape).collect();
            // A single network is packed by how many features it serves.
            (shapes[0].clone(), output_quads(flow, coupling))
        };
        let mut shapes: Vec<_> = flow.couplings().map(widths).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let mut kinds = flow.couplings().map(|coupling| coupling.bijector.constants());
        let first = kinds.next();
        let known = |transform: &Transform| matches!(transform, Transform::Coupling(_) | Transform::Actnorm);
        flow.transforms.len() <= MOST_STEPS
            && flow.transforms.iter().all(known)
            && shapes.iter().map(|(layers, _)| layers.len()).sum::<usize>() <= MOST_SPANS
            && kinds.all(|kind| Some(&kind) == first.as_ref())
    }

    fn add(&mut self, flow: &Flow, transform: &Transform, block: &Block) {
        let roles = roles(flow, transform);
        let mut step = Step {
            roles: quads(self.roles.len()) as u32,
            weights: self.packed as u32,
            slot: self.slot as u32,
            saved: self.saved as u32,
            ..Step::default()
        };
        // Its input.
        self.saved += quads(flow.features);
        match transform {
            Transform::Coupling(coupling) => {
                step.kind = COUPLING;
                step.bound = coupling.bijector.bound();
                step.transformed = coupling.split().1.len() as u32;
                self.saved += match block.networks.len() {
                    1 => step.transformed as usize * quads(coupling.bijector.saved()),
                    _ => coupling.bijector.saved() * quads(flow.features),
                };
                self.add_networks(&mut step, block, &roles, output_quads(flow, coupling));
            }
            Transform::Lu | Transform::Permutation { .. } => unreachable!("refused by Packing::holds"),
            Transform::Actnorm => {
                step.kind = ACTNORM;
                for _ in 0..2 {
                    self.place_vector(flow.modelled(), quads(flow.features));
                }
            }
        }
        self.roles.extend(roles);
        self.steps.push(step);
    }

    /// Networks of one shape, one after the other.
    fn add_networks(&mut self, step: &mut Step, block: &Block, roles: &[u32], output_quads: usize) {
        let (spans, natural, whole) = spans(&block.networks[0].layers, output_quads);
        step.networks = block.networks.len() as u32;
        step.depth = spans.len() as u32;
        step.spans = self.shared_spans(&spans);
        (step.weights_stride, step.slot_stride) = (whole as u32, natural as u32);
        for network in &block.networks {
            let numbers = network.numbers;
            // The column of an output, where it has one.
            let column = |out: usize| match block.networks.len() {
                1 => (roles[out / numbers] != KEPT)
                    .then(|| 4 * quads(numbers) * roles[out / numbers] as usize + out % numbers),
                _ => Some(out),
            };
            for (layer, (span, linear)) in spans.iter().zip(&network.layers).enumerate() {
                if layer + 1 == spans.len() {
                    self.place_linear(span, linear, column);
                } else {
                    self.place_linear(span, linear, Some);
                }
            }
            self.packed += whole;
            self.slot += natural;
        }
    }

    /// Notes the places of a vector of `len` parameters, padded to `width` quads, of which there is a single copy.
    fn place_vector(&mut self, len: usize, width: usize) {
        for index in 0..len {
            self.places.push([(4 * self.packed + index) as u32; 2]);
            self.slot_places.push((4 * self.slot + index) as u32);
        }
        self.packed += width;
        self.slot += width;
    }

    /// Where these spans stand among all; couplings of one shape share theirs.
    fn shared_spans(&mut self, spans: &[Span]) -> u32 {
        let known = self.spans.windows(spans.len()).position(|window| window == spans);
        known.unwrap_or_else(|| {
            self.spans.extend(spans);
            self.spans.len() - spans.len()
        }) as u32
    }

    /// Notes the places of a linear layer's parameters, in the order of the layout: `column` tells where an output is.
    fn place_linear(&mut self, span: &Span, linear: &LinearSpan, column: impl Fn(usize) -> Option<usize>) {
        let [input_quads, output_quads, natural, bias, transposed] =
            [span.input_quads, span.output_quads, span.natural, span.bias, span.transposed]
                .map(|value| value as usize);
        let mut put = |places: Option<[usize; 2]>| {
            let packed = |place: usize| (4 * self.packed + place) as u32;
            self.places.push(places.map_or([NOWHERE; 2], |places| places.map(packed)));
            self.slot_places.push(places.map_or(NOWHERE, |[natural, _]| (4 * self.slot + natural) as u32));
        };
        for out in (0..linear.outputs).map(&column) {
            for input in 0..linear.inputs {
                put(out.map(|out| {
                    [4 * (natural + out * input_quads) + input, 4 * (transposed + input * output_quads) + out]
                }));
            }
        }
        for out in (0..linear.outputs).map(&column) {
            put(out.map(|out| [4 * bias + out; 2]));
        }
    }

    /// Number of packed values.
    pub fn len(&self) -> usize {
        4 * self.packed
    }

    /// Number of values in a slot of partial gradients.
    pub fn slot(&self) -> usize {
        4 * self.slot
    }

    /// Quads that a training step saves of a row for its way back.
    pub fn saved(&self) -> usize {
        self.saved
    }

    /// Whether there are none; never so in a valid flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each feature is to each step [steps, quads, 4].
    pub fn roles(&self) -> &[u32] {
        &self.roles
    }

    /// Where the copies of each parameter lie among the packed values; both are one where there is a single copy. Or
    /// [`NOWHERE`].
    pub fn places(&self) -> &[[u32; 2]] {
        &self.places
    }

    /// Where the gradient of each parameter lies in a slot of partial gradients, or [`NOWHERE`].
    pub fn slot_places(&self) -> &[u32] {
        &self.slot_places
    }

    /// Where the packed copies of the parameters lie.
    pub fn copies(&self) -> Copies {
        Copies { len: self.len(), places: self.places.clone() }
    }

    /// The packed copies of `parameters` `[P]`.
    pub fn pack(&self, parameters: &[f32]) -> Vec<f32> {
        self.copies().pack(parameters)
    }

    /// The uniform of `flow`'s fused kernels for batches shared by `groups` workgroups.
    pub fn uniform(&self, flow: &Flow, rules: uniforms::Rules, groups: usize) -> uniforms::Fused {
        let mut uniform = uniforms::Fused {
            rules,
            transforms: self.steps.len() as u32,
            features: flow.features as u32,
            modelled: flow.modelled() as u32,
            groups: groups as u32,
            slot_quads: self.slot as u32,
            ..Default::default()
        };
        uniform.steps[..self.steps.len()].copy_from_slice(&self.steps);
        uniform.spans[..self.spans.len()].copy_from_slice(&self.spans);
        uniform
    }
}

/// The layers of a network, whose offsets count from its beginning: [out, in] and the bias of every layer, then every
/// layer's [in, out]. With them the quads of the first half, and of the whole. The last layer gives out `last_quads`.
fn spans(layers: &[LinearSpan], last_quads: usize) -> (Vec<Span>, usize, usize) {
    let mut total = 0;
    let mut take = |count: usize| {
        total += count;
        (total - count) as u32
    };
    let mut spans: Vec<Span> = layers
        .iter()
        .enumerate()
        .map(|(layer, linear)| {
            let inputs = quads(linear.inputs);
            let outputs = if layer + 1 == layers.len() { last_quads } else { quads(linear.outputs) };
            debug_assert!(
                linear.skip.is_none_or(|from| from + 2 == layer),
                "invariant: a block has two layers"
            );
            Span {
                input_quads: inputs as u32,
                output_quads: outputs as u32,
                natural: take(4 * inputs * outputs),
                bias: take(outputs),
                transposed: 0,
                activated: linear.activated.into(),
                skips: linear.skip.is_some().into(),
                padding: 0,
            }
        })
        .collect();
    let natural = take(0) as usize;
    for span in &mut spans {
        span.transposed = take(4 * (span.input_quads * span.output_quads) as usize);
    }
    (spans, natural, total)
}

/// What the kernels compute of a row: matrix elements of networks, of every layer, of the last ones alone, and of the first
/// ones of the first transform; and operations outside of products, forward or inverse and backward.
#[derive(Default)]
pub(super) struct Work {
    pub all: usize,
    pub last: usize,
    pub first_transform: usize,
    pub forward: usize,
    pub backward: usize,
}

impl Work {
    pub fn new(flow: &Flow, layout: &Layout) -> Self {
        let mut work = Self::default();
        for (transform, block) in flow.transforms.iter().zip(&layout.blocks) {
            match transform {
                Transform::Coupling(coupling) => work.add(coupling, block),
                // A difference, a product, an exponential and a sum; products and sums.
                _ => {
                    work.forward += 13 * flow.modelled();
                    work.backward += 16 * flow.modelled();
                }
            }
        }
        let first = layout.blocks.iter().take(1).flat_map(|block| &block.networks);
        let elements = |network: &NetworkSpan| network.layers[0].inputs * network.layers[0].outputs;
        work.first_transform = first.map(elements).sum();
        work
    }

    fn add(&mut self, coupling: &Coupling, block: &Block) {
        let transformed = coupling.split().1.len();
        let [forward, backward] = coupling.bijector.flops();
        self.forward += transformed * forward;
        self.backward += transformed * backward;
        for network in &block.networks {
            let Some((last, hidden)) = network.layers.split_last() else { continue };
            let outputs =
                if block.networks.len() == 1 { transformed * network.numbers } else { last.outputs };
            let hidden: usize = hidden.iter().map(|linear| linear.inputs * linear.outputs).sum();
            self.last += last.inputs * outputs;
            self.all += hidden + last.inputs * outputs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ConditionerForm;

    #[test]
    fn every_weight_is_packed_in_both_orders_between_zeros() {
        let flow = Flow::new(3, 2, &[5, 6]).expect("valid");
        let layout = Layout::new(&flow);
        let packing = Packing::new(&flow, &layout);
        assert_eq!(packing.spans.len(), 3, "networks of one shape share their spans");
        let parameters: Vec<f32> = (1..=layout.total).map(|value| value as f32).collect();
        let packed = packing.pack(&parameters);
        let weights: usize =
            layout.tensors.iter().filter(|tensor| tensor.shape.len() == 2).map(|t| t.len()).sum();
        let filled = packed.iter().filter(|&&value| value != 0.0).count();
        assert_eq!(filled, layout.total + weights, "weights twice and biases once");

        // Coupling 1, translate, layer 1: 5 inputs in 2 quads, 6 outputs in 2 quads.
        let (step, span) = (packing.steps[1], packing.spans[1]);
        assert_eq!((span.input_quads, span.output_quads), (2, 2));
        let natural = layout.blocks[1].networks[1].layers[1];
        let network = &packed[4 * (step.weights + step.weights_stride) as usize..];
        let value = |out: usize, input: usize| parameters[natural.weight + out * 5 + input];
        assert_eq!(network[4 * span.transposed as usize + 8 * 4 + 5], value(5, 4));
        assert_eq!(network[4 * span.natural as usize + 8 * 5 + 4], value(5, 4));
        assert_eq!(network[4 * span.bias as usize + 5], parameters[natural.bias + 5]);
    }

    #[test]
    fn every_parameter_has_a_place_of_its_own_in_a_slot() {
        let flow = Flow::conditional(2, 3, 2, &[5, 6]).expect("valid");
        let packing = Packing::new(&flow, &Layout::new(&flow));
        let mut places = packing.slot_places().to_vec();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), packing.places().len());
        assert!(places.last().is_some_and(|&last| (last as usize) < packing.slot()));
    }

    #[test]
    fn roles_are_places_among_the_transformed_features_padded_with_kept_ones() {
        let flow = Flow::new(5, 2, &[4]).expect("valid");
        let k = KEPT;
        assert_eq!(
            Packing::new(&flow, &Layout::new(&flow)).roles(),
            [k, 0, k, 1, k, k, k, k, 0, k, 1, k, 2, k, k, k]
        );
    }

    #[test]
    fn a_single_network_is_packed_for_its_transformed_features_alone() {
        let flow = Flow::new(5, 2, &[6]).expect("valid").with_conditioner(ConditionerForm::Joint);
        let layout = Layout::new(&flow);
        let packing = Packing::new(&flow, &layout);
        assert_eq!(
            packing.spans.len(),
            4,
            "couplings that transform two and three features have spans of their own"
        );
        let parameters: Vec<f32> = (1..=layout.total).map(|value| value as f32).collect();
        let packed = packing.pack(&parameters);
        // Coupling 1 transforms features 0, 2 and 4: feature 2 is the second, and its numbers begin a quad.
        let (step, span) = (packing.steps[1], packing.spans[3]);
        assert_eq!((span.input_quads, span.output_quads, step.transformed), (2, 3, 3));
        let last = layout.blocks[1].networks[0].layers[1];
        let network = &packed[4 * step.weights as usize..];
        let (weight, bias) =
            (|out: usize, input: usize| parameters[last.weight + out * 6 + input], last.bias);
        for k in 0..2 {
            assert_eq!(network[4 * span.transposed as usize + 12 * 5 + 4 + k], weight(2 * 2 + k, 5));
            assert_eq!(network[4 * span.natural as usize + 8 * (4 + k) + 5], weight(2 * 2 + k, 5));
            assert_eq!(network[4 * span.bias as usize + 4 + k], parameters[bias + 2 * 2 + k]);
        }
        // Features 1 and 3 are kept: their numbers are packed nowhere.
        for p in [last.weight + 2 * 6, last.weight + 7 * 6 + 5, bias + 3, bias + 6] {
            assert_eq!((packing.places()[p], packing.slot_places()[p]), ([NOWHERE; 2], NOWHERE));
        }
        let nowhere = packing.slot_places().iter().filter(|&&place| place == NOWHERE).count();
        assert_eq!(nowhere, (3 + 2) * 2 * (6 + 1));
    }
}
