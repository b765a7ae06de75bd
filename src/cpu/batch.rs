//! Minibatches: which training rows a step sees. Twin of `shaders/training/batch.wgsl`.
//! An epoch is a fresh permutation of all rows, cut into batches; the last one takes what is left.

use std::ops::Range;

use crate::random::{Permutation, Stream};

use super::Real;
use super::simd::copy_few;

/// Copies the training rows of one batch into `x`.
///
/// Row r of a batch that starts at row `first` of epoch `epoch` (completed epochs, from 0) is training row
/// permute(`first` + r). `train`: row-major [N, D]; `x`: row-major [B, D], overwritten.
pub fn gather<R: Real>(features: usize, first: usize, seed: u64, epoch: u32, train: &[R], x: &mut [R]) {
    let rows = (train.len() / features) as u32;
    let order = Permutation::new(rows, seed, Stream::Epoch, epoch);
    for (row, x) in x.chunks_exact_mut(features).enumerate() {
        let from = order.place((first + row) as u32) as usize;
        copy_few(&train[from * features..(from + 1) * features], x);
    }
}

/// The batches of an epoch over `rows`, as ranges of its order; it begins at 0 unless its first rows are taken.
pub fn batches(rows: Range<usize>, batch: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(batch).map(move |first| first..end.min(first + batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_visits_every_row_once_in_a_new_order() {
        let train: Vec<f64> = (0..11).flat_map(|row| [f64::from(row), -f64::from(row)]).collect();
        let order = |epoch| {
            let mut seen = Vec::new();
            let mut sizes = Vec::new();
            for batch in batches(0..11, 4) {
                let mut x = vec![f64::NAN; 2 * batch.len()];
                gather(2, batch.start, 5, epoch, &train, &mut x);
                for row in x.chunks_exact(2) {
                    assert_eq!(row[0], -row[1], "rows stay whole");
                    seen.push(row[0] as u32);
                }
                sizes.push(batch.len());
            }
            assert_eq!(sizes, [4, 4, 3], "the partial batch is kept");
            seen
        };
        let orders = [order(0), order(1)];
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..11), "{order:?}");
        }
        assert_ne!(orders[0], orders[1]);
    }
}
