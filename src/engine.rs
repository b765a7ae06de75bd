//! What executes a flow: the one interface that training, scoring and sampling talk to.
//! Everything here is in standardised units; [`crate::model::Model`] converts to and from the user's.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;
use crate::optimiser::{Adam, Schedule, State};

/// The device that an engine computes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name, as the driver gives it.
    pub name: String,
    /// `cpu`, `vulkan`, `metal`, `dx12` or `webgpu`.
    pub backend: String,
    /// For a GPU adapter: whether it is software that runs on the CPU.
    pub software: bool,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let software = if self.software { ", software adapter" } else { "" };
        write!(f, "{} ({}{software})", self.name, self.backend)
    }
}

/// The result of [`Engine::forward`] or [`Engine::inverse`].
#[derive(Clone, Debug, PartialEq)]
pub struct Transformed {
    /// z of a forward pass, x of an inverse pass; row-major [B, D].
    pub values: Vec<f32>,
    /// log |det| of the Jacobian of the direction taken, per row `[B]`, in nats.
    pub log_det: Vec<f32>,
}

/// A request for latent noise carried through the inverse pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Number of samples.
    pub rows: usize,
    /// Row number of the first sample: rows `first..first + rows` of one seed are the same however they are cut.
    pub first: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// Factor on the latent noise; 1 samples the model itself.
    pub temperature: f32,
}

/// The data and rules of one training. Tables are shared, so that to begin again copies none.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Training rows, standardised, row-major [N, D].
    pub train: Arc<Vec<f32>>,
    /// Validation rows, standardised, row-major [V, D]; may be empty.
    pub validation: Arc<Vec<f32>>,
    /// How much each row counts in losses; `None` where all count alike.
    pub weights: Option<RowWeights>,
    /// Rows per step; the last step of an epoch takes what is left.
    pub batch: u32,
    /// The update rule.
    pub adam: Adam,
    /// The learning rate.
    pub schedule: Schedule,
    /// Seed of the epochs' row orders.
    pub seed: u64,
}

/// How much each row counts: a loss is Σ w · (−log p) / Σ w. Weights are finite and not negative, and not all zero; a common
/// factor that is a power of two changes no bit.
#[derive(Clone, Debug, PartialEq)]
pub struct RowWeights {
    /// Of the training rows `[N]`.
    pub train: Arc<Vec<f32>>,
    /// Of the validation rows `[V]`.
    pub validation: Arc<Vec<f32>>,
}

impl RowWeights {
    /// Checks the rules for so many training and validation rows.
    fn validate(&self, train: usize, validation: usize) -> Result<()> {
        for (what, weights, rows) in [
            ("weights of the training rows", &self.train, train),
            ("weights of the validation rows", &self.validation, validation),
        ] {
            expect_length(what, weights.len(), rows)?;
            if let Some(row) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                let weight = weights[row];
                return Err(Error::Argument(format!(
                    "{what} must be finite and not negative, got {weight} at row {row}"
                )));
            }
            if !weights.is_empty() && weights.iter().all(|&weight| weight == 0.0) {
                return Err(Error::Argument(format!("{what} must not all be zero")));
            }
        }
        Ok(())
    }
}

/// Sizes and rules of a training, without its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingShape {
    /// Training rows N.
    pub train_rows: usize,
    /// Validation rows V.
    pub validation_rows: usize,
    /// Rows of a step.
    pub batch: usize,
    /// The update rule.
    pub adam: Adam,
    /// The learning rate.
    pub schedule: Schedule,
    /// Seed of the epochs' row orders.
    pub seed: u64,
    /// Sums of the weights of training and validation rows; `None` where all rows count alike.
    pub weights: Option<[f32; 2]>,
}

impl TrainingShape {
    /// The shape of `training` for rows of `features`.
    pub fn new(training: &Training, features: usize) -> Self {
        let train_rows = training.train.len() / features;
        Self {
            train_rows,
            validation_rows: training.validation.len() / features,
            batch: (training.batch as usize).min(train_rows),
            adam: training.adam,
            schedule: training.schedule,
            seed: training.seed,
            weights: training.weights.as_ref().map(|RowWeights { train, validation }| {
                let sum =
                    |weights: &[f32]| weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() as f32;
                [sum(train), sum(validation)]
            }),
        }
    }
}

/// Number of rows of `features` in `values`, which must be whole.
///
/// # Errors
/// [`Error::Length`] with the next whole number of rows as what is expected.
pub fn whole_rows<T>(what: &'static str, values: &[T], features: usize) -> Result<usize> {
    let rows = values.len().div_ceil(features);
    expect_length(what, values.len(), rows * features)?;
    Ok(rows)
}

impl Training {
    /// Checks that rows of `features` are whole and countable, and that `state` holds `parameters` parameters.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Argument`] that names the rule and the value got.
    pub fn validate(&self, state: &State, features: usize, parameters: usize) -> Result<()> {
        let rows = whole_rows("training rows", &self.train, features)?;
        let validation_rows = whole_rows("validation rows", &self.validation, features)?;
        if let Some(weights) = &self.weights {
            weights.validate(rows, validation_rows)?;
        }
        if rows == 0 || u32::try_from(rows).is_err() {
            return Err(Error::Argument(format!(
                "training needs between 1 and {} rows, got {rows}",
                u32::MAX
            )));
        }
        if self.batch == 0 {
            return Err(Error::Argument("the batch must hold at least 1 row, got 0".into()));
        }
        for (what, values) in [
            ("parameters of the state", &state.parameters),
            ("first moment of the state", &state.moment1),
            ("second moment of the state", &state.moment2),
        ] {
            expect_length(what, values.len(), parameters)?;
        }
        if let Some(best) = &state.best {
            expect_length("best parameters of the state", best.parameters.len(), parameters)?;
        }
        let taken = state.row as usize;
        if taken > rows || (taken < rows && !state.row.is_multiple_of(self.batch)) {
            return Err(Error::Argument(format!(
                "a state within an epoch must have taken whole batches of {} of its {rows} rows, got {taken} rows",
                self.batch
            )));
        }
        Ok(())
    }

    /// Whether it has the very tables of `other`, and its rules.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self { train, validation, weights, batch, adam, schedule, seed } = self;
        let same_weights = match (weights, &other.weights) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                Arc::ptr_eq(&own.train, &other.train) && Arc::ptr_eq(&own.validation, &other.validation)
            }
            _ => false,
        };
        same_weights
            && Arc::ptr_eq(train, &other.train)
            && Arc::ptr_eq(validation, &other.validation)
            && (batch, adam, schedule, seed) == (&other.batch, &other.adam, &other.schedule, &other.seed)
    }

    /// Steps in one epoch over `rows` training rows.
    ///
    /// # Panics
    /// When the batch is 0.
    pub fn steps_per_epoch(rows: usize, batch: u32) -> u32 {
        rows.div_ceil(batch as usize) as u32
    }
}

/// What one epoch of training did. Log-likelihoods are in nats per row, in standardised units.
///
/// The epoch's rows are those that steps were taken on: fewer than all when the state that training began from stood
/// within the epoch, or when training halted. Means over no rows are NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochRecord {
    /// Epoch, counted from 1.
    pub epoch: u32,
    /// Mean of −log p over the epoch's rows, each taken before its step's update.
    pub train_nll: f64,
    /// Mean of −log p over the validation rows after the epoch; `None` without validation rows.
    pub validation_nll: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean over the steps of the gradient's norm before clipping.
    pub grad_norm: f64,
    /// Whether the validation loss is the lowest so far, and these parameters were kept as the best.
    pub improved: bool,
    /// Whether a non-finite loss or gradient was met. From then on no step changes anything.
    pub halted: bool,
}

/// A device that holds one flow's parameters and computes with them.
///
/// All slices are row-major [B, D] in standardised units.
pub trait Engine {
    /// The device computed on.
    fn device(&self) -> &DeviceInfo;

    /// The flow executed.
    fn flow(&self) -> &Flow;

    /// Replaces the parameters `[P]`, in the order of [`crate::layout::Layout`].
    ///
    /// A training under way must find its own parameters: a caller that evaluates others in between puts them back.
    ///
    /// # Errors
    /// When the length differs from the flow's or the device is lost.
    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()>;

    /// Data x → latent z with log |det ∂z/∂x|.
    ///
    /// # Errors
    /// [`Error::Length`] when `x` are not whole rows, [`Error::Device`] when the device is lost.
    fn forward(&mut self, x: &[f32]) -> impl Future<Output = Result<Transformed>>;

    /// Latent z → data x with log |det ∂x/∂z|.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    fn inverse(&mut self, z: &[f32]) -> impl Future<Output = Result<Transformed>>;

    /// log p(x) per row `[B]` in nats: base density of z plus the forward log-determinant.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    fn log_prob(&mut self, x: &[f32]) -> impl Future<Output = Result<Vec<f32>>>;

    /// The score function ∇ₓ log p at rows `x` [B, D], in the units of `x`, the context included: [B, D].
    ///
    /// # Errors
    /// As [`Engine::forward`].
    fn score(&mut self, x: &[f32]) -> impl Future<Output = Result<Vec<f32>>>;

    /// Draws latent noise on the device and carries it through the inverse pass: x, row-major [rows, D].
    ///
    /// # Errors
    /// As [`Engine::sample_given`]; a conditional flow needs a context.
    fn sample(&mut self, sampling: Sampling) -> impl Future<Output = Result<Vec<f32>>> {
        self.sample_given(sampling, &[])
    }

    /// As [`Engine::sample`] for a conditional flow: row r follows the context `context`\[r\], row-major
    /// [rows, C] and standardised; the result's rows hold the features and then that context, [rows, D].
    ///
    /// # Errors
    /// [`Error::Length`] when the context is not as many rows, [`Error::Device`] when the device is lost.
    fn sample_given(&mut self, sampling: Sampling, context: &[f32])
    -> impl Future<Output = Result<Vec<f32>>>;

    /// Takes the data to the device and starts training from `state`, within an epoch when it stands within one. Tables that
    /// are there already, from a training with the same rules, are not taken again.
    ///
    /// # Errors
    /// Those of [`Training::validate`], and [`Error::Device`] when the training does not fit the device.
    fn begin_training(&mut self, training: Training, state: State) -> Result<()>;

    /// Trains for `epochs` whole epochs, each followed by its validation, and reports them in order.
    ///
    /// # Errors
    /// [`Error::Argument`] when no training was begun, [`Error::Device`] when the device is lost.
    fn train(&mut self, epochs: u32) -> impl Future<Output = Result<Vec<EpochRecord>>>;

    /// The state after the last completed step. Once halted, that is the one before the step that was not finite.
    ///
    /// # Errors
    /// As [`Engine::train`].
    fn training_state(&mut self) -> impl Future<Output = Result<State>>;

    /// The parameters `[P]` after the epoch with the lowest validation loss; the current ones where there is none.
    ///
    /// # Errors
    /// As [`Engine::train`].
    fn best_parameters(&mut self) -> impl Future<Output = Result<Vec<f32>>>;
}
