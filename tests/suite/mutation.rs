//! Damaged files and nasty tables through the program: whatever it is given, it answers within 10 s of work and 1 GB, without a
//! panic and without a raw control character.
//!
//! `MOONFLOW_MUTATIONS=1000 cargo test --test suite mutation` tries 1,000 of each kind (20 where it is not set). What is tried
//! depends on its kind, its number and `MOONFLOW_MUTATION_SEED` alone, and `MOONFLOW_MUTATION_FIRST` is the first number, so
//! that one failure is repeated by itself. Inputs that fail are kept in the folder that the message names.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use moonflow::data::{Table, TableWriter};

use crate::cli::{folder, train};
use crate::limited::run;

/// A setting of the environment, or what holds without it.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// Of mutation `index` of `kind`.
    fn new(kind: &str, index: u64) -> Self {
        let kind = kind.bytes().fold(setting("MOONFLOW_MUTATION_SEED", 1), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Self(kind ^ index.wrapping_mul(0x2545_f491_4f6c_dd1d));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn word(&mut self, items: &[&'static str]) -> &'static str {
        items[self.below(items.len())]
    }

    /// Uniform in (−1, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Words that mean something to some reader.
const WORDS: [&str; 22] = [
    "1e308",
    "-1e308",
    "NaN",
    "inf",
    "",
    ",",
    "\"",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u{1b}[2J",
    "99999999999999999999",
    "-1",
    "0",
    "[",
    "]",
    "{",
    "}",
    "=",
    "1e-320",
    "\u{202e}",
];

/// Damages `bytes` in one to three ways; `text` may get words too.
fn damage(bytes: &mut Vec<u8>, text: bool, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let length = bytes.len().max(1);
        // Headers and footers decide more than what lies between.
        let place = match random.below(3) {
            0 => random.below(length.min(256)),
            1 => length - 1 - random.below(length.min(256)),
            _ => random.below(length),
        }
        .min(bytes.len());
        let span = 1 + random.below(64.min(length));
        let end = (place + span).min(bytes.len());
        match random.below(if text { 9 } else { 8 }) {
            0 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            1 if place < bytes.len() => bytes[place] = random.next() as u8,
            2 => bytes.truncate(place),
            3 => drop(bytes.drain(place..end)),
            4 => {
                let copy = bytes[place..end].to_vec();
                let to = random.below(bytes.len() + 1);
                for _ in 0..=random.below(20) {
                    bytes.splice(to..to, copy.iter().copied());
                }
            }
            5 | 6 => {
                // A length that is blown up, of any width and order.
                let value =
                    *random.pick(&[u64::MAX, u64::MAX >> 1, 1 << 31, 1 << 40, 0, 1 << 24, 0x7fff_ffff]);
                let wide = *random.pick(&[1usize, 2, 4, 8]);
                let value = if random.chance(50) { value.to_le_bytes() } else { value.to_be_bytes() };
                let wide = wide.min(bytes.len() - place);
                bytes[place..place + wide].copy_from_slice(&value[..wide]);
            }
            8 => {
                let word = random.pick(&WORDS).repeat(if random.chance(5) { 70_000 } else { 1 });
                let to = if random.chance(50) { end } else { place };
                bytes.splice(place..to, word.into_bytes());
            }
            _ => {
                let other = random.below(bytes.len() + 1);
                let other_end = (other + span).min(bytes.len());
                let copy = bytes[other..other_end].to_vec();
                bytes.splice(place..end, copy);
            }
        }
    }
}

/// Tries every mutation of `kind`, of which number 0 is undamaged: `attempt` writes its files into the folder and gives the command lines to run one after
/// the other, as long as they succeed.
fn try_all(kind: &str, folder: &Path, attempt: impl Fn(&mut Random, u64) -> Vec<Vec<String>>) {
    let first = setting("MOONFLOW_MUTATION_FIRST", 0);
    let count = setting("MOONFLOW_MUTATIONS", 20);
    let (mut failures, mut accepted) = (Vec::new(), 0u64);
    for index in first..first + count {
        for arguments in attempt(&mut Random::new(kind, index), index) {
            let run = run(folder, &arguments);
            if let Some(misdeed) = run.misdeed() {
                let kept = keep(kind, index, folder);
                failures.push(format!("{kind} {index}: {arguments:?} in {}: {misdeed}", kept.display()));
            }
            if !run.status.success() {
                break;
            }
            accepted += 1;
        }
    }
    assert!(first > 0 || accepted > 0, "{kind}: nothing was ever accepted; is the undamaged file whole?");
    println!(
        "{kind}: {count} from {first} on, {accepted} runs succeeded, {} failed the rule",
        failures.len()
    );
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

/// Copies the files of a failure to where they stay.
fn keep(kind: &str, index: u64, folder: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("readable") {
            let path = entry.expect("readable").path();
            let to = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                copy(&path, &to);
            } else {
                fs::copy(&path, &to).expect("copied");
            }
        }
    }
    let kept = std::env::temp_dir().join(format!("moonflow-mutation-{kind}-{index}"));
    copy(folder, &kept);
    kept
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|&word| word.to_owned()).collect()
}

/// Columns a, b and c and 60 rows.
fn table() -> Table {
    let value = |index: usize| (index as f64 * 0.7).sin() * [1.0, 100.0, 0.01][index % 3];
    Table {
        name: "t".into(),
        columns: ["a", "b", "c"].map(String::from).to_vec(),
        values: (0..180).map(value).collect(),
    }
}

fn write(table: &Table, path: &Path) {
    let mut writer = TableWriter::create(Some(path), None, &[], &table.columns).expect("made");
    writer.write(&[], &table.values).expect("written");
    writer.finish().expect("written");
}

/// A folder with the table `t.csv` and a model of it, `o/model.safetensors`, with its checkpoint.
fn trained() -> tempfile::TempDir {
    let folder = folder();
    write(&table(), &folder.path().join("t.csv"));
    let options =
        ["--checkpoint-every", "1", "--ema", "0.5", "--standardise", "whiten", "--margins", "kernel"];
    train(folder.path(), "t.csv", "o", &options);
    folder
}

/// The file without its checksum, so that damage is not found by that.
fn unchecked(bytes: &[u8]) -> Vec<u8> {
    let place = bytes.windows(10).position(|part| part == b"\"checksum\"").expect("there");
    let mut bytes = bytes.to_vec();
    bytes[place..place + 10].copy_from_slice(b"\"chequesu\"");
    bytes
}

#[test]
fn damaged_models_are_answered() {
    let folder = trained();
    let path = folder.path();
    let whole = fs::read(path.join("o/model.safetensors")).expect("written");
    try_all("model", path, |random, index| {
        let mut bytes = if random.chance(80) { unchecked(&whole) } else { whole.clone() };
        if index > 0 {
            damage(&mut bytes, random.chance(50), random);
        }
        fs::write(path.join("m"), bytes).expect("written");
        let line = match index % 4 {
            0 => words(&["info", "m"]),
            1 => words(&["info", "--json", "m"]),
            2 => words(&["score", "--model", "m", "t.csv", "--device", "cpu", "--out", "s.csv"]),
            _ => words(&["sample", "--model", "m", "-n", "20", "--device", "cpu", "--out", "s.csv"]),
        };
        vec![line]
    });
}

#[test]
fn damaged_checkpoints_are_answered() {
    let folder = trained();
    let path = folder.path();
    let file = path.join("o/checkpoint.safetensors");
    let config = fs::read(path.join("o/config.toml")).expect("written");
    let whole = fs::read(&file).expect("written");
    try_all("checkpoint", path, |random, index| {
        let mut bytes = if random.chance(80) { unchecked(&whole) } else { whole.clone() };
        if index > 0 {
            damage(&mut bytes, random.chance(50), random);
        }
        fs::write(&file, bytes).expect("written");
        fs::write(path.join("o/config.toml"), &config).expect("written");
        vec![words(&["train", "--resume", "o"])]
    });
}

/// Damaged tables whose undamaged one is in the file `name`.
fn damaged_tables(kind: &str, name: &str, text: bool) {
    let folder = trained();
    let path = folder.path();
    write(&table(), &path.join(name));
    let whole = fs::read(path.join(name)).expect("written");
    let model = "o/model.safetensors";
    try_all(kind, path, |random, index| {
        let mut bytes = whole.clone();
        if index > 0 {
            damage(&mut bytes, text, random);
        }
        fs::write(path.join(name), bytes).expect("written");
        let missing = random.word(&["refuse", "drop"]);
        vec![words(&[
            "score",
            "--model",
            model,
            name,
            "--missing",
            missing,
            "--device",
            "cpu",
            "--out",
            "s.csv",
        ])]
    });
}

#[test]
fn damaged_npy_is_answered() {
    damaged_tables("npy", "d.npy", false);
}

#[test]
fn damaged_parquet_is_answered() {
    damaged_tables("parquet", "d.parquet", false);
}

#[test]
fn damaged_csv_is_answered() {
    damaged_tables("csv", "d.csv", true);
}

#[test]
fn damaged_zstd_is_answered() {
    damaged_tables("zst", "d.csv.zst", false);
}

#[test]
fn damaged_gzip_and_compressed_damage_are_answered() {
    let folder = trained();
    let path = folder.path();
    let plain = fs::read(path.join("t.csv")).expect("written");
    let packed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    };
    let model = "o/model.safetensors";
    try_all("gz", path, |random, index| {
        let mut bytes = plain.clone();
        if random.chance(30) && index > 0 {
            damage(&mut bytes, true, random);
        }
        if random.chance(3) && index > 0 {
            // A few kilobytes that unpack to a row of 200 MB.
            bytes.extend(vec![*random.pick(b"0,\"\n "); 200 << 20]);
        }
        let mut bytes = packed(&bytes);
        if random.chance(80) && index > 0 {
            damage(&mut bytes, false, random);
        }
        fs::write(path.join("d.csv.gz"), bytes).expect("written");
        vec![words(&["score", "--model", model, "d.csv.gz", "--device", "cpu", "--out", "s.csv"])]
    });
}

#[test]
fn damaged_configurations_are_answered() {
    let folder = trained();
    let path = folder.path();
    let mut whole = fs::read(path.join("o/config.toml")).expect("written");
    whole.extend(b"patience = 3\nrollback = true\nbounds = \"a=-900:900\"\ndrop = \"c\"\n");
    let whole = String::from_utf8(whole).expect("UTF-8").replace("rollback = false\n", "").into_bytes();
    try_all("toml", path, |random, index| {
        let mut bytes = whole.clone();
        // The first is whole, so that it is known to be one.
        if index > 0 {
            damage(&mut bytes, true, random);
        }
        fs::write(path.join("c.toml"), bytes).expect("written");
        // What says how much work there is comes from the command line.
        let small = ["--epochs", "1", "--layers", "1", "--hidden", "4", "--batch", "64"];
        let line = ["train", "--config", "c.toml", "--out", "p", "--device", "cpu"];
        vec![words(&[&line[..], &small].concat())]
    });
}

/// A CSV file of columns that are far out, constant, huge, tiny, tied or missing, under names that do not belong there.
fn nasty_table(random: &mut Random) -> String {
    let columns = if random.chance(4) { 60 + random.below(240) } else { 1 + random.below(6) };
    let rows = *random.pick(&[1, 2, 3, 4, 7, 20, 100, 400]);
    let mut text = String::new();
    let names: Vec<String> = (0..columns)
        .map(|column| match random.below(8) {
            0 => format!("\"\u{1b}[2J{column}\""),
            1 => format!("\"n\n{column}\u{202e}\""),
            2 if random.chance(20) => "x".repeat(70_000) + &column.to_string(),
            3 if random.chance(20) => "same".into(),
            _ => format!("c{column}"),
        })
        .collect();
    text += &names.join(",");
    text.push('\n');
    let kinds: Vec<usize> = (0..columns).map(|_| random.below(14)).collect();
    for row in 0..rows {
        for (column, kind) in kinds.iter().enumerate() {
            let unit = random.unit();
            let value = match kind {
                0 if random.chance(95) => unit,
                0 => 5e7,
                1 => unit * 1e308,
                2 => unit * 1e-300,
                3 if random.chance(90) => 7.0,
                3 => 7.0 + unit,
                4 if random.chance(20) => 3.0,
                4 => unit * 1e150,
                5 => (unit * 3.0).round(),
                6 => f64::from(row) * 1e15,
                7 => unit.powi(-7),
                8 => 1e9 + unit * 1e-6,
                9 if random.chance(3) => f64::NAN,
                10 if random.chance(98) => unit * 1e-5,
                10 => 1e200,
                _ => unit,
            };
            let comma = if column > 0 { "," } else { "" };
            let _ = write!(text, "{comma}{value:?}");
        }
        text.push('\n');
    }
    text
}

#[test]
fn nasty_tables_are_trained_on_with_pictures_or_refused() {
    let folder = folder();
    let path = folder.path();
    try_all("table", path, |random, _| {
        fs::write(path.join("n.csv"), nasty_table(random)).expect("written");
        let mut line =
            words(&["train", "n.csv", "--out", "o", "--layers", "2", "--hidden", "6", "--epochs", "2"]);
        line.extend(words(&["--device", "cpu", "--missing", random.word(&["refuse", "drop"])]));
        line.extend(words(&["--standardise", random.word(&["mean", "robust", "robust", "whiten"])]));
        line.extend(words(&[
            "--batch",
            random.word(&["1", "16", "256"]),
            "--lr",
            random.word(&["0.001", "1"]),
        ]));
        line.extend(words(&["--validation-fraction", random.word(&["0", "0.1", "0.5"])]));
        if random.chance(40) {
            line.extend(words(&["--margins", random.word(&["johnson", "kernel"])]));
        }
        if random.chance(20) {
            line.extend(words(&["--test-fraction", "0.3"]));
        }
        if random.chance(20) {
            line.extend(words(&["--context", "1"]));
        }
        let plot = ["plot", "--model", "o/model.safetensors", "--data", "n.csv", "--missing", "drop"];
        vec![line, words(&[&plot[..], &["--out", "p.svg", "--device", "cpu"]].concat())]
    });
}
