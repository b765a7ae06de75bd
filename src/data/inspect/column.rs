//! The findings of one column: counts while its cells pass, the rest from its numbers in the end.

use std::collections::HashMap;

use serde::Serialize;

use crate::data::Grid;
use crate::data::input::Cell;
use crate::data::reading::ValueKind;

/// Most different values that are counted.
const DIFFERENT: usize = 100_000;

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ColumnKind {
    /// Numbers, some of them not whole.
    Number,
    /// Whole numbers.
    Whole,
    /// True and false.
    Truth,
    /// Dates and times, in seconds since 1970 began in UTC.
    Time,
    /// Texts, or cells of several kinds.
    Text,
    /// Nothing but missing values.
    Empty,
}

impl ColumnKind {
    /// Whether a flow can be fitted to the column.
    pub fn is_number(self) -> bool {
        !matches!(self, Self::Text | Self::Empty)
    }
}

/// What was found in a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnFindings {
    /// Its name.
    pub name: String,
    /// What its cells are.
    pub kind: ColumnKind,
    /// Cells without a value.
    pub missing: u64,
    /// Different values; `None` when there are more than are counted.
    pub different: Option<usize>,
    /// Least and greatest number.
    pub range: Option<[f64; 2]>,
    /// The step between the values that numbers take, where values come again and lie on such a grid.
    pub grid: Option<f64>,
    /// A value that has a share of the rows although others are hardly ever taken twice.
    pub atom: Option<Atom>,
    /// Rows far from the others.
    pub far_out: Option<FarOut>,
    /// The first cell that is not like most.
    pub odd: Option<Odd>,
    /// Whether its numbers count the rows, up by one from 0 or 1.
    pub counts_rows: bool,
}

/// A value with a share of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Atom {
    /// The value.
    pub value: f64,
    /// Its share of the numbers.
    pub share: f64,
}

/// Rows whose number is further from the quartiles than ten times the distance between these.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FarOut {
    /// How many.
    pub rows: usize,
    /// Where the first few are: their lines, else their rows, from 1.
    pub places: Vec<u64>,
}

/// A cell that is not like most of its column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Odd {
    /// Where it is: `line` or `row`, and its number from 1.
    pub unit: &'static str,
    /// See `unit`.
    pub place: u64,
    /// What it holds.
    pub cell: String,
}

/// What is known of a column while its cells pass.
#[derive(Default)]
pub(super) struct Tally {
    /// Numbers, NaN where there is none.
    values: Vec<f64>,
    places: Vec<u64>,
    missing: u64,
    /// Cells of each kind: numbers, truths, times, texts and what double precision cannot hold.
    counts: [usize; 4],
    /// The first cell of each kind.
    firsts: [Option<(u64, String)>; 4],
    texts: HashMap<String, usize>,
    numbers: HashMap<u64, usize>,
    /// Whether there were more different values than are counted.
    many: bool,
}

impl Tally {
    pub(super) fn add(&mut self, cell: Cell, text: &str, place: u64) {
        let (value, kind) = match cell {
            Cell::Missing => {
                self.missing += 1;
                self.values.push(f64::NAN);
                self.places.push(place);
                return;
            }
            Cell::Value(value, ValueKind::Number) => (value, 0),
            Cell::Value(value, ValueKind::Truth) => (value, 1),
            Cell::Value(value, ValueKind::Time) => (value, 2),
            Cell::Infinite | Cell::Inexact | Cell::Text => (f64::NAN, 3),
        };
        self.values.push(value);
        self.places.push(place);
        self.counts[kind] += 1;
        self.firsts[kind].get_or_insert_with(|| (place, text.trim().to_owned()));
        if self.numbers.len() + self.texts.len() >= DIFFERENT {
            self.many = true;
        } else if kind == 3 {
            *self.texts.entry(text.to_owned()).or_default() += 1;
        } else {
            *self.numbers.entry((value + 0.0).to_bits()).or_default() += 1;
        }
    }

    /// The numbers `[N]`, NaN where there is none.
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    pub(super) fn findings(&self, name: String, unit: &'static str) -> ColumnFindings {
        let kind = self.kind();
        let mut sorted: Vec<f64> = self.values.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let different = (!self.many).then_some(self.numbers.len() + self.texts.len());
        let number = kind.is_number();
        let discrete = number && different.is_some_and(|different| 2 * different <= sorted.len());
        let most =
            self.counts.iter().enumerate().max_by_key(|(_, count)| **count).map_or(0, |(kind, _)| kind);
        let odd = self.firsts.iter().enumerate().find_map(|(kind, first)| {
            let (place, cell) = first.clone().filter(|_| kind != most)?;
            Some(Odd { unit, place, cell })
        });
        ColumnFindings {
            name,
            kind,
            missing: self.missing,
            different,
            range: sorted.first().copied().zip(sorted.last().copied()).filter(|_| number).map(Into::into),
            grid: if discrete && kind != ColumnKind::Truth {
                Grid::of(&sorted).map(|grid| grid.step)
            } else {
                None
            },
            atom: if number { self.atom(sorted.len()) } else { None },
            far_out: if number { self.far_out(&sorted) } else { None },
            odd,
            counts_rows: kind == ColumnKind::Whole && counts_rows(&self.values),
        }
    }

    fn kind(&self) -> ColumnKind {
        match self.counts.map(|count| count > 0) {
            [false, false, false, false] => ColumnKind::Empty,
            [true, false, false, false] => {
                let whole = self.values.iter().all(|value| value.is_nan() || value.fract() == 0.0);
                if whole { ColumnKind::Whole } else { ColumnKind::Number }
            }
            [false, true, false, false] => ColumnKind::Truth,
            [false, false, true, false] => ColumnKind::Time,
            _ => ColumnKind::Text,
        }
    }

    /// The commonest of many different values, where it stands out.
    fn atom(&self, numbers: usize) -> Option<Atom> {
        const SHARE: f64 = 0.05;
        const ROWS: usize = 10;
        const DIFFERENT: usize = 20;
        let mut commonest: Vec<(usize, u64)> =
            self.numbers.iter().map(|(&bits, &count)| (count, bits)).collect();
        commonest.sort_unstable_by(|a, b| b.cmp(a));
        let [(first, bits), (second, _), ..] = commonest[..] else { return None };
        let share = first as f64 / numbers as f64;
        let stands_out = first >= ROWS && first > 3 * second && share >= SHARE && commonest.len() > DIFFERENT;
        stands_out.then(|| Atom { value: f64::from_bits(bits), share })
    }

    fn far_out(&self, sorted: &[f64]) -> Option<FarOut> {
        const DISTANCES: f64 = 10.0;
        const NAMED: usize = 5;
        const ROWS: usize = 20;
        if sorted.len() < ROWS {
            return None;
        }
        let [low, high] = [sorted.len() / 4, 3 * sorted.len() / 4].map(|place| sorted[place]);
        let reach = DISTANCES * (high - low);
        let far = self
            .values
            .iter()
            .zip(&self.places)
            .filter(|(value, _)| reach > 0.0 && (**value < low - reach || **value > high + reach));
        let places: Vec<u64> = far.map(|(_, &place)| place).collect();
        (!places.is_empty())
            .then(|| FarOut { rows: places.len(), places: places[..places.len().min(NAMED)].to_vec() })
    }
}

fn counts_rows(values: &[f64]) -> bool {
    const ROWS: usize = 10;
    let Some(&first) = values.first() else { return false };
    values.len() >= ROWS
        && (first == 0.0 || first == 1.0)
        && values.iter().enumerate().all(|(row, &value)| value == first + row as f64)
}
