//! The exact normal quantile in `f64`, and from it the table of cubics of [`super::normal()`].

use super::normal::{FRACTION_BITS, GUARD_BITS, OCTAVES, SEGMENTS};

/// The Mills ratio Q(x) / φ(x) of the upper tail Q, for x ≥ 0; relative error near 10⁻¹⁵.
fn mills_ratio(x: f64) -> f64 {
    if x < 2.0 {
        // Φ(x) − ½ = φ(x) · (x + x³/3 + x⁵/(3·5) + …): positive terms only.
        let (mut term, mut sum) = (x, x);
        for odd in (3..120).step_by(2) {
            term *= x * x / f64::from(odd);
            sum += term;
        }
        (std::f64::consts::PI / 2.0).sqrt() * (x * x / 2.0).exp() - sum
    } else {
        // Laplace's continued fraction 1/(x + 1/(x + 2/(x + 3/(x + …)))).
        1.0 / (1..200).rev().fold(x, |tail, numerator| x + f64::from(numerator) / tail)
    }
}

/// ln Q(x), the logarithm of the upper-tail probability of a standard normal, for x ≥ 0.
pub(super) fn log_upper_tail(x: f64) -> f64 {
    mills_ratio(x).ln() - x * x / 2.0 - (2.0 * std::f64::consts::PI).ln() / 2.0
}

/// The z with Q(z) = `p`, for 0 < p ≤ ½, by Newton's method on ln Q.
pub(super) fn upper_quantile(p: f64) -> f64 {
    let log_p = p.ln();
    // ln Q is concave and falls; a start to the right of the root therefore converges from one side.
    let mut z = (-2.0 * log_p).sqrt();
    for _ in 0..12 {
        z = (z + (log_upper_tail(z) - log_p) * mills_ratio(z)).max(0.0);
    }
    z
}

/// The cubic of one segment, as magnitudes of c₀ − c₁t + c₂t² − c₃t³ for t in [0, 1).
///
/// The Taylor series of z about the segment's middle, economised: on [−1, 1] each power above the third is replaced
/// by its Chebyshev expansion without T₄ and higher, which is the best cubic but for about a part in 64.
fn cubic(octave: usize, segment: usize) -> [f64; 4] {
    let middle = 1.0 + (segment as f64 + 0.5) / SEGMENTS as f64;
    let z = upper_quantile(middle * 0.5f64.powi(octave as i32 + 2));
    // In τ from −1 to 1 across the segment dz/dτ = −(width / 2p) · Q/φ, and z″ = z·z′² gives the higher terms.
    let mut taylor = [0.0; 8];
    taylor[0] = z;
    taylor[1] = -mills_ratio(z) / (2.0 * SEGMENTS as f64 * middle);
    for n in 2..8 {
        let mut sum = 0.0;
        for i in 1..n {
            for j in 1..=n - i {
                sum += (i * j) as f64 * taylor[i] * taylor[j] * taylor[n - i - j];
            }
        }
        taylor[n] = sum / (n * (n - 1)) as f64;
    }
    let [a0, a1, a2, a3, a4, a5, a6, a7] = taylor;
    // τ⁴ → τ² − 1/8, τ⁵ → (20τ³ − 5τ)/16, τ⁶ → (30τ² − 5)/32, τ⁷ → (84τ³ − 28τ)/64.
    let e0 = a0 - a4 / 8.0 - a6 * 5.0 / 32.0;
    let e1 = a1 - a5 * 5.0 / 16.0 - a7 * 28.0 / 64.0;
    let e2 = a2 + a4 + a6 * 30.0 / 32.0;
    let e3 = a3 + a5 * 20.0 / 16.0 + a7 * 84.0 / 64.0;
    // τ = 2t − 1.
    [e0 - e1 + e2 - e3, -(2.0 * e1 - 4.0 * e2 + 6.0 * e3), 4.0 * e2 - 12.0 * e3, -8.0 * e3]
}

/// The whole table, octave by octave and segment by segment.
fn table() -> Vec<[u32; 4]> {
    let mut rows = Vec::with_capacity(OCTAVES * SEGMENTS);
    for octave in 0..OCTAVES {
        for segment in 0..SEGMENTS {
            let mut bits = FRACTION_BITS;
            rows.push(cubic(octave, segment).map(|coefficient| {
                let scaled = (coefficient * (1u64 << bits) as f64).round();
                assert!((0.0..=f64::from(u32::MAX)).contains(&scaled), "{octave}, {segment}: {scaled}");
                bits += GUARD_BITS;
                scaled as u32
            }));
        }
    }
    rows
}

mod tests {
    use super::*;
    use crate::random::NORMAL_TABLE;

    /// Reference values computed with 40 digits.
    #[test]
    fn quantile_gives_reference_values() {
        for (p, want) in [
            (0.484375, 0.039_176_085_503_097_63),
            (0.25, 0.674_489_750_196_081_7),
            (0.125, 1.150_349_380_376_008),
            (0.025, 1.959_963_984_540_054_2),
            (1e-3, 3.090_232_306_167_813_5),
            (1e-10, 6.361_340_902_404_056),
            (1.0 / 2_199_023_255_552.0, 7.143_552_034_352_189),
            (1e-15, 7.941_345_326_170_997),
            (0.5f64.powi(65), 9.155_293_772_686_072),
        ] {
            let got = upper_quantile(p);
            assert!((got - want).abs() <= 4e-15 * want.max(1.0), "p = {p:e}: got {got}, want {want}");
        }
    }

    /// One unit of tolerance, because the mathematical functions of platforms differ in the last place.
    #[test]
    fn committed_table_is_what_the_quantile_gives() {
        let fresh = table();
        assert_eq!(fresh.len(), NORMAL_TABLE.len());
        let wrong: Vec<String> = (0..fresh.len())
            .filter(|&row| (0..4).any(|c| fresh[row][c].abs_diff(NORMAL_TABLE[row][c]) > 1))
            .map(|row| format!("row {row}: committed {:?}, computed {:?}", NORMAL_TABLE[row], fresh[row]))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Writes `src/random/table.rs`: `cargo test --lib -- --ignored table_is_written_anew`.
    #[test]
    #[ignore = "rewrites a source file; run it by name after a change of the table's shape"]
    fn table_is_written_anew() {
        let mut text = String::from(
            "//! Coefficients of the normal quantile: generated by `quantile.rs`, which also checks them. Do not edit.\n\n\
             use super::normal::{OCTAVES, SEGMENTS};\n\n\
             /// The cubics of |z| in the upper-tail probability p, 64 octaves of 32 segments: row 32k + j is segment j of\n\
             /// octave k, where p = (1 + (j + t)/32) · 2^−(k+2) with 0 ≤ t < 1, and holds c₀, c₁, c₂, c₃ of\n\
             /// c₀ − t·(c₁ − t·(c₂ − t·c₃)) with 28, 35, 42 and 49 fraction bits.\n\
             ///\n\
             /// The binding `normal_table` of `shaders/layered/latent.wgsl` takes it as it is.\n\
             #[rustfmt::skip]\n",
        );
        text += "pub static NORMAL_TABLE: [[u32; 4]; OCTAVES * SEGMENTS] = [\n";
        for pair in table().chunks(2) {
            let cells: Vec<String> = pair.iter().map(|row| format!("{row:?}")).collect();
            text += &format!("    {},\n", cells.join(", "));
        }
        text += "];\n";
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/random/table.rs"), text)
            .expect("write the table");
    }
}
