//! `/apis/custom.metrics.k8s.io/<version>/…`: what applications say of themselves.

use super::super::error::Error;
use super::super::request_info::RequestInfo;
use super::query::{Asked, check_names, choose_clusters};
use crate::api::codec::negotiate::Offer;
use crate::api::custom_metrics::Version;
use crate::api::selector::Selector;
use crate::gather::query::{CustomQuery, Question, Subject};

const MISTAKEN: &[(&str, &str)] = &[
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("metricSelector", "metricLabelSelector"),
    ("metricLabelselector", "metricLabelSelector"),
    ("metric_label_selector", "metricLabelSelector"),
];

/// Whose metric, and which.
pub(super) type Named = (Subject, String);

/// What is asked of a subject.
pub(super) fn asked(
    version: Version,
    (subject, metric): Named,
    info: &RequestInfo,
    cluster_label: Option<&str>,
) -> Result<Asked, Error> {
    let label_selector = info.parameter("labelSelector").to_owned();
    label_selector.parse::<Selector>()?;
    let (clusters, metric_label_selector) =
        choose_clusters(info.parameter("metricLabelSelector"), cluster_label)?;
    let question = Question::Custom(CustomQuery { subject, metric, label_selector, metric_label_selector });
    Ok(Asked { question, clusters, version, offer: Offer::Whole, mistaken: MISTAKEN })
}

/// Whose metric the segments below the version ask for, and which; the routes of custom-metrics-apiserver's
/// `MetricsAPIInstaller.registerResourceHandlers`.
pub(super) fn subject(segments: &[&str]) -> Result<Named, Error> {
    let found = match *segments {
        ["namespaces", namespace, resource, name, metric] => {
            let (namespace, resource) = (namespace.to_owned(), resource.to_owned());
            (Subject::Namespaced { namespace, resource, name: name.to_owned() }, metric.to_owned())
        }
        ["namespaces", name, "metrics", metric] => {
            (Subject::Namespace { name: name.to_owned() }, metric.to_owned())
        }
        ["namespaces", _, _] => return Err(Error::MetricPath),
        [resource, name, metric] => {
            (Subject::Root { resource: resource.to_owned(), name: name.to_owned() }, metric.to_owned())
        }
        _ => return Err(Error::NotFound),
    };
    check_names(segments)?;
    Ok(found)
}
