//! What is asked of each member.

mod custom;
mod external;
mod resource;

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use custom::{CustomQuery, Subject};
pub use external::ExternalQuery;
pub use resource::ResourceQuery;

use crate::api::custom_metrics::Version;
use crate::api::group::Group;
use crate::api::page::Expected;

/// What stays as it is in a path's segment: the unreserved characters of RFC 3986. `.` and `..` are dealt with
/// apart, since encoding does not take their meaning away.
pub const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is asked of one of the metrics APIs, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
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
    question: Question,
    /// By version of custom metrics; the other groups have one.
    paths: [OnceLock<Arc<str>>; Version::ALL.len()],
}

impl Query {
    /// What is asked.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The API that is asked.
    pub fn group(&self) -> Group {
        match &self.question {
            Question::Custom(_) => Group::Custom,
            Question::External(_) => Group::External,
            Question::Resource(_) => Group::Resource,
        }
    }

    /// The path and query that asks a member that serves this version of custom metrics; each segment is encoded by
    /// itself so that none can leave its place.
    pub fn path(&self, version: Version) -> &Arc<str> {
        match &self.question {
            Question::Custom(query) => {
                self.paths[version as usize].get_or_init(|| query.path(version).into())
            }
            Question::External(query) => self.paths[0].get_or_init(|| query.path().into()),
            Question::Resource(query) => self.paths[0].get_or_init(|| query.path().into()),
        }
    }

    /// What a member's answer has to be.
    pub fn expected(&self) -> Expected {
        match &self.question {
            Question::Custom(_) => Expected::MetricValues,
            Question::External(_) => Expected::ExternalValues,
            Question::Resource(ResourceQuery { resource, name: Some(_), .. }) => Expected::Object(*resource),
            Question::Resource(ResourceQuery { resource, name: None, .. }) => Expected::List(*resource),
        }
    }

    /// How many bytes of memory it takes, about: its texts twice, decoded and as a path.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + 2 * self.path(Version::V1Beta2).len()
    }
}

impl From<Question> for Query {
    fn from(question: Question) -> Self {
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
