//! What a flow sees of a table with categories: its numbers, and as context an indicator for every level of a category but
//! the first. A table in memory has codes in the place of texts; this takes its rows apart and puts them together again.

use super::discrete::DiscreteRows;
use crate::data::{ColumnDomain, PreprocessingPlan, Table, TableColumn};
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
    /// Places of the categories, the modelled ones first, with their numbers of levels.
    categories: Vec<(usize, usize)>,
    modelled_categories: usize,
}

impl Encoding {
    /// That of a table of `columns`, the last `context` of which are given.
    pub fn new(columns: &[TableColumn], context: usize) -> Self {
        let modelled = columns.len() - context.min(columns.len());
        let of = |column: &TableColumn| column.levels().map(|levels| levels.names().len());
        let places = |category: bool| {
            (0..columns.len()).filter(move |&place| columns[place].levels().is_some() == category)
        };
        let before =
            |places: &mut dyn Iterator<Item = usize>| places.filter(|place| *place < modelled).count();
        Self {
            width: columns.len(),
            modelled,
            numbers: places(false).collect(),
            modelled_numbers: before(&mut places(false)),
            categories: places(true).map(|place| (place, of(&columns[place]).unwrap_or(1))).collect(),
            modelled_categories: before(&mut places(true)),
        }
    }

    /// Whether there are categories.
    pub fn has_categories(&self) -> bool {
        !self.categories.is_empty()
    }

    /// Places of the modelled numbers.
    pub fn modelled_numbers(&self) -> &[usize] {
        &self.numbers[..self.modelled_numbers]
    }

    /// Places of the given numbers.
    pub fn given_numbers(&self) -> &[usize] {
        &self.numbers[self.modelled_numbers..]
    }

    /// Places of the modelled categories.
    pub fn modelled_categories(&self) -> impl Iterator<Item = usize> + Clone {
        self.categories[..self.modelled_categories].iter().map(|(place, _)| *place)
    }

    /// Places of the given categories.
    pub fn given_categories(&self) -> impl Iterator<Item = usize> + Clone {
        self.categories[self.modelled_categories..].iter().map(|(place, _)| *place)
    }

    /// Number of levels of each category, the modelled ones first.
    pub fn levels(&self) -> Vec<usize> {
        self.categories.iter().map(|(_, levels)| *levels).collect()
    }

    /// Columns that the flow has: the numbers, modelled ones first, and the indicators.
    pub fn features(&self) -> usize {
        self.numbers.len() + self.categories.iter().map(|(_, levels)| levels - 1).sum::<usize>()
    }

    /// How many of these, the last ones, are context.
    pub fn context(&self) -> usize {
        self.features() - self.modelled_numbers
    }

    /// Names of the flow's columns.
    pub fn names(&self, columns: &[TableColumn]) -> Vec<String> {
        let mut names: Vec<String> = self.numbers.iter().map(|&place| columns[place].name.clone()).collect();
        for (column, levels) in
            self.categories.iter().filter_map(|&(place, _)| Some((&columns[place], columns[place].levels()?)))
        {
            names.extend(levels.names().iter().skip(1).map(|level| format!("{}={level}", column.name)));
        }
        names
    }

    /// What a flow over rows of these categories and numbers is given and modelled of `rows`, row-major [B, D] → [B, F].
    pub fn encode(&self, rows: &[f64]) -> Vec<f64> {
        let mut encoded = Vec::with_capacity(rows.len() / self.width * self.features());
        for row in rows.chunks_exact(self.width) {
            encoded.extend(self.numbers.iter().map(|&place| row[place]));
            self.push_indicators(row, &self.categories, &mut encoded);
        }
        encoded
    }

    /// Appends the indicators of some `categories` of a row of the table.
    fn push_indicators(&self, row: &[f64], categories: &[(usize, usize)], into: &mut Vec<f64>) {
        for &(place, levels) in categories {
            into.extend((1..levels).map(|level| f64::from(u8::from(row[place] == level as f64))));
        }
    }

    /// The context of a flow for a row of the table, whose modelled numbers may be anything.
    pub(super) fn push_context(&self, row: &[f64], into: &mut Vec<f64>) {
        into.extend(self.given_numbers().iter().map(|&place| row[place]));
        self.push_indicators(row, &self.categories, into);
    }

    /// The discrete variables of `rows`, row-major [B, D], and the numbers that are given.
    ///
    /// # Errors
    /// [`Error::Length`] when rows are not whole, [`Error::Argument`] for a code that is no level.
    pub fn discrete_rows(&self, rows: &[f64]) -> Result<DiscreteRows> {
        expect_length("rows", rows.len(), rows.len().next_multiple_of(self.width))?;
        let mut found = DiscreteRows::default();
        for row in rows.chunks_exact(self.width) {
            for &(place, levels) in &self.categories {
                let code = row[place];
                if !(code >= 0.0 && code < levels as f64 && code.fract() == 0.0) {
                    return Err(Error::Argument(format!(
                        "column {} is a category of {levels} levels, and {code} is no place of one",
                        place + 1
                    )));
                }
                found.codes.push(code as u32);
            }
            found.numbers.extend(self.given_numbers().iter().map(|&place| row[place]));
        }
        Ok(found)
    }

    /// `table` as a flow sees it.
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
        let Table { name, values, .. } = table;
        Ok(Table { name, columns: self.names(columns), values: self.encode(&values) })
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
        if let Some(&(place, _)) =
            self.categories.iter().find(|(place, _)| domain(*place) != ColumnDomain::default())
        {
            let name = shown(&columns[place].name);
            return Err(Error::Argument(format!(
                "column `{name}` is a category, which has levels: bounds and noise are for numbers"
            )));
        }
        let mut domains: Vec<ColumnDomain> = self.numbers.iter().map(|&place| domain(place)).collect();
        domains.resize(self.features(), ColumnDomain::indicator());
        Ok(PreprocessingPlan { domains, context: self.context(), ..plan })
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
}
