//! The query of the command, parsed from a path as the server parses it.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::api::custom_metrics::Version;
use crate::api::group::MetricsResource;
use crate::api::selector::Requirement;
use crate::cli::commands::{MetricsApi, QueryFlags};
use crate::cli::defaults;
use crate::query::request_target::RequestTarget;
use crate::query::{
    ClientQuery, CustomQuery, DecodedQuery, ExternalQuery, MetricTarget, Query, ResourceQuery,
};

/// A query, and the selection of its clusters.
pub(super) struct CommandQuery {
    pub(super) path: String,
    pub(super) query: Arc<Query>,
    requirements: Vec<Requirement>,
    only: Option<String>,
}

impl CommandQuery {
    /// Reads the query from a path or from the other flags.
    ///
    /// # Errors
    /// If the path or the flags are not a valid metrics query.
    pub(super) fn read(flags: &QueryFlags) -> anyhow::Result<Self> {
        let path = match &flags.path {
            Some(path) => path.clone(),
            None => Query::from(metrics_query(flags)?).path(Version::V1Beta2).to_string(),
        };
        let invalid = || format!("{path:?} is not the path of a metric");
        let (path_only, parameters) = path.split_once('?').unwrap_or((&path, ""));
        // The server's default of --cluster-label.
        let cluster_label = defaults().merging.cluster_label;
        let target = RequestTarget::read(path_only, parameters).with_context(invalid)?;
        let ClientQuery { question, clusters } =
            DecodedQuery::read(&target, cluster_label.as_deref()).with_context(invalid)?;
        Ok(Self {
            path,
            query: Arc::new(question.into()),
            requirements: clusters,
            only: flags.cluster.clone(),
        })
    }

    /// Whether the cluster is queried.
    pub(super) fn chooses(&self, cluster: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == cluster)
            && self.requirements.iter().all(|requirement| requirement.matches_label(Some(cluster)))
    }
}

fn metrics_query(flags: &QueryFlags) -> anyhow::Result<DecodedQuery> {
    let QueryFlags { resource, namespace, selector, metric_selector, .. } = flags;
    let metric = flags.metric.clone().unwrap_or_default();
    if flags.group != MetricsApi::Custom && !metric_selector.is_empty() {
        bail!("--metric-selector: only for custom metrics; use --selector here");
    }
    if flags.group == MetricsApi::External && flags.name.is_some() {
        bail!("--name: external metrics have no objects; use --selector to choose series");
    }
    let name = || flags.name.clone().unwrap_or_else(|| "*".to_owned());
    Ok(match flags.group {
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
            DecodedQuery::Custom(CustomQuery {
                version: Version::V1Beta2,
                subject,
                metric,
                label_selector,
                metric_label_selector,
            })
        }
        MetricsApi::External => {
            let (namespace, label_selector) = (namespace.clone(), selector.clone());
            DecodedQuery::External(ExternalQuery { namespace, metric, label_selector })
        }
        MetricsApi::Resource => {
            let known_resource = MetricsResource::ALL.into_iter().find(|known| known.name() == resource);
            let Some(resource) = known_resource else {
                bail!("--resource: {resource:?} has no CPU and memory metrics; use pods or nodes");
            };
            let namespace =
                Some(namespace.clone()).filter(|name| resource == MetricsResource::Pods && !name.is_empty());
            DecodedQuery::Resource(ResourceQuery {
                resource,
                namespace,
                name: flags.name.clone(),
                label_selector: selector.parse().context("--selector")?,
                field_selector: Default::default(),
            })
        }
    })
}
