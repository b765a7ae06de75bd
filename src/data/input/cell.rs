//! What a field of text is: a number, true or false, a time, missing, or none of these.
//! The sniffer asks this of a table's first rows, and the decoder of each cell that is to be a number.

use crate::data::reading::{Decimal, Reading, ValueKind};
use crate::data::time::TimeFormat;

/// The whole numbers up to this one are told apart in double precision.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::data) enum Cell {
    Missing,
    /// A finite number, and what it was.
    Value(f64, ValueKind),
    Infinite,
    /// A whole number that double precision would change.
    Inexact,
    Text,
}

/// How fields are understood.
#[derive(Clone, Debug, Default)]
pub(in crate::data) struct Cells {
    pub(super) decimal: Decimal,
    /// Words for missing values, besides the usual ones.
    missing: Vec<String>,
    /// Numbers that mean the same.
    pub(super) missing_numbers: Vec<f64>,
}

impl Cells {
    pub(super) fn new(reading: &Reading, decimal: Decimal) -> Self {
        let missing = reading.missing_values.iter().map(|word| word.trim().to_owned()).collect();
        Self { decimal, missing, missing_numbers: reading.missing_numbers() }
    }

    /// Whether `cell` of a category says that it has none: as for numbers, but for words that may be its name.
    pub(super) fn is_missing_category(&self, cell: &str) -> bool {
        const NAMES: [&str; 3] = ["none", "-", "."];
        let cell = cell.trim();
        self.missing.iter().any(|word| word == cell)
            || is_missing(cell.as_bytes()) && !NAMES.iter().any(|name| name.eq_ignore_ascii_case(cell))
    }

    /// What `field` is.
    pub(in crate::data) fn read(&self, field: &[u8]) -> Cell {
        let field = field.trim_ascii();
        if self.missing.iter().any(|word| word.as_bytes() == field) {
            return Cell::Missing;
        }
        match parse(field, self.decimal) {
            Some(value) if value.is_nan() || self.missing_numbers.contains(&value) => Cell::Missing,
            Some(value) if value.is_infinite() => Cell::Infinite,
            Some(value) if is_inexact(field, value) => Cell::Inexact,
            Some(value) => Cell::Value(value, ValueKind::Number),
            None if is_missing(field) => Cell::Missing,
            None => match (truth(field), std::str::from_utf8(field).ok().and_then(TimeFormat::read)) {
                (Some(truth), _) => Cell::Value(f64::from(u8::from(truth)), ValueKind::Truth),
                (None, Some((seconds, format))) => Cell::Value(seconds, ValueKind::Time(format)),
                (None, None) => Cell::Text,
            },
        }
    }
}

/// The number that `field` is, NaN and infinities included.
pub(super) fn parse(field: &[u8], decimal: Decimal) -> Option<f64> {
    let text = std::str::from_utf8(field).ok()?.trim();
    match decimal {
        Decimal::Point => text.parse().ok(),
        Decimal::Comma if text.contains('.') => None,
        // A comma more is no number either way.
        Decimal::Comma => text.replacen(',', ".", 1).parse().ok(),
    }
}

/// Whether `field` is a whole number, written as one, that double precision cannot tell from its neighbours.
fn is_inexact(field: &[u8], value: f64) -> bool {
    let whole = || field.iter().all(|byte| byte.is_ascii_digit() || b"+-".contains(byte));
    let exact = || std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    // One beside the limit rounds to it.
    value.abs() >= EXACT && whole() && exact().is_none_or(exceeds_doubles)
}

/// Whether double precision cannot tell the whole number `value` from its neighbours.
pub(super) fn exceeds_doubles(value: i128) -> bool {
    value.unsigned_abs() > EXACT as u128
}

/// Whether the field says that there is no number.
fn is_missing(field: &[u8]) -> bool {
    const MARKERS: [&[u8]; 13] = [
        b"na", b"n/a", b"nan", b"-nan", b"null", b"none", b"nat", b"#n/a", b"<na>", b"n.a.", b"?", b"-", b".",
    ];
    field.is_empty() || (field.len() <= 4 && MARKERS.iter().any(|marker| field.eq_ignore_ascii_case(marker)))
}

fn truth(field: &[u8]) -> Option<bool> {
    if field.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else {
        field.eq_ignore_ascii_case(b"false").then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Cell {
        Cells::default().read(text.as_bytes())
    }

    #[test]
    fn markers_are_missing_in_any_case_and_other_words_are_not() {
        for field in [
            "", "  ", "NA", "n/a", "NaN", "nan", "-NaN", "null", "None", " NULL ", "#N/A", "<NA>", "?", "-",
            ".", "NaT",
        ] {
            assert_eq!(read(field), Cell::Missing, "{field:?}");
        }
        for field in ["nay", "no", "x", "nanan", "--", "1,5", "T", "yes"] {
            assert_eq!(read(field), Cell::Text, "{field:?}");
        }
        let reading = Reading { missing_values: vec!["none yet".into(), "-9".into()], ..Reading::default() };
        let cells = Cells::new(&reading, Decimal::Point);
        assert_eq!((cells.read(b" none yet"), cells.read(b"-9")), (Cell::Missing, Cell::Missing));
        assert_eq!(reading.missing_numbers(), [-9.0]);
        assert_eq!(
            (cells.read(b"-9.00"), cells.read(b"-90")),
            (Cell::Missing, Cell::Value(-90.0, ValueKind::Number))
        );
        assert!(cells.is_missing_category("none yet") && !cells.is_missing_category("none"));
    }

    #[test]
    fn numbers_have_one_kind_of_decimal_and_keep_their_digits() {
        let comma = Cells { decimal: Decimal::Comma, ..Cells::default() };
        for (text, point, with_comma) in [
            ("1.5", Some(1.5), None),
            ("1,5", None, Some(1.5)),
            ("-2,5e-3", None, Some(-2.5e-3)),
            ("7", Some(7.0), Some(7.0)),
            ("1.234,5", None, None),
            ("1,234,5", None, None),
        ] {
            let want =
                |value: Option<f64>| value.map_or(Cell::Text, |value| Cell::Value(value, ValueKind::Number));
            assert_eq!((read(text), comma.read(text.as_bytes())), (want(point), want(with_comma)), "{text}");
        }
        assert_eq!((read("inf"), read("-1e999")), (Cell::Infinite, Cell::Infinite));
        for text in ["9007199254740993", "-9007199254740993", "123456789012345678901234567890"] {
            assert_eq!(read(text), Cell::Inexact, "{text}");
        }
        for text in ["9007199254740992", "-9007199254740992", "9007199254740994.0", "1e300"] {
            assert!(matches!(read(text), Cell::Value(_, ValueKind::Number)), "{text}");
        }
    }

    #[test]
    fn truths_and_times_are_numbers_of_their_kind() {
        for (text, want) in [("True", 1.0), ("FALSE", 0.0), ("true", 1.0)] {
            assert_eq!(read(text), Cell::Value(want, ValueKind::Truth));
        }
        for (text, want) in [
            ("1970-01-01", 0.0),
            ("2024-02-29", 1_709_164_800.0),
            ("2024-02-29T12:34:56", 1_709_210_096.0),
            ("2024-02-29 12:34:56.25", 1_709_210_096.25),
            ("2024-02-29T12:34:56Z", 1_709_210_096.0),
            ("2024-02-29T14:34:56+02:00", 1_709_210_096.0),
            ("2024-02-29 14:34:56+02:00", 1_709_210_096.0),
            ("2024-02-29 14:34:56+02", 1_709_210_096.0),
            ("2024-02-29T14:34:56.5+0200", 1_709_210_096.5),
            ("2024-02-29T12:34", 1_709_210_040.0),
            ("2024-02-29 12:34", 1_709_210_040.0),
            ("1969-12-31T23:59:59.999", -0.001),
        ] {
            let Cell::Value(got, ValueKind::Time(_)) = read(text) else { panic!("{text}: {:?}", read(text)) };
            assert!((got - want).abs() < 1e-6, "{text}: {got}");
        }
        for text in ["2023-02-29", "2024-13-01", "2024-02-29x", "29.02.2024", "12:34:56", "2024-02"] {
            assert_eq!(read(text), Cell::Text, "{text}");
        }
    }
}
