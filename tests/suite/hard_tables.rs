//! What the default command makes of tables that are hard for a flow: values that many rows share, and modes apart from
//! each other.

use std::fs;
use std::path::Path;

use moonflow::cpu::CpuEngine;
use moonflow::data::{Dataset, Table};
use moonflow::model::{DataSource, Engines, Ensemble, Finding, Model, Recipe};
use moonflow::random::{Permutation, Stream, normals};
use moonflow::train::fit;

use super::cli::{folder, moonflow, text};

/// `count` independent standard normal numbers of row `row`.
fn noise(row: u32, count: usize) -> Vec<f64> {
    let mut noise = vec![0.0f32; count];
    normals(row, 9, &mut noise);
    noise.into_iter().map(f64::from).collect()
}

fn written(path: &Path, columns: &str, rows: &[Vec<f64>]) {
    let line = |row: &Vec<f64>| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let rows: Vec<String> = rows.iter().map(line).collect();
    fs::write(path, format!("{columns}\n{}\n", rows.join("\n"))).expect("written");
}

/// What `train` says, on both streams, of `t.csv` with the default recipe and `flags`.
fn train(folder: &Path, flags: &[&str]) -> String {
    let output = moonflow(folder, &[&["train", "t.csv", "--device", "cpu", "--out", "run"], flags].concat());
    assert!(output.status.success(), "{output:?}");
    text(&output.stderr) + &text(&output.stdout)
}

fn scores(folder: &Path, rows: &[f64]) -> (Ensemble, Vec<f64>) {
    let ensemble = Ensemble::load(folder.join("run/model.safetensors")).expect("a model");
    let log_prob = pollster::block_on(async {
        let mut engines = Engines::new(&ensemble, async |flow| CpuEngine::<f32>::new(flow)).await?;
        ensemble.log_prob(&mut engines, rows).await
    });
    let log_prob = log_prob.expect("scores");
    (ensemble, log_prob)
}

/// Lowest log-density of `rows` [N, D] under independent normals with mean and deviation of `train`.
fn lowest_of_gaussian(train: &Table, rows: &[f64]) -> f64 {
    let features = train.features();
    let column = |feature: usize| train.values[feature..].iter().step_by(features);
    let statistics: Vec<[f64; 2]> = (0..features)
        .map(|feature| {
            let mean = column(feature).sum::<f64>() / train.rows() as f64;
            let squares = column(feature).map(|value| (value - mean).powi(2)).sum::<f64>();
            [mean, (squares / train.rows() as f64).sqrt()]
        })
        .collect();
    let log_density = |row: &[f64]| {
        let terms = row.iter().zip(&statistics).map(|(value, [mean, std])| {
            -0.5 * ((value - mean) / std).powi(2) - std.ln() - 0.5 * std::f64::consts::TAU.ln()
        });
        terms.sum::<f64>()
    };
    rows.chunks_exact(features).map(log_density).fold(f64::INFINITY, f64::min)
}

/// Mean of −log p that the trained model gives to `rows` [N, D].
fn loss(folder: &Path, rows: &[f64]) -> f64 {
    let (_, log_prob) = scores(folder, rows);
    -log_prob.iter().sum::<f64>() / log_prob.len() as f64
}

/// log of the density at `x` of two normals of deviation 0.5 at `centre` ± 3, in equal shares.
fn two_modes(x: f64, centre: f64) -> f64 {
    let normal = |mean: f64| (-2.0 * (x - mean).powi(2)).exp() / (0.5 * std::f64::consts::TAU.sqrt());
    (0.5 * (normal(centre - 3.0) + normal(centre + 3.0))).ln()
}

#[test]
fn a_table_of_one_column_is_fitted_to_its_shape() {
    // Values that follow a distribution function backwards, as evenly as one over the golden ratio spreads them.
    let uniform = |row: u32| ((f64::from(row) + 0.5) * 0.618_033_988_749_894_9).fract();
    let modes = |row: u32| 0.5 * noise(row, 1)[0] + if row.is_multiple_of(2) { 3.0 } else { -3.0 };
    type Shape<'a> = (&'a str, &'a dyn Fn(u32) -> f64, &'a dyn Fn(f64) -> f64);
    let truths: [Shape<'_>; 3] = [
        ("bimodal", &modes, &|x| two_modes(x, 0.0)),
        ("exponential", &|row| -uniform(row).ln(), &|x| -x),
        ("uniform", &uniform, &|_| 0.0),
    ];
    for (name, draw, log_density) in truths {
        let folder = folder();
        let rows: Vec<Vec<f64>> = (0..1500).map(|row| vec![draw(row)]).collect();
        written(&folder.path().join("t.csv"), "x", &rows);
        let said = train(folder.path(), &["--ensemble", "2", "--epochs", "25"]);
        assert!(said.contains("over 1 feature:") && !said.contains("warning"), "{said}");
        let fresh: Vec<f64> = (1500..4500).map(draw).collect();
        let truth = -fresh.iter().map(|&x| log_density(x)).sum::<f64>() / fresh.len() as f64;
        let loss = loss(folder.path(), &fresh);
        assert!((loss - truth).abs() < 0.05, "{name}: {loss}, expected {truth}");
        for command in [&["info"][..], &["plot", "--model"]] {
            let output = moonflow(folder.path(), &[command, &["run/model.safetensors"]].concat());
            assert!(output.status.success(), "{command:?}: {output:?}");
        }
        let output = moonflow(folder.path(), &["sample", "--model", "run/model.safetensors", "-n", "9"]);
        assert_eq!(text(&output.stdout).lines().count(), 10, "{output:?}");
    }
}

#[test]
fn one_column_given_a_context_may_have_modes_that_move_with_it() {
    let folder = folder();
    let row = |row: u32| {
        let y = noise(row, 2);
        let sign = if row.is_multiple_of(2) { 3.0 } else { -3.0 };
        vec![2.0 * y[1] + sign + 0.5 * y[0], y[1]]
    };
    let rows: Vec<Vec<f64>> = (0..3000).map(row).collect();
    written(&folder.path().join("t.csv"), "x,c", &rows);
    train(folder.path(), &["--context", "c", "--ensemble", "2"]);
    let fresh: Vec<f64> = (3000..6000).flat_map(row).collect();
    let truth: f64 = fresh.chunks(2).map(|row| -two_modes(row[0], 2.0 * row[1])).sum::<f64>() / 3000.0;
    let loss = loss(folder.path(), &fresh);
    assert!((loss - truth).abs() < 0.05, "{loss}, expected {truth}");
}

#[test]
fn a_row_far_out_costs_the_others_nothing_and_is_named() {
    let row = |row: u32| {
        let y = noise(row, 2);
        vec![y[0], 0.6 * y[0] + 0.8 * y[1]]
    };
    let clean: Vec<Vec<f64>> = (0..1000).map(row).collect();
    let fresh: Vec<f64> = (1000..3000).flat_map(row).collect();
    let folder = folder();
    let loss_with = |far: Option<usize>, flags: &[&str]| {
        let mut rows = clean.clone();
        if let Some(far) = far {
            rows[far][0] = 1e12;
        }
        written(&folder.path().join("t.csv"), "x,y", &rows);
        let said = train(folder.path(), flags);
        let named = far.map(|far| format!("line {} has 1e12 in `x`", far + 2));
        assert!(named.is_none_or(|named| said.contains(&named)), "{said}");
        (loss(folder.path(), &fresh), said)
    };
    let small = ["--epochs", "8", "--layers", "4", "--hidden", "16"];
    let members = || {
        let model = Ensemble::load(folder.path().join("run/model.safetensors")).expect("a model");
        model.members().to_vec()
    };
    let validation_loss = || -> Vec<f64> {
        members().iter().map(|member| member.record.validation_nll.expect("validated")).collect()
    };
    let few = [&["--ensemble", "2"][..], &small].concat();
    let (without, _) = loss_with(None, &few);
    let clean_validation = validation_loss();
    let seeds: Vec<u64> = members().iter().map(|member| member.record.recipe.seed).collect();
    let validates = |row: usize, seed: u64| {
        Permutation::new(clean.len() as u32, seed, Stream::Split, 0).place(row as u32) < 100
    };
    let row = |wanted: [bool; 2]| {
        (0..clean.len()).find(|&row| [0, 1].map(|fit| validates(row, seeds[fit])) == wanted).expect("a row")
    };
    // A validation row of the first fit, and a row that both train on.
    let rows_far = [row([true, false]), row([false, false])];
    for far in rows_far {
        let (with, _) = loss_with(Some(far), &few);
        assert!((with - without).abs() < 0.05, "row {far}: {with}, {without} without it");
        // As a validation row of one of the fits it decides nothing either.
        for (with, without) in validation_loss().into_iter().zip(&clean_validation) {
            assert!((with - without).abs() < 0.3, "row {far}: {with}, {without} without it");
        }
    }
    // Without margins nothing brings the row near: it is left out of scales and losses.
    for flags in [&["--preset", "realnvp"][..], &["--margins", "none", "--ensemble", "1"]] {
        let flags = [flags, &small].concat();
        let (without, _) = loss_with(None, &flags);
        for far in rows_far {
            let (with, said) = loss_with(Some(far), &flags);
            assert!((with - without).abs() < 0.05, "{flags:?} row {far}: {with}, {without} without it");
            assert!(said.contains("counts nothing") && !said.contains("decide it"), "{said}");
        }
    }
}

#[test]
fn rows_far_out_are_named_by_their_lines_whatever_is_left_out_before_them() {
    let row = |row: u32| noise(row, 2);
    let lines = |row_number: u32| match row_number {
        5 | 9 => ",1\n".to_owned(),
        40 => "1e12,0.5\n".to_owned(),
        _ => format!("{},{}\n", row(row_number)[0], row(row_number)[1]),
    };
    let folder = folder();
    let csv = "x,y\n".to_owned() + &(0..200).map(lines).collect::<String>();
    fs::write(folder.path().join("t.csv"), csv).expect("written");
    let flags = ["--missing", "drop", "--preset", "realnvp", "--epochs", "1", "--layers", "1"];
    // Seeds under which it is kept for the test, and not.
    let said = ["0", "1", "2"].map(|seed| {
        train(folder.path(), &[&flags[..], &["--test-fraction", "0.5", "--seed", seed]].concat())
    });
    let named = said.iter().filter(|said| said.contains("line 42 has 1e12 in `x`")).count();
    let far = said.iter().filter(|said| said.contains("far from all others")).count();
    assert!(named > 0 && named == far, "{said:?}");
}

#[test]
fn a_validation_row_far_out_does_not_choose_the_best_epoch() {
    let values = |row: u32| noise(row, 2);
    let table = Table {
        name: "t".into(),
        columns: vec!["x".into(), "y".into()],
        values: (0..400).flat_map(values).collect(),
    };
    let recipe = Recipe { epochs: 6, layers: 2, hidden: vec![8], ..Recipe::default() };
    let fitted = |dataset: &Dataset| {
        let source = DataSource { name: "t".into(), noise: None, toy: false, rows: 400 };
        let mut engine = CpuEngine::<f32>::new(recipe.flow_over(dataset).expect("valid")).expect("made");
        pollster::block_on(fit(&mut engine, dataset, &recipe, source, &mut ())).expect("trains").model
    };
    let dataset = Dataset::split(&table, 0.1, 0).expect("splits");
    let clean = fitted(&dataset);
    let mut with_far = table.clone();
    let of_validation = table.values.iter().position(|value| *value == dataset.validation[0]);
    with_far.values[of_validation.expect("a row of the table")] = 1e12;
    let dataset = Dataset::split(&with_far, 0.1, 0).expect("splits");
    assert_eq!(dataset.left_out(), [vec![], vec![0]]);
    let far = fitted(&dataset);
    let check = far.record.check.as_ref().expect("checked");
    assert!(!check.findings.iter().any(|finding| matches!(finding, Finding::FarRows { .. })), "{check:?}");
    let median = |model: &Model| model.record.check.as_ref().and_then(|check| check.validation_median);
    assert!((median(&far).expect("rows") - median(&clean).expect("rows")).abs() < 0.1);
    assert_eq!(far.record.best_epoch, clean.record.best_epoch);
    let [far, clean] = [far, clean].map(|model| model.record.validation_nll.expect("validated"));
    assert!((far - clean).abs() < 0.1, "{far}, {clean} of all rows without the far one");
}

#[test]
fn rows_beside_shared_values_keep_their_density_and_their_columns_are_named() {
    let folder = folder();
    let row = |row: u32| {
        let y = noise(row, 4);
        let slag = if row % 5 < 2 { 0.0 } else { 100.0 + 30.0 * y[0] + 10.0 * y[1] };
        let acid = ((7.0 + y[1]) * 10.0).round() / 10.0;
        let age = [3.0, 7.0, 28.0, 90.0][(row * 7 % 11 % 4) as usize];
        vec![slag, acid, age, 30.0 + 0.05 * slag + 5.0 * y[2]]
    };
    let all: Vec<Vec<f64>> = (0..660).map(row).collect();
    written(&folder.path().join("t.csv"), "slag,acid,age,strength", &all[..600]);
    let said = train(folder.path(), &["--ensemble", "2", "--epochs", "15"]);
    for part in [
        "whole numbers only: `age` (4 different)",
        "--dequantize age models them as counts",
        "values in steps: `acid` (",
        "--dequantize acid=0.1 gives them probabilities",
        "values that stand out of others: `slag` (0 in 40 % of the rows). A density",
        "suspicious: many rows share a value, where a density grows without end: slag (0 in ",
    ] {
        assert!(said.contains(part), "`{part}` is not in {said}");
    }
    assert!(!said.contains("strength ("), "{said}");

    // Held-out rows, and the same beside their grid: no value of these is a training row's.
    let held_out: Vec<f64> = all[600..].concat();
    let beside =
        held_out.chunks_exact(4).flat_map(|row| [row[0] + 0.37, row[1] + 0.043, row[2] + 0.4, row[3]]);
    let rows: Vec<f64> = held_out.iter().copied().chain(beside).collect();
    let (ensemble, log_prob) = scores(folder.path(), &rows);
    let table = Table::read(&folder.path().join("t.csv")).expect("a table");
    let least = lowest_of_gaussian(&table, &rows);
    let lowest = log_prob.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(lowest > least - 40.0, "{lowest} where a Gaussian has {least}");
    let findings = &ensemble.record().check.as_ref().expect("a check").findings;
    let Some(Finding::SharedValues { columns }) = findings.first() else { panic!("{findings:?}") };
    let found: Vec<(usize, bool)> =
        columns.iter().map(|column| (column.feature, column.shared.whole)).collect();
    assert_eq!(found, [(0, false), (1, false), (2, true)]);
}

/// Flags of small fits.
const SMALL: [&str; 8] = ["--ensemble", "2", "--epochs", "5", "--layers", "4", "--hidden", "16"];

/// `count` rows of `centres` in turns as `turns` has them, with unit normal noise around them; the noise is of `first` on.
fn modes(centres: &[Vec<f64>], turns: &[usize], first: u32, count: u32) -> Vec<Vec<f64>> {
    let row = |row: u32| {
        let centre = &centres[turns[row as usize % turns.len()]];
        noise(row, centre.len()).iter().zip(centre).map(|(noise, centre)| noise + centre).collect()
    };
    (first..first + count).map(row).collect()
}

fn samples(folder: &Path, count: &str) -> Table {
    let output = moonflow(
        folder,
        &["sample", "--model", "run/model.safetensors", "-n", count, "--device", "cpu", "--out", "s.csv"],
    );
    assert!(output.status.success(), "{output:?}");
    Table::read(&folder.join("s.csv")).expect("samples")
}

#[test]
fn two_modes_far_apart_keep_their_shares_and_nothing_lies_between() {
    let folder = folder();
    let centres = [vec![-8.0, 0.0], vec![8.0, 0.0]];
    written(&folder.path().join("t.csv"), "a,b", &modes(&centres, &[0, 0, 1, 0], 0, 1000));
    let said = train(folder.path(), &SMALL);
    assert!(said.contains("the rows fall into groups far apart, 2 or more"), "{said}");
    assert!(said.contains("average of 2 fits with 5, 10 Gaussians"), "{said}");
    let samples = samples(folder.path(), "20000");
    let share = |within: fn(f64) -> bool| {
        let column = samples.values.iter().step_by(2);
        column.filter(|value| within(**value)).count() as f64 / samples.rows() as f64
    };
    let (right, between) = (share(|value| value > 0.0), share(|value| value.abs() < 4.0));
    assert!((right - 0.25).abs() < 0.01 && between <= 0.001, "{right} on the right, {between} between");
    let config = fs::read_to_string(folder.path().join("run/config.toml")).expect("written");
    for part in ["margins = \"none\"", "components = [5, 10]"] {
        assert!(config.contains(part), "`{part}` is not in {config}");
    }

    // A flag decides.
    for flags in [["--margins", "kernel"], ["--components", "1"]] {
        let said = train(folder.path(), &[&["--ensemble", "1", "--epochs", "1"][..], &flags].concat());
        assert!(!said.contains("groups far apart"), "{said}");
    }
}

#[test]
fn four_modes_in_eight_dimensions_are_learnt_to_their_density() {
    let folder = folder();
    // Some columns tell two modes apart by little.
    let place = |mode: u32, column: u32| f64::from((mode * 17 + column * 11 + mode * column * 7) % 41);
    let centres: Vec<Vec<f64>> =
        (0..4).map(|mode| (0..8).map(|column| place(mode, column)).collect()).collect();
    let turns = [0, 1, 2, 3];
    written(&folder.path().join("t.csv"), "a,b,c,d,e,f,g,h", &modes(&centres, &turns, 0, 1200));
    let said = train(folder.path(), &SMALL);
    assert!(said.contains("the rows fall into groups far apart, 4 or more"), "{said}");
    let unseen = modes(&centres, &turns, 1200, 1000).concat();
    let truth = |row: &[f64]| {
        let density = |centre: &Vec<f64>| {
            let squares = row.iter().zip(centre).map(|(x, c)| (x - c).powi(2)).sum::<f64>();
            0.25 * (-0.5 * squares).exp()
        };
        centres.iter().map(density).sum::<f64>().ln() - 4.0 * std::f64::consts::TAU.ln()
    };
    let truth = unseen.chunks_exact(8).map(truth).sum::<f64>() / 1000.0;
    let (_, log_prob) = scores(folder.path(), &unseen);
    let mean = log_prob.iter().sum::<f64>() / 1000.0;
    // Mixtures of five and ten Gaussians have 224 and 449 numbers, each of which costs some 1/2,400 nats.
    assert!(truth - mean < 0.25, "{mean} for {truth}");
}
