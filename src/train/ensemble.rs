//! The fits of an ensemble, one after the other: a recipe and rows for each.
//! It stands before a single fit, of which it knows nothing else.

use crate::data::Dataset;
use crate::error::Result;
use crate::model::Recipe;

/// The fits of a recipe's ensemble that are still to be done: a recipe and a dataset for each.
#[derive(Debug)]
pub struct Members<'a> {
    recipe: &'a Recipe,
    /// Split for the fit before.
    dataset: Option<Dataset>,
    next: usize,
}

impl<'a> Members<'a> {
    /// Of `recipe`, whose first fit is trained on `dataset` as it is.
    pub fn new(recipe: &'a Recipe, dataset: Dataset) -> Self {
        Self { recipe, dataset: Some(dataset), next: 0 }
    }

    /// The next fit: its recipe and its dataset, whose rows are split anew from the second fit on; `None` after the last.
    ///
    /// # Errors
    /// Those of [`Dataset::resplit`].
    pub fn next_fit(&mut self) -> Result<Option<(Recipe, &Dataset)>> {
        if self.next >= self.recipe.ensemble {
            return Ok(None);
        }
        let recipe = self.recipe.of_member(self.next);
        if self.next > 0
            && let Some(dataset) = self.dataset.take()
        {
            self.dataset = Some(dataset.resplit(recipe.validation_fraction, recipe.seed)?);
        }
        self.next += 1;
        Ok(self.dataset.as_ref().map(|dataset| (recipe, dataset)))
    }
}
