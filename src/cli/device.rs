//! Which device a command computes on: a hardware GPU where there is one, else the CPU engine, or what `--device` says.

use moonflow::cpu::CpuEngine;
use moonflow::engine::{DeviceInfo, Engine, EpochRecord, Sampling, Training, Transformed};
use moonflow::flow::Flow;
use moonflow::gpu::{Adapter, GpuEngine, PlanKind, Target, adapters};
use moonflow::optimiser::State;
use moonflow::{Error, Result};

use super::output::note;
use super::tune::recall;

/// `--device`.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// auto (a hardware GPU, else the CPU engine), cpu, gpu (any adapter, software too), or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|gpu|NAME", default_value = "auto")]
    device: String,
    #[command(flatten)]
    plan: PlanFlag,
}

/// `--plan`.
#[derive(clap::Args)]
pub struct PlanFlag {
    /// How a GPU goes about it: fused (a training step in 3 dispatches; hidden layers up to 128 wide), layered (some for
    /// each layer; any width), or auto (fused where it fits)
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, value_name = "auto|fused|layered")]
    plan: PlanChoice,
}

/// A plan, or the one that suits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum PlanChoice {
    #[default]
    Auto,
    Fused,
    Layered,
}

impl PlanFlag {
    /// The plan for `flow` on `target`.
    pub fn choose(&self, flow: &Flow, target: &Target) -> PlanKind {
        self.forced().unwrap_or_else(|| PlanKind::choose(flow, target))
    }

    fn forced(&self) -> Option<PlanKind> {
        match self.plan {
            PlanChoice::Auto => None,
            PlanChoice::Fused => Some(PlanKind::Fused),
            PlanChoice::Layered => Some(PlanKind::Layered),
        }
    }
}

impl DeviceArgs {
    /// What `--plan` was given.
    pub fn plan(&self) -> &'static str {
        match self.plan.plan {
            PlanChoice::Auto => "auto",
            PlanChoice::Fused => "fused",
            PlanChoice::Layered => "layered",
        }
    }

    /// What was asked for.
    pub fn name(&self) -> &str {
        &self.device
    }

    /// An engine for `flow` on the device asked for.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that no adapter has or a plan without a GPU, [`Error::Device`] when there is no
    /// adapter at all, and those of the engine.
    pub async fn engine(&self, flow: Flow) -> Result<AnyEngine> {
        let cpu = |flow| match self.plan.forced() {
            None => Ok(AnyEngine::Cpu(CpuEngine::new(flow)?)),
            Some(plan) => Err(Error::Argument(format!(
                "--plan {plan} is for a GPU, but the CPU engine was chosen; add --device gpu, or leave --plan out"
            ))),
        };
        if self.device == "cpu" {
            return cpu(flow);
        }
        let adapters = adapters().await;
        match choose(&self.device, &adapters)? {
            None => cpu(flow),
            Some(adapter) => match self.on(flow.clone(), adapter).await {
                Err(error @ Error::Device(_)) if self.device == "auto" && self.plan.forced().is_none() => {
                    note(format_args!("warning: {error}; going on with the CPU engine"));
                    cpu(flow)
                }
                engine => {
                    let mut engine = engine?;
                    recall(&mut engine);
                    Ok(AnyEngine::Gpu(engine))
                }
            },
        }
    }

    async fn on(&self, flow: Flow, adapter: &Adapter) -> Result<GpuEngine> {
        let plan = self.plan.choose(&flow, &adapter.target());
        GpuEngine::with_plan(flow, adapter.open().await?, plan)
    }
}

/// The adapter that `wanted` means; `None` is the CPU engine.
fn choose<'a>(wanted: &str, adapters: &'a [Adapter]) -> Result<Option<&'a Adapter>> {
    match wanted {
        "cpu" => Ok(None),
        "auto" => Ok(adapters.iter().find(|adapter| adapter.is_hardware())),
        "gpu" => adapters.first().map(Some).ok_or_else(|| {
            Error::Device(
                "no adapter was found; install a driver, or use --device cpu, which works everywhere".into(),
            )
        }),
        name => {
            let lower = name.to_lowercase();
            let found = adapters.iter().find(|adapter| adapter.info().name.to_lowercase().contains(&lower));
            found.map(Some).ok_or_else(|| {
                let names: String =
                    adapters.iter().map(|adapter| format!(", `{}`", adapter.info().name)).collect();
                Error::Argument(format!("there is no device `{name}`; the devices are auto, cpu, gpu{names}"))
            })
        }
    }
}

/// Every device of this machine, the CPU engine first, and the place of the one that `auto` takes.
///
/// # Errors
/// Those of the engine.
pub async fn devices() -> Result<(Vec<DeviceInfo>, usize)> {
    let smallest = Flow::new(2, 1, &[1])?;
    let cpu = Engine::device(&CpuEngine::<f32>::new(smallest)?).clone();
    let adapters = adapters().await;
    let default = adapters.iter().position(Adapter::is_hardware).map_or(0, |place| place + 1);
    let infos = adapters.iter().map(|adapter| adapter.info().clone());
    Ok((std::iter::once(cpu).chain(infos).collect(), default))
}

/// An engine chosen while the program runs.
#[expect(clippy::large_enum_variant, reason = "a process has one of it")]
pub enum AnyEngine {
    /// On the CPU.
    Cpu(CpuEngine<f32>),
    /// On a GPU, or software that acts as one.
    Gpu(GpuEngine),
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
