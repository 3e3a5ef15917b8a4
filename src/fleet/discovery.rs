//! Which metrics each member has, learned in the background so that no client waits for a member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Fleet;
use super::names::Names;
use crate::api::custom_metrics::Version;
use crate::api::discovery::{Catalog, Catalogs, Entry, entries};
use crate::api::group::Group;
use crate::api::text::shortened;
use crate::member::{Discovered, Failure, Member};
use crate::process::budget::Held;
use crate::process::work;
use crate::transport::{Progress, Stage};

/// How long the first discovery of each member may hold up readiness.
const PATIENCE: Duration = Duration::from_secs(1);
/// One list is read at a time: until its names are known, they take up to 30 MiB.
static READING: Semaphore = Semaphore::const_new(1);

/// Learns the members' metrics and unites them.
pub struct Discovery {
    fleet: watch::Receiver<Arc<Fleet>>,
    interval: Duration,
    member_timeout: Duration,
    names: Arc<Names>,
    catalogs: watch::Sender<Arc<Catalogs>>,
    settled: watch::Sender<bool>,
}

/// One member that is asked again and again.
struct Followed {
    member: Arc<Member>,
    asking: [Asking; 2],
}

/// One member's API that is asked for; how one fares does not touch the other.
struct Asking {
    first: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// What one member lists for one API.
struct List {
    member: Arc<Member>,
    api: Api,
    names: Arc<Names>,
}

/// An API that lists metrics.
#[derive(Clone, Copy, Debug)]
enum Api {
    Custom,
    External,
}

impl Discovery {
    /// A discovery that has not started, which keeps what members list in `names`. The first receiver has the metrics of all
    /// members; the second says when each member's first discovery has ended, or its time was up.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        interval: Duration,
        member_timeout: Duration,
        names: Names,
    ) -> (Self, watch::Receiver<Arc<Catalogs>>, watch::Receiver<bool>) {
        let (catalogs, known) = watch::channel(Arc::default());
        let (settled, is_settled) = watch::channel(false);
        let names = Arc::new(names);
        (Self { fleet, interval, member_timeout, names, catalogs, settled }, known, is_settled)
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
                result = fleet_known.wait_for(|known| *known), if !known => match result {
                    Ok(_) => known = true,
                    Err(_) => return,
                },
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
                let asking = [Api::Custom, Api::External].map(|api| {
                    let (first, ended) = watch::channel(false);
                    let list = List { member: member.clone(), api, names: self.names.clone() };
                    let asking = list.follow(self.interval, self.member_timeout, first, news.clone());
                    Asking { first: ended, _task: AbortOnDropHandle::new(tokio::spawn(asking)) }
                });
                let entry = Followed { member: member.clone(), asking };
                followed.insert(name.to_owned(), entry);
            }
        }
    }

    /// Waits for each member's first discovery, for a while.
    async fn settle(&self, followed: &BTreeMap<String, Followed>) {
        let until = Instant::now() + PATIENCE;
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
        let members = || fleet.entries().map(super::Entry::member);
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

impl List {
    /// Asks for it at once and then every `interval`; what was last known stays while that fails.
    async fn follow(
        self,
        interval: Duration,
        timeout: Duration,
        first: watch::Sender<bool>,
        news: Arc<Notify>,
    ) {
        let (cluster, group) = (self.member.name(), self.api.group().name());
        let mut failing = false;
        loop {
            let progress = Progress::default();
            let asked = tokio::time::timeout(timeout, self.ask(&progress)).await;
            match asked.unwrap_or_else(|_| Err(Failure::late(&progress, timeout))) {
                Ok(changed) => {
                    if failing {
                        tracing::info!(cluster, group, "discovery works again");
                    }
                    failing = false;
                    if changed {
                        news.notify_one();
                    }
                }
                Err(failure) => {
                    if !failing {
                        let cause = failure.cause().name();
                        tracing::warn!(
                            cluster, group, cause, error = %failure,
                            "discovery failed; the last known stays"
                        );
                    }
                    failing = true;
                }
            }
            first.send_replace(true);
            sleep(interval).await;
        }
    }

    /// Asks for it and notes what it says; tells whether that is news.
    async fn ask(&self, progress: &Progress) -> Result<bool, Failure> {
        match self.api {
            Api::Custom => {
                let discovered = self.custom(progress).await?;
                let is_absent = discovered.version.is_none();
                let news = self.member.learn(discovered);
                if news && is_absent {
                    tracing::warn!(cluster = self.member.name(), "cluster has no custom metrics API");
                }
                Ok(news)
            }
            Api::External => {
                // Few clusters have this API, so that its absence is no news.
                let listed = self.get(&format!("{}/v1beta1", Group::External), progress).await?;
                let catalog = listed.map_or_else(|| self.api.catalog(&self.names, Vec::new()), Ok)?;
                Ok(self.member.learn_external(catalog))
            }
        }
    }

    async fn custom(&self, progress: &Progress) -> Result<Discovered, Failure> {
        for version in Version::ALL {
            if let Some(catalog) = self.get(version.group_version(), progress).await? {
                return Ok(Discovered { version: Some(version), catalog });
            }
        }
        Ok(Discovered { version: None, catalog: self.api.catalog(&self.names, Vec::new())? })
    }

    /// What the member lists for a group version; `None` if it does not have that.
    async fn get(&self, group_version: &str, progress: &Progress) -> Result<Option<Held<Catalog>>, Failure> {
        self.member.token().await;
        let (api, names) = (self.api, self.names.clone());
        let reply = self.member.get(api.group(), &format!("/apis/{group_version}"), progress).await?;
        match reply.status {
            StatusCode::OK => {
                progress.set(Stage::Received);
                let reading = READING.acquire().await.expect("the semaphore is never closed");
                let read = work::run(reply.body.len(), move |_| {
                    let _reading = reading;
                    let entries = entries(&reply.content_type, &reply.body)
                        .map_err(|error| Failure::Malformed(shortened(&error.to_string())))?;
                    api.catalog(&names, entries)
                });
                read.await.map(Some)
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(Failure::Status { status, message: String::new() }),
        }
    }
}

impl Api {
    fn group(self) -> Group {
        match self {
            Self::Custom => Group::Custom,
            Self::External => Group::External,
        }
    }

    /// The metrics among the entries of a list.
    fn catalog(self, names: &Names, entries: Vec<Entry>) -> Result<Held<Catalog>, Failure> {
        let is_metric = match self {
            Self::Custom => Entry::is_custom,
            Self::External => Entry::is_external,
        };
        names.catalog(entries.into_iter().filter(is_metric)).map_err(|_| Failure::TooManyMetrics)
    }
}
