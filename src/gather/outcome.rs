//! What one member made of a query.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::api::custom_metrics::Version;
use crate::api::discovery::Catalog;
use crate::api::page::{BodyFormat, Page, PageError};
use crate::api::status::MemberStatus;
use crate::api::text::shorten;
use crate::member::client::MemberResponse;
use crate::member::metrics::QueryEnd;
use crate::member::{Failure, Member};
use crate::process::budget::Reserved;
use crate::process::work;
use crate::transport::{Progress, Stage};

use crate::query::{CustomQuery, MetricsQuery, Query};

/// What came of asking one member.
#[derive(Debug)]
pub enum Outcome {
    /// It has what was asked for.
    Page(Reserved<Arc<Page>>),
    /// Its metrics API failed, and its last reply to the same query stands in.
    StoodIn {
        /// The last reply.
        page: Reserved<Arc<Page>>,
        /// How old that is.
        age: Duration,
        /// Why it has to stand in.
        failure: Failure,
    },
    /// It has it not.
    NotFound,
    /// It could not be asked, or gave no usable answer.
    Failure(Failure),
}

impl Outcome {
    /// `Found`, `NotFound`, or the cause of a failure.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Page(_) => "Found",
            Self::NotFound => "NotFound",
            Self::StoodIn { failure, .. } | Self::Failure(failure) => failure.cause().name(),
        }
    }

    /// How it is counted.
    pub(super) fn ended(&self, elapsed: Duration) -> QueryEnd {
        QueryEnd {
            outcome: self.name(),
            skipped: matches!(self.failure(), Some(Failure::Skipped(_))),
            stood_in: matches!(self, Self::StoodIn { .. }),
            elapsed,
        }
    }

    /// Why the member itself gave no answer; `None` if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Page(_) | Self::NotFound => None,
            Self::StoodIn { failure, .. } | Self::Failure(failure) => Some(failure),
        }
    }
}

/// Asks a member, in the version that it has. `progress` says how far that has come.
pub(super) async fn ask(member: Arc<Member>, query: Arc<Query>, progress: Arc<Progress>) -> Outcome {
    let get = async |version| member.get(query.group(), query.path(version), &progress).await;
    let undiscovered = matches!(query.question(), MetricsQuery::Custom(_)) && member.discovered().is_none();
    // Where discovery found no such API it may have come since: a query is not gated on discovery.
    let reply = match get(member.version()).await {
        Ok(reply) if undiscovered && is_version_missing(&reply) => get(Version::V1Beta1).await,
        other => other,
    };
    match reply {
        Ok(reply) => {
            let outcome = classify(&member, &query, reply, progress.clone()).await;
            if let (Outcome::Page(_), MetricsQuery::Custom(query)) = (&outcome, query.question()) {
                member.has(query.resource(), &query.metric, query.is_namespaced());
            }
            outcome
        }
        Err(failure) => Outcome::Failure(failure),
    }
}

/// A 404 that is no `Status` comes from an API server that has no such API; one that is comes from the API.
fn is_version_missing(reply: &MemberResponse) -> bool {
    reply.status == StatusCode::NOT_FOUND && read_status(reply).is_none()
}

async fn classify(member: &Member, query: &Query, reply: MemberResponse, progress: Arc<Progress>) -> Outcome {
    match reply.status {
        StatusCode::OK => read_page(query, &reply.content_type, reply.body, progress).await,
        StatusCode::NOT_FOUND => Outcome::NotFound,
        status if status.is_server_error() && lists_only_others(member, query) => Outcome::NotFound,
        status => {
            let message = read_status(&reply).map_or_else(|| plain_text(&reply), |status| status.message);
            Outcome::Failure(Failure::Status { status, message: shorten(&message) })
        }
    }
}

async fn read_page(
    query: &Query,
    content_type: &str,
    body: Reserved<Vec<u8>>,
    progress: Arc<Progress>,
) -> Outcome {
    let format = match content_type {
        "application/vnd.kubernetes.protobuf" => BodyFormat::Protobuf,
        _ => BodyFormat::Json,
    };
    let expected = query.expected();
    progress.set(Stage::Received);
    let reading = work::run(body.len(), move |caller| {
        progress.set(Stage::Reading);
        let (body, mut share) = body.into_parts();
        let page = Page::read(expected, format, body, &mut |bytes| caller.reserve(&mut share, bytes))?;
        share.shrink_to(page.memory());
        Ok(Reserved::new(Arc::new(page), share))
    });
    match reading.await {
        Ok(page) if page.is_empty() => Outcome::NotFound,
        Ok(page) => Outcome::Page(page),
        Err(PageError::Stopped(stopped)) => Outcome::Failure(stopped.into()),
        Err(error) => Outcome::Failure(Failure::malformed(&error)),
    }
}

/// prometheus-adapter answers 500 for a kind of object that its cluster lacks; its discovery tells the two apart.
/// That holds for custom metrics alone: KEDA's discovery of external ones lists a placeholder.
fn lists_only_others(member: &Member, query: &Query) -> bool {
    let MetricsQuery::Custom(query) = query.question() else { return false };
    let lacks = |query: &CustomQuery, catalog: &Catalog| {
        !catalog.is_empty() && !catalog.contains(query.resource(), &query.metric)
    };
    member.discovered().is_some_and(|discovered| lacks(query, &discovered.catalog))
}

fn read_status(reply: &MemberResponse) -> Option<MemberStatus> {
    match reply.content_type.as_str() {
        "application/vnd.kubernetes.protobuf" => MemberStatus::from_protobuf(&reply.body),
        "application/json" => MemberStatus::from_json(&reply.body),
        _ => None,
    }
}

fn plain_text(reply: &MemberResponse) -> String {
    if reply.content_type != "text/plain" {
        return String::new();
    }
    String::from_utf8_lossy(&reply.body).into_owned()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::api::cause::Cause;
    use crate::process::budget::Budget;
    use crate::query::ExternalQuery;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_waits_for_a_processor_says_nothing_of_its_member() {
        let query = ExternalQuery {
            namespace: "default".to_owned(),
            metric: "queue".to_owned(),
            label_selector: String::new(),
        };
        let query = Query::from(MetricsQuery::External(query));
        let progress = Arc::new(Progress::default());
        let body = Reserved::new(vec![b' '; 1 << 20], Budget::new(0).share());
        let late = || Failure::late(&progress, Duration::from_secs(5));

        let places = work::all_permits().await;
        let mut reading = pin!(read_page(&query, "application/json", body, progress.clone()));
        assert!(futures::poll!(&mut reading).is_pending());
        assert!(matches!(late(), Failure::Unread(_)), "{}", late());
        assert_eq!(late().cause(), Cause::Busy);
        drop(places);
        assert!(matches!(reading.await, Outcome::Failure(Failure::Malformed(_))));
        assert!(matches!(late(), Failure::Timeout(_)), "what is read takes its own time");
    }
}
