//! The flags that make a recipe: a preset and what changes it.

use clap::builder::PossibleValuesParser;
use clap::value_parser;
use moonflow::flow::{Activation, BaseKind, Bijector, BijectorKind, ConditionerForm, Masking, Mixing};
use moonflow::model::{Ensemble, Recipe};
use moonflow::optimiser::Decay;
use moonflow::{Error, Result};

use super::values::{self, Components, Widths};

/// Flags of every command that takes a recipe.
#[derive(clap::Args)]
pub struct RecipeArgs {
    /// Recipe to begin from; the flags below change it [default: table for tables, realnvp for toy densities]
    #[arg(long, value_parser = PossibleValuesParser::new(Recipe::PRESETS))]
    preset: Option<String>,
    /// Passes over the training rows
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=i64::from(Recipe::MAX_EPOCHS)))]
    epochs: Option<u32>,
    /// Rows per step
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=i64::from(Recipe::MAX_BATCH)))]
    batch: Option<u32>,
    /// Highest learning rate
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::learning_rate)]
    lr: Option<f32>,
    /// Shape of the rate after warm-up: constant, or half a cosine to zero
    #[arg(long, value_parser = PossibleValuesParser::new(Decay::ALL.map(Decay::name)))]
    decay: Option<String>,
    /// Epochs of linear warm-up before it, fewer than --epochs
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    warmup: Option<u32>,
    /// Couplings
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=Recipe::MAX_LAYERS as i64))]
    layers: Option<u32>,
    /// Hidden widths of each network
    #[arg(long, value_name = "64,64", value_parser = values::widths, allow_hyphen_values = true)]
    hidden: Option<Widths>,
    /// Nonlinearity between the layers of a network
    #[arg(long, value_parser = PossibleValuesParser::new(Activation::ALL.map(|(name, _)| name)))]
    activation: Option<String>,
    /// Which columns each coupling keeps; random draws them by the seed
    #[arg(long, value_parser = PossibleValuesParser::new(Masking::all(0).map(Masking::name)))]
    mask: Option<String>,
    /// What a coupling does to a column; spline implies a joint conditioner where none is named
    #[arg(long, value_parser = PossibleValuesParser::new(BijectorKind::ALL.map(|(name, _)| name)))]
    bijector: Option<String>,
    /// Networks of a coupling: two, one for all its numbers, or one with residual blocks
    #[arg(long, value_parser = PossibleValuesParser::new(ConditionerForm::ALL.map(|(name, _)| name)))]
    conditioner: Option<String>,
    /// Bound of the log-scale of an affine coupling
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::positive)]
    bound: Option<f32>,
    /// Bins of a spline
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(*Bijector::BINS.start() as i64..=*Bijector::BINS.end() as i64))]
    bins: Option<u32>,
    /// Where the tails of a spline begin, in standard deviations
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::positive)]
    tail_bound: Option<f32>,
    /// What mixes the columns before each coupling: fixed permutations, or LU layers, which are trained
    #[arg(long, value_parser = PossibleValuesParser::new(Mixing::ALL.map(|(name, _)| name)))]
    mixing: Option<String>,
    /// Normalise the columns before each coupling by a trained shift and scale
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    actnorm: Option<bool>,
    /// Density of the latent variable: standard normal, or a trained mixture of Gaussians with full covariances
    #[arg(long, value_parser = PossibleValuesParser::new(BaseKind::ALL.map(|(name, _)| name)))]
    base: Option<String>,
    /// Components of that mixture, which the flag implies where --base is not given; 1 is a Gaussian with a full covariance.
    /// Several, as in 0,1,5, are those of the fits of --ensemble in turns; 0 is the standard normal
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = values::components)]
    components: Option<Components>,
    /// Fit N flows, each on a split and with weights of its own, and average their densities
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=Ensemble::MOST as i64))]
    ensemble: Option<u32>,
    /// Global norm to which longer gradients are scaled down; 0 leaves them as they are
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::at_least_zero)]
    clip: Option<f32>,
    /// Decoupled weight decay: weights shrink by the rate times this in each step
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::share_or_whole)]
    weight_decay: Option<f32>,
    /// Share of the rows that is kept for validation
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::share)]
    validation_fraction: Option<f64>,
    /// End after N epochs without a lower validation loss
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..))]
    patience: Option<u32>,
    /// Keep an exponential moving average of the weights over epochs, of decay F, in place of the weights
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::decay)]
    ema: Option<f64>,
    /// Go back to the epoch before, at half the rate, when the loss rises by more than half a nat per column
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rollback: Option<bool>,
    /// Seed of the weights, the split, the row orders and toy data
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
}

/// What a recipe is for, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A toy density.
    Toy,
    /// A table, not read yet.
    Table,
    /// A table of rows and modelled columns.
    Shape([usize; 2]),
}

/// Name of the preset whose numbers depend on the table.
const TABLE: &str = "table";

impl RecipeArgs {
    /// Whether the recipe is the one for tables.
    pub fn is_for_tables(&self, subject: Subject) -> bool {
        self.preset_name(subject) == TABLE
    }

    /// Whether a flag says what the base density is.
    pub fn names_base(&self) -> bool {
        self.base.is_some() || self.components.is_some()
    }

    fn preset_name(&self, subject: Subject) -> &str {
        let usual = if subject == Subject::Toy { "realnvp" } else { TABLE };
        self.preset.as_deref().unwrap_or(usual)
    }

    /// The recipe that the flags describe for `subject`.
    ///
    /// # Errors
    /// Those of [`Recipe::validate`]; [`Error::Argument`] when --base contradicts --components.
    pub fn resolve(&self, subject: Subject) -> Result<Recipe> {
        self.over(match (self.preset_name(subject), subject) {
            (TABLE, Subject::Shape([rows, columns])) => Recipe::for_table(rows, columns),
            (name, _) => Recipe::preset(name)?,
        })
    }

    /// `preset` with what the flags say in its place.
    ///
    /// # Errors
    /// As [`RecipeArgs::resolve`].
    pub fn over(&self, preset: Recipe) -> Result<Recipe> {
        let seed = self.seed.unwrap_or(preset.seed);
        let activation = named(&Activation::ALL, self.activation.as_deref());
        let bijector = named(&BijectorKind::ALL, self.bijector.as_deref()).unwrap_or(preset.bijector);
        let conditioner =
            named(&ConditionerForm::ALL, self.conditioner.as_deref()).unwrap_or(match bijector {
                BijectorKind::Spline if preset.conditioner == ConditionerForm::Separate => {
                    ConditionerForm::Joint
                }
                _ => preset.conditioner,
            });
        let (base, components, bases) = self.base(&preset)?;
        let mixing = named(&Mixing::ALL, self.mixing.as_deref());
        let mask = self.mask.as_deref().unwrap_or(preset.masking.name());
        let masking = Masking::all(seed).into_iter().find(|masking| masking.name() == mask);
        let decay = self
            .decay
            .as_deref()
            .and_then(|wanted| Decay::ALL.into_iter().find(|decay| decay.name() == wanted));
        let epochs = self.epochs.unwrap_or(preset.epochs);
        let recipe = Recipe {
            epochs,
            // The preset's warm-up must not forbid a short training.
            warmup: self.warmup.unwrap_or(preset.warmup.min(epochs.saturating_sub(1))),
            decay: decay.unwrap_or(preset.decay),
            batch: self.batch.unwrap_or(preset.batch),
            layers: self.layers.map_or(preset.layers, |layers| layers as usize),
            hidden: self.hidden.as_ref().map_or(preset.hidden, |Widths(widths)| widths.clone()),
            activation: activation.unwrap_or(preset.activation),
            masking: masking.unwrap_or(preset.masking),
            learning_rate: self.lr.unwrap_or(preset.learning_rate),
            bijector,
            conditioner,
            bound: self.bound.unwrap_or(preset.bound),
            bins: self.bins.map_or(preset.bins, |bins| bins as usize),
            tail_bound: self.tail_bound.unwrap_or(preset.tail_bound),
            mixing: mixing.unwrap_or(preset.mixing),
            base,
            components,
            ensemble: self.ensemble.map_or(preset.ensemble, |fits| fits as usize),
            bases,
            actnorm: self.actnorm.unwrap_or(preset.actnorm),
            clip_norm: self.clip.map_or(preset.clip_norm, |norm| (norm > 0.0).then_some(norm)),
            weight_decay: self.weight_decay.unwrap_or(preset.weight_decay),
            validation_fraction: self.validation_fraction.unwrap_or(preset.validation_fraction),
            patience: self.patience.or(preset.patience),
            ema: self.ema.or(preset.ema),
            rollback: self.rollback.unwrap_or(preset.rollback),
            seed,
            ..preset
        };
        recipe.validate()?;
        Ok(recipe)
    }

    /// Base density, its components, and those of an ensemble's fits in turns.
    fn base(&self, preset: &Recipe) -> Result<(BaseKind, usize, Vec<usize>)> {
        let wanted = named(&BaseKind::ALL, self.base.as_deref());
        match (&self.components, wanted) {
            (None, None) => Ok((preset.base, preset.components, preset.bases.clone())),
            (None, Some(base)) => Ok((base, preset.components, Vec::new())),
            (Some(Components(counts)), wanted) => match counts.as_slice() {
                [one] => Ok((wanted.unwrap_or(BaseKind::Mixture), *one, Vec::new())),
                several if wanted.is_none() => Ok((preset.base, preset.components, several.to_vec())),
                _ => Err(Error::Argument(
                    "--components with several numbers says what the bases are; leave --base out".into(),
                )),
            },
        }
    }
}

/// The value that `wanted` names.
fn named<T: Copy>(all: &[(&str, T)], wanted: Option<&str>) -> Option<T> {
    all.iter().find(|(name, _)| Some(*name) == wanted).map(|(_, value)| *value)
}
