//! Queries of `external.metrics.k8s.io`.

use super::QueryError;
use super::clusters::choose_clusters;
use super::request_target::{RequestTarget, check_names, written};
use crate::api::external_metrics::{GROUP, GROUP_VERSION};
use crate::api::selector::Requirement;

pub(super) const MISSPELLED: &[(&str, &str)] = &[
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("metricLabelSelector", "labelSelector"),
];

/// A decoded query for an external metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalQuery {
    pub namespace: String,
    /// The metric's name.
    pub metric: String,
    /// Label selector of the series, without the requirements on the cluster label; empty for all.
    pub label_selector: String,
}

impl ExternalQuery {
    /// Reads the segments after the version, and the requirements on the cluster label.
    pub(super) fn read(
        segments: &[&str],
        target: &RequestTarget,
        cluster_label: Option<&str>,
    ) -> Result<(Self, Vec<Requirement>), QueryError> {
        let &["namespaces", namespace, metric] = segments else { return Err(QueryError::NotFound) };
        check_names(segments)?;
        let (namespace, metric) = (namespace.to_owned(), metric.to_owned());
        if target.is_watch() {
            return Err(QueryError::NotWatched { resource: metric, group: GROUP });
        }
        let (clusters, label_selector) = choose_clusters(target.parameter("labelSelector"), cluster_label)?;
        Ok((Self { namespace, metric, label_selector }, clusters))
    }

    /// The path and query string for a member.
    pub fn path(&self) -> String {
        let segments = ["namespaces", &self.namespace, &self.metric];
        written(GROUP_VERSION, &segments, &[("labelSelector", &self.label_selector)])
    }
}
