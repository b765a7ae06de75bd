//! The flow as pure data: features, a list of transforms and a base density.
//! It is the first thing made and the last thing stored; both engines read it and neither changes it.

mod base;
mod describe;
mod mask;
mod mixing;
mod record;
mod transform;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use base::{Base, BaseKind};
pub use mask::Masking;
pub use mixing::Mixing;
pub use transform::{
    Activation, Bijector, BijectorKind, Conditioner, ConditionerForm, Coupling, LEAKY_SLOPE, LinearShape,
    NetworkShape, Transform,
};

use record::FlowRecord;

/// A normalizing flow: transforms in data → latent order, then a base density.
///
/// D features, of which the last C are context: given, not modelled. log p(x | context) is the base's log-density of the
/// first M = D − C latent features plus the sum of all log-determinants; every transform passes the context on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FlowRecord", into = "FlowRecord")]
pub struct Flow {
    /// Number of features D, the context included.
    pub features: usize,
    /// Number of context features C.
    pub context: usize,
    /// Nonlinearity after each hidden layer of every conditioner.
    pub activation: Activation,
    /// In data → latent order.
    pub transforms: Vec<Transform>,
    /// Density of the latent variable.
    pub base: Base,
}

/// Largest hidden width and feature count that a flow may have.
pub const MAX_WIDTH: usize = 65_536;

/// Most transforms that a flow may have.
pub const MAX_TRANSFORMS: usize = 65_536;

impl Flow {
    /// A RealNVP flow (Dinh, Sohl-Dickstein and Bengio 2017) over `features` features: `couplings` affine couplings with
    /// separate ReLU networks, alternating masks and c = 2.
    ///
    /// # Errors
    /// [`Error::Flow`] when a rule is broken; see [`Flow::validate`].
    pub fn new(features: usize, couplings: usize, hidden: &[usize]) -> Result<Self> {
        Self::conditional(features, 0, couplings, hidden)
    }

    /// The density of `features` features given `context` others, by a flow as [`Flow::new`] makes it. The context
    /// follows the features in every row.
    ///
    /// # Errors
    /// [`Error::Flow`] when a rule is broken; see [`Flow::validate`].
    pub fn conditional(features: usize, context: usize, couplings: usize, hidden: &[usize]) -> Result<Self> {
        let whole = features.saturating_add(context);
        let check = |flow: Self| flow.validate().map(|()| flow);
        if whole > MAX_WIDTH || couplings > MAX_TRANSFORMS {
            // Refused before masks are made of it.
            return check(Self::with_couplings(whole, context, vec![Vec::new(); couplings.min(1)], hidden));
        }
        let mut masks = mask::masks(Masking::Alternating, features, couplings);
        masks.iter_mut().for_each(|mask| mask.resize(whole, true));
        check(Self::with_couplings(whole, context, masks, hidden))
    }

    fn with_couplings(features: usize, context: usize, masks: Vec<Vec<bool>>, hidden: &[usize]) -> Self {
        let coupling = |mask| {
            Transform::Coupling(Coupling {
                mask,
                conditioner: Conditioner { form: ConditionerForm::Separate, hidden: hidden.to_vec() },
                bijector: Bijector::Affine { bound: 2.0 },
            })
        };
        let transforms = masks.into_iter().map(coupling).collect();
        Self { features, context, activation: Activation::Relu, transforms, base: Base::StandardNormal }
    }

    /// The same flow with other masks.
    #[must_use]
    pub fn with_masking(self, masking: Masking) -> Self {
        let mut masks = mask::masks(masking, self.modelled(), self.couplings().count());
        masks.iter_mut().for_each(|mask| mask.resize(self.features, true));
        self.with_masks(masks)
    }

    /// The same flow with these masks for its couplings, in order; those beyond the last keep theirs.
    #[must_use]
    pub fn with_masks(mut self, masks: impl IntoIterator<Item = Vec<bool>>) -> Self {
        for (coupling, mask) in self.couplings_mut().zip(masks) {
            coupling.mask = mask;
        }
        self
    }

    /// The same flow with another nonlinearity.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The same flow with another bijector in every coupling.
    #[must_use]
    pub fn with_bijector(mut self, bijector: Bijector) -> Self {
        for coupling in self.couplings_mut() {
            coupling.bijector = bijector;
        }
        self
    }

    /// The same flow with another form of conditioner in every coupling.
    #[must_use]
    pub fn with_conditioner(mut self, form: ConditionerForm) -> Self {
        for coupling in self.couplings_mut() {
            coupling.conditioner.form = form;
        }
        self
    }

    /// The same flow with another base density.
    #[must_use]
    pub fn with_base(mut self, base: Base) -> Self {
        self.base = base;
        self
    }

    /// The same flow with these transforms before each coupling.
    #[must_use]
    pub fn before_each_coupling(self, added: &[Transform]) -> Self {
        self.before_couplings(|_| added.to_vec())
    }

    /// The same flow with what `added` makes for each coupling's number before it.
    #[must_use]
    pub fn before_couplings(mut self, added: impl Fn(usize) -> Vec<Transform>) -> Self {
        let mut couplings = 0;
        for transform in std::mem::take(&mut self.transforms) {
            if transform.coupling().is_some() {
                self.transforms.extend(added(couplings));
                couplings += 1;
            }
            self.transforms.push(transform);
        }
        self
    }

    /// Features whose density the flow is: all but the context.
    pub fn modelled(&self) -> usize {
        self.features.saturating_sub(self.context)
    }

    /// Its couplings, in order.
    pub fn couplings(&self) -> impl Iterator<Item = &Coupling> {
        self.transforms.iter().filter_map(Transform::coupling)
    }

    fn couplings_mut(&mut self) -> impl Iterator<Item = &mut Coupling> {
        self.transforms.iter_mut().filter_map(Transform::coupling_mut)
    }

    /// Widest rows that computing it holds: of features, or of a hidden layer.
    pub fn widest(&self) -> usize {
        let hidden = self.couplings().flat_map(|coupling| &coupling.conditioner.hidden);
        hidden.copied().fold(self.features, usize::max)
    }

    /// Checks every rule that both engines rely on.
    ///
    /// # Errors
    /// [`Error::Flow`] that names the broken rule, the value got and the value expected.
    pub fn validate(&self) -> Result<()> {
        self.broken_rule().map_or(Ok(()), |message| Err(Error::Flow(message)))
    }

    fn broken_rule(&self) -> Option<String> {
        let Self { features, context, .. } = *self;
        if context >= features {
            return Some(format!(
                "at least 1 feature must be modelled; got {features} features, {context} of them context"
            ));
        }
        if features > MAX_WIDTH {
            return Some(format!("at most {MAX_WIDTH} features are supported, got {features}"));
        }
        if self.transforms.is_empty() {
            return Some("a flow needs at least 1 layer, got 0".into());
        }
        if self.transforms.len() > MAX_TRANSFORMS {
            let count = self.transforms.len();
            return Some(format!("at most {MAX_TRANSFORMS} transforms are supported, got {count}"));
        }
        let broken = |(index, transform): (usize, &Transform)| transform.broken_rule(self, index);
        if let Some(message) = self.transforms.iter().enumerate().find_map(broken) {
            return Some(message);
        }
        if let Some(message) = self.base.broken_rule() {
            return Some(message);
        }
        // Offsets on the GPU are 32-bit.
        let total = self.parameter_count();
        (total > u128::from(u32::MAX / 4))
            .then(|| format!("{total} parameters are too many; at most {} are supported", u32::MAX / 4))
    }

    /// Number of parameters P; also of a flow too large to have a [`Layout`](crate::layout::Layout).
    pub fn parameter_count(&self) -> u128 {
        let transforms = self.transforms.iter().map(|transform| transform.parameter_count(self));
        transforms.sum::<u128>() + self.base.parameter_count(self.modelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(flow: &Flow) -> Vec<&[bool]> {
        flow.couplings().map(|coupling| &coupling.mask[..]).collect()
    }

    #[test]
    fn alternating_masks_keep_even_sums() {
        let flow = Flow::new(3, 2, &[4]).expect("valid");
        assert_eq!(masks(&flow), [[true, false, true], [false, true, false]]);
    }

    #[test]
    fn every_masking_yields_valid_masks_whose_pairs_complement() {
        for masking in [Masking::Alternating, Masking::HalfSplit, Masking::Random { seed: 7 }] {
            for features in 2..9 {
                let flow = Flow::new(features, 6, &[4]).expect("valid").with_masking(masking);
                flow.validate().expect("valid");
                for pair in masks(&flow).chunks(2) {
                    assert!(pair[0].iter().zip(pair[1]).all(|(a, b)| a != b), "{masking:?}");
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
                for mask in masks(&flow) {
                    assert!(mask[features..].iter().all(|&kept| kept) && mask[..features].contains(&false));
                }
            }
        }
        let unconditional = serde_json::to_string(&Flow::new(2, 1, &[4]).expect("valid")).expect("JSON");
        assert!(!unconditional.contains("context"), "files without context stay what they were");
        let flow = Flow::conditional(2, 1, 2, &[4]).expect("valid");
        let flow = flow.with_masks([vec![true, false, true], vec![false, true, false]]);
        assert!(
            flow.validate().expect_err("transforms the context").to_string().contains("keep the context")
        );
        let message = Flow::conditional(0, 2, 2, &[4]).expect_err("nothing to model").to_string();
        assert!(message.contains("at least 1 feature must be modelled"), "{message}");
    }

    #[test]
    fn broken_rules_are_named() {
        for (features, layers, hidden, rule) in [
            (0, 2, vec![4], "at least 1 feature must be modelled"),
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
