//! A table split into training and validation rows, with the preprocessing fitted to the former.
//! It follows the table and feeds training.

use super::far;
use super::table::take_rows;
use crate::data::{CountedRows, Margins, Preprocessing, PreprocessingPlan, Standardise, Table, repeated};
use crate::error::{Error, Result, expect_length};
use crate::random::{Permutation, Stream};
use crate::shown::shown;

/// The rows of one training, in the user's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The table's name.
    pub name: String,
    /// Names of the features `[D]`.
    pub columns: Vec<String>,
    /// Fitted to the training rows; validation rows have no part in it.
    pub preprocessing: Preprocessing,
    /// Training rows, row-major [N, D], in the table's order. Dequantised columns have their noise.
    pub train: Vec<f64>,
    /// Validation rows, row-major [V, D], in the table's order; may be empty.
    pub validation: Vec<f64>,
    /// How much each training row and each validation row counts in losses, `[N]` and `[V]`; `None` where all count alike. Of
    /// the preprocessing only [`Margins::Kernel`] counts rows by them.
    pub weights: Option<[Vec<f64>; 2]>,
    /// Row and column, from 0, of each training value and each validation value that lies a thousand quartile distances from
    /// the training rows of its column, and of validation values ten such distances out and beyond all training rows; none
    /// where so many do that they are no exceptions. Some of these rows are [left out](Dataset::left_out).
    pub far_out: [Vec<(usize, usize)>; 2],
    /// Seed under which the rows were split.
    pub seed: u64,
}

impl Dataset {
    /// [`Dataset::split_with`] without maps before the standardiser.
    ///
    /// # Errors
    /// Those of [`Dataset::split_with`].
    pub fn split(table: &Table, validation_fraction: f64, seed: u64) -> Result<Self> {
        Self::split_with(table, validation_fraction, seed, &PreprocessingPlan::default())
    }

    /// Takes a random `validation_fraction` of the table's rows aside and fits the preprocessing to the others.
    ///
    /// V = ⌊fraction · rows + ½⌋, at least 1 unless the fraction is 0. Row r is a validation row when the
    /// permutation of [`Stream::Split`] under `seed` places it below V: the split depends on nothing but `seed`
    /// and the number of rows.
    ///
    /// # Errors
    /// [`Error::Argument`] when the fraction is outside of [0, 1). [`Error::Data`] when two columns have one name, fewer than
    /// 2 rows are left to train on, when a value is not finite or outside of its column's bounds, or when
    /// [`Standardiser::fit`](super::Standardiser::fit) refuses a column.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::{Bounds, ColumnDomain, Dataset, Grid, PreprocessingPlan, Standardise, Table};
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let values = (0..200).flat_map(|i| [f64::from(i % 20), 1.0 + f64::from(i * i % 37)]).collect();
    /// let table = Table { name: "t".into(), columns: vec!["count".into(), "price".into()], values };
    /// let plan = PreprocessingPlan {
    ///     domains: vec![
    ///         ColumnDomain { grid: Some(Grid::WHOLE), bounds: None, ..ColumnDomain::default() },
    ///         ColumnDomain { grid: None, bounds: Some(Bounds { low: Some(0.0), high: None }), ..ColumnDomain::default() },
    ///     ],
    ///     standardise: Standardise::Whiten,
    ///     ..PreprocessingPlan::default()
    /// };
    /// let dataset = Dataset::split_with(&table, 0.1, 1, &plan)?;
    /// assert_eq!((dataset.train.len(), dataset.validation.len()), (360, 40)); // 180 and 20 rows
    /// # Ok(())
    /// # }
    /// ```
    pub fn split_with(
        table: &Table,
        validation_fraction: f64,
        seed: u64,
        plan: &PreprocessingPlan,
    ) -> Result<Self> {
        Self::from_table(table.clone(), validation_fraction, seed, plan)
    }

    /// [`Dataset::split_with`] in the table's own memory.
    ///
    /// # Errors
    /// Those of [`Dataset::split_with`].
    pub fn from_table(
        mut table: Table,
        validation_fraction: f64,
        seed: u64,
        plan: &PreprocessingPlan,
    ) -> Result<Self> {
        plan.validate(&table.columns)?;
        if !(0.0..1.0).contains(&validation_fraction) {
            return Err(Error::Argument(format!(
                "the validation fraction must be at least 0 and below 1, got {validation_fraction}"
            )));
        }
        let (rows, features) = (table.rows(), table.features());
        expect_length("values of the table", table.values.len(), rows * features)?;
        if let Some([first, second]) = repeated(&table.columns) {
            let (first, second, column) = (first + 1, second + 1, shown(&table.columns[first]));
            return Err(Error::data(
                &table.name,
                format!("columns {first} and {second} are both named `{column}`; rename one"),
            ));
        }
        let split = Split::by(&table, validation_fraction, seed)?;
        let Split { rows: count, validation_rows, .. } = split;
        let train_rows = count.saturating_sub(validation_rows);
        if train_rows < 2 {
            return Err(Error::data(
                &table.name,
                format!(
                    "expected at least 2 training rows, got {train_rows}: of {rows} rows, {} are for validation",
                    validation_rows.min(count)
                ),
            ));
        }
        let Table { name, columns, values } = &mut table;
        let place = |row: u32, column: usize| {
            let name = shown(&columns[column]);
            format!("row {}, column {} (`{name}`)", u64::from(row) + 1, column + 1)
        };
        for (row, values) in (0..count).zip(values.chunks_exact_mut(features)) {
            if let Some(feature) = values.iter().position(|value| !value.is_finite()) {
                let (place, value) = (place(row, feature), values[feature]);
                return Err(Error::data(&*name, format!("{place} holds {value}; expected finite numbers")));
            }
            if let Some((_, feature, problem)) = plan.first_refusal(values) {
                return Err(Error::data(&*name, format!("{}: {problem}", place(row, feature))));
            }
            debug_assert!(plan.is_encoded(values), "{}", place(row, 0));
            plan.add_noise(values, row, seed);
        }
        let validation = split.take(&mut table.values, features);
        let Table { name, columns, values: train } = table;
        let far_out = plan.far_out([&train, &validation], features);
        let preprocessing = plan.fit(&name, &train, None, &columns, &far_out[0])?;
        let dataset = Self { name, columns, preprocessing, train, validation, weights: None, far_out, seed };
        Ok(dataset.with_atoms_filled())
    }

    /// Places of the training rows and of the validation rows, ascending, that have no part in losses, because they lie so far
    /// out that they alone would decide them: those of [`Dataset::far_out`], of the training rows only where no margins bring
    /// them near.
    pub fn left_out(&self) -> [Vec<usize>; 2] {
        let of = |side: usize, far: Vec<usize>| {
            // Where all others count nothing, there is nothing else to tell a loss by.
            if self.side(side, &far).weights().any(|weight| weight > 0.0) { far } else { Vec::new() }
        };
        [of(0, self.preprocessing.plan().left_out(&self.far_out[0])), of(1, far::rows(&self.far_out[1]))]
    }

    /// The training rows, side 0, or the validation rows, side 1, but for those left out of losses.
    pub(crate) fn rows(&self, side: usize) -> CountedRows<'_> {
        self.side(side, &self.left_out()[side])
    }

    /// The rows of a side but for those at the places `left_out`, which ascend.
    fn side(&self, side: usize, left_out: &[usize]) -> CountedRows<'_> {
        let values = [&self.train, &self.validation][side];
        let weights = self.weights.as_ref().map(|weights| &weights[side][..]);
        CountedRows::new(values, self.features(), weights, left_out)
    }

    /// Mean of a number for each validation row `[V]` by how much the row counts; NaN where none does.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many numbers as validation rows.
    pub fn validation_mean(&self, numbers: &[f64]) -> Result<f64> {
        expect_length("numbers of validation rows", numbers.len(), self.validation.len() / self.features())?;
        let rows = self.rows(1);
        let [mut sum, mut total] = [0.0; 2];
        for (place, weight) in rows.places().zip(rows.weights()).filter(|(_, weight)| *weight > 0.0) {
            sum += weight * numbers[place];
            total += weight;
        }
        Ok(sum / total)
    }

    /// The same dataset with noise by its preprocessing in the place of atoms.
    fn with_atoms_filled(mut self) -> Self {
        let own = self.preprocessing.own_maps();
        if own.is_empty() {
            return self;
        }
        let (features, split) = (self.features(), self.split_of_rows());
        let mut sides = [&mut self.train, &mut self.validation].map(|rows| rows.chunks_exact_mut(features));
        for (row, validation) in (0..).zip(split.sides()) {
            let Some(values) = sides[usize::from(validation)].next() else { break };
            for (atoms, own) in self.preprocessing.atoms.iter().zip(&own) {
                if atoms.at(values).is_some() {
                    values[atoms.column] = own.noise(row, self.seed);
                }
            }
        }
        self
    }

    /// Whether each row of `table` `[N]` is a validation row where a dataset is made of it.
    ///
    /// # Errors
    /// [`Error::Data`] when there are too many rows.
    pub(crate) fn sides(table: &Table, validation_fraction: f64, seed: u64) -> Result<Vec<bool>> {
        Ok(Split::by(table, validation_fraction, seed)?.sides().collect())
    }

    /// How its rows were split.
    fn split_of_rows(&self) -> Split {
        let [train, validation] =
            [&self.train, &self.validation].map(|rows| (rows.len() / self.features()) as u32);
        Split::new(train + validation, validation, self.seed)
    }

    /// The same dataset with a weight for each of the table's rows.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many weights as rows; [`Error::Argument`] when one is negative or not finite,
    /// [`Error::Data`] when those of all training or of all validation rows are zero.
    pub fn with_weights(mut self, weights: Vec<f64>) -> Result<Self> {
        let split = self.split_of_rows();
        expect_length("weights", weights.len(), split.rows as usize)?;
        if let Some(row) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let weight = weights[row];
            return Err(Error::Argument(format!(
                "weights must be finite and not negative, got {weight} in row {}",
                row + 1
            )));
        }
        let mut train = weights;
        let validation = split.take(&mut train, 1);
        for (rows, weights) in [("training", &train), ("validation", &validation)] {
            if !weights.is_empty() && weights.iter().all(|&weight| weight == 0.0) {
                return Err(Error::data(&self.name, format!("the weights of all {rows} rows are zero")));
            }
        }
        if self.preprocessing.margins() == Margins::Kernel {
            self.preprocessing = self.fitted(&self.preprocessing.plan(), Some(&train))?;
            self = self.with_atoms_filled();
        }
        self.weights = Some([train, validation]);
        Ok(self)
    }

    /// The preprocessing of `plan`, fitted to the training rows.
    fn fitted(&self, plan: &PreprocessingPlan, weights: Option<&[f64]>) -> Result<Preprocessing> {
        plan.fit(&self.name, &self.train, weights, &self.columns, &self.far_out[0])
    }

    /// The values of [`Dataset::far_out`] as the table has them, each with its row and column there, from 0.
    pub fn far_values(&self) -> Vec<(usize, usize, f64)> {
        if self.far_out.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        let mut rows = [Vec::new(), Vec::new()];
        let split = self.split_of_rows();
        split.sides().enumerate().for_each(|(row, validation)| rows[usize::from(validation)].push(row));
        let mut values = Vec::new();
        for ((far, of_side), rows) in self.far_out.iter().zip([&self.train, &self.validation]).zip(rows) {
            for &(row, column) in far {
                let value = of_side[row * self.features() + column];
                let grid = self.preprocessing.domains[column].grid;
                values.push((rows[row], column, grid.map_or(value, |grid| grid.floor(value))));
            }
        }
        values.sort_unstable_by_key(|(row, column, _)| (*row, *column));
        values
    }

    /// Least and greatest value of each context column among all rows, but for a few far from the others, `[C]`, in the
    /// user's units.
    pub(crate) fn context_ranges(&self) -> Vec<[f64; 2]> {
        let features = self.features();
        let sides = [&self.train, &self.validation];
        let mut values = Vec::with_capacity(sides.iter().map(|rows| rows.len() / features).sum());
        let range = |column: usize| {
            values.clear();
            sides.iter().for_each(|rows| values.extend(rows.iter().skip(column).step_by(features)));
            far::range(&mut values)
        };
        (self.preprocessing.modelled()..features).filter_map(range).collect()
    }

    /// The table that was split, and its weights where it has some: its rows in their order, those of dequantised columns
    /// without their noise, and atoms where rows are at them.
    pub fn into_table(self) -> (Table, Option<Vec<f64>>) {
        let (features, split) = (self.features(), self.split_of_rows());
        let Self { name, columns, preprocessing, train, validation, weights, .. } = self;
        let merged = |sides: [&[f64]; 2], width: usize| {
            let mut sides = sides.map(|values| values.chunks_exact(width));
            let rows = split.sides().filter_map(|validation| sides[usize::from(validation)].next());
            rows.flatten().copied().collect::<Vec<f64>>()
        };
        let mut values = merged([&train, &validation], features);
        for (column, grid) in preprocessing.dequantized() {
            values.iter_mut().skip(column).step_by(features).for_each(|value| *value = grid.floor(*value));
        }
        preprocessing.restore_atoms(&mut values);
        let weights = weights.map(|[train, validation]| merged([&train, &validation], 1));
        (Table { name, columns, values }, weights)
    }

    /// The same rows split anew under `seed`, by a `validation_fraction`, with the preprocessing fitted to the new training
    /// rows.
    ///
    /// # Errors
    /// Those of [`Dataset::split_with`] and [`Dataset::with_weights`].
    pub fn resplit(self, validation_fraction: f64, seed: u64) -> Result<Self> {
        let plan = self.preprocessing.plan();
        let (table, weights) = self.into_table();
        let dataset = Self::from_table(table, validation_fraction, seed, &plan)?;
        match weights {
            Some(weights) => dataset.with_weights(weights),
            None => Ok(dataset),
        }
    }

    /// The same rows with the preprocessing fitted anew, with other margins.
    ///
    /// # Errors
    /// Those of [`Dataset::split_with`].
    pub fn with_margins(self, margins: Margins) -> Result<Self> {
        let plan = PreprocessingPlan { margins, ..self.preprocessing.plan() };
        self.refitted(&plan)
    }

    /// The same rows with the preprocessing fitted anew, in which columns are shifted and scaled by the category of the row:
    /// those whose shape is the same in each level of a category, as far as the training rows tell. Of each category
    /// `categories` has the column of its first indicator and how many of these there are, as
    /// [`Encoding::indicators`](crate::model::Encoding::indicators) gives them.
    ///
    /// # Errors
    /// [`Error::Argument`] where these are no indicators among the context; those of [`Dataset::split_with`].
    pub fn with_category_moments(self, categories: &[[usize; 2]]) -> Result<Self> {
        let category_moments = self.preprocessing.choose_category_moments(&self.train, categories)?;
        if category_moments.columns.is_empty() && self.preprocessing.category_moments.columns.is_empty() {
            return Ok(self);
        }
        let plan = PreprocessingPlan { category_moments, ..self.preprocessing.plan() };
        self.refitted(&plan)
    }

    /// The same rows with the preprocessing of `plan`, fitted to the training rows.
    fn refitted(mut self, plan: &PreprocessingPlan) -> Result<Self> {
        self.preprocessing = self.fitted(plan, self.train_weights())?;
        Ok(self.with_atoms_filled())
    }

    /// How much each training row counts `[N]`.
    fn train_weights(&self) -> Option<&[f64]> {
        self.weights.as_ref().map(|[train, _]| &train[..])
    }

    /// The preprocessing with kernel margins in the place of its own.
    ///
    /// # Errors
    /// Those of [`Dataset::split_with`].
    pub(crate) fn with_kernels(&self) -> Result<Preprocessing> {
        let plan = self.preprocessing.plan();
        // Curves are the same behind either scale, and no column is held for its median.
        let standardise = match plan.standardise {
            Standardise::Robust => Standardise::Mean,
            standardise => standardise,
        };
        let plan = PreprocessingPlan { margins: Margins::Kernel, standardise, ..plan };
        self.fitted(&plan, self.train_weights())
    }

    /// The same dataset of the first `rows` training rows and validation rows alone; the preprocessing stays as it is.
    pub(crate) fn first_rows(&self, rows: usize) -> Self {
        let first = |values: &[f64], width: usize| values[..values.len().min(rows * width)].to_vec();
        let sides = |weights: &[Vec<f64>; 2]| [first(&weights[0], 1), first(&weights[1], 1)];
        let far_out =
            self.far_out.each_ref().map(|far| far.iter().copied().filter(|(row, _)| *row < rows).collect());
        Self {
            name: self.name.clone(),
            columns: self.columns.clone(),
            preprocessing: self.preprocessing.clone(),
            train: first(&self.train, self.features()),
            validation: first(&self.validation, self.features()),
            weights: self.weights.as_ref().map(sides),
            far_out,
            seed: self.seed,
        }
    }

    /// Number of features D, the context included.
    pub fn features(&self) -> usize {
        self.columns.len()
    }
}

/// Which rows of a table are for validation.
struct Split {
    rows: u32,
    validation_rows: u32,
    order: Permutation,
}

impl Split {
    fn new(rows: u32, validation_rows: u32, seed: u64) -> Self {
        Self { rows, validation_rows, order: Permutation::new(rows, seed, Stream::Split, 0) }
    }

    /// The split of `table` by a fraction; [`Error::Data`] when there are too many rows.
    fn by(table: &Table, validation_fraction: f64, seed: u64) -> Result<Self> {
        let rows = table.rows();
        let count = u32::try_from(rows).map_err(|_| {
            Error::data(&table.name, format!("{rows} rows are too many; at most {}", u32::MAX))
        })?;
        let validation_rows = match (f64::from(count) * validation_fraction).round() as u32 {
            0 if validation_fraction > 0.0 => 1,
            wanted => wanted,
        };
        Ok(Self::new(count, validation_rows, seed))
    }

    fn is_validation(&self, row: u32) -> bool {
        self.order.place(row) < self.validation_rows
    }

    /// Whether each row is a validation row.
    fn sides(&self) -> impl Iterator<Item = bool> {
        (0..self.rows).map(|row| self.is_validation(row))
    }

    /// Moves the validation rows out of `values`, row-major [N, `width`].
    fn take(&self, values: &mut Vec<f64>, width: usize) -> Vec<f64> {
        take_rows(values, width, self.validation_rows as usize, |row| self.is_validation(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Atoms, Bounds, ColumnDomain, Grid, Standardiser};

    fn table(rows: usize) -> Table {
        Table {
            name: "t".into(),
            columns: vec!["a".into(), "b".into()],
            values: (0..2 * rows).map(|i| (i * i % 97) as f64 + i as f64 / 1024.0).collect(),
        }
    }

    fn sorted_rows(values: &[f64]) -> Vec<&[f64]> {
        let mut rows: Vec<&[f64]> = values.chunks(2).collect();
        rows.sort_by(|a, b| a[1].total_cmp(&b[1]));
        rows
    }

    #[test]
    fn weights_count_in_kernel_margins_and_nowhere_else_in_the_preprocessing() {
        let weights: Vec<f64> = (0..200).map(|row| if row < 100 { 9.0 } else { 1.0 }).collect();
        for (_, margins) in Margins::ALL {
            let plan = PreprocessingPlan { margins, ..PreprocessingPlan::default() };
            let plain = Dataset::split_with(&table(200), 0.1, 1, &plan).expect("splits");
            let even = plain.clone().with_weights(vec![2.0; 200]).expect("weights").preprocessing;
            assert_eq!(even, plain.preprocessing);
            let weighted = plain.clone().with_weights(weights.clone()).expect("weights").preprocessing;
            assert_eq!(weighted == even, margins != Margins::Kernel, "{margins:?}");
            assert_eq!((&weighted.standardiser, &weighted.curves), (&even.standardiser, &even.curves));
        }
    }

    #[test]
    fn a_dataset_gives_its_table_back_and_splits_it_anew() {
        let domains = vec![
            ColumnDomain { grid: Some(Grid::WHOLE), bounds: None, ..ColumnDomain::default() },
            ColumnDomain::default(),
        ];
        let plan = PreprocessingPlan { domains, margins: Margins::Kernel, ..PreprocessingPlan::default() };
        let mut table = table(150);
        table.values.iter_mut().step_by(2).for_each(|value| *value = value.floor());
        let weights: Vec<f64> = (0..150).map(|row| f64::from(row % 7)).collect();
        let split = |seed| {
            let dataset = Dataset::split_with(&table, 0.2, seed, &plan).expect("splits");
            dataset.with_weights(weights.clone()).expect("weights")
        };
        assert_eq!(split(3).into_table(), (table.clone(), Some(weights.clone())));
        assert_eq!(split(3).resplit(0.2, 4).expect("splits"), split(4));
    }

    #[test]
    fn values_far_out_are_found_beside_atoms_and_count_nothing_for_validation() {
        let bounds = Some(Bounds { low: Some(0.0), high: None });
        let row = |i: usize| {
            let zero = i.is_multiple_of(150);
            let price = if zero { 0.0 } else { (((i * 389 % 600) as f64 - 300.0) / 100.0).exp() };
            [price, (i * i % 97) as f64, f64::from(u8::from(zero))]
        };
        let mut table = Table {
            name: "t".into(),
            columns: ["price", "x", "price=0"].map(String::from).into(),
            values: (0..600).flat_map(row).collect(),
        };
        let plan = |margins| PreprocessingPlan {
            domains: vec![
                ColumnDomain { bounds, ..ColumnDomain::default() },
                ColumnDomain::default(),
                ColumnDomain::indicator(),
            ],
            margins,
            context: 1,
            atoms: vec![Atoms { column: 0, values: vec![0.0], indicator: 2 }],
            ..PreprocessingPlan::default()
        };
        let split =
            |table: &Table, margins| Dataset::split_with(table, 0.1, 0, &plan(margins)).expect("splits");
        assert_eq!(split(&table, Margins::None).far_values(), [], "the logarithm of an atom is not far");
        let sides = Dataset::sides(&table, 0.1, 0).expect("few rows");
        let row_of = |wanted| (1..600).find(|&row| sides[row] == wanted && row % 150 > 0).expect("one");
        let (train, validation) = (row_of(false), row_of(true));
        (table.values[3 * train + 1], table.values[3 * validation + 1]) = (1e12, 2e12);
        let mut want = [(train, 1, 1e12), (validation, 1, 2e12)];
        want.sort_by_key(|(row, ..)| *row);
        for (margins, of_training) in [(Margins::None, 1), (Margins::Kernel, 0)] {
            let dataset = split(&table, margins);
            assert_eq!(dataset.far_values(), want);
            assert_eq!(dataset.left_out().map(|rows| rows.len()), [of_training, 1], "{margins:?}");
            assert_eq!((dataset.rows(0).len(), dataset.rows(1).len()), (540 - of_training, 59));
            assert_eq!(dataset.weights, None, "a table's worth of ones for a few rows");
            let mut numbers = vec![2.0; 60];
            numbers[dataset.left_out()[1][0]] = f64::NEG_INFINITY;
            assert_eq!(dataset.validation_mean(&numbers).expect("a number for each"), 2.0);
            let mut weights = vec![0.0; 600];
            (weights[train], weights[validation]) = (1.0, 1.0);
            let dataset = dataset.with_weights(weights).expect("both sides count");
            assert_eq!(dataset.left_out(), [[0; 0]; 2], "no other row counts");
        }
    }

    #[test]
    fn every_row_lands_on_exactly_one_side() {
        for rows in [4, 10, 257] {
            let table = table(rows);
            let dataset = Dataset::split(&table, 0.1, 3).expect("splits");
            let both: Vec<f64> = dataset.train.iter().chain(&dataset.validation).copied().collect();
            assert_eq!(sorted_rows(&both), sorted_rows(&table.values), "{rows} rows");
            assert_eq!(dataset.validation.len() / 2, ((rows as f64 / 10.0).round() as usize).max(1));
        }
    }

    #[test]
    fn the_split_follows_the_seed_and_statistics_see_training_rows_only() {
        let mut table = table(200);
        let first = Dataset::split(&table, 0.25, 1).expect("splits");
        assert_eq!(first, Dataset::split(&table, 0.25, 1).expect("splits"));
        assert_ne!(first.validation, Dataset::split(&table, 0.25, 2).expect("splits").validation);
        assert_eq!(
            first.preprocessing.standardiser,
            Standardiser::fit(&first.train, &table.columns).expect("fits"),
            "fitted to the training rows"
        );
        // Moving a validation row must not move the statistics.
        let moved = table.values.chunks(2).position(|row| row == &first.validation[..2]).expect("there");
        table.values[2 * moved] += 1e6;
        let second = Dataset::split(&table, 0.25, 1).expect("splits");
        assert_eq!(second.preprocessing.standardiser, first.preprocessing.standardiser);
        assert_ne!(second.validation, first.validation);
    }

    #[test]
    fn a_zero_fraction_keeps_all_rows_and_impossible_splits_are_refused() {
        assert!(Dataset::split(&table(5), 0.0, 1).expect("splits").validation.is_empty());
        for (rows, fraction, want) in [
            (5, 1.0, "below 1, got 1"),
            (5, -0.1, "got -0.1"),
            (5, f64::NAN, "got NaN"),
            (0, 0.1, "at least 2 training rows, got 0"),
            (2, 0.1, "at least 2 training rows, got 1"),
            (5, 0.9, "got 0: of 5 rows, 5"),
        ] {
            let message = Dataset::split(&table(rows), fraction, 1).expect_err("must be refused").to_string();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn values_that_are_not_finite_are_refused_on_either_side() {
        for row in 0..10 {
            let mut table = table(10);
            table.values[2 * row + 1] = f64::NAN;
            let message = Dataset::split(&table, 0.5, 1).expect_err("must be refused").to_string();
            assert!(message.contains(&format!("row {}, column 2 (`b`)", row + 1)), "{message}");
        }
    }

    #[test]
    fn tables_without_columns_or_with_broken_rows_are_refused() {
        let mut broken = table(5);
        broken.values.pop();
        assert!(matches!(Dataset::split(&broken, 0.1, 1), Err(Error::Length { .. })));
        broken.columns.clear();
        assert!(Dataset::split(&broken, 0.1, 1).is_err());
        broken.values.clear();
        assert!(Dataset::split(&broken, 0.1, 1).is_err());
    }
}
