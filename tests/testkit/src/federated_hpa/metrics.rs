//! The custom metrics client: the paths of its queries and the parsing of responses.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::{Metric, Reading};
use crate::go_url::escape_query;
use crate::timestamp;

/// Characters that Go's `url` package does not escape in names and selectors. Go escapes the wildcard to `%2A`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The versions of the list that the client accepts, independent of the requested version.
const LIST_VERSIONS: [&str; 2] = ["custom.metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2"];

/// Reason why a metric could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// The control plane did not respond.
    #[error("unable to fetch metrics from custom metrics API: {0}")]
    Unreachable(String),
    /// The status was not 200.
    #[error("unable to fetch metrics from custom metrics API: {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The message of the `Status` object, or the body.
        message: String,
    },
    /// The response is not a list of metric values.
    #[error("unable to fetch metrics from custom metrics API: {0}")]
    Malformed(String),
    /// The list has no items.
    #[error("no metrics returned from custom metrics API")]
    Empty,
    /// A query for one object returned several values. The client rejects this.
    #[error("unable to fetch metrics from custom metrics API: {0} results when we asked for exactly one")]
    NotOne(usize),
}

/// The fields of a `MetricValueList` that the algorithm needs or that the controller could fail to decode. A missing or null
/// field has Go's zero value there.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetricValueList {
    kind: String,
    api_version: String,
    items: Option<Vec<MetricValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetricValue {
    described_object: ObjectReference,
    value: Value,
    timestamp: Option<String>,
    #[serde(rename = "windowSeconds")]
    _window_seconds: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectReference {
    name: String,
}

#[derive(Deserialize)]
struct Status {
    message: String,
}

/// The path and query for `metric`, as `k8s.io/metrics` builds them (`GetForObjects` with the pods' selector, `GetForObject` by
/// name).
pub(super) fn path(metric: &Metric, namespace: &str, selector: &str) -> String {
    let escape = |text| utf8_percent_encode(text, ESCAPED);
    let namespace = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}", escape(namespace));
    let (path, of_objects, of_metric) = match metric {
        Metric::Pods { name, selector: of_metric, .. } => {
            (format!("{namespace}/pods/{}/{}", escape("*"), escape(name)), selector, of_metric)
        }
        Metric::Object { resource, name, selector, .. } if resource == "namespaces" => {
            (format!("{namespace}/metrics/{}", escape(name)), "", selector)
        }
        Metric::Object { resource, object, name, selector, .. } => {
            (format!("{namespace}/{}/{}/{}", escape(resource), escape(object), escape(name)), "", selector)
        }
    };
    let parameters = [("labelSelector", of_objects), ("metricLabelSelector", of_metric)];
    let given = parameters.into_iter().filter(|(_, selector)| !selector.is_empty());
    let given: Vec<String> =
        given.map(|(name, selector)| format!("{name}={}", escape_query(selector.as_bytes()))).collect();
    if given.is_empty() { path } else { format!("{path}?{}", given.join("&")) }
}

/// The path and query for a list of the target's pods.
pub(super) fn pods_path(namespace: &str, selector: &str) -> String {
    let escape = |text| utf8_percent_encode(text, ESCAPED);
    format!("/api/v1/namespaces/{}/pods?labelSelector={}", escape(namespace), escape(selector))
}

/// Parses the response to [`path`]. Follows `GetRawMetric` and `GetObjectMetric`.
pub(super) fn read(metric: &Metric, status: u16, body: &[u8]) -> Result<Reading, MetricsError> {
    if status != 200 {
        let message = serde_json::from_slice(body).map_or_else(
            |_| String::from_utf8_lossy(body).trim().to_owned(),
            |status: Status| status.message,
        );
        return Err(MetricsError::Refused { status, message });
    }
    let values = decode(body).map_err(MetricsError::Malformed)?;
    match metric {
        _ if values.is_empty() => Err(MetricsError::Empty),
        Metric::Pods { .. } => Ok(Reading::Pods(values.into_iter().collect::<BTreeMap<_, _>>())),
        Metric::Object { .. } if values.len() > 1 => Err(MetricsError::NotOne(values.len())),
        Metric::Object { .. } => Ok(Reading::Object(values[0].1)),
    }
}

/// The values with the names of their objects. Both versions of the list are parsed in the same way.
fn decode(body: &[u8]) -> Result<Vec<(String, i64)>, String> {
    let list: MetricValueList = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if list.kind != "MetricValueList" || !LIST_VERSIONS.contains(&list.api_version.as_str()) {
        return Err(format!("no kind {:?} is registered for version {:?}", list.kind, list.api_version));
    }
    let value = |item: MetricValue| {
        if let Some(time) = item.timestamp.filter(|time| !timestamp::is_rfc3339(time)) {
            return Err(format!("{time:?} is not a time"));
        }
        let value = match &item.value {
            Value::Null => Some(0),
            Value::String(text) => milli_value(text),
            Value::Number(number) => milli_value(&number.to_string()),
            _ => None,
        };
        let value = value.ok_or_else(|| format!("{} is not a quantity", item.value))?;
        Ok((item.described_object.name, value))
    };
    list.items.unwrap_or_default().into_iter().map(value).collect()
}

/// A quantity in thousandths, rounded away from zero, as Go's `Quantity.MilliValue` returns it. `None` if the text is not a
/// quantity or has more than 36 digits. Values beyond 64 bits are set to the nearest bound.
pub fn milli_value(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') {
        return None;
    }
    let (ten, two) = exponents(suffix)?;
    // Exponents far beyond the range of 64 bits all give the same result.
    let ten = (ten + 3).checked_sub(i32::try_from(fraction.len()).ok()?)?.clamp(-40, 40);
    let digits = digits.trim_start_matches('0');
    let milli = if digits.is_empty() {
        0
    } else if digits.len() > 36 {
        return None;
    } else {
        let mantissa: u128 = digits.parse().ok()?;
        let mantissa = mantissa.saturating_mul(1 << two);
        let scale = 10_u128.checked_pow(ten.unsigned_abs());
        match (ten >= 0, scale) {
            (true, Some(scale)) => mantissa.saturating_mul(scale),
            (true, None) => u128::MAX,
            (false, Some(scale)) => mantissa.div_ceil(scale),
            (false, None) => 1,
        }
    };
    let milli = i64::try_from(milli).unwrap_or(i64::MAX);
    Some(if text.starts_with('-') { -milli } else { milli })
}

/// A suffix as exponents of ten and of two.
fn exponents(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?.clamp(-1000, 1000), 0),
    })
}
