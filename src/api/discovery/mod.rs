//! Discovery: which metrics there are, read from members and shown to clients.

mod catalog;
mod list;

use serde_json::{Value, json};

use super::group::Group;
pub use catalog::{Catalog, Catalogs, ExternalCatalog};
pub use list::{DiscoveryError, Entry, entries};

/// What is listed while no metric is known: clients take an empty list for an error, and a subresource for nothing
/// that they could ask for.
const PLACEHOLDER: (&str, &str) = ("metrics", "none-discovered-yet");

/// Which version of `apidiscovery.k8s.io` an aggregated document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregated {
    /// Kubernetes 1.30 and later.
    V2,
    /// Kubernetes 1.26 to 1.29.
    V2Beta1,
}

/// A resource or a subresource, as both forms of discovery list it.
struct Listed<'a> {
    resource: &'a str,
    subresource: Option<&'a str>,
    namespaced: bool,
    kind: &'static str,
    verbs: &'static [&'static str],
}

impl Group {
    /// `/apis/<group>`.
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
    /// `/apis/<group>/<version>`.
    pub fn resource_list(&self, group: Group, version: &str) -> Value {
        let resources: Vec<Value> = self.listed(group).iter().map(Listed::plain).collect();
        json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": format!("{}/{version}", group.name()), "resources": resources,
        })
    }

    /// `/apis` as `APIGroupDiscoveryList`.
    pub fn aggregated(&self, format: Aggregated) -> Value {
        let group = |group: Group| {
            let listed = self.listed(group);
            let resources: Vec<Value> =
                listed.chunk_by(|one, other| one.resource == other.resource).map(aggregated).collect();
            let version =
                |version| json!({"version": version, "resources": resources, "freshness": "Current"});
            let versions: Vec<Value> = group.versions().iter().map(version).collect();
            json!({"metadata": {"name": group.name()}, "versions": versions})
        };
        json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": format.api_version(), "metadata": {},
            "items": Group::ALL.map(group),
        })
    }

    /// What a group has, sorted; never nothing.
    fn listed(&self, group: Group) -> Vec<Listed<'_>> {
        let metric = |resource, subresource, namespaced, kind| Listed {
            resource,
            subresource,
            namespaced,
            kind,
            verbs: &["get"],
        };
        let (mut listed, kind): (Vec<Listed<'_>>, _) = match group {
            Group::Custom => {
                let kind = "MetricValueList";
                let metrics = self.custom.iter();
                (metrics.map(|(parent, name, scope)| metric(parent, Some(name), scope, kind)).collect(), kind)
            }
            Group::External => {
                let kind = "ExternalMetricValueList";
                (self.external.iter().map(|name| metric(name, None, true, kind)).collect(), kind)
            }
            Group::Resource => return USAGE.into(),
        };
        if listed.is_empty() {
            listed.push(metric(PLACEHOLDER.0, Some(PLACEHOLDER.1), true, kind));
        }
        listed
    }
}

/// The resources of `metrics.k8s.io`.
const USAGE: [Listed<'static>; 2] = [usage("nodes", false, "NodeMetrics"), usage("pods", true, "PodMetrics")];

const fn usage(resource: &'static str, namespaced: bool, kind: &'static str) -> Listed<'static> {
    Listed { resource, subresource: None, namespaced, kind, verbs: &["get", "list"] }
}

impl Listed<'_> {
    fn plain(&self) -> Value {
        let name = match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.to_owned(),
        };
        json!({
            "name": name, "singularName": "", "namespaced": self.namespaced, "kind": self.kind, "verbs": self.verbs,
        })
    }
}

/// A resource with its subresources in the aggregated form. A kind without group and version has those of the list.
/// The resource that custom metrics are subresources of cannot be read itself and has no kind.
fn aggregated(listed: &[Listed<'_>]) -> Value {
    let kind = |kind| json!({"group": "", "version": "", "kind": kind});
    let own = listed.iter().find(|one| one.subresource.is_none());
    let mut resource = json!({
        "resource": listed[0].resource,
        "responseKind": kind(own.map_or("", |own| own.kind)),
        "scope": if listed[0].namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": "",
        "verbs": own.map_or(&[][..], |own| own.verbs),
    });
    let subresources: Vec<Value> = listed
        .iter()
        .filter_map(|one| {
            let name = one.subresource?;
            Some(json!({"subresource": name, "responseKind": kind(one.kind), "verbs": one.verbs}))
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
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

/// `/apis`. `address` is where this server listens, in the form that the generic API server of Go gives it.
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
    use super::*;

    fn catalog<T: FromIterator<Entry>>(entries: &[(&str, bool)]) -> T {
        entries
            .iter()
            .map(|(name, namespaced)| Entry { name: (*name).to_owned(), namespaced: *namespaced })
            .collect()
    }

    fn names(list: &Value) -> Vec<(&str, bool)> {
        let entries = list["resources"].as_array().expect("a list").iter();
        entries
            .map(|entry| (entry["name"].as_str().unwrap_or_default(), entry["namespaced"] == true))
            .collect()
    }

    #[test]
    fn a_resource_has_one_scope_and_each_metric_once() {
        let mut custom: Catalog =
            catalog(&[("pods/a", false), ("pods/b", true), ("pods", true), ("/x", true)]);
        custom.merge(&catalog(&[("pods/a", true), ("nodes/load", false)]));
        let all = Catalogs { custom, ..Catalogs::default() };
        let list = all.resource_list(Group::Custom, "v1beta1");
        assert_eq!(names(&list), [("nodes/load", false), ("pods/a", true), ("pods/b", true)]);
    }

    #[test]
    fn external_metrics_are_namespaced_resources_each_once() {
        let mut external: ExternalCatalog = catalog(&[("queue", true), ("externalmetrics", false)]);
        external.merge(&catalog(&[("queue", true), ("metrics/none-discovered-yet", true)]));
        let all = Catalogs { external, ..Catalogs::default() };
        let list = all.resource_list(Group::External, "v1beta1");
        assert_eq!(names(&list), [("externalmetrics", true), ("queue", true)]);
        assert_eq!(
            all.aggregated(Aggregated::V2)["items"][1]["versions"][0]["resources"][1],
            json!({
                "resource": "queue", "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                "responseKind": {"group": "", "version": "", "kind": "ExternalMetricValueList"},
            })
        );
    }

    #[test]
    fn no_metrics_are_a_placeholder_in_each_document() {
        let none = Catalogs::default();
        let aggregated = none.aggregated(Aggregated::V2);
        for (index, group) in [Group::Custom, Group::External].into_iter().enumerate() {
            let list = none.resource_list(group, "v1beta1");
            assert_eq!(names(&list), [("metrics/none-discovered-yet", true)]);
            let parent = &aggregated["items"][index]["versions"][0]["resources"][0];
            assert_eq!(parent["subresources"][0]["subresource"], "none-discovered-yet");
        }
    }
}
