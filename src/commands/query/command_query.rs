//! What is asked, read from a path as the server reads it.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::api::custom_metrics::Version;
use crate::api::group::MetricsResource;
use crate::api::selector::Requirement;
use crate::cli::commands::{MetricsApi, QueryFlags as Order};
use crate::cli::defaults;
use crate::query::request_target::RequestTarget;
use crate::query::{
    ClientQuery, CustomQuery, ExternalQuery, MetricTarget, MetricsQuery as Asks, Query, ResourceQuery,
};

/// What is asked, and of which clusters.
pub(super) struct CommandQuery {
    pub(super) path: String,
    pub(super) query: Arc<Query>,
    requirements: Vec<Requirement>,
    only: Option<String>,
}

impl CommandQuery {
    /// What the command line asks: its path, or the one that its flags amount to.
    ///
    /// # Errors
    /// If it asks for no metrics.
    pub(super) fn read(order: &Order) -> anyhow::Result<Self> {
        let path = match &order.path {
            Some(path) => path.clone(),
            None => Query::from(asked(order)?).path(Version::V1Beta2).to_string(),
        };
        let unreadable = || format!("{path:?} is no path of a metric");
        let (written, parameters) = path.split_once('?').unwrap_or((&path, ""));
        // As the server reads it if it is not told otherwise.
        let cluster_label = defaults().merging.cluster_label;
        let target = RequestTarget::read(written, parameters).with_context(unreadable)?;
        let ClientQuery { question, clusters } =
            Asks::read(&target, cluster_label.as_deref()).with_context(unreadable)?;
        Ok(Self {
            path,
            query: Arc::new(question.into()),
            requirements: clusters,
            only: order.cluster.clone(),
        })
    }

    /// Whether a cluster is asked.
    pub(super) fn chooses(&self, cluster: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == cluster)
            && self.requirements.iter().all(|requirement| requirement.matches_label(Some(cluster)))
    }
}

fn asked(order: &Order) -> anyhow::Result<Asks> {
    let Order { resource, namespace, selector, metric_selector, .. } = order;
    let metric = order.metric.clone().unwrap_or_default();
    if order.group != MetricsApi::Custom && !metric_selector.is_empty() {
        bail!("--metric-selector: only custom metrics have it; --selector is what chooses here");
    }
    if order.group == MetricsApi::External && order.name.is_some() {
        bail!("--name: external metrics are not of objects; --selector chooses their series");
    }
    let name = || order.name.clone().unwrap_or_else(|| "*".to_owned());
    Ok(match order.group {
        MetricsApi::Custom => {
            let subject = match (resource.as_str(), namespace.as_str()) {
                ("namespaces", _) => MetricTarget::Namespace { name: name() },
                ("nodes", _) | (_, "") => MetricTarget::Root { resource: resource.clone(), name: name() },
                _ => MetricTarget::Namespaced {
                    namespace: namespace.clone(),
                    resource: resource.clone(),
                    name: name(),
                },
            };
            let (label_selector, metric_label_selector) = (selector.clone(), metric_selector.clone());
            Asks::Custom(CustomQuery {
                version: Version::V1Beta2,
                subject,
                metric,
                label_selector,
                metric_label_selector,
            })
        }
        MetricsApi::External => {
            let (namespace, label_selector) = (namespace.clone(), selector.clone());
            Asks::External(ExternalQuery { namespace, metric, label_selector })
        }
        MetricsApi::Resource => {
            let found = MetricsResource::ALL.into_iter().find(|known| known.name() == resource);
            let Some(resource) = found else {
                bail!("--resource: {resource:?} has no CPU and memory; pods and nodes have");
            };
            let namespace =
                Some(namespace.clone()).filter(|name| resource == MetricsResource::Pods && !name.is_empty());
            Asks::Resource(ResourceQuery {
                resource,
                namespace,
                name: order.name.clone(),
                label_selector: selector.parse().context("--selector")?,
                field_selector: Default::default(),
            })
        }
    })
}
