//! One query to all members at once.

pub mod metrics;
mod outcome;
pub mod query;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::fleet::{Fleet, Standing};
use crate::member::{Failure, Member};
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

/// Asks every member that `chosen` accepts by name, one request each, and waits for none longer than
/// `member_timeout`. The answers come in the order of the clusters' names. Dropping the future cancels what is
/// still in flight.
pub async fn fan_out(
    fleet: &Fleet,
    query: &Query,
    chosen: impl Fn(&str) -> bool,
    member_timeout: Duration,
    metrics: &GatherMetrics,
) -> Vec<Answered> {
    metrics.query();
    let asked = fleet.entries().filter(|entry| chosen(entry.cluster()));
    let mut asking: FuturesUnordered<_> = asked
        .enumerate()
        .map(async |(place, entry)| {
            let start = Instant::now();
            let outcome = match entry.standing() {
                Standing::Ready(member) => ask_in_time(member, query, member_timeout).await,
                Standing::NotReady => Outcome::Failure(Failure::NotReady),
            };
            metrics.member(entry.cluster(), &outcome, start.elapsed());
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

async fn ask_in_time(member: &Member, query: &Query, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, outcome::ask(member, query)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(Failure::Timeout(timeout)),
    }
}
