//! Counter-based randomness: every random number is a pure function of (seed, stream, step, row).
//! Both engines compute the same bits, in any order and on any number of threads; `shaders/shared/random.wgsl` is the twin
//! of [`philox`] and [`permute`], `shaders/shared/normal.wgsl` that of [`normal()`].

mod normal;
#[cfg(test)]
mod quantile;
mod table;

pub(crate) use normal::normals_of_rows;
pub use normal::{normal, normals};
pub use table::NORMAL_TABLE;

/// What a random number is for. Streams of one seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// Initial weights.
    Parameters = 0,
    /// Order of the training rows in an epoch.
    Epoch = 1,
    /// Latent noise of sampling.
    Latent = 2,
    /// Toy data.
    Data = 3,
    /// Split into training and validation rows.
    Split = 4,
    /// Random coupling masks.
    Masks = 5,
    /// Rows kept for a test.
    Test = 6,
    /// Noise on whole numbers.
    Dequantize = 7,
    /// Permutations between couplings.
    Mixing = 8,
    /// Beginning of the mixture that is a base density.
    Mixture = 9,
    /// Component of that mixture that a sample is drawn from.
    Component = 10,
    /// Member of an ensemble that a sample is drawn from.
    Member = 11,
    /// Recipes that a search tries.
    Search = 12,
    /// Levels of categories that a sample has.
    Category = 13,
    /// Noise in the place of atoms.
    Atom = 14,
}

const PHILOX_M: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const PHILOX_W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32-10: 128 random bits for a 128-bit counter and a 64-bit key.
///
/// Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#[inline]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox_lanes(counter.map(|word| [word]), key).map(|[word]| word)
}

/// [`philox`] of N counters under one key, which code for wide registers computes side by side. Counters and results are
/// word by word.
#[inline(always)]
pub(crate) fn philox_lanes<const N: usize>(counter: [[u32; N]; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        for lane in 0..N {
            let p0 = u64::from(PHILOX_M[0]) * u64::from(c0[lane]);
            let p1 = u64::from(PHILOX_M[1]) * u64::from(c2[lane]);
            c0[lane] = (p1 >> 32) as u32 ^ c1[lane] ^ k0;
            c1[lane] = p1 as u32;
            c2[lane] = (p0 >> 32) as u32 ^ c3[lane] ^ k1;
            c3[lane] = p0 as u32;
        }
        k0 = k0.wrapping_add(PHILOX_W[0]);
        k1 = k1.wrapping_add(PHILOX_W[1]);
    }
    [c0, c1, c2, c3]
}

/// The two halves of a seed, low word first: the Philox key.
#[inline]
pub fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// A uniform number in [0, 1) from the upper 24 bits of `bits`; exact in `f32`.
#[inline]
pub fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A uniform number in (0, 1) from `bits`: the middle of one of 2³² cells, so that neither 0 nor 1 is drawn.
pub(crate) fn uniform_inside(bits: u32) -> f64 {
    (f64::from(bits) + 0.5) * 0.5f64.powi(32)
}

/// The number in [0, 1) that chooses the component of sample `row` under `seed` where the base density is a mixture.
pub fn component(row: u32, seed: u64) -> f32 {
    uniform(philox([row, 0, 0, Stream::Component as u32], key(seed))[0])
}

/// Rounds of the Feistel network of [`permute`].
const ROUNDS: usize = 8;

/// Place `index` of a pseudorandom permutation of 0..`n`, chosen by (`seed`, `stream`, `step`).
///
/// One place of a [`Permutation`]; make that once where many places are wanted. Requires `index < n`.
pub fn permute(index: u32, n: u32, seed: u64, stream: Stream, step: u32) -> u32 {
    Permutation::new(n, seed, stream, step).place(index)
}

/// A pseudorandom permutation of 0..n.
///
/// # Examples
/// ```
/// use moonflow::random::{Permutation, Stream};
///
/// let order = Permutation::new(5, 7, Stream::Split, 0);
/// let mut places: Vec<u32> = (0..5).map(|index| order.place(index)).collect();
/// places.sort();
/// assert_eq!(places, [0, 1, 2, 3, 4]);
/// ```
///
/// A balanced Feistel network over the smallest even number of bits that holds n, walked along its cycle until it
/// lands below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): fewer than 4 steps on average,
/// no table.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u32,
    /// Bits of either half.
    half: u32,
    round_keys: [u32; ROUNDS],
}

impl Permutation {
    /// The permutation of 0..`n` that (`seed`, `stream`, `step`) choose.
    pub fn new(n: u32, seed: u64, stream: Stream, step: u32) -> Self {
        let [a, b, c, d] = philox([0, 0, step, stream as u32], key(seed));
        let [e, f, g, h] = philox([1, 0, step, stream as u32], key(seed));
        let half = (32 - n.saturating_sub(1).leading_zeros()).div_ceil(2);
        Self { n, half, round_keys: [a, b, c, d, e, f, g, h] }
    }

    /// Where the permutation takes `index`, which must be below n.
    ///
    /// # Panics
    /// In debug builds, when it is not.
    pub fn place(&self, index: u32) -> u32 {
        debug_assert!(index < self.n, "index {index} outside of the permutation's domain {}", self.n);
        if self.n < 2 {
            return 0;
        }
        let mask = (1u32 << self.half) - 1;
        let mut value = index;
        loop {
            let (mut left, mut right) = (value >> self.half, value & mask);
            for round_key in self.round_keys {
                (left, right) = (right, left ^ (mix(right ^ round_key) & mask));
            }
            value = (left << self.half) | right;
            if value < self.n {
                return value;
            }
        }
    }
}

/// A 32-bit finaliser with full avalanche (multipliers found by Wellons' hash prospector).
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// The generator as a stream of words, for `rand` and `rand_distr`.
///
/// Row `row` of `stream` is independent of every other row; within it, words come in counter order.
#[derive(Clone, Debug)]
pub struct Philox {
    key: [u32; 2],
    stream: u32,
    row: u32,
    block: u32,
    words: [u32; 4],
    used: usize,
}

impl Philox {
    /// The generator of row `row` of `stream` under `seed`.
    pub fn new(seed: u64, stream: Stream, row: u32) -> Self {
        Self { key: key(seed), stream: stream as u32, row, block: 0, words: [0; 4], used: 4 }
    }

    fn next_word(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox([self.row, self.block, 0, self.stream], self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }
}

impl rand::TryRng for Philox {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.next_word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let low = u64::from(self.next_word());
        Ok(low | (u64::from(self.next_word()) << 32))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(4) {
            let word = self.next_word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the Random123 library.
    #[test]
    fn philox_gives_its_published_vectors() {
        let ones = u32::MAX;
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn permutation_is_a_bijection_and_changes_with_the_step() {
        for n in [1, 2, 3, 4, 5, 15, 16, 17, 100, 1000, 4097] {
            let orders: Vec<Vec<u32>> = (0..3)
                .map(|epoch| (0..n).map(|i| permute(i, n, 42, Stream::Epoch, epoch)).collect())
                .collect();
            for order in &orders {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert!(sorted.iter().copied().eq(0..n), "n = {n}");
            }
            if n >= 15 {
                assert!(orders[0] != orders[1] && orders[1] != orders[2], "n = {n}");
            }
        }
    }

    #[test]
    fn permutation_places_every_index_uniformly() {
        // Each of 8 indices at each of 8 places over 8,000 steps: χ² with 49 degrees of freedom, 99.99 % below 102.
        let mut counts = [[0f64; 8]; 8];
        for step in 0..8000 {
            for index in 0..8 {
                counts[index as usize][permute(index, 8, 1, Stream::Epoch, step) as usize] += 1.0;
            }
        }
        let chi2: f64 = counts.iter().flatten().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 102.0, "χ² = {chi2}");
    }
}
