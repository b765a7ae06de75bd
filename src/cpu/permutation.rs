//! A permutation of the modelled features, `z_j = x_{permutation[j]}`, on a tile of rows. The context passes.

use crate::flow::Flow;

use super::Real;
use super::buffer::Buffer;
use super::code::{Backward, Parameters, Scratch, Tile, Trace, TransformCode};

/// A permutation; it has no parameters.
#[derive(Debug)]
pub(super) struct PermutationCode {
    features: usize,
    permutation: Vec<usize>,
    inverse: Vec<usize>,
}

impl PermutationCode {
    pub fn new(flow: &Flow, permutation: &[usize]) -> Self {
        let mut inverse = vec![0; permutation.len()];
        for (to, &from) in permutation.iter().enumerate() {
            inverse[from] = to;
        }
        Self { features: flow.features, permutation: permutation.to_vec(), inverse }
    }

    /// Puts number `order[j]` of each row at its place j.
    fn reorder<R: Real>(&self, order: &[usize], values: &mut [R], row: &mut Buffer<R>) {
        row.resize(order.len());
        for values in values.chunks_exact_mut(self.features) {
            let values = &mut values[..order.len()];
            row.copy_from_slice(values);
            for (value, &from) in values.iter_mut().zip(order) {
                *value = row[from];
            }
        }
    }
}

impl<R: Real> Parameters<R> for PermutationCode {}

impl<R: Real> TransformCode<R> for PermutationCode {
    fn forward(
        &self,
        _weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        _trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    ) {
        self.reorder(&self.permutation, tile.values, &mut scratch.d_values);
    }

    fn inverse(
        &self,
        _weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        _trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    ) {
        self.reorder(&self.inverse, tile.values, &mut scratch.d_values);
    }

    fn backward(
        &self,
        _weights: &[Buffer<R>],
        _trace: &Trace<R>,
        pass: &mut Backward<R>,
        scratch: &mut Scratch<R>,
    ) {
        self.reorder(&self.inverse, pass.values, &mut scratch.d_values);
    }
}
