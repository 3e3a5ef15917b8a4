//! The outcome of a query at one member.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::api::page::{BodyFormat, Page, PageError};
use crate::api::status::MemberStatus;
use crate::api::text::shorten;
use crate::member::client::MemberResponse;
use crate::member::metrics::QueryEnd;
use crate::member::{Failure, Member};
use crate::process::budget::Reserved;
use crate::process::work;
use crate::transport::{Progress, Stage};

use crate::query::{DecodedQuery, Query};

/// The outcome of a query at one member.
#[derive(Debug)]
pub enum Outcome {
    /// The member has the metric.
    Page(Reserved<Arc<Page>>),
    /// The metrics API failed. The last page of the same query is used.
    LastKnown {
        /// The last page.
        page: Reserved<Arc<Page>>,
        age: Duration,
        failure: Failure,
    },
    /// The member does not have the metric.
    NotFound,
    /// The member could not be queried, or its response is not usable.
    Failure(Failure),
}

impl Outcome {
    /// `Found`, `NotFound`, or the cause of a failure.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Page(_) => "Found",
            Self::NotFound => "NotFound",
            Self::LastKnown { failure, .. } | Self::Failure(failure) => failure.cause().name(),
        }
    }

    /// The outcome as metrics count it.
    pub(super) fn end(&self, elapsed: Duration) -> QueryEnd {
        QueryEnd {
            outcome: self.name(),
            skipped: matches!(self.failure(), Some(Failure::Skipped(_))),
            used_last_known: matches!(self, Self::LastKnown { .. }),
            elapsed,
        }
    }

    /// The failure, also if the last page is used; `None` for a success.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Page(_) | Self::NotFound => None,
            Self::LastKnown { failure, .. } | Self::Failure(failure) => Some(failure),
        }
    }
}

/// Reads a member's response to a query.
pub(super) async fn classify(
    member: &Member,
    query: &Query,
    response: MemberResponse,
    progress: Arc<Progress>,
) -> Outcome {
    match response.status {
        StatusCode::OK => read_page(query, &response.content_type, response.body, progress).await,
        StatusCode::NOT_FOUND => Outcome::NotFound,
        StatusCode::INTERNAL_SERVER_ERROR if lists_only_others(member, query) => Outcome::NotFound,
        status => {
            let message =
                read_status(&response).map_or_else(|| plain_text(&response), |status| status.message);
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
    let format = BodyFormat::from_media_type(content_type).unwrap_or(BodyFormat::Json);
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

/// Whether discovery lists custom metrics, but not this one. prometheus-adapter responds with 500 for a resource that its cluster does not
/// have. External metrics are excluded: KEDA's discovery lists a placeholder.
fn lists_only_others(member: &Member, query: &Query) -> bool {
    match query.decoded() {
        DecodedQuery::Custom(query) => member.has_no_metric(query.resource(), &query.metric),
        DecodedQuery::External(_) | DecodedQuery::Resource(_) => false,
    }
}

pub(super) fn read_status(response: &MemberResponse) -> Option<MemberStatus> {
    match BodyFormat::from_media_type(&response.content_type)? {
        BodyFormat::Protobuf => MemberStatus::from_protobuf(&response.body),
        BodyFormat::Json => MemberStatus::from_json(&response.body),
    }
}

fn plain_text(response: &MemberResponse) -> String {
    if response.content_type != "text/plain" {
        return String::new();
    }
    String::from_utf8_lossy(&response.body).into_owned()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::api::cause::Cause;
    use crate::process::budget::Budget;
    use crate::query::ExternalQuery;

    #[tokio::test(flavor = "multi_thread")]
    async fn response_that_waits_for_a_processor_does_not_count_against_its_member() {
        let query = ExternalQuery {
            namespace: "default".to_owned(),
            metric: "queue".to_owned(),
            label_selector: String::new(),
        };
        let query = Query::from(DecodedQuery::External(query));
        let progress = Arc::new(Progress::default());
        let body = Reserved::new(vec![b' '; 1 << 20], Budget::new(0).share());
        let late = || Failure::late(&progress, Duration::from_secs(5));

        let permits = work::all_permits().await;
        let mut reading = pin!(read_page(&query, "application/json", body, progress.clone()));
        assert!(futures::poll!(&mut reading).is_pending());
        assert!(matches!(late(), Failure::Unread(_)), "{}", late());
        assert_eq!(late().cause(), Cause::Busy);
        drop(permits);
        assert!(matches!(reading.await, Outcome::Failure(Failure::Malformed(_))));
        assert!(matches!(late(), Failure::Timeout(_)), "reading has begun");
    }
}
