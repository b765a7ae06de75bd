//! What a training is told beside its table: rows of a test, a configuration, where and on what it goes on.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use moonflow::model::{HeldOut, Model};
use moonflow::train::Checkpoint;

use crate::cli::{folder, moonflow, succeed, text, train};

const MODEL: &str = "model.safetensors";

/// Runs and expects failure with `status` and every part of `wanted` in the message.
fn refuse(folder: &Path, arguments: &[&str], status: i32, wanted: &[&str]) {
    let output = moonflow(folder, arguments);
    let message = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
    for part in wanted {
        assert!(message.contains(part), "{arguments:?}: `{part}` is not in: {message}");
    }
}

fn test_of(folder: &Path, out: &str) -> HeldOut {
    Model::load(folder.join(out).join(MODEL)).expect("whole").record.test.expect("scored")
}

/// A table of columns that a flow can be fitted to, `word` among them, and rows by `row`.
fn write(path: &Path, header: &str, rows: std::ops::Range<u32>, row: impl Fn(f64) -> String) {
    let rows: String = rows.map(|index| row(f64::from(index)) + "\n").collect();
    fs::write(path, format!("{header}\n{rows}")).expect("written");
}

#[test]
fn a_test_is_read_as_the_table_is() {
    let folder = folder();
    let path = folder.path();
    let numbers = |i: f64| (i.sin(), (3.0 * i).cos() + i.sin(), (i * 0.7).sin());
    write(&path.join("t.csv"), "a,b,word,c", 0..80, |i| {
        let (a, b, c) = numbers(i);
        format!("{a},{b},w{i},{c}")
    });
    // In another order, with a row that lacks a value, another column, and tabs.
    let test = |i: f64| {
        let (a, b, c) = numbers(i);
        let b = if i == 105.0 { String::new() } else { b.to_string() };
        format!("{c}\tx\t{a}\t{b}")
    };
    write(&path.join("test.data"), "c\tother\ta\tb", 100..130, test);
    let tiny = ["--epochs", "2", "--layers", "2", "--hidden", "8", "--device", "cpu", "--preset", "default"];
    let choice = ["--drop", "word", "--columns", "1-3,c"];
    let with = |more: &[&'static str]| [&["train", "t.csv", "--out", "o"], &tiny[..], &choice, more].concat();
    write(&path.join("test.csv"), "c,other,a,b", 100..130, |i| test(i).replace('\t', ","));
    for name in ["test.data", "test.csv"] {
        refuse(path, &with(&["--test", name]), 1, &[name, "1 value missing", "line 7, column 4 (`b`)"]);
    }
    assert!(!path.join("o").exists(), "found before training");
    let output = moonflow(path, &with(&["--test", "test.csv", "--missing", "drop"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("1 row that lacks a value left out"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("29 for the test"), "{}", text(&output.stdout));
    let held_out = test_of(path, "o");
    assert!(held_out.rows == 29 && held_out.nll.is_finite() && held_out.within_bounds.is_none());

    // The scores are those of `score`, which finds the columns by name too.
    let score =
        ["score", "--model", "o/model.safetensors", "test.csv", "--drop", "other", "--missing", "drop"];
    let scores = succeed(path, &[&score[..], &["--device", "cpu"]].concat());
    let scores: Vec<f64> = scores.lines().skip(1).map(|line| line.parse().expect("a number")).collect();
    assert!((held_out.nll + scores.iter().sum::<f64>() / 29.0).abs() < 1e-12);

    // Both with tabs, by --format, and the test of a toy density.
    write(&path.join("t.data"), "a\tb\tc", 0..80, |i| {
        let (a, b, c) = numbers(i);
        format!("{a}\t{b}\t{c}")
    });
    let tabs = ["--format", "tsv", "--missing", "drop", "--test", "test.data"];
    succeed(path, &[&["train", "t.data", "--out", "p"], &tiny[..], &tabs].concat());
    assert_eq!(test_of(path, "p").rows, 29);
    write(&path.join("toy.data"), "x1\tx0", 0..9, |i| format!("{}\t{}", i.sin(), i.cos()));
    train(path, "moons", "q", &["--format", "tsv", "--test", "toy.data"]);
    assert_eq!(test_of(path, "q").rows, 9);

    // Without names it is laid out like the table, or as the model.
    write(&path.join("bare.csv"), "0.1,0.2,9,0.3", 0..9, |i| {
        format!("{},{},9,{}", i.sin(), i.cos(), i.sin())
    });
    write(&path.join("bare3.csv"), "0.1,0.2,0.3", 0..9, |i| format!("{},{},{}", i.sin(), i.cos(), i.sin()));
    let bare = ["train", "bare.csv", "--out", "r", "--columns", "1,2,4", "--test"];
    for test in ["bare.csv", "bare3.csv"] {
        succeed(path, &[&bare[..], &[test], &tiny].concat());
        assert_eq!(test_of(path, "r").rows, 10, "{test}");
    }
    refuse(path, &[&bare[..], &["toy.data"]].concat(), 1, &["toy.data"]);
}

#[test]
fn test_rows_outside_of_the_bounds_are_counted_and_the_mean_is_given_without_them_too() {
    let folder = folder();
    let path = folder.path();
    write(&path.join("t.csv"), "share,k", 0..60, |i| format!("{},{}", 0.5 + 0.4 * i.sin(), i % 7.0));
    let row = |i: f64| match i {
        3.0 => "1.5,2".into(),
        4.0 => "0.5,2.5".into(),
        _ => format!("{},{}", 0.5 + 0.4 * i.cos(), i % 5.0),
    };
    write(&path.join("test.csv"), "share,k", 0..20, row);
    let options = ["--bounds", "share=0:1", "--dequantize", "k", "--test", "test.csv"];
    let said = train(path, "t.csv", "o", &options);
    let test = test_of(path, "o");
    let within = test.within_bounds.expect("some are outside");
    assert_eq!((test.rows, within.rows), (20, 18));
    assert!(!test.nll.is_finite() && within.nll.is_finite() && within.standard_error > 0.0, "{test:?}");
    let line = format!("NLL {:.4}", within.nll);
    for text in [&said, &succeed(path, &["info", "o/model.safetensors"])] {
        assert!(text.contains(&line) && text.contains("over 18 test rows within the bounds"), "{text}");
        assert!(text.contains("infinite over all 20, for 2 are outside"), "{text}");
    }
    write(&path.join("test.csv"), "share,k", 0..5, |_| "7,1".into());
    let said = train(path, "t.csv", "o", &options);
    assert!(said.contains("NLL infinite: all 5 test rows are outside of the bounds"), "{said}");
}

#[test]
fn data_in_a_configuration_are_never_a_flag() {
    let folder = folder();
    let path = folder.path();
    for data in ["--help", "-h", "-x", "--version", "--epochs=3", "--config", "--"] {
        fs::write(path.join("c.toml"), format!("data = \"{data}\"\nepochs = 1\n")).expect("written");
        let named = format!("no toy density and no file called `{data}`");
        for arguments in [&["train", "--config", "c.toml"][..], &["train", "--config", "c.toml", "--"]] {
            refuse(path, arguments, 2, &[&named]);
        }
    }
    // A file of that name is read, and data on the command line come first.
    let row = |i: f64| format!("{},{}", i.sin(), i.cos());
    write(&path.join("-x"), "a,b", 0..30, row);
    fs::write(path.join("c.toml"), "data = \"-x\"\nepochs = 1\nlayers = 2\nhidden = 8\n").expect("written");
    let tiny = ["--config", "c.toml", "--device", "cpu", "--out", "o", "--preset", "default"];
    succeed(path, &[&["train"], &tiny[..]].concat());
    assert_eq!(Model::load(path.join("o").join(MODEL)).expect("whole").columns, ["a", "b"]);
    succeed(path, &[&["train", "moons", "--rows", "50"], &tiny[..]].concat());
    assert!(Model::load(path.join("o").join(MODEL)).expect("whole").record.data.toy);
}

#[test]
fn a_training_goes_on_from_another_folder_and_after_its_own_was_moved() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir_all(path.join("work/data")).expect("made");
    fs::create_dir_all(path.join("elsewhere")).expect("made");
    let work = path.join("work");
    let row = |i: f64| format!("{},{},{}", i.sin(), i.cos(), (i * 0.3).sin());
    write(&work.join("data/t.csv"), "a,b,c", 0..60, row);
    write(&work.join("test.csv"), "a,b,c", 60..70, row);
    let whole = ["--decay", "constant", "--warmup", "0", "--test", "test.csv", "--checkpoint-every", "1"];
    train(&work, "data/t.csv", "o", &whole);
    let tiny = ["--epochs", "4", "--layers", "2", "--hidden", "8", "--device", "cpu", "--preset", "default"];
    succeed(&work, &[&["train", "data/t.csv", "--out", "whole"], &whole[..], &tiny].concat());
    let run = work.join("o");
    let said = succeed(
        &path.join("elsewhere"),
        &["train", "--resume", run.to_str().expect("UTF-8"), "--epochs", "3"],
    );
    assert!(said.contains("resumed  after epoch 2"), "{said}");
    fs::rename(&run, path.join("elsewhere/moved")).expect("moved");
    succeed(&path.join("elsewhere"), &["train", "--resume", "moved", "--epochs", "4"]);
    let bytes = |file: &Path| fs::read(file.join(MODEL)).expect("written");
    assert!(bytes(&path.join("elsewhere/moved")) == bytes(&work.join("whole")), "the models differ");
    assert_eq!(fs::read_dir(path.join("elsewhere")).expect("there").count(), 1, "nothing else is written");

    // Data that are gone are asked for, and may be named.
    fs::rename(work.join("data/t.csv"), work.join("u.csv")).expect("moved");
    let missing = ["is not where it was", "moonflow train DATA --resume DIR"];
    refuse(&path.join("elsewhere"), &["train", "--resume", "moved"], 1, &missing);
    succeed(&path.join("elsewhere"), &["train", "../work/u.csv", "--resume", "moved"]);
}

#[test]
fn another_number_of_threads_is_no_other_device() {
    let folder = folder();
    let path = folder.path();
    let on = |threads: &str, arguments: &[&str]| {
        let output = Command::new(cargo_bin("moonflow"))
            .args(arguments)
            .env("RAYON_NUM_THREADS", threads)
            .current_dir(path)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let tiny = ["--rows", "200", "--layers", "2", "--hidden", "8", "--device", "cpu", "--decay", "constant"];
    let long =
        ["train", "moons", "--preset", "default", "--epochs", "2", "--checkpoint-every", "1", "--out", "o"];
    on("1", &[&long[..], &tiny].concat());
    let said = on("3", &["train", "--resume", "o", "--epochs", "3"]);
    assert!(!said.contains("warning"), "{said}");
    on(
        "2",
        &[&["train", "moons", "--preset", "default", "--epochs", "3", "--out", "whole"], &tiny[..]].concat(),
    );
    let parameters = |out: &str| Model::load(path.join(out).join(MODEL)).expect("whole").parameters;
    assert_eq!(parameters("o"), parameters("whole"));

    let file = path.join("o/checkpoint.safetensors");
    let mut checkpoint = Checkpoint::load(&file).expect("whole");
    checkpoint.device = "Some GPU (vulkan)".into();
    checkpoint.save(&file).expect("written");
    let said = on("1", &["train", "--resume", "o", "--epochs", "4"]);
    assert!(said.contains("warning: the checkpoint was made on Some GPU (vulkan)"), "{said}");
}
