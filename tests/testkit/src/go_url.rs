//! Paths and queries as Go's `net/url` reads and writes them: how API servers understand a request, and what a backend
//! of the aggregation layer gets to see.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A query's parameters in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Follows `url.ParseQuery` as `URL.Query` uses it: malformed parameters are dropped, without a word.
    pub(crate) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        let decoded = pairs.filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key, Plus::IsSpace)?, unescape(value, Plus::IsSpace)?))
        });
        Self(decoded.collect())
    }

    /// Follows `url.Values.Encode`: sorted by key, spaces as `+`.
    pub(crate) fn encode(&self) -> String {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        let encoded =
            pairs.into_iter().map(|(key, value)| format!("{}={}", escape_query(key), escape_query(value)));
        encoded.collect::<Vec<_>>().join("&")
    }

    /// The first value of a parameter; an absent and an empty one are the same, as in Kubernetes' options.
    pub(crate) fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name.as_bytes())?;
        (!value.is_empty()).then(|| String::from_utf8_lossy(value))
    }

    /// Whether a boolean parameter is on; follows `runtime.Convert_Slice_string_To_bool`: anything but
    /// `false` and `0` is, an absent parameter is not.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(key, _)| key == name.as_bytes())
            .is_some_and(|(_, value)| !(value.eq_ignore_ascii_case(b"false") || value == b"0"))
    }

    /// Takes a parameter out.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name.as_bytes());
    }

    /// Whether a parameter is there at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name.as_bytes())
    }
}

/// Decodes a path's percent-escapes; none if one is malformed, which Go's server answers with 400.
pub(crate) fn decode_path(raw: &str) -> Option<Vec<u8>> {
    unescape(raw, Plus::IsPlus)
}

/// Follows `URL.EscapedPath` without a `RawPath`: what a decoded path looks like when it is sent on. Escaped
/// are `*`, `!`, quotes and parentheses, kept are `$&+,/:;=@`, and a decoded `%2F` has become a separator.
pub(crate) fn encode_path(path: &[u8]) -> String {
    escape(path, |byte| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte))
}

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq)]
enum Plus {
    IsSpace,
    IsPlus,
}

fn unescape(text: &str, plus: Plus) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus == Plus::IsSpace => b' ',
            byte => byte,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Follows `url.QueryEscape`.
pub(crate) fn escape_query(text: &[u8]) -> String {
    escape(text, |byte| byte.is_ascii_alphanumeric() || b"-_.~ ".contains(&byte)).replace(' ', "+")
}

fn escape(text: &[u8], keep: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for &byte in text {
        if keep(byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_escaped_as_go_escapes_it() {
        for (raw, sent) in [
            ("/pods/*/http_requests", "/pods/%2A/http_requests"),
            ("/pods/%2a/m", "/pods/%2A/m"),
            ("/pods/a%2Fb/m", "/pods/a/b/m"),
            ("/a(b)!'/$&+,:;=@~-_.", "/a%28b%29%21%27/$&+,:;=@~-_."),
            ("/a%3Fb%20c%25/ü", "/a%3Fb%20c%25/%C3%BC"),
        ] {
            assert_eq!(encode_path(&decode_path(raw).unwrap()), sent, "{raw}");
        }
        assert_eq!(decode_path("/a%2"), None);
        assert_eq!(decode_path("/a%zz"), None);
    }

    #[test]
    fn a_query_is_sorted_and_malformed_parameters_are_dropped() {
        let query = Query::parse("b=1&a=x+y%3D&&bad=%zz&semi;colon=1&b=0&flag&app=a,b*");
        assert_eq!(query.encode(), "a=x+y%3D&app=a%2Cb%2A&b=1&b=0&flag=");
        assert_eq!(query.value("b").as_deref(), Some("1"));
        assert!(query.flag("flag") && !Query::parse("watch=0").flag("watch") && !query.flag("none"));
    }
}
