//! What the commands say of a table's categories, and the training of a table that has nothing else.

use moonflow::data::TableColumn;
use moonflow::model::discrete::{Discrete, Link};
use moonflow::model::{Engines, Recipe, TableModel};
use moonflow::shown::{shown, shown_list};
use moonflow::train::CategoryFit;
use moonflow::{Error, Result};
use serde_json::{Value, json};

use super::config::Resolved;
use super::folder::Files;
use super::info::{describe_columns, describe_rows};
use super::output::{self, grouped};
use super::progress::LogFormat;
use super::results::Results;
use super::train::{Data, TrainArgs};

/// Fits and writes the model of a table whose modelled columns are all categories: there is no flow to train.
///
/// # Errors
/// [`Error::Argument`] for options that only a flow has a use for; those of files.
pub fn run(
    args: &TrainArgs,
    recipe: &Recipe,
    mut files: Files,
    resolved: &Resolved<'_>,
    data: &Data,
) -> Result<()> {
    if args.is_resumed() || args.is_searched() || args.animated().is_some() {
        return Err(Error::Argument(
            "every modelled column is a category, so that there is no flow: --resume, --search and --animate have nothing to do"
                .into(),
        ));
    }
    files.prepare()?;
    let say = |line: String| {
        if args.log_format == LogFormat::Text {
            output::say(line);
        }
    };
    let CategoryFit { columns, context, .. } = &data.categories;
    say(format!(
        "data     {}: {} rows, columns {}",
        shown(&data.record.name),
        grouped(data.record.rows as u64),
        describe_columns(columns, *context)
    ));
    let mut model = data.categories.model(None, recipe, &data.record)?;
    if let Some(test) = &data.test {
        // Categories need no engine.
        let mut engines = Engines::<moonflow::device::AnyEngine>::of_each(Vec::new());
        let test = pollster::block_on(model.held_out(&mut engines, &test.values))?;
        model.record_mut().test = Some(test);
    }
    describe_losses(&data.categories).into_iter().for_each(&say);
    if let Some(test) = &model.record().test {
        say(format!("test     {}", describe_rows(test, "test")));
    }
    let mut results = Results::default();
    results.add_model(&files.model, &model);
    results.add(&files.config, true, resolved.write(&files.config));
    results.lines().for_each(&say);
    if args.log_format == LogFormat::Json {
        output::say_json(&json!({
            "event": "end", "record": output::as_json(model.record()), "model": results.path(&files.model),
            "config": results.path(&files.config), "not_written": results.missing(),
        }));
    }
    results.finish()
}

/// The loss of the categories in a line, where some are modelled.
pub fn describe_losses(fit: &CategoryFit) -> Option<String> {
    fit.discrete.as_ref()?;
    let losses = ["training", "validation"].into_iter().zip(fit.nll);
    let losses = losses.filter_map(|(name, nll)| Some(format!("{name} NLL {:.4} nats", nll?)));
    let losses: Vec<String> = losses.collect();
    Some(format!("classes  {}: {}", shown_list(&modelled(&fit.columns, fit.context)), losses.join(", ")))
}

/// Names of the modelled categories, and of the numbers that have atoms.
fn modelled(columns: &[TableColumn], context: usize) -> Vec<&String> {
    let modelled = columns[..columns.len() - context].iter();
    let is_discrete = |column: &&TableColumn| column.levels().is_some() || !column.atoms.is_empty();
    modelled.filter(is_discrete).map(|column| &column.name).collect()
}

/// The table's columns for a person, where there are categories; each with its levels, and what its probability depends on.
pub fn describe(model: &TableModel) -> String {
    let mut text = String::new();
    for (place, column) in model.columns().iter().enumerate() {
        let (what, values) = match column.levels() {
            Some(levels) => ("category", levels.names().to_vec()),
            None => ("atoms", column.atoms.iter().map(f64::to_string).collect()),
        };
        if values.is_empty() {
            continue;
        }
        let depends = model.categories().and_then(|discrete| depends_on(model, discrete, place));
        let role = match depends {
            _ if place >= model.columns().len() - model.context() => "given".to_owned(),
            Some(others) if others.is_empty() => "modelled by itself".to_owned(),
            Some(others) => format!("modelled given {}", shown_list(&others)),
            None => "modelled".to_owned(),
        };
        text += &format!("{what:<11}{}: {}, {role}\n", shown(&column.name), shown_list(&values));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Names of the columns on which the probability of the category at `place` depends.
fn depends_on(model: &TableModel, discrete: &Discrete, place: usize) -> Option<Vec<String>> {
    let encoding = model.encoding();
    let all: Vec<usize> = encoding.modelled_categories().chain(encoding.given_categories()).collect();
    let variable = encoding.modelled_categories().position(|category| category == place)?;
    let places: Vec<usize> = match discrete.links().get(variable)? {
        Link::Table(table) => table.parents().iter().map(|&parent| all[parent]).collect(),
        _ => {
            let before = all[..variable].iter().chain(&all[discrete.modelled()..]);
            before.chain(encoding.given_numbers()).copied().collect()
        }
    };
    Some(places.into_iter().map(|place| model.columns()[place].name.clone()).collect())
}

/// The table's columns for a program.
pub fn columns_as_json(model: &TableModel) -> Value {
    let given = model.columns().len() - model.context();
    let column = |(place, column): (usize, &TableColumn)| {
        let levels = column.levels().map(moonflow::data::Levels::names);
        let kind = match column.levels() {
            Some(levels) if levels.is_truth() => "truth",
            Some(_) => "category",
            None => "number",
        };
        json!({ "name": column.name, "kind": kind, "levels": levels, "atoms": column.atoms, "given": place >= given })
    };
    model.columns().iter().enumerate().map(column).collect()
}
