//! What is said of a context that lies outside of the one that a model was trained on.

use moonflow::Result;
use moonflow::data::{TableColumn, ValueKind};
use moonflow::model::{OutOfRange, TableModel};
use moonflow::shown::shown;

use super::output::{grouped, note};

/// Values out of range that a command met, column by column.
pub struct Ranges {
    /// Of each context column: its range in training, rows out of it, and what the first of them is called, with its value.
    columns: Vec<Option<Beyond>>,
    first: usize,
}

struct Beyond {
    range: [f64; 2],
    rows: u64,
    first: String,
    value: f64,
}

impl Ranges {
    pub fn new(model: &TableModel) -> Self {
        let first = model.columns().len() - model.context();
        Self { columns: (0..model.context()).map(|_| None).collect(), first }
    }

    /// Takes note of rows of context [B, C]; `place` says what row r is called.
    ///
    /// # Errors
    /// Those of [`TableModel::context_out_of_range`].
    pub fn see(
        &mut self,
        model: &TableModel,
        context: &[f64],
        place: impl Fn(usize) -> String,
    ) -> Result<()> {
        for OutOfRange { row, column, value, range } in model.context_out_of_range(context)? {
            let beyond = self.columns[column - self.first].get_or_insert_with(|| Beyond {
                range,
                rows: 0,
                first: place(row),
                value,
            });
            beyond.rows += 1;
        }
        Ok(())
    }

    /// A warning for each column that has been out of its range.
    pub fn report(&self, model: &TableModel) {
        for (place, beyond) in self.columns.iter().enumerate() {
            let Some(Beyond { range: [low, high], rows, first, value }) = beyond else { continue };
            let column = &model.columns()[self.first + place];
            let [low, high, value] = [low, high, value].map(|value| written(column, *value));
            let column = shown(&column.name);
            let rows = match rows {
                1 => first.clone(),
                rows => format!("{} rows, the first of them {first}", grouped(*rows)),
            };
            note(format_args!(
                "warning: context `{column}` was from {low} to {high} in training; outside of that, where the model guesses: \
                 {rows} ({value})"
            ));
        }
    }
}

/// A number of `column` as a person reads it.
fn written(column: &TableColumn, value: f64) -> String {
    /// From here on digits say nothing more.
    const LARGE: f64 = 1e15;
    match column.kind() {
        ValueKind::Time(format) => format.text(value),
        _ if value.abs() < LARGE => value.to_string(),
        _ => format!("{value:e}"),
    }
}
