//! Reads a member's `APIResourceList`.

use std::cmp::Ordering;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::api::codec::protobuf::{Envelope, Fields, MalformedProtobuf};
use crate::api::meta::{BoundedArray, has_long_string};
use crate::api::page::BodyFormat;

/// One entry of the list: a resource, or a metric in the form of a resource.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
pub struct DiscoveryEntry {
    /// The name. The name of a subresource contains a slash, such as `pods/http_requests`.
    #[serde(deserialize_with = "name")]
    pub name: Box<str>,
    /// Whether the resource is namespaced.
    #[serde(default)]
    pub namespaced: bool,
}

/// Order by name. For equal names, a namespaced entry comes first.
impl Ord for DiscoveryEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name).then(other.namespaced.cmp(&self.namespaced))
    }
}

impl PartialOrd for DiscoveryEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl DiscoveryEntry {
    /// Creates the entry of a custom metric; `None` if the name is invalid: too long, or with control characters, quotes or
    /// backslashes.
    pub fn custom_metric(resource: &str, metric: &str, namespaced: bool) -> Option<Self> {
        let name = format!("{resource}/{metric}").into_boxed_str();
        (!is_invalid_name(&name)).then_some(Self { name, namespaced })
    }

    /// Whether this is a custom metric. Custom metrics are subresources.
    pub fn is_custom(&self) -> bool {
        self.name.split_once('/').is_some_and(|(resource, metric)| !resource.is_empty() && !metric.is_empty())
    }

    /// Whether this is an external metric. Subresources are not: a member that runs this adapter lists its placeholder as a
    /// subresource.
    pub fn is_external(&self) -> bool {
        !self.name.is_empty() && !self.name.contains('/')
    }
}

/// The resource part of a name, without the subresource.
pub(super) fn resource(name: &str) -> &str {
    name.split_once('/').map_or(name, |(resource, _)| resource)
}

/// Maximum number of metrics of one member. The adapter keeps the list and publishes it in several documents.
const MAX_ENTRIES: usize = 50_000;
/// Maximum length of a metric's name in bytes. Names of Prometheus metrics usually have at most 100.
const MAX_NAME_BYTES: usize = 512;

/// Why a member's response body is not a valid `APIResourceList`.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The body is not JSON, or a field has the wrong type.
    #[error("the body is not an APIResourceList in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is not protobuf.
    #[error("the body is not an APIResourceList in protobuf: {0}")]
    Protobuf(#[from] MalformedProtobuf),
    /// The body is an object of another kind.
    #[error("the body is not an APIResourceList")]
    Kind,
    /// A name is too long, or has characters that no real name has.
    #[error(
        "a metric's name is longer than {MAX_NAME_BYTES} bytes, or has control characters, quotes or \
         backslashes"
    )]
    Name,
}

/// Reads a list. The result is sorted by name and has no duplicates.
///
/// # Errors
/// If the body is not an `APIResourceList`, or if it exceeds a limit.
pub fn entries(format: BodyFormat, body: &[u8]) -> Result<Vec<DiscoveryEntry>, DiscoveryError> {
    let mut entries = match format {
        BodyFormat::Protobuf => from_protobuf(body),
        BodyFormat::Json => from_json(body),
    }?;
    entries.sort_unstable();
    entries.dedup_by(|one, other| one.name == other.name);
    Ok(entries)
}

/// Whether a name is too long, or has characters that no real name has.
fn is_invalid_name(name: &str) -> bool {
    name.len() > MAX_NAME_BYTES || name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

/// Reads an entry's name in JSON. It checks each name directly, because all names together can be very long.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if is_invalid_name(&name) { Err(D::Error::custom(DiscoveryError::Name)) } else { Ok(name.into()) }
}

fn from_json(body: &[u8]) -> Result<Vec<DiscoveryEntry>, DiscoveryError> {
    #[derive(Deserialize)]
    struct JsonResourceList {
        kind: String,
        resources: Option<BoundedArray<DiscoveryEntry, MAX_ENTRIES>>,
    }
    if has_long_string(body) {
        return Err(DiscoveryError::Name);
    }
    let list: JsonResourceList = serde_json::from_slice(body)?;
    if list.kind == "APIResourceList" {
        Ok(list.resources.unwrap_or_default().0)
    } else {
        Err(DiscoveryError::Kind)
    }
}

fn from_protobuf(body: &[u8]) -> Result<Vec<DiscoveryEntry>, DiscoveryError> {
    let envelope = Envelope::read(body)?;
    if envelope.kind != "APIResourceList" {
        return Err(DiscoveryError::Kind);
    }
    let mut entries = Vec::new();
    for field in Fields::of(envelope.raw) {
        if let (2, resource) = field? {
            let mut entry = DiscoveryEntry::default();
            for field in Fields::of(resource.bytes()) {
                match field? {
                    (1, text) if text.text()?.len() > MAX_NAME_BYTES => return Err(DiscoveryError::Name),
                    (1, text) => entry.name = text.text()?.into(),
                    (2, flag) => entry.namespaced = flag.number() != 0,
                    _ => {}
                }
            }
            if is_invalid_name(&entry.name) {
                return Err(DiscoveryError::Name);
            }
            if entries.len() == MAX_ENTRIES {
                return Err(MalformedProtobuf::TooManyEntries.into());
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::codec::protobuf::Writer;

    #[test]
    fn other_kinds_are_rejected() {
        assert!(matches!(entries(BodyFormat::Json, br#"{"kind":"Status"}"#), Err(DiscoveryError::Kind)));
        assert!(matches!(entries(BodyFormat::Json, b"<html>"), Err(DiscoveryError::Json(_))));
        let protobuf = entries(BodyFormat::Protobuf, b"<html>");
        assert!(matches!(protobuf, Err(DiscoveryError::Protobuf(_))));
    }

    #[test]
    fn list_with_an_invalid_name_is_rejected() {
        let json = |name: &str| format!(r#"{{"kind":"APIResourceList","resources":[{{"name":"{name}"}}]}}"#);
        let read = |name: &str| entries(BodyFormat::Json, json(name).as_bytes());
        assert_eq!(read(&"m".repeat(MAX_NAME_BYTES)).expect("the maximum length").len(), 1);
        for name in [&*"m".repeat(MAX_NAME_BYTES + 1), &*"m".repeat(1 << 20), r"a\u0000", r#"a\""#, r"a\\"] {
            let error = read(name).expect_err("an invalid name").to_string();
            assert!(error.contains("a metric's name is longer than"), "{error}");
        }
    }

    #[test]
    fn list_with_too_many_entries_is_rejected() {
        let json = |count: usize| {
            let resources = vec![r#"{"name":"pods/m"}"#; count].join(",");
            format!(r#"{{"kind":"APIResourceList","resources":[{resources}]}}"#)
        };
        let read = |count| entries(BodyFormat::Json, json(count).as_bytes());
        assert_eq!(read(MAX_ENTRIES).expect("the maximum number").len(), 1, "no duplicates");
        assert!(matches!(read(MAX_ENTRIES + 1), Err(DiscoveryError::Json(_))));
        let protobuf = Writer::object("v1", "APIResourceList", 0, |list| {
            (0..=MAX_ENTRIES).for_each(|_| list.message(2, |resource| resource.string(1, "pods/m")));
        });
        let read = entries(BodyFormat::Protobuf, &protobuf);
        assert!(matches!(read, Err(DiscoveryError::Protobuf(MalformedProtobuf::TooManyEntries))));
    }
}
