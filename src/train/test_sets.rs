//! The loss of finished models on rows that neither training nor validation has seen, for its record.
//! It follows training and changes nothing else of the model.

use crate::data::{Dataset, ToyDensity};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Engines, TableModel};

/// Rows that neither training nor validation sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestSets<'a> {
    /// The density that the training rows were drawn from, where it is known: fresh rows are drawn from it.
    pub density: Option<&'a ToyDensity>,
    /// Rows kept for a test, row-major [T, D], in the user's units.
    pub rows: Option<&'a [f64]>,
}

/// Rows drawn from a density.
const FRESH_ROWS: usize = 20_000;

impl TestSets<'_> {
    /// That they are rows like those of `dataset`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the density is of other columns, [`Error::Length`] when the rows are not whole.
    pub fn validate(&self, dataset: &Dataset) -> Result<()> {
        let features = dataset.features();
        if self.density.is_some() && (features != ToyDensity::FEATURES || dataset.preprocessing.context > 0) {
            return Err(Error::Argument(format!(
                "a toy density has {} columns and no context; the dataset has {features} columns, {} of them context",
                ToyDensity::FEATURES,
                dataset.preprocessing.context
            )));
        }
        let values = self.rows.map_or(0, <[f64]>::len);
        crate::error::expect_length("test rows", values, values.next_multiple_of(features))
    }

    /// Scores `model` on each and puts the losses into its record: [`held_out`](crate::model::TrainingRecord::held_out) on
    /// fresh rows, which are drawn under a seed that no training of its recipe uses, and
    /// [`test`](crate::model::TrainingRecord::test). Rows are those of the table, [T, D], with the places of their levels for
    /// categories. A loss that cannot be computed is `None` and does not affect the other.
    ///
    /// # Errors
    /// Those of [`TableModel::held_out`], of the first that fails.
    pub async fn score<E: Engine>(&self, model: &mut TableModel, engines: &mut Engines<E>) -> Result<()> {
        let held_out = match (self.density, model.density()) {
            (Some(density), Some(ensemble)) => {
                let rows = density.sample(FRESH_ROWS, !model.record().recipe.seed);
                let truth = |row: &[f64]| density.log_density([row[0], row[1]]);
                ensemble.held_out(engines, &rows, truth).await.map(Some)
            }
            _ => Ok(None),
        };
        let test = match self.rows {
            Some(rows) => model.held_out(engines, rows).await.map(Some),
            None => Ok(None),
        };
        let record = model.record_mut();
        record.held_out = held_out.as_ref().copied().unwrap_or_default();
        record.test = test.as_ref().copied().unwrap_or_default();
        held_out.and(test).map(drop)
    }
}
