//! Queries of `metrics.k8s.io`: CPU and memory of nodes and pods.

use super::QueryError;
use super::request_target::{RequestTarget, check_names, written};
use crate::api::field_selector::FieldSelector;
use crate::api::group::MetricsResource;
use crate::api::resource_metrics::{GROUP, GROUP_VERSION};
use crate::api::selector::Selector;

pub(super) const MISSPELLED: &[(&str, &str)] = &[
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("fieldselector", "fieldSelector"),
    ("field_selector", "fieldSelector"),
];

/// A decoded query for CPU and memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceQuery {
    /// Pods or nodes.
    pub resource: MetricsResource,
    /// The namespace; `None` for all namespaces.
    pub namespace: Option<String>,
    /// The object's name; `None` for a list.
    pub name: Option<String>,
    /// Label selector of the objects.
    pub label_selector: Selector,
    /// Field selector of the objects: name and namespace.
    pub field_selector: FieldSelector,
}

impl ResourceQuery {
    /// Reads the segments after the version. Selectors apply to lists only.
    pub(super) fn read(segments: &[&str], target: &RequestTarget) -> Result<Self, QueryError> {
        let (resource, namespace, name) = match *segments {
            ["nodes"] => (MetricsResource::Nodes, None, None),
            ["nodes", name] => (MetricsResource::Nodes, None, Some(name)),
            ["pods"] => (MetricsResource::Pods, None, None),
            ["namespaces", namespace, "pods"] => (MetricsResource::Pods, Some(namespace), None),
            ["namespaces", namespace, "pods", name] => (MetricsResource::Pods, Some(namespace), Some(name)),
            _ => return Err(QueryError::NotFound),
        };
        check_names(segments)?;
        let mut query = Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            label_selector: Selector::default(),
            field_selector: FieldSelector::default(),
        };
        if name.is_none() {
            if target.is_watch() {
                return Err(QueryError::NotWatched { resource: resource.name().to_owned(), group: GROUP });
            }
            query.label_selector = target.parameter("labelSelector").parse()?;
            query.field_selector = target.parameter("fieldSelector").parse()?;
        }
        Ok(query)
    }

    /// The path and query string for a member. Lists have no `limit`: a partial list cannot be merged.
    pub fn path(&self) -> String {
        let mut segments = Vec::with_capacity(4);
        if let Some(namespace) = &self.namespace {
            segments.extend(["namespaces", namespace]);
        }
        segments.push(self.resource.name());
        segments.extend(self.name.as_deref());
        let (labels, fields) = (self.label_selector.to_string(), self.field_selector.to_string());
        written(GROUP_VERSION, &segments, &[("labelSelector", &labels), ("fieldSelector", &fields)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_objects_have_their_paths() {
        let list = ResourceQuery {
            resource: MetricsResource::Pods,
            namespace: Some("default".to_owned()),
            name: None,
            label_selector: "app=x".parse().expect("a selector"),
            field_selector: "metadata.name!=a".parse().expect("a selector"),
        };
        assert_eq!(
            list.path(),
            "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dx&fieldSelector=metadata.name%21%3Da"
        );
        let node = ResourceQuery {
            resource: MetricsResource::Nodes,
            namespace: None,
            name: Some("a/b".to_owned()),
            label_selector: Selector::default(),
            field_selector: FieldSelector::default(),
        };
        assert_eq!(node.path(), "/apis/metrics.k8s.io/v1beta1/nodes/a%2Fb");
    }
}
