//! What is asked of each member.

mod custom;
mod external;
mod resource;

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use custom::{CustomQuery, Subject};
pub use external::ExternalQuery;
pub use resource::ResourceQuery;

use crate::api::custom_metrics::Version;
use crate::api::group::Group;
use crate::api::page::Expected;

/// What stays as it is in a path's segment: the unreserved characters of RFC 3986. `.` and `..` are dealt with
/// apart, since encoding does not take their meaning away.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A query of one of the metrics APIs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Of `custom.metrics.k8s.io`.
    Custom(CustomQuery),
    /// Of `external.metrics.k8s.io`.
    External(ExternalQuery),
    /// Of `metrics.k8s.io`.
    Resource(ResourceQuery),
}

impl Query {
    /// The API that is asked.
    pub fn group(&self) -> Group {
        match self {
            Self::Custom(_) => Group::Custom,
            Self::External(_) => Group::External,
            Self::Resource(_) => Group::Resource,
        }
    }

    /// The path and query that asks a member that serves this version of custom metrics; each segment is encoded by
    /// itself so that none can leave its place.
    pub fn path(&self, version: Version) -> String {
        match self {
            Self::Custom(query) => query.path(version),
            Self::External(query) => query.path(),
            Self::Resource(query) => query.path(),
        }
    }

    /// What a member's answer has to be.
    pub fn expected(&self) -> Expected {
        match self {
            Self::Custom(_) => Expected::MetricValues,
            Self::External(_) => Expected::ExternalValues,
            Self::Resource(ResourceQuery { resource, name: Some(_), .. }) => Expected::Object(*resource),
            Self::Resource(ResourceQuery { resource, name: None, .. }) => Expected::List(*resource),
        }
    }

    /// How many bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.path(Version::V1Beta2).len()
    }
}

/// A path below a group version.
fn append(group_version: &str, segments: &[&str]) -> String {
    let mut path = format!("/apis/{group_version}");
    for segment in segments {
        write!(path, "/{}", utf8_percent_encode(segment, SEGMENT)).expect("memory takes all text");
    }
    path
}

/// Adds the parameters that are not empty to a path.
fn parameters(path: &mut String, parameters: &[(&str, &str)]) {
    let mut separator = '?';
    for (key, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        write!(path, "{separator}{key}={}", utf8_percent_encode(value, SEGMENT))
            .expect("memory takes all text");
        separator = '&';
    }
}
