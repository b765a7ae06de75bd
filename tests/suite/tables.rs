//! Tables in every format, there and back and in chunks, and files that lie.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moonflow::data::{Encoding, Missing, Reader, Rows, Selection, Table, TableWriter, TimeFormat, ValueKind};
use num_traits::ToBytes;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use proptest::prelude::*;

use crate::cli::{folder, moonflow, succeed, text, train};

/// Endings of every format that is written.
const ENDINGS: [&str; 9] = ["csv", "tsv", "csv.gz", "csv.zst", "tsv.gz", "tsv.zst", "npy", "parquet", "txt"];

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Numbers that need every digit, and texts that need quotes.
fn sample(rows: usize) -> (Vec<f64>, Vec<Vec<String>>) {
    let numbers = (0..3 * rows).map(|i| (i as f64 * 0.7).sin() * 10f64.powi(i as i32 % 40 - 20)).collect();
    let words = ["plain", "with, comma", "tab\there", "\"quoted\"", "", "line\nbreak"];
    (numbers, vec![(0..rows).map(|row| words[row % words.len()].to_owned()).collect()])
}

/// All rows, in chunks of `limit`.
fn collect(mut rows: Rows<'_>, limit: usize) -> moonflow::Result<(Vec<f64>, Vec<Vec<String>>)> {
    let (mut numbers, mut extras) = (Vec::new(), vec![Vec::new(); rows.extras().len()]);
    while let Some(chunk) = rows.next(limit)? {
        assert!(chunk.rows > 0 && chunk.rows <= limit && chunk.places.len() == chunk.rows);
        numbers.extend(chunk.numbers);
        for (all, cells) in extras.iter_mut().zip(chunk.extras) {
            all.extend(cells);
        }
    }
    Ok((numbers, extras))
}

fn open_all(path: &Path, missing: Missing) -> moonflow::Result<Rows<'static>> {
    let reader = Reader::open(path, None)?;
    let all: Vec<usize> = (0..reader.columns().len()).collect();
    reader.select(&all, &[], missing)
}

#[test]
fn every_format_gives_back_what_was_written_in_chunks_of_any_size() {
    const ROWS: usize = 1000;
    let folder = folder();
    let (numbers, texts) = sample(ROWS);
    for ending in ENDINGS {
        let path = folder.path().join(format!("t.{ending}"));
        let texts = if ending == "npy" { Vec::new() } else { texts.clone() };
        let text_names = names(&["note"][..texts.len()]);
        let mut writer =
            TableWriter::create(Some(&path), None, &text_names, &names(&["a", "b, too", "c"])).expect("made");
        for start in (0..ROWS).step_by(300) {
            let end = (start + 300).min(ROWS);
            let part: Vec<Vec<String>> = texts.iter().map(|cells| cells[start..end].to_vec()).collect();
            writer.write(&part, &numbers[3 * start..3 * end]).expect("written");
        }
        assert!(!path.exists(), "{ending}: the file must not be there before it is whole");
        writer.finish().expect("written");

        for limit in [1, 7, 999, 1000, 5000] {
            let reader = Reader::open(&path, None).expect("opens");
            let first = texts.len();
            if ending != "npy" {
                assert_eq!(reader.columns(), names(&["note", "a", "b, too", "c"]), "{ending}");
            }
            let chosen = [first + 2, first, first + 1];
            let extras: Vec<usize> = (0..first).collect();
            let rows = reader.select(&chosen, &extras, Missing::Refuse).expect("columns");
            let (got, got_texts) = collect(rows, limit).expect("reads");
            let want: Vec<f64> = numbers.chunks(3).flat_map(|row| [row[2], row[0], row[1]]).collect();
            assert!(got.iter().map(|v| v.to_bits()).eq(want.iter().map(|v| v.to_bits())), "{ending} {limit}");
            assert_eq!(got_texts, texts, "{ending} {limit}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), ENDINGS.len(), "nothing else is left");
}

#[test]
fn a_writer_that_is_dropped_leaves_the_old_file_and_nothing_else() {
    let folder = folder();
    for ending in ENDINGS {
        let path = folder.path().join(format!("t.{ending}"));
        fs::write(&path, "old").expect("written");
        let mut writer = TableWriter::create(Some(&path), None, &[], &names(&["a"])).expect("made");
        writer.write(&[], &[1.0, 2.0]).expect("written");
        drop(writer);
        assert_eq!(fs::read_to_string(&path).expect("there"), "old", "{ending}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), ENDINGS.len());
}

#[test]
fn arrays_have_the_bytes_that_numpy_writes() {
    let folder = folder();
    let path = folder.path().join("t.npy");
    for columns in [1, 3] {
        let mut writer =
            TableWriter::create(Some(&path), None, &[], &names(&["a", "b", "c"][..columns])).expect("made");
        let values: Vec<f64> = (0..6).map(|i| f64::from(i) / 7.0).collect();
        writer.write(&[], &values).expect("written");
        writer.finish().expect("written");
        let shape = if columns == 1 { &[6][..] } else { &[2, 3] };
        assert!(
            fs::read(&path).expect("there") == array("<f8", shape, Order::C, values),
            "{columns} columns"
        );
    }
    // NumPy 2.4 saves `numpy.arange(4, dtype=">i4").reshape(2, 2, order="F")` as:
    let dictionary = b"\x93NUMPY\x01\x00v\x00{'descr': '>i4', 'fortran_order': True, 'shape': (2, 2), }";
    let numbers = b"\n\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03";
    let saved = [&dictionary[..], &[b' '; 59], numbers].concat();
    assert!(array(">i4", &[2, 2], Order::Fortran, vec![0, 1, 2, 3]) == saved);
}

/// Whether numbers of a row stand together, or those of a column.
enum Order {
    C,
    Fortran,
}

/// An array as NumPy writes it, of type `descr`: the dictionary filled up with spaces to 128 bytes in all, then the numbers.
fn array<T: ToBytes>(descr: &str, shape: &[u64], order: Order, values: Vec<T>) -> Vec<u8> {
    let fortran = if matches!(order, Order::C) { "False" } else { "True" };
    let shape = match shape {
        [rows] => format!("({rows},)"),
        _ => format!("({})", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00v\x00".to_vec();
    bytes.extend(format!("{dictionary:<117}\n").bytes());
    for value in values {
        if descr.starts_with('>') {
            bytes.extend(value.to_be_bytes().as_ref());
        } else {
            bytes.extend(value.to_le_bytes().as_ref());
        }
    }
    bytes
}

#[test]
fn arrays_of_every_type_and_order_are_read() {
    use Order::{C, Fortran};
    let folder = folder();
    let path = folder.path().join("t.npy");
    let shape = [4, 2];
    let want: Vec<f64> = (0..8).map(f64::from).collect();
    // Column after column.
    let turned = [0, 2, 4, 6, 1, 3, 5, 7];
    for (what, bytes) in [
        ("f8", array("<f8", &shape, C, want.clone())),
        ("big f8", array(">f8", &shape, C, want.clone())),
        ("f4", array("<f4", &shape, C, want.iter().map(|&v| v as f32).collect())),
        ("i1", array("|i1", &shape, C, want.iter().map(|&v| v as i8).collect())),
        ("i2", array(">i2", &shape, C, want.iter().map(|&v| v as i16).collect())),
        ("i4", array("<i4", &shape, C, want.iter().map(|&v| v as i32).collect())),
        ("i8", array("<i8", &shape, C, want.iter().map(|&v| v as i64).collect())),
        ("u1", array("|u1", &shape, C, want.iter().map(|&v| v as u8).collect())),
        ("u4", array(">u4", &shape, C, want.iter().map(|&v| v as u32).collect())),
        ("u8", array("<u8", &shape, C, want.iter().map(|&v| v as u64).collect())),
        ("Fortran f8", array("<f8", &shape, Fortran, turned.map(f64::from).to_vec())),
        ("Fortran big i4", array(">i4", &shape, Fortran, turned.to_vec())),
    ] {
        fs::write(&path, bytes).expect("written");
        for limit in [1, 3, 4] {
            let rows = open_all(&path, Missing::Refuse).expect(what);
            assert_eq!(collect(rows, limit).expect(what).0, want, "{what}, {limit} rows at a time");
        }
    }
    fs::write(&path, array("<f8", &[3], C, vec![1.0, 2.0, 3.0])).expect("written");
    assert_eq!(Table::read(&path).expect("one column").columns, ["x0"]);
}

/// A Parquet file with a nullable double, a required 32-bit integer, a nullable text and a 32-bit unsigned integer;
/// two groups of rows.
fn parquet_file(path: &Path) {
    let schema = "message t { optional double a; required int32 b; optional binary c (UTF8); \
                  required int32 d (INTEGER(32, false)); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let file = File::create(path).expect("made");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build()))
        .expect("begun");
    for start in [0, 3] {
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("a column").expect("a");
        column.typed::<DoubleType>().write_batch(&[0.5, 2.5], Some(&[1, 0, 1]), None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("a column").expect("b");
        column.typed::<Int32Type>().write_batch(&[start, start + 1, -2], None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("a column").expect("c");
        let cells = [ByteArray::from("x"), ByteArray::from("y")];
        column.typed::<ByteArrayType>().write_batch(&cells, Some(&[1, 1, 0]), None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("a column").expect("d");
        column.typed::<Int32Type>().write_batch(&[1, -1, 3], None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
    }
    writer.close().expect("closed");
}

#[test]
fn parquet_columns_are_numbers_or_texts_by_their_types() {
    let folder = folder();
    let path = folder.path().join("t.parquet");
    parquet_file(&path);
    let reader = || Reader::open(&path, None).expect("opens");
    assert_eq!((reader().columns().to_vec(), reader().rows()), (names(&["a", "b", "c", "d"]), Some(6)));
    for limit in [1, 2, 10] {
        let rows = reader().select(&[3, 1], &[2, 0], Missing::Refuse).expect("columns");
        let (numbers, extras) = collect(rows, limit).expect("reads");
        let huge = 4_294_967_295.0;
        assert_eq!(numbers, [1.0, 0.0, huge, 1.0, 3.0, -2.0, 1.0, 3.0, huge, 4.0, 3.0, -2.0]);
        assert_eq!(
            extras,
            [names(&["x", "y", "", "x", "y", ""]), names(&["0.5", "", "2.5", "0.5", "", "2.5"])]
        );
    }
    let refused = reader().select(&[0, 2], &[], Missing::Refuse).err().expect("texts").to_string();
    assert!(
        refused.contains("column 3 (`c`) holds texts") && refused.contains("leave the column out"),
        "{refused}"
    );
}

#[test]
fn missing_values_are_counted_with_their_places_or_dropped_in_every_format() {
    let folder = folder();
    let csv = folder.path().join("t.csv");
    fs::write(&csv, "a,b\n1,2\nNA,4\n\n5,null\n,none\n7,8\n").expect("written");
    let npy = folder.path().join("t.npy");
    let values = vec![1.0, 2.0, f64::NAN, 4.0, 5.0, f64::NAN, f64::NAN, f64::NAN, 7.0, 8.0];
    fs::write(&npy, array("<f8", &[5, 2], Order::C, values)).expect("written");
    let parquet = folder.path().join("t.parquet");
    parquet_file(&parquet);
    for (path, want) in [
        (
            &csv,
            "4 values missing, in 3 of 5 rows: line 3, column 1 (`a`); line 5, column 2 (`b`); line 6, column 1 (`a`); line 6, column 2 (`b`); leave such rows out, or fill in numbers",
        ),
        (&npy, "4 values missing, in 3 of 5 rows: row 2, column 1 (`x0`); row 3, column 2 (`x1`); row 4,"),
    ] {
        for limit in [1, 2, 100] {
            let error = collect(open_all(path, Missing::Refuse).expect("opens"), limit).expect_err("missing");
            assert!(error.to_string().contains(want), "{limit}: {error}");
            let mut rows = open_all(path, Missing::Drop).expect("opens");
            let mut numbers = Vec::new();
            while let Some(chunk) = rows.next(limit).expect("reads") {
                numbers.extend(chunk.numbers);
            }
            assert_eq!(
                (numbers, rows.dropped(), rows.rows_read()),
                (vec![1.0, 2.0, 7.0, 8.0], 3, 5),
                "{limit}"
            );
        }
    }
    let chosen =
        |missing| Reader::open(&parquet, None).expect("opens").select(&[0], &[], missing).expect("a");
    let error = collect(chosen(Missing::Refuse), 100).expect_err("nulls").to_string();
    assert!(error.contains("2 values missing, in 2 of 6 rows: row 2, column 1 (`a`); row 5"), "{error}");
    assert_eq!(collect(chosen(Missing::Drop), 2).expect("reads").0, [0.5, 2.5, 0.5, 2.5]);
    fs::write(&csv, "a,b\nNA,1\n2,\n").expect("written");
    let error =
        collect(open_all(&csv, Missing::Drop).expect("opens"), 9).expect_err("nothing left").to_string();
    assert!(error.contains("a value is missing in each of its 2 rows"), "{error}");
}

#[test]
fn files_that_lie_or_end_early_are_refused_in_every_format() {
    let folder = folder();
    let header = |dictionary: &str| {
        [&b"\x93NUMPY\x01\x00"[..], &(dictionary.len() as u16).to_le_bytes(), dictionary.as_bytes()].concat()
    };
    let shape =
        |shape: &str| header(&format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"));
    let whole = array("<f8", &[4, 2], Order::C, vec![1.0; 8]);
    let parquet = folder.path().join("whole.parquet");
    parquet_file(&parquet);
    let parquet = fs::read(parquet).expect("written");
    let gz = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let gzip = gz(&b"1,2\n".repeat(1000));
    let zst = zstd::encode_all(&b"1,2\n".repeat(1000)[..], 1).expect("compressed");
    let damaged_footer = {
        let mut bytes = parquet.clone();
        let length = bytes.len();
        bytes[length - 8..length - 4].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes
    };
    for (name, bytes, want) in [
        (
            "huge.npy",
            shape("(4611686018427387904, 2)"),
            "4611686018427387904 × 2 values, more bytes than 64 bits",
        ),
        ("large.npy", shape("(100000000000, 2)"), "1600000000000 bytes, and 0 are there"),
        ("wide.npy", shape("(1, 100000000000)"), "is it transposed?"),
        ("flat.npy", shape("(3, 0)"), "expected 1 to 65536"),
        ("cube.npy", shape("(1, 2, 3)"), "has 3 dimensions"),
        ("deep.npy", header(&"(".repeat(60_000)), "no `descr`"),
        (
            "long.npy",
            [&b"\x93NUMPY\x02\x00"[..], &u32::MAX.to_le_bytes()].concat(),
            "header of 4294967295 bytes",
        ),
        ("cut.npy", whole[..whole.len() - 1].to_vec(), "truncated or damaged"),
        ("more.npy", [&whole[..], b"x"].concat(), "truncated or damaged"),
        ("head.npy", whole[..9].to_vec(), "only the beginning of one"),
        ("text.npy", b"a,b\n1,2\n".to_vec(), "not an NPY file"),
        ("empty.npy", Vec::new(), "not an NPY file"),
        ("cut.parquet", parquet[..parquet.len() - 1].to_vec(), "not a usable Parquet file"),
        ("half.parquet", parquet[parquet.len() / 2..].to_vec(), "half.parquet"),
        ("footer.parquet", damaged_footer, "not a usable Parquet file"),
        ("empty.parquet", Vec::new(), "not a usable Parquet file"),
        ("text.parquet", b"a,b\n1,2\n".to_vec(), "not a usable Parquet file"),
        ("cut.csv.gz", gzip[..gzip.len() - 9].to_vec(), "truncated or damaged"),
        ("cut.csv.zst", zst[..zst.len() - 3].to_vec(), "truncated or damaged"),
        ("quote.csv", b"a,b\n1,\"2\n3,4\n".to_vec(), "line 2, column 2 (`b`)"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        let message = Table::read(&path).expect_err(want).to_string();
        assert!(message.contains(name) && message.contains(want), "{name}: `{want}` is not in: {message}");
    }
    // Compression is told by the bytes, whatever the name.
    let path = folder.path().join("t.csv");
    fs::write(&path, gzip).expect("written");
    assert_eq!(Table::read(&path).expect("reads").rows(), 1000);
}

/// Reads what `bytes` hold as far as they go; what is read must be whole and finite.
fn read_bytes(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("written");
    if let Ok(table) = Table::read(path) {
        assert_eq!(table.values.len(), table.rows() * table.features());
        assert!(table.values.iter().all(|value| value.is_finite()));
    }
    // Texts too.
    if let Ok(reader) = Reader::open(path, None) {
        let all: Vec<usize> = (0..reader.columns().len()).collect();
        if let Ok(rows) = reader.select(&[], &all, Missing::Drop) {
            let _ = collect(rows, 100);
        }
    }
}

fn mutated() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>)> {
    (
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_of_every_format_never_panic((flips, cut) in mutated()) {
        let folder = folder();
        let parquet = folder.path().join("t.parquet");
        parquet_file(&parquet);
        let text = b"a,b\n1,2\n3,4\n".repeat(20);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text).expect("compressed");
        for (name, mut bytes) in [
            ("t.parquet", fs::read(&parquet).expect("written")),
            ("t.npy", array("<i4", &[4, 2], Order::Fortran, (0..8).collect())),
            ("t.csv.gz", encoder.finish().expect("compressed")),
            ("t.csv.zst", zstd::encode_all(&text[..], 1).expect("compressed")),
            ("t.tsv", text.clone()),
        ] {
            for (place, byte) in &flips {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            read_bytes(&folder.path().join(name), &bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_of_every_format_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = folder();
        for (name, magic) in [
            ("t.parquet", &b"PAR1"[..]),
            ("t.npy", b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}"),
            ("t.csv", b"\x1f\x8b\x08\x00"),
            ("t.tsv", b"\x28\xb5\x2f\xfd"),
        ] {
            let path: PathBuf = folder.path().join(name);
            read_bytes(&path, &bytes);
            read_bytes(&path, &[magic, &bytes, b"PAR1"].concat());
        }
    }
}

#[test]
fn columns_are_chosen_at_training_and_others_passed_through_at_scoring() {
    let folder = folder();
    let path = folder.path();
    let mut rows = String::from("id,a,kind,b,c\n");
    for i in 0..120 {
        let t = f64::from(i) * 0.7;
        rows += &format!("r{i},{},\"odd, {}\",{},{}\n", t.sin(), i % 2, t.cos() * 5.0, (t * 0.3).sin());
    }
    fs::write(path.join("t.csv"), &rows).expect("written");
    let said = train(path, "t.csv", "o", &["--columns", "4-5,a"]);
    assert!(said.contains("columns b, c, a"), "{said}");
    let model = ["--model", "o/model.safetensors", "--device", "cpu"];

    let whole = succeed(path, &[&["score", "t.csv"], &model[..]].concat());
    let mut lines = whole.lines();
    assert_eq!(lines.next(), Some("id,kind,log_prob"));
    assert!(lines.clone().all(|line| line.starts_with('r') && line.contains("\"odd, ")));
    let column = |line: &str| line.rsplit(',').next().expect("a field").to_owned();
    let scores: Vec<String> = lines.map(column).collect();

    // Without the others it is one column, as ever.
    let alone = succeed(path, &[&["score", "t.csv", "--drop", "1,kind"], &model[..]].concat());
    assert_eq!(alone.lines().next(), Some("log_prob"));
    assert!(alone.lines().skip(1).eq(scores.iter().map(String::as_str)));

    // Through Parquet with the texts in it, and to NPY without.
    succeed(path, &[&["score", "t.csv", "--out", "s.parquet"], &model[..]].concat());
    let reader = Reader::open(&path.join("s.parquet"), None).expect("opens");
    assert_eq!(reader.columns(), names(&["id", "kind", "log_prob"]));
    let (numbers, extras) =
        collect(reader.select(&[2], &[0], Missing::Refuse).expect("columns"), 50).expect("reads");
    assert!(numbers.iter().map(|value| format!("{value:?}")).eq(scores.iter().cloned()));
    assert_eq!((extras[0][0].as_str(), extras[0].len()), ("r0", 120));
    let output = moonflow(path, &[&["score", "t.csv", "--out", "s.npy"], &model[..]].concat());
    let message = text(&output.stderr);
    assert!(output.status.code() == Some(2) && message.contains("NPY holds numbers only"), "{message}");

    // Samples have names where the format has, and are found by position where not.
    for ending in ["tsv.gz", "npy", "parquet"] {
        let file = format!("x.{ending}");
        succeed(path, &[&["sample", "-n", "9", "--out", &file], &model[..]].concat());
        let scores = succeed(path, &[&["score", &file], &model[..]].concat());
        assert_eq!(scores.lines().count(), 10, "{ending}");
    }
    let from_npy = succeed(path, &[&["score", "x.npy"], &model[..]].concat());
    assert_eq!(from_npy, succeed(path, &[&["score", "x.parquet"], &model[..]].concat()));
}

#[test]
fn standard_input_and_output_take_every_format() {
    let folder = folder();
    let path = folder.path();
    let rows: String = (0..90).map(|i| format!("{},{},{}\n", (i * 7) % 11, (i * 5) % 13, i)).collect();
    fs::write(path.join("t.csv"), rows).expect("written");
    train(path, "t.csv", "o", &[]);
    let run = |arguments: &[&str], input: &Path| {
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("moonflow"))
            .args(arguments)
            .args(["--model", "o/model.safetensors", "--device", "cpu"])
            .current_dir(path)
            .stdin(File::open(input).expect("there"))
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    };
    let none = path.join("t.csv");
    let want = run(&["score", "t.csv"], &none);
    assert_eq!(run(&["score", "-", "--out", "-"], &none), want);
    for format in ["csv.gz", "npy", "parquet"] {
        let written = run(&["score", "t.csv", "--out-format", format], &none);
        let file = path.join(format!("s.{format}"));
        fs::write(&file, written).expect("written");
        let encoding = Encoding::parse(format).expect("known");
        let rows = Reader::open(&file, Some(encoding)).expect("opens").select(&[0], &[], Missing::Refuse);
        let (scores, _) = collect(rows.expect("a column"), 50).expect("reads");
        let text: String = scores.iter().map(|value| format!("{value:?}\n")).collect();
        assert_eq!(format!("log_prob\n{text}").as_bytes(), want, "{format}");

        let samples = run(&["sample", "-n", "20", "--format", format], &none);
        let file = path.join("samples");
        fs::write(&file, samples).expect("written");
        assert_eq!(
            run(&["score", "-", "--format", format], &file),
            run(&["score", "samples", "--format", format], &none)
        );
    }
}

#[test]
fn selection_and_reader_agree_on_unknown_columns() {
    let message = Selection { keep: names(&["widht"]), drop: Vec::new() }
        .resolve("t.csv", &names(&["width", "depth"]))
        .expect_err("a typo")
        .to_string();
    assert!(message.contains("did you mean `width`"), "{message}");
}

/// A Parquet file of `schema`, whose columns are filled by `fill`.
fn parquet_of(
    path: &Path,
    schema: &str,
    compression: Compression,
    fill: &dyn Fn(&mut ColumnWriter<'_>, usize),
) {
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = File::create(path).expect("made");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).expect("begun");
    let mut group = writer.next_row_group().expect("a group");
    let mut place = 0;
    while let Some(mut column) = group.next_column().expect("a column") {
        fill(column.untyped(), place);
        column.close().expect("closed");
        place += 1;
    }
    group.close().expect("closed");
    writer.close().expect("closed");
}

#[test]
fn parquet_of_every_compression_is_read() {
    let folder = folder();
    let path = folder.path().join("t.parquet");
    let values: Vec<f64> = (0..5000).map(|i| f64::from(i % 7) / 3.0).collect();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        parquet_of(&path, "message t { required double a; }", compression, &|column, _| {
            let ColumnWriter::DoubleColumnWriter(column) = column else { panic!("a double") };
            column.write_batch(&values, None, None).expect("written");
        });
        let (numbers, _) = collect(open_all(&path, Missing::Refuse).expect("opens"), 999)
            .unwrap_or_else(|error| panic!("{compression}: {error}"));
        assert_eq!(numbers, values, "{compression}");
    }
}

#[test]
fn parquet_truths_and_times_are_numbers_and_long_integers_are_refused() {
    let folder = folder();
    let path = folder.path().join("t.parquet");
    let schema = "message t { required boolean a; required int64 b (TIMESTAMP(MILLIS,true)); required int32 c (DATE); \
                  required int64 d; required binary e; }";
    parquet_of(&path, schema, Compression::UNCOMPRESSED, &|column, place| {
        let written = match column {
            ColumnWriter::BoolColumnWriter(column) => column.write_batch(&[true, false], None, None),
            ColumnWriter::Int32ColumnWriter(column) => column.write_batch(&[1, 19_782], None, None),
            ColumnWriter::Int64ColumnWriter(column) if place == 1 => {
                column.write_batch(&[1_500, 1_709_210_096_000], None, None)
            }
            ColumnWriter::Int64ColumnWriter(column) => {
                column.write_batch(&[1 << 53, (1 << 53) + 1], None, None)
            }
            ColumnWriter::ByteArrayColumnWriter(column) => {
                column.write_batch(&[ByteArray::from("x"), ByteArray::from(b"caf\xe9".to_vec())], None, None)
            }
            _ => panic!("another type"),
        };
        written.expect("written");
    });
    let select = |numbers: &[usize], extras: &[usize]| {
        Reader::open(&path, None).expect("opens").select(numbers, extras, Missing::Refuse).expect("columns")
    };
    let rows = select(&[0, 1, 2], &[3]);
    let zoned = TimeFormat { zoned: true, digits: 3, ..TimeFormat::default() };
    let times = [zoned, TimeFormat::DATE].map(ValueKind::Time);
    assert_eq!(rows.kinds(), [ValueKind::Truth, times[0], times[1]]);
    let (numbers, extras) = collect(rows, 9).expect("reads");
    assert_eq!(numbers, [1.0, 1.5, 86_400.0, 0.0, 1_709_210_096.0, 1_709_164_800.0]);
    assert_eq!(extras, [names(&["9007199254740992", "9007199254740993"])]);
    let (_, texts) = collect(select(&[0], &[1]), 9).expect("reads");
    assert_eq!(texts, [names(&["1970-01-01T00:00:01.500Z", "2024-02-29T12:34:56Z"])]);
    for (numbers, extras, want) in [
        (&[3][..], &[][..], "row 2, column 4 (`d`) is a whole number beyond 2^53"),
        (&[0], &[4], "row 2, column 5 (`e`) is not UTF-8 text"),
    ] {
        let error = collect(select(numbers, extras), 9).expect_err(want).to_string();
        assert!(error.contains(want), "{error}");
    }
}

/// A ZIP archive of `files`.
fn archive(method: zip::CompressionMethod, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, options).expect("begun");
        writer.write_all(bytes).expect("written");
    }
    writer.finish().expect("written").into_inner()
}

#[test]
fn archives_of_one_array_are_read_and_others_are_named() {
    use Order::{C, Fortran};
    use zip::CompressionMethod::{Deflated, Stored};
    let folder = folder();
    let path = folder.path().join("t.npz");
    let want: Vec<f64> = (0..8).map(f64::from).collect();
    let rows = array("<f8", &[4, 2], C, want.clone());
    let turned = array("<f8", &[4, 2], Fortran, [0, 2, 4, 6, 1, 3, 5, 7].map(f64::from).to_vec());
    for method in [Stored, Deflated] {
        for array in [&rows, &turned] {
            let bytes = archive(method, &[("arr_0.npy", array)]);
            fs::write(&path, &bytes).expect("written");
            let (numbers, _) = collect(open_all(&path, Missing::Refuse).expect("opens"), 3).expect("reads");
            assert_eq!(numbers, want, "{method:?}");
            // With fewer bytes it is a short text.
            for end in 4..bytes.len() {
                fs::write(&path, &bytes[..end]).expect("written");
                assert!(open_all(&path, Missing::Refuse).is_err(), "{method:?}: the first {end} bytes");
            }
        }
    }
    for (name, files, want) in [
        ("t.npz", &["a.npy", "b.npy"][..], "holds 2 arrays, a, b; save one of two dimensions"),
        (
            "t.xlsx",
            &["[Content_Types].xml", "xl/workbook.xml"],
            "is an Excel workbook; save its sheet as CSV",
        ),
        ("t.ods", &["mimetype", "content.xml"], "is an OpenDocument file"),
        ("t.pt", &["archive/data.pkl"], "is a file of PyTorch"),
        ("t.zip", &["t.csv"], "is a ZIP archive of t.csv; unpack it"),
    ] {
        let path = folder.path().join(name);
        let files: Vec<(&str, &[u8])> = files.iter().map(|&file| (file, &rows[..])).collect();
        fs::write(&path, archive(Deflated, &files)).expect("written");
        let error = Reader::open(&path, None).err().expect(want).to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn files_in_other_formats_are_named_and_formats_are_told_by_content() {
    let folder = folder();
    for (name, bytes, want) in [
        ("t.h5", &b"\x89HDF\r\n\x1a\n\0\0"[..], "is an HDF5 file; write its table as Parquet"),
        ("t.pkl", b"\x80\x04\x95\x0c", "is a pickle, which may run any program"),
        ("t.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook"),
        ("t.csv", b"<!DOCTYPE html>\n<html>", "is a web page; download the file itself"),
        ("t.csv", b"\xff\xfea\0,\0b\0", "is text in UTF-16; save it as UTF-8"),
        ("t.parquet", b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file"),
        ("t.npy", b"\x80\x05\x95", "is a pickle"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        let error = Reader::open(&path, None).err().expect(want).to_string();
        assert!(error.contains(want), "{error}");
    }
    let path = folder.path().join("renamed.dat");
    parquet_file(&path);
    assert_eq!(Reader::open(&path, None).expect("opens").columns(), names(&["a", "b", "c", "d"]));
    fs::write(&path, array("<f8", &[2, 1], Order::C, vec![1.0, 2.0])).expect("written");
    assert_eq!(Reader::open(&path, None).expect("opens").rows(), Some(2));
    let error = Reader::open(&path, Some(Encoding::CSV)).err().expect("no text").to_string();
    assert!(error.contains("is a NumPy array; its format is npy"), "{error}");
}

#[test]
fn gzip_that_is_filled_up_with_zeros_is_read() {
    let folder = folder();
    let path = folder.path().join("t.csv.gz");
    let mut writer = TableWriter::create(Some(&path), None, &[], &names(&["a"])).expect("made");
    writer.write(&[], &[1.0, 2.0]).expect("written");
    writer.finish().expect("written");
    let mut bytes = fs::read(&path).expect("there");
    bytes.resize(bytes.len() + 10_000, 0);
    fs::write(&path, bytes).expect("written");
    assert_eq!(Table::read(&path).expect("reads").values, [1.0, 2.0]);
}
