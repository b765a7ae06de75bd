//! Where every tensor of a flow lies in the one flat buffer of parameters.
//! Gradients and both Adam moments mirror it, so an update is one pass and a parity failure names its tensor.

use std::ops::Range;

use crate::flow::{Flow, LinearShape, NetworkShape, Transform};

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
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// A linear layer of a network: y = act(x) · Wᵀ + b, or without the activation.
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
    /// Whether x passes through the activation first.
    pub activated: bool,
    /// The layer of the same network whose result is added to y.
    pub skip: Option<usize>,
}

/// The place of a conditioner network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpan {
    /// Its values in the flat buffer.
    pub range: Range<usize>,
    /// Numbers of θ that it yields for each feature: output j · numbers + k is number k of feature j.
    pub numbers: usize,
    /// Its linear layers, from input to output; offsets are those of the flat buffer.
    pub layers: Vec<LinearSpan>,
}

/// The place of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its values in the flat buffer.
    pub range: Range<usize>,
    /// Its networks, which tile the range in order; none where the kind has no conditioner.
    pub networks: Vec<NetworkSpan>,
}

/// The flat buffer's table of contents: transform after transform, then the base density. Within a coupling: network, then linear layer, then
/// weight before bias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Every tensor, in order of offset.
    pub tensors: Vec<Tensor>,
    /// Number of parameters P.
    pub total: usize,
    /// One block for each transform.
    pub blocks: Vec<Block>,
    /// The values of the base density; empty for a standard normal.
    pub base: Range<usize>,
}

impl Layout {
    /// The layout of `flow`.
    pub fn new(flow: &Flow) -> Self {
        let mut layout = Self::default();
        for (index, transform) in flow.transforms.iter().enumerate() {
            let start = layout.total;
            let networks = match transform {
                Transform::Coupling(coupling) => coupling
                    .networks(flow.features)
                    .iter()
                    .map(|shape| layout.add_network(&format!("transforms.{index}.{}", shape.name), shape))
                    .collect(),
                Transform::Actnorm => {
                    layout.add_tensors(index, &[("shift", 1), ("log_scale", 1)], flow.modelled())
                }
                Transform::Lu => layout.add_tensors(
                    index,
                    &[("lower", 2), ("upper", 2), ("log_diagonal", 1), ("bias", 1)],
                    flow.modelled(),
                ),
                Transform::Permutation { .. } => Vec::new(),
            };
            layout.blocks.push(Block { range: start..layout.total, networks });
        }
        let start = layout.total;
        for (name, shape) in flow.base.tensors(flow.modelled()) {
            layout.add(format!("base.{name}"), shape);
        }
        layout.base = start..layout.total;
        layout
    }

    /// Adds a tensor after the others and returns its offset.
    fn add(&mut self, name: String, shape: Vec<usize>) -> usize {
        let tensor = Tensor { name, shape, offset: self.total };
        self.total += tensor.len();
        self.tensors.push(tensor);
        self.tensors[self.tensors.len() - 1].offset
    }

    /// Adds tensors of so many dimensions, each of `width`, to a transform without networks.
    fn add_tensors(&mut self, index: usize, tensors: &[(&str, usize)], width: usize) -> Vec<NetworkSpan> {
        for &(name, dimensions) in tensors {
            self.add(format!("transforms.{index}.{name}"), vec![width; dimensions]);
        }
        Vec::new()
    }

    fn add_network(&mut self, name: &str, shape: &NetworkShape) -> NetworkSpan {
        let start = self.total;
        let layers = shape
            .layers
            .iter()
            .map(|layer| {
                let &LinearShape { inputs, outputs, activated, skip, .. } = layer;
                LinearSpan {
                    inputs,
                    outputs,
                    weight: self.add(format!("{name}.{}.weight", layer.name), vec![outputs, inputs]),
                    bias: self.add(format!("{name}.{}.bias", layer.name), vec![outputs]),
                    activated,
                    skip,
                }
            })
            .collect();
        NetworkSpan { range: start..self.total, numbers: shape.numbers, layers }
    }
}

impl Block {
    /// The segments of its range of the flat buffer: its networks, or all of it where it has none. Threads may work on
    /// segments side by side.
    pub fn segments(&self) -> Vec<Range<usize>> {
        if self.networks.is_empty() {
            return vec![self.range.clone()];
        }
        self.networks.iter().map(|network| network.range.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(&Flow::new(3, 2, &[5, 4]).expect("valid"))
    }

    #[test]
    fn tensors_tile_the_buffer_without_gap_or_overlap() {
        let layout = layout();
        let mut next = 0;
        for tensor in &layout.tensors {
            assert_eq!(tensor.offset, next, "{}", tensor.name);
            next += tensor.len();
        }
        assert_eq!(next, layout.total);
        assert_eq!(layout.tensors.len(), 2 * 2 * 3 * 2);
    }

    #[test]
    fn blocks_and_parts_tile_the_buffer_too() {
        let layout = layout();
        let blocks: Vec<Range<usize>> = layout.blocks.iter().map(|block| block.range.clone()).collect();
        for ranges in [blocks, layout.blocks.iter().flat_map(Block::segments).collect()] {
            let end = ranges.iter().fold(0, |next, range| {
                assert_eq!(range.start, next);
                range.end
            });
            assert_eq!(end, layout.total);
        }
    }

    #[test]
    fn names_and_shapes_follow_the_model_file() {
        let layout = layout();
        let tensor = &layout.tensors[2 * (3 + 1)];
        assert_eq!(
            (tensor.name.as_str(), tensor.shape.as_slice()),
            ("transforms.0.translate.1.weight", &[4, 5][..])
        );
        assert_eq!(tensor.offset, layout.blocks[0].networks[1].layers[1].weight);
    }
}
