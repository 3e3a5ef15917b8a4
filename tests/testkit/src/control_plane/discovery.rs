//! Discovery for kubectl and client-go: plain documents, and the aggregated lists of `/api` and `/apis`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::Plane;
use super::objects::resources::{Resource, STORED};
use super::reply::{json_response, text_response, unknown_path};
use crate::https::{Body, full, response};

/// Virtual resources, which can be created but are not stored: group, kind, plural, singular.
const REVIEWS: [(&str, &str, &str, &str); 3] = [
    ("authentication.k8s.io", "TokenReview", "tokenreviews", "tokenreview"),
    (
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
    ),
    ("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview"),
];

/// The version that this API server reports.
pub(super) const VERSION: &str = "v1.31.0-fleet";

/// The verbs of stored objects.
const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

/// Content types of the aggregated document and the versions of its objects, preferred first.
const AGGREGATED: [(&str, &str, &str); 2] = [
    ("v=v2;", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "v2"),
    ("v=v2beta1;", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "v2beta1"),
];

/// Responds to a path that is not a resource.
pub(super) fn answer(plane: &Plane, path: &str, headers: &HeaderMap) -> Response<Body> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match *segments {
        ["healthz" | "livez" | "readyz"] => response(StatusCode::OK, "text/plain; charset=utf-8", full("ok")),
        ["version"] => json_response(StatusCode::OK, &version()),
        ["api"] => aggregated(headers, || vec![group(plane, "")]).unwrap_or_else(|| {
            json_response(StatusCode::OK, &json!({"kind": "APIVersions", "versions": ["v1"]}))
        }),
        ["apis"] => aggregated(headers, || groups(plane).keys().map(|name| group(plane, name)).collect())
            .unwrap_or_else(|| {
                let list =
                    groups(plane).iter().map(|(name, versions)| legacy_group(name, versions)).collect();
                let list: Vec<Value> = list;
                json_response(
                    StatusCode::OK,
                    &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}),
                )
            }),
        ["api", version] => resources("", version),
        ["apis", name] => match groups(plane).get(name) {
            Some(versions) => {
                let mut group = legacy_group(name, versions);
                group["kind"] = json!("APIGroup");
                group["apiVersion"] = json!("v1");
                json_response(StatusCode::OK, &group)
            }
            None => unknown_path(),
        },
        ["apis", group, version] => resources(group, version),
        _ => unknown_path(),
    }
}

/// kube-apiserver's response while the backend of an APIService is not available.
pub(super) fn unavailable() -> Response<Body> {
    text_response(StatusCode::SERVICE_UNAVAILABLE, "service unavailable")
}

/// The groups under `/apis` and their versions, preferred first.
fn groups(plane: &Plane) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    let own = STORED.iter().map(|resource| (resource.group, resource.version));
    for (group, version) in own.chain(REVIEWS.iter().map(|review| (review.0, "v1"))) {
        if !group.is_empty() {
            groups.insert(group.to_owned(), vec![version.to_owned()]);
        }
    }
    for service in plane.aggregation.services() {
        groups.entry(service.group.clone()).or_default().push(service.version.clone());
    }
    for versions in groups.values_mut() {
        // All served versions have the same form (v1, v1beta1, v1beta2), so that text order is version order.
        versions.sort_by_key(|version| Reverse(version.clone()));
    }
    groups
}

fn legacy_group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/v1` and `/apis/<group>/<version>` of the control plane's own groups.
fn resources(group: &str, version: &str) -> Response<Body> {
    let mut list = Vec::new();
    for resource in STORED.into_iter().filter(|known| known.group == group && known.version == version) {
        list.push(json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
            "shortNames": resource.short,
        }));
        if resource.status {
            list.push(json!({
                "name": format!("{}/status", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
    }
    for (_, kind, plural, singular) in
        REVIEWS.into_iter().filter(|review| review.0 == group && version == "v1")
    {
        list.push(json!({
            "name": plural, "singularName": singular, "namespaced": false, "kind": kind, "verbs": ["create"],
        }));
    }
    if list.is_empty() {
        return unknown_path();
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json_response(
        StatusCode::OK,
        &json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list,
        }),
    )
}

/// The aggregated list, if the client accepts it.
fn aggregated(headers: &HeaderMap, items: impl FnOnce() -> Vec<Value>) -> Option<Response<Body>> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (_, content_type, version) = AGGREGATED
        .into_iter()
        .find(|(version, ..)| accept.contains("as=APIGroupDiscoveryList") && accept.contains(version))?;
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items(),
    });
    Some(response(StatusCode::OK, content_type, full(format!("{document}\n"))))
}

/// One group of the aggregated list: a group of the control plane, or the backend's own entries for its versions.
fn group(plane: &Plane, name: &str) -> Value {
    let mut versions = Vec::new();
    for service in plane.aggregation.services().iter().filter(|service| service.group == name) {
        versions.push((service.version.clone(), service.discovery()));
    }
    let own = STORED.into_iter().filter(|resource| resource.group == name).map(discovered);
    let reviews =
        REVIEWS.into_iter().filter(|review| review.0 == name).map(|(group, kind, plural, singular)| {
            json!({
                "resource": plural,
                "responseKind": {"group": group, "version": "v1", "kind": kind},
                "scope": "Cluster",
                "singularResource": singular,
                "verbs": ["create"],
            })
        });
    let own: Vec<Value> = own.chain(reviews).collect();
    if !own.is_empty() {
        let version =
            STORED.iter().find(|resource| resource.group == name).map_or("v1", |found| found.version);
        versions.push((
            version.to_owned(),
            json!({"version": version, "resources": own, "freshness": "Current"}),
        ));
    }
    versions.sort_by_key(|(version, _)| Reverse(version.clone()));
    let versions: Vec<Value> = versions.into_iter().map(|(_, document)| document).collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn discovered(resource: &Resource) -> Value {
    let response_kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut document = json!({
        "resource": resource.plural,
        "responseKind": response_kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
        "shortNames": resource.short,
    });
    if resource.status {
        document["subresources"] = json!([{
            "subresource": "status", "responseKind": response_kind, "verbs": ["get", "patch", "update"],
        }]);
    }
    document
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "31",
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2024-08-13T07:28:49Z",
        "goVersion": "go1.22.5",
        "compiler": "gc",
        "platform": "linux/amd64",
    })
}
