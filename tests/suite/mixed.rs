//! A table as people have them goes in and comes out with its types: texts, truths, dates, counts, zeros among other values,
//! rounded and plain numbers. `benches/tables/mixed.py` holds the full size to narrower limits.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moonflow::data::{Missing, Reader, TimeFormat, ValueKind};
use moonflow::model::{Ensemble, TableModel};
use moonflow::random::{Stream, key, normals, philox};

use super::cli::{folder, moonflow, succeed, text};

const DATE: ValueKind = ValueKind::Time(TimeFormat::DATE);

/// A row of the mixed table, each of whose columns depends on those before it.
fn row(row: u32) -> String {
    let uniform =
        |place: u32| f64::from(philox([row, place, 2, Stream::Data as u32], key(4))[0]) / f64::from(u32::MAX);
    let mut noise = [0.0f32; 3];
    normals(row, 8, &mut noise);
    let [first, second, third] = noise.map(f64::from);
    let level = [0.5, 0.8].iter().filter(|end| uniform(0) > **end).count();
    let plan = ["basic", "plus", "pro"][level];
    let active = uniform(1) < [0.4, 0.65, 0.9][level];
    let day = (650.0 * uniform(2).sqrt()).floor() + 20.0 * level as f64;
    let joined = TimeFormat::DATE.text(86_400.0 * (19_000.0 + day));
    let visits = ((1.5 + level as f64) * -uniform(3).max(1e-6).ln()).floor();
    let spent = if uniform(4) < 0.45 {
        "0".to_owned()
    } else {
        format!("{:?}", (2.0 + 0.1 * visits + 0.6 * first).exp())
    };
    let price = [9.5, 13.0, 17.0][level] + 2.0 * f64::from(u8::from(active)) + 0.5 * second;
    let rating = 3.0 + 0.1 * (price - 12.0) + 0.8 * (day / 60.0).sin() + 0.5 * third;
    let active = if active { "True" } else { "False" };
    format!("{plan},{active},{joined},{visits},{spent},{price:.2},{rating}\n")
}

const HEADER: &str = "plan,active,joined,visits,spent,price,rating";

/// The cells of each column.
fn columns(csv: &str) -> Vec<Vec<String>> {
    assert_eq!(csv.lines().next(), Some(HEADER));
    let rows = csv.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let mut columns = vec![Vec::new(); HEADER.split(',').count()];
    rows.for_each(|row| columns.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell)));
    columns
}

/// The largest difference of two distribution functions.
fn distance(sides: [&[f64]; 2]) -> f64 {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (values, sign) in sides.iter().zip([1.0, -1.0]) {
        steps.extend(values.iter().map(|&value| (value, sign / values.len() as f64)));
    }
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut most) = (0.0f64, 0.0f64);
    for ties in steps.chunk_by(|a, b| a.0 == b.0) {
        sum += ties.iter().map(|(_, step)| step).sum::<f64>();
        most = most.max(sum.abs());
    }
    most
}

fn shares(cells: &[String]) -> BTreeMap<&str, f64> {
    let mut shares = BTreeMap::new();
    cells.iter().for_each(|cell| *shares.entry(cell.as_str()).or_insert(0.0) += 1.0 / cells.len() as f64);
    shares
}

fn number(cell: &str) -> f64 {
    TimeFormat::read(cell).map(|(seconds, _)| seconds).unwrap_or_else(|| cell.parse().expect("a number"))
}

/// That the cells of `is` are like those of `was`, column by column.
fn same_types_and_margins(was: &[Vec<String>], is: &[Vec<String>]) {
    for place in 0..2 {
        let (was, is) = (shares(&was[place]), shares(&is[place]));
        assert!(was.keys().eq(is.keys()), "{was:?} {is:?}");
        assert!(was.iter().all(|(level, share)| (share - is[level]).abs() < 0.03), "{was:?} {is:?}");
    }
    for place in 2..7 {
        let [was, is] = [&was[place], &is[place]]
            .map(|cells| cells.iter().map(|cell| number(cell)).collect::<Vec<f64>>());
        let distance = distance([&was, &is]);
        // What a fit of a few seconds keeps to.
        assert!(distance < 0.05, "column {place}: {distance}");
    }
    let is_date =
        |cell: &String| TimeFormat::read(cell).is_some_and(|(_, format)| format == TimeFormat::DATE);
    assert!(is[2].iter().all(is_date), "dates are dates");
    assert!(is[3].iter().all(|cell| number(cell).fract() == 0.0 && number(cell) >= 0.0), "counts are counts");
    let cents = |cell: &String| (100.0 * number(cell) - (100.0 * number(cell)).round()).abs() < 1e-9;
    assert!(is[5].iter().all(cents), "prices are rounded");
    let zeros = |cells: &[String]| {
        cells.iter().filter(|cell| number(cell) == 0.0).count() as f64 / cells.len() as f64
    };
    assert!((zeros(&was[4]) - zeros(&is[4])).abs() < 0.03);
    assert!(is[4].iter().all(|cell| number(cell) >= 0.0), "nothing is below 0");
}

#[test]
fn a_mixed_table_comes_out_with_its_types_and_its_margins() {
    let folder = folder();
    let path = folder.path();
    let table: String = HEADER.to_owned() + "\n" + &(0..1600).map(row).collect::<String>();
    fs::write(path.join("t.csv"), &table).expect("written");
    let small = ["--ensemble", "1", "--epochs", "10", "--layers", "4", "--hidden", "32", "--device", "cpu"];
    let said = succeed(path, &[&["train", "t.csv", "--auto", "--out", "o"][..], &small].concat());
    let flags = "auto     --dequantize visits --atom spent=0 --bounds visits=0:,spent=0:\n";
    assert!(said.contains(flags), "{said}");
    let model = ["--model", "o/model.safetensors", "--device", "cpu"];
    let run = |arguments: &[&str]| succeed(path, &[&arguments[..1], &model, &arguments[1..]].concat());
    // So many that nearly all of a distance is the fit's: by chance alone it exceeds 0.018 once in a thousand.
    let sampled = run(&["sample", "-n", "12000"]);
    same_types_and_margins(&columns(&table), &columns(&sampled));

    // Parquet has types for truths and dates.
    for name in ["s.csv", "s.parquet"] {
        run(&["sample", "-n", "100", "--out", name]);
    }
    let reader = Reader::open(&path.join("s.parquet"), None).expect("opens");
    assert_eq!(reader.kinds()[..3], [None, Some(ValueKind::Truth), Some(DATE)]);
    let scores = ["s.csv", "s.parquet"].map(|name| run(&["score", name]));
    assert_eq!(scores[0], scores[1], "the same rows, whatever holds them");
    assert!(scores[0].lines().skip(1).all(|line| line.parse::<f64>().is_ok_and(f64::is_finite)));

    let scored = moonflow(path, &[&["score", "s.csv"][..], &model].concat());
    let said = text(&scored.stderr);
    assert!(said.contains("note: mean NLL ") && said.contains(" of 100 rows"), "{said}");

    // An atom can be given, and no other value of its column.
    let rows = columns(&run(&["sample", "-n", "50", "--given", "spent=0,plan=pro"]));
    assert!(
        rows[4].iter().all(|cell| number(cell) == 0.0) && rows[0].iter().all(|cell| cell == "pro"),
        "{rows:?}"
    );
    for (given, want) in [
        ("spent=1", "of `spent`, a number that is modelled, only these can be given: spent=0"),
        (
            "rating=3",
            "`rating` is a number that is modelled and cannot be given; these can: plan, active, spent=0",
        ),
    ] {
        let refused = moonflow(path, &[&["sample", "-n", "2", "--given", given][..], &model].concat());
        assert!(text(&refused.stderr).contains(want), "{refused:?}");
    }

    // Each row of a table gives its own categories.
    let given = "active,rating,plan\nTrue,1,pro\nFalse,1,basic\ntrue,2,pro\n";
    fs::write(path.join("g.csv"), given).expect("written");
    let rows = columns(&run(&["sample", "-n", "2", "--given", "g.csv"]));
    assert_eq!(rows[0], ["pro", "pro", "basic", "basic", "pro", "pro"]);
    assert_eq!(rows[1], ["True", "True", "False", "False", "True", "True"]);
    fs::write(path.join("g.csv"), "rating\n1\n").expect("written");
    let refused = moonflow(path, &[&["sample", "-n", "2", "--given", "g.csv"][..], &model].concat());
    assert!(text(&refused.stderr).contains("has no column that can be given"), "{refused:?}");
}

/// Trains on two columns, the first of which has times written by `time`, and gives back a sample of the model and the file.
fn sampled(path: &Path, time: impl Fn(u32) -> String, more: &[&str]) -> (String, TableModel) {
    let line = |row: u32| format!("{},{}\n", time(row * 389 % 300), f64::from(row * row % 97) / 7.0);
    fs::write(path.join("t.csv"), "at,y\n".to_owned() + &(0..300).map(line).collect::<String>())
        .expect("written");
    let tiny = [
        "--preset", "default", "--layers", "2", "--hidden", "8", "--epochs", "2", "--device", "cpu", "--out",
        "o",
    ];
    succeed(path, &[&["train", "t.csv"][..], &tiny, more].concat());
    let sample = ["sample", "--model", "o/model.safetensors", "-n", "20", "--device", "cpu"];
    let given: &[&str] = if more.is_empty() { &[] } else { &["--given", "at=2024-02-29"] };
    let model = TableModel::load(path.join("o/model.safetensors")).expect("a model");
    (succeed(path, &[&sample[..], given].concat()), model)
}

#[test]
fn dates_and_times_of_a_table_of_numbers_are_written_as_they_came() {
    let folder = folder();
    let path = folder.path();
    let seconds = |row: u32| 1.7e9 + 1234.0 * f64::from(row);
    for (format, pattern) in [
        (TimeFormat::DATE, "dddd-dd-dd"),
        (TimeFormat::default(), "dddd-dd-ddTdd:dd:dd"),
        (TimeFormat { spaced: true, digits: 3, ..TimeFormat::default() }, "dddd-dd-dd dd:dd:dd.ddd"),
        (TimeFormat { zoned: true, ..TimeFormat::default() }, "dddd-dd-ddTdd:dd:ddZ"),
    ] {
        let (rows, model) = sampled(path, |row| format.text(40.0 * seconds(row) - 6e10), &[]);
        assert_eq!(model.columns()[0].kind(), ValueKind::Time(format));
        for line in rows.lines().skip(1) {
            let cell = line.split(',').next().expect("a cell");
            let shape = cell.replace(|character: char| character.is_ascii_digit(), "d");
            assert_eq!(shape, pattern, "{cell}");
        }
        // To the library it is a model of numbers like any other.
        let ensemble = Ensemble::load(path.join("o/model.safetensors")).expect("numbers");
        assert_eq!(model.density(), Some(&ensemble));
    }
    let (rows, _) = sampled(path, |row| TimeFormat::DATE.text(seconds(row)), &["--context", "at"]);
    assert!(rows.lines().skip(1).all(|line| line.ends_with(",2024-02-29")), "{rows}");
    // NPY has numbers alone.
    let out = ["--out", "s.npy", "--given", "at=1709164800"];
    succeed(path, &[&["sample", "--model", "o/model.safetensors", "-n", "2"][..], &out].concat());
    let rows = Reader::open(&path.join("s.npy"), None).expect("opens").select(&[1], &[], Missing::Refuse);
    let chunk = rows.expect("a column").next(9).expect("reads").expect("rows");
    assert_eq!(chunk.numbers, [1_709_164_800.0; 2]);
}

#[test]
fn two_whole_numbers_are_a_category_and_a_few_may_be_codes() {
    let folder = folder();
    let path = folder.path();
    let line = |row: u32| {
        format!("{},{},{}\n", 1 + row * 7 % 5 / 3, 10 * (row * row % 7), f64::from(row * 389 % 300).sin())
    };
    fs::write(path.join("t.csv"), "sex,region,y\n".to_owned() + &(0..300).map(line).collect::<String>())
        .expect("written");
    let said = succeed(path, &["inspect", "t.csv"]);
    for want in [
        "advice   --categorical sex: two whole numbers only",
        "advice   --dequantize region=10: values in steps",
        "moonflow train t.csv --categorical sex --dequantize region=10",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
    let train = [
        "train",
        "t.csv",
        "--auto",
        "--layers",
        "1",
        "--hidden",
        "4",
        "--epochs",
        "1",
        "--ensemble",
        "1",
        "--out",
        "o",
    ];
    succeed(path, &train);
    let model = TableModel::load(path.join("o/model.safetensors")).expect("a model");
    assert_eq!(model.columns()[0].levels().expect("a category").names(), ["1", "2"]);
    let late = "sex,y\n".to_owned()
        + &(0..300).map(|row| format!("{},{row}.5\n", row % 3)).collect::<String>()
        + "other,1\n";
    fs::write(path.join("l.csv"), late).expect("written");
    let refused = text(&moonflow(path, &["train", "l.csv", "--out", "l"]).stderr);
    assert!(refused.contains("`other` is not a number; --categorical takes it as categories"), "{refused}");
    fs::write(
        path.join("c.csv"),
        "grade,y\n".to_owned()
            + &(0..300).map(|row| format!("{},{row}.5\n", row * 7 % 5)).collect::<String>(),
    )
    .expect("written");
    let said = succeed(path, &["inspect", "c.csv"]);
    assert!(said.contains("perhaps  --categorical grade: a few whole numbers"), "{said}");
}
