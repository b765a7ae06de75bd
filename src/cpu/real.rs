//! The two precisions of the CPU engine: `f64` judges, `f32` is what users run.

use std::fmt::Debug;
use std::sync::Arc;

use num_traits::{Float, NumAssign};

use crate::optimiser::decimal;

/// A floating-point number that the CPU engine computes with: `f32` or `f64`.
pub trait Real:
    super::simd::Registers + super::code::Compiled + Float + NumAssign + Debug + Default + Send + Sync + 'static
{
    /// The number nearest to `value`.
    fn from_wide(value: f64) -> Self;

    /// A table in this precision: the same one in `f32`, a copy in any other.
    fn shared(table: &Arc<Vec<f32>>) -> Arc<Vec<Self>>;

    /// The same number as `f64`, exactly.
    fn wide(self) -> f64;

    /// The number nearest to the shortest decimal that names `value`.
    ///
    /// An option such as 0.001 is meant as that decimal; its `f32` is 5e-8 off, which an oracle in `f64` sees.
    /// For `f32` this is `value` itself.
    fn from_decimal(value: f32) -> Self;

    /// eˣ within 1.1 ulp, fit for a vectorised loop; 0 and ∞ beyond the range, NaN for a NaN.
    fn exp_lane(self) -> Self;

    /// tanh x within 2.5 ulp, fit for a vectorised loop; NaN for a NaN.
    fn tanh_lane(self) -> Self;

    /// ln x of a normal number within 1.5 ulp, fit for a vectorised loop; −∞ for 0, ∞ for ∞, NaN for what has none.
    fn ln_lane(self) -> Self;

    /// `yes` where `condition` holds, else `no`: both are computed, so that a loop stays vectorised where the compiler would
    /// branch around one of them.
    fn pick(condition: bool, yes: Self, no: Self) -> Self;

    /// 1 − tanh² x = 4e / (1 + e)² with e = exp(−2|x|): without the cancellation that saturation brings.
    #[inline(always)]
    fn tanh_slope_lane(self) -> Self {
        let (one, two) = (Self::one(), Self::one() + Self::one());
        let e = (-two * self.abs()).exp_lane();
        two * two * e / ((one + e) * (one + e))
    }
}

impl Real for f32 {
    #[inline(always)]
    fn pick(condition: bool, yes: Self, no: Self) -> Self {
        let mask = u32::from(condition).wrapping_neg();
        Self::from_bits(no.to_bits() ^ ((yes.to_bits() ^ no.to_bits()) & mask))
    }

    fn shared(table: &Arc<Vec<f32>>) -> Arc<Vec<Self>> {
        Arc::clone(table)
    }

    fn from_wide(value: f64) -> Self {
        value as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn from_decimal(value: f32) -> Self {
        value
    }

    // Cody and Waite's reduction x = n · ln 2 + r with |r| ≤ ln 2 / 2, then the series of eʳ to r⁷, whose remainder
    // is below 6e-9. Twin of exp_accurate in shaders/shared/prelude.wgsl, but with the whole range: below the normal numbers
    // 2ⁿ is applied in two halves.
    #[inline(always)]
    fn exp_lane(self) -> Self {
        /// 1.5 · 2²³: adding it rounds to a whole number, which then stands in the low bits.
        const SHIFT: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = self.clamp(-104.0, 89.0);
        let shifted = x * std::f32::consts::LOG2_E + SHIFT;
        let n = shifted - SHIFT;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
        let tail = r * r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series)));
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        let n = shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
        (1.0 + (r + tail)) * power(n >> 1) * power(n - (n >> 1))
    }

    // x = m · 2ᵉ with m between √½ and √2, and ln m = 2 artanh s with s = (m − 1) / (m + 1), by its series to s⁹, whose
    // remainder is below 1e-9. Twin of ln_accurate in shaders/shared/prelude.wgsl.
    #[inline(always)]
    fn ln_lane(self) -> Self {
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let bits = self.to_bits();
        let e = (bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32) >> 23;
        let f = f32::from_bits(bits.wrapping_sub((e << 23) as u32)) - 1.0;
        let s = f / (2.0 + f);
        let q = s * s;
        let tail = q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0))));
        let e = e as f32;
        let value = e * LN2_HIGH + (f - (s * (f - 2.0 * tail) - e * LN2_LOW));
        let ends = if self == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
        let ends = if self == f32::INFINITY { self } else { ends };
        if self > 0.0 && self < f32::INFINITY { value } else { ends }
    }

    // The series of tanh x below 0.3, where (1 − e) / (1 + e) would cancel; twin of tanh_stable in shaders/shared/prelude.wgsl.
    #[inline(always)]
    fn tanh_lane(self) -> Self {
        let q = self * self;
        let series = q
            * (-1.0 / 3.0
                + q * (2.0 / 15.0 + q * (-17.0 / 315.0 + q * (62.0 / 2835.0 - q * (1382.0 / 155_925.0)))));
        let small = self + self * series;
        let e = (-2.0 * self.abs()).exp_lane();
        let large = ((1.0 - e) / (1.0 + e)).copysign(self);
        if self.abs() < 0.3 { small } else { large }
    }
}

impl Real for f64 {
    #[inline(always)]
    fn pick(condition: bool, yes: Self, no: Self) -> Self {
        let mask = u64::from(condition).wrapping_neg();
        Self::from_bits(no.to_bits() ^ ((yes.to_bits() ^ no.to_bits()) & mask))
    }

    fn shared(table: &Arc<Vec<f32>>) -> Arc<Vec<Self>> {
        Arc::new(table.iter().copied().map(f64::from).collect())
    }

    fn from_wide(value: f64) -> Self {
        value
    }

    fn wide(self) -> f64 {
        self
    }

    fn from_decimal(value: f32) -> Self {
        decimal(value)
    }

    fn exp_lane(self) -> Self {
        self.exp()
    }

    fn tanh_lane(self) -> Self {
        self.tanh()
    }

    fn ln_lane(self) -> Self {
        self.ln()
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

    /// Distance from `got` to the exact `want` in units of the last place of `want`.
    fn ulps(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        let unit = f64::from(rounded.next_up()) - f64::from(rounded);
        (f64::from(got) - want).abs() / unit
    }

    #[test]
    fn lane_functions_are_as_exact_as_they_say() {
        let mut worst = [0.0f64; 3];
        for i in -400_000..=400_000 {
            let x = i as f32 * 2.2e-4;
            let wide = f64::from(x);
            for (worst, ulps) in worst.iter_mut().zip([
                ulps(x.exp_lane(), wide.exp()),
                ulps(x.tanh_lane(), wide.tanh()),
                if x.abs() < 43.0 { ulps(x.tanh_slope_lane(), wide.cosh().powi(-2)) } else { 0.0 },
            ]) {
                *worst = worst.max(ulps);
            }
        }
        // Every mantissa near 1, where ln x is nearly 0, and some of every power of two.
        let near = (-60_000..60_000).map(|i| 1.0 + i as f32 * 5.9e-6);
        let far =
            (-126..128).flat_map(|e| (0..500).map(move |i| (1.0 + i as f32 / 500.0) * (e as f32).exp2()));
        for x in near.chain(far).filter(|&x| x != 1.0) {
            let ulps = ulps(x.ln_lane(), f64::from(x).ln());
            assert!(ulps <= 1.5, "ln {x}: {ulps} ulp");
        }
        assert_eq!(1f32.ln_lane(), 0.0);
        assert!(worst[0] <= 1.1 && worst[1] <= 2.5 && worst[2] <= 4.0, "ulp: {worst:?}");
    }

    #[test]
    fn lane_functions_keep_the_ends_of_their_range() {
        for x in
            [f32::NEG_INFINITY, -120.0, -104.0, -90.0, -87.5, 0.0, -0.0, 88.7, 89.0, f32::INFINITY, f32::NAN]
        {
            let (got, want) = (x.exp_lane(), f64::from(x).exp() as f32);
            let close = (got - want).abs() <= 2e-7 * want.abs() + f32::from_bits(1);
            assert!(
                got == want || close || (got.is_nan() && want.is_nan()),
                "exp {x}: got {got}, want {want}"
            );
            let (got, want) = (x.ln_lane(), x.ln());
            let close = (got - want).abs() <= 1e-6 * want.abs();
            assert!(
                got == want || close || (got.is_nan() && want.is_nan()),
                "ln {x}: got {got}, want {want}"
            );
            let (got, want) = (x.tanh_lane(), x.tanh());
            assert!(got == want || (got.is_nan() && want.is_nan()), "tanh {x}: got {got}, want {want}");
        }
    }
}
