//! Averages of several fits: what they are, their file, and the program from outside.

use std::fs;

use moonflow::cpu::CpuEngine;
use moonflow::data::{Margins, PreprocessingPlan};
use moonflow::engine::Sampling;
use moonflow::model::{Engines, Ensemble, Model};
use moonflow::{Dataset, Density, Device, Error, Recipe, Table, Trainer};

use super::cli::{folder, moonflow, succeed, text};

fn table() -> Table {
    let value =
        |i: u32| [f64::from(i % 13) + f64::from(i * i % 29) / 29.0, f64::from(i % 7) * f64::from(i % 5)];
    let values = (0..120)
        .flat_map(|i| {
            let [a, b] = value(i);
            [a, b + f64::from(i * 31 % 101) / 50.0]
        })
        .collect();
    Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values }
}

fn recipe() -> Recipe {
    Recipe { epochs: 3, layers: 2, hidden: vec![8], ensemble: 3, bases: vec![0, 2], ..Recipe::default() }
}

fn trained() -> Density {
    let plan = PreprocessingPlan { margins: Margins::Kernel, ..PreprocessingPlan::default() };
    let dataset = Dataset::split_with(&table(), 0.2, 0, &plan).expect("splits");
    Trainer::new(recipe()).on(Device::Cpu).fit(&dataset).expect("trains").density
}

#[test]
fn the_density_is_the_mean_of_the_members_which_have_seeds_splits_and_bases_of_their_own() {
    let mut density = trained();
    let rows = table().values;
    let mut mean = vec![0.0; rows.len() / 2];
    let members = density.ensemble().expect("numbers").members().to_vec();
    for (index, member) in members.iter().enumerate() {
        assert_eq!(member.record.recipe, recipe().of_member(index));
        let mut alone = Density::new(member.clone(), &Device::Cpu).expect("an engine");
        for (mean, log_prob) in mean.iter_mut().zip(alone.log_prob(&rows).expect("scores")) {
            *mean += log_prob.exp() / members.len() as f64;
        }
    }
    assert_ne!(members[0].preprocessing, members[1].preprocessing);
    assert_ne!(members[0].flow, members[1].flow);
    for (got, want) in density.log_prob(&rows).expect("scores").iter().zip(&mean) {
        assert!((got - want.ln()).abs() < 1e-9, "{got} and {}", want.ln());
    }
    let nll =
        members.iter().map(|member| member.record.validation_nll.expect("validated")).sum::<f64>() / 3.0;
    let record = density.model().record();
    assert!((record.validation_nll.expect("a mean") - nll).abs() < 1e-12);
    assert_eq!((record.epochs, record.best_epoch, &record.recipe), (9, None, &recipe()));
}

#[test]
fn the_score_is_the_slope_of_the_mean_density() {
    let mut density = trained();
    let row = [5.25, 3.125];
    // The engine's log p is in single precision, so that small steps drown.
    let step = 1e-3;
    let ensemble = density.ensemble().expect("numbers").clone();
    let make = async |flow| CpuEngine::<f32>::new(flow);
    let score = pollster::block_on(async {
        let mut engines = Engines::new(&ensemble, make).await?;
        ensemble.score(&mut engines, &row).await
    });
    for (feature, slope) in score.expect("scores").into_iter().enumerate() {
        let mut at = |offset: f64| {
            let mut row = row;
            row[feature] += offset;
            density.log_prob(&row).expect("scores")[0]
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        assert!((slope - difference).abs() < 0.01 * (1.0 + slope.abs()), "{slope} and {difference}");
    }
}

#[test]
fn samples_are_the_same_however_they_are_cut_and_each_member_yields_its_share() {
    let mut density = trained();
    let whole = Sampling { rows: 30, first: 0, seed: 9, temperature: 1.0 };
    let all = density.sample_with(whole, &[], &[]).expect("samples");
    for (first, rows) in [(0, 7), (7, 1), (8, 22)] {
        let part = density.sample_with(Sampling { rows, first, ..whole }, &[], &[]).expect("samples");
        assert_eq!(part, all[2 * first as usize..][..2 * rows], "from row {first}");
    }
    // Members' own samples, which are the rows that they yield.
    let members = density.ensemble().expect("numbers").members().to_vec();
    let shares: Vec<usize> = members
        .iter()
        .map(|member| {
            let mut alone = Density::new(member.clone(), &Device::Cpu).expect("an engine");
            let mut own = |row: &[f64]| alone.log_prob(row).expect("scores")[0];
            all.chunks(2).filter(|row| own(row).is_finite()).count()
        })
        .collect();
    assert_eq!(shares, [30; 3], "every row has a density under every member");
}

#[test]
fn a_file_holds_all_members_and_a_damaged_one_says_what_is_wrong() {
    let ensemble = trained().ensemble().expect("numbers").clone();
    let bytes = ensemble.to_bytes();
    assert_eq!(ensemble.format_version(), 6);
    assert_eq!(Ensemble::from_bytes("m", &bytes).expect("own file"), ensemble);
    let refused = Model::from_bytes("m", &bytes).expect_err("several").to_string();
    assert!(refused.contains("an ensemble of 3 models"), "{refused}");

    let one = Ensemble::from(ensemble.first().clone());
    assert_eq!(one.to_bytes(), ensemble.first().to_bytes(), "an ensemble of one is its model's file");

    let changed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = bytes.clone();
        let mut replace = |from: &str, to: &str| {
            let place = bytes.windows(from.len()).rposition(|part| part == from.as_bytes());
            let place = place.unwrap_or_else(|| panic!("{from} is not in the file"));
            bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
        };
        replace(from, to);
        // As another program would write it.
        replace("\"checksum\"", "\"checkout\"");
        Ensemble::from_bytes("m", &bytes).expect_err("damaged").to_string()
    };
    for (from, to, want) in [
        (
            "\"members.1.standardiser.mean\"",
            "\"members.1.standardiser.meen\"",
            "`members.1.standardiser.mean` is missing",
        ),
        (
            "\\\"columns\\\":[\\\"a\\\",\\\"b\\\"]",
            "\\\"columns\\\":[\\\"a\\\",\\\"c\\\"]",
            "member 3 of the ensemble",
        ),
        ("\\\"format_version\\\":5", "\\\"format_version\\\":6", "a member of it has format version 6"),
        ("\\\"members\\\":", "\\\"numbers\\\":", "missing field `members`"),
    ] {
        let message = changed(from, to);
        assert!(message.contains(want), "`{want}` is not in: {message}");
    }
}

#[test]
fn densities_of_other_columns_are_no_ensemble() {
    let ensemble = trained().ensemble().expect("numbers").clone();
    let mut members = ensemble.members().to_vec();
    members[2].columns[1] = "c".into();
    let message = Ensemble::average(members, &recipe()).expect_err("other columns").to_string();
    assert!(message.contains("member 3"), "{message}");
    assert!(matches!(Ensemble::average(Vec::new(), &recipe()), Err(Error::Argument(_))));
}

const FLAGS: [&str; 14] = [
    "--epochs",
    "40",
    "--layers",
    "2",
    "--hidden",
    "8",
    "--device",
    "cpu",
    "--ensemble",
    "3",
    "--components",
    "2,0",
    "--decay",
    "constant",
];

fn write(path: &std::path::Path) {
    let rows: String = table().values.chunks(2).map(|row| format!("{},{}\n", row[0], row[1])).collect();
    fs::write(path.join("t.csv"), format!("a,b\n{rows}")).expect("written");
}

#[test]
fn tables_get_their_recipe_by_default_and_a_configuration_repeats_it() {
    let folder = folder();
    let path = folder.path();
    write(path);
    let brief = ["--epochs", "2", "--layers", "2", "--hidden", "8", "--device", "cpu"];
    let train = |out: &str, more: &[&str]| {
        succeed(path, &[&["train", "t.csv", "--out", out][..], &brief, more].concat())
    };
    let said = train("o", &[]);
    for part in [
        "recipe   table: 2 epochs",
        "average of 8 fits with 5, 1, 10, 0 Gaussians as their base in turns",
        "fit 1/8  5 Gaussians: 2 epochs in ",
        "fit 8/8  standard normal: 2 epochs in ",
        "average  of 8 fits; their mean validation NLL is ",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in ["format version 6", "average    of 8 fits", "fit  seed  base density", "by kernel densities"]
    {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&succeed(path, &["info", "--json", "o/model.safetensors"])).expect("JSON");
    assert_eq!(json["members"].as_array().map(Vec::len), Some(8));
    assert_eq!(json["training"]["recipe"]["ensemble"], 8);
    succeed(path, &["train", "--config", "o/config.toml", "--out", "again"]);
    let bytes = |out: &str| fs::read(path.join(out).join("model.safetensors")).expect("written");
    assert!(bytes("o") == bytes("again"), "the model files differ");
    // Asked for one thing only, the rest of the recipe stays.
    let one = train("p", &["--ensemble", "1"]);
    assert!(one.contains("best     epoch ") && !one.contains("average"), "{one}");
    let refused = moonflow(path, &["train", "t.csv", "--components", "1,2", "--base", "normal"]);
    assert!(text(&refused.stderr).contains("leave --base out"));
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn an_ensemble_that_its_time_limit_ended_goes_on_to_the_file_of_one_that_was_not_ended() {
    let folder = folder();
    let path = folder.path();
    write(path);
    let train = |out: &str, more: &[&str]| {
        succeed(path, &[&["train", "t.csv", "--out", out][..], &FLAGS, more].concat())
    };
    train("whole", &["--checkpoint-every", "7"]);
    train("o", &["--time-limit", "0.000001"]);
    let first = Ensemble::load(path.join("o/model.safetensors")).expect("written");
    assert_eq!(first.members().len(), 1, "the first fit is kept as far as it came");
    // Some of them end within a fit; how many it takes to the end depends on the machine.
    for _ in 0..8 {
        let said = succeed(path, &["train", "--resume", "o", "--time-limit", "0.05"]);
        if !said.contains("resumed") || said.contains("fit 3/3  2 Gaussians: 40 epochs") {
            break;
        }
    }
    let said = succeed(path, &["train", "--resume", "o", "--time-limit", "100"]);
    let read = |out: &str, file: &str| fs::read(path.join(out).join(file)).expect("written");
    assert!(read("whole", "model.safetensors") == read("o", "model.safetensors"), "they differ: {said}");
    assert!(String::from_utf8_lossy(&read("o", "history.csv")).lines().count() == 41);
}
