//! Identical queries in flight share one answer: members are asked once, and the answer is encoded once.

mod encode;
mod verdict;

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
use crate::gather::{Asking, Gather};
use crate::member::failure::NoRoom;
use crate::process::budget::{Budget, Held};
use crate::process::work;
use crate::query::Query;
use verdict::Verdict;

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What is asked.
    pub query: Arc<Query>,
    /// Requirements on the cluster label: which clusters are asked.
    pub clusters: Vec<Requirement>,
    /// How the client wants to see it.
    pub form: Form,
    /// How long it waits for each member.
    pub member_timeout: Duration,
}

/// How a client wants to see an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// How it is written.
    pub encoding: Encoding,
    /// What is shown of pods and nodes.
    pub representation: Representation,
    /// What stands beside the cells of a table.
    pub include_object: IncludeObject,
}

/// An encoded answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body, in the form that was asked for. It counts towards `--inflight-bytes` until its last part is dropped.
    pub body: Bytes,
    /// What the client should know of clusters that are missing; empty if none is.
    pub warning: String,
}

/// An answer, or the `Status` that stands for none. Cheap to clone.
pub type Answered = Result<Answer, Arc<Status>>;

type Pending = BoxFuture<'static, Answered>;

/// The queries that are being answered, each with a number of its own.
type InFlight = DashMap<Key, (u64, WeakShared<Pending>)>;

/// Answers queries from the fleet.
pub struct Answers {
    kitchen: Arc<Kitchen>,
    in_flight: Arc<InFlight>,
    ticket: AtomicU64,
}

/// What it takes to make an answer.
struct Kitchen {
    fleet: watch::Receiver<Arc<Fleet>>,
    gather: Gather,
    member_timeout: Duration,
    on_failure: OnMemberFailure,
    merging: Arc<Merging>,
    inflight: Budget,
    metrics: Arc<GatherMetrics>,
}

impl Answers {
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
        let kitchen = Kitchen { fleet, gather, member_timeout, on_failure, merging, inflight, metrics };
        let kitchen = Arc::new(kitchen);
        Self { kitchen, in_flight: Arc::default(), ticket: AtomicU64::default() }
    }

    /// The label by which clusters are chosen and named; `None` if they are not.
    pub fn cluster_label(&self) -> Option<&str> {
        self.kitchen.merging.cluster_label.as_deref()
    }

    /// How long an answer waits for each member unless its client has less time.
    pub fn member_timeout(&self) -> Duration {
        self.kitchen.member_timeout
    }

    /// The answer to `key`: that of an identical query in flight, or a new one. When all who wait for it have left,
    /// the members' requests are cancelled.
    pub async fn answer(&self, key: Key) -> Answered {
        self.join(key).await
    }

    fn join(&self, key: Key) -> Shared<Pending> {
        let entry = self.in_flight.entry(key.clone());
        if let Entry::Occupied(entry) = &entry
            && let Some(pending) = entry.get().1.upgrade()
        {
            self.kitchen.metrics.shared(key.query.group());
            return pending;
        }
        let (ticket, pending) = self.begin(key);
        entry.insert((ticket, pending.downgrade().expect("nobody has polled it yet")));
        pending
    }

    fn begin(&self, key: Key) -> (u64, Shared<Pending>) {
        let ticket = self.ticket.fetch_add(1, Ordering::Relaxed);
        let leave = Leave { in_flight: self.in_flight.clone(), key: key.clone(), ticket };
        let kitchen = self.kitchen.clone();
        let cooking: Pending = Box::pin(async move {
            let _leave = leave;
            kitchen.cook(key).await
        });
        (ticket, cooking.shared())
    }
}

/// Takes a query out of the table when it ends or is given up, unless a later one has its place.
struct Leave {
    in_flight: Arc<InFlight>,
    key: Key,
    ticket: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.in_flight.remove_if(&self.key, |_, (ticket, _)| *ticket == self.ticket);
    }
}

impl Kitchen {
    async fn cook(&self, key: Key) -> Answered {
        let Key { query, clusters, form, member_timeout } = key;
        let fleet = self.fleet.borrow().clone();
        let chosen =
            |cluster: &str| clusters.iter().all(|requirement| requirement.matches_label(Some(cluster)));
        let asking = Asking { fleet: &fleet, chosen, query: &query, timeout: member_timeout };
        let answers = self.gather.ask_all(asking).await.map_err(no_room)?;
        let (pages, warning) = match verdict::judge(&query, answers, self.on_failure) {
            Verdict::Refused(status) => return Err(Arc::new(status)),
            Verdict::Found { pages, warning } => (pages, warning),
        };
        let bytes = pages.iter().map(|(_, page)| page.bytes()).sum();
        let (merging, mut share) = (self.merging.clone(), self.inflight.share());
        let body = work::run(bytes, move |caller| {
            let mut reserve = |bytes| caller.reserve(&mut share, bytes);
            let body = encode::body(&query, &pages, form, &merging, &mut reserve)?;
            drop(pages);
            Ok::<_, Stopped>(Bytes::from_owner(Held::fitted(body, share)))
        });
        Ok(Answer { body: body.await.map_err(|_| no_room(NoRoom))?, warning })
    }
}

/// Nobody sees the answer to a query whose work was stopped because they left.
fn no_room(error: NoRoom) -> Arc<Status> {
    Arc::new(Status::too_many_requests(error.to_string()))
}
