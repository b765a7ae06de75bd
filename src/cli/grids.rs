//! `--dequantize`: which columns hold values on a grid, by what a person says and by the values themselves.

use moonflow::data::{Chunk, ColumnDomain, Grid, PreprocessingPlan, SharedValues, Table, TableColumn};
use moonflow::shown::shown;
use moonflow::{Error, Result};

/// The word for every column whose values lie on a grid and come again.
const AUTO: &str = "auto";

/// One item of the list, such as `count`, `price=0.01` or `auto`.
#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    Auto,
    /// A column of whole numbers.
    Whole(&'a str),
    /// A column and its step.
    Step(&'a str, f64),
}

impl<'a> Item<'a> {
    /// `text` as an item of a list for a table with `columns`: a name stands for its column, whatever is in it.
    ///
    /// # Errors
    /// [`Error::Argument`] for a step that is no positive number.
    pub fn parse(text: &'a str, columns: &[String]) -> Result<Self> {
        if columns.iter().any(|column| column == text) {
            return Ok(Self::Whole(text));
        }
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let Some((column, step)) = text.rsplit_once('=') else { return Ok(Self::Whole(text)) };
        match step.trim().parse::<f64>() {
            Ok(step) if step > 0.0 && step.is_normal() && step.is_finite() => {
                Ok(Self::Step(column.trim(), step))
            }
            _ => Err(Error::Argument(format!(
                "--dequantize: `{}` is no step of column `{}`; expected a positive number, such as price=0.01",
                shown(step),
                shown(column)
            ))),
        }
    }
}

/// A plan with columns whose grids are known only when their values are.
pub struct OpenPlan {
    plan: PreprocessingPlan,
    /// Columns of a known step, whose offset is not known.
    steps: Vec<(usize, f64)>,
    /// Whether there may be other columns on a grid.
    auto: bool,
    /// Columns whose grid was found and is not told by the flag alone.
    found: Vec<usize>,
}

impl OpenPlan {
    /// `plan`, in which the columns `steps` have no grid yet, and with `auto` others neither.
    ///
    /// # Errors
    /// Those of [`PreprocessingPlan::validate`].
    pub fn new(
        plan: PreprocessingPlan,
        steps: Vec<(usize, f64)>,
        auto: bool,
        columns: &[String],
    ) -> Result<Self> {
        plan.validate(columns)?;
        Ok(Self { plan, steps, auto, found: Vec::new() })
    }

    /// The plan as far as it is known before the values are, and whether other columns may get a grid.
    pub fn beforehand(&self) -> (PreprocessingPlan, bool) {
        let mut plan = self.plan.clone();
        for &(column, step) in &self.steps {
            plan.domains[column].grid = Some(Grid { step, offset: 0.0 });
        }
        (plan, self.auto)
    }

    /// Refuses the first value of `chunk` that cannot be modelled, by its place in the file `name`. The first chunk tells
    /// the offsets.
    ///
    /// # Errors
    /// [`Error::Data`] with line or row, column and what is wrong.
    pub fn check(&mut self, name: &str, columns: &[String], unit: &str, chunk: &Chunk) -> Result<()> {
        self.settle_offsets(&chunk.numbers, columns.len());
        match self.plan.first_refusal(&chunk.numbers) {
            None => Ok(()),
            Some((row, column, problem)) => {
                let (place, column) = (chunk.places[row], shown(&columns[column]));
                Err(Error::data(name, format!("{unit} {place}, column `{column}`: {problem}")))
            }
        }
    }

    /// The plan for `table`, and a note on the grids that its values told.
    ///
    /// # Errors
    /// Those of [`PreprocessingPlan::validate`].
    pub fn settle(
        mut self,
        table: &Table,
        types: &[TableColumn],
    ) -> Result<(PreprocessingPlan, Option<String>)> {
        self.settle_offsets(&table.values, table.features());
        if self.auto {
            let modelled = 0..table.features() - self.plan.context;
            for column in modelled.filter(|&column| types[column].levels().is_none()) {
                self.settle_grid(column, table);
            }
        }
        self.plan.validate(&table.columns)?;
        let note = self.note(&table.columns);
        Ok((self.plan, note))
    }

    fn settle_offsets(&mut self, values: &[f64], features: usize) {
        for (column, step) in std::mem::take(&mut self.steps) {
            let values: Vec<f64> = values.iter().skip(column).step_by(features).copied().collect();
            let grid = Grid::with_step(step, &values);
            self.plan.domains[column].grid = Some(grid);
            if grid.offset != 0.0 {
                self.found.push(column);
            }
        }
    }

    /// Gives `column` the grid that its values lie on, where many rows share them and its bounds do so too.
    fn settle_grid(&mut self, column: usize, table: &Table) {
        let domain = &mut self.plan.domains[column];
        if domain.grid.is_some() {
            return;
        }
        let values: Vec<f64> = table.values.iter().skip(column).step_by(table.features()).copied().collect();
        let grid = SharedValues::grid(&values);
        let with_grid = ColumnDomain { grid, ..*domain };
        if grid.is_some() && with_grid.validate(&table.columns[column]).is_ok() {
            *domain = with_grid;
            self.found.push(column);
        }
    }

    fn note(&self, columns: &[String]) -> Option<String> {
        if self.found.is_empty() {
            return self.auto.then(|| {
                "note: --dequantize auto finds no other column whose values lie on a grid and come again"
                    .into()
            });
        }
        let grids = self.found.iter().filter_map(|&column| {
            let grid = self.plan.domains[column].grid?;
            Some(format!("`{}` in {grid}", shown(&columns[column])))
        });
        let listed = super::findings::listed(&grids.collect::<Vec<_>>(), ", ");
        Some(format!("note: dequantised: {listed}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_names_steps_and_auto_and_a_columns_name_comes_first() {
        let columns = ["a", "b=1", "c d", "e=f"].map(String::from);
        for (text, want) in [
            ("a", Item::Whole("a")),
            ("b=1", Item::Whole("b=1")),
            ("c d=0.01", Item::Step("c d", 0.01)),
            ("e=f=2", Item::Step("e=f", 2.0)),
            ("auto", Item::Auto),
            ("z", Item::Whole("z")),
        ] {
            assert_eq!(Item::parse(text, &columns).expect(text), want);
        }
        assert_eq!(Item::parse("auto", &["auto".to_owned()]).expect("a name"), Item::Whole("auto"));
        for text in ["a=", "a=0", "a=-1", "a=x", "a=inf", "a=NaN", "a=1e-320"] {
            let message = Item::parse(text, &columns).expect_err(text).to_string();
            assert!(message.contains("positive number, such as price=0.01"), "{message}");
        }
    }
}
