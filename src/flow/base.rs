//! The density of the latent variable.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The density of the M latent features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BaseRecord", into = "BaseRecord")]
#[non_exhaustive]
pub enum Base {
    /// Independent standard normal features.
    #[default]
    StandardNormal,
    /// A Gaussian mixture whose weights, means and full covariances are parameters of the flow. Training begins with the
    /// mixture that expectation-maximisation fits to the training rows as they reach it. One component is a Gaussian with
    /// a full covariance.
    Mixture {
        /// Number of components K.
        components: usize,
    },
}

/// Kinds of base densities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BaseKind {
    /// [`Base::StandardNormal`].
    #[default]
    Normal,
    /// [`Base::Mixture`].
    Mixture,
}

impl BaseKind {
    /// Every kind, with the name that the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("normal", Self::Normal), ("mixture", Self::Mixture)];
}

/// Its form in JSON. Earlier model files have the bare name.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BaseRecord {
    Name(Name),
    Tagged(Tagged),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    StandardNormal,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Tagged {
    Normal,
    Mixture { components: usize },
}

impl From<BaseRecord> for Base {
    fn from(record: BaseRecord) -> Self {
        match record {
            BaseRecord::Name(Name::StandardNormal) | BaseRecord::Tagged(Tagged::Normal) => {
                Self::StandardNormal
            }
            BaseRecord::Tagged(Tagged::Mixture { components }) => Self::Mixture { components },
        }
    }
}

impl From<Base> for BaseRecord {
    fn from(base: Base) -> Self {
        match base {
            Base::StandardNormal => Self::Name(Name::StandardNormal),
            Base::Mixture { components } => Self::Tagged(Tagged::Mixture { components }),
        }
    }
}

impl Base {
    /// Fewest and most components of a mixture.
    pub const COMPONENTS: RangeInclusive<usize> = 1..=256;

    /// Names and shapes of its tensors over `modelled` features M, in the order in which they lie: `logits` `[K]`, `mean`
    /// [K, M], `log_diagonal` [K, M] and `lower` [K, M, M].
    pub(crate) fn tensors(self, modelled: usize) -> Vec<(&'static str, Vec<usize>)> {
        match self {
            Self::StandardNormal => Vec::new(),
            Self::Mixture { components } => vec![
                ("logits", vec![components]),
                ("mean", vec![components, modelled]),
                ("log_diagonal", vec![components, modelled]),
                ("lower", vec![components, modelled, modelled]),
            ],
        }
    }

    /// Components of a mixture; none of standard normals.
    pub fn components(self) -> usize {
        match self {
            Self::StandardNormal => 0,
            Self::Mixture { components } => components,
        }
    }

    /// Number of its parameters over `modelled` features.
    pub fn parameter_count(self, modelled: usize) -> u128 {
        let size = |shape: &[usize]| shape.iter().map(|&length| length as u128).product::<u128>();
        self.tensors(modelled).iter().map(|(_, shape)| size(shape)).sum()
    }

    /// Which rule it breaks, if any.
    pub(super) fn broken_rule(self) -> Option<String> {
        match self {
            Self::Mixture { components } if !Self::COMPONENTS.contains(&components) => Some(format!(
                "a mixture has between {} and {} components, got {components}",
                Self::COMPONENTS.start(),
                Self::COMPONENTS.end()
            )),
            Self::StandardNormal | Self::Mixture { .. } => None,
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardNormal => f.write_str("standard normal"),
            Self::Mixture { components: 1 } => f.write_str("Gaussian with a full covariance"),
            Self::Mixture { components } => write!(f, "mixture of {components} Gaussians"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_the_name_of_earlier_files_and_names_the_components() {
        for (base, json) in [
            (Base::StandardNormal, r#""standard-normal""#),
            (Base::Mixture { components: 4 }, r#"{"kind":"mixture","components":4}"#),
        ] {
            assert_eq!(serde_json::to_string(&base).expect("JSON"), json);
            assert_eq!(serde_json::from_str::<Base>(json).expect("a base"), base);
        }
        assert_eq!(
            serde_json::from_str::<Base>(r#"{"kind":"normal"}"#).expect("a base"),
            Base::StandardNormal
        );
        for bad in [r#""gauss""#, r#"{"kind":"mixture"}"#, r#"{"kind":"mixture","components":2,"k":1}"#] {
            assert!(serde_json::from_str::<Base>(bad).is_err(), "{bad}");
        }
    }
}
