//! `metav1.Time`: a point in time as RFC 3339 text.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use serde_json::value::RawValue;

use super::codec::json::display;
use super::codec::protobuf::{Fields, Writer};
use super::text::json_text;

/// 1970-01-01T00:00:00Z.
const EPOCH: DateTime = Date::constant(1970, 1, 1).to_datetime(Time::midnight());
/// 0000-01-01T00:00:00Z.
const MIN_SECONDS: i64 = -62_167_219_200;
/// 9999-12-31T23:59:59Z.
const MAX_SECONDS: i64 = 253_402_300_799;
/// 0001-01-01T00:00:00Z, Go's zero time.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

/// A point in time in the years 0000 to 9999 (UTC). Earlier times are lower.
///
/// `FromStr` accepts the texts of Go's `time.Parse(time.RFC3339, …)`, but the result must be in these years. [`Display`]
/// writes the text that `metav1.Time` marshals: UTC, whole seconds, without the fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// Why a value is not a valid time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The text has another format.
    #[error("a time must have the format 2006-01-02T15:04:05Z or 2006-01-02T15:04:05+07:00")]
    Syntax,
    /// The format is right, but the time does not exist or is out of range.
    #[error("a time must exist and be in the years 0000 to 9999: check day, hour and offset")]
    Range,
}

impl Timestamp {
    /// Creates a time from the fields of protobuf: `seconds` since 1970-01-01T00:00:00Z (negative before it), plus `nanos`.
    /// `None` if the time is outside the years 0000 to 9999, or if `nanos` is 10^9 or more.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        let fits = (MIN_SECONDS..=MAX_SECONDS).contains(&seconds) && nanos < 1_000_000_000;
        fits.then_some(Self { seconds, nanos })
    }

    /// Seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds in addition to [`Self::unix_seconds`], less than 10^9.
    #[must_use]
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Whether this is Go's zero time, which `metav1.Time` marshals as `null`.
    #[must_use]
    pub fn is_go_zero(self) -> bool {
        self == Self { seconds: GO_ZERO_SECONDS, nanos: 0 }
    }
}

impl Timestamp {
    /// Reads `metav1.Time` in JSON. A missing value, `null` and an empty string are `None`.
    ///
    /// # Errors
    /// If the value is not a string or not a valid time.
    pub fn from_json(raw: Option<&RawValue>) -> Result<Option<Self>, TimestampError> {
        let text = json_text(raw).map_err(|_| TimestampError::Syntax)?.decode();
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }

    /// Writes JSON as `metav1.Time` does.
    pub fn write_json(time: Option<Self>, out: &mut Vec<u8>) {
        match time.filter(|time| !time.is_go_zero()) {
            Some(time) => display(out, format_args!("\"{time}\"")),
            None => out.extend_from_slice(b"null"),
        }
    }

    /// Reads `metav1.Timestamp` in protobuf: seconds since the epoch, and nanoseconds. A message without seconds is `None`.
    ///
    /// # Errors
    /// If the message is malformed, or if the time is out of range.
    pub fn from_protobuf(message: &[u8]) -> Result<Option<Self>, TimestampError> {
        let (mut seconds, mut nanos) = (None, 0);
        for field in Fields::of(message) {
            match field.map_err(|_| TimestampError::Syntax)? {
                (1, value) => seconds = Some(value.number()),
                (2, value) => nanos = value.number(),
                _ => {}
            }
        }
        let Some(seconds) = seconds else { return Ok(None) };
        let nanos = u32::try_from(nanos).map_err(|_| TimestampError::Range)?;
        Self::new(seconds, nanos).map(Some).ok_or(TimestampError::Range)
    }

    /// Writes the fields of `metav1.Timestamp`. Nanoseconds are 0, as `metav1.Time` writes them.
    pub fn write_protobuf(time: Option<Self>, out: &mut Writer) {
        if let Some(time) = time.filter(|time| !time.is_go_zero()) {
            out.number(1, time.seconds);
            out.number(2, 0);
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let mut scan = TimeScanner(text.as_bytes());
        let year = scan.digits(4)?;
        scan.expect(b'-')?;
        let month = scan.digits(2)?;
        scan.expect(b'-')?;
        let day = scan.digits(2)?;
        scan.expect(b'T')?;
        // Go accepts an hour with one digit.
        let hour_digits = if scan.0.get(1).is_some_and(u8::is_ascii_digit) { 2 } else { 1 };
        let hour = scan.digits(hour_digits)?;
        scan.expect(b':')?;
        let minute = scan.digits(2)?;
        scan.expect(b':')?;
        let second = scan.digits(2)?;
        let nanos = scan.fraction();
        let offset = scan.offset()?;
        if !scan.0.is_empty() {
            return Err(TimestampError::Syntax);
        }
        let clock = DateTime::new(
            narrow(year)?,
            narrow(month)?,
            narrow(day)?,
            narrow(hour)?,
            narrow(minute)?,
            narrow(second)?,
            0,
        );
        let since = clock.map_err(|_| TimestampError::Range)?.duration_since(EPOCH);
        Self::new(since.as_secs() - offset, nanos).ok_or(TimestampError::Range)
    }
}

fn narrow<T: TryFrom<u32>>(number: u32) -> Result<T, TimestampError> {
    number.try_into().map_err(|_| TimestampError::Range)
}

impl Display for Timestamp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let moment = EPOCH.saturating_add(SignedDuration::from_secs(self.seconds));
        let (date, time) = (moment.date(), moment.time());
        let (year, month, day) = (date.year(), date.month(), date.day());
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The rest of a text.
struct TimeScanner<'a>(&'a [u8]);

impl TimeScanner<'_> {
    fn expect(&mut self, byte: u8) -> Result<(), TimestampError> {
        self.0 = self.0.strip_prefix(&[byte]).ok_or(TimestampError::Syntax)?;
        Ok(())
    }

    fn digits(&mut self, count: usize) -> Result<u32, TimestampError> {
        let (digits, rest) = self.0.split_at_checked(count).ok_or(TimestampError::Syntax)?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, digit| match digit {
            b'0'..=b'9' => Ok(number * 10 + u32::from(digit - b'0')),
            _ => Err(TimestampError::Syntax),
        })
    }

    /// Reads a fraction as nanoseconds and cuts off finer digits. As in Go, the separator is a point or a comma, and any number
    /// of digits is valid.
    fn fraction(&mut self) -> u32 {
        let [b'.' | b',', digits @ ..] = self.0 else { return 0 };
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return 0; // The separator stays, so reading the offset fails.
        }
        self.0 = &digits[count..];
        let padded = digits[..count].iter().copied().chain(std::iter::repeat(b'0'));
        padded.take(9).fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'))
    }

    /// Reads the offset from UTC in seconds. It is positive if the clock is ahead of UTC. Go allows up to 24 hours and 60
    /// minutes.
    fn offset(&mut self) -> Result<i64, TimestampError> {
        let (sign, rest) = match self.0 {
            [b'Z', rest @ ..] => (0, rest),
            [b'+', rest @ ..] => (1, rest),
            [b'-', rest @ ..] => (-1, rest),
            _ => return Err(TimestampError::Syntax),
        };
        self.0 = rest;
        if sign == 0 {
            return Ok(0);
        }
        let hours = self.digits(2)?;
        self.expect(b':')?;
        let minutes = self.digits(2)?;
        if hours > 24 || minutes > 60 {
            return Err(TimestampError::Range);
        }
        Ok(sign * i64::from(hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn known_times_have_the_right_seconds() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2023-06-14T09:09:54Z", 1_686_733_794),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2038-01-19T03:14:08Z", 1 << 31),
            ("1969-12-31T23:59:59Z", -1),
            ("0001-01-01T00:00:00Z", GO_ZERO_SECONDS),
            ("0000-01-01T00:00:00Z", MIN_SECONDS),
            ("9999-12-31T23:59:59Z", MAX_SECONDS),
        ] {
            assert_eq!(parse(text).unix_seconds(), seconds, "{text}");
            assert_eq!(Timestamp::new(seconds, 0).unwrap().to_string(), text);
        }
        assert!(parse("0001-01-01T00:00:00Z").is_go_zero());
    }

    #[test]
    fn offsets_and_fractions_are_read_but_not_written() {
        for (text, written) in [
            ("2023-06-14T09:09:54.999999999Z", "2023-06-14T09:09:54Z"),
            ("2023-06-14T17:09:54+08:00", "2023-06-14T09:09:54Z"),
            ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00Z"),
            ("2023-12-31T23:00:00-02:30", "2024-01-01T01:30:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z"),
            ("2023-06-14T9:09:54,5Z", "2023-06-14T09:09:54Z"),
            ("2023-06-14T00:00:00+24:60", "2023-06-12T23:00:00Z"),
        ] {
            assert_eq!(parse(text).to_string(), written);
        }
        assert_eq!(parse("2023-06-14T09:09:54.0120345678Z").nanos(), 12_034_567);
    }

    #[test]
    fn earlier_time_is_lower() {
        assert!(parse("2023-06-14T09:00:00+01:00") < parse("2023-06-14T08:00:00.1Z"));
        assert!(parse("1969-12-31T23:59:59.1Z") < parse("1969-12-31T23:59:59.2Z"));
    }

    #[test]
    fn invalid_times_are_rejected() {
        for text in [
            "",
            "2023-06-14",
            "2023-06-14T09:09:54",
            "2023-06-14 09:09:54Z",
            "2023-06-14T09:09:54z",
            "2023-06-14T09:09:54.Z",
            "2023-06-14T09:09:54Z ",
            "2023-06-14T09:09:54+0800",
            "+2023-06-14T09:09:54Z",
            "2023-6-14T09:09:54Z",
            "２023-06-14T09:09:54Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::Syntax), "{text}");
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-04-31T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:60:00Z",
            "2023-01-01T00:00:60Z",
            "2023-01-01T00:00:00+25:00",
            "9999-12-31T23:59:59-00:01",
            "0000-01-01T00:00:00+00:01",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::Range), "{text}");
        }
        assert_eq!(Timestamp::new(i64::MIN, 0), None);
        assert_eq!(Timestamp::new(MAX_SECONDS + 1, 0), None);
        assert_eq!(Timestamp::new(0, 1_000_000_000), None);
    }

    proptest! {
        #[test]
        fn printed_time_parses_to_the_same_value(seconds in MIN_SECONDS..=MAX_SECONDS) {
            let time = Timestamp::new(seconds, 0).unwrap();
            prop_assert_eq!(parse(&time.to_string()), time);
        }

        #[test]
        fn no_input_panics(
            text in any::<String>(), digits in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9é:.,+Z-]{0,20}",
        ) {
            for text in [text, digits] {
                let _ = text.parse::<Timestamp>().map(|time| time.to_string());
            }
        }
    }
}
