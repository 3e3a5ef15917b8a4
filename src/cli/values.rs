//! The values of flags as Go's pflag and strconv read them. An error is the end of a sentence that begins with the
//! flag and the value: `--secure-port: "abc" is not a port (0 to 65535)`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum as _;

use crate::api::duration::GoDuration;
use crate::api::selector::Selector;
use crate::config::ExternalMerge;

/// How long a member is waited for, by the server and by commands.
pub const MEMBER_TIMEOUT: &str = "5s";

/// What is wrong with a value.
pub type FlagValueError = &'static str;

/// One use of a flag that holds a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFlag(Vec<String>);

/// One use of a flag that holds rules for external metrics by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMergeFlag(Vec<(String, ExternalMerge)>);

/// Where `/metrics` is served, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(Option<SocketAddr>);

impl From<ListFlag> for Vec<String> {
    fn from(list: ListFlag) -> Self {
        list.0
    }
}

impl From<ExternalMergeFlag> for Vec<(String, ExternalMerge)> {
    fn from(merges: ExternalMergeFlag) -> Self {
        merges.0
    }
}

impl From<MetricsAddress> for Option<SocketAddr> {
    fn from(address: MetricsAddress) -> Self {
        address.0
    }
}

/// `strconv.ParseBool`.
pub fn boolean(text: &str) -> Result<bool, FlagValueError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("is neither true nor false"),
    }
}

/// pflag's `int`.
pub fn int(text: &str) -> Result<i64, FlagValueError> {
    whole(text).ok_or("is not a whole number")
}

/// pflag's `uint`.
pub fn uint(text: &str) -> Result<u64, FlagValueError> {
    // Unlike `strconv.ParseInt`, `ParseUint` refuses a sign.
    let unsigned = Some(text).filter(|text| !text.starts_with(['+', '-']));
    unsigned.and_then(whole).ok_or("is not a whole number of 0 or more")
}

/// A whole number above zero.
pub fn count(text: &str) -> Result<usize, FlagValueError> {
    whole(text).filter(|&count| count > 0).ok_or("is not a whole number above zero")
}

/// A whole number; zero stands for no limit.
pub fn limit(text: &str) -> Result<usize, FlagValueError> {
    whole(text).ok_or("is not a whole number of 0 or more")
}

/// pflag's `int`, as far as it is a number of HTTP/2 streams; as in the reference, one below zero is read as zero.
pub fn streams(text: &str) -> Result<u32, FlagValueError> {
    let number = int(text)?;
    Ok(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// pflag's `float32`, without its spellings of infinity and of no number.
pub fn float(text: &str) -> Result<f32, FlagValueError> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or("is not a number")
}

/// klog's `Level`.
pub fn level(text: &str) -> Result<i32, FlagValueError> {
    whole(text).ok_or("is not a log level (0 to 10)")
}

/// A TCP port.
pub fn port(text: &str) -> Result<u16, FlagValueError> {
    whole(text).ok_or("is not a port (0 to 65535)")
}

/// pflag's `ip`.
pub fn ip(text: &str) -> Result<IpAddr, FlagValueError> {
    text.trim().parse().map_err(|_| "is not an IP address")
}

/// `HOST:PORT` as Go's `net.Listen` takes it, for hosts that need no resolver; empty or `0` turns it off.
pub fn metrics_address(text: &str) -> Result<MetricsAddress, FlagValueError> {
    let complaint = "is not an address to listen on (such as :8080 or 127.0.0.1:8080; 0 turns it off)";
    if matches!(text, "" | "0") {
        return Ok(MetricsAddress(None));
    }
    let (host, port) = text.rsplit_once(':').ok_or(complaint)?;
    let port = port.parse().map_err(|_| complaint)?;
    let address = match host {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ if host.contains(':') => {
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            bracketed.and_then(|host| host.parse().ok()).ok_or(complaint)?
        }
        _ => host.parse().map_err(|_| complaint)?,
    };
    Ok(MetricsAddress(Some(SocketAddr::new(address, port))))
}

/// A duration above zero.
pub fn time_span(text: &str) -> Result<Duration, FlagValueError> {
    let span = duration(text).ok().filter(|span| !span.is_zero());
    span.ok_or("is not a duration above zero (such as 500ms, 5s or 1m30s)")
}

/// A duration of zero or more.
pub fn duration(text: &str) -> Result<Duration, FlagValueError> {
    let duration = text.parse::<GoDuration>().and_then(Duration::try_from);
    duration.map_err(|_| "is not a duration of zero or more (such as 500ms, 5s or 1m30s)")
}

/// Whole days (`365d`), or a duration, of a second at least, which is what certificates count in.
pub fn lifetime(text: &str) -> Result<Duration, FlagValueError> {
    let lifetime = notice(text).ok().filter(|lifetime| lifetime.as_secs() > 0);
    lifetime.ok_or("is not a time of a second at least (such as 365d, 24h or 30m)")
}

/// Whole days (`30d`), or a duration, of zero or more.
pub fn notice(text: &str) -> Result<Duration, FlagValueError> {
    let days = text.strip_suffix('d').and_then(whole::<u16>);
    let days = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
    days.or_else(|| duration(text).ok()).ok_or("is not a time of zero or more (such as 30d, 24h or 30m)")
}

/// The name of a Service or a namespace (`IsDNS1123Label` of k8s.io/apimachinery).
pub fn dns_label(text: &str) -> Result<String, FlagValueError> {
    let complaint =
        "is not the name of a Service or namespace (lower-case letters, digits and -, at most 63)";
    if is_dns_label(text) { Ok(text.to_owned()) } else { Err(complaint) }
}

/// A DNS name; its first label may be `*`.
pub fn dns_name(text: &str) -> Result<String, FlagValueError> {
    let labels = text.strip_prefix("*.").unwrap_or(text);
    if text.len() <= 253 && labels.split('.').all(is_dns_label) {
        Ok(text.to_owned())
    } else {
        Err("is not a DNS name (such as metrics.example.com)")
    }
}

/// A number of bytes above zero, plain or with one of Kubernetes' binary suffixes.
pub fn bytes(text: &str) -> Result<usize, FlagValueError> {
    let (digits, unit) = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    let number: Option<usize> = digits.parse().ok().filter(|_| !digits.starts_with('+'));
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|&bytes| bytes > 0)
        .ok_or("is not a size above zero in bytes (such as 1048576, 512Ki, 64Mi or 1Gi)")
}

/// A label's key, or nothing.
pub fn label_key_or_empty(text: &str) -> Result<String, FlagValueError> {
    // A selector that is a bare key asks whether the label exists: the selector's own rules judge the key.
    let is_key = |selector: Selector| matches!(selector.requirements(), [only] if only.key() == text);
    if text.is_empty() || text.parse().is_ok_and(is_key) {
        Ok(text.to_owned())
    } else {
        Err("is not a label key (such as example.com/cluster; empty turns the label off)")
    }
}

/// One use of pflag's `strings`: a record of CSV as Go's encoding/csv reads one.
pub fn list(text: &str) -> Result<ListFlag, FlagValueError> {
    let complaint =
        "is not a list (values are separated by commas; one that holds a comma or a quote is quoted)";
    let mut values = Vec::new();
    // An empty text is an empty list, and one record is one line.
    let mut rest = text.lines().find(|line| !line.is_empty());
    while let Some(text) = rest {
        let (value, after) = if let Some(quoted) = text.strip_prefix('"') {
            unquoted(quoted).ok_or(complaint)?
        } else {
            let (value, after) = text.split_at(text.find(',').unwrap_or(text.len()));
            if value.contains('"') {
                return Err(complaint);
            }
            (value.to_owned(), after)
        };
        values.push(value);
        rest = match after {
            "" => None,
            _ => Some(after.strip_prefix(',').ok_or(complaint)?),
        };
    }
    Ok(ListFlag(values))
}

/// A list of HTTP header names, or of their beginnings, made lower case.
pub fn headers(text: &str) -> Result<ListFlag, FlagValueError> {
    let ListFlag(names) = list(text)?;
    let is_name = |name: &String| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if names.iter().all(is_name) {
        Ok(ListFlag(names.iter().map(|name| name.to_ascii_lowercase()).collect()))
    } else {
        Err("does not name HTTP headers (such as x-remote-user)")
    }
}

/// A list of paths whose last character may be `*`, after `path.NewAuthorizer` of k8s.io/apiserver.
pub fn open_paths(text: &str) -> Result<ListFlag, FlagValueError> {
    let ListFlag(paths) = list(text)?;
    if paths.iter().all(|path| path.find('*').is_none_or(|star| star + 1 == path.len())) {
        Ok(ListFlag(paths))
    } else {
        Err("holds a path with a * that is not its last character")
    }
}

/// A list of metrics' names and what becomes of them, as pflag's `stringToString` reads one.
pub fn external_merges(text: &str) -> Result<ExternalMergeFlag, FlagValueError> {
    let rule = |pair: &String| {
        let (metric, rule) = pair.split_once('=').filter(|(metric, _)| !metric.is_empty())?;
        Some((metric.to_owned(), ExternalMerge::from_str(rule, false).ok()?))
    };
    let complaint = "is not a list of METRIC=sum|max|min|avg|each (such as queue_depth=max,orders=sum)";
    let ListFlag(pairs) = list(text).map_err(|_| complaint)?;
    pairs.iter().map(rule).collect::<Option<_>>().map(ExternalMergeFlag).ok_or(complaint)
}

fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The text up to a closing quote, in which two quotes mean one, and what follows that quote.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        let Some(more) = after.strip_prefix('"') else { return Some((value, after)) };
        value.push('"');
        rest = more;
    }
}

/// `strconv.ParseInt` with base 0: prefixes `0x`, `0o`, `0b` and `0`, single underscores before digits.
fn whole<T: TryFrom<i128>>(text: &str) -> Option<T> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    let misplaced =
        digits.ends_with('_') || digits.contains("__") || (radix == 10 && digits.starts_with('_'));
    if misplaced || digits.contains(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    T::try_from(if text.starts_with('-') { -number } else { number }).ok()
}
