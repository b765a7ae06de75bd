//! Some of a dataset's rows, with what each counts.

use crate::data::CountedRows;
use crate::model::mean_and_error;

/// Rows, and how much each counts.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Row-major `[N, D]`.
    pub rows: Vec<f64>,
    /// `[N]`, all above zero; `None` where all count alike.
    pub weights: Option<Vec<f64>>,
}

impl Sample {
    /// At most `most` of `rows`, evenly spaced among those whose weight is not zero.
    pub fn spaced(rows: &CountedRows<'_>, most: usize) -> Self {
        let mut counted = (0..rows.len()).filter(|&row| rows.weight(row) > 0.0);
        let count = counted.clone().count();
        let wanted = count.min(most);
        let mut passed = 0;
        let place = |index: usize| {
            let before = index * count / wanted - passed;
            passed += before + 1;
            counted.nth(before)
        };
        let chosen: Vec<usize> = (0..wanted).filter_map(place).collect();
        let weights = || chosen.iter().map(|&row| rows.weight(row)).collect();
        Self {
            rows: chosen.iter().flat_map(|&row| rows.row(row)).copied().collect(),
            weights: rows.are_weighted().then(weights),
        }
    }

    /// What row number `row` counts.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[row])
    }

    /// As many rows of equal weight would have means as sure as these `count` rows (Kish 1965).
    pub fn effective(&self, count: usize) -> f64 {
        self.weights.as_ref().map_or(count as f64, |weights| {
            let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
            weights.iter().sum::<f64>().powi(2) / squares
        })
    }

    /// Weighted mean of a number for each row `[N]`, and its standard error, which is NaN for fewer than two.
    pub fn mean_and_error(&self, values: &[f64]) -> (f64, f64) {
        let Some(weights) = &self.weights else { return mean_and_error(values) };
        let total: f64 = weights.iter().sum();
        let mean = std::iter::zip(weights, values).map(|(weight, value)| weight * value).sum::<f64>() / total;
        let squares: f64 =
            std::iter::zip(weights, values).map(|(weight, value)| (weight * (value - mean)).powi(2)).sum();
        let count = values.len() as f64;
        (mean, squares.sqrt() / total * (count / (count - 1.0)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_evenly_spaced_never_repeated_and_count_for_something() {
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        let all = CountedRows::alike(&values, 2);
        assert_eq!(Sample::spaced(&all, 3).rows, [0.0, 1.0, 6.0, 7.0, 12.0, 13.0]);
        assert_eq!(Sample::spaced(&all, 100).rows, values);
        let weights: Vec<f64> = (0..10).map(|row| f64::from(row % 2)).collect();
        let sample = Sample::spaced(&CountedRows::new(&values, 2, Some(&weights), &[]), 3);
        assert_eq!(sample.rows, [2.0, 3.0, 6.0, 7.0, 14.0, 15.0]);
        assert_eq!(sample.weights, Some(vec![1.0; 3]));
    }

    #[test]
    fn equal_weights_are_as_none_and_a_heavy_row_counts() {
        let values = [1.0, 2.0, 3.0, 7.0];
        let weighted = |weights: Option<Vec<f64>>| Sample { rows: Vec::new(), weights };
        let (plain, even) = (weighted(None), weighted(Some(vec![3.0; 4])));
        let ((mean, error), (even_mean, even_error)) =
            (plain.mean_and_error(&values), even.mean_and_error(&values));
        assert!((mean - even_mean).abs() < 1e-14 && (error - even_error).abs() < 1e-14);
        assert_eq!((plain.effective(4), even.effective(4)), (4.0, 4.0));
        let heavy = weighted(Some(vec![1.0, 1.0, 1.0, 3.0]));
        assert!((heavy.mean_and_error(&values).0 - 4.5).abs() < 1e-14);
        assert!((heavy.effective(4) - 3.0).abs() < 1e-14);
    }
}
