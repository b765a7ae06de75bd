//! The model: units, batches and columns of what goes in and comes out, and the file that keeps it.

use moonflow::Error;
use moonflow::data::{
    Atoms, Bounds, CategoryMoments, ColumnDomain, Grid, Johnson, Knot, LevelMoments, MonotoneCurve,
    Preprocessing, Standardise, Standardiser, Table, Whitening,
};
use moonflow::engine::Sampling;
use moonflow::flow::{Flow, Transform};
use moonflow::layout::Layout;
use moonflow::model::{
    Comparison, CouplingUnits, FORMAT_VERSION, Finding, HeldOut, KernelGain, LatentFeature, LayerUnits,
    Model, Outcome, PairStructure, SelfCheck, Structure, TrainingRecord,
};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::training::{Scripted, small, source};

/// A model whose numbers are all different, so that a misplaced one shows.
fn model() -> Model {
    let recipe = small(3);
    let flow = recipe.flow(2).expect("valid");
    let total = Layout::new(&flow).total;
    let worst = LayerUnits { network: "translate".into(), layer: 1, units: 3, dead: 2 };
    Model {
        parameters: (0..total).map(|i| (i as f32 - 7.5) / 64.0).collect(),
        preprocessing: Standardiser { mean: vec![1.5, -300.25], std: vec![0.1, 40.0] }.into(),
        columns: vec!["width, mm".into(), "höhe".into()],
        record: TrainingRecord {
            moonflow: "0.1.0".into(),
            data: source(),
            recipe,
            device: "script (cpu)".into(),
            outcome: Outcome::Finished,
            epochs: 3,
            best_epoch: Some(2),
            train_nll: Some(1.0 / 3.0),
            validation_nll: Some(0.1),
            skipped_steps: 2,
            rollbacks: 1,
            test: None,
            context_ranges: Vec::new(),
            narrow_cells: false,
            check: Some(SelfCheck {
                round_trip: 1e-6,
                log_det: Some(1.0 / 7.0),
                gap: None,
                gap_error: None,
                validation_median: Some(1.25),
                latent_rows: 10,
                latent: vec![LatentFeature { mean: 0.1, std: 1.0 / 3.0, distance: 0.7 }; 2],
                comparison: Some(Comparison {
                    rows: 10,
                    model: -1.0 / 3.0,
                    independent: -0.5,
                    gaussian: None,
                    gain: 1.0 / 6.0,
                    gain_error: 0.01,
                    beyond: 0.125,
                    kernel: Some(KernelGain { training: -0.3, training_error: 1.0 / 3.0, validation: 0.25 }),
                }),
                structure: Some(Structure {
                    rows: 20,
                    margins: vec![0.0, 1.0 / 7.0],
                    pair: Some(PairStructure { features: [0, 1], nats: 0.2 }),
                }),
                units: vec![CouplingUnits { transform: 1, units: 6, dead: 2, worst: worst.clone() }],
                suspicious: vec!["höhe".into(), "and more".into()],
                findings: vec![
                    Finding::RoundTrip { error: 1.0 / 3.0 },
                    Finding::DeadUnits { transform: 1, layer: worst, couplings: 1 },
                ],
            }),
            held_out: Some(HeldOut {
                rows: 10,
                nll: 0.7,
                standard_error: 0.01,
                median: Some(0.65),
                above_floor: None,
                above_floor_error: None,
                within_bounds: None,
            }),
        },
        flow,
    }
}

/// A model with all that version 2 has: a given column, whole numbers between bounds, a whitening.
fn second() -> Model {
    let model = model();
    let flow = model.record.recipe.conditional_flow(2, 1).expect("valid");
    let counts = ColumnDomain {
        grid: Some(Grid::WHOLE),
        bounds: Some(Bounds { low: Some(0.0), high: Some(9.0) }),
        ..ColumnDomain::default()
    };
    let factor = vec![1.0, 0.0, 0.0, 0.5, 0.75, 0.0, -0.25, 0.125, 0.625];
    Model {
        parameters: (0..Layout::new(&flow).total).map(|i| (i as f32 - 7.5) / 64.0).collect(),
        preprocessing: Preprocessing {
            domains: vec![counts, ColumnDomain::default(), ColumnDomain::default()],
            standardise: Standardise::Whiten,
            standardiser: Standardiser { mean: vec![1.5, -300.25, 0.5], std: vec![0.1, 40.0, 2.0] },
            category_moments: CategoryMoments::default(),
            whitening: Some(Whitening::from_factor(factor, 3).expect("a triangle")),
            curves: Vec::new(),
            kernel: Vec::new(),
            whitened_curves: Vec::new(),
            whitened_kernel: Vec::new(),
            context: 1,
            atoms: Vec::new(),
        },
        columns: ["k", "b", "given"].map(String::from).into(),
        flow,
        ..model
    }
}

/// The same with curves, which make version 3: before the whitening and behind it.
fn third() -> Model {
    let mut model = second();
    let curves = |shift: f64| -> Vec<Johnson> {
        let numbers = [0.5, 2.0, shift, 0.75];
        let curve = |column: i32| Johnson::from_numbers(numbers.map(|number| number + f64::from(column)));
        (0..3).map(|column| curve(column).expect("a curve")).collect()
    };
    model.preprocessing.curves = curves(-1.0);
    model.preprocessing.whitened_curves = curves(3.5);
    model
}

/// The same with other transforms than couplings, which make version 4.
fn fourth() -> Model {
    let mut model = third();
    model.record.recipe.actnorm = true;
    model.flow = model.flow.before_each_coupling(&[Transform::Actnorm]);
    let total = Layout::new(&model.flow).total;
    model.parameters = (0..total).map(|i| (i as f32 - 7.5) / 64.0).collect();
    model
}

/// The third with curves by kernel densities, which make version 5.
fn fifth() -> Model {
    let mut model = third();
    let curve = |knots: u8| {
        let knot = |index: u8| {
            let place = f64::from(index);
            Knot { place, score: 0.5 * place - 1.0 / (1.0 + place), slope: 1.0 + 0.25 * place }
        };
        MonotoneCurve::from_knots((0..knots).map(knot).collect()).expect("a curve")
    };
    model.preprocessing.kernel = vec![curve(4), MonotoneCurve::identity(), curve(9)];
    model.preprocessing.whitened_kernel = vec![curve(2), curve(3), curve(5)];
    model
}

/// The second with hundredths from 0.005 on in place of whole numbers, and with an atom, which make version 7.
fn seventh() -> Model {
    let mut model = second();
    model.preprocessing.domains[0] = ColumnDomain {
        grid: Some(Grid { step: 0.01, offset: 0.005 }),
        bounds: Some(Bounds { low: Some(0.015), high: Some(9.005) }),
        ..ColumnDomain::default()
    };
    model.preprocessing.atoms = vec![Atoms { column: 1, values: vec![-300.0], indicator: 2 }];
    model
}

/// The second with a column that is shifted and scaled by a category, which makes version 9.
fn ninth() -> Model {
    let mut model = second();
    model.preprocessing.domains[2] = ColumnDomain::indicator();
    let moments = LevelMoments { column: 1, indicator: 2, levels: vec![[2.0, 1.5], [0.5, 0.25]] };
    model.preprocessing.category_moments = CategoryMoments { columns: vec![moments] };
    model
}

fn scripted(model: &Model) -> Scripted {
    Scripted::new(model.flow.clone(), &[])
}

#[test]
fn log_prob_adds_the_standardisers_log_det_to_standardised_rows() {
    let model = model();
    let rows = [1.6, -300.25, 1.5, -260.25];
    let got = pollster::block_on(model.log_prob(&mut scripted(&model), &rows)).expect("scores");
    // Standardised rows are (1, 0) and (0, 1); log_det = −ln 0.1 − ln 40.
    let want = 1.0 - 4f64.ln();
    assert!(got.len() == 2 && got.iter().all(|value| (value - want).abs() < 1e-6), "{got:?} {want}");
}

#[test]
fn long_batches_are_cut_without_a_seam() {
    let model = model();
    let sampling = Sampling { rows: 2_000_000, first: 5, seed: 0, temperature: 1.0 };
    let samples = pollster::block_on(model.sample(&mut scripted(&model), sampling)).expect("samples");
    assert_eq!(samples.len(), 4_000_000);
    for row in [0, 1, 1_398_100, 1_398_101, 1_398_102, 1_999_999] {
        let want = (row + 5) as f64 * 0.1 + 1.5;
        assert!((samples[2 * row] - want).abs() < 1e-9 * want, "row {row}: {} {want}", samples[2 * row]);
    }
    let log_prob = pollster::block_on(model.log_prob(&mut scripted(&model), &samples)).expect("scores");
    assert_eq!(log_prob.len(), 2_000_000);
}

#[test]
fn impossible_samplings_and_broken_rows_are_refused() {
    let model = model();
    let good = Sampling { rows: 1, first: 0, seed: 0, temperature: 1.0 };
    for (sampling, want) in [
        (Sampling { temperature: -0.5, ..good }, "got -0.5"),
        (Sampling { temperature: f32::NAN, ..good }, "got NaN"),
        (Sampling { temperature: f32::INFINITY, ..good }, "got inf"),
        (Sampling { first: u32::MAX, ..good }, "at most 0 rows"),
    ] {
        let message =
            pollster::block_on(model.sample(&mut scripted(&model), sampling)).expect_err(want).to_string();
        assert!(message.contains(want), "{message}");
    }
    let error = pollster::block_on(model.log_prob(&mut scripted(&model), &[1.0; 3])).expect_err("half a row");
    assert!(matches!(error, Error::Length { got: 3, expected: 4, .. }), "{error}");
    let mut other = Scripted::new(Flow::new(2, 1, &[3]).expect("valid"), &[]);
    pollster::block_on(model.latent(&mut other, &[1.0, 2.0])).expect_err("other flow");
}

#[test]
fn columns_are_found_by_name_and_wrong_ones_are_named() {
    let model = model();
    let table = |columns: &[&str], values: &[f64]| Table {
        name: "t.csv".into(),
        columns: columns.iter().map(|&name| name.into()).collect(),
        values: values.to_vec(),
    };
    for (columns, want) in [
        (["width, mm", "höhe"], [1.0, 2.0, 3.0, 4.0]),
        (["höhe", "width, mm"], [2.0, 1.0, 4.0, 3.0]),
        (["x0", "x1"], [1.0, 2.0, 3.0, 4.0]),
    ] {
        let table = table(&columns, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(model.arrange(&table).expect("fits").as_ref(), want);
    }
    for (columns, want) in [
        (
            &["a", "b", "c"][..],
            "there is no column `width, mm`; the columns are a, b, c. In any order, the model was trained on 2 columns (width, mm, höhe)",
        ),
        (&["höhe", "width mm"], "there is no column `width, mm`; did you mean `width mm`?"),
        (&["x0", "x1", "x2"], "has 3 columns without names, but the model was trained on 2 columns"),
    ] {
        let message = model.arrange(&table(columns, &[])).expect_err(want).to_string();
        assert!(message.starts_with("t.csv: ") && message.contains(want), "{message}");
    }
}

#[test]
fn file_round_trip_is_exact_and_equal_models_are_equal_files() {
    let model = model();
    let bytes = model.to_bytes();
    assert_eq!(Model::from_bytes("m", &bytes).expect("own file"), model);
    for _ in 0..10 {
        assert!(model.clone().to_bytes() == bytes, "the bytes depend on more than the model");
    }
}

#[test]
fn save_and_load_go_through_the_file_system() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("m.safetensors");
    model().save(&path).expect("written");
    assert_eq!(Model::load(&path).expect("read"), model());
    assert!(matches!(Model::load(folder.path().join("absent")), Err(Error::Io { .. })));
    assert!(matches!(model().save(folder.path().join("absent/m")), Err(Error::Io { .. })));
}

#[test]
fn other_programs_find_every_tensor_by_name_type_and_shape() {
    let bytes = model().to_bytes();
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut want = vec![
        ("standardiser.mean".to_owned(), Dtype::F64, vec![2]),
        ("standardiser.std".to_owned(), Dtype::F64, vec![2]),
    ];
    for i in 0..2 {
        want.push((format!("transforms.{i}.mask"), Dtype::F32, vec![2]));
        for network in ["scale", "translate"] {
            for (layer, (outputs, inputs)) in [(3, 2), (2, 3)].into_iter().enumerate() {
                let name = format!("transforms.{i}.{network}.{layer}");
                want.push((format!("{name}.weight"), Dtype::F32, vec![outputs, inputs]));
                want.push((format!("{name}.bias"), Dtype::F32, vec![outputs]));
            }
        }
    }
    let mut got: Vec<_> =
        file.iter().map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec())).collect();
    want.sort_by(|a, b| a.0.cmp(&b.0));
    got.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(got, want);
    let mask = file.tensor("transforms.1.mask").expect("there").data().to_vec();
    assert_eq!(mask, [0f32, 1.0].map(f32::to_le_bytes).concat());
}

#[test]
fn losses_that_are_not_finite_survive_as_nan_and_do_not_spoil_the_file() {
    let mut model = model();
    let held_out = model.record.held_out.as_mut().expect("set");
    (held_out.nll, held_out.standard_error) = (f64::INFINITY, f64::NAN);
    let read = Model::from_bytes("m", &model.to_bytes()).expect("own file").record.held_out.expect("set");
    assert!(read.nll.is_nan() && read.standard_error.is_nan());
}

/// A model file taken apart.
struct Parts {
    json: String,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    fn new() -> Self {
        Self::of(&model())
    }

    fn of(model: &Model) -> Self {
        let bytes = model.to_bytes();
        let file = SafeTensors::deserialize(&bytes).expect("own file");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("own file");
        let json = metadata.metadata().as_ref().expect("there")["moonflow"].clone();
        let tensors = file
            .iter()
            .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        Self { json, tensors }
    }

    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.json.contains(from), "{from} is not in {}", self.json);
        self.json = self.json.replacen(from, to, 1);
    }

    fn tensor(&mut self, name: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|tensor| tensor.0 == name).expect("there")
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("consistent"))
        });
        safetensors::serialize(views, Some([("moonflow".to_owned(), self.json.clone())].into()))
            .expect("serialises")
    }
}

type Damage = fn(&mut Parts);

#[test]
fn inconsistent_files_are_refused_with_what_is_wrong() {
    assert_eq!(Model::from_bytes("m", &Parts::new().bytes()).expect("undamaged"), model());
    let cases: &[(Damage, &str)] = &[
        (
            |parts| parts.replace("\"format_version\":1", "\"format_version\":10"),
            "format version 10, and this moonflow reads up to version 9",
        ),
        (|parts| parts.replace("\"format_version\":1", "\"format_version\":0"), "version is 0"),
        (|parts| parts.replace("\"flow\":", "\"stream\":"), "missing field `flow`"),
        (|parts| parts.json.clear(), "metadata entry `moonflow` is invalid"),
        (|parts| parts.replace("\"features\":2", "\"features\":1"), "mask 0 has 2 entries"),
        (|parts| parts.replace("\"features\":2", "\"features\":3"), "mask 0 has 2 entries"),
        (
            |parts| parts.replace("\"hidden\":[3]", "\"hidden\":[4]"),
            "`transforms.0.scale.0.weight` has shape [3, 2], expected [4, 2]",
        ),
        (
            |parts| parts.replace("\"hidden\":[3]", "\"hidden\":[65536,4000]"),
            "bytes of parameters, but its tensors have",
        ),
        (|parts| parts.replace("\"hidden\":[3]", "\"hidden\":[]"), "at least one hidden width"),
        (|parts| parts.replace("[true,false]", "[false,true]"), "`transforms.0.mask` contradicts the flow"),
        (|parts| parts.replace("\"höhe\"", "\"höhe\",\"x\""), "names 3 columns, but its flow has 2 features"),
        (
            |parts| parts.tensors.retain(|tensor| tensor.0 != "transforms.1.translate.1.bias"),
            "`transforms.1.translate.1.bias` is missing",
        ),
        (
            |parts| parts.tensors.retain(|tensor| tensor.0 != "standardiser.std"),
            "`standardiser.std` is missing",
        ),
        (
            |parts| parts.tensor("transforms.0.scale.0.weight").2 = vec![2, 3],
            "has shape [2, 3], expected [3, 2]",
        ),
        (|parts| parts.tensor("transforms.0.scale.0.weight").1 = Dtype::I32, "has type I32, expected F32"),
        (
            |parts| {
                parts.tensor("transforms.0.scale.0.bias").3[4..8].copy_from_slice(&f32::NAN.to_le_bytes())
            },
            "`transforms.0.scale.0.bias` is not finite: NaN at 1",
        ),
        (
            |parts| parts.tensor("standardiser.mean").3[..8].copy_from_slice(&f64::INFINITY.to_le_bytes()),
            "`standardiser.mean` is not finite: inf at 0",
        ),
        (
            |parts| parts.tensor("standardiser.std").3[8..].copy_from_slice(&0f64.to_le_bytes()),
            "`standardiser.std` must be positive, got 0 at 1",
        ),
        (
            |parts| parts.tensor("transforms.1.mask").3[..4].copy_from_slice(&0.5f32.to_le_bytes()),
            "`transforms.1.mask` must hold 0 and 1 only, got 0.5",
        ),
        (
            |parts| parts.tensors.push(("extra".into(), Dtype::F32, vec![1], vec![0; 4])),
            "has 21 tensors, but its flow has 20",
        ),
    ];
    refuse_damaged(&model(), cases);
    assert_eq!(FORMAT_VERSION, 9, "a new version needs its cases here and below");
}

fn refuse_damaged(model: &Model, cases: &[(Damage, &str)]) {
    for (damage, want) in cases {
        let mut parts = Parts::of(model);
        damage(&mut parts);
        let error = Model::from_bytes("m.safetensors", &parts.bytes()).expect_err(want);
        assert!(matches!(error, Error::Model { .. }), "{error}");
        let message = error.to_string();
        assert!(message.starts_with("m.safetensors: not a usable moonflow model: "), "{message}");
        assert!(message.contains(want), "`{want}` is not in: {message}");
    }
}

fn set(parts: &mut Parts, name: &str, place: usize, value: f64) {
    parts.tensor(name).3[8 * place..8 * place + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn inconsistent_kernel_curves_are_refused_with_the_column_and_what_is_wrong() {
    const BEFORE: &str = "standardiser.kernel";
    const BEHIND: &str = "standardiser.whitened_kernel";
    let cases: &[(Damage, &str)] = &[
        (
            |parts| parts.replace("\"format_version\":5", "\"format_version\":4"),
            "format version 4, but curves by kernel densities",
        ),
        (|parts| parts.replace("\"gaussianise\":true,", ""), "tensors, but its flow has"),
        (|parts| parts.replace("[[4,2,9],[2,3,5]]", "[[4,2,9]]"), "tensors, but its flow has"),
        (|parts| parts.replace("[[4,2,9],[2,3,5]]", "[[4,2,9],[2,3,5],[1]]"), "tensors, but its flow has"),
        (
            |parts| parts.replace("[2,3,5]", "[5,5]"),
            "`kernel_knots` of 2 columns, but its flow has 3 features",
        ),
        (|parts| parts.replace("[2,3,5]", "[1,4,5]"), "1 knots for column `k`, expected 2 to 1024"),
        (|parts| parts.replace("[2,3,5]", "[2,99999,5]"), "99999 knots for column `b`"),
        (|parts| parts.replace("[2,3,5]", "[2,4,5]"), "has shape [10, 3], expected [11, 3]"),
        (|parts| parts.replace("[2,3,5]", "[2,-3,5]"), "invalid value: integer `-3`"),
        (|parts| parts.tensors.retain(|tensor| tensor.0 != BEHIND), "tensors, but its flow has"),
        (|parts| parts.tensor(BEFORE).1 = Dtype::I64, "has type I64, expected F64"),
        (|parts| set(parts, BEFORE, 2, f64::NAN), "`standardiser.kernel` is not finite: NaN at 2"),
        (
            |parts| set(parts, BEFORE, 2, 0.0),
            "tensor `standardiser.kernel`, column `k`: a curve needs finite knots",
        ),
        (|parts| set(parts, BEFORE, 5, 1e-70), "column `k`: a curve needs finite knots with positive slopes"),
        (|parts| set(parts, BEFORE, 15, -1.0), "column `b`: a curve needs knots that ascend"),
        (
            |parts| set(parts, BEHIND, 28, -9.0),
            "tensor `standardiser.whitened_kernel`, column `given`: a curve needs",
        ),
    ];
    refuse_damaged(&fifth(), cases);
}

#[test]
fn inconsistent_grids_and_atoms_are_refused_with_the_column_and_what_is_wrong() {
    const GRID: &str = "{\"step\":0.01,\"offset\":0.005}";
    let cases: &[(Damage, &str)] = &[
        (
            |parts| parts.replace("\"format_version\":7", "\"format_version\":5"),
            "format version 5, but columns on a grid of its own",
        ),
        (|parts| parts.replace(GRID, "true"), "the bounds of `k` must be whole numbers"),
        (|parts| parts.replace(GRID, "{\"step\":0.01}"), "`k` must lie on the column's grid, steps of 0.01"),
        (
            |parts| parts.replace(GRID, "{\"step\":0}"),
            "column `k` has steps of 0 from 0; expected a positive",
        ),
        (|parts| parts.replace(GRID, "{\"step\":-1}"), "column `k` has steps of -1"),
        (|parts| parts.replace(GRID, "7"), "metadata entry `moonflow` is invalid"),
        (
            |parts| {
                parts.replace("\"format_version\":7", "\"format_version\":5");
                parts.replace(GRID, "true");
            },
            "format version 5, but atoms of columns",
        ),
        (|parts| parts.replace("\"indicator\":2", "\"indicator\":1"), "`b` must have an indicator each"),
        (|parts| parts.replace("\"column\":1", "\"column\":2"), "`given` must be those of a modelled column"),
        (|parts| parts.replace("[-300.0]", "[-300.0,0.0]"), "`b` must have an indicator each"),
        (|parts| parts.replace("[-300.0]", "[1,1]"), "`b` must be finite and different"),
    ];
    refuse_damaged(&seventh(), cases);
}

#[test]
fn inconsistent_moments_by_category_are_refused_with_the_column_and_what_is_wrong() {
    let cases: &[(Damage, &str)] = &[
        (
            |parts| parts.replace("\"format_version\":9", "\"format_version\":7"),
            "format version 7, but moments by category",
        ),
        (
            |parts| parts.replace("\"indicator\":2,\"levels\"", "\"indicator\":1,\"levels\""),
            "`b` must have indicators",
        ),
        (|parts| parts.replace("\"indicator\":true", "\"indicator\":false"), "`b` must have indicators"),
        (|parts| parts.replace("\"column\":1", "\"column\":2"), "`given` must be those of a modelled column"),
        (|parts| parts.replace("[0.5,0.25]", "[0.5,-0.25]"), "`b` must be finite, with positive deviations"),
        (|parts| parts.replace("[0.5,0.25]", "[0.5,0.25,1.0]"), "metadata entry `moonflow` is invalid"),
        (|parts| parts.replace(",[0.5,0.25]", ""), "`b` must have indicators"),
        (
            |parts| parts.replace("\"column\":1", "\"column\":0"),
            "`k` must be those of a column that is neither on a grid",
        ),
    ];
    refuse_damaged(&ninth(), cases);
}

#[test]
fn inconsistent_curves_are_refused_with_what_is_wrong() {
    const BEFORE: &str = "standardiser.johnson";
    const BEHIND: &str = "standardiser.whitened_johnson";
    let cases: &[(Damage, &str)] = &[
        (
            |parts| parts.replace("\"format_version\":3", "\"format_version\":2"),
            "format version 2, but gaussianised columns",
        ),
        (
            |parts| parts.replace("\"format_version\":3", "\"format_version\":1"),
            "format version 1, but gaussianised columns",
        ),
        (|parts| parts.replace("\"gaussianise\":true", "\"gaussianise\":false"), "tensors, but its flow has"),
        (|parts| parts.replace("\"gaussianise\":true", "\"gaussianise\":7"), "expected a boolean"),
        (
            |parts| parts.tensors.retain(|tensor| tensor.0 != BEFORE),
            "tensor `standardiser.johnson` is missing",
        ),
        (
            |parts| parts.tensors.retain(|tensor| tensor.0 != BEHIND),
            "tensor `standardiser.whitened_johnson` is missing",
        ),
        (|parts| parts.tensor(BEFORE).2 = vec![4, 3], "has shape [4, 3], expected [3, 4]"),
        (|parts| parts.tensor(BEHIND).1 = Dtype::I64, "has type I64, expected F64"),
        (|parts| set(parts, BEFORE, 2, f64::NAN), "`standardiser.johnson` is not finite: NaN at 2"),
        (|parts| set(parts, BEFORE, 1, 0.0), "tensor `standardiser.johnson`: a curve needs finite numbers"),
        (|parts| set(parts, BEFORE, 5, -1.0), "λ and δ positive, got [1.5, -1.0, "),
        (|parts| set(parts, BEHIND, 11, 0.0), "tensor `standardiser.whitened_johnson`: a curve needs"),
    ];
    refuse_damaged(&third(), cases);

    let cases: &[(Damage, &str)] = &[
        (
            |parts| parts.replace("\"format_version\":4", "\"format_version\":3"),
            "format version 3, but a list of transforms",
        ),
        (|parts| parts.replace("\"kind\":\"actnorm\"", "\"kind\":\"other\""), "unknown variant `other`"),
        (|parts| parts.replace("\"transforms\":[", "\"masks\":[],\"transforms\":["), "no `masks`"),
        (|parts| parts.replace("\"transforms\":[", "\"listed\":["), "unknown field `listed`"),
        (
            |parts| parts.tensors.retain(|tensor| tensor.0 != "transforms.2.log_scale"),
            "`transforms.2.log_scale` is missing",
        ),
    ];
    refuse_damaged(&fourth(), cases);
}

#[test]
fn files_of_other_kinds_and_lying_headers_are_refused() {
    let file = |header: &str, data: &[u8]| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    // Eight tensors of 2^61 bytes each: their end does not fit 64 bits together with the header's length.
    let giants: Vec<String> = (0..8u64)
        .map(|i| {
            let size = (1u64 << 61) - 1;
            format!(
                "\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{},{}]}}",
                i * size,
                (i + 1) * size
            )
        })
        .collect();
    let foreign = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    for (bytes, want) in [
        (Vec::new(), "the file is empty"),
        (b"1234567".to_vec(), "7 bytes are fewer than the 8"),
        (vec![0xff; 100], "its header claims 18446744073709551615 bytes, 92 are there"),
        (file("not json", b""), "its header is invalid"),
        (file(foreign, b"1234"), "it is a safetensors file, but no moonflow model"),
        (file(foreign, b"12"), "truncated or damaged: its tensors claim 4 bytes, 2 are there"),
        (file(&format!("{{{}}}", giants.join(",")), b""), "truncated or damaged"),
        (b"\x89PNG\r\n\x1a\n and so on".to_vec(), "not a safetensors file"),
    ] {
        let message = Model::from_bytes("m", &bytes).expect_err(want).to_string();
        assert!(message.contains(want), "`{want}` is not in: {message}");
    }
}

#[test]
fn every_version_comes_back_whole_and_is_the_oldest_that_can_hold_the_model() {
    for (model, version) in
        [(model(), 1), (second(), 2), (third(), 3), (fourth(), 4), (fifth(), 5), (seventh(), 7), (ninth(), 9)]
    {
        assert_eq!(model.format_version(), version);
        let bytes = model.to_bytes();
        assert_eq!(Model::from_bytes("m", &bytes).expect("own file"), model);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(text.contains("johnson") && text.contains("gaussianise"), (3..=5).contains(&version));
        assert_eq!(text.contains("\\\"transforms\\\""), version == 4);
        assert_eq!(text.contains("standardiser.kernel") && text.contains("kernel_knots"), version == 5);
        assert_eq!(text.contains("\\\"offset\\\":0.005"), version == 7);
        assert!(version >= 3 || !text.contains("johnson") && !text.contains("gaussianise"), "{version}");
    }
    // Without a whitening there is nothing behind it.
    let mut model = third();
    (model.preprocessing.whitening, model.preprocessing.standardise) = (None, Standardise::Robust);
    model.preprocessing.whitened_curves.clear();
    assert_eq!(model.format_version(), 3);
    assert_eq!(Model::from_bytes("m", &model.to_bytes()).expect("own file"), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        in_header in any::<bool>(),
        subject in prop::sample::select(vec![model(), second(), third(), fourth(), fifth(), seventh(), ninth()]),
    ) {
        let mut bytes = subject.to_bytes();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        for (place, byte) in flips {
            // Flips among the weights alone would hardly ever break a file.
            let place = place.index(if in_header { header } else { bytes.len() });
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(model) = Model::from_bytes("m", &bytes) {
            // What is accepted must be usable.
            prop_assert!(model.flow.validate().is_ok());
            prop_assert_eq!(model.parameters.len(), Layout::new(&model.flow).total);
            prop_assert!(model.parameters.iter().all(|value| value.is_finite()));
            prop_assert!(model.preprocessing.standardiser.std.iter().all(|&std| std > 0.0 && std.is_finite()));
            prop_assert_eq!(model.columns.len(), model.flow.features);
            prop_assert_eq!(model.preprocessing.domains.len(), model.flow.features);
            prop_assert_eq!(model.preprocessing.context, model.flow.context);
            let whitened = model.preprocessing.standardise == Standardise::Whiten;
            prop_assert_eq!(model.preprocessing.whitening.is_some(), whitened);
            let Preprocessing { curves, whitened_curves, .. } = &model.preprocessing;
            prop_assert!(curves.is_empty() || curves.len() == model.flow.features);
            prop_assert_eq!(whitened_curves.len(), if whitened { curves.len() } else { 0 });
            let Preprocessing { kernel, whitened_kernel, .. } = &model.preprocessing;
            prop_assert!(kernel.is_empty() || kernel.len() == curves.len());
            prop_assert_eq!(whitened_kernel.len(), if whitened { kernel.len() } else { 0 });
            for curve in kernel.iter().chain(whitened_kernel) {
                prop_assert!(curve.forward(0.5).0.is_finite() && curve.inverse(0.5).is_finite());
            }
            for curve in curves.iter().chain(whitened_curves) {
                let [_, scale, _, tail] = curve.numbers();
                prop_assert!(scale > 0.0 && tail > 0.0 && curve.numbers().iter().all(|n| n.is_finite()));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Model::from_bytes("m", &bytes).is_err());
    }
}
