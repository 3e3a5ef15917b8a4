//! Go's `time.Duration` as text (`5s`, `1m30s`, `1.5h`). Flags and the windows of resource metrics use it.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// Absolute value of the lowest duration, in nanoseconds. The highest duration is one nanosecond less.
const MAX_MAGNITUDE: u64 = 1 << 63;

/// A duration in nanoseconds, at most 292 years; it may be negative.
///
/// `FromStr` follows Go's `time.ParseDuration`. [`Display`] follows `Duration.String`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

/// Why a text is not a duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number is missing or too large.
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// A unit is not `ns`, `us`, `µs`, `ms`, `s`, `m` or `h`.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        unit: String,
        /// The whole text.
        text: String,
    },
    /// A duration is negative where only zero or a positive duration is valid.
    #[error("a duration must not be negative here: {0}")]
    Negative(GoDuration),
}

impl GoDuration {
    /// Creates a duration from nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The duration in nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

impl TryFrom<GoDuration> for Duration {
    type Error = DurationError;

    /// Fails if the duration is negative.
    fn try_from(duration: GoDuration) -> Result<Self, DurationError> {
        u64::try_from(duration.0).map(Self::from_nanos).map_err(|_| DurationError::Negative(duration))
    }
}

impl From<Duration> for GoDuration {
    /// A duration of more than 292 years becomes the highest value (292 years).
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        match rest {
            "0" => return Ok(Self(0)),
            "" => return Err(invalid()),
            _ => {}
        }
        let mut total = 0_u64;
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            // Go checks for overflow before it checks the unit.
            let number = whole_number(whole).ok_or_else(invalid)?;
            let unit = match &after[..end] {
                "" => return Err(DurationError::MissingUnit(text.to_owned())),
                unit => unit_nanos(unit).ok_or_else(|| DurationError::UnknownUnit {
                    unit: unit.to_owned(),
                    text: text.to_owned(),
                })?,
            };
            rest = &after[end..];
            total = number
                .checked_mul(unit)
                .filter(|nanos| *nanos <= MAX_MAGNITUDE)
                .map(|nanos| nanos + fraction_nanos(fraction, unit))
                .filter(|nanos| *nanos <= MAX_MAGNITUDE)
                .and_then(|nanos| total.checked_add(nanos))
                .filter(|nanos| *nanos <= MAX_MAGNITUDE)
                .ok_or_else(invalid)?;
        }
        let nanos =
            if negative { 0_i64.checked_sub_unsigned(total) } else { 0_i64.checked_add_unsigned(total) };
        nanos.map(Self).ok_or_else(invalid)
    }
}

impl Display for GoDuration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanos = self.0.unsigned_abs();
        match nanos {
            0 => return f.write_str("0s"),
            1..MICROSECOND => return write!(f, "{nanos}ns"),
            MICROSECOND..MILLISECOND => return write_decimal(f, nanos, MICROSECOND, "µs"),
            MILLISECOND..SECOND => return write_decimal(f, nanos, MILLISECOND, "ms"),
            SECOND..MINUTE => {}
            MINUTE..HOUR => write!(f, "{}m", nanos / MINUTE)?,
            HOUR.. => write!(f, "{}h{}m", nanos / HOUR, nanos % HOUR / MINUTE)?,
        }
        write_decimal(f, nanos % MINUTE, SECOND, "s")
    }
}

/// Writes nanoseconds in a larger unit, with as many decimals as needed.
fn write_decimal(f: &mut Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", nanos / unit)?;
    let (mut fraction, mut width) = (nanos % unit, unit.ilog10() as usize);
    if fraction > 0 {
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")?;
    }
    f.write_str(name)
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Parses digits. No digits are zero. `None` if the number is larger than any duration.
fn whole_number(digits: &str) -> Option<u64> {
    digits.bytes().try_fold(0_u64, |number, digit| {
        number
            .checked_mul(10)
            .and_then(|number| number.checked_add(u64::from(digit - b'0')))
            .filter(|number| *number <= MAX_MAGNITUDE)
    })
}

/// The digits after the decimal point, in nanoseconds. Floating point gives the same last digit as Go.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let (mut number, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        // More digits do not fit; they are ignored.
        if number > (MAX_MAGNITUDE - 1) / 10 {
            break;
        }
        let next = number * 10 + u64::from(digit - b'0');
        if next > MAX_MAGNITUDE {
            break;
        }
        number = next;
        scale *= 10.0;
    }
    (number as f64 * (unit as f64 / scale)) as u64
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // U+00B5 (micro sign) or U+03BC (Greek letter mu).
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// Quotes as Go's time package does: each byte of a non-ASCII or control character is escaped.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='\x7f' => quoted.push(c),
            c => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    quoted.extend(["\\x", &format!("{byte:02x}")]);
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn parse(text: &str) -> GoDuration {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> String {
        text.parse::<GoDuration>().unwrap_err().to_string()
    }

    #[test]
    fn vectors_parse_and_print_as_in_go() {
        let text =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/vectors/durations.json"));
        let rows: Vec<Value> = serde_json::from_str(text).unwrap();
        // The rows before `1h` are Go's output, the others are Go's input.
        let first_input = rows.iter().position(|row| row["text"] == "1h").unwrap();
        for (index, row) in rows.iter().enumerate() {
            let text = row["text"].as_str().unwrap();
            let duration = text.parse::<GoDuration>();
            assert_eq!(row["error"] == true, duration.is_err(), "{text}");
            let Ok(duration) = duration else { continue };
            assert_eq!(row["nanoseconds"], duration.as_nanos().to_string(), "{text}");
            if index < first_input {
                assert_eq!(duration.to_string(), text);
            }
        }
        assert_eq!(rows.len(), 30);
    }

    #[test]
    fn errors_have_the_texts_of_go() {
        for (text, expected) in [
            ("", r#"time: invalid duration """#),
            ("-.s", r#"time: invalid duration "-.s""#),
            ("5", r#"time: missing unit in duration "5""#),
            ("1h1", r#"time: missing unit in duration "1h1""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1h 1m", r#"time: unknown unit "h " in duration "1h 1m""#),
            ("1\"é\n", r#"time: unknown unit "\"\xc3\xa9\x0a" in duration "1\"\xc3\xa9\x0a""#),
            ("9223372036854775809x", r#"time: invalid duration "9223372036854775809x""#),
        ] {
            assert_eq!(error(text), expected);
        }
    }

    #[test]
    fn limits_are_accepted_and_longer_durations_rejected() {
        assert_eq!(parse("9223372036854775807ns").to_string(), "2562047h47m16.854775807s");
        assert_eq!(parse("-9223372036854775808ns").as_nanos(), i64::MIN);
        assert_eq!(parse("-2562047h47m16.854775808s"), GoDuration::from_nanos(i64::MIN));
        for text in ["9223372036854775808ns", "2562047h48m", "-9223372036854775809ns", "1e3s"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn negative_duration_does_not_convert_to_std() {
        assert_eq!(Duration::try_from(parse("1m30s")), Ok(Duration::from_secs(90)));
        assert_eq!(Duration::try_from(parse("-1ns")), Err(DurationError::Negative(parse("-1ns"))));
        assert_eq!(GoDuration::from(Duration::from_millis(1500)).to_string(), "1.5s");
        assert_eq!(GoDuration::from(Duration::MAX).as_nanos(), i64::MAX);
    }

    proptest! {
        #[test]
        fn printed_duration_parses_to_the_same_value(nanos in any::<i64>(), shift in 0..64) {
            let duration = GoDuration::from_nanos(nanos >> shift);
            // Decimals are parsed by floating point; nine decimals are exact.
            prop_assert_eq!(parse(&duration.to_string()), duration);
        }

        #[test]
        fn no_input_panics(
            text in any::<String>(), numbers in "[-+]?([0-9]{0,25}[.]?[0-9]{0,25}(ns|µs|s|h|é)?){0,3}",
        ) {
            for text in [text, numbers] {
                match text.parse::<GoDuration>() {
                    Ok(duration) => { let _ = duration.to_string(); }
                    Err(error) => { let _ = error.to_string(); }
                }
            }
        }
    }
}
