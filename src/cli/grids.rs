//! `--dequantize`: which columns hold values on a grid, by what a person says and by the values themselves.

use moonflow::data::{
    Bounds, Chunk, ColumnDomain, Grid, PreprocessingPlan, SharedValues, Table, TableColumn,
};
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

/// What a plan leaves open until the values of its columns are known.
pub struct Open {
    /// Columns of a known step, whose offset is not known.
    pub steps: Vec<(usize, f64)>,
    /// Whether there may be other columns on a grid.
    pub auto: bool,
    /// The atoms of each column `[D]`, whose indicators are not there yet.
    pub atoms: Vec<Vec<f64>>,
}

/// A plan with columns whose grids are known only when their values are.
pub struct OpenPlan {
    plan: PreprocessingPlan,
    open: Open,
    /// Columns whose grid was found and is not told by the flag alone.
    found: Vec<usize>,
}

impl OpenPlan {
    /// `plan`, and what is `open` of it.
    ///
    /// # Errors
    /// Those of [`PreprocessingPlan::validate`]; [`Error::Argument`] for the atoms of a context.
    pub fn new(plan: PreprocessingPlan, open: Open, columns: &[String]) -> Result<Self> {
        plan.validate(columns)?;
        let modelled = columns.len() - plan.context;
        if let Some(column) = (modelled..columns.len()).find(|&column| !open.atoms[column].is_empty()) {
            return Err(Error::Argument(format!(
                "column `{}` is context, whose density is not modelled: it has no atoms",
                shown(&columns[column])
            )));
        }
        Ok(Self { plan, open, found: Vec::new() })
    }

    /// The plan as far as it is known before the values are, and whether other columns may get a grid.
    pub fn beforehand(&self) -> (PreprocessingPlan, bool) {
        let mut plan = self.plan.clone();
        for &(column, step) in &self.open.steps {
            plan.domains[column].grid = Some(Grid { step, offset: 0.0 });
        }
        (plan, self.open.auto)
    }

    /// Refuses the first value of `chunk` that cannot be modelled, by its place in the file `name`. The first chunk tells
    /// the offsets.
    ///
    /// # Errors
    /// [`Error::Data`] with line or row, column and what is wrong.
    pub fn check(&mut self, name: &str, columns: &[String], unit: &str, chunk: &Chunk) -> Result<()> {
        self.settle_offsets(&chunk.numbers, columns.len());
        for (row, place) in chunk.numbers.chunks_exact(columns.len()).zip(&chunk.places) {
            let mut cells = row.iter().zip(&self.plan.domains).enumerate();
            let refused = cells.find_map(|(column, (&x, domain))| {
                let problem = domain.refusal(x)?;
                (!self.open.atoms[column].contains(&x)).then_some((column, problem))
            });
            if let Some((column, problem)) = refused {
                let column = shown(&columns[column]);
                return Err(Error::data(name, format!("{unit} {place}, column `{column}`: {problem}")));
            }
        }
        Ok(())
    }

    /// The plan for `table`, and a note on the grids that its values told. The columns' `types` get their atoms.
    ///
    /// # Errors
    /// Those of [`PreprocessingPlan::validate`]; [`Error::Argument`] for the atoms of a category.
    pub fn settle(
        mut self,
        table: &Table,
        types: &mut [TableColumn],
    ) -> Result<(PreprocessingPlan, Option<String>)> {
        self.settle_offsets(&table.values, table.features());
        if self.open.auto {
            let modelled = 0..table.features() - self.plan.context;
            for column in modelled.filter(|&column| types[column].levels().is_none()) {
                self.settle_grid(column, table);
            }
        }
        for column in 0..table.features() {
            self.keep_atoms_out(column, table);
        }
        for (column, atoms) in types.iter_mut().zip(&self.open.atoms).filter(|(_, atoms)| !atoms.is_empty()) {
            if column.levels().is_some() {
                return Err(Error::Argument(format!(
                    "column `{}` is a category, each of whose levels has a probability: it has no atoms",
                    shown(&column.name)
                )));
            }
            column.atoms.clone_from(atoms);
        }
        let features = table.features();
        let modelled =
            types.iter_mut().zip(&self.plan.domains).enumerate().take(features - self.plan.context);
        for (place, (column, _)) in modelled.filter(|(_, (_, domain))| domain.grid.is_none()) {
            if column.levels().is_none() {
                let values = table.values.iter().skip(place).step_by(features).copied();
                column.rounded = SharedValues::fine_grid(values);
            }
        }
        self.plan.validate(&table.columns)?;
        let note = self.note(&table.columns);
        Ok((self.plan, note))
    }

    fn settle_offsets(&mut self, values: &[f64], features: usize) {
        for (column, step) in std::mem::take(&mut self.open.steps) {
            let values = self.without_atoms(column, values, features);
            let grid = Grid::with_step(step, &values);
            self.plan.domains[column].grid = Some(grid);
            if grid.offset != 0.0 {
                self.found.push(column);
            }
        }
    }

    /// Gives `column` the grid that its values lie on, where many rows share them and its bounds do so too.
    fn settle_grid(&mut self, column: usize, table: &Table) {
        if self.plan.domains[column].grid.is_some() {
            return;
        }
        let values = self.without_atoms(column, &table.values, table.features());
        let domain = &mut self.plan.domains[column];
        let grid = SharedValues::grid(&values);
        let with_grid = ColumnDomain { grid, ..*domain };
        if grid.is_some() && with_grid.validate(&table.columns[column]).is_ok() {
            *domain = with_grid;
            self.found.push(column);
        }
    }

    /// Bounds a dequantised `column` by its other values, where its atoms are beyond all of them.
    fn keep_atoms_out(&mut self, column: usize, table: &Table) {
        let atoms = &self.open.atoms[column];
        if atoms.is_empty() || self.plan.domains[column].grid.is_none() {
            return;
        }
        let others = self.without_atoms(column, &table.values, table.features());
        let [least, greatest] =
            [f64::min as fn(f64, f64) -> f64, f64::max].map(|end| others.iter().copied().reduce(end));
        let domain = &mut self.plan.domains[column];
        for &atom in atoms {
            let bounds = domain.bounds.get_or_insert(Bounds { low: None, high: None });
            if bounds.low.is_none_or(|low| low <= atom) && least.is_some_and(|least| atom < least) {
                bounds.low = least;
            } else if bounds.high.is_none_or(|high| high >= atom) && greatest.is_some_and(|most| atom > most)
            {
                bounds.high = greatest;
            }
        }
        domain.bounds = domain.bounds.filter(|bounds| bounds.low.is_some() || bounds.high.is_some());
    }

    /// The values of `column` among `values`, row-major [N, D], that are none of its atoms.
    fn without_atoms(&self, column: usize, values: &[f64], features: usize) -> Vec<f64> {
        let values = values.iter().skip(column).step_by(features);
        values.filter(|value| !self.open.atoms[column].contains(value)).copied().collect()
    }

    fn note(&self, columns: &[String]) -> Option<String> {
        if self.found.is_empty() {
            return self.open.auto.then(|| {
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
