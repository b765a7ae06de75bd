//! Tables as people write them: with and without headers, under any delimiter, with comments, truths, times and indices.
//! What was taken is said, and flags force it.

use std::fs;
use std::path::Path;

use moonflow::data::{Decimal, Delimiter, Missing, Names, Reader, Reading};

use crate::cli::{folder, moonflow, succeed, text};

/// Columns and rows of `text`, every column as numbers.
fn table(text: &[u8], reading: &Reading) -> moonflow::Result<(Vec<String>, Vec<f64>)> {
    let reader = Reader::from_text("t", text, reading)?;
    let all: Vec<usize> = (0..reader.columns().len()).collect();
    let table = reader.select(&all, &[], Missing::Drop)?.into_table(|_, _| Ok(()))?;
    Ok((table.columns, table.values))
}

fn read(text: &str) -> (Vec<String>, Vec<f64>) {
    table(text.as_bytes(), &Reading::default()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// `rows` rows of three columns of fractions, from `row`.
fn rows(rows: usize, row: impl Fn([f64; 3]) -> String) -> String {
    let at = |index: usize, factor: f64| (index as f64 * factor).sin() * 3.0 + 0.125;
    (0..rows).map(|index| row([0.7, 1.3, 2.9].map(|factor| at(index, factor))) + "\n").collect()
}

/// What a tiny training of the text `contents`, in a file called `name`, says on both outputs.
fn train(folder: &Path, name: &str, contents: &str, more: &[&str]) -> String {
    fs::write(folder.join(name), contents).expect("written");
    let tiny = ["--preset", "default", "--epochs", "1", "--layers", "2", "--hidden", "4", "--device", "cpu"];
    let output = moonflow(folder, &[&["train", name, "--out", "o"], &tiny[..], more].concat());
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn every_delimiter_decimal_and_comment_gives_the_same_table() {
    let want = (["a", "b"].map(String::from).to_vec(), vec![1.5, -2.0, 30.25, 4.0]);
    for text in [
        "a,b\n1.5,-2\n30.25,4\n",
        "a;b\n1.5;-2\n30.25;4\n",
        "a;b\r\n1,5;-2\r\n30,25;4\r\n",
        "a\tb\n1.5\t-2\n30.25\t4\n",
        "a\tb\n1,5\t-2\n30,25\t4\n",
        "a b\n1.5 -2\n30.25 4\n",
        "    a     b\n  1.5    -2 \n30.25  \t 4\n",
        "# made by x, then y\n#\na,b\n1.5,-2\n# a note, of three, fields\n30.25,4\n# the end\n",
        "#a,b\n1.5,-2\n30.25,4\n",
        "# some words\n# a b\n1.5 -2\n30.25 4\n",
    ] {
        assert_eq!(read(text), want, "{text:?}");
    }
    // R's names of rows have none themselves.
    assert_eq!(
        table(b"a b\nr1 1.5 2\n", &Reading::default()).expect_err("a text").to_string(),
        "t: line 1: column 1 has no name in the header; name it, or leave column 1 out if it is an index"
    );
}

#[test]
fn lines_of_aligned_and_commented_text_are_counted_as_an_editor_counts_them() {
    for text in ["# x\n\n a  b\n 1  x\n", "# x\n# y\r\na;b\n1;x\n", "a\tb\n# note\n1\t2\n3\tx\n"] {
        let error = table(text.as_bytes(), &Reading::default()).expect_err("a text").to_string();
        assert!(error.contains("t: line 4, column 2 (`b`): `x` is not a number"), "{error}");
    }
}

#[test]
fn flags_force_what_the_first_rows_would_not_tell() {
    let reading = Reading {
        header: Some(false),
        delimiter: Some(Delimiter::Byte(b'|')),
        decimal: Some(Decimal::Comma),
        missing_values: vec!["gone".into(), "-999".into()],
        ..Reading::default()
    };
    let text = b"1,5|2\n3|gone\n-999|4\n5|-999,0\n7|8\n";
    let (columns, values) = table(text, &reading).expect("reads");
    assert_eq!((columns, values), (["x0", "x1"].map(String::from).to_vec(), vec![1.5, 2.0, 7.0, 8.0]));
    let reading = Reading { header: Some(true), ..Reading::default() };
    assert_eq!(table(b"1,2\n3,4\n", &reading).expect("reads").0, ["1", "2"]);
    let reader = Reader::from_text("t", &b"1,2\n3,4\n"[..], &Reading::default()).expect("reads");
    assert_eq!(reader.dialect().expect("text").names, Names::Absent);
}

#[test]
fn truths_and_times_are_numbers_and_other_words_are_missing() {
    let text =
        "when,ok,x\n1970-01-02,True,1\n1970-01-01T01:00:00+01:00,false,2\nNaT,true,3\n1970-01-03,-,4\n";
    assert_eq!(read(text).1, [86_400.0, 1.0, 1.0, 0.0, 0.0, 2.0]);
    let text = "a,b\n1,.\n?,2\n3,4\n";
    assert_eq!(read(text).1, [3.0, 4.0]);
}

#[test]
fn a_training_says_what_was_taken_and_its_configuration_keeps_what_was_forced() {
    let folder = folder();
    let path = folder.path();
    let commas = rows(30, |row| row.map(|value| value.to_string()).join(","));
    let semicolons = rows(30, |row| row.map(|value| format!("{value:.3}").replace('.', ",")).join(";"));
    let dates =
        rows(30, |[a, b, c]| format!("{a},{b},{},2024-01-{:02}", c > 0.0, 2 + (a.abs() * 8.0) as u32));
    for (name, contents, wanted) in [
        ("a.csv", format!("0,1,2\n{commas}"), &["is taken as names", "0, 1, 2", "--header no"][..]),
        ("b.data", commas.clone(), &["b.data has no header", "x0, x1, x2", "--header yes"]),
        (
            "c.csv",
            format!("a;b;c\n{semicolons}"),
            &["a semicolon between fields and decimal commas; --delimiter and --decimal"],
        ),
        ("d.txt", commas.replace(',', "  "), &["white space between fields"]),
        ("e.csv", format!("# of May\n# a,b,c\n{commas}"), &["the comment above the rows", "a, b, c"]),
        ("f.csv", format!("a,b,c,d\n{dates}"), &["c (2 categories)", "in d, dates and times are seconds"]),
    ] {
        let said = train(path, name, &contents, &[]);
        for wanted in wanted {
            assert!(said.contains(wanted), "{name}: {wanted:?} in {said}");
        }
        assert!(said.contains("best"), "{name}: {said}");
    }
    let said = train(path, "g.csv", &format!("a,b,c\n{commas}"), &[]);
    assert!(!said.contains("is read with") && !said.contains("header"), "{said}");

    let forced =
        ["--header", "no", "--delimiter", ";", "--decimal", "comma", "--missing-values", "-999,gone"];
    let said = train(path, "h.csv", &semicolons, &forced);
    assert!(!said.contains("is read with") && !said.contains("has no header"), "{said}");
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    for line in ["header = \"no\"", "delimiter = \"semicolon\"", "decimal = \"comma\"", "\"-999,gone\""] {
        assert!(config.contains(line), "{line}: {config}");
    }
    let again = succeed(path, &["train", "--config", "o/config.toml", "--out", "p"]);
    assert!(again.contains("columns x0, x1, x2"), "{again}");
    // A table of the same columns under another delimiter fits the model.
    let model = ["--model", "p/model.safetensors", "--device", "cpu"];
    fs::write(path.join("i.txt"), commas.replace(',', " ")).expect("written");
    fs::write(path.join("j.csv"), semicolons).expect("written");
    let scores = |name| succeed(path, &[&["score", name], &model[..]].concat());
    assert_eq!((scores("i.txt").lines().count(), scores("j.csv").lines().count()), (31, 31));
}

#[test]
fn weights_are_numbers_of_the_tables_own_decimal() {
    let folder = folder();
    let text = rows(30, |row| row.map(|value| format!("{value:.3}").replace('.', ",")).join(";") + ";0,5");
    let said = train(folder.path(), "t.csv", &format!("a;b;c;w\n{text}"), &["--weights", "w"]);
    assert!(said.contains("best"), "{said}");
}

#[test]
fn an_index_is_pointed_out_before_it_is_learned() {
    let folder = folder();
    let path = folder.path();
    let numbered = |first: usize| -> String {
        let text = rows(30, |row| row.map(|value| value.to_string()).join(","));
        text.lines().enumerate().map(|(row, line)| format!("{},{line}\n", row + first)).collect()
    };
    for (name, header, first) in
        [("a.csv", "Unnamed: 0,a,b,c", 5), ("b.csv", "id,a,b,c", 1), ("c.csv", "n,a,b,c", 0)]
    {
        let said = train(path, name, &format!("{header}\n{}", numbered(first)), &[]);
        let column = header.split(',').next().expect("a name");
        let want = format!(
            "note: `{column}` counts the rows, as an index does, and would be learned; --drop \"{column}\""
        );
        assert!(said.contains(&want), "{said}");
        assert!(!said.contains("whole numbers only"), "{said}");
        let said = train(path, name, &format!("{header}\n{}", numbered(first)), &["--drop", column]);
        assert!(!said.contains("counts the rows"), "{said}");
    }
    let said = train(path, "d.csv", &format!("k,a,b,c\n{}", numbered(5)), &[]);
    assert!(!said.contains("counts the rows"), "{said}");
    let said = train(path, "e.csv", &format!(",a,b,c\n{}", numbered(0)), &[]);
    assert!(said.contains("column 1 has no name") && said.contains("--drop 1"), "{said}");
}

#[test]
fn cells_that_are_no_utf_8_are_refused_where_they_would_be_passed_through() {
    let text = b"a,name,b\n1,caf\xe9,2\n";
    let reader = Reader::from_text("t", &text[..], &Reading::default()).expect("reads");
    let mut rows = reader.select(&[0, 2], &[1], Missing::Refuse).expect("columns");
    let error = rows.next(9).expect_err("Latin-1").to_string();
    assert!(
        error.contains("line 2, column 2 (`name`): `caf\\xe9` is not UTF-8 text; save the file as"),
        "{error}"
    );
    // Not asked for, it is not looked at.
    let reader = Reader::from_text("t", &text[..], &Reading::default()).expect("reads");
    let mut rows = reader.select(&[0, 2], &[], Missing::Refuse).expect("columns");
    assert_eq!(rows.next(9).expect("reads").expect("a row").numbers, [1.0, 2.0]);
}

#[test]
fn inspect_says_what_columns_hold_and_its_flags_train() {
    let folder = folder();
    let path = folder.path();
    let lines = (0..200).map(|row| {
        let t = f64::from(row);
        let (a, b) = ((0.7 * t).sin() + 2.0, (1.3 * t).cos());
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
    let said = succeed(path, &["inspect", "t.csv"]);
    for want in [
        "table    t.csv: 200 rows, 12 columns",
        "`Unnamed: 0`: whole numbers, 0 to 199, 200 different, counts the rows",
        "`c` = 2·`a` + -1·`b` + 1",
        "`kind`: text, 2 different",
        "`count`: whole numbers, 0 to 6, 7 different, in steps of 1",
        "different, in steps of 0.1",
        ", 0 in 33.5 % of the rows",
        ", 1 far out: 152",
        "`gap`: numbers, ",
        ", 4 missing",
        "`is`: true or false, 0 to 1, 2 different",
        "`same`: whole numbers, 5 to 5, always the same",
        "moonflow train t.csv --drop 'Unnamed: 0,c,kind,same' --dequantize count,is --missing drop",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
    let advised = ["--drop", "Unnamed: 0,c,kind,same", "--dequantize", "count,is", "--missing", "drop"];
    let tiny = ["--preset", "default", "--epochs", "1", "--layers", "2", "--hidden", "4", "--device", "cpu"];
    let said = succeed(path, &[&["train", "t.csv", "--out", "o"], &advised[..], &tiny].concat());
    assert!(said.contains("columns a, b, count, tenths"), "{said}");
}

#[test]
fn inspect_finds_a_word_among_numbers_and_writes_json() {
    let folder = folder();
    let path = folder.path();
    let rows: String = (0..40).map(|row| format!("{},{}\n", f64::from(row).sin(), row * row)).collect();
    fs::write(path.join("t.csv"), format!("a,b\n{rows}oops,3\n")).expect("written");
    let line = succeed(path, &["inspect", "t.csv", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&found["rows"], &found["columns"][0]["kind"]), (&41.into(), &"text".into()));
    let odd = &found["columns"][0]["odd"];
    assert_eq!((&odd["unit"], &odd["place"], &odd["cell"]), (&"line".into(), &42.into(), &"oops".into()));
    assert_eq!((&found["columns"][1]["kind"], &found["advice"]["drop"][0]), (&"whole".into(), &"a".into()));
    let said = succeed(path, &["inspect", "t.csv", "--drop", "b"]);
    assert!(said.contains("unlike most is `oops` in line 42"), "{said}");
}
