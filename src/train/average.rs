//! An exponential moving average of the weights over epochs, judged and kept in place of the weights themselves.
//! It stands beside the engine, which goes on training the weights that are averaged.

use crate::optimiser::Best;

/// The mean of the parameters after epochs 1 … n, the k-th weighed by F^(n − k).
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    /// Flat parameters `[P]`.
    pub parameters: Vec<f64>,
    /// Epochs n that went into it.
    pub epochs: u32,
    /// The average with the lowest validation loss so far.
    pub best: Option<Best>,
}

impl Average {
    /// The average of nothing, for `parameters` parameters.
    pub fn new(parameters: usize) -> Self {
        Self { parameters: vec![0.0; parameters], epochs: 0, best: None }
    }

    /// Takes in the parameters `[P]` after another epoch: θ̄ ← θ̄ + w (θ − θ̄) with w = (1 − F) / (1 − Fⁿ), so that the
    /// first epoch is taken whole and nothing is left of the zeros that the average began with.
    pub fn take(&mut self, parameters: &[f32], decay: f64) {
        self.epochs += 1;
        let weight = (1.0 - decay) / (1.0 - decay.powf(f64::from(self.epochs)));
        for (average, &parameter) in self.parameters.iter_mut().zip(parameters) {
            *average += weight * (f64::from(parameter) - *average);
        }
    }

    /// The average as an engine takes it `[P]`.
    pub fn narrow(&self) -> Vec<f32> {
        self.parameters.iter().map(|&value| value as f32).collect()
    }

    /// Keeps the average as the best if `nll`, its validation loss, is the lowest so far; says whether it is.
    pub fn judge(&mut self, nll: f64) -> bool {
        let improved = nll < self.best.as_ref().map_or(f64::INFINITY, |best| best.nll);
        if improved {
            self.best = Some(Best { nll, parameters: self.narrow() });
        }
        improved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_the_weighted_mean_that_a_hand_computes() {
        let mut average = Average::new(2);
        let epochs = [[1.0f32, -8.0], [3.0, 4.0], [-2.0, 0.5]];
        for parameters in &epochs {
            average.take(parameters, 0.5);
        }
        // Weights 1/4, 1/2 and 1, divided by their sum 7/4.
        for (got, want) in average.parameters.iter().zip([-0.25 / 1.75, 0.5 / 1.75]) {
            assert!((got - want).abs() < 1e-15, "got {got}, want {want}");
        }
        let mut once = Average::new(2);
        once.take(&epochs[0], 0.999);
        assert!(
            once.parameters.iter().zip(epochs[0]).all(|(got, want)| (got - f64::from(want)).abs() < 1e-12)
        );
    }

    #[test]
    fn the_best_average_is_kept_and_neither_worse_nor_nan_replaces_it() {
        let mut average = Average::new(1);
        average.take(&[2.0], 0.5);
        assert!(average.judge(1.0));
        average.take(&[8.0], 0.5);
        assert!(!average.judge(1.5) && !average.judge(f64::NAN));
        assert_eq!(average.best, Some(Best { nll: 1.0, parameters: vec![2.0] }));
        assert!(average.judge(0.5));
        assert_eq!(average.best.expect("kept").parameters, [6.0]);
    }
}
