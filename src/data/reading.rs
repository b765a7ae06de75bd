//! How a table is read where its file does not say: what a person asks for, and what was taken.
//! Commands make a [`Reading`] of their flags, and readers give back the [`Dialect`] that they decided on.

use super::format::Encoding;
use super::time::TimeFormat;
use crate::error::{Error, Result};
use crate::shown::shown;

/// What stands between the fields of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delimiter {
    /// One ASCII character.
    Byte(u8),
    /// Any run of spaces and tabs.
    WhiteSpace,
}

impl Delimiter {
    /// The delimiters with names of their own.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("comma", Self::Byte(b',')),
        ("semicolon", Self::Byte(b';')),
        ("tab", Self::Byte(b'\t')),
        ("space", Self::WhiteSpace),
    ];

    /// The delimiter called `text`: a name of [`Delimiter::NAMED`], or the character itself.
    ///
    /// # Errors
    /// [`Error::Argument`] with the names, for another text.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::Delimiter;
    ///
    /// # fn main() -> moonflow::Result<()> {
    /// assert_eq!(Delimiter::parse("tab")?, Delimiter::Byte(b'\t'));
    /// assert_eq!(Delimiter::parse(";")?, Delimiter::Byte(b';'));
    /// assert!(Delimiter::parse("::").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let named = Self::NAMED.iter().find(|(name, _)| *name == text).map(|(_, delimiter)| *delimiter);
        let itself = || match *text.as_bytes() {
            [b' '] => Some(Self::WhiteSpace),
            // What numbers and quotes are made of, or ends a line.
            [byte] if byte == b'\t' || byte.is_ascii_punctuation() && !b"\"'+-.#".contains(&byte) => {
                Some(Self::Byte(byte))
            }
            _ => None,
        };
        named.or_else(itself).ok_or_else(|| {
            Error::Argument(format!(
                "`{}` is no delimiter; expected comma, semicolon, tab, space or a character such as |",
                shown(text)
            ))
        })
    }

    /// What [`Delimiter::parse`] takes.
    pub fn name(self) -> String {
        let named = Self::NAMED.iter().find(|(_, delimiter)| *delimiter == self);
        match (named, self) {
            (Some((name, _)), _) => (*name).to_owned(),
            (None, Self::Byte(byte)) => char::from(byte).to_string(),
            (None, Self::WhiteSpace) => unreachable!("invariant: white space has a name"),
        }
    }
}

/// What stands between the whole part of a number and its fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decimal {
    /// As in 1.5.
    #[default]
    Point,
    /// As in 1,5.
    Comma,
}

impl Decimal {
    /// Both, with their names.
    pub const ALL: [(&'static str, Self); 2] = [("point", Self::Point), ("comma", Self::Comma)];

    /// The name, as in [`Decimal::ALL`].
    pub fn name(self) -> &'static str {
        Self::ALL[usize::from(self == Self::Comma)].0
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::Point { Self::Comma } else { Self::Point }
    }
}

/// What is asked for of a reader. `None` leaves the decision to the file's name and its first rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The format, whatever the file's name.
    pub encoding: Option<Encoding>,
    /// Whether the first row of a text names the columns.
    pub header: Option<bool>,
    /// What separates the fields of a text.
    pub delimiter: Option<Delimiter>,
    /// How the numbers of a text are written.
    pub decimal: Option<Decimal>,
    /// Words that say that there is no number, besides the usual ones. Numbers among them mean that number, in every
    /// format.
    pub missing_values: Vec<String>,
}

impl Reading {
    /// The numbers among the words for missing values.
    pub(super) fn missing_numbers(&self) -> Vec<f64> {
        self.missing_values.iter().filter_map(|word| word.trim().parse().ok()).collect()
    }
}

/// Where the names of a text's columns are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// The first row, which has text where the rows below have numbers.
    FirstRow,
    /// The first row, although it is numbers: they count up, and those below do not look like them.
    FirstRowOfNumbers,
    /// The comment above the first row.
    Comment,
    /// There are none: the first row is a row like the others.
    Absent,
}

/// How a text was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// What separates fields.
    pub delimiter: Delimiter,
    /// What the file's name promises to separate them.
    pub usual: Delimiter,
    /// How numbers are written.
    pub decimal: Decimal,
    /// Where the names of the columns are from.
    pub names: Names,
}

/// What the numbers of a column were in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueKind {
    /// Numbers.
    Number,
    /// True and false, which are 1 and 0.
    Truth,
    /// Dates or times, which are seconds since 1970 began in UTC.
    Time(TimeFormat),
}

impl ValueKind {
    /// That of a column with values of this kind and of `other`; `None` where they are none.
    pub(super) fn join(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Time(format), Self::Time(other)) => Some(Self::Time(format.join(other))),
            _ => (self == other).then_some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_characters_or_names_and_come_back() {
        for (text, want) in [
            ("comma", Delimiter::Byte(b',')),
            ("tab", Delimiter::Byte(b'\t')),
            ("\t", Delimiter::Byte(b'\t')),
            ("space", Delimiter::WhiteSpace),
            (" ", Delimiter::WhiteSpace),
            ("|", Delimiter::Byte(b'|')),
        ] {
            let delimiter = Delimiter::parse(text).expect(text);
            assert_eq!(delimiter, want);
            assert_eq!(Delimiter::parse(&delimiter.name()).expect(text), want);
        }
        for text in ["", "x", "5", "-", ".", "\"", "\n", "é", "commas"] {
            let message = Delimiter::parse(text).expect_err(text).to_string();
            assert!(message.contains("expected comma, semicolon"), "{message}");
        }
    }
}
