//! The engine interface for `f32`: every future is ready when it is made.
//!
//! The body of an `async fn` is compiled by each crate that polls it, and what is generic in it with it: the whole engine.
//! Plain functions are compiled once, here.

use std::future::ready;

use crate::engine::{DeviceInfo, Engine, EpochRecord, Sampling, Training, Transformed};
use crate::error::Result;
use crate::flow::Flow;
use crate::optimiser::State;

use super::CpuEngine;

// A path such as `CpuEngine::forward` names the inherent method, not the trait's.
impl Engine for CpuEngine<f32> {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        CpuEngine::set_parameters(self, parameters)
    }

    fn forward(&mut self, x: &[f32]) -> impl Future<Output = Result<Transformed>> {
        ready(CpuEngine::forward(self, x).map(transformed))
    }

    fn inverse(&mut self, z: &[f32]) -> impl Future<Output = Result<Transformed>> {
        ready(CpuEngine::inverse(self, z).map(transformed))
    }

    fn log_prob(&mut self, x: &[f32]) -> impl Future<Output = Result<Vec<f32>>> {
        ready(CpuEngine::log_prob(self, x))
    }

    fn score(&mut self, x: &[f32]) -> impl Future<Output = Result<Vec<f32>>> {
        ready(CpuEngine::score(self, x).map(|(_, score)| score))
    }

    fn sample_given(
        &mut self,
        sampling: Sampling,
        context: &[f32],
    ) -> impl Future<Output = Result<Vec<f32>>> {
        ready(CpuEngine::sample(self, sampling, context))
    }

    fn begin_training(&mut self, training: Training, state: State) -> Result<()> {
        CpuEngine::begin_training(self, &training, &state)
    }

    fn train(&mut self, epochs: u32) -> impl Future<Output = Result<Vec<EpochRecord>>> {
        ready(CpuEngine::train(self, epochs))
    }

    fn training_state(&mut self) -> impl Future<Output = Result<State>> {
        ready(CpuEngine::training_state(self))
    }

    fn best_parameters(&mut self) -> impl Future<Output = Result<Vec<f32>>> {
        ready(Ok(CpuEngine::best_parameters(self).to_vec()))
    }
}

fn transformed((values, log_det): (Vec<f32>, Vec<f32>)) -> Transformed {
    Transformed { values, log_det }
}
