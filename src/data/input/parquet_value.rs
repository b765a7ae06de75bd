//! What a value in a Parquet file means: a number, or a text that is passed through.
//! The parquet crate's own conversion panics on types it does not know and on times outside of its calendar.

use half::f16;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::schema::types::ColumnDescPtr;

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
    /// So many parts of a second since 1970.
    Timestamp(i64),
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
                Self::Timestamp(match stamp.unit {
                    TimeUnit::MILLIS => 1_000,
                    TimeUnit::MICROS => 1_000_000,
                    TimeUnit::NANOS => 1_000_000_000,
                })
            }
            (_, ConvertedType::TIMESTAMP_MILLIS) if physical == Type::INT64 => Self::Timestamp(1_000),
            (_, ConvertedType::TIMESTAMP_MICROS) if physical == Type::INT64 => Self::Timestamp(1_000_000),
            (Some(LogicalType::Integer(integer)), _) if !integer.is_signed => Self::Unsigned,
            (
                _,
                ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64,
            ) => Self::Unsigned,
            (Some(LogicalType::Float16), _) => Self::Half,
            _ if physical == Type::INT96 => Self::Timestamp(1_000_000_000),
            _ if matches!(physical, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY) => Self::Text,
            _ => Self::Number,
        }
    }

    /// Whether a flow can be made of it.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Number | Self::Unsigned | Self::Decimal(_) | Self::Half)
    }

    /// The number; NaN where there is none.
    pub(super) fn number(self, value: Value<'_>) -> f64 {
        match (value, self) {
            (Value::Null | Value::Int96(_), _) => f64::NAN,
            (Value::Bool(value), _) => f64::from(u8::from(value)),
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

    /// The text; empty where there is none.
    pub(super) fn text(self, value: Value<'_>) -> String {
        match (value, self) {
            (Value::Null, _) => String::new(),
            (Value::Bool(value), _) => value.to_string(),
            (Value::Int(days, _), Self::Date) => date(days),
            (Value::Int(time, _), Self::Timestamp(parts)) => {
                timestamp(time.div_euclid(parts), time.rem_euclid(parts), parts)
            }
            (Value::Int96(&[low, high, day]), _) => {
                const EPOCH: i64 = 2_440_588;
                const DAY: i64 = 86_400;
                const PARTS: i64 = 1_000_000_000;
                let nanoseconds = (i64::from(high) << 32) | i64::from(low);
                let seconds = (i64::from(day) - EPOCH) * DAY + nanoseconds.div_euclid(PARTS);
                timestamp(seconds, nanoseconds.rem_euclid(PARTS), PARTS)
            }
            (Value::Int96(_), _) => String::new(),
            (Value::Int(value, 32), Self::Unsigned) => (value as u32).to_string(),
            (Value::Int(value, _), Self::Unsigned) => (value as u64).to_string(),
            (Value::Int(value, _), Self::Number) => value.to_string(),
            (Value::Float(value), _) => format!("{value:?}"),
            (Value::Double(value), _) => format!("{value:?}"),
            (Value::Bytes(bytes), Self::Text) => String::from_utf8_lossy(bytes).into_owned(),
            (value, _) => format!("{:?}", self.number(value)),
        }
    }
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

/// The day in the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: i64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Seconds since 1970 and `part` of `parts` of one, as ISO 8601.
fn timestamp(seconds: i64, part: i64, parts: i64) -> String {
    const DAY: i64 = 86_400;
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
        let stamp = Meaning::Timestamp(1_000);
        assert_eq!(stamp.text(Value::Int(-1, 64)), "1969-12-31T23:59:59.999");
        assert_eq!(stamp.text(Value::Int(1_709_210_096_000, 64)), "2024-02-29T12:34:56");
        for extreme in [i64::MIN, i64::MAX] {
            assert!(!stamp.text(Value::Int(extreme, 64)).is_empty());
        }
        assert_eq!(stamp.text(Value::Int96(&[1, 0, 2_440_589])), "1970-01-02T00:00:00.000000001");
        assert!(!stamp.text(Value::Int96(&[u32::MAX; 3])).is_empty());
    }

    #[test]
    fn integers_decimals_and_halves_are_numbers() {
        for (meaning, value, want) in [
            (Meaning::Unsigned, Value::Int(-1, 32), 4_294_967_295.0),
            (Meaning::Unsigned, Value::Int(-1, 64), 18_446_744_073_709_551_615.0),
            (Meaning::Number, Value::Int(-7, 32), -7.0),
            (Meaning::Number, Value::Bool(true), 1.0),
            (Meaning::Decimal(2), Value::Int(12_345, 32), 123.45),
            (Meaning::Decimal(1), Value::Bytes(&[0xff, 0xfe]), -0.2),
            (Meaning::Decimal(0), Value::Bytes(&[1, 0, 0]), 65_536.0),
            (Meaning::Half, Value::Bytes(&[0, 0x3c]), 1.0),
        ] {
            assert_eq!(meaning.number(value), want, "{meaning:?} {value:?}");
        }
        assert!(Meaning::Number.number(Value::Null).is_nan());
        assert_eq!(Meaning::Unsigned.text(Value::Int(-1, 32)), "4294967295");
        assert_eq!(Meaning::Number.text(Value::Double(0.1)), "0.1");
    }
}
