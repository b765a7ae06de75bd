//! Which thread takes which rows of a training batch, and in which order their gradients are added.
//!
//! A batch is cut into splits of one or more tiles. It has two halves, and its gradient is the sum over one half's splits in
//! order plus that over the other's. A thread that begins a half adds all the splits it takes to the slot of the first one,
//! which stays in the cache. A thread that finds both begun takes splits from a half's end, each into a slot of its own,
//! which is added after the others. Either way the sums are the same, and two threads fill two slots, however many splits
//! there are.

use std::sync::{Mutex, MutexGuard};

use super::Real;
use super::buffer::Buffer;
use super::simd::each;

/// A range of the rows of a batch: one or more tiles whose gradients are added to one slot.
pub(super) struct Split<'a, R> {
    /// Its first row in the batch.
    pub first: usize,
    /// −log p of its rows.
    pub nll: &'a mut [R],
    /// A packed gradient of every segment of the parameters.
    slot: &'a mut Buffer<R>,
}

/// What is left of a half.
struct Half<'a, R> {
    first: usize,
    nll: &'a mut [R],
    slots: &'a mut [Buffer<R>],
    /// Splits in the slot of the first.
    merged: usize,
}

/// The splits that no thread has taken yet.
pub(super) struct Splits<'a, R> {
    /// Rows of a split; the last may have fewer.
    rows: usize,
    halves: Mutex<[Half<'a, R>; 2]>,
}

/// How many of each half's splits are in the slot of its first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merged([usize; 2]);

/// Where the second half of so many slots begins.
fn middle(slots: usize) -> usize {
    slots.div_ceil(2)
}

impl<'a, R: Real> Splits<'a, R> {
    /// Splits of `rows` rows of the batch of `nll`, one for each of `slots`.
    pub fn new(rows: usize, nll: &'a mut [R], slots: &'a mut [Buffer<R>]) -> Self {
        debug_assert_eq!(slots.len(), nll.len().div_ceil(rows));
        let second = middle(slots.len());
        let (slots, nll) = (slots.split_at_mut(second), nll.split_at_mut((second * rows).min(nll.len())));
        let halves = [
            Half { first: 0, nll: nll.0, slots: slots.0, merged: 0 },
            Half { first: second * rows, nll: nll.1, slots: slots.1, merged: 0 },
        ];
        Self { rows, halves: Mutex::new(halves) }
    }

    /// Calls `visit` on splits until there are none: with the split, the slot for its gradient, and whether to add to
    /// what the slot holds.
    ///
    /// Where `merge` is false, every split goes to its own slot.
    pub fn work(&self, merge: bool, mut visit: impl FnMut(usize, &mut [R], &mut [R], bool)) {
        while let Some((half, Split { first, nll, slot })) = merge.then(|| self.begin()).flatten() {
            visit(first, nll, slot, false);
            while let Some(Split { first, nll, .. }) = self.next(half) {
                visit(first, nll, slot, true);
            }
        }
        while let Some(Split { first, nll, slot }) = self.last() {
            visit(first, nll, slot, false);
        }
    }

    /// Of each half, how many splits went to its first slot.
    pub fn merged(&self) -> Merged {
        let halves = self.halves();
        Merged([0, 1].map(|half: usize| halves[half].merged.max(1)))
    }

    /// The first split of a half that no thread has begun.
    fn begin(&self) -> Option<(usize, Split<'a, R>)> {
        let mut halves = self.halves();
        let half = halves.iter().position(|half| half.merged == 0 && !half.slots.is_empty())?;
        Some((half, halves[half].take_first(self.rows)?))
    }

    /// The split after those taken from the front of `half`.
    fn next(&self, half: usize) -> Option<Split<'a, R>> {
        self.halves()[half].take_first(self.rows)
    }

    /// The last split of the half that has more of them.
    fn last(&self) -> Option<Split<'a, R>> {
        let mut halves = self.halves();
        let half = usize::from(halves[1].slots.len() > halves[0].slots.len());
        halves[half].take_last(self.rows)
    }

    fn halves(&self) -> MutexGuard<'_, [Half<'a, R>; 2]> {
        self.halves.lock().expect("invariant: no panic while the lock is held")
    }
}

impl<'a, R> Half<'a, R> {
    fn take_first(&mut self, rows: usize) -> Option<Split<'a, R>> {
        let slot = self.slots.split_off_first_mut()?;
        let count = rows.min(self.nll.len());
        let nll = self.nll.split_off_mut(..count)?;
        let first = self.first;
        self.first += count;
        self.merged += 1;
        Some(Split { first, nll, slot })
    }

    fn take_last(&mut self, rows: usize) -> Option<Split<'a, R>> {
        let before = self.slots.len().checked_sub(1)? * rows;
        let slot = self.slots.split_off_last_mut()?;
        let nll = self.nll.split_off_mut(before..)?;
        Some(Split { first: self.first + before, nll, slot })
    }
}

impl Merged {
    /// The sum of `range` of all `slots`, overwriting `sum`: over each half's in order, then over both.
    pub fn add_up<R: Real>(self, slots: &[Buffer<R>], range: std::ops::Range<usize>, sum: &mut [R]) {
        /// Values at a time, which stay in the first cache.
        const BLOCK: usize = 512;

        let (first, second) = slots.split_at(middle(slots.len()));
        R::vectorised(
            #[inline(always)]
            || {
                let mut other = [R::zero(); BLOCK];
                for (place, sum) in sum.chunks_mut(BLOCK).enumerate() {
                    let start = range.start + place * BLOCK;
                    let block = start..start + sum.len();
                    add_half(first, self.0[0], block.clone(), sum);
                    if !second.is_empty() {
                        let other = &mut other[..sum.len()];
                        add_half(second, self.0[1], block, other);
                        add(sum, other);
                    }
                }
            },
        );
    }
}

/// Sum of `block` over a half's slots, whose first holds `merged` splits.
#[inline(always)]
fn add_half<R: Real>(slots: &[Buffer<R>], merged: usize, block: std::ops::Range<usize>, sum: &mut [R]) {
    sum.copy_from_slice(&slots[0][block.clone()]);
    for slot in &slots[merged..] {
        add(sum, &slot[block.clone()]);
    }
}

#[inline(always)]
fn add<R: Real>(sum: &mut [R], values: &[R]) {
    each(sum, values, |sum, &value| *sum += value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 3;

    /// What a split of these rows adds: numbers whose sum depends on its order.
    fn part(first: usize, rows: usize) -> [f32; WIDTH] {
        [1.0, 1e-4, 3.0e7].map(|scale| scale * ((first + 1) as f32).sqrt() * rows as f32)
    }

    fn visit(first: usize, nll: &mut [f32], slot: &mut [f32], add: bool) {
        nll.fill(first as f32);
        for (slot, part) in slot.iter_mut().zip(part(first, nll.len())) {
            *slot = if add { *slot + part } else { part };
        }
    }

    /// The sum of a batch whose splits are worked on by `work`, and −log p.
    fn outcome(batch: usize, rows: usize, work: impl FnOnce(&Splits<f32>)) -> (Vec<f32>, Vec<f32>) {
        let count = batch.div_ceil(rows);
        let mut slots: Vec<Buffer<f32>> = (0..count).map(|_| Buffer::zeros(WIDTH)).collect();
        slots.iter_mut().for_each(|slot| slot.fill(f32::NAN));
        let mut nll = vec![f32::NAN; batch];
        let splits = Splits::new(rows, &mut nll, &mut slots);
        work(&splits);
        let merged = splits.merged();
        let mut sum = vec![f32::NAN; WIDTH];
        merged.add_up(&slots, 0..WIDTH, &mut sum);
        (sum, nll)
    }

    /// Works in turns, one split at a time: `order` names whose turn it is, of four threads that do as [`Splits::work`]
    /// says. What is left is done alone.
    fn in_turns(splits: &Splits<f32>, order: impl Iterator<Item = usize>) {
        let mut begun: [Option<(usize, &mut Buffer<f32>)>; 4] = [const { None }; 4];
        for thread in order {
            if let Some((half, slot)) = &mut begun[thread]
                && let Some(split) = splits.next(*half)
            {
                visit(split.first, split.nll, slot, true);
            } else if let Some((half, split)) = splits.begin() {
                visit(split.first, split.nll, split.slot, false);
                begun[thread] = Some((half, split.slot));
            } else if let Some(split) = splits.last() {
                visit(split.first, split.nll, split.slot, false);
            }
        }
        splits.work(true, visit);
    }

    #[test]
    fn sums_have_the_same_bits_whoever_takes_which_split() {
        for batch in [1, 4, 5, 9, 16, 17, 30, 64] {
            let rows = 4;
            let alone = outcome(batch, rows, |splits| splits.work(true, visit));
            let want: Vec<f32> = (0..batch).map(|row| (row / rows * rows) as f32).collect();
            assert_eq!(alone.1, want, "every row is visited once");
            let fold = |splits: std::ops::Range<usize>| {
                splits.map(|split| part(split * rows, rows.min(batch - split * rows))).reduce(
                    |mut sum, part| {
                        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                        sum
                    },
                )
            };
            let count = batch.div_ceil(rows);
            let first = fold(0..middle(count)).expect("not empty");
            let sum: Vec<f32> = match fold(middle(count)..count) {
                None => first.into(),
                Some(second) => first.iter().zip(second).map(|(a, b)| a + b).collect(),
            };
            assert_eq!(alone.0, sum, "{batch} rows");
            assert_eq!(outcome(batch, rows, |splits| splits.work(false, visit)), alone, "{batch} rows apart");
            for pattern in 0..64usize {
                // Every order of turns that repeats after three, and every time at which the others stop.
                for length in 0..=count {
                    let order = (0..length).map(|turn| (pattern >> (turn % 3 * 2)) & 3);
                    let turns = outcome(batch, rows, |splits| in_turns(splits, order));
                    assert_eq!(turns, alone, "{batch} rows, {length} turns of {pattern:b}");
                }
            }
        }
    }

    #[test]
    fn two_threads_that_keep_step_fill_two_slots() {
        let (mut nll, mut slots) = (vec![0.0; 32], vec![]);
        slots.resize_with(8, || Buffer::zeros(WIDTH));
        slots.iter_mut().for_each(|slot: &mut Buffer<f32>| slot.fill(f32::NAN));
        let splits = Splits::new(4, &mut nll, &mut slots);
        in_turns(&splits, (0..8).map(|turn| turn % 2));
        assert_eq!(splits.merged(), Merged([4, 4]));
        let filled: Vec<usize> = (0..8).filter(|&slot| slots[slot][0].is_finite()).collect();
        assert_eq!(filled, [0, 4]);
    }
}
