//! Durations as Go's `time.ParseDuration` reads them. metrics-server writes its windows like this.

/// Nanoseconds per unit.
const UNITS: [(&str, i128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The nanoseconds of a text like `1m0s` or `15.321s`. `None` if the text is not a duration.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (unsigned, 0);
    while !rest.is_empty() || unsigned.is_empty() {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
        let (number, after) = rest.split_at(end);
        let (name, unit) = UNITS.into_iter().find(|(name, _)| after.starts_with(name))?;
        sum += in_units(number, unit)?;
        rest = &after[name.len()..];
    }
    i64::try_from(if text.starts_with('-') { -sum } else { sum }).ok()
}

/// The nanoseconds of a decimal number of units, truncated below one nanosecond.
fn in_units(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some(digits.parse::<i128>().ok()?.checked_mul(unit)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::contract_directory;

    #[test]
    fn durations_are_parsed_as_in_go() {
        let rows = std::fs::read(contract_directory().join("vectors/durations.json")).unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows).unwrap();
        for row in &rows {
            let expected = row["nanoseconds"].as_str().map(|number| number.parse::<i64>().unwrap());
            assert_eq!(nanoseconds(row["text"].as_str().unwrap()), expected, "{row}");
        }
        assert!(rows.len() > 20);
    }
}
