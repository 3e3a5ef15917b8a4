//! One query to all members at once.

mod last_known;
pub mod metrics;
mod outcome;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};

use crate::config::{Members, OnMemberFailure};
use crate::fleet::{Fleet, Standing};
use crate::member::failure::NoRoom;
use crate::member::{Failure, Member};
use crate::process::budget::{Budget, Held};
use crate::query::Query;
use crate::transport::Progress;
use last_known::LastKnown;
use metrics::GatherMetrics;
pub use outcome::Outcome;

/// What one member made of a query.
#[derive(Debug)]
pub struct Answered {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// What came of it.
    pub outcome: Outcome,
    /// How long that took.
    pub elapsed: Duration,
}

/// Asks members.
pub struct Gather {
    /// How long a member has before its silence says something of it; a client may have less time.
    patience: Duration,
    late: Duration,
    /// What stands in, if anything does.
    last_known: Option<Arc<LastKnown>>,
    /// What stands in counts here too while a query has it: it may be kept no more by then.
    inflight: Budget,
    metrics: Arc<GatherMetrics>,
}

impl Gather {
    /// Asks as the configuration says, with memory from `inflight`.
    pub fn new(config: &Members, inflight: Budget, metrics: Arc<GatherMetrics>) -> Self {
        let stands_in = config.on_failure == OnMemberFailure::LastKnown;
        Self {
            patience: config.timeout,
            late: config.last_known.late,
            last_known: stands_in.then(|| Arc::new(LastKnown::new(config.last_known))),
            inflight,
            metrics,
        }
    }

    /// Asks every member that `chosen` accepts by name, one request each, and waits for none longer than
    /// `timeout`. Dropping the future cancels what is still in flight, save replies that were too late already and
    /// are waited for to be kept. The answers are in the order of the clusters' names.
    ///
    /// # Errors
    /// If there is no memory for the members' answers.
    pub async fn ask_all(
        &self,
        fleet: &Fleet,
        query: &Arc<Query>,
        chosen: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Result<Vec<Answered>, NoRoom> {
        let mut asking = std::pin::pin!(self.ask_each(fleet, query, chosen, timeout));
        let mut answers = Vec::new();
        while let Some(answered) = asking.next().await {
            if let Outcome::Failure(Failure::NoRoom(none)) = answered.outcome {
                return Err(none);
            }
            answers.push(answered);
        }
        answers.sort_unstable_by(|one, other| one.cluster.cmp(&other.cluster));
        Ok(answers)
    }

    /// The same, each answer as it comes.
    pub fn ask_each(
        &self,
        fleet: &Fleet,
        query: &Arc<Query>,
        chosen: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> impl Stream<Item = Answered> {
        self.metrics.query(query.group());
        let asked = fleet.entries().filter(|entry| chosen(entry.cluster()));
        let asking = asked.map(move |entry| async move {
            let start = Instant::now();
            let outcome = match entry.standing() {
                Standing::Ready(member) => self.ask(member, query, timeout).await,
                Standing::NotReady(_) => Outcome::Failure(Failure::NotReady),
            };
            let (cluster, elapsed) = (entry.cluster().clone(), start.elapsed());
            self.metrics.member(&cluster, query.group(), &outcome, elapsed);
            Answered { cluster, outcome, elapsed }
        });
        asking.collect::<FuturesUnordered<_>>()
    }

    async fn ask(&self, member: &Arc<Member>, query: &Arc<Query>, timeout: Duration) -> Outcome {
        let outcome = match member.skipped(query.group()) {
            Some(skip) => Outcome::Failure(Failure::Skipped(skip)),
            None => self.ask_in_time(member, query, timeout).await,
        };
        self.or_last_known(member, query, outcome)
    }

    fn or_last_known(&self, member: &Member, query: &Arc<Query>, outcome: Outcome) -> Outcome {
        let Some(last_known) = &self.last_known else { return outcome };
        match outcome {
            Outcome::Failure(failure) if failure.is_ill() => match last_known.of(member.id(), query) {
                Some(kept) => {
                    let (age, mut share) = (kept.age(), self.inflight.share());
                    match share.grow(kept.page.memory()) {
                        Ok(()) => Outcome::StoodIn { page: Held::new(kept.page, share), age, failure },
                        Err(_) => Outcome::Failure(NoRoom.into()),
                    }
                }
                None => Outcome::Failure(failure),
            },
            outcome => outcome,
        }
    }

    async fn ask_in_time(&self, member: &Arc<Member>, query: &Arc<Query>, timeout: Duration) -> Outcome {
        let begun = Instant::now();
        if tokio::time::timeout(timeout, member.token()).await.is_err() {
            return Outcome::Failure(Failure::Throttled);
        }
        // That a client was in a hurry says nothing of the member, and nobody waits for a late reply because of it.
        let is_hurried = timeout < self.patience;
        let left = timeout.saturating_sub(begun.elapsed());
        let begun = Instant::now();
        let progress = Arc::new(Progress::default());
        let mut asking = Box::pin(outcome::ask(member.clone(), query.clone(), progress.clone()));
        let (outcome, in_time) = match tokio::time::timeout(left, &mut asking).await {
            Ok(outcome) => {
                self.keep(member, query, &outcome);
                (outcome, true)
            }
            Err(_) => {
                let failure = Failure::late(&progress, timeout);
                if !is_hurried {
                    self.await_late(member, query, asking);
                }
                (Outcome::Failure(failure), false)
            }
        };
        if in_time || !is_hurried {
            member.note(query.group(), query.path(member.version()), begun, outcome.failure());
        }
        outcome
    }

    fn keep(&self, member: &Member, query: &Arc<Query>, outcome: &Outcome) {
        if let Some(last_known) = &self.last_known {
            last_known.take(member.id(), query, outcome);
        }
    }

    /// Goes on waiting for a reply that is too late for its answer, so that the next answer has it, as long as there is memory
    /// for answers.
    fn await_late(
        &self,
        member: &Member,
        query: &Arc<Query>,
        asking: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let Some(last_known) = &self.last_known else { return };
        let Some(right) = last_known.late(member.id(), query) else { return };
        let (last_known, inflight, query) = (last_known.clone(), self.inflight.clone(), query.clone());
        let (id, rest) = (member.id(), self.late);
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
