//! The sizes of a training before its rows are there, for plans and for tiles.

use crate::engine::{Training, TrainingShape};
use crate::error::Result;
use crate::model::Recipe;

/// Sizes and rules of the training of `recipe` on so many rows.
///
/// # Errors
/// Those of [`Recipe::schedule`].
///
/// # Examples
/// ```
/// use moonflow::Recipe;
/// use moonflow::train::training_shape;
///
/// # fn main() -> moonflow::Result<()> {
/// let recipe = Recipe { batch: 256, epochs: 10, ..Recipe::default() };
/// let shape = training_shape(&recipe, 1000, 100)?;
/// assert_eq!((shape.batch, shape.schedule.total_steps), (256, 40)); // 4 steps an epoch
/// # Ok(())
/// # }
/// ```
pub fn training_shape(recipe: &Recipe, train_rows: usize, validation_rows: usize) -> Result<TrainingShape> {
    Ok(TrainingShape {
        train_rows,
        validation_rows,
        batch: train_rows.min(recipe.batch as usize),
        adam: recipe.adam(),
        schedule: recipe.schedule(Training::steps_per_epoch(train_rows, recipe.batch))?,
        seed: recipe.seed,
        weights: None,
    })
}
