//! `/apis/external.metrics.k8s.io/v1beta1/…`: what is known of things outside the clusters.

use super::super::error::Error;
use super::super::request_info::RequestInfo;
use super::query::{Asked, check_names, choose_clusters};
use crate::api::codec::negotiate::Offer;
use crate::api::custom_metrics::Version;
use crate::api::external_metrics::GROUP;
use crate::gather::query::{ExternalQuery, Question};

const MISTAKEN: &[(&str, &str)] = &[
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("metricLabelSelector", "labelSelector"),
];

/// What is asked of a metric in a namespace.
pub(super) fn asked(
    [namespace, metric]: [&str; 2],
    info: &RequestInfo,
    cluster_label: Option<&str>,
) -> Result<Asked, Error> {
    if info.verb == "watch" {
        return Err(Error::NotWatched { resource: metric.to_owned(), group: GROUP });
    }
    let (clusters, label_selector) = choose_clusters(info.parameter("labelSelector"), cluster_label)?;
    let (namespace, metric) = (namespace.to_owned(), metric.to_owned());
    let question = Question::External(ExternalQuery { namespace, metric, label_selector });
    Ok(Asked { question, clusters, version: Version::V1Beta2, offer: Offer::Whole, mistaken: MISTAKEN })
}

/// The namespace and the metric that the segments below the version name.
pub(super) fn subject<'a>(segments: &[&'a str]) -> Result<[&'a str; 2], Error> {
    let &["namespaces", namespace, metric] = segments else { return Err(Error::NotFound) };
    check_names(segments)?;
    Ok([namespace, metric])
}
