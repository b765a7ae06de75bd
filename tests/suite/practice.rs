//! Training practice on the real engines: going on from a checkpoint bit for bit, averaged weights, steps that fail, and
//! the self-check.

use std::ops::ControlFlow;

use moonflow::cpu::CpuEngine;
use moonflow::data::{Dataset, Margins, PreprocessingPlan, Standardiser, Table};
use moonflow::engine::{Engine, Training};
use moonflow::flow::{Activation, BaseKind};
use moonflow::gpu::PlanKind;
use moonflow::model::{Finding, Model, Outcome, Recipe, SelfCheck};
use moonflow::optimiser::{Decay, State};
use moonflow::random::{self, Stream};
use moonflow::train::{Checkpoint, Epoch, Fitted, Observer, Options, fit_with, self_check};
use moonflow::{Error, Result};
use proptest::prelude::*;

use crate::training::{source, watch};

fn table(rows: u32, seed: u64) -> Table {
    let mut noise = [0.0f32; 3];
    let values = (0..rows)
        .flat_map(|row| {
            random::normals(row, seed, &mut noise);
            let [a, b, c] = noise.map(f64::from);
            [3.0 * a, 0.5 * b + a * a, 100.0 + c - a]
        })
        .collect();
    Table { name: "t".into(), columns: ["a", "b", "c"].map(String::from).to_vec(), values }
}

fn dataset() -> Dataset {
    Dataset::split(&table(90, 1), 0.2, 1).expect("splits")
}

/// A recipe in which everything is in use, and whose epochs end with a partial batch.
fn recipe() -> Recipe {
    Recipe {
        epochs: 6,
        batch: 32,
        layers: 2,
        hidden: vec![7],
        activation: Activation::Tanh,
        learning_rate: 0.02,
        warmup: 1,
        weight_decay: 0.01,
        ..Recipe::default()
    }
}

fn cpu(recipe: &Recipe) -> CpuEngine<f32> {
    CpuEngine::new(recipe.flow(3).expect("valid")).expect("valid")
}

/// Ends training after an epoch and keeps the checkpoints as files are kept.
struct Stop {
    after: u32,
    files: Vec<Vec<u8>>,
}

impl Observer for Stop {
    // Time stands still, so that epochs are asked for ten at a time.
    fn seconds(&mut self) -> f64 {
        0.0
    }

    fn epoch(&mut self, epoch: &Epoch) -> ControlFlow<()> {
        if epoch.epoch == self.after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.files.push(checkpoint.to_bytes());
        Ok(())
    }
}

fn fit_on<E: Engine>(
    engine: &mut E,
    dataset: &Dataset,
    recipe: &Recipe,
    options: Options,
    observer: &mut impl Observer,
) -> Result<Fitted> {
    pollster::block_on(fit_with(engine, dataset, recipe, source(), options, observer))
}

fn train<E: Engine>(engine: &mut E, recipe: &Recipe, options: Options, after: u32) -> (Fitted, Vec<Vec<u8>>) {
    let mut stop = Stop { after, files: Vec::new() };
    let fitted = fit_on(engine, &dataset(), recipe, options, &mut stop).expect("fits");
    (fitted, stop.files)
}

fn resumed(checkpoint: Checkpoint) -> Options {
    Options { resume: Some(checkpoint), ..Options::default() }
}

/// The checkpoint after `after` epochs, which had its observer stop there.
fn interrupted<E: Engine>(engine: &mut E, recipe: &Recipe, after: u32) -> Checkpoint {
    let every = Options { checkpoint_every: Some(1), ..Options::default() };
    let (_, files) = train(engine, recipe, every, after);
    Checkpoint::from_bytes("c", files.last().expect("made")).expect("own file")
}

/// Recipes whose trainings carry different things from epoch to epoch.
fn practices() -> [(&'static str, Recipe); 6] {
    [
        ("plain", recipe()),
        ("average", Recipe { ema: Some(0.7), ..recipe() }),
        ("rollback", Recipe { rollback: true, learning_rate: 0.2, ..recipe() }),
        ("patience", Recipe { patience: Some(2), learning_rate: 0.3, epochs: 12, ..recipe() }),
        ("constant rate", Recipe { decay: Decay::Constant, ..recipe() }),
        ("mixture", Recipe { base: BaseKind::Mixture, components: 3, ema: Some(0.5), ..recipe() }),
    ]
}

/// Compares an uninterrupted training with one cut after `after` epochs.
fn hold_to_uninterrupted<E: Engine>(engine: &mut E, other: &mut E, name: &str, recipe: &Recipe, after: u32) {
    let (whole, _) = train(engine, recipe, Options::default(), 0);
    let checkpoint = interrupted(engine, recipe, after);
    assert_eq!(Checkpoint::from_bytes("c", &checkpoint.to_bytes()).expect("own file"), checkpoint, "{name}");
    let (rest, _) = train(other, recipe, resumed(checkpoint.clone()), 0);
    assert!(rest.model.to_bytes() == whole.model.to_bytes(), "{name}: the model files differ");
    assert_eq!(rest.history, whole.history, "{name}");

    // The comparison can fail: each of these matters, if only in the last bit.
    let mut broken = checkpoint.clone();
    broken.state.corrections[1] *= 1.0 + 1e-6;
    let mut other_moment = checkpoint;
    other_moment.state.moment2.iter_mut().for_each(|value| *value *= 1.001);
    for broken in [broken, other_moment] {
        let (rest, _) = train(other, recipe, resumed(broken), 0);
        assert!(rest.history != whole.history, "{name}: a changed checkpoint goes unnoticed");
    }
}

#[test]
fn a_resumed_training_writes_the_model_file_of_one_never_interrupted_on_the_cpu() {
    for (name, recipe) in practices() {
        for after in [1, 3] {
            hold_to_uninterrupted(&mut cpu(&recipe), &mut cpu(&recipe), name, &recipe, after);
        }
    }
}

#[test]
fn a_resumed_training_writes_the_model_file_of_one_never_interrupted_on_the_gpu() {
    for recipe in [recipe(), Recipe { ema: Some(0.5), rollback: true, ..recipe() }] {
        let recipe = Recipe { epochs: 3, ..recipe };
        let flow = recipe.flow(3).expect("valid");
        let (Some(mut engine), Some(mut other)) =
            (crate::gpu::engine(&flow, PlanKind::Layered), crate::gpu::engine(&flow, PlanKind::Layered))
        else {
            return;
        };
        hold_to_uninterrupted(&mut engine, &mut other, "GPU", &recipe, 1);
    }
}

#[test]
fn a_training_at_a_constant_rate_is_extended_as_if_it_had_been_asked_for_more() {
    let short = Recipe { decay: Decay::Constant, ..recipe() };
    let long = Recipe { epochs: 9, ..short.clone() };
    let (whole, _) = train(&mut cpu(&long), &long, Options::default(), 0);
    let checkpoint = interrupted(&mut cpu(&short), &short, 6);
    let (extended, _) = train(&mut cpu(&long), &long, resumed(checkpoint), 0);
    assert!(extended.model.to_bytes() == whole.model.to_bytes(), "the model files differ");
}

/// A rate at which every epoch makes things worse ends with the mixture that expectation-maximisation found.
#[test]
fn a_mixture_that_training_does_not_improve_is_kept() {
    for ema in [None, Some(0.5)] {
        let recipe = Recipe {
            base: BaseKind::Mixture,
            components: 2,
            learning_rate: 1.0,
            decay: Decay::Constant,
            warmup: 0,
            epochs: 3,
            ema,
            ..recipe()
        };
        let (fitted, _) = train(&mut cpu(&recipe), &recipe, Options::default(), 0);
        let record = &fitted.model.record;
        assert!(fitted.history.best().is_none() && record.best_epoch == Some(0), "{:?}", fitted.history);
        let validation = dataset().validation;
        let log_density = pollster::block_on(fitted.model.log_density(&mut cpu(&recipe), &validation));
        let log_density = log_density.expect("whole rows");
        let nll = -log_density.iter().sum::<f64>() / log_density.len() as f64;
        let told = record.validation_nll.expect("validated");
        assert!((told - nll).abs() < 1e-6, "{told} for {nll}");
        assert!(fitted.history.epochs.iter().all(|epoch| epoch.nll() > nll), "{:?}", fitted.history);
        // The rows are those of one Gaussian bent along a parabola: its normal scores are nearly normal.
        let check = record.check.as_ref().expect("checked");
        assert!(check.latent.iter().all(|feature| feature.distance < 0.35), "{check:?}");
    }
}

#[test]
fn another_recipe_other_rows_and_other_columns_are_refused_with_what_differs() {
    let checkpoint = interrupted(&mut cpu(&recipe()), &recipe(), 3);
    let refuse = |recipe: &Recipe, dataset: &Dataset, want: &str| {
        let options = resumed(checkpoint.clone());
        let mut engine = CpuEngine::<f32>::new(recipe.flow(3).expect("valid")).expect("valid");
        let error = fit_on(&mut engine, dataset, recipe, options, &mut ()).expect_err(want);
        assert!(matches!(error.problem(), Error::Argument(_)) && error.to_string().contains(want), "{error}");
    };
    for (recipe, want) in [
        (Recipe { batch: 16, ..recipe() }, "batch is 32 in the checkpoint, 16 now"),
        (Recipe { learning_rate: 0.03, ..recipe() }, "learning rate is 0.02"),
        (Recipe { hidden: vec![8], ..recipe() }, "hidden is [7] in the checkpoint, [8] now"),
        (Recipe { ema: Some(0.5), ..recipe() }, "ema is null in the checkpoint, 0.5 now"),
        (
            Recipe { epochs: 7, ..recipe() },
            "made for 6 epochs, got 7; its learning rate falls along a cosine",
        ),
        (Recipe { epochs: 2, decay: Decay::Constant, ..recipe() }, "decay is \"cosine\" in the checkpoint"),
    ] {
        refuse(&recipe, &dataset(), want);
    }
    let mut other = dataset();
    other.train[5] += 1e-3;
    refuse(&recipe(), &other, "the rows are not those");
    let mut other = dataset();
    other.validation[5] += 1e-3;
    refuse(&recipe(), &other, "the rows are not those");
    let mut other = dataset();
    other.preprocessing.standardiser.std[1] *= 2.0;
    refuse(&recipe(), &other, "the rows are not those");
    let mut other = dataset();
    other.columns[2] = "d".into();
    refuse(&recipe(), &other, "it has the columns a, b, c, and the data a, b, d");

    let constant = Recipe { decay: Decay::Constant, ..recipe() };
    let checkpoint = interrupted(&mut cpu(&constant), &constant, 3);
    let fewer = Recipe { epochs: 2, ..constant };
    let options = resumed(checkpoint);
    let error = fit_on(&mut cpu(&fewer), &dataset(), &fewer, options, &mut ()).expect_err("fewer");
    assert!(error.to_string().contains("has 3 epochs behind it already, got 2"), "{error}");
}

#[test]
fn files_that_are_no_checkpoints_say_what_is_wrong_with_them() {
    let recipe = Recipe { ema: Some(0.7), ..recipe() };
    let checkpoint = interrupted(&mut cpu(&recipe), &recipe, 2);
    let bytes = checkpoint.to_bytes();
    let (fitted, _) = train(&mut cpu(&recipe), &recipe, Options::default(), 1);
    let mut infinite = checkpoint.clone();
    infinite.state.moment1[3] = f32::INFINITY;
    let mut short = checkpoint.clone();
    short.state.best.as_mut().expect("validated").parameters.pop();
    let mut gap = checkpoint.clone();
    gap.trainer.history.epochs[1].epoch = 7;
    let mut averageless = checkpoint;
    averageless.trainer.average = None;
    for (bytes, want) in [
        (Vec::new(), "the file is empty"),
        (bytes[..bytes.len() - 1].to_vec(), "truncated"),
        (fitted.model.to_bytes(), "no checkpoint: its metadata has no entry `moonflow-checkpoint`"),
        (infinite.to_bytes(), "`moment1` is not finite: inf at 3"),
        (gap.to_bytes(), "its history has epoch 7 where 2 is due"),
        (averageless.to_bytes(), "its recipe and its average of the weights contradict each other"),
    ] {
        let error = Checkpoint::from_bytes("c", &bytes).expect_err(want);
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
        assert!(error.to_string().contains(want), "`{want}` is not in: {error}");
    }
    let error = Model::from_bytes("m", &bytes).expect_err("a checkpoint is no model").to_string();
    assert!(error.contains("no moonflow model"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_checkpoints_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        in_header in any::<bool>(),
    ) {
        thread_local! {
            static BYTES: Vec<u8> = interrupted(&mut cpu(&recipe()), &recipe(), 2).to_bytes();
        }
        let mut bytes = BYTES.with(Clone::clone);
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        for (place, byte) in flips {
            let place = place.index(if in_header { header } else { bytes.len() });
            bytes[place] = byte;
        }
        if let Ok(checkpoint) = Checkpoint::from_bytes("c", &bytes) {
            prop_assert!(checkpoint.state.parameters.iter().all(|value| value.is_finite()));
            prop_assert_eq!(checkpoint.trainer.history.epochs.len(), checkpoint.state.epoch as usize);
        }
    }
}

#[test]
fn averaged_weights_are_those_that_a_hand_computes_and_are_validated_themselves() {
    const F: f64 = 0.6;
    let recipe = Recipe { ema: Some(F), epochs: 4, ..recipe() };
    let dataset = dataset();
    let training = Training {
        weights: None,
        train: dataset.preprocessing.forward(&dataset.train).values.into(),
        validation: dataset.preprocessing.forward(&dataset.validation).values.into(),
        batch: recipe.batch,
        adam: recipe.adam(),
        schedule: recipe.schedule(3).expect("short"),
        seed: recipe.seed,
    };
    let mut engine = cpu(&recipe);
    engine.begin_training(&training, &State::initial(&recipe.flow(3).expect("valid"), 0)).expect("fits");
    let epochs: Vec<Vec<f32>> = (0..4)
        .map(|_| {
            engine.train(1).expect("training");
            engine.training_state().expect("training").parameters
        })
        .collect();
    let mut nll = Vec::new();
    let averages: Vec<Vec<f32>> = (1..=4)
        .map(|n| {
            let weights: Vec<f64> = (1..=n).map(|k| F.powi(n - k)).collect();
            let sum: f64 = weights.iter().sum();
            let average = |place: usize| {
                let terms = weights.iter().zip(&epochs).map(|(w, epoch)| w * f64::from(epoch[place]));
                (terms.sum::<f64>() / sum) as f32
            };
            let average: Vec<f32> = (0..epochs[0].len()).map(average).collect();
            engine.set_parameters(&average).expect("fits");
            let log_prob = engine.log_prob(&training.validation).expect("whole rows");
            let mean = log_prob.iter().map(|&value| f64::from(value)).sum::<f64>() / log_prob.len() as f64;
            nll.push(-mean - dataset.preprocessing.standardiser.log_det());
            average
        })
        .collect();
    let (fitted, _) = train(&mut cpu(&recipe), &recipe, Options::default(), 0);
    for (epoch, want) in fitted.history.epochs.iter().zip(&nll) {
        let got = epoch.validation_nll.expect("validation rows");
        assert!((got - want).abs() < 1e-6, "epoch {}: got {got}, want {want}", epoch.epoch);
    }
    let best = fitted.model.record.best_epoch.expect("validated") as usize - 1;
    assert!(nll.iter().all(|other| *other >= nll[best]));
    let off = |got: &[f32]| got.iter().zip(&averages[best]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off(&fitted.model.parameters) < 1e-6, "off by {}", off(&fitted.model.parameters));
    assert!(off(&epochs[best]) > 1e-3, "the average must not be the weights themselves");
}

/// Rows as they are, some of them too large for `f32` to square.
fn with_giants(giants: &[usize]) -> Dataset {
    let mut train = table(200, 3).values;
    giants.iter().for_each(|row| train[3 * row] = 1e30);
    Dataset {
        name: "t".into(),
        columns: ["a", "b", "c"].map(String::from).to_vec(),
        preprocessing: Standardiser::identity(3).into(),
        train,
        validation: table(20, 4).values,
        weights: None,
        far_out: Default::default(),
        seed: 0,
    }
}

#[test]
fn a_bad_row_costs_its_own_step_in_each_epoch_and_many_end_training() {
    let recipe = Recipe { batch: 8, epochs: 3, ..recipe() };
    let run = |giants: &[usize]| {
        let mut watch = watch(0.0, 0);
        let giants = with_giants(giants);
        let fitted = fit_on(&mut cpu(&recipe), &giants, &recipe, Options::default(), &mut watch);
        (fitted.expect("fits"), watch.events.len())
    };
    let (healthy, events) = run(&[]);
    assert_eq!((healthy.model.record.skipped_steps, events), (0, 0));
    let (fitted, events) = run(&[17]);
    assert_eq!((fitted.outcome, fitted.model.record.skipped_steps, events), (Outcome::Finished, 3, 3));
    for epoch in &fitted.history.epochs {
        assert_eq!(epoch.skipped, 1);
        assert!(epoch.train_nll.is_finite() && epoch.grad_norm.is_finite(), "{epoch:?}");
    }
    let difference = fitted.history.epochs[0].train_nll - healthy.history.epochs[0].train_nll;
    assert!(difference.abs() < 0.1 * healthy.history.epochs[0].train_nll.abs(), "{difference}");
    let (fitted, _) = run(&(0..200).step_by(2).collect::<Vec<_>>());
    assert_eq!(fitted.outcome, Outcome::NonFinite { epoch: 1 });
    assert_eq!(fitted.model.record.skipped_steps, 10);
}

#[test]
fn the_skipped_step_is_the_same_on_the_gpu() {
    let recipe = Recipe { batch: 64, epochs: 2, ..recipe() };
    let flow = recipe.flow(3).expect("valid");
    let Some(mut gpu) = crate::gpu::engine(&flow, PlanKind::Layered) else { return };
    // One row within an epoch, and one in the last batch of the first: nothing of that epoch is left behind it.
    let last = random::permute(199, 200, recipe.seed, Stream::Epoch, 0) as usize;
    let giants = with_giants(&[17, last]);
    let want = fit_on(&mut cpu(&recipe), &giants, &recipe, Options::default(), &mut ()).expect("fits");
    let got = fit_on(&mut gpu, &giants, &recipe, Options::default(), &mut ()).expect("fits");
    assert_eq!((want.model.record.skipped_steps, got.model.record.skipped_steps), (4, 4));
    for (got, want) in got.history.epochs.iter().zip(&want.history.epochs) {
        assert_eq!((got.epoch, got.skipped), (want.epoch, want.skipped));
        assert!((got.train_nll - want.train_nll).abs() < 1e-5 * want.train_nll.abs(), "{got:?} {want:?}");
        assert!((got.grad_norm - want.grad_norm).abs() < 1e-3 * want.grad_norm, "{got:?} {want:?}");
    }
}

#[test]
fn the_self_check_finds_nothing_in_a_good_model_and_what_is_wrong_with_broken_ones() {
    let table = table(1500, 7);
    let dataset = Dataset::split(&table, 0.3, 1).expect("splits");
    let recipe = Recipe { epochs: 25, batch: 128, layers: 4, hidden: vec![16], ..Recipe::default() };
    let mut engine = CpuEngine::<f32>::new(recipe.flow(3).expect("valid")).expect("valid");
    let model = fit_on(&mut engine, &dataset, &recipe, Options::default(), &mut ()).expect("fits").model;
    let mut check = |model: &Model, dataset: &Dataset| {
        pollster::block_on(self_check(model, &mut engine, dataset)).expect("checks")
    };
    let good = check(&model, &dataset);
    assert_eq!(Some(&good), model.record.check.as_ref());
    assert_eq!(good.suspicious, [""; 0], "{good:?}");
    assert!(good.round_trip < 1e-4 && good.log_det.is_some_and(|error| error < 1e-6), "{good:?}");
    assert!(good.gap_error.is_some_and(|error| error > 0.0), "{good:?}");
    assert_eq!((good.latent_rows, good.latent.len()), (450, 3));

    let scaled = |by: f32| {
        let mut model = model.clone();
        model.parameters.iter_mut().for_each(|value| *value *= by);
        model
    };
    let says = |check: &SelfCheck, want: &str| {
        assert!(check.suspicious.iter().any(|sentence| sentence.contains(want)), "{want}: {check:?}");
    };
    says(&check(&scaled(1.5), &dataset), "not normal in");
    says(&check(&scaled(f32::INFINITY), &dataset), "not finite");
    let mut moved = dataset.clone();
    moved.validation.iter_mut().step_by(3).for_each(|value| *value += 3.0);
    says(&check(&model, &moved), "learnt rows by heart");
    says(&check(&model, &moved), "not normal in a");
}

/// The check of a flow that has learnt nothing, over rows made of numbers from 0 to 1.
fn check_of_a_stalled_flow(
    recipe: &Recipe,
    plan: &PreprocessingPlan,
    row: impl Fn(f64, f64) -> [f64; 2],
) -> SelfCheck {
    let share = |i: u32, step: f64| (f64::from(i) * step).fract();
    let values = (0..6000)
        .flat_map(|i| row(share(i, 0.754_877_666_246_693), share(i, 0.569_840_290_998_053)))
        .collect();
    let table = Table { name: "t".into(), columns: vec!["a".into(), "b".into()], values };
    let dataset = Dataset::split_with(&table, 0.1, 1, plan).expect("splits");
    let mut engine = CpuEngine::<f32>::new(recipe.flow(2).expect("valid")).expect("valid");
    let recipe = Recipe { learning_rate: 1e-9, epochs: 1, ..recipe.clone() };
    let fitted = fit_on(&mut engine, &dataset, &recipe, Options::default(), &mut ()).expect("fits");
    fitted.model.record.check.expect("a check")
}

#[test]
fn a_flow_that_stalls_at_the_gaussian_is_found_and_rows_that_are_one_are_not() {
    let recipe = Recipe { layers: 4, hidden: vec![16], ..Recipe::default() };
    let plain = PreprocessingPlan::default();
    let stalled = |row: fn(f64, f64) -> [f64; 2]| check_of_a_stalled_flow(&recipe, &plain, row);
    let features = |check: &SelfCheck| {
        let all = check.findings.iter().find_map(|finding| match finding {
            Finding::NoBetterThanSimple { features, .. } => Some(features.clone()),
            _ => None,
        });
        all.unwrap_or_default()
    };
    let uniform = stalled(|a, b| [a, b]);
    assert_eq!(features(&uniform), [0, 1], "{uniform:?}");
    assert!(uniform.suspicious[0].contains("no better than"), "{uniform:?}");
    let comparison = uniform.comparison.expect("compared");
    // ½ ln(2πe / 12) for each column.
    assert!((comparison.model + 0.3528).abs() < 0.02, "{comparison:?}");
    // Kernel densities of the columns lose 0.01 nats of these at the edges.
    let kernel = comparison.kernel.expect("a plain preprocessing and validation rows");
    assert!((-0.36..-0.3).contains(&kernel.training) && kernel.validation < -0.25, "{kernel:?}");
    let bent = check_of_a_stalled_flow(
        &recipe,
        &PreprocessingPlan { margins: Margins::Kernel, ..plain.clone() },
        |a, b| [a, b],
    );
    assert_eq!(bent.comparison.expect("compared").kernel, None);

    /// Box and Muller's normal numbers (1958).
    fn normal(a: f64, b: f64) -> [f64; 2] {
        let (radius, angle) = ((-2.0 * (1.0 - a).ln()).sqrt(), std::f64::consts::TAU * b);
        [radius * angle.cos(), radius * angle.sin()]
    }
    let gaussian = stalled(|a, b| {
        let [x, y] = normal(a, b);
        [3.0 + 2.0 * x, y]
    });
    assert_eq!(gaussian.suspicious, [""; 0], "{gaussian:?}");
    // Normal columns that are not independent: a flow that does nothing is worse than the Gaussian.
    let correlated = stalled(|a, b| {
        let [x, y] = normal(a, b);
        [x, 0.8 * x + 0.6 * y]
    });
    let worse = |finding: &Finding| matches!(finding, Finding::WorseThanSimple { gain, .. } if (gain + 0.51).abs() < 0.05);
    assert!(correlated.findings.iter().any(worse), "{correlated:?}");
    // Normal columns that depend on each other: nothing but the pair shows it.
    let spread = stalled(|a, b| {
        let [x, y] = normal(a, b);
        [x, if x.abs() < 0.7 { 0.5 * y } else { 1.3 * y }]
    });
    assert_eq!(features(&spread), [0, 1], "{spread:?}");
}
