//! One tile of rows on its way through the whole flow: forward, inverse, and forward then backward.
//! The order of calls is the GPU's order of dispatches; each call is a function with a shader twin.

use crate::flow::{Flow, Network};
use crate::layout::{Layout, LinearSpan};

use super::coupling::{
    coupling_backward, coupling_forward, coupling_input, coupling_input_backward, coupling_inverse,
};
use super::linear::{
    activate, activate_backward, linear_backward_input, linear_backward_weight, linear_forward,
};
use super::loss::{negative_log_likelihood, negative_log_likelihood_backward};
use super::{Real, resize};

/// A flow together with its parameters.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, R> {
    pub flow: &'a Flow,
    pub layout: &'a Layout,
    /// Flat, `[P]`.
    pub values: &'a [R],
}

impl<'a, R: Real> Weights<'a, R> {
    fn bound(&self) -> R {
        R::from_decimal(self.flow.bound)
    }

    fn weight(&self, span: LinearSpan) -> &'a [R] {
        &self.values[span.weight..span.weight + span.inputs * span.outputs]
    }

    fn bias(&self, span: LinearSpan) -> &'a [R] {
        &self.values[span.bias..span.bias + span.outputs]
    }
}

/// What one network computed: needed by its backward pass.
#[derive(Debug, Default)]
struct NetworkTrace<R> {
    /// Before the activation, for each hidden layer [T, H].
    pre: Vec<Vec<R>>,
    /// After it.
    h: Vec<Vec<R>>,
    /// [T, D].
    output: Vec<R>,
}

/// What one coupling computed.
#[derive(Debug, Default)]
struct CouplingTrace<R> {
    /// The conditioner's input [T, D].
    input: Vec<R>,
    /// Scale and translate.
    networks: [NetworkTrace<R>; 2],
    /// The coupling's result [T, D].
    result: Vec<R>,
}

/// Buffers for a tile of T rows. They hold nothing from one tile to the next.
#[derive(Debug, Default)]
pub(super) struct Workspace<R> {
    couplings: Vec<CouplingTrace<R>>,
    log_det: Vec<R>,
    d_z: Vec<R>,
    d_x: Vec<R>,
    d_log_scale: Vec<R>,
    d_shift: Vec<R>,
    /// Gradients at a hidden layer, after and before its activation [T, widest].
    d_h: Vec<R>,
    d_pre: Vec<R>,
}

impl<R: Real> Workspace<R> {
    /// Makes room for `rows` rows of `couplings` couplings; allocates only where a tile was never so large.
    fn prepare(&mut self, flow: &Flow, rows: usize, couplings: usize) {
        if self.couplings.len() < couplings {
            self.couplings.resize_with(couplings, CouplingTrace::default);
        }
        let size = rows * flow.features;
        for coupling in &mut self.couplings[..couplings] {
            resize(&mut coupling.input, size);
            resize(&mut coupling.result, size);
            for network in &mut coupling.networks {
                resize(&mut network.output, size);
                network.pre.resize_with(flow.hidden.len(), Vec::new);
                network.h.resize_with(flow.hidden.len(), Vec::new);
                for (layer, width) in flow.hidden.iter().enumerate() {
                    resize(&mut network.pre[layer], rows * width);
                    resize(&mut network.h[layer], rows * width);
                }
            }
        }
    }

    fn prepare_backward(&mut self, flow: &Flow, rows: usize) {
        self.prepare(flow, rows, flow.layers());
        let widest = flow.widths().into_iter().max().expect("invariant: a flow has features");
        resize(&mut self.log_det, rows);
        for buffer in [&mut self.d_z, &mut self.d_x, &mut self.d_log_scale, &mut self.d_shift] {
            resize(buffer, rows * flow.features);
        }
        for buffer in [&mut self.d_h, &mut self.d_pre] {
            resize(buffer, rows * widest);
        }
    }

    /// Data → latent, in place. `values`: [T, D], x then z; `log_det`: `[T]`, overwritten.
    pub fn forward(&mut self, weights: Weights<R>, values: &mut [R], log_det: &mut [R]) {
        self.prepare(weights.flow, log_det.len(), 1);
        let trace = &mut self.couplings[0];
        log_det.fill(R::zero());
        for coupling in 0..weights.flow.layers() {
            trace.apply(weights, coupling, coupling_forward, values, log_det);
            values.copy_from_slice(&trace.result);
        }
    }

    /// Latent → data, in place. `values`: [T, D], z then x; `log_det`: `[T]`, overwritten.
    pub fn inverse(&mut self, weights: Weights<R>, values: &mut [R], log_det: &mut [R]) {
        self.prepare(weights.flow, log_det.len(), 1);
        let trace = &mut self.couplings[0];
        log_det.fill(R::zero());
        for coupling in (0..weights.flow.layers()).rev() {
            trace.apply(weights, coupling, coupling_inverse, values, log_det);
            values.copy_from_slice(&trace.result);
        }
    }

    /// The tile's part in the loss of a batch of `batch` rows and in its gradient.
    ///
    /// `x`: [T, D]; `nll`: −log p per row `[T]`, and `gradient`: `[P]`, both overwritten. The gradient is that of
    /// (1 / `batch`) Σ −log p over the tile's rows, so that the tiles of a batch add up to the mean's.
    pub fn loss_and_gradient(
        &mut self,
        weights: Weights<R>,
        batch: usize,
        x: &[R],
        nll: &mut [R],
        gradient: &mut [R],
    ) {
        let Weights { flow, .. } = weights;
        let rows = nll.len();
        self.prepare_backward(flow, rows);
        self.log_det.fill(R::zero());
        for coupling in 0..flow.layers() {
            let (before, rest) = self.couplings.split_at_mut(coupling);
            let input = before.last().map_or(x, |trace| &trace.result);
            rest[0].apply(weights, coupling, coupling_forward, input, &mut self.log_det);
        }

        let z = &self.couplings[flow.layers() - 1].result;
        negative_log_likelihood(z, &self.log_det, nll);
        negative_log_likelihood_backward(batch, z, &mut self.d_z);

        for coupling in (0..flow.layers()).rev() {
            let mask = &flow.masks[coupling];
            let trace = &self.couplings[coupling];
            coupling_backward(
                weights.bound(),
                batch,
                mask,
                &self.d_z,
                &trace.result,
                &trace.networks[Network::Scale as usize].output,
                &mut self.d_log_scale,
                &mut self.d_shift,
                &mut self.d_x,
            );
            for network in Network::BOTH {
                let d_output = match network {
                    Network::Scale => &self.d_log_scale,
                    Network::Translate => &self.d_shift,
                };
                self.d_pre[..d_output.len()].copy_from_slice(d_output);
                trace.networks[network as usize].backward(
                    weights,
                    (coupling, network),
                    &trace.input,
                    [&mut self.d_h, &mut self.d_pre],
                    gradient,
                );
                // Nothing comes before the first coupling that would want the gradient at the data.
                if coupling > 0 {
                    coupling_input_backward(mask, &self.d_h[..x.len()], &mut self.d_x);
                }
            }
            std::mem::swap(&mut self.d_z, &mut self.d_x);
        }
    }
}

impl<R: Real> CouplingTrace<R> {
    /// Runs both networks on the kept features of `values`, which are the same on both sides of the coupling.
    fn condition(&mut self, weights: Weights<R>, coupling: usize, values: &[R]) {
        coupling_input(&weights.flow.masks[coupling], values, &mut self.input);
        for network in Network::BOTH {
            self.networks[network as usize].forward(weights, (coupling, network), &self.input);
        }
    }

    /// Carries `values` through the coupling by `bijector`, in its direction.
    fn apply(
        &mut self,
        weights: Weights<R>,
        coupling: usize,
        bijector: Bijector<R>,
        values: &[R],
        log_det: &mut [R],
    ) {
        self.condition(weights, coupling, values);
        let [scale, translate] = &self.networks;
        let mask = &weights.flow.masks[coupling];
        bijector(weights.bound(), mask, values, &scale.output, &translate.output, &mut self.result, log_det);
    }
}

/// [`coupling_forward`] or [`coupling_inverse`].
type Bijector<R> = fn(R, &[bool], &[R], &[R], &[R], &mut [R], &mut [R]);

impl<R: Real> NetworkTrace<R> {
    fn forward(&mut self, weights: Weights<R>, (coupling, network): (usize, Network), input: &[R]) {
        let rows = input.len() / weights.flow.features;
        let last = weights.layout.depth() - 1;
        for layer in 0..=last {
            let span = weights.layout.linear(coupling, network, layer);
            let (weight, bias) = (weights.weight(span), weights.bias(span));
            let below = if layer == 0 { input } else { &self.h[layer - 1] };
            let y = if layer == last { &mut self.output } else { &mut self.pre[layer] };
            linear_forward(rows, span.inputs, span.outputs, below, weight, bias, y);
            if layer < last {
                activate(weights.flow.activation, &self.pre[layer], &mut self.h[layer]);
            }
        }
    }

    /// Backward through the network. `d_pre` comes with the gradient at the network's output, `d_h` leaves with
    /// that at its input (except in the first coupling, where nobody wants it), both in the first values; this network's stretch of `gradient` is overwritten.
    fn backward(
        &self,
        weights: Weights<R>,
        (coupling, network): (usize, Network),
        input: &[R],
        [d_h, d_pre]: [&mut [R]; 2],
        gradient: &mut [R],
    ) {
        let rows = input.len() / weights.flow.features;
        for layer in (0..weights.layout.depth()).rev() {
            let span = weights.layout.linear(coupling, network, layer);
            let LinearSpan { inputs, outputs, .. } = span;
            let below = if layer == 0 { input } else { &self.h[layer - 1] };
            let (d_weight, d_bias) =
                gradient[span.weight..span.bias + outputs].split_at_mut(inputs * outputs);
            linear_backward_weight(rows, inputs, outputs, below, d_pre, d_weight, d_bias);
            if layer > 0 || coupling > 0 {
                linear_backward_input(rows, inputs, outputs, d_pre, weights.weight(span), d_h);
            }
            if layer > 0 {
                activate_backward(weights.flow.activation, &self.pre[layer - 1], d_h, d_pre);
            }
        }
    }
}
