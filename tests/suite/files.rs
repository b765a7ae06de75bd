//! What happens to files: none that is read is written over, none is lost to a full disk, a picture or a second training.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use moonflow::model::{Model, Outcome, TableModel};
use serde_json::Value;

use crate::cli::{TINY, folder, moonflow, succeed, text, train};

const MODEL: &str = "o/model.safetensors";
const MAKE_CONDITIONAL: [&str; 2] = ["--context", "c"];

/// A table of two columns and one to be given.
fn table() -> String {
    let row = |i: u32| {
        let t = f64::from(i);
        format!("{},{},{}\n", (1.3 * t).sin(), (0.7 * t).cos(), i % 5)
    };
    format!("a,b,c\n{}", (0..60).map(row).collect::<String>())
}

/// Names and contents of everything in `folder` and below, but for the folders themselves.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).expect("readable")));
        }
    }
    all.sort();
    all
}

/// Standard error in single spaces, after a look at the exit status.
fn said(output: &Output, status: i32) -> String {
    let message = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// Runs each of `commands`, and expects a refusal that leaves `folder` as it was.
fn refuse(folder: &Path, commands: &[Vec<&str>]) {
    let before = contents(folder);
    for command in commands {
        let message = said(&moonflow(folder, command), 2);
        assert!(message.contains("read, and would be written over"), "{command:?}: {message}");
        assert!(contents(folder) == before, "{command:?} has changed a file");
    }
}

#[test]
fn no_command_writes_over_a_file_that_it_reads() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), table()).expect("written");
    train(path, "t.csv", "o", &MAKE_CONDITIONAL);
    fs::copy(path.join(MODEL), path.join("m.png")).expect("copied");
    for picture in ["p.svg", "o/t.png"] {
        fs::write(path.join(picture), table()).expect("written");
    }
    fs::write(path.join("o/mine.toml"), "data = \"moons\" # mine\n").expect("written");
    refuse(
        path,
        &[
            vec!["score", "--model", MODEL, "t.csv", "--out", "t.csv"],
            vec!["score", "--model", MODEL, "t.csv", "--out", MODEL],
            vec!["sample", "--model", MODEL, "-n", "2", "--given", "t.csv", "--out", "t.csv"],
            vec!["sample", "--model", MODEL, "-n", "2", "--given", "c=1", "--out", MODEL],
            vec!["plot", "--model", "m.png", "--data", "t.csv", "--out", "m.png"],
            vec!["plot", "--model", MODEL, "--data", "p.svg", "--format", "csv", "--out", "p.svg"],
            // The default picture.
            vec!["plot", "--model", MODEL, "--data", "o/t.png", "--format", "csv"],
            vec!["train", "o/history.csv", "--out", "o"],
            vec!["train", "moons", "--test", "o/history.csv", "--out", "o"],
            vec!["train", "o/t.png", "--format", "csv", "--out", "o"],
        ],
    );
    // A table that ends in .gif, and a configuration of the user's own in the place of the one that is written.
    fs::rename(path.join("t.csv"), path.join("t.gif")).expect("renamed");
    fs::rename(path.join("o/mine.toml"), path.join("o/config.toml")).expect("renamed");
    refuse(
        path,
        &[
            vec!["train", "t.gif", "--format", "csv", "--columns", "a,b", "--animate", "t.gif"],
            vec!["train", "moons", "--test", "t.gif", "--animate", "t.gif"],
            vec!["train", "--config", "o/config.toml", "--out", "o"],
        ],
    );
}

#[test]
fn a_file_that_is_read_is_known_through_links_and_other_spellings() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), table()).expect("written");
    train(path, "t.csv", "o", &[]);
    fs::hard_link(path.join("t.csv"), path.join("hard.csv")).expect("linked");
    fs::hard_link(path.join("t.csv"), path.join("o/model.safetensors.csv")).expect("linked");
    let mut names = vec!["./t.csv", "o/../t.csv", "hard.csv"];
    let absolute = path.join("t.csv").display().to_string();
    names.push(&absolute);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("t.csv", path.join("soft.csv")).expect("linked");
        std::os::unix::fs::symlink("o", path.join("p")).expect("linked");
        names.extend(["soft.csv", "p/../t.csv"]);
    }
    let score = ["score", "--model", MODEL];
    let commands = names.iter().flat_map(|name| {
        [[&score[..], &["t.csv", "--out", name]].concat(), [&score[..], &[*name, "--out", "t.csv"]].concat()]
    });
    refuse(path, &commands.collect::<Vec<_>>());
    // The folder's own files by links to them.
    fs::remove_file(path.join("o/history.csv")).expect("there");
    fs::hard_link(path.join("t.csv"), path.join("o/history.csv")).expect("linked");
    refuse(path, &[vec!["train", "t.csv", "--out", "o"]]);
    succeed(path, &["score", "--model", MODEL, "t.csv", "--out", "s.csv", "--device", "cpu"]);
}

#[cfg(unix)]
#[test]
fn standard_input_and_output_are_files_that_may_be_read_too() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("t.csv"), table()).expect("written");
    train(path, "t.csv", "o", &[]);
    let before = contents(path);
    let run = |table: &str, more: &[&str], stdin: Stdio, stdout: Stdio| {
        let mut command = Command::new(cargo_bin("moonflow"));
        command.args(["score", "--device", "cpu", "--model", MODEL, table]).args(more).current_dir(path);
        command.stdin(stdin).stdout(stdout).output().expect("the program starts")
    };
    let read = || Stdio::from(File::open(path.join("t.csv")).expect("there"));
    let append = || Stdio::from(File::options().append(true).open(path.join("t.csv")).expect("there"));
    for output in [
        run("-", &["--out", "t.csv"], read(), Stdio::null()),
        run("t.csv", &[], Stdio::null(), append()),
        run("-", &[], read(), append()),
    ] {
        assert!(said(&output, 2).contains("read, and would be written over"));
        assert!(contents(path) == before);
    }
    let piped = run("-", &["--out", "s.csv"], read(), Stdio::null());
    assert!(piped.status.success(), "{}", text(&piped.stderr));
}

#[test]
fn a_configuration_beside_its_model_may_be_repeated_but_not_changed() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    let first = contents(path);
    succeed(path, &["train", "--config", "o/config.toml"]);
    let unlike = |a: &[(String, Vec<u8>)], b: &[(String, Vec<u8>)]| {
        a.iter().zip(b).filter(|(a, b)| a != b).map(|(a, _)| a.0.clone()).collect::<Vec<_>>()
    };
    let changed = unlike(&first, &contents(path));
    assert!(changed.iter().all(|name| name.ends_with("history.csv")), "only its seconds: {changed:?}");
    refuse(path, &[vec!["train", "--config", "o/config.toml", "--lr", "0.1"]]);
    let config = fs::read_to_string(path.join("o/config.toml")).expect("there");
    fs::write(path.join("o/config.toml"), format!("{config}# a note of mine\n")).expect("written");
    refuse(path, &[vec!["train", "--config", "o/config.toml"]]);
    succeed(path, &["train", "--config", "o/config.toml", "--out", "p"]);
}

/// Rows close to one another and five far out, where the first column is 5e7.
fn far_out(columns: usize) -> String {
    let names = ["a", "b", "c"];
    let ordinary = (0..95).map(|i| vec![i % 7, i % 11, i % 13]);
    let far = (0..5).map(|k| vec![50_000_000, k, k]);
    let line = |row: Vec<i32>| row[..columns].iter().map(i32::to_string).collect::<Vec<_>>().join(",") + "\n";
    names[..columns].join(",") + "\n" + &ordinary.chain(far).map(line).collect::<String>()
}

fn last_event(output: &Output) -> Value {
    let said = text(&output.stdout);
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said} {}", text(&output.stderr)))
}

#[test]
fn rows_far_out_are_drawn_in_every_panel_and_format() {
    let folder = folder();
    let path = folder.path();
    for (columns, animate) in [(2, &["--animate", "a.gif"][..]), (3, &[])] {
        fs::write(path.join("t.csv"), far_out(columns)).expect("written");
        let how =
            ["--standardise", "robust", "--layers", "8", "--hidden", "8", "--epochs", "1", "--device", "cpu"];
        let begin = ["train", "t.csv", "--preset", "default", "--out", "o", "--log-format", "json"];
        let arguments = [&begin[..], &how, animate].concat();
        let output = moonflow(path, &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let end = last_event(&output);
        assert_eq!((&end["event"], &end["not_written"]), (&"end".into(), &Value::Array(Vec::new())));
        assert!(path.join("o/t.png").is_file() && path.join("a.gif").is_file());
        for picture in ["p.png", "p.svg"] {
            let plot = ["plot", "--model", MODEL, "--data", "t.csv", "--device", "cpu", "--out", picture];
            succeed(path, &plot);
        }
        let svg = fs::read_to_string(path.join("p.svg")).expect("written");
        let paths = svg.lines().filter_map(|line| line.strip_prefix("<path d=\"")?.split('"').next());
        let far = paths
            .flat_map(|path| path.split(['M', 'L', 'h', ' ', 'z']))
            .map(|number| if number.is_empty() { 0.0 } else { number.parse::<f64>().expect(number).abs() })
            .fold(0.0, f64::max);
        assert!(far > 3000.0 && far <= 3200.0, "curves leave the picture, and no further than needed: {far}");
    }
}

#[cfg(unix)]
#[test]
fn a_picture_that_fails_costs_neither_results_nor_the_exit_status_but_for_plot() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir(path.join("o")).expect("made");
    // A place where nothing can be written, found only when the picture is.
    std::os::unix::fs::symlink("absent/p.png", path.join("o/moons.png")).expect("linked");
    let arguments = [&["train", "moons", "--out", "o", "--log-format", "json"][..], &TINY].concat();
    let output = moonflow(path, &arguments);
    let message = said(&output, 0);
    assert!(message.contains("warning: o/moons.png: not written: No such file"), "{message}");
    let end = last_event(&output);
    assert_eq!((&end["event"], &end["picture"]), (&"end".into(), &Value::Null));
    assert_eq!(end["not_written"][0]["path"], "o/moons.png");
    for file in ["model", "history", "config"] {
        assert!(path.join(end[file].as_str().expect("written")).is_file(), "{file}");
    }
    // A moving picture is asked for.
    let animate = ["--animate", "o/a.gif"];
    std::os::unix::fs::symlink("absent/a.gif", path.join("o/a.gif")).expect("linked");
    let output = moonflow(path, &[&arguments[..], &animate].concat());
    assert!(said(&output, 1).contains("error: o/a.gif: not written: No such file"));
    assert_eq!(last_event(&output)["event"], "end");
    let plot = ["plot", "--model", MODEL, "--device", "cpu"];
    assert!(said(&moonflow(path, &plot), 1).contains("error: o/moons.png: No such file"));
}

/// Runs the program with files of at most `blocks` blocks of 512 or 1024 bytes, as the shell counts.
#[cfg(unix)]
fn limited(folder: &Path, blocks: u32, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", &format!("ulimit -f {blocks} && exec \"$0\" \"$@\"")])
        .arg(cargo_bin("moonflow"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("a shell")
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_is_told_once_and_training_goes_on_to_its_model() {
    let folder = folder();
    let path = folder.path();
    // A model of 21 kB with checkpoints of 72, and a limit of 25 or 50.
    let recipe = ["--epochs", "6", "--rows", "300", "--layers", "2", "--hidden", "30,30", "--device", "cpu"];
    let arguments = [&["train", "--out", "o", "--checkpoint-every", "2"][..], &recipe].concat();
    let output = limited(path, 50, &arguments);
    let message = said(&output, 1);
    let warnings: Vec<_> =
        message.match_indices("warning: the checkpoint after epoch 2 was not written").collect();
    assert_eq!((warnings.len(), message.matches("the checkpoint after").count()), (1, 1), "{message}");
    assert!(message.contains("training goes on"), "{message}");
    assert!(message.contains("error: o/checkpoint.safetensors: not written: File too large"), "{message}");
    assert!(message.contains("warning: o/moons.png: not written: File too large"), "{message}");
    let model = Model::load(path.join(MODEL)).expect("written");
    assert_eq!((model.record.outcome, model.record.epochs), (Outcome::Finished, 6));
    let written = text(&output.stdout);
    for file in [MODEL, "o/history.csv", "o/config.toml"] {
        assert!(written.contains(file) && path.join(file).is_file(), "{file}: {written}");
    }
    assert_eq!(fs::read_dir(path.join("o")).expect("made").count(), 3, "nothing half-written");

    // Without room for anything, what was there stays.
    let before = contents(&path.join("o"));
    let output = limited(path, 0, &[&["train", "--out", "o", "--seed", "1"][..], &recipe].concat());
    let message = said(&output, 1);
    for file in ["model.safetensors", "history.csv", "config.toml"] {
        assert!(message.contains(&format!("error: o/{file}: not written: File too large")), "{message}");
    }
    assert!(!text(&output.stdout).contains("wrote"));
    assert!(contents(&path.join("o")) == before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_that_finds_its_disk_full_is_kept_among_the_temporary_files() {
    let folder = folder();
    let path = folder.path();
    for made in ["o", "temporary"] {
        fs::create_dir(path.join(made)).expect("made");
    }
    std::os::unix::fs::symlink("/dev/full", path.join(MODEL)).expect("linked");
    fs::write(path.join("kinds.csv"), "kind\n".to_owned() + &"x\ny\n".repeat(30)).expect("written");
    let run = |data: &str, temporary: &str| {
        Command::new(cargo_bin("moonflow"))
            .args(["train", data, "--out", "o", "--log-format", "json"])
            .args(if data == "moons" { &TINY[..] } else { &["--device", "cpu"] })
            .env("TMPDIR", path.join(temporary))
            .current_dir(path)
            .output()
            .expect("the program starts")
    };
    for data in ["moons", "kinds.csv"] {
        let output = run(data, "temporary");
        let message = said(&output, 1);
        let full =
            "error: o/model.safetensors: not written: No space left on device (os error 28); it is in ";
        assert!(message.contains(full) && message.contains("/temporary/moonflow-"), "{message}");
        let missing = last_event(&output)["not_written"][0].take();
        assert_eq!(missing["path"], MODEL);
        let kept = Path::new(missing["kept"].as_str().expect("a path"));
        TableModel::load(kept).expect("whole");
        assert_eq!(fs::read_dir(path.join("temporary")).expect("made").count(), 1, "nothing besides");
        fs::remove_file(kept).expect("there");
    }
    // Without room there either, the error is all that can be had.
    let output = run("moons", "absent");
    assert!(said(&output, 1).contains("(os error 28)"));
    assert_eq!(last_event(&output)["not_written"][0]["kept"], Value::Null);
}

#[cfg(unix)]
#[test]
fn a_replaced_file_keeps_its_permissions_whatever_writes_it() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    let mode = |name: &str| fs::metadata(path.join(name)).expect("there").permissions().mode() & 0o777;
    let files = ["s.csv", "s.csv.gz", "s.npy", "s.parquet", "p.svg", MODEL, "o/history.csv", "o/moons.png"];
    for (index, name) in files.into_iter().enumerate() {
        fs::write(path.join(name), "old").expect("writable");
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600 + index as u32))
            .expect("changed");
    }
    fs::rename(path.join("p.svg"), path.join("target.svg")).expect("renamed");
    symlink("target.svg", path.join("p.svg")).expect("linked");
    train(path, "moons", "o", &[]);
    let model = ["--model", MODEL, "--device", "cpu", "--out"];
    for name in &files[..4] {
        succeed(path, &[&["sample", "-n", "3"][..], &model, &[*name]].concat());
    }
    succeed(path, &[&["plot"][..], &model, &["p.svg"]].concat());
    for (index, name) in files.into_iter().enumerate() {
        assert_eq!(mode(name), 0o600 + index as u32, "{name}");
        assert!(fs::read(path.join(name)).expect("there") != b"old", "{name}");
    }
    assert!(path.join("p.svg").is_symlink());
}
