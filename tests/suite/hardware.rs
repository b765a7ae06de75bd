//! `benches/hardware`: the run that proves and measures moonflow on a GPU, rehearsed on the adapter of the other tests;
//! and what it does with programs that hang or fail. Both need Python 3, and nothing else of Python.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

use crate::cli::{folder, text};
use crate::common::root;

/// Runs a script of `benches/hardware`; its exit status and what it said. `None`, with a word, where there is no Python.
fn script(name: &str, arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let path = root().join("benches/hardware").join(name);
    let output = Command::new("python3").arg("-B").arg(path).args(arguments).output();
    let Ok(output) = output else {
        println!("skipped: python3 is not installed");
        return None;
    };
    Some((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_rehearsal_tells_of_the_machine_of_parity_and_of_training_and_is_rendered() {
    if std::env::var_os("MOONFLOW_SKIP_GPU_TESTS").is_some() {
        return;
    }
    let folder = folder();
    let (bin, out) = (folder.path().join("bin"), folder.path().join("out"));
    fs::create_dir(&bin).expect("new");
    symlink(cargo_bin("moonflow"), bin.join("moonflow")).expect("new");
    symlink(std::env::current_exe().expect("a path"), bin.join("suite")).expect("new");
    let flags = ["--rehearse", "--parts", "a,b,c", "--tests", "(gather|sum_partials)::equals", "--bin"];
    let arguments = [&[utf8(&out)], &flags[..], &[utf8(&bin)]].concat();
    let Some((status, said)) = script("run", &arguments) else { return };
    assert_eq!(status, Some(0), "{said}");

    let files = fs::read_dir(&out).expect("written").count();
    assert!(files <= 8, "{files} files, of which 8 may come back from a machine that is far away");
    let parts = &json(&out.join("summary.json"))["parts"];
    for name in ["a", "b", "c"] {
        assert_eq!(parts[name]["status"], "done", "{said}");
    }
    let machine = json(&out.join("a-machine.json"));
    assert!(machine["adapters"][1]["limits"]["max_buffer_size"].is_u64(), "{machine}");
    let tests = json(&out.join("b-parity.json"))["tests"].take();
    let tests = tests.as_array().expect("a list");
    assert_eq!(tests.len(), 2);
    for test in tests {
        assert!(test["adapter"].is_string() && test["checks"].as_u64() > Some(0), "{test}");
        assert!(test["worst"]["share"].as_f64().is_some_and(|share| share <= 1.0), "{test}");
    }
    let training = json(&out.join("c-training.json"));
    for plan in ["fused", "layered"] {
        let apart = &training["scores"][plan]["largest_difference_between_devices"];
        assert!(apart.as_f64().is_some_and(|apart| apart < 1e-4), "{plan}: {training}");
        assert!(training["trainings"][plan]["above_floor"].is_f64(), "{plan}: {training}");
    }

    let runs = folder.path().join("runs");
    let (status, said) = script("render", &[utf8(&out)]).expect("found before");
    assert!(status == Some(1) && said.contains("a rehearsal measures nothing"), "{said}");
    let (status, said) = script("render", &[utf8(&out), "--to", utf8(&runs)]).expect("found before");
    assert_eq!(status, Some(0), "{said}");
    let tables = fs::read_to_string(said.trim()).expect("the file that it named");
    for part in ["Rehearsal", "every test passes", "## Two moons", "equals_its_cpu_twin"] {
        assert!(tables.contains(part), "`{part}` is not in: {tables}");
    }
}

#[test]
fn a_part_that_hangs_costs_its_box_and_failing_tests_are_listed_with_their_values() {
    let folder = folder();
    let (bin, out) = (folder.path().join("bin"), folder.path().join("out"));
    fs::create_dir(&bin).expect("new");
    let program = |name: &str, lines: &str| {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("new");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    };
    program("moonflow", r#"if [ "$1" = devices ]; then echo "[]"; else sleep 1000; fi"#);
    program(
        "suite",
        r#"if [ "$1" = --list ]; then echo "parity::fake: test"; exit; fi
echo "test parity::fake ... GPU tests run on a fake"
echo "  d_x                                       2.50e-1  of  1.00e-6"
echo "fake: 1 checks failed" >&2
echo "d_x: 1 of 4 values off by more than 1e-6 · 2e0: [3] got 2.5e0, want 2e0" >&2
exit 101"#,
    );
    let flags = ["--parts", "c,b", "--minutes", "0.25", "--bin"];
    let Some((status, said)) = script("run", &[&[utf8(&out)], &flags[..], &[utf8(&bin)]].concat()) else {
        return;
    };
    assert_eq!(status, Some(1), "{said}");
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["parts"]["c"]["status"], "timed out", "{summary}");
    assert_eq!(summary["parts"]["b"]["status"], "failed", "{summary}");
    let test = &json(&out.join("b-parity.json"))["tests"][0];
    assert_eq!((&test["adapter"], &test["status"]), (&"a fake".into(), &"failed".into()));
    let failure = &test["failures"][0];
    assert_eq!((&failure["tensor"], &failure["index"]), (&"d_x".into(), &3.into()));
    assert_eq!((&failure["got"], &failure["want"]), (&2.5.into(), &2.0.into()));
    let (status, said) = script("render", &[utf8(&out), "--to", utf8(folder.path())]).expect("found before");
    assert_eq!(status, Some(0), "{said}");
    let tables = fs::read_to_string(said.trim()).expect("the file that it named");
    assert!(tables.contains("| parity::fake | failed | d_x | 3 | 2.5 | 2.0 |"), "{tables}");
}

#[test]
fn a_wrong_command_line_is_refused_with_what_was_expected() {
    let (empty, full) = (folder(), folder());
    fs::write(full.path().join("summary.json"), "{}").expect("new");
    let (out, full) = (utf8(empty.path()), utf8(full.path()));
    for (arguments, part) in [
        (vec![out, "--parts", "a,x"], "--parts takes some of a,b,c,d,e,f, got a,x"),
        (vec![out, "--bin", out], "there is no moonflow in"),
        (vec![out, "--flops", "1e12"], "--flops and --bandwidth belong together"),
        (vec![full], "is not empty"),
        (vec![], "OUT"),
    ] {
        let Some((status, said)) = script("run", &arguments) else { return };
        assert!(status == Some(2) && said.contains(part), "{arguments:?}: {said}");
    }
    let (status, said) = script("render", &[out]).expect("found before");
    assert!(status == Some(1) && said.contains("no summary.json"), "{said}");
}
