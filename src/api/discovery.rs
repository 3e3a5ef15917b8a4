//! Discovery: which metrics there are, read from members and shown to clients.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::codec::protobuf::{Envelope, Fields, Malformed};
use super::custom_metrics::{GROUP, Version};

/// What is listed while no metric is known: clients take an empty list for an error.
const PLACEHOLDER: (&str, &str) = ("metrics", "none-discovered-yet");

/// The metrics of one member, or of all: for each resource its scope and its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    resources: BTreeMap<String, Resource>,
}

/// Which version of `apidiscovery.k8s.io` an aggregated document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregated {
    /// Kubernetes 1.30 and later.
    V2,
    /// Kubernetes 1.26 to 1.29.
    V2Beta1,
}

/// Why a member's body is no discovery document.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The body is no JSON, or its fields have other types.
    #[error("the body is not the JSON of an APIResourceList: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is no protobuf.
    #[error("the body is not the protobuf of an APIResourceList: {0}")]
    Protobuf(#[from] Malformed),
    /// The body is some other object.
    #[error("the body is not an APIResourceList")]
    Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resource {
    namespaced: bool,
    metrics: BTreeSet<String>,
}

impl Catalog {
    /// Reads a member's `APIResourceList` in JSON.
    ///
    /// # Errors
    /// If the body is anything else.
    pub fn from_json(body: &[u8]) -> Result<Self, DiscoveryError> {
        #[derive(Deserialize)]
        struct List {
            kind: String,
            resources: Option<Vec<Entry>>,
        }
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            #[serde(default)]
            namespaced: bool,
        }
        let list: List = serde_json::from_slice(body)?;
        if list.kind != "APIResourceList" {
            return Err(DiscoveryError::Kind);
        }
        let mut catalog = Self::default();
        for entry in list.resources.unwrap_or_default() {
            catalog.insert(&entry.name, entry.namespaced);
        }
        Ok(catalog)
    }

    /// Reads a member's `APIResourceList` in protobuf.
    ///
    /// # Errors
    /// If the body is anything else.
    pub fn from_protobuf(body: &[u8]) -> Result<Self, DiscoveryError> {
        let envelope = Envelope::read(body)?;
        if envelope.kind != "APIResourceList" {
            return Err(DiscoveryError::Kind);
        }
        let mut catalog = Self::default();
        for field in Fields::of(envelope.raw) {
            if let (2, resource) = field? {
                let (mut name, mut namespaced) = ("", false);
                for field in Fields::of(resource.bytes()) {
                    match field? {
                        (1, text) => name = text.text()?,
                        (2, flag) => namespaced = flag.number() != 0,
                        _ => {}
                    }
                }
                catalog.insert(name, namespaced);
            }
        }
        Ok(catalog)
    }

    /// Adds all of another catalog. A resource that is namespaced in one is namespaced: two scopes under one
    /// parent make kube-apiserver drop the whole version.
    pub fn merge(&mut self, other: &Self) {
        for (name, resource) in &other.resources {
            match self.resources.get_mut(name) {
                Some(own) => {
                    own.namespaced |= resource.namespaced;
                    own.metrics.extend(resource.metrics.iter().cloned());
                }
                None => {
                    self.resources.insert(name.clone(), resource.clone());
                }
            }
        }
    }

    /// Whether the resource (with its group, such as `jobs.batch`) has the metric.
    pub fn contains(&self, resource: &str, metric: &str) -> bool {
        self.resources.get(resource).is_some_and(|resource| resource.metrics.contains(metric))
    }

    /// How many metrics there are, each counted once for a resource.
    pub fn len(&self) -> usize {
        self.resources.values().map(|resource| resource.metrics.len()).sum()
    }

    /// Whether no metric is known.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// `/apis/custom.metrics.k8s.io/<version>`.
    pub fn resource_list(&self, version: Version) -> Value {
        let entry = |parent: &str, metric: &str, namespaced: bool| {
            json!({
                "name": format!("{parent}/{metric}"), "singularName": "", "namespaced": namespaced,
                "kind": "MetricValueList", "verbs": ["get"],
            })
        };
        let mut resources: Vec<Value> = self
            .resources
            .iter()
            .flat_map(|(name, resource)| {
                resource.metrics.iter().map(move |metric| entry(name, metric, resource.namespaced))
            })
            .collect();
        if resources.is_empty() {
            resources.push(entry(PLACEHOLDER.0, PLACEHOLDER.1, true));
        }
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version.group_version(),
            "resources": resources,
        })
    }

    /// `/apis` as `APIGroupDiscoveryList`: metrics are subresources of parents that cannot be read themselves.
    pub fn aggregated(&self, format: Aggregated) -> Value {
        let no_kind = json!({"group": "", "version": "", "kind": ""});
        let entry = |parent: &str, namespaced: bool, metrics: &[&str]| {
            let subresources: Vec<Value> = metrics
                .iter()
                .map(|metric| {
                    json!({
                        "subresource": metric,
                        "responseKind": {"group": "", "version": "", "kind": "MetricValueList"},
                        "verbs": ["get"],
                    })
                })
                .collect();
            json!({
                "resource": parent, "responseKind": no_kind, "singularResource": "", "verbs": [],
                "scope": if namespaced { "Namespaced" } else { "Cluster" }, "subresources": subresources,
            })
        };
        let mut resources: Vec<Value> = self
            .resources
            .iter()
            .map(|(name, resource)| {
                let metrics: Vec<&str> = resource.metrics.iter().map(String::as_str).collect();
                entry(name, resource.namespaced, &metrics)
            })
            .collect();
        if resources.is_empty() {
            resources.push(entry(PLACEHOLDER.0, true, &[PLACEHOLDER.1]));
        }
        let versions: Vec<Value> = Version::ALL
            .iter()
            .map(|version| json!({"version": version.name(), "resources": resources, "freshness": "Current"}))
            .collect();
        json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": format.api_version(), "metadata": {},
            "items": [{"metadata": {"name": GROUP}, "versions": versions}],
        })
    }

    fn insert(&mut self, name: &str, namespaced: bool) {
        let Some((parent, metric)) = name.split_once('/') else { return };
        if parent.is_empty() || metric.is_empty() {
            return;
        }
        let resource = self
            .resources
            .entry(parent.to_owned())
            .or_insert_with(|| Resource { namespaced, metrics: BTreeSet::new() });
        resource.namespaced |= namespaced;
        resource.metrics.insert(metric.to_owned());
    }
}

impl Aggregated {
    /// `apiVersion` of the document.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }

    /// The media type it is served as.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// `/apis/custom.metrics.k8s.io`.
pub fn group() -> Value {
    let mut group = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(group), Value::Object(fields)) = (&mut group, group_fields()) {
        group.extend(fields);
    }
    group
}

/// `/apis`. `address` is where this server listens, in the form that the generic API server of Go gives it.
pub fn group_list(address: &str) -> Value {
    let mut group = group_fields();
    group["serverAddressByClientCIDRs"] = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]);
    json!({"kind": "APIGroupList", "groups": [group]})
}

fn group_fields() -> Value {
    let version =
        |version: Version| json!({"groupVersion": version.group_version(), "version": version.name()});
    json!({
        "name": GROUP,
        "versions": Version::ALL.map(version),
        "preferredVersion": version(Version::V1Beta2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(entries: &[(&str, bool)]) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, namespaced) in entries {
            catalog.insert(name, *namespaced);
        }
        catalog
    }

    #[test]
    fn a_resource_has_one_scope_and_each_metric_once() {
        let mut all = catalog(&[("pods/a", false), ("pods/b", true)]);
        all.merge(&catalog(&[("pods/a", true), ("nodes/load", false)]));
        let names: Vec<(String, bool)> = all.resource_list(Version::V1Beta1)["resources"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| (entry["name"].as_str().unwrap_or_default().to_owned(), entry["namespaced"] == true))
            .collect();
        let expected = [("nodes/load", false), ("pods/a", true), ("pods/b", true)];
        assert_eq!(names, expected.map(|(name, namespaced)| (name.to_owned(), namespaced)));
    }

    #[test]
    fn no_metrics_are_a_placeholder_in_each_document() {
        let none = Catalog::default();
        assert_eq!(
            none.resource_list(Version::V1Beta2)["resources"][0]["name"],
            "metrics/none-discovered-yet"
        );
        let aggregated = none.aggregated(Aggregated::V2);
        let parent = &aggregated["items"][0]["versions"][0]["resources"][0];
        assert_eq!(parent["subresources"][0]["subresource"], "none-discovered-yet");
    }

    #[test]
    fn other_kinds_are_no_catalog() {
        assert!(matches!(Catalog::from_json(br#"{"kind":"Status"}"#), Err(DiscoveryError::Kind)));
        assert!(matches!(Catalog::from_json(b"<html>"), Err(DiscoveryError::Json(_))));
        assert!(matches!(Catalog::from_protobuf(b"<html>"), Err(DiscoveryError::Protobuf(_))));
    }
}
