//! metrics-server's responses under `/apis/metrics.k8s.io`. Field selectors are ignored, as in many real servers.

use http::StatusCode;

use super::store::{Store, values_of};
use super::wire::{
    ApiGroup, ApiResource, ApiResourceList, Document, MetricsList, PodMetrics, ResourceMetrics, Status,
    StatusDetails, bad_request,
};
use crate::selector::Selector;

/// The API's group.
pub(super) const GROUP: &str = "metrics.k8s.io";
/// Its only version.
pub(super) const VERSION: &str = "v1beta1";

/// The group with its version.
pub(super) fn group() -> Option<ApiGroup> {
    ApiGroup::new(GROUP, &[VERSION])
}

/// Responds to a path. `path` is the part after the version, in decoded segments. `None` if the path is not a resource.
pub(super) fn answer(store: &Store, path: &[&str], label_selector: &str) -> Option<(StatusCode, Document)> {
    let metrics = match *path {
        [] => return Some((StatusCode::OK, Document::Resources(discovery()))),
        ["nodes"] => nodes(store, label_selector),
        ["nodes", name] => {
            let node = store.node_usage(|node| node.metadata.name == name).pop();
            node.map(ResourceMetrics::Node).ok_or_else(|| not_found("nodes", name))
        }
        ["pods"] => pods(store, None, label_selector),
        ["namespaces", namespace, "pods"] => pods(store, Some(namespace), label_selector),
        ["namespaces", namespace, "pods", name] => {
            let is_it = |pod: &PodMetrics| pod.metadata.namespace == namespace && pod.metadata.name == name;
            let pod = store.pod_usage(is_it).pop();
            pod.map(ResourceMetrics::Pod).ok_or_else(|| not_found("pods", name))
        }
        _ => return None,
    };
    Some(match metrics {
        Ok(metrics) => (StatusCode::OK, Document::ResourceMetrics(metrics)),
        Err(status) => status.into_answer(),
    })
}

fn nodes(store: &Store, label_selector: &str) -> Result<ResourceMetrics, Box<Status>> {
    let labels = Selector::parse(label_selector).map_err(bad_request)?;
    let nodes = store.node_usage(|node| labels.matches(values_of(&node.metadata.labels)));
    Ok(ResourceMetrics::Nodes(MetricsList::new(nodes)))
}

fn pods(
    store: &Store,
    namespace: Option<&str>,
    label_selector: &str,
) -> Result<ResourceMetrics, Box<Status>> {
    let labels = Selector::parse(label_selector).map_err(bad_request)?;
    let pods = store.pod_usage(|pod| {
        namespace.is_none_or(|namespace| pod.metadata.namespace == namespace)
            && labels.matches(values_of(&pod.metadata.labels))
    });
    Ok(ResourceMetrics::Pods(MetricsList::new(pods)))
}

fn discovery() -> ApiResourceList {
    let resource = |name: &str, namespaced, kind| ApiResource {
        name: name.to_owned(),
        singular_name: "",
        namespaced,
        kind,
        verbs: &["get", "list"],
    };
    let resources = vec![resource("nodes", false, "NodeMetrics"), resource("pods", true, "PodMetrics")];
    ApiResourceList::new(format!("{GROUP}/{VERSION}"), resources)
}

/// `errors.NewNotFound` of the core group's resource: metrics-server looks up the object itself first.
fn not_found(resource: &str, name: &str) -> Box<Status> {
    let details =
        StatusDetails { name: name.to_owned(), kind: resource.to_owned(), ..StatusDetails::default() };
    let message = format!("{resource} \"{name}\" not found");
    let status = Status::failure(StatusCode::NOT_FOUND, "NotFound", message);
    Status { details: Some(details), ..status }.into()
}
