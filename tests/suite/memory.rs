//! How much memory a training takes for each number of its table.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use moonflow::data::TableWriter;

use crate::common::uniform;

/// Columns of the tables; all but two are context, so that the picture of a training is a small one.
const COLUMNS: usize = 16;
/// Rows of a table that is next to nothing, and of one whose numbers count.
const ROWS: [usize; 2] = [5_000, 200_000];
/// Most bytes for each number: itself in double precision, and in the engine's units in single precision.
const BYTES: f64 = 12.0;

fn names() -> Vec<String> {
    (0..COLUMNS).map(|column| format!("x{column}")).collect()
}

/// Writes a table of so many rows.
fn table(path: &Path, rows: usize) {
    let mut writer = TableWriter::create(Some(path), None, &[], &names()).expect("made");
    writer.write(&[], &uniform(rows * COLUMNS, 3.0, 1)).expect("written");
    writer.finish().expect("written");
}

/// The most bytes that a training in `folder` had at any time, but for its last moments, in which it draws a picture.
fn peak(folder: &Path, data: &str, more: &[&str]) -> f64 {
    let context = names()[2..].join(",");
    let mut child = Command::new(cargo_bin("moonflow"))
        .args(["train", data, "--preset", "default", "--layers", "2", "--hidden", "8", "--batch", "4096"])
        .args(["--epochs", "1", "--device", "cpu", "--context", &context])
        .args(more)
        // Each thread has a column of a fit, whatever the table's length.
        .env("RAYON_NUM_THREADS", "2")
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let status = Path::new("/proc").join(child.id().to_string()).join("status");
    let mut kilobytes = 0.0;
    let ended = loop {
        // Its "high water mark", which never falls. What the system says of an ended child counts what this process had when
        // it started it, too.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        kilobytes = mark.map_or(kilobytes, |mark| mark.parse().expect("a number"));
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success(), "{more:?}");
    1024.0 * kilobytes
}

#[test]
fn a_training_holds_a_table_in_double_precision_and_once_in_the_engines_units() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ROWS.map(|rows| format!("t{rows}.npy"));
    ROWS.iter().zip(&files).for_each(|(&rows, file)| table(&folder.path().join(file), rows));
    for more in [&["--margins", "none"][..], &["--margins", "kernel"], &["--standardise", "robust"]] {
        let [small, large] = files.each_ref().map(|file| peak(folder.path(), file, more));
        let bytes = (large - small) / ((ROWS[1] - ROWS[0]) * COLUMNS) as f64;
        assert!(bytes <= BYTES, "{more:?}: {bytes:.1} bytes for each number");
        assert!(bytes > 0.5 * BYTES, "{more:?}: {bytes:.1} bytes cannot be all");
    }
}
