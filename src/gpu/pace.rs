//! How much work a submission takes: enough that submitting weighs nothing, little enough that a person waits for no
//! more than a moment and no watchdog fires.

/// Seconds that a submission should take on the device.
const WANTED_SECONDS: f64 = 0.1;
/// Dispatches and floating-point operations of one unit of work: about [`WANTED_SECONDS`] on a middling GPU.
const DISPATCHES: f64 = 4096.0;
const FLOPS: f64 = 2e10;
/// Units of the first submission, before anything is known of the device: short even for a software adapter.
const FIRST: f64 = 1.0 / 64.0;
/// Fewest and most units. The most takes the host some milliseconds to record.
const BOUNDS: (f64, f64) = (1e-4, 4.0);
/// A submission takes at most this many times as much work as the one before, and as little.
const STEP: f64 = 4.0;

/// The work of the next submission, learned from the time that earlier ones took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    units: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { units: FIRST }
    }
}

impl Pace {
    /// Units of work in so many dispatches and floating-point operations.
    pub fn units(dispatches: usize, flops: u64) -> f64 {
        (dispatches as f64 / DISPATCHES).max(flops as f64 / FLOPS)
    }

    /// Whether a submission of so many units is full.
    pub fn is_full(&self, units: f64) -> bool {
        units >= self.units
    }

    /// Takes note that a submission of `units` kept the device busy for `seconds`.
    pub fn learn(&mut self, units: f64, seconds: f64) {
        // No clock tells zero seconds: there is none.
        if seconds > 0.0 && units > 0.0 {
            let wanted = units * WANTED_SECONDS / seconds;
            self.units = wanted.clamp(self.units / STEP, self.units * STEP).clamp(BOUNDS.0, BOUNDS.1);
        }
    }
}

/// Seconds on a clock that never goes back; always 0 where there is none (wasm32).
#[cfg(not(target_arch = "wasm32"))]
pub fn clock() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Seconds on a clock that never goes back; always 0 where there is none (wasm32).
#[cfg(target_arch = "wasm32")]
pub fn clock() -> f64 {
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Submissions on a device that takes `seconds` for a unit of work made of steps of `step` units, until they stay.
    fn settle(seconds: f64, step: f64) -> f64 {
        let mut pace = Pace::default();
        let mut units = 0.0;
        for _ in 0..30 {
            units = step;
            while !pace.is_full(units) {
                units += step;
            }
            pace.learn(units, units * seconds);
        }
        units * seconds
    }

    #[test]
    fn submissions_come_to_take_a_tenth_of_a_second_on_fast_and_slow_devices() {
        for seconds in [0.03, 0.1, 1.0, 30.0, 300.0] {
            let took = settle(seconds, 1e-5);
            assert!((0.05..=0.15).contains(&took), "{seconds} s a unit: {took} s a submission");
        }
    }

    #[test]
    fn a_step_that_takes_longer_is_submitted_alone() {
        assert_eq!(settle(10.0, 0.5), 5.0);
    }

    #[test]
    fn without_a_clock_nothing_is_learned() {
        let mut pace = Pace::default();
        pace.learn(1.0, 0.0);
        assert_eq!(pace, Pace::default());
    }
}
