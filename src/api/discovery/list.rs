//! Reads a member's `APIResourceList`.

use std::cmp::Ordering;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::api::codec::protobuf::{Envelope, Fields, MalformedProtobuf};
use crate::api::meta::{BoundedArray, has_long_string};

/// One entry of a list: a resource, or a metric in the shape of one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
pub struct DiscoveryEntry {
    /// Its name; that of a subresource has a slash in it.
    #[serde(deserialize_with = "name")]
    pub name: Box<str>,
    /// Whether its objects are in namespaces.
    #[serde(default)]
    pub namespaced: bool,
}

/// By name; of two scopes of one name the namespaced one is first.
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
    /// A custom metric; `None` if its name is none that a list may have.
    pub fn of(resource: &str, metric: &str, namespaced: bool) -> Option<Self> {
        let name = format!("{resource}/{metric}").into_boxed_str();
        (!is_odd(&name)).then_some(Self { name, namespaced })
    }

    /// Whether this is a custom metric, which is a subresource.
    pub fn is_custom(&self) -> bool {
        self.name.split_once('/').is_some_and(|(resource, metric)| !resource.is_empty() && !metric.is_empty())
    }

    /// Whether this is an external metric. Subresources are none: a member that serves what we serve lists a placeholder in
    /// that shape.
    pub fn is_external(&self) -> bool {
        !self.name.is_empty() && !self.name.contains('/')
    }
}

/// The resource of a name, without its subresource.
pub(super) fn resource(name: &str) -> &str {
    name.split_once('/').map_or(name, |(resource, _)| resource)
}

/// How many metrics one member may list: what it lists is kept, and shown in several documents.
const ENTRIES: usize = 50_000;
/// How many bytes the name of one may have. A Prometheus metric's name has a hundred at most, as a rule.
const NAME: usize = 512;

/// Why a member's body is no discovery document.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The body is no JSON, or its fields have other types.
    #[error("the body is not the JSON of an APIResourceList: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is no protobuf.
    #[error("the body is not the protobuf of an APIResourceList: {0}")]
    Protobuf(#[from] MalformedProtobuf),
    /// The body is some other object.
    #[error("the body is not an APIResourceList")]
    Kind,
    /// A name is longer than any real one, or has characters that no real one has.
    #[error("a metric's name is longer than {NAME} bytes, or has control characters, quotes or backslashes")]
    Name,
}

/// Reads a list, in Kubernetes protobuf if its media type says so, else in JSON. It comes back sorted, each name once.
///
/// # Errors
/// If the body is anything else.
pub fn entries(media_type: &str, body: &[u8]) -> Result<Vec<DiscoveryEntry>, DiscoveryError> {
    let mut entries = match media_type {
        "application/vnd.kubernetes.protobuf" => from_protobuf(body),
        _ => from_json(body),
    }?;
    entries.sort_unstable();
    entries.dedup_by(|one, other| one.name == other.name);
    Ok(entries)
}

/// Whether a name is longer than any real one, or has characters that no real one has.
fn is_odd(name: &str) -> bool {
    name.len() > NAME || name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

/// The name of an entry in JSON. It is looked at before the next one is read, since all of them together may be long.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if is_odd(&name) { Err(D::Error::custom(DiscoveryError::Name)) } else { Ok(name.into()) }
}

fn from_json(body: &[u8]) -> Result<Vec<DiscoveryEntry>, DiscoveryError> {
    #[derive(Deserialize)]
    struct JsonResourceList {
        kind: String,
        resources: Option<BoundedArray<DiscoveryEntry, ENTRIES>>,
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
                    (1, text) if text.text()?.len() > NAME => return Err(DiscoveryError::Name),
                    (1, text) => entry.name = text.text()?.into(),
                    (2, flag) => entry.namespaced = flag.number() != 0,
                    _ => {}
                }
            }
            if is_odd(&entry.name) {
                return Err(DiscoveryError::Name);
            }
            if entries.len() == ENTRIES {
                return Err(MalformedProtobuf::Crowded.into());
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
    fn other_kinds_are_no_list() {
        assert!(matches!(entries("application/json", br#"{"kind":"Status"}"#), Err(DiscoveryError::Kind)));
        assert!(matches!(entries("text/html", b"<html>"), Err(DiscoveryError::Json(_))));
        let protobuf = entries("application/vnd.kubernetes.protobuf", b"<html>");
        assert!(matches!(protobuf, Err(DiscoveryError::Protobuf(_))));
    }

    #[test]
    fn a_list_with_a_name_that_no_metric_has_is_given_up() {
        let json = |name: &str| format!(r#"{{"kind":"APIResourceList","resources":[{{"name":"{name}"}}]}}"#);
        let read = |name: &str| entries("application/json", json(name).as_bytes());
        assert_eq!(read(&"m".repeat(NAME)).expect("as long as allowed").len(), 1);
        for name in [&*"m".repeat(NAME + 1), &*"m".repeat(1 << 20), r"a\u0000", r#"a\""#, r"a\\"] {
            let refused = read(name).expect_err("no metric has it").to_string();
            assert!(refused.contains("a metric's name is longer than"), "{refused}");
        }
    }

    #[test]
    fn a_list_with_more_entries_than_allowed_is_given_up() {
        let json = |count: usize| {
            let resources = vec![r#"{"name":"pods/m"}"#; count].join(",");
            format!(r#"{{"kind":"APIResourceList","resources":[{resources}]}}"#)
        };
        let read = |count| entries("application/json", json(count).as_bytes());
        assert_eq!(read(ENTRIES).expect("as many as allowed").len(), 1, "each name is there once");
        assert!(matches!(read(ENTRIES + 1), Err(DiscoveryError::Json(_))));
        let protobuf = Writer::object("v1", "APIResourceList", 0, |list| {
            (0..=ENTRIES).for_each(|_| list.message(2, |resource| resource.string(1, "pods/m")));
        });
        let read = entries("application/vnd.kubernetes.protobuf", &protobuf);
        assert!(matches!(read, Err(DiscoveryError::Protobuf(MalformedProtobuf::Crowded))));
    }
}
