//! Training: runs an engine epoch by epoch over a dataset and keeps the parameters that do best on validation rows.
//! It stands between a [`Dataset`](crate::Dataset) and a [`Model`](crate::Model), and decides nothing that the
//! [`Recipe`] does not say.

mod average;
mod categories;
mod check;
mod checkpoint;
mod ensemble;
mod fit;
mod groups;
mod history;
mod initialise;
mod margins;
pub mod search;
mod shape;
mod test_sets;
mod training_loop;

use std::fmt;
use std::ops::ControlFlow;

pub use average::Average;
pub use categories::CategoryFit;
pub use check::self_check;
pub use checkpoint::{CHECKPOINT_VERSION, Checkpoint, fingerprint};
pub use ensemble::Members;
pub use fit::{Fitted, Options, fit, fit_with};
pub use groups::Groups;
pub use history::{Epoch, History};
pub use shape::training_shape;
pub use test_sets::TestSets;
pub use training_loop::TrainerState;

pub use crate::model::{Outcome, Recipe};

use crate::error::Result;

/// Something that happened within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step was skipped, because its loss or gradient was not finite.
    Skipped {
        /// The epoch, counted from 1.
        epoch: u32,
    },
    /// A loss rose steeply, or was never finite, and training went back to an earlier state at half the rate.
    RolledBack {
        /// The epoch, counted from 1.
        epoch: u32,
        /// The epoch whose end it went back to.
        to: u32,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped { epoch } => {
                write!(f, "epoch {epoch}: skipped a step whose loss or gradient was not finite")
            }
            Self::RolledBack { epoch, to } => {
                write!(
                    f,
                    "epoch {epoch}: the loss rose steeply; back to the end of epoch {to}, at half the rate"
                )
            }
        }
    }
}

/// What watches a training, and may end it.
pub trait Observer {
    /// Seconds on a clock that never goes back. The epoch is arbitrary.
    ///
    /// The default reads the operating system's clock; where there is none (wasm32) it always gives 0, so that a
    /// browser host gives its own.
    fn seconds(&mut self) -> f64 {
        clock()
    }

    /// Called after every completed epoch, in order. [`ControlFlow::Break`] ends the training; what has been reached
    /// by then is kept.
    fn epoch(&mut self, epoch: &Epoch) -> ControlFlow<()>;

    /// Called for what happened within an epoch.
    fn event(&mut self, _: Event) {}

    /// Called with the training as it is, to be continued another time: see [`Options`] for when.
    ///
    /// # Errors
    /// What goes wrong in keeping it, which ends the training.
    fn checkpoint(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    /// Called with the training as it ended, in the place of [`Observer::checkpoint`]: for an observer that writes the model
    /// first.
    ///
    /// # Errors
    /// Those of [`Observer::checkpoint`].
    fn last_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.checkpoint(&checkpoint)
    }

    /// Called with the parameters `[P]` after `epoch` epochs, for the epochs of [`Options::snapshots`]: their average where
    /// the recipe asks for one.
    fn snapshot(&mut self, _epoch: u32, _parameters: &[f32]) {}
}

/// Watches nothing.
impl Observer for () {
    fn epoch(&mut self, _: &Epoch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn clock() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

#[cfg(target_arch = "wasm32")]
fn clock() -> f64 {
    0.0
}
