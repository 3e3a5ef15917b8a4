//! `/apis/external.metrics.k8s.io/v1beta1/…`: what is known of things outside the clusters.

use axum::response::Response;

use super::super::error::Error;
use super::query::{Asked, Asking, check_names};
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

pub(super) async fn answer(asking: Asking<'_>, below: &[&str]) -> Result<Response, Error> {
    let &["namespaces", namespace, metric] = below else { return Err(Error::NotFound) };
    check_names(below)?;
    let read = || {
        if asking.info.verb == "watch" {
            return Err(Error::NotWatched { resource: metric.to_owned(), group: GROUP });
        }
        let (clusters, label_selector) = asking.choose_clusters(asking.info.parameter("labelSelector"))?;
        let (namespace, metric) = (namespace.to_owned(), metric.to_owned());
        let question = Question::External(ExternalQuery { namespace, metric, label_selector });
        Ok(Asked { question, clusters, version: Version::V1Beta2, offer: Offer::Whole, mistaken: MISTAKEN })
    };
    asking.answer(read).await
}
