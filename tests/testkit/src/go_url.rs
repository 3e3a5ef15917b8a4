//! Paths and queries as Go's `net/url` reads and writes them. API servers parse requests like this, and the aggregation layer
//! sends requests like this to its backends.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The parameters of a query, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Follows `url.ParseQuery` as `URL.Query` uses it: malformed parameters are silently dropped.
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

    /// The first value of a parameter. `None` if the parameter is absent or empty, as in Kubernetes' options.
    pub(crate) fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name.as_bytes())?;
        (!value.is_empty()).then(|| String::from_utf8_lossy(value))
    }

    /// Whether a boolean parameter is on. Follows `runtime.Convert_Slice_string_To_bool`: `false`, `0` and an absent parameter
    /// are off, every other value is on.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(key, _)| key == name.as_bytes())
            .is_some_and(|(_, value)| !(value.eq_ignore_ascii_case(b"false") || value == b"0"))
    }

    /// Removes a parameter.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name.as_bytes());
    }

    /// Whether a parameter is present, also without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name.as_bytes())
    }
}

/// Decodes the percent-escapes of a path. `None` if one is malformed; Go's server responds with 400 to such a path.
pub(crate) fn decode_path(raw: &str) -> Option<Vec<u8>> {
    unescape(raw, Plus::IsPlus)
}

/// Follows `URL.EscapedPath` without a `RawPath`: the form of a decoded path when it is forwarded. `*`, `!`, quotes and
/// parentheses are escaped. `$&+,/:;=@` are kept. A decoded `%2F` becomes a separator.
pub(crate) fn encode_path(path: &[u8]) -> String {
    escape(path, |byte| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte))
}

/// Meaning of a `+`.
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
    fn path_is_escaped_as_in_go() {
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
    fn query_is_sorted_and_malformed_parameters_are_dropped() {
        let query = Query::parse("b=1&a=x+y%3D&&bad=%zz&semi;colon=1&b=0&flag&app=a,b*");
        assert_eq!(query.encode(), "a=x+y%3D&app=a%2Cb%2A&b=1&b=0&flag=");
        assert_eq!(query.value("b").as_deref(), Some("1"));
        assert!(query.flag("flag") && !Query::parse("watch=0").flag("watch") && !query.flag("none"));
    }
}
