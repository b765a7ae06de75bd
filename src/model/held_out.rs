//! The loss of a model on rows that its training has not seen.

use rayon::prelude::*;

use super::{HeldOut, Model, WithinBounds};
use crate::engine::Engine;
use crate::error::Result;

impl Model {
    /// The loss on `rows`, row-major [B, D], in the user's units; without those that the model cannot have either, if there
    /// are any. `truth` gives the true log-density of a row where that is known: then the record says how far the
    /// model is above the entropy floor.
    ///
    /// # Errors
    /// Those of [`Model::log_prob`].
    pub async fn held_out<E: Engine>(
        &self,
        engine: &mut E,
        rows: &[f64],
        truth: impl Fn(&[f64]) -> Option<f64> + Sync,
    ) -> Result<HeldOut> {
        let log_prob = self.log_prob(engine, rows).await?;
        let rows = rows.chunks_exact(self.flow.features);
        Ok(summarise(rows, |row| self.preprocessing.accepts(row), &log_prob, truth))
    }
}

/// The loss on `rows` `[B]`, that have `log_prob` `[B]`, where `accepts` says which the model can have; see
/// [`Model::held_out`].
pub(super) fn summarise<'a>(
    rows: impl Iterator<Item = &'a [f64]>,
    accepts: impl Fn(&[f64]) -> bool,
    log_prob: &[f64],
    truth: impl Fn(&[f64]) -> Option<f64> + Sync,
) -> HeldOut {
    let pairs: Vec<(&[f64], f64)> = rows.zip(log_prob.iter().copied()).collect();
    let inside = pairs.iter().filter(|(row, _)| accepts(row)).map(|(_, log_prob)| *log_prob);
    let inside: Vec<f64> = inside.collect();
    // Row by row, because the noise of the true density and that of the model's are nearly the same.
    let above: Option<Vec<f64>> =
        pairs.par_iter().map(|(row, log_prob)| truth(row).map(|truth| truth - log_prob)).collect();
    let above = above.as_deref().map(mean_and_error);
    let (mean, standard_error) = mean_and_error(log_prob);
    let within_bounds = (inside.len() < log_prob.len()).then(|| {
        let (mean, standard_error) = mean_and_error(&inside);
        WithinBounds { rows: inside.len(), nll: -mean, standard_error, median: median_loss(&inside) }
    });
    HeldOut {
        rows: log_prob.len(),
        nll: -mean,
        standard_error,
        median: median_loss(log_prob),
        above_floor: above.map(|(mean, _)| mean),
        above_floor_error: above.map(|(_, error)| error),
        within_bounds,
    }
}

/// Mean of `values` and the standard error of that mean, which is NaN for fewer than two values.
pub(crate) fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// Median of −`log_prob` `[B]` in nats, where it is a number; none of no rows.
pub fn median_loss(log_prob: &[f64]) -> Option<f64> {
    let mut losses: Vec<f64> = log_prob.iter().map(|log_prob| -log_prob).collect();
    let middle = losses.len().checked_sub(1)? / 2;
    let (_, &mut low, above) = losses.select_nth_unstable_by(middle, f64::total_cmp);
    let high = if above.len() > middle { above.iter().copied().fold(f64::INFINITY, f64::min) } else { low };
    Some(0.5 * (low + high)).filter(|median| median.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_loss_is_between_the_middle_two_and_a_row_far_out_does_not_move_it() {
        for (log_prob, want) in [
            (&[][..], None),
            (&[-3.0], Some(3.0)),
            (&[-1.0, -4.0], Some(2.5)),
            (&[-1e12, -2.0, -1.0], Some(2.0)),
            (&[-1.0, -2.0, f64::NEG_INFINITY, -3.0], Some(2.5)),
            (&[f64::NEG_INFINITY; 3], None),
        ] {
            assert_eq!(median_loss(log_prob), want, "{log_prob:?}");
        }
    }

    #[test]
    fn mean_and_error_are_the_textbooks_and_one_value_has_no_error() {
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0, 4.0]);
        assert!((mean - 2.5).abs() < 1e-15 && (error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
        let (mean, error) = mean_and_error(&[7.0]);
        assert!(mean == 7.0 && error.is_nan());
    }
}
