//! Combines the outcomes of all members. Only this module decides which status members' failures give a response.

use std::sync::Arc;
use std::time::Duration;

use crate::api::group::MetricsResource;
use crate::api::page::Page;
use crate::api::status::{Details, Reason, Status, StatusCause};
use crate::config::OnMemberFailure;
use crate::gather::{MemberOutcome, Outcome};
use crate::member::Failure;
use crate::process::budget::Reserved;
use crate::query::{CustomQuery, DecodedQuery, ExternalQuery, Query, ResourceQuery};

/// A warning or message names at most this many clusters, and then the number of the others.
const NAMED: usize = 10;

pub type ClusterPage = (Arc<str>, Reserved<Arc<Page>>);

/// All outcomes combined.
#[derive(Debug)]
pub enum Combined {
    /// A member has the metric, or the response is a list that may be empty.
    Found {
        /// The pages, ordered by cluster name.
        pages: Vec<ClusterPage>,
        /// Warning about clusters that are missing or have last-known values; empty if there are none.
        warning: String,
    },
    /// The query failed.
    Refused(Status),
}

/// A cluster that failed, and the age of its last-known values, if they are used.
struct FailedCluster {
    cluster: Arc<str>,
    failure: Failure,
    last_known_age: Option<Duration>,
}

/// Combines the outcomes: 200 if a member has the metric; 404 if no member has it and no member failed (200 for a list of pods or
/// nodes); 503 otherwise. With [`OnMemberFailure::Fail`] any failure is a 503. An object that several clusters have is a 409.
pub fn combine(query: &Query, outcomes: Vec<MemberOutcome>, on_failure: OnMemberFailure) -> Combined {
    let mut pages = Vec::with_capacity(outcomes.len());
    let mut failed = Vec::new();
    for MemberOutcome { cluster, outcome, .. } in outcomes {
        match outcome {
            Outcome::Page(page) => pages.push((cluster, page)),
            Outcome::NotFound => {}
            Outcome::LastKnown { page, age, failure } => {
                pages.push((cluster.clone(), page));
                failed.push(FailedCluster { cluster, failure, last_known_age: Some(age) });
            }
            Outcome::Failure(failure) => {
                failed.push(FailedCluster { cluster, failure, last_known_age: None });
            }
        }
    }
    if failed.is_empty() && pages.is_empty() {
        return match not_found(query) {
            Some(status) => Combined::Refused(status),
            None => Combined::Found { pages, warning: String::new() },
        };
    }
    if pages.is_empty() || (on_failure == OnMemberFailure::Fail && !failed.is_empty()) {
        return Combined::Refused(unavailable(query, &failed));
    }
    if let DecodedQuery::Resource(ResourceQuery { resource, name: Some(name), .. }) = query.decoded()
        && pages.len() > 1
    {
        return Combined::Refused(conflict(*resource, name, &pages));
    }
    Combined::Found { pages, warning: warning(&failed) }
}

/// 404: `provider.NewMetricNotFoundError` and `NewMetricNotFoundForError` of custom-metrics-apiserver for metrics,
/// `errors.NewNotFound` of apimachinery for a pod or node. `None` for a list of pods or nodes, which may be empty.
fn not_found(query: &Query) -> Option<Status> {
    let message = match query.decoded() {
        DecodedQuery::Custom(query @ CustomQuery { metric, .. }) => {
            let object = query.object().map(|name| format!(" {name}")).unwrap_or_default();
            format!("the server could not find the metric {metric} for {}{object}", query.resource())
        }
        DecodedQuery::External(ExternalQuery { metric, namespace, .. }) => {
            format!("the server could not find the external metric {metric} in namespace {namespace}")
        }
        DecodedQuery::Resource(ResourceQuery { resource, name, .. }) => {
            let (kind, name) = (resource.name(), name.as_ref()?);
            let details = Details { name: name.clone(), kind: kind.to_owned(), ..Details::default() };
            let message = format!("{kind} {name:?} not found");
            return Some(Status::failure(404, Reason::NotFound, message).with_details(details));
        }
    };
    Some(Status::failure(404, Reason::NotFound, message))
}

/// `errors.NewConflict` of apimachinery.
fn conflict(resource: MetricsResource, name: &str, pages: &[ClusterPage]) -> Status {
    let kind = resource.name();
    let mut clusters = pages.iter().take(NAMED).map(|(cluster, _)| &**cluster).collect::<Vec<_>>().join(", ");
    if pages.len() > NAMED {
        clusters.push_str(&format!(" and {} more", pages.len() - NAMED));
    }
    let message = format!(
        "Operation cannot be fulfilled on {kind} {name:?}: it is in more than one cluster: {clusters}; \
         list {kind} to see all of them"
    );
    let details = Details { name: name.to_owned(), kind: kind.to_owned(), ..Details::default() };
    Status::failure(409, Reason::Conflict, message).with_details(details)
}

fn unavailable(query: &Query, failed: &[FailedCluster]) -> Status {
    let subject = match query.decoded() {
        DecodedQuery::Custom(query) => format!("the metric {} for {}", query.metric, query.resource()),
        DecodedQuery::External(query) => format!("the external metric {}", query.metric),
        DecodedQuery::Resource(ResourceQuery { resource, name: None, .. }) => {
            format!("metrics of {}", resource.name())
        }
        DecodedQuery::Resource(ResourceQuery { resource, name: Some(name), .. }) => {
            format!("metrics of {} {name:?}", resource.name())
        }
    };
    let message =
        format!("{subject} cannot be answered, since {} failed: {}", clusters(failed.len()), names(failed));
    let cause = |failed: &FailedCluster| StatusCause {
        reason: failed.failure.cause().name().into(),
        message: failed.failure.to_string(),
        field: failed.cluster.to_string(),
    };
    let causes = failed.iter().map(cause).collect();
    let status = Status::failure(503, Reason::ServiceUnavailable, message);
    status.with_details(Details { causes, ..Details::default() })
}

fn warning(failed: &[FailedCluster]) -> String {
    let missing = failed.iter().filter(|failed| failed.last_known_age.is_none()).count();
    let old = failed.len() - missing;
    let what = match (missing, old) {
        (0, 0) => return String::new(),
        (_, 0) => format!("values of {} are missing", clusters(missing)),
        (0, _) => format!("values of {} are the last known ones", clusters(old)),
        _ => format!(
            "values of {} are missing, and of {} the last known ones",
            clusters(missing),
            clusters(old)
        ),
    };
    format!("{what}: {}", names(failed))
}

fn clusters(count: usize) -> String {
    if count == 1 { "1 cluster".to_owned() } else { format!("{count} clusters") }
}

fn names(failed: &[FailedCluster]) -> String {
    let name = |FailedCluster { cluster, failure, last_known_age }: &FailedCluster| {
        let age = last_known_age.map(|age| format!(" ({} s old)", age.as_secs())).unwrap_or_default();
        format!("{cluster}: {failure} [{}]{age}", failure.cause().name())
    };
    let mut text = failed.iter().take(NAMED).map(name).collect::<Vec<_>>().join("; ");
    if failed.len() > NAMED {
        text.push_str(&format!("; and {} more", failed.len() - NAMED));
    }
    text
}
