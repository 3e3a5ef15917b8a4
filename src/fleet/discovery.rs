//! Which metrics each member has, learned in the background so that no client waits for a member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ConstantBuilder, ExponentialBuilder};
use http::StatusCode;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Fleet;
use crate::api::custom_metrics::Version;
use crate::api::discovery::{Catalog, Catalogs, DiscoveryEntry, entries};
use crate::api::group::Group;
use crate::api::text::shorten;
use crate::member::shared_entries::SharedEntries;
use crate::member::{Failure, Member};
use crate::process::work;
use crate::transport::{Progress, Stage};

/// How long the first discovery of each member may hold up readiness.
const FIRST_DISCOVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// The first pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// One list is read at a time: until its names are known, they take up to 30 MiB.
static READING: Semaphore = Semaphore::const_new(1);

/// Learns the members' metrics and unites them.
pub struct Discovery {
    fleet: watch::Receiver<Arc<Fleet>>,
    interval: Duration,
    member_timeout: Duration,
    names: Arc<SharedEntries>,
    catalogs: watch::Sender<Arc<Catalogs>>,
    settled: watch::Sender<bool>,
}

/// One member that is asked again and again.
struct MemberDiscovery {
    member: Arc<Member>,
    asking: [ApiTask; 2],
}

/// One member's API that is asked for; how one fares does not touch the other.
struct ApiTask {
    first: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// What one member lists for one API.
struct DiscoveryTarget {
    member: Arc<Member>,
    api: DiscoveryApi,
}

/// An API that lists metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiscoveryApi {
    Custom,
    External,
}

impl Discovery {
    /// A discovery that has not started; `names` has what its members list. The first receiver has the metrics of all
    /// members; the second says when each member's first discovery has ended, or its time was up.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        interval: Duration,
        member_timeout: Duration,
        names: Arc<SharedEntries>,
    ) -> (Self, watch::Receiver<Arc<Catalogs>>, watch::Receiver<bool>) {
        let (catalogs, known) = watch::channel(Arc::default());
        let (settled, is_settled) = watch::channel(false);
        (Self { fleet, interval, member_timeout, names, catalogs, settled }, known, is_settled)
    }

    /// Runs until it is dropped. `fleet_known` says when the members of the first moment are all there.
    pub async fn run(mut self, mut fleet_known: watch::Receiver<bool>) {
        let mut followed: BTreeMap<String, MemberDiscovery> = BTreeMap::new();
        let mut known = false;
        loop {
            let fleet = self.fleet.borrow_and_update().clone();
            self.follow(&fleet, &mut followed);
            self.unite(&fleet);
            if known && !*self.settled.borrow() {
                self.settle(&followed).await;
                self.unite(&fleet);
            }
            tokio::select! {
                changed = self.fleet.changed() => if changed.is_err() { return },
                () = self.names.added() => {}
                result = fleet_known.wait_for(|known| *known), if !known => match result {
                    Ok(_) => known = true,
                    Err(_) => return,
                },
            }
        }
    }

    /// Starts to ask new members and stops asking those that have left.
    fn follow(&self, fleet: &Fleet, followed: &mut BTreeMap<String, MemberDiscovery>) {
        let members: BTreeMap<&str, &Arc<Member>> =
            fleet.members().map(|member| (member.name(), member)).collect();
        followed.retain(|name, followed| {
            members.get(name.as_str()).is_some_and(|member| Arc::ptr_eq(member, &followed.member))
        });
        for (name, member) in members {
            if !followed.contains_key(name) {
                let asking = [DiscoveryApi::Custom, DiscoveryApi::External].map(|api| {
                    let (first, ended) = watch::channel(false);
                    let list = DiscoveryTarget { member: member.clone(), api };
                    let asking = list.follow(self.interval, self.member_timeout, first);
                    ApiTask { first: ended, _task: AbortOnDropHandle::new(tokio::spawn(asking)) }
                });
                let entry = MemberDiscovery { member: member.clone(), asking };
                followed.insert(name.to_owned(), entry);
            }
        }
    }

    /// Waits for each member's first discovery, for a while.
    async fn settle(&self, followed: &BTreeMap<String, MemberDiscovery>) {
        let until = Instant::now() + FIRST_DISCOVERY_TIMEOUT;
        for followed in followed.values() {
            for asking in &followed.asking {
                let mut first = asking.first.clone();
                let ended = first.wait_for(|ended| *ended);
                if timeout_at(until, ended).await.is_err() {
                    let cluster = followed.member.name();
                    tracing::info!(cluster, "discovery has not ended; serving without it");
                }
            }
        }
        self.settled.send_replace(true);
    }

    fn unite(&self, fleet: &Fleet) {
        let members = || fleet.entries().map(super::FleetEntry::member);
        let custom: Vec<_> = members().filter_map(|member| member.discovered()).collect();
        let external: Vec<_> = members().filter_map(|member| member.external()).collect();
        let union = Catalogs {
            custom: Catalog::union(custom.iter().map(|discovered| &*discovered.catalog)),
            external: Catalog::union(external.iter().map(|catalog| &***catalog)),
        };
        if **self.catalogs.borrow() != union {
            tracing::info!(custom = union.custom.len(), external = union.external.len(), "discovery changed");
            self.catalogs.send_replace(Arc::new(union));
        }
        self.names.forget_unused();
    }
}

impl DiscoveryTarget {
    /// Asks for it at once and then again and again; what was last known stays while that fails. Pauses are of random length,
    /// so that members are not asked in step: up to `interval`, and shorter after a failure.
    async fn follow(self, interval: Duration, timeout: Duration, first: watch::Sender<bool>) {
        let (cluster, group) = (self.member.name(), self.api.group().name());
        let half = interval / 2;
        let regular = ConstantBuilder::new().with_delay(half).with_jitter().without_max_times();
        let after_failures = ExponentialBuilder::new()
            .with_min_delay(RETRY.min(half))
            .with_max_delay(half)
            .with_jitter()
            .without_max_times();
        let mut regular = regular.build();
        let mut failing = None;
        loop {
            let progress = Progress::default();
            let asked = tokio::time::timeout(timeout, self.ask(&progress)).await;
            let pause = match asked.unwrap_or_else(|_| Err(Failure::late(&progress, timeout))) {
                Ok(()) => {
                    if failing.take().is_some() {
                        tracing::info!(cluster, group, "discovery works again");
                    }
                    regular.next()
                }
                Err(failure) => {
                    if failing.is_none() {
                        let cause = failure.cause().name();
                        tracing::warn!(cluster, group, cause, error = %failure, "discovery failed");
                    }
                    failing.get_or_insert_with(|| after_failures.build()).next()
                }
            };
            first.send_replace(true);
            sleep(pause.unwrap_or(interval)).await;
        }
    }

    /// Asks for it, and lets the member note what it says.
    async fn ask(&self, progress: &Progress) -> Result<(), Failure> {
        for version in self.api.group().versions() {
            if self.ask_for(version, progress).await? {
                return Ok(());
            }
        }
        let is_news = self.api.note(&self.member, None, Vec::new())?;
        // Few clusters have external metrics, so that their absence is no news.
        if is_news && self.api == DiscoveryApi::Custom {
            tracing::warn!(cluster = self.member.name(), "cluster has no custom metrics API");
        }
        Ok(())
    }

    /// Asks for a version; says whether the member has it.
    async fn ask_for(&self, version: &str, progress: &Progress) -> Result<bool, Failure> {
        self.member.token().await;
        let (api, member, group) = (self.api, self.member.clone(), self.api.group());
        let reply = self.member.get(group, &format!("/apis/{group}/{version}"), progress).await?;
        match reply.status {
            StatusCode::OK => {
                progress.set(Stage::Received);
                let version = Version::from_name(version);
                let reading = READING.acquire().await.expect("the semaphore is never closed");
                let read = work::run(reply.body.len(), move |_| {
                    let _reading = reading;
                    let entries = entries(&reply.content_type, &reply.body)
                        .map_err(|error| Failure::Malformed(shorten(&error.to_string())))?;
                    api.note(&member, version, entries)
                });
                read.await.map(|_| true)
            }
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(Failure::Status { status, message: String::new() }),
        }
    }
}

impl DiscoveryApi {
    fn group(self) -> Group {
        match self {
            Self::Custom => Group::Custom,
            Self::External => Group::External,
        }
    }

    /// Lets the member note what it lists; tells whether that is news.
    fn note(
        self,
        member: &Member,
        version: Option<Version>,
        entries: Vec<DiscoveryEntry>,
    ) -> Result<bool, Failure> {
        let noted = match self {
            Self::Custom => member.add_metric(version, entries),
            Self::External => member.add_external_metric(entries),
        };
        noted.map_err(|_| Failure::TooManyMetrics)
    }
}
