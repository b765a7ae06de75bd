//! How much of a plane to show: all of the data but far outliers, on equal scales where that makes sense.

/// Share of the data at either end of a feature that may lie outside when it lies far outside.
const TRIM_DATA: f64 = 0.002;
/// The same of the samples: an ill-fitted model may throw many points far away.
const TRIM_SAMPLES: f64 = 0.01;
/// Height of a panel over its width: the lowest, and that of features whose scales cannot be equal.
const LOWEST: f64 = 0.66;
const UNEQUAL: f64 = 0.8;
/// Features whose spans differ by more than this factor are not drawn on equal scales.
const COMPARABLE: f64 = 4.0;

/// Limits (low, high) of both axes that show `data` and `samples`, each row-major [N, 2], with a margin.
///
/// Both axes have the same scale in panels of width 1 and height [0.66, 1]; only where one feature's span is more
/// than four times the other's (two different units, most likely) has each axis its own. Far outliers are left
/// outside and values that are not finite ignored.
pub fn limits(data: &[f64], samples: &[f64]) -> [(f64, f64); 2] {
    of_features(data, samples, 2)
}

/// [`limits`] of the first two of `features` features.
pub(super) fn of_features(data: &[f64], samples: &[f64], features: usize) -> [(f64, f64); 2] {
    comparable([0, 1].map(|feature| pad(range(data, samples, features, feature), 0.06)))
}

/// Limits of one feature that show `data` and `samples`, without a margin.
pub(super) fn range(data: &[f64], samples: &[f64], features: usize, feature: usize) -> (f64, f64) {
    let data = sorted(data, features, feature);
    let samples = sorted(samples, features, feature);
    let trimmed = |values: &[f64], share: f64| {
        let cut = (share * values.len() as f64).ceil() as usize;
        let cut = cut.min(values.len().saturating_sub(1) / 2);
        Some((*values.get(cut)?, values[values.len() - 1 - cut]))
    };
    let core = trimmed(&data, TRIM_DATA);
    let drawn = trimmed(&samples, TRIM_SAMPLES);
    let (low, high) = match core.or(drawn) {
        Some(range) => range,
        None => return (-1.0, 1.0),
    };
    let span = high - low;
    // Ordinary tails are shown to their last point, outliers are not.
    let near = 0.2 * span;
    let ends = if data.is_empty() { &samples } else { &data };
    let mut shown = (ends[0].max(low - near), ends[ends.len() - 1].min(high + near));
    if let Some(drawn) = drawn {
        let far = 0.5 * span;
        shown = (shown.0.min(drawn.0.max(low - far)), shown.1.max(drawn.1.min(high + far)));
    }
    shown
}

/// `range` with `margin` of its span added at either end; a range of no span becomes one around its value.
pub(super) fn pad((low, high): (f64, f64), margin: f64) -> (f64, f64) {
    let least = (1e-9 * low.abs().max(high.abs())).max(1e-150);
    if high - low <= least {
        let half = (0.05 * low.abs()).max(0.5);
        return (low - half, high + half);
    }
    let extra = margin * (high - low);
    (low - extra, high + extra)
}

/// Widens the smaller of two ranges until equal scales fit a panel of height [`LOWEST`] to 1; leaves ranges alone
/// that cannot be compared.
pub(super) fn comparable([x, y]: [(f64, f64); 2]) -> [(f64, f64); 2] {
    let (width, height) = (x.1 - x.0, y.1 - y.0);
    if width > COMPARABLE * height || height > COMPARABLE * width {
        return [x, y];
    }
    let widen = |(low, high): (f64, f64), span: f64| {
        let extra = 0.5 * (span - (high - low)).max(0.0);
        (low - extra, high + extra)
    };
    [widen(x, height), widen(y, LOWEST * width)]
}

/// Height over width of the panel for `limits`.
pub(super) fn aspect([x, y]: [(f64, f64); 2]) -> f64 {
    if equal_scale([x, y]) { ((y.1 - y.0) / (x.1 - x.0)).min(1.0) } else { UNEQUAL }
}

/// Whether both axes of `limits` have one scale in a panel of height [`aspect`].
pub(super) fn equal_scale([x, y]: [(f64, f64); 2]) -> bool {
    let ratio = (y.1 - y.0) / (x.1 - x.0);
    // The slack forgives the rounding of limits that went through a caller.
    (LOWEST - 1e-3..=1.0 + 1e-3).contains(&ratio)
}

/// Whether a range can be an axis.
pub(super) fn usable((low, high): (f64, f64)) -> bool {
    drawable(low) && drawable(high) && high > low
}

/// `range` where it can be an axis, else one near it that can.
pub(super) fn axis((low, high): (f64, f64)) -> (f64, f64) {
    match (low, high) {
        range if usable(range) => range,
        _ if drawable(low) && drawable(high) => pad((low.min(high), low.max(high)), 0.0),
        _ => (-1.0, 1.0),
    }
}

/// Finite, and so far from the largest float that a span cannot overflow.
pub(super) fn drawable(value: f64) -> bool {
    value.abs() < 1e150
}

fn sorted(rows: &[f64], features: usize, feature: usize) -> Vec<f64> {
    let mut values: Vec<f64> =
        rows.iter().skip(feature).step_by(features).copied().filter(|&value| drawable(value)).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` points evenly on [0, width] × [0, height].
    fn box_of(n: usize, width: f64, height: f64) -> Vec<f64> {
        (0..n)
            .flat_map(|i| {
                let part = i as f64 / (n - 1) as f64;
                [width * part, height * ((7 * i) % n) as f64 / (n - 1) as f64]
            })
            .collect()
    }

    #[test]
    fn limits_hold_every_point_of_clean_data_on_equal_scales() {
        for (width, height) in [(3.0, 2.5), (2.0, 3.0), (3.0, 1.0)] {
            let [x, y] = limits(&box_of(1000, width, height), &[]);
            assert!(x.0 < 0.0 && x.1 > width && y.0 < 0.0 && y.1 > height, "{x:?} {y:?}");
            assert!(equal_scale([x, y]), "{x:?} {y:?}");
        }
    }

    #[test]
    fn features_in_different_units_keep_their_own_scales() {
        let [x, y] = limits(&box_of(1000, 20_000.0, 3.0), &[]);
        assert!((x.1 - x.0) < 25_000.0 && (y.1 - y.0) < 4.0, "{x:?} {y:?}");
        assert!(!equal_scale([x, y]));
    }

    #[test]
    fn outliers_and_non_numbers_do_not_stretch_the_limits() {
        let clean = limits(&box_of(1000, 3.0, 2.5), &[]);
        let mut samples = box_of(1000, 3.0, 2.5);
        samples[0] = 1e9;
        samples[11] = f64::NAN;
        samples[20] = f64::NEG_INFINITY;
        samples[31] = f64::MAX;
        let [x, y] = limits(&box_of(1000, 3.0, 2.5), &samples);
        assert!((x.1 - clean[0].1).abs() < 0.1 && (y.0 - clean[1].0).abs() < 0.1, "{x:?} {y:?}");
        // A model that is wide of the mark shows, but only as far as half the data's span.
        let wide: Vec<f64> = samples.iter().map(|value| value * 100.0).collect();
        let [x, _] = limits(&box_of(1000, 3.0, 2.5), &wide);
        assert!(x.1 > 4.0 && x.1 < 6.0, "{x:?}");
    }

    #[test]
    fn a_constant_or_empty_table_still_has_limits_of_some_span() {
        for data in [vec![], vec![2.0; 20], vec![1e9; 4], vec![f64::NAN; 4], vec![3.0, 4.0]] {
            let limits = limits(&data, &[]);
            assert!(limits.into_iter().all(usable), "{data:?}: {limits:?}");
        }
    }
}
