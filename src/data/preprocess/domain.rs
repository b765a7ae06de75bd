//! The values that a column may hold, and the map of these to the real line: noise for values on a grid, a logarithm
//! or a logit for bounds.

use serde::{Deserialize, Serialize};

use super::bounds::Bounds;
use super::grid::{self, Grid};
use super::stage::ColumnMap;
use crate::error::{Error, Result};
use crate::shown::shown;

/// The values that a column may hold; by default every finite number, which needs no map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnDomain {
    /// Of a dequantised column, the values x that it holds. The flow models x + u · step with u uniform in (0, 1):
    /// P(x) = step · ∫ p(x + u · step) du.
    #[serde(rename = "dequantize", default, skip_serializing_if = "Option::is_none", with = "grid::stored")]
    pub grid: Option<Grid>,
    /// Where values may lie. Of a dequantised column these are the least and the greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Bounds>,
    /// The column, which is context, is 1 in the rows of one level of a discrete variable and 0 in the others. It is not
    /// scaled, so that rare levels are no numbers far out, and not bent; a level that no training row has does no harm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub indicator: bool,
}

impl ColumnDomain {
    /// The domain of an indicator.
    pub fn indicator() -> Self {
        Self { indicator: true, ..Self::default() }
    }

    /// Checks the domain of a column called `name`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the bounds are empty, not finite, or, of a dequantised column, not on its grid, or
    /// when that is none; when an indicator has bounds or is dequantised.
    pub fn validate(&self, name: &str) -> Result<()> {
        if self.indicator && *self != Self::indicator() {
            let name = shown(name);
            return Err(Error::Argument(format!(
                "`{name}` is an indicator, which has no bounds and no noise"
            )));
        }
        if let Some(fault) = self.grid.and_then(Grid::fault) {
            return Err(Error::Argument(format!("column `{}` {fault}", shown(name))));
        }
        let Some(Bounds { low, high }) = self.bounds else { return Ok(()) };
        let fail = |rule: &str| {
            let bounds = Bounds { low, high };
            Err(Error::Argument(format!("the bounds of `{}` {rule}, got {bounds}", shown(name))))
        };
        if (low.is_none() && high.is_none()) || [low, high].iter().flatten().any(|end| !end.is_finite()) {
            return fail("must have a finite lower or upper end");
        }
        if let (Some(low), Some(high)) = (low, high)
            && !(low < high && (high - low).is_finite())
        {
            return fail("must ascend");
        }
        match self.grid {
            Some(grid) if [low, high].into_iter().flatten().any(|end| !grid.holds(end)) => match grid {
                Grid::WHOLE => fail("must be whole numbers, because the column is dequantised"),
                grid => fail(&format!("must lie on the column's grid, {grid}")),
            },
            _ => Ok(()),
        }
    }

    /// What is wrong with the value `x`, to be read after its place; `None` when it can be modelled.
    pub fn refusal(&self, x: f64) -> Option<String> {
        if let Some(grid) = self.grid.filter(|grid| !grid.holds(x)) {
            return Some(match grid {
                Grid::WHOLE => format!("{x} is not a whole number, and the column is dequantised"),
                grid => format!("{x} does not lie on the column's grid, {grid}"),
            });
        }
        let bounds = self.bounds?;
        let Bounds { low, high } = bounds;
        if let Some(grid) = self.grid {
            let x = grid.nearest(x);
            let inside = low.is_none_or(|low| x >= low) && high.is_none_or(|high| x <= high);
            return (!inside)
                .then(|| format!("{x} lies outside of the bounds {bounds}, which are part of it"));
        }
        (!bounds.contain(x))
            .then(|| format!("{x} does not lie between the bounds {bounds}, which are no part of it"))
    }

    /// The interval of the values that the flow sees, noise included.
    fn interval(&self) -> Option<Bounds> {
        let bounds = self.bounds?;
        Some(match self.grid {
            Some(Grid { step, .. }) => Bounds { high: bounds.high.map(|high| high + step), ..bounds },
            None => bounds,
        })
    }
}

impl ColumnMap for ColumnDomain {
    /// A value, with the noise of a dequantised column in it, → the real line, with ln |dy/dx|. Where there is no
    /// density the latter is −∞.
    fn forward(&self, x: f64) -> (f64, f64) {
        match self.interval() {
            None => (x, 0.0),
            Some(bounds) if bounds.contain(x) => bounds.forward(x),
            Some(_) => (f64::NAN, f64::NEG_INFINITY),
        }
    }

    /// The real line → a value; one of its grid where the column is dequantised. Never outside of the bounds.
    fn inverse(&self, y: f64) -> f64 {
        let x = self.interval().map_or(y, |bounds| bounds.inverse(y));
        let Some(grid) = self.grid else { return x };
        // The greatest float below an upper end may be the end less a step, but the end itself is never reached.
        let Bounds { low, high } = self.bounds.unwrap_or(Bounds { low: None, high: None });
        grid.floor(x).clamp(low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY))
    }

    fn log_slope_derivative(&self, x: f64) -> f64 {
        self.interval().map_or(0.0, |bounds| bounds.log_slope_derivative(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(low: Option<f64>, high: Option<f64>) -> ColumnDomain {
        ColumnDomain { grid: None, bounds: Some(Bounds { low, high }), ..ColumnDomain::default() }
    }

    #[test]
    fn nothing_is_sampled_on_or_beyond_an_end() {
        for domain in [bounds(Some(0.0), Some(1.0)), bounds(Some(1e9), None), bounds(None, Some(0.0))] {
            for y in [-1e300, -800.0, -40.0, 40.0, 800.0, 1e300] {
                let x = domain.inverse(y);
                assert!(domain.refusal(x).is_none(), "{domain:?} {y}: {x}");
                assert!(domain.forward(x).1.is_finite());
            }
        }
        let counts = ColumnDomain {
            grid: Some(Grid::WHOLE),
            bounds: Some(Bounds { low: Some(2.0), high: Some(5.0) }),
            ..ColumnDomain::default()
        };
        assert_eq!([-1e300, -50.0, 0.0, 50.0, 1e300].map(|y| counts.inverse(y)), [2.0, 2.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn values_outside_are_refused_and_have_no_density() {
        let share = bounds(Some(0.0), Some(1.0));
        for x in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
            assert!(share.refusal(x).is_some_and(|text| text.contains("0:1")), "{x}");
            assert_eq!(share.forward(x).1, f64::NEG_INFINITY, "{x}");
        }
        let counts = ColumnDomain {
            grid: Some(Grid::WHOLE),
            bounds: Some(Bounds { low: Some(0.0), high: None }),
            ..ColumnDomain::default()
        };
        assert_eq!((counts.refusal(0.0), counts.refusal(7.0)), (None, None));
        assert!(counts.refusal(0.5).is_some_and(|text| text.contains("not a whole number")));
        assert!(counts.refusal(-1.0).is_some_and(|text| text.contains("bounds 0:")));
    }

    #[test]
    fn impossible_bounds_are_refused() {
        for (domain, want) in [
            (bounds(None, None), "finite lower or upper end"),
            (bounds(Some(f64::NAN), None), "finite"),
            (bounds(Some(0.0), Some(f64::INFINITY)), "finite"),
            (bounds(Some(1.0), Some(1.0)), "must ascend, got 1:1"),
            (bounds(Some(-1e308), Some(1e308)), "must ascend"),
            (ColumnDomain { grid: Some(Grid::WHOLE), ..bounds(Some(0.5), None) }, "must be whole numbers"),
        ] {
            let message = domain.validate("a").expect_err(want).to_string();
            assert!(message.contains(want) && message.contains("`a`"), "{message}");
        }
        bounds(Some(0.0), None).validate("a").expect("valid");
    }
}
