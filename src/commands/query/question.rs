//! What is asked, read from a path as the server reads it.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::api::custom_metrics::Version;
use crate::api::group::Resource;
use crate::api::selector::Requirement;
use crate::cli::commands::{Api, Query as Order};
use crate::cli::defaults;
use crate::query::target::Target;
use crate::query::{Asked, CustomQuery, ExternalQuery, Query, Question as Asks, ResourceQuery, Subject};

/// What is asked, and of which clusters.
pub(super) struct Question {
    pub(super) path: String,
    pub(super) query: Arc<Query>,
    requirements: Vec<Requirement>,
    only: Option<String>,
}

impl Question {
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
        let target = Target::read(written, parameters).with_context(unreadable)?;
        let Asked { question, clusters } =
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
    if order.group != Api::Custom && !metric_selector.is_empty() {
        bail!("--metric-selector: only custom metrics have it; --selector is what chooses here");
    }
    if order.group == Api::External && order.name.is_some() {
        bail!("--name: external metrics are not of objects; --selector chooses their series");
    }
    let name = || order.name.clone().unwrap_or_else(|| "*".to_owned());
    Ok(match order.group {
        Api::Custom => {
            let subject = match (resource.as_str(), namespace.as_str()) {
                ("namespaces", _) => Subject::Namespace { name: name() },
                ("nodes", _) | (_, "") => Subject::Root { resource: resource.clone(), name: name() },
                _ => Subject::Namespaced {
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
        Api::External => {
            let (namespace, label_selector) = (namespace.clone(), selector.clone());
            Asks::External(ExternalQuery { namespace, metric, label_selector })
        }
        Api::Resource => {
            let found = Resource::ALL.into_iter().find(|known| known.name() == resource);
            let Some(resource) = found else {
                bail!("--resource: {resource:?} has no CPU and memory; pods and nodes have");
            };
            let namespace =
                Some(namespace.clone()).filter(|name| resource == Resource::Pods && !name.is_empty());
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
