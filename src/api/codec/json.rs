//! Writes JSON in parts, with the order and spelling of Go's encoder.

use std::fmt::Display;
use std::io::Write as _;

use super::{EncodeItem, MAX_OVERHEAD};
use crate::api::memory::{Reserve, Stopped, reserve_capacity};
use crate::api::text::JsonText;

/// [`indented`] reserves memory for this many bytes of input at a time.
const INDENT_CHUNK: usize = 1024;
/// Maximum output bytes per input byte: the byte, a line feed, and the spaces of 15 levels.
const INDENT_EXPANSION: usize = 32;

/// Writes a string with its quotes.
pub fn string(out: &mut Vec<u8>, text: JsonText<'_>) {
    out.push(b'"');
    match text {
        JsonText::Escaped(content) => out.extend_from_slice(content.as_bytes()),
        JsonText::Plain(text) => escape(out, text),
    }
    out.push(b'"');
}

/// Writes `,"key":"text"`. If the text is empty, it writes nothing, like Go's `omitempty`.
pub fn string_unless_empty(out: &mut Vec<u8>, key: &str, text: JsonText<'_>) {
    if text.is_empty() {
        return;
    }
    self::key(out, key);
    string(out, text);
}

/// Writes a number, or a text that needs no escapes, without allocating a string.
pub fn display(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "{value}").expect("writing to memory does not fail");
}

/// Writes all items, separated by commas.
pub fn comma_separated<T>(
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

/// Encodes a list with empty metadata; `write` encodes each item. `bytes` is the typical length of an item.
///
/// # Errors
/// If `reserve` returns an error.
pub fn list<T: EncodeItem>(
    kind: &str,
    api_version: &str,
    items: &[T],
    bytes: usize,
    reserve: &mut Reserve<'_>,
    write: impl FnMut(&mut Vec<u8>, &T),
) -> Result<Vec<u8>, Stopped> {
    let mut out = Vec::new();
    reserve_capacity(&mut out, MAX_OVERHEAD + items.len() * bytes, reserve)?;
    let head = format_args!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{{}},"items":["#);
    display(&mut out, head);
    list_items(&mut out, items, EncodeItem::max_bytes, reserve, write)?;
    Ok(out)
}

/// Writes the items of a list and the end of the list. `write` encodes an item, `max_bytes` is the item's maximum length.
///
/// # Errors
/// If `reserve` returns an error.
pub fn list_items<T>(
    out: &mut Vec<u8>,
    items: &[T],
    max_bytes: impl Fn(&T) -> usize,
    reserve: &mut Reserve<'_>,
    mut write: impl FnMut(&mut Vec<u8>, &T),
) -> Result<(), Stopped> {
    for (index, item) in items.iter().enumerate() {
        reserve_capacity(out, max_bytes(item), reserve)?;
        let capacity = out.capacity();
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
        debug_assert_eq!(out.capacity(), capacity, "an item is longer than its maximum length");
    }
    reserve_capacity(out, 8, reserve)?;
    out.extend_from_slice(b"]}\n");
    Ok(())
}

/// Writes a key and its colon. If the key is not the first key of its object, writes a comma first.
pub fn key(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes an object of strings, such as labels.
pub fn string_map<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = (JsonText<'a>, JsonText<'a>)>) {
    out.push(b'{');
    comma_separated(out, entries, |out, (key, value)| {
        string(out, key);
        out.push(b':');
        string(out, value);
    });
    out.push(b'}');
}

/// Indents JSON by two spaces per level, like Go's `json.MarshalIndent`. `json` must be well-formed, have no white space except
/// a line feed at its end, and have at most 15 levels, as all responses of this server.
///
/// # Errors
/// If `reserve` returns an error.
pub fn indented(json: &[u8], reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
    let mut out = Vec::new();
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in json.trim_ascii_end().iter().enumerate() {
        if at % INDENT_CHUNK == 0 {
            reserve_capacity(&mut out, INDENT_CHUNK * INDENT_EXPANSION, reserve)?;
        }
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            out.push(byte);
            continue;
        }
        let empty = at > 0 && matches!((json[at - 1], byte), (b'{', b'}') | (b'[', b']'));
        if matches!(byte, b'}' | b']') {
            depth -= 1;
            if !empty {
                line(&mut out, depth);
            }
        }
        out.push(byte);
        match byte {
            b'"' => quoted = true,
            b':' => out.push(b' '),
            b',' => line(&mut out, depth),
            b'{' | b'[' => {
                depth += 1;
                if !matches!(json.get(at + 1), Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            _ => {}
        }
    }
    Ok(out)
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
    fn indented_json_is_the_same_as_serde_json() {
        let object = serde_json::json!({
            "a": [], "b": {}, "c": [1, {"x": null}], "d": "{\"[,:]\\", "e": {"f": {"g": [[], [{}]]}}, "h": "\\",
        });
        let indented = indented(format!("{object}\n").as_bytes(), &mut |_| Ok(())).expect("no limit");
        let indented = String::from_utf8(indented).expect("UTF-8");
        assert_eq!(indented, serde_json::to_string_pretty(&object).expect("JSON"));
    }

    #[test]
    fn written_string_reads_back_unchanged() {
        for text in ["", "plain", "qu\"ote", "back\\slash", "line\nfeed\ttab\r", "\u{1}\u{1f}", "ümläut ☃"]
        {
            let mut out = Vec::new();
            string(&mut out, JsonText::Plain(text));
            assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text);
        }
    }
}
