//! What the default command makes of tables that are hard for a flow, such as those with values that many rows share.

use std::fs;
use std::path::Path;

use moonflow::cpu::CpuEngine;
use moonflow::data::Table;
use moonflow::model::{Engines, Ensemble, Finding};
use moonflow::random::normals;

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
    let ensemble = Ensemble::load(&folder.join("run/model.safetensors")).expect("a model");
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
        "many rows share a value: `slag` (0 in 40 % of the rows), `acid` (",
        "--margins kernel, in use here, keeps scores finite",
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
