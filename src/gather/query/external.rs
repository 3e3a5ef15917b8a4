//! What is asked of each member of `external.metrics.k8s.io`.

use super::{append, parameters};
use crate::api::external_metrics::GROUP_VERSION;

/// A query for an external metric, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalQuery {
    /// The namespace in whose name is asked.
    pub namespace: String,
    /// The metric's name.
    pub metric: String,
    /// Which series, without the requirements on the cluster label; empty for all.
    pub label_selector: String,
}

impl ExternalQuery {
    /// The path and query that asks a member.
    pub fn path(&self) -> String {
        let mut path = append(GROUP_VERSION, &["namespaces", &self.namespace, &self.metric]);
        parameters(&mut path, &[("labelSelector", &self.label_selector)]);
        path
    }
}
