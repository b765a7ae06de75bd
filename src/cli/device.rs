//! `--device` and `--plan`: which device a command computes on, and how.

use moonflow::Result;
use moonflow::device::{AnyEngine, Chosen, Device};
use moonflow::flow::Flow;
use moonflow::gpu::{PlanKind, Target};
use moonflow::model::{Engines, TableModel};

use super::advice::with_flags;
use super::memory::check_model;
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
    /// each layer; any width), or auto (fused where it fits; layered for training where that is faster)
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
    /// The plan for `flow` on `target`, and whether it was asked for.
    pub fn choose(&self, flow: &Flow, target: &Target) -> (PlanKind, bool) {
        let forced = self.forced();
        (forced.unwrap_or_else(|| PlanKind::choose(flow, target)), forced.is_some())
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

    /// An engine for `flow` on the device asked for, with the tiles that were found on it before.
    ///
    /// # Errors
    /// Those of [`Device::engine`].
    pub async fn engine(&self, flow: Flow) -> Result<AnyEngine> {
        let Ok(device) = self.device.parse::<Device>();
        let Chosen { mut engine, passed_over } = device.engine(flow, self.plan.forced()).await?;
        if let Some(error) = passed_over {
            note(format_args!("warning: {}; going on with the CPU engine", with_flags(&error)));
        }
        if let AnyEngine::Gpu(engine) = &mut engine {
            recall(engine);
        }
        Ok(engine)
    }

    /// Engines for the members of `model`, as [`DeviceArgs::engine`], where there is memory for them.
    ///
    /// # Errors
    /// Those of [`check_model`] and [`DeviceArgs::engine`].
    pub async fn engines(&self, model: &TableModel) -> Result<Engines<AnyEngine>> {
        check_model(model)?;
        model.engines(async |flow| self.engine(flow).await).await
    }
}
