//! Parsers of flag values, compatible with Go's pflag and strconv. An error text follows the flag and the value:
//! `--secure-port: "abc" is not a port (0 to 65535)`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum as _;

use crate::api::duration::GoDuration;
use crate::api::selector::Selector;
use crate::config::ExternalMerge;

/// Default of `--member-timeout`, for the server and for commands.
pub const MEMBER_TIMEOUT: &str = "5s";

/// Why a value is invalid.
pub type FlagValueError = &'static str;

/// The value of one use of a list flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFlag(Vec<String>);

/// The value of one use of `--external-merge`: metric names with their rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMergeFlag(Vec<(String, ExternalMerge)>);

/// The address of `/metrics`; `None` disables it.
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

/// A boolean, as `strconv.ParseBool` parses it.
pub fn boolean(text: &str) -> Result<bool, FlagValueError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("is not true or false"),
    }
}

/// An integer, as pflag's `int`.
pub fn int(text: &str) -> Result<i64, FlagValueError> {
    integer(text).ok_or("is not a whole number")
}

/// An integer of 0 or more, as pflag's `uint`.
pub fn uint(text: &str) -> Result<u64, FlagValueError> {
    // Unlike `strconv.ParseInt`, `strconv.ParseUint` does not accept a sign.
    let unsigned = Some(text).filter(|text| !text.starts_with(['+', '-']));
    unsigned.and_then(integer).ok_or("is not a whole number of 0 or more")
}

/// A number above zero.
pub fn count(text: &str) -> Result<usize, FlagValueError> {
    integer(text).filter(|&count| count > 0).ok_or("is not a whole number above zero")
}

/// A number; zero means no limit.
pub fn limit(text: &str) -> Result<usize, FlagValueError> {
    integer(text).ok_or("is not a whole number of 0 or more")
}

/// A number of HTTP/2 streams, as pflag's `int`. As in Karmada's built-in adapter, a negative number means zero.
pub fn streams(text: &str) -> Result<u32, FlagValueError> {
    let number = int(text)?;
    Ok(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// A number, as pflag's `float32`, but not infinity and not NaN.
pub fn float(text: &str) -> Result<f32, FlagValueError> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or("is not a number")
}

/// A log level, as klog's `Level`.
pub fn level(text: &str) -> Result<i32, FlagValueError> {
    integer(text).ok_or("is not a log level (0 to 10)")
}

/// A TCP port.
pub fn port(text: &str) -> Result<u16, FlagValueError> {
    integer(text).ok_or("is not a port (0 to 65535)")
}

/// An IP address, as pflag's `ip`.
pub fn ip(text: &str) -> Result<IpAddr, FlagValueError> {
    text.trim().parse().map_err(|_| "is not an IP address")
}

/// `HOST:PORT` as in Go's `net.Listen`. The host is empty, an IP address or `localhost`. An empty text or `0` disables it.
pub fn metrics_address(text: &str) -> Result<MetricsAddress, FlagValueError> {
    let complaint = "is not an address to listen on (such as :8080 or 127.0.0.1:8080; 0 disables it)";
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
pub fn positive_duration(text: &str) -> Result<Duration, FlagValueError> {
    let span = duration(text).ok().filter(|span| !span.is_zero());
    span.ok_or("is not a duration above zero (such as 500ms, 5s or 1m30s)")
}

/// A duration of zero or more.
pub fn duration(text: &str) -> Result<Duration, FlagValueError> {
    let duration = text.parse::<GoDuration>().and_then(Duration::try_from);
    duration.map_err(|_| "is not a duration of zero or more (such as 500ms, 5s or 1m30s)")
}

/// Whole days (`365d`) or a duration. At least one second, because certificates have a resolution of one second.
pub fn lifetime(text: &str) -> Result<Duration, FlagValueError> {
    let lifetime = days_or_duration(text).ok().filter(|lifetime| lifetime.as_secs() > 0);
    lifetime.ok_or("is not a time of at least one second (such as 365d, 24h or 30m)")
}

/// Whole days (`30d`) or a duration, of zero or more.
pub fn days_or_duration(text: &str) -> Result<Duration, FlagValueError> {
    let days = text.strip_suffix('d').and_then(integer::<u16>);
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

/// A label key, or an empty text.
pub fn label_key_or_empty(text: &str) -> Result<String, FlagValueError> {
    // A key alone is a valid selector ("the label exists"), so the selector's parser validates the key.
    let is_key = |selector: Selector| matches!(selector.requirements(), [only] if only.key() == text);
    if text.is_empty() || text.parse().is_ok_and(is_key) {
        Ok(text.to_owned())
    } else {
        Err("is not a label key (such as example.com/cluster; empty disables the label)")
    }
}

/// One use of pflag's `strings`: one CSV record, as Go's encoding/csv parses it.
pub fn list(text: &str) -> Result<ListFlag, FlagValueError> {
    let complaint =
        "is not a list (separate values by commas; quote a value that contains a comma or a quote)";
    let mut values = Vec::new();
    // An empty text is an empty list. Only the first line is the record.
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

/// A list of HTTP header names or prefixes, converted to lower case.
pub fn headers(text: &str) -> Result<ListFlag, FlagValueError> {
    let ListFlag(names) = list(text)?;
    let is_name = |name: &String| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if names.iter().all(is_name) {
        Ok(ListFlag(names.iter().map(|name| name.to_ascii_lowercase()).collect()))
    } else {
        Err("is not a list of HTTP header names (such as x-remote-user)")
    }
}

/// A list of paths that may end in `*`, as in `path.NewAuthorizer` of k8s.io/apiserver.
pub fn open_paths(text: &str) -> Result<ListFlag, FlagValueError> {
    let ListFlag(paths) = list(text)?;
    if paths.iter().all(|path| path.find('*').is_none_or(|star| star + 1 == path.len())) {
        Ok(ListFlag(paths))
    } else {
        Err("contains a path with a * that is not its last character")
    }
}

/// A list of metric names with their merge rules, as pflag's `stringToString`.
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

/// Splits at the closing quote: the text before it, in which `""` means one quote, and the text after it.
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

/// An integer, as `strconv.ParseInt` with base 0 parses it: prefixes `0x`, `0o`, `0b` and `0`, single underscores before
/// digits.
fn integer<T: TryFrom<i128>>(text: &str) -> Option<T> {
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
