//! Signals and kills: a training writes what it has, everything else ends at once, and nothing half-written is left; a
//! folder has one training at a time, and a killed one does not block the next.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use moonflow::model::{Model, Outcome};

use crate::cli::{TINY, folder, moonflow, succeed, text, train};
use crate::search;

const MODEL: &str = "o/model.safetensors";
/// A training that does not end by itself.
const ENDLESS: [&str; 9] = ["train", "--out", "o", "--epochs", "1000000", "--layers", "2", "--device", "cpu"];
/// Its epochs take a millisecond, or most of a second.
const SHORT: [&str; 4] = ["--rows", "300", "--hidden", "8"];
const LONG: [&str; 6] = ["--rows", "3000", "--hidden", "256,256", "--batch", "64"];

/// The program at work. A test that fails leaves none behind.
struct Process(Child);

impl Process {
    fn send(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// The status with which it ends, which takes seconds at most: a hang fails.
    fn ended(&mut self) -> Option<i32> {
        wait("the end", || self.0.try_wait().expect("a child").is_some());
        self.0.wait().expect("ended").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `holds`, at most a minute.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The names in `folder`, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("readable");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn has_temporary(folder: &Path) -> bool {
    names(folder).iter().any(|name| name.starts_with(".moonflow-") && name.ends_with(".tmp"))
}

/// An endless training in `folder`/o after its first epoch, with what it says; `shell` runs it.
fn endless(folder: &Path, shell: &str, more: &[&str]) -> (Process, Lines<BufReader<ChildStderr>>) {
    let mut child = Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(cargo_bin("moonflow"))
        .args(ENDLESS)
        .args(if more == LONG { &[][..] } else { &SHORT })
        .args(more)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("UTF-8");
    assert!(first.starts_with("epoch 1/1000000"), "{first}");
    (Process(child), lines)
}

#[test]
fn every_signal_that_asks_for_an_end_has_a_training_write_what_it_has() {
    for signal in ["INT", "TERM", "HUP"] {
        let folder = folder();
        let (mut child, lines) = endless(folder.path(), "", &[]);
        child.send(signal);
        // A terminal that closes says so more than once.
        if signal == "HUP" {
            child.send(signal);
        }
        let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
        assert_eq!(child.ended(), Some(0), "{signal}: {rest:?}");
        assert!(rest.iter().any(|line| line.contains("interrupted")), "{signal}: {rest:?}");
        let model = Model::load(folder.path().join(MODEL)).expect("written");
        assert_eq!(model.record.outcome, Outcome::Interrupted, "{signal}");
        let files =
            ["checkpoint.safetensors", "config.toml", "history.csv", "model.safetensors", "moons.png"];
        assert_eq!(names(&folder.path().join("o")), files, "{signal}");
    }
}

#[test]
fn a_signal_ends_a_search_and_the_best_recipe_so_far_is_trained() {
    let folder = folder();
    search::write_table(folder.path());
    let mut child = Command::new(cargo_bin("moonflow"))
        .args(["train", "t.csv", "--out", "o", "--search", "1e6"])
        .args(search::SMALL)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
    let notes = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut child = Process(child);
    let tried = said.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.starts_with("tried")));
    assert!(tried.is_some());
    child.send("INT");
    let said: Vec<String> = said.map(|line| line.expect("UTF-8")).collect();
    let notes: Vec<String> = notes.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(child.ended(), Some(0), "{notes:?}");
    assert!(notes.iter().any(|line| line.contains("the search ends here")), "{notes:?}");
    assert!(said.iter().any(|line| line.starts_with("chosen   9 epochs")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("average  of 2 fits")), "the fit is whole: {said:?}");
}

#[test]
fn a_second_signal_ends_a_training_at_once_and_writes_nothing() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let folder = folder();
        // The first signal is answered before the second is sent, else they are one.
        let (mut child, mut lines) = endless(folder.path(), "", &LONG);
        child.send(signal);
        let told =
            lines.by_ref().map(|line| line.expect("UTF-8")).any(|line| line.contains("stopping after"));
        assert!(told, "{signal}");
        child.send(signal);
        assert_eq!(child.ended(), Some(status), "{signal}");
        assert_eq!(names(&folder.path().join("o")), [""; 0], "{signal}");
    }
}

#[test]
fn a_training_begun_to_outlive_its_terminal_does() {
    let folder = folder();
    let (mut child, lines) = endless(folder.path(), "trap '' HUP;", &["--checkpoint-every", "1"]);
    child.send("HUP");
    let file = folder.path().join("o/checkpoint.safetensors");
    wait("a checkpoint", || file.exists());
    let written = || fs::metadata(&file).and_then(|file| file.modified()).expect("written");
    for _ in 0..2 {
        let before = written();
        wait("the next checkpoint", || written() > before);
    }
    child.send("TERM");
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(child.ended(), Some(0), "{rest:?}");
}

#[test]
fn sampling_and_scoring_end_at_a_signal_and_leave_nothing_behind() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &[]);
    fs::create_dir(path.join("s")).expect("made");
    let model = ["--model", MODEL, "--device", "cpu"];
    let sample = [&["sample", "-n", "100000000"][..], &model].concat();
    let score = [&["score", "-"][..], &model].concat();
    for (command, out, signal, status) in [
        (&sample, "s/s.csv", "INT", 130),
        (&sample, "s/s.npy", "TERM", 143),
        (&sample, "s/s.parquet", "HUP", 129),
        (&score, "s/s.csv.gz", "INT", 130),
        (&score, "s/s.csv", "TERM", 143),
        (&score, "s/s.parquet", "HUP", 129),
    ] {
        let mut child = Command::new(cargo_bin("moonflow"))
            .args(command.iter().chain(&["--out", out]))
            .current_dir(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // More rows than are read at a time, and then none: scoring waits for the rest of its table.
        let mut stdin = child.stdin.take().expect("piped");
        if command == &score {
            stdin.write_all("0.5,0.25\n".repeat(70_000).as_bytes()).expect("written");
        }
        let mut child = Process(child);
        wait("a temporary file", || has_temporary(&path.join("s")));
        child.send(signal);
        assert_eq!(child.ended(), Some(status), "{command:?} {signal}");
        assert_eq!(names(&path.join("s")), [""; 0], "{command:?} {signal}");
    }
}

/// A file as a killed process leaves it, and two of the user's that look nearly like it.
fn leave_behind(folder: &Path) -> [&'static str; 2] {
    let kept = [".moonflow-notes", ".moonflow-my.tmp"];
    for name in kept.iter().chain(&[".moonflow-Ab3dE6.tmp"]) {
        fs::write(folder.join(name), "half").expect("written");
    }
    kept
}

#[test]
fn a_killed_training_does_not_block_the_next_which_clears_what_it_left_half_written() {
    let folder = folder();
    let path = folder.path();
    let out = path.join("o");
    let (mut child, _lines) = endless(path, "", &["--checkpoint-every", "1"]);
    wait("a checkpoint", || out.join("checkpoint.safetensors").exists());
    child.send("KILL");
    assert_eq!(child.ended(), None);
    assert!(names(&out).contains(&".moonflow-training.lock".to_owned()), "the lock's file is left");
    let anew = [&["train", "--out", "o"], &TINY[..]].concat();
    for command in [&["train", "--resume", "o", "--time-limit", "0.01"][..], &anew] {
        let kept = leave_behind(&out);
        succeed(path, command);
        let left = names(&out).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
        assert_eq!(left, [kept[1], kept[0]], "{command:?}");
    }
}

#[test]
fn a_second_training_into_a_folder_is_refused_with_the_firsts_process_and_start() {
    let folder = folder();
    let path = folder.path();
    let (mut child, _lines) = endless(path, "", &["--checkpoint-every", "1"]);
    let out = path.join("o");
    wait("a checkpoint", || out.join("checkpoint.safetensors").exists());
    std::os::unix::fs::symlink("o", path.join("link")).expect("linked");
    for command in
        [&["train", "--out", "o"][..], &["train", "--resume", "o"], &["train", "blobs", "--out", "./link"]]
    {
        let output = moonflow(path, command);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
        let wanted = format!("another training writes here (process {}, since 20", child.0.id());
        assert!(message.contains(&wanted) && message.contains("--out"), "{command:?}: {message}");
    }
    // Nothing of the first is lost: it goes on, and ends as if nothing had happened.
    child.send("TERM");
    assert_eq!(child.ended(), Some(0));
    assert!(names(&out).iter().all(|name| !name.starts_with('.')), "{:?}", names(&out));
    assert_eq!(Model::load(path.join(MODEL)).expect("written").record.data.name, "moons");
}
