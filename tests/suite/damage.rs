//! Files that are damaged, lie, or never end: refused with what is wrong with them, before anything is made of it.

use std::fs;
use std::path::Path;

use moonflow::data::{Dataset, Table};
use moonflow::model::Model;
use moonflow::train::Checkpoint;
use safetensors::SafeTensors;

use crate::cli::{folder, train};
use crate::limited::run;

/// The CRC-32 of gzip, bit by bit.
fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// A model of three columns and a checkpoint of its training, as bytes of their files.
fn files() -> [Vec<u8>; 2] {
    let folder = folder();
    let rows: String = (0..40).map(|i| format!("{},{},{}\n", i, i * i % 17, i % 7)).collect();
    fs::write(folder.path().join("t.csv"), format!("a,b,c\n{rows}")).expect("written");
    train(folder.path(), "t.csv", "o", &["--checkpoint-every", "1"]);
    ["model", "checkpoint"]
        .map(|name| fs::read(folder.path().join(format!("o/{name}.safetensors"))).expect("written"))
}

/// What is wrong with the model or checkpoint in `bytes`.
fn problem(bytes: &[u8], checkpoint: bool) -> Option<String> {
    if checkpoint {
        Checkpoint::from_bytes("f", bytes).err().map(|error| error.to_string())
    } else {
        Model::from_bytes("f", bytes).err().map(|error| error.to_string())
    }
}

/// The file with `change` made to the text of its header.
fn with_header(bytes: &[u8], change: impl FnOnce(&str) -> String) -> Vec<u8> {
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = change(std::str::from_utf8(header).expect("UTF-8"));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn a_checksum_of_text_names_and_tensors_is_there_and_held_against_them() {
    for (bytes, entry, checkpoint) in
        std::iter::zip(files(), [("moonflow", false), ("moonflow-checkpoint", true)])
            .map(|(bytes, (entry, checkpoint))| (bytes, entry, checkpoint))
    {
        assert_eq!(problem(&bytes, checkpoint), None);
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("own file");
        let entries = header.metadata().as_ref().expect("there");
        let mut tensors = file.tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let mut covered = entries[entry].clone().into_bytes();
        for (name, view) in &tensors {
            covered.extend(name.bytes().chain(view.data().iter().copied()));
        }
        assert_eq!(entries["checksum"], format!("crc32:{:08x}", crc32(covered)));
        assert_eq!(entries.len(), 2);

        // Any bit of the tensors, and the text.
        let start = bytes.len() - file.tensors().iter().map(|(_, view)| view.data().len()).sum::<usize>();
        for place in (start..bytes.len()).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            let message = problem(&damaged, checkpoint).expect("damaged");
            assert!(message.contains("it is damaged: its checksum is crc32:"), "{message}");
        }
        let text = with_header(&bytes, |header| header.replacen("\\\"epochs\\\":2", "\\\"epochs\\\":3", 1));
        assert!(problem(&text, checkpoint).expect("damaged").contains("it is damaged"));

        // Without it nothing is checked; one that is none is refused.
        let without = with_header(&bytes, |header| header.replacen("\"checksum\"", "\"chequesum\"", 1));
        assert_eq!(problem(&without, checkpoint), None);
        for (from, to) in [("crc32:", "md5:00"), ("crc32:", "crc32:0"), ("\"crc32:", "\"crc32-")] {
            let other = with_header(&bytes, |header| header.replacen(from, to, 1));
            let message = problem(&other, checkpoint).expect("no checksum");
            assert!(message.contains("expected `crc32:` and eight hexadecimal digits"), "{message}");
        }
    }
}

#[test]
fn keys_that_are_there_twice_are_refused() {
    for (bytes, checkpoint) in std::iter::zip(files(), [false, true]) {
        for key in ["__metadata__", if checkpoint { "corrections" } else { "standardiser.mean" }] {
            let twice = with_header(&bytes, |header| {
                let start = header.find(&format!("\"{key}\":")).expect("there");
                let end = start + header[start..].find('}').expect("an object") + 1;
                format!(
                    "{},{}",
                    header[..end].to_owned() + if key == "__metadata__" { "\"}" } else { "" },
                    &header[start..]
                )
            });
            // However the copy came out, both readings of it must be refused.
            let message = problem(&twice, checkpoint).expect(key);
            assert!(message.contains("its header is invalid"), "{message}");
        }
    }
    // An exact copy of a tensor's entry, which a parser that keeps the last of two would not notice.
    let [model, _] = files();
    let twice = with_header(&model, |header| {
        let start = header.find("\"standardiser.mean\":").expect("there");
        let end = start + header[start..].find('}').expect("an object") + 1;
        format!("{},{}{}", &header[..end], &header[start..end], &header[end..])
    });
    let message = problem(&twice, false).expect("twice");
    assert!(message.contains("it has `standardiser.mean` twice"), "{message}");
}

#[test]
fn repeated_columns_and_deviations_that_are_none_are_refused() {
    let [bytes, _] = files();
    let model = Model::from_bytes("f", &bytes).expect("own file");
    let refused = |change: fn(&mut Model)| {
        let mut model = model.clone();
        change(&mut model);
        problem(&model.to_bytes(), false).expect("refused")
    };
    let message = refused(|model| model.columns[2] = "a".into());
    assert!(message.contains("its columns 1 and 3 are both named `a`"), "{message}");
    for std in [0.0, -1.0, f64::MIN_POSITIVE / 2.0, 5e-324, f64::NAN, f64::INFINITY] {
        let mut model = model.clone();
        model.preprocessing.standardiser.std[1] = std;
        let message = problem(&model.to_bytes(), false).expect("refused");
        assert!(message.contains("`standardiser.std`"), "{std}: {message}");
    }
    let table = Table {
        name: "t".into(),
        columns: ["a", "b", "a"].map(String::from).to_vec(),
        values: (0..30).map(f64::from).collect(),
    };
    let message = Dataset::split(&table, 0.1, 1).expect_err("repeated").to_string();
    assert!(message.contains("columns 1 and 3 are both named `a`"), "{message}");
}

#[test]
fn sizes_that_a_header_claims_are_not_believed() {
    let [model, checkpoint] = files();
    let folder = folder();
    let path = folder.path();
    let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).expect("written");
    write("long", &[&(1u64 << 40).to_le_bytes()[..], &model[8..]].concat());
    write("more", &[&model[..], &[0; 64]].concat());
    let checkpoint = with_header(&checkpoint, |header| {
        header.replacen("\"checksum\"", "\"chequesum\"", 1).replacen(
            "\\\"layers\\\":2",
            "\\\"layers\\\":1000000000",
            1,
        )
    });
    assert!(problem(&checkpoint, true).expect("too many").contains("layers must lie between"));
    for (name, want) in [("long", "its header claims"), ("more", "truncated or damaged")] {
        let run = run(path, &["info", name]);
        assert_eq!((run.misdeed(), run.status.code()), (None, Some(1)), "{}", run.stderr);
        assert!(run.stderr.contains(want), "{}", run.stderr);
    }
    // A hole of a terabyte that says that it is a tensor of the model.
    let sparse = with_header(&model, |header| {
        let end = header.trim_end().len() - 1;
        let bytes = model.len() - 8 - header.len();
        let more = bytes + (1 << 40);
        format!(
            "{},\"x\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{bytes},{more}]}}}}",
            &header[..end],
            1u64 << 40
        )
    });
    write("sparse", &sparse);
    let file = fs::OpenOptions::new().write(true).open(path.join("sparse")).expect("there");
    if file.set_len(sparse.len() as u64 + (1 << 40)).is_ok() {
        let run = run(path, &["info", "sparse"]);
        assert_eq!((run.misdeed(), run.status.code()), (None, Some(1)), "{}", run.stderr);
        assert!(run.stderr.contains("but its flow needs"), "{}", run.stderr);
    }
}

#[test]
fn devices_pipes_and_folders_are_no_models_configurations_and_checkpoints() {
    let folder = folder();
    let path = folder.path();
    train(path, "moons", "o", &["--checkpoint-every", "1"]);
    assert!(std::process::Command::new("mkfifo").arg(path.join("pipe")).status().expect("runs").success());
    fs::create_dir(path.join("folder")).expect("made");
    fs::write(path.join("long.toml"), "# no end in sight\n".repeat(100_000)).expect("written");
    for (file, wanted) in [
        ("/dev/zero", "a device, which may never end"),
        ("/dev/urandom", "a device, which may never end"),
        ("pipe", "a pipe, which may never end"),
        ("folder", "irectory"),
        ("long.toml", ""),
    ] {
        for arguments in [
            &["info", file][..],
            &["info", "--json", file],
            &["score", "--model", file, "t.csv"],
            &["sample", "--model", file, "-n", "1"],
            &["plot", "--model", file],
            &["train", "--config", file],
        ] {
            let run = run(path, arguments);
            assert_eq!((run.misdeed(), run.status.code()), (None, Some(1)), "{arguments:?}: {}", run.stderr);
            assert!(
                run.stderr.contains(file) && run.stderr.contains(wanted),
                "{arguments:?}: {}",
                run.stderr
            );
        }
    }
    refuse_in_place(path, "o/checkpoint.safetensors", &["train", "--resume", "o"]);
    refuse_in_place(path, "o/config.toml", &["train", "--resume", "o"]);

    // A history that cannot be read costs the curves alone.
    fs::remove_file(path.join("o/history.csv")).expect("there");
    fs::rename(path.join("pipe"), path.join("o/history.csv")).expect("moved");
    let run = run(path, &["plot", "--model", "o/model.safetensors", "--out", "p.svg", "--device", "cpu"]);
    assert_eq!((run.misdeed(), run.status.code()), (None, Some(0)), "{}", run.stderr);
}

/// Puts a pipe in the place of `file` for one run, which must refuse it.
fn refuse_in_place(folder: &Path, file: &str, arguments: &[&str]) {
    let (place, aside) = (folder.join(file), folder.join("aside"));
    fs::rename(&place, &aside).expect("moved");
    fs::rename(folder.join("pipe"), &place).expect("moved");
    let run = run(folder, arguments);
    assert_eq!((run.misdeed(), run.status.code()), (None, Some(1)), "{}", run.stderr);
    assert!(run.stderr.contains(file) && run.stderr.contains("a pipe"), "{}", run.stderr);
    fs::rename(&place, folder.join("pipe")).expect("moved");
    fs::rename(&aside, &place).expect("moved");
}
