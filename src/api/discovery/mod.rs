//! Discovery: reads the lists of metrics from members and publishes them to clients.

mod catalog;
mod list;

use serde::Serialize;
use serde_json::{Value, json};

use super::group::Group;
pub use catalog::{Catalog, Catalogs};
pub use list::{DiscoveryEntry, entries};

/// The only entry while no metric is known. Clients treat an empty list as an error. The entry is a subresource, because
/// clients do not query subresources.
const PLACEHOLDER: &str = "metrics/none-discovered-yet";

/// The version of `apidiscovery.k8s.io` of an aggregated document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregatedVersion {
    /// Kubernetes 1.30 and later.
    V2,
    /// Kubernetes 1.26 to 1.29.
    V2Beta1,
}

/// `metav1.APIResource`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct APIResource<'a> {
    /// The resource, or `resource/subresource`.
    name: &'a str,
    singular_name: &'static str,
    namespaced: bool,
    kind: &'static str,
    verbs: &'static [&'static str],
}

/// `apidiscovery.APIResourceDiscovery`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct APIResourceDiscovery<'a> {
    resource: &'a str,
    response_kind: ResponseKind,
    scope: &'static str,
    singular_resource: &'static str,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<APISubresourceDiscovery<'a>>,
}

/// `apidiscovery.APISubresourceDiscovery`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct APISubresourceDiscovery<'a> {
    subresource: &'a str,
    response_kind: ResponseKind,
    verbs: &'static [&'static str],
}

/// A kind. If group and version are empty, clients use those of the list.
#[derive(Serialize)]
struct ResponseKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

impl Group {
    /// The document at `/apis/<group>`.
    pub fn document(self) -> Value {
        let mut group = self.fields();
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
        group
    }

    fn fields(self) -> Value {
        let version =
            |version| json!({"groupVersion": format!("{}/{version}", self.name()), "version": version});
        let versions: Vec<Value> = self.versions().iter().map(version).collect();
        json!({"name": self.name(), "preferredVersion": versions[0], "versions": versions})
    }
}

impl Catalogs {
    /// The document at `/apis/<group>/<version>`.
    pub fn resource_list(&self, group: Group, version: &str) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct APIResourceList<'a> {
            kind: &'static str,
            api_version: &'static str,
            group_version: String,
            resources: Vec<APIResource<'a>>,
        }
        APIResourceList {
            kind: "APIResourceList",
            api_version: "v1",
            group_version: format!("{}/{version}", group.name()),
            resources: self.resources(group),
        }
    }

    /// The document at `/apis`, as `APIGroupDiscoveryList`.
    pub fn aggregated(&self, format: AggregatedVersion) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct APIGroupDiscoveryList<'a> {
            kind: &'static str,
            api_version: &'static str,
            metadata: Value,
            items: [APIGroupDiscovery<'a>; Group::ALL.len()],
        }
        #[derive(Serialize)]
        struct APIGroupDiscovery<'a> {
            metadata: Value,
            versions: Vec<APIVersionDiscovery<'a>>,
        }
        #[derive(Serialize)]
        struct APIVersionDiscovery<'a> {
            version: &'static str,
            resources: Vec<APIResourceDiscovery<'a>>,
            freshness: &'static str,
        }
        let version = |group, version| APIVersionDiscovery {
            version,
            resources: aggregated(&self.resources(group)),
            freshness: "Current",
        };
        APIGroupDiscoveryList {
            kind: "APIGroupDiscoveryList",
            api_version: format.api_version(),
            metadata: json!({}),
            items: Group::ALL.map(|group| APIGroupDiscovery {
                metadata: json!({"name": group.name()}),
                versions: group.versions().iter().map(|name| version(group, name)).collect(),
            }),
        }
    }

    /// The resources of a group, sorted. The list is never empty.
    fn resources(&self, group: Group) -> Vec<APIResource<'_>> {
        let mut resources: Vec<APIResource<'_>> = match group {
            Group::Custom => {
                let groups = self
                    .custom
                    .entries()
                    .chunk_by(|one, other| list::resource(&one.name) == list::resource(&other.name));
                groups
                    .flat_map(|entries| {
                        // If one resource has two scopes, kube-apiserver ignores the whole version.
                        let namespaced = entries.iter().any(|entry| entry.namespaced);
                        entries.iter().map(move |entry| metric(&entry.name, namespaced, group))
                    })
                    .collect()
            }
            Group::External => {
                self.external.entries().iter().map(|entry| metric(&entry.name, true, group)).collect()
            }
            Group::Resource => RESOURCE_METRICS.into(),
        };
        if resources.is_empty() {
            resources.push(metric(PLACEHOLDER, true, group));
        }
        resources
    }
}

/// The resources of `metrics.k8s.io`.
const RESOURCE_METRICS: [APIResource<'static>; 2] =
    [resource_metric("nodes", false, "NodeMetrics"), resource_metric("pods", true, "PodMetrics")];

const fn resource_metric(name: &'static str, namespaced: bool, kind: &'static str) -> APIResource<'static> {
    APIResource { name, singular_name: "", namespaced, kind, verbs: &["get", "list"] }
}

fn metric(name: &str, namespaced: bool, group: Group) -> APIResource<'_> {
    let kind = if group == Group::Custom { "MetricValueList" } else { "ExternalMetricValueList" };
    APIResource { name, singular_name: "", namespaced, kind, verbs: &["get"] }
}

impl<'a> APIResource<'a> {
    fn resource(&self) -> &'a str {
        list::resource(self.name)
    }

    fn subresource(&self) -> Option<&'a str> {
        self.name.split_once('/').map(|(_, subresource)| subresource)
    }
}

/// Converts resources to the aggregated form: each resource has a list of its subresources. A resource of custom metrics has no
/// kind, because only its subresources can be read.
fn aggregated<'a>(resources: &[APIResource<'a>]) -> Vec<APIResourceDiscovery<'a>> {
    let kind = |kind| ResponseKind { group: "", version: "", kind };
    let groups = resources.chunk_by(|one, other| one.resource() == other.resource());
    groups
        .map(|group| {
            let own = group.iter().find(|one| one.subresource().is_none());
            let subresource = |one: &APIResource<'a>| {
                let subresource = one.subresource()?;
                Some(APISubresourceDiscovery { subresource, response_kind: kind(one.kind), verbs: one.verbs })
            };
            APIResourceDiscovery {
                resource: group[0].resource(),
                response_kind: kind(own.map_or("", |own| own.kind)),
                scope: if group[0].namespaced { "Namespaced" } else { "Cluster" },
                singular_resource: "",
                verbs: own.map_or(&[][..], |own| own.verbs),
                subresources: group.iter().filter_map(subresource).collect(),
            }
        })
        .collect()
}

impl AggregatedVersion {
    /// The field `apiVersion` of the document.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }

    /// The media type of the document, for the header `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// The document at `/apis`, as `APIGroupList`. `address` is the address of this server, in the format of Go's generic API
/// server.
pub fn group_list(address: &str) -> Value {
    let groups = Group::ALL.map(|group| {
        let mut group = group.fields();
        group["serverAddressByClientCIDRs"] = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]);
        group
    });
    json!({"kind": "APIGroupList", "groups": groups})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn catalog(entries: &[(&str, bool)]) -> Catalog {
        let entry = |(name, namespaced): &(&str, bool)| DiscoveryEntry {
            name: (*name).into(),
            namespaced: *namespaced,
        };
        Catalog::new(entries.iter().map(entry).map(Arc::new).collect())
    }

    fn value(document: impl Serialize) -> Value {
        serde_json::to_value(document).expect("valid JSON")
    }

    fn names(list: &Value) -> Vec<(&str, bool)> {
        let entries = list["resources"].as_array().expect("a list").iter();
        entries
            .map(|entry| (entry["name"].as_str().unwrap_or_default(), entry["namespaced"] == true))
            .collect()
    }

    #[test]
    fn resource_has_one_scope_and_no_duplicate_metrics() {
        let one = catalog(&[("pods/a", false), ("pods/b", true), ("pods.x/a", false), ("pods/a", false)]);
        let custom = Catalog::union([&one, &catalog(&[("pods/a", true), ("nodes/load", false)])].into_iter());
        assert!(
            custom.contains("pods", "a") && !custom.contains("pods", "c") && !custom.contains("nodes", "")
        );
        let all = Catalogs { custom, ..Catalogs::default() };
        let list = value(all.resource_list(Group::Custom, "v1beta1"));
        let expected = [("nodes/load", false), ("pods.x/a", false), ("pods/a", true), ("pods/b", true)];
        assert_eq!(names(&list), expected);
        let aggregated = value(all.aggregated(AggregatedVersion::V2));
        let resources = aggregated["items"][0]["versions"][1]["resources"].as_array().expect("a list");
        let resources: Vec<_> = resources.iter().map(|one| (&one["resource"], &one["scope"])).collect();
        assert_eq!(
            json!(resources),
            json!([["nodes", "Cluster"], ["pods.x", "Cluster"], ["pods", "Namespaced"]])
        );
    }

    #[test]
    fn external_metrics_are_namespaced_without_duplicates() {
        let one = catalog(&[("queue", true), ("externalmetrics", false)]);
        let all = Catalogs {
            external: Catalog::union([&one, &catalog(&[("queue", true)])].into_iter()),
            ..Catalogs::default()
        };
        let list = value(all.resource_list(Group::External, "v1beta1"));
        assert_eq!(names(&list), [("externalmetrics", true), ("queue", true)]);
        assert_eq!(
            value(all.aggregated(AggregatedVersion::V2))["items"][1]["versions"][0]["resources"][1],
            json!({
                "resource": "queue", "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                "responseKind": {"group": "", "version": "", "kind": "ExternalMetricValueList"},
            })
        );
    }

    #[test]
    fn documents_without_metrics_have_a_placeholder() {
        let none = Catalogs::default();
        let aggregated = value(none.aggregated(AggregatedVersion::V2));
        for (index, group) in [Group::Custom, Group::External].into_iter().enumerate() {
            let list = value(none.resource_list(group, "v1beta1"));
            assert_eq!(names(&list), [("metrics/none-discovered-yet", true)]);
            let parent = &aggregated["items"][index]["versions"][0]["resources"][0];
            assert_eq!(parent["subresources"][0]["subresource"], "none-discovered-yet");
        }
    }
}
