//! Dequantised columns on any grid: probabilities of cells sum to 1, samples are the numbers that a person writes, and
//! the flag, the file and the notes say which grid it is.

use std::fs;

use moonflow::cpu::CpuEngine;
use moonflow::data::{Bounds, ColumnDomain, Dataset, Grid, Margins, PreprocessingPlan, Standardise, Table};
use moonflow::engine::Sampling;
use moonflow::model::{DataSource, Ensemble, Model, Recipe};
use moonflow::random::normals;
use moonflow::train::fit;

use crate::cli::{folder, moonflow, succeed, text, train};

const CENTS: Grid = Grid { step: 0.01, offset: 0.005 };

/// 600 rows: a price in cents from 0.005 on, of which there are seven, and a number that goes with it.
fn prices() -> Table {
    let row = |i: i32| {
        let cents = (i * i % 11 % 7) as f64;
        [(cents * 10.0 + 5.0) / 1000.0, (f64::from(i) * 0.7).sin() + 0.5 * cents]
    };
    Table {
        name: "t".into(),
        columns: ["price", "x"].map(String::from).into(),
        values: (0..600).flat_map(row).collect(),
    }
}

fn fitted(table: &Table, plan: &PreprocessingPlan) -> (Model, CpuEngine<f32>) {
    let recipe = Recipe { epochs: 15, batch: 64, layers: 4, hidden: vec![12], ..Recipe::default() };
    let dataset = Dataset::split_with(table, 0.1, 0, plan).expect("splits");
    assert_eq!(dataset.clone().into_table().0, *table, "noise leaves without a trace");
    let source = DataSource { name: "t".into(), noise: None, toy: false, rows: table.rows() };
    let mut engine = CpuEngine::<f32>::new(recipe.flow_over(&dataset).expect("valid")).expect("made");
    let model =
        pollster::block_on(fit(&mut engine, &dataset, &recipe, source, &mut ())).expect("trains").model;
    (model, engine)
}

#[test]
fn probabilities_of_cells_sum_to_1_and_samples_are_decimal_numbers() {
    let bounds = Some(Bounds { low: Some(0.005), high: Some(0.065) });
    for (bounds, margins, standardise) in [
        (None, Margins::None, Standardise::Mean),
        (bounds, Margins::None, Standardise::Whiten),
        (bounds, Margins::Johnson, Standardise::Mean),
        (bounds, Margins::Kernel, Standardise::Mean),
    ] {
        let domains = vec![
            ColumnDomain { grid: Some(CENTS), bounds, ..ColumnDomain::default() },
            ColumnDomain::default(),
        ];
        let plan = PreprocessingPlan { domains, margins, standardise, ..PreprocessingPlan::default() };
        let (model, mut engine) = fitted(&prices(), &plan);
        // Kernel densities have detail of a fraction of a deviation.
        let (cells, reach) = (if margins == Margins::Kernel { 3000 } else { 600 }, 12.0);
        let step = 2.0 * reach / f64::from(cells);
        let prices: Vec<f64> =
            (if bounds.is_some() { 0..7 } else { -10..18 }).map(|k| f64::from(10 * k + 5) / 1000.0).collect();
        let rows: Vec<f64> = prices
            .iter()
            .flat_map(|&price| (0..cells).flat_map(move |i| [price, (f64::from(i) + 0.5) * step - reach]))
            .collect();
        let log_prob = pollster::block_on(model.log_prob(&mut engine, &rows)).expect("scores");
        let mass: Vec<f64> = log_prob
            .chunks(cells as usize)
            .map(|cell| cell.iter().map(|value| value.exp() * step).sum())
            .collect();
        let sum: f64 = mass.iter().sum();
        assert!((sum - 1.0).abs() < 2e-3, "{margins:?} {standardise:?}: Σ P = {sum}");
        let off = pollster::block_on(model.log_prob(&mut engine, &[0.01, 0.0])).expect("scores");
        assert_eq!(off, [f64::NEG_INFINITY], "between two values there is nothing");

        let sampling = Sampling { rows: 4000, first: 0, seed: 1, temperature: 1.0 };
        let samples = pollster::block_on(model.sample(&mut engine, sampling)).expect("samples");
        for (price, want) in prices.iter().zip(&mass) {
            let count = samples.chunks(2).filter(|row| row[0] == *price).count();
            let error = (want * (1.0 - want) / 4000.0).max(0.0).sqrt();
            let share = count as f64 / 4000.0;
            assert!(
                (share - want).abs() < 5.0 * error + 2e-3,
                "{margins:?}: {price}: {share}, expected {want}"
            );
        }
        let known = samples.chunks(2).filter(|row| prices.contains(&row[0])).count();
        assert!(known > 3900, "{known} of 4000 samples are cents as they are written");
        assert!(bounds.is_none() || known == 4000, "{known}");
    }
}

/// 2,000 rows of an amount in cents, lognormal with some hundreds more than once, and a number that goes with it.
fn amounts() -> Table {
    let row = |row: u32| {
        let mut noise = [0.0; 2];
        normals(row, 6, &mut noise);
        let [a, b] = noise.map(f64::from);
        let amount = if row.is_multiple_of(9) { 20.0 } else { 20.0 * (0.8 * a).exp() };
        [(100.0 * amount).round() / 100.0, amount.ln() + 0.5 * b]
    };
    let columns = ["amount", "x"].map(String::from).into();
    Table { name: "t".into(), columns, values: (0..2000).flat_map(row).collect() }
}

#[test]
fn a_cell_of_thousands_has_the_integral_of_its_density() {
    const PARTS: u32 = 100;
    let grid = Grid { step: 0.01, offset: 0.0 };
    for margins in [Margins::None, Margins::Kernel] {
        let domains =
            vec![ColumnDomain { grid: Some(grid), ..ColumnDomain::default() }, ColumnDomain::default()];
        let plan = PreprocessingPlan { domains, margins, ..PreprocessingPlan::default() };
        let (model, mut engine) = fitted(&amounts(), &plan);
        let rows = &amounts().values[..600];
        let log_prob = pollster::block_on(model.log_prob(&mut engine, rows)).expect("scores");
        let place =
            |row: &[f64], part: u32| [row[0] + 0.01 * (f64::from(part) + 0.5) / f64::from(PARTS), row[1]];
        let parts: Vec<f64> =
            rows.chunks(2).flat_map(|row| (0..PARTS).flat_map(move |part| place(row, part))).collect();
        let density = pollster::block_on(model.log_density(&mut engine, &parts)).expect("scores");
        let mut errors = Vec::new();
        for (cell, log_prob) in density.chunks(PARTS as usize).zip(log_prob) {
            let mean = cell.iter().map(|value| value.exp()).sum::<f64>() / f64::from(PARTS);
            errors.push((log_prob - (0.01 * mean).ln()).abs());
        }
        errors.sort_by(f64::total_cmp);
        // Single precision of a density is 1e-5 or so.
        assert!(errors[150] < 5e-5 && errors[299] < 1e-3, "{margins:?}: {:?}", &errors[290..]);
    }
}

#[test]
fn the_middle_of_a_cell_is_its_latent_value() {
    let domains = vec![
        ColumnDomain { grid: Some(CENTS), bounds: None, ..ColumnDomain::default() },
        ColumnDomain::default(),
    ];
    let (model, mut engine) =
        fitted(&prices(), &PreprocessingPlan { domains, ..PreprocessingPlan::default() });
    let of_cell = pollster::block_on(model.latent(&mut engine, &[0.035, 1.0])).expect("latent");
    let of_middle = pollster::block_on(model.latent_of_noisy(&mut engine, &[0.04, 1.0])).expect("latent");
    assert_eq!(of_cell, of_middle);
}

/// A price in steps of 0.05 from 0.025 on, a count, a smooth number and a rounded one.
fn written() -> String {
    let rows: String = (0..300)
        .map(|i| {
            let t = f64::from(i) * 0.7;
            let (price, rounded) =
                (f64::from(5 * (i * i % 13)) / 100.0 + 0.025, (t.sin() * 20.0).round() / 10.0);
            format!("{price:.3},{},{},{rounded}\n", i % 4, t.cos().exp())
        })
        .collect();
    format!("price,count,smooth,rounded\n{rows}")
}

#[test]
fn steps_reach_the_model_from_the_command_line_and_repeat_from_the_configuration() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), written()).expect("written");
    let output =
        moonflow(path, &["train", "t.csv", "--out", "p", "--epochs", "1", "--layers", "2", "--hidden", "4"]);
    let notes = text(&output.stderr);
    assert!(notes.contains("--dequantize price=0.05,rounded=0.1 gives them probabilities"), "{notes}");

    train(path, "t.csv", "o", &["--dequantize", "count,price=0.05,rounded=0.1"]);
    train(path, "t.csv", "auto", &["--dequantize", "auto"]);
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in ["format version 7", "dequantised, steps of 0.05 from 0.025", "dequantised, steps of 0.1\n"] {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    let json = succeed(path, &["info", "o/model.safetensors", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let grid = |column: usize| json["columns"][column]["steps"]["dequantize"].clone();
    assert_eq!([grid(0), grid(1)], [serde_json::json!({"step": 0.05, "offset": 0.025}), true.into()]);
    let load = |name: &str| Model::load(path.join(name).join("model.safetensors")).expect("whole");
    assert_eq!(load("o").preprocessing, load("auto").preprocessing, "the values tell the same");
    assert_eq!(load("o").parameters, load("auto").parameters);
    let config = fs::read_to_string(path.join("auto/config.toml")).expect("written");
    assert!(config.contains("dequantize = \"auto\""), "{config}");
    succeed(path, &["train", "--config", "auto/config.toml", "--out", "again"]);
    let file = |name: &str| fs::read(path.join(name).join("model.safetensors")).expect("written");
    assert!(file("auto") == file("again"), "the configuration repeats it");

    let cpu = ["--model", "o/model.safetensors", "--device", "cpu"];
    let samples = succeed(path, &[&["sample", "-n", "200"][..], &cpu].concat());
    for line in samples.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let decimals = |cell: &str| cell.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert!(decimals(cells[0]) == 3 && decimals(cells[1]) == 1 && decimals(cells[3]) <= 1, "{line}");
    }
    fs::write(path.join("s.csv"), "price,count,smooth,rounded\n0.125,1,1,0.3\n0.15,1,1,0.3\n")
        .expect("written");
    let output = moonflow(path, &[&["score", "s.csv"][..], &cpu].concat());
    let (scores, notes) = (text(&output.stdout), text(&output.stderr));
    assert!(
        scores.lines().nth(1).is_some_and(|cell| cell.parse::<f64>().is_ok_and(f64::is_finite)),
        "{scores}"
    );
    assert_eq!(scores.lines().nth(2), Some("-inf"));
    assert!(
        notes.contains("1 of 2 rows lie outside of the model's bounds, or between the values"),
        "{notes}"
    );
}

#[test]
fn what_lies_off_a_grid_is_refused_with_its_place_and_notes_name_grids() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), written()).expect("written");
    for (flags, status, want) in [
        (
            &["--dequantize", "rounded=0.25"][..],
            1,
            "column `rounded`: 1.3 does not lie on the column's grid, steps of 0.25",
        ),
        (&["--dequantize", "smooth=0.01"], 1, "t.csv: line 3, column `smooth`: 2.1"),
        (&["--dequantize", "pirce=0.05"], 1, "there is no column `pirce`; did you mean `price`?"),
        (&["--dequantize", "price=0"], 2, "`0` is no step of column `price`"),
        (
            &["--dequantize", "price=0.05", "--bounds", "price=0.025:0.7"],
            2,
            "must lie on the column's grid, steps of 0.05 from 0.025",
        ),
        (&["--dequantize", "price=0.05", "--context", "price"], 2, "cannot be dequantised"),
    ] {
        let output = moonflow(path, &[&["train", "t.csv", "--out", "no"], flags].concat());
        let message = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            message.contains(want) && !message.contains("panicked"),
            "{flags:?}: `{want}` not in: {message}"
        );
        assert_eq!(output.status.code(), Some(status), "{flags:?}: {message}");
    }
    assert!(!path.join("no").exists(), "nothing may be written");
    let small = ["--epochs", "1", "--layers", "2", "--hidden", "4", "--ensemble", "2"];
    let output =
        moonflow(path, &[&["train", "t.csv", "--out", "e", "--dequantize", "auto"], &small[..]].concat());
    let notes = text(&output.stderr);
    let want = "note: dequantised: `price` in steps of 0.05 from 0.025, `count` in steps of 1, `rounded` in steps of 0.1";
    assert!(notes.contains(want) && !notes.contains("many rows share a value:"), "{notes}");
    let ensemble = Ensemble::load(path.join("e/model.safetensors")).expect("whole");
    assert_eq!((ensemble.members().len(), ensemble.format_version()), (2, 7));
    let output =
        moonflow(path, &["train", "--dequantize", "auto", "--epochs", "1", "--layers", "2", "--out", "m"]);
    assert!(text(&output.stderr).contains("finds no other column"), "{}", text(&output.stderr));
}
