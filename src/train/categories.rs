//! The part of a training that has no flow: the probability of a table's categories, fitted to the same training rows as the
//! density of its numbers, and the model of both.

use crate::data::{Dataset, PreprocessingPlan, Table, TableColumn};
use crate::error::Result;
use crate::model::discrete::{Discrete, DiscreteRows};
use crate::model::{DataSource, Encoding, Ensemble, Recipe, TableModel, TrainingRecord};

/// What a training has of a table with categories before its flow is fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct CategoryFit {
    /// What the table's columns are, the context last.
    pub columns: Vec<TableColumn>,
    /// How many of them are context.
    pub context: usize,
    /// The probability of the modelled categories, where there are any.
    pub discrete: Option<Discrete>,
    /// Mean −log P of the categories over training rows and over validation rows, where there are any, in nats.
    pub nll: [Option<f64>; 2],
}

impl CategoryFit {
    /// Fits the probability of the categories in `table`, which has the places of their levels, to its training rows: those
    /// that [`Dataset::from_table`] takes under the same seed and fraction. Rows count by `weights` `[N]`, where there are
    /// any. The same rows and seed give the same bits.
    ///
    /// # Errors
    /// Those of [`Discrete::fit`], and of a table that is not rows of `columns`.
    pub fn new(
        columns: Vec<TableColumn>,
        context: usize,
        table: &Table,
        weights: Option<&[f64]>,
        validation_fraction: f64,
        seed: u64,
    ) -> Result<Self> {
        let encoding = Encoding::new(&columns, context);
        let modelled = encoding.modelled_categories().count();
        if modelled == 0 {
            return Ok(Self { columns, context, discrete: None, nll: [None; 2] });
        }
        let rows = encoding.discrete_rows(&table.values)?;
        let sides = Dataset::sides(table, validation_fraction, seed)?;
        let of_side = |wanted: bool| {
            let places: Vec<usize> = (0..sides.len()).filter(|&row| sides[row] == wanted).collect();
            let weights = weights.map(|weights| places.iter().map(|&row| weights[row]).collect::<Vec<f64>>());
            (take(&rows, &encoding, &places), weights)
        };
        let ((train, train_weights), (validation, validation_weights)) = (of_side(false), of_side(true));
        let numbers = encoding.given_numbers().len();
        let discrete =
            Discrete::fit(&encoding.levels(), modelled, numbers, &train, train_weights.as_deref())?;
        let mean = |rows: &DiscreteRows, weights: Option<Vec<f64>>| -> Result<Option<f64>> {
            let log_prob = discrete.log_prob(rows)?;
            let weight = |row: usize| weights.as_ref().map_or(1.0, |weights| weights[row]);
            let total: f64 = (0..log_prob.len()).map(weight).sum();
            let sum: f64 = log_prob.iter().enumerate().map(|(row, log_prob)| weight(row) * log_prob).sum();
            Ok((total > 0.0).then(|| -sum / total))
        };
        let nll = [mean(&train, train_weights)?, mean(&validation, validation_weights)?];
        Ok(Self { columns, context, discrete: Some(discrete), nll })
    }

    /// How the table's rows are put before a flow.
    pub fn encoding(&self) -> Encoding {
        Encoding::new(&self.columns, self.context)
    }

    /// The table and the plan for its columns as a flow sees them.
    ///
    /// # Errors
    /// Those of [`Encoding::plan`] and [`Encoding::encode_table`].
    pub fn encoded(&self, table: Table, plan: PreprocessingPlan) -> Result<(Table, PreprocessingPlan)> {
        let encoding = self.encoding();
        let plan = encoding.plan(plan, &self.columns)?;
        Ok((encoding.encode_table(table, &self.columns)?, plan))
    }

    /// The rows and validation rows of the flow, from those of the table and the plan for its columns; `None` where every
    /// modelled column is a category.
    ///
    /// # Errors
    /// Those of [`CategoryFit::encoded`] and [`Dataset::from_table`].
    pub fn dataset(
        &self,
        table: Table,
        validation_fraction: f64,
        seed: u64,
        plan: PreprocessingPlan,
    ) -> Result<Option<Dataset>> {
        if self.encoding().modelled_numbers().is_empty() {
            return Ok(None);
        }
        let (table, plan) = self.encoded(table, plan)?;
        Dataset::from_table(table, validation_fraction, seed, &plan).map(Some)
    }

    /// The model of the categories and the fitted `density` of the numbers; where there is none, its record is that of
    /// `recipe` on `data`. Losses of its record are those of both.
    ///
    /// # Errors
    /// Those of [`TableModel::new`].
    pub fn model(&self, density: Option<Ensemble>, recipe: &Recipe, data: &DataSource) -> Result<TableModel> {
        let mut record = match &density {
            Some(density) => density.record().clone(),
            None => TrainingRecord::begun(recipe.clone(), data.clone(), "cpu".into()),
        };
        let total = |numbers: Option<f64>, categories: Option<f64>| match (&self.discrete, &density) {
            (None, _) => numbers,
            (_, None) => categories,
            _ => numbers.zip(categories).map(|(numbers, categories)| numbers + categories),
        };
        record.train_nll = total(record.train_nll, self.nll[0]);
        record.validation_nll = total(record.validation_nll, self.nll[1]);
        TableModel::new(self.columns.clone(), self.context, self.discrete.clone(), density, record)
    }
}

/// The rows at `places`.
fn take(rows: &DiscreteRows, encoding: &Encoding, places: &[usize]) -> DiscreteRows {
    let (levels, numbers) = (encoding.levels().len(), encoding.given_numbers().len());
    DiscreteRows {
        codes: places.iter().flat_map(|row| &rows.codes[row * levels..(row + 1) * levels]).copied().collect(),
        numbers: places
            .iter()
            .flat_map(|row| &rows.numbers[row * numbers..(row + 1) * numbers])
            .copied()
            .collect(),
    }
}
