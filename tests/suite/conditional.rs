//! Conditional models and whitened ones from end to end: mass 1 whatever is given, context handed back to the last
//! digit, the file, the command line.

use std::fs;

use moonflow::cpu::CpuEngine;
use moonflow::data::{Bounds, ColumnDomain, Dataset, Margins, PreprocessingPlan, Standardise, Table};
use moonflow::engine::Sampling;
use moonflow::model::{DataSource, Model, Recipe};
use moonflow::random;
use moonflow::train::fit;

use crate::cli::{folder, moonflow, succeed, text, train};

/// Columns y, c, d: y is normal about 3 + 2c with deviation 0.1 · d.
fn table(rows: u32) -> Table {
    let mut noise = [0.0; 3];
    let values = (0..rows).flat_map(|row| {
        random::normals(row, 5, &mut noise);
        let [y, c, d] = noise.map(f64::from);
        let d = d.exp();
        [3.0 + 2.0 * c + 0.1 * d * y, c, d]
    });
    Table { name: "t".into(), columns: ["y", "c", "d"].map(String::from).into(), values: values.collect() }
}

fn fitted(standardise: Standardise, context: usize, epochs: u32) -> (Model, CpuEngine<f32>) {
    fitted_by(PreprocessingPlan { standardise, context, ..Default::default() }, epochs)
}

/// `plan` with the logarithm of d.
fn fitted_by(plan: PreprocessingPlan, epochs: u32) -> (Model, CpuEngine<f32>) {
    let table = table(3000);
    let recipe = Recipe { epochs, batch: 64, layers: 4, hidden: vec![16], ..Recipe::default() };
    let mut domains = vec![ColumnDomain::default(); 3];
    domains[2].bounds = Some(Bounds { low: Some(0.0), high: None });
    let plan = PreprocessingPlan { domains, ..plan };
    let dataset = Dataset::split_with(&table, 0.1, 0, &plan).expect("splits");
    let source = DataSource { name: "t".into(), noise: None, toy: false, rows: table.rows() };
    let mut engine = CpuEngine::<f32>::new(recipe.flow_over(&dataset).expect("valid")).expect("made");
    let fitted = pollster::block_on(fit(&mut engine, &dataset, &recipe, source, &mut ())).expect("trains");
    (fitted.model, engine)
}

fn scores((model, engine): &mut (Model, CpuEngine<f32>), rows: &[f64]) -> Vec<f64> {
    pollster::block_on(model.log_prob(engine, rows)).expect("scores")
}

#[test]
fn a_conditional_model_learns_where_and_how_wide_and_has_mass_1_whatever_is_given() {
    // Of all rows together what is left of y after c and d has heavy tails, because d sets its width: bent to a normal
    // shape behind the whitening, it is no longer normal given d, and a few epochs do not bend all of it back.
    for (standardise, margins, width_within) in [
        (Standardise::Mean, Margins::None, 0.5),
        (Standardise::Mean, Margins::Johnson, 0.5),
        (Standardise::Mean, Margins::Kernel, 0.5),
        (Standardise::Whiten, Margins::None, 0.5),
        (Standardise::Whiten, Margins::Johnson, 0.7),
        (Standardise::Whiten, Margins::Kernel, 0.7),
    ] {
        let plan = PreprocessingPlan { standardise, margins, context: 2, ..Default::default() };
        let mut subject = fitted_by(plan, 30);
        let check = subject.0.record.check.clone().expect("a check");
        assert!(check.latent.len() == 1 && check.log_det.expect("few features") < 1e-3, "{check:?}");
        for [c, d] in [[0.0, 1.0], [-1.0, 0.5], [1.2, 2.0]] {
            let (mean, std) = (3.0 + 2.0 * c, 0.1 * d);
            let step = std / 40.0;
            let places: Vec<f64> = (0..4000).map(|i| mean + (f64::from(i) - 1999.5) * step).collect();
            let rows: Vec<f64> = places.iter().flat_map(|&y| [y, c, d]).collect();
            let density: Vec<f64> = scores(&mut subject, &rows).iter().map(|value| value.exp()).collect();
            let moment = |of: &dyn Fn(f64) -> f64| -> f64 {
                places.iter().zip(&density).map(|(&y, density)| of(y) * density * step).sum()
            };
            let mass = moment(&|_| 1.0);
            assert!((mass - 1.0).abs() < 5e-3, "{standardise:?} {c} {d}: mass {mass}");
            let centre = moment(&|y| y);
            assert!((centre - mean).abs() < 0.5 * std, "{standardise:?} {c} {d}: {centre}, expected {mean}");
            // That of the middle half: a curve's tails are heavy, so a deviation says little.
            let quantile = |share: f64| {
                let mut below = 0.0;
                let found = density.iter().position(|density| {
                    below += density * step;
                    below >= share
                });
                places[found.expect("mass 1")]
            };
            let width = (quantile(0.75) - quantile(0.25)) / 1.349;
            assert!(
                (width / std).ln().abs() < width_within,
                "{standardise:?} {c} {d}: {width}, expected {std}"
            );
        }
    }
}

#[test]
fn samples_stand_before_their_context_which_keeps_every_digit() {
    for (margins, version) in [(Margins::None, 2), (Margins::Johnson, 3), (Margins::Kernel, 5)] {
        let standardise = Standardise::Whiten;
        let plan = PreprocessingPlan { standardise, margins, context: 2, ..Default::default() };
        let (model, engine) = fitted_by(plan, 3);
        assert_eq!(model.format_version(), version);
        samples_keep_their_context(&model, engine);
    }
}

fn samples_keep_their_context(model: &Model, mut engine: CpuEngine<f32>) {
    let context: Vec<f64> =
        (0..200).flat_map(|row| [0.1 + f64::from(row) / 700.0, 1e-3 + f64::from(row)]).collect();
    let sampling = Sampling { rows: 200, first: 7, seed: 1, temperature: 1.0 };
    let rows = pollster::block_on(model.sample_given(&mut engine, sampling, &context)).expect("samples");
    assert!(rows.chunks(3).zip(context.chunks(2)).all(|(row, context)| &row[1..] == context));
    assert!(rows.iter().all(|value| value.is_finite()));
    // A row depends on its number and its context, not on the others.
    let part = Sampling { rows: 3, first: 7 + 50, ..sampling };
    let some =
        pollster::block_on(model.sample_given(&mut engine, part, &context[100..106])).expect("samples");
    assert_eq!(some, rows[150..159]);
    for (context, want) in [
        (&[][..], "the model is conditional; sampling it needs values of c, d"),
        (&[1.0][..], "context: got 1 values, expected 400"),
    ] {
        let error = pollster::block_on(model.sample_given(&mut engine, sampling, context)).expect_err(want);
        assert_eq!(error.to_string(), want);
    }
    let outside = pollster::block_on(model.sample_given(&mut engine, part, &[0.0, 1.0, 0.0, -1.0, 0.0, 1.0]));
    let message = outside.expect_err("a negative d").to_string();
    assert!(message.contains("context 2, column `d`: -1 does not lie"), "{message}");
}

#[test]
fn a_whitened_models_mass_is_1_in_the_users_units() {
    let mut subject = fitted(Standardise::Whiten, 0, 3);
    // y = 3 + 2c + u, c and l = ln d: a box with dy dc dd = d · du dc dl.
    let places = |count: i32, end: f64| -> Vec<f64> {
        (0..count).map(|i| (f64::from(2 * i + 1) / f64::from(count) - 1.0) * end).collect()
    };
    let (wide, narrow) = (places(50, 6.0), places(120, 2.0));
    let mut mass = 0.0;
    for c in &wide {
        let rows: Vec<f64> = narrow
            .iter()
            .flat_map(|u| wide.iter().flat_map(move |l| [3.0 + 2.0 * c + u, *c, l.exp()]))
            .collect();
        let volume = |row: &[f64]| row[2] * (12.0f64 / 50.0).powi(2) * (4.0 / 120.0);
        let terms = scores(&mut subject, &rows);
        mass += terms.iter().zip(rows.chunks(3)).map(|(term, row)| term.exp() * volume(row)).sum::<f64>();
    }
    assert!((mass - 1.0).abs() < 0.02, "mass {mass}");
}

#[test]
fn files_keep_context_and_whitening_under_version_2() {
    for (standardise, context) in [(Standardise::Mean, 1), (Standardise::Whiten, 0), (Standardise::Whiten, 2)]
    {
        let (model, _) = fitted(standardise, context, 1);
        assert_eq!((model.format_version(), model.flow.context), (2, context));
        let bytes = model.to_bytes();
        assert_eq!(Model::from_bytes("m", &bytes).expect("own file"), model);
        for cut in [bytes.len() - 1, bytes.len() / 2, 9] {
            assert!(Model::from_bytes("m", &bytes[..cut]).is_err());
        }
    }
    let (mut model, _) = fitted(Standardise::Whiten, 0, 1);
    model.preprocessing.whitening = None;
    let message = Model::from_bytes("m", &model.to_bytes()).expect_err("no factor").to_string();
    assert!(message.contains("`standardiser.whitening` is missing"), "{message}");
}

#[test]
fn the_command_line_takes_a_context_by_name_by_value_and_by_table() {
    let folder = folder();
    let path = folder.path();
    let rows: String =
        table(400).values.chunks(3).map(|row| format!("{},{},{}\n", row[1], row[0], row[2])).collect();
    fs::write(path.join("t.csv"), format!("c,y,d\n{rows}")).expect("written");
    let log =
        train(path, "t.csv", "o", &["--context", "c,d", "--transform", "d=log", "--standardise", "whiten"]);
    assert!(log.contains("columns y given c, d") && log.contains("over 1 feature given 2"), "{log}");
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in ["format version 2", "modelled", "given", "freed of their correlations"] {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    assert!(config.contains("context = \"c,d\"") && config.contains("standardise = \"whiten\""), "{config}");
    succeed(path, &["train", "--config", "o/config.toml", "--out", "again"]);
    let file = |name: &str| fs::read(path.join(name)).expect("written");
    assert_eq!(file("o/model.safetensors"), file("again/model.safetensors"));

    let cpu = ["--model", "o/model.safetensors", "--device", "cpu"];
    let scores = succeed(path, &[&["score", "t.csv"][..], &cpu].concat());
    assert_eq!(scores.lines().count(), 401);
    let sample = |flags: &[&str]| moonflow(path, &[&["sample"], flags, &cpu].concat());
    let by_value = text(&sample(&["-n", "3", "--given", "d=2.5,c=-1"]).stdout);
    let lines: Vec<&str> = by_value.lines().collect();
    assert!(lines[0] == "y,c,d" && lines.len() == 4, "{by_value}");
    assert!(lines[1..].iter().all(|line| line.ends_with(",-1.0,2.5")), "{by_value}");
    fs::write(path.join("g.csv"), "id,d,c\nx,2.5,-1\ny,1,0.125\n").expect("written");
    let by_table = text(&sample(&["-n", "3", "--given", "g.csv"]).stdout);
    let lines: Vec<&str> = by_table.lines().collect();
    assert!(lines.len() == 7 && lines[6].ends_with(",0.125,1.0"), "{by_table}");
    assert_eq!(lines[..4], by_value.lines().collect::<Vec<_>>(), "row by row the same noise");
    succeed(path, &[&["plot", "--data", "t.csv", "--out", "p.svg"][..], &cpu].concat());

    for (flags, want) in [
        (&["-n", "3"][..], "--given c=0,d=0"),
        (&["-n", "3", "--given", "c=1"], "the model needs d too"),
        (&["-n", "3", "--given", "c=1,e=1"], "no column `e`"),
        (&["-n", "3", "--given", "c=1,d=-1"], "column `d`: -1 does not lie"),
        (&["-n", "3", "--given", "t.parquet"], "t.parquet"),
    ] {
        let output = sample(flags);
        let message = text(&output.stderr);
        assert!(!output.status.success() && message.contains(want), "`{want}` is not in: {message}");
    }
    fs::write(path.join("h.csv"), "c\n1\n").expect("written");
    let message = text(&sample(&["-n", "1", "--given", "h.csv"]).stderr);
    assert!(
        message.contains("no column `d`") && message.contains("is conditioned on 2 columns (c, d)"),
        "{message}"
    );
    for (flags, want) in [
        (&["t.csv", "--context", "c,y,d"][..], "every column is context"),
        (&["t.csv", "--context", "e"], "there is no column `e`"),
        (&["t.csv", "--context", "c", "--dequantize", "c"], "cannot be dequantised"),
        (&["moons", "--context", "x0"], "toy density"),
    ] {
        let output = moonflow(path, &[&["train", "--out", "no", "--epochs", "1"], flags].concat());
        let message = text(&output.stderr);
        assert!(!output.status.success() && message.contains(want), "`{want}` is not in: {message}");
    }
    assert!(!path.join("no").exists(), "nothing may be written");
    let plain = moonflow(path, &[&["plot", "--out", "q.svg"][..], &cpu].concat());
    assert!(text(&plain.stderr).contains("name the data with --data"));
}

#[test]
fn a_context_out_of_its_range_is_named_with_its_rows_and_no_sample_is_less_than_a_number() {
    let folder = folder();
    let rows: String =
        (0..300).map(|i| format!("{},{}\n", f64::from(i * i % 97), f64::from(i) / 10.0)).collect();
    fs::write(folder.path().join("t.csv"), format!("y,c\n{rows}")).expect("written");
    let flags = "--context c --preset realnvp --epochs 2 --layers 2 --hidden 8 --device cpu --out run";
    succeed(folder.path(), &[&["train", "t.csv"], &*flags.split(' ').collect::<Vec<_>>()].concat());
    fs::write(folder.path().join("far.csv"), "y,c\n1,2\n3,-7\n4,29.9\n2,31\n").expect("written");
    let model = ["--model", "run/model.safetensors", "--device", "cpu"];
    let said = |arguments: &[&str]| {
        let output = moonflow(folder.path(), &[arguments, &model].concat());
        (output.status.success(), text(&output.stderr), text(&output.stdout))
    };
    for arguments in [&["score", "far.csv"][..], &["sample", "-n", "2", "--given", "far.csv"]] {
        let (success, stderr, _) = said(arguments);
        let want = "context `c` was from 0 to 29.9 in training";
        assert!(
            success && stderr.contains(want) && stderr.contains("2 rows, the first of them line 3 (-7)"),
            "{stderr}"
        );
    }
    let (_, stderr, _) = said(&["score", "t.csv"]);
    assert!(!stderr.contains("in training"), "{stderr}");
    let (_, stderr, _) = said(&["sample", "-n", "3", "--given", "c=30"]);
    assert!(stderr.contains("guesses: what is given (30)"), "{stderr}");
    for far in ["c=1e300", "c=-1e38", "c=1e20"] {
        let (success, stderr, stdout) = said(&["sample", "-n", "3", "--given", far]);
        let finite = stdout
            .lines()
            .skip(1)
            .flat_map(|line| line.split(','))
            .all(|cell| cell.parse::<f64>().expect("a number").is_finite());
        assert!(
            finite && (success || stderr.contains("error: sample 1 has no finite number")),
            "{far}: {stderr}"
        );
    }
}

#[test]
fn a_context_far_from_all_others_does_not_widen_the_range_that_is_kept() {
    let folder = folder();
    let line =
        |i: u32| format!("{},{}\n", f64::from(i * i % 97), if i == 40 { 1e6 } else { f64::from(i) / 10.0 });
    let rows: String = (0..300).map(line).collect();
    fs::write(folder.path().join("t.csv"), format!("y,c\n{rows}")).expect("written");
    fs::write(folder.path().join("far.csv"), "y,c\n1,2\n3,31\n").expect("written");
    for preset in ["default", "table"] {
        let flags =
            format!("--context c --preset {preset} --epochs 1 --layers 2 --hidden 8 --device cpu --out run");
        succeed(folder.path(), &[&["train", "t.csv"], &*flags.split(' ').collect::<Vec<_>>()].concat());
        for (table, rows) in [("far.csv", "line 3 (31)"), ("t.csv", "line 42 (1000000)")] {
            let score = ["score", table, "--model", "run/model.safetensors", "--device", "cpu"];
            let said = text(&moonflow(folder.path(), &score).stderr);
            let want = format!(
                "context `c` was from 0 to 29.9 in training; outside of that, where the model guesses: {rows}"
            );
            assert!(said.contains(&want), "{preset}: {said}");
        }
    }
}
