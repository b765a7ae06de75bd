//! `moonflow info`: what a model file holds, as text.

use std::fmt::Write as _;
use std::path::PathBuf;

use moonflow::Result;
use moonflow::data::{
    Bounds, ColumnDomain, Grid, Johnson, MonotoneCurve, Preprocessing, Standardise, Standardiser, TableColumn,
};
use moonflow::flow::{Base, Flow};
use moonflow::layout::Layout;
use moonflow::model::{
    Ensemble, HeldOut, Model, Recipe, SelfCheck, TableModel, TrainingRecord, WithinBounds,
};
use moonflow::optimiser::Decay;
use moonflow::shown::{shown, shown_list, shown_path};
use serde_json::json;

use super::categories;
use super::check::describe_check;
use super::output::{self, grouped};

/// Arguments of `moonflow info`.
#[derive(clap::Args)]
pub struct InfoArgs {
    /// Model file that `moonflow train` wrote
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints flow, parameters, columns and the training's record.
///
/// # Errors
/// When the model cannot be read, and those of standard output.
pub fn run(args: &InfoArgs) -> Result<()> {
    let table = TableModel::load(&args.file)?;
    let members_of = table.density().map_or(&[][..], Ensemble::members);
    if args.json {
        let has_categories = table.encoding().has_categories();
        return output::write_json(&match members_of {
            [only] if !has_categories => as_json(only),
            members => {
                let mut json = json!({
                    "format_version": table.format_version(),
                    "members": members.iter().map(as_json).collect::<Vec<_>>(),
                    "training": output::as_json(table.record()),
                });
                if has_categories {
                    json["columns"] = categories::columns_as_json(&table);
                }
                json
            }
        });
    }
    let record = table.record();
    let bytes = std::fs::metadata(&args.file).map(|metadata| metadata.len()).unwrap_or_default();
    let version = table.format_version();
    let mut text = format!("{}: moonflow model, format version {version}", shown_path(&args.file));
    text += &format!(", {} bytes\n\n", grouped(bytes));
    text += &categories::describe(&table);
    let Some(ensemble) = table.density() else { return output::print(&(text + &training(record))) };
    let model = ensemble.first();
    text += &members(ensemble);
    text += &format!("flow       {}\n\n", describe_flow(&model.flow));
    text += &transforms(model);
    text += &columns(model);
    text += &training(record);
    if let Some(check) = &record.check {
        text += "\n";
        text += &latent(check, &model.columns);
        text += &describe_check(check, model)
            .iter()
            .map(|line| format!("check      {line}\n"))
            .collect::<String>();
    }
    output::print(&text)
}

fn as_json(model: &Model) -> serde_json::Value {
    let preprocessing = &model.preprocessing;
    let Standardiser { mean, std } = &preprocessing.standardiser;
    let columns = std::iter::zip(&model.columns, std::iter::zip(mean, std)).zip(&preprocessing.domains);
    let curves = |curves: &[Johnson], index: usize| curves.get(index).map(Johnson::numbers);
    let knots = |curves: &[MonotoneCurve], index: usize| curves.get(index).map(|curve| curve.knots().len());
    json!({
        "format_version": model.format_version(),
        "context": model.flow.context,
        "standardise": output::as_json(&preprocessing.standardise),
        "flow": output::as_json(&model.flow),
        "parameters": model.parameters.len(),
        "gaussianise": preprocessing.is_gaussianised(),
        "margins": output::as_json(&preprocessing.margins()),
        "columns": columns
            .enumerate()
            .map(|(index, ((name, (mean, std)), domain))| {
                json!({
                    "name": name, "mean": mean, "std": std, "steps": output::as_json(domain),
                    "category_moments": preprocessing.category_moments.of(index).map(output::as_json),
                    "johnson": curves(&preprocessing.curves, index),
                    "whitened_johnson": curves(&preprocessing.whitened_curves, index),
                    "kernel_knots": knots(&preprocessing.kernel, index),
                    "whitened_kernel_knots": knots(&preprocessing.whitened_kernel, index),
                })
            })
            .collect::<Vec<_>>(),
        "training": output::as_json(&model.record),
    })
}

/// The names of columns, the last `context` of which are given, categories with the number of their levels.
pub fn describe_columns(columns: &[TableColumn], context: usize) -> String {
    let described = columns.iter().map(|column| match column.levels() {
        None => column.name.clone(),
        Some(levels) => format!("{} ({} categories)", column.name, levels.names().len()),
    });
    let columns: Vec<String> = described.collect();
    let (modelled, given) = columns.split_at(columns.len() - context);
    if given.is_empty() {
        return shown_list(modelled);
    }
    format!("{} given {}", shown_list(modelled), shown_list(given))
}

/// The flow in one line.
pub fn describe_flow(flow: &Flow) -> String {
    format!("{flow}, {} parameters", grouped(Layout::new(flow).total as u64))
}

/// The recipe in one line.
pub fn describe_recipe(recipe: &Recipe) -> String {
    let rate = match recipe.decay {
        Decay::Constant => format!("constant at {}", recipe.learning_rate),
        falling => format!("{} from {}", falling.name(), recipe.learning_rate),
    };
    let mut text =
        format!("{}: {} epochs, batch {}, Adam {rate}", shown(&recipe.preset), recipe.epochs, recipe.batch);
    if recipe.warmup > 0 {
        let plural = if recipe.warmup == 1 { "" } else { "s" };
        text += &format!(" after {} epoch{plural} of warm-up", recipe.warmup);
    }
    if let Some(norm) = recipe.clip_norm {
        text += &format!(", gradients clipped to {norm}");
    }
    if recipe.weight_decay > 0.0 {
        text += &format!(", weight decay {}", recipe.weight_decay);
    }
    if let Some(decay) = recipe.ema {
        text += &format!(", weights averaged with decay {decay}");
    }
    if recipe.ensemble > 1 {
        text += &format!(", average of {} fits", recipe.ensemble);
    }
    if !recipe.bases.is_empty() {
        let bases: Vec<String> = recipe.bases.iter().map(usize::to_string).collect();
        text += &format!(" with {} Gaussians as their base in turns", bases.join(", "));
    }
    if let Some(patience) = recipe.patience {
        text += &format!(", patience {patience}");
    }
    if recipe.rollback {
        text += ", rollback";
    }
    text + &format!(", seed {}", recipe.seed)
}

/// What is done to a column before it is standardised, in a few words; empty for nothing.
fn describe_domain(domain: &ColumnDomain) -> String {
    let mut parts = Vec::new();
    match domain.grid {
        None => {}
        Some(Grid::WHOLE) => parts.push("dequantised".to_owned()),
        Some(grid) => parts.push(format!("dequantised, {grid}")),
    }
    match domain.bounds {
        Some(Bounds { low: Some(low), high: None }) => parts.push(format!("ln(x − {low})")),
        Some(Bounds { low: None, high: Some(high) }) => parts.push(format!("−ln({high} − x)")),
        Some(bounds) => parts.push(format!("logit on {bounds}")),
        None => {}
    }
    parts.join(", ")
}

/// The held-out loss in one line.
pub fn describe_held_out(held_out: &HeldOut) -> String {
    let mut text = describe_rows(held_out, "fresh");
    if let (Some(above), Some(error)) = (held_out.above_floor, held_out.above_floor_error) {
        text += &format!("; {above:.4} ± {error:.4} nats above the entropy floor");
    }
    text
}

/// The loss on rows of some kind in one line.
pub fn describe_rows(held_out: &HeldOut, kind: &str) -> String {
    let loss = |nll: f64, error: f64, median: Option<f64>, rows: usize| {
        let median = median.map(|median| format!(" (median {median:.4})")).unwrap_or_default();
        format!("NLL {nll:.4} ± {error:.4} nats{median} over {} {kind} rows", grouped(rows as u64))
    };
    let rows = grouped(held_out.rows as u64);
    match held_out.within_bounds {
        None => loss(held_out.nll, held_out.standard_error, held_out.median, held_out.rows),
        Some(WithinBounds { rows: 0, .. }) => {
            format!("NLL infinite: all {rows} {kind} rows are outside of the bounds")
        }
        Some(within) => format!(
            "{} within the bounds; infinite over all {rows}, for {} are outside",
            loss(within.nll, within.standard_error, within.median, within.rows),
            grouped(held_out.rows.saturating_sub(within.rows) as u64)
        ),
    }
}

/// Most names in a list of features; more are counted.
const LISTED: usize = 6;

/// A row for each of several members; what follows it is the first one's.
fn members(ensemble: &Ensemble) -> String {
    if ensemble.members().len() == 1 {
        return String::new();
    }
    let mut table =
        vec![["fit", "seed", "base density", "parameters", "epoch", "validation"].map(str::to_owned)];
    for (index, Model { flow, parameters, record, .. }) in ensemble.members().iter().enumerate() {
        let epoch = record.best_epoch.map_or_else(String::new, |epoch| epoch.to_string());
        let nll = record.validation_nll.map_or_else(String::new, |nll| format!("{nll:.4}"));
        table.push([
            (index + 1).to_string(),
            record.recipe.seed.to_string(),
            describe_base(&flow.base),
            grouped(parameters.len() as u64),
            epoch,
            nll,
        ]);
    }
    format!("average    of {} fits, of which the first is shown below\n\n", ensemble.members().len())
        + &aligned(&table)
}

/// A base density in a few words.
pub fn describe_base(base: &Base) -> String {
    match base {
        Base::Mixture { components: 1 } => "a Gaussian".into(),
        Base::Mixture { components } => format!("{components} Gaussians"),
        _ => "standard normal".into(),
    }
}

fn transforms(model: &Model) -> String {
    let mut table = vec![["transform", "kind", "keeps", "transforms", "parameters"].map(str::to_owned)];
    let all = vec![false; model.flow.modelled()];
    let mixed = model.flow.kinds_of_couplings().len() > 1;
    for (index, transform) in model.flow.transforms.iter().enumerate() {
        let mask = transform.coupling().map_or(&all, |coupling| &coupling.mask);
        let side = |side: bool| {
            let names = || std::iter::zip(&model.columns, mask).filter(|(_, kept)| **kept == side);
            let (count, listed) = (names().count(), names().take(LISTED));
            let listed: Vec<String> = listed.map(|(name, _)| shown(name).to_string()).collect();
            let more = if count > LISTED { format!(", … ({count})") } else { String::new() };
            listed.join(", ") + &more
        };
        // What all couplings have stands above the table.
        let kind = match transform.coupling() {
            Some(coupling) if mixed => format!("coupling, {}", coupling.in_words(model.flow.activation)),
            _ => transform.kind().to_owned(),
        };
        let count = transform.parameter_count(&model.flow) as u64;
        table.push([index.to_string(), kind, side(true), side(false), grouped(count)]);
    }
    aligned(&table)
}

fn columns(model: &Model) -> String {
    let preprocessing = &model.preprocessing;
    let statistics = match preprocessing.standardise {
        Standardise::Robust => ["median", "IQR / 1.349"],
        _ => ["mean", "deviation"],
    };
    let maps = !preprocessing.is_plain() || !preprocessing.category_moments.columns.is_empty();
    let before = if maps { "before that" } else { "" };
    let role = if preprocessing.context == 0 { "" } else { "role" };
    let mut table = vec![["column", statistics[0], statistics[1], before, role].map(str::to_owned)];
    for (index, name) in model.columns.iter().enumerate() {
        let Standardiser { mean, std } = &preprocessing.standardiser;
        let statistics = [mean[index], std[index]].map(|value| format!("{value:.6}"));
        let [mean, std] = statistics;
        let role = match (preprocessing.context, index < preprocessing.modelled()) {
            (0, _) => "",
            (_, true) => "modelled",
            (_, false) => "given",
        };
        let moments = preprocessing.category_moments.of(index);
        let moments = moments.map(|moments| format!("moments of {} levels", moments.levels.len()));
        let domain = describe_domain(&preprocessing.domains[index]);
        let before = [domain, moments.unwrap_or_default()].into_iter().filter(|text| !text.is_empty());
        table.push([
            shown(name).to_string(),
            mean,
            std,
            before.collect::<Vec<_>>().join(", "),
            role.to_owned(),
        ]);
    }
    let behind: String =
        describe_behind(preprocessing).iter().map(|(name, text)| format!("{name:<11}{text}\n")).collect();
    aligned(&table) + &behind + if behind.is_empty() { "" } else { "\n" }
}

/// What comes behind the standardiser, in its order: a name and a sentence each.
fn describe_behind(preprocessing: &Preprocessing) -> Vec<(&'static str, String)> {
    let bent = |curves: &[Johnson], kernel: &[MonotoneCurve]| {
        let bent = curves.iter().filter(|curve| **curve != Johnson::IDENTITY).count();
        let johnson =
            format!("{bent} of {} columns are bent to a normal shape by Johnson's curve", curves.len());
        let knots: usize = kernel.iter().map(|curve| curve.knots().len()).sum();
        let by_kernel =
            format!("after that, all are by kernel densities, as curves of {knots} knots together");
        let kernel = (!kernel.is_empty()).then_some(("bent", by_kernel));
        let johnson = (!curves.is_empty()).then(|| ("bent", format!("after that, {johnson}")));
        johnson.into_iter().chain(kernel)
    };
    let mut lines: Vec<_> = bent(&preprocessing.curves, &preprocessing.kernel).collect();
    if preprocessing.whitening.is_some() {
        lines.push(("whitened", "after that, the columns are freed of their correlations".into()));
    }
    lines.extend(bent(&preprocessing.whitened_curves, &preprocessing.whitened_kernel));
    lines
}

fn latent(check: &SelfCheck, columns: &[String]) -> String {
    let margins = check.structure.as_ref().map(|structure| &structure.margins);
    let last = if margins.is_some() { "nats left" } else { "" };
    let mut table = vec![["latent", "mean", "deviation", "distance from normal", last].map(str::to_owned)];
    for (index, (name, feature)) in std::iter::zip(columns, &check.latent).enumerate() {
        let numbers = [feature.mean, feature.std, feature.distance].map(|number| format!("{number:.4}"));
        let [mean, std, distance] = numbers;
        let left = margins.and_then(|margins| margins.get(index)).map(|nats| format!("{nats:.4}"));
        table.push([shown(name).to_string(), mean, std, distance, left.unwrap_or_default()]);
    }
    aligned(&table)
}

fn training(record: &TrainingRecord) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11}{value}");
    };
    let noise = record.data.noise.map(|noise| format!(", noise {noise}")).unwrap_or_default();
    line("data", format!("{}: {} rows{noise}", shown(&record.data.name), grouped(record.data.rows as u64)));
    line("recipe", describe_recipe(&record.recipe));
    line("device", format!("{}, moonflow {}", shown(&record.device), shown(&record.moonflow)));
    let best = record.best_epoch.map(|epoch| format!(", parameters of epoch {epoch}")).unwrap_or_default();
    line("training", format!("{} after {} epochs{best}", record.outcome, record.epochs));
    if record.skipped_steps > 0 || record.rollbacks > 0 {
        line("health", format!("{} steps skipped, {} rollbacks", record.skipped_steps, record.rollbacks));
    }
    if let Some(nll) = record.train_nll {
        line("train", format!("NLL {nll:.4} nats"));
    }
    if let Some(nll) = record.validation_nll {
        line("validation", format!("NLL {nll:.4} nats"));
    }
    if let Some(test) = &record.test {
        line("test", describe_rows(test, "test"));
    }
    if let Some(held_out) = &record.held_out {
        line("held out", describe_held_out(held_out));
    }
    text
}

/// A table with its columns aligned to the left, followed by an empty line.
fn aligned<const N: usize>(table: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in table {
        let line: String =
            std::iter::zip(row, widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_to_their_widest_cell() {
        let table = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&table), "a    bb\nccc  d\n\n");
    }
}
