//! Where every tensor of a flow lies in the one flat buffer of parameters.
//! Gradients and both Adam moments mirror it, so an update is one pass and a parity failure names its tensor.

use crate::flow::{Flow, Network};

/// A tensor's name, shape and place in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the model file, such as `transforms.0.scale.1.weight`.
    pub name: String,
    /// Row-major shape: [out, in] for a weight, `[out]` for a bias.
    pub shape: Vec<usize>,
    /// Index of its first value.
    pub offset: usize,
}

impl Tensor {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no values; never so in a valid flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// One linear layer of one network: y = x · Wᵀ + b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearSpan {
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// Offset of the weight, row-major [outputs, inputs].
    pub weight: usize,
    /// Offset of the bias, `[outputs]`.
    pub bias: usize,
}

/// The flat buffer's table of contents.
///
/// Order: coupling, then network (scale, translate), then linear layer, then weight before bias. All couplings
/// and both networks have the same shape, so a layer's place is affine in (coupling, network).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Every tensor, in order of offset.
    pub tensors: Vec<Tensor>,
    /// Number of parameters P.
    pub total: usize,
    /// Parameters of one network: the distance from a scale layer to the translate layer beside it.
    pub network_stride: usize,
    first_network: Vec<LinearSpan>,
}

impl Layout {
    /// The layout of `flow`.
    pub fn new(flow: &Flow) -> Self {
        let mut offset = 0;
        let first_network: Vec<LinearSpan> = flow
            .widths()
            .windows(2)
            .map(|pair| {
                let (inputs, outputs) = (pair[0], pair[1]);
                let span = LinearSpan { inputs, outputs, weight: offset, bias: offset + inputs * outputs };
                offset += (inputs + 1) * outputs;
                span
            })
            .collect();
        let mut layout = Self {
            tensors: Vec::new(),
            total: 2 * offset * flow.layers(),
            network_stride: offset,
            first_network,
        };
        for transform in 0..flow.layers() {
            for network in Network::BOTH {
                for layer in 0..layout.depth() {
                    let span = layout.linear(transform, network, layer);
                    let name = format!("transforms.{transform}.{}.{layer}", network.name());
                    layout.tensors.push(Tensor {
                        name: format!("{name}.weight"),
                        shape: vec![span.outputs, span.inputs],
                        offset: span.weight,
                    });
                    layout.tensors.push(Tensor {
                        name: format!("{name}.bias"),
                        shape: vec![span.outputs],
                        offset: span.bias,
                    });
                }
            }
        }
        layout
    }

    /// Linear layers in a network: hidden widths + 1.
    pub fn depth(&self) -> usize {
        self.first_network.len()
    }

    /// The place of linear layer `layer` of `network` in coupling `transform`.
    pub fn linear(&self, transform: usize, network: Network, layer: usize) -> LinearSpan {
        let shift = (2 * transform + network as usize) * self.network_stride;
        let span = self.first_network[layer];
        LinearSpan { weight: span.weight + shift, bias: span.bias + shift, ..span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_tile_the_buffer_without_gap_or_overlap() {
        let layout = Layout::new(&Flow::new(3, 2, &[5, 4]).expect("valid"));
        let mut next = 0;
        for tensor in &layout.tensors {
            assert_eq!(tensor.offset, next, "{}", tensor.name);
            next += tensor.len();
        }
        assert_eq!(next, layout.total);
        assert_eq!(layout.tensors.len(), 2 * 2 * 3 * 2);
    }

    #[test]
    fn names_and_shapes_follow_the_model_file() {
        let layout = Layout::new(&Flow::new(3, 2, &[5, 4]).expect("valid"));
        let tensor = &layout.tensors[2 * (3 + 1)];
        assert_eq!(
            (tensor.name.as_str(), tensor.shape.as_slice()),
            ("transforms.0.translate.1.weight", &[4, 5][..])
        );
        assert_eq!(tensor.offset, layout.linear(0, Network::Translate, 1).weight);
    }
}
