//! Columns with atoms, told by indicators in the context: the density of the rest of a row at an atom, samples that hold
//! exactly the atom, and the mass of all.

use std::fs;

use moonflow::cpu::CpuEngine;
use moonflow::data::{
    Atoms, Bounds, ColumnDomain, Dataset, Grid, Margins, PreprocessingPlan, Standardise, Table,
};
use moonflow::engine::Sampling;
use moonflow::model::{DataSource, Model, Recipe};
use moonflow::random;
use moonflow::train::fit;

use crate::cli::{folder, moonflow, succeed, text};

type Subject = (Model, CpuEngine<f32>);

const POSITIVE: ColumnDomain =
    ColumnDomain { grid: None, bounds: Some(Bounds { low: Some(0.0), high: None }), indicator: false };

fn noise<const N: usize>(row: u32) -> [f64; N] {
    let mut values = [0.0; N];
    random::normals(row, 5, &mut values);
    values.map(f64::from)
}

/// Whether x lies at the zero: likelier the greater x is.
fn share_of_zeros(x: f64) -> f64 {
    1.0 / (1.0 + (-2.0 * x).exp())
}

/// 3,000 rows of x, normal, and of a rain that is 0 the likelier the greater x is, and else lognormal about x.
fn rain() -> Table {
    let row = |row| {
        let [x, n, u] = noise::<3>(row);
        let zero = random_share(u) < share_of_zeros(x);
        let rain = if zero { 0.0 } else { (0.8 * x + 0.3 * n).exp() };
        [rain, x, f64::from(u8::from(zero))]
    };
    table(&["rain", "x", "rain=0"], (0..3000).flat_map(row).collect())
}

/// A uniform number of a normal one.
fn random_share(normal: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * normal.abs());
    let series = 0.319_381_530 * t - 0.356_563_782 * t.powi(2) + 1.781_477_937 * t.powi(3)
        - 1.821_255_978 * t.powi(4)
        + 1.330_274_429 * t.powi(5);
    let upper = (-0.5 * normal * normal).exp() / std::f64::consts::TAU.sqrt() * series;
    if normal > 0.0 { 1.0 - upper } else { upper }
}

fn table(columns: &[&str], values: Vec<f64>) -> Table {
    Table { name: "t".into(), columns: columns.iter().map(|&name| name.to_owned()).collect(), values }
}

fn rain_plan(margins: Margins, standardise: Standardise) -> PreprocessingPlan {
    PreprocessingPlan {
        domains: vec![POSITIVE, ColumnDomain::default(), ColumnDomain::default()],
        margins,
        standardise,
        context: 1,
        atoms: vec![Atoms { column: 0, values: vec![0.0], indicator: 2 }],
        ..PreprocessingPlan::default()
    }
}

fn fitted(table: &Table, plan: &PreprocessingPlan, epochs: u32) -> Subject {
    let recipe = Recipe { epochs, batch: 128, layers: 4, hidden: vec![24], ..Recipe::default() };
    let dataset = Dataset::split_with(table, 0.1, 0, plan).expect("splits");
    assert_eq!(dataset.clone().into_table().0, *table, "noise leaves without a trace");
    let source = DataSource { name: "t".into(), noise: None, toy: false, rows: table.rows() };
    let mut engine = CpuEngine::<f32>::new(recipe.flow_over(&dataset).expect("valid")).expect("made");
    let fitted = pollster::block_on(fit(&mut engine, &dataset, &recipe, source, &mut ())).expect("trains");
    (fitted.model, engine)
}

fn densities((model, engine): &mut Subject, rows: &[f64]) -> Vec<f64> {
    let log_prob = pollster::block_on(model.log_prob(engine, rows)).expect("scores");
    log_prob.into_iter().map(f64::exp).collect()
}

/// Midpoints of `cells` cells from −`reach` to `reach`, and their size.
fn midpoints(cells: u32, reach: f64) -> (Vec<f64>, f64) {
    let step = 2.0 * reach / f64::from(cells);
    ((0..cells).map(|cell| (f64::from(cell) + 0.5) * step - reach).collect(), step)
}

#[test]
fn densities_at_an_atom_and_beside_it_have_a_mass_of_1_and_are_what_they_should_be() {
    for (margins, standardise, cells) in [
        (Margins::None, Standardise::Mean, 300),
        (Margins::None, Standardise::Whiten, 300),
        (Margins::Johnson, Standardise::Whiten, 300),
        (Margins::Kernel, Standardise::Mean, 900),
    ] {
        let what = format!("{margins:?} {standardise:?}");
        let mut subject = fitted(&rain(), &rain_plan(margins, standardise), 20);
        let (places, step) = midpoints(2000, 8.0);
        let at: Vec<f64> = places.iter().flat_map(|&x| [0.0, x, 1.0]).collect();
        let density = densities(&mut subject, &at);
        let mass: f64 = density.iter().map(|density| density * step).sum();
        assert!((mass - 1.0).abs() < 1e-3, "{what}: {mass} at the atom");
        // p(x | zero) = 2 φ(x) s(x), because half of all rows are zeros.
        let truth = |x: f64| 2.0 * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt() * share_of_zeros(x);
        let differences = density.iter().zip(&places).map(|(density, &x)| (density - truth(x)).abs() * step);
        let apart = 0.5 * differences.sum::<f64>();
        // A density that knew nothing of the zeros would be 0.27 apart, by E |tanh x| / 2.
        assert!(apart < 0.1, "{what}: {apart} of the mass at the atom is elsewhere");

        let (logs, wide) = midpoints(cells, 9.0);
        let (xs, high) = midpoints(cells, 7.0);
        let beside: Vec<f64> =
            logs.iter().flat_map(|log| xs.iter().flat_map(move |&x| [log.exp(), x, 0.0])).collect();
        let density = densities(&mut subject, &beside);
        let mass: f64 =
            density.iter().zip(beside.chunks(3)).map(|(density, row)| density * row[0] * wide * high).sum();
        assert!((mass - 1.0).abs() < 2e-3, "{what}: {mass} beside it");
        assert_eq!(densities(&mut subject, &[0.0, 0.0, 0.0]), [0.0], "no density on the bound");
    }
}

#[test]
fn samples_hold_the_atom_where_they_are_told_to_and_nowhere_else() {
    let (model, mut engine) = fitted(&rain(), &rain_plan(Margins::Kernel, Standardise::Mean), 20);
    let context: Vec<f64> = (0..4000).map(|row| f64::from(u8::from(row % 5 < 2))).collect();
    let sampling = Sampling { rows: 4000, first: 0, seed: 3, temperature: 1.0 };
    let samples = pollster::block_on(model.sample_given(&mut engine, sampling, &context)).expect("samples");
    let zeros = samples.chunks(3).filter(|row| row[0] == 0.0).count();
    assert_eq!(zeros, 1600);
    assert!(samples.chunks(3).all(|row| (row[0] == 0.0) == (row[2] == 1.0) && row[0] >= 0.0));
    // E[x | zero] = E[tanh x · x], by symmetry; 0.6 to two digits.
    let (places, step) = midpoints(4000, 9.0);
    let want: f64 = places
        .iter()
        .map(|x| x * x.tanh() * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt() * step)
        .sum();
    let mean = |at: f64| {
        let of = samples.chunks(3).filter(|row| row[2] == at).map(|row| row[1]);
        of.clone().sum::<f64>() / of.count() as f64
    };
    assert!(
        (mean(1.0) - want).abs() < 0.08 && (mean(0.0) + want).abs() < 0.08,
        "{} {}",
        mean(1.0),
        mean(0.0)
    );

    let latent = pollster::block_on(model.latent(&mut engine, &[0.0, 0.5, 1.0])).expect("latent");
    assert!(latent.iter().all(|value| value.is_finite()), "{latent:?}");
    let message =
        pollster::block_on(model.score(&mut engine, &[0.0, 0.5, 1.0])).expect_err("no slope").to_string();
    assert!(message.contains("column `rain` has atoms"), "{message}");
}

/// Two columns with atoms, one of them two and in steps, and a count.
#[test]
fn several_atoms_beside_a_count_have_a_mass_of_1_in_every_combination() {
    let row = |row: u32| {
        let [a, b, n, x] = noise::<4>(row);
        let count = (1.5 + 0.5 * x + 0.5 * n).floor().clamp(0.0, 3.0);
        let rain = if row.is_multiple_of(3) { 0.0 } else { (0.5 * a + 0.2 * x).exp() };
        let level = match row % 4 {
            0 => 0.0,
            1 => 100.0,
            _ => (50.0 + 10.0 * b + 5.0 * x).round().clamp(1.0, 99.0),
        };
        let is = |truth: bool| f64::from(u8::from(truth));
        [rain, level, count, x, is(rain == 0.0), is(level == 0.0), is(level == 100.0)]
    };
    let names = ["rain", "level", "count", "x", "rain=0", "level=0", "level=100"];
    let rows = table(&names, (0..3000).flat_map(row).collect());
    let whole = |low, high| ColumnDomain {
        grid: Some(Grid::WHOLE),
        bounds: Some(Bounds { low: Some(low), high: Some(high) }),
        ..ColumnDomain::default()
    };
    let plain = ColumnDomain::default();
    let plan = PreprocessingPlan {
        domains: vec![POSITIVE, whole(1.0, 99.0), whole(0.0, 3.0), plain, plain, plain, plain],
        context: 3,
        atoms: vec![
            Atoms { column: 0, values: vec![0.0], indicator: 4 },
            Atoms { column: 1, values: vec![0.0, 100.0], indicator: 5 },
        ],
        ..PreprocessingPlan::default()
    };
    let mut subject = fitted(&rows, &plan, 10);
    let (places, step) = midpoints(40, 6.0);
    let mut mass_over = |rain: &[(f64, f64)], levels: &[f64], context: [f64; 3]| {
        let (mut rows, mut sizes) = (Vec::new(), Vec::new());
        for &(rain, size) in rain {
            for &level in levels {
                for count in 0..4 {
                    for &x in &places {
                        rows.extend([&[rain, level, f64::from(count), x][..], &context].concat());
                        sizes.push(size * step);
                    }
                }
            }
        }
        densities(&mut subject, &rows).iter().zip(sizes).map(|(density, size)| density * size).sum::<f64>()
    };
    let (logs, width) = midpoints(40, 5.0);
    let rains: Vec<(f64, f64)> = logs.iter().map(|log| (log.exp(), log.exp() * width)).collect();
    let levels: Vec<f64> = (1..100).map(f64::from).collect();
    for (rain, levels, context, tolerance) in [
        (&[(0.0, 1.0)][..], &[100.0][..], [1.0, 0.0, 1.0], 5e-3),
        (&[(0.0, 1.0)], &[0.0], [1.0, 1.0, 0.0], 5e-3),
        (&[(0.0, 1.0)], &levels, [1.0, 0.0, 0.0], 5e-3),
        (&rains, &[0.0], [0.0, 1.0, 0.0], 5e-3),
    ] {
        let mass = mass_over(rain, levels, context);
        assert!((mass - 1.0).abs() < tolerance, "{context:?}: {mass}");
    }
}

#[test]
fn noise_follows_the_margins_and_weights_that_it_is_drawn_by() {
    let plan = rain_plan(Margins::None, Standardise::Mean);
    let plain = Dataset::split_with(&rain(), 0.1, 0, &plan).expect("splits");
    let bent = plain.clone().with_margins(Margins::Kernel).expect("fits");
    let anew =
        Dataset::split_with(&rain(), 0.1, 0, &rain_plan(Margins::Kernel, Standardise::Mean)).expect("splits");
    assert_eq!(bent, anew, "as if it had them from the beginning");
    assert!(bent.train != plain.train);
    let weights: Vec<f64> = (0..3000).map(|row| f64::from(row % 4)).collect();
    let weighted = bent.clone().with_weights(weights).expect("weights");
    assert!(weighted.train != bent.train && weighted.into_table().0 == rain());
    assert_eq!(bent.resplit(0.1, 0).expect("splits"), anew);
}

/// Flags of a small fit.
const SMALL: [&str; 8] = ["--ensemble", "1", "--epochs", "15", "--layers", "4", "--hidden", "16"];

#[test]
fn the_command_line_fits_scores_and_samples_atoms_in_their_share() {
    let folder = folder();
    let path = folder.path();
    let rows = rain();
    let lines: String = rows
        .values
        .chunks(3)
        .map(|row| format!("{},{},{}\n", row[0], row[1], (row[1] * 2.0).round() / 2.0))
        .collect();
    fs::write(path.join("t.csv"), format!("rain,x,rounded\n{lines}")).expect("written");
    let flags = ["--atom", "rain=0", "--transform", "rain=log", "--dequantize", "rounded=0.5", "--drop", "x"];
    succeed(path, &[&["train", "t.csv", "--out", "o"][..], &SMALL, &flags].concat());
    let config = fs::read_to_string(path.join("o/config.toml")).expect("written");
    assert!(config.contains("atom = \"rain=0\""), "{config}");
    succeed(path, &["train", "--config", "o/config.toml", "--out", "again"]);
    let file = |name: &str| fs::read(path.join(name).join("model.safetensors")).expect("written");
    assert!(file("o") == file("again"), "the configuration repeats it");
    let info = succeed(path, &["info", "o/model.safetensors"]);
    for part in ["format version 8", "rain: 0", "ln(x − 0)"] {
        assert!(info.contains(part), "`{part}` is not in: {info}");
    }

    let cpu = ["--model", "o/model.safetensors", "--device", "cpu"];
    let numbers = |text: &str| -> Vec<Vec<f64>> {
        let row = |line: &str| line.split(',').map(|cell| cell.parse().expect("a number")).collect();
        text.lines().skip(1).map(row).collect()
    };
    let samples = numbers(&succeed(path, &[&["sample", "-n", "6000"][..], &cpu].concat()));
    let share = |rows: &[Vec<f64>], wet: bool| {
        let of: Vec<&Vec<f64>> = rows.iter().filter(|row| (row[1] > 0.0) == wet).collect();
        of.iter().filter(|row| row[0] == 0.0).count() as f64 / of.len() as f64
    };
    let table: Vec<Vec<f64>> =
        rows.values.chunks(3).map(|row| vec![row[0], (row[1] * 2.0).round() / 2.0]).collect();
    for wet in [false, true] {
        let (got, want) = (share(&samples, wet), share(&table, wet));
        assert!((got - want).abs() < 0.05, "{wet}: {got} of the rows are zeros, expected {want}");
    }
    assert!(samples.iter().all(|row| row[0] >= 0.0 && (2.0 * row[1]).fract() == 0.0));

    // Σ over the steps of P(rain = 0, step) and of the integral over the other rains.
    let (logs, width) = midpoints(1600, 9.0);
    let steps: Vec<f64> = (-9..=9).map(|k| 0.5 * f64::from(k)).collect();
    let rains = || std::iter::once((0.0, 1.0)).chain(logs.iter().map(|log| (log.exp(), log.exp() * width)));
    let grid: Vec<[f64; 3]> =
        steps.iter().flat_map(|&step| rains().map(move |(rain, size)| [rain, step, size])).collect();
    let lines: String = grid.iter().map(|[rain, step, _]| format!("{rain},{step}\n")).collect();
    fs::write(path.join("g.csv"), format!("rain,rounded\n{lines}")).expect("written");
    let scores = numbers(&succeed(path, &[&["score", "g.csv"][..], &cpu].concat()));
    let mass = |zero: bool| -> f64 {
        let rows = grid.iter().zip(&scores).filter(|(row, _)| (row[0] == 0.0) == zero);
        rows.map(|(row, score)| score[0].exp() * row[2]).sum()
    };
    let (at, beside) = (mass(true), mass(false));
    assert!((at + beside - 1.0).abs() < 2e-3, "{at} at the atom and {beside} beside it");
    let zeros = table.iter().filter(|row| row[0] == 0.0).count() as f64 / table.len() as f64;
    assert!((at - zeros).abs() < 0.02, "{at}, and {zeros} of the rows are zeros");
    let refused = moonflow(path, &["train", "t.csv", "--atom", "rain=0", "--context", "rain", "--out", "no"]);
    assert!(text(&refused.stderr).contains("is context"), "{}", text(&refused.stderr));
    let refused = moonflow(path, &["train", "t.csv", "--atom", "rain", "--out", "no"]);
    assert!(text(&refused.stderr).contains("such as rain=0"), "{}", text(&refused.stderr));
    assert!(!path.join("no").exists());
}
