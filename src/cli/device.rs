//! Which device a command computes on: a hardware GPU where there is one, else the CPU engine, or what `--device` says.

use moonflow::cpu::CpuEngine;
use moonflow::engine::{DeviceInfo, Engine, EpochRecord, Sampling, Training, Transformed};
use moonflow::flow::Flow;
use moonflow::optimiser::State;
use moonflow::{Error, Result};

/// `--device`.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// auto (a hardware GPU, else the CPU engine), cpu, gpu (any adapter, software too), or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|gpu|NAME", default_value = "auto")]
    device: String,
}

impl DeviceArgs {
    /// An engine for `flow` on the device asked for.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that no adapter has; those of the engine.
    pub async fn engine(&self, flow: Flow) -> Result<AnyEngine> {
        match self.device.as_str() {
            "auto" | "cpu" => Ok(AnyEngine::Cpu(CpuEngine::new(flow)?)),
            "gpu" => Err(Error::Device("no adapter was found; `--device cpu` works everywhere".into())),
            name => Err(Error::Argument(format!(
                "--device: no adapter is called `{name}`; the devices are auto, cpu, gpu and those of `moonflow devices`"
            ))),
        }
    }
}

/// Every device of this machine, the CPU engine first, and which of them `auto` takes.
///
/// # Errors
/// Those of the engine.
pub async fn devices() -> Result<(Vec<DeviceInfo>, usize)> {
    let smallest = Flow::new(2, 1, &[1])?;
    Ok((vec![CpuEngine::<f32>::new(smallest)?.device().clone()], 0))
}

/// An engine chosen while the program runs.
pub enum AnyEngine {
    /// On the CPU.
    Cpu(CpuEngine<f32>),
}

/// Calls a method of the engine inside.
macro_rules! inside {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Self::Cpu($engine) => $call,
        }
    };
}

impl Engine for AnyEngine {
    fn device(&self) -> &DeviceInfo {
        inside!(self, engine => Engine::device(engine))
    }

    fn flow(&self) -> &Flow {
        inside!(self, engine => Engine::flow(engine))
    }

    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        inside!(self, engine => Engine::set_parameters(engine, parameters))
    }

    async fn forward(&mut self, x: &[f32]) -> Result<Transformed> {
        inside!(self, engine => Engine::forward(engine, x).await)
    }

    async fn inverse(&mut self, z: &[f32]) -> Result<Transformed> {
        inside!(self, engine => Engine::inverse(engine, z).await)
    }

    async fn log_prob(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        inside!(self, engine => Engine::log_prob(engine, x).await)
    }

    async fn sample(&mut self, sampling: Sampling) -> Result<Vec<f32>> {
        inside!(self, engine => Engine::sample(engine, sampling).await)
    }

    fn begin_training(&mut self, training: Training, state: State) -> Result<()> {
        inside!(self, engine => Engine::begin_training(engine, training, state))
    }

    async fn train(&mut self, epochs: u32) -> Result<Vec<EpochRecord>> {
        inside!(self, engine => Engine::train(engine, epochs).await)
    }

    async fn training_state(&mut self) -> Result<State> {
        inside!(self, engine => Engine::training_state(engine).await)
    }

    async fn best_parameters(&mut self) -> Result<Vec<f32>> {
        inside!(self, engine => Engine::best_parameters(engine).await)
    }
}
