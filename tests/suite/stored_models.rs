//! Model files of every format version as they were written once, with the scores and samples that they gave: the CPU
//! engine gives the same bits for ever.
//!
//! Bits hold for processors with AVX2 or AVX-512, whose registers add in the same order.

use std::fs;
use std::path::PathBuf;

use crate::cli::{folder, succeed};

fn stored(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "models", name].iter().collect()
}

/// Runs a command on the CPU and compares its output with a stored one, to the last digit.
fn prints(arguments: &[&str], expected: &str) {
    let folder = folder();
    let printed = succeed(folder.path(), &[arguments, &["--device", "cpu"]].concat());
    let want = fs::read_to_string(stored(expected)).expect("a stored output");
    for (line, (got, want)) in printed.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "{expected}, line {}", line + 1);
    }
    assert_eq!(printed.lines().count(), want.lines().count(), "{expected}");
}

#[test]
fn models_of_every_version_give_the_bits_that_they_gave_when_they_were_written() {
    for (version, table, given) in [
        (1, "moons.csv", &[][..]),
        (2, "wine.csv", &["--given", "alcohol=13.5,malic_acid=2.5"]),
        (3, "wine.csv", &[]),
        (4, "wine.csv", &[]),
        (5, "wine.csv", &[]),
        (6, "wine.csv", &[]),
        (7, "wine.csv", &[]),
        (8, "mixed.csv", &["--given", "plan=pro"]),
        (9, "mixed.csv", &["--given", "plan=pro"]),
    ] {
        let (model, table) = (stored(&format!("version_{version}.safetensors")), stored(table));
        let (model, table) = (model.to_str().expect("UTF-8"), table.to_str().expect("UTF-8"));
        prints(&["score", "--model", model, table], &format!("version_{version}.scores.csv"));
        let sample = [&["sample", "--model", model, "-n", "8", "--seed", "3"], given].concat();
        prints(&sample, &format!("version_{version}.samples.csv"));
    }
}
