//! Where a context lies beside the one that a model was trained on: outside of it a flow extrapolates.

use super::Model;
use crate::error::{Result, expect_length};

/// A value of a context column that no row of the training reached.
#[derive(Clone, Debug, PartialEq)]
pub struct OutOfRange {
    /// Row of the context, from 0.
    pub row: usize,
    /// Column of the model, from 0.
    pub column: usize,
    /// The value.
    pub value: f64,
    /// Least and greatest value of the column in training.
    pub range: [f64; 2],
}

impl Model {
    /// The values of `context`, row-major [B, C] in the user's units, that lie outside of their columns' ranges in training, row
    /// by row. None where the model does not know the ranges: its file is of an earlier version.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length) when the context is not a whole number of rows.
    pub fn context_out_of_range(&self, context: &[f64]) -> Result<Vec<OutOfRange>> {
        let ranges = &self.record.context_ranges;
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        expect_length("context", context.len(), context.len().next_multiple_of(ranges.len()))?;
        let modelled = self.flow.modelled();
        let values = context.iter().enumerate().map(|(at, &value)| {
            let (row, place) = (at / ranges.len(), at % ranges.len());
            OutOfRange { row, column: modelled + place, value, range: ranges[place] }
        });
        Ok(values
            .filter(|OutOfRange { value, range: [low, high], .. }| !(low..=high).contains(&value))
            .collect())
    }
}
