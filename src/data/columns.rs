//! Columns chosen by name or by position, with help for a name that is not there.
//! It stands between a table's header and the numbers that are read of it.

use std::collections::HashMap;

use crate::error::{Error, Remedy, Result};
use crate::shown::{shown, shown_list};

/// Columns to keep and columns to leave out, as the user wrote them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Names, positions (from 1) or ranges of positions such as `3-7`; empty keeps all, in the table's order.
    pub keep: Vec<String>,
    /// The same, to leave out.
    pub drop: Vec<String>,
}

impl Selection {
    /// Splits a list such as `a,b,3-7`; a name with a comma is quoted as in CSV.
    pub fn split(list: &str) -> Vec<String> {
        let mut records =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(list.as_bytes());
        let record = records.records().next().and_then(std::result::Result::ok).unwrap_or_default();
        record.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    /// Places in `columns` of the columns chosen, in the order of `keep`. `name` is what errors call the table.
    ///
    /// An item is a name where a column is called that, else a position.
    ///
    /// # Errors
    /// [`Error::Data`] for an unknown name, with those like it; a position that is not there; a column that is named
    /// twice in `keep`; and when none is left.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::Selection;
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// let columns = ["id", "a", "b", "c"].map(String::from);
    /// let selection = Selection { keep: Selection::split("c,2-3"), drop: Selection::split("b") };
    /// assert_eq!(selection.resolve("t", &columns)?, [3, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resolve(&self, name: &str, columns: &[String]) -> Result<Vec<usize>> {
        let mut kept: Vec<usize> = Vec::new();
        if self.keep.is_empty() {
            kept.extend(0..columns.len());
        }
        for item in &self.keep {
            for place in places(name, columns, item)? {
                if kept.contains(&place) {
                    let (place, column) = (place + 1, shown(&columns[place]));
                    return Err(Error::data(
                        name,
                        format!("column {place} (`{column}`) is chosen twice, by `{}` too", shown(item)),
                    ));
                }
                kept.push(place);
            }
        }
        for item in &self.drop {
            let dropped = places(name, columns, item)?;
            kept.retain(|place| !dropped.contains(place));
        }
        if kept.is_empty() {
            return Err(Error::data(
                name,
                format!("no column is left of its {}", count(columns.len(), "column")),
            ));
        }
        Ok(kept)
    }
}

/// Where the columns are that `item` names.
fn places(name: &str, columns: &[String], item: &str) -> Result<std::ops::Range<usize>> {
    if let Some(place) = columns.iter().position(|column| column == item) {
        return Ok(place..place + 1);
    }
    let position = |text: &str| text.trim().parse::<usize>().ok();
    let range = match item.split_once('-') {
        Some((first, last)) => position(first).zip(position(last)),
        None => position(item).map(|place| (place, place)),
    };
    match range {
        Some((first, last)) if first >= 1 && first <= last && last <= columns.len() => Ok(first - 1..last),
        Some(_) => Err(Error::data(
            name,
            format!("there is no column {item}: positions are 1 to {}, a range ascends", columns.len()),
        )),
        None => Err(Error::data(name, unknown_column(item, columns))),
    }
}

/// That there is no column `wanted`, and which are like it, or else which there are.
pub fn unknown_column(wanted: &str, columns: &[String]) -> String {
    let near: Vec<String> =
        near_matches(wanted, columns).into_iter().map(|name| format!("`{}`", shown(name))).collect();
    let wanted = shown(wanted);
    if near.is_empty() {
        format!("there is no column `{wanted}`; the columns are {}", shown_list(columns))
    } else {
        format!("there is no column `{wanted}`; did you mean {}?", near.join(" or "))
    }
}

/// At most three of `names` that are like `text`, the likest first.
pub fn near_matches<'a>(text: &str, names: &'a [impl AsRef<str>]) -> Vec<&'a str> {
    const ALIKE: f64 = 0.8;
    /// Longest text in bytes that is compared: the work grows with its square.
    const LONGEST: usize = 256;
    if text.len() > LONGEST {
        return Vec::new();
    }
    let text = text.to_lowercase();
    let mut near: Vec<(f64, &str)> = names
        .iter()
        .map(AsRef::as_ref)
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::jaro_winkler(&text, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Where among `columns` those of `want` are, in their order, and which are left over. `name` is what errors call the table,
/// and `wanting` says who wants them, such as `the model was trained on`.
///
/// Columns are found by name. A table that is not `named` and has as many columns as are wanted is taken as it stands.
///
/// # Errors
/// [`Error::Data`] with the column that is missing and the names like it, and the columns that are wanted.
pub fn find_columns(
    want: &[String],
    wanting: &str,
    name: &str,
    columns: &[String],
    named: bool,
) -> Result<(Vec<usize>, Vec<usize>)> {
    if !named && columns.len() == want.len() {
        return Ok(((0..want.len()).collect(), Vec::new()));
    }
    let mut left = vec![true; columns.len()];
    let mut places = Vec::with_capacity(want.len());
    for wanted in want {
        let Some(place) = columns.iter().position(|column| column == wanted) else {
            let wanting = format!("{wanting} {} ({})", count(want.len(), "column"), shown_list(want));
            return Err(if named {
                // The first part may be a question.
                let problem = unknown_column(wanted, columns);
                let end = if problem.ends_with('?') { "" } else { "." };
                Error::data(name, format!("{problem}{end} In any order, {wanting}"))
            } else {
                let got = count(columns.len(), "column");
                let error = Error::data(name, format!("has {got} without names, but {wanting}"));
                error.advise(Remedy::ChooseColumns)
            });
        };
        left[place] = false;
        places.push(place);
    }
    let extras = (0..columns.len()).filter(|&place| left[place]).collect();
    Ok((places, extras))
}

/// The places of the first two of `columns` with one name.
pub(crate) fn repeated(columns: &[String]) -> Option<[usize; 2]> {
    let mut seen = HashMap::with_capacity(columns.len());
    columns.iter().enumerate().find_map(|(place, name)| seen.insert(name, place).map(|first| [first, place]))
}

/// `1 column`, `2 columns`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<String> {
        ["alcohol", "ash", "b, too", "4", "hue"].map(String::from).to_vec()
    }

    fn resolve(keep: &str, drop: &str) -> Result<Vec<usize>> {
        Selection { keep: Selection::split(keep), drop: Selection::split(drop) }.resolve("t.csv", &columns())
    }

    #[test]
    fn names_positions_and_ranges_choose_in_their_order() {
        for (keep, drop, want) in [
            ("", "", &[0, 1, 2, 3, 4][..]),
            ("hue,alcohol", "", &[4, 0]),
            ("2-3,1", "", &[1, 2, 0]),
            ("\"b, too\"", "", &[2]),
            // A column's name comes before a position.
            ("4", "", &[3]),
            ("", "ash,5", &[0, 2, 3]),
            ("1-5", "2-3", &[0, 3, 4]),
            (" ash , hue ,", "", &[1, 4]),
        ] {
            assert_eq!(resolve(keep, drop).expect(keep), want, "{keep} {drop}");
        }
    }

    #[test]
    fn endless_names_are_like_none() {
        let endless = "x".repeat(70_000);
        assert_eq!(near_matches(&endless, std::slice::from_ref(&endless)), [""; 0]);
        assert_eq!(near_matches("hue", &[endless, "hues".into()]), ["hues"]);
    }

    #[test]
    fn unknown_columns_list_the_near_ones_and_impossible_choices_say_why() {
        for (keep, drop, want) in [
            ("alcohl", "", "there is no column `alcohl`; did you mean `alcohol`?"),
            ("", "HUES", "did you mean `hue`?"),
            ("zzz", "", "the columns are alcohol, ash, b, too, 4, hue"),
            ("6", "", "no column 6: positions are 1 to 5"),
            ("0", "", "no column 0"),
            ("3-2", "", "a range ascends"),
            ("2-9", "", "no column 2-9"),
            ("99999999999999999999", "", "no column `99999999999999999999`"),
            ("ash,1-2", "", "column 2 (`ash`) is chosen twice, by `1-2` too"),
            ("", "1-5", "no column is left of its 5 columns"),
        ] {
            let message = resolve(keep, drop).expect_err(want).to_string();
            assert!(message.starts_with("t.csv: ") && message.contains(want), "{message}");
        }
    }
}
