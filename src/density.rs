//! The easy way in: a trainer and a fitted density on a device, with calls that block. Engines, futures and observers
//! are beneath it for those who need them.

use crate::data::{Dataset, PreprocessingPlan, Table, TableColumn, ToyDensity};
use crate::device::{AnyEngine, Device};
use crate::engine::Sampling;
use crate::error::{Error, Result, expect_length};
use crate::model::{DataSource, Engines, Ensemble, HeldOut, Outcome, Recipe, TableModel};
use crate::shown::shown_list;
use crate::train::{CategoryFit, Fitted, History, Members, Observer, Options, TestSets, fit_with};

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
    /// What every epoch did; of an ensemble, those of its first fit.
    pub history: History,
    /// How training ended; of an ensemble, how its first fit did.
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
    /// assert_eq!(trained.density.model().record().test.map(|test| test.rows), Some(100));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tested_on(mut self, test: Table) -> Self {
        self.test = Some(test);
        self
    }

    /// Fits the recipe's flow to `dataset`; of an ensemble, the fits from the second on split its rows anew.
    ///
    /// # Errors
    /// Those of the device and of [`fit_with`]; [`Error::Argument`] when the test has other columns than the dataset, or
    /// the dataset others than the density that it was drawn from; those of [`Ensemble::held_out`].
    pub fn fit(&self, dataset: &Dataset) -> Result<Trained> {
        self.fit_watched(dataset, &mut ())
    }

    /// As [`Trainer::fit`], under the eyes of `observer`, which may end it. Of an ensemble it sees one fit after the other; one
    /// that is ended before its time is left out, unless it is the first.
    ///
    /// # Errors
    /// As [`Trainer::fit`], and those of the observer; [`Error::Argument`] when an ensemble is to go on from a checkpoint.
    pub fn fit_watched(&self, dataset: &Dataset, observer: &mut impl Observer) -> Result<Trained> {
        let rows = (dataset.train.len() + dataset.validation.len()) / dataset.features();
        let source = match &self.drawn_from {
            Some(density) => DataSource::toy(density, rows),
            None => DataSource::table(&dataset.name, rows),
        };
        let sets = self.test_sets(dataset)?;
        if self.recipe.ensemble > 1 && self.options.resume.is_some() {
            return Err(Error::Argument("an ensemble cannot go on from the checkpoint of one fit".into()));
        }
        pollster::block_on(async {
            let mut fits = Members::new(&self.recipe, dataset.clone());
            let (mut models, mut made, mut first) = (Vec::new(), Vec::new(), None);
            while let Some((recipe, dataset)) = fits.next_fit()? {
                let mut engine = self.device.engine(recipe.flow_over(dataset)?, None).await?.engine;
                let (options, source) = (self.options.clone(), source.clone());
                let fitted = fit_with(&mut engine, dataset, &recipe, source, options, observer).await?;
                let Fitted { model, history, outcome } = fitted;
                let whole = outcome.is_whole();
                if whole || models.is_empty() {
                    models.push(model);
                    made.push(engine);
                    first.get_or_insert((history, outcome));
                }
                if !whole {
                    break;
                }
            }
            let (history, outcome) = first.expect("invariant: a recipe has a fit");
            let mut model = TableModel::from(Ensemble::average(models, &self.recipe)?);
            let mut engines = Engines::of_each(made);
            sets.score(&mut model, &mut engines).await?;
            Ok(Trained { density: Density { model, engines }, history, outcome })
        })
    }

    /// Fits the recipe to a table some of whose columns are categories or have atoms, as `columns` `[D]` says and
    /// [`Reader::into_typed`](crate::data::Reader::into_typed) reads it: the probability of these, and the density of the
    /// numbers given them. Rows are split by the recipe's fraction and seed; `plan` is that of the table's columns, the last of
    /// which may be context.
    ///
    /// # Errors
    /// Those of [`Trainer::fit`], [`CategoryFit::new`] and [`CategoryFit::dataset`].
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{PreprocessingPlan, Reader};
    /// use moonflow::engine::Sampling;
    /// use moonflow::{Device, Recipe, Trainer};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let rows: String = (0..80).map(|i| format!("{},{}\n", ["x", "y"][i % 2], (i * i % 37) as f64 / 3.0)).collect();
    /// let reader = Reader::from_csv("t", std::io::Cursor::new(format!("kind,a\n{rows}")))?;
    /// let (table, columns) = reader.into_typed()?;
    /// let recipe = Recipe { epochs: 1, layers: 2, hidden: vec![4], ..Recipe::default() };
    /// let trainer = Trainer::new(recipe).on(Device::Cpu);
    /// let mut density = trainer.fit_table(table, columns, PreprocessingPlan::default())?;
    /// let y = density.model().columns()[0].levels().and_then(|levels| levels.place("y"));
    /// let five = Sampling { rows: 5, first: 0, seed: 7, temperature: 1.0 };
    /// let rows = density.sample_with(five, &[], &[y.map(|level| level as u32), None])?; // row-major [5, 2]
    /// assert!(rows.chunks(2).all(|row| row[0] == 1.0));
    /// assert_eq!(density.log_prob(&rows)?.len(), 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fit_table(
        &self,
        table: Table,
        columns: Vec<TableColumn>,
        plan: PreprocessingPlan,
    ) -> Result<Density> {
        let (fraction, seed) = (self.recipe.validation_fraction, self.recipe.seed);
        let source = DataSource::table(&table.name, table.rows());
        if let Some(test) = &self.test {
            same_columns(&test.columns, &table.columns)?;
        }
        let categories = CategoryFit::new(columns, plan.context, &table, None, fraction, seed)?;
        let numbers = Self { test: None, ..self.clone() };
        let (ensemble, engines) = match categories.dataset(table, fraction, seed, plan)? {
            None => (None, Engines::of_each(Vec::new())),
            Some(dataset) => {
                let Density { model, engines } = numbers.fit(&dataset)?.density;
                (model.into_ensemble(), engines)
            }
        };
        let model = categories.model(ensemble, &self.recipe, &source)?;
        let mut density = Density { model, engines };
        if let Some(test) = &self.test {
            density.model.record_mut().test = Some(density.held_out(&test.values)?);
        }
        Ok(density)
    }

    fn test_sets(&self, dataset: &Dataset) -> Result<TestSets<'_>> {
        if let Some(test) = &self.test {
            same_columns(&test.columns, &dataset.columns)?;
        }
        let rows = self.test.as_ref().map(|test| test.values.as_slice());
        let sets = TestSets { density: self.drawn_from.as_ref(), rows };
        sets.validate(dataset)?;
        Ok(sets)
    }
}

/// That a test has the columns that are trained on.
fn same_columns(test: &[String], columns: &[String]) -> Result<()> {
    if test == columns {
        return Ok(());
    }
    let (test, columns) = (shown_list(test), shown_list(columns));
    Err(Error::Argument(format!("the test has the columns {test}, and the dataset {columns}")))
}

/// The model of a table on a device: a [`Model`](crate::Model), an [`Ensemble`] or a [`TableModel`]. Rows have the places of
/// their levels for categories.
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
    model: TableModel,
    engines: Engines<AnyEngine>,
}

impl Density {
    /// `model` on `device`.
    ///
    /// # Errors
    /// Those of [`Device::engine`].
    pub fn new(model: impl Into<TableModel>, device: &Device) -> Result<Self> {
        let model = model.into();
        let make = async |flow| Ok(device.engine(flow, None).await?.engine);
        let engines = pollster::block_on(model.engines(make))?;
        Ok(Self { model, engines })
    }

    /// The model: columns, record; what [`TableModel::save`] keeps.
    pub fn model(&self) -> &TableModel {
        &self.model
    }

    /// The density of the modelled numbers, where there are any: of a table without categories, all of the model.
    pub fn ensemble(&self) -> Option<&Ensemble> {
        self.model.density()
    }

    /// log p(x) of each row `[B]`, as [`TableModel::log_prob`]. `rows`: row-major [B, D], in the user's units.
    ///
    /// # Errors
    /// Those of [`TableModel::log_prob`].
    pub fn log_prob(&mut self, rows: &[f64]) -> Result<Vec<f64>> {
        pollster::block_on(self.model.log_prob(&mut self.engines, rows))
    }

    /// The gradient of log p by the columns of [`TableModel::gradient_columns`], row-major [B, their number], as
    /// [`TableModel::score`].
    ///
    /// # Errors
    /// Those of [`TableModel::score`].
    pub fn score(&mut self, rows: &[f64]) -> Result<Vec<f64>> {
        pollster::block_on(self.model.score(&mut self.engines, rows))
    }

    /// The loss on `rows`, row-major [B, D], that training has not seen, as [`TableModel::held_out`].
    ///
    /// # Errors
    /// Those of [`TableModel::log_prob`].
    pub fn held_out(&mut self, rows: &[f64]) -> Result<HeldOut> {
        pollster::block_on(self.model.held_out(&mut self.engines, rows))
    }

    /// Latent z of each row as the density of the numbers sees it ([`TableModel::encode`]), row-major [B, F]: of a table
    /// without categories [B, D]. As [`Ensemble::latent`].
    ///
    /// # Errors
    /// Those of [`Ensemble::latent`]; [`Error::Length`] when rows are not whole, [`Error::Argument`] where every modelled
    /// column is a category.
    pub fn latent(&mut self, rows: &[f64]) -> Result<Vec<f64>> {
        let Some(density) = self.model.density() else {
            return Err(Error::Argument("every column is a category: there is no latent variable".into()));
        };
        expect_length("rows", rows.len(), rows.len().next_multiple_of(self.model.columns().len()))?;
        pollster::block_on(density.latent(&mut self.engines, &self.model.encode(rows)))
    }

    /// `rows` rows drawn from the model, row-major [rows, D], in the user's units: the same for the same `seed`.
    ///
    /// # Errors
    /// Those of [`TableModel::sample`].
    pub fn sample(&mut self, rows: usize, seed: u64) -> Result<Vec<f64>> {
        self.sample_with(Sampling { rows, first: 0, seed, temperature: 1.0 }, &[], &[])
    }

    /// A row for each of `context`, row-major [B, C], in the user's units.
    ///
    /// # Errors
    /// Those of [`TableModel::sample`].
    pub fn sample_given(&mut self, context: &[f64], seed: u64) -> Result<Vec<f64>> {
        let rows = context.len() / self.model.context().max(1);
        self.sample_with(Sampling { rows, first: 0, seed, temperature: 1.0 }, context, &[])
    }

    /// Rows drawn by `sampling`, which also says at which temperature and from which row of the seed's sequence on.
    /// `context`: one for each row, row-major [B, C]; empty for a model without context. All rows have the levels that are
    /// fixed in `fixed`, a level or none for each modelled column `[D − C]`; empty where none is.
    ///
    /// # Errors
    /// Those of [`TableModel::sample`].
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
    /// assert_eq!(density.sample_with(likely, &[], &[])?.len(), 200); // row-major [100, 2]
    /// # Ok(())
    /// # }
    /// ```
    pub fn sample_with(
        &mut self,
        sampling: Sampling,
        context: &[f64],
        fixed: &[Option<u32>],
    ) -> Result<Vec<f64>> {
        pollster::block_on(self.model.sample(&mut self.engines, sampling, context, fixed))
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
        let record = scored.model().record().clone();
        let parameters = |density: &Density| density.ensemble().expect("numbers").first().parameters.clone();
        assert_eq!(parameters(&scored), parameters(&plain));
        assert_eq!((plain.model().record().held_out, plain.model().record().test), (None, None));
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
