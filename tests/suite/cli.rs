//! The program as a person meets it: every command from end to end. `bad_input` uses it wrongly.
//!
//! Trainings here are as small as they get: two epochs of two narrow couplings over 300 rows.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use moonflow::data::Table;
use moonflow::flow::{ConditionerForm, Transform};
use moonflow::layout::Layout;
use moonflow::model::{Model, Outcome};
use tempfile::TempDir;

use crate::common::root;

pub const TINY: [&str; 12] = [
    "--epochs", "2", "--rows", "300", "--layers", "2", "--hidden", "8", "--device", "cpu", "--preset",
    "default",
];

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary folder")
}

/// The program, in `folder`.
pub fn moonflow(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(cargo_bin("moonflow"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs and expects success; its standard output.
pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = moonflow(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A tiny training of `data`, in `folder`/`out`.
pub fn train(folder: &Path, data: &str, out: &str, more: &[&str]) -> String {
    let mut tiny = if data.contains('.') { [&TINY[..2], &TINY[4..]].concat() } else { TINY.to_vec() };
    if more.contains(&"--preset") {
        tiny.truncate(tiny.len() - 2);
    }
    succeed(folder, &[&["train", data, "--out", out][..], &tiny, more].concat())
}

fn read_table(path: &Path) -> Table {
    Table::read(path).expect("CSV")
}

#[test]
fn train_writes_model_history_and_picture_and_says_what_it_did() {
    let folder = folder();
    let said = train(folder.path(), "moons", "o", &[]);
    for part in [
        "270 rows for training and 30 for validation",
        "2 couplings",
        "device   CPU",
        "held out NLL",
        "floor",
        "check    round trip within",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let mut files: Vec<_> = fs::read_dir(folder.path().join("o"))
        .expect("made")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert_eq!(files, ["config.toml", "history.csv", "model.safetensors", "moons.png"]);

    let history = fs::read_to_string(folder.path().join("o/history.csv")).expect("written");
    let mut lines = history.lines();
    assert_eq!(lines.next(), Some("epoch,train_nll,val_nll,lr,grad_norm,seconds"));
    assert_eq!(lines.count(), 2);
    let png = fs::read(folder.path().join("o/moons.png")).expect("written");
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    let model = Model::load(folder.path().join("o/model.safetensors")).expect("whole");
    assert_eq!((model.record.outcome, model.record.epochs), (Outcome::Finished, 2));
    assert!(model.record.held_out.is_some_and(|held_out| held_out.above_floor.is_some()));
}

#[test]
fn same_seed_gives_the_same_model_file_and_another_seed_another() {
    let folder = folder();
    let bytes = |out: &str, seed: &str| {
        train(folder.path(), "circles", out, &["--seed", seed]);
        fs::read(folder.path().join(out).join("model.safetensors")).expect("written")
    };
    let first = bytes("a", "7");
    assert!(first == bytes("b", "7"), "the files differ");
    assert!(first != bytes("c", "8"), "the seed does not matter");
}

#[test]
fn defaults_are_moons_and_a_folder_under_runs() {
    let folder = folder();
    succeed(folder.path(), &[&["train"][..], &TINY].concat());
    assert!(folder.path().join("runs/moons/model.safetensors").is_file());
}

#[test]
fn a_file_is_trained_scored_sampled_plotted_and_described() {
    let folder = folder();
    let path = folder.path();
    // Columns of very different scales, correlated, and three of them: odd.
    let rows: String = (0..200)
        .map(|i| {
            let t = f64::from(i) * 0.7;
            format!("{},{},{}\n", t.sin(), 1000.0 * t.cos() + 5000.0, t.sin() * 0.01 + f64::from(i % 7))
        })
        .collect();
    fs::write(path.join("table.csv"), format!("a,b,c\n{rows}")).expect("written");
    let said = train(path, "table.csv", "o", &["--mask", "random", "--activation", "silu"]);
    assert!(said.contains("columns a, b, c") && said.contains("validation NLL"), "{said}");
    assert!(path.join("o/table.png").is_file());

    let model = "o/model.safetensors";
    let scores = succeed(path, &["score", "--model", model, "table.csv", "--device", "cpu"]);
    assert_eq!(scores.lines().next(), Some("log_prob"));
    assert_eq!(scores.lines().count(), 201);
    succeed(path, &["score", "--model", model, "table.csv", "--device", "cpu", "--out", "s.csv"]);
    assert_eq!(fs::read_to_string(path.join("s.csv")).expect("written"), scores);

    // The same rows with their columns in another order score the same.
    let table = read_table(&path.join("table.csv"));
    let turned: Vec<f64> = table.values.chunks(3).flat_map(|row| [row[2], row[0], row[1]]).collect();
    let mut bytes = Vec::new();
    Table::write_csv(&["c", "a", "b"].map(String::from), &turned, &mut bytes).expect("a vector takes all");
    fs::write(path.join("turned.csv"), bytes).expect("written");
    assert_eq!(succeed(path, &["score", "--model", model, "turned.csv", "--device", "cpu"]), scores);

    let sample = |more: &[&str]| {
        succeed(path, &[&["sample", "--model", model, "-n", "5", "--device", "cpu"][..], more].concat())
    };
    let rows = sample(&["--seed", "3"]);
    assert_eq!((rows.lines().next(), rows.lines().count()), (Some("a,b,c"), 6));
    assert_eq!(sample(&["--seed", "3"]), rows);
    assert_ne!(sample(&["--seed", "4"]), rows);
    let cold = sample(&["--temperature", "0"]);
    let mut lines = cold.lines().skip(1);
    let first = lines.next();
    assert!(lines.all(|line| Some(line) == first), "without noise all rows are the mode: {cold}");

    succeed(path, &["plot", "--model", model, "--data", "table.csv", "--out", "p.svg", "--device", "cpu"]);
    assert!(fs::read_to_string(path.join("p.svg")).expect("written").contains("<svg"));
    succeed(path, &["plot", "--model", model, "--device", "cpu"]);

    let info = succeed(path, &["info", model]);
    for part in
        ["3 features", "silu", "table.csv: 200 rows", "parameters", "finished after 2 epochs", "seed 0"]
    {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
}

#[test]
fn info_says_which_coupling_has_which_networks_where_they_differ() {
    let folder = folder();
    let mut model = Model::load(root().join("tests/models/version_1.safetensors")).expect("a stored model");
    let Some(Transform::Coupling(last)) = model.flow.transforms.last_mut() else { panic!("no coupling") };
    last.conditioner.form = ConditionerForm::Joint;
    model.parameters = vec![0.0; Layout::new(&model.flow).total];
    model.save(folder.path().join("m")).expect("written");
    let info = succeed(folder.path(), &["info", "m"]);
    let kinds: Vec<&str> = info.lines().filter(|line| line.contains("  coupling, ")).collect();
    assert_eq!(kinds.len(), model.flow.transforms.len(), "{info}");
    let (last, others) = kinds.split_last().expect("couplings");
    assert!(last.contains(" joint networks, ") && !others.concat().contains("joint"), "{info}");
}

#[test]
fn scores_are_the_densitys_in_the_users_units() {
    // Stretching every row by k moves log p by −ln k per feature, if the model comes out the same: it does, because
    // standardised rows are then equal up to rounding. k is a power of two, so they are equal in every bit.
    let folder = folder();
    let path = folder.path();
    let mut scores = Vec::new();
    for k in [1.0, 1024.0] {
        let values: Vec<f64> =
            (0..400).map(|i| k * (f64::from(i) * 0.37).sin() * if i % 2 == 0 { 1.0 } else { 3.0 }).collect();
        let mut bytes = Vec::new();
        Table::write_csv(&["a", "b"].map(String::from), &values, &mut bytes).expect("a vector takes all");
        fs::write(path.join("t.csv"), bytes).expect("written");
        train(path, "t.csv", "o", &[]);
        let csv = succeed(path, &["score", "--model", "o/model.safetensors", "t.csv", "--device", "cpu"]);
        scores.push(Table::from_csv("scores", csv.as_bytes()).expect("CSV").values);
    }
    for (plain, stretched) in std::iter::zip(&scores[0], &scores[1]) {
        assert!((plain - stretched - 2.0 * 1024f64.ln()).abs() < 1e-9, "{plain} {stretched}");
    }
}

#[test]
fn plot_of_a_toy_model_draws_its_data_again() {
    let folder = folder();
    train(folder.path(), "blobs", "o", &["--noise", "0.25"]);
    fs::remove_file(folder.path().join("o/blobs.png")).expect("there");
    let output = moonflow(folder.path(), &["plot", "--model", "o/model.safetensors", "--device", "cpu"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    assert!(folder.path().join("o/blobs.png").is_file());
}

#[test]
fn devices_lists_the_cpu_and_marks_the_default() {
    let said = succeed(folder().path(), &["devices"]);
    assert!(
        said.contains("CPU") && said.lines().filter(|line| line.starts_with("* ")).count() >= 1,
        "{said}"
    );
}

#[test]
fn plan_is_made_without_a_gpu() {
    let said = succeed(folder().path(), &["plan", "--features", "5", "--layers", "3", "--hidden", "16"]);
    for part in [
        "5 features: 3 couplings, 16 relu joint networks",
        "training on 9,000 rows",
        "dispatches",
        "fused_gradient",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn help_names_every_command_and_version_its_number() {
    let folder = folder();
    let help = succeed(folder.path(), &["--help"]);
    for command in ["train", "score", "sample", "plot", "info", "devices", "plan", "completions", "man"] {
        assert!(help.contains(command), "{help}");
        succeed(folder.path(), &[command, "--help"]);
    }
    assert!(succeed(folder.path(), &["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_epoch_and_writes_what_there_is() {
    use std::io::{BufRead, BufReader};

    let folder = folder();
    let mut child = Command::new(cargo_bin("moonflow"))
        .args([
            "train", "--out", "o", "--epochs", "1000000", "--rows", "300", "--layers", "2", "--hidden", "8",
        ])
        .args(["--device", "cpu"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("UTF-8");
    assert!(first.starts_with("epoch 1/1000000"), "{first}");
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert!(child.wait().expect("ends").success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    let model = Model::load(folder.path().join("o/model.safetensors")).expect("written");
    assert_eq!(model.record.outcome, Outcome::Interrupted);
    assert!(model.record.epochs > 0 && model.record.epochs < 1_000_000);
    assert!(folder.path().join("o/history.csv").is_file() && folder.path().join("o/moons.png").is_file());
}

#[cfg(unix)]
#[test]
fn readers_that_go_away_are_no_error() {
    use std::io::Read;

    let folder = folder();
    train(folder.path(), "moons", "o", &[]);
    let mut child = Command::new(cargo_bin("moonflow"))
        .args(["sample", "--model", "o/model.safetensors", "-n", "200000", "--device", "cpu"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut first = [0; 6];
    stdout.read_exact(&mut first).expect("a header");
    assert_eq!(&first, b"x0,x1\n");
    drop(stdout);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn autotune_searches_once_keeps_its_cache_apart_and_changes_no_sample() {
    if std::env::var_os("MOONFLOW_SKIP_GPU_TESTS").is_some() {
        return;
    }
    let folder = folder();
    train(folder.path(), "moons", "o", &[]);
    let sample = |more: &[&str]| {
        let output = Command::new(cargo_bin("moonflow"))
            .args([
                "sample",
                "--model",
                "o/model.safetensors",
                "-n",
                "20",
                "--device",
                "gpu",
                "--plan",
                "layered",
            ])
            .args(more)
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .current_dir(folder.path())
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let file = folder.path().join("cache/moonflow/tiles.json");
    let (plain, _) = sample(&[]);
    assert!(!file.exists(), "nothing is kept without --autotune");
    let (tuned, said) = sample(&["--autotune"]);
    assert!(said.contains("tuned    coupling_inverse") && file.exists(), "{said}");
    let (again, silent) = sample(&["--autotune"]);
    assert!(!silent.contains("tuned"), "{silent}");
    fs::write(&file, "no JSON").expect("writable");
    let (broken, noted) = sample(&[]);
    assert!(noted.contains("tiles.json: ignored"), "{noted}");
    assert!([tuned, again, broken].iter().all(|rows| *rows == plain));

    let said = train(folder.path(), "moons", "p", &["--autotune"]);
    assert!(said.contains("device   CPU"), "the CPU engine has nothing to search: {said}");
}
