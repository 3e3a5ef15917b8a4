//! What the outcomes of all members amount to: the one place where members' troubles become an answer's status.

use crate::api::page::Page;
use crate::api::status::{Cause, Details, Reason, Status};
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
        pages: Vec<(std::sync::Arc<str>, Page)>,
        /// What a client should know of the clusters that are missing; empty if none is.
        warning: String,
    },
    /// No answer can be given.
    Refused(Status),
}

/// Judges the outcomes: 200 when some member has it, 404 only when none has it and none failed, 503 otherwise.
pub fn judge(query: &Query, answers: Vec<Answered>) -> Verdict {
    let mut pages = Vec::with_capacity(answers.len());
    let mut failures = Vec::new();
    for Answered { cluster, outcome } in answers {
        match outcome {
            Outcome::Page(page) => pages.push((cluster, page)),
            Outcome::NotFound => {}
            Outcome::Failure(failure) => failures.push((cluster, failure)),
        }
    }
    let named = names(&failures);
    if !pages.is_empty() {
        let warning = if failures.is_empty() {
            String::new()
        } else {
            format!("values of {} are missing: {named}", clusters(failures.len()))
        };
        return Verdict::Found { pages, warning };
    }
    if failures.is_empty() {
        return Verdict::Refused(not_found(query));
    }
    let message = format!(
        "no cluster answered with the metric {} for {}, and {} failed: {named}",
        query.metric,
        query.resource(),
        clusters(failures.len()),
    );
    let causes = failures
        .into_iter()
        .map(|(cluster, failure)| Cause {
            reason: failure.reason().into(),
            message: failure.to_string(),
            field: cluster.to_string(),
        })
        .collect();
    let status = Status::failure(503, Reason::ServiceUnavailable, message);
    Verdict::Refused(status.with_details(Details { causes, ..Details::default() }))
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

fn clusters(count: usize) -> String {
    if count == 1 { "1 cluster".to_owned() } else { format!("{count} clusters") }
}

fn names(failures: &[(std::sync::Arc<str>, Failure)]) -> String {
    let mut text = failures
        .iter()
        .take(NAMED)
        .map(|(cluster, failure)| format!("{cluster}: {failure}"))
        .collect::<Vec<_>>()
        .join("; ");
    if failures.len() > NAMED {
        text.push_str(&format!("; and {} more", failures.len() - NAMED));
    }
    text
}
