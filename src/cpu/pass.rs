//! One tile of rows through the whole flow: forward, inverse, and forward then backward.
//! As in the GPU's fused plan, all that a tile needs stays in a core's cache.

use super::Real;
use super::buffer::Buffer;
use super::code::{Backward, FlowCode, Scratch, Sum, Tile, Trace};

/// A flow together with its packed parameters.
#[derive(Clone, Copy)]
pub(super) struct PackedFlow<'a, R> {
    pub code: &'a FlowCode<R>,
    /// Packed parameters of every segment.
    pub segments: &'a [Buffer<R>],
}

/// Buffers for a tile of T rows. They hold nothing from one tile to the next.
#[derive(Debug, Default)]
pub(super) struct Workspace<R> {
    /// One for each transform when a gradient is computed; otherwise a single one for all.
    traces: Vec<Trace<R>>,
    scratch: Scratch<R>,
    log_det: Vec<R>,
    d_log_det: Vec<R>,
    /// Rows, and gradients at them, both [T, D].
    values: Vec<R>,
    d_values: Vec<R>,
}

impl<R: Real> Workspace<R> {
    fn prepare(&mut self, traces: usize) {
        if self.traces.len() < traces {
            self.traces.resize_with(traces, Trace::default);
        }
    }

    /// Data → latent, in place. `values`: [T, D], x then z; `log_det`: `[T]`, overwritten.
    pub fn forward(&mut self, weights: PackedFlow<R>, values: &mut [R], log_det: &mut [R]) {
        self.prepare(1);
        log_det.fill(R::zero());
        let mut tile = Tile { values, log_det };
        for placed in &weights.code.transforms {
            let packed = placed.weights(weights.segments);
            placed.code.forward(packed, &mut tile, &mut self.traces[0], &mut self.scratch);
        }
    }

    /// log p of rows `x` [T, D] `[T]`.
    pub fn log_prob(&mut self, weights: PackedFlow<R>, x: &[R], log_prob: &mut [R]) {
        let mut values = std::mem::take(&mut self.values);
        let mut log_det = std::mem::take(&mut self.log_det);
        values.clear();
        values.extend_from_slice(x);
        log_det.resize(log_prob.len(), R::zero());
        self.forward(weights, &mut values, &mut log_det);
        let base = &weights.code.base;
        let packed = base.weights(weights.segments);
        base.code.negative_log_likelihood(packed, &values, &log_det, log_prob, &mut self.scratch.mixture);
        for value in log_prob {
            *value = -*value;
        }
        self.values = values;
        self.log_det = log_det;
    }

    /// Latent → data, in place. `values`: [T, D], z then x; `log_det`: `[T]`, overwritten.
    pub fn inverse(&mut self, weights: PackedFlow<R>, values: &mut [R], log_det: &mut [R]) {
        self.prepare(1);
        log_det.fill(R::zero());
        let mut tile = Tile { values, log_det };
        for placed in weights.code.transforms.iter().rev() {
            let packed = placed.weights(weights.segments);
            placed.code.inverse(packed, &mut tile, &mut self.traces[0], &mut self.scratch);
        }
    }

    /// What the tile adds to the loss of a batch and to its gradient, Σ factor · (−log p).
    ///
    /// `x` fills in the tile's rows [T, D]; `factors`: of each row `[T]`; `nll`: −log p per row `[T]`, overwritten;
    /// `gradient`: packed, of every segment.
    pub fn loss_and_gradient(
        &mut self,
        weights: PackedFlow<R>,
        x: impl FnOnce(&mut [R]),
        factors: &[R],
        nll: &mut [R],
        gradient: Sum<R>,
    ) {
        self.backward(weights, x, factors, nll, Some(gradient));
    }

    /// log p of rows `x` [T, D] `[T]`, and its gradient at them [T, D], the context included.
    pub fn score(&mut self, weights: PackedFlow<R>, x: &[R], log_prob: &mut [R], score: &mut [R]) {
        let factors = vec![-R::one(); log_prob.len()];
        self.backward(weights, |to| to.copy_from_slice(x), &factors, log_prob, None);
        log_prob.iter_mut().for_each(|value| *value = -*value);
        score.copy_from_slice(&self.d_values);
    }

    /// Forward to −log p and back: to the gradient of parameters, or, without one, to that of x in `self.d_values`.
    fn backward(
        &mut self,
        weights: PackedFlow<R>,
        x: impl FnOnce(&mut [R]),
        factors: &[R],
        nll: &mut [R],
        mut gradient: Option<Sum<R>>,
    ) {
        let FlowCode { features, ref transforms, ref base, .. } = *weights.code;
        self.prepare(transforms.len());
        let Self { traces, scratch, log_det, d_log_det, values, d_values } = self;
        values.resize(nll.len() * features, R::zero());
        x(values);
        log_det.clear();
        log_det.resize(nll.len(), R::zero());
        let mut tile = Tile { values, log_det };
        for (placed, trace) in transforms.iter().zip(&mut *traces) {
            placed.code.forward(placed.weights(weights.segments), &mut tile, trace, scratch);
        }

        let packed = base.weights(weights.segments);
        base.code.negative_log_likelihood(packed, values, log_det, nll, &mut scratch.mixture);
        d_values.resize(values.len(), R::zero());
        let of_base = gradient.as_mut().map(|gradient| gradient.range(base.gradient.clone()));
        base.code.backward(packed, factors, values, d_values, of_base, &mut scratch.mixture);
        d_log_det.clear();
        d_log_det.extend(factors.iter().map(|&factor| -factor));
        let of_x = gradient.is_none();
        for (index, (placed, trace)) in transforms.iter().zip(&*traces).enumerate().rev() {
            let mut pass = Backward {
                values: &mut *d_values,
                d_log_det,
                gradient: gradient.as_mut().map(|gradient| gradient.range(placed.gradient.clone())),
                wants_input: of_x || index > 0,
            };
            placed.code.backward(placed.weights(weights.segments), trace, &mut pass, scratch);
        }
    }
}
