//! Values far from all others of their column: the one rule for what is far.
//! [`Inspection`](super::Inspection) names them; the worst of them have no part in scales and losses of a training whose
//! preprocessing does not bring them near.

/// How much further than a value that is named one lies that would do harm: a thousand quartile distances.
const HARMFUL: f64 = 100.0;

/// Ends `[low, high]` beyond which a value is far from the others, which has quantiles of 5, 25, 75 and 95 % at
/// `quantiles`: beyond the quartiles by ten times the distance between these, and by fifteen times that to the outer twentieth
/// where the tail is a heavy one; and all this times `factor`. Infinite where most values are equal.
pub(super) fn ends([lowest, low, high, highest]: [f64; 4], factor: f64) -> [f64; 2] {
    const DISTANCES: f64 = 10.0;
    const DISTANCES_OF_TAIL: f64 = 15.0;
    let reach = |tail: f64| match factor * (DISTANCES * (high - low)).max(DISTANCES_OF_TAIL * tail) {
        reach if reach > 0.0 => reach,
        _ => f64::INFINITY,
    };
    [low - reach(low - lowest), high + reach(highest - high)]
}

/// Shares of the quantiles that [`ends`] wants.
pub(super) const SHARES: [f64; 4] = [0.05, 0.25, 0.75, 0.95];

/// The quantiles of a column `[N]` that [`ends`] wants; there is a value. The column changes its order.
pub(super) fn quantiles(column: &mut [f64]) -> [f64; 4] {
    let (count, mut from) = (column.len(), 0);
    SHARES.map(|share| {
        let place = ((share * count as f64) as usize).min(count - 1);
        // Those above the one before are behind it.
        let (_, value, _) = column[from..].select_nth_unstable_by(place - from, f64::total_cmp);
        from = place;
        *value
    })
}

/// The [`ends`] beyond which values do harm, of training rows and of validation rows: the training rows have this `column`
/// `[N]`, in which there is a value. A validation row that is far out and further than all of these does harm already, because
/// it says nothing of how well they are learnt. The column changes its order.
pub(super) fn harmful_ends(column: &mut [f64]) -> [[f64; 2]; 2] {
    let quantiles = quantiles(column);
    let [low, high] = ends(quantiles, HARMFUL);
    let [below, above] = ends(quantiles, 1.0);
    let least = column.iter().copied().fold(below, f64::min);
    let greatest = column.iter().copied().fold(above, f64::max);
    [[low, high], [low.max(least), high.min(greatest)]]
}

/// Least and greatest value of a column `[N]`, but for a few far from the others; nothing of none. The column changes its
/// order.
pub(super) fn range(column: &mut [f64]) -> Option<[f64; 2]> {
    if column.is_empty() {
        return None;
    }
    let [low, high] = ends(quantiles(column), 1.0);
    let is_near = |value: &&f64| (low..=high).contains(*value);
    let far = column.len() - column.iter().filter(is_near).count();
    let kept = column.iter().filter(|value| is_near(value) || !are_few(far, column.len()));
    let [least, greatest] = [f64::min as fn(f64, f64) -> f64, f64::max];
    Some([kept.clone().copied().reduce(least)?, kept.copied().reduce(greatest)?])
}

/// The rows of values at these rows and columns, which ascend.
pub(super) fn rows(values: &[(usize, usize)]) -> Vec<usize> {
    let mut rows: Vec<usize> = values.iter().map(|(row, _)| *row).collect();
    rows.dedup();
    rows
}

/// Whether so many values in so many rows are exceptions, or rather what the column is like.
pub(super) fn are_few(values: usize, rows: usize) -> bool {
    const FEW: f64 = 0.01;
    values as f64 <= (FEW * rows as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmful(column: &[f64]) -> Vec<usize> {
        let [[low, high], _] = harmful_ends(&mut column.to_vec());
        (0..column.len()).filter(|&row| !(low..=high).contains(&column[row])).collect()
    }

    #[test]
    fn values_a_thousand_distances_away_are_harmful_and_tails_are_not() {
        let mut column: Vec<f64> = (0..600).map(|i| f64::from(i * 389 % 600) / 600.0).collect();
        assert_eq!(harmful(&column), [0; 0]);
        (column[7], column[20], column[30]) = (400.0, -1e12, 510.0);
        assert_eq!(harmful(&column), [20, 30]);
        let cauchy: Vec<f64> = column.iter().map(|u| (3.1 * (u - 0.5)).tan()).collect();
        assert_eq!(harmful(&cauchy[100..]), [0; 0]);
        let mut zeros = vec![0.0; 100];
        assert_eq!(harmful(&zeros), [0; 0]);
        zeros[5] = 1.0;
        assert_eq!(harmful(&zeros), [0; 0], "most are equal, and nothing tells what is far");
        zeros[..10].fill(1.0);
        zeros[50] = 1e9;
        assert_eq!(harmful(&zeros), [50]);
    }

    #[test]
    fn a_validation_row_does_harm_where_it_is_far_and_further_than_all_training_rows() {
        let mut column: Vec<f64> = (0..600).map(|i| f64::from(i * 389 % 600) / 600.0).collect();
        let [_, [low, high]] = harmful_ends(&mut column.clone());
        assert!(low > -6.0 && low < -4.0 && high > 5.0 && high < 7.0, "{low} {high}");
        column[3] = 20.0;
        let [[_, harmful], [_, high]] = harmful_ends(&mut column.clone());
        assert!(high == 20.0 && harmful > 400.0, "{high} {harmful}");
        column[3] = 1e12;
        let [[_, harmful], [_, high]] = harmful_ends(&mut column.clone());
        assert!(high == harmful, "{high} {harmful}");
    }

    #[test]
    fn a_range_ends_before_a_few_values_far_from_the_others() {
        let mut column: Vec<f64> = (0..300).map(|i| f64::from(i * 389 % 300)).collect();
        assert_eq!(range(&mut column.clone()), Some([0.0, 299.0]));
        (column[7], column[20]) = (1e12, -9000.0);
        assert_eq!(range(&mut column.clone()), Some([0.0, 299.0]));
        column[7] = 400.0;
        assert_eq!(range(&mut column.clone()), Some([0.0, 400.0]), "a little beyond the others");
        column[..9].fill(1e12);
        assert_eq!(range(&mut column.clone()), Some([-9000.0, 1e12]), "so many are no exceptions");
        assert_eq!((range(&mut []), range(&mut [2.0])), (None, Some([2.0, 2.0])));
    }

    #[test]
    fn one_value_is_always_few() {
        assert!(are_few(1, 3) && are_few(10, 1000) && !are_few(11, 1000) && !are_few(2, 3));
    }
}
