//! The interval of a column's values, and its map to the real line.

use serde::{Deserialize, Serialize};

/// An interval without its ends; at least one end is finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Bounds {
    /// Whether `x` lies between the ends.
    pub(in crate::data) fn contain(self, x: f64) -> bool {
        x.is_finite() && self.low.is_none_or(|low| x > low) && self.high.is_none_or(|high| x < high)
    }

    /// An inner point → the real line, with ln dy/dx: y = ln((x − low) / (high − x)), ln(x − low) or −ln(high − x).
    pub(super) fn forward(self, x: f64) -> (f64, f64) {
        match (self.low, self.high) {
            (Some(low), Some(high)) => {
                let (below, above) = ((x - low).ln(), (high - x).ln());
                (below - above, (high - low).ln() - below - above)
            }
            (Some(low), None) => {
                let y = (x - low).ln();
                (y, -y)
            }
            (None, Some(high)) => {
                let y = -(high - x).ln();
                (y, y)
            }
            (None, None) => (x, 0.0),
        }
    }

    /// Undoes [`Bounds::forward`]; the result lies between the ends.
    pub(super) fn inverse(self, y: f64) -> f64 {
        let x = match (self.low, self.high) {
            // From the nearer end, so that its digits are kept.
            (Some(low), Some(high)) if y < 0.0 => low + (high - low) * (y.exp() / (1.0 + y.exp())),
            (Some(low), Some(high)) => high - (high - low) * ((-y).exp() / (1.0 + (-y).exp())),
            (Some(low), None) => low + y.exp(),
            (None, Some(high)) => high - (-y).exp(),
            (None, None) => y,
        };
        // Rounding may end on the interval's end, which is no part of it.
        let least = self.low.map_or(f64::MIN, f64::next_up);
        let greatest = self.high.map_or(f64::MAX, f64::next_down);
        x.clamp(least, greatest)
    }

    /// Derivative of ln dy/dx at `x`.
    pub(super) fn log_slope_derivative(self, x: f64) -> f64 {
        self.high.map_or(0.0, |high| 1.0 / (high - x)) - self.low.map_or(0.0, |low| 1.0 / (x - low))
    }
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(low) = self.low {
            write!(f, "{low}")?;
        }
        write!(f, ":")?;
        if let Some(high) = self.high {
            write!(f, "{high}")?;
        }
        Ok(())
    }
}
