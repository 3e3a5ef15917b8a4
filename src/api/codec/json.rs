//! Writes JSON piece by piece, in the order and spelling of Go's encoder.

use std::fmt::Display;
use std::io::Write as _;

use super::{EncodeItem, FRAME};
use crate::api::memory::{Reserve, Stopped, make_room};
use crate::api::text::JsonText;

/// For how many bytes of JSON at a time there is room made to indent them.
const INDENTED: usize = 1024;
/// How many bytes one of them may become: itself and a line feed with the spaces of fifteen levels.
const INDENTED_EXPANSION: usize = 32;

/// Writes a string with its quotes.
pub fn string(out: &mut Vec<u8>, text: JsonText<'_>) {
    out.push(b'"');
    match text {
        JsonText::Escaped(content) => out.extend_from_slice(content.as_bytes()),
        JsonText::Plain(text) => escape(out, text),
    }
    out.push(b'"');
}

/// Writes `,"key":"text"`; nothing if the text is empty, as Go's `omitempty`.
pub fn non_empty(out: &mut Vec<u8>, key: &str, text: JsonText<'_>) {
    if text.is_empty() {
        return;
    }
    self::key(out, key);
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

/// A list of items, each by `write`, with metadata that says nothing. `bytes` is how long an item is, about.
///
/// # Errors
/// If `reserve` stops it.
pub fn list<T: EncodeItem>(
    kind: &str,
    api_version: &str,
    items: &[T],
    bytes: usize,
    reserve: &mut Reserve<'_>,
    write: impl FnMut(&mut Vec<u8>, &T),
) -> Result<Vec<u8>, Stopped> {
    let mut out = Vec::new();
    make_room(&mut out, FRAME + items.len() * bytes, reserve)?;
    let head = format_args!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{{}},"items":["#);
    display(&mut out, head);
    list_items(&mut out, items, EncodeItem::most_bytes, reserve, write)?;
    Ok(out)
}

/// Writes the items of a list, each by `write` and of so many bytes at `most`, and the end of the list.
///
/// # Errors
/// If `reserve` stops it.
pub fn list_items<T>(
    out: &mut Vec<u8>,
    items: &[T],
    most: impl Fn(&T) -> usize,
    reserve: &mut Reserve<'_>,
    mut write: impl FnMut(&mut Vec<u8>, &T),
) -> Result<(), Stopped> {
    for (index, item) in items.iter().enumerate() {
        make_room(out, most(item), reserve)?;
        let room = out.capacity();
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
        debug_assert_eq!(out.capacity(), room, "an item has more bytes than it says");
    }
    make_room(out, 8, reserve)?;
    out.extend_from_slice(b"]}\n");
    Ok(())
}

/// Writes a key and its colon, with a comma before it unless it is the object's first.
pub fn key(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes an object of texts, such as labels.
pub fn texts<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = (JsonText<'a>, JsonText<'a>)>) {
    out.push(b'{');
    separated(out, entries, |out, (key, value)| {
        string(out, key);
        out.push(b':');
        string(out, value);
    });
    out.push(b'}');
}

/// The same JSON for people to read, as `json.MarshalIndent` of Go with two spaces. `json` is well-formed, has no
/// white space but a line feed at its end, and is nested no deeper than what this server answers with.
///
/// # Errors
/// If `reserve` stops it.
pub fn indented(json: &[u8], reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
    let mut out = Vec::new();
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in json.trim_ascii_end().iter().enumerate() {
        if at % INDENTED == 0 {
            make_room(&mut out, INDENTED * INDENTED_EXPANSION, reserve)?;
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
    fn indented_json_is_what_serde_would_write() {
        let object = serde_json::json!({
            "a": [], "b": {}, "c": [1, {"x": null}], "d": "{\"[,:]\\", "e": {"f": {"g": [[], [{}]]}}, "h": "\\",
        });
        let indented = indented(format!("{object}\n").as_bytes(), &mut |_| Ok(())).expect("no limit");
        let indented = String::from_utf8(indented).expect("UTF-8");
        assert_eq!(indented, serde_json::to_string_pretty(&object).expect("JSON"));
    }

    #[test]
    fn a_written_string_reads_back_as_itself() {
        for text in ["", "plain", "qu\"ote", "back\\slash", "line\nfeed\ttab\r", "\u{1}\u{1f}", "ümläut ☃"]
        {
            let mut out = Vec::new();
            string(&mut out, JsonText::Plain(text));
            assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text);
        }
    }
}
