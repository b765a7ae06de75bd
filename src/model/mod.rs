//! What is kept of a training: flow, parameters, preprocessing, column names and the training's record.
//! It stands between the engines, which know standardised units, and the user, whose units it takes and gives.

mod cells;
mod check;
pub(crate) mod container;
mod context;
pub mod discrete;
mod encoding;
mod ensemble;
mod file;
mod held_out;
mod preprocessing;
mod recipe;
mod record;
mod spread;
mod table_file;
mod table_model;

use std::borrow::Cow;

pub use check::{
    Baseline, Comparison, CouplingUnits, Finding, KernelGain, LatentFeature, LayerUnits, PairStructure,
    SelfCheck, SharedColumn, Structure,
};
pub use context::OutOfRange;
pub use encoding::Encoding;
pub use ensemble::{Engines, Ensemble};
pub use file::FORMAT_VERSION;
pub(crate) use held_out::mean_and_error;
pub use held_out::median_loss;
pub use recipe::Recipe;
pub use record::{DataSource, HeldOut, Outcome, TrainingRecord, WithinBounds};
use spread::{Effort, Spreads};
pub use table_model::TableModel;

use crate::data::{Preprocessed, Preprocessing, Table, find_columns};
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;
use crate::mixture::Mixture;
use crate::shown::{shown, shown_list};

/// A fitted density over named columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The flow.
    pub flow: Flow,
    /// Flat parameters `[P]`, in the order of [`crate::layout::Layout`].
    pub parameters: Vec<f32>,
    /// Between the user's units and the engine's.
    pub preprocessing: Preprocessing,
    /// Column names `[D]`.
    pub columns: Vec<String>,
    /// The training that it came from.
    pub record: TrainingRecord,
}

/// Values that a pass over one piece of a batch may hold per activation.
const PIECE: usize = 1 << 22;

impl Model {
    /// log p(x) of each row `[B]`, in nats per user's unit; where columns are dequantised or a row is at their
    /// atoms, the log of a probability in those columns and of a density in the others. −∞ for a row outside of the bounds.
    ///
    /// `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// When `rows` is not a whole number of rows, the engine executes another flow, or the device is lost.
    pub async fn log_prob<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        let mut spreads = Spreads::new(&self.preprocessing, self.record.narrow_cells);
        if spreads.are_none() {
            return self.log_density(engine, rows).await;
        }
        self.load_into(engine)?;
        let features = self.flow.features;
        let mut log_prob = Vec::with_capacity(rows.len() / features);
        for piece in self.pieces(rows, spreads.most_nodes())? {
            let row = |row: &usize| &piece[row * features..(row + 1) * features];
            let accepted: Vec<usize> =
                (0..piece.len() / features).filter(|place| self.preprocessing.accepts(row(place))).collect();
            let start = log_prob.len();
            log_prob.resize(start + piece.len() / features, f64::NEG_INFINITY);
            // Few nodes first, and more of them for the rows that want more.
            let mut open = accepted;
            for effort in Effort::IN_TURN {
                if open.is_empty() {
                    break;
                }
                let rows: Vec<f64> = open.iter().flat_map(row).copied().collect();
                let spread = spreads.of(&rows, effort);
                let terms = self.log_density_of(engine, &spread.rows).await?;
                let mut left = Vec::new();
                for (place, log_sum) in open.into_iter().zip(spread.log_sums(&terms)) {
                    match log_sum {
                        Some(log_sum) => log_prob[start + place] = log_sum,
                        None => left.push(place),
                    }
                }
                open = left;
            }
        }
        Ok(log_prob)
    }

    /// log p(x) of each row `[B]` as [`Model::log_prob`], but of the density that the flow has in dequantised columns,
    /// where a value x has the cell from x to x + step, and in columns with atoms, where rows at these have noise.
    ///
    /// # Errors
    /// As [`Model::log_prob`].
    pub async fn log_density<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        self.load_into(engine)?;
        let mut log_density = Vec::with_capacity(rows.len() / self.flow.features);
        for piece in self.pieces(rows, 1)? {
            log_density.extend(self.log_density_of(engine, piece).await?);
        }
        Ok(log_density)
    }

    /// The score function ∇ₓ log p at each row, row-major [B, D], in nats per user's unit, the context included. NaN in a row
    /// outside of the bounds.
    ///
    /// `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// As [`Model::log_prob`]; [`Error::Argument`] where columns are dequantised or have atoms, which have probabilities and
    /// no slope;
    /// [`Error::Device`] when the engine does not compute it.
    pub async fn score<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        if let Some(&(column, _)) = self.preprocessing.dequantized().first() {
            return Err(Error::Argument(format!(
                "column `{}` is dequantised, and its values have probabilities: log p has no gradient there",
                shown(&self.columns[column])
            )));
        }
        if let Some(atoms) = self.preprocessing.atoms.first() {
            return Err(Error::Argument(format!(
                "column `{}` has atoms, which have probabilities: log p has no gradient there",
                shown(&self.columns[atoms.column])
            )));
        }
        self.load_into(engine)?;
        let mut scores = Vec::with_capacity(rows.len());
        for piece in self.pieces(rows, 1)? {
            let standardised = engine.score(&self.preprocessing.forward(piece).values).await?;
            let mut gradients: Vec<f64> = standardised.into_iter().map(f64::from).collect();
            self.preprocessing.backward(piece, &mut gradients);
            scores.extend(gradients);
        }
        Ok(scores)
    }

    /// [`Model::log_density`] of one piece, by an engine that has the parameters.
    async fn log_density_of<E: Engine>(&self, engine: &mut E, piece: &[f64]) -> Result<Vec<f64>> {
        let Preprocessed { values, log_det } = self.preprocessing.forward(piece);
        let standardised = engine.log_prob(&values).await?;
        Ok(standardised.iter().zip(log_det).map(|(&value, log_det)| f64::from(value) + log_det).collect())
    }

    /// Latent z of each row, row-major [B, D], standard normal when the model fits; a context follows it, in the
    /// engine's units. Where the base density is a mixture, its distribution functions give the normal scores. Values of a dequantised column are
    /// taken in the middle of their cell, atoms at the median of the other rows; a row outside of the bounds has NaN.
    ///
    /// `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// As [`Model::log_prob`].
    pub async fn latent<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        let spreads = Spreads::new(&self.preprocessing, self.record.narrow_cells);
        if spreads.are_none() {
            return self.latent_of_noisy(engine, rows).await;
        }
        self.latent_of_noisy(engine, &spreads.middles(rows)).await
    }

    /// As [`Model::latent`], for rows whose dequantised columns and atoms have their noise.
    ///
    /// # Errors
    /// As [`Model::log_prob`].
    pub async fn latent_of_noisy<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        let mut latent = self.base_values(engine, rows).await?;
        self.normal_scores(&mut latent);
        Ok(latent)
    }

    /// The values of the base density's variable at each row, row-major [B, D], for rows whose dequantised columns have their
    /// noise: what the transforms make of them.
    ///
    /// # Errors
    /// As [`Model::log_prob`].
    pub(crate) async fn base_values<E: Engine>(&self, engine: &mut E, rows: &[f64]) -> Result<Vec<f64>> {
        self.load_into(engine)?;
        let features = self.flow.features;
        let mut latent = Vec::with_capacity(rows.len());
        for piece in self.pieces(rows, 1)? {
            let Preprocessed { values, log_det } = self.preprocessing.forward(piece);
            let transformed = engine.forward(&values).await?;
            for (row, log_det) in transformed.values.chunks_exact(features).zip(log_det) {
                let outside = log_det == f64::NEG_INFINITY;
                latent.extend(row.iter().map(|&value| if outside { f64::NAN } else { f64::from(value) }));
            }
        }
        Ok(latent)
    }

    /// Turns [`Model::base_values`] into standard normal numbers by the base density's own distribution functions.
    pub(crate) fn normal_scores(&self, values: &mut [f64]) {
        if let Some(mixture) = Mixture::of(&self.flow, &self.parameters) {
            mixture.normal_scores(self.flow.features, values);
        }
    }

    /// Rows drawn from the model, row-major [rows, D], in the user's units. The noise is drawn on the device.
    ///
    /// # Errors
    /// When the temperature is negative or not finite, the rows exceed 32 bits, the flow is conditional, the engine
    /// executes another flow, or the device is lost.
    pub async fn sample<E: Engine>(&self, engine: &mut E, sampling: Sampling) -> Result<Vec<f64>> {
        self.sample_given(engine, sampling, &[]).await
    }

    /// As [`Model::sample`], row r given the context `context`\[r\], row-major [rows, C], in the user's units, which
    /// stands at the row's end.
    ///
    /// # Errors
    /// Those of [`Model::sample`]; when the context is not as many rows, or a value is one that its column cannot have; and
    /// when a sample is not finite, which a context far outside of the training data may cause.
    pub async fn sample_given<E: Engine>(
        &self,
        engine: &mut E,
        sampling: Sampling,
        context: &[f64],
    ) -> Result<Vec<f64>> {
        let Flow { features, context: given, .. } = self.flow;
        if context.len() != sampling.rows * given {
            return Err(if context.is_empty() {
                let names = shown_list(&self.columns[features - given..]);
                Error::Argument(format!("the model is conditional; sampling it needs values of {names}"))
            } else {
                Error::Length { what: "context", got: context.len(), expected: sampling.rows * given }
            });
        }
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
            let from = (first - sampling.first) as usize;
            let context = &context[from * given..(from + rows) * given];
            let standardised = self.preprocessing.context_forward(context, &self.columns)?;
            let x = engine.sample_given(Sampling { rows, first, ..sampling }, &standardised).await?;
            let start = values.len();
            values.extend(self.preprocessing.inverse(&x));
            if given > 0 {
                // As it was given, without the digits that single precision took.
                for (row, context) in
                    values[start..].chunks_exact_mut(features).zip(context.chunks_exact(given))
                {
                    row[features - given..].copy_from_slice(context);
                }
                self.preprocessing.restore_atoms(&mut values[start..]);
            }
            if let Some(at) = values[start..].iter().position(|value| !value.is_finite()) {
                let (row, column) = (first as usize + at / features + 1, shown(&self.columns[at % features]));
                return Err(Error::Argument(format!(
                    "sample {row} has no finite number for column `{column}`: what it is given lies too far outside of the \
                     training data, or the temperature is too high"
                )));
            }
            first += rows as u32;
        }
        Ok(values)
    }

    /// The table's values, row-major [B, D], in the model's order of columns; other columns are left out.
    ///
    /// Columns are found as by [`Model::find_columns`]; a table whose columns are x0, x1 and so on has no names.
    ///
    /// # Errors
    /// Those of [`Model::find_columns`].
    pub fn arrange<'a>(&self, table: &'a Table) -> Result<Cow<'a, [f64]>> {
        let named = !table.columns.iter().enumerate().all(|(index, name)| *name == format!("x{index}"));
        let (places, _) = self.find_columns(&table.name, &table.columns, named)?;
        if places.iter().copied().eq(0..table.columns.len()) {
            return Ok(Cow::Borrowed(&table.values));
        }
        let rows = table.values.chunks_exact(table.columns.len());
        Ok(Cow::Owned(rows.flat_map(|row| places.iter().map(|&place| row[place])).collect()))
    }

    /// Where among `columns` the model's are, in the model's order, and which are left over. `name` is what errors
    /// call the table.
    ///
    /// Columns are found by name, in any order. A table that is not `named` and has as many columns as the model is
    /// taken as it stands.
    ///
    /// # Errors
    /// [`Error::Data`] with the column that is missing and the names like it, and the columns that are expected.
    pub fn find_columns(
        &self,
        name: &str,
        columns: &[String],
        named: bool,
    ) -> Result<(Vec<usize>, Vec<usize>)> {
        find_columns(&self.columns, "the model was trained on", name, columns, named)
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
        (PIECE / self.flow.widest()).max(1)
    }

    /// `rows` cut so that `times` as many rows are handed to the engine at a time.
    fn pieces<'a>(&self, rows: &'a [f64], times: usize) -> Result<std::slice::Chunks<'a, f64>> {
        let features = self.flow.features;
        expect_length("rows", rows.len(), rows.len().next_multiple_of(features))?;
        Ok(rows.chunks((self.piece_rows() / times).max(1) * features))
    }
}
