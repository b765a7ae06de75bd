//! Dates and times: ISO 8601 in, seconds since 1970 between, ISO 8601 out.

use std::fmt::Write;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};

/// How the dates or times of a column are written. They are in UTC: where one came with a zone, all are written with a `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeFormat {
    /// Dates without a time of day.
    pub date: bool,
    /// With a zone.
    pub zoned: bool,
    /// With a space between date and time of day in the place of a T.
    pub spaced: bool,
    /// Digits of a second's fraction.
    pub digits: u8,
}

impl Default for TimeFormat {
    /// Times of day in whole seconds, as in 2024-02-29T12:34:56.
    fn default() -> Self {
        Self { date: false, zoned: false, spaced: false, digits: 0 }
    }
}

impl TimeFormat {
    /// Dates, as in 2024-02-29.
    pub const DATE: Self = Self { date: true, zoned: false, spaced: false, digits: 0 };
    /// Digits of a second that double precision has in this century.
    const MOST_DIGITS: u8 = 6;

    /// Times in so many `parts` of a second, in UTC or in a zone that is not named.
    #[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
    pub(super) fn of_parts(parts: i64, utc: bool) -> Self {
        let digits = parts.max(1).ilog10().min(Self::MOST_DIGITS.into()) as u8;
        Self { zoned: utc, digits, ..Self::default() }
    }

    /// Seconds from the beginning of 1970 in UTC to the date or time in `text`, and how it is written. One without a zone is
    /// in UTC. `None` where it is neither.
    ///
    /// # Examples
    /// ```
    /// use moonflow::data::TimeFormat;
    ///
    /// let (seconds, format) = TimeFormat::read("1970-01-02 02:00:00.5+02:00").expect("a time");
    /// assert_eq!((seconds, format.text(seconds)), (86400.5, "1970-01-02 00:00:00.5Z".into()));
    /// assert_eq!(TimeFormat::DATE.text(86400.0), "1970-01-02");
    /// ```
    pub fn read(text: &str) -> Option<(f64, Self)> {
        let field = text.as_bytes();
        let begins_like_a_date = field.len() >= 10
            && field[..4].iter().all(u8::is_ascii_digit)
            && field[4] == b'-'
            && field[7] == b'-';
        if !begins_like_a_date {
            return None;
        }
        if field.len() == 10 {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?;
            return Some((date.and_utc().timestamp() as f64, Self::DATE));
        }
        let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let zoned = || {
            DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z"))
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M%#z"))
                .map(|time| time.to_utc().naive_utc())
                .ok()
        };
        let time = local.or_else(zoned)?.and_utc();
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count().min(Self::MOST_DIGITS.into());
        let format =
            Self { date: false, zoned: local.is_none(), spaced: field[10] == b' ', digits: digits as u8 };
        Some((time.timestamp() as f64 + f64::from(time.timestamp_subsec_nanos()) * 1e-9, format))
    }

    /// That of a column in which some are written like this and some like `other`.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match (self.date, other.date) {
            (true, _) => other,
            (_, true) => self,
            _ => Self {
                date: false,
                zoned: self.zoned || other.zoned,
                spaced: self.spaced || other.spaced,
                digits: self.digits.max(other.digits),
            },
        }
    }

    /// Whole units of the last digit since 1970: days, or parts of a second, and how many parts there are.
    fn units(self, seconds: f64) -> (i64, i64) {
        let parts = 10i64.pow(u32::from(self.digits.min(Self::MOST_DIGITS)));
        ((seconds * parts as f64).round() as i64, parts)
    }

    /// Days since 1970 of the date that is nearest to `seconds`.
    pub(super) fn days(seconds: f64) -> i64 {
        (seconds / DAY as f64).round() as i64
    }

    /// Microseconds since 1970 of the time that is nearest to `seconds`.
    #[cfg(all(feature = "tables", not(target_arch = "wasm32")))]
    pub(super) fn microseconds(self, seconds: f64) -> i64 {
        let (units, parts) = self.units(seconds);
        units.saturating_mul(1_000_000 / parts)
    }

    /// The date or time that is nearest to `seconds`.
    pub fn text(self, seconds: f64) -> String {
        if self.date {
            return date(Self::days(seconds));
        }
        let (units, parts) = self.units(seconds);
        let (whole, part) = (units.div_euclid(parts), units.rem_euclid(parts));
        let mut text = date(whole.div_euclid(DAY));
        text.push(if self.spaced { ' ' } else { 'T' });
        let second = whole.rem_euclid(DAY);
        let digits = usize::from(self.digits.min(Self::MOST_DIGITS));
        let fraction = if digits == 0 { String::new() } else { format!(".{part:0digits$}") };
        let zone = if self.zoned { "Z" } else { "" };
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(text, "{hour:02}:{minute:02}:{second:02}{fraction}{zone}").expect("invariant: a string grows");
        text
    }
}

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// The date so many days after the first of 1970; beyond some 260,000 years the last one that there is.
pub(super) fn date(days: i64) -> String {
    let days_of = |days: i64| Days::new(days.unsigned_abs());
    let date = match days {
        0.. => NaiveDate::default().checked_add_days(days_of(days)).unwrap_or(NaiveDate::MAX),
        _ => NaiveDate::default().checked_sub_days(days_of(days)).unwrap_or(NaiveDate::MIN),
    };
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_come_out_as_they_went_in() {
        for (text, want) in [
            ("1969-12-31", "1969-12-31"),
            ("2024-02-29", "2024-02-29"),
            ("2024-02-29T12:34:56", "2024-02-29T12:34:56"),
            ("2024-02-29 12:34:56.250", "2024-02-29 12:34:56.250"),
            ("1969-12-31T23:59:59.999", "1969-12-31T23:59:59.999"),
            ("2024-02-29T12:34:56Z", "2024-02-29T12:34:56Z"),
            ("2024-02-29T14:34:56+02:00", "2024-02-29T12:34:56Z"),
            ("2024-02-29 12:34", "2024-02-29 12:34:00"),
            ("2024-02-29T12:34:56.123456789", "2024-02-29T12:34:56.123457"),
        ] {
            let (seconds, format) = TimeFormat::read(text).expect(text);
            assert_eq!(format.text(seconds), want, "{text}");
        }
        for extreme in [f64::MAX, f64::MIN, 1e15] {
            assert!(!TimeFormat::DATE.text(extreme).is_empty());
            assert!(!TimeFormat { digits: 6, ..TimeFormat::default() }.text(extreme).is_empty());
        }
    }

    #[test]
    fn a_column_is_written_like_its_fullest_value_and_a_sample_on_the_nearest() {
        let join = |texts: &[&str]| {
            let formats = texts.iter().map(|text| TimeFormat::read(text).expect("a time").1);
            formats.reduce(TimeFormat::join).expect("some")
        };
        let days = join(&["2024-02-29", "2024-03-01"]);
        assert_eq!(days, TimeFormat::DATE);
        assert_eq!((days.text(-43_201.0), days.text(43_201.0)), ("1969-12-31".into(), "1970-01-02".into()));
        assert_eq!(join(&["2024-02-29", "2024-02-29 12:00:00"]).text(0.7), "1970-01-01 00:00:01");
        let zoned = join(&["2024-02-29T12:00:00Z", "2024-02-29T12:00:00.25"]);
        assert_eq!(zoned.text(1.254), "1970-01-01T00:00:01.25Z");
        // Whichever comes first.
        assert_eq!(join(&["2024-02-29T12:00:00.25", "2024-02-29T12:00:00Z"]), zoned);
        let seconds = join(&["2024-02-29 12:00:00", "2024-02-29"]);
        assert_eq!((join(&["2024-02-29", "2024-02-29 12:00:00"]), seconds.spaced), (seconds, true));
    }
}
