//! One query to one member, and what stands in where that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::last_known::LastKnownCache;
use super::{Gather, Outcome, outcome};
use crate::member::failure::NoRoom;
use crate::member::{Failure, Member};
use crate::process::budget::Reserved;
use crate::query::Query;
use crate::transport::Progress;

/// One query to one member, which has `timeout` for it.
pub(super) struct Attempt<'a> {
    pub(super) gather: &'a Gather,
    pub(super) member: &'a Arc<Member>,
    pub(super) query: &'a Arc<Query>,
    pub(super) timeout: Duration,
}

impl Attempt<'_> {
    /// What came of it.
    pub(super) async fn outcome(&self) -> Outcome {
        let outcome = match self.member.skipped(self.query.group()) {
            Some(skip) => Outcome::Failure(Failure::Skipped(skip)),
            None => self.ask().await,
        };
        match &self.gather.last_known {
            Some(last_known) => self.or_last_known(last_known, outcome),
            None => outcome,
        }
    }

    async fn ask(&self) -> Outcome {
        let begun = Instant::now();
        if tokio::time::timeout(self.timeout, self.member.token()).await.is_err() {
            return Outcome::Failure(Failure::Throttled);
        }
        // That a client was in a hurry says nothing of the member, and nobody waits for a late reply because of it.
        let is_hurried = self.timeout < self.gather.patience;
        let left = self.timeout.saturating_sub(begun.elapsed());
        let begun = Instant::now();
        let progress = Arc::new(Progress::default());
        let mut asking = Box::pin(outcome::ask(self.member.clone(), self.query.clone(), progress.clone()));
        let (outcome, in_time) = match tokio::time::timeout(left, &mut asking).await {
            Ok(outcome) => {
                if let Some(last_known) = &self.gather.last_known {
                    last_known.take(self.member.id(), self.query, &outcome);
                }
                (outcome, true)
            }
            Err(_) => {
                let failure = Failure::late(&progress, self.timeout);
                if let Some(last_known) = self.gather.last_known.as_ref().filter(|_| !is_hurried) {
                    self.await_late(last_known, asking);
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
        let Some(kept) = last_known.of(self.member.id(), self.query) else {
            return Outcome::Failure(failure);
        };
        let (age, mut share) = (kept.age(), self.gather.inflight.share());
        match share.grow(kept.page.memory()) {
            Ok(()) => Outcome::StoodIn { page: Reserved::new(kept.page, share), age, failure },
            Err(_) => Outcome::Failure(NoRoom.into()),
        }
    }

    /// Goes on waiting for a reply that is too late for its answer, so that the next answer has it, as long as there is memory
    /// for answers.
    fn await_late(
        &self,
        last_known: &Arc<LastKnownCache>,
        asking: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let Some(right) = last_known.late(self.member.id(), self.query) else { return };
        let (id, query, rest) = (self.member.id(), self.query.clone(), self.gather.late);
        let (last_known, inflight) = (last_known.clone(), self.gather.inflight.clone());
        tokio::spawn(async move {
            let _right = right;
            tokio::select! {
                outcome = asking => last_known.take(id, &query, &outcome),
                () = tokio::time::sleep(rest) => {}
                // Answers need the memory more.
                () = inflight.is_short() => {}
            }
        });
    }
}
