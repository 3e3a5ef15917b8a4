//! Which metrics each member has, learned in the background so that no client waits for a member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Fleet;
use crate::api::custom_metrics::Version;
use crate::api::discovery::{Catalog, DiscoveryError};
use crate::member::{Discovered, Failure, Member};
use crate::process::budget::Claim;

/// How long the first discovery of each member may hold up readiness.
const PATIENCE: Duration = Duration::from_secs(1);

/// Learns the members' metrics and unites them.
pub struct Discovery {
    fleet: watch::Receiver<Arc<Fleet>>,
    interval: Duration,
    member_timeout: Duration,
    catalog: watch::Sender<Arc<Catalog>>,
    settled: watch::Sender<bool>,
}

/// One member that is asked again and again.
struct Followed {
    member: Arc<Member>,
    first: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// Why a member's metrics are unknown.
#[derive(Debug, Error)]
enum Unknown {
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Document(#[from] DiscoveryError),
    #[error("HTTP {0}")]
    Status(StatusCode),
}

impl Discovery {
    /// A discovery that has not started. The first receiver has the metrics of all members; the second says when
    /// each member's first discovery has ended, or its time was up.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        interval: Duration,
        member_timeout: Duration,
    ) -> (Self, watch::Receiver<Arc<Catalog>>, watch::Receiver<bool>) {
        let (catalog, catalogs) = watch::channel(Arc::default());
        let (settled, is_settled) = watch::channel(false);
        (Self { fleet, interval, member_timeout, catalog, settled }, catalogs, is_settled)
    }

    /// Runs until it is dropped. `fleet_known` says when the members of the first moment are all there.
    pub async fn run(mut self, mut fleet_known: watch::Receiver<bool>) {
        let news = Arc::new(Notify::new());
        let mut followed: BTreeMap<String, Followed> = BTreeMap::new();
        let mut known = false;
        loop {
            let fleet = self.fleet.borrow_and_update().clone();
            self.follow(&fleet, &mut followed, &news);
            self.unite(&fleet);
            if known && !*self.settled.borrow() {
                self.settle(&followed).await;
                self.unite(&fleet);
            }
            tokio::select! {
                changed = self.fleet.changed() => if changed.is_err() { return },
                () = news.notified() => {}
                result = fleet_known.wait_for(|known| *known), if !known => known = result.is_ok(),
            }
        }
    }

    /// Starts to ask new members and stops asking those that have left.
    fn follow(&self, fleet: &Fleet, followed: &mut BTreeMap<String, Followed>, news: &Arc<Notify>) {
        let members: BTreeMap<&str, &Arc<Member>> =
            fleet.members().map(|member| (member.name(), member)).collect();
        followed.retain(|name, followed| {
            members.get(name.as_str()).is_some_and(|member| Arc::ptr_eq(member, &followed.member))
        });
        for (name, member) in members {
            if !followed.contains_key(name) {
                let (first, ended) = watch::channel(false);
                let asking =
                    ask_forever(member.clone(), self.interval, self.member_timeout, first, news.clone());
                let task = AbortOnDropHandle::new(tokio::spawn(asking));
                let entry = Followed { member: member.clone(), first: ended, _task: task };
                followed.insert(name.to_owned(), entry);
            }
        }
    }

    /// Waits for each member's first discovery, for a while.
    async fn settle(&self, followed: &BTreeMap<String, Followed>) {
        let until = Instant::now() + PATIENCE;
        for followed in followed.values() {
            let mut first = followed.first.clone();
            let ended = first.wait_for(|ended| *ended);
            if timeout_at(until, ended).await.is_err() {
                tracing::info!(
                    cluster = followed.member.name(),
                    "discovery has not ended; serving without it"
                );
            }
        }
        self.settled.send_replace(true);
    }

    fn unite(&self, fleet: &Fleet) {
        let mut union = Catalog::default();
        for entry in fleet.entries() {
            if let Some(discovered) = entry.member().discovered() {
                union.merge(&discovered.catalog);
            }
        }
        if **self.catalog.borrow() != union {
            tracing::info!(metrics = union.len(), "discovery changed");
            self.catalog.send_replace(Arc::new(union));
        }
    }
}

/// Asks one member at once and then every `interval`; what was last known stays while it fails.
async fn ask_forever(
    member: Arc<Member>,
    interval: Duration,
    member_timeout: Duration,
    first: watch::Sender<bool>,
    news: Arc<Notify>,
) {
    let mut failing = false;
    loop {
        let asked = timeout(member_timeout, ask(&member)).await;
        match asked.unwrap_or(Err(Unknown::Timeout(member_timeout))) {
            Ok(discovered) => {
                let absent = discovered.version.is_none();
                if failing {
                    tracing::info!(cluster = member.name(), "discovery works again");
                }
                failing = false;
                if member.learn(discovered) {
                    if absent {
                        tracing::warn!(cluster = member.name(), "cluster has no custom metrics API");
                    }
                    news.notify_one();
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(cluster = member.name(), %error, "discovery failed; the last known stays");
                }
                failing = true;
            }
        }
        first.send_replace(true);
        sleep(interval).await;
    }
}

async fn ask(member: &Member) -> Result<Discovered, Unknown> {
    for version in Version::ALL {
        let reply = member.get(&format!("/apis/{}", version.group_version()), Claim::Exempt).await?;
        match reply.status {
            StatusCode::OK => {
                let catalog = match reply.content_type.as_str() {
                    "application/vnd.kubernetes.protobuf" => Catalog::from_protobuf(&reply.body)?,
                    _ => Catalog::from_json(&reply.body)?,
                };
                return Ok(Discovered { version: Some(version), catalog });
            }
            StatusCode::NOT_FOUND => {}
            status => return Err(Unknown::Status(status)),
        }
    }
    Ok(Discovered::default())
}
