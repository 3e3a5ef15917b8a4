//! Texts from members: strings that borrow from a response body, and short texts for messages.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use serde_json::value::RawValue;

/// A string that borrows from a response body.
#[derive(Clone, Copy, Debug)]
pub enum JsonText<'a> {
    /// The string itself.
    Plain(&'a str),
    /// The content of a JSON string with escapes, without the quotes. It is well-formed.
    Escaped(&'a str),
}

impl<'a> JsonText<'a> {
    /// Creates a text from the content of a well-formed JSON string, without the quotes.
    pub fn from_json(content: &'a str) -> Self {
        if content.as_bytes().contains(&b'\\') { Self::Escaped(content) } else { Self::Plain(content) }
    }

    /// The string without escapes. It is copied only if it has escapes.
    pub fn decode(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            // This cannot fail: the string was checked when its page was read.
            Self::Escaped(content) => serde_json::from_str::<String>(&format!("\"{content}\""))
                .map_or(Cow::Borrowed(content), Cow::Owned),
        }
    }

    /// Whether the string is empty.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::Plain("") | Self::Escaped(""))
    }
}

impl Default for JsonText<'_> {
    fn default() -> Self {
        Self::Plain("")
    }
}

impl PartialEq for JsonText<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for JsonText<'_> {}

impl PartialOrd for JsonText<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JsonText<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Plain(one), Self::Plain(two)) => one.cmp(two),
            _ => self.decode().cmp(&other.decode()),
        }
    }
}

/// Maximum number of characters of a text from outside in a message.
const MAX_CHARS: usize = 200;

/// Makes one short line of a text from outside, safe for headers and logs: it removes control characters, joins white space,
/// and cuts the text after 200 characters.
pub fn shorten(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
    let mut line: String =
        words.flat_map(str::chars).filter(|c| !c.is_control()).take(MAX_CHARS + 1).collect();
    if let Some((end, _)) = line.char_indices().nth(MAX_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Reads a JSON string. As in Go, `None` and `null` are empty strings.
///
/// # Errors
/// If the value is not a string or `null`, or if an escape is not a valid character.
pub fn json_text(raw: Option<&RawValue>) -> Result<JsonText<'_>, serde_json::Error> {
    let raw = raw.map_or("null", RawValue::get);
    if raw == "null" {
        return Ok(JsonText::Plain(""));
    }
    let content = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match content.map(JsonText::from_json) {
        Some(text @ JsonText::Plain(_)) => Ok(text),
        text => serde_json::from_str::<String>(raw).map(|_| text.unwrap_or(JsonText::Plain(""))),
    }
}

/// The text of the innermost error. The outer errors only report that something failed.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other end closed the connection".to_owned()
        }
        _ => shorten(&cause.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_and_plain_texts_are_equal() {
        let escaped = JsonText::from_json(r"caf\u00e9\n");
        assert!(matches!(escaped, JsonText::Escaped(_)));
        assert_eq!(escaped, JsonText::Plain("café\n"));
        assert!(JsonText::Plain("b") > JsonText::from_json(r"\u0061z"));
    }

    #[test]
    fn shortened_text_is_one_short_line() {
        assert_eq!(shorten("  two\r\n words\u{7} "), "two words");
        let long = shorten(&"ä".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_CHARS + 1, true));
    }
}
