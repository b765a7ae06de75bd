//! What a flow is made of: transforms, and the conditioner and bijector of a coupling.
//! Pure data; engines turn each kind into code of their own.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Flow, MAX_WIDTH};

/// Nonlinearity between the linear layers of a conditioner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
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

    /// Its name on the command line and in the model file.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// The number by which the shaders know it.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// One step of a flow, in the direction from data to latent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transform {
    /// Some features are transformed by numbers that the others decide.
    Coupling(Coupling),
    /// Activation normalisation (Kingma and Dhariwal 2018): z = (x − shift) · exp(−log_scale) for each modelled feature.
    /// Training begins with the mean and the deviation of the training rows as they reach it.
    Actnorm,
    /// z = L · (U · x) + bias over the M modelled features: L unit lower triangular, U upper triangular with a positive
    /// diagonal (Kingma and Dhariwal 2018; Oliva et al. 2018). Training begins with the identity.
    Lu,
    /// `z_j = x_{permutation[j]}` over the M modelled features.
    Permutation {
        /// `[M]`, each of 0 to M − 1 once.
        permutation: Vec<usize>,
    },
}

/// A coupling (Dinh, Sohl-Dickstein and Bengio 2017): a conditioner reads the features that the mask keeps and yields
/// θ, by which the bijector transforms each of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coupling {
    /// `[D]`; `true` marks a kept feature. The context is always kept.
    pub mask: Vec<bool>,
    /// How θ is computed.
    #[serde(flatten)]
    pub conditioner: Conditioner,
    /// What θ does to a feature.
    #[serde(flatten)]
    pub bijector: Bijector,
}

/// The networks that yield θ from the kept features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditioner {
    /// How networks and numbers of θ belong together.
    #[serde(rename = "conditioner")]
    pub form: ConditionerForm,
    /// Hidden widths of each network.
    pub hidden: Vec<usize>,
}

/// How networks and numbers of θ belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConditionerForm {
    /// A network for each number of θ, which all have the same shape: D → hidden… → D. For the affine bijector only.
    #[default]
    Separate,
    /// One network for all P numbers of θ: D → hidden… → D · P.
    Joint,
    /// One network for all P numbers of θ, with residual blocks (He et al. 2016) of two linear layers: D → H, a block for
    /// each hidden width, which are all H, and H → D · P.
    Residual,
}

impl ConditionerForm {
    /// Every form, with the name that the command line and the model file use.
    pub const ALL: [(&'static str, Self); 3] =
        [("separate", Self::Separate), ("joint", Self::Joint), ("residual", Self::Residual)];
}

/// An elementwise, monotone map of one feature, given its numbers θ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "bijector", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Bijector {
    /// z = (x − t) · exp(−s) with s = c · tanh(o / c) and θ = (o, t).
    Affine {
        /// Bound c of the log-scale.
        bound: f32,
    },
    /// A monotone rational-quadratic spline (Durkan et al. 2019) on [−bound, bound], the identity outside, with θ =
    /// (w, h, d): K numbers for the widths of its bins, K for their heights, and K − 1 for the slopes between them.
    Spline {
        /// Number of bins K.
        bins: usize,
        /// Where the tails begin: the spline ends at −bound and bound, in x and in z.
        bound: f32,
    },
}

/// A network of a conditioner: its name in the model file, and its linear layers from input to output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkShape {
    /// Name in tensor names, such as `scale`.
    pub name: &'static str,
    /// Numbers of θ that it yields for each feature: output j · numbers + k is number k of feature j.
    pub numbers: usize,
    /// Its linear layers.
    pub layers: Vec<LinearShape>,
}

/// A linear layer of a network: y = act(x) · Wᵀ + b, or without the activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Name in tensor names, such as `0` or `blocks.0.1`.
    pub name: String,
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// Whether x passes through the activation first.
    pub activated: bool,
    /// The layer of the same network whose result is added to y.
    pub skip: Option<usize>,
}

impl NetworkShape {
    /// Layers of these widths, one after the other, with the activation between them.
    fn chain(name: &'static str, widths: &[usize], numbers: usize) -> Self {
        let layer = |(layer, pair): (usize, &[usize])| LinearShape {
            name: layer.to_string(),
            inputs: pair[0],
            outputs: pair[1],
            activated: layer > 0,
            skip: None,
        };
        Self { name, numbers, layers: widths.windows(2).enumerate().map(layer).collect() }
    }

    /// A layer to the width of the first block, blocks h ← h + W₁ act(W₀ act(h)), and a last layer.
    fn residual(name: &'static str, features: usize, blocks: &[usize], numbers: usize) -> Self {
        let width = blocks.first().copied().unwrap_or_default();
        let layer = |name: String, inputs, outputs, activated, skip| LinearShape {
            name,
            inputs,
            outputs,
            activated,
            skip,
        };
        let mut layers = vec![layer("in".into(), features, width, false, None)];
        for block in 0..blocks.len() {
            layers.push(layer(format!("blocks.{block}.0"), width, width, true, None));
            layers.push(layer(format!("blocks.{block}.1"), width, width, true, Some(2 * block)));
        }
        layers.push(layer("out".into(), width, features * numbers, false, None));
        Self { name, numbers, layers }
    }
}

/// Kinds of bijectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BijectorKind {
    /// [`Bijector::Affine`].
    #[default]
    Affine,
    /// [`Bijector::Spline`].
    Spline,
}

impl BijectorKind {
    /// Every kind, with the name that the command line and the model file use.
    pub const ALL: [(&'static str, Self); 2] = [("affine", Self::Affine), ("spline", Self::Spline)];
}

impl Bijector {
    /// Fewest and most bins of a spline.
    pub const BINS: RangeInclusive<usize> = 2..=64;

    /// Numbers of θ for each transformed feature: all that a conditioner needs to know of it.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Affine { .. } => 2,
            Self::Spline { bins, .. } => 3 * bins - 1,
        }
    }

    /// Numbers of θ, the first ones, that a GPU keeps from its forward pass for its backward pass.
    pub(crate) fn saved(&self) -> usize {
        match self {
            Self::Affine { .. } => 1,
            Self::Spline { .. } => self.parameters(),
        }
    }

    /// The bound that it is given.
    pub fn bound(&self) -> f32 {
        match *self {
            Self::Affine { bound } | Self::Spline { bound, .. } => bound,
        }
    }

    /// Names of separate networks, one for each number of θ; none where there cannot be any.
    fn network_names(&self) -> &'static [&'static str] {
        match self {
            Self::Affine { .. } => &["scale", "translate"],
            Self::Spline { .. } => &[],
        }
    }

    /// Which rule of its own it breaks, if any.
    pub(super) fn broken_rule(&self) -> Option<String> {
        match *self {
            Self::Affine { bound } if !(bound.is_finite() && bound > 0.0) => {
                Some(format!("the log-scale bound must be positive and finite, got {bound}"))
            }
            Self::Spline { bound, .. } if !(bound.is_finite() && bound > 0.0) => {
                Some(format!("the tail bound must be positive and finite, got {bound}"))
            }
            Self::Spline { bins, .. } if !Self::BINS.contains(&bins) => Some(format!(
                "a spline has between {} and {} bins, got {bins}",
                Self::BINS.start(),
                Self::BINS.end()
            )),
            Self::Affine { .. } | Self::Spline { .. } => None,
        }
    }
}

impl Coupling {
    /// The networks of its conditioner over D features, in the order in which parameters lie.
    pub fn networks(&self, features: usize) -> Vec<NetworkShape> {
        let Conditioner { form, ref hidden } = self.conditioner;
        let numbers = self.bijector.parameters();
        let chain = |name, numbers: usize| {
            let widths: Vec<usize> = [&[features], &hidden[..], &[features * numbers]].concat();
            NetworkShape::chain(name, &widths, numbers)
        };
        match form {
            ConditionerForm::Separate => {
                self.bijector.network_names().iter().map(|name| chain(name, 1)).collect()
            }
            ConditionerForm::Joint => vec![chain("conditioner", numbers)],
            ConditionerForm::Residual => {
                vec![NetworkShape::residual("conditioner", features, hidden, numbers)]
            }
        }
    }

    /// The features that pass through and those that are transformed, each in increasing order.
    pub fn split(&self) -> (Vec<usize>, Vec<usize>) {
        (0..self.mask.len()).partition(|&feature| self.mask[feature])
    }

    fn broken_rule(&self, flow: &Flow, index: usize) -> Option<String> {
        let Self { mask, conditioner: Conditioner { form, hidden }, bijector } = self;
        if hidden.is_empty() {
            return Some("a conditioner needs at least one hidden width, such as 64,64".into());
        }
        if let Some(width) = hidden.iter().find(|&&width| width == 0 || width > MAX_WIDTH) {
            return Some(format!("hidden widths must lie between 1 and {MAX_WIDTH}, got {width}"));
        }
        if *form == ConditionerForm::Residual && hidden.iter().any(|width| *width != hidden[0]) {
            return Some(format!("residual blocks must all have one width, got {}", self.hidden()));
        }
        if let Some(message) = bijector.broken_rule() {
            return Some(message);
        }
        if *form == ConditionerForm::Separate && bijector.network_names().is_empty() {
            return Some(
                "separate networks serve affine couplings; a spline needs a joint or a residual one".into(),
            );
        }
        if mask.len() != flow.features {
            let (got, features) = (mask.len(), flow.features);
            return Some(format!("mask {index} has {got} entries, expected one per feature: {features}"));
        }
        if mask[flow.modelled()..].contains(&false) {
            return Some(format!("mask {index} must keep the context, its last {} features", flow.context));
        }
        if flow.features == 1 && *mask == [false] {
            // Nothing is kept, and θ is a constant.
            return None;
        }
        if mask.iter().all(|&kept| kept) || !mask.contains(&true) {
            return Some(format!("mask {index} must keep at least one feature and transform at least one"));
        }
        None
    }
}

impl Transform {
    /// The coupling that it is, if it is one.
    pub fn coupling(&self) -> Option<&Coupling> {
        match self {
            Self::Coupling(coupling) => Some(coupling),
            Self::Actnorm | Self::Lu | Self::Permutation { .. } => None,
        }
    }

    pub(super) fn coupling_mut(&mut self) -> Option<&mut Coupling> {
        match self {
            Self::Coupling(coupling) => Some(coupling),
            Self::Actnorm | Self::Lu | Self::Permutation { .. } => None,
        }
    }

    /// Its kind in the field's terms.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Coupling(_) => "coupling",
            Self::Actnorm => "actnorm",
            Self::Lu => "LU layer",
            Self::Permutation { .. } => "permutation",
        }
    }

    /// Number of its parameters in `flow`.
    pub fn parameter_count(&self, flow: &Flow) -> u128 {
        match self {
            Self::Coupling(coupling) => {
                let layers = |shape: &NetworkShape| -> u128 {
                    shape.layers.iter().map(|layer| (layer.inputs as u128 + 1) * layer.outputs as u128).sum()
                };
                coupling.networks(flow.features).iter().map(layers).sum()
            }
            Self::Actnorm => 2 * flow.modelled() as u128,
            Self::Lu => 2 * flow.modelled() as u128 * (flow.modelled() as u128 + 1),
            Self::Permutation { .. } => 0,
        }
    }

    /// Which rule it breaks as number `index` of `flow`, if any.
    pub(super) fn broken_rule(&self, flow: &Flow, index: usize) -> Option<String> {
        match self {
            Self::Coupling(coupling) => coupling.broken_rule(flow, index),
            Self::Actnorm | Self::Lu => None,
            Self::Permutation { permutation } => {
                let mut sorted = permutation.clone();
                sorted.sort_unstable();
                (!sorted.into_iter().eq(0..flow.modelled())).then(|| {
                    let last = flow.modelled() - 1;
                    format!("permutation {index} must have each of 0 to {last} once, got {permutation:?}")
                })
            }
        }
    }
}
