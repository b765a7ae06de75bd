//! What stands before a coupling so that every feature meets every other.

use serde::{Deserialize, Serialize};

use crate::random::{self, Stream};

use super::Transform;

/// Rule by which features are mixed before each coupling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mixing {
    /// Not at all: masks take turns.
    #[default]
    None,
    /// By a permutation drawn for each coupling.
    Permutation,
    /// By an LU layer, which is trained.
    Lu,
}

impl Mixing {
    /// Every rule, with its name on the command line and in the model file.
    pub const ALL: [(&'static str, Self); 3] =
        [("none", Self::None), ("permutation", Self::Permutation), ("lu", Self::Lu)];

    /// What stands before coupling number `coupling` of a flow over `modelled` features; a permutation is drawn by `seed`.
    pub fn before(self, coupling: usize, modelled: usize, seed: u64) -> Option<Transform> {
        match self {
            Self::None => None,
            Self::Permutation => {
                let modelled = modelled as u32;
                let place = |feature| {
                    random::permute(feature, modelled, seed, Stream::Mixing, coupling as u32) as usize
                };
                Some(Transform::Permutation { permutation: (0..modelled).map(place).collect() })
            }
            Self::Lu => Some(Transform::Lu),
        }
    }
}
