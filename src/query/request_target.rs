//! A request's path and parameters, read and written: segments are split first and decoded after, so that an encoded slash
//! stays in its segment, and each is encoded by itself, so that none can leave its place.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

/// What stays as it is in a path's segment: the unreserved characters of RFC 3986. `.` and `..` are dealt with
/// apart, since encoding does not take their meaning away.
pub const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path and its parameters, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget {
    /// The whole path.
    pub path: String,
    /// Its segments, decoded each by itself.
    pub segments: Vec<String>,
    /// The parameters, in their order.
    pub parameters: Vec<(String, String)>,
}

/// Why a path cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// A percent sign without two digits, or bytes that are not UTF-8.
    #[error("the request path is not percent-encoded UTF-8")]
    Encoding,
}

impl RequestTarget {
    /// Reads a path and what stands behind its question mark.
    ///
    /// # Errors
    /// If one of them is not well-formed.
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

    /// Whether a list is to be watched: `Convert_Slice_string_To_bool` of apimachinery takes whatever does not say no.
    pub fn is_watch(&self) -> bool {
        let watch = self.parameters.iter().find(|(key, _)| key == "watch");
        watch.is_some_and(|(_, value)| !value.eq_ignore_ascii_case("false") && value != "0")
    }
}

/// Whether something may be called so (`path.IsValidPathSegmentName` of apimachinery): no other place in a path, also for
/// a server that decodes before it splits.
pub fn is_segment_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

/// Refuses names that nothing has.
pub(super) fn check_names(segments: &[&str]) -> Result<(), super::QueryError> {
    if segments.iter().all(|segment| is_segment_name(segment)) {
        Ok(())
    } else {
        Err(super::QueryError::Path)
    }
}

/// Writes a path below a group version, with the parameters that are not empty.
pub(super) fn written(group_version: &str, segments: &[&str], parameters: &[(&str, &str)]) -> String {
    let mut path = format!("/apis/{group_version}");
    for segment in segments {
        write!(path, "/{}", utf8_percent_encode(segment, SEGMENT)).expect("memory takes all text");
    }
    let mut separator = '?';
    for (key, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        write!(path, "{separator}{key}={}", utf8_percent_encode(value, SEGMENT))
            .expect("memory takes all text");
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
