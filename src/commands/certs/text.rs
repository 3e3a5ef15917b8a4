//! How names and moments are written.

use crate::api::time::Timestamp;

/// The name by which the aggregation layer asks for a Service, whatever its address.
pub(super) fn service_name(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}

/// A moment, in seconds since 1970, as RFC 3339 has it.
pub(super) fn date(seconds: i64) -> String {
    Timestamp::new(seconds, 0).map_or_else(|| seconds.to_string(), |at| at.to_string())
}
