//! Where a context lies beside the one that a model was trained on: outside of it a flow extrapolates.

use super::{Model, TableModel};
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
        let columns: Vec<usize> = (self.flow.modelled()..self.flow.features).collect();
        out_of_range(&self.record.context_ranges, &columns, self.flow.modelled(), columns.len(), context)
    }
}

impl TableModel {
    /// As [`Model::context_out_of_range`], of the numbers in `context`, row-major [B, C]; an unknown level of a category is
    /// refused where it is read.
    ///
    /// # Errors
    /// As [`Model::context_out_of_range`].
    pub fn context_out_of_range(&self, context: &[f64]) -> Result<Vec<OutOfRange>> {
        let Some(density) = self.density() else { return Ok(Vec::new()) };
        let given = self.context();
        let first = self.columns().len() - given;
        let ranges = &density.first().record.context_ranges;
        out_of_range(ranges, self.encoding().given_numbers(), first, given, context)
    }
}

/// The values at `columns` of rows of context, row-major [B, `given`] from column `first` on, that lie outside of `ranges`,
/// which begin with those of `columns`.
fn out_of_range(
    ranges: &[[f64; 2]],
    columns: &[usize],
    first: usize,
    given: usize,
    context: &[f64],
) -> Result<Vec<OutOfRange>> {
    if ranges.is_empty() || columns.is_empty() {
        return Ok(Vec::new());
    }
    expect_length("context", context.len(), context.len().next_multiple_of(given))?;
    let rows = context.chunks_exact(given).enumerate();
    let values = rows.flat_map(|(row, values)| {
        columns.iter().zip(ranges).map(move |(&column, &range)| OutOfRange {
            row,
            column,
            value: values[column - first],
            range,
        })
    });
    Ok(values.filter(|OutOfRange { value, range: [low, high], .. }| !(low..=high).contains(&value)).collect())
}
