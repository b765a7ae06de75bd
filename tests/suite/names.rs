//! Names that come from a file and would be obeyed by a terminal, or fill it: shown escaped and cut, kept as they are in data.

use std::fs;
use std::path::Path;

use moonflow::data::Table;
use moonflow::model::Model;
use moonflow::shown::shown;

use crate::cli::{folder, moonflow, text, train};
use crate::limited::raw;

/// Clears the screen; makes a link; turns the direction; forges a line; fills the terminal.
fn names() -> Vec<String> {
    ["\u{1b}[2J", "\u{1b}]8;;http://x\u{7}y\u{1b}]8;;\u{7}", "a\u{202e}b\u{9b}1m", "n\nerror: forged"]
        .map(String::from)
        .into_iter()
        .chain(["x".repeat(70_000)])
        .collect()
}

fn write_table(path: &Path) {
    let values: Vec<f64> = (0..300).map(|index| f64::from(index * index % 101)).collect();
    let mut bytes = Vec::new();
    Table::write_csv(&names(), &values, &mut bytes).expect("a vector takes all");
    fs::write(path, bytes).expect("written");
}

/// Runs, and holds what is for a person against the rule; whether it succeeded, its standard output and error.
fn said(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = moonflow(folder, arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(raw(&stderr), None, "{arguments:?}: {stderr:?}");
    assert!(!stderr.contains("panicked") && stderr.len() < 20_000, "{arguments:?}: {}", stderr.len());
    assert!(!stderr.lines().any(|line| line.starts_with("error: forged")), "{stderr}");
    (output.status.success(), stdout, stderr)
}

fn readable(folder: &Path, arguments: &[&str]) -> String {
    let (success, stdout, stderr) = said(folder, arguments);
    assert!(success, "{arguments:?}: {stderr}");
    assert_eq!(raw(&stdout), None, "{arguments:?}: {stdout:?}");
    assert!(stdout.len() < 20_000, "{arguments:?}: {} bytes", stdout.len());
    stdout
}

#[test]
fn every_command_shows_names_escaped_and_cut_and_data_keep_them() {
    let folder = folder();
    let path = folder.path();
    write_table(&path.join("t.csv"));
    let tiny = ["--epochs", "2", "--layers", "2", "--hidden", "8", "--device", "cpu", "--preset", "default"];
    let trained = readable(path, &[&["train", "t.csv", "--out", "o"], &tiny[..]].concat());
    assert!(trained.contains("columns \\u{1b}[2J, ") && trained.contains("n\\nerror: forged"), "{trained}");
    let model = "o/model.safetensors";
    let info = readable(path, &["info", model]);
    assert!(info.contains(&shown(&names()[4]).to_string()), "{info}");
    readable(path, &["plot", "--model", model, "--data", "t.csv", "--out", "p.svg", "--device", "cpu"]);
    let svg = fs::read_to_string(path.join("p.svg")).expect("written");
    assert_eq!(raw(&svg), None);
    assert!(svg.contains("\\u{1b}[2J") && !svg.contains(&"x".repeat(500)));

    // Data, and JSON once it is parsed, have the names themselves.
    assert_eq!(Model::load(path.join(model)).expect("whole").columns, names());
    let json = readable_json(path, &["info", model, "--json"]);
    let columns = json["columns"].as_array().expect("a list").iter();
    assert_eq!(columns.map(|column| column["name"].as_str().expect("a text")).collect::<Vec<_>>(), names());
    let (_, csv, _) = said(path, &["sample", "--model", model, "-n", "3", "--device", "cpu"]);
    assert_eq!(Table::from_csv("s", csv.as_bytes()).expect("CSV").columns, names());

    // Errors quote names and arguments.
    fs::write(path.join("u.csv"), "a,b\n1,2\n").expect("written");
    fs::write(path.join("word.csv"), format!("a,\"{}\"\n1,\u{1b}[2J\n", names()[3])).expect("written");
    fs::write(path.join("c.toml"), format!("\"{}\" = 1\n", "\\u001b[2J".repeat(9000))).expect("written");
    fs::write(path.join("d.toml"), "epochs = \"\u{9b}2J\"\n").expect("written");
    fs::write(path.join("e.toml"), format!("a = {}\u{9b}", "x".repeat(90_000))).expect("written");
    let endless = "\u{1b}y".repeat(30_000);
    for arguments in [
        &["score", "--model", model, "u.csv"][..],
        &["train", "word.csv"],
        &["train", "t.csv", "--columns", "\u{1b}[2J,zzz\u{202e}"],
        &["train", "t.csv", "--context", &endless],
        &["train", "t.csv", "--bounds", "\u{1b}[2J=90:99"],
        &["train", "--config", "c.toml"],
        &["train", "--config", "d.toml"],
        &["train", "--config", "e.toml"],
        &["train", "\u{1b}[2J"],
        &["train", "--epochs", "\u{1b}[2J"],
        &["train", "--\u{1b}[2J"],
        &["train", "--device", "\u{1b}[2J"],
        &["info", "\u{1b}[2J\nerror: forged"],
        &["man", "\u{1b}[2J"],
        &["sample", "--model", model, "-n", "1", "--given", "\u{1b}[2J=1"],
    ] {
        let (success, _, stderr) = said(path, arguments);
        assert!(!success && stderr.contains("error: "), "{arguments:?}: {stderr}");
    }
}

fn readable_json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let (success, stdout, stderr) = said(folder, arguments);
    assert!(success, "{stderr}");
    assert_eq!(raw(&stdout), None);
    serde_json::from_str(&stdout).expect("JSON")
}

#[cfg(unix)]
#[test]
fn files_with_such_names_are_read_and_written() {
    let folder = folder();
    let path = folder.path();
    let name = "t\u{1b}[2J\nerror: forged\u{202e}.csv";
    write_table(&path.join(name));
    let tiny = ["--epochs", "1", "--layers", "2", "--hidden", "8", "--device", "cpu", "--preset", "default"];
    let trained = readable(path, &[&["train", name, "--out", "o\u{1b}[2J"], &tiny[..]].concat());
    assert!(trained.contains("o\\u{1b}[2J/model.safetensors"), "{trained}");
    readable(path, &["info", "o\u{1b}[2J/model.safetensors"]);
    assert!(path.join("o\u{1b}[2J/t\u{1b}[2J\nerror: forged\u{202e}.png").is_file());
}

#[test]
fn what_a_model_file_says_of_itself_is_shown_no_differently() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    let file = path.join("o/model.safetensors");
    let mut model = Model::load(&file).expect("whole");
    let bad = format!("\u{1b}[2J\nerror: forged{}", "\u{202e}y".repeat(40_000));
    model.record.device.clone_from(&bad);
    model.record.moonflow.clone_from(&bad);
    model.record.data.name.clone_from(&bad);
    model.record.recipe.preset.clone_from(&bad);
    model.record.check.as_mut().expect("checked").suspicious.push(bad);
    model.save(&file).expect("written");
    readable(path, &["info", "o/model.safetensors"]);
    readable_json(path, &["info", "o/model.safetensors", "--json"]);
    let plot = ["plot", "--model", "o/model.safetensors", "--data", "moons", "--device", "cpu"];
    readable(path, &[&plot[..], &["--out", "p.svg"]].concat());
    assert_eq!(raw(&fs::read_to_string(path.join("p.svg")).expect("written")), None);
}
