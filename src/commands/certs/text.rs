//! Formats of Service names and dates.

use crate::api::time::Timestamp;

/// The server name that the aggregation layer uses for a Service in TLS, independent of its address.
pub(super) fn service_name(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}

/// A time in seconds since 1970, in the format of RFC 3339.
pub(super) fn date(seconds: i64) -> String {
    Timestamp::new(seconds, 0).map_or_else(|| seconds.to_string(), |at| at.to_string())
}
