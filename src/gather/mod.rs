//! One query to all members at once.

mod attempt;
mod last_known;
pub mod metrics;
mod outcome;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};

use crate::config::{Members, OnMemberFailure};
use crate::fleet::{ClusterState, Fleet};
use crate::member::Failure;
use crate::member::failure::NoRoom;
use crate::process::budget::Budget;
use crate::query::Query;
use attempt::Attempt;
use last_known::LastKnownCache;
use metrics::GatherMetrics;
pub use outcome::Outcome;

/// What one member made of a query.
#[derive(Debug)]
pub struct MemberOutcome {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// What came of it.
    pub outcome: Outcome,
    /// How long that took.
    pub elapsed: Duration,
}

/// What is asked, of whom, and for how long.
pub struct MemberQuery<'a, C: Fn(&str) -> bool> {
    /// The members that there are.
    pub fleet: &'a Fleet,
    /// Which of them are asked, by the cluster's name.
    pub chosen: C,
    /// What each is asked.
    pub query: &'a Arc<Query>,
    /// How long each has.
    pub timeout: Duration,
}

/// Asks members.
pub struct Gather {
    /// How long a member has before its silence says something of it; a client may have less time.
    patience: Duration,
    late: Duration,
    /// What stands in, if anything does.
    last_known: Option<Arc<LastKnownCache>>,
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
            last_known: stands_in.then(|| Arc::new(LastKnownCache::new(config.last_known))),
            inflight,
            metrics,
        }
    }

    /// Asks every chosen member, one request each. Dropping the future cancels what is still in flight, save replies that
    /// were too late already and are waited for to be kept. The answers are in the order of the clusters' names.
    ///
    /// # Errors
    /// If there is no memory for the members' answers.
    pub async fn query_all(
        &self,
        asking: MemberQuery<'_, impl Fn(&str) -> bool>,
    ) -> Result<Vec<MemberOutcome>, NoRoom> {
        let mut asking = std::pin::pin!(self.query_each(asking));
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
    pub fn query_each(
        &self,
        asking: MemberQuery<'_, impl Fn(&str) -> bool>,
    ) -> impl Stream<Item = MemberOutcome> {
        let MemberQuery { fleet, chosen, query, timeout } = asking;
        self.metrics.query(query.group());
        let asked = fleet.entries().filter(|entry| chosen(entry.cluster()));
        let asking = asked.map(move |entry| async move {
            let start = Instant::now();
            let outcome = match entry.state() {
                ClusterState::Ready(member) => {
                    Attempt { gather: self, member, query, timeout }.outcome().await
                }
                ClusterState::NotReady(_) => Outcome::Failure(Failure::NotReady),
            };
            let (cluster, elapsed) = (entry.cluster().clone(), start.elapsed());
            entry.member().count(query.group(), &outcome.ended(elapsed));
            MemberOutcome { cluster, outcome, elapsed }
        });
        asking.collect::<FuturesUnordered<_>>()
    }
}
