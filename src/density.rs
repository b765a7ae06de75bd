//! The easy way in: a trainer and a fitted density on a device, with calls that block. Engines, futures and observers
//! are beneath it for those who need them.

use crate::data::{Dataset, Table, ToyDensity};
use crate::device::{AnyEngine, Device};
use crate::engine::Sampling;
use crate::error::{Error, Result};
use crate::model::{DataSource, HeldOut, Model, Outcome, Recipe};
use crate::shown::shown_list;
use crate::train::{Fitted, History, Observer, Options, TestSets, fit_with};

/// A recipe and where to carry it out.
///
/// ```
/// use moonflow::data::{Dataset, Toy, ToyDensity};
/// use moonflow::{Device, Recipe, Trainer};
///
/// # fn main() -> moonflow::Result<()> {
/// let dataset = Dataset::split(&ToyDensity::new(Toy::Moons).table(400, 1), 0.1, 1)?;
/// let recipe = Recipe { epochs: 2, layers: 2, hidden: vec![8], ..Recipe::default() };
/// let mut trained = Trainer::new(recipe).on(Device::Cpu).fit(&dataset)?;
/// let log_prob = trained.density.log_prob(&[0.0, 1.0, 1.0, -0.5])?; // two rows
/// assert_eq!(log_prob.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Trainer {
    /// What to train and how.
    pub recipe: Recipe,
    /// Where.
    pub device: Device,
    /// Limits, checkpoints, and what to go on from.
    pub options: Options,
    /// The density that the dataset was drawn from, where it was: its fresh rows are scored after training.
    pub drawn_from: Option<ToyDensity>,
    /// Rows kept for a test, in the dataset's columns, scored after training.
    pub test: Option<Table>,
}

/// What a training yields.
#[derive(Debug)]
pub struct Trained {
    /// The fitted density, on the device that it was trained on.
    pub density: Density,
    /// What every epoch did.
    pub history: History,
    /// How training ended.
    pub outcome: Outcome,
}

impl Trainer {
    /// A trainer of `recipe` on the device that [`Device::Auto`] takes.
    pub fn new(recipe: Recipe) -> Self {
        Self { recipe, device: Device::Auto, options: Options::default(), drawn_from: None, test: None }
    }

    /// The same on another device.
    #[must_use]
    pub fn on(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The same for rows drawn from `density`: the model's record says so, and has its loss on fresh rows beside the
    /// true one ([`TrainingRecord::held_out`](crate::model::TrainingRecord::held_out)).
    #[must_use]
    pub fn drawn_from(mut self, density: ToyDensity) -> Self {
        self.drawn_from = Some(density);
        self
    }

    /// The same with the loss on the rows of `test` in the model's record
    /// ([`TrainingRecord::test`](crate::model::TrainingRecord::test)).
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Dataset, Toy, ToyDensity};
    /// use moonflow::{Device, Recipe, Trainer};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let (table, test) = ToyDensity::new(Toy::Moons).table(400, 1).without_test_rows(0.25, 1)?;
    /// let dataset = Dataset::split(&table, 0.1, 1)?;
    /// let recipe = Recipe { epochs: 1, layers: 2, hidden: vec![4], ..Recipe::default() };
    /// let trained = Trainer::new(recipe).on(Device::Cpu).tested_on(test).fit(&dataset)?;
    /// assert_eq!(trained.density.model().record.test.map(|test| test.rows), Some(100));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tested_on(mut self, test: Table) -> Self {
        self.test = Some(test);
        self
    }

    /// Fits the recipe's flow to `dataset`.
    ///
    /// # Errors
    /// Those of the device and of [`fit_with`]; [`Error::Argument`] when the test has other columns than the dataset, or
    /// the dataset others than the density that it was drawn from; those of [`Model::held_out`].
    pub fn fit(&self, dataset: &Dataset) -> Result<Trained> {
        self.fit_watched(dataset, &mut ())
    }

    /// As [`Trainer::fit`], under the eyes of `observer`, which may end it.
    ///
    /// # Errors
    /// As [`Trainer::fit`], and those of the observer.
    pub fn fit_watched(&self, dataset: &Dataset, observer: &mut impl Observer) -> Result<Trained> {
        let rows = (dataset.train.len() + dataset.validation.len()) / dataset.features();
        let source = match &self.drawn_from {
            Some(density) => DataSource::toy(density, rows),
            None => DataSource::table(&dataset.name, rows),
        };
        let sets = self.test_sets(dataset)?;
        pollster::block_on(async {
            let mut engine = self.device.engine(self.recipe.flow_over(dataset)?, None).await?.engine;
            let options = self.options.clone();
            let fitted = fit_with(&mut engine, dataset, &self.recipe, source, options, observer).await?;
            let Fitted { mut model, history, outcome } = fitted;
            sets.score(&mut model, &mut engine).await?;
            Ok(Trained { density: Density { model, engine }, history, outcome })
        })
    }

    fn test_sets(&self, dataset: &Dataset) -> Result<TestSets<'_>> {
        if let Some(test) = &self.test
            && test.columns != dataset.columns
        {
            return Err(Error::Argument(format!(
                "the test has the columns {}, and the dataset {}",
                shown_list(&test.columns),
                shown_list(&dataset.columns)
            )));
        }
        let rows = self.test.as_ref().map(|test| test.values.as_slice());
        let sets = TestSets { density: self.drawn_from.as_ref(), rows };
        sets.validate(dataset)?;
        Ok(sets)
    }
}

/// A model on a device.
///
/// Its methods take `&mut self`: an engine computes in buffers that it owns. For several threads make a density for each.
///
/// ```no_run
/// use moonflow::{Density, Device, Model};
///
/// # fn main() -> moonflow::Result<()> {
/// let model = Model::load("runs/moons/model.safetensors")?;
/// let mut density = Density::new(model, &Device::Auto)?;
/// let samples = density.sample(1000, 7)?; // row-major [1000, D]
/// let log_prob = density.log_prob(&samples)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Density {
    model: Model,
    engine: AnyEngine,
}

impl Density {
    /// `model` on `device`.
    ///
    /// # Errors
    /// Those of [`Device::engine`].
    pub fn new(model: Model, device: &Device) -> Result<Self> {
        let engine = pollster::block_on(device.engine(model.flow.clone(), None))?.engine;
        Ok(Self { model, engine })
    }

    /// The model: columns, preprocessing, record; what [`Model::save`] keeps.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// log p(x) of each row `[B]`, as [`Model::log_prob`]. `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// Those of [`Model::log_prob`].
    pub fn log_prob(&mut self, rows: &[f64]) -> Result<Vec<f64>> {
        pollster::block_on(self.model.log_prob(&mut self.engine, rows))
    }

    /// The loss on `rows`, row-major [B, D], that training has not seen, as [`Model::held_out`].
    ///
    /// # Errors
    /// Those of [`Model::log_prob`].
    pub fn held_out(&mut self, rows: &[f64]) -> Result<HeldOut> {
        pollster::block_on(self.model.held_out(&mut self.engine, rows, |_| None))
    }

    /// Latent z of each row, row-major [B, D], as [`Model::latent`].
    ///
    /// # Errors
    /// Those of [`Model::latent`].
    pub fn latent(&mut self, rows: &[f64]) -> Result<Vec<f64>> {
        pollster::block_on(self.model.latent(&mut self.engine, rows))
    }

    /// `rows` rows drawn from the model, row-major [rows, D], in the user's units: the same for the same `seed`.
    ///
    /// # Errors
    /// Those of [`Model::sample`].
    pub fn sample(&mut self, rows: usize, seed: u64) -> Result<Vec<f64>> {
        self.sample_with(Sampling { rows, first: 0, seed, temperature: 1.0 }, &[])
    }

    /// A row for each of `context`, row-major [B, C], in the user's units; see [`Model::sample_given`].
    ///
    /// # Errors
    /// Those of [`Model::sample_given`].
    pub fn sample_given(&mut self, context: &[f64], seed: u64) -> Result<Vec<f64>> {
        let rows = context.len() / self.model.flow.context.max(1);
        self.sample_with(Sampling { rows, first: 0, seed, temperature: 1.0 }, context)
    }

    /// Rows drawn by `sampling`, which also says at which temperature and from which row of the seed's sequence on.
    /// `context`: one for each row, row-major [B, C]; empty for a model without context.
    ///
    /// # Errors
    /// Those of [`Model::sample_given`].
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Dataset, Toy, ToyDensity};
    /// use moonflow::engine::Sampling;
    /// use moonflow::{Device, Recipe, Trainer};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// # let dataset = Dataset::split(&ToyDensity::new(Toy::Moons).table(200, 1), 0.1, 1)?;
    /// # let recipe = Recipe { epochs: 1, layers: 2, hidden: vec![4], ..Recipe::default() };
    /// let mut density = Trainer::new(recipe).on(Device::Cpu).fit(&dataset)?.density;
    /// let likely = Sampling { rows: 100, first: 0, seed: 7, temperature: 0.5 };
    /// assert_eq!(density.sample_with(likely, &[])?.len(), 200); // row-major [100, 2]
    /// # Ok(())
    /// # }
    /// ```
    pub fn sample_with(&mut self, sampling: Sampling, context: &[f64]) -> Result<Vec<f64>> {
        pollster::block_on(self.model.sample_given(&mut self.engine, sampling, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Toy;

    fn trainer() -> Trainer {
        Trainer::new(Recipe { epochs: 1, layers: 2, hidden: vec![4], ..Recipe::default() }).on(Device::Cpu)
    }

    #[test]
    fn a_record_says_what_the_model_is_worth_on_fresh_and_on_test_rows() {
        let moons = ToyDensity::new(Toy::Moons);
        let (table, test) = moons.table(200, 1).without_test_rows(0.2, 1).expect("splits");
        let dataset = Dataset::split(&table, 0.1, 1).expect("splits");
        let plain = trainer().fit(&dataset).expect("trains").density;
        let mut scored = trainer()
            .drawn_from(moons.clone())
            .tested_on(test.clone())
            .fit(&dataset)
            .expect("trains")
            .density;
        let record = scored.model().record.clone();
        assert_eq!(scored.model().parameters, plain.model().parameters);
        assert_eq!((plain.model().record.held_out, plain.model().record.test), (None, None));
        assert_eq!((record.data.toy, record.data.noise), (true, Some(moons.noise())));
        let held_out = record.held_out.expect("scored");
        assert!(held_out.rows == 20_000 && held_out.above_floor.is_some_and(|above| above > 0.0));
        assert_eq!(record.test, Some(scored.held_out(&test.values).expect("scores")));
    }

    #[test]
    fn rows_of_other_columns_are_refused_before_training() {
        let table = |columns: [&str; 3]| Table {
            name: "t".into(),
            columns: columns.map(String::from).into(),
            values: (0..60).map(|i| f64::from(i * i % 17)).collect(),
        };
        let dataset = Dataset::split(&table(["a", "b", "c"]), 0.2, 1).expect("splits");
        for (trainer, want) in [
            (trainer().tested_on(table(["a", "c", "b"])), "the test has the columns"),
            (trainer().drawn_from(ToyDensity::new(Toy::Moons)), "a toy density has 2 columns"),
        ] {
            let message = trainer.fit(&dataset).expect_err(want).to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
