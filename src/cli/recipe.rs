//! The flags that make a recipe: a preset and what changes it.

use clap::builder::PossibleValuesParser;
use clap::value_parser;
use moonflow::Result;
use moonflow::flow::{Activation, Masking};
use moonflow::model::Recipe;
use moonflow::optimiser::Decay;

use super::values::{self, Widths};

/// Flags of every command that is told how to train.
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
    #[arg(long, value_parser = PossibleValuesParser::new(["constant", "cosine"]))]
    decay: Option<String>,
    /// Epochs of linear warm-up before it, fewer than --epochs
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    warmup: Option<u32>,
    /// Affine couplings
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = value_parser!(u32).range(1..=Recipe::MAX_LAYERS as i64))]
    layers: Option<u32>,
    /// Hidden widths of each network
    #[arg(long, value_name = "64,64", value_parser = values::widths, allow_hyphen_values = true)]
    hidden: Option<Widths>,
    /// Nonlinearity between the layers of a network
    #[arg(long, value_parser = PossibleValuesParser::new(Activation::ALL.map(|(name, _)| name)))]
    activation: Option<String>,
    /// Which columns each coupling keeps; random draws them by the seed
    #[arg(long, value_parser = PossibleValuesParser::new(["alternating", "half-split", "random"]))]
    mask: Option<String>,
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
        let base = Recipe::preset(&self.preset)?;
        let seed = self.seed.unwrap_or(base.seed);
        let activation = self.activation.as_deref().and_then(|wanted| {
            Activation::ALL.iter().find(|(name, _)| *name == wanted).map(|(_, activation)| *activation)
        });
        let masking = self.mask.as_deref().map(|mask| match mask {
            "half-split" => Masking::HalfSplit,
            "random" => Masking::Random { seed },
            _ => Masking::Alternating,
        });
        let decay = self.decay.as_deref().map(|decay| match decay {
            "constant" => Decay::Constant,
            _ => Decay::Cosine,
        });
        let epochs = self.epochs.unwrap_or(base.epochs);
        let recipe = Recipe {
            epochs,
            // The preset's warm-up must not forbid a short training.
            warmup: self.warmup.unwrap_or(base.warmup.min(epochs.saturating_sub(1))),
            decay: decay.unwrap_or(base.decay),
            batch: self.batch.unwrap_or(base.batch),
            layers: self.layers.map_or(base.layers, |layers| layers as usize),
            hidden: self.hidden.as_ref().map_or(base.hidden, |Widths(widths)| widths.clone()),
            activation: activation.unwrap_or(base.activation),
            masking: masking.unwrap_or(base.masking),
            learning_rate: self.lr.unwrap_or(base.learning_rate),
            seed,
            ..base
        };
        recipe.validate()?;
        Ok(recipe)
    }
}
