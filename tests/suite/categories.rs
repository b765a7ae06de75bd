//! Categories: tables with texts and truths are trained, scored, sampled and conditioned on, and come out with their types.

use std::fs;

use moonflow::cpu::CpuEngine;
use moonflow::data::{
    CategoryMoments, Coding, LevelMoments, Levels, Missing, PreprocessingPlan, Reader, Standardise, Table,
    TableColumn,
};
use moonflow::engine::Sampling;
use moonflow::model::{DataSource, Engines, Ensemble, Recipe, TableModel};
use moonflow::random::normals;
use moonflow::train::{CategoryFit, fit};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::cli::{folder, moonflow, succeed, text, train};

/// Rows of two texts, a truth and two numbers that follow them.
fn csv(rows: u32) -> String {
    let row = |row: u32| {
        let kind = ["red", "white", "\"rosé, dry\""][(row * row % 7 % 3) as usize];
        let origin = if row.is_multiple_of(5) { "x" } else { ["north", "south"][(row / 3 % 2) as usize] };
        let (a, b) = (f64::from(row % 13) + f64::from(row % 7 % 3) * 4.0, f64::from(row * row % 31) / 3.0);
        format!("{kind},{a:?},{origin},{b:?},{}\n", row.is_multiple_of(4))
    };
    "kind,a,origin,b,old\n".to_owned() + &(0..rows).map(row).collect::<String>()
}

fn standardised(standardise: Standardise) -> PreprocessingPlan {
    PreprocessingPlan { standardise, ..PreprocessingPlan::default() }
}

/// A fit to one number and a class of three levels of `rows` rows, the last of which appears `last` times.
fn fitted(plan: PreprocessingPlan, last: usize) -> (TableModel, Engines<CpuEngine<f32>>, Table) {
    let rows = 240;
    let level = |row: usize| if row < last { 2 } else { row % 3 % 2 };
    let values = (0..rows).flat_map(|row| {
        let level = level(row) as f64;
        [level, (row as f64 * 0.7).sin() + 3.0 * level]
    });
    let table = Table {
        name: "t".into(),
        columns: ["class", "x"].map(String::from).into(),
        values: values.collect(),
    };
    let levels = Levels::new(["a", "b", "c"].map(String::from).into()).expect("levels");
    let columns = vec![TableColumn::category("class", levels), TableColumn::number("x")];
    let categories = CategoryFit::new(columns, 0, &table, None, 0.1, 3).expect("fits");
    let dataset = categories.dataset(table.clone(), 0.1, 3, plan).expect("splits").expect("a number");
    assert_eq!(dataset.columns, ["x", "class=b", "class=c"]);
    let recipe = Recipe { epochs: 20, batch: 64, layers: 4, hidden: vec![8], seed: 3, ..Recipe::default() };
    let mut engine = CpuEngine::<f32>::new(recipe.flow_over(&dataset).expect("valid")).expect("made");
    let source = DataSource { name: "t".into(), noise: None, toy: false, rows };
    let fitted = pollster::block_on(fit(&mut engine, &dataset, &recipe, source.clone(), &mut ()));
    let density = Ensemble::from(fitted.expect("trains").model);
    let model = categories.model(Some(density), &recipe, &source).expect("belongs together");
    (model, Engines::of_each(vec![engine]), table)
}

#[test]
fn probabilities_of_levels_times_densities_integrate_to_1_even_where_a_level_is_rare_or_absent() {
    let of_x = LevelMoments { column: 0, indicator: 1, levels: vec![[0.0, 1.0]; 3] };
    let by_level = |standardise| PreprocessingPlan {
        category_moments: CategoryMoments { columns: vec![of_x.clone()] },
        ..standardised(standardise)
    };
    for (plan, last) in [
        (standardised(Standardise::Mean), 60),
        (standardised(Standardise::Whiten), 60),
        (standardised(Standardise::Robust), 1),
        (standardised(Standardise::Whiten), 1),
        (standardised(Standardise::Whiten), 0),
        (by_level(Standardise::Mean), 60),
        (by_level(Standardise::Robust), 1),
        (by_level(Standardise::Whiten), 0),
    ] {
        let standardise = plan.standardise;
        let (model, mut engines, _) = fitted(plan, last);
        let (low, high, steps) = (-30.0, 40.0, 14_000);
        let mut total = 0.0;
        let mut shares = Vec::new();
        for level in 0..3 {
            let at = |step: usize| low + (high - low) * step as f64 / steps as f64;
            let rows: Vec<f64> = (0..steps).flat_map(|step| [f64::from(level), at(step)]).collect();
            let log_prob = pollster::block_on(model.log_prob(&mut engines, &rows)).expect("scores");
            let share =
                log_prob.iter().map(|log_prob| log_prob.exp()).sum::<f64>() * (high - low) / steps as f64;
            shares.push(share);
            total += share;
        }
        assert!((total - 1.0).abs() < 2e-3, "{standardise:?}, {last} rows: {total}");
        assert!((shares[2] - last as f64 / 240.0).abs() < 0.02, "{standardise:?}, {last} rows: {shares:?}");
    }
}

#[test]
fn samples_have_the_classes_shares_and_their_own_numbers() {
    let (model, mut engines, _) = fitted(standardised(Standardise::Whiten), 60);
    let sampling = Sampling { rows: 4000, first: 0, seed: 1, temperature: 1.0 };
    let rows = pollster::block_on(model.sample(&mut engines, sampling, &[], &[])).expect("samples");
    for (level, share) in [(0.0, 0.5), (1.0, 0.25), (2.0, 0.25)] {
        let of_level: Vec<f64> = rows.chunks(2).filter(|row| row[0] == level).map(|row| row[1]).collect();
        let mean = of_level.iter().sum::<f64>() / of_level.len() as f64;
        assert!((of_level.len() as f64 / 4000.0 - share).abs() < 0.06, "{level}: {}", of_level.len());
        assert!((mean - 3.0 * level).abs() < 0.4, "{level}: {mean}");
    }
    // A sample can be cut anywhere.
    let rest = Sampling { rows: 1000, first: 3000, ..sampling };
    let rest = pollster::block_on(model.sample(&mut engines, rest, &[], &[])).expect("samples");
    assert_eq!(rest, rows[6000..]);
    let fixed = [Some(1), None];
    let given = pollster::block_on(model.sample(&mut engines, sampling, &[], &fixed)).expect("samples");
    assert!(given.chunks(2).all(|row| row[0] == 1.0));
    let number = pollster::block_on(model.sample(&mut engines, sampling, &[], &[None, Some(0)]));
    assert!(number.expect_err("a number").to_string().contains("`x` is a number"));
}

#[test]
fn files_come_back_whole_and_damaged_ones_say_what_is_wrong() {
    let (model, _, _) = fitted(standardised(Standardise::Mean), 60);
    let bytes = model.to_bytes();
    let again = TableModel::from_bytes("m", &bytes).expect("whole");
    assert_eq!((again.to_bytes(), &again), (bytes.clone(), &model));
    let message = Ensemble::from_bytes("m", &bytes).expect_err("categories").to_string();
    assert!(message.contains("TableModel::load"), "{message}");
    for end in [0, 9, bytes.len() / 2, bytes.len() - 1] {
        assert!(TableModel::from_bytes("m", &bytes[..end]).is_err());
    }
    for (from, to, want) in [
        ("\"format_version\":8", "\"format_version\":6", "an ensemble of 1 members"),
        ("[\"a\",\"b\",\"c\"]", "[\"a\",\"b\",\"b\"]", "has the level `b` twice"),
        ("[\"a\",\"b\",\"c\"]", "[]", "1 to 1000 levels"),
        ("[\"a\",\"b\",\"c\"]", "[\"a\",\"b\"]", "has shape [1, 3], expected [1, 2]"),
        ("[\"a\",\"b\",\"c\"]", "[\"a\",\"b\",\"d\"]", "do not fit"),
        ("\"context\":0", "\"context\":2", "2 of them context"),
        ("\"parents\":[]", "\"parents\":[0]", "has shape [1, 3], expected [3, 3]"),
        ("\"parents\":[]", "\"parents\":[9]", "depends on one that is not there"),
        (
            "\"discrete\":[{\"kind\":\"table\",\"parents\":[]}]",
            "\"discrete\":[]",
            "0 conditionals of 1 categories",
        ),
    ] {
        let message =
            TableModel::from_bytes("m", &changed(&bytes, from, to, None)).expect_err(want).to_string();
        assert!(message.contains(want), "`{want}` is not in: {message}");
    }
    for (probabilities, want) in [
        ([0.5, 0.25, 0.5], "add up to 1"),
        ([1.0, 0.0, 0.0], "positive"),
        ([f64::NAN, 0.5, 0.5], "not finite"),
    ] {
        let damaged = changed(&bytes, "", "", Some(probabilities));
        let message = TableModel::from_bytes("m", &damaged).expect_err(want).to_string();
        assert!(message.contains(want), "`{want}` is not in: {message}");
    }
}

/// A model file without checksum, with `from` in its JSON replaced and other probabilities.
fn changed(bytes: &[u8], from: &str, to: &str, probabilities: Option<[f64; 3]>) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).expect("own file");
    let (_, metadata) = SafeTensors::read_metadata(bytes).expect("own file");
    let json = &metadata.metadata().as_ref().expect("there")["moonflow"];
    assert!(json.contains(from), "{from} is not in {json}");
    let tensors: Vec<_> = file
        .iter()
        .map(|(name, view)| {
            let bytes = match probabilities {
                Some(numbers) if name.ends_with(".probabilities") => {
                    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
                }
                _ => view.data().to_vec(),
            };
            (name.to_owned(), view.dtype(), view.shape().to_vec(), bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("consistent"))
    });
    let json = if from.is_empty() { json.clone() } else { json.replacen(from, to, 1) };
    safetensors::serialize(views, Some([("moonflow".to_owned(), json)].into())).expect("serialises")
}

#[test]
fn a_mixed_table_goes_in_and_comes_out_with_its_types() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), csv(300)).expect("writable");
    let said = train(path, "t.csv", "o", &["--test-fraction", "0.1"]);
    assert!(said.contains("kind (3 categories), a, origin (3 categories), b, old (2 categories)"), "{said}");
    assert!(said.contains("classes  kind, origin, old: training NLL") && said.contains("test "), "{said}");
    for format in ["csv", "parquet", "tsv.gz"] {
        let out = format!("s.{format}");
        succeed(path, &["sample", "--model", "o/model.safetensors", "-n", "40", "--out", &out]);
        let reader = Reader::open(&path.join(&out), None).expect("opens");
        assert_eq!(reader.columns(), ["kind", "a", "origin", "b", "old"]);
        let number = |place: usize| {
            reader.kinds()[place].is_some_and(|kind| kind == moonflow::data::ValueKind::Number)
        };
        assert_eq!([0, 1, 2, 3, 4].map(number), [false, true, false, true, false], "{format}");
        let scores = succeed(path, &["score", "--model", "o/model.safetensors", &out]);
        assert_eq!(scores.lines().count(), 41);
    }
    let sample = succeed(
        path,
        &["sample", "--model", "o/model.safetensors", "-n", "30", "--given", "kind=white,old=true"],
    );
    assert!(
        sample.lines().skip(1).all(|line| line.starts_with("white,") && line.ends_with(",true")),
        "{sample}"
    );
    let info = succeed(path, &["info", "o/model.safetensors"]);
    assert!(
        info.contains("format version 8") && info.contains("category   origin: north, south, x"),
        "{info}"
    );
    let json = succeed(path, &["info", "--json", "o/model.safetensors"]);
    assert!(json.contains("\"truth\"") && json.contains("rosé, dry"), "{json}");
    succeed(path, &["plot", "--model", "o/model.safetensors", "--data", "t.csv", "--out", "p.svg"]);
    let gradient = succeed(path, &["score", "--gradient", "--model", "o/model.safetensors", "s.csv"]);
    assert_eq!(gradient.lines().next(), Some("log_prob,grad_a,grad_b"));
}

#[test]
fn the_command_and_the_library_give_the_same_scores() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), csv(200)).expect("writable");
    train(path, "t.csv", "o", &[]);
    let scores = succeed(path, &["score", "--device", "cpu", "--model", "o/model.safetensors", "t.csv"]);
    let scores: Vec<f64> = scores.lines().skip(1).map(|line| line.parse().expect("a number")).collect();
    let model = TableModel::load(path.join("o/model.safetensors")).expect("whole");
    let reader = Reader::open(&path.join("t.csv"), None).expect("opens");
    let codings = model.columns().iter().map(Coding::from).enumerate().collect();
    let rows = reader.select_coded(codings, &[], Missing::Refuse).expect("columns");
    let table = rows.into_table(|_, _| Ok(())).expect("known levels");
    let mut engines =
        pollster::block_on(model.engines(async |flow| CpuEngine::<f32>::new(flow))).expect("made");
    let log_prob = pollster::block_on(model.log_prob(&mut engines, &table.values)).expect("scores");
    assert_eq!(log_prob, scores);
    let categories = model.log_prob_of_categories(&table.values).expect("levels");
    assert!(categories.iter().all(|log_prob| *log_prob < 0.0));
}

#[test]
fn levels_that_look_alike_are_shifted_and_scaled_by_default_and_a_configuration_repeats_it() {
    let folder = folder();
    let row = |row: u32| {
        let mut noise = [0.0f32; 2];
        normals(row, 3, &mut noise);
        let level = row * row % 7 % 3;
        let [a, b] = noise.map(|noise| f64::from(noise) + 4.0 * f64::from(level));
        format!("{a},{b},{}\n", ["u", "v", "w"][level as usize])
    };
    fs::write(folder.path().join("t.csv"), "a,b,class\n".to_owned() + &(0..400).map(row).collect::<String>())
        .expect("new");
    let brief = ["--ensemble", "1", "--epochs", "2"];
    let notes = |out: &str, more: &[&str]| {
        let arguments = [&["train", "t.csv", "--device", "cpu", "--out", out], &brief[..], more].concat();
        let output = moonflow(folder.path(), &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let model = |out: &str| fs::read(folder.path().join(out).join("model.safetensors")).expect("written");
    let told = "shifted and scaled to each other: a, b by `class`; --category-moments=false leaves them";
    let said = notes("with", &[]);
    assert!(said.contains(told), "{said}");
    let info = succeed(folder.path(), &["info", "with/model.safetensors"]);
    assert!(info.contains("format version 9") && info.contains("moments of 3 levels"), "{info}");
    let again = notes("again", &["--config", "with/config.toml"]);
    assert!(again.contains(told) && model("again") == model("with"), "{again}");
    for (out, more) in [("without", &["--category-moments=false"][..]), ("plain", &["--preset", "default"])] {
        let said = notes(out, more);
        assert!(!said.contains("shifted and scaled"), "{said}");
        let info = succeed(folder.path(), &["info", &format!("{out}/model.safetensors")]);
        assert!(info.contains("format version 8"), "{info}");
    }
    // The levels come out where they are.
    let sample = ["sample", "--model", "with/model.safetensors", "-n", "600", "--given", "class=w"];
    let sample = succeed(folder.path(), &sample);
    let values =
        sample.lines().skip(1).map(|line| line.split(',').next().expect("a").parse::<f64>().expect("a"));
    let mean = values.sum::<f64>() / 600.0;
    assert!((mean - 8.0).abs() < 0.5, "{mean}");
}

#[test]
fn unseen_and_missing_categories_and_names_of_rows_say_where_and_what_is_known() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), csv(60)).expect("writable");
    train(path, "t.csv", "o", &[]);
    for (row, want) in [
        (
            "blue,1,north,2,true",
            "line 61, column 1 (`kind`): `blue` is none of the known categories `red`, `rosé, dry`, `white`",
        ),
        ("red,1,north,2,maybe", "column 5 (`old`): `maybe` is none of the known categories `false`, `true`"),
        ("red,1,,2,true", "1 value missing, in 1 of 60 rows: line 61, column 3 (`origin`)"),
    ] {
        let mut lines: Vec<String> = csv(60).lines().map(str::to_owned).collect();
        lines[60] = row.into();
        fs::write(path.join("u.csv"), lines.join("\n")).expect("writable");
        let output = moonflow(path, &["score", "--model", "o/model.safetensors", "u.csv"]);
        let message = text(&output.stderr);
        assert!(!output.status.success() && message.contains(want), "{message}");
    }
    let dropped = moonflow(path, &["score", "--model", "o/model.safetensors", "u.csv", "--missing", "drop"]);
    assert_eq!(text(&dropped.stdout).lines().count(), 60, "{}", text(&dropped.stderr));
    let output =
        moonflow(path, &["sample", "--model", "o/model.safetensors", "-n", "1", "--given", "kind=blue"]);
    assert!(text(&output.stderr).contains("`blue` is none of the known categories"));
    let named =
        csv(60).lines().enumerate().map(|(row, line)| format!("row {row},{line}\n")).collect::<String>();
    fs::write(path.join("n.csv"), named).expect("writable");
    let message = text(&moonflow(path, &["train", "n.csv", "--out", "n"]).stderr);
    assert!(
        message.contains("`row 0` has 60 different texts in 60 rows") && message.contains("--drop"),
        "{message}"
    );
}

#[test]
fn training_with_categories_goes_on_bit_for_bit() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), csv(150)).expect("writable");
    let args = ["--epochs", "6", "--checkpoint-every", "2", "--device", "cpu", "--ensemble", "2"];
    let whole = [
        &["train", "t.csv", "--preset", "default", "--layers", "2", "--hidden", "4", "--out", "o"][..],
        &args,
    ]
    .concat();
    succeed(path, &whole);
    let model = fs::read(path.join("o/model.safetensors")).expect("written");
    let mut short = whole.clone();
    short[9] = "p";
    short.extend(["--time-limit", "0.000001"]);
    succeed(path, &short);
    succeed(path, &["train", "--resume", "p", "--config", "o/config.toml", "--time-limit", "1000"]);
    let resumed = TableModel::load(path.join("p/model.safetensors")).expect("whole");
    let first = TableModel::from_bytes("o", &model).expect("whole");
    assert_eq!(resumed.categories(), first.categories());
    let parameters = |model: &TableModel| -> Vec<Vec<f32>> {
        let members = model.density().expect("numbers").members();
        members.iter().map(|member| member.parameters.clone()).collect()
    };
    assert_eq!(parameters(&resumed), parameters(&first));
}

#[test]
fn tables_of_texts_alone_numbers_as_categories_and_contexts_are_modelled() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), csv(200)).expect("writable");
    for (columns, more, given, header) in [
        ("kind,origin,old", &[][..], "old=true", "kind,origin,old"),
        ("kind,a", &["--categorical", "a", "--context", "a"], "a=3.0", "kind,a"),
        ("kind,origin,b", &["--context", "b,origin"], "b=2,origin=north", "kind,b,origin"),
        ("a,b,old", &["--context", "old"], "old=false", "a,b,old"),
        ("a,kind", &["--standardise", "whiten", "--margins", "kernel"], "kind=red", "a,kind"),
    ] {
        let mut args = vec!["--columns", columns];
        args.extend(more);
        let said = train(path, "t.csv", "o", &args);
        let sample =
            ["sample", "--model", "o/model.safetensors", "-n", "4", "--given", given, "--out", "s.csv"];
        succeed(path, &sample);
        let rows = fs::read_to_string(path.join("s.csv")).expect("written");
        assert!(rows.starts_with(&format!("{header}\n")) && rows.lines().count() == 5, "{said}{rows}");
        let scores = succeed(path, &["score", "--model", "o/model.safetensors", "s.csv"]);
        assert!(scores.lines().skip(1).all(|line| line.parse::<f64>().is_ok_and(f64::is_finite)), "{scores}");
    }
    let refused = moonflow(path, &["train", "t.csv", "--bounds", "kind=-1:9", "--out", "r"]);
    assert!(text(&refused.stderr).contains("column `kind` is a category"), "{}", text(&refused.stderr));
}
