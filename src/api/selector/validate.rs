//! Validates label keys and values, with Go's error texts: `validation.IsQualifiedName`, `validation.IsValidLabelValue`,
//! `field.Error` and `labels.NewRequirement`.

use std::fmt::Write;

use super::{Operator, SelectorError};

const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and \
    end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
    validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const PREFIX_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', \
    '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
    '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const INTEGER_RULE: &str = "for 'Gt', 'Lt' operators, the value must be an integer";

/// Checks a label's key: a name, optionally with a DNS subdomain as prefix.
pub(super) fn key(key: &str) -> Result<(), SelectorError> {
    let problems = key_problems(key);
    if problems.is_empty() {
        return Ok(());
    }
    // The key has no field path; Go prints `<nil>` for it.
    Err(SelectorError::Invalid(invalid("<nil>", key, &problems.join("; "))))
}

/// Checks the values of a requirement on the label `key`.
pub(super) fn values(key: &str, operator: Operator, values: &[&str]) -> Result<(), SelectorError> {
    let mut problems = Vec::new();
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
        for (index, value) in values.iter().enumerate() {
            if value.parse::<i64>().is_err() {
                problems.push(invalid(&format!("values[{index}]"), value, INTEGER_RULE));
            }
        }
    }
    for (index, value) in values.iter().enumerate() {
        let value_problems = value_problems(value);
        if !value_problems.is_empty() {
            problems.push(invalid(&format!("values[{index}][{key}]"), value, &value_problems.join("; ")));
        }
    }
    match &mut problems[..] {
        [] => Ok(()),
        [problem] => Err(SelectorError::Invalid(std::mem::take(problem))),
        several => Err(SelectorError::Invalid(format!("[{}]", several.join(", ")))),
    }
}

fn key_problems(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) => (Some(prefix), name),
    };
    if name.contains('/') {
        let rule = format!(
            "a valid label key {NAME_RULE} with an optional DNS subdomain prefix and '/' \
            (e.g. 'example.com/MyName')"
        );
        return vec![rule];
    }
    match prefix {
        None => {}
        Some("") => problems.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            if prefix.len() > MAX_PREFIX {
                problems.push(format!("prefix part must be no more than {MAX_PREFIX} bytes"));
            }
            if !prefix.split('.').all(is_dns_label) {
                problems.push(format!("prefix part {PREFIX_RULE}"));
            }
        }
    }
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_NAME {
        problems.push(format!("name part must be no more than {MAX_NAME} bytes"));
    }
    if !is_name(name) {
        problems.push(format!("name part {NAME_RULE}"));
    }
    problems
}

fn value_problems(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > MAX_NAME {
        problems.push(format!("must be no more than {MAX_NAME} bytes"));
    }
    if !value.is_empty() && !is_name(value) {
        problems.push(VALUE_RULE.to_owned());
    }
    problems
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_name(name: &str) -> bool {
    has_shape(name, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_dns_label(label: &str) -> bool {
    has_shape(label, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
}

/// Whether `is_outer` accepts the first and the last byte, and each other byte is accepted by `is_outer` or is in `inner`.
fn has_shape(text: &str, is_outer: impl Fn(u8) -> bool, inner: &[u8]) -> bool {
    match text.as_bytes() {
        [] => false,
        bytes @ ([first, .., last] | [first @ last]) => {
            is_outer(*first)
                && is_outer(*last)
                && bytes.iter().all(|byte| is_outer(*byte) || inner.contains(byte))
        }
    }
}

/// A `field.Error` as text.
fn invalid(path: &str, value: &str, problems: &str) -> String {
    format!("{path}: Invalid value: {}: {problems}", quote(value))
}

/// Go's `strconv.Quote`.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let written = match c {
            '"' => quoted.write_str("\\\""),
            '\\' => quoted.write_str("\\\\"),
            '\x07' => quoted.write_str("\\a"),
            '\x08' => quoted.write_str("\\b"),
            '\x0c' => quoted.write_str("\\f"),
            '\n' => quoted.write_str("\\n"),
            '\r' => quoted.write_str("\\r"),
            '\t' => quoted.write_str("\\t"),
            '\x0b' => quoted.write_str("\\v"),
            '\0'..' ' | '\x7f' => write!(quoted, "\\x{:02x}", u32::from(c)),
            ' '..'\x7f' => quoted.write_char(c),
            c if is_printable(c) => quoted.write_char(c),
            '\u{80}'..='\u{ffff}' => write!(quoted, "\\u{:04x}", u32::from(c)),
            c => write!(quoted, "\\U{:08x}", u32::from(c)),
        };
        written.expect("writing to a string does not fail");
    }
    quoted.push('"');
    quoted
}

/// Go's `unicode.IsPrint` for non-ASCII characters: the characters that Rust does not escape in the middle of a string.
fn is_printable(c: char) -> bool {
    let mut in_the_middle = String::from("a");
    in_the_middle.push(c);
    in_the_middle.escape_debug().count() == 2
}
