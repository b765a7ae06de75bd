//! A coupling on a tile of rows: its conditioner reads the kept features, its bijector transforms the others.
//! The definitions are in [`super::reference::coupling`].

use crate::flow::{Activation, Coupling, Flow};
use crate::layout::Block;

use super::Real;
use super::bijector::{Elementwise, Traced, elementwise};
use super::buffer::Buffer;
use super::code::{Backward, Parameters, Scratch, SegmentSize, Tile, Trace, TransformCode};
use super::packed::{PackedNetwork, Ports};
use super::simd::{clear, copy_few, each, each_row};

/// A coupling's networks and bijector.
#[derive(Debug)]
pub(super) struct CouplingCode<R> {
    features: usize,
    activation: Activation,
    ports: Ports,
    /// Their numbers, one network after the other, are the planes of θ.
    networks: Vec<PackedNetwork>,
    /// Planes of θ.
    numbers: usize,
    bijector: Box<dyn Elementwise<R>>,
}

impl<R: Real> CouplingCode<R> {
    pub fn new(flow: &Flow, coupling: &Coupling, block: &Block) -> Self {
        let (kept, transformed) = coupling.split();
        let ports = Ports { kept, transformed };
        Self {
            features: flow.features,
            activation: flow.activation,
            networks: block.networks.iter().map(|span| PackedNetwork::new::<R>(span, &ports)).collect(),
            numbers: coupling.bijector.parameters(),
            ports,
            bijector: elementwise(&coupling.bijector),
        }
    }

    /// Runs all networks on the kept features of `values`, which are the same on both sides of the coupling, and takes
    /// the transformed ones to `trace.z`.
    fn condition(&self, weights: &[Buffer<R>], values: &[R], trace: &mut Trace<R>, scratch: &mut Scratch<R>) {
        let Self { features, ref ports, .. } = *self;
        let rows = values.len() / features;
        let width = ports.kept.len() + 1;
        trace.kept.rows = rows;
        trace.kept.values.resize(rows * width);
        take(values, features, &ports.kept, &mut trace.kept.values, width);
        for row in trace.kept.values.chunks_exact_mut(width) {
            row[width - 1] = R::one();
        }
        let stride = ports.transformed_stride::<R>();
        trace.theta.resize(self.numbers, rows * stride);
        trace.networks.resize_with(self.networks.len(), Default::default);
        let mut plane = 0;
        for ((network, trace_of), weights) in self.networks.iter().zip(&mut trace.networks).zip(weights) {
            if network.numbers == 1 {
                let output = trace.theta.plane_mut(plane);
                network.forward(self.activation, weights, &trace.kept, trace_of, output);
            } else {
                let output = &mut scratch.output;
                output.resize(rows * network.output_stride::<R>());
                network.forward(self.activation, weights, &trace.kept, trace_of, output);
                let shape = [ports.transformed.len(), stride, network.output_stride::<R>()];
                for number in 0..network.numbers {
                    spread(output, number, shape, trace.theta.plane_mut(plane + number));
                }
            }
            plane += network.numbers;
        }
        trace.saved.resize(self.bijector.saved(), rows * stride);
        for buffer in [&mut trace.z, &mut scratch.log_det] {
            buffer.resize(rows * stride);
        }
        take(values, features, &ports.transformed, &mut trace.z, stride);
    }

    /// Puts the transformed features back among the others, and adds their log-determinants to the rows'.
    fn finish(&self, z: &[R], log_det: &[R], tile: &mut Tile<R>) {
        let stride = self.ports.transformed_stride::<R>();
        put(z, stride, &self.ports.transformed, tile.values, self.features);
        let count = self.ports.transformed.len();
        each_row(tile.log_det, log_det, [1, stride], |sum, log_det| {
            for &log_det in &log_det[..count] {
                sum[0] += log_det;
            }
        });
    }
}

impl<R: Real> Parameters<R> for CouplingCode<R> {
    fn segments(&self) -> Vec<SegmentSize> {
        let size =
            |network: &PackedNetwork| SegmentSize { weights: network.weights, gradient: network.gradient };
        self.networks.iter().map(size).collect()
    }

    fn pack(&self, network: usize, flat: &[R], packed: &mut [R]) {
        self.networks[network].pack(flat, packed);
    }

    fn unpack(&self, network: usize, _weights: &[R], packed: &[R], flat: &mut [R]) {
        self.networks[network].unpack(packed, flat);
    }
}

impl<R: Real> TransformCode<R> for CouplingCode<R> {
    fn forward(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    ) {
        self.condition(weights, tile.values, trace, scratch);
        self.bijector.forward(&trace.theta, &mut trace.z, &mut scratch.log_det, &mut trace.saved);
        self.finish(&trace.z, &scratch.log_det, tile);
    }

    fn inverse(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    ) {
        self.condition(weights, tile.values, trace, scratch);
        self.bijector.inverse(&trace.theta, &mut trace.z, &mut scratch.log_det);
        self.finish(&trace.z, &scratch.log_det, tile);
    }

    fn backward(
        &self,
        weights: &[Buffer<R>],
        trace: &Trace<R>,
        pass: &mut Backward<R>,
        scratch: &mut Scratch<R>,
    ) {
        let Self { features, ref ports, .. } = *self;
        let rows = pass.values.len() / features;
        let stride = ports.transformed_stride::<R>();
        scratch.d_values.resize(rows * stride);
        scratch.d_theta.resize(self.numbers, rows * stride);
        take(pass.values, features, &ports.transformed, &mut scratch.d_values, stride);
        let traced = Traced { theta: &trace.theta, z: &trace.z, saved: &trace.saved };
        let d_log_det = &mut scratch.log_det;
        d_log_det.resize(rows * stride);
        each_row(d_log_det, pass.d_log_det, [stride, 1], |to, d| to.iter_mut().for_each(|to| *to = d[0]));
        self.bijector.backward(traced, d_log_det, &mut scratch.d_values, &mut scratch.d_theta);
        put(&scratch.d_values, stride, &ports.transformed, pass.values, features);
        let kept_stride = ports.kept_stride::<R>();
        scratch.d_kept.resize(rows * kept_stride);
        let (mut plane, mut start) = (0, 0);
        for ((network, trace_of), weights) in self.networks.iter().zip(&trace.networks).zip(weights) {
            let d_output = if network.numbers == 1 {
                scratch.d_theta.plane(plane)
            } else {
                let d_output = &mut scratch.output;
                d_output.resize(rows * network.output_stride::<R>());
                let shape = [ports.transformed.len(), stride, network.output_stride::<R>()];
                for number in 0..network.numbers {
                    collect(scratch.d_theta.plane(plane + number), number, shape, d_output);
                }
                &**d_output
            };
            network.backward(
                self.activation,
                weights,
                &trace.kept,
                trace_of,
                d_output,
                &mut scratch.gradients,
                pass.gradient.as_mut().map(|gradient| gradient.range(start..start + network.gradient)),
                pass.wants_input.then_some(&mut *scratch.d_kept),
            );
            plane += network.numbers;
            start += network.gradient;
            if pass.wants_input && !ports.kept.is_empty() {
                add_to(&scratch.d_kept, kept_stride, &ports.kept, pass.values, features);
            }
        }
    }
}

/// Copies number `number` of each of `count` transformed features from a network's results to its plane of θ, whose rows are
/// `stride` apart; zeros between them.
fn spread<R: Real>(output: &[R], number: usize, [count, stride, output_stride]: [usize; 3], plane: &mut [R]) {
    if stride == 1 {
        // A copy of one value at a time would cost a call each.
        let column = output[number..].iter().step_by(output_stride);
        plane.iter_mut().zip(column).for_each(|(to, &from)| *to = from);
        return;
    }
    R::vectorised(
        #[inline(always)]
        || {
            each_row(plane, output, [stride, output_stride], |to, from| {
                let (to, beyond) = to.split_at_mut(count);
                copy_few(&from[number * count..][..count], to);
                clear(beyond);
            });
        },
    );
}

/// Undoes [`spread`].
fn collect<R: Real>(
    plane: &[R],
    number: usize,
    [count, stride, output_stride]: [usize; 3],
    output: &mut [R],
) {
    if stride == 1 {
        let column = output[number..].iter_mut().step_by(output_stride);
        column.zip(plane).for_each(|(to, &from)| *to = from);
        return;
    }
    R::vectorised(
        #[inline(always)]
        || {
            each_row(output, plane, [output_stride, stride], |to, from| {
                copy_few(&from[..count], &mut to[number * count..][..count]);
            });
        },
    );
}

/// Copies the features `which` of rows [T, D] to the first columns of rows `stride` apart, and zeros after them.
fn take<R: Real>(values: &[R], features: usize, which: &[usize], to: &mut [R], stride: usize) {
    if let &[feature] = which {
        // A single column, as that of two features: no loop within a row.
        each_row(to, values, [stride, features], |to, values| {
            to[0] = values[feature];
            clear(&mut to[1..]);
        });
        return;
    }
    each_row(to, values, [stride, features], |to, values| {
        let (to, rest) = to.split_at_mut(which.len());
        each(to, which, |to, &feature| *to = values[feature]);
        clear(rest);
    });
}

/// Copies the first columns of rows `stride` apart to the features `which` of rows [T, D].
fn put<R: Real>(from: &[R], stride: usize, which: &[usize], values: &mut [R], features: usize) {
    if let &[feature] = which {
        each_row(values, from, [features, stride], |values, from| values[feature] = from[0]);
        return;
    }
    each_row(values, from, [features, stride], |values, from| {
        let from = &from[..which.len()];
        for (at, &feature) in which.iter().enumerate() {
            values[feature] = from[at];
        }
    });
}

/// Adds the first columns of rows `stride` apart to the features `which` of rows [T, D].
fn add_to<R: Real>(from: &[R], stride: usize, which: &[usize], values: &mut [R], features: usize) {
    each_row(values, from, [features, stride], |values, from| {
        let from = &from[..which.len()];
        for (at, &feature) in which.iter().enumerate() {
            values[feature] += from[at];
        }
    });
}
