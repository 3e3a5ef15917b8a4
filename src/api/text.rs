//! Texts of members: strings as they stand in a body, read without a copy, and what is passed on to people.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use serde_json::value::RawValue;

/// A string that borrows from the body it was read from.
#[derive(Clone, Copy, Debug)]
pub enum JsonText<'a> {
    /// The string itself.
    Plain(&'a str),
    /// What stands between the quotes of a JSON string that has escapes; checked to be well-formed.
    Escaped(&'a str),
}

impl<'a> JsonText<'a> {
    /// The text between the quotes of a well-formed JSON string.
    pub fn from_json(content: &'a str) -> Self {
        if content.as_bytes().contains(&b'\\') { Self::Escaped(content) } else { Self::Plain(content) }
    }

    /// The string, copied only if it has escapes.
    pub fn decode(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            // A string that was checked when its page was read cannot fail here.
            Self::Escaped(content) => serde_json::from_str::<String>(&format!("\"{content}\""))
                .map_or(Cow::Borrowed(content), Cow::Owned),
        }
    }

    /// Whether nothing is there.
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

/// How many characters of somebody else's text are passed on.
const MOST: usize = 200;

/// One line that fits into a header and a log, whatever a member put into it.
pub fn shorten(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
    let mut line: String = words.flat_map(str::chars).filter(|c| !c.is_control()).take(MOST + 1).collect();
    if let Some((end, _)) = line.char_indices().nth(MOST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A JSON string as text; an absent one or `null` is empty, as Go reads it.
///
/// # Errors
/// If it is another JSON value, or has escapes that are no characters.
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

/// The innermost error: those around it say only that something failed.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the other end closed it".to_owned(),
        _ => shorten(&cause.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_text_equals_its_plain_twin() {
        let escaped = JsonText::from_json(r"caf\u00e9\n");
        assert!(matches!(escaped, JsonText::Escaped(_)));
        assert_eq!(escaped, JsonText::Plain("café\n"));
        assert!(JsonText::Plain("b") > JsonText::from_json(r"\u0061z"));
    }

    #[test]
    fn a_members_text_stays_on_one_short_line() {
        assert_eq!(shorten("  two\r\n words\u{7} "), "two words");
        let long = shorten(&"ä".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MOST + 1, true));
    }
}
