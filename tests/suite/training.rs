//! Training as a whole: what is kept, when it ends, and what the model file makes of it.

use std::ops::ControlFlow;

use moonflow::data::{Dataset, Table};
use moonflow::engine::{DeviceInfo, Engine, EpochRecord, Sampling, Training, Transformed};
use moonflow::flow::Flow;
use moonflow::layout::Layout;
use moonflow::model::{DataSource, Model, Outcome, Recipe};
use moonflow::optimiser::{Best, State};
use moonflow::train::{Checkpoint, Epoch, Event, Fitted, Observer, Options, fit, fit_with};
use moonflow::{Error, Result};

/// An engine whose training follows a script of validation losses; `None` is an epoch whose only step is not finite.
///
/// Its parameters after epoch e are all e, so that a test sees which epoch was kept. As a density it is the
/// identity, so that a test sees what the model adds.
pub struct Scripted {
    device: DeviceInfo,
    flow: Flow,
    losses: Vec<Option<f64>>,
    done: usize,
    /// Whether the step of the epoch under way has been left out.
    left_out: bool,
    best: Option<(f64, Vec<f32>)>,
    chunks: Vec<u32>,
    /// Rate and epoch of each state that a training was begun from.
    begun: Vec<(f32, u32)>,
}

impl Scripted {
    pub fn new(flow: Flow, losses: &[Option<f64>]) -> Self {
        let device = DeviceInfo { name: "script".into(), backend: "cpu".into(), software: false };
        Self {
            device,
            flow,
            losses: losses.to_vec(),
            done: 0,
            left_out: false,
            best: None,
            chunks: Vec::new(),
            begun: Vec::new(),
        }
    }

    fn parameters(&self, epoch: usize) -> Vec<f32> {
        vec![epoch as f32; Layout::new(&self.flow).total]
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

    /// The gradient of that sum.
    async fn score(&mut self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(vec![1.0; x.len()])
    }

    /// Row r holds r in every feature, times the temperature.
    async fn sample(&mut self, sampling: Sampling) -> Result<Vec<f32>> {
        let rows = sampling.first..sampling.first + sampling.rows as u32;
        let value = |row: u32| row as f32 * sampling.temperature;
        Ok(rows.flat_map(|row| vec![value(row); self.flow.features]).collect())
    }

    async fn sample_given(&mut self, sampling: Sampling, _: &[f32]) -> Result<Vec<f32>> {
        self.sample(sampling).await
    }

    fn begin_training(&mut self, training: Training, state: State) -> Result<()> {
        self.begun.push((training.schedule.base, state.epoch));
        self.done = state.epoch as usize;
        self.left_out = state.row > 0;
        self.best = state.best.map(|best| (best.nll, best.parameters));
        Ok(())
    }

    async fn train(&mut self, epochs: u32) -> Result<Vec<EpochRecord>> {
        self.chunks.push(epochs);
        let mut records = Vec::new();
        for _ in 0..epochs {
            let loss = self.losses[self.done];
            let halted = loss.is_none() && !self.left_out;
            let improved =
                loss.is_some_and(|loss| self.best.as_ref().is_none_or(|(lowest, _)| loss < *lowest));
            records.push(EpochRecord {
                epoch: self.done as u32 + 1,
                train_nll: loss.unwrap_or(f64::NAN),
                validation_nll: Some(loss.unwrap_or(f64::INFINITY)),
                learning_rate: 1e-3,
                grad_norm: 1.0,
                improved,
                halted,
            });
            if halted {
                break;
            }
            self.done += 1;
            self.left_out = false;
            if let (true, Some(loss)) = (improved, loss) {
                self.best = Some((loss, self.parameters(self.done)));
            }
        }
        Ok(records)
    }

    async fn training_state(&mut self) -> Result<State> {
        Ok(State {
            step: self.done as u32,
            epoch: self.done as u32,
            best: self.best.clone().map(|(nll, parameters)| Best { nll, parameters }),
            ..State::from_parameters(self.parameters(self.done))
        })
    }

    async fn best_parameters(&mut self) -> Result<Vec<f32>> {
        Ok(self.best.clone().map_or_else(|| self.parameters(self.done), |(_, parameters)| parameters))
    }
}

/// Lets time pass as a test says, and stops after an epoch.
pub struct Watch {
    now: f64,
    tick: f64,
    stop_after: u32,
    pub seen: Vec<Epoch>,
    pub events: Vec<Event>,
    pub checkpoints: Vec<Checkpoint>,
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

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.checkpoints.push(checkpoint.clone());
        Ok(())
    }
}

pub fn watch(tick: f64, stop_after: u32) -> Watch {
    Watch { now: 100.0, tick, stop_after, seen: Vec::new(), events: Vec::new(), checkpoints: Vec::new() }
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

fn fitted(losses: &[Option<f64>], watch: &mut Watch) -> (Fitted, Scripted) {
    practised(&small(losses.len() as u32), losses, Options::default(), watch)
}

/// Of 24 training rows.
fn practised(
    recipe: &Recipe,
    losses: &[Option<f64>],
    options: Options,
    watch: &mut Watch,
) -> (Fitted, Scripted) {
    let dataset = Dataset::split(&table(), 0.2, 1).expect("splits");
    let mut engine = Scripted::new(recipe.flow(2).expect("valid"), losses);
    let fitted = fit_with(&mut engine, &dataset, recipe, source(), options, watch);
    (pollster::block_on(fitted).expect("fits"), engine)
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

#[test]
fn patience_ends_training_and_the_best_parameters_are_kept() {
    let losses = [3.0, 1.0, 2.0, 2.0, 1.0, 0.5, 0.4].map(Some);
    // Whether epochs are looked at singly or ten at a time must not matter: the sixth would be better again.
    for tick in [1.0, 1e-6] {
        let recipe = Recipe { patience: Some(3), ..small(7) };
        let (fitted, engine) = practised(&recipe, &losses, Options::default(), &mut watch(tick, 0));
        assert_eq!((fitted.outcome, fitted.history.epochs.len()), (Outcome::EarlyStop, 5), "tick {tick}");
        assert_eq!(engine.done, 5, "no epoch is trained that patience does not reach");
        assert!(fitted.model.parameters.iter().all(|&value| value == 2.0));
        assert_eq!((fitted.model.record.epochs, fitted.model.record.best_epoch), (5, Some(2)));
        let recipe = Recipe { patience: Some(4), ..recipe };
        let (fitted, _) = practised(&recipe, &losses, Options::default(), &mut watch(tick, 0));
        assert_eq!((fitted.outcome, fitted.model.record.best_epoch), (Outcome::Finished, Some(7)));
    }
}

#[test]
fn time_limit_ends_training_with_a_checkpoint_after_the_epoch_under_way() {
    let losses: Vec<_> = (0..40).map(|epoch| Some(f64::from(epoch))).collect();
    let options = Options { time_limit: Some(20.0), ..Options::default() };
    let mut watch = watch(1.0, 0);
    let (fitted, _) = practised(&small(40), &losses, options, &mut watch);
    assert_eq!(fitted.outcome, Outcome::TimeLimit);
    let epochs = fitted.history.epochs.len();
    assert!((3..15).contains(&epochs), "{epochs} epochs of three looks at the clock each");
    assert_eq!(watch.checkpoints.len(), 1);
    assert_eq!(watch.checkpoints[0].trainer.history, fitted.history);
}

#[test]
fn checkpoints_come_every_so_many_epochs_and_after_the_last() {
    let losses: Vec<_> = (0..11).map(|epoch| Some(f64::from(epoch))).collect();
    let options = Options { checkpoint_every: Some(4), ..Options::default() };
    let mut watch = watch(1e-6, 0);
    practised(&small(11), &losses, options, &mut watch);
    let epochs: Vec<_> = watch.checkpoints.iter().map(|kept| (kept.state.epoch, kept.state.row)).collect();
    assert_eq!(epochs, [(4, 0), (8, 0), (11, 0)]);
}

#[test]
fn steps_that_are_not_finite_are_skipped_counted_and_told() {
    // Three steps an epoch.
    let recipe = Recipe { batch: 8, ..small(4) };
    let mut watch = watch(1.0, 0);
    let options = Options { checkpoint_every: Some(1), ..Options::default() };
    let (fitted, engine) = practised(&recipe, &[Some(3.0), None, Some(1.0), None], options, &mut watch);
    assert_eq!((fitted.outcome, fitted.model.record.skipped_steps), (Outcome::Finished, 2));
    let skipped: Vec<_> = fitted.history.epochs.iter().map(|epoch| epoch.skipped).collect();
    assert_eq!(skipped, [0, 1, 0, 1]);
    assert_eq!(watch.events, [Event::Skipped { epoch: 2 }, Event::Skipped { epoch: 4 }]);
    assert_eq!(fitted.model.record.best_epoch, Some(3));
    assert_eq!(engine.begun.iter().map(|begun| begun.1).collect::<Vec<_>>(), [0, 1, 3]);
    let rows: Vec<_> =
        watch.checkpoints.iter().map(|kept| (kept.state.epoch, kept.trainer.skipped)).collect();
    assert_eq!(rows, [(1, 0), (2, 1), (3, 1), (4, 2)], "checkpoints stand between epochs");
}

#[test]
fn a_steep_rise_goes_back_to_the_epoch_before_at_half_the_rate() {
    // The script does not learn from it; so after eight times it is taken as it is.
    let recipe = Recipe { rollback: true, ..small(4) };
    let losses = [3.0, 1.0, 2.5, 2.0].map(Some);
    let mut watch = watch(1.0, 0);
    let (fitted, engine) = practised(&recipe, &losses, Options::default(), &mut watch);
    let begun: Vec<_> = (0..=8).map(|k| (5e-3 * 0.5f32.powi(k), if k == 0 { 0 } else { 2 })).collect();
    assert_eq!(engine.begun, begun);
    assert_eq!(watch.events, [Event::RolledBack { epoch: 3, to: 2 }; 8]);
    assert_eq!((fitted.outcome, fitted.model.record.rollbacks), (Outcome::Finished, 8));
    assert_eq!(fitted.history.epochs.len(), 4);
    assert!(fitted.model.parameters.iter().all(|&value| value == 2.0), "the best survives a rollback");
    // One nat over two columns is no steep rise, and without the option none is.
    for (losses, rollback) in [([3.0, 1.0, 1.9, 2.0], true), ([3.0, 1.0, 9.0, 2.0], false)] {
        let recipe = Recipe { rollback, ..small(4) };
        let (fitted, _) = practised(&recipe, &losses.map(Some), Options::default(), &mut watch);
        assert_eq!(fitted.model.record.rollbacks, 0);
    }
}
