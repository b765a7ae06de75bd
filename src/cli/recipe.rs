//! The flags that make a recipe: a preset and what changes it.

use clap::builder::PossibleValuesParser;
use clap::value_parser;
use moonflow::Result;
use moonflow::flow::{Activation, Base, BaseKind, Bijector, BijectorKind, ConditionerForm, Masking, Mixing};
use moonflow::model::Recipe;
use moonflow::optimiser::Decay;

use super::values::{self, Widths};

/// Flags of every command that takes a recipe.
#[derive(clap::Args)]
pub struct RecipeArgs {
    /// Recipe to begin from; the flags below change it
    #[arg(long, default_value = "default", value_parser = PossibleValuesParser::new(Recipe::PRESETS))]
    preset: String,
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
    /// Components of that mixture, which the flag implies where --base is not given; 1 is a Gaussian with a full covariance
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(*Base::COMPONENTS.start() as i64..=*Base::COMPONENTS.end() as i64))]
    components: Option<u32>,
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

impl RecipeArgs {
    /// The recipe that the flags describe.
    ///
    /// # Errors
    /// Those of [`Recipe::validate`].
    pub fn resolve(&self) -> Result<Recipe> {
        let preset = Recipe::preset(&self.preset)?;
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
        let implied = self.components.map_or(preset.base, |_| BaseKind::Mixture);
        let base = named(&BaseKind::ALL, self.base.as_deref()).unwrap_or(implied);
        let mixing = named(&Mixing::ALL, self.mixing.as_deref());
        let masking = self
            .mask
            .as_deref()
            .and_then(|wanted| Masking::all(seed).into_iter().find(|masking| masking.name() == wanted));
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
            components: self.components.map_or(preset.components, |components| components as usize),
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
}

/// The value that `wanted` names.
fn named<T: Copy>(all: &[(&str, T)], wanted: Option<&str>) -> Option<T> {
    all.iter().find(|(name, _)| Some(*name) == wanted).map(|(_, value)| *value)
}
