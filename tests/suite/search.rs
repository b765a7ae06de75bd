//! A search for a recipe from outside: what it says, that its result repeats without it, and when it is refused.

use std::fs;
use std::path::Path;

use moonflow::model::Ensemble;
use serde_json::Value;

use super::cli::{folder, moonflow, succeed, text};

/// Flags of small fits, which a search leaves as they are.
pub const SMALL: [&str; 12] = [
    "--layers",
    "2",
    "--hidden",
    "8",
    "--epochs",
    "9",
    "--ensemble",
    "2",
    "--batch",
    "64",
    "--device",
    "cpu",
];

/// A table of three columns, two of which bend.
pub fn write_table(path: &Path) {
    let row = |i: u32| {
        let t = f64::from(i * 37 % 240) * 0.05;
        format!("{},{},{}\n", t.sin() + f64::from(i % 7) * 0.01, t * t * 0.1, (f64::from(i) * 0.83).cos())
    };
    fs::write(path.join("t.csv"), format!("a,b,c\n{}", (0..240).map(row).collect::<String>()))
        .expect("written");
}

/// Whether a line is of an average that was tried with all of its epochs.
fn is_average(line: &str) -> bool {
    line.starts_with("tried    9 epochs, ") && line.contains("average of 2 fits")
}

/// What a search of `t.csv` says, and its seconds: more of them where `enough` says that a busy machine came to too little.
fn search(path: &Path, flags: &[&str], enough: impl Fn(&str) -> bool) -> (String, &'static str) {
    let budgets = ["4", "20", "100"];
    let search = |seconds| {
        let arguments = [&["train", "t.csv", "--out", "o", "--search", seconds], flags, &SMALL].concat();
        (succeed(path, &arguments), seconds)
    };
    let last = budgets.len() - 1;
    budgets[..last]
        .iter()
        .map(|seconds| search(seconds))
        .find(|(said, _)| enough(said))
        .unwrap_or_else(|| search(budgets[last]))
}

#[test]
fn a_search_says_what_it_tried_and_its_configuration_repeats_the_fit_without_it() {
    let folder = folder();
    let path = folder.path();
    write_table(path);
    let averages = |said: &str| said.lines().filter(|line| is_average(line)).count();
    let (said, seconds) = search(path, &[], |said| averages(said) > 1);
    let lines = |word: &str| said.lines().filter(|line| line.starts_with(word)).collect::<Vec<_>>();
    let begins = format!("search   {seconds} s; recipes are judged by 24 validation rows");
    assert!(said.starts_with(&begins), "{said}");
    let (tried, chosen) = (lines("tried"), lines("chosen"));
    assert!(tried.len() > 3 && chosen.len() == 1, "{said}");
    assert!(tried[0].contains("9 epochs, 2 couplings, 8, 8 bins, rate 0.003, average of 2 fits"), "{said}");
    assert!(
        tried.iter().skip(1).any(|line| line.contains("tried    1 of 9 epochs, 2 couplings, 8,")),
        "{said}"
    );
    // Rounds leave averages their time.
    assert!(averages(&said) > 1, "{said}");
    // The loss and the recipe of the best one with all of its epochs.
    let loss = |line: &str| -> Option<f64> { line.rsplit_once(": ")?.1.split(' ').next()?.parse().ok() };
    let whole = tried.iter().filter(|line| !line.contains(" of 9 epochs"));
    let best = whole.filter_map(|line| loss(line)).fold(f64::INFINITY, f64::min);
    assert_eq!(loss(chosen[0]), Some(best), "{said}");
    assert!(said.contains("recipe   table: 9 epochs"), "{said}");

    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    assert!(!config.contains("search"), "{config}");
    let again = succeed(path, &["train", "--config", "o/config.toml", "--out", "p"]);
    assert!(!again.contains("tried"), "{again}");
    let model = |folder: &str| fs::read(path.join(folder).join("model.safetensors")).expect("written");
    assert!(model("o") == model("p"), "the same bits");
}

#[test]
fn a_table_with_categories_is_searched_too() {
    let folder = folder();
    let path = folder.path();
    write_table(path);
    let table = fs::read_to_string(path.join("t.csv")).expect("written");
    let with_kind = |(index, line): (usize, &str)| match index {
        0 => format!("kind,{line}\n"),
        _ => format!("{},{line}\n", if index % 3 == 0 { "odd" } else { "even" }),
    };
    fs::write(path.join("t.csv"), table.lines().enumerate().map(with_kind).collect::<String>())
        .expect("written");
    let (said, _) = search(path, &[], |said| said.contains("chosen"));
    assert!(
        said.contains("columns kind (2 categories), a, b, c") && said.contains("chosen   9 epochs"),
        "{said}"
    );
    succeed(path, &["train", "--config", "o/config.toml", "--out", "p"]);
    let model = |folder: &str| fs::read(path.join(folder).join("model.safetensors")).expect("written");
    assert!(model("o") == model("p"), "the same bits");
    let samples =
        succeed(path, &["sample", "--model", "p/model.safetensors", "-n", "9", "--given", "kind=odd"]);
    assert_eq!(samples.lines().filter(|line| line.starts_with("odd,")).count(), 9, "{samples}");
}

#[test]
fn programs_read_what_was_tried_as_json() {
    let folder = folder();
    write_table(folder.path());
    let (said, _) = search(folder.path(), &["--log-format", "json"], |said| said.contains("\"tried\""));
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let first = &lines[0];
    assert_eq!((&first["event"], &first["epochs"]), (&"tried".into(), &9.into()), "{first}");
    assert!(first["nll"].is_f64() && first["recipe"]["layers"] == 2 && first["seconds"].is_f64(), "{first}");
    assert_eq!(lines[lines.len() - 1]["event"], "end");
}

#[test]
fn a_budget_that_is_too_short_leaves_the_usual_recipe() {
    let folder = folder();
    let path = folder.path();
    write_table(path);
    let output =
        moonflow(path, &[&["train", "t.csv", "--out", "o", "--search", "1e-9"], &SMALL[..]].concat());
    let notes = text(&output.stderr);
    assert!(output.status.success() && notes.contains("too short for a single recipe"), "{notes}");
    succeed(path, &[&["train", "t.csv", "--out", "p"], &SMALL[..]].concat());
    let [o, p] =
        ["o", "p"].map(|out| Ensemble::load(path.join(out).join("model.safetensors")).expect("a model"));
    assert!(o == p);
}

#[test]
fn searches_that_have_nothing_to_choose_or_judge_by_are_refused() {
    let folder = folder();
    let path = folder.path();
    write_table(path);
    for (arguments, want) in [
        (&["train", "moons", "--search", "5"][..], "--search is for tables"),
        (&["train", "t.csv", "--search", "0"], "a finite number of seconds above 0"),
        (&["train", "t.csv", "--search", "inf"], "a finite number of seconds above 0"),
        (&["train", "t.csv", "--search", "5", "--resume", "o"], "cannot be used with"),
        (&["train", "t.csv", "--search", "5", "--validation-fraction", "0"], "needs validation rows"),
    ] {
        let output = moonflow(path, arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(want), "`{want}` is not in: {message}");
    }
}
