//! The program within limits of time and memory, and what it must never do whatever it is given.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use moonflow::shown::is_unprintable;

/// Most processor time that a run may take, in seconds; and how long it may wait for what never comes, on a machine that
/// does much else.
const SECONDS: u64 = 10;
const WAIT: u64 = 120;
/// Most memory that a run may take, in kilobytes.
const KILOBYTES: u64 = 1 << 20;

/// What came of a run.
pub struct Run {
    pub status: ExitStatus,
    pub stderr: String,
    seconds: f64,
}

/// Runs the program in `folder` under both limits. `folder` gets a file of its own, whose name begins with a dot.
pub fn run(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Run {
    let err = folder.join(".stderr");
    let start = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -t {SECONDS} && ulimit -d {KILOBYTES} && exec \"$0\" \"$@\"")])
        .arg(cargo_bin("moonflow"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&err).expect("writable"))
        .spawn()
        .expect("sh starts");
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if start.elapsed() > Duration::from_secs(WAIT) {
            child.kill().expect("a signal");
            break child.wait().expect("a child");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let stderr = String::from_utf8_lossy(&fs::read(err).expect("there")).into_owned();
    Run { status, stderr, seconds: start.elapsed().as_secs_f64() }
}

impl Run {
    /// What the run did that none may do.
    pub fn misdeed(&self) -> Option<String> {
        if self.seconds > WAIT as f64 {
            return Some(format!("did not end within {WAIT} s"));
        }
        if self.stderr.contains("panicked") || self.stderr.contains("memory allocation") {
            return Some(format!("{}: {}", self.status, self.stderr));
        }
        if !matches!(self.status.code(), Some(0..=2)) {
            return Some(format!("ended with {} (24 is {SECONDS} s of work): {}", self.status, self.stderr));
        }
        if self.status.code() != Some(0) && !self.stderr.contains("error: ") {
            return Some(format!("failed without a reason: {}", self.stderr));
        }
        raw(&self.stderr).map(|character| format!("standard error has a raw {character:?}: {}", self.stderr))
    }
}

/// The first character of `text` that a terminal would obey.
pub fn raw(text: &str) -> Option<char> {
    text.chars().find(|&character| is_unprintable(character) && character != '\n')
}
