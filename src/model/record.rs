//! What a model file says of its own training. It holds nothing that differs between two equal runs on one device:
//! no time, no path.

use serde::{Deserialize, Deserializer, Serialize};

use super::Recipe;

/// Where the training rows came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSource {
    /// Name of a toy density, or a file's name without its folder.
    pub name: String,
    /// For a toy density: the standard deviation of its noise, where it takes one.
    pub noise: Option<f64>,
    /// Whether `name` is a toy density, which can be drawn again.
    pub toy: bool,
    /// Rows, training and validation together.
    pub rows: usize,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All epochs were done.
    Finished,
    /// The observer asked for an end before.
    Interrupted,
    /// A loss or gradient that is not finite was met in `epoch`, counted from 1.
    NonFinite {
        /// The epoch.
        epoch: u32,
    },
}

/// The loss on rows that neither training nor validation has seen, in nats per row and the user's units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Rows.
    pub rows: usize,
    /// Mean of −log p.
    #[serde(deserialize_with = "null_as_nan")]
    pub nll: f64,
    /// Standard error of that mean.
    #[serde(deserialize_with = "null_as_nan")]
    pub standard_error: f64,
    /// Mean over the same rows of log p_true − log p: what separates the model from the entropy floor, an estimate
    /// of the Kullback–Leibler divergence. `None` where the true density is unknown.
    pub above_floor: Option<f64>,
    /// Standard error of `above_floor`.
    pub above_floor_error: Option<f64>,
}

/// The training behind a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Version of moonflow that trained it.
    pub moonflow: String,
    /// The training data.
    pub data: DataSource,
    /// The recipe, seed and preset included.
    pub recipe: Recipe,
    /// The device computed on, as [`crate::engine::DeviceInfo`] prints itself.
    pub device: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Completed epochs.
    pub epochs: u32,
    /// The epoch whose parameters were kept, counted from 1; `None` when no epoch improved.
    pub best_epoch: Option<u32>,
    /// Mean of −log p over the training rows in that epoch, nats, user's units.
    pub train_nll: Option<f64>,
    /// Mean of −log p over the validation rows after that epoch, nats, user's units.
    pub validation_nll: Option<f64>,
    /// The loss on fresh rows, where it was measured.
    pub held_out: Option<HeldOut>,
}

/// JSON has no NaN and no infinity: they are written as null.
fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
