//! A fitted density of a table's rows, categories and all: the probability of the categories, and given these the density
//! of the numbers.
//! It is what every command reads from a model file. Of a table of numbers it is an [`Ensemble`] and nothing else.

use super::discrete::{Discrete, DiscreteRows, Draws};
use super::encoding::Encoding;
use super::held_out::summarise;
use super::{Engines, Ensemble, HeldOut, TrainingRecord};
use crate::data::{TableColumn, ValueKind, find_columns};
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result, expect_length};
use crate::flow::Flow;
use crate::shown::{shown, shown_list};

/// p(row) = P(categories) · p(numbers | categories), both given the context where there is one. A row in memory has the
/// places of their levels for categories.
#[derive(Clone, Debug, PartialEq)]
pub struct TableModel {
    columns: Vec<TableColumn>,
    context: usize,
    encoding: Encoding,
    discrete: Option<Discrete>,
    density: Option<Ensemble>,
    /// Of a table with categories.
    record: Option<Box<TrainingRecord>>,
}

impl<M: Into<Ensemble>> From<M> for TableModel {
    fn from(model: M) -> Self {
        let density = model.into();
        let first = density.first();
        let columns: Vec<TableColumn> = first.columns.iter().map(TableColumn::number).collect();
        let context = first.flow.context;
        let encoding = Encoding::new(&columns, context);
        Self { columns, context, encoding, discrete: None, density: Some(density), record: None }
    }
}

impl TableModel {
    /// The model of a table with `columns`, the last `context` of which are given, from its parts: the probability of the
    /// modelled categories, and the density of the modelled numbers given all categories, over the columns that
    /// [`Encoding::names`] lists. `record` is that of the training of both.
    ///
    /// # Errors
    /// [`Error::Argument`] where the parts do not belong together.
    pub fn new(
        columns: Vec<TableColumn>,
        context: usize,
        discrete: Option<Discrete>,
        density: Option<Ensemble>,
        record: TrainingRecord,
    ) -> Result<Self> {
        let encoding = Encoding::new(&columns, context);
        let fail =
            |what: &str| Err(Error::Argument(format!("the model's columns and its {what} do not fit")));
        if !encoding.has_categories() {
            let model = density.map(Self::from);
            let model = model.ok_or_else(|| Error::Argument("a model needs a density".into()))?;
            if model.names() != encoding.names(&columns) || model.context != context {
                return fail("density of numbers");
            }
            return Ok(Self { columns, ..model });
        }
        let of_discrete = discrete.as_ref().map(|discrete| (discrete.levels(), discrete.modelled()));
        let levels = encoding.levels();
        let modelled = encoding.modelled_categories().count();
        if of_discrete != (modelled > 0).then_some((&levels[..], modelled))
            || discrete.as_ref().is_some_and(|discrete| discrete.numbers() != encoding.given_numbers().len())
        {
            return fail("probabilities of categories");
        }
        let numbers = encoding.modelled_numbers().len();
        let fits = match &density {
            None => numbers == 0,
            Some(density) => {
                let first = density.first();
                numbers > 0
                    && first.columns == encoding.names(&columns)
                    && first.flow.context == encoding.context()
                    && first.preprocessing.atoms == encoding.atoms()
            }
        };
        if !fits || (discrete.is_none() && density.is_none()) {
            return fail("density of numbers");
        }
        Ok(Self { columns, context, encoding, discrete, density, record: Some(Box::new(record)) })
    }

    /// The columns, in the order of a row: modelled ones, then the context.
    pub fn columns(&self) -> &[TableColumn] {
        &self.columns
    }

    /// Names of the columns `[D]`.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// How many of the columns, the last ones, are given.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How rows are put before the density.
    pub fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// Whether a column is not of mere numbers, so that its file has to say what it is.
    pub(super) fn has_types(&self) -> bool {
        let is_typed =
            |column: &TableColumn| column.rounded.is_some() || matches!(column.kind(), ValueKind::Time(_));
        self.record.is_some() || self.columns.iter().any(is_typed)
    }

    /// The probability of the modelled categories, where there are any.
    pub fn categories(&self) -> Option<&Discrete> {
        self.discrete.as_ref()
    }

    /// The density of the modelled numbers, where there are any.
    pub fn density(&self) -> Option<&Ensemble> {
        self.density.as_ref()
    }

    /// The density of a table without categories.
    pub(crate) fn into_ensemble(self) -> Option<Ensemble> {
        if self.record.is_some() { None } else { self.density }
    }

    /// The training of it all.
    ///
    /// # Panics
    /// Never: a model without categories has a density.
    pub fn record(&self) -> &TrainingRecord {
        match (&self.record, &self.density) {
            (Some(record), _) => record,
            (None, Some(density)) => density.record(),
            (None, None) => unreachable!("invariant: a model without categories has a density"),
        }
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// Never: a model without categories has a density.
    pub fn record_mut(&mut self) -> &mut TrainingRecord {
        match (&mut self.record, &mut self.density) {
            (Some(record), _) => record,
            (None, Some(density)) => density.record_mut(),
            (None, None) => unreachable!("invariant: a model without categories has a density"),
        }
    }

    /// The version of the format that its file has: the oldest that can hold it.
    pub fn format_version(&self) -> u32 {
        match &self.density {
            Some(density) if !self.has_types() => density.format_version(),
            Some(density) => density.format_version().max(super::table_file::TABLE_VERSION),
            None => super::table_file::TABLE_VERSION,
        }
    }

    /// Engines for its density, made by `make`; none where there is none.
    ///
    /// # Errors
    /// Those of `make`.
    pub async fn engines<E: Engine>(&self, make: impl AsyncFnMut(Flow) -> Result<E>) -> Result<Engines<E>> {
        match &self.density {
            Some(density) => Engines::new(density, make).await,
            None => Ok(Engines::of_each(Vec::new())),
        }
    }

    /// Where among `columns` the model's are, as [`Model::find_columns`](super::Model::find_columns).
    ///
    /// # Errors
    /// Those of [`find_columns`].
    pub fn find_columns(
        &self,
        name: &str,
        columns: &[String],
        named: bool,
    ) -> Result<(Vec<usize>, Vec<usize>)> {
        find_columns(&self.names(), "the model was trained on", name, columns, named)
    }

    /// Whether the row `[D]` can have a density: its numbers lie within their bounds.
    pub fn accepts(&self, row: &[f64]) -> bool {
        let Some(density) = &self.density else { return true };
        let preprocessing = &density.first().preprocessing;
        match &self.record {
            _ if preprocessing.is_plain() => true,
            None => preprocessing.accepts(row),
            Some(_) => preprocessing.accepts(&self.encode(row)),
        }
    }

    /// Rows as the density sees them, row-major [B, D] → [B, F]: see [`Encoding`].
    pub fn encode(&self, rows: &[f64]) -> Vec<f64> {
        self.encoding.encode(rows)
    }

    /// The log-probability of the categories of each row given its context `[B]`, in nats; 0 where none is modelled.
    ///
    /// # Errors
    /// [`Error::Length`] when rows are not whole, [`Error::Argument`] for a cell of a category that is no place of a level.
    pub fn log_prob_of_categories(&self, rows: &[f64]) -> Result<Vec<f64>> {
        // Categories that are given have to be levels too.
        let variables = self.encoding.discrete_rows(rows)?;
        match &self.discrete {
            None => Ok(vec![0.0; rows.len() / self.columns.len()]),
            Some(discrete) => discrete.log_prob(&variables),
        }
    }

    /// log p of each row `[B]`, in nats: the log-probability of its categories plus [`Ensemble::log_prob`] of its numbers
    /// given them. `rows`: row-major [B, D], in the user's units, with the places of their levels for categories.
    ///
    /// # Errors
    /// Those of [`Ensemble::log_prob`]; [`Error::Argument`] for a cell of a category that is no place of a level.
    pub async fn log_prob<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        if self.record.is_none()
            && let Some(density) = &self.density
        {
            return density.log_prob(engines, rows).await;
        }
        let mut log_prob = self.log_prob_of_categories(rows)?;
        if let Some(density) = &self.density {
            let numbers = density.log_prob(engines, &self.encode(rows)).await?;
            log_prob.iter_mut().zip(numbers).for_each(|(sum, numbers)| *sum += numbers);
        }
        Ok(log_prob)
    }

    /// The gradient of log p by the columns of [`TableModel::gradient_columns`], row-major [B, their number], as
    /// [`Ensemble::score`].
    ///
    /// # Errors
    /// Those of [`Ensemble::score`]; [`Error::Argument`] where no column is a modelled number.
    pub async fn score<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<Vec<f64>> {
        let Some(density) = &self.density else {
            return Err(Error::Argument("every column is a category: log p has no gradient".into()));
        };
        if self.record.is_none() {
            return density.score(engines, rows).await;
        }
        let scores = density.score(engines, &self.encode(rows)).await?;
        let kept = self.encoding.modelled_numbers().len();
        Ok(scores.chunks_exact(self.encoding.features()).flat_map(|score| &score[..kept]).copied().collect())
    }

    /// Names of the columns by which [`TableModel::score`] has the gradient: all of a table of numbers, and the modelled
    /// numbers of one with categories.
    pub fn gradient_columns(&self) -> Vec<String> {
        if self.record.is_none() {
            return self.names();
        }
        self.encoding.modelled_numbers().iter().map(|&place| self.columns[place].name.clone()).collect()
    }

    /// Rows drawn from the model, row-major [rows, D]: row r given the context `context`\[r\], row-major [rows, C], and
    /// all of them with the levels that are fixed in `fixed`, a level or none for each modelled column `[D − C]`, or for those
    /// of each row, row-major [rows, D − C]; empty where none is. A number with atoms has levels too: k where it is its k-th
    /// atom, and 0 where it is none. The temperature is that of the numbers alone.
    ///
    /// # Errors
    /// Those of [`Ensemble::sample_given`] and [`Draws::row`](super::discrete::Draws::row); [`Error::Argument`] for a fixed
    /// column that is no category and has no atoms, and a cell that is no place of a level.
    pub async fn sample<E: Engine>(
        &self,
        engines: &mut Engines<E>,
        sampling: Sampling,
        context: &[f64],
        fixed: &[Option<u32>],
    ) -> Result<Vec<f64>> {
        if self.record.is_none()
            && let Some(density) = &self.density
        {
            return Ok(self.rounded(density.sample_given(engines, sampling, context).await?));
        }
        let width = self.columns.len();
        expect_length("context", context.len(), sampling.rows * self.context)?;
        let mut rows = vec![0.0; sampling.rows * width];
        for (row, given) in rows.chunks_exact_mut(width).zip(context.chunks_exact(self.context.max(1))) {
            row[width - self.context..].copy_from_slice(given);
        }
        self.draw_categories(&sampling, fixed, &mut rows)?;
        let Some(density) = &self.density else { return Ok(rows) };
        let mut encoded = Vec::with_capacity(sampling.rows * self.encoding.context());
        rows.chunks_exact(width).for_each(|row| self.encoding.push_context(row, &mut encoded));
        let numbers = density.sample_given(engines, sampling, &encoded).await?;
        let places = self.encoding.modelled_numbers();
        for (row, numbers) in rows.chunks_exact_mut(width).zip(numbers.chunks_exact(self.encoding.features()))
        {
            places.iter().zip(numbers).for_each(|(&place, number)| row[place] = *number);
        }
        Ok(self.rounded(rows))
    }

    /// `rows`, row-major [B, D], with the numbers on their fine grids.
    fn rounded(&self, mut rows: Vec<f64>) -> Vec<f64> {
        for (place, column) in self.columns.iter().enumerate() {
            if let Some(grid) = column.rounded {
                let cells = rows.iter_mut().skip(place).step_by(self.columns.len());
                cells.for_each(|cell| *cell = grid.nearest(*cell));
            }
        }
        rows
    }

    /// Draws the modelled categories of `rows`, which have their context.
    fn draw_categories(&self, sampling: &Sampling, fixed: &[Option<u32>], rows: &mut [f64]) -> Result<()> {
        let modelled = self.columns.len() - self.context;
        if !(fixed.is_empty() || fixed.len() == modelled) {
            expect_length("levels that are fixed", fixed.len(), sampling.rows * modelled)?;
        }
        // The last row's draws suit those after it that have the same levels fixed.
        let of_row = |row: usize| match fixed.len() {
            0 => None,
            all if all == modelled => Some(fixed),
            _ => Some(&fixed[row * modelled..(row + 1) * modelled]),
        };
        let is_fixed = |&&place: &&usize| {
            self.columns[place].atoms.is_empty()
                && fixed.iter().skip(place).step_by(modelled).any(Option::is_some)
        };
        if let Some(&place) = self.encoding.modelled_numbers().iter().find(is_fixed) {
            let name = shown(&self.columns[place].name);
            return Err(Error::Argument(format!(
                "`{name}` is a number that is modelled; it cannot be given"
            )));
        }
        let DiscreteRows { codes, numbers } = self.encoding.discrete_rows(rows)?;
        let Some(discrete) = &self.discrete else { return Ok(()) };
        let places: Vec<usize> = self.encoding.modelled_categories().collect();
        let mut draws: Option<(Option<&[Option<u32>]>, Draws<'_>)> = None;
        let (width, given) = (discrete.levels().len(), discrete.numbers());
        for (index, row) in rows.chunks_exact_mut(self.columns.len()).enumerate() {
            let number = u32::try_from(index).ok().and_then(|index| sampling.first.checked_add(index));
            let number = number.ok_or_else(|| Error::Argument("too many rows for one seed".into()))?;
            let codes = &codes[index * width + discrete.modelled()..(index + 1) * width];
            let wanted = of_row(index);
            if draws.as_ref().is_none_or(|(of, _)| *of != wanted) {
                let level = |&place: &usize| wanted.and_then(|fixed| fixed[place]);
                let fixed: Vec<Option<u32>> = places.iter().map(level).collect();
                draws = Some((wanted, discrete.draws(&fixed, sampling.seed)?));
            }
            let Some((_, draws)) = &mut draws else { continue };
            let levels = draws.row(number, codes, &numbers[index * given..(index + 1) * given])?;
            self.encoding.put_levels(levels.iter().copied(), row);
        }
        Ok(())
    }

    /// The loss on `rows`, row-major [B, D], as [`Ensemble::held_out`], of categories and numbers.
    ///
    /// # Errors
    /// Those of [`TableModel::log_prob`].
    pub async fn held_out<E: Engine>(&self, engines: &mut Engines<E>, rows: &[f64]) -> Result<HeldOut> {
        let log_prob = self.log_prob(engines, rows).await?;
        let rows = rows.chunks_exact(self.columns.len());
        Ok(summarise(rows, |row| self.accepts(row), &log_prob, |_| None))
    }

    /// The text or number of each cell of a column of `rows`, row-major [B, D]: the names of levels; `None` of a column of
    /// numbers.
    pub fn texts(&self, column: usize, rows: &[f64]) -> Option<Vec<String>> {
        let names = self.columns[column].levels()?.names();
        let codes = rows.iter().skip(column).step_by(self.columns.len());
        Some(codes.map(|&code| names.get(code as usize).cloned().unwrap_or_default()).collect())
    }

    /// What is said where values of the context are missing.
    pub fn lacks_context(&self) -> Error {
        let names: Vec<String> = self.names().split_off(self.columns.len() - self.context);
        Error::Argument(format!(
            "the model is conditional; sampling it needs values of {}",
            shown_list(&names)
        ))
    }

    /// The model in the bytes of a model file, of any version. `name` is used in messages.
    ///
    /// # Errors
    /// As [`Ensemble::from_bytes`]; and for a category without levels or with one twice, probabilities that do not add up
    /// to 1, and parts that do not belong together.
    pub fn from_bytes(name: impl AsRef<std::path::Path>, bytes: &[u8]) -> Result<Self> {
        let damaged = |message| Error::Model { path: name.as_ref().to_owned(), message };
        super::file::parse(bytes).map_err(damaged)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl TableModel {
    /// Writes the model file. Either the whole file is there afterwards or what was there before.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let bytes = self.to_bytes();
        crate::files::write_atomically(path.as_ref(), |writer| writer.write_all(&bytes))
    }

    /// Reads a model file of any version, as [`Ensemble::load`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or is no regular one, and those of [`TableModel::from_bytes`].
    pub fn load(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::from_bytes(path.as_ref(), &super::file::read(path.as_ref())?)
    }
}
