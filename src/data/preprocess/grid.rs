//! The evenly spaced values of a column that counts or is rounded: whole numbers, hundredths, quarters of an hour.
//! Noise spreads each over its cell before a flow sees it, so that its density has a bound.

use serde::{Deserialize, Serialize};

/// The values offset + k · step for whole numbers k.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Distance between neighbours, positive.
    pub step: f64,
    /// One of the values.
    #[serde(default)]
    pub offset: f64,
}

impl Grid {
    /// Whole numbers.
    pub const WHOLE: Self = Self { step: 1.0, offset: 0.0 };

    /// The coarsest grid with a step of few decimals that all of `values` lie on; `None` for a single value.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::Grid;
    ///
    /// assert_eq!(Grid::of(&[0.25, 0.5, 1.25]), Some(Grid { step: 0.25, offset: 0.0 }));
    /// assert_eq!(Grid::of(&[0.005, 0.035, 0.015]), Some(Grid { step: 0.01, offset: 0.005 }));
    /// assert_eq!(Grid::of(&[0.0, 1.0, 2f64.sqrt()]), None);
    /// ```
    pub fn of(values: &[f64]) -> Option<Self> {
        Self::of_all(values.iter().copied())
    }

    /// [`Grid::of`] values that are not side by side.
    pub(in crate::data) fn of_all(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let first = values.clone().next()?;
        let scale = scale_of(values.clone())?;
        let whole = |value: f64| (value * scale).round() as i64;
        let steps = values.map(|value| whole(value).abs_diff(whole(first)));
        let step = i64::try_from(steps.fold(0, gcd)).ok().filter(|step| *step > 0)?;
        let offset = whole(first).rem_euclid(step);
        Some(Self { step: step as f64 / scale, offset: offset as f64 / scale })
    }

    /// The grid of this `step` on which the most of `values` lie, by the places of the first few: on multiples of the step
    /// where others are not more.
    pub fn with_step(step: f64, values: &[f64]) -> Self {
        const FIRST: usize = 8;
        const COUNTED: usize = 10_000;
        let multiples = Self { step, offset: 0.0 };
        let offset_at = |&value: &f64| match scale_of([value, step].into_iter()) {
            Some(scale) => {
                let [value, step] = [value, step].map(|number| (number * scale).round() as i64);
                value.rem_euclid(step.max(1)) as f64 / scale
            }
            None => value - multiples.floor(value),
        };
        let counted = &values[..values.len().min(COUNTED)];
        let count = |grid: &Self| counted.iter().filter(|&&value| grid.holds(value)).count();
        let mut best = (count(&multiples), multiples);
        for offset in values.iter().take(FIRST).map(offset_at) {
            let grid = Self { step, offset };
            let held = count(&grid);
            if held > best.0 {
                best = (held, grid);
            }
        }
        best.1
    }

    /// What is wrong with the numbers; `None` for a grid.
    pub(super) fn fault(self) -> Option<String> {
        let Self { step, offset } = self;
        let usable = step.is_normal() && step > 0.0 && step < 1e300 && offset.is_finite();
        (!usable || offset.abs() >= 1e12 * step).then(|| {
            format!("has steps of {step} from {offset}; expected a positive step and an offset near 0")
        })
    }

    /// Whether `x` is one of the values, but for rounding.
    pub fn holds(self, x: f64) -> bool {
        const ROUNDING: f64 = 1e-12;
        const MOST: f64 = 1e-4;
        let tolerance = (ROUNDING * x.abs().max(self.step)).min(MOST * self.step);
        x.is_finite() && (x - self.nearest(x)).abs() <= if self == Self::WHOLE { 0.0 } else { tolerance }
    }

    /// The value nearest to `x`.
    pub fn nearest(self, x: f64) -> f64 {
        self.value(((x - self.offset) / self.step).round())
    }

    /// The greatest value that is not above `x`: the one whose cell `x` lies in.
    pub fn floor(self, x: f64) -> f64 {
        self.value(((x - self.offset) / self.step).floor())
    }

    /// Value number `k`, as the decimal number that it stands for: 0.07, where 7 · 0.01 is a little more.
    fn value(self, k: f64) -> f64 {
        /// Integers up to here are exact.
        const EXACT: f64 = 9_007_199_254_740_992.0;

        let value = self.offset + k * self.step;
        let decimal =
            self.decimals().map(|decimals| 10f64.powi(decimals)).map(|scale| (value * scale, scale));
        match decimal {
            Some((scaled, scale)) if scaled.abs() < EXACT => scaled.round() / scale,
            _ => value,
        }
    }

    /// How many decimals step and offset have, where they are few.
    fn decimals(self) -> Option<i32> {
        const MOST: i32 = 15;
        // A decimal number is its nearest double, and so is the quotient of two exact integers.
        let has = |number: f64, scale: f64| (number * scale).round() / scale == number;
        (0..=MOST).find(|&decimals| {
            let scale = 10f64.powi(decimals);
            has(self.step, scale) && has(self.offset, scale)
        })
    }
}

impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "steps of {}", self.step)?;
        if self.offset != 0.0 {
            write!(f, " from {}", self.offset)?;
        }
        Ok(())
    }
}

/// The grid as a model file has it: `true` for whole numbers, as in files from before there were others.
pub(super) mod stored {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Grid;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Whole(bool),
        Other(Grid),
    }

    pub fn serialize<S: Serializer>(grid: &Option<Grid>, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match *grid {
            None => Stored::Whole(false),
            Some(Grid::WHOLE) => Stored::Whole(true),
            Some(other) => Stored::Other(other),
        };
        stored.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Grid>, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Whole(whole) => whole.then_some(Grid::WHOLE),
            Stored::Other(grid) => Some(grid),
        })
    }
}

/// The power of ten by which `values`, numbers of few decimals, are whole.
fn scale_of(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    const DECIMALS: i32 = 9;
    let most = values.clone().fold(0.0, |most: f64, value| most.max(value.abs()));
    (0..=DECIMALS).map(|decimals| 10f64.powi(decimals)).find(|scale| {
        let near = |value: f64| {
            (value * scale - (value * scale).round()).abs() <= 1e-12 * (value * scale).abs().max(1.0)
        };
        most * scale < 1e15 && values.clone().all(near)
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_the_greatest_step_of_all_differences() {
        for (values, want) in [
            (&[1.0, 2.0, 5.0][..], Some((1.0, 0.0))),
            (&[15.0, 0.0, 5.0], Some((5.0, 0.0))),
            (&[-0.5, 0.25, 1.0], Some((0.75, 0.25))),
            (&[0.1, 0.2, 0.30000000000000004], Some((0.1, 0.0))),
            (&[1e6 + 0.01, 1e6 + 0.03], Some((0.02, 0.01))),
            (&[0.035, 0.005, -0.005], Some((0.01, 0.005))),
            (&[3.0, 3.0], None),
            (&[], None),
            (&[0.0, std::f64::consts::PI], None),
        ] {
            let got = Grid::of(values);
            assert_eq!(got.map(|grid| (grid.step, grid.offset)), want, "{values:?}");
            assert!(got.is_none_or(|grid| values.iter().all(|&value| grid.holds(value))), "{values:?}");
        }
    }

    #[test]
    fn values_are_the_decimal_numbers_that_a_person_writes() {
        for (step, offset, text) in
            [("0.01", "0", 2), ("0.01", "0.005", 3), ("0.1", "0", 1), ("5", "0", 0), ("0.25", "0.125", 3)]
                .map(|(step, offset, decimals)| (step.to_owned(), offset.to_owned(), decimals))
        {
            let grid = Grid { step: step.parse().expect("f64"), offset: offset.parse().expect("f64") };
            for k in -3000..3000 {
                let value = grid.value(f64::from(k));
                let written: f64 = format!("{value:.text$}").parse().expect("f64");
                assert!(value == written, "{grid}: {value} for {written}");
                assert!((value - (grid.offset + f64::from(k) * grid.step)).abs() < 1e-9, "{grid}: {k}");
                for part in [1e-9, 0.3, 0.999_999] {
                    assert_eq!(grid.floor(value + part * grid.step), value, "{grid}: {k} + {part}");
                }
            }
        }
    }

    #[test]
    fn a_third_has_no_decimals_and_is_a_step_all_the_same() {
        let thirds = Grid { step: 1.0 / 3.0, offset: 0.0 };
        assert!((-50..50).all(|k| thirds.holds(f64::from(k) / 3.0)) && !thirds.holds(0.34));
        assert_eq!(thirds.floor(1.4), 4.0 / 3.0);
    }

    #[test]
    fn values_off_the_grid_are_not_held_and_rounding_is_forgiven() {
        let cents = Grid { step: 0.01, offset: 0.0 };
        for x in [0.07, 7.0 * 0.01, 0.1 + 0.2, -3.21, 123_456.78] {
            assert!(cents.holds(x), "{x}");
        }
        for x in [0.0701, 0.005, 1e-6, f64::NAN, f64::INFINITY] {
            assert!(!cents.holds(x), "{x}");
        }
        assert!(Grid::WHOLE.holds(-4.0) && !Grid::WHOLE.holds(1e12 + 0.25));
    }

    #[test]
    fn the_offset_of_a_step_is_that_of_most_values() {
        let offset = |step, values: &[f64]| Grid::with_step(step, values).offset;
        assert_eq!(offset(0.01, &[0.005, 0.015, 0.125]), 0.005);
        assert_eq!(offset(1.0, &[3.0, 2.0, 7.0]), 0.0);
        assert_eq!(offset(1.0, &[0.5, 3.0, 2.0, 7.0]), 0.0, "one value is off the grid");
        assert_eq!(offset(1.0, &[3.0, -2.5, 7.5, 8.5]), 0.5);
        assert_eq!(offset(0.1, &[1e6 + 0.03, 1e6 + 0.13]), 0.03);
        assert_eq!(offset(0.01, &[]), 0.0);
    }

    #[test]
    fn impossible_steps_are_faults() {
        for (step, offset) in [(0.0, 0.0), (-1.0, 0.0), (f64::NAN, 0.0), (1.0, f64::NAN), (1e-300, 1.0)] {
            assert!(Grid { step, offset }.fault().is_some(), "{step} {offset}");
        }
        assert_eq!(Grid::WHOLE.fault(), None);
    }
}
