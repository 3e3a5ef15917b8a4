//! Discovery of members' metrics. It runs in the background, so that no client waits for a member.

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
use crate::api::page::BodyFormat;
use crate::api::text::shorten;
use crate::member::shared_entries::SharedEntries;
use crate::member::{Failure, Member};
use crate::process::work;
use crate::transport::{Progress, Stage};

/// How long readiness waits for the first discovery of each member.
const FIRST_DISCOVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// The first pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// One list is decoded at a time: while it is decoded, it takes up to 30 MiB.
static DECODING: Semaphore = Semaphore::const_new(1);

/// Discovers the members' metrics and unites their catalogs.
pub struct Discovery {
    fleet: watch::Receiver<Arc<Fleet>>,
    interval: Duration,
    member_timeout: Duration,
    names: Arc<SharedEntries>,
    catalogs: watch::Sender<Arc<Catalogs>>,
    first_ended: watch::Sender<bool>,
}

struct MemberDiscovery {
    member: Arc<Member>,
    tasks: [ApiTask; 2],
}

/// The task for one API of one member. The APIs do not wait for each other.
struct ApiTask {
    first: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// One API of one member.
struct DiscoveryTarget {
    member: Arc<Member>,
    api: DiscoveryApi,
}

/// An API with a list of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiscoveryApi {
    Custom,
    External,
}

impl Discovery {
    /// Prepares discovery. `names` holds the members' entries. The first receiver has the united catalogs. The second becomes true when the
    /// first discovery of each member has ended or timed out.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        interval: Duration,
        member_timeout: Duration,
        names: Arc<SharedEntries>,
    ) -> (Self, watch::Receiver<Arc<Catalogs>>, watch::Receiver<bool>) {
        let (catalogs, known) = watch::channel(Arc::default());
        let (settled, is_settled) = watch::channel(false);
        (Self { fleet, interval, member_timeout, names, catalogs, first_ended: settled }, known, is_settled)
    }

    /// Runs until it is dropped. `fleet_known` becomes true when all initial members are known.
    pub async fn run(mut self, mut fleet_known: watch::Receiver<bool>) {
        let mut followed: BTreeMap<String, MemberDiscovery> = BTreeMap::new();
        let mut known = false;
        let mut changes = self.names.changes();
        loop {
            let fleet = self.fleet.borrow_and_update().clone();
            self.follow(&fleet, &mut followed);
            self.unite(&fleet, &mut changes);
            if known && !*self.first_ended.borrow() {
                self.wait_for_first(&followed).await;
                self.unite(&fleet, &mut changes);
            }
            tokio::select! {
                changed = self.fleet.changed() => if changed.is_err() { return },
                Ok(()) = changes.changed() => {}
                result = fleet_known.wait_for(|known| *known), if !known => match result {
                    Ok(_) => known = true,
                    Err(_) => return,
                },
            }
        }
    }

    /// Starts discovery of new members and stops it for removed ones.
    fn follow(&self, fleet: &Fleet, followed: &mut BTreeMap<String, MemberDiscovery>) {
        let members: BTreeMap<&str, &Arc<Member>> =
            fleet.members().map(|member| (&**member.name(), member)).collect();
        followed.retain(|name, followed| {
            members.get(name.as_str()).is_some_and(|member| Arc::ptr_eq(member, &followed.member))
        });
        for (name, member) in members {
            if !followed.contains_key(name) {
                let tasks = [DiscoveryApi::Custom, DiscoveryApi::External].map(|api| {
                    let (first, ended) = watch::channel(false);
                    let list = DiscoveryTarget { member: member.clone(), api };
                    let task = list.follow(self.interval, self.member_timeout, first);
                    ApiTask { first: ended, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
                });
                let entry = MemberDiscovery { member: member.clone(), tasks };
                followed.insert(name.to_owned(), entry);
            }
        }
    }

    /// Waits for the first discovery of each member, up to [`FIRST_DISCOVERY_TIMEOUT`].
    async fn wait_for_first(&self, followed: &BTreeMap<String, MemberDiscovery>) {
        let until = Instant::now() + FIRST_DISCOVERY_TIMEOUT;
        for followed in followed.values() {
            for task in &followed.tasks {
                let mut first = task.first.clone();
                let ended = first.wait_for(|ended| *ended);
                if timeout_at(until, ended).await.is_err() {
                    let cluster: &str = followed.member.name();
                    tracing::info!(
                        cluster,
                        "first discovery has not ended; serving without this cluster's metrics"
                    );
                }
            }
        }
        self.first_ended.send_replace(true);
    }

    fn unite(&self, fleet: &Fleet, changes: &mut watch::Receiver<u64>) {
        let change = *changes.borrow_and_update();
        let members = || fleet.entries().map(|entry| &entry.member);
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
        self.names.set_published(change);
        self.names.forget_unused();
    }
}

impl DiscoveryTarget {
    /// Requests the list at once and then periodically. The last list stays while requests fail. Pauses have a random length, so that requests
    /// to members are spread out: up to `interval`, shorter after a failure.
    async fn follow(self, interval: Duration, timeout: Duration, first: watch::Sender<bool>) {
        let (cluster, group): (&str, _) = (self.member.name(), self.api.group().name());
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
            let result = tokio::time::timeout(timeout, self.discover(&progress)).await;
            let pause = match result.unwrap_or_else(|_| Err(Failure::late(&progress, timeout))) {
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

    /// Requests the list and stores it in the member.
    async fn discover(&self, progress: &Progress) -> Result<(), Failure> {
        for version in self.api.group().versions() {
            if self.request_version(version, progress).await? {
                return Ok(());
            }
        }
        let has_changed = self.api.store(&self.member, None, Vec::new())?;
        // Most clusters have no external metrics, so this is not logged for them.
        if has_changed && self.api == DiscoveryApi::Custom {
            let cluster: &str = self.member.name();
            tracing::warn!(cluster, "cluster has no custom metrics API");
        }
        Ok(())
    }

    /// Requests the list of one version; returns false if the member does not serve it.
    async fn request_version(&self, version: &str, progress: &Progress) -> Result<bool, Failure> {
        let (api, member, group) = (self.api, self.member.clone(), self.api.group());
        let response = self.member.get(group, &format!("/apis/{group}/{version}"), progress).await?;
        match response.status {
            StatusCode::OK => {
                progress.set(Stage::Received);
                let version = Version::from_name(version);
                let permit = DECODING.acquire().await.expect("the semaphore is never closed");
                let read = work::run(response.body.len(), move |_| {
                    let _permit = permit;
                    let format =
                        BodyFormat::from_media_type(&response.content_type).unwrap_or(BodyFormat::Json);
                    let entries = entries(format, &response.body)
                        .map_err(|error| Failure::Malformed(shorten(&error.to_string())))?;
                    api.store(&member, version, entries)
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

    /// Stores the list in the member; returns whether it changed.
    fn store(
        self,
        member: &Member,
        version: Option<Version>,
        entries: Vec<DiscoveryEntry>,
    ) -> Result<bool, Failure> {
        let stored = match self {
            Self::Custom => member.set_custom_metrics(version, entries),
            Self::External => member.set_external_metrics(entries),
        };
        stored.map_err(|_| Failure::TooManyMetrics)
    }
}
