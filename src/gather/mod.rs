//! One query to all members at once.

mod last_known;
pub mod metrics;
mod outcome;
pub mod query;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::config::{Members, OnMemberFailure};
use crate::fleet::{Fleet, Standing};
use crate::member::{Failure, Member};
use last_known::LastKnown;
use metrics::GatherMetrics;
pub use outcome::Outcome;
use query::Query;

/// What one member made of a query.
#[derive(Debug)]
pub struct Answered {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// What came of it.
    pub outcome: Outcome,
}

/// Asks members.
pub struct Gather {
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
            late: config.last_known.late,
            last_known: stands_in.then(|| Arc::new(LastKnown::new(config.last_known))),
            metrics,
        }
    }

    /// Asks every member that `chosen` accepts by name, one request each, and waits for none longer than
    /// `timeout`. The answers come in the order of the clusters' names. Dropping the future cancels what is
    /// still in flight, save replies that were too late already and are waited for to be kept.
    pub async fn ask_all(
        &self,
        fleet: &Fleet,
        query: &Arc<Query>,
        chosen: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Vec<Answered> {
        self.metrics.query();
        let asked = fleet.entries().filter(|entry| chosen(entry.cluster()));
        let mut asking: FuturesUnordered<_> = asked
            .enumerate()
            .map(async |(place, entry)| {
                let start = Instant::now();
                let outcome = match entry.standing() {
                    Standing::Ready(member) => self.ask(member, query, timeout).await,
                    Standing::NotReady => Outcome::Failure(Failure::NotReady),
                };
                self.metrics.member(entry.cluster(), &outcome, start.elapsed());
                (place, Answered { cluster: entry.cluster().clone(), outcome })
            })
            .collect();
        let mut answers = Vec::with_capacity(asking.len());
        while let Some(answer) = asking.next().await {
            answers.push(answer);
        }
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answered)| answered).collect()
    }

    async fn ask(&self, member: &Arc<Member>, query: &Arc<Query>, timeout: Duration) -> Outcome {
        let outcome = match member.skipped() {
            Some(skip) => Outcome::Failure(Failure::Skipped(skip)),
            None => self.ask_in_time(member, query, timeout).await,
        };
        let Some(last_known) = &self.last_known else { return outcome };
        match outcome {
            Outcome::Failure(failure) if !failure.is_unreachable() => match last_known.of(member.id(), query)
            {
                Some(kept) => Outcome::StoodIn { age: kept.age(), page: kept.page, failure },
                None => Outcome::Failure(failure),
            },
            outcome => outcome,
        }
    }

    async fn ask_in_time(&self, member: &Arc<Member>, query: &Arc<Query>, timeout: Duration) -> Outcome {
        let mut asking = Box::pin(outcome::ask(member.clone(), query.clone()));
        let outcome = match tokio::time::timeout(timeout, &mut asking).await {
            Ok(outcome) => {
                self.keep(member, query, &outcome);
                outcome
            }
            Err(_) => {
                self.await_late(member, query, asking);
                Outcome::Failure(member.too_late(timeout))
            }
        };
        member.note(|| query.path(member.version()), outcome.failure());
        outcome
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
        asking: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let Some(last_known) = &self.last_known else { return };
        let Some(right) = last_known.late(member.id(), query) else { return };
        let (last_known, query) = (last_known.clone(), query.clone());
        let (id, rest) = (member.id(), self.late);
        tokio::spawn(async move {
            let _right = right;
            if let Ok(outcome) = tokio::time::timeout(rest, asking).await {
                last_known.take(id, &query, &outcome);
            }
        });
    }
}
