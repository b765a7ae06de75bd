//! What a value in a Parquet file means: a number, or a text that is passed through.
//! The parquet crate's own conversion panics on types it does not know and on times outside of its calendar.

use half::f16;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::schema::types::ColumnDescPtr;

use super::cell::exceeds_doubles;
use super::csv::INEXACT;
use crate::data::reading::ValueKind;
use crate::data::time::{DAY, TimeFormat, date};

/// A value as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// With the bits that it is stored in.
    Int(i64, u32),
    /// Nanoseconds of a day, low word first, and its Julian day.
    Int96(&'a [u32]),
    Float(f32),
    Double(f64),
    Bytes(&'a [u8]),
}

/// What the values of a column stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Themselves.
    Number,
    /// Integers without a sign.
    Unsigned,
    /// Integers, 10^scale of which make 1.
    Decimal(i32),
    /// IEEE 754 halves.
    Half,
    /// UTF-8.
    Text,
    /// Days since 1970.
    Date,
    /// So many parts of a second since 1970, in UTC or in a zone that the file does not name.
    Timestamp { parts: i64, utc: bool },
}

impl Meaning {
    /// What the column's types say.
    pub(super) fn of(description: &ColumnDescPtr) -> Self {
        let (converted, physical) = (description.converted_type(), description.physical_type());
        match (description.logical_type_ref(), converted) {
            (Some(LogicalType::Decimal(_)), _) | (_, ConvertedType::DECIMAL) => {
                Self::Decimal(description.type_scale())
            }
            (Some(LogicalType::Date), _) | (_, ConvertedType::DATE) if physical == Type::INT32 => Self::Date,
            (Some(LogicalType::Timestamp(stamp)), _) if physical == Type::INT64 => {
                let parts = match stamp.unit {
                    TimeUnit::MILLIS => 1_000,
                    TimeUnit::MICROS => 1_000_000,
                    TimeUnit::NANOS => NANOSECONDS,
                };
                Self::Timestamp { parts, utc: stamp.is_adjusted_to_u_t_c }
            }
            (_, ConvertedType::TIMESTAMP_MILLIS) if physical == Type::INT64 => {
                Self::Timestamp { parts: 1_000, utc: true }
            }
            (_, ConvertedType::TIMESTAMP_MICROS) if physical == Type::INT64 => {
                Self::Timestamp { parts: 1_000_000, utc: true }
            }
            (Some(LogicalType::Integer(integer)), _) if !integer.is_signed => Self::Unsigned,
            (
                _,
                ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64,
            ) => Self::Unsigned,
            (Some(LogicalType::Float16), _) => Self::Half,
            _ if physical == Type::INT96 => Self::Timestamp { parts: NANOSECONDS, utc: false },
            _ if matches!(physical, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY) => Self::Text,
            _ => Self::Number,
        }
    }

    /// Whether a flow can be made of it.
    pub(super) fn is_number(self) -> bool {
        self != Self::Text
    }

    /// What its numbers were.
    pub(super) fn kind(self, description: &ColumnDescPtr) -> ValueKind {
        match self {
            Self::Date => ValueKind::Time(TimeFormat::DATE),
            Self::Timestamp { parts, utc } => ValueKind::Time(TimeFormat::of_parts(parts, utc)),
            _ if description.physical_type() == Type::BOOLEAN => ValueKind::Truth,
            _ => ValueKind::Number,
        }
    }

    /// The number, NaN where there is none, or what is wrong with it.
    pub(super) fn number(self, value: Value<'_>) -> Result<f64, &'static str> {
        let whole = match (value, self) {
            (Value::Int(value, 64), Self::Number) => Some(i128::from(value)),
            (Value::Int(value, 64), Self::Unsigned) => Some(i128::from(value as u64)),
            _ => None,
        };
        match self.double(value) {
            _ if whole.is_some_and(exceeds_doubles) => Err(INEXACT),
            number if number.is_infinite() => Err("is not finite; drop the row or fill in a number"),
            number => Ok(number),
        }
    }

    /// The nearest number; NaN where there is none.
    fn double(self, value: Value<'_>) -> f64 {
        match (value, self) {
            (Value::Null, _) => f64::NAN,
            (Value::Bool(value), _) => f64::from(u8::from(value)),
            (Value::Int(days, _), Self::Date) => days as f64 * DAY as f64,
            (Value::Int(time, _), Self::Timestamp { parts, .. }) => {
                // The whole as a double would lose the end of nanoseconds.
                let (seconds, part) = (time / parts, time % parts);
                seconds as f64 + part as f64 / parts as f64
            }
            (Value::Int96(words), _) => julian(words)
                .map_or(f64::NAN, |(seconds, nanoseconds)| seconds as f64 + nanoseconds as f64 * 1e-9),
            (Value::Int(value, 32), Self::Unsigned) => f64::from(value as u32),
            (Value::Int(value, _), Self::Unsigned) => value as u64 as f64,
            (Value::Int(value, _), Self::Decimal(scale)) => scaled(value as f64, scale),
            (Value::Int(value, _), _) => value as f64,
            (Value::Float(value), _) => f64::from(value),
            (Value::Double(value), _) => value,
            (Value::Bytes(&[low, high]), Self::Half) => f16::from_le_bytes([low, high]).to_f64(),
            (Value::Bytes(bytes), Self::Decimal(scale)) => scaled(big_endian(bytes), scale),
            (Value::Bytes(_), _) => f64::NAN,
        }
    }

    /// The text, empty where there is no value; `None` where its bytes are no text.
    pub(super) fn text(self, value: Value<'_>) -> Option<String> {
        Some(match (value, self) {
            (Value::Null, _) => String::new(),
            (Value::Bool(value), _) => value.to_string(),
            (Value::Int(days, _), Self::Date) => date(days),
            (Value::Int(time, _), Self::Timestamp { parts, utc }) => {
                let zone = if utc { "Z" } else { "" };
                timestamp(time.div_euclid(parts), time.rem_euclid(parts), parts) + zone
            }
            (Value::Int96(words), _) => julian(words)
                .map_or_else(String::new, |(seconds, part)| timestamp(seconds, part, NANOSECONDS)),
            (Value::Int(value, 32), Self::Unsigned) => (value as u32).to_string(),
            (Value::Int(value, _), Self::Unsigned) => (value as u64).to_string(),
            (Value::Int(value, _), Self::Number) => value.to_string(),
            (Value::Float(value), _) => format!("{value:?}"),
            (Value::Double(value), _) => format!("{value:?}"),
            (Value::Bytes(bytes), Self::Text) => std::str::from_utf8(bytes).ok()?.to_owned(),
            (value, _) => format!("{:?}", self.double(value)),
        })
    }
}

/// Nanoseconds in a second.
const NANOSECONDS: i64 = 1_000_000_000;

/// Seconds since 1970 and nanoseconds of one, of three words: nanoseconds of a day, low word first, and its Julian day.
fn julian(words: &[u32]) -> Option<(i64, i64)> {
    const EPOCH: i64 = 2_440_588;
    let &[low, high, day] = words else { return None };
    let nanoseconds = (i64::from(high) << 32) | i64::from(low);
    let seconds = (i64::from(day) - EPOCH) * DAY + nanoseconds.div_euclid(NANOSECONDS);
    Some((seconds, nanoseconds.rem_euclid(NANOSECONDS)))
}

/// `unscaled` / 10^scale.
fn scaled(unscaled: f64, scale: i32) -> f64 {
    unscaled / 10f64.powi(scale)
}

/// A two's complement integer, highest byte first.
fn big_endian(bytes: &[u8]) -> f64 {
    let negative = bytes.first().is_some_and(|&byte| byte >= 0x80);
    let flip = if negative { 0xff } else { 0 };
    let magnitude = bytes.iter().fold(0.0, |sum, &byte| sum * 256.0 + f64::from(byte ^ flip));
    if negative { -magnitude - 1.0 } else { magnitude }
}

/// Seconds since 1970 and `part` of `parts` of one, as ISO 8601.
fn timestamp(seconds: i64, part: i64, parts: i64) -> String {
    let (day, second) = (date(seconds.div_euclid(DAY)), seconds.rem_euclid(DAY));
    let digits = parts.ilog10() as usize;
    let fraction = if part == 0 { String::new() } else { format!(".{part:0digits$}") };
    format!("{day}T{:02}:{:02}:{:02}{fraction}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_those_of_the_calendar() {
        for (days, want) in
            [(0, "1970-01-01"), (-1, "1969-12-31"), (19_782, "2024-02-29"), (11_017, "2000-03-01")]
        {
            assert_eq!(date(days), want);
        }
        let local = Meaning::Timestamp { parts: 1_000, utc: false };
        let text = |meaning: Meaning, value| meaning.text(value).expect("text");
        assert_eq!(text(local, Value::Int(-1, 64)), "1969-12-31T23:59:59.999");
        assert_eq!(local.number(Value::Int(-1, 64)), Ok(-0.001));
        let utc = Meaning::Timestamp { parts: 1_000, utc: true };
        assert_eq!(text(utc, Value::Int(1_709_210_096_000, 64)), "2024-02-29T12:34:56Z");
        assert_eq!(utc.number(Value::Int(1_709_210_096_000, 64)), Ok(1_709_210_096.0));
        assert_eq!(Meaning::Date.number(Value::Int(19_782, 32)), Ok(1_709_164_800.0));
        for extreme in [i64::MIN, i64::MAX] {
            assert!(!text(utc, Value::Int(extreme, 64)).is_empty());
        }
        assert_eq!(text(local, Value::Int96(&[1, 0, 2_440_589])), "1970-01-02T00:00:00.000000001");
        assert_eq!(local.number(Value::Int96(&[500_000_000, 0, 2_440_589])), Ok(86_400.5));
        assert!(!text(local, Value::Int96(&[u32::MAX; 3])).is_empty());
    }

    #[test]
    fn integers_decimals_and_halves_are_numbers() {
        for (meaning, value, want) in [
            (Meaning::Unsigned, Value::Int(-1, 32), 4_294_967_295.0),
            (Meaning::Unsigned, Value::Int(1 << 53, 64), 9_007_199_254_740_992.0),
            (Meaning::Number, Value::Int(-7, 32), -7.0),
            (Meaning::Number, Value::Bool(true), 1.0),
            (Meaning::Decimal(2), Value::Int(12_345, 32), 123.45),
            (Meaning::Decimal(1), Value::Bytes(&[0xff, 0xfe]), -0.2),
            (Meaning::Decimal(0), Value::Bytes(&[1, 0, 0]), 65_536.0),
            (Meaning::Half, Value::Bytes(&[0, 0x3c]), 1.0),
        ] {
            assert_eq!(meaning.number(value), Ok(want), "{meaning:?} {value:?}");
        }
        assert!(Meaning::Number.number(Value::Null).expect("missing").is_nan());
        for (meaning, value) in [
            (Meaning::Unsigned, Value::Int(-1, 64)),
            (Meaning::Number, Value::Int((1 << 53) + 1, 64)),
            (Meaning::Number, Value::Int(i64::MIN, 64)),
        ] {
            assert_eq!(meaning.number(value), Err(INEXACT), "{meaning:?} {value:?}");
        }
        assert!(Meaning::Number.number(Value::Double(f64::INFINITY)).is_err());
        assert_eq!(Meaning::Unsigned.text(Value::Int(-1, 32)).as_deref(), Some("4294967295"));
        assert_eq!(Meaning::Number.text(Value::Double(0.1)).as_deref(), Some("0.1"));
        assert_eq!(Meaning::Text.text(Value::Bytes(b"caf\xe9")), None);
    }
}
