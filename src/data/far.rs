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

/// The [`ends`] of the values of a column `[N]`, of which there is one, beyond which they do harm.
pub(super) fn harmful_ends(mut column: Vec<f64>) -> [f64; 2] {
    let (count, mut from) = (column.len(), 0);
    let quantiles = SHARES.map(|share| {
        let place = ((share * count as f64) as usize).min(count - 1);
        // Those above the one before are behind it.
        let (_, value, _) = column[from..].select_nth_unstable_by(place - from, f64::total_cmp);
        from = place;
        *value
    });
    ends(quantiles, HARMFUL)
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
        let [low, high] = harmful_ends(column.to_vec());
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
    fn one_value_is_always_few() {
        assert!(are_few(1, 3) && are_few(10, 1000) && !are_few(11, 1000) && !are_few(2, 3));
    }
}
