//! Identical queries in flight share one answer: members are asked once, and the answer is encoded once.

mod combine;
mod encode;

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::watch;

use crate::api::codec::negotiate::{Encoding, Representation};
use crate::api::memory::Stopped;
use crate::api::selector::Requirement;
use crate::api::status::Status;
use crate::api::table::IncludeObject;
use crate::config::{Members, Merging, OnMemberFailure};
use crate::fleet::Fleet;
use crate::gather::metrics::GatherMetrics;
use crate::gather::{Gather, MemberQuery};
use crate::member::failure::NoRoom;
use crate::process::budget::{Budget, Reserved};
use crate::process::work;
use crate::query::Query;
use combine::Combined;

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryKey {
    /// What is asked.
    pub query: Arc<Query>,
    /// Requirements on the cluster label: which clusters are asked.
    pub clusters: Vec<Requirement>,
    /// How the client wants to see it.
    pub form: ResponseFormat,
    /// How long it waits for each member.
    pub member_timeout: Duration,
}

/// How a client wants to see an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResponseFormat {
    /// How it is written.
    pub encoding: Encoding,
    /// What is shown of pods and nodes.
    pub representation: Representation,
    /// What stands beside the cells of a table.
    pub include_object: IncludeObject,
}

/// An encoded answer.
#[derive(Clone, Debug)]
pub struct QueryResponse {
    /// The body, in the form that was asked for. It counts towards `--inflight-bytes` until its last part is dropped.
    pub body: Bytes,
    /// What the client should know of clusters that are missing; empty if none is.
    pub warning: String,
}

/// An answer, or the `Status` that stands for none. Cheap to clone.
pub type QueryResult = Result<QueryResponse, Arc<Status>>;

type PendingResult = BoxFuture<'static, QueryResult>;

/// The queries that are being answered, each with a number of its own.
type InFlight = DashMap<QueryKey, (u64, WeakShared<PendingResult>)>;

/// Answers queries from the fleet.
pub struct Responder {
    pipeline: Arc<Pipeline>,
    in_flight: Arc<InFlight>,
    ticket: AtomicU64,
}

/// What it takes to make an answer.
struct Pipeline {
    fleet: watch::Receiver<Arc<Fleet>>,
    gather: Gather,
    member_timeout: Duration,
    on_failure: OnMemberFailure,
    merging: Arc<Merging>,
    inflight: Budget,
    metrics: Arc<GatherMetrics>,
}

impl Responder {
    /// Answers from the members of `fleet`, with memory from `inflight`.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        members: &Members,
        merging: Merging,
        inflight: Budget,
        metrics: Arc<GatherMetrics>,
    ) -> Self {
        let gather = Gather::new(members, inflight.clone(), metrics.clone());
        let Members { timeout: member_timeout, on_failure, .. } = *members;
        let merging = Arc::new(merging);
        let kitchen = Pipeline { fleet, gather, member_timeout, on_failure, merging, inflight, metrics };
        let kitchen = Arc::new(kitchen);
        Self { pipeline: kitchen, in_flight: Arc::default(), ticket: AtomicU64::default() }
    }

    /// The label by which clusters are chosen and named; `None` if they are not.
    pub fn cluster_label(&self) -> Option<&str> {
        self.pipeline.merging.cluster_label.as_deref()
    }

    /// How long an answer waits for each member unless its client has less time.
    pub fn member_timeout(&self) -> Duration {
        self.pipeline.member_timeout
    }

    /// The answer to `key`: that of an identical query in flight, or a new one. When all who wait for it have left,
    /// the members' requests are cancelled.
    pub async fn answer(&self, key: QueryKey) -> QueryResult {
        self.join(key).await
    }

    fn join(&self, key: QueryKey) -> Shared<PendingResult> {
        let entry = self.in_flight.entry(key.clone());
        if let Entry::Occupied(entry) = &entry
            && let Some(pending) = entry.get().1.upgrade()
        {
            self.pipeline.metrics.shared(key.query.group());
            return pending;
        }
        let (ticket, pending) = self.begin(key);
        entry.insert((ticket, pending.downgrade().expect("nobody has polled it yet")));
        pending
    }

    fn begin(&self, key: QueryKey) -> (u64, Shared<PendingResult>) {
        let ticket = self.ticket.fetch_add(1, Ordering::Relaxed);
        let leave = InFlightGuard { in_flight: self.in_flight.clone(), key: key.clone(), ticket };
        let kitchen = self.pipeline.clone();
        let computing: PendingResult = Box::pin(async move {
            let _leave = leave;
            kitchen.compute(key).await
        });
        (ticket, computing.shared())
    }
}

/// Takes a query out of the table when it ends or is given up, unless a later one has its place.
struct InFlightGuard {
    in_flight: Arc<InFlight>,
    key: QueryKey,
    ticket: u64,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.remove_if(&self.key, |_, (ticket, _)| *ticket == self.ticket);
    }
}

impl Pipeline {
    async fn compute(&self, key: QueryKey) -> QueryResult {
        let QueryKey { query, clusters, form, member_timeout } = key;
        let fleet = self.fleet.borrow().clone();
        let chosen =
            |cluster: &str| clusters.iter().all(|requirement| requirement.matches_label(Some(cluster)));
        let asking = MemberQuery { fleet: &fleet, chosen, query: &query, timeout: member_timeout };
        let answers = self.gather.query_all(asking).await.map_err(no_room)?;
        let (pages, warning) = match combine::combine(&query, answers, self.on_failure) {
            Combined::Refused(status) => return Err(Arc::new(status)),
            Combined::Found { pages, warning } => (pages, warning),
        };
        let bytes = pages.iter().map(|(_, page)| page.bytes()).sum();
        let (merging, mut share) = (self.merging.clone(), self.inflight.share());
        let body = work::run(bytes, move |caller| {
            let mut reserve = |bytes| caller.reserve(&mut share, bytes);
            let body = encode::body(&query, &pages, form, &merging, &mut reserve)?;
            drop(pages);
            Ok::<_, Stopped>(Bytes::from_owner(Reserved::fitted(body, share)))
        });
        Ok(QueryResponse { body: body.await.map_err(|_| no_room(NoRoom))?, warning })
    }
}

/// Nobody sees the answer to a query whose work was stopped because they left.
fn no_room(error: NoRoom) -> Arc<Status> {
    Arc::new(Status::too_many_requests(error.to_string()))
}
