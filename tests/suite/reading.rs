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
        let quoted = if column.contains(' ') { format!("'{column}'") } else { column.to_owned() };
        let want = format!(
            "note: counts the rows, as an index does: `{column}`. It would be learned: --drop {quoted} leaves it out"
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
    let error =
        Reader::from_text("t", &b"a,na\xefve\n1,2\n"[..], &Reading::default()).err().expect("Latin-1");
    assert!(error.to_string().contains("the name of column 2, `na\\xefve`, is not UTF-8 text"), "{error}");
    // Not asked for, it is not looked at.
    let reader = Reader::from_text("t", &text[..], &Reading::default()).expect("reads");
    let mut rows = reader.select(&[0, 2], &[], Missing::Refuse).expect("columns");
    assert_eq!(rows.next(9).expect("reads").expect("a row").numbers, [1.0, 2.0]);
}

#[test]
fn what_a_sample_is_given_is_read_as_other_tables_are() {
    let folder = folder();
    let path = folder.path();
    let said = train(
        path,
        "t.csv",
        &format!("a,b,c\n{}", rows(30, |row| row.map(|value| value.to_string()).join(","))),
        &["--context", "c"],
    );
    assert!(said.contains("best"), "{said}");
    let sample = |name: &str, contents: &str, more: &[&str]| {
        fs::write(path.join(name), contents).expect("written");
        let flags =
            ["sample", "--model", "o/model.safetensors", "-n", "2", "--device", "cpu", "--given", name];
        let output = moonflow(path, &[&flags[..], more].concat());
        (text(&output.stdout), text(&output.stderr))
    };
    let (want, said) = sample("g.csv", "c\n0.5\n1.25\n", &[]);
    assert!(want.lines().count() == 5 && said.is_empty(), "{want} {said}");
    for (name, contents, flags, note) in [
        ("h.csv", "x;c\n1;0,5\n1;1,25\n", &[][..], "a semicolon between fields and decimal commas"),
        ("i.csv", "x|c\n1|0.5\n1|1.25\n", &[], "a | between fields"),
        ("j.csv", "0.5\n1.25\n", &["--header", "no"], ""),
        ("k.dat", "c\n0,5\n1,25\n", &["--decimal", "comma", "--delimiter", ";", "--given-format", "csv"], ""),
    ] {
        let (got, said) = sample(name, contents, flags);
        assert_eq!(got, want, "{name}: {said}");
        assert!(said.contains(note) && (!note.is_empty() || said.is_empty()), "{name}: {said}");
    }
}
