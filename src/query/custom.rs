//! Queries of `custom.metrics.k8s.io`: one metric of one resource.

use super::QueryError;
use super::clusters::choose_clusters;
use super::request_target::{RequestTarget, check_names, written};
use crate::api::custom_metrics::Version;
use crate::api::selector::{Requirement, Selector};

pub(super) const MISSPELLED: &[(&str, &str)] = &[
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("metricSelector", "metricLabelSelector"),
    ("metricLabelselector", "metricLabelSelector"),
    ("metric_label_selector", "metricLabelSelector"),
];

/// A decoded query for custom metrics. Identical queries share one response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomQuery {
    /// The version of the client's request. Each member is queried in the version that it serves.
    pub version: Version,
    /// The objects that the metric describes.
    pub subject: MetricTarget,
    /// The metric's name.
    pub metric: String,
    /// Label selector of the objects; empty for all. Sent to members unchanged.
    pub label_selector: String,
    /// Label selector of the series, without the requirements on the cluster label; empty for all.
    pub metric_label_selector: String,
}

/// The objects that a metric describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetricTarget {
    /// `/namespaces/<namespace>/<resource>/<name>/<metric>`
    Namespaced {
        namespace: String,
        /// The resource with its group, such as `pods` or `jobs.batch`.
        resource: String,
        /// The object's name, or `*`.
        name: String,
    },
    /// `/<resource>/<name>/<metric>`: cluster-scoped objects.
    Root {
        /// The resource with its group.
        resource: String,
        /// The object's name, or `*`.
        name: String,
    },
    Namespace {
        /// The namespace, or `*`.
        name: String,
    },
}

impl CustomQuery {
    /// Reads the segments after the version, and the requirements on the cluster label. The routes are those of
    /// custom-metrics-apiserver's `MetricsAPIInstaller.registerResourceHandlers`.
    pub(super) fn read(
        version: Version,
        segments: &[&str],
        target: &RequestTarget,
        cluster_label: Option<&str>,
    ) -> Result<(Self, Vec<Requirement>), QueryError> {
        let (subject, metric) = match *segments {
            ["namespaces", namespace, resource, name, metric] => {
                let (namespace, resource) = (namespace.to_owned(), resource.to_owned());
                (MetricTarget::Namespaced { namespace, resource, name: name.to_owned() }, metric)
            }
            ["namespaces", name, "metrics", metric] => {
                (MetricTarget::Namespace { name: name.to_owned() }, metric)
            }
            ["namespaces", _, _] => return Err(QueryError::Path),
            [resource, name, metric] => {
                (MetricTarget::Root { resource: resource.to_owned(), name: name.to_owned() }, metric)
            }
            _ => return Err(QueryError::NotFound),
        };
        check_names(segments)?;
        let label_selector = target.parameter("labelSelector").to_owned();
        label_selector.parse::<Selector>()?;
        let (clusters, metric_label_selector) =
            choose_clusters(target.parameter("metricLabelSelector"), cluster_label)?;
        let metric = metric.to_owned();
        Ok((Self { version, subject, metric, label_selector, metric_label_selector }, clusters))
    }

    /// The path and query string for a member that serves this version.
    pub fn path(&self, version: Version) -> String {
        let segments: &[&str] = match &self.subject {
            MetricTarget::Namespaced { namespace, resource, name } => {
                &["namespaces", namespace, resource, name, &self.metric]
            }
            MetricTarget::Root { resource, name } => &[resource, name, &self.metric],
            MetricTarget::Namespace { name } => &["namespaces", name, "metrics", &self.metric],
        };
        let selectors =
            [("labelSelector", &*self.label_selector), ("metricLabelSelector", &self.metric_label_selector)];
        written(version.group_version(), segments, &selectors)
    }

    /// The resource name, as in discovery.
    pub fn resource(&self) -> &str {
        match &self.subject {
            MetricTarget::Namespaced { resource, .. } | MetricTarget::Root { resource, .. } => resource,
            MetricTarget::Namespace { .. } => "namespaces",
        }
    }

    /// Whether the objects are namespaced.
    pub fn is_namespaced(&self) -> bool {
        matches!(self.subject, MetricTarget::Namespaced { .. })
    }

    /// The object's name; `None` for all objects.
    pub fn object(&self) -> Option<&str> {
        let (MetricTarget::Namespaced { name, .. }
        | MetricTarget::Root { name, .. }
        | MetricTarget::Namespace { name }) = &self.subject;
        Some(name.as_str()).filter(|name| *name != "*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(name: &str, metric: &str) -> CustomQuery {
        CustomQuery {
            version: Version::V1Beta2,
            subject: MetricTarget::Namespaced {
                namespace: "default".to_owned(),
                resource: "pods".to_owned(),
                name: name.to_owned(),
            },
            metric: metric.to_owned(),
            label_selector: String::new(),
            metric_label_selector: String::new(),
        }
    }

    #[test]
    fn the_wildcard_and_selectors_are_encoded() {
        let query = CustomQuery {
            label_selector: "app=sample-app,tier in (a, b)".to_owned(),
            metric_label_selector: "verb=GET&x".to_owned(),
            ..pods("*", "http_requests")
        };
        assert_eq!(
            query.path(Version::V1Beta2),
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A/http_requests\
             ?labelSelector=app%3Dsample-app%2Ctier%20in%20%28a%2C%20b%29&metricLabelSelector=verb%3DGET%26x"
        );
    }

    #[test]
    fn no_name_leaves_its_segment() {
        let query = pods("a/../../secrets?x=1#y", "m%2Fn");
        assert_eq!(
            query.path(Version::V1Beta1),
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/a%2F..%2F..%2Fsecrets%3Fx%3D1%23y/m%252Fn"
        );
    }
}
