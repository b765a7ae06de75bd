//! `moonflow plan`: the GPU's work as data, made without a GPU.

use std::fmt::Write as _;

use clap::value_parser;
use moonflow::Result;
use moonflow::engine::Training;
use moonflow::gpu::adapters;
use moonflow::gpu::evaluation::EvaluationPlan;
use moonflow::gpu::plan::Plan;
use moonflow::gpu::training::{TrainingPlan, TrainingShape};
use moonflow::layout::Layout;

use super::info::{describe_flow, describe_recipe};
use super::output::{self, grouped};
use super::recipe::RecipeArgs;

/// Arguments of `moonflow plan`.
#[derive(clap::Args)]
pub struct PlanArgs {
    /// Columns of the data
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 2, value_parser = value_parser!(u32).range(2..=65_536))]
    features: u32,
    /// Training rows
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 9000, value_parser = value_parser!(u32).range(2..=100_000_000))]
    rows: u32,
    #[command(flatten)]
    recipe: RecipeArgs,
}

/// Rows of the evaluation whose plan is shown.
const EVALUATED_ROWS: usize = 4096;

/// Prints the plans of training and of evaluation, and which adapters can hold them.
///
/// # Errors
/// When the flags make no flow, and those of standard output.
pub async fn run(args: &PlanArgs) -> Result<()> {
    let recipe = args.recipe.resolve()?;
    let flow = recipe.flow(args.features as usize)?;
    let layout = Layout::new(&flow);
    let train_rows = args.rows as usize;
    let shape = TrainingShape {
        train_rows,
        validation_rows: (train_rows as f64 * recipe.validation_fraction) as usize,
        batch: train_rows.min(recipe.batch as usize),
        adam: recipe.adam(),
        schedule: recipe.schedule(Training::steps_per_epoch(train_rows, recipe.batch))?,
        seed: recipe.seed,
    };
    let training = TrainingPlan::new(&flow, &layout, &shape).plan;
    let evaluation = EvaluationPlan::new(&flow, &layout, EVALUATED_ROWS).plan;

    let mut text = format!("flow    {}\nrecipe  {}\n", describe_flow(&flow), describe_recipe(&recipe));
    text += &describe(&format!("training on {} rows", grouped(train_rows as u64)), &training);
    text +=
        &describe(&format!("evaluation of {} rows at a time", grouped(EVALUATED_ROWS as u64)), &evaluation);
    for adapter in adapters().await {
        let verdict = match training.check(&adapter.limits()) {
            Ok(()) => "can hold this".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = writeln!(text, "\n{}: {verdict}", adapter.info());
    }
    output::write(None, |out| out.write_all(text.as_bytes()))
}

fn describe(title: &str, plan: &Plan) -> String {
    let mut text = format!("\n{title}: {} buffers, {} bytes\n", plan.buffers.len(), grouped(plan.bytes()));
    for program in &plan.programs {
        let _ = write!(text, "\n{program}");
    }
    text
}
