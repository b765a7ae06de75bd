//! What `inspect` finds in tables, the notes that `train` makes of the same, and the flags that `train --auto` takes.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{folder, moonflow, succeed, text};

/// Flags of a training that is over soon.
const TINY: [&str; 10] =
    ["--preset", "default", "--epochs", "1", "--layers", "2", "--hidden", "4", "--device", "cpu"];

/// A table as people have them: an index, a sum, text, counts, rounded numbers, zeros, a row far out, gaps, truths and a
/// column that is always the same.
fn write_messy(path: &Path) {
    let lines = (0..200).map(|row| {
        let t = f64::from(row);
        let (a, b) = ((0.7 * t).sin() + 2.0, (1.3 * t + 0.1).cos());
        let zero_heavy = if row % 3 == 0 { 0.0 } else { (2.9 * t).sin() };
        let far = if row == 150 { 1e9 } else { (0.3 * t).cos() };
        let gap = if row % 50 == 7 { String::new() } else { (0.37 * t).sin().to_string() };
        let [count, kind] = [row % 7, row % 2].map(|number| number.to_string());
        let kind = if kind == "1" { "even" } else { "odd, or not" };
        format!(
            "{row},{a},{b},{},\"{kind}\",{count},{:.1},{zero_heavy},{far},{gap},{},5\n",
            2.0 * a - b + 1.0,
            a * 3.0,
            b > 0.0
        )
    });
    let table =
        "Unnamed: 0,a,b,c,kind,count,tenths,zero,far,gap,is,same\n".to_owned() + &lines.collect::<String>();
    fs::write(path.join("t.csv"), table).expect("written");
}

/// What inspecting t.csv in `path` finds.
fn inspected(path: &Path) -> Value {
    serde_json::from_str(&succeed(path, &["inspect", "t.csv", "--json"])).expect("JSON")
}

/// The words of `line` as a shell has them, with quotes around some.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => part.chars().for_each(|letter| match letter {
                ' ' => words.push(String::new()),
                letter => words.last_mut().expect("one").push(letter),
            }),
            _ => words.last_mut().expect("one").push_str(part),
        }
    }
    words
}

#[test]
fn inspect_says_what_columns_hold_and_which_flags_suit_them() {
    let folder = folder();
    let path = folder.path();
    write_messy(path);
    let said = succeed(path, &["inspect", "t.csv"]);
    for want in [
        "table    t.csv: 200 rows, 12 columns",
        "`Unnamed: 0`: whole numbers, 0 to 199, 200 different, counts the rows",
        "light tails, near -1 and 1 and never on them",
        "`kind`: text, 2 different",
        "`count`: whole numbers, 0 to 6, 7 different, in steps of 1",
        "different, in steps of 0.1",
        ", 0 in 33.5 % of the rows",
        ", 1 far out: 152",
        "`gap`: numbers, ",
        ", 4 missing",
        "`is`: true or false, 0 to 1, 2 different",
        "`same`: whole numbers, 5 to 5, always the same",
        "follows  `c` = 2·`a` + -1·`b` + 1",
        "follows  `tenths` ≈ 3·`a` + ",
        "rank     8 of 9 columns of numbers",
        "advice   --drop 'Unnamed: 0': counts the rows, as an index does",
        "advice   --drop same: always the same",
        "advice   --drop c: a sum of other columns",
        "advice   --dequantize count: whole numbers only",
        "advice   --dequantize tenths=0.1: values in steps",
        "advice   --atom zero=0: values that stand out of others",
        "advice   --bounds b=-1:1,zero=-1:1,",
        "advice   --missing drop: missing values",
        "moonflow train t.csv --drop 'Unnamed: 0,same,c' --dequantize count,tenths=0.1 --atom zero=0 --bounds b=-1:1,",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
    let narrowed = succeed(path, &["inspect", "t.csv", "--drop", "kind,same", "--missing", "refuse"]);
    let command = narrowed.lines().find(|line| line.starts_with("train")).expect("the command");
    assert!(command.contains("--drop 'kind,same,Unnamed: 0,c'"), "{command}");
    assert!(!command.contains("--missing"), "{command}");
}

#[test]
fn inspect_finds_a_word_among_numbers_and_writes_json() {
    let folder = folder();
    let path = folder.path();
    let rows: String = (0..40).map(|row| format!("{},{}\n", f64::from(row).sin(), row * row)).collect();
    fs::write(path.join("t.csv"), format!("a,b\n{rows}oops,3\n")).expect("written");
    let found = inspected(path);
    assert_eq!((&found["rows"], &found["columns"][0]["kind"]), (&41.into(), &"text".into()));
    let odd = &found["columns"][0]["odd"];
    assert_eq!((&odd["unit"], &odd["place"], &odd["cell"]), (&"line".into(), &42.into(), &"oops".into()));
    assert_eq!(found["columns"][1]["kind"], "whole");
    let advice =
        json!({ "flag": "drop", "columns": ["a"], "value": "a", "reason": "a text of its own in most rows" });
    assert_eq!(found["advice"], json!([advice]));
    let said = succeed(path, &["inspect", "t.csv", "--drop", "b"]);
    assert!(said.contains("unlike most is `oops` in line 42"), "{said}");
}

#[test]
fn columns_without_a_name_are_dropped_by_their_position() {
    let folder = folder();
    let path = folder.path();
    let rows: String = (0..40).map(|row| format!("{0}.5,{0},x\n", row * row % 41)).collect();
    fs::write(path.join("t.csv"), format!("a,b,\n{rows}")).expect("written");
    let said = succeed(path, &["inspect", "t.csv", "--columns", "2,3"]);
    assert!(said.contains("--columns 2,3 --drop 3"), "{said}");
}

#[test]
fn auto_takes_the_flags_that_it_says_and_its_configuration_repeats_the_fit_without_it() {
    let folder = folder();
    let path = folder.path();
    write_messy(path);
    let train = |out: &str, more: &[&str]| {
        succeed(path, &[&["train", "t.csv", "--out", out], &TINY[..], more].concat())
    };
    let model = |out: &str| fs::read(path.join(out).join("model.safetensors")).expect("written");
    for more in
        [&[][..], &["--drop", "b", "--bounds", "zero=-2:2", "--transform", "a=log", "--context", "far"]]
    {
        let said = train("o", &[&["--auto"], more].concat());
        let flags = said.lines().find_map(|line| line.strip_prefix("auto     ")).expect("the flags");
        let mut all = words(flags);
        // What the flags printed do not hold.
        if more.contains(&"--context") {
            all.extend(["--context", "far"].map(String::from));
            assert!(flags.starts_with("--drop 'b,Unnamed: 0,same'"), "{flags}");
            assert!(flags.contains(" --bounds zero=-2:2,a=0:,") && !flags.contains("far"), "{flags}");
            assert!(!flags.contains("--atom") && !flags.contains("zero=-1"), "a flag names `zero`: {flags}");
        } else {
            assert!(
                flags.starts_with("--drop 'Unnamed: 0,same,c' --dequantize count,tenths=0.1 --atom zero=0 "),
                "{flags}"
            );
        }
        train("p", &all.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(model("o") == model("p"), "the same bits with {flags}");
        let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
        assert!(config.contains("dequantize = \"count,tenths=0.1\""), "{config}");
        succeed(path, &["train", "--config", "o/config.toml", "--out", "q"]);
        assert!(model("o") == model("q"), "the same bits from {config}");
    }
}

#[test]
fn auto_is_for_files_of_tables() {
    let folder = folder();
    for (data, want) in [("-", "write it to a file"), ("moons", "is a toy density")] {
        let output = moonflow(folder.path(), &["train", data, "--auto"]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(want), "{said}");
    }
}

#[test]
fn train_says_in_notes_what_inspect_advises() {
    let folder = folder();
    let path = folder.path();
    write_messy(path);
    let run = |more: &[&str]| {
        let output = moonflow(path, &[&["train", "t.csv", "--out", "o"], &TINY[..], more].concat());
        text(&output.stderr)
    };
    let notes = run(&["--drop", "kind,gap,same"]);
    for want in [
        "note: counts the rows, as an index does: `Unnamed: 0`. It would be learned: --drop 'Unnamed: 0' leaves it out",
        "note: a sum of other columns: `c` = 2·`a` + -1·`b` + 1. A density grows without end there: --drop c leaves it out",
        "note: whole numbers only: `count` (7 different). A density grows without end there: \
         --dequantize count models them as counts",
        "note: near an end that no value reaches: `b` (-1 and 1), ",
        "note: values in steps: `tenths` (37 different). A density grows without end there: --dequantize tenths=0.1 gives",
        "note: values that stand out of others: `zero` (0 in 34 % of the rows). A density grows without end there: --atom zero=0",
    ] {
        assert!(notes.contains(want), "{want:?} is not in {notes}");
    }
    // What is given is no note any more, and a sum is that of a column that is modelled.
    let notes = run(&["--columns", "a,b,c,count,is", "--dequantize", "auto", "--context", "c"]);
    assert!(notes.contains("a sum of other columns: `b` = "), "{notes}");
    assert!(!notes.contains("whole numbers") && !notes.contains("near an end"), "{notes}");
}

#[test]
fn ranges_of_dates_and_times_are_dates_and_times() {
    let folder = folder();
    let line = |row: u32| {
        format!("2024-03-{:02},2024-02-29T{:02}:30:00+02:00,{}.5\n", 1 + row % 31, row % 24, row * row % 41)
    };
    let rows: String = (0..62).map(line).collect();
    fs::write(folder.path().join("t.csv"), format!("day,at,x\n{rows}")).expect("written");
    let said = succeed(folder.path(), &["inspect", "t.csv"]);
    for want in [
        "`day`: dates or times, 2024-03-01 to 2024-03-31, 31 different",
        "`at`: dates or times, 2024-02-28T22:30:00 to 2024-02-29T21:30:00 in UTC, 24 different",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
}

#[test]
fn columns_with_few_values_or_none_are_to_be_dropped() {
    let folder = folder();
    let line = |row: u32| {
        format!(
            "{}.5,,{}\n",
            row * row % 41,
            if row.is_multiple_of(5) { row.to_string() } else { String::new() }
        )
    };
    let rows: String = (0..60).map(line).collect();
    fs::write(folder.path().join("t.csv"), format!("x,nothing,rare\n{rows}")).expect("written");
    let said = succeed(folder.path(), &["inspect", "t.csv"]);
    for want in [
        "`nothing`: no values, 60 missing",
        "advice   --drop nothing: no values",
        "advice   --drop rare: missing in most rows",
        "advice   --dequantize x=1: values in steps",
        "train t.csv --drop nothing,rare --dequantize x=1",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
}

/// Columns of which each is near to what a rule is for: counts with many zeros, more steps than are few, counts from 5 on, zeros
/// among numbers that reach 0 and among others, a single 0, names that lists without quotes cannot hold, and three values that
/// stand out.
fn write_near_misses(path: &Path) {
    const ROWS: u32 = 1500;
    let lines = (0..ROWS).map(|row| {
        let uniform = |factor: u32| (f64::from(row * factor % (ROWS - 1)) + 0.5) / f64::from(ROWS);
        let unless = |zero: bool, value: f64| if zero { 0.0 } else { value };
        let tied = if row.is_multiple_of(3) {
            [0.0, 0.0, 1.5, 4.0][row as usize % 4]
        } else {
            uniform(97) * 50.0 + 7.0
        };
        format!(
            "{},{},{},{},{},{},{},{},{},{tied}\n",
            if row % 10 < 3 { 0 } else { row * 7 % 30 },
            1.0 + f64::from(row * 7 % 600) / 100.0,
            5 + row * 3 % 10,
            unless(row % 5 < 2, -uniform(389).ln()),
            unless(row % 7 < 3, 10.0 + (0.7 * f64::from(row)).sin()),
            unless(row == 11, 3.0 * (1.1 * f64::from(row)).sin().abs().sqrt()),
            unless(row.is_multiple_of(3), -3.0 * uniform(577).ln()),
            uniform(211),
            row * row % 17,
        )
    });
    let names = "visits,fine,from5,rain,pay,share,\"odd,rain\",\"x,y\",\"n,m\",tied\n";
    fs::write(path.join("t.csv"), names.to_owned() + &lines.collect::<String>()).expect("written");
}

#[test]
fn rules_suit_their_columns_and_none_that_is_near() {
    let folder = folder();
    let path = folder.path();
    write_near_misses(path);
    let found = inspected(path);
    let advice: Vec<(&str, &str)> = found["advice"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|advice| ["flag", "value"].map(|key| advice[key].as_str().expect("a text")).into())
        .collect();
    let want = [
        ("dequantize", "visits,from5,\"n,m\""),
        ("atom", "rain=0,pay=0,tied=0,tied=1.5,tied=4"),
        ("bounds", "rain=0:"),
        ("bounds", "visits=0:,pay=0:,tied=0:"),
    ];
    assert_eq!(advice, want);
    // What is given has no density, and what a flag names is left as it is.
    let columns = ["--columns", "visits,from5,rain,pay", "--context", "visits", "--bounds", "pay=-5:50"];
    let output = moonflow(path, &[&["train", "t.csv", "--out", "o"], &columns[..], &TINY].concat());
    let notes: Vec<String> = text(&output.stderr)
        .lines()
        .filter_map(|line| line.strip_prefix("note: ")?.split_once(". ").map(|(note, _)| note.to_owned()))
        .collect();
    let want = [
        "whole numbers only: `from5` (10 different)",
        "values that stand out of others: `rain` (0 in 40 % of the rows)",
        "near an end that no value reaches: `rain` (0)",
        "many rows share a value: `pay` (0 in 43 % of the rows)",
    ];
    assert_eq!(notes, want);
}
