//! A recipe: every number that decides a training, with the presets that the command line offers.
//! It is made before the engine, because the flow is built from it, and is kept in the model file.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::Ensemble;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::flow::{
    Activation, Base, BaseKind, Bijector, BijectorKind, ConditionerForm, Flow, MAX_WIDTH, Masking, Mixing,
    Transform,
};
use crate::mixture;
use crate::optimiser::{Adam, Decay, Schedule};

/// Everything that decides a training besides its data and device.
///
/// # Examples
/// ```
/// use moonflow::Recipe;
///
/// # fn main() -> moonflow::Result<()> {
/// let recipe = Recipe { epochs: 50, hidden: vec![64, 64], ..Recipe::default() };
/// recipe.validate()?;
/// assert_eq!(recipe.flow(3)?.transforms.len(), recipe.layers);
/// assert!(Recipe { epochs: 0, ..recipe }.validate().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Name of the preset that it began as; see [`Recipe::PRESETS`].
    pub preset: String,
    /// Passes over the training rows.
    pub epochs: u32,
    /// Rows per step.
    pub batch: u32,
    /// Couplings.
    pub layers: usize,
    /// Hidden widths of each conditioner network.
    pub hidden: Vec<usize>,
    /// Nonlinearity after each hidden layer.
    pub activation: Activation,
    /// Which features each coupling keeps.
    pub masking: Masking,
    /// How networks and numbers of a coupling belong together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub conditioner: ConditionerForm,
    /// What a coupling does to a feature.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bijector: BijectorKind,
    /// Bound c of the log-scale of an affine coupling.
    pub bound: f32,
    /// Bins of a spline.
    #[serde(default = "default_bins", skip_serializing_if = "is_default_bins")]
    pub bins: usize,
    /// Where a spline's tails begin, in standard deviations.
    #[serde(default = "default_tail_bound", skip_serializing_if = "is_default_tail_bound")]
    pub tail_bound: f32,
    /// Highest learning rate.
    pub learning_rate: f32,
    /// Shape of the learning rate after warm-up.
    pub decay: Decay,
    /// Epochs of linear warm-up.
    pub warmup: u32,
    /// Gradients are scaled down to this global norm; `None` leaves them as they are.
    pub clip_norm: Option<f32>,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Share of the rows that is kept for validation.
    pub validation_fraction: f64,
    /// Epochs without a lower validation loss after which training ends; `None` trains all of them.
    #[serde(default)]
    pub patience: Option<u32>,
    /// Decay F of an exponential moving average of the weights over epochs, which is validated and kept in place of
    /// the weights; see [`crate::train::Average`].
    #[serde(default)]
    pub ema: Option<f64>,
    /// Whether a steep rise of the loss takes training back to the epoch before it, at half the rate.
    #[serde(default)]
    pub rollback: bool,
    /// Whether an actnorm stands before each coupling.
    #[serde(default, skip_serializing_if = "is_default")]
    pub actnorm: bool,
    /// What mixes the features before each coupling, after the actnorm.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mixing: Mixing,
    /// Density of the latent variable.
    #[serde(default, skip_serializing_if = "is_default")]
    pub base: BaseKind,
    /// Components of a mixture.
    #[serde(default = "default_components", skip_serializing_if = "is_default_components")]
    pub components: usize,
    /// How many fits are averaged: each under a seed of its own, from `seed` on, which splits the rows anew; see
    /// [`Ensemble`].
    #[serde(default = "default_ensemble", skip_serializing_if = "is_default_ensemble")]
    pub ensemble: usize,
    /// Components of the base density of each of these fits, in turns, where they differ: 0 is the standard normal. Empty
    /// where all have `base`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<usize>,
    /// Seed of the initial weights, the split, the row orders and toy data.
    pub seed: u64,
}

/// Refuses a value of `what` outside `range`.
fn between<T: PartialOrd + Display>(what: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Error::Argument(format!("{what} must lie between {least} and {most}, got {value}")))
}

/// Refuses a value of `what` that is not a positive number.
fn positive(what: &str, value: f32) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Argument(format!("{what} must be positive and finite, got {value}")))
}

// Options that a record of an earlier version lacks are left out where they are what they were then.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_bins() -> usize {
    8
}

fn is_default_bins(bins: &usize) -> bool {
    *bins == default_bins()
}

fn default_tail_bound() -> f32 {
    4.0
}

fn is_default_tail_bound(bound: &f32) -> bool {
    *bound == default_tail_bound()
}

fn default_components() -> usize {
    5
}

fn is_default_components(components: &usize) -> bool {
    *components == default_components()
}

fn default_ensemble() -> usize {
    1
}

fn is_default_ensemble(members: &usize) -> bool {
    *members == default_ensemble()
}

impl Default for Recipe {
    /// The `default` preset.
    fn default() -> Self {
        Self {
            preset: "default".into(),
            epochs: 100,
            batch: 256,
            layers: 10,
            hidden: vec![48, 48],
            activation: Activation::Relu,
            masking: Masking::Alternating,
            conditioner: ConditionerForm::Separate,
            bijector: BijectorKind::Affine,
            bound: 2.0,
            bins: default_bins(),
            tail_bound: default_tail_bound(),
            learning_rate: 5e-3,
            decay: Decay::Cosine,
            warmup: 0,
            clip_norm: Some(5.0),
            weight_decay: 0.0,
            validation_fraction: 0.1,
            patience: None,
            ema: None,
            rollback: false,
            actnorm: false,
            mixing: Mixing::None,
            base: BaseKind::Normal,
            components: default_components(),
            ensemble: default_ensemble(),
            bases: Vec::new(),
            seed: 0,
        }
    }
}

impl Recipe {
    /// Names that [`Recipe::preset`] knows.
    pub const PRESETS: [&'static str; 5] = ["default", "seed", "realnvp", "spline", "table"];

    /// Most epochs of a training.
    pub const MAX_EPOCHS: u32 = 1_000_000;
    /// Most rows of a step.
    pub const MAX_BATCH: u32 = 1 << 20;
    /// Most couplings.
    pub const MAX_LAYERS: usize = 1024;
    /// Most hidden layers of a conditioner network.
    pub const MAX_DEPTH: usize = 64;

    /// The preset called `name`.
    ///
    /// `realnvp`, affine couplings, and `spline`, spline couplings, are the recommended recipes for densities of two features,
    /// and `table` is [`Recipe::for_table`] of a small table. `seed` is the lab exercise that the project comes from: four
    /// couplings, separate 64×64 networks and Adam at a constant 1e-3 for 300 epochs. `default` is [`Recipe::default`].
    ///
    /// # Errors
    /// [`Error::Argument`] for any other name.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "default" => Ok(Self::default()),
            "seed" => Ok(Self {
                preset: "seed".into(),
                epochs: 300,
                layers: 4,
                hidden: vec![64, 64],
                learning_rate: 1e-3,
                decay: Decay::Constant,
                warmup: 0,
                ..Self::default()
            }),
            "realnvp" => Ok(Self {
                preset: "realnvp".into(),
                epochs: 80,
                layers: 16,
                hidden: vec![56, 56],
                conditioner: ConditionerForm::Joint,
                learning_rate: 3e-3,
                warmup: 5,
                ema: Some(0.9),
                ..Self::default()
            }),
            "spline" => Ok(Self {
                preset: "spline".into(),
                epochs: 60,
                layers: 8,
                conditioner: ConditionerForm::Joint,
                bijector: BijectorKind::Spline,
                warmup: 5,
                ema: Some(0.9),
                ..Self::default()
            }),
            "table" => Ok(Self::for_table(1000, 5)),
            _ => Err(Error::Argument(format!(
                "there is no preset `{name}`; the presets are {}",
                Self::PRESETS.join(", ")
            ))),
        }
    }

    /// The recommended recipe for a table of `rows` rows, validation rows included, of `columns` modelled columns, after
    /// [`Margins::Kernel`](crate::data::Margins::Kernel): an average of spline flows with different base densities.
    ///
    /// The fewer the rows, the more fits are averaged, and the fewer the Gaussians of their bases: with full covariances these
    /// need many rows for each column.
    pub fn for_table(rows: usize, columns: usize) -> Self {
        /// Rows, validation rows included, from which fits are larger and fewer, and from which there is only one.
        const MANY: usize = 4_000;
        const PLENTY: usize = 50_000;
        /// Rows that a fit goes through, at most some.
        const PASSES: usize = 3_000_000;

        let [bins, epochs] = if rows < MANY { [8, 40] } else { [16, 45] };
        let ensemble = if rows < MANY { 8 } else { 4 };
        let allowed = |&count: &usize| mixture::has_rows_for(count, rows, columns);
        let bases: Vec<usize> = [5, 1, 10, 0].into_iter().filter(allowed).collect();
        let one = rows >= PLENTY;
        Self {
            preset: "table".into(),
            epochs: epochs.min((PASSES / rows.max(1)).max(5)) as u32,
            layers: 8,
            hidden: vec![64, 64],
            masking: Masking::Random { seed: 0 },
            conditioner: ConditionerForm::Joint,
            bijector: BijectorKind::Spline,
            bins,
            learning_rate: 3e-3,
            weight_decay: 1.0,
            base: if one { BaseKind::Mixture } else { BaseKind::Normal },
            components: 5,
            ensemble: if one { 1 } else { ensemble },
            bases: if one { Vec::new() } else { bases },
            ..Self::default()
        }
    }

    /// Checks every number against its rule; shapes that depend on the data are checked by [`Recipe::flow`].
    ///
    /// # Errors
    /// [`Error::Argument`] that names the rule and the value got.
    pub fn validate(&self) -> Result<()> {
        self.validate_flow()?;
        self.validate_training()
    }

    /// Checks what the flow is made of.
    fn validate_flow(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Argument(message));
        between("layers", self.layers, 1..=Self::MAX_LAYERS)?;
        if !(1..=Self::MAX_DEPTH).contains(&self.hidden.len()) {
            let (most, got) = (Self::MAX_DEPTH, self.hidden.len());
            return fail(format!(
                "a conditioner needs between 1 and {most} hidden widths, such as 64,64; got {got}"
            ));
        }
        self.hidden.iter().try_for_each(|&width| between("hidden widths", width, 1..=MAX_WIDTH))?;
        positive("the log-scale bound", self.bound)?;
        positive("the tail bound", self.tail_bound)?;
        let (bins, components) = (Bijector::BINS, Base::COMPONENTS);
        if !bins.contains(&self.bins) {
            let (fewest, most) = (bins.start(), bins.end());
            return fail(format!("a spline has between {fewest} and {most} bins, got {}", self.bins));
        }
        if !components.contains(&self.components) {
            let (fewest, most, got) = (components.start(), components.end(), self.components);
            return fail(format!("a mixture has between {fewest} and {most} components, got {got}"));
        }
        if let Some(count) = self.bases.iter().find(|count| *count > components.end()) {
            return fail(format!("a mixture has at most {} components, got {count}", components.end()));
        }
        if self.bijector == BijectorKind::Spline && self.conditioner == ConditionerForm::Separate {
            return fail("a spline needs a joint or a residual conditioner, got separate networks".into());
        }
        let residual = self.conditioner == ConditionerForm::Residual;
        if residual && self.hidden.iter().any(|&width| width != self.hidden[0]) {
            return fail(format!("residual blocks must all have one width, got {:?}", self.hidden));
        }
        Ok(())
    }

    /// Checks how it is trained.
    fn validate_training(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Argument(message));
        between("epochs", self.epochs, 1..=Self::MAX_EPOCHS)?;
        between("the batch", self.batch, 1..=Self::MAX_BATCH)?;
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            let rate = self.learning_rate;
            return fail(format!("the learning rate must be above 0 and at most 1, got {rate}"));
        }
        if self.warmup >= self.epochs && self.warmup > 0 {
            let (epochs, warmup) = (self.epochs, self.warmup);
            return fail(format!(
                "warm-up must be shorter than the training's {epochs} epochs, got {warmup}"
            ));
        }
        self.clip_norm.map_or(Ok(()), |norm| positive("the clipping norm", norm))?;
        between("weight decay", self.weight_decay, 0.0..=1.0)?;
        if !(0.0..1.0).contains(&self.validation_fraction) {
            let share = self.validation_fraction;
            return fail(format!("the validation share must be at least 0 and below 1, got {share}"));
        }
        if !(1..=Ensemble::MOST).contains(&self.ensemble) {
            let (most, got) = (Ensemble::MOST, self.ensemble);
            return fail(format!("an ensemble averages between 1 and {most} fits, got {got}"));
        }
        if self.patience == Some(0) {
            return fail("patience must be at least 1 epoch, got 0; leave it out to train all epochs".into());
        }
        if let Some(decay) = self.ema.filter(|decay| !(*decay > 0.0 && *decay < 1.0)) {
            return fail(format!("the decay of the weights' average must lie between 0 and 1, got {decay}"));
        }
        if self.patience.is_some() && self.validation_fraction == 0.0 {
            return fail("patience needs validation rows to judge by, but the validation share is 0".into());
        }
        Ok(())
    }

    /// The recipe of fit `index`, from 0, of this recipe's ensemble: itself alone, under a seed of its own and with its base.
    #[must_use]
    pub fn of_member(&self, index: usize) -> Self {
        let seed = self.seed.wrapping_add(index as u64);
        let masking = match self.masking {
            Masking::Random { .. } => Masking::Random { seed },
            other => other,
        };
        let alone = Self { ensemble: 1, bases: Vec::new(), seed, masking, ..self.clone() };
        match self.bases.get(index % self.bases.len().max(1)) {
            None => alone,
            Some(0) => Self { base: BaseKind::Normal, ..alone },
            Some(&components) => Self { base: BaseKind::Mixture, components, ..alone },
        }
    }

    /// The same recipe with mixtures of so many Gaussians as bases, in turns where it has several fits; `bases` is not empty.
    #[must_use]
    pub fn with_bases(self, bases: &[usize]) -> Self {
        match (self.ensemble, bases) {
            (1, &[components, ..]) | (_, &[components]) => {
                Self { base: BaseKind::Mixture, components, bases: Vec::new(), ..self }
            }
            _ => Self { bases: bases.to_vec(), ..self },
        }
    }

    /// The untrained flow of this recipe over `features` features.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Flow`] when a rule is broken.
    pub fn flow(&self, features: usize) -> Result<Flow> {
        self.conditional_flow(features, 0)
    }

    /// The untrained flow of this recipe over `features` features given `context` others.
    ///
    /// # Errors
    /// As [`Recipe::flow`].
    pub fn conditional_flow(&self, features: usize, context: usize) -> Result<Flow> {
        self.validate()?;
        let bijector = match self.bijector {
            BijectorKind::Affine => Bijector::Affine { bound: self.bound },
            BijectorKind::Spline => Bijector::Spline { bins: self.bins, bound: self.tail_bound },
        };
        let base = match self.base {
            BaseKind::Normal => Base::StandardNormal,
            BaseKind::Mixture => Base::Mixture { components: self.components },
        };
        let actnorm = self.actnorm.then_some(Transform::Actnorm);
        let before = |coupling| {
            let mixing = self.mixing.before(coupling, features, self.seed);
            actnorm.clone().into_iter().chain(mixing).collect()
        };
        let flow = Flow::conditional(features, context, self.layers, &self.hidden)?
            .with_masking(self.masking)
            .with_activation(self.activation)
            .with_conditioner(self.conditioner)
            .with_bijector(bijector)
            .before_couplings(before)
            .with_base(base);
        flow.validate()?;
        Ok(flow)
    }

    /// The untrained flow of this recipe over the columns of `dataset`, given those that are context.
    ///
    /// # Errors
    /// As [`Recipe::flow`].
    pub fn flow_over(&self, dataset: &Dataset) -> Result<Flow> {
        self.conditional_flow(dataset.preprocessing.modelled(), dataset.preprocessing.context)
    }

    /// The optimiser of this recipe.
    pub fn adam(&self) -> Adam {
        Adam {
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm.unwrap_or(f32::INFINITY),
            ..Adam::default()
        }
    }

    /// The learning-rate schedule when an epoch has `steps_per_epoch` steps.
    ///
    /// # Errors
    /// [`Error::Argument`] when the steps of the whole training do not fit 32 bits.
    pub fn schedule(&self, steps_per_epoch: u32) -> Result<Schedule> {
        let total_steps = self.epochs.checked_mul(steps_per_epoch).ok_or_else(|| {
            Error::Argument(format!(
                "{} epochs of {steps_per_epoch} steps are more than {} steps; use a larger batch or fewer epochs",
                self.epochs,
                u32::MAX
            ))
        })?;
        Ok(Schedule {
            decay: self.decay,
            base: self.learning_rate,
            warmup_steps: self.warmup.saturating_mul(steps_per_epoch),
            total_steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_unknown_names_list_them() {
        for name in Recipe::PRESETS {
            let recipe = Recipe::preset(name).expect("known");
            recipe.validate().expect("valid");
            assert_eq!(recipe.preset, name);
            assert_eq!(recipe.flow(2).expect("valid").transforms.len(), recipe.layers);
        }
        let message = Recipe::preset("fast").expect_err("unknown").to_string();
        assert!(
            message.contains("`fast`") && message.contains("default, seed, realnvp, spline, table"),
            "{message}"
        );
    }

    #[test]
    fn every_broken_rule_is_named_with_the_value_got() {
        let base = Recipe::default;
        for (recipe, rule) in [
            (Recipe { epochs: 0, ..base() }, "epochs must lie between 1 and 1000000, got 0"),
            (Recipe { batch: 0, ..base() }, "batch must lie between 1 and 1048576, got 0"),
            (Recipe { layers: 0, ..base() }, "layers must lie between 1 and 1024, got 0"),
            (Recipe { hidden: vec![], ..base() }, "hidden widths, such as 64,64; got 0"),
            (Recipe { hidden: vec![64, 0], ..base() }, "between 1 and 65536, got 0"),
            (Recipe { bound: f32::NAN, ..base() }, "bound must be positive and finite, got NaN"),
            (
                Recipe { learning_rate: f32::NAN, ..base() },
                "learning rate must be above 0 and at most 1, got NaN",
            ),
            (Recipe { learning_rate: -1e-3, ..base() }, "got -0.001"),
            (Recipe { learning_rate: f32::INFINITY, ..base() }, "got inf"),
            (Recipe { tail_bound: 0.0, ..base() }, "tail bound must be positive and finite, got 0"),
            (Recipe { bins: 65, ..base() }, "between 2 and 64 bins, got 65"),
            (Recipe { bijector: BijectorKind::Spline, ..base() }, "needs a joint or a residual conditioner"),
            (
                Recipe { conditioner: ConditionerForm::Residual, hidden: vec![4, 5], ..base() },
                "residual blocks must all have one width, got [4, 5]",
            ),
            (Recipe { warmup: 100, ..base() }, "warm-up must be shorter"),
            (Recipe { clip_norm: Some(0.0), ..base() }, "clipping norm must be positive"),
            (Recipe { weight_decay: -0.1, ..base() }, "weight decay must lie between 0 and 1, got -0.1"),
            (Recipe { validation_fraction: 1.0, ..base() }, "below 1, got 1"),
            (Recipe { ensemble: 65, ..base() }, "averages between 1 and 64 fits, got 65"),
            (Recipe { bases: vec![0, 257], ..base() }, "at most 256 components, got 257"),
            (Recipe { patience: Some(0), ..base() }, "patience must be at least 1 epoch, got 0"),
            (Recipe { ema: Some(1.0), ..base() }, "must lie between 0 and 1, got 1"),
            (Recipe { ema: Some(f64::NAN), ..base() }, "must lie between 0 and 1, got NaN"),
            (
                Recipe { patience: Some(3), validation_fraction: 0.0, ..base() },
                "patience needs validation rows",
            ),
        ] {
            let message = recipe.validate().expect_err(rule).to_string();
            assert!(message.contains(rule), "{message}");
        }
    }

    #[test]
    fn fits_of_an_ensemble_have_seeds_and_bases_of_their_own() {
        let recipe = Recipe { seed: 7, ..Recipe::for_table(1000, 5) };
        let members: Vec<Recipe> = (0..recipe.ensemble).map(|index| recipe.of_member(index)).collect();
        for (index, member) in members.iter().enumerate() {
            member.validate().expect("valid");
            assert_eq!((member.ensemble, member.seed, member.bases.len()), (1, 7 + index as u64, 0));
            assert_eq!(member.masking, Masking::Random { seed: member.seed });
        }
        let base = |recipe: &Recipe| (recipe.base == BaseKind::Mixture).then_some(recipe.components);
        let bases: Vec<_> = members.iter().map(base).collect();
        assert_eq!(bases, [Some(5), Some(1), Some(10), None].repeat(2));
        assert_eq!(members[0].of_member(0), members[0]);
    }

    #[test]
    fn other_bases_take_the_place_of_a_recipes_own() {
        let several = Recipe::for_table(1000, 5).with_bases(&[10, 20]);
        assert_eq!((several.of_member(0).components, several.of_member(1).components), (10, 20));
        for recipe in [
            Recipe::for_table(100_000, 5).with_bases(&[10, 20]),
            Recipe::for_table(1000, 5).with_bases(&[10]),
        ] {
            assert_eq!((recipe.base, recipe.components, recipe.bases.len()), (BaseKind::Mixture, 10, 0));
        }
    }

    #[test]
    fn recipes_for_tables_are_valid_at_every_size() {
        for rows in [2, 30, 300, 3_999, 4_000, 49_999, 50_000, 10_000_000] {
            for columns in [1, 2, 9, 100, 60_000] {
                let recipe = Recipe::for_table(rows, columns);
                recipe.validate().expect("valid");
                assert!(recipe.epochs >= 5 && recipe.of_member(0).validate().is_ok());
                let most = recipe.bases.iter().copied().max().unwrap_or_default();
                assert!(most <= 1 || rows >= 25 * columns, "{most} Gaussians on {rows} × {columns}");
            }
        }
    }

    #[test]
    fn schedule_counts_steps_and_refuses_more_than_32_bits() {
        let recipe = Recipe { epochs: 10, warmup: 2, ..Recipe::default() };
        let schedule = recipe.schedule(7).expect("small");
        assert_eq!((schedule.warmup_steps, schedule.total_steps), (14, 70));
        let message = recipe.schedule(u32::MAX / 2).expect_err("too many").to_string();
        assert!(message.contains("larger batch"), "{message}");
    }
}
