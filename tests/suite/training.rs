//! Training as a whole: what is kept, when it ends, and what the model file makes of it.

use std::ops::ControlFlow;

use moonflow::data::{Dataset, Table};
use moonflow::engine::{DeviceInfo, Engine, EpochRecord, Sampling, Training, Transformed};
use moonflow::flow::Flow;
use moonflow::layout::Layout;
use moonflow::model::{DataSource, Model, Outcome, Recipe};
use moonflow::optimiser::State;
use moonflow::train::{Epoch, Observer, fit};
use moonflow::{Error, Result};

/// An engine whose training follows a script of validation losses; `None` is an epoch that is not finite.
///
/// Its parameters after epoch e are all e, so that a test sees which epoch was kept. As a density it is the
/// identity, so that a test sees what the model adds.
pub struct Scripted {
    device: DeviceInfo,
    flow: Flow,
    losses: Vec<Option<f64>>,
    done: usize,
    best: (f64, usize),
    halted: bool,
    chunks: Vec<u32>,
}

impl Scripted {
    pub fn new(flow: Flow, losses: &[Option<f64>]) -> Self {
        let device = DeviceInfo { name: "script".into(), backend: "cpu".into(), software: false };
        Self {
            device,
            flow,
            losses: losses.to_vec(),
            done: 0,
            best: (f64::INFINITY, 0),
            halted: false,
            chunks: Vec::new(),
        }
    }
}

impl Engine for Scripted {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn set_parameters(&mut self, _: &[f32]) -> Result<()> {
        Ok(())
    }

    async fn forward(&mut self, x: &[f32]) -> Result<Transformed> {
        Ok(Transformed { values: x.to_vec(), log_det: vec![0.0; x.len() / self.flow.features] })
    }

    async fn inverse(&mut self, z: &[f32]) -> Result<Transformed> {
        self.forward(z).await
    }

    /// The sum of the row's features.
    async fn log_prob(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(x.chunks(self.flow.features).map(|row| row.iter().sum()).collect())
    }

    /// Row r holds r in every feature, times the temperature.
    async fn sample(&mut self, sampling: Sampling) -> Result<Vec<f32>> {
        let rows = sampling.first..sampling.first + sampling.rows as u32;
        let value = |row: u32| row as f32 * sampling.temperature;
        Ok(rows.flat_map(|row| vec![value(row); self.flow.features]).collect())
    }

    fn begin_training(&mut self, _: Training, _: State) -> Result<()> {
        Ok(())
    }

    async fn train(&mut self, epochs: u32) -> Result<Vec<EpochRecord>> {
        self.chunks.push(epochs);
        let mut records = Vec::new();
        for _ in 0..epochs {
            let loss = self.losses[self.done];
            self.done += 1;
            self.halted |= loss.is_none();
            let improved = !self.halted && loss.is_some_and(|loss| loss < self.best.0);
            if let (true, Some(loss)) = (improved, loss) {
                self.best = (loss, self.done);
            }
            records.push(EpochRecord {
                epoch: self.done as u32,
                train_nll: loss.unwrap_or(f64::NAN),
                validation_nll: loss,
                learning_rate: 1e-3,
                grad_norm: 1.0,
                improved,
                halted: self.halted,
            });
        }
        Ok(records)
    }

    async fn training_state(&mut self) -> Result<State> {
        Ok(State::initial(&self.flow, 0))
    }

    async fn best_parameters(&mut self) -> Result<Vec<f32>> {
        Ok(vec![self.best.1 as f32; Layout::new(&self.flow).total])
    }
}

/// Lets time pass as a test says, and stops after an epoch.
struct Watch {
    now: f64,
    tick: f64,
    stop_after: u32,
    seen: Vec<Epoch>,
}

impl Observer for Watch {
    fn seconds(&mut self) -> f64 {
        self.now += self.tick;
        self.now
    }

    fn epoch(&mut self, epoch: &Epoch) -> ControlFlow<()> {
        self.seen.push(*epoch);
        if epoch.epoch == self.stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn watch(tick: f64, stop_after: u32) -> Watch {
    Watch { now: 100.0, tick, stop_after, seen: Vec::new() }
}

fn table() -> Table {
    let values = (0..60).map(|i| f64::from(i * i % 31) + f64::from(i % 2) * 100.0).collect();
    Table { name: "numbers".into(), columns: vec!["a".into(), "b".into()], values }
}

pub fn source() -> DataSource {
    DataSource { name: "numbers.csv".into(), noise: None, toy: false, rows: 30 }
}

pub fn small(epochs: u32) -> Recipe {
    Recipe { epochs, layers: 2, hidden: vec![3], ..Recipe::default() }
}

fn fitted(losses: &[Option<f64>], watch: &mut Watch) -> (moonflow::train::Fitted, Scripted) {
    let recipe = small(losses.len() as u32);
    let dataset = Dataset::split(&table(), 0.2, 1).expect("splits");
    let mut engine = Scripted::new(recipe.flow(2).expect("valid"), losses);
    let fitted = pollster::block_on(fit(&mut engine, &dataset, &recipe, source(), watch)).expect("fits");
    (fitted, engine)
}

#[test]
fn best_validation_parameters_are_kept_and_losses_are_in_the_users_units() {
    let mut watch = watch(1.0, 0);
    let (fitted, _) = fitted(&[Some(3.0), Some(1.0), Some(2.0)], &mut watch);
    assert_eq!(fitted.outcome, Outcome::Finished);
    assert!(fitted.model.parameters.iter().all(|&value| value == 2.0));
    assert_eq!(fitted.model.record.best_epoch, Some(2));
    let log_det = fitted.model.preprocessing.standardiser.log_det();
    assert!(log_det.abs() > 1.0, "the data must not be standardised already");
    assert_eq!(fitted.model.record.validation_nll, Some(1.0 - log_det));
    assert_eq!(fitted.history.epochs.len(), 3);
    assert_eq!(fitted.history.epochs, watch.seen);
    assert_eq!(fitted.history.epochs[0].train_nll, 3.0 - log_det);
    assert!(fitted.history.epochs.is_sorted_by(|a, b| a.seconds < b.seconds));
}

#[test]
fn observer_ends_training_after_the_running_epoch_and_keeps_the_best() {
    let (fitted, _) = fitted(&[Some(3.0), Some(1.0), Some(2.0), Some(0.5)], &mut watch(1.0, 3));
    assert_eq!(fitted.outcome, Outcome::Interrupted);
    assert_eq!(fitted.history.epochs.len(), 3);
    assert!(fitted.model.parameters.iter().all(|&value| value == 2.0));
    assert_eq!(fitted.model.record.epochs, 3);
}

#[test]
fn stop_asked_for_in_the_last_epoch_is_a_finished_training() {
    assert_eq!(fitted(&[Some(3.0), Some(1.0)], &mut watch(1.0, 2)).0.outcome, Outcome::Finished);
}

#[test]
fn non_finite_loss_ends_training_with_the_best_parameters_from_before() {
    let (fitted, _) = fitted(&[Some(3.0), Some(1.0), None, Some(0.5)], &mut watch(1.0, 0));
    assert_eq!(fitted.outcome, Outcome::NonFinite { epoch: 3 });
    assert!(fitted.model.parameters.iter().all(|&value| value == 2.0));
    assert_eq!((fitted.model.record.epochs, fitted.model.record.best_epoch), (2, Some(2)));
    let bytes = fitted.model.to_bytes();
    assert_eq!(Model::from_bytes("m", &bytes).expect("its file is whole"), fitted.model);
}

#[test]
fn non_finite_first_epoch_keeps_the_initial_parameters() {
    let (fitted, _) = fitted(&[None, None], &mut watch(1.0, 0));
    assert_eq!(fitted.outcome, Outcome::NonFinite { epoch: 1 });
    assert!(fitted.history.epochs.is_empty());
    assert_eq!(fitted.model.record.best_epoch, None);
    Model::from_bytes("m", &fitted.model.to_bytes()).expect("its file is whole");
}

#[test]
fn short_epochs_are_asked_for_several_at_once_and_long_ones_singly() {
    let losses: Vec<_> = (0..25).map(|epoch| Some(f64::from(epoch))).collect();
    assert_eq!(fitted(&losses, &mut watch(1e-4, 0)).1.chunks, [1, 10, 10, 4]);
    assert!(fitted(&losses, &mut watch(1.0, 0)).1.chunks.iter().all(|&chunk| chunk == 1));
}

#[test]
fn engine_of_another_flow_is_refused() {
    let dataset = Dataset::split(&table(), 0.2, 1).expect("splits");
    let mut engine = Scripted::new(Flow::new(2, 3, &[3]).expect("valid"), &[]);
    let error =
        pollster::block_on(fit(&mut engine, &dataset, &small(1), source(), &mut ())).expect_err("other flow");
    assert!(matches!(error, Error::Argument(_)), "{error}");
}
