//! When a number of the self-check is suspicious.

use super::sample::Sample;
use crate::model::{CouplingUnits, Finding, SelfCheck, SharedColumn};

/// Errors of a round trip in single precision, in standardised units, from which a model is suspicious.
const ROUND_TRIP_LIMIT: f64 = 1e-2;
/// Likewise the log-determinant, in nats. The networks have kinks, which differences see.
const LOG_DET_LIMIT: f64 = 1e-3;
/// Standard errors beyond which a difference is no accident, and within which one density is not clearly better than
/// another.
const ERRORS: f64 = 4.0;
const CLEAR_ERRORS: f64 = 2.0;
/// Gap in nats, and what mean and deviation of a latent feature may be off by, below which none matters however sure it
/// is.
const GAP_LIMIT: f64 = 0.05;
const MOMENT_LIMIT: f64 = 0.2;
/// Likewise the distance of a latent feature: at most this share of the probability is in the wrong place. Good fits
/// are within 0.01 over 10,000 rows.
const DISTANCE_LIMIT: f64 = 0.035;
/// How often a normal feature is taken for another by its distance, over all features.
const DISTANCE_CHANCE: f64 = 1e-3;
/// Structure of one feature or pair that may be left in the latent variable, in nats.
const STRUCTURE_LIMIT: f64 = 0.02;
/// Share of what is lost by heart that is little. Splines on the 900 rows of concrete leave 0.04 nats of structure and lose
/// 1 to 2 by heart, and with SiLU 0.5 more; where diabetes leaves 0.3 and loses 1, SiLU gains 0.5.
const LITTLE: f64 = 0.1;
/// Nats by which kernel densities of the columns may be better than a flow of them.
const KERNEL_LIMIT: f64 = 0.02;
/// Nats by which rows are not so simple as a density that the flow is no better than, and by which it has to be better.
/// A triangular column is worth 0.02 nats, of which six moments see a third.
const NOT_SIMPLE: f64 = 0.003;
/// Share of a layer's units that may be dead: good fits have layers where all but two or three of 48 are.
const DEAD_LIMIT: f64 = 0.97;
/// Nats above the median loss from which a row is far from the others, and the same in distances from the median to the
/// upper quartile.
const FAR: f64 = 30.0;
const FAR_QUARTILES: f64 = 20.0;

/// What is suspicious in `check`, whose latent features are those of `effective` rows, and in whose columns `shared` many
/// rows share a value. Numbers that are not finite leave nothing else to say.
pub(super) fn findings(
    check: &SelfCheck,
    effective: f64,
    far: Vec<Finding>,
    shared: Vec<SharedColumn>,
) -> Vec<Finding> {
    if !is_finite(check) {
        return vec![Finding::NotFinite];
    }
    let mut found = Vec::new();
    if check.round_trip.abs() > ROUND_TRIP_LIMIT {
        found.push(Finding::RoundTrip { error: check.round_trip });
    }
    if let Some(error) = check.log_det.filter(|error| error.abs() > LOG_DET_LIMIT) {
        found.push(Finding::LogDet { error });
    }
    found.extend(far);
    found.extend(gap(check));
    let repeating: Vec<usize> = shared.iter().map(|column| column.feature).collect();
    if !shared.is_empty() {
        found.push(Finding::SharedValues { columns: shared });
    }
    let features = features_not_normal(check, effective);
    let simple = simple(check, &features);
    if !matches!(simple, Some(Finding::NoBetterThanSimple { .. })) {
        found.extend(not_normal(check, features, &repeating));
    }
    found.extend(simple.or_else(|| worse_than_kernels(check)));
    found.extend(dead(check));
    found
}

fn is_finite(check: &SelfCheck) -> bool {
    let latent = check.latent.iter().flat_map(|feature| [feature.mean, feature.std, feature.distance]);
    let compared = check.comparison.iter().flat_map(|comparison| [comparison.model, comparison.gain]);
    let others = [Some(check.round_trip), check.log_det, check.gap, check.gap_error].into_iter().flatten();
    latent.chain(compared).chain(others).all(f64::is_finite)
}

/// Both signs of the gap.
fn gap(check: &SelfCheck) -> Option<Finding> {
    let (gap, error) = (check.gap?, check.gap_error?);
    let limit = GAP_LIMIT.max(ERRORS * error);
    if gap > limit {
        return Some(Finding::LearntByHeart { gap, error });
    }
    (gap < -limit).then_some(Finding::UnlikeSplit { gap, error })
}

/// Rows far from the others among rows with these log-densities, if they move the mean.
pub(super) fn far_rows(log_density: &[f64], sample: &Sample, validation: bool) -> Option<Finding> {
    let mut sorted: Vec<f64> = log_density.iter().map(|value| -value).collect();
    sorted.sort_by(f64::total_cmp);
    let quantile = |share: f64| sorted.get((share * sorted.len() as f64) as usize).copied();
    let (median, upper) = (quantile(0.5)?, quantile(0.75)?);
    let limit = median + FAR.max(FAR_QUARTILES * (upper - median));
    let (mut rows, mut sum, mut total) = (0, 0.0, 0.0);
    for (row, value) in log_density.iter().enumerate() {
        total += sample.weight(row);
        if -value > limit {
            rows += 1;
            sum += sample.weight(row) * (-value - median);
        }
    }
    let nats = sum / total;
    (nats > GAP_LIMIT && nats.is_finite()).then_some(Finding::FarRows { validation, rows, nats })
}

/// The features that are not normal over `effective` unseen rows, or whose structure over training rows is too much.
fn features_not_normal(check: &SelfCheck, effective: f64) -> Vec<usize> {
    let chance = DISTANCE_CHANCE / check.latent.len() as f64;
    // Kolmogorov's distribution: √n times the distance exceeds x with probability 2 exp(−2 x²).
    let distance = DISTANCE_LIMIT.max((-0.5 * (0.5 * chance).ln() / effective).sqrt());
    let mean = MOMENT_LIMIT.max(ERRORS / effective.sqrt());
    let std = MOMENT_LIMIT.max(ERRORS / (2.0 * effective).sqrt());
    let margins = check.structure.as_ref().map_or(&[][..], |structure| &structure.margins);
    let (structure, lost) = (structure_limit(check), lost_by_heart(check));
    // Unseen rows that lie further out are a part of what is lost by heart: ½ (s² − 1) − ln s nats of it.
    let is_wide = |wide: f64| wide > 1.0 && 0.5 * (wide * wide - 1.0) - wide.ln() < lost;
    let is_off = |index: usize| {
        let feature = &check.latent[index];
        feature.distance > distance
            || feature.mean.abs() > mean
            || ((feature.std - 1.0).abs() > std && !is_wide(feature.std))
            || margins.get(index).is_some_and(|&nats| nats > structure)
    };
    (0..check.latent.len()).filter(|&index| is_off(index)).collect()
}

/// Whether a simple density is as good as the flow, or better, though the rows are not so simple. A flow of rows that
/// are as simple is no better either.
fn simple(check: &SelfCheck, not_normal: &[usize]) -> Option<Finding> {
    let comparison = check.comparison.as_ref()?;
    let (baseline, gain, error) = (comparison.baseline(), comparison.gain, comparison.gain_error);
    if !error.is_finite() {
        return None;
    }
    if gain < -GAP_LIMIT.max(ERRORS * error) {
        return Some(Finding::WorseThanSimple { baseline, gain, error });
    }
    let structure = check.structure.as_ref()?;
    // The test sees a part of what there is to be gained, so that a good fit gains more.
    let is_left = comparison.beyond > NOT_SIMPLE.max(gain) && structure.total() > NOT_SIMPLE;
    if gain > NOT_SIMPLE.max(CLEAR_ERRORS * error) || !is_left {
        return None;
    }
    let margins =
        structure.margins.iter().enumerate().filter(|(_, nats)| **nats > 0.0).map(|(index, _)| index);
    let pair = structure.pair.iter().flat_map(|pair| pair.features);
    let mut features: Vec<usize> = margins.chain(pair).chain(not_normal.iter().copied()).collect();
    features.sort_unstable();
    features.dedup();
    Some(Finding::NoBetterThanSimple { baseline, gain, error, features })
}

/// Whether kernel densities of the columns are better. They know training rows a little too well, so that validation rows
/// have a say.
fn worse_than_kernels(check: &SelfCheck) -> Option<Finding> {
    let kernel = check.comparison.as_ref()?.kernel?;
    let (nats, error) = (-kernel.training, kernel.training_error);
    let is_worse = nats > KERNEL_LIMIT.max(ERRORS * error) && kernel.validation < 0.0;
    is_worse.then_some(Finding::WorseThanKernels { nats, error })
}

/// Nats per row that the flow surely loses by knowing its training rows too well.
fn lost_by_heart(check: &SelfCheck) -> f64 {
    check.gap.zip(check.gap_error).map_or(0.0, |(gap, error)| gap - CLEAR_ERRORS * error)
}

/// Structure of one feature or pair that is no fault: little beside what is lost by heart, of which a more able flow
/// would lose more.
fn structure_limit(check: &SelfCheck) -> f64 {
    STRUCTURE_LIMIT.max(LITTLE * lost_by_heart(check))
}

fn not_normal(check: &SelfCheck, features: Vec<usize>, repeating: &[usize]) -> Vec<Finding> {
    let mut found = Vec::new();
    if !features.is_empty() {
        let repeating = features.iter().copied().filter(|feature| repeating.contains(feature)).collect();
        found.push(Finding::NotNormal { features, repeating });
    }
    let pair = check.structure.as_ref().and_then(|structure| structure.pair);
    let limit = structure_limit(check);
    found.extend(pair.filter(|pair| pair.nats > limit).map(|pair| Finding::Dependent { pair }));
    found
}

/// Layers that no longer compute anything. In a flow of rows that are a Gaussian they are no fault: it had nothing to
/// learn.
fn dead(check: &SelfCheck) -> Option<Finding> {
    if check.comparison.as_ref().is_some_and(|comparison| comparison.beyond <= NOT_SIMPLE) {
        return None;
    }
    let share = |units: &CouplingUnits| units.worst.dead as f64 / units.worst.units as f64;
    let couplings = || check.units.iter().filter(|units| share(units) > DEAD_LIMIT);
    // The first of equals.
    let worst = couplings().rev().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    Some(Finding::DeadUnits {
        transform: worst.transform,
        layer: worst.worst.clone(),
        couplings: couplings().count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SharedValues;
    use crate::model::{
        Baseline, Comparison, CouplingUnits, KernelGain, LatentFeature, LayerUnits, PairStructure, Structure,
    };

    /// Of a good fit, over 1,000 validation rows.
    fn good() -> SelfCheck {
        SelfCheck {
            round_trip: 1e-6,
            log_det: Some(1e-9),
            gap: Some(0.02),
            gap_error: Some(0.03),
            comparison: Some(comparison(0.7, 0.05)),
            latent_rows: 1000,
            latent: vec![LatentFeature { mean: 0.02, std: 0.98, distance: 0.03 }; 2],
            structure: Some(Structure { rows: 9000, margins: vec![0.004, 0.0], pair: None }),
            units: vec![units(0, 10), units(1, 30)],
            ..SelfCheck::default()
        }
    }

    fn comparison(gain: f64, gain_error: f64) -> Comparison {
        Comparison {
            rows: 1000,
            model: -1.0,
            independent: -1.9,
            gaussian: Some(-1.0 - gain),
            gain,
            gain_error,
            beyond: 0.4,
            kernel: None,
        }
    }

    fn units(transform: usize, dead: usize) -> CouplingUnits {
        let worst = LayerUnits { network: "scale".into(), layer: 2, units: 48, dead };
        CouplingUnits { transform, units: 192, dead, worst }
    }

    fn found(change: impl Fn(&mut SelfCheck)) -> Vec<Finding> {
        let mut check = good();
        change(&mut check);
        findings(&check, check.latent_rows as f64, Vec::new(), Vec::new())
    }

    #[test]
    fn a_good_fit_has_no_findings() {
        assert_eq!(found(|_| ()), []);
    }

    #[test]
    fn numbers_that_are_not_finite_are_all_there_is_to_say() {
        for change in [
            |check: &mut SelfCheck| check.round_trip = f64::NAN,
            |check: &mut SelfCheck| check.gap = Some(f64::INFINITY),
            |check: &mut SelfCheck| check.latent[1].distance = f64::NAN,
            |check: &mut SelfCheck| check.comparison = Some(comparison(f64::NAN, 0.1)),
        ] {
            assert_eq!(found(change), [Finding::NotFinite]);
        }
    }

    #[test]
    fn rough_passes_and_wrong_densities_are_found() {
        assert_eq!(found(|check| check.round_trip = 0.02), [Finding::RoundTrip { error: 0.02 }]);
        assert_eq!(found(|check| check.log_det = Some(-0.01)), [Finding::LogDet { error: -0.01 }]);
    }

    #[test]
    fn both_signs_of_a_gap_are_found_where_they_are_no_accident() {
        let with = |gap, error| found(|check| (check.gap, check.gap_error) = (Some(gap), Some(error)));
        assert_eq!(with(0.3, 0.05), [Finding::LearntByHeart { gap: 0.3, error: 0.05 }]);
        assert_eq!(with(-0.3, 0.05), [Finding::UnlikeSplit { gap: -0.3, error: 0.05 }]);
        for (gap, error) in [(0.3, 0.1), (-0.3, 0.1), (0.04, 0.001), (-0.04, 0.001)] {
            assert_eq!(with(gap, error), []);
        }
    }

    #[test]
    fn a_flow_that_is_no_better_than_a_gaussian_is_found_only_where_the_rows_are_no_gaussian() {
        let gaussian = |margins: [f64; 2], beyond, gain| {
            found(|check| {
                check.comparison = Some(Comparison { beyond, ..comparison(gain, 0.002) });
                check.structure = Some(Structure { rows: 9000, margins: margins.to_vec(), pair: None });
                check.units = vec![units(0, 48)];
            })
        };
        assert_eq!(gaussian([0.0, 0.002], 0.0, -0.003), [], "the rows are a Gaussian");
        assert_eq!(gaussian([0.0, 0.004], 0.0, -0.003), [], "they are, and the flow bends them");
        let stalled = |gain| Finding::NoBetterThanSimple {
            baseline: Baseline::Gaussian,
            gain,
            error: 0.002,
            features: vec![1],
        };
        for gain in [-0.003, 0.004] {
            let found = gaussian([0.0, 0.04], 0.04, gain);
            assert_eq!(found[0], stalled(gain));
            assert!(matches!(found[1..], [Finding::DeadUnits { .. }]), "{found:?}");
        }
        let gained = gaussian([0.0, 0.04], 0.0035, 0.0038);
        assert!(matches!(gained[..], [Finding::NotNormal { .. }, Finding::DeadUnits { .. }]), "{gained:?}");
        let found_dead = gaussian([0.0, 0.015], 0.04, 0.1);
        assert!(
            matches!(found_dead[..], [Finding::DeadUnits { .. }]),
            "it is clearly better: {found_dead:?}"
        );
        let worse = gaussian([0.0, 0.0], 0.0, -0.2);
        assert!(
            matches!(worse[..], [Finding::WorseThanSimple { baseline: Baseline::Gaussian, .. }]),
            "{worse:?}"
        );

        let pair = PairStructure { features: [0, 1], nats: 0.01 };
        let found = found(|check| {
            check.comparison = Some(comparison(0.001, 0.002));
            check.structure = Some(Structure { rows: 9000, margins: vec![0.0; 2], pair: Some(pair) });
        });
        let [Finding::NoBetterThanSimple { features, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(features[..], [0, 1]);
    }

    #[test]
    fn kernel_densities_that_are_better_on_both_sides_are_found() {
        let with = |training: f64, validation: f64| {
            let kernel = Some(KernelGain { training, training_error: 0.01, validation });
            found(|check| check.comparison = Some(Comparison { kernel, ..comparison(0.7, 0.05) }))
        };
        assert_eq!(with(-0.05, -0.03), [Finding::WorseThanKernels { nats: 0.05, error: 0.01 }]);
        for (training, validation) in [(-0.05, 0.001), (-0.035, -0.1), (0.05, -0.1)] {
            assert_eq!(with(training, validation), [], "{training}, {validation}");
        }
    }

    #[test]
    fn structure_that_is_little_beside_what_is_lost_by_heart_is_no_fault() {
        let pair = PairStructure { features: [0, 1], nats: 0.04 };
        let with = |gap: f64, gap_error: f64| {
            found(|check| {
                (check.gap, check.gap_error) = (Some(gap), Some(gap_error));
                check.structure = Some(Structure { rows: 900, margins: vec![0.03, 0.0], pair: Some(pair) });
            })
        };
        let column = Finding::NotNormal { features: vec![0], repeating: Vec::new() };
        let both = [column, Finding::Dependent { pair }];
        assert_eq!(with(2.0, 0.9), both);
        assert_eq!(with(2.0, 0.83), both[1..]);
        assert_eq!(with(2.0, 0.7), []);
    }

    #[test]
    fn unseen_rows_further_out_are_a_part_of_what_is_lost_by_heart_and_rows_further_in_are_not() {
        let with = |std: f64, gap: f64| {
            found(|check| {
                (check.gap, check.gap_error) = (Some(gap), Some(0.03));
                check.latent[1].std = std;
            })
        };
        let off = [Finding::NotNormal { features: vec![1], repeating: Vec::new() }];
        // 1.4 is worth 0.144 nats.
        assert_eq!(with(1.4, 0.0), off);
        assert_eq!(with(1.4, 0.19)[1..], off);
        assert_eq!(with(1.4, 0.21)[1..], []);
        assert_eq!(with(0.6, 0.21)[1..], off);
    }

    #[test]
    fn a_distance_is_judged_by_the_size_of_its_sample() {
        let with = |distance: f64, rows: usize| {
            found(|check| {
                check.latent_rows = rows;
                check.latent[0].distance = distance;
            })
        };
        let off = [Finding::NotNormal { features: vec![0], repeating: Vec::new() }];
        assert_eq!(with(0.05, 10_000), off);
        assert_eq!(with(0.05, 1000), [], "once in a few hundred normal samples");
        assert_eq!(with(0.08, 1000), off);
        assert_eq!(with(0.03, 10_000), [], "sure, but too small to matter");
    }

    #[test]
    fn structure_moments_and_dependence_are_found() {
        let off =
            |features: &[usize]| Finding::NotNormal { features: features.to_vec(), repeating: Vec::new() };
        assert_eq!(found(|check| check.latent[0].mean = 0.3), [off(&[0])]);
        assert_eq!(found(|check| check.latent[1].std = 1.4), [off(&[1])]);
        let structure = |margins: Vec<f64>, pair| Some(Structure { rows: 9000, margins, pair });
        assert_eq!(found(|check| check.structure = structure(vec![0.03, 0.03], None)), [off(&[0, 1])]);
        let pair = PairStructure { features: [0, 1], nats: 0.05 };
        assert_eq!(
            found(|check| check.structure = structure(vec![0.0; 2], Some(pair))),
            [Finding::Dependent { pair }]
        );
    }

    #[test]
    fn columns_with_shared_values_are_found_in_a_good_fit_too_and_named_among_those_that_are_not_normal() {
        let shared = SharedValues { different: 3, whole: true, value: 1.0, share: 0.5 };
        let columns = vec![SharedColumn { feature: 1, shared }];
        let found =
            |check: &SelfCheck| findings(check, check.latent_rows as f64, Vec::new(), columns.clone());
        let first = Finding::SharedValues { columns: columns.clone() };
        assert_eq!(found(&good()), std::slice::from_ref(&first));
        let mut off = good();
        off.latent.iter_mut().for_each(|feature| feature.mean = 0.3);
        assert_eq!(found(&off), [first, Finding::NotNormal { features: vec![0, 1], repeating: vec![1] }]);
    }

    #[test]
    fn layers_of_dead_units_are_counted_and_the_worst_is_named() {
        assert_eq!(found(|check| check.units = vec![units(0, 44), units(2, 46)]), []);
        let dead = found(|check| check.units = vec![units(0, 47), units(1, 2), units(3, 48), units(5, 48)]);
        let layer = units(3, 48).worst;
        assert_eq!(dead, [Finding::DeadUnits { transform: 3, layer, couplings: 3 }]);
    }

    #[test]
    fn rows_far_from_the_others_are_counted_where_they_move_the_mean() {
        let all = Sample { rows: Vec::new(), weights: None };
        let mut density: Vec<f64> = (0..1000).map(|row| -1.0 - f64::from(row % 50) * 0.1).collect();
        assert_eq!(far_rows(&density, &all, false), None);
        density[7] = -43.5;
        assert_eq!(far_rows(&density, &all, false), None, "far, but it adds 0.04 nats");
        density[8] = -63.5;
        let found = far_rows(&density, &all, true);
        let Some(Finding::FarRows { validation: true, rows: 2, nats }) = found else { panic!("{found:?}") };
        assert!((nats - 0.1).abs() < 0.001, "{nats}");
        // Rows of many columns have losses that differ by much.
        let wide: Vec<f64> = density.iter().map(|value| 40.0 * value).collect();
        assert_eq!(far_rows(&wide[..7], &all, false), None);
    }
}
