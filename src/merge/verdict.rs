//! What the outcomes of all members amount to: the one place where members' troubles become an answer's status.

use std::sync::Arc;
use std::time::Duration;

use crate::api::page::Page;
use crate::api::status::{Cause, Details, Reason, Status};
use crate::config::OnMemberFailure;
use crate::gather::query::Query;
use crate::gather::{Answered, Outcome};
use crate::member::Failure;

/// How many clusters a warning or a message names before it counts the rest.
const NAMED: usize = 10;

/// What all outcomes amount to.
#[derive(Debug)]
pub enum Verdict {
    /// Some member has the metric.
    Found {
        /// The pages by cluster, in the order of the clusters' names.
        pages: Vec<(Arc<str>, Arc<Page>)>,
        /// What a client should know of the clusters that are missing or stood in for; empty if none is.
        warning: String,
    },
    /// No answer can be given.
    Refused(Status),
}

/// A cluster that failed, and how old the values are that stand in for its own, if any do.
struct Failed {
    cluster: Arc<str>,
    failure: Failure,
    stand_in: Option<Duration>,
}

/// Judges the outcomes: 200 when some member has it, 404 only when none has it and none failed, 503 otherwise; under
/// [`OnMemberFailure::Fail`] 503 when any failed.
pub fn judge(query: &Query, answers: Vec<Answered>, on_failure: OnMemberFailure) -> Verdict {
    let mut pages = Vec::with_capacity(answers.len());
    let mut failed = Vec::new();
    for Answered { cluster, outcome } in answers {
        match outcome {
            Outcome::Page(page) => pages.push((cluster, page)),
            Outcome::NotFound => {}
            Outcome::StoodIn { page, age, failure } => {
                pages.push((cluster.clone(), page));
                failed.push(Failed { cluster, failure, stand_in: Some(age) });
            }
            Outcome::Failure(failure) => failed.push(Failed { cluster, failure, stand_in: None }),
        }
    }
    if failed.is_empty() && pages.is_empty() {
        return Verdict::Refused(not_found(query));
    }
    let complete = failed.is_empty() || on_failure != OnMemberFailure::Fail;
    if complete && !pages.is_empty() {
        return Verdict::Found { pages, warning: warning(&failed) };
    }
    Verdict::Refused(unavailable(query, &failed))
}

/// `provider.NewMetricNotFoundError` and `NewMetricNotFoundForError` of custom-metrics-apiserver.
pub fn not_found(query: &Query) -> Status {
    let mut message =
        format!("the server could not find the metric {} for {}", query.metric, query.resource());
    if let Some(name) = query.object() {
        message.push(' ');
        message.push_str(name);
    }
    Status::failure(404, Reason::NotFound, message)
}

fn unavailable(query: &Query, failed: &[Failed]) -> Status {
    let message = format!(
        "the metric {} for {} cannot be answered, since {} failed: {}",
        query.metric,
        query.resource(),
        clusters(failed.len()),
        names(failed)
    );
    let cause = |failed: &Failed| Cause {
        reason: failed.failure.reason().into(),
        message: failed.failure.to_string(),
        field: failed.cluster.to_string(),
    };
    let causes = failed.iter().map(cause).collect();
    let status = Status::failure(503, Reason::ServiceUnavailable, message);
    status.with_details(Details { causes, ..Details::default() })
}

fn warning(failed: &[Failed]) -> String {
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

fn names(failed: &[Failed]) -> String {
    let name = |Failed { cluster, failure, stand_in }: &Failed| match stand_in {
        Some(age) => format!("{cluster}: {failure} ({} s old)", age.as_secs()),
        None => format!("{cluster}: {failure}"),
    };
    let mut text = failed.iter().take(NAMED).map(name).collect::<Vec<_>>().join("; ");
    if failed.len() > NAMED {
        text.push_str(&format!("; and {} more", failed.len() - NAMED));
    }
    text
}
