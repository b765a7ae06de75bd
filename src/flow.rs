//! The flow as pure data: features, coupling masks, conditioner networks and base density.
//! It is the first thing made and the last thing stored; both engines read it and neither changes it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::{self, Stream};

/// Nonlinearity between the layers of a conditioner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(0, x).
    #[default]
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// x for x > 0, else [`LEAKY_SLOPE`]·x.
    LeakyRelu,
    /// x · sigmoid(x), also called swish.
    Silu,
}

/// Slope of [`Activation::LeakyRelu`] below zero (PyTorch's default).
pub const LEAKY_SLOPE: f32 = 0.01;

impl Activation {
    /// Every activation, with the name that the command line and the model file use.
    pub const ALL: [(&'static str, Self); 4] =
        [("relu", Self::Relu), ("tanh", Self::Tanh), ("leaky-relu", Self::LeakyRelu), ("silu", Self::Silu)];

    /// The number by which the shaders know it.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// Which features each coupling keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masking {
    /// Layer i keeps feature j when i + j is even.
    #[default]
    Alternating,
    /// Even layers keep the first ⌈D/2⌉ features, odd layers the others.
    HalfSplit,
    /// Even layers keep ⌈D/2⌉ features drawn by `seed`, each following odd layer the others.
    Random {
        /// Seed of the draw.
        seed: u64,
    },
}

/// The density of the latent variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Independent standard normal features.
    #[default]
    StandardNormal,
}

/// The two networks of a coupling; both see the kept features and have the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Yields the raw log-scale o, of which s = c · tanh(o / c).
    Scale = 0,
    /// Yields the shift t.
    Translate = 1,
}

impl Network {
    /// Both networks, in the order in which parameters and shaders hold them.
    pub const BOTH: [Self; 2] = [Self::Scale, Self::Translate];

    /// Its name in tensor names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scale => "scale",
            Self::Translate => "translate",
        }
    }
}

/// A RealNVP flow (Dinh, Sohl-Dickstein and Bengio 2017): affine couplings in data → latent order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Number of features D, the context included.
    pub features: usize,
    /// How many of them, the last ones, are context: given, not modelled. Every coupling keeps them, and the density is
    /// that of the others given them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub context: usize,
    /// One mask `[D]` per coupling; `true` marks a kept feature.
    pub masks: Vec<Vec<bool>>,
    /// Hidden widths of each conditioner network.
    pub hidden: Vec<usize>,
    /// Nonlinearity after each hidden layer.
    pub activation: Activation,
    /// Bound c of the log-scale, s = c · tanh(o / c).
    pub bound: f32,
    /// Density of the latent variable.
    #[serde(default)]
    pub base: Base,
}

/// Largest hidden width and feature count that a flow may have.
pub const MAX_WIDTH: usize = 65_536;

impl Flow {
    /// A flow of `layers` couplings over `features` features, with ReLU, alternating masks and c = 2.
    ///
    /// # Errors
    /// [`Error::Flow`] when a rule is broken; see [`Flow::validate`].
    pub fn new(features: usize, layers: usize, hidden: &[usize]) -> Result<Self> {
        let flow = Self {
            features,
            context: 0,
            masks: masks(Masking::Alternating, features, layers),
            hidden: hidden.to_vec(),
            activation: Activation::Relu,
            bound: 2.0,
            base: Base::StandardNormal,
        };
        flow.validate()?;
        Ok(flow)
    }

    /// The density of `features` features given `context` others, by `layers` couplings with ReLU, alternating masks
    /// and c = 2. The context follows the features in every row.
    ///
    /// # Errors
    /// [`Error::Flow`] when a rule is broken; see [`Flow::validate`].
    pub fn conditional(features: usize, context: usize, layers: usize, hidden: &[usize]) -> Result<Self> {
        let whole = features.saturating_add(context);
        let flow = Self { context, ..Self::new(whole, layers, hidden)? }.with_masking(Masking::Alternating);
        flow.validate()?;
        Ok(flow)
    }

    /// The same flow with other masks.
    #[must_use]
    pub fn with_masking(mut self, masking: Masking) -> Self {
        self.masks = masks(masking, self.modelled(), self.masks.len());
        for mask in &mut self.masks {
            mask.resize(self.features, true);
        }
        self
    }

    /// Features whose density the flow is: all but the context.
    pub fn modelled(&self) -> usize {
        self.features.saturating_sub(self.context)
    }

    /// The same flow with another nonlinearity.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Number of couplings L.
    pub fn layers(&self) -> usize {
        self.masks.len()
    }

    /// Widths of a conditioner network from input to output: D, hidden…, D.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths = vec![self.features];
        widths.extend(&self.hidden);
        widths.push(self.features);
        widths
    }

    /// Checks every rule that both engines rely on.
    ///
    /// # Errors
    /// [`Error::Flow`] that names the broken rule, the value got and the value expected.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Flow(message));
        if self.features < 2 {
            return fail(format!(
                "a coupling needs at least 2 features, one to keep and one to transform; got {}",
                self.features
            ));
        }
        if self.context >= self.features {
            return fail(format!(
                "at least 1 feature must be modelled; got {} features, {} of them context",
                self.features, self.context
            ));
        }
        if self.features > MAX_WIDTH {
            return fail(format!("at most {MAX_WIDTH} features are supported, got {}", self.features));
        }
        if self.masks.is_empty() {
            return fail("a flow needs at least 1 layer, got 0".into());
        }
        if self.hidden.is_empty() {
            return fail("a conditioner needs at least one hidden width, such as 64,64".into());
        }
        if let Some(width) = self.hidden.iter().find(|&&width| width == 0 || width > MAX_WIDTH) {
            return fail(format!("hidden widths must lie between 1 and {MAX_WIDTH}, got {width}"));
        }
        if !(self.bound.is_finite() && self.bound > 0.0) {
            return fail(format!("the log-scale bound must be positive and finite, got {}", self.bound));
        }
        for (layer, mask) in self.masks.iter().enumerate() {
            if mask.len() != self.features {
                return fail(format!(
                    "mask {layer} has {} entries, expected one per feature: {}",
                    mask.len(),
                    self.features
                ));
            }
            if mask[self.modelled()..].contains(&false) {
                return fail(format!(
                    "mask {layer} must keep the context, its last {} features",
                    self.context
                ));
            }
            if mask.iter().all(|&kept| kept) || !mask.contains(&true) {
                return fail(format!(
                    "mask {layer} must keep at least one feature and transform at least one"
                ));
            }
        }
        // Offsets on the GPU are 32-bit.
        let per_network: u128 =
            self.widths().windows(2).map(|pair| (pair[0] as u128 + 1) * pair[1] as u128).sum();
        let total = per_network * 2 * self.masks.len() as u128;
        if total > u128::from(u32::MAX / 4) {
            return fail(format!("{total} parameters are too many; at most {} are supported", u32::MAX / 4));
        }
        Ok(())
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The masks of `layers` couplings; `true` marks a kept feature. A single feature has only a context to be kept beside
/// it, and is transformed by all.
fn masks(masking: Masking, features: usize, layers: usize) -> Vec<Vec<bool>> {
    if features == 1 {
        return vec![vec![false]; layers];
    }
    let half = features.div_ceil(2);
    (0..layers)
        .map(|layer| match masking {
            Masking::Alternating => (0..features).map(|feature| (layer + feature) % 2 == 0).collect(),
            Masking::HalfSplit => (0..features).map(|feature| (feature < half) == (layer % 2 == 0)).collect(),
            Masking::Random { seed } => {
                let pair = (layer / 2) as u32;
                (0..features)
                    .map(|feature| {
                        let rank = random::permute(feature as u32, features as u32, seed, Stream::Masks, pair)
                            as usize;
                        (rank < half) == (layer % 2 == 0)
                    })
                    .collect()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternating_masks_keep_even_sums() {
        let flow = Flow::new(3, 2, &[4]).expect("valid");
        assert_eq!(flow.masks, [[true, false, true], [false, true, false]]);
    }

    #[test]
    fn every_masking_yields_valid_masks_whose_pairs_complement() {
        for masking in [Masking::Alternating, Masking::HalfSplit, Masking::Random { seed: 7 }] {
            for features in 2..9 {
                let flow = Flow::new(features, 6, &[4]).expect("valid").with_masking(masking);
                flow.validate().expect("valid");
                for pair in flow.masks.chunks(2) {
                    assert!(pair[0].iter().zip(&pair[1]).all(|(a, b)| a != b), "{masking:?}");
                }
            }
        }
    }

    #[test]
    fn the_context_is_kept_by_every_coupling() {
        for masking in [Masking::Alternating, Masking::HalfSplit, Masking::Random { seed: 7 }] {
            for (features, context) in [(1, 1), (1, 3), (2, 1), (5, 2)] {
                let flow =
                    Flow::conditional(features, context, 4, &[4]).expect("valid").with_masking(masking);
                flow.validate().expect("valid");
                assert_eq!((flow.modelled(), flow.features), (features, features + context));
                for mask in &flow.masks {
                    assert!(mask[features..].iter().all(|&kept| kept) && mask[..features].contains(&false));
                }
            }
        }
        let unconditional = serde_json::to_string(&Flow::new(2, 1, &[4]).expect("valid")).expect("JSON");
        assert!(!unconditional.contains("context"), "files without context stay what they were");
        let mut flow = Flow::conditional(2, 1, 2, &[4]).expect("valid");
        flow.masks[1][2] = false;
        assert!(
            flow.validate().expect_err("transforms the context").to_string().contains("keep the context")
        );
        let message = Flow::conditional(0, 2, 2, &[4]).expect_err("nothing to model").to_string();
        assert!(message.contains("at least 1 feature must be modelled"), "{message}");
    }

    #[test]
    fn broken_rules_are_named() {
        for (features, layers, hidden, rule) in [
            (1, 2, vec![4], "at least 2 features"),
            (0, 2, vec![4], "at least 2 features"),
            (2, 0, vec![4], "at least 1 layer"),
            (2, 2, vec![], "hidden width"),
            (2, 2, vec![4, 0], "hidden widths"),
            (60_000, 2000, vec![60_000], "too many"),
        ] {
            let message = Flow::new(features, layers, &hidden).expect_err("must be refused").to_string();
            assert!(message.contains(rule), "{message}");
        }
    }
}
