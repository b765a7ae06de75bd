//! What a model file says of its own training. It holds nothing that differs between two equal runs on one device:
//! no time, no path.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Recipe, SelfCheck};
use crate::data::ToyDensity;

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

impl DataSource {
    /// Of `rows` rows drawn from a toy density.
    pub fn toy(density: &ToyDensity, rows: usize) -> Self {
        Self { name: density.name().to_owned(), noise: Some(density.noise()), toy: true, rows }
    }

    /// Of `rows` rows of a table.
    pub fn table(name: impl Into<String>, rows: usize) -> Self {
        Self { name: name.into(), noise: None, toy: false, rows }
    }
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// All epochs were done.
    Finished,
    /// The observer asked for an end before.
    Interrupted,
    /// The validation loss had not fallen for as many epochs as the recipe's patience.
    EarlyStop,
    /// The time was up.
    TimeLimit,
    /// Too many steps in a row had a loss or gradient that is not finite, the last of them in `epoch`, counted from 1.
    NonFinite {
        /// The epoch.
        epoch: u32,
    },
}

impl Outcome {
    /// Whether training came to the end that its recipe has.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Finished | Self::EarlyStop)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
            Self::EarlyStop => "stopped early",
            Self::TimeLimit => "ended by its time limit",
            Self::NonFinite { epoch } => {
                return write!(f, "stopped by a number that is not finite in epoch {epoch}");
            }
        })
    }
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
    /// Median of −log p, which rows far out do not move. `None` in files of earlier versions, and without rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// Mean over the same rows of log p_true − log p: what separates the model from the entropy floor, an estimate
    /// of the Kullback–Leibler divergence. `None` where the true density is unknown.
    pub above_floor: Option<f64>,
    /// Standard error of `above_floor`.
    pub above_floor_error: Option<f64>,
    /// Where some rows lie outside of the model's bounds, or between the values of a dequantised column: the
    /// loss without them. They have no density, so that `nll` is infinite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_bounds: Option<WithinBounds>,
}

/// The loss on those rows that a model has a density for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithinBounds {
    /// Rows.
    pub rows: usize,
    /// Mean of −log p.
    #[serde(deserialize_with = "null_as_nan")]
    pub nll: f64,
    /// Standard error of that mean.
    #[serde(deserialize_with = "null_as_nan")]
    pub standard_error: f64,
    /// Median of −log p. `None` in files of earlier versions, and without rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
}

/// How a model was trained.
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
    /// Steps left out because their loss or gradient was not finite.
    #[serde(default)]
    pub skipped_steps: u32,
    /// Times that training went back to an earlier state, each at half the rate before.
    #[serde(default)]
    pub rollbacks: u32,
    /// The loss on fresh rows, where it was measured.
    pub held_out: Option<HeldOut>,
    /// The loss on the rows kept for a test, where there are any.
    #[serde(default)]
    pub test: Option<HeldOut>,
    /// Least and greatest value of each context column among training and validation rows, but for a few far from the others,
    /// `[C]`, in the user's units. None of a model without context, and of files of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context_ranges: Vec<[f64; 2]>,
    /// Results of the self-check after training.
    #[serde(default)]
    pub check: Option<SelfCheck>,
    /// Whether the narrow cells of dequantised columns are scored by few nodes. Not in files of earlier versions, whose scores
    /// keep their bits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub narrow_cells: bool,
}

impl TrainingRecord {
    /// That of a training by `recipe` on `data` and `device` before its first epoch.
    pub(crate) fn begun(recipe: Recipe, data: DataSource, device: String) -> Self {
        Self {
            moonflow: env!("CARGO_PKG_VERSION").into(),
            data,
            recipe,
            device,
            outcome: Outcome::Finished,
            epochs: 0,
            best_epoch: None,
            train_nll: None,
            validation_nll: None,
            skipped_steps: 0,
            rollbacks: 0,
            held_out: None,
            test: None,
            context_ranges: Vec::new(),
            check: None,
            narrow_cells: false,
        }
    }
}

/// JSON has no NaN and no infinity: they are written as null.
pub(super) fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
