//! An LU layer on a tile of rows, z = W · x + bias with W = L · U. Its definition is in [`super::reference::lu`].
//!
//! W is multiplied out once a step. The gradient at W, G = Σ d_z xᵀ, is summed over rows, and those at L and U come from the
//! sum: d_L = G Uᵀ and d_U = Lᵀ G. The inverse substitutes with L and U.

use crate::flow::Flow;

use super::Real;
use super::buffer::Buffer;
use super::code::{Backward, Parameters, Scratch, SegmentSize, Sum, Tile, Trace, TransformCode};
use super::packed::pack_panels;
use super::product::{Finish, Matrix, Panels, Start, padded, panels};
use super::reference::lu::Lu;
use super::simd::{clear, each, each_row};

/// An LU layer. Packed are W in panels of the forward and of the backward pass, the bias, L and U as [M, M], and the
/// log-determinant; the packed gradient is [M + 1, padded M]: G, and the gradients at bias and log-determinant.
#[derive(Debug)]
pub(super) struct LuCode {
    features: usize,
    modelled: usize,
}

/// Where packed parameters begin, and how many there are.
struct Places {
    backward: usize,
    bias: usize,
    lower: usize,
    upper: usize,
    log_det: usize,
    len: usize,
}

impl LuCode {
    pub fn new(flow: &Flow) -> Self {
        Self { features: flow.features, modelled: flow.modelled() }
    }

    fn places<R>(&self) -> Places {
        let (size, wide) = (self.modelled, padded::<R>(self.modelled));
        let (matrix, square) = (size * wide, padded::<R>(size * size));
        let bias = 2 * matrix;
        let lower = bias + wide;
        let log_det = lower + 2 * square;
        Places {
            backward: matrix,
            bias,
            lower,
            upper: lower + square,
            log_det,
            len: log_det + padded::<R>(1),
        }
    }

    /// Copies the modelled features of rows [T, D] to padded rows.
    fn take<R: Real>(&self, values: &[R], to: &mut Buffer<R>) {
        let wide = padded::<R>(self.modelled);
        to.resize(values.len() / self.features * wide);
        each_row(to, values, [wide, self.features], |to, row| {
            let (to, rest) = to.split_at_mut(self.modelled);
            each(to, row, |to, &from| *to = from);
            clear(rest);
        });
    }

    /// Copies padded rows back to the modelled features of rows [T, D].
    fn put<R: Real>(&self, from: &[R], values: &mut [R]) {
        let wide = padded::<R>(self.modelled);
        each_row(values, from, [self.features, wide], |row, from| {
            each(&mut row[..self.modelled], from, |to, &from| *to = from);
        });
    }
}

impl<R: Real> Parameters<R> for LuCode {
    fn segments(&self) -> Vec<SegmentSize> {
        let gradient = (self.modelled + 2) * padded::<R>(self.modelled);
        vec![SegmentSize { weights: self.places::<R>().len, gradient }]
    }

    fn pack(&self, _segment: usize, flat: &[R], packed: &mut [R]) {
        let size = self.modelled;
        let places = self.places::<R>();
        let lu = Lu::new(flat, size);
        for (i, j) in (0..size).flat_map(|i| (0..size).map(move |j| (i, j))) {
            packed[places.lower + i * size + j] = lu.l(i, j);
            packed[places.upper + i * size + j] = lu.u(i, j);
        }
        packed[places.bias..][..size].copy_from_slice(lu.bias);
        packed[places.log_det] = lu.log_det();
        let mut product = vec![R::zero(); size * size];
        let (lower, upper) = (&packed[places.lower..], &packed[places.upper..]);
        for i in 0..size {
            for k in 0..=i {
                let factor = lower[i * size + k];
                for j in k..size {
                    product[i * size + j] += factor * upper[k * size + j];
                }
            }
        }
        pack_panels(size, size, |k, o| product[o * size + k], packed);
        pack_panels(size, size, |o, k| product[o * size + k], &mut packed[places.backward..]);
    }

    fn unpack(&self, _segment: usize, weights: &[R], packed: &[R], flat: &mut [R]) {
        let (size, wide) = (self.modelled, padded::<R>(self.modelled));
        let places = self.places::<R>();
        let (lower, upper) = (&weights[places.lower..], &weights[places.upper..]);
        let g = |i: usize, j: usize| packed[i * wide + j];
        let (d_lower, rest) = flat.split_at_mut(size * size);
        let (d_upper, rest) = rest.split_at_mut(size * size);
        let (d_log_diagonal, d_bias) = rest.split_at_mut(size);
        d_bias.copy_from_slice(&packed[size * wide..][..size]);
        let d_log_det = packed[(size + 1) * wide];
        for i in 0..size {
            for j in 0..i {
                d_lower[i * size + j] =
                    (j..size).fold(R::zero(), |sum, k| sum + g(i, k) * upper[j * size + k]);
            }
            for j in i..size {
                let sum = (i..size).fold(R::zero(), |sum, k| sum + lower[k * size + i] * g(k, j));
                if i == j {
                    d_log_diagonal[i] = sum * upper[i * size + i] + d_log_det;
                } else {
                    d_upper[i * size + j] = sum;
                }
            }
        }
    }
}

impl<R: Real> TransformCode<R> for LuCode {
    fn forward(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    ) {
        let (size, wide) = (self.modelled, padded::<R>(self.modelled));
        let (places, weights) = (self.places::<R>(), &*weights[0]);
        self.take(tile.values, &mut trace.z);
        let z = &mut scratch.d_values;
        z.resize(trace.z.len());
        let (left, right) = (Matrix::rows(&trace.z, wide), Panels::packed(weights, size));
        let start = Start::Bias(&weights[places.bias..]);
        panels([trace.z.len() / wide, size, size], left, right, start, Finish::Identity, z, wide);
        self.put(z, tile.values);
        tile.log_det.iter_mut().for_each(|sum| *sum += weights[places.log_det]);
    }

    fn inverse(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        _trace: &mut Trace<R>,
        _scratch: &mut Scratch<R>,
    ) {
        let (size, places, weights) = (self.modelled, self.places::<R>(), &*weights[0]);
        let (lower, upper) = (&weights[places.lower..], &weights[places.upper..]);
        for row in tile.values.chunks_exact_mut(self.features) {
            for i in 0..size {
                let known = (0..i).fold(R::zero(), |sum, j| sum + lower[i * size + j] * row[j]);
                row[i] = row[i] - weights[places.bias + i] - known;
            }
            for i in (0..size).rev() {
                let known = (i + 1..size).fold(R::zero(), |sum, j| sum + upper[i * size + j] * row[j]);
                row[i] = (row[i] - known) / upper[i * size + i];
            }
        }
        tile.log_det.iter_mut().for_each(|sum| *sum -= weights[places.log_det]);
    }

    fn backward(
        &self,
        weights: &[Buffer<R>],
        trace: &Trace<R>,
        pass: &mut Backward<R>,
        scratch: &mut Scratch<R>,
    ) {
        let (size, wide) = (self.modelled, padded::<R>(self.modelled));
        let places = self.places::<R>();
        let rows = pass.values.len() / self.features;
        if let Some(Sum { values, add }) = &mut pass.gradient {
            let finish = if *add { Finish::Add } else { Finish::Identity };
            let (left, right) =
                (Matrix::transposed(pass.values, self.features), Panels::rows(&trace.z, wide));
            let (g, sums) = values.split_at_mut(size * wide);
            panels([size, size, rows], left, right, Start::Zero, finish, g, wide);
            let (d_bias, d_log_det) = sums.split_at_mut(wide);
            let total = |column: &mut dyn Iterator<Item = &R>| column.fold(R::zero(), |sum, &d| sum + d);
            for (feature, d_bias) in d_bias.iter_mut().enumerate().take(size) {
                let sum = total(&mut pass.values[feature..].iter().step_by(self.features));
                *d_bias = if *add { *d_bias + sum } else { sum };
            }
            let sum = total(&mut pass.d_log_det.iter());
            d_log_det[0] = if *add { d_log_det[0] + sum } else { sum };
        }
        if pass.wants_input {
            let d_x = &mut scratch.d_values;
            d_x.resize(rows * wide);
            let left = Matrix::rows(pass.values, self.features);
            let right = Panels::packed(&weights[0][places.backward..], size);
            panels([rows, size, size], left, right, Start::Zero, Finish::Identity, d_x, wide);
            self.put(d_x, pass.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CpuEngine;
    use super::*;
    use crate::flow::Transform;

    /// A flow that is an LU layer alone, its flat parameters, and rows.
    fn case(modelled: usize) -> (CpuEngine<f64>, Vec<f64>, Vec<f64>) {
        let mut flow = Flow::conditional(modelled, 1, 1, &[2]).expect("valid");
        flow.transforms = vec![Transform::Lu];
        let wave = |count: usize, by: f64| (0..count).map(|i| (by * i as f64).sin()).collect::<Vec<f64>>();
        let flat = wave(2 * modelled * (modelled + 1), 1.7);
        let rows = wave(7 * flow.features, 0.9);
        let mut engine = CpuEngine::new(flow).expect("valid");
        engine.set_parameters(&flat).expect("fits");
        (engine, flat, rows)
    }

    fn close(got: &[f64], want: &[f64]) {
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-11 * (1.0 + want.abs()), "{got} {want}");
        }
    }

    #[test]
    fn both_directions_and_the_gradient_are_those_of_the_definition() {
        for modelled in [1, 2, 9] {
            let (mut engine, flat, rows) = case(modelled);
            let lu = Lu::new(&flat, modelled);
            let (z, log_det) = engine.forward(&rows).expect("whole rows");
            let mut want = rows.clone();
            want.chunks_mut(modelled + 1).for_each(|row| lu.forward(&mut row[..modelled]));
            close(&z, &want);
            close(&log_det, &[lu.log_det(); 7]);
            close(&engine.inverse(&z).expect("whole rows").0, &rows);
            want.chunks_mut(modelled + 1).for_each(|row| lu.inverse(&mut row[..modelled]));
            close(&want, &rows);

            let (_, gradient) = engine.loss_and_gradient(&rows).expect("whole rows");
            let mut want = vec![0.0; flat.len()];
            for (x, z) in rows.chunks(modelled + 1).zip(z.chunks(modelled + 1)) {
                let mut d_z: Vec<f64> = z[..modelled].iter().map(|z| z / 7.0).collect();
                lu.backward(&x[..modelled], -1.0 / 7.0, &mut d_z, &mut want);
            }
            close(&gradient, &want);
        }
    }
}
