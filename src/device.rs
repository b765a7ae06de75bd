//! Where to compute: a hardware GPU where there is one, else the CPU engine, or what the user names; and an engine of
//! either kind as one type.

use std::fmt;
use std::str::FromStr;

use crate::cpu::CpuEngine;
use crate::engine::{DeviceInfo, Engine, EpochRecord, Sampling, Training, Transformed};
use crate::error::{Error, Remedy, Result};
use crate::flow::Flow;
use crate::gpu::{Adapter, GpuEngine, PlanKind, adapters};
use crate::optimiser::State;
use crate::shown::shown;

/// A choice of device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// A hardware GPU where there is one, else the CPU engine.
    #[default]
    Auto,
    /// The CPU engine.
    Cpu,
    /// The first adapter, hardware before software.
    Gpu,
    /// The first adapter whose name contains this, in any case.
    Named(String),
}

impl FromStr for Device {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            name => Self::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Named(name) => name,
        })
    }
}

/// An engine, and why it is not the one that [`Device::Auto`] would rather have taken.
#[derive(Debug)]
pub struct Chosen {
    /// The engine.
    pub engine: AnyEngine,
    /// What kept a hardware GPU from being used.
    pub passed_over: Option<Error>,
}

impl Device {
    /// An engine for `flow`, by the plan that suits or by `plan`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that no adapter has or a plan without a GPU, [`Error::Device`] when there is no
    /// adapter at all, and those of the engine.
    pub async fn engine(&self, flow: Flow, plan: Option<PlanKind>) -> Result<Chosen> {
        let found = if *self == Self::Cpu { Vec::new() } else { adapters().await };
        let Some(adapter) = self.choose(&found)? else {
            return Ok(Chosen { engine: on_cpu(flow, plan)?, passed_over: None });
        };
        match on(flow.clone(), adapter, plan).await {
            Err(error)
                if matches!(error.problem(), Error::Device(_)) && *self == Self::Auto && plan.is_none() =>
            {
                Ok(Chosen { engine: on_cpu(flow, plan)?, passed_over: Some(error) })
            }
            engine => Ok(Chosen { engine: AnyEngine::Gpu(engine?), passed_over: None }),
        }
    }

    /// The adapter that it means; `None` is the CPU engine.
    fn choose<'a>(&self, adapters: &'a [Adapter]) -> Result<Option<&'a Adapter>> {
        match self {
            Self::Cpu => Ok(None),
            Self::Auto => Ok(adapters.iter().find(|adapter| adapter.is_hardware())),
            Self::Gpu => adapters.first().map(Some).ok_or_else(|| {
                Error::Device("no adapter was found; is a driver installed?".into()).advise(Remedy::Cpu)
            }),
            Self::Named(name) => {
                let lower = name.to_lowercase();
                let found =
                    adapters.iter().find(|adapter| adapter.info().name.to_lowercase().contains(&lower));
                found.map(Some).ok_or_else(|| {
                    let names: String =
                        adapters.iter().map(|adapter| format!(", `{}`", adapter.info().name)).collect();
                    Error::Argument(format!(
                        "there is no device `{}`; the devices are auto, cpu, gpu{names}",
                        shown(name)
                    ))
                })
            }
        }
    }
}

/// The CPU engine, where no plan of a GPU is asked for. Not within a future, so that no other crate compiles the engine: see
/// `src/cpu/engine.rs`.
fn on_cpu(flow: Flow, plan: Option<PlanKind>) -> Result<AnyEngine> {
    match plan {
        None => Ok(AnyEngine::Cpu(CpuEngine::new(flow)?)),
        Some(plan) => {
            let error = format!("the {plan} plan is for a GPU, but the CPU engine was chosen");
            Err(Error::Argument(error).advise(Remedy::Gpu))
        }
    }
}

async fn on(flow: Flow, adapter: &Adapter, plan: Option<PlanKind>) -> Result<GpuEngine> {
    let context = adapter.open().await?;
    match plan {
        Some(plan) => GpuEngine::with_plan(flow, context, plan),
        None => GpuEngine::on(flow, context),
    }
}

/// A device of this machine.
#[derive(Clone, Debug)]
pub struct Found {
    /// Name, backend and kind.
    pub info: DeviceInfo,
    /// The adapter with its limits and features; `None` is the CPU engine.
    pub adapter: Option<Adapter>,
}

/// Every device of this machine, the CPU engine first, and the place of the one that [`Device::Auto`] takes.
///
/// # Errors
/// Those of the engine.
pub async fn devices() -> Result<(Vec<Found>, usize)> {
    let cpu = Engine::device(&on_cpu(Flow::new(2, 1, &[1])?, None)?).clone();
    let adapters = adapters().await;
    let default = adapters.iter().position(Adapter::is_hardware).map_or(0, |place| place + 1);
    let found = |adapter: Adapter| Found { info: adapter.info().clone(), adapter: Some(adapter) };
    let cpu = Found { info: cpu, adapter: None };
    Ok((std::iter::once(cpu).chain(adapters.into_iter().map(found)).collect(), default))
}

/// An engine chosen while the program runs.
#[expect(clippy::large_enum_variant, reason = "a process has one of it")]
pub enum AnyEngine {
    /// On the CPU.
    Cpu(CpuEngine<f32>),
    /// On a GPU, or software that acts as one.
    Gpu(GpuEngine),
}

impl fmt::Debug for AnyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyEngine({}, {:?})", self.describe(), self.flow())
    }
}

impl AnyEngine {
    /// The device, and by which plan it computes.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu(engine) => Engine::device(engine).to_string(),
            Self::Gpu(engine) => format!("{}, {} plan", Engine::device(engine), engine.plan_kind()),
        }
    }
}

/// Calls a method of the engine inside.
macro_rules! inside {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Self::Cpu($engine) => $call,
            Self::Gpu($engine) => $call,
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

    async fn score(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        inside!(self, engine => Engine::score(engine, x).await)
    }

    async fn sample_given(&mut self, sampling: Sampling, context: &[f32]) -> Result<Vec<f32>> {
        inside!(self, engine => Engine::sample_given(engine, sampling, context).await)
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
