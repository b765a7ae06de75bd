//! The two precisions of the CPU engine: `f64` judges, `f32` is what users run.

use std::fmt::Debug;

use num_traits::{Float, NumAssign};

use crate::optimiser::decimal;

/// A floating-point number that the CPU engine computes with: `f32` or `f64`.
pub trait Real: Float + NumAssign + Debug + Default + Send + Sync + 'static {
    /// The number nearest to `value`.
    fn from_wide(value: f64) -> Self;

    /// The same number as `f64`, exactly.
    fn wide(self) -> f64;

    /// The number nearest to the shortest decimal that names `value`.
    ///
    /// An option such as 0.001 is meant as that decimal; its `f32` is 5e-8 off, which an oracle in `f64` sees.
    /// For `f32` this is `value` itself.
    fn from_decimal(value: f32) -> Self;
}

impl Real for f32 {
    fn from_wide(value: f64) -> Self {
        value as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn from_decimal(value: f32) -> Self {
        value
    }
}

impl Real for f64 {
    fn from_wide(value: f64) -> Self {
        value
    }

    fn wide(self) -> f64 {
        self
    }

    fn from_decimal(value: f32) -> Self {
        decimal(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_those_that_were_written() {
        for (short, long) in [(0.001, 0.001), (0.9, 0.9), (0.999, 0.999), (1e-8, 1e-8), (2.0, 2.0)] {
            assert_eq!(f64::from_decimal(short), long);
            assert_eq!(f32::from_decimal(short), short);
        }
        assert_eq!(f64::from_decimal(f32::INFINITY), f64::INFINITY);
        assert!(f64::from_decimal(f32::NAN).is_nan());
    }
}
