//! What a training did, epoch by epoch, in the user's units; written as `history.csv` beside the model.

use std::io::Write;

use crate::engine::EpochRecord;
use crate::error::{Error, Result};

/// One epoch. Log-likelihoods are in nats per row, in the user's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Epoch, counted from 1.
    pub epoch: u32,
    /// Mean of −log p over the training rows, each taken before its step's update.
    pub train_nll: f64,
    /// Mean of −log p over the validation rows after the epoch; `None` without validation rows.
    pub validation_nll: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean over the steps of the gradient's norm before clipping.
    pub grad_norm: f64,
    /// Seconds from the start of training to the end of this epoch.
    pub seconds: f64,
    /// Whether these parameters were the best so far.
    pub improved: bool,
    /// Steps left out because their loss or gradient was not finite. Not part of `history.csv`.
    pub skipped: u32,
}

impl Epoch {
    /// The engine's record in the user's units; `log_det` is the preprocessing's mean over the training rows and
    /// over the validation rows, in nats.
    pub fn new(record: &EpochRecord, log_det: [f64; 2], seconds: f64) -> Self {
        Self {
            epoch: record.epoch,
            train_nll: record.train_nll - log_det[0],
            validation_nll: record.validation_nll.map(|nll| nll - log_det[1]),
            learning_rate: record.learning_rate,
            grad_norm: record.grad_norm,
            seconds,
            improved: record.improved,
            skipped: 0,
        }
    }

    /// The loss that the epoch is judged by: validation where there is one, else training.
    pub fn nll(&self) -> f64 {
        self.validation_nll.unwrap_or(self.train_nll)
    }
}

/// The epochs of a training, in order.
///
/// # Examples
/// ```
/// use moonflow::train::History;
///
/// # fn main() -> moonflow::Result<()> {
/// let text = "epoch,train_nll,val_nll,lr,grad_norm,seconds\n1,1.5,1.25,0.001,2,0.125\n";
/// let history = History::from_csv("history.csv", text)?;
/// assert_eq!(history.best().map(|epoch| epoch.nll()), Some(1.25));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// One entry per completed epoch.
    pub epochs: Vec<Epoch>,
}

/// Columns of `history.csv`.
const COLUMNS: [&str; 6] = ["epoch", "train_nll", "val_nll", "lr", "grad_norm", "seconds"];

impl History {
    /// The epoch whose parameters were kept: the last that improved on all before it.
    pub fn best(&self) -> Option<&Epoch> {
        self.epochs.iter().rev().find(|epoch| epoch.improved)
    }

    /// Writes `history.csv`: a header and a line per epoch. `val_nll` is empty without validation rows.
    ///
    /// # Errors
    /// Those of `writer`.
    pub fn write_csv(&self, writer: &mut dyn Write) -> std::io::Result<()> {
        writeln!(writer, "{}", COLUMNS.join(","))?;
        for epoch in &self.epochs {
            let validation = epoch.validation_nll.map(|nll| nll.to_string()).unwrap_or_default();
            writeln!(
                writer,
                "{},{},{validation},{},{},{:.3}",
                epoch.epoch, epoch.train_nll, epoch.learning_rate, epoch.grad_norm, epoch.seconds
            )?;
        }
        Ok(())
    }

    /// Reads what [`History::write_csv`] wrote; `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Data`] with line and column when it is anything else.
    pub fn from_csv(name: &str, text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let header = COLUMNS.join(",");
        if lines.next() != Some(header.as_str()) {
            return Err(Error::data(name, format!("not a training history: line 1 must be `{header}`")));
        }
        let mut history = Self::default();
        let mut best = f64::INFINITY;
        for (index, line) in lines.enumerate() {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |column: usize| -> Result<f64> {
                cells.get(column).and_then(|cell| cell.parse().ok()).ok_or_else(|| {
                    Error::data(name, format!("line {}, column {}: not a number", index + 2, COLUMNS[column]))
                })
            };
            let mut epoch = Epoch {
                epoch: number(0)? as u32,
                train_nll: number(1)?,
                validation_nll: if cells.get(2) == Some(&"") { None } else { Some(number(2)?) },
                learning_rate: number(3)?,
                grad_norm: number(4)?,
                seconds: number(5)?,
                improved: false,
                skipped: 0,
            };
            if epoch.validation_nll.is_some_and(|nll| nll < best) {
                best = epoch.nll();
                epoch.improved = true;
            }
            history.epochs.push(epoch);
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let epoch = |epoch, validation_nll, improved| Epoch {
            epoch,
            train_nll: 1.0 / f64::from(epoch + 2),
            validation_nll,
            learning_rate: 1e-3,
            grad_norm: 0.25,
            seconds: 0.5 * f64::from(epoch),
            improved,
            skipped: 0,
        };
        History {
            epochs: vec![epoch(1, Some(0.3), true), epoch(2, Some(0.2), true), epoch(3, Some(0.4), false)],
        }
    }

    fn csv(history: &History) -> String {
        let mut bytes = Vec::new();
        history.write_csv(&mut bytes).expect("a vector takes everything");
        String::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn csv_round_trip_is_exact() {
        let history = history();
        assert_eq!(History::from_csv("h", &csv(&history)).expect("own output"), history);
        assert_eq!(history.best().map(|epoch| epoch.epoch), Some(2));
    }

    #[test]
    fn missing_validation_is_an_empty_cell() {
        let mut history = history();
        history.epochs[0].validation_nll = None;
        history.epochs[0].improved = false;
        assert!(csv(&history).lines().nth(1).is_some_and(|line| line.contains(",,")));
        assert_eq!(History::from_csv("h", &csv(&history)).expect("own output"), history);
    }

    #[test]
    fn foreign_tables_and_bad_cells_are_refused() {
        for (text, want) in [
            ("", "not a training history"),
            ("a,b\n1,2\n", "not a training history"),
            ("epoch,train_nll,val_nll,lr,grad_norm,seconds\n1,x,,1,1,1\n", "line 2, column train_nll"),
            ("epoch,train_nll,val_nll,lr,grad_norm,seconds\n1,1\n", "line 2, column val_nll"),
        ] {
            let message = History::from_csv("h.csv", text).expect_err(want).to_string();
            assert!(message.contains(want) && message.starts_with("h.csv: "), "{message}");
        }
    }

    #[test]
    fn units_are_the_users() {
        let record = EpochRecord {
            epoch: 1,
            train_nll: 2.0,
            validation_nll: Some(3.0),
            learning_rate: 0.0,
            grad_norm: 0.0,
            improved: true,
            halted: false,
        };
        // log p(user) = log p(standardised) + log_det, so the NLL falls by log_det.
        let epoch = Epoch::new(&record, [0.5, 0.5], 0.0);
        assert_eq!((epoch.train_nll, epoch.validation_nll), (1.5, Some(2.5)));
    }
}
