//! Standard normal numbers made with integer arithmetic alone, so that a CPU and any GPU give the same bits.
//!
//! Shading languages may fuse, reassociate and approximate `f32` operations, which rules out Box–Muller and every
//! other method that takes a logarithm. Here 64 random bits become one normal through its quantile function: one
//! bit is the sign, the others choose a probability, and |z| at it is a cubic in fixed point.

use super::{NORMAL_TABLE, Stream, key, philox_lanes};

/// Octaves of the upper-tail probability p: octave k holds 2^−(k+2) ≤ p < 2^−(k+1).
pub(super) const OCTAVES: usize = 64;

/// Equal segments of an octave, each with a cubic of its own.
pub(super) const SEGMENTS: usize = 32;

/// Fraction bits of |z|; |z| < 9.2, so that it needs 4 more.
pub(super) const FRACTION_BITS: u32 = 28;

/// Additional fraction bits of each next coefficient: c₀, c₁, c₂, c₃ have 28, 35, 42 and 49.
pub(super) const GUARD_BITS: u32 = 7;

/// The standard normal number of 64 random bits: a pure function, the same bits on every device.
///
/// The highest bit of `high` is the sign. The other 63 bits are a whole number U and choose the upper-tail
/// probability p = (2U + 1) · 2⁻⁶⁵ of |z|, so 0 < p < ½. Before it is rounded to the nearest `f32`, |z| differs
/// from the exact quantile by less than 5·10⁻⁹ at every p. The largest |z| is 9.16, at p = 2⁻⁶⁵.
///
/// Twin: `normal` in `shaders/shared/normal.wgsl`.
#[inline]
pub fn normal(low: u32, high: u32) -> f32 {
    let bits = (u64::from(high) << 32) | u64::from(low);
    let magnitude = magnitude((bits << 1) | 1) as f32 * (1.0 / (1u32 << FRACTION_BITS) as f32);
    f32::from_bits(magnitude.to_bits() | (high & 0x8000_0000))
}

/// |z| in units of 2⁻²⁸ for the upper-tail probability `numerator` · 2⁻⁶⁵.
///
/// |z| falls with p and its derivatives alternate in sign, so the cubic is c₀ − t·(c₁ − t·(c₂ − t·c₃)) with
/// coefficients and brackets that are never negative: unsigned arithmetic suffices. Its error is below 1.3 units:
/// half a unit each from c₀ and from the last shift, up to 0.22 from the best cubic, 0.02 from the guard bits.
#[inline]
pub(super) fn magnitude(numerator: u64) -> u32 {
    let octave = numerator.leading_zeros();
    let mantissa = numerator << octave;
    let segment = (mantissa >> 58) as usize & (SEGMENTS - 1);
    let t = (mantissa >> 26) as u32;
    let [c0, c1, c2, c3] = NORMAL_TABLE[octave as usize * SEGMENTS + segment];
    let times_t = |x: u32| ((u64::from(x) * u64::from(t)) >> 32) as u32;
    let slope = c2 - (times_t(c3) >> GUARD_BITS);
    let slope = c1 - (times_t(slope) >> GUARD_BITS);
    c0 - ((times_t(slope) + (1 << (GUARD_BITS - 1))) >> GUARD_BITS)
}

/// Fills `out` with the latent noise of row `row` under `seed`: one standard normal number a feature.
///
/// Block b of [`philox`](super::philox) gives feature 2b from its words 0 and 1, and feature 2b + 1 from its words 2 and 3, so
/// a row does not depend on how many rows are drawn, nor a feature on how many features follow.
pub fn normals(row: u32, seed: u64, out: &mut [f32]) {
    let features = out.len();
    normals_of_rows::<1>(row, seed, features, |_, feature, value| out[feature] = value);
}

/// Gives `to` the row, from 0, the feature and the latent noise of N rows from `first` on, as [`normals`] has it.
#[inline(always)]
pub(crate) fn normals_of_rows<const N: usize>(
    first: u32,
    seed: u64,
    features: usize,
    mut to: impl FnMut(usize, usize, f32),
) {
    let key = key(seed);
    let mut rows = [first; N];
    for (lane, row) in rows.iter_mut().enumerate() {
        *row = first.wrapping_add(lane as u32);
    }
    for feature in (0..features).step_by(2) {
        let block = (feature / 2) as u32;
        let [a, b, c, d] = philox_lanes([rows, [block; N], [0; N], [Stream::Latent as u32; N]], key);
        for row in 0..N {
            to(row, feature, normal(a[row], b[row]));
            if feature + 1 < features {
                to(row, feature + 1, normal(c[row], d[row]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::quantile::{log_upper_tail, upper_quantile};

    /// The claim of [`normal`]'s documentation.
    const QUANTILE_ERROR: f64 = 5e-9;

    /// Half the distance between neighbouring `f32` values near 3 and 5, the largest rounding error below 8.
    const HALF_SPACING: f64 = 2.4e-7;

    /// The upper-tail probability that [`magnitude`] takes as a 64-bit numerator.
    fn probability(numerator: u64) -> f64 {
        numerator as f64 * 0.5f64.powi(65)
    }

    /// The normal of numerator 2U + 1 and the positive sign.
    fn positive(u: u64) -> f32 {
        normal(u as u32, (u >> 32) as u32)
    }

    /// Numerators at the start, at the end and inside of every segment of every octave.
    fn lattice() -> impl Iterator<Item = u64> {
        let inside = (0..7u64).map(|i| (2 * i + 1) << 54 | 0x12_3456_789A_BCDE);
        let places: Vec<u64> = inside.chain([0, (1 << 58) - 1]).collect();
        (0..OCTAVES).flat_map(move |octave| {
            let places = places.clone();
            (0..SEGMENTS as u64).flat_map(move |segment| {
                let start = (1 << 63) | (segment << 58);
                places.clone().into_iter().map(move |place| ((start | place) >> octave) | 1)
            })
        })
    }

    #[test]
    fn magnitude_is_the_exact_quantile_to_5e_9_at_every_probability() {
        let unit = f64::from(1u32 << FRACTION_BITS);
        let (mut worst, mut at) = (0.0, 0);
        for numerator in lattice() {
            let error =
                (f64::from(magnitude(numerator)) / unit - upper_quantile(probability(numerator))).abs();
            if error > worst {
                (worst, at) = (error, numerator);
            }
        }
        assert!(worst < QUANTILE_ERROR, "error {worst:e} at numerator {at:#x}");
        // If this gives way, the formats have room for a tighter claim.
        assert!(worst > 0.5 * QUANTILE_ERROR, "error {worst:e}: state it");
    }

    #[test]
    fn magnitude_falls_as_the_probability_grows() {
        let mut numerators: Vec<u64> = lattice().collect();
        numerators.sort_unstable();
        for pair in numerators.windows(2) {
            let (high, low) = (magnitude(pair[0]), magnitude(pair[1]));
            // Neighbours across a border may stand the wrong way round by the error of both.
            assert!(low <= high + 2, "{:#x} gives {high}, {:#x} gives {low}", pair[0], pair[1]);
        }
    }

    #[test]
    fn extreme_words_give_the_extreme_quantiles() {
        assert_eq!(normal(0, 0), upper_quantile(0.5f64.powi(65)) as f32);
        assert_eq!(normal(0, 0x8000_0000), -normal(0, 0));
        for (low, high) in [(u32::MAX, 0x7FFF_FFFF), (u32::MAX, u32::MAX)] {
            assert!(normal(low, high).abs() < 1e-8, "{}", normal(low, high));
        }
        // Changing the highest bit alone changes the sign alone.
        for low in [0, 1, 77, u32::MAX] {
            for high in [0, 1, 1 << 20, 0x7FFF_FFFF] {
                assert_eq!(normal(low, high).to_bits() ^ normal(low, high | 1 << 31).to_bits(), 1 << 31);
            }
        }
    }

    /// Even moments of the function itself, integrated over p; the odd ones vanish by the symmetry tested above.
    #[test]
    fn even_moments_are_those_of_a_standard_normal() {
        const POINTS: u64 = 32;
        let mut moments = [0.0; 4];
        for octave in 0..OCTAVES - 8 {
            for segment in 0..SEGMENTS as u64 {
                for point in 0..POINTS {
                    let place = (2 * point + 1) << (57 - POINTS.ilog2());
                    let numerator = ((1 << 63) | (segment << 58) | place) >> octave;
                    let square = f64::from(positive(numerator >> 1)).powi(2);
                    // Both signs together: twice the octave's width, shared among its points.
                    let weight = 0.5f64.powi(octave as i32 + 1) / (SEGMENTS as u64 * POINTS) as f64;
                    for (power, moment) in moments.iter_mut().enumerate() {
                        *moment += weight * square.powi(power as i32);
                    }
                }
            }
        }
        for (power, want) in [1.0, 1.0, 3.0, 15.0].into_iter().enumerate() {
            let relative = moments[power] / want - 1.0;
            assert!(relative.abs() < 1e-6, "moment {}: {} instead of {want}", 2 * power, moments[power]);
        }
    }

    /// The share of all 2⁶³ magnitudes above a border, found by bisection, against the exact tail.
    #[test]
    fn tail_probabilities_at_3_4_and_5_sigma_are_exact() {
        for border in [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] {
            let (mut inside, mut outside) = (0u64, 1u64 << 63);
            while outside - inside > 1 {
                let middle = inside + (outside - inside) / 2;
                if positive(middle) > border {
                    inside = middle;
                } else {
                    outside = middle;
                }
            }
            let x = f64::from(border);
            let relative = outside as f64 * 0.5f64.powi(64) / log_upper_tail(x).exp() - 1.0;
            // An error δ of z changes its tail by a share of δ·φ/Q < δ·(x + 1/x).
            let tolerance = (HALF_SPACING + QUANTILE_ERROR) * (x + 1.0 / x) + 1e-13;
            assert!(
                relative.abs() < tolerance,
                "{border} σ: relative error {relative:e}, allowed {tolerance:e}"
            );
        }
    }

    /// A million draws in 100 cells of equal probability: 99 degrees of freedom, 99.99 % of χ² below 161.
    #[test]
    fn draws_fill_equiprobable_cells_evenly_and_are_uncorrelated() {
        const ROWS: u32 = 250_000;
        let upper: Vec<f32> = (1..50).rev().map(|i| upper_quantile(f64::from(i) / 100.0) as f32).collect();
        let mut cells = [0f64; 100];
        let mut sums = [0f64; 6];
        let mut products = [[0f64; 4]; 4];
        for row in 0..ROWS {
            let mut z = [0f32; 4];
            normals(row, 7, &mut z);
            for i in 0..4 {
                let beyond = upper.iter().take_while(|border| z[i].abs() >= **border).count();
                cells[if z[i] < 0.0 { 49 - beyond } else { 50 + beyond }] += 1.0;
                for (power, sum) in sums.iter_mut().enumerate() {
                    *sum += f64::from(z[i]).powi(power as i32 + 1);
                }
                for j in 0..i {
                    products[i][j] += f64::from(z[i]) * f64::from(z[j]);
                }
            }
        }
        let draws = f64::from(4 * ROWS);
        let chi2: f64 = cells.iter().map(|count| (count - draws / 100.0).powi(2) / (draws / 100.0)).sum();
        assert!(chi2 < 161.0, "χ² = {chi2}");
        // E zⁿ, and E z²ⁿ − (E zⁿ)², the variance of one term.
        let moments = [(0.0, 1.0), (1.0, 2.0), (0.0, 15.0), (3.0, 96.0), (0.0, 945.0), (15.0, 10_170.0f64)];
        for (sum, (want, variance)) in sums.into_iter().zip(moments) {
            let deviation = (sum / draws - want) / (variance / draws).sqrt();
            assert!(deviation.abs() < 4.0, "moment {want}: {} is {deviation} σ away", sum / draws);
        }
        for (i, j) in (0..4).flat_map(|i| (0..i).map(move |j| (i, j))) {
            let deviation = products[i][j] / f64::from(ROWS).sqrt();
            assert!(deviation.abs() < 4.0, "features {i} and {j} correlate: {deviation} σ");
        }
    }

    /// Computed from scratch with 30 digits: Philox, then the quantile, rounded once. They fix the stream for good.
    #[test]
    fn first_normals_of_seed_42_stay_what_they_are() {
        let mut got = [0f32; 4];
        normals(0, 42, &mut got);
        assert_eq!(got, [0.8877286, 1.4510797, -0.047983613, 0.67080915]);
    }

    #[test]
    fn a_row_does_not_depend_on_the_number_of_features() {
        let mut long = [0f32; 7];
        normals(3, 1 << 40, &mut long);
        for features in 0..7 {
            let mut short = vec![f32::NAN; features];
            normals(3, 1 << 40, &mut short);
            assert_eq!(short, long[..features]);
        }
        let mut other = [0f32; 7];
        for (row, seed) in [(4, 1 << 40), (3, 0)] {
            normals(row, seed, &mut other);
            assert!(other.iter().zip(&long).all(|(a, b)| a != b), "row {row}, seed {seed}");
        }
    }
}
