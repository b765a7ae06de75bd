//! How normal the latent variable is, feature by feature, and what of the rows' structure it still has.

use rayon::prelude::*;

use super::largest;
use super::sample::Sample;
use crate::model::{LatentFeature, PairStructure, Structure};
use crate::normal;

/// Most features whose pairs are looked at: the work grows with their square.
const FEATURES: usize = 128;
/// How often chance alone is taken for structure, over all features and pairs of one fit.
const CHANCE: f64 = 1e-4;
/// Moments of each feature, and of each feature in a pair.
const MOMENTS: usize = 6;
const PAIR_MOMENTS: usize = 2;

/// One latent feature of rows `values` `[N, D]`, whose weights `sample` has.
pub(super) fn latent_feature(
    values: &[f64],
    sample: &Sample,
    features: usize,
    feature: usize,
) -> LatentFeature {
    let column = values[feature..].iter().step_by(features).enumerate();
    let mut sorted: Vec<(f64, f64)> = column.map(|(row, &value)| (value, sample.weight(row))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let mean = sorted.iter().map(|(value, weight)| weight * value).sum::<f64>() / total;
    let variance = sorted.iter().map(|(value, weight)| weight * (value - mean).powi(2)).sum::<f64>() / total;
    let mut passed = 0.0;
    let distances = sorted.iter().map(|(value, weight)| {
        let (below, before) = (normal::cdf(*value), passed / total);
        passed += weight;
        if below.is_nan() { below } else { (below - before).abs().max((passed / total - below).abs()) }
    });
    LatentFeature { mean, std: variance.sqrt(), distance: largest(distances) }
}

/// What normal scores `[N, D]`, of which the first M features are modelled, have beyond independent standard normals.
/// Rows whose scores are not numbers leave nothing to say.
pub(super) fn structure(scores: &[f64], sample: &Sample, features: usize, modelled: usize) -> Structure {
    let rows = scores.len() / features;
    let pairs: Vec<[usize; 2]> = if features > FEATURES {
        Vec::new()
    } else {
        (0..modelled).flat_map(|i| (i + 1..features).map(move |j| [i, j])).collect()
    };
    let effective = sample.effective(rows);
    let chance = CHANCE / (modelled + pairs.len()) as f64;
    // ½ Σ m² estimates the divergence from the standard normal; chance alone adds ½ / n for each moment.
    let nats = |moments: &[f64]| {
        let sum: f64 = moments.iter().map(|moment| moment * moment).sum();
        let is_sure = effective * sum > chi_squared_limit(chance, moments.len());
        if is_sure { 0.5 * (sum - moments.len() as f64 / effective) } else { 0.0 }
    };
    let columns: Vec<Vec<[f64; MOMENTS]>> = (0..if pairs.is_empty() { modelled } else { features })
        .into_par_iter()
        .map(|feature| {
            let column = scores[feature..].iter().step_by(features);
            if feature < modelled {
                column.map(|&score| legendre(2.0 * normal::cdf(score) - 1.0)).collect()
            } else {
                places(&column.copied().collect::<Vec<f64>>()).into_iter().map(legendre).collect()
            }
        })
        .collect();
    let mean = |feature: usize, moment: usize| {
        let column = columns[feature].iter().enumerate();
        let (mut sum, mut total) = (0.0, 0.0);
        for (row, values) in column {
            let weight = sample.weight(row);
            (sum, total) = (sum + weight * values[moment], total + weight);
        }
        sum / total
    };
    let margins = (0..modelled)
        .map(|feature| nats(&(0..MOMENTS).map(|moment| mean(feature, moment)).collect::<Vec<f64>>()));
    let centred: Vec<Vec<[f64; PAIR_MOMENTS]>> =
        columns.iter().map(|column| standardised(column, sample)).collect();
    let dependence: Vec<f64> =
        pairs.par_iter().map(|&[i, j]| nats(&correlations(&centred[i], &centred[j], sample))).collect();
    let most = std::iter::zip(pairs, dependence).max_by(|a, b| a.1.total_cmp(&b.1));
    Structure {
        rows,
        margins: margins.collect(),
        pair: most.filter(|(_, nats)| *nats > 0.0).map(|(features, nats)| PairStructure { features, nats }),
    }
}

/// Legendre's polynomials of degrees 1 to 6 at `t` in [−1, 1], with mean 0 and mean square 1 where t is uniform.
fn legendre(t: f64) -> [f64; MOMENTS] {
    let mut values = [0.0; MOMENTS];
    let (mut before, mut last) = (1.0, t);
    for (index, value) in values.iter_mut().enumerate() {
        let degree = (index + 1) as f64;
        *value = (2.0 * degree + 1.0).sqrt() * last;
        // Bonnet: (n + 1) Pₙ₊₁ = (2n + 1) t Pₙ − n Pₙ₋₁.
        (before, last) = (last, ((2.0 * degree + 1.0) * t * last - degree * before) / (degree + 1.0));
    }
    values
}

/// Where each value stands among all, from −1 to 1; equal values stand in the same place.
fn places(values: &[f64]) -> Vec<f64> {
    let count = values.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut places = vec![0.0; count];
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let first = order.partition_point(|&row| values[row].total_cmp(&values[group[0]]).is_lt());
        let middle = first as f64 + 0.5 * group.len() as f64;
        group.iter().for_each(|&row| places[row] = 2.0 * middle / count as f64 - 1.0);
    }
    places
}

/// The first moments of a column with weighted mean 0 and mean square 1; zeros where one does not vary.
fn standardised(column: &[[f64; MOMENTS]], sample: &Sample) -> Vec<[f64; PAIR_MOMENTS]> {
    let total: f64 = (0..column.len()).map(|row| sample.weight(row)).sum();
    let mean_of = |value: &dyn Fn(&[f64; MOMENTS]) -> f64| {
        column.iter().enumerate().map(|(row, values)| sample.weight(row) * value(values)).sum::<f64>() / total
    };
    let scale: [(f64, f64); PAIR_MOMENTS] = std::array::from_fn(|moment| {
        let mean = mean_of(&|values| values[moment]);
        let variance = mean_of(&|values| (values[moment] - mean).powi(2));
        (mean, if variance > 1e-12 { variance.sqrt().recip() } else { 0.0 })
    });
    column
        .iter()
        .map(|values| std::array::from_fn(|moment| (values[moment] - scale[moment].0) * scale[moment].1))
        .collect()
}

/// Weighted correlations of the moments of two columns, each with each.
fn correlations(
    first: &[[f64; PAIR_MOMENTS]],
    second: &[[f64; PAIR_MOMENTS]],
    sample: &Sample,
) -> [f64; PAIR_MOMENTS * PAIR_MOMENTS] {
    let (mut sums, mut total) = ([0.0; PAIR_MOMENTS * PAIR_MOMENTS], 0.0);
    for (row, (a, b)) in std::iter::zip(first, second).enumerate() {
        let weight = sample.weight(row);
        total += weight;
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum += weight * a[place / PAIR_MOMENTS] * b[place % PAIR_MOMENTS];
        }
    }
    sums.map(|sum| sum / total)
}

/// What a χ² variable of an even number of `degrees` exceeds with probability `chance`: with y half of it, the root of
/// exp(−y) Σ yⁱ / i! = chance, over i below half of the degrees.
fn chi_squared_limit(chance: f64, degrees: usize) -> f64 {
    let wanted = -chance.ln();
    let half = (0..100).fold(wanted, |half: f64, _| {
        let (sum, _) = (1..degrees / 2).fold((1.0, 1.0), |(sum, term), i| {
            let term = term * half / i as f64;
            (sum + term, term)
        });
        wanted + sum.ln()
    });
    2.0 * half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normals;

    const ALL: Sample = Sample { rows: Vec::new(), weights: None };

    /// Independent normals, row-major [N, `features`], of `seed`.
    fn noise(rows: u32, features: usize, seed: u64) -> Vec<f64> {
        let mut noise = vec![0.0f32; features];
        (0..rows)
            .flat_map(|row| {
                normals(row, seed, &mut noise);
                noise.iter().map(|&value| f64::from(value)).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn polynomials_have_mean_zero_and_are_orthonormal() {
        let count = 20_000;
        let points = (0..count).map(|i| legendre((2.0 * f64::from(i) + 1.0) / f64::from(count) - 1.0));
        let mut products = [[0.0; MOMENTS]; MOMENTS];
        let mut means = [0.0; MOMENTS];
        for values in points {
            for i in 0..MOMENTS {
                means[i] += values[i] / f64::from(count);
                for j in 0..MOMENTS {
                    products[i][j] += values[i] * values[j] / f64::from(count);
                }
            }
        }
        for i in 0..MOMENTS {
            assert!(means[i].abs() < 1e-6, "{means:?}");
            for j in 0..MOMENTS {
                assert!((products[i][j] - f64::from(u8::from(i == j))).abs() < 1e-6, "{products:?}");
            }
        }
    }

    #[test]
    fn the_limit_is_that_of_the_tables() {
        for (chance, degrees, want) in [(0.01, 4, 13.277), (0.001, 4, 18.467), (0.001, 6, 22.458)] {
            assert!((chi_squared_limit(chance, degrees) - want).abs() < 1e-3, "{degrees} degrees, {chance}");
        }
    }

    #[test]
    fn independent_normals_have_no_structure_in_200_samples() {
        for seed in 0..200 {
            let found = structure(&noise(2000, 3, seed), &ALL, 3, 2);
            assert_eq!((found.margins, found.pair), (vec![0.0; 2], None), "seed {seed}");
        }
    }

    #[test]
    fn each_kind_of_structure_is_found_where_it_is() {
        let found = |change: fn(&mut [f64])| {
            let mut scores = noise(9000, 3, 5);
            scores.chunks_exact_mut(3).for_each(change);
            structure(&scores, &ALL, 3, 2)
        };
        let flat = found(|row| row[0] = 12f64.sqrt() * (normal::cdf(row[0]) - 0.5));
        // A uniform column as a normal one costs 0.176 nats, of which four moments see some.
        assert!(flat.margins[0] > 0.02 && flat.margins[1] == 0.0 && flat.pair.is_none(), "{flat:?}");
        let linear = found(|row| row[1] = 0.8 * row[1] + 0.6 * row[0]);
        assert_eq!(linear.pair.map(|pair| pair.features), Some([0, 1]), "{linear:?}");
        let spread = found(|row| row[1] *= if row[0].abs() < 0.7 { 0.5 } else { 1.4 });
        assert_eq!(spread.pair.map(|pair| pair.features), Some([0, 1]), "{spread:?}");
        // The last feature is a context, of any distribution.
        let given = found(|row| {
            row[0] = 0.6 * row[0] + 0.8 * row[2];
            row[2] = row[2].exp().round();
        });
        assert_eq!(given.pair.map(|pair| pair.features), Some([0, 2]), "{given:?}");
    }

    #[test]
    fn weights_count() {
        // Rows of the left half count nothing there, and are normal where the right half counts twice.
        let scores = noise(4000, 1, 3);
        let weights: Vec<f64> = scores.iter().map(|&z| if z > 0.0 { 2.0 } else { 1e-3 }).collect();
        let folded: Vec<f64> =
            scores.iter().enumerate().map(|(row, z)| if row % 2 == 0 { *z } else { -z }).collect();
        let weighted = Sample { rows: Vec::new(), weights: Some(weights) };
        assert!(structure(&scores, &weighted, 1, 1).margins[0] > 0.1);
        assert!(latent_feature(&scores, &weighted, 1, 0).distance > 0.4);
        assert_eq!(structure(&folded, &weighted, 1, 1).margins, [0.0]);
        assert!(latent_feature(&folded, &weighted, 1, 0).distance < 0.04);
    }

    #[test]
    fn equal_values_stand_in_the_same_place() {
        assert_eq!(places(&[3.0, 1.0, 3.0, 2.0]), [0.5, -0.75, 0.5, -0.25]);
    }
}
