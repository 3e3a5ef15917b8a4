//! One query to all members at once.

mod last_known;
pub mod metrics;
mod outcome;
pub mod query;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};

use crate::config::{Members, OnMemberFailure};
use crate::fleet::{Fleet, Standing};
use crate::member::failure::NoRoom;
use crate::member::{Failure, Member};
use crate::process::budget::{Claim, Share};
use crate::transport::Progress;
use last_known::LastKnown;
use metrics::GatherMetrics;
use outcome::Asked;
pub use outcome::Outcome;
use query::Query;

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

/// What all members made of a query.
pub struct Gathered {
    /// In the order of the clusters' names.
    pub answers: Vec<Answered>,
    /// What the pages take of `--inflight-bytes`, to be kept as long as they are.
    pub room: Vec<Share>,
}

/// Asks members.
pub struct Gather {
    /// How long a member has before its silence says something of it; a client may have less time.
    patience: Duration,
    late: Duration,
    /// What stands in, if anything does.
    last_known: Option<Arc<LastKnown>>,
    metrics: Arc<GatherMetrics>,
}

impl Gather {
    /// Asks as the configuration says.
    pub fn new(config: &Members, metrics: Arc<GatherMetrics>) -> Self {
        let stands_in = config.on_failure == OnMemberFailure::LastKnown;
        Self {
            patience: config.timeout,
            late: config.last_known.late,
            last_known: stands_in.then(|| Arc::new(LastKnown::new(config.last_known))),
            metrics,
        }
    }

    /// Asks every member that `chosen` accepts by name, one request each, and waits for none longer than
    /// `timeout`. Dropping the future cancels what is still in flight, save replies that were too late already and
    /// are waited for to be kept.
    ///
    /// # Errors
    /// If `claim` is bounded and there is no room for the members' answers.
    pub async fn ask_all(
        &self,
        fleet: &Fleet,
        query: &Arc<Query>,
        claim: Claim,
        chosen: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Result<Gathered, NoRoom> {
        let mut asking = std::pin::pin!(self.ask_each(fleet, query, claim, chosen, timeout));
        let (mut answers, mut rooms) = (Vec::new(), Vec::new());
        while let Some((answered, room)) = asking.next().await {
            if let Outcome::Failure(Failure::NoRoom(none)) = answered.outcome {
                return Err(none);
            }
            answers.push(answered);
            rooms.extend(room);
        }
        answers.sort_unstable_by(|one, other| one.cluster.cmp(&other.cluster));
        Ok(Gathered { answers, room: rooms })
    }

    /// The same, each answer as it comes, with what its page takes of the room for members' answers.
    pub fn ask_each(
        &self,
        fleet: &Fleet,
        query: &Arc<Query>,
        claim: Claim,
        chosen: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> impl Stream<Item = (Answered, Option<Share>)> {
        self.metrics.query(query.group());
        let asked = fleet.entries().filter(|entry| chosen(entry.cluster()));
        let asking = asked.map(move |entry| async move {
            let start = Instant::now();
            let (outcome, room) = match entry.standing() {
                Standing::Ready(member) => self.ask(member, query, claim, timeout).await,
                Standing::NotReady(_) => (Outcome::Failure(Failure::NotReady), None),
            };
            let (cluster, elapsed) = (entry.cluster().clone(), start.elapsed());
            self.metrics.member(&cluster, query.group(), &outcome, elapsed);
            (Answered { cluster, outcome, elapsed }, room)
        });
        asking.collect::<FuturesUnordered<_>>()
    }

    async fn ask(&self, member: &Arc<Member>, query: &Arc<Query>, claim: Claim, timeout: Duration) -> Asked {
        let (outcome, room) = match member.skipped(query.group()) {
            Some(skip) => (Outcome::Failure(Failure::Skipped(skip)), None),
            None => self.ask_in_time(member, query, claim, timeout).await,
        };
        (self.or_last_known(member, query, outcome), room)
    }

    fn or_last_known(&self, member: &Member, query: &Arc<Query>, outcome: Outcome) -> Outcome {
        let Some(last_known) = &self.last_known else { return outcome };
        match outcome {
            Outcome::Failure(failure) if failure.is_ill() => match last_known.of(member.id(), query) {
                Some(kept) => Outcome::StoodIn { age: kept.age(), page: kept.page, failure },
                None => Outcome::Failure(failure),
            },
            outcome => outcome,
        }
    }

    async fn ask_in_time(
        &self,
        member: &Arc<Member>,
        query: &Arc<Query>,
        claim: Claim,
        timeout: Duration,
    ) -> Asked {
        let begun = Instant::now();
        if tokio::time::timeout(timeout, member.token()).await.is_err() {
            return (Outcome::Failure(Failure::Throttled), None);
        }
        // That a client was in a hurry says nothing of the member, and nobody waits for a late reply because of it.
        let is_hurried = timeout < self.patience;
        let left = timeout.saturating_sub(begun.elapsed());
        let begun = Instant::now();
        let progress = Arc::new(Progress::default());
        let mut asking = Box::pin(outcome::ask(member.clone(), query.clone(), claim, progress.clone()));
        let (outcome, room, in_time) = match tokio::time::timeout(left, &mut asking).await {
            Ok((outcome, room)) => {
                self.keep(member, query, &outcome);
                (outcome, room, true)
            }
            Err(_) => {
                let failure = Failure::late(&progress, timeout);
                if !is_hurried {
                    self.await_late(member, query, asking);
                }
                (Outcome::Failure(failure), None, false)
            }
        };
        if in_time || !is_hurried {
            member.note(query.group(), query.path(member.version()), begun, outcome.failure());
        }
        (outcome, room)
    }

    fn keep(&self, member: &Member, query: &Arc<Query>, outcome: &Outcome) {
        if let Some(last_known) = &self.last_known {
            last_known.take(member.id(), query, outcome);
        }
    }

    /// Goes on waiting for a reply that is too late for its answer, so that the next answer has it.
    fn await_late(
        &self,
        member: &Member,
        query: &Arc<Query>,
        asking: impl Future<Output = Asked> + Send + 'static,
    ) {
        let Some(last_known) = &self.last_known else { return };
        let Some(right) = last_known.late(member.id(), query) else { return };
        let (last_known, query) = (last_known.clone(), query.clone());
        let (id, rest) = (member.id(), self.late);
        tokio::spawn(async move {
            let _right = right;
            if let Ok((outcome, _room)) = tokio::time::timeout(rest, asking).await {
                last_known.take(id, &query, &outcome);
            }
        });
    }
}
