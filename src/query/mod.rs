//! Queries: what a client's path asks for, and the paths by which members are asked. For each API both are read and written
//! side by side.

mod clusters;
mod custom;
mod external;
pub mod request_target;
mod resource;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use self::request_target::RequestTarget;
use crate::api::custom_metrics::{self, Version};
use crate::api::external_metrics;
use crate::api::field_selector::FieldSelectorError;
use crate::api::group::Group;
use crate::api::page::Expected;
use crate::api::resource_metrics;
use crate::api::selector::{Requirement, SelectorError};
pub use custom::{CustomQuery, MetricTarget};
pub use external::ExternalQuery;
pub use resource::ResourceQuery;

/// What is asked of one of the metrics APIs, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetricsQuery {
    /// Of `custom.metrics.k8s.io`.
    Custom(CustomQuery),
    /// Of `external.metrics.k8s.io`.
    External(ExternalQuery),
    /// Of `metrics.k8s.io`.
    Resource(ResourceQuery),
}

/// A question and the paths that ask it, each encoded once. Equal queries have equal answers at the same time.
#[derive(Debug)]
pub struct Query {
    question: MetricsQuery,
    /// By version of custom metrics; the other groups have one.
    paths: [OnceLock<Arc<str>>; Version::ALL.len()],
}

impl Query {
    /// What is asked.
    pub fn question(&self) -> &MetricsQuery {
        &self.question
    }

    /// The API that is asked.
    pub fn group(&self) -> Group {
        match &self.question {
            MetricsQuery::Custom(_) => Group::Custom,
            MetricsQuery::External(_) => Group::External,
            MetricsQuery::Resource(_) => Group::Resource,
        }
    }

    /// The path and query that asks a member that serves this version of custom metrics; each segment is encoded by
    /// itself so that none can leave its place.
    pub fn path(&self, version: Version) -> &Arc<str> {
        match &self.question {
            MetricsQuery::Custom(query) => {
                self.paths[version as usize].get_or_init(|| query.path(version).into())
            }
            MetricsQuery::External(query) => self.paths[0].get_or_init(|| query.path().into()),
            MetricsQuery::Resource(query) => self.paths[0].get_or_init(|| query.path().into()),
        }
    }

    /// What a member's answer has to be.
    pub fn expected(&self) -> Expected {
        match &self.question {
            MetricsQuery::Custom(_) => Expected::MetricValues,
            MetricsQuery::External(_) => Expected::ExternalValues,
            MetricsQuery::Resource(ResourceQuery { resource, name: Some(_), .. }) => {
                Expected::Object(*resource)
            }
            MetricsQuery::Resource(ResourceQuery { resource, name: None, .. }) => Expected::List(*resource),
        }
    }

    /// How many bytes of memory it takes, about: its texts twice, decoded and as a path.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + 2 * self.path(Version::V1Beta2).len()
    }
}

impl From<MetricsQuery> for Query {
    fn from(question: MetricsQuery) -> Self {
        Self { question, paths: Default::default() }
    }
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.question == other.question
    }
}

impl Eq for Query {}

impl Hash for Query {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.question.hash(state);
    }
}

/// What is asked, and of which clusters.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientQuery {
    /// What is asked.
    pub question: MetricsQuery,
    /// Requirements on the cluster label; none for all clusters.
    pub clusters: Vec<Requirement>,
}

/// Why a path asks for no metrics.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// It is no path of a metrics API.
    #[error("the server could not find the requested resource")]
    NotFound,
    /// It begins like one for metrics and does not go on like one.
    #[error("invalid request path")]
    Path,
    /// A selector cannot be read.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A field selector cannot be read.
    #[error(transparent)]
    FieldSelector(#[from] FieldSelectorError),
    /// Changes of something that is measured anew each time.
    #[error("watch is not supported on resources of kind \"{resource}.{group}\"")]
    NotWatched {
        /// Such as `pods`.
        resource: String,
        /// The API group.
        group: &'static str,
    },
}

impl MetricsQuery {
    /// What a client's path asks for. Requirements on `cluster_label` choose clusters, if there is such a label.
    ///
    /// # Errors
    /// If it asks for no metrics.
    pub fn read(target: &RequestTarget, cluster_label: Option<&str>) -> Result<ClientQuery, QueryError> {
        let segments: Vec<&str> = target.segments.iter().map(String::as_str).collect();
        let ["apis", group, version, below @ ..] = &segments[..] else { return Err(QueryError::NotFound) };
        let (question, clusters) = match (*group, *version) {
            (custom_metrics::GROUP, version) => {
                let version = Version::from_name(version).ok_or(QueryError::NotFound)?;
                let (query, clusters) = CustomQuery::read(version, below, target, cluster_label)?;
                (Self::Custom(query), clusters)
            }
            (external_metrics::GROUP, external_metrics::VERSION) => {
                let (query, clusters) = ExternalQuery::read(below, target, cluster_label)?;
                (Self::External(query), clusters)
            }
            (resource_metrics::GROUP, resource_metrics::VERSION) => {
                (Self::Resource(ResourceQuery::read(below, target)?), Vec::new())
            }
            _ => return Err(QueryError::NotFound),
        };
        Ok(ClientQuery { question, clusters })
    }

    /// Parameters that the API does not have, and the ones that they are taken for.
    pub fn mistaken(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Custom(_) => custom::MISTAKEN,
            Self::External(_) => external::MISTAKEN,
            Self::Resource(_) => resource::MISTAKEN,
        }
    }
}

#[cfg(test)]
mod tests;
