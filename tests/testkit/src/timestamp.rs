//! Times as the Kubernetes API writes them: RFC 3339 in UTC with whole seconds.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// The current time in seconds since 1970.
pub fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(elapsed.as_secs()).expect("the clock is before the year 292277026596")
}

/// Formats seconds since 1970 as `2023-06-14T09:09:54Z`.
pub fn format(seconds: i64) -> String {
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let time = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Parses the format of [`format()`] into seconds since 1970.
pub fn parse(text: &str) -> Option<i64> {
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let days = days(field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let seconds = days * DAY + field(11, 13)? * 3600 + field(14, 16)? * 60 + field(17, 19)?;
    (format(seconds) == text).then_some(seconds)
}

/// Whether Go's `time.RFC3339` parses a text. Any fraction of a second and any zone are allowed.
pub fn is_rfc3339(text: &str) -> bool {
    let Some((second, rest)) = text.split_at_checked(19) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = &rest[..rest.len() - zone.len()];
    let is_fraction = fraction.is_empty() || fraction.strip_prefix('.').is_some_and(digits);
    let offset = zone.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':'));
    let is_offset = offset
        .is_some_and(|(hours, minutes)| [hours, minutes].iter().all(|two| two.len() == 2 && digits(two)));
    parse(&format!("{second}Z")).is_some() && is_fraction && (zone == "Z" || is_offset)
}

/// Days from 1970 to a date. Years start in March here, so that the leap day is the last day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

fn date(days_since_1970: i64) -> (i64, i64, i64) {
    let days_left = days_since_1970 + 719_468;
    let (era, in_era) = (days_left.div_euclid(146_097), days_left.rem_euclid(146_097));
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_zones_are_accepted() {
        for text in ["2023-06-14T09:09:54Z", "2023-06-14T09:09:54.123456Z", "2023-06-14T09:09:54.5+02:00"] {
            assert!(is_rfc3339(text), "{text}");
        }
        for text in [
            "",
            "now",
            "2023-06-14",
            "2023-06-14T09:09:54",
            "2023-06-14T09:09:54.Z",
            "2023-06-14T25:09:54Z",
            "2023-06-14T09:09:54+0200",
            "2023-06-14T09:09:54é",
        ] {
            assert!(!is_rfc3339(text), "{text}");
        }
    }

    #[test]
    fn times_are_formatted_and_parsed_as_in_the_api() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_686_733_794, "2023-06-14T09:09:54Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format(seconds), text);
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        for text in ["", "2023-02-29T00:00:00Z", "2023-06-14T09:09:54", "2023-06-14 09:09:54Z", "yesterday"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_round_trips() {
        for day in 0..146_097 {
            let seconds = day * DAY + day % DAY;
            assert_eq!(parse(&format(seconds)), Some(seconds));
        }
    }
}
