//! `moonflow plan`: the GPU's work as data, made without a GPU, and the time that a roofline gives it.

use std::fmt::Write as _;

use clap::value_parser;
use moonflow::Result;
use moonflow::gpu::cost::{Roofline, si};
use moonflow::gpu::evaluation::EvaluationPlan;
use moonflow::gpu::fused::Shape;
use moonflow::gpu::plan::{Plan, ProgramId};
use moonflow::gpu::tile::Tiling;
use moonflow::gpu::training::{TrainingPlan, shard_rows};
use moonflow::gpu::{Instead, PlanKind, Target, adapters};
use moonflow::layout::Layout;
use moonflow::train::training_shape;
use serde_json::{Value, json};

use super::advice::with_flags;
use super::device;
use super::info::{describe_flow, describe_recipe};
use super::output::{self, grouped};
use super::recipe::{RecipeArgs, Subject};
use super::values;

/// Arguments of `moonflow plan`.
#[derive(clap::Args)]
pub struct PlanArgs {
    /// Columns of the data
    #[arg(long, value_name = "D", allow_negative_numbers = true, default_value_t = 2, value_parser = value_parser!(u32).range(2..=65_536))]
    features: u32,
    /// Training rows
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 9000, value_parser = value_parser!(u32).range(2..=100_000_000))]
    rows: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    kind: device::PlanFlag,
    #[command(flatten)]
    roofline: RooflineArgs,
}

/// Flags that describe a device. All programs then show the least time that it needs for them.
#[derive(clap::Args)]
struct RooflineArgs {
    /// Floating-point operations a second of a device, such as 1e13; with --bandwidth, the plan shows its least times
    #[arg(long, value_name = "F", allow_negative_numbers = true, requires = "bandwidth", value_parser = values::rate)]
    flops: Option<f64>,
    /// Bytes a second to and from the device's memory, such as 5e11
    #[arg(long, value_name = "B", allow_negative_numbers = true, requires = "flops", value_parser = values::rate)]
    bandwidth: Option<f64>,
    /// Microseconds that each dispatch costs the device whatever it does [default: 0]
    #[arg(long, value_name = "US", allow_negative_numbers = true, requires = "flops", value_parser = values::microseconds)]
    dispatch_cost: Option<f64>,
}

impl RooflineArgs {
    fn roofline(&self) -> Option<Roofline> {
        let dispatch_cost = 1e-6 * self.dispatch_cost.unwrap_or_default();
        Some(Roofline { flops: self.flops?, bandwidth: self.bandwidth?, dispatch_cost })
    }
}

/// Rows of the evaluation whose plan is shown.
const EVALUATED_ROWS: usize = 4096;

/// Prints the plans of training and of evaluation, the least time of each program where a device is described, and
/// which adapters can hold the training.
///
/// # Errors
/// When the flags make no flow, and those of standard output.
pub async fn run(args: &PlanArgs) -> Result<()> {
    let recipe = args.recipe.resolve(Subject::Toy)?;
    let flow = recipe.flow(args.features as usize)?;
    let layout = Layout::new(&flow);
    let train_rows = args.rows as usize;
    let validation_rows = (train_rows as f64 * recipe.validation_fraction) as usize;
    let shape = training_shape(&recipe, train_rows, validation_rows)?;
    let target = Target::default();
    let (kind, asked) = args.kind.choose(&flow, &target);
    let shard_rows = shard_rows(flow.features, &target.limits);
    let instead = Instead::of(&flow, &target, (kind, asked), &shape, shard_rows);
    let training_kind = instead.map_or(kind, |_| PlanKind::Layered);
    let tiling = Tiling::on(&target);
    let training = TrainingPlan::on(&target, (&flow, &layout), &shape, (training_kind, &tiling), shard_rows)?;
    let evaluation = match kind {
        PlanKind::Layered => EvaluationPlan::new(&flow, &layout, EVALUATED_ROWS),
        PlanKind::Fused => {
            EvaluationPlan::fused(&flow, &layout, EVALUATED_ROWS, &Shape::evaluation(&flow, &target)?)
        }
    };
    let roofline = args.roofline.roofline();
    if args.json {
        return output::write_json(&json!({
            "flow": output::as_json(&flow),
            "recipe": output::as_json(&recipe),
            "plan": kind.to_string(),
            "training_plan": training_kind.to_string(),
            "steps_per_epoch": training.steps_per_epoch,
            "validation_tiles": training.validation_tiles,
            "training": as_json(&training.plan, roofline),
            "evaluation": as_json(&evaluation.plan, roofline),
        }));
    }

    let mut text = format!("flow    {}\nrecipe  {}\n", describe_flow(&flow), describe_recipe(&recipe));
    text += &match instead {
        None => format!("plan    {kind}\n"),
        Some(instead) => format!("plan    {kind}; {instead}\n"),
    };
    text += &describe(&format!("training on {} rows", grouped(train_rows as u64)), &training.plan, roofline);
    text += &epoch(&training, roofline);
    let title = format!("evaluation of {} rows at a time", grouped(EVALUATED_ROWS as u64));
    text += &describe(&title, &evaluation.plan, roofline);
    for adapter in adapters().await {
        let verdict = match training.plan.check(&adapter.limits()) {
            Ok(()) => "can hold this".to_owned(),
            Err(error) => with_flags(&error),
        };
        let _ = writeln!(text, "\n{}: {verdict}", adapter.info());
    }
    output::print(&text)
}

/// A plan's buffers and programs.
fn as_json(plan: &Plan, roofline: Option<Roofline>) -> Value {
    let buffers = plan.buffers.iter().map(|buffer| json!({ "label": buffer.label, "bytes": buffer.bytes }));
    let programs = plan.programs.iter().map(|program| {
        let dispatches = program.dispatches.iter().map(|dispatch| {
            json!({
                "kernel": dispatch.kernel.name, "label": dispatch.label, "workgroups": dispatch.workgroups,
                "flops": dispatch.flops, "bytes": dispatch.bytes,
                "least_seconds": roofline.map(|roofline| roofline.dispatch(dispatch)),
            })
        });
        json!({ "name": program.name, "dispatches": dispatches.collect::<Vec<_>>() })
    });
    json!({ "buffers": buffers.collect::<Vec<_>>(), "programs": programs.collect::<Vec<_>>() })
}

/// A plan's memory, and its programs as tables.
fn describe(title: &str, plan: &Plan, roofline: Option<Roofline>) -> String {
    let mut text = format!("\n{title}: {}\n", plan.memory());
    for program in &plan.programs {
        let _ = write!(text, "\n{}", program.table(roofline));
    }
    text
}

/// The programs of an epoch, counted and added up.
fn epoch(training: &TrainingPlan, roofline: Option<Roofline>) -> String {
    let programs = [
        (training.step, training.steps_per_epoch),
        (training.validate, training.validation_tiles),
        (training.close, 1),
    ]
    .map(|(ProgramId(index), times)| (&training.plan.programs[index], times));
    let parts: Vec<String> =
        programs.iter().map(|(program, times)| format!("{times} × {}", program.name)).collect();
    let sum = |of: &dyn Fn(usize) -> f64| -> f64 {
        programs.iter().enumerate().map(|(index, &(_, times))| f64::from(times) * of(index)).sum()
    };
    let flops = sum(&|index| programs[index].0.flops() as f64);
    let bytes = sum(&|index| programs[index].0.bytes() as f64);
    let mut text = format!("\nepoch: {}: {}, {}", parts.join(", "), si(flops, "FLOP"), si(bytes, "B"));
    if let Some(roofline) = roofline {
        text += &format!(", at least {}", si(sum(&|index| roofline.program(programs[index].0)), "s"));
    }
    text + "\n"
}
