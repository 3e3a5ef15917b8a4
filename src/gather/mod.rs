//! Sends one query to all members at once.

mod attempt;
mod last_known;
pub mod metrics;
mod outcome;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};

use crate::config::{Members, OnMemberFailure};
use crate::fleet::{Fleet, FleetEntry};
use crate::member::Failure;
use crate::member::failure::NoRoom;
use crate::process::budget::Budget;
use crate::query::Query;
use attempt::Attempt;
use last_known::LastKnownCache;
use metrics::GatherMetrics;
pub use outcome::Outcome;

/// The outcome of a query at one member.
#[derive(Debug)]
pub struct MemberOutcome {
    /// The cluster's name.
    pub cluster: Arc<str>,
    pub outcome: Outcome,
    /// Time until the outcome was known.
    pub elapsed: Duration,
}

/// A query for some members of a fleet.
pub struct MemberQuery<'a, C: Fn(&str) -> bool> {
    pub fleet: &'a Fleet,
    /// Selects the members to query, by cluster name.
    pub chosen: C,
    pub query: &'a Arc<Query>,
    pub timeout: Duration,
}

/// Sends queries to members.
pub struct Gather {
    /// `--member-timeout`. Requests with a shorter deadline do not count against the circuit breaker.
    member_timeout: Duration,
    /// How long a late reply is awaited.
    late: Duration,
    /// The cache of last-known pages; `None` if `--on-member-failure` does not use it.
    last_known: Option<Arc<LastKnownCache>>,
    /// Memory of a last-known page counts here as long as a query uses it, since the cache may have evicted it.
    inflight: Budget,
    metrics: Arc<GatherMetrics>,
}

impl Gather {
    /// Queries members as configured, and reserves memory from `inflight`.
    pub fn new(config: &Members, inflight: Budget, metrics: Arc<GatherMetrics>) -> Self {
        let uses_last_known = config.on_failure == OnMemberFailure::LastKnown;
        Self {
            member_timeout: config.timeout,
            late: config.last_known.late,
            last_known: uses_last_known.then(|| Arc::new(LastKnownCache::new(config.last_known))),
            inflight,
            metrics,
        }
    }

    pub fn member_timeout(&self) -> Duration {
        self.member_timeout
    }

    /// Queries each selected member. Dropping the future cancels the requests in flight, except those with a late reply that is awaited
    /// for the last-known cache. The outcomes are ordered by cluster name.
    ///
    /// # Errors
    /// If there is no memory for the members' responses.
    pub async fn query_all(
        &self,
        query: MemberQuery<'_, impl Fn(&str) -> bool>,
    ) -> Result<Vec<MemberOutcome>, NoRoom> {
        let mut each = std::pin::pin!(self.query_each(query));
        let mut outcomes = Vec::new();
        while let Some(member) = each.next().await {
            if let Outcome::Failure(Failure::NoRoom(no_room)) = member.outcome {
                return Err(no_room);
            }
            outcomes.push(member);
        }
        outcomes.sort_unstable_by(|one, other| one.cluster.cmp(&other.cluster));
        Ok(outcomes)
    }

    /// Queries each selected member and yields each outcome as soon as it is known.
    pub fn query_each(
        &self,
        query: MemberQuery<'_, impl Fn(&str) -> bool>,
    ) -> impl Stream<Item = MemberOutcome> {
        let MemberQuery { fleet, chosen, query, timeout } = query;
        self.metrics.query(query.group());
        let queried = fleet.entries().filter(move |entry| chosen(entry.member.name()));
        let outcomes = queried.map(move |FleetEntry { member, ready }| async move {
            let start = Instant::now();
            let outcome = if *ready {
                Attempt { gather: self, member, query, timeout }.outcome().await
            } else {
                Outcome::Failure(Failure::NotReady)
            };
            let elapsed = start.elapsed();
            member.count(query.group(), &outcome.end(elapsed));
            MemberOutcome { cluster: member.name().clone(), outcome, elapsed }
        });
        outcomes.collect::<FuturesUnordered<_>>()
    }
}
