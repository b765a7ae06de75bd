//! The weights as the fused kernels read them: each twice, in both orders, padded to whole quads.
//! Mirrors `shaders/fused_layout.wgsl`; training keeps the packed copies up to date on the device.

use super::super::uniforms::{self, MOST_SPANS, Span};
use crate::flow::Flow;
use crate::layout::{Layout, LinearSpan};

/// Where everything lies in the packed weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Packing {
    spans: Vec<Span>,
    /// Quads of one network's packed weights.
    stride: usize,
    /// Quads of one network's gradient.
    slot_stride: usize,
    networks: usize,
    network_stride: usize,
}

impl Packing {
    /// The packing of a flow's `layout`.
    pub fn new(flow: &Flow, layout: &Layout) -> Self {
        let quads = |width: usize| width.div_ceil(4);
        let network = &layout.blocks[0].networks[0];
        let linears = &network.layers;
        // [out, in] and the bias of every layer, then every layer's [in, out].
        let mut stride = 0;
        let mut take = |count: usize| {
            stride += count;
            stride - count
        };
        let mut spans: Vec<Span> = linears
            .iter()
            .map(|linear| Span {
                inputs: linear.inputs as u32,
                outputs: linear.outputs as u32,
                input_quads: quads(linear.inputs) as u32,
                output_quads: quads(linear.outputs) as u32,
                weight: linear.weight as u32,
                natural: take(4 * quads(linear.inputs) * quads(linear.outputs)) as u32,
                bias: take(quads(linear.outputs)) as u32,
                transposed: 0,
            })
            .collect();
        let slot_stride = take(0);
        for span in &mut spans {
            span.transposed = take(4 * (span.input_quads * span.output_quads) as usize) as u32;
        }
        Self {
            spans,
            stride,
            slot_stride,
            networks: 2 * flow.transforms.len(),
            network_stride: network.range.len(),
        }
    }

    /// Number of packed values.
    pub fn len(&self) -> usize {
        4 * self.stride * self.networks
    }

    /// Number of values in a slot of partial gradients.
    pub fn slot(&self) -> usize {
        4 * self.slot_stride * self.networks
    }

    /// Whether there are none; never so in a valid flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Network of parameter `p`, and where it lies within its packed weights: natural and transposed.
    fn places(&self, p: usize) -> (usize, [usize; 2]) {
        let (network, place) = (p / self.network_stride, p % self.network_stride);
        let layer = self.spans.iter().rposition(|span| span.weight as usize <= place);
        let span = self.spans[layer.expect("invariant: the first layer's weight is at 0")];
        let [inputs, outputs, input_quads, output_quads, natural, bias, transposed] = [
            span.inputs,
            span.outputs,
            span.input_quads,
            span.output_quads,
            span.natural,
            span.bias,
            span.transposed,
        ]
        .map(|value| value as usize);
        let index = place - span.weight as usize;
        if index >= inputs * outputs {
            return (network, [4 * bias + index - inputs * outputs; 2]);
        }
        let (out, input) = (index / inputs, index % inputs);
        (network, [4 * (natural + out * input_quads) + input, 4 * (transposed + input * output_quads) + out])
    }

    /// Where the copies of parameter `p` lie among the packed values; both are one for a bias.
    pub fn packed_places(&self, p: usize) -> [usize; 2] {
        let (network, places) = self.places(p);
        places.map(|place| 4 * self.stride * network + place)
    }

    /// Where the gradient of parameter `p` lies in a slot of partial gradients.
    pub fn slot_place(&self, p: usize) -> usize {
        let (network, [natural, _]) = self.places(p);
        4 * self.slot_stride * network + natural
    }

    /// The packed copies of `parameters` `[P]`.
    pub fn pack(&self, parameters: &[f32]) -> Vec<f32> {
        let mut packed = vec![0.0; self.len()];
        for (p, &value) in parameters.iter().enumerate() {
            for place in self.packed_places(p) {
                packed[place] = value;
            }
        }
        packed
    }

    /// The uniform of `flow`'s fused kernels for batches shared by `groups` workgroups.
    pub fn uniform(&self, flow: &Flow, rules: uniforms::Rules, groups: usize) -> uniforms::Fused {
        let mut spans = [Span::default(); MOST_SPANS];
        spans[..self.spans.len()].copy_from_slice(&self.spans);
        uniforms::Fused {
            rules,
            couplings: flow.transforms.len() as u32,
            depth: self.spans.len() as u32,
            features: flow.features as u32,
            bound: flow.couplings().next().map_or(0.0, |coupling| coupling.bijector.bound()),
            network_stride: self.network_stride as u32,
            packed_stride: self.stride as u32,
            slot_stride: self.slot_stride as u32,
            groups: groups as u32,
            modelled: flow.modelled() as u32,
            padding0: 0,
            padding1: 0,
            padding2: 0,
            spans,
        }
    }
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

/// Masks as 0 and 1 [L, quads, 4]; what lies beyond the last feature counts as kept.
pub fn masks(flow: &Flow) -> Vec<f32> {
    let row = |mask: &Vec<bool>| {
        let mut row: Vec<f32> = mask.iter().map(|&kept| f32::from(u8::from(kept))).collect();
        row.resize(flow.features.next_multiple_of(4), 1.0);
        row
    };
    flow.couplings().flat_map(|coupling| row(&coupling.mask)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_is_packed_in_both_orders_between_zeros() {
        let flow = Flow::new(3, 2, &[5, 6]).expect("valid");
        let layout = Layout::new(&flow);
        let packing = Packing::new(&flow, &layout);
        let parameters: Vec<f32> = (1..=layout.total).map(|value| value as f32).collect();
        let packed = packing.pack(&parameters);
        let weights: usize =
            layout.tensors.iter().filter(|tensor| tensor.shape.len() == 2).map(|t| t.len()).sum();
        let filled = packed.iter().filter(|&&value| value != 0.0).count();
        assert_eq!(filled, layout.total + weights, "weights twice and biases once");

        // Coupling 1, translate, layer 1: 5 inputs in 2 quads, 6 outputs in 2 quads.
        let span = packing.spans[1];
        assert_eq!((span.input_quads, span.output_quads), (2, 2));
        let natural = layout.blocks[1].networks[1].layers[1];
        let network = &packed[3 * 4 * packing.stride..];
        let value = |out: usize, input: usize| parameters[natural.weight + out * 5 + input];
        assert_eq!(network[4 * span.transposed as usize + 8 * 4 + 5], value(5, 4));
        assert_eq!(network[4 * span.natural as usize + 8 * 5 + 4], value(5, 4));
        assert_eq!(network[4 * span.bias as usize + 5], parameters[natural.bias + 5]);
    }

    #[test]
    fn masks_are_padded_with_kept_features() {
        let flow = Flow::new(5, 2, &[4]).expect("valid");
        assert_eq!(
            masks(&flow),
            [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
        );
    }
}
