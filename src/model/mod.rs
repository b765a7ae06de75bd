//! What is kept of a training: flow, parameters, standardiser, column names and the training's record.
//! It stands between the engines, which know standardised units, and the user, whose units it takes and gives.

pub(crate) mod file;
mod recipe;
mod record;

use std::borrow::Cow;

pub use file::FORMAT_VERSION;
pub use recipe::Recipe;
pub use record::{DataSource, HeldOut, LatentFeature, Outcome, SelfCheck, TrainingRecord};

use crate::data::{Standardiser, Table};
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;

/// A fitted density over named columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The flow.
    pub flow: Flow,
    /// Flat parameters `[P]`, in the order of [`crate::layout::Layout`].
    pub parameters: Vec<f32>,
    /// Between the user's units and the engine's.
    pub standardiser: Standardiser,
    /// Column names `[D]`.
    pub columns: Vec<String>,
    /// The training that it came from.
    pub record: TrainingRecord,
}

/// Values that a pass over one piece of a batch may hold per activation.
const PIECE: usize = 1 << 22;

impl Model {
    /// log p(x) of each row `[B]`, in nats per user's unit: the engine's, plus the standardiser's log-determinant.
    ///
    /// `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// When `rows` is not a whole number of rows, the engine executes another flow, or the device is lost.
    pub async fn log_prob<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        self.load_into(engine)?;
        let log_det = self.standardiser.log_det();
        let mut log_prob = Vec::with_capacity(rows.len() / self.flow.features);
        for piece in self.pieces(rows)? {
            let standardised = engine.log_prob(&self.standardiser.apply(piece)).await?;
            log_prob.extend(standardised.iter().map(|&value| f64::from(value) + log_det));
        }
        Ok(log_prob)
    }

    /// Latent z of each row, row-major [B, D], standard normal when the model fits.
    ///
    /// `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// As [`Model::log_prob`].
    pub async fn latent<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        self.load_into(engine)?;
        let mut latent = Vec::with_capacity(rows.len());
        for piece in self.pieces(rows)? {
            let transformed = engine.forward(&self.standardiser.apply(piece)).await?;
            latent.extend(transformed.values.iter().map(|&value| f64::from(value)));
        }
        Ok(latent)
    }

    /// Rows drawn from the model, row-major [rows, D], in the user's units. The noise is drawn on the device.
    ///
    /// # Errors
    /// When the temperature is negative or not finite, the rows exceed 32 bits, the engine executes another flow,
    /// or the device is lost.
    pub async fn sample<E: Engine>(&self, engine: &mut E, sampling: Sampling) -> Result<Vec<f64>> {
        if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
            return Err(Error::Argument(format!(
                "the temperature must be at least 0 and finite, got {}",
                sampling.temperature
            )));
        }
        let end = u32::try_from(sampling.rows).ok().and_then(|rows| sampling.first.checked_add(rows));
        let Some(end) = end else {
            return Err(Error::Argument(format!(
                "at most {} rows can be sampled from one seed, got {}",
                u32::MAX - sampling.first,
                sampling.rows
            )));
        };
        self.load_into(engine)?;
        let mut values = Vec::with_capacity(sampling.rows * self.flow.features);
        let mut first = sampling.first;
        while first < end {
            let rows = self.piece_rows().min((end - first) as usize);
            let x = engine.sample(Sampling { rows, first, ..sampling }).await?;
            values.extend(self.standardiser.invert(&x));
            first += rows as u32;
        }
        Ok(values)
    }

    /// The table's values, row-major [B, D], in the model's order of columns.
    ///
    /// Columns are found by name, in any order; a table without a header (its columns are x0, x1 and so on) is
    /// taken as it stands.
    ///
    /// # Errors
    /// [`Error::Data`] with the columns expected and got when they differ in more than order.
    pub fn arrange<'a>(&self, table: &'a Table) -> Result<Cow<'a, [f64]>> {
        let (want, got) = (&self.columns, &table.columns);
        let list = |columns: &[String]| columns.join(", ");
        if got.len() != want.len() {
            return Err(Error::data(
                &table.name,
                format!(
                    "has {} columns ({}), but the model was trained on {} ({})",
                    got.len(),
                    list(got),
                    want.len(),
                    list(want)
                ),
            ));
        }
        let unnamed = got.iter().enumerate().all(|(index, name)| *name == format!("x{index}"));
        if got == want || unnamed {
            return Ok(Cow::Borrowed(&table.values));
        }
        let places: Option<Vec<usize>> =
            want.iter().map(|name| got.iter().position(|other| other == name)).collect();
        let Some(places) = places else {
            return Err(Error::data(
                &table.name,
                format!(
                    "has the columns {}, but the model was trained on {}; rename them (their order is free)",
                    list(got),
                    list(want)
                ),
            ));
        };
        let rows = table.values.chunks_exact(got.len());
        Ok(Cow::Owned(rows.flat_map(|row| places.iter().map(|&place| row[place])).collect()))
    }

    /// Puts the parameters into an engine of the same flow.
    fn load_into<E: Engine>(&self, engine: &mut E) -> Result<()> {
        if engine.flow() != &self.flow {
            return Err(Error::Argument("the engine was made for another flow than this model's".into()));
        }
        engine.set_parameters(&self.parameters)
    }

    /// Rows that are handed to the engine at a time: what a pass holds stays bounded, however long the table.
    fn piece_rows(&self) -> usize {
        let widest = self.flow.widths().into_iter().max().expect("invariant: a flow has widths");
        (PIECE / widest).max(1)
    }

    fn pieces<'a>(&self, rows: &'a [f64]) -> Result<std::slice::Chunks<'a, f64>> {
        let features = self.flow.features;
        expect_length("rows", rows.len(), rows.len().next_multiple_of(features))?;
        Ok(rows.chunks(self.piece_rows() * features))
    }
}
