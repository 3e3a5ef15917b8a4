//! One query to one member, and its last-known page if the query fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::Gather;
use super::last_known::LastKnownCache;
use super::outcome::{Outcome, classify, read_status};
use crate::member::client::MemberResponse;
use crate::member::failure::NoRoom;
use crate::member::{Failure, Member};
use crate::process::budget::Reserved;
use crate::query::{DecodedQuery, Query};
use crate::transport::Progress;

/// One query to one member, with a timeout.
pub(super) struct Attempt<'a> {
    pub(super) gather: &'a Gather,
    pub(super) member: &'a Arc<Member>,
    pub(super) query: &'a Arc<Query>,
    pub(super) timeout: Duration,
}

impl Attempt<'_> {
    /// Runs the query. If it fails, the last-known page is used where that is allowed.
    pub(super) async fn outcome(&self) -> Outcome {
        let outcome = match self.member.skipped(self.query.group()) {
            Some(skip) => Outcome::Failure(Failure::Skipped(skip)),
            None => self.query().await,
        };
        match &self.gather.last_known {
            Some(last_known) => self.or_last_known(last_known, outcome),
            None => outcome,
        }
    }

    async fn query(&self) -> Outcome {
        // A client with less time than `--member-timeout` proves nothing about the member. Its late reply is not awaited.
        let is_hurried = self.timeout < self.gather.member_timeout;
        let begun = Instant::now();
        let progress = Arc::new(Progress::default());
        let mut request = Box::pin(fetch(self.member.clone(), self.query.clone(), progress.clone()));
        let (outcome, in_time) = match tokio::time::timeout(self.timeout, &mut request).await {
            Ok(outcome) => {
                if let Some(last_known) = &self.gather.last_known {
                    last_known.store(self.member.id(), self.query, begun, &outcome);
                }
                (outcome, true)
            }
            Err(_) => {
                let failure = Failure::late(&progress, self.timeout);
                let is_sent = !matches!(failure, Failure::Throttled);
                if let Some(last_known) = self.gather.last_known.as_ref().filter(|_| is_sent && !is_hurried) {
                    self.await_late(last_known, begun, request);
                }
                (Outcome::Failure(failure), false)
            }
        };
        if in_time || !is_hurried {
            let path = self.query.path(self.member.version());
            self.member.note(self.query.group(), path, begun, outcome.failure());
        }
        outcome
    }

    fn or_last_known(&self, last_known: &LastKnownCache, outcome: Outcome) -> Outcome {
        let failure = match outcome {
            Outcome::Failure(failure) if failure.is_metrics_api_failure() => failure,
            outcome => return outcome,
        };
        let Some(cached) = last_known.get(self.member.id(), self.query) else {
            return Outcome::Failure(failure);
        };
        let (age, mut share) = (cached.age(), self.gather.inflight.share());
        match share.grow(cached.page.memory()) {
            Ok(()) => Outcome::LastKnown { page: Reserved::new(cached.page, share), age, failure },
            Err(_) => Outcome::Failure(NoRoom.into()),
        }
    }

    /// Awaits a late reply in the background and caches it for the next query. It is given up if queries need the memory.
    fn await_late(
        &self,
        last_known: &Arc<LastKnownCache>,
        begun: Instant,
        request: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let Some(permit) = last_known.late_reply(self.member.id(), self.query) else { return };
        let (id, query, limit) = (self.member.id(), self.query.clone(), self.gather.late);
        let (last_known, inflight) = (last_known.clone(), self.gather.inflight.clone());
        let member = self.member.clone();
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                outcome = request => last_known.store(id, &query, begun, &outcome),
                () = tokio::time::sleep(limit) => {}
                () = member.removed() => {}
                // Queries in flight need the memory.
                () = inflight.wait_for_pressure() => {}
            }
        });
    }
}

/// Sends a query to a member, in the API version that the member has. If the member has no such version any more, or its versions are not
/// known yet, the other version is tried. A metric with values is added to the member's catalog.
async fn fetch(member: Arc<Member>, query: Arc<Query>, progress: Arc<Progress>) -> Outcome {
    let get = async |version| member.get(query.group(), query.path(version), &progress).await;
    let has_versions = matches!(query.decoded(), DecodedQuery::Custom(_))
        && member.discovered().is_none_or(|discovered| discovered.version.is_some());
    let mut version = member.version();
    let response = match get(version).await {
        Ok(response) if has_versions && is_version_missing(&response) => {
            version = version.other();
            get(version).await
        }
        result => result,
    };
    match response {
        Ok(response) => {
            let outcome = classify(&member, &query, response, progress.clone()).await;
            if let (Outcome::Page(_), DecodedQuery::Custom(query)) = (&outcome, query.decoded()) {
                let (resource, namespaced) = (query.resource(), query.is_namespaced());
                member.add_custom_metric(version, resource, &query.metric, namespaced).await;
            }
            outcome
        }
        Err(failure) => Outcome::Failure(failure),
    }
}

/// Whether a 404 comes from the API server, which has no such API version. A 404 of the metrics API has a `Status`.
fn is_version_missing(response: &MemberResponse) -> bool {
    response.status == StatusCode::NOT_FOUND && read_status(response).is_none()
}
