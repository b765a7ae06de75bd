//! The program used wrongly: every refusal names what was got and what is expected, with the right exit status, no
//! panic and nothing half-written.

use std::fs;
use std::path::Path;

use moonflow::model::{Model, Outcome};

use crate::cli::{folder, moonflow, succeed, text, train};

/// Runs and expects `status`, every part of `wanted` in the message, and no panic.
fn fail(folder: &Path, arguments: &[&str], status: i32, wanted: &[&str]) {
    let output = moonflow(folder, arguments);
    // Words that clap wrapped to the terminal's width are compared with single spaces.
    let message = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
    for part in wanted {
        assert!(message.contains(part), "{arguments:?}: `{part}` is not in: {message}");
    }
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
}

#[test]
fn wrong_command_lines_name_the_rule_and_end_with_status_2() {
    let folder = folder();
    let path = folder.path();
    for (arguments, wanted) in [
        (&[][..], &["Usage"][..]),
        (&["trian"], &["trian", "train"]),
        (&["train", "moon"], &["moon", "Did you mean `moons`?", "circles", "swiss-roll"]),
        (&["train", "nothing-like-it"], &["no toy density and no file", "moons"]),
        (&["train", "--preset", "fast"], &["fast", "default", "seed"]),
        (&["train", "--activation", "gelu"], &["gelu", "relu", "tanh", "leaky-relu", "silu"]),
        (&["train", "--mask", "checker"], &["alternating", "half-split", "random"]),
        (&["train", "--epochs", "0"], &["--epochs", "1..=1000000"]),
        (&["train", "--epochs", "99999999999"], &["--epochs", "1..=1000000"]),
        (&["train", "--batch", "0"], &["--batch", "1..=1048576"]),
        (&["train", "--layers", "0"], &["--layers", "1..=1024"]),
        (&["train", "--layers", "4000000000"], &["--layers", "1..=1024"]),
        (&["train", "--rows", "0"], &["--rows", "4..=10000000"]),
        (&["train", "--epochs", "5", "--warmup", "5"], &["warm-up must be shorter"]),
        (&["train", "--decay", "linear"], &["--decay", "constant, cosine"]),
        (&["train", "--lr", "NaN"], &["--lr", "above 0 and at most 1"]),
        (&["train", "--lr", "-0.1"], &["--lr", "above 0 and at most 1"]),
        (&["train", "--lr", "1e9"], &["--lr", "above 0 and at most 1"]),
        (&["train", "--hidden", "64,,x"], &["--hidden", "whole numbers from 1 to 65536"]),
        (&["train", "--hidden", "0"], &["--hidden", "whole numbers from 1 to 65536"]),
        (&["train", "--hidden", "-3"], &["--hidden", "whole numbers from 1 to 65536"]),
        (&["train", "--noise", "inf"], &["--noise", "finite number of at least 0"]),
        (&["train", "--seed", "x"], &["--seed"]),
        (&["train", "--seed", "-1"], &["--seed"]),
        (&["train", "--device", "abacus"], &["no device `abacus`", "auto, cpu, gpu"]),
        (&["train", "table.csv", "--rows", "10"], &["--rows and --noise are for toy densities"]),
        (&["sample", "--model", "m"], &["-n"]),
        (&["sample", "--model", "m", "-n", "0"], &["1..=100000000"]),
        (&["sample", "--model", "m", "-n", "1", "--temperature", "-1"], &["finite number of at least 0"]),
        (&["sample", "--model", "m", "-n", "1", "--temperature", "NaN"], &["finite number of at least 0"]),
        (&["score", "t.csv"], &["--model"]),
    ] {
        fail(path, arguments, 2, wanted);
    }
    assert_eq!(fs::read_dir(path).expect("readable").count(), 0, "nothing may be written");
}

#[test]
fn networks_that_are_too_large_are_refused() {
    let folder = folder();
    fail(folder.path(), &["train", "--hidden", "60000,60000", "--device", "cpu"], 2, &["too many"]);
}

#[test]
fn bad_tables_name_file_and_place_and_end_with_status_1() {
    let folder = folder();
    let path = folder.path();
    let good = (0..20).map(|i| format!("{i},{}\n", i * i)).collect::<String>();
    for (name, contents, wanted) in [
        ("empty.csv", String::new(), &["is empty"][..]),
        ("header.csv", "a,b\n".into(), &["has a header but no rows"]),
        ("ragged.csv", "a,b\n1,2\n3\n".into(), &["line 3", "expected 2 fields, got 1"]),
        ("word.csv", "a,b\n1,2\n3,x\n".into(), &["line 3, column 2 (`b`)", "`x` is not a number"]),
        (
            "nan.csv",
            "a,b\n1,2\nNaN,4\n".into(),
            &["1 value missing, in 1 of 2 rows", "line 3, column 1 (`a`)", "--missing drop"],
        ),
        ("inf.csv", "a,b\n1,inf\n".into(), &["line 2, column 2 (`b`)", "not finite"]),
        ("gap.csv", "a,b\n1,\n".into(), &["line 2, column 2 (`b`)", "missing"]),
        (
            "constant.csv",
            format!("a,b,c\n{}", good.replace('\n', ",5\n")),
            &["column 3 (`c`)", "constant", "drop"],
        ),
        ("short.csv", "a,b\n1,2\n".into(), &["at least 2 training rows"]),
        ("binary.csv", "\0\u{1}\u{2}".into(), &["binary.csv"]),
    ] {
        fs::write(path.join(name), contents).expect("written");
        fail(path, &["train", name, "--device", "cpu"], 1, &[&[name], wanted].concat());
    }
    fail(path, &["train", "absent.csv"], 1, &["absent.csv", "No such file"]);
    fail(path, &["train", "."], 1, &[]);
    assert!(!path.join("runs").exists(), "nothing may be written");
}

#[test]
fn tables_that_do_not_fit_the_model_say_what_was_expected_and_got() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), (0..40).map(|i| format!("{},{}\n", i % 7, i)).collect::<String>())
        .expect("written");
    fs::write(path.join("t.csv"), format!("a,b\n{}", fs::read_to_string(path.join("t.csv")).expect("there")))
        .expect("written");
    train(path, "t.csv", "o", &[]);
    for (contents, wanted) in [
        (
            "a,c\n1,2\n",
            "no column `b`; the columns are a, c. In any order, the model was trained on 2 columns (a, b)",
        ),
        ("A,b\n1,2\n", "no column `a`; did you mean `A`?"),
        ("1,2,3\n", "has 3 columns without names, but the model was trained on 2 columns (a, b)"),
        ("a,b,log_prob\n1,2,3\n", "has a column `log_prob` of its own"),
        ("a,b\n1,x\n", "line 2, column 2 (`b`)"),
    ] {
        fs::write(path.join("s.csv"), contents).expect("written");
        let arguments = ["score", "--model", "o/model.safetensors", "s.csv", "--out", "out.csv"];
        fail(path, &arguments, 1, &["s.csv", wanted]);
    }
    assert!(!path.join("out.csv").exists());
    // Without a header, columns are taken as they stand.
    fs::write(path.join("s.csv"), "1,2\n3,4\n").expect("written");
    succeed(path, &["score", "--model", "o/model.safetensors", "s.csv", "--device", "cpu"]);
}

#[test]
fn files_that_are_no_models_say_what_is_wrong_with_them() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    let whole = fs::read(path.join("o/model.safetensors")).expect("written");
    for (name, bytes, wanted) in [
        ("empty", &[][..], "the file is empty"),
        ("cut", &whole[..whole.len() - 1], "truncated"),
        ("head", &whole[..100], "not a safetensors file, or only the beginning of one"),
        ("text", b"a,b\n1,2\n", "not a safetensors file"),
    ] {
        fs::write(path.join(name), bytes).expect("written");
        for command in [
            &["info", name][..],
            &["score", "--model", name, "-"],
            &["sample", "--model", name, "-n", "1"],
            &["plot", "--model", name],
        ] {
            fail(path, command, 1, &[name, "not a usable moonflow model", wanted]);
        }
    }
    fail(path, &["info", "absent"], 1, &["absent", "No such file"]);
    fail(path, &["info", "o"], 1, &["o: "]);
}

#[test]
fn output_that_cannot_be_written_is_found_before_training_starts() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("file"), "mine").expect("written");
    fs::create_dir_all(path.join("taken/model.safetensors")).expect("made");
    // Long enough to run into the test's own limit of patience if training started.
    let long = ["--epochs", "1000000", "--device", "cpu"];
    for (out, wanted) in
        [("file", "file: "), ("file/below", "file/below: "), ("taken", "model.safetensors: ")]
    {
        fail(path, &[&["train", "--out", out][..], &long].concat(), 1, &[wanted]);
    }
    assert_eq!(fs::read_to_string(path.join("file")).expect("there"), "mine");
    assert_eq!(fs::read_dir(path.join("taken")).expect("there").count(), 1, "nothing half-written");
}

#[test]
fn output_that_fails_half_way_leaves_nothing_behind() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    let model = ["--model", "o/model.safetensors"];
    fail(
        path,
        &[&["sample"], &model[..], &["-n", "3", "--out", "absent/s.csv"]].concat(),
        1,
        &["absent/s.csv"],
    );
    fail(path, &[&["plot"], &model[..], &["--out", "p.gif"]].concat(), 2, &["must end in .png or .svg"]);
    if Path::new("/dev/full").exists() {
        fail(
            path,
            &[&["sample"], &model[..], &["-n", "3", "--out", "/dev/full"]].concat(),
            1,
            &["/dev/full"],
        );
    }
}

#[test]
fn training_that_blows_up_keeps_the_last_good_state_and_ends_with_status_1() {
    let folder = folder();
    // Three columns, because what a picture of two shows takes longer than the training.
    let rows: String = (0..100).map(|i| format!("{},{},{}\n", i % 7, i % 11, i % 13)).collect();
    fs::write(folder.path().join("t.csv"), rows).expect("written");
    // Adam's first step moves every weight by the whole rate: each of 64 couplings then multiplies what it is given,
    // and `f32` ends at 3e38.
    let blow_up = [
        "--preset", "default", "--lr", "1", "--epochs", "3", "--layers", "64", "--hidden", "8", "--device",
        "cpu",
    ];
    let output = moonflow(folder.path(), &[&["train", "t.csv", "--out", "o"][..], &blow_up].concat());
    let message = text(&output.stderr);
    if output.status.success() {
        panic!("the training was meant to blow up: {message}");
    }
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("not finite") && message.contains("--lr"), "{message}");
    let model = Model::load(folder.path().join("o/model.safetensors")).expect("written all the same");
    assert!(matches!(model.record.outcome, Outcome::NonFinite { .. }));
}
