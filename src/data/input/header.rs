//! Whether the first row of a text names its columns: decided by the types of the rows below.

use csv::ByteRecord;

use super::cell::{Cell, Cells};
use crate::data::reading::{Names, ValueKind};

/// What most cells of each column of `rows` are; `None` for texts.
pub(super) fn kinds(rows: &[ByteRecord], cells: &Cells) -> Vec<Option<ValueKind>> {
    let width = rows.iter().map(ByteRecord::len).max().unwrap_or_default();
    let mut counts = vec![[0usize; 3]; width];
    for row in rows {
        for (counts, field) in counts.iter_mut().zip(row) {
            match cells.read(field) {
                Cell::Missing => {}
                Cell::Text => counts[0] += 1,
                Cell::Value(_, ValueKind::Truth) => counts[1] += 1,
                Cell::Value(..) | Cell::Infinite | Cell::Inexact => counts[2] += 1,
            }
        }
    }
    let kind = |[texts, truths, numbers]: [usize; 3]| match () {
        () if texts > truths + numbers => None,
        () if truths > texts + numbers => Some(ValueKind::Truth),
        () => Some(ValueKind::Number),
    };
    counts.into_iter().map(kind).collect()
}

/// What the rows below the first have in a column.
#[derive(Clone, Copy, Default)]
struct Below {
    numbers: usize,
    texts: usize,
    fractions: usize,
    /// Whole numbers that may be years.
    years: usize,
}

impl Below {
    fn add(&mut self, cell: Cell) {
        match cell {
            Cell::Missing => {}
            Cell::Text => self.texts += 1,
            Cell::Value(value, kind) => {
                self.numbers += 1;
                self.fractions += usize::from(value.fract() != 0.0 && kind == ValueKind::Number);
                self.years += usize::from(is_year(value));
            }
            Cell::Infinite | Cell::Inexact => self.numbers += 1,
        }
    }

    fn is_of_numbers(&self) -> bool {
        self.numbers > 0 && self.numbers >= self.texts
    }
}

/// Where the names are from, by `first`, the first row, and the `rows` below it.
pub(super) fn names(first: &ByteRecord, rows: &[ByteRecord], cells: &Cells) -> Names {
    let heads: Vec<Cell> = first.iter().map(|field| cells.read(field)).collect();
    let mut below = vec![Below::default(); heads.len()];
    for row in rows.iter().filter(|row| row.len() == heads.len()) {
        below.iter_mut().zip(row).for_each(|(column, field)| column.add(cells.read(field)));
    }
    let typed: Vec<(Cell, Below)> =
        heads.iter().copied().zip(below).filter(|(_, below)| below.is_of_numbers()).collect();
    if typed.is_empty() {
        return if heads.contains(&Cell::Text) { Names::FirstRow } else { Names::Absent };
    }
    if count_up(&typed) {
        let word = |cell: &Cell| *cell == Cell::Text;
        return if heads.iter().any(word) { Names::FirstRow } else { Names::FirstRowOfNumbers };
    }
    let fraction = |cell: &Cell| matches!(cell, Cell::Value(value, kind) if value.fract() != 0.0 || *kind != ValueKind::Number);
    // A word in a row of measurements is one that does not belong there.
    let measured = typed.iter().any(|(head, _)| fraction(head));
    let named = typed.iter().any(|(head, _)| *head == Cell::Text);
    if named && !measured { Names::FirstRow } else { Names::Absent }
}

/// Whether the first row counts up in whole numbers that do not look like those below it: positions, years, wavelengths.
fn count_up(typed: &[(Cell, Below)]) -> bool {
    /// Columns from which on a row that is 0, 1, 2 and so on is not so by chance.
    const MANY: usize = 8;
    // An empty field is where an index has its name, and a word says nothing of the others.
    let heads: Vec<(f64, Below)> = typed
        .iter()
        .filter_map(|&(head, below)| match head {
            Cell::Value(value, ValueKind::Number) => Some((value, below)),
            _ => None,
        })
        .collect();
    let others =
        typed.iter().any(|(head, _)| matches!(head, Cell::Value(_, kind) if *kind != ValueKind::Number));
    let [(first, _), (second, _), ..] = heads[..] else { return false };
    let step = second - first;
    let counts = heads.iter().enumerate().all(|(index, &(head, _))| head == first + index as f64 * step)
        && step.fract() == 0.0
        && first.fract() == 0.0
        && step > 0.0
        && first >= 0.0;
    if !counts || others {
        return false;
    }
    let positions = step == 1.0 && first <= 1.0;
    let years = heads.iter().all(|&(head, _)| is_year(head));
    let fractions = 2 * heads.iter().filter(|(_, below)| below.fractions > 0).count() >= heads.len();
    let no_years = heads.iter().all(|(_, below)| below.years == 0);
    (fractions && (heads.len() > 2 || positions || years))
        || (positions && heads.len() >= MANY)
        || (years && no_years)
}

fn is_year(value: f64) -> bool {
    value.fract() == 0.0 && (1800.0..=2100.0).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_below_decide_what_the_first_row_is() {
        use Names::{Absent, FirstRow, FirstRowOfNumbers};
        for (text, want) in [
            ("a,b\n1,2\n", FirstRow),
            ("a,b\n", FirstRow),
            ("1,2\n", Absent),
            ("1,2,3\n4,5,6\n", Absent),
            ("1,2\n3,NaN\n", Absent),
            // `to_csv` of positions, with and without an index.
            ("0,1,2\n0.5,1.5,2.5\n1.25,2,3\n", FirstRowOfNumbers),
            ("0,1\n0.5,1.5\n1.25,2.5\n", FirstRowOfNumbers),
            (",0,1,2\n0,0.5,1.5,2.5\n1,1.25,2,3\n", FirstRowOfNumbers),
            ("0,1,2,3,4,5,6,7\n5,5,3,1,0,2,8,9\n", FirstRowOfNumbers),
            ("0,1,2,target\n0.5,1.5,2.5,1\n1.25,2.5,3.5,0\n", FirstRow),
            ("2001,2002\n17,18\n20,21\n", FirstRowOfNumbers),
            ("400,410,420\n0.1,0.2,0.3\n", FirstRowOfNumbers),
            // Rows of years, and of whole numbers.
            ("2001,2002\n2003,2005\n", Absent),
            ("0,1,2\n3,1,2\n", Absent),
            ("3,1,2\n0.5,1.5,2.5\n", Absent),
            // iris.data: a text in each row.
            ("5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n", Absent),
            ("5,3,Iris-setosa\n4,3,Iris-setosa\n", Absent),
            ("x,y,kind\n4,3,Iris-setosa\n", FirstRow),
            // A word where a number should be is no name of a column.
            ("1.5,2.5,unknown\n3.5,4.5,5.5\n", Absent),
            ("true,x\nfalse,y\n", Absent),
            ("2024-01-01,1\n2024-01-02,2\n", Absent),
            ("name,city\nx,y\n", FirstRow),
            ("a,b\n1,2\n3,x\n4,y\n5,6\n", FirstRow),
        ] {
            let mut reader =
                csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let rows: Vec<ByteRecord> = reader.byte_records().map(|row| row.expect("CSV")).collect();
            assert_eq!(names(&rows[0], &rows[1..], &Cells::default()), want, "{text:?}");
        }
    }
}
