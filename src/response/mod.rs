//! Responses to queries. Identical queries in flight share one response: members are queried once, and the response is encoded once.

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

/// All that a response depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryKey {
    pub query: Arc<Query>,
    /// Requirements on the cluster label: they select the clusters to query.
    pub clusters: Vec<Requirement>,
    pub format: ResponseFormat,
    pub member_timeout: Duration,
}

/// Format of a response, as negotiated with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResponseFormat {
    /// JSON, YAML or protobuf.
    pub encoding: Encoding,
    /// Whole objects, a table, or metadata only.
    pub representation: Representation,
    /// The object in each row of a table.
    pub include_object: IncludeObject,
}

/// An encoded response.
#[derive(Clone, Debug)]
pub struct QueryResponse {
    /// The body. It counts towards `--inflight-bytes` until its last slice is dropped.
    pub body: Bytes,
    /// Warning about clusters that are missing or have last-known values; empty if there are none.
    pub warning: String,
}

/// A response, or the `Status` of a failed query. Cheap to clone.
pub type QueryResult = Result<QueryResponse, Arc<Status>>;

type PendingResult = BoxFuture<'static, QueryResult>;

/// Queries in flight. Each has a unique number.
type InFlight = DashMap<QueryKey, (u64, WeakShared<PendingResult>)>;

/// Makes the responses to queries.
pub struct Responder {
    pipeline: Arc<Pipeline>,
    in_flight: Arc<InFlight>,
    ticket: AtomicU64,
}

/// Queries members, merges their pages and encodes the response.
struct Pipeline {
    fleet: watch::Receiver<Arc<Fleet>>,
    gather: Gather,
    on_failure: OnMemberFailure,
    merging: Arc<Merging>,
    inflight: Budget,
    metrics: Arc<GatherMetrics>,
}

impl Responder {
    /// A responder that queries the members of `fleet` and reserves memory from `inflight`.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        members: &Members,
        merging: Merging,
        inflight: Budget,
        metrics: Arc<GatherMetrics>,
    ) -> Self {
        let gather = Gather::new(members, inflight.clone(), metrics.clone());
        let (on_failure, merging) = (members.on_failure, Arc::new(merging));
        let pipeline = Arc::new(Pipeline { fleet, gather, on_failure, merging, inflight, metrics });
        Self { pipeline, in_flight: Arc::default(), ticket: AtomicU64::default() }
    }

    /// The cluster label; `None` if it is disabled.
    pub fn cluster_label(&self) -> Option<&str> {
        self.pipeline.merging.cluster_label.as_deref()
    }

    /// Timeout for each member, unless the client's deadline is shorter.
    pub fn member_timeout(&self) -> Duration {
        self.pipeline.gather.member_timeout()
    }

    /// Returns the response of an identical query in flight, or runs the query. When all callers have left, the requests to members are
    /// cancelled.
    pub async fn respond(&self, key: QueryKey) -> QueryResult {
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
        entry.insert((ticket, pending.downgrade().expect("it has not been polled yet")));
        pending
    }

    fn begin(&self, key: QueryKey) -> (u64, Shared<PendingResult>) {
        let ticket = self.ticket.fetch_add(1, Ordering::Relaxed);
        let guard = InFlightGuard { in_flight: self.in_flight.clone(), key: key.clone(), ticket };
        let pipeline = self.pipeline.clone();
        let computing: PendingResult = Box::pin(async move {
            let _guard = guard;
            pipeline.compute(key).await
        });
        (ticket, computing.shared())
    }
}

/// Removes a query from the table when it ends or is cancelled, unless a newer query has replaced it.
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
        let QueryKey { query, clusters, format: form, member_timeout } = key;
        let fleet = self.fleet.borrow().clone();
        let chosen =
            |cluster: &str| clusters.iter().all(|requirement| requirement.matches_label(Some(cluster)));
        let member_query = MemberQuery { fleet: &fleet, chosen, query: &query, timeout: member_timeout };
        let outcomes = self.gather.query_all(member_query).await.map_err(no_room)?;
        let (pages, warning) = match combine::combine(&query, outcomes, self.on_failure) {
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

/// 429 for a query without memory. Work also stops when all callers have left; then no client sees this status.
fn no_room(error: NoRoom) -> Arc<Status> {
    Arc::new(Status::too_many_requests(error.to_string()))
}
