//! A flow as the fused kernels read it: a table of steps, and the parameters of each, padded to whole quads.
//! Mirrors `shaders/fused/layout.wgsl`; training keeps the packed copies up to date on the device.

use super::super::plan::Copies;
use super::super::uniforms::{self, MOST_SPANS, MOST_STEPS, Span, Step};
use crate::flow::{Flow, NetworkShape, Transform};
use crate::layout::{Block, Layout, LinearSpan};

/// Kinds of transforms, as the shaders number them.
const COUPLING: u32 = 0;
const ACTNORM: u32 = 1;

/// Where everything lies in the packed parameters. All offsets count quads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packing {
    steps: Vec<Step>,
    spans: Vec<Span>,
    /// Masks as 0 and 1 [steps, quads, 4]; what lies beyond the last feature counts as kept.
    masks: Vec<f32>,
    /// Places of both packed copies of each parameter, which are one where there is a single copy; and its place in a
    /// slot. In values, not quads.
    places: Vec<[u32; 2]>,
    slot_places: Vec<u32>,
    /// Quads of the packed parameters, of a slot, and planes of saved values.
    packed: usize,
    slot: usize,
    saved: usize,
}

fn quads(width: usize) -> usize {
    width.div_ceil(4)
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
        let widths = |network: NetworkShape| -> Vec<[usize; 2]> {
            network.layers.iter().map(|layer| [layer.inputs, layer.outputs]).collect()
        };
        let mut shapes: Vec<Vec<[usize; 2]>> =
            flow.couplings().flat_map(|coupling| coupling.networks(flow.features)).map(widths).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let mut kinds =
            flow.couplings().map(|coupling| (coupling.bijector.code(), coupling.bijector.parameters()));
        let first = kinds.next();
        let known = |transform: &Transform| matches!(transform, Transform::Coupling(_) | Transform::Actnorm);
        flow.transforms.len() <= MOST_STEPS
            && flow.transforms.iter().all(known)
            && shapes.iter().map(Vec::len).sum::<usize>() <= MOST_SPANS
            && kinds.all(|kind| Some(kind) == first)
    }

    fn add(&mut self, flow: &Flow, transform: &Transform, block: &Block) {
        let mut step = Step {
            mask: (self.masks.len() / 4) as u32,
            weights: self.packed as u32,
            slot: self.slot as u32,
            saved: self.saved as u32,
            ..Step::default()
        };
        let every = vec![true; flow.features];
        let mask = transform.coupling().map_or(&every, |coupling| &coupling.mask);
        self.masks.extend(mask.iter().map(|&kept| f32::from(u8::from(kept))));
        self.masks.resize(self.masks.len().next_multiple_of(4), 1.0);
        // Its input.
        self.saved += 1;
        match transform {
            Transform::Coupling(coupling) => {
                step.kind = COUPLING;
                step.bound = coupling.bijector.bound();
                self.add_networks(&mut step, block);
                self.saved += coupling.bijector.saved();
            }
            Transform::Lu | Transform::Permutation { .. } => unreachable!("refused by Packing::holds"),
            Transform::Actnorm => {
                step.kind = ACTNORM;
                for _ in 0..2 {
                    self.place_vector(flow.modelled(), quads(flow.features));
                }
            }
        }
        self.steps.push(step);
    }

    /// Networks of one shape, one after the other.
    fn add_networks(&mut self, step: &mut Step, block: &Block) {
        let (spans, natural, whole) = spans(&block.networks[0].layers);
        step.networks = block.networks.len() as u32;
        step.depth = spans.len() as u32;
        step.spans = self.shared_spans(&spans);
        (step.weights_stride, step.slot_stride) = (whole as u32, natural as u32);
        for network in &block.networks {
            for (span, linear) in spans.iter().zip(&network.layers) {
                self.place_linear(span, linear);
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

    /// Notes the places of a linear layer's parameters, in the order of the layout.
    fn place_linear(&mut self, span: &Span, linear: &LinearSpan) {
        let [input_quads, output_quads, natural, bias, transposed] =
            [span.input_quads, span.output_quads, span.natural, span.bias, span.transposed]
                .map(|value| value as usize);
        let mut put = |natural: usize, transposed: usize| {
            self.places.push([natural, transposed].map(|place| (4 * self.packed + place) as u32));
            self.slot_places.push((4 * self.slot + natural) as u32);
        };
        for out in 0..linear.outputs {
            for input in 0..linear.inputs {
                put(4 * (natural + out * input_quads) + input, 4 * (transposed + input * output_quads) + out);
            }
        }
        for out in 0..linear.outputs {
            put(4 * bias + out, 4 * bias + out);
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

    /// Planes that a training step saves for its way back.
    pub fn saved(&self) -> usize {
        self.saved
    }

    /// Whether there are none; never so in a valid flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Masks as 0 and 1 [steps, quads, 4]; what lies beyond the last feature counts as kept.
    pub fn masks(&self) -> &[f32] {
        &self.masks
    }

    /// Where the copies of each parameter lie among the packed values; both are one where there is a single copy.
    pub fn places(&self) -> &[[u32; 2]] {
        &self.places
    }

    /// Where the gradient of each parameter lies in a slot of partial gradients.
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
/// layer's [in, out]. With them the quads of the first half, and of the whole.
fn spans(layers: &[LinearSpan]) -> (Vec<Span>, usize, usize) {
    let mut total = 0;
    let mut take = |count: usize| {
        total += count;
        (total - count) as u32
    };
    let mut spans: Vec<Span> = layers
        .iter()
        .map(|linear| Span {
            inputs: linear.inputs as u32,
            outputs: linear.outputs as u32,
            input_quads: quads(linear.inputs) as u32,
            output_quads: quads(linear.outputs) as u32,
            natural: take(4 * quads(linear.inputs) * quads(linear.outputs)),
            bias: take(quads(linear.outputs)),
            transposed: 0,
            padding: 0,
        })
        .collect();
    let natural = take(0) as usize;
    for span in &mut spans {
        span.transposed = take(4 * (span.input_quads * span.output_quads) as usize);
    }
    (spans, natural, total)
}

/// Matrix elements of a flow's networks: of every layer, of the last ones alone, and of the first ones of the first
/// transform.
pub(super) struct Weights {
    pub all: usize,
    pub last: usize,
    pub first_transform: usize,
}

impl Weights {
    pub fn new(layout: &Layout) -> Self {
        let size = |linear: &LinearSpan| linear.inputs * linear.outputs;
        let networks = || layout.blocks.iter().flat_map(|block| &block.networks);
        let first = layout.blocks.iter().take(1).flat_map(|block| &block.networks);
        Self {
            all: networks().flat_map(|network| &network.layers).map(size).sum(),
            last: networks().filter_map(|network| network.layers.last()).map(size).sum(),
            first_transform: first.filter_map(|network| network.layers.first()).map(size).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn masks_are_padded_with_kept_features() {
        let flow = Flow::new(5, 2, &[4]).expect("valid");
        assert_eq!(
            Packing::new(&flow, &Layout::new(&flow)).masks(),
            [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
        );
    }
}
