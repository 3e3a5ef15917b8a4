//! Which metrics each member has, learned in the background so that no client waits for a member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Fleet;
use crate::api::custom_metrics::Version;
use crate::api::discovery::{Catalogs, Entry, entries};
use crate::api::group::Group;
use crate::api::text::shortened;
use crate::member::{Discovered, Failure, Member};
use crate::transport::Progress;

/// How long the first discovery of each member may hold up readiness.
const PATIENCE: Duration = Duration::from_secs(1);

/// Learns the members' metrics and unites them.
pub struct Discovery {
    fleet: watch::Receiver<Arc<Fleet>>,
    interval: Duration,
    member_timeout: Duration,
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

/// An API that lists metrics.
#[derive(Clone, Copy, Debug)]
enum Api {
    Custom,
    External,
}

impl Discovery {
    /// A discovery that has not started. The first receiver has the metrics of all members; the second says when
    /// each member's first discovery has ended, or its time was up.
    pub fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        interval: Duration,
        member_timeout: Duration,
    ) -> (Self, watch::Receiver<Arc<Catalogs>>, watch::Receiver<bool>) {
        let (catalogs, known) = watch::channel(Arc::default());
        let (settled, is_settled) = watch::channel(false);
        (Self { fleet, interval, member_timeout, catalogs, settled }, known, is_settled)
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
                    let (interval, timeout) = (self.interval, self.member_timeout);
                    let asking = ask_forever(member.clone(), api, interval, timeout, first, news.clone());
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
        let mut union = Catalogs::default();
        for entry in fleet.entries() {
            if let Some(discovered) = entry.member().discovered() {
                union.custom.merge(&discovered.catalog);
            }
            if let Some(external) = entry.member().external() {
                union.external.merge(&external);
            }
        }
        if **self.catalogs.borrow() != union {
            tracing::info!(custom = union.custom.len(), external = union.external.len(), "discovery changed");
            self.catalogs.send_replace(Arc::new(union));
        }
    }
}

/// Asks one member at once and then every `interval`; what was last known stays while it fails.
async fn ask_forever(
    member: Arc<Member>,
    api: Api,
    interval: Duration,
    member_timeout: Duration,
    first: watch::Sender<bool>,
    news: Arc<Notify>,
) {
    let mut failing = false;
    loop {
        let progress = Progress::default();
        let asked = timeout(member_timeout, api.ask(&member, &progress)).await;
        match asked.unwrap_or_else(|_| Err(Failure::late(&progress, member_timeout))) {
            Ok(changed) => {
                if failing {
                    tracing::info!(
                        cluster = member.name(),
                        group = api.group().name(),
                        "discovery works again"
                    );
                }
                failing = false;
                if changed {
                    news.notify_one();
                }
            }
            Err(failure) => {
                if !failing {
                    tracing::warn!(
                        cluster = member.name(),
                        group = api.group().name(),
                        cause = failure.cause().name(),
                        error = %failure,
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

impl Api {
    fn group(self) -> Group {
        match self {
            Self::Custom => Group::Custom,
            Self::External => Group::External,
        }
    }

    /// Asks a member and notes what it says; tells whether that is news.
    async fn ask(self, member: &Member, progress: &Progress) -> Result<bool, Failure> {
        match self {
            Self::Custom => {
                let discovered = custom_metrics(member, progress).await?;
                let absent = discovered.version.is_none();
                let news = member.learn(discovered);
                if news && absent {
                    tracing::warn!(cluster = member.name(), "cluster has no custom metrics API");
                }
                Ok(news)
            }
            Self::External => {
                // Few clusters have this API, so that its absence is no news.
                let group_version = format!("{}/v1beta1", self.group());
                let entries = resources(member, Group::External, &group_version, progress).await?;
                Ok(member.learn_external(entries.unwrap_or_default().into_iter().collect()))
            }
        }
    }
}

async fn custom_metrics(member: &Member, progress: &Progress) -> Result<Discovered, Failure> {
    for version in Version::ALL {
        if let Some(entries) = resources(member, Group::Custom, version.group_version(), progress).await? {
            return Ok(Discovered { version: Some(version), catalog: entries.into_iter().collect() });
        }
    }
    Ok(Discovered::default())
}

/// What a member lists for a group version; `None` if it does not have that.
async fn resources(
    member: &Member,
    group: Group,
    group_version: &str,
    progress: &Progress,
) -> Result<Option<Vec<Entry>>, Failure> {
    member.token().await;
    let reply = member.get(group, &format!("/apis/{group_version}"), progress).await?;
    match reply.status {
        StatusCode::OK => {
            let listed = entries(&reply.content_type, &reply.body);
            listed.map(Some).map_err(|error| Failure::Malformed(shortened(&error.to_string())))
        }
        StatusCode::NOT_FOUND => Ok(None),
        status => Err(Failure::Status { status, message: String::new() }),
    }
}
