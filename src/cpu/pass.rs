//! One tile of rows on its way through the whole flow: forward, inverse, and forward then backward.
//! Twin of the GPU's fused step: couplings in order, then back, with all that a coupling needs in a core's cache.

use crate::flow::{Flow, Network};

use super::Real;
use super::affine::{self, Theta, Traced};
use super::buffer::Buffer;
use super::conditioner::{Gradients, Kept, Trace};
use super::loss::{negative_log_likelihood, negative_log_likelihood_backward};
use super::packed::{CouplingPlan, Packing};

/// A flow together with its packed parameters.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, R> {
    pub flow: &'a Flow,
    pub packing: &'a Packing,
    /// Packed weights of every network, the two of a coupling beside each other.
    pub networks: &'a [Buffer<R>],
}

impl<'a, R: Real> Weights<'a, R> {
    fn bound(&self) -> R {
        R::from_decimal(self.flow.bound)
    }

    fn network(&self, coupling: usize, network: Network) -> &'a [R] {
        &self.networks[2 * coupling + network as usize]
    }
}

/// What one coupling computed.
#[derive(Debug, Default)]
struct CouplingTrace<R> {
    kept: Kept<R>,
    /// Scale and translate.
    networks: [Trace<R>; 2],
    /// At transformed features, in rows [`CouplingPlan::transformed_stride`] apart: the coupling's result and e⁻ˢ.
    z: Buffer<R>,
    shrink: Buffer<R>,
}

/// Buffers for a tile of T rows. They hold nothing from one tile to the next.
#[derive(Debug, Default)]
pub(super) struct Workspace<R> {
    couplings: Vec<CouplingTrace<R>>,
    log_det: Vec<R>,
    /// Rows on their way [T, D], and gradients on their way back.
    carried: Vec<R>,
    d_carried: Vec<R>,
    gradients: Gradients<R>,
    /// At transformed features: s; gradients of z and then x, of o, and of t.
    log_scale: Buffer<R>,
    d_values: Buffer<R>,
    d_raw: Buffer<R>,
    d_shift: Buffer<R>,
    /// At kept features.
    d_kept: Buffer<R>,
}

/// The tile's part in a gradient.
pub(super) struct GradientOf<'a, R> {
    /// Rows of the whole batch.
    pub batch: usize,
    /// Packed gradient of every network.
    pub gradient: &'a mut [R],
    /// Whether it is added to what the gradient holds.
    pub add: bool,
}

impl<R: Real> Workspace<R> {
    fn prepare(&mut self, couplings: usize) {
        if self.couplings.len() < couplings {
            self.couplings.resize_with(couplings, CouplingTrace::default);
        }
    }

    /// Data → latent, in place. `values`: [T, D], x then z; `log_det`: `[T]`, overwritten.
    pub fn forward(&mut self, weights: Weights<R>, values: &mut [R], log_det: &mut [R]) {
        self.prepare(1);
        log_det.fill(R::zero());
        for coupling in 0..weights.flow.layers() {
            self.couplings[0].forward(weights, coupling, values, log_det, &mut self.log_scale);
        }
    }

    /// log p of rows `x` [T, D] `[T]`.
    pub fn log_prob(&mut self, weights: Weights<R>, x: &[R], log_prob: &mut [R]) {
        let mut values = std::mem::take(&mut self.carried);
        let mut log_det = std::mem::take(&mut self.log_det);
        values.clear();
        values.extend_from_slice(x);
        log_det.resize(log_prob.len(), R::zero());
        self.forward(weights, &mut values, &mut log_det);
        negative_log_likelihood(weights.flow.context, &values, &log_det, log_prob);
        for value in log_prob {
            *value = -*value;
        }
        self.carried = values;
        self.log_det = log_det;
    }

    /// Latent → data, in place. `values`: [T, D], z then x; `log_det`: `[T]`, overwritten.
    pub fn inverse(&mut self, weights: Weights<R>, values: &mut [R], log_det: &mut [R]) {
        self.prepare(1);
        log_det.fill(R::zero());
        for coupling in (0..weights.flow.layers()).rev() {
            self.couplings[0].inverse(weights, coupling, values, log_det, &mut self.log_scale);
        }
    }

    /// The tile's part in the loss of a batch and in its gradient.
    ///
    /// `x` fills in the tile's rows [T, D]; `nll`: −log p per row `[T]`, overwritten. The gradient is that of
    /// (1 / batch) Σ −log p over the tile's rows, so that the tiles of a batch add up to the mean's.
    pub fn loss_and_gradient(
        &mut self,
        weights: Weights<R>,
        x: impl FnOnce(&mut [R]),
        nll: &mut [R],
        of: GradientOf<R>,
    ) {
        let Weights { flow, packing, .. } = weights;
        let GradientOf { batch, gradient, add } = of;
        let features = flow.features;
        self.prepare(flow.layers());
        let carried = &mut self.carried;
        carried.resize(nll.len() * features, R::zero());
        x(carried);
        self.log_det.clear();
        self.log_det.resize(nll.len(), R::zero());
        for (coupling, trace) in self.couplings[..flow.layers()].iter_mut().enumerate() {
            trace.forward(weights, coupling, carried, &mut self.log_det, &mut self.log_scale);
        }

        negative_log_likelihood(flow.context, carried, &self.log_det, nll);
        self.d_carried.resize(carried.len(), R::zero());
        negative_log_likelihood_backward(batch, carried, &mut self.d_carried);

        let weight = R::from_wide(1.0 / batch as f64);
        for coupling in (0..flow.layers()).rev() {
            let (plan, trace) = (&packing.couplings[coupling], &self.couplings[coupling]);
            let stride = plan.transformed_stride::<R>();
            for buffer in [&mut self.d_values, &mut self.d_raw, &mut self.d_shift] {
                buffer.resize(nll.len() * stride);
            }
            take(&self.d_carried, features, &plan.transformed, &mut self.d_values, stride);
            let traced = Traced { z: &trace.z, shrink: &trace.shrink };
            affine::backward(
                theta(weights, &trace.networks),
                weight,
                traced,
                &mut self.d_values,
                &mut self.d_raw,
                &mut self.d_shift,
            );
            put(&self.d_values, stride, &plan.transformed, &mut self.d_carried, features);
            for network in Network::BOTH {
                let d_output = match network {
                    Network::Scale => &self.d_raw,
                    Network::Translate => &self.d_shift,
                };
                let start = plan.gradient_start + network as usize * plan.gradient;
                // Nothing comes before the first coupling that would want the gradient at the data.
                let wanted = coupling > 0;
                let kept_stride = plan.kept_stride::<R>();
                self.d_kept.resize(nll.len() * kept_stride);
                trace.networks[network as usize].backward(
                    plan,
                    flow.activation,
                    weights.network(coupling, network),
                    &trace.kept,
                    d_output,
                    &mut self.gradients,
                    (&mut gradient[start..start + plan.gradient], add),
                    wanted.then_some(&mut *self.d_kept),
                );
                if wanted {
                    add_to(&self.d_kept, kept_stride, &plan.kept, &mut self.d_carried, features);
                }
            }
        }
    }
}

impl<R: Real> CouplingTrace<R> {
    /// Runs both networks on the kept features of `values`, which are the same on both sides of the coupling, and takes
    /// the transformed ones to `self.z`.
    fn condition(&mut self, weights: Weights<R>, coupling: usize, values: &[R], log_scale: &mut Buffer<R>) {
        let Weights { flow, packing, .. } = weights;
        let plan = &packing.couplings[coupling];
        let rows = values.len() / flow.features;
        let width = plan.kept.len() + 1;
        self.kept.rows = rows;
        self.kept.values.resize(rows * width);
        take(values, flow.features, &plan.kept, &mut self.kept.values, width);
        for row in self.kept.values.chunks_exact_mut(width) {
            row[width - 1] = R::one();
        }
        for network in Network::BOTH {
            let packed = weights.network(coupling, network);
            self.networks[network as usize].forward(plan, flow.activation, packed, &self.kept);
        }
        let stride = plan.transformed_stride::<R>();
        for buffer in [&mut self.z, &mut self.shrink, log_scale] {
            buffer.resize(rows * stride);
        }
        take(values, flow.features, &plan.transformed, &mut self.z, stride);
    }

    /// Data → latent through one coupling, in place.
    fn forward(
        &mut self,
        weights: Weights<R>,
        coupling: usize,
        values: &mut [R],
        log_det: &mut [R],
        log_scale: &mut Buffer<R>,
    ) {
        self.condition(weights, coupling, values, log_scale);
        let theta = theta(weights, &self.networks);
        affine::forward(theta, &mut self.z, log_scale, &mut self.shrink);
        self.finish(weights, coupling, values);
        let plan = &weights.packing.couplings[coupling];
        each_row(plan, log_scale, log_det, |log_det, s| *log_det -= s);
    }

    /// Latent → data through one coupling, in place.
    fn inverse(
        &mut self,
        weights: Weights<R>,
        coupling: usize,
        values: &mut [R],
        log_det: &mut [R],
        log_scale: &mut Buffer<R>,
    ) {
        self.condition(weights, coupling, values, log_scale);
        let theta = theta(weights, &self.networks);
        affine::inverse(theta, &mut self.z, log_scale);
        self.finish(weights, coupling, values);
        let plan = &weights.packing.couplings[coupling];
        each_row(plan, log_scale, log_det, |log_det, s| *log_det += s);
    }

    /// Puts the transformed features back among the others.
    fn finish(&self, weights: Weights<R>, coupling: usize, values: &mut [R]) {
        let plan = &weights.packing.couplings[coupling];
        put(&self.z, plan.transformed_stride::<R>(), &plan.transformed, values, weights.flow.features);
    }
}

fn theta<'a, R: Real>(weights: Weights<R>, [scale, translate]: &'a [Trace<R>; 2]) -> Theta<'a, R> {
    Theta { bound: weights.bound(), raw: &scale.output, shift: &translate.output }
}

/// Calls `add` on each row's log-determinant and each of its log-scales, in the order of the features.
fn each_row<R: Real>(plan: &CouplingPlan, log_scale: &[R], log_det: &mut [R], add: impl Fn(&mut R, R)) {
    let count = plan.transformed.len();
    for (log_det, log_scale) in log_det.iter_mut().zip(log_scale.chunks_exact(plan.transformed_stride::<R>()))
    {
        for &s in &log_scale[..count] {
            add(log_det, s);
        }
    }
}

/// Copies the features `which` of rows [T, D] to the first columns of rows `stride` apart, and zeros after them.
fn take<R: Real>(values: &[R], features: usize, which: &[usize], to: &mut [R], stride: usize) {
    for (to, values) in to.chunks_exact_mut(stride).zip(values.chunks_exact(features)) {
        let (to, rest) = to.split_at_mut(which.len());
        for (to, &feature) in to.iter_mut().zip(which) {
            *to = values[feature];
        }
        rest.fill(R::zero());
    }
}

/// Copies the first columns of rows `stride` apart to the features `which` of rows [T, D].
fn put<R: Real>(from: &[R], stride: usize, which: &[usize], values: &mut [R], features: usize) {
    for (from, values) in from.chunks_exact(stride).zip(values.chunks_exact_mut(features)) {
        for (&from, &feature) in from.iter().zip(which) {
            values[feature] = from;
        }
    }
}

/// Adds the first columns of rows `stride` apart to the features `which` of rows [T, D].
fn add_to<R: Real>(from: &[R], stride: usize, which: &[usize], values: &mut [R], features: usize) {
    for (from, values) in from.chunks_exact(stride).zip(values.chunks_exact_mut(features)) {
        for (&from, &feature) in from.iter().zip(which) {
            values[feature] += from;
        }
    }
}
