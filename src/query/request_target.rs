//! Reads and writes the path and the parameters of a request. The path is split first and each segment decoded after that, so an
//! encoded slash stays in its segment. Each segment is encoded separately, so no name can change the path.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

/// Characters that are not encoded in a segment: the unreserved characters of RFC 3986. `.` and `..` are refused elsewhere, since
/// encoding does not change their meaning.
pub const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A decoded path and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget {
    /// The whole path.
    pub path: String,
    /// The decoded segments.
    pub segments: Vec<String>,
    /// The decoded parameters, in the order of the request.
    pub parameters: Vec<(String, String)>,
}

/// Why a path cannot be decoded.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// A percent sign without two digits, or bytes that are not UTF-8.
    #[error("the request path is not percent-encoded UTF-8")]
    Encoding,
}

impl RequestTarget {
    /// Reads a path and a query string (without its question mark).
    ///
    /// # Errors
    /// If one of them is malformed.
    pub fn read(path: &str, query: &str) -> Result<Self, PathError> {
        let trimmed = path.trim_matches('/');
        let mut segments = Vec::new();
        if !trimmed.is_empty() {
            segments = trimmed.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let parameters = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
        });
        Ok(Self { path: decode(path)?, segments, parameters: parameters.collect::<Result<_, _>>()? })
    }

    /// The first value of a parameter; empty if it is absent.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether the request is a watch. `Convert_Slice_string_To_bool` of apimachinery accepts any value but `false` and `0`.
    pub fn is_watch(&self) -> bool {
        let watch = self.parameters.iter().find(|(key, _)| key == "watch");
        watch.is_some_and(|(_, value)| !value.eq_ignore_ascii_case("false") && value != "0")
    }
}

/// Whether this is a valid object name (`path.IsValidPathSegmentName` of apimachinery). Other names could change the path on a
/// server that decodes before it splits.
pub fn is_segment_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

/// Refuses invalid object names.
pub(super) fn check_names(segments: &[&str]) -> Result<(), super::QueryError> {
    if segments.iter().all(|segment| is_segment_name(segment)) {
        Ok(())
    } else {
        Err(super::QueryError::Path)
    }
}

/// Writes a path under a group version, with the parameters that are not empty.
pub(super) fn written(group_version: &str, segments: &[&str], parameters: &[(&str, &str)]) -> String {
    let mut path = format!("/apis/{group_version}");
    for segment in segments {
        write!(path, "/{}", utf8_percent_encode(segment, SEGMENT)).expect("a String accepts all text");
    }
    let mut separator = '?';
    for (key, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        write!(path, "{separator}{key}={}", utf8_percent_encode(value, SEGMENT))
            .expect("a String accepts all text");
        separator = '&';
    }
    path
}

fn decode(text: &str) -> Result<String, PathError> {
    let bytes = text.as_bytes();
    let percents = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    for (at, _) in percents {
        let digits = bytes.get(at + 1..at + 3).ok_or(PathError::Encoding)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(PathError::Encoding);
        }
    }
    percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| PathError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_in_their_order() {
        let target = RequestTarget::read("/x", "a=1+2&b=%26&a=3&c").expect("well-formed");
        assert_eq!((target.parameter("a"), target.parameter("b"), target.parameter("c")), ("1 2", "&", ""));
        assert_eq!(target.parameters.len(), 4);
    }

    #[test]
    fn broken_encodings_are_refused() {
        for path in ["/a%", "/a%2", "/a%zz", "/%ff"] {
            assert_eq!(RequestTarget::read(path, ""), Err(PathError::Encoding), "{path}");
        }
    }
}
