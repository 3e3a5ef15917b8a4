//! Writes JSON piece by piece, in the order and spelling of Go's encoder.

use std::fmt::Display;
use std::io::Write as _;

use crate::api::text::Text;

/// Writes a string with its quotes.
pub fn string(out: &mut Vec<u8>, text: Text<'_>) {
    out.push(b'"');
    match text {
        Text::Escaped(content) => out.extend_from_slice(content.as_bytes()),
        Text::Plain(text) => escape(out, text),
    }
    out.push(b'"');
}

/// Writes `,"key":"text"`; nothing if the text is empty, as Go's `omitempty`.
pub fn non_empty(out: &mut Vec<u8>, key: &str, text: Text<'_>) {
    if text.is_empty() {
        return;
    }
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    string(out, text);
}

/// Writes a number, or text that needs no escapes, without a string of its own.
pub fn display(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "{value}").expect("memory takes all bytes");
}

/// Writes what the iterator gives, with commas between.
pub fn separated<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_string_reads_back_as_itself() {
        for text in ["", "plain", "qu\"ote", "back\\slash", "line\nfeed\ttab\r", "\u{1}\u{1f}", "ümläut ☃"]
        {
            let mut out = Vec::new();
            string(&mut out, Text::Plain(text));
            assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text);
        }
    }
}
