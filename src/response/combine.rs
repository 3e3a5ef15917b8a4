//! What the outcomes of all members amount to: the one place where members' troubles become an answer's status.

use std::sync::Arc;
use std::time::Duration;

use crate::api::group::MetricsResource;
use crate::api::page::Page;
use crate::api::status::{Details, Reason, Status, StatusCause};
use crate::config::OnMemberFailure;
use crate::gather::{MemberOutcome, Outcome};
use crate::member::Failure;
use crate::process::budget::Reserved;
use crate::query::{CustomQuery, ExternalQuery, MetricsQuery, Query, ResourceQuery};

/// How many clusters a warning or a message names before it counts the rest.
const NAMED: usize = 10;

/// A cluster and its page.
pub type ClusterPage = (Arc<str>, Reserved<Arc<Page>>);

/// What all outcomes amount to.
#[derive(Debug)]
pub enum Combined {
    /// Some member has it, or it is a list that may be empty.
    Found {
        /// The pages by cluster, in the order of the clusters' names.
        pages: Vec<ClusterPage>,
        /// What a client should know of the clusters that are missing or stood in for; empty if none is.
        warning: String,
    },
    /// No answer can be given.
    Refused(Status),
}

/// A cluster that failed, and how old the values are that stand in for its own, if any do.
struct FailedCluster {
    cluster: Arc<str>,
    failure: Failure,
    stand_in: Option<Duration>,
}

/// Judges the outcomes: 200 when some member has it, 404 only when none has it and none failed (200 for a list of pods or
/// nodes), 503 otherwise; under [`OnMemberFailure::Fail`] 503 when any failed. An object that several clusters have is a
/// 409.
pub fn combine(query: &Query, answers: Vec<MemberOutcome>, on_failure: OnMemberFailure) -> Combined {
    let mut pages = Vec::with_capacity(answers.len());
    let mut failed = Vec::new();
    for MemberOutcome { cluster, outcome, .. } in answers {
        match outcome {
            Outcome::Page(page) => pages.push((cluster, page)),
            Outcome::NotFound => {}
            Outcome::StoodIn { page, age, failure } => {
                pages.push((cluster.clone(), page));
                failed.push(FailedCluster { cluster, failure, stand_in: Some(age) });
            }
            Outcome::Failure(failure) => failed.push(FailedCluster { cluster, failure, stand_in: None }),
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
    if let MetricsQuery::Resource(ResourceQuery { resource, name: Some(name), .. }) = query.question()
        && pages.len() > 1
    {
        return Combined::Refused(conflict(*resource, name, &pages));
    }
    Combined::Found { pages, warning: warning(&failed) }
}

/// What nobody has: `provider.NewMetricNotFoundError` and `NewMetricNotFoundForError` of custom-metrics-apiserver for
/// metrics, `errors.NewNotFound` of apimachinery for a pod or node. A list of those may be empty.
fn not_found(query: &Query) -> Option<Status> {
    let message = match query.question() {
        MetricsQuery::Custom(query @ CustomQuery { metric, .. }) => {
            let object = query.object().map(|name| format!(" {name}")).unwrap_or_default();
            format!("the server could not find the metric {metric} for {}{object}", query.resource())
        }
        MetricsQuery::External(ExternalQuery { metric, namespace, .. }) => {
            format!("the server could not find the external metric {metric} in namespace {namespace}")
        }
        MetricsQuery::Resource(ResourceQuery { resource, name, .. }) => {
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
    let subject = match query.question() {
        MetricsQuery::Custom(query) => format!("the metric {} for {}", query.metric, query.resource()),
        MetricsQuery::External(query) => format!("the external metric {}", query.metric),
        MetricsQuery::Resource(ResourceQuery { resource, name: None, .. }) => {
            format!("metrics of {}", resource.name())
        }
        MetricsQuery::Resource(ResourceQuery { resource, name: Some(name), .. }) => {
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
    let missing = failed.iter().filter(|failed| failed.stand_in.is_none()).count();
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
    let name = |FailedCluster { cluster, failure, stand_in }: &FailedCluster| {
        let age = stand_in.map(|age| format!(" ({} s old)", age.as_secs())).unwrap_or_default();
        format!("{cluster}: {failure} [{}]{age}", failure.cause().name())
    };
    let mut text = failed.iter().take(NAMED).map(name).collect::<Vec<_>>().join("; ");
    if failed.len() > NAMED {
        text.push_str(&format!("; and {} more", failed.len() - NAMED));
    }
    text
}
