//! Preprocessing from end to end: a model's mass is 1 in the user's units, whole numbers stay whole, nothing lies
//! outside of bounds, and the file keeps all of it.

use std::fs;

use moonflow::Error;
use moonflow::cpu::CpuEngine;
use moonflow::data::{
    Bounds, ColumnDomain, Dataset, Grid, Johnson, Margins, PreprocessingPlan, Standardise, Table,
};
use moonflow::engine::Sampling;
use moonflow::model::{DataSource, Model, Recipe};
use moonflow::random;
use moonflow::train::fit;

use crate::cli::{folder, moonflow, succeed, text, train};

fn bounds(low: Option<f64>, high: Option<f64>) -> ColumnDomain {
    ColumnDomain { grid: None, bounds: Some(Bounds { low, high }), ..ColumnDomain::default() }
}

const WHOLE: ColumnDomain = ColumnDomain { grid: Some(Grid::WHOLE), bounds: None, indicator: false };

fn table(columns: &[&str], rows: impl Iterator<Item = Vec<f64>>) -> Table {
    let columns = columns.iter().map(|&name| name.to_owned()).collect();
    Table { name: "t".into(), columns, values: rows.flatten().collect() }
}

/// A few epochs of a narrow flow: enough for it to be no identity.
fn fitted(table: &Table, domains: Vec<ColumnDomain>, standardise: Standardise) -> (Model, CpuEngine<f32>) {
    fitted_by(table, &PreprocessingPlan { domains, standardise, ..Default::default() })
}

/// The same behind Johnson's curves.
fn bent(table: &Table, domains: Vec<ColumnDomain>, standardise: Standardise) -> (Model, CpuEngine<f32>) {
    let margins = Margins::Johnson;
    fitted_by(table, &PreprocessingPlan { domains, standardise, margins, ..Default::default() })
}

/// The same behind kernel densities.
fn kernel(table: &Table, domains: Vec<ColumnDomain>, standardise: Standardise) -> (Model, CpuEngine<f32>) {
    let margins = Margins::Kernel;
    fitted_by(table, &PreprocessingPlan { domains, standardise, margins, ..Default::default() })
}

fn fitted_by(table: &Table, plan: &PreprocessingPlan) -> (Model, CpuEngine<f32>) {
    let recipe = Recipe { epochs: 15, batch: 64, layers: 4, hidden: vec![12], ..Recipe::default() };
    let dataset = Dataset::split_with(table, 0.1, 0, plan).expect("splits");
    let source = DataSource { name: "t".into(), noise: None, toy: false, rows: table.rows() };
    let mut engine = CpuEngine::<f32>::new(recipe.flow_over(&dataset).expect("valid")).expect("made");
    let fitted = pollster::block_on(fit(&mut engine, &dataset, &recipe, source, &mut ())).expect("trains");
    let last = fitted.history.epochs.last().expect("epochs");
    assert!(last.train_nll < fitted.history.epochs[0].train_nll, "it learns");
    (fitted.model, engine)
}

fn scores((model, engine): &mut (Model, CpuEngine<f32>), rows: &[f64]) -> Vec<f64> {
    pollster::block_on(model.log_prob(engine, rows)).expect("scores")
}

/// A share, and a price that goes with it.
fn shares() -> Table {
    table(
        &["share", "price"],
        (0..600).map(|i| {
            let t = f64::from(i) * 0.7;
            let share = 0.5 + 0.45 * (t.sin() * 0.9 + 0.1 * (t * 3.1).cos());
            vec![share, (2.0 * share + 0.4 * (t * 1.7).sin()).exp()]
        }),
    )
}

#[test]
fn the_score_function_is_the_slope_of_log_p_in_the_users_units() {
    let domains = vec![bounds(Some(0.0), Some(1.0)), bounds(Some(0.0), None)];
    for (mut model, mut engine) in [
        fitted(&shares(), domains.clone(), Standardise::Robust),
        bent(&heavy_shares(), domains.clone(), Standardise::Mean),
        bent(&heavy_shares(), domains.clone(), Standardise::Whiten),
        kernel(&heavy_shares(), domains.clone(), Standardise::Robust),
    ] {
        let rows = [0.4, 1.5, 0.75, 3.0, 0.9, 0.7, 0.2, 2.0];
        let scores = pollster::block_on(model.score(&mut engine, &rows)).expect("scores");
        for (index, score) in scores.iter().enumerate() {
            let step = 2e-3;
            let mut at = |by: f64| {
                let mut rows = rows;
                rows[index] += by;
                pollster::block_on(model.log_density(&mut engine, &rows)).expect("scores")[index / 2]
            };
            let want = (at(step) - at(-step)) / (2.0 * step);
            // ReLU networks have kinks, and single precision has 7 digits.
            assert!(
                (score - want).abs() < 0.05 * want.abs().max(1.0),
                "{index}: {score}, differences {want}"
            );
        }
        let outside = pollster::block_on(model.score(&mut engine, &[1.5, 1.0])).expect("scores");
        assert!(outside.iter().all(|score| score.is_nan()), "{outside:?}");
        model.preprocessing.domains[0].grid = Some(Grid::WHOLE);
        let message = pollster::block_on(model.score(&mut engine, &rows)).expect_err("whole").to_string();
        assert!(message.contains("is dequantised"), "{message}");
    }
}

#[test]
fn a_bounded_models_mass_is_1_in_the_users_units_and_none_lies_outside() {
    let domains = vec![bounds(Some(0.0), Some(1.0)), bounds(Some(0.0), None)];
    for mut subject in [
        fitted(&shares(), domains.clone(), Standardise::Robust),
        bent(&heavy_shares(), domains.clone(), Standardise::Mean),
        bent(&heavy_shares(), domains.clone(), Standardise::Whiten),
    ] {
        assert!(!subject.0.preprocessing.curves.contains(&Johnson::IDENTITY));
        mass_is_1_and_none_lies_outside(&mut subject, 240);
    }
    // A kernel's density has detail of a fraction of a deviation.
    mass_is_1_and_none_lies_outside(&mut kernel(&heavy_shares(), domains, Standardise::Mean), 1200);
}

fn mass_is_1_and_none_lies_outside(subject: &mut (Model, CpuEngine<f32>), cells: usize) {
    // Midpoints of x = 1 / (1 + e^−a) and y = e^b, with dx = x (1 − x) da and dy = y db.
    let step = 32.0 / cells as f64;
    let places: Vec<f64> = (0..cells).map(|index| (index as f64 + 0.5) * step - 16.0).collect();
    let mut rows = Vec::new();
    for a in &places {
        for b in &places {
            rows.extend([1.0 / (1.0 + (-a).exp()), b.exp()]);
        }
    }
    let log_prob = scores(subject, &rows);
    let mass: f64 = rows
        .chunks(2)
        .zip(&log_prob)
        .map(|(row, log_prob)| log_prob.exp() * row[0] * (1.0 - row[0]) * row[1] * step * step)
        .sum();
    assert!((mass - 1.0).abs() < 2e-3, "mass {mass}");

    let outside = [-0.1, 1.0, 1.1, 1.0, 0.5, -1.0, 0.0, 1.0, 1.0, 1.0, 0.5, 1.0];
    let log_prob = scores(subject, &outside);
    assert!(log_prob[..5].iter().all(|&value| value == f64::NEG_INFINITY), "{log_prob:?}");
    assert!(log_prob[5].is_finite(), "{log_prob:?}");

    // At a high temperature the flow's tails reach the ends.
    let sampling = Sampling { rows: 5000, first: 0, seed: 1, temperature: 30.0 };
    let samples = pollster::block_on(subject.0.sample(&mut subject.1, sampling)).expect("samples");
    assert!(samples.chunks(2).all(|row| row[0] > 0.0 && row[0] < 1.0 && row[1] > 0.0));
    assert!(samples.chunks(2).any(|row| row[0] > 0.999) && samples.chunks(2).any(|row| row[0] < 0.001));
    let latent = pollster::block_on(subject.0.latent(&mut subject.1, &outside)).expect("latent");
    assert!(latent[0].is_nan() && latent[10].is_finite());
}

#[test]
fn scores_of_a_logged_column_are_those_of_its_logarithm_less_the_logarithm() {
    let plain = shares();
    let mut logged = plain.clone();
    logged.values.chunks_mut(2).for_each(|row| row[1] = row[1].ln());
    let mut with_step =
        fitted(&plain, vec![ColumnDomain::default(), bounds(Some(0.0), None)], Standardise::Mean);
    let mut by_hand = fitted(&logged, Vec::new(), Standardise::Mean);
    // Equal standardised rows, so equal trainings.
    assert_eq!(with_step.0.parameters, by_hand.0.parameters);
    let (got, want) = (scores(&mut with_step, &plain.values), scores(&mut by_hand, &logged.values));
    for ((got, want), row) in got.iter().zip(&want).zip(plain.values.chunks(2)) {
        assert!((got - (want - row[1].ln())).abs() < 1e-9, "{got} {want} {row:?}");
    }
    // The losses of the training are in the user's units as well.
    let mean = |scores: &[f64]| -scores.iter().sum::<f64>() / scores.len() as f64;
    let (train, validation) =
        (with_step.0.record.train_nll.expect("set"), with_step.0.record.validation_nll.expect("set"));
    assert!(
        (validation - mean(&got)).abs() < 0.5 && (train - mean(&got)).abs() < 0.5,
        "{train} {validation}"
    );
    assert!((mean(&got) - mean(&want)).abs() > 0.5, "the logarithm must matter");
}

#[test]
fn probabilities_of_whole_numbers_sum_to_1() {
    let rows = table(
        &["count", "x"],
        (0..600).map(|i| {
            let count = f64::from((i * i) % 5);
            vec![count, (f64::from(i) * 0.7).sin() + count]
        }),
    );
    let domains = vec![
        ColumnDomain { bounds: Some(Bounds { low: Some(0.0), high: Some(4.0) }), ..WHOLE },
        ColumnDomain::default(),
    ];
    for (what, mut subject) in [
        ("free", fitted(&rows, vec![WHOLE, ColumnDomain::default()], Standardise::Mean)),
        ("bounded", fitted(&rows, domains.clone(), Standardise::Mean)),
        ("bounded", bent(&rows, domains.clone(), Standardise::Mean)),
        ("bounded", bent(&rows, domains, Standardise::Whiten)),
    ] {
        const CELLS: usize = 600;
        let step = 24.0 / CELLS as f64;
        let mut grid = Vec::new();
        for count in -12..17 {
            for cell in 0..CELLS {
                grid.extend([f64::from(count), (cell as f64 + 0.5) * step - 10.0]);
            }
        }
        let log_prob = scores(&mut subject, &grid);
        let mass: f64 = log_prob.iter().map(|value| value.exp() * step).sum();
        assert!((mass - 1.0).abs() < 1e-3, "{what}: Σ P = {mass}");
        let inside: f64 = grid
            .chunks(2)
            .zip(&log_prob)
            .filter(|(row, _)| (0.0..=4.0).contains(&row[0]))
            .map(|(_, value)| value.exp() * step)
            .sum();
        assert!(what == "free" || (inside - mass).abs() < 1e-12, "{what}: {inside} of {mass} inside");
        assert_eq!(scores(&mut subject, &[0.5, 0.0]), [f64::NEG_INFINITY], "half a count has no probability");
        assert_eq!(scores(&mut subject, &grid[..40]), log_prob[..20], "scores repeat");

        let sampling = Sampling { rows: 2000, first: 0, seed: 1, temperature: 1.0 };
        let samples = pollster::block_on(subject.0.sample(&mut subject.1, sampling)).expect("samples");
        assert!(samples.chunks(2).all(|row| row[0].fract() == 0.0), "{what}");
        let zeros = samples.chunks(2).filter(|row| row[0] == 0.0).count() as f64 / 2000.0;
        let want: f64 = grid
            .chunks(2)
            .zip(&log_prob)
            .filter(|(row, _)| row[0] == 0.0)
            .map(|(_, value)| value.exp() * step)
            .sum();
        assert!((zeros - want).abs() < 5.0 * (want * (1.0 - want) / 2000.0).sqrt() + 2e-3, "{zeros} {want}");
    }
}

#[test]
fn probabilities_of_whole_numbers_behind_kernel_margins_sum_to_1_given_a_context() {
    let rows = table(
        &["count", "x"],
        (0..600).map(|i| {
            let count = f64::from((i * i) % 5);
            vec![count, (f64::from(i) * 0.7).sin() + count]
        }),
    );
    let bounded = ColumnDomain { bounds: Some(Bounds { low: Some(0.0), high: Some(4.0) }), ..WHOLE };
    for domain in [WHOLE, bounded] {
        let domains = vec![domain, ColumnDomain::default()];
        let plan = PreprocessingPlan { domains, margins: Margins::Kernel, context: 1, ..Default::default() };
        let mut subject = fitted_by(&rows, &plan);
        for x in [-0.9, 0.3, 1.0, 2.5, 4.8] {
            let counts: Vec<f64> = (-20..30).flat_map(|count| [f64::from(count), x]).collect();
            let mass: f64 = scores(&mut subject, &counts).iter().map(|value| value.exp()).sum();
            assert!((mass - 1.0).abs() < 1e-3, "{domain:?}, {x}: Σ P = {mass}");
        }
    }
}

#[test]
fn probabilities_of_several_whole_columns_sum_to_1() {
    for columns in [2, 4] {
        let rows = table(
            &["a", "b", "c", "d"][..columns],
            (0..600).map(|i| {
                let first = f64::from((i * i) % 3);
                (0..columns).map(|j| (first + f64::from(i / (j as i32 + 1) % 2)).floor()).collect()
            }),
        );
        let domain = ColumnDomain { bounds: Some(Bounds { low: Some(0.0), high: Some(3.0) }), ..WHOLE };
        let mut subject = fitted(&rows, vec![domain; columns], Standardise::Mean);
        let grid: Vec<f64> = (0..4usize.pow(columns as u32))
            .flat_map(|cell| (0..columns).map(move |j| (cell / 4usize.pow(j as u32) % 4) as f64))
            .collect();
        let mass: f64 = scores(&mut subject, &grid).iter().map(|value| value.exp()).sum();
        let tolerance = if columns == 2 { 1e-3 } else { 5e-2 };
        assert!((mass - 1.0).abs() < tolerance, "{columns} columns: Σ P = {mass}");
    }
}

/// The same as a share and a price.
fn heavy_shares() -> Table {
    let mut rows = heavy(1200, 1);
    rows.values.chunks_mut(2).for_each(|row| row[0] = 1.0 / (1.0 + (-0.5 * row[0]).exp()));
    rows
}

/// Student's t with 3 degrees of freedom, and a lognormal that goes with it and once in 50 rows is a hundred times that.
fn heavy(rows: u32, seed: u64) -> Table {
    let mut noise = [0.0; 5];
    let row = |row| {
        random::normals(row, seed, &mut noise);
        let [n, a, b, c, m] = noise.map(f64::from);
        let t = n / ((a * a + b * b + c * c) / 3.0).sqrt();
        vec![t, (0.5 * t.tanh() + m).exp() * if row % 50 == 7 { 100.0 } else { 1.0 }]
    };
    table(&["t", "price"], (0..rows).map(row))
}

#[test]
fn gaussianised_heavy_tails_are_likelier_and_no_row_is_lost() {
    let unseen = heavy(3000, 2);
    let mut means = Vec::new();
    for standardise in [Standardise::Mean, Standardise::Robust, Standardise::Whiten] {
        let mean = |mut subject: (Model, CpuEngine<f32>)| {
            let log_prob = scores(&mut subject, &unseen.values);
            assert!(log_prob.iter().all(|value| value.is_finite()), "{standardise:?}");
            log_prob.iter().sum::<f64>() / log_prob.len() as f64
        };
        let model = bent(&heavy(1000, 1), Vec::new(), standardise);
        let check = model.0.record.check.clone().expect("a check");
        assert!(check.suspicious.is_empty(), "{standardise:?}: {check:?}");
        means.push((mean(fitted(&heavy(1000, 1), Vec::new(), standardise)), mean(model)));
    }
    for (plain, bent) in &means {
        assert!(bent > &(plain + 0.1), "{means:?}");
    }
}

#[test]
fn samples_of_gaussianised_columns_are_finite_and_like_the_rows() {
    let rows = heavy(2000, 1);
    let (model, mut engine) = bent(&rows, Vec::new(), Standardise::Whiten);
    let mut sample = |temperature| {
        let sampling = Sampling { rows: 2000, first: 0, seed: 1, temperature };
        pollster::block_on(model.sample(&mut engine, sampling)).expect("samples")
    };
    assert!([1.0, 30.0, 1e30].into_iter().all(|heat| sample(heat).iter().all(|value| value.is_finite())));
    let quantiles = |values: &[f64], column: usize| {
        let mut values: Vec<f64> = values[column..].iter().step_by(2).copied().collect();
        values.sort_by(f64::total_cmp);
        [0.1, 0.5, 0.9].map(|share| values[(share * 2000.0) as usize])
    };
    for column in 0..2 {
        let (got, want) = (quantiles(&sample(1.0), column), quantiles(&rows.values, column));
        for (got, want) in got.into_iter().zip(want) {
            assert!((got - want).abs() < 0.15 + 0.2 * want.abs(), "column {column}: {got}, expected {want}");
        }
    }
}

#[test]
fn the_self_check_sees_whole_numbers_with_their_noise() {
    let rows = table(
        &["k", "x"],
        (0..900).map(|i| {
            let t = f64::from(i) * 0.7;
            vec![(3.0 + 2.5 * t.sin() + (t * 1.3).cos()).round(), t.cos() + 0.3 * (t * 2.9).sin()]
        }),
    );
    let (model, _) = fitted(&rows, vec![WHOLE, ColumnDomain::default()], Standardise::Mean);
    let check = model.record.check.expect("a check");
    assert!(
        check.gap.is_some_and(f64::is_finite) && check.gap_error.is_some_and(f64::is_finite),
        "{check:?}"
    );
    // Half a number more would show in the mean of a column with a deviation of about two.
    assert!(check.latent[0].mean.abs() < 0.15, "{check:?}");
    assert!(check.suspicious.iter().all(|sentence| !sentence.contains("not finite")), "{check:?}");
}

#[test]
fn rows_that_a_step_cannot_take_are_refused_by_row_at_training() {
    let mut rows = shares();
    rows.values[2 * 17] = 1.0;
    for (domain, want) in [
        (
            bounds(Some(0.0), Some(1.0)),
            "t: row 18, column 1 (`share`): 1 does not lie between the bounds 0:1",
        ),
        (WHOLE, "t: row 1, column 1 (`share`): 0.545 is not a whole number"),
    ] {
        let plan = PreprocessingPlan { domains: vec![domain, ColumnDomain::default()], ..Default::default() };
        let error = Dataset::split_with(&rows, 0.1, 0, &plan).expect_err(want);
        assert!(matches!(error, Error::Data { .. }) && error.to_string().contains(&want[..30]), "{error}");
    }
    let plan = PreprocessingPlan { domains: vec![WHOLE], ..Default::default() };
    assert!(matches!(Dataset::split_with(&rows, 0.1, 0, &plan), Err(Error::Length { .. })));
}

#[test]
fn noise_repeats_with_the_seed_and_statistics_see_training_rows_only() {
    let rows = table(&["k", "x"], (0..200).map(|i| vec![f64::from(i % 7), f64::from(i * i % 31)]));
    let plan = PreprocessingPlan { domains: vec![WHOLE, ColumnDomain::default()], ..Default::default() };
    let split = |seed| Dataset::split_with(&rows, 0.2, seed, &plan).expect("splits");
    assert_eq!(split(1), split(1));
    assert_ne!(split(1).train, split(2).train);
    let dataset = split(1);
    assert!(dataset.train.chunks(2).all(|row| row[0].fract() > 0.0 && row[1].fract() == 0.0));
    let mean = dataset.train.chunks(2).map(|row| row[0]).sum::<f64>() * 2.0 / dataset.train.len() as f64;
    assert!((dataset.preprocessing.standardiser.mean[0] - mean).abs() < 1e-12);
}

#[test]
fn the_model_file_keeps_the_steps_under_version_2_and_nothing_more_under_1() {
    let domains = vec![bounds(Some(0.1 + 0.2 - 0.4), Some(1.0 + 1e-9)), bounds(None, Some(1000.0))];
    let (model, _) = fitted(&shares(), domains, Standardise::Robust);
    let bytes = model.to_bytes();
    assert_eq!(Model::from_bytes("m", &bytes).expect("own file"), model);
    assert_eq!(model.format_version(), 2);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("\\\"format_version\\\":2") && text.contains("robust"), "the header");

    let (plain, _) = fitted(&shares(), Vec::new(), Standardise::Mean);
    let text = String::from_utf8_lossy(&plain.to_bytes()).into_owned();
    assert!(text.contains("\\\"format_version\\\":1") && !text.contains("\\\"steps\\\""), "the header");

    for (from, to, want) in [
        ("\\\"format_version\\\":2", "\\\"format_version\\\":1", "version 1, but maps"),
        ("\\\"high\\\":1000.0", "\\\"high\\\":1e9999", "out of range"),
        ("\\\"low\\\":null", "\\\"low\\\":2000", "the bounds of `price` must ascend"),
    ] {
        let damaged = replace(&bytes, from, to);
        assert!(damaged != bytes, "{from} is not in the file");
        // Another program's file has no checksum, so that what it says is judged.
        let damaged = replace(&damaged, "\"checksum\"", "\"unheeded\"");
        let message = Model::from_bytes("m", &damaged).expect_err(to).to_string();
        assert!(message.contains(want), "{message}");
    }
}

/// `bytes` with the first `from` replaced by `to`, of the same length.
fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let found = bytes.windows(from.len()).position(|window| window == from.as_bytes());
    if let (Some(place), true) = (found, from.len() == to.len()) {
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn flags_reach_the_model_and_rows_outside_are_minus_infinity_with_a_note() {
    let folder = folder();
    let path = folder.path();
    let rows: String = (0..120)
        .map(|i| {
            let t = f64::from(i) * 0.7;
            format!("{},{},{}\n", i % 4, 0.5 + 0.4 * t.sin(), (t * 0.3).cos().exp())
        })
        .collect();
    fs::write(path.join("t.csv"), format!("k,share,price\n{rows}")).expect("written");
    let output =
        moonflow(path, &["train", "t.csv", "--out", "p", "--epochs", "1", "--layers", "2", "--hidden", "4"]);
    let notes = text(&output.stderr);
    assert!(
        notes.contains("whole numbers only: `k` (4 different)") && notes.contains("--dequantize k"),
        "{notes}"
    );

    let flags =
        ["--dequantize", "k", "--bounds", "share=0:1", "--transform", "price=log", "--standardise", "robust"];
    train(path, "t.csv", "o", &flags);
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in ["format version 2", "median", "dequantised", "logit on 0:1", "ln(x − 0)"] {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    fs::write(path.join("s.csv"), "k,share,price\n1,0.5,1\n1,1.5,1\n1,0.5,-1\n0.5,0.5,1\n").expect("written");
    let output = moonflow(path, &["score", "--model", "o/model.safetensors", "s.csv", "--device", "cpu"]);
    let (scores, notes) = (text(&output.stdout), text(&output.stderr));
    assert!(scores.lines().skip(2).eq(["-inf"; 3]), "{scores}");
    assert!(
        scores.lines().nth(1).is_some_and(|line| line.parse::<f64>().is_ok_and(f64::is_finite)),
        "{scores}"
    );
    assert!(notes.contains("3 of 4 rows lie outside") && !notes.contains("warning"), "{notes}");
    let samples = succeed(path, &["sample", "--model", "o/model.safetensors", "-n", "50", "--device", "cpu"]);
    for line in samples.lines().skip(1) {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().expect("a number")).collect();
        assert!(cells[0].fract() == 0.0 && cells[1] > 0.0 && cells[1] < 1.0 && cells[2] > 0.0, "{line}");
    }
    succeed(
        path,
        &["plot", "--model", "o/model.safetensors", "--data", "s.csv", "--out", "p.svg", "--device", "cpu"],
    );

    for (flags, status, want) in [
        (&["--bounds", "share=0.2:1"][..], 1, "t.csv: line 8, column `share`: 0.15"),
        (&["--dequantize", "share"], 1, "t.csv: line 2, column `share`: 0.5 is not"),
        (&["--bounds", "shar=0:1"], 1, "there is no column `shar`; did you mean `share`?"),
        (&["--bounds", "share=1:0"], 2, "bounds ascend"),
        (&["--bounds", "share"], 2, "such as share=0:1"),
        (&["--transform", "price=sqrt"], 2, "such as price=log"),
        (&["--transform", "price=log", "--bounds", "price=0:9"], 2, "has two bounds"),
        (&["--dequantize", "k", "--bounds", "k=0.5:"], 2, "must be whole numbers"),
        (&["--standardise", "max"], 2, "robust"),
        (&["--columns", "k,shrae"], 1, "did you mean `share`?"),
        (&["--drop", "1-3"], 1, "no column is left"),
        (&["--missing", "fill"], 2, "refuse"),
        (&["--format", "xls"], 2, "the formats are csv"),
    ] {
        let output = moonflow(path, &[&["train", "t.csv", "--out", "no"], flags].concat());
        let message = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(status), "{flags:?}: {message}");
        assert!(
            message.contains(want) && !message.contains("panicked"),
            "{flags:?}: `{want}` is not in: {message}"
        );
    }
    let output = moonflow(path, &["train", "moons", "--drop", "x0", "--out", "no"]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("is a toy density"));
    assert!(!path.join("no").exists(), "nothing may be written");
}

#[test]
fn kernel_margins_from_the_command_line_are_kept_and_repeat_from_the_configuration() {
    let folder = folder();
    let path = folder.path();
    let rows = heavy(300, 1).values;
    let rows: String =
        rows.chunks(2).enumerate().map(|(i, row)| format!("{},{},{}\n", row[0], row[1], i % 3)).collect();
    fs::write(path.join("t.csv"), format!("t,price,w\n{rows}")).expect("written");
    let options = [
        "--margins",
        "kernel",
        "--standardise",
        "whiten",
        "--checkpoint-every",
        "1",
        "--weights",
        "w",
        "--decay",
        "constant",
    ];
    train(path, "t.csv", "o", &options);
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in
        ["format version 5", "2 of 2 columns are bent to a normal shape", "all are by kernel densities"]
    {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    let json = succeed(path, &["info", "o/model.safetensors", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["margins"], &json["format_version"]), (&"kernel".into(), &5.into()));
    assert!(json["columns"][1]["whitened_kernel_knots"].as_u64().is_some_and(|knots| knots > 2), "{json}");
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    assert!(config.contains("margins = \"kernel\"") && !config.contains("gaussianise"), "{config}");
    succeed(path, &["train", "--config", "o/config.toml", "--out", "again"]);
    let file = |name: &str| fs::read(path.join(name)).expect("written");
    assert!(file("o/model.safetensors") == file("again/model.safetensors"), "the configuration repeats it");

    // The old name stands for Johnson's curves, in a configuration and before it.
    let old = config.replace("margins = \"kernel\"", "gaussianise = true");
    fs::write(path.join("old.toml"), old).expect("written");
    let version = |out: &str, more: &[&str]| {
        succeed(path, &[&["train", "--config", "old.toml", "--out", out][..], more].concat());
        Model::load(path.join(out).join("model.safetensors")).expect("whole").format_version()
    };
    assert_eq!(version("old", &[]), 3);
    assert_eq!(version("none", &["--margins", "none"]), 2);
    let both = moonflow(path, &["train", "t.csv", "--gaussianise", "--margins", "kernel"]);
    assert!(both.status.code() == Some(2) && text(&both.stderr).contains("cannot be used with"));

    let cpu = ["--model", "o/model.safetensors", "--device", "cpu"];
    let numbers = |text: String| -> Vec<f64> {
        let cells = text.lines().skip(1).filter_map(|line| line.rsplit(',').next()).map(|cell| cell.parse());
        cells.collect::<Result<_, _>>().expect("numbers")
    };
    let scored = numbers(succeed(path, &[&["score", "t.csv"][..], &cpu].concat()));
    assert!(scored.len() == 300 && scored.iter().all(|value| value.is_finite()));
    let drawn = numbers(succeed(path, &[&["sample", "-n", "300", "--temperature", "20"][..], &cpu].concat()));
    assert!(drawn.len() == 300 && drawn.iter().all(|value| value.is_finite()));
    let refused = moonflow(path, &["train", "--resume", "o", "--epochs", "9", "--margins", "johnson"]);
    assert!(text(&refused.stderr).contains("the checkpoint cannot be gone on with"));
    succeed(path, &["train", "--resume", "o", "--epochs", "9"]);
}

#[test]
fn the_command_line_gaussianises_keeps_it_and_undoes_it() {
    let folder = folder();
    let path = folder.path();
    let rows: String = heavy(400, 1).values.chunks(2).map(|row| format!("{},{}\n", row[0], row[1])).collect();
    fs::write(path.join("t.csv"), format!("t,price\n{rows}")).expect("written");
    train(path, "t.csv", "o", &["--gaussianise", "--standardise", "whiten", "--checkpoint-every", "1"]);
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in
        ["format version 3", "2 of 2 columns are bent to a normal shape", "freed of their correlations"]
    {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    let model = Model::load(path.join("o/model.safetensors")).expect("whole");
    let json: serde_json::Value =
        serde_json::from_str(&succeed(path, &["info", "o/model.safetensors", "--json"])).expect("JSON");
    assert_eq!((&json["gaussianise"], &json["format_version"]), (&true.into(), &3.into()));
    for (index, curve) in model.preprocessing.curves.iter().enumerate() {
        assert_eq!(json["columns"][index]["johnson"], serde_json::json!(curve.numbers()));
    }
    assert!(json["columns"][1]["whitened_johnson"][3].is_number());

    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    assert!(config.lines().any(|line| line == "margins = \"johnson\""), "{config}");
    succeed(path, &["train", "--config", "o/config.toml", "--out", "again"]);
    let file = |name: &str| fs::read(path.join(name)).expect("written");
    assert!(file("o/model.safetensors") == file("again/model.safetensors"), "the configuration repeats it");
    succeed(path, &["train", "--config", "o/config.toml", "--gaussianise=false", "--out", "plain"]);
    assert_eq!(Model::load(path.join("plain/model.safetensors")).expect("whole").format_version(), 2);

    let cpu = ["--model", "o/model.safetensors", "--device", "cpu"];
    let numbers = |text: String| -> Vec<f64> {
        let cells = text.lines().skip(1).flat_map(|line| line.split(',')).map(|cell| cell.parse());
        cells.collect::<Result<_, _>>().expect("numbers")
    };
    let scored = numbers(succeed(path, &[&["score", "t.csv"][..], &cpu].concat()));
    assert!(scored.len() == 400 && scored.iter().all(|value| value.is_finite()));
    let drawn = numbers(succeed(path, &[&["sample", "-n", "300", "--temperature", "20"][..], &cpu].concat()));
    assert!(drawn.len() == 600 && drawn.iter().all(|value| value.is_finite()));
    succeed(path, &[&["plot", "--data", "t.csv", "--out", "p.svg"][..], &cpu].concat());

    // Resumed with its configuration and to the same file; refused with other preprocessing.
    let epochs = ["--epochs", "4", "--decay", "constant"];
    let long = ["train", "t.csv", "--gaussianise", "--layers", "2", "--hidden", "4"];
    let long = [&long[..], &epochs, &["--preset", "default"]].concat();
    succeed(path, &[&long[..], &["--out", "long"]].concat());
    let mut short = [&long[..], &["--out", "short", "--checkpoint-every", "1"]].concat();
    short[8] = "2";
    succeed(path, &short);
    succeed(path, &["train", "--resume", "short", "--epochs", "4"]);
    assert!(file("short/model.safetensors").len() == file("long/model.safetensors").len());
    let (short, long) = ["short", "long"]
        .map(|name| Model::load(path.join(name).join("model.safetensors")).expect("whole"))
        .into();
    assert!(short.parameters == long.parameters && short.preprocessing == long.preprocessing);
    let refused = moonflow(path, &["train", "--resume", "short", "--epochs", "5", "--gaussianise=false"]);
    assert!(text(&refused.stderr).contains("the checkpoint cannot be gone on with"));
}
