//! The program's options of training: configuration files, going on after a kill, tests, limits, and what programs read.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use moonflow::flow::Base;
use moonflow::model::{Model, Outcome};
use moonflow::train::Checkpoint;
use serde_json::Value;

use crate::cli::{TINY, folder, moonflow, succeed, text, train};

const MODEL: &str = "model.safetensors";

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs and expects failure with `status` and every part of `wanted` in the message.
fn refuse(folder: &Path, arguments: &[&str], status: i32, wanted: &[&str]) {
    let output = moonflow(folder, arguments);
    let message = text(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
    for part in wanted {
        assert!(message.contains(part), "{arguments:?}: `{part}` is not in: {message}");
    }
}

/// A table `t.csv` of 300 rows in `name`, whose column `w` is `factor` times 0, 1, 2 or 3, but `odd` in row 8.
fn weighted_table(path: &Path, name: &str, factor: f64, odd: &str) {
    let mut table = String::from("a,w,b\n");
    for row in 0..300 {
        let x = f64::from(row) * 0.37;
        let weight = if row == 7 { odd.to_owned() } else { format!("{}", factor * f64::from(row % 4)) };
        table += &format!("{},{weight},{}\n", x.sin(), x.cos() * x.sin() + 0.1 * (3.0 * x).cos());
    }
    fs::create_dir_all(path.join(name)).expect("made");
    fs::write(path.join(name).join("t.csv"), table).expect("written");
}

#[test]
fn rows_count_by_their_weights() {
    let folder = folder();
    let path = folder.path();
    weighted_table(path, "once", 1.0, "1");
    weighted_table(path, "eight", 8.0, "8");
    let fit = |name: &str, more: &[&str]| {
        let table = format!("{name}/t.csv");
        let out = format!("o-{name}");
        let options = [&["--test-fraction", "0.1"], more].concat();
        train(path, &table, &out, &options);
        bytes(path, &format!("{out}/{MODEL}"))
    };
    let once = fit("once", &["--weights", "w"]);
    assert!(once == fit("eight", &["--weights", "w"]), "a common factor of 8 changes bits");
    assert!(once != fit("once", &["--drop", "w"]), "weights must matter");
    let config = fs::read_to_string(path.join("o-eight/config.toml")).expect("written");
    assert!(config.contains("weights = \"w\""), "{config}");
    assert_eq!(Model::load(path.join("o-eight").join(MODEL)).expect("loads").columns, ["a", "b"]);

    for (odd, part) in [
        ("-1", "line 9 has the weight `-1`; expected a finite number of at least 0"),
        ("nan", "line 9"),
        ("many", "line 9 has the weight `many`"),
    ] {
        weighted_table(path, "odd", 1.0, odd);
        refuse(path, &["train", "odd/t.csv", "--weights", "w", "--out", "no"], 1, &[part]);
    }
    weighted_table(path, "none", 0.0, "0");
    refuse(
        path,
        &["train", "none/t.csv", "--weights", "w", "--out", "no"],
        1,
        &["the weights of all training rows are zero"],
    );
    refuse(
        path,
        &["train", "once/t.csv", "--weights", "a,w", "--out", "no"],
        1,
        &["--weights names 2 columns"],
    );
    refuse(path, &["train", "once/t.csv", "--weights", "v", "--out", "no"], 1, &["`v`"]);
    refuse(path, &["train", "moons", "--weights", "w", "--out", "no"], 2, &["are for tables"]);
}

#[test]
fn a_mixture_as_base_density_is_trained_stored_and_shown() {
    let folder = folder();
    let path = folder.path();
    weighted_table(path, "m", 1.0, "1");
    train(path, "m/t.csv", "o", &["--weights", "w", "--components", "3"]);
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    assert!(config.contains("base = \"mixture\"") && config.contains("components = 3"), "{config}");
    let model = Model::load(path.join("o").join(MODEL)).expect("loads");
    assert_eq!((model.flow.base, model.format_version()), (Base::Mixture { components: 3 }, 4));
    let said = moonflow(path, &["info", &format!("o/{MODEL}")]);
    assert!(text(&said.stdout).contains("base: mixture of 3 Gaussians"), "{}", text(&said.stdout));
    let again = moonflow(path, &["train", "--config", "o/config.toml", "--out", "again", "--device", "cpu"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(bytes(path, &format!("o/{MODEL}")) == bytes(path, &format!("again/{MODEL}")));
    let model = format!("o/{MODEL}");
    for arguments in
        [["score", "--model", &model, "m/t.csv"].as_slice(), &["sample", "--model", &model, "-n", "5"]]
    {
        let output = moonflow(path, arguments);
        assert!(output.status.success() && output.stdout.len() > 20, "{}", text(&output.stderr));
    }
    refuse(path, &["train", "m/t.csv", "--components", "0", "--out", "no"], 2, &["from 1 to 256"]);
}

#[test]
fn a_training_is_repeated_from_its_configuration_alone() {
    let folder = folder();
    let path = folder.path();
    let unusual = [
        "--lr",
        "0.0123",
        "--decay",
        "constant",
        "--warmup",
        "1",
        "--batch",
        "50",
        "--activation",
        "silu",
        "--mask",
        "random",
        "--seed",
        "18446744073709551615",
        "--noise",
        "0.07",
        "--clip",
        "0",
        "--bound",
        "1.5",
        "--weight-decay",
        "0.01",
        "--validation-fraction",
        "0.2",
        "--patience",
        "9",
        "--ema",
        "0.5",
        "--rollback",
        "--test-fraction",
        "0.1",
        "--preset",
        "seed",
        "--checkpoint-every",
        "7",
        "--time-limit",
        "1000",
    ];
    train(path, "circles", "o", &unusual);
    let first = bytes(path, "o/model.safetensors");
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    fs::rename(path.join("o/config.toml"), path.join("c.toml")).expect("moved");
    fs::remove_dir_all(path.join("o")).expect("there");
    succeed(path, &["train", "--config", "c.toml"]);
    assert!(bytes(path, "o/model.safetensors") == first, "the model files differ: {config}");
    assert_eq!(fs::read_to_string(path.join("o/config.toml")).expect("written"), config);

    // Flags come before it, and one of them changes the model.
    succeed(path, &["train", "--config", "c.toml", "--out", "p", "--bound", "1.25"]);
    assert_eq!(Model::load(path.join("p").join(MODEL)).expect("whole").record.recipe.bound, 1.25);
    succeed(path, &["train", "blobs", "--config", "c.toml", "--out", "q", "--test-fraction=0.3"]);
    let record = Model::load(path.join("q").join(MODEL)).expect("whole").record;
    assert_eq!((record.data.name.as_str(), record.test.map(|test| test.rows)), ("blobs", Some(3000)));
}

#[test]
fn how_a_table_is_read_is_part_of_the_configuration() {
    let folder = folder();
    let path = folder.path();
    let rows: String = (0..60).map(|i| format!("{},{},{},{}\n", i, i * i % 17, i % 7, i * 5 % 11)).collect();
    fs::write(path.join("t.data"), format!("a,b,c,d\n{rows},1,1,1\n")).expect("written");
    let reading = [
        "--format",
        "csv",
        "--columns",
        "1-3",
        "--drop",
        "b",
        "--missing",
        "drop",
        "--dequantize",
        "c",
        "--bounds",
        "a=-1:",
        "--standardise",
        "robust",
    ];
    train(path, "t.data", "o", &reading);
    let first = bytes(path, "o/model.safetensors");
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    for line in [
        "format = \"csv\"",
        "columns = \"1-3\"",
        "drop = \"b\"",
        "missing = \"drop\"",
        "dequantize = \"c\"",
        "bounds = \"a=-1:\"",
        "standardise = \"robust\"",
    ] {
        assert!(config.lines().any(|found| found == line), "{line} is not in: {config}");
    }
    fs::rename(path.join("o/config.toml"), path.join("c.toml")).expect("moved");
    succeed(path, &["train", "--config", "c.toml"]);
    assert!(bytes(path, "o/model.safetensors") == first, "the model files differ: {config}");
    assert_eq!(Model::load(path.join("o").join(MODEL)).expect("whole").columns, ["a", "c"]);
}

#[test]
fn every_option_of_training_is_one_of_the_configuration() {
    let folder = folder();
    train(
        folder.path(),
        "moons",
        "o",
        &["--patience", "3", "--ema", "0.5", "--time-limit", "99", "--checkpoint-every", "1"],
    );
    let config = fs::read_to_string(folder.path().join("o/config.toml")).expect("written");
    let help = succeed(folder.path(), &["train", "--help"]);
    let flags = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let mut flags: Vec<&str> = flags
        .map(|flag| flag.split(|c: char| !(c.is_alphanumeric() || c == '-')).next().expect("a first"))
        .collect();
    flags.sort_unstable();
    flags.dedup();
    assert!(flags.len() > 25, "{flags:?}");
    // What says where the configuration is, or what is printed, or changes no result; and one test for the other.
    // How a table is read has a test of its own. --gaussianise is a value of --margins.
    let others = [
        "animate",
        "auto",
        "autotune",
        "config",
        "gaussianise",
        "resume",
        "search",
        "help",
        "log-format",
        "test",
        "test-fraction",
    ];
    let tables = [
        "atom",
        "bounds",
        "categorical",
        "category-moments",
        "columns",
        "context",
        "decimal",
        "delimiter",
        "dequantize",
        "drop",
        "format",
        "header",
        "missing",
        "missing-values",
        "transform",
        "weights",
    ];
    let others: Vec<&str> = others.into_iter().chain(tables).collect();
    for flag in flags.iter().filter(|flag| !others.contains(flag)) {
        assert!(
            config.lines().any(|line| line.starts_with(&format!("{flag} = "))),
            "{flag} is not in: {config}"
        );
    }
}

#[test]
fn configurations_with_unknown_keys_and_refused_values_name_the_file_and_the_rule() {
    let folder = folder();
    let path = folder.path();
    for (contents, wanted) in [
        ("epoch = 3", &["c.toml: there is no option `epoch`", "Did you mean `epochs`?", "weight-decay"][..]),
        ("zzz = 3", &["there is no option `zzz`", "The options are data"]),
        ("resume = \"o\"", &["there is no option `resume`"]),
        ("epochs = 0", &["c.toml: invalid value '0' for '--epochs <N>'", "1..=1000000"]),
        ("lr = \"fast\"", &["c.toml", "'--lr <F>'", "above 0 and at most 1"]),
        ("hidden = [64, \"x\"]", &["c.toml", "--hidden", "whole numbers"]),
        ("[train]\nepochs = 3", &["there is no option `train`"]),
        ("epochs = {}", &["`epochs` must be a number, a text"]),
        ("epochs = ", &["c.toml", "epochs ="]),
        ("data = \"moon\"", &["Did you mean `moons`?"]),
    ] {
        fs::write(path.join("c.toml"), contents).expect("written");
        refuse(path, &["train", "--config", "c.toml"], 2, wanted);
    }
    refuse(path, &["train", "--config", "absent.toml"], 1, &["absent.toml", "No such file"]);
    assert!(!path.join("runs").exists());
}

/// Waits until `holds`, at most a minute.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_training_killed_at_any_moment_goes_on_to_the_model_file_of_one_never_killed() {
    let folder = folder();
    let path = folder.path();
    let recipe =
        ["moons", "--epochs", "150", "--rows", "2000", "--layers", "2", "--hidden", "8", "--device", "cpu"];
    succeed(path, &[&["train"][..], &recipe, &["--out", "whole"]].concat());
    let begin = [&["train"][..], &recipe, &["--out", "o", "--checkpoint-every", "1"]].concat();
    let file = path.join("o/checkpoint.safetensors");
    let mut reached = 0;
    for kill in 0..4u64 {
        let arguments = if kill == 0 { begin.clone() } else { vec!["train", "--resume", "o"] };
        let mut child = Command::new(cargo_bin("moonflow"))
            .args(&arguments)
            .current_dir(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        // Some epochs on, and then at any moment of an epoch or of a file being written.
        let epoch = || Checkpoint::load(&file).map_or(0, |checkpoint| checkpoint.state.epoch);
        wait("a checkpoint", || file.exists() && epoch() > reached + 1);
        std::thread::sleep(Duration::from_millis(kill));
        child.kill().expect("a signal");
        child.wait().expect("ends");
        let checkpoint = Checkpoint::load(&file).expect("a whole checkpoint");
        assert!(checkpoint.state.epoch > reached, "it goes on from where it was");
        reached = checkpoint.state.epoch;
    }
    assert!(reached < 150, "the training was meant to be killed before its end");
    assert!(!path.join("o").join(MODEL).exists());
    let said = succeed(path, &["train", "--resume", "o"]);
    assert!(said.contains(&format!("resumed  after epoch {reached}")), "{said}");
    assert!(
        bytes(path, "o/model.safetensors") == bytes(path, "whole/model.safetensors"),
        "the model files differ"
    );
    assert_eq!(fs::read_to_string(path.join("o/history.csv")).expect("written").lines().count(), 151);
}

#[cfg(unix)]
#[test]
fn a_training_ended_by_ctrl_c_goes_on() {
    use std::io::{BufRead, BufReader};

    let folder = folder();
    let path = folder.path();
    let recipe = ["--epochs", "60", "--rows", "3000", "--layers", "2", "--hidden", "8", "--device", "cpu"];
    succeed(path, &[&["train", "--out", "whole"], &recipe[..]].concat());
    let mut child = Command::new(cargo_bin("moonflow"))
        .args(["train", "--out", "o"])
        .args(recipe)
        .current_dir(path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    lines.next().expect("a line").expect("UTF-8");
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs").success()
    );
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert!(child.wait().expect("ends").success(), "{rest:?}");
    let model = Model::load(path.join("o").join(MODEL)).expect("written");
    assert_eq!(model.record.outcome, Outcome::Interrupted, "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("moonflow train --resume o")), "{rest:?}");
    succeed(path, &["train", "--resume", "o"]);
    assert!(
        bytes(path, "o/model.safetensors") == bytes(path, "whole/model.safetensors"),
        "the model files differ"
    );
}

#[test]
fn a_refused_resume_says_why_and_leaves_the_folder_as_it_was() {
    let folder = folder();
    let path = folder.path();
    refuse(
        path,
        &["train", "--resume", "o"],
        2,
        &["there is no o/checkpoint.safetensors", "--checkpoint-every"],
    );
    assert!(!path.join("o").exists());
    train(path, "moons", "o", &["--checkpoint-every", "1"]);
    let before = [bytes(path, "o/config.toml"), bytes(path, "o/checkpoint.safetensors")];
    for (arguments, wanted) in [
        (&["--lr", "0.1"][..], "learning rate is 0.005 in the checkpoint, 0.1 now"),
        (&["--epochs", "4"], "made for 2 epochs, got 4; its learning rate falls along a cosine"),
        (&["--rows", "301"], "the rows are not those"),
        (&["--noise", "0.1"], "the rows are not those"),
        (&["--out", "p"], "cannot be used with"),
    ] {
        refuse(path, &[&["train", "--resume", "o"], arguments].concat(), 2, &[wanted]);
    }
    assert!([bytes(path, "o/config.toml"), bytes(path, "o/checkpoint.safetensors")] == before);
    fs::write(path.join("o/checkpoint.safetensors"), &before[1][..100]).expect("written");
    refuse(path, &["train", "--resume", "o"], 1, &["o/checkpoint.safetensors: not a usable checkpoint"]);
}

#[test]
fn test_rows_are_scored_once_printed_and_kept_in_the_record() {
    let folder = folder();
    let path = folder.path();
    let said = train(path, "moons", "o", &["--test-fraction", "0.25"]);
    assert!(said.contains("202 rows for training and 23 for validation, 75 for the test"), "{said}");
    assert!(said.contains("nats (median ") && said.contains(" over 75 test rows"), "{said}");
    let test = Model::load(path.join("o").join(MODEL)).expect("whole").record.test.expect("scored");
    assert!(test.rows == 75 && test.nll.is_finite() && test.standard_error > 0.0, "{test:?}");
    assert!(succeed(path, &["info", "o/model.safetensors"]).contains(" over 75 test rows"));

    // The rows of a file, whose scores are those of `score`.
    succeed(
        path,
        &["sample", "--model", "o/model.safetensors", "-n", "50", "--device", "cpu", "--out", "t.csv"],
    );
    train(path, "moons", "p", &["--test", "t.csv"]);
    let test = Model::load(path.join("p").join(MODEL)).expect("whole").record.test.expect("scored");
    let scores = succeed(path, &["score", "--model", "p/model.safetensors", "t.csv", "--device", "cpu"]);
    let scores: Vec<f64> = scores.lines().skip(1).map(|line| line.parse().expect("a number")).collect();
    assert_eq!(scores.len(), 50);
    let mean = scores.iter().sum::<f64>() / 50.0;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / 49.0;
    assert!(
        (test.nll + mean).abs() < 1e-12 && (test.standard_error - (variance / 50.0).sqrt()).abs() < 1e-12
    );
    fs::write(path.join("three.csv"), "a,b,c\n1,2,3\n").expect("written");
    let arguments = [&["train", "--test", "three.csv", "--out", "q"], &TINY[..]].concat();
    refuse(
        path,
        &arguments,
        1,
        &[
            "three.csv: there is no column `x0`; the columns are a, b, c. In any order, training is on 2 columns (x0, x1)",
        ],
    );
    assert!(!path.join("q").exists(), "found before training");
}

#[test]
fn patience_and_the_time_limit_end_a_training_and_are_told() {
    let folder = folder();
    let path = folder.path();
    let small = ["--rows", "300", "--layers", "2", "--hidden", "8", "--device", "cpu"];
    let hopeless =
        ["--epochs", "5000", "--patience", "2", "--lr", "0.2", "--decay", "constant", "--rollback"];
    let said = succeed(path, &[&["train", "--out", "o"], &small[..], &hopeless].concat());
    assert!(said.contains("stopped  no lower validation loss for 2 epochs"), "{said}");
    let record = Model::load(path.join("o").join(MODEL)).expect("whole").record;
    assert_eq!(
        (record.outcome, record.epochs),
        (Outcome::EarlyStop, record.best_epoch.expect("validated") + 2)
    );

    let short = ["--epochs", "1000000", "--time-limit", "0.3"];
    let output = moonflow(path, &[&["train", "--out", "p"], &small[..], &short].concat());
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("the time is up"), "{message}");
    let record = Model::load(path.join("p").join(MODEL)).expect("whole").record;
    assert!(record.outcome == Outcome::TimeLimit && (1..1_000_000).contains(&record.epochs), "{record:?}");
    assert_eq!(
        Checkpoint::load(path.join("p/checkpoint.safetensors")).expect("whole").state.epoch,
        record.epochs
    );
}

#[test]
fn an_animation_shows_every_still_and_changes_nothing_of_the_training() {
    use image::AnimationDecoder;

    let folder = folder();
    let path = folder.path();
    train(path, "moons", "plain", &["--ema", "0.5"]);
    let said = train(path, "moons", "shown", &["--ema", "0.5", "--animate", "a.gif"]);
    assert!(said.contains("a.gif"), "{said}");
    assert_eq!(bytes(path, &format!("plain/{MODEL}")), bytes(path, &format!("shown/{MODEL}")));
    let gif = bytes(path, "a.gif");
    let decoder = image::codecs::gif::GifDecoder::new(std::io::Cursor::new(&gif)).expect("a GIF");
    let frames = decoder.into_frames().collect_frames().expect("whole");
    assert_eq!(frames.len(), 4, "before training, after both epochs, and the model kept");
    assert!(frames[0].buffer() != frames[1].buffer());

    fs::write(path.join("t.csv"), "a,b,c\n1,2,3\n2,1,4\n3,5,1\n0,1,1\n").expect("written");
    for (arguments, wanted) in [
        (&["moons", "--animate", "a.png"][..], "must end in .gif"),
        (&["t.csv", "--animate", "a.gif"], "the flow has 3"),
        (&["t.csv", "--animate", "a.gif", "--columns", "a,b", "--context", "b"], "the flow has 1 given 1"),
        (&["moons", "--animate", "none/a.gif"], "none"),
    ] {
        let output = moonflow(path, &[&["train", "--out", "no"], arguments].concat());
        let message = text(&output.stderr);
        assert!(!output.status.success() && message.contains(wanted), "{arguments:?}: {message}");
        assert!(!path.join("no/model.safetensors").exists());
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn json_lines_tell_of_every_epoch_and_of_the_end() {
    let folder = folder();
    let said = train(folder.path(), "moons", "o", &["--log-format", "json"]);
    let lines: Vec<Value> = said.lines().map(json).collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, epoch) in lines[..2].iter().zip(1..) {
        assert_eq!((&line["event"], &line["epoch"]), (&"epoch".into(), &epoch.into()));
        for name in ["train_nll", "validation_nll", "learning_rate", "grad_norm", "seconds", "above_floor"] {
            assert!(line[name].is_number(), "{name}: {line}");
        }
    }
    let model = Model::load(folder.path().join("o").join(MODEL)).expect("whole");
    assert_eq!(lines[2]["event"], "end");
    let got: moonflow::model::TrainingRecord =
        serde_json::from_value(lines[2]["record"].clone()).expect("a record");
    assert_eq!(got, model.record);
    assert_eq!(lines[2]["record"]["recipe"]["learning_rate"], 0.005);
}

#[test]
fn info_devices_and_plan_print_json() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    let model = Model::load(path.join("o").join(MODEL)).expect("whole");
    let info = json(&succeed(path, &["info", "o/model.safetensors", "--json"]));
    assert_eq!(info["parameters"], model.parameters.len());
    assert_eq!(info["columns"][1]["name"], "x1");
    assert_eq!(info["columns"][1]["std"], model.preprocessing.standardiser.std[1]);
    assert_eq!(info["training"]["check"]["latent"].as_array().map(Vec::len), Some(2));
    assert_eq!(info["flow"]["hidden"], json("[8]"));

    let devices = json(&succeed(path, &["devices", "--json"]));
    let devices = devices.as_array().expect("a list");
    assert_eq!(devices[0]["backend"], "cpu");
    assert_eq!(devices.iter().filter(|device| device["default"] == true).count(), 1);
    assert!(devices[0]["limits"].is_null(), "{}", devices[0]);
    for adapter in &devices[1..] {
        assert!(adapter["driver"].is_string() && adapter["features"].is_array(), "{adapter}");
        // WebGPU's least, which every adapter has.
        assert!(adapter["limits"]["max_storage_buffers_per_shader_stage"].as_u64() >= Some(8), "{adapter}");
    }

    let plan = json(&succeed(path, &["plan", "--layers", "3", "--json"]));
    let step = &plan["training"]["programs"][0];
    assert_eq!(step["name"], "training step");
    assert!(step["dispatches"].as_array().is_some_and(|list| list.len() == 3), "{step}");
    assert!(step["dispatches"][0]["kernel"].is_string() && step["dispatches"][0]["least_seconds"].is_null());
}

#[test]
fn completions_and_manual_pages_name_the_options() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeed(folder.path(), &["completions", shell]);
        assert!(script.contains("moonflow") && script.contains("checkpoint-every"), "{shell}");
    }
    let page = succeed(folder.path(), &["man"]);
    assert!(page.contains(".TH") && page.contains("moonflow\\-train"), "{page}");
    let page = succeed(folder.path(), &["man", "train"]);
    assert!(page.contains("\\-\\-checkpoint\\-every"), "{page}");
    refuse(folder.path(), &["man", "trian"], 2, &["there is no command `trian`", "Did you mean `train`?"]);
    refuse(folder.path(), &["completions", "csh"], 2, &["bash", "fish"]);
}

#[test]
fn info_shows_the_self_check() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &["--validation-fraction", "0.8", "--lr", "0.5"]);
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in ["distance from normal", "check      round trip within", "log-determinant within"] {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    // Two epochs do not make a flow of moons normal.
    assert!(info.contains("suspicious: the latent variable is not normal"), "{info}");
}
