//! Categories: columns whose cells are texts or truths, of which a table has few different ones.
//! In memory a category is a number like every other, the place of its level; this is the way there and back.

use std::collections::HashMap;

use super::Grid;
use super::columns::count;
use super::reading::ValueKind;
use super::time::TimeFormat;
use crate::error::{Error, Remedy, Result};
use crate::shown::shown;

/// The different values of a category, in their order: the cell of level k is k in a table in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    names: Vec<String>,
    truth: bool,
    places: HashMap<String, usize>,
}

/// The text of true and false, in the order of their levels.
const TRUTHS: [&str; 2] = ["false", "true"];

impl Levels {
    /// Most levels of a category.
    pub const MOST: usize = 1000;

    /// Levels of these names, in this order.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none, more than [`Levels::MOST`], or one twice.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::Levels;
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let levels = Levels::new(["light", "strong"].map(String::from).into())?;
    /// assert_eq!((levels.place(" strong"), levels.place("sweet")), (Some(1), None));
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(names: Vec<String>) -> Result<Self> {
        if !(1..=Self::MOST).contains(&names.len()) {
            let (most, got) = (Self::MOST, names.len());
            return Err(Error::Argument(format!("a category has 1 to {most} levels, got {got}")));
        }
        let mut places = HashMap::with_capacity(names.len());
        for (place, name) in names.iter().enumerate() {
            if places.insert(name.clone(), place).is_some() {
                return Err(Error::Argument(format!("a category has the level `{}` twice", shown(name))));
            }
        }
        Ok(Self { names, truth: false, places })
    }

    /// False and true.
    pub fn truths() -> Self {
        Self::truths_like(TRUTHS[1])
    }

    /// False and true, in capitals where `cell` is.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::Levels;
    ///
    /// assert_eq!(Levels::truths_like("True").names(), ["False", "True"]);
    /// ```
    pub fn truths_like(cell: &str) -> Self {
        let capitals = cell.bytes().take_while(u8::is_ascii_uppercase).count();
        let spelled = |name: &str| match capitals {
            0 => name.to_owned(),
            1 => name[..1].to_ascii_uppercase() + &name[1..],
            _ => name.to_ascii_uppercase(),
        };
        let levels = Self::new(TRUTHS.map(spelled).into());
        Self { truth: true, ..levels.expect("invariant: two different names") }
    }

    /// The names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether they are false and true.
    pub fn is_truth(&self) -> bool {
        self.truth
    }

    /// The place of the level that `cell` names: by its text, else as the same number or truth, written otherwise.
    pub fn place(&self, cell: &str) -> Option<usize> {
        let cell = cell.trim();
        let place = self.places.get(cell).copied();
        if place.is_some() {
            return place;
        }
        if self.truth {
            let same = |name: &&str| name.eq_ignore_ascii_case(cell);
            // A file of numbers has 0 and 1.
            return TRUTHS
                .iter()
                .position(same)
                .or_else(|| ["0", "1"].iter().position(|digit| digit == &cell));
        }
        let number: f64 = cell.parse().ok()?;
        self.names.iter().position(|name| name.parse() == Ok(number))
    }

    /// That `cell` is none of them, and which there are.
    pub fn unknown(&self, cell: &str) -> String {
        const SHOWN: usize = 20;
        let known: Vec<String> =
            self.names.iter().take(SHOWN).map(|name| format!("`{}`", shown(name))).collect();
        let more = match self.names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("`{}` is none of the known categories {}{more}", shown(cell), known.join(", "))
    }

    /// Whether so many different texts in so many rows are rather names of the rows than levels of a category.
    pub fn are_names(texts: usize, rows: usize) -> bool {
        /// Texts below which a short table may have as many by chance.
        const FEW: usize = 10;

        texts > Self::MOST || (texts >= FEW && 2 * texts > rows)
    }

    /// Those of `names` in their order, numbers as numbers before other texts, with the place of each of `names`.
    fn sorted(names: Vec<String>) -> (Self, Vec<usize>) {
        let number = |name: &String| name.parse::<f64>().ok().filter(|number| number.is_finite());
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|&a, &b| {
            let key = |place: usize| (number(&names[place]), &names[place]);
            match (key(a), key(b)) {
                ((Some(x), a), (Some(y), b)) => x.total_cmp(&y).then_with(|| a.cmp(b)),
                ((Some(_), _), (None, _)) => std::cmp::Ordering::Less,
                ((None, _), (Some(_), _)) => std::cmp::Ordering::Greater,
                ((None, a), (None, b)) => a.cmp(b),
            }
        });
        let mut places = vec![0; names.len()];
        order.iter().enumerate().for_each(|(place, &before)| places[before] = place);
        let sorted = order.iter().map(|&place| names[place].clone()).collect();
        (Self::new(sorted).expect("invariant: different names, not too many"), places)
    }
}

/// What the cells of a column are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnType {
    /// Numbers.
    Number {
        /// What they were in the table.
        kind: ValueKind,
    },
    /// One of a few texts, or true or false.
    Category {
        /// Which.
        levels: Levels,
    },
}

/// A column of a table that is read or modelled.
#[derive(Clone, Debug, PartialEq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// What its cells are.
    pub cells: ColumnType,
    /// Of numbers that are modelled: the values that have a probability of their own.
    pub atoms: Vec<f64>,
    /// Of numbers that are modelled by a density: the fine grid that the table's lay on, to whose nearest value samples are
    /// rounded.
    pub rounded: Option<Grid>,
}

impl TableColumn {
    /// A column of numbers.
    pub fn number(name: impl Into<String>) -> Self {
        Self::of_kind(name.into(), ValueKind::Number)
    }

    /// A column of numbers that were of this kind.
    pub(crate) fn of_kind(name: String, kind: ValueKind) -> Self {
        Self { name, cells: ColumnType::Number { kind }, atoms: Vec::new(), rounded: None }
    }

    /// A category.
    pub fn category(name: impl Into<String>, levels: Levels) -> Self {
        let cells = ColumnType::Category { levels };
        Self { name: name.into(), cells, atoms: Vec::new(), rounded: None }
    }

    /// What its numbers were in the table; those of a category are places of levels.
    pub fn kind(&self) -> ValueKind {
        match &self.cells {
            ColumnType::Number { kind } => *kind,
            ColumnType::Category { levels } if levels.is_truth() => ValueKind::Truth,
            ColumnType::Category { .. } => ValueKind::Number,
        }
    }

    /// The number in `text`, as a person gives it: a date or time where the column has these.
    pub fn parse(&self, text: &str) -> Option<f64> {
        let number = || text.trim().parse().ok();
        match self.kind() {
            ValueKind::Time(_) => TimeFormat::read(text.trim()).map(|(seconds, _)| seconds).or_else(number),
            _ => number(),
        }
    }

    /// The levels of a category; `None` of a column of numbers.
    pub fn levels(&self) -> Option<&Levels> {
        match &self.cells {
            ColumnType::Category { levels } => Some(levels),
            ColumnType::Number { .. } => None,
        }
    }
}

/// How the cells of a column become numbers while a table is read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Coding {
    /// They are numbers.
    Number,
    /// They are texts whose levels the table tells.
    Texts,
    /// They are true or false.
    Truths,
    /// They are levels that are known.
    Levels(Levels),
}

impl From<&TableColumn> for Coding {
    fn from(column: &TableColumn) -> Self {
        column.levels().cloned().map_or(Self::Number, Self::Levels)
    }
}

/// The coding of a column under way.
pub(super) enum Coder {
    Number,
    /// Texts in the order in which they came.
    Texts {
        names: Vec<String>,
        places: HashMap<String, usize>,
    },
    /// Spelled as the first one, once it has come.
    Truths(Option<Levels>),
    Levels(Levels),
}

impl From<Coding> for Coder {
    fn from(coding: Coding) -> Self {
        match coding {
            Coding::Number => Self::Number,
            Coding::Texts => Self::Texts { names: Vec::new(), places: HashMap::new() },
            Coding::Truths => Self::Truths(None),
            Coding::Levels(levels) => Self::Levels(levels),
        }
    }
}

impl Coder {
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Number)
    }

    /// The number of a cell that is not missing, or what is wrong with it.
    pub(super) fn code(&mut self, cell: &str) -> std::result::Result<f64, String> {
        let cell = cell.trim();
        match self {
            Self::Number => unreachable!("invariant: numbers are read as numbers"),
            Self::Levels(levels) => known(levels, cell),
            Self::Truths(levels) => known(levels.get_or_insert_with(|| Levels::truths_like(cell)), cell),
            Self::Texts { names, places } => {
                if let Some(&place) = places.get(cell) {
                    return Ok(place as f64);
                }
                if names.len() == Levels::MOST {
                    return Err(format!("`{}` is text {} of this column", shown(cell), names.len() + 1));
                }
                places.insert(cell.to_owned(), names.len());
                names.push(cell.to_owned());
                Ok((names.len() - 1) as f64)
            }
        }
    }

    /// The type of the column called `name`, whose numbers were of `kind`, when all of its `rows` rows have been read, and
    /// the place of each code among the levels where it is another.
    ///
    /// # Errors
    /// [`Error::Data`] of the table `source_name` for texts that are rather names of the rows.
    pub(super) fn finish(
        self,
        source_name: &str,
        name: &str,
        kind: ValueKind,
        rows: usize,
    ) -> Result<(TableColumn, Option<Vec<usize>>)> {
        match self {
            Self::Number => Ok((TableColumn::of_kind(name.to_owned(), kind), None)),
            Self::Levels(levels) => Ok((TableColumn::category(name, levels), None)),
            Self::Truths(levels) => {
                Ok((TableColumn::category(name, levels.unwrap_or_else(Levels::truths)), None))
            }
            Self::Texts { names, .. } => {
                if Levels::are_names(names.len(), rows) {
                    let (texts, rows) = (count(names.len(), "different text"), count(rows, "row"));
                    return Err(Error::data(
                        source_name,
                        format!("column `{}` has {texts} in {rows}, as names of rows have", shown(name)),
                    )
                    .advise(Remedy::DropColumn));
                }
                if !names.is_empty() && names.iter().all(|name| is_truth(name)) {
                    let levels = Levels::truths_like(&names[0]);
                    let places = names.iter().map(|name| levels.place(name).unwrap_or_default()).collect();
                    return Ok((TableColumn::category(name, levels), Some(places)));
                }
                let (levels, places) = Levels::sorted(names);
                Ok((TableColumn::category(name, levels), Some(places)))
            }
        }
    }
}

/// The place of the level that `cell` names, or that it names none.
fn known(levels: &Levels, cell: &str) -> std::result::Result<f64, String> {
    levels.place(cell).map(|place| place as f64).ok_or_else(|| levels.unknown(cell))
}

fn is_truth(text: &str) -> bool {
    TRUTHS.iter().any(|truth| truth.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(cells: &[&str]) -> Result<(TableColumn, Vec<usize>)> {
        let mut coder = Coder::from(Coding::Texts);
        let codes: Vec<f64> = cells.iter().map(|cell| coder.code(cell).expect("few texts")).collect();
        let (column, places) = coder.finish("t", "c", ValueKind::Number, cells.len())?;
        let places = places.expect("texts have places");
        Ok((column, codes.into_iter().map(|code| places[code as usize]).collect()))
    }

    fn levels(names: &[&str]) -> Levels {
        Levels::new(names.iter().map(|&name| name.to_owned()).collect()).expect("levels")
    }

    #[test]
    fn levels_are_sorted_numbers_as_numbers_and_cells_are_their_places() {
        for (cells, want, codes) in [
            (&["b", "a", " b", "c"][..], &["a", "b", "c"][..], &[1, 0, 1, 2][..]),
            (&["10", "9", "x", "-1"], &["-1", "9", "10", "x"], &[2, 1, 3, 0]),
            (&["01", "1"], &["01", "1"], &[0, 1]),
            (&["True", "FALSE", "true"], &["False", "True"], &[1, 0, 1]),
            (&["true", "true"], &["false", "true"], &[1, 1]),
        ] {
            let (column, got) = coded(cells).expect("codes");
            assert_eq!((column.levels().expect("levels").names(), &got[..]), (&want.map_names()[..], codes));
        }
    }

    trait MapNames {
        fn map_names(&self) -> Vec<String>;
    }

    impl MapNames for &[&str] {
        fn map_names(&self) -> Vec<String> {
            self.iter().map(|&name| name.to_owned()).collect()
        }
    }

    #[test]
    fn cells_are_found_by_text_first_and_then_by_what_they_mean() {
        let zips = levels(&["01", "1", "2"]);
        assert_eq!(
            ["01", "1", "2.0", "3", "x"].map(|cell| zips.place(cell)),
            [Some(0), Some(1), Some(2), None, None]
        );
        assert_eq!(Levels::truths().place("TRUE"), Some(1));
        let unknown = zips.unknown("x\u{1b}");
        assert_eq!(unknown, "`x\\u{1b}` is none of the known categories `01`, `1`, `2`");
        let many = levels(
            &(0..25)
                .map(|i| i.to_string())
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        assert!(many.unknown("x").ends_with("`19` and 5 more"));
    }

    #[test]
    fn names_of_rows_and_impossible_levels_are_refused() {
        let cells: Vec<String> = (0..30).map(|i| format!("row {}", i / 2 * 2 + i % 2)).collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        let message = coded(&cells).expect_err("names of rows").to_string();
        assert!(message.contains("`c` has 30 different texts in 30 rows"), "{message}");
        assert!(coded(&cells[..9]).is_ok(), "few rows");
        assert!(Levels::new(Vec::new()).is_err() && Levels::new(vec!["a".into(), "a".into()]).is_err());
        assert!(Levels::new((0..=Levels::MOST).map(|i| i.to_string()).collect()).is_err());
        let mut coder = Coder::from(Coding::Texts);
        assert!((0..Levels::MOST).all(|i| coder.code(&i.to_string()) == Ok(i as f64)));
        assert!(coder.code("x").is_err() && coder.code("7").is_ok());
    }
}
