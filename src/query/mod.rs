//! Queries of the metrics APIs. Each module reads the path of a client's request and writes the path for the members.

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

/// A decoded query of one of the metrics APIs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DecodedQuery {
    /// Of `custom.metrics.k8s.io`.
    Custom(CustomQuery),
    /// Of `external.metrics.k8s.io`.
    External(ExternalQuery),
    /// Of `metrics.k8s.io`.
    Resource(ResourceQuery),
}

/// A query with its encoded paths for members. Identical queries share one response.
#[derive(Debug)]
pub struct Query {
    question: DecodedQuery,
    /// By version of custom metrics; the other groups have one.
    paths: [OnceLock<Arc<str>>; Version::ALL.len()],
}

impl Query {
    pub fn decoded(&self) -> &DecodedQuery {
        &self.question
    }

    /// The API group.
    pub fn group(&self) -> Group {
        match &self.question {
            DecodedQuery::Custom(_) => Group::Custom,
            DecodedQuery::External(_) => Group::External,
            DecodedQuery::Resource(_) => Group::Resource,
        }
    }

    /// The path and query string for a member that serves this version of custom metrics. It is encoded once.
    pub fn path(&self, version: Version) -> &Arc<str> {
        match &self.question {
            DecodedQuery::Custom(query) => {
                self.paths[version as usize].get_or_init(|| query.path(version).into())
            }
            DecodedQuery::External(query) => self.paths[0].get_or_init(|| query.path().into()),
            DecodedQuery::Resource(query) => self.paths[0].get_or_init(|| query.path().into()),
        }
    }

    /// The list or object that a member must return.
    pub fn expected(&self) -> Expected {
        match &self.question {
            DecodedQuery::Custom(_) => Expected::MetricValues,
            DecodedQuery::External(_) => Expected::ExternalValues,
            DecodedQuery::Resource(ResourceQuery { resource, name: Some(_), .. }) => {
                Expected::Object(*resource)
            }
            DecodedQuery::Resource(ResourceQuery { resource, name: None, .. }) => Expected::List(*resource),
        }
    }

    /// Bytes of memory, about: the decoded texts, the encoded path, and parsed selectors.
    pub fn memory(&self) -> usize {
        let selectors = match &self.question {
            DecodedQuery::Custom(_) | DecodedQuery::External(_) => 0,
            DecodedQuery::Resource(query) => query.label_selector.memory() + query.field_selector.memory(),
        };
        size_of::<Self>() + 2 * self.path(Version::V1Beta2).len() + selectors
    }
}

impl From<DecodedQuery> for Query {
    fn from(question: DecodedQuery) -> Self {
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

/// A client's query, and the clusters that it selects.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientQuery {
    pub question: DecodedQuery,
    /// Requirements on the cluster label; empty for all clusters.
    pub clusters: Vec<Requirement>,
}

/// Why a path is not a metrics query.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// The path belongs to no metrics API.
    #[error("the server could not find the requested resource")]
    NotFound,
    /// The path begins like a metrics query but is not complete.
    #[error("invalid request path")]
    Path,
    /// A label selector is malformed.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A field selector is malformed.
    #[error(transparent)]
    FieldSelector(#[from] FieldSelectorError),
    /// A watch. Metrics cannot be watched.
    #[error("watch is not supported on resources of kind \"{resource}.{group}\"")]
    NotWatched {
        /// Such as `pods`.
        resource: String,
        /// The API group.
        group: &'static str,
    },
}

impl DecodedQuery {
    /// Reads a client's query. Requirements on `cluster_label`, if that is set, select clusters.
    ///
    /// # Errors
    /// If the path is not a metrics query.
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

    /// Misspelled parameters, which the API ignores, and the parameters that the client probably means.
    pub fn misspelled_parameters(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Custom(_) => custom::MISSPELLED,
            Self::External(_) => external::MISSPELLED,
            Self::Resource(_) => resource::MISSPELLED,
        }
    }
}

#[cfg(test)]
mod tests;
