//! What a flow sees of a table with categories: its numbers, and as context an indicator for every level of a category but
//! the first. A table in memory has codes in the place of texts; this takes its rows apart and puts them together again.

use super::discrete::DiscreteRows;
use crate::data::{Atoms, ColumnDomain, PreprocessingPlan, Table, TableColumn};
use crate::error::{Error, Result, expect_length};
use crate::shown::shown;

/// Where the columns of a table are, by what they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    /// Number of columns D of the table.
    width: usize,
    /// Number of its columns that are modelled; the others, behind them, are given.
    modelled: usize,
    /// Places of the numbers, the modelled ones first.
    numbers: Vec<usize>,
    modelled_numbers: usize,
    /// The discrete variables, the modelled ones first: categories, then what tells at which atoms rows are.
    variables: Vec<Variable>,
    modelled_variables: usize,
}

/// A discrete variable of a row.
#[derive(Clone, Debug, PartialEq)]
struct Variable {
    /// Place of its column.
    place: usize,
    /// Number of its levels.
    levels: usize,
    /// Of a column of numbers: its atoms. Level 0 is none of them.
    atoms: Option<Vec<f64>>,
}

impl Variable {
    /// That of `column` at `place`, where it has one.
    fn of(place: usize, column: &TableColumn) -> Option<Self> {
        match column.levels() {
            Some(levels) => Some(Self { place, levels: levels.names().len(), atoms: None }),
            None if column.atoms.is_empty() => None,
            None => {
                let levels = column.atoms.len() + 1;
                Some(Self { place, levels, atoms: Some(column.atoms.clone()) })
            }
        }
    }

    /// The level of a row of the table; `None` where a category's cell is none.
    fn level(&self, row: &[f64]) -> Option<usize> {
        let cell = row[self.place];
        match &self.atoms {
            Some(atoms) => Some(atoms.iter().position(|&atom| atom == cell).map_or(0, |place| place + 1)),
            None => {
                (cell >= 0.0 && cell < self.levels as f64 && cell.fract() == 0.0).then_some(cell as usize)
            }
        }
    }

    /// Puts `level` into a row. A number that is at no atom is left open, as one that is not a number.
    fn put(&self, level: u32, row: &mut [f64]) {
        row[self.place] = match (&self.atoms, level) {
            (None, level) => f64::from(level),
            (Some(_), 0) => f64::NAN,
            (Some(atoms), level) => atoms[level as usize - 1],
        };
    }
}

impl Encoding {
    /// That of a table of `columns`, the last `context` of which are given.
    pub fn new(columns: &[TableColumn], context: usize) -> Self {
        let modelled = columns.len() - context.min(columns.len());
        let numbers: Vec<usize> =
            (0..columns.len()).filter(|&place| columns[place].levels().is_none()).collect();
        let all = columns.iter().enumerate().filter_map(|(place, column)| Variable::of(place, column));
        let (given, own): (Vec<Variable>, Vec<Variable>) =
            all.partition(|variable| variable.place >= modelled);
        let (atoms, mut variables): (Vec<Variable>, Vec<Variable>) =
            own.into_iter().partition(|variable| variable.atoms.is_some());
        variables.extend(atoms);
        let modelled_variables = variables.len();
        variables.extend(given.into_iter().filter(|variable| variable.atoms.is_none()));
        Self {
            width: columns.len(),
            modelled,
            modelled_numbers: numbers.iter().filter(|place| **place < modelled).count(),
            numbers,
            variables,
            modelled_variables,
        }
    }

    /// Whether there are categories or atoms.
    pub fn has_categories(&self) -> bool {
        !self.variables.is_empty()
    }

    /// Places of the modelled numbers.
    pub fn modelled_numbers(&self) -> &[usize] {
        &self.numbers[..self.modelled_numbers]
    }

    /// Places of the given numbers.
    pub fn given_numbers(&self) -> &[usize] {
        &self.numbers[self.modelled_numbers..]
    }

    /// Places of the modelled categories, and of the numbers that have atoms.
    pub fn modelled_categories(&self) -> impl Iterator<Item = usize> + Clone {
        self.variables[..self.modelled_variables].iter().map(|variable| variable.place)
    }

    /// Places of the given categories.
    pub fn given_categories(&self) -> impl Iterator<Item = usize> + Clone {
        self.variables[self.modelled_variables..].iter().map(|variable| variable.place)
    }

    /// Number of levels of each discrete variable, the modelled ones first: categories, and numbers that have atoms.
    pub fn levels(&self) -> Vec<usize> {
        self.variables.iter().map(|variable| variable.levels).collect()
    }

    /// The indicators of each discrete variable with several levels: the place of its column in the table; and, as a flow sees
    /// rows, the column of the first one and how many there are.
    pub fn indicators(&self) -> Vec<(usize, [usize; 2])> {
        let mut first = self.numbers.len();
        let mut found = Vec::new();
        for Variable { place, levels, .. } in self.variables.iter().filter(|variable| variable.levels > 1) {
            found.push((*place, [first, levels - 1]));
            first += levels - 1;
        }
        found
    }

    /// Columns that the flow has: the numbers, modelled ones first, and the indicators.
    pub fn features(&self) -> usize {
        self.numbers.len() + self.variables.iter().map(|variable| variable.levels - 1).sum::<usize>()
    }

    /// How many of these, the last ones, are context.
    pub fn context(&self) -> usize {
        self.features() - self.modelled_numbers
    }

    /// Names of the flow's columns.
    pub fn names(&self, columns: &[TableColumn]) -> Vec<String> {
        let mut names: Vec<String> = self.numbers.iter().map(|&place| columns[place].name.clone()).collect();
        for Variable { place, atoms, .. } in &self.variables {
            let column = &columns[*place];
            let named = |value: &dyn std::fmt::Display| format!("{}={value}", column.name);
            match (atoms, column.levels()) {
                (Some(atoms), _) => names.extend(atoms.iter().map(|atom| named(atom))),
                (None, levels) => names.extend(
                    levels
                        .into_iter()
                        .flat_map(|levels| levels.names().iter().skip(1))
                        .map(|level| named(level)),
                ),
            }
        }
        names
    }

    /// What a flow over rows of these categories and numbers is given and modelled of `rows`, row-major [B, D] → [B, F].
    pub fn encode(&self, rows: &[f64]) -> Vec<f64> {
        let mut encoded = Vec::with_capacity(rows.len() / self.width * self.features());
        rows.chunks_exact(self.width).for_each(|row| self.push_encoded(row, &mut encoded));
        encoded
    }

    /// Appends the numbers and indicators of a row of the table.
    fn push_encoded(&self, row: &[f64], into: &mut Vec<f64>) {
        into.extend(self.numbers.iter().map(|&place| row[place]));
        self.push_indicators(row, into);
    }

    /// Appends the indicators of a row of the table.
    fn push_indicators(&self, row: &[f64], into: &mut Vec<f64>) {
        for variable in &self.variables {
            let level = variable.level(row);
            into.extend((1..variable.levels).map(|other| f64::from(u8::from(level == Some(other)))));
        }
    }

    /// Puts the levels of the modelled variables into a row of the table. Numbers that are at no atom are left open.
    pub(super) fn put_levels(&self, levels: impl IntoIterator<Item = u32>, row: &mut [f64]) {
        let modelled = &self.variables[..self.modelled_variables];
        modelled.iter().zip(levels).for_each(|(variable, level)| variable.put(level, row));
    }

    /// The atoms of the flow's columns.
    pub(super) fn atoms(&self) -> Vec<Atoms> {
        let mut indicator = self.numbers.len();
        let mut found = Vec::new();
        for Variable { place, levels, atoms } in &self.variables {
            let column = self.numbers.iter().position(|number| number == place);
            if let (Some(values), Some(column)) = (atoms, column) {
                found.push(Atoms { column, values: values.clone(), indicator });
            }
            indicator += levels - 1;
        }
        found
    }

    /// The context of a flow for a row of the table, whose modelled numbers may be anything.
    pub(super) fn push_context(&self, row: &[f64], into: &mut Vec<f64>) {
        into.extend(self.given_numbers().iter().map(|&place| row[place]));
        self.push_indicators(row, into);
    }

    /// The discrete variables of `rows`, row-major [B, D], and the numbers that are given.
    ///
    /// # Errors
    /// [`Error::Length`] when rows are not whole, [`Error::Argument`] for a code that is no level.
    pub fn discrete_rows(&self, rows: &[f64]) -> Result<DiscreteRows> {
        expect_length("rows", rows.len(), rows.len().next_multiple_of(self.width))?;
        let mut found = DiscreteRows::default();
        for row in rows.chunks_exact(self.width) {
            for variable in &self.variables {
                let Some(level) = variable.level(row) else {
                    let (place, levels, cell) = (variable.place + 1, variable.levels, row[variable.place]);
                    return Err(Error::Argument(format!(
                        "column {place} is a category of {levels} levels, and {cell} is no place of one"
                    )));
                };
                found.codes.push(level as u32);
            }
            found.numbers.extend(self.given_numbers().iter().map(|&place| row[place]));
        }
        Ok(found)
    }

    /// `table` as a flow sees it, in the table's own memory.
    ///
    /// # Errors
    /// [`Error::Length`] when rows are not whole.
    pub fn encode_table(&self, table: Table, columns: &[TableColumn]) -> Result<Table> {
        expect_length(
            "values of the table",
            table.values.len(),
            table.values.len().next_multiple_of(self.width),
        )?;
        if !self.has_categories() {
            return Ok(table);
        }
        let Table { name, mut values, .. } = table;
        let (width, features) = (self.width, self.features());
        let rows = values.len() / width;
        values.reserve_exact((rows * features).saturating_sub(values.len()));
        values.resize(rows * features.max(width), 0.0);
        let mut encoded = Vec::with_capacity(features);
        let encode = |row: usize| {
            encoded.clear();
            self.push_encoded(&values[row * width..(row + 1) * width], &mut encoded);
            values[row * features..(row + 1) * features].copy_from_slice(&encoded);
        };
        // Where rows grow, the last one first: none is written over before it is read.
        if features > width {
            (0..rows).rev().for_each(encode)
        } else {
            (0..rows).for_each(encode)
        }
        values.truncate(rows * features);
        values.shrink_to_fit();
        Ok(Table { name, columns: self.names(columns), values })
    }

    /// The plan for the flow's columns, from that for the table's.
    ///
    /// # Errors
    /// [`Error::Argument`] where a category has bounds or is dequantised.
    pub fn plan(&self, plan: PreprocessingPlan, columns: &[TableColumn]) -> Result<PreprocessingPlan> {
        if !self.has_categories() {
            return Ok(plan);
        }
        let domain = |place: usize| plan.domains.get(place).copied().unwrap_or_default();
        let mut categories = self.variables.iter().filter(|variable| variable.atoms.is_none());
        if let Some(category) = categories.find(|variable| domain(variable.place) != ColumnDomain::default())
        {
            let name = shown(&columns[category.place].name);
            return Err(Error::Argument(format!(
                "column `{name}` is a category, which has levels: bounds and noise are for numbers"
            )));
        }
        let mut domains: Vec<ColumnDomain> = self.numbers.iter().map(|&place| domain(place)).collect();
        domains.resize(self.features(), ColumnDomain::indicator());
        Ok(PreprocessingPlan { domains, context: self.context(), atoms: self.atoms(), ..plan })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Levels;

    fn columns() -> Vec<TableColumn> {
        let levels =
            |names: &[&str]| Levels::new(names.iter().map(|&name| name.into()).collect()).expect("levels");
        vec![
            TableColumn::category("kind", levels(&["a", "b", "c"])),
            TableColumn::number("x"),
            TableColumn::number("y"),
            TableColumn::category("side", levels(&["l", "r"])),
            TableColumn::number("t"),
        ]
    }

    #[test]
    fn numbers_come_first_and_indicators_behind_the_context() {
        let encoding = Encoding::new(&columns(), 2);
        assert_eq!(encoding.names(&columns()), ["x", "y", "t", "kind=b", "kind=c", "side=r"]);
        assert_eq!((encoding.features(), encoding.context()), (6, 4));
        let row = [2.0, 0.5, -1.0, 1.0, 7.0];
        assert_eq!(encoding.encode(&row), [0.5, -1.0, 7.0, 0.0, 1.0, 1.0]);
        let rows = encoding.discrete_rows(&row).expect("levels");
        assert_eq!((rows.codes, rows.numbers), (vec![2, 1], vec![7.0]));
        let mut context = Vec::new();
        encoding.push_context(&row, &mut context);
        assert_eq!(context, [7.0, 0.0, 1.0, 1.0]);
        for code in [3.0, -1.0, 0.5, f64::NAN] {
            assert!(encoding.discrete_rows(&[code, 0.5, -1.0, 1.0, 7.0]).is_err(), "{code}");
        }
    }

    #[test]
    fn a_table_is_encoded_in_its_memory_whether_rows_grow_or_not() {
        // With the category of three levels rows grow, without it they keep their length.
        for columns in [columns(), columns().split_off(1)] {
            let encoding = Encoding::new(&columns, 2);
            let row = &[2.0, 0.5, -1.0, 1.0, 7.0][5 - columns.len()..];
            let mut values = row.repeat(3);
            // Numbers that tell the rows apart.
            let number = columns.iter().position(|column| column.levels().is_none()).expect("there is one");
            (values[number], values[2 * row.len() + number]) = (0.25, -4.0);
            let want = encoding.encode(&values);
            let table = Table { name: "t".into(), columns: Vec::new(), values };
            let table = encoding.encode_table(table, &columns).expect("whole rows");
            assert_eq!((table.columns, table.values), (encoding.names(&columns), want));
        }
    }
}
