//! The engine interface for `f32`: every future is ready when it is first polled.

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

    async fn forward(&mut self, x: &[f32]) -> Result<Transformed> {
        let (values, log_det) = CpuEngine::forward(self, x)?;
        Ok(Transformed { values, log_det })
    }

    async fn inverse(&mut self, z: &[f32]) -> Result<Transformed> {
        let (values, log_det) = CpuEngine::inverse(self, z)?;
        Ok(Transformed { values, log_det })
    }

    async fn log_prob(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        CpuEngine::log_prob(self, x)
    }

    async fn score(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(CpuEngine::score(self, x)?.1)
    }

    async fn sample_given(&mut self, sampling: Sampling, context: &[f32]) -> Result<Vec<f32>> {
        CpuEngine::sample(self, sampling, context)
    }

    fn begin_training(&mut self, training: Training, state: State) -> Result<()> {
        CpuEngine::begin_training(self, &training, &state)
    }

    async fn train(&mut self, epochs: u32) -> Result<Vec<EpochRecord>> {
        CpuEngine::train(self, epochs)
    }

    async fn training_state(&mut self) -> Result<State> {
        CpuEngine::training_state(self)
    }

    async fn best_parameters(&mut self) -> Result<Vec<f32>> {
        Ok(CpuEngine::best_parameters(self).to_vec())
    }
}
