//! Which features each coupling keeps.

use serde::{Deserialize, Serialize};

use crate::random::{self, Stream};

/// Rule by which couplings take turns at keeping features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Masking {
    /// Coupling i keeps feature j when i + j is even.
    #[default]
    Alternating,
    /// Even couplings keep the first ⌈D/2⌉ features, odd ones the others.
    HalfSplit,
    /// Even couplings keep ⌈D/2⌉ features drawn by `seed`, each following odd one the others.
    Random {
        /// Seed of the draw.
        seed: u64,
    },
}

impl Masking {
    /// Every rule; a random one draws by `seed`.
    pub fn all(seed: u64) -> [Self; 3] {
        [Self::Alternating, Self::HalfSplit, Self::Random { seed }]
    }

    /// Its name on the command line and in the model file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alternating => "alternating",
            Self::HalfSplit => "half-split",
            Self::Random { .. } => "random",
        }
    }
}

/// The masks of `couplings` couplings over `features` modelled features; `true` marks a kept feature. A single feature
/// is transformed by all; beside it they keep the context, or nothing.
pub(super) fn masks(masking: Masking, features: usize, couplings: usize) -> Vec<Vec<bool>> {
    if features == 1 {
        return vec![vec![false]; couplings];
    }
    let half = features.div_ceil(2);
    (0..couplings)
        .map(|index| match masking {
            Masking::Alternating => (0..features).map(|feature| (index + feature) % 2 == 0).collect(),
            Masking::HalfSplit => (0..features).map(|feature| (feature < half) == (index % 2 == 0)).collect(),
            Masking::Random { seed } => {
                let pair = (index / 2) as u32;
                (0..features)
                    .map(|feature| {
                        let rank = random::permute(feature as u32, features as u32, seed, Stream::Masks, pair)
                            as usize;
                        (rank < half) == (index % 2 == 0)
                    })
                    .collect()
            }
        })
        .collect()
}
