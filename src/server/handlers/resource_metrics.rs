//! `/apis/metrics.k8s.io/v1beta1/…`: CPU and memory of nodes and pods.

use super::super::error::Error;
use super::super::request_info::RequestInfo;
use super::query::{Asked, check_names};
use crate::api::codec::negotiate::Offer;
use crate::api::custom_metrics::Version;
use crate::api::resource_metrics::{GROUP, Resource};
use crate::gather::query::{Question, ResourceQuery};

const MISTAKEN: &[(&str, &str)] = &[
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("fieldselector", "fieldSelector"),
    ("field_selector", "fieldSelector"),
];

/// What a path names.
pub(super) struct Subject<'a> {
    resource: Resource,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

/// What is asked of a subject.
pub(super) fn asked(subject: &Subject<'_>, info: &RequestInfo) -> Result<Asked, Error> {
    let Subject { resource, namespace, name } = *subject;
    if info.verb == "watch" {
        return Err(Error::NotWatched { resource: resource.name().to_owned(), group: GROUP });
    }
    let mut query = ResourceQuery {
        resource,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        label_selector: Default::default(),
        field_selector: Default::default(),
    };
    let mut offer = Offer::Object;
    if name.is_none() {
        offer = Offer::List;
        query.label_selector = info.parameter("labelSelector").parse()?;
        query.field_selector = info.parameter("fieldSelector").parse()?;
    }
    let (question, clusters) = (Question::Resource(query), Vec::new());
    Ok(Asked { question, clusters, version: Version::V1Beta2, offer, mistaken: MISTAKEN })
}

/// What the segments below the version name.
pub(super) fn subject<'a>(segments: &[&'a str]) -> Result<Subject<'a>, Error> {
    let (resource, namespace, name) = match *segments {
        ["nodes"] => (Resource::Nodes, None, None),
        ["nodes", name] => (Resource::Nodes, None, Some(name)),
        ["pods"] => (Resource::Pods, None, None),
        ["namespaces", namespace, "pods"] => (Resource::Pods, Some(namespace), None),
        ["namespaces", namespace, "pods", name] => (Resource::Pods, Some(namespace), Some(name)),
        _ => return Err(Error::NotFound),
    };
    check_names(segments)?;
    Ok(Subject { resource, namespace, name })
}
