//! The weights as the fused kernels read them: each twice, in both orders, padded to whole quads.
//! Mirrors `shaders/fused_layout.wgsl`; training keeps the packed copies up to date on the device.

use super::super::uniforms::{self, MOST_SPANS, Span};
use crate::flow::{Flow, Network};
use crate::layout::Layout;

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
        let linears: Vec<_> =
            (0..layout.depth()).map(|layer| layout.linear(0, Network::Scale, layer)).collect();
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
            networks: 2 * flow.layers(),
            network_stride: layout.network_stride,
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

    /// The packed copies of `parameters` `[P]`.
    pub fn pack(&self, parameters: &[f32]) -> Vec<f32> {
        let mut packed = vec![0.0; self.len()];
        let networks =
            parameters.chunks(self.network_stride).zip(packed.chunks_mut((4 * self.stride).max(1)));
        for (natural, packed) in networks {
            for span in &self.spans {
                let [inputs, outputs] = [span.inputs, span.outputs].map(|width| width as usize);
                let at = |quads: u32, row: usize, row_quads: u32, column: usize| {
                    4 * (quads as usize + row * row_quads as usize) + column
                };
                let weight = span.weight as usize;
                for out in 0..outputs {
                    for input in 0..inputs {
                        let value = natural[weight + out * inputs + input];
                        packed[at(span.transposed, input, span.output_quads, out)] = value;
                        packed[at(span.natural, out, span.input_quads, input)] = value;
                    }
                }
                let bias = weight + inputs * outputs;
                let start = 4 * span.bias as usize;
                packed[start..start + outputs].copy_from_slice(&natural[bias..bias + outputs]);
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
            couplings: flow.layers() as u32,
            depth: self.spans.len() as u32,
            features: flow.features as u32,
            bound: flow.bound,
            network_stride: self.network_stride as u32,
            packed_stride: self.stride as u32,
            slot_stride: self.slot_stride as u32,
            groups: groups as u32,
            spans,
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
    flow.masks.iter().flat_map(row).collect()
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
        let natural = layout.linear(1, Network::Translate, 1);
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
