//! The base density as the engine executes it: on a tile of rows that have reached it, with packed parameters.

use std::fmt::Debug;

use crate::flow::{Base, Flow};

use super::Real;
use super::buffer::Buffer;
use super::code::{Parameters, Sum};
use super::loss::{negative_log_likelihood, negative_log_likelihood_backward};
use super::mixture::{MixtureDensity, MixtureScratch};
use super::sampling::{self, Noise};

/// The code of a base density.
pub(super) trait BaseDensity<R: Real>: Parameters<R> + Debug + Send + Sync {
    /// −log p of rows `z` [T, D] whose way here had the log-determinants `log_det`; `log_det` and `nll`, overwritten: `[T]`.
    /// `weights`: its segments, packed.
    fn negative_log_likelihood(
        &self,
        weights: &[Buffer<R>],
        z: &[R],
        log_det: &[R],
        nll: &mut [R],
        scratch: &mut MixtureScratch<R>,
    );

    /// The gradient of Σ factor · (−log p) over rows `z` [T, D] with `factors` `[T]`: `d_z` [T, D], overwritten, zero at the
    /// context, and that of the parameters, packed, where it is wanted.
    fn backward(
        &self,
        weights: &[Buffer<R>],
        factors: &[R],
        z: &[R],
        d_z: &mut [R],
        gradient: Option<Sum<R>>,
        scratch: &mut MixtureScratch<R>,
    );

    /// Samples of the density in the place of the modelled features of rows `z` [T, D].
    fn draw(&self, weights: &[Buffer<R>], noise: Noise, z: &mut [R]);
}

/// The code of the base density of `flow`.
pub(super) fn density<R: Real>(flow: &Flow) -> Box<dyn BaseDensity<R>> {
    match flow.base {
        Base::StandardNormal => Box::new(StandardNormal { features: flow.features, context: flow.context }),
        Base::Mixture { components } => Box::new(MixtureDensity::new(flow, components)),
    }
}

/// Independent standard normal features; no parameters.
#[derive(Debug)]
struct StandardNormal {
    features: usize,
    context: usize,
}

impl<R: Real> Parameters<R> for StandardNormal {}

impl<R: Real> BaseDensity<R> for StandardNormal {
    fn negative_log_likelihood(
        &self,
        _weights: &[Buffer<R>],
        z: &[R],
        log_det: &[R],
        nll: &mut [R],
        _scratch: &mut MixtureScratch<R>,
    ) {
        negative_log_likelihood(self.context, z, log_det, nll);
    }

    fn backward(
        &self,
        _weights: &[Buffer<R>],
        factors: &[R],
        z: &[R],
        d_z: &mut [R],
        _gradient: Option<Sum<R>>,
        _scratch: &mut MixtureScratch<R>,
    ) {
        negative_log_likelihood_backward(self.context, factors, z, d_z);
    }

    fn draw(&self, _weights: &[Buffer<R>], noise: Noise, z: &mut [R]) {
        sampling::latent(self.features, self.context, noise, z);
    }
}
