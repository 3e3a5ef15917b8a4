//! One member cluster: its connection, its credentials, its health and its catalog of metrics.

pub mod client;
pub mod failure;
mod health;
pub mod metrics;
mod recent_metrics;
pub mod shared_entries;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::custom_metrics::Version;
use crate::api::discovery::{Catalog, DiscoveryEntry};
use crate::api::group::Group;
use crate::process::budget::{Exhausted, Reserved};
use crate::process::rate::Bucket;
use crate::process::work::result_of;
use crate::transport::credentials::Credentials;
use crate::transport::tls::TlsConfigError;
use crate::transport::{Progress, SendError, Stage};
use client::{MemberClient, MemberLimits, MemberResponse};
pub use failure::Failure;
use failure::Skip;
use health::{MemberHealth, Probe, ProbeTarget};
use metrics::{MemberSeries, QueryEnd};
use recent_metrics::RecentMetrics;
use shared_entries::SharedEntries;

/// `Accept` header of requests to members: protobuf, or JSON.
pub const ACCEPT: &str = "application/vnd.kubernetes.protobuf,application/json";

/// Minimum time between two requests for newer credentials.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// How long queries wait for newer credentials.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a query waits until a metric that it has added to a catalog is listed.
const PUBLISHING: Duration = Duration::from_millis(100);

/// The live handle on one cluster. New credentials (token, CA, proxy) replace the client; health and catalogs are kept.
pub struct Member {
    name: Arc<str>,
    id: u64,
    series: MemberSeries,
    rate: Option<Arc<Bucket>>,
    timeout: Duration,
    health: MemberHealth,
    client: ArcSwap<MemberClient>,
    entries: Arc<SharedEntries>,
    discovered: ArcSwapOption<Discovered>,
    /// Locked while the catalog of custom metrics changes.
    recent: Mutex<RecentMetrics>,
    /// Whether `recent` has any metric.
    has_recent: AtomicBool,
    external: ArcSwapOption<Reserved<Catalog>>,
    refusals: mpsc::Sender<TokenRefusal>,
    removed: CancellationToken,
    renewal: Mutex<Option<CredentialRenewal>>,
}

/// A request for newer credentials.
struct CredentialRenewal {
    begun: Instant,
    /// Ends when they have arrived or too much time has passed. Shared by all queries that wait.
    ended: Shared<BoxFuture<'static, ()>>,
}

/// Sends background requests to a member without keeping it alive. Implements [`Probe`], so that `health` does not depend on this module.
struct MemberProbe {
    cluster: Arc<str>,
    member: Weak<Member>,
}

/// A member refused its credentials. The fleet source renews the member, then drops this value.
pub struct TokenRefusal {
    /// The cluster's name.
    pub cluster: String,
    done: oneshot::Sender<()>,
}

/// Result of a member's discovery of custom metrics.
#[derive(Debug)]
pub struct Discovered {
    /// The version that the member serves; `None` if it has no custom metrics API.
    pub version: Option<Version>,
    /// The member's metrics, and recent ones that it does not list.
    pub catalog: Reserved<Catalog>,
    /// Whether the catalog has the member's whole list, which is not empty. Only then a missing metric does not exist.
    is_complete: bool,
}

impl Member {
    /// A new member. It sends refusals of its credentials to `refusals`.
    ///
    /// # Errors
    /// If the credentials cannot be used.
    pub fn new(
        name: String,
        credentials: Credentials,
        limits: &MemberLimits,
        refusals: mpsc::Sender<TokenRefusal>,
    ) -> Result<Self, TlsConfigError> {
        let rate = limits.rate.and_then(Bucket::new).map(Arc::new);
        let client = ArcSwap::from_pointee(MemberClient::new(credentials, limits)?);
        let name = name.into();
        static IDS: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            series: limits.metrics.series(&name),
            name,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            rate,
            timeout: limits.timeout,
            health: MemberHealth::default(),
            client,
            entries: limits.names.clone(),
            discovered: ArcSwapOption::empty(),
            recent: Mutex::default(),
            has_recent: AtomicBool::new(false),
            external: ArcSwapOption::empty(),
            refusals,
            removed: CancellationToken::new(),
            renewal: Mutex::default(),
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A number that is unique among all members of this process, also among members of one name.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn count(&self, group: Group, end: &QueryEnd) {
        self.series.count(group, end);
    }

    /// Marks that the member was removed from the fleet.
    pub fn set_removed(&self) {
        self.removed.cancel();
    }

    /// Waits until the member is removed from the fleet.
    pub async fn removed(&self) {
        self.removed.cancelled().await;
    }

    /// Why an API of this member is skipped; `None` if it is queried.
    pub fn skipped(&self, group: Group) -> Option<Skip> {
        self.health.skipped(group)
    }

    /// Records the result of a request that was sent at `begun`. After repeated failures the member is skipped and probed in the
    /// background.
    pub fn note(self: &Arc<Self>, group: Group, path: &Arc<str>, begun: Instant, failure: Option<&Failure>) {
        let probe = || MemberProbe { cluster: self.name.clone(), member: Arc::downgrade(self) };
        self.health.note(probe, group, path, begun, failure);
    }

    /// The current client.
    fn client(&self) -> Arc<MemberClient> {
        self.client.load_full()
    }

    /// Replaces the client if the credentials differ; returns whether they did. Requests in flight keep the old client.
    ///
    /// # Errors
    /// If the new credentials cannot be used; the old ones stay.
    pub fn renew(&self, credentials: Credentials, limits: &MemberLimits) -> Result<bool, TlsConfigError> {
        if *self.client.load().credentials() == credentials {
            return Ok(false);
        }
        self.client.store(Arc::new(MemberClient::new(credentials, limits)?));
        Ok(true)
    }

    /// Sends a GET for an encoded path of a metrics API. If the member refuses the credentials and newer ones arrive, the
    /// request is sent again with those. Each request waits for `--cluster-api-qps`.
    ///
    /// # Errors
    /// If there is no complete response.
    pub async fn get(
        &self,
        group: Group,
        path: &str,
        progress: &Progress,
    ) -> Result<MemberResponse, Failure> {
        wait_for_token(self.rate.as_deref(), progress).await;
        let client = self.client();
        let result = client.get(group, path, ACCEPT, progress).await;
        let renewed = match &result {
            Ok(response) if response.status == StatusCode::UNAUTHORIZED => {
                progress.set(Stage::WaitingForCredentials);
                self.after_refusal(&client).await
            }
            Err(Failure::Send(SendError::Connect(_))) => self.other_than(&client),
            _ => None,
        };
        match renewed {
            Some(client) => {
                wait_for_token(self.rate.as_deref(), progress).await;
                client.get(group, path, ACCEPT, progress).await
            }
            None => result,
        }
    }

    /// The client that replaced a refused one. If there is none yet, waits for newer credentials; they are requested once for all refused
    /// queries.
    async fn after_refusal(&self, refused: &Arc<MemberClient>) -> Option<Arc<MemberClient>> {
        if self.other_than(refused).is_none()
            && let Some(renewal) = self.renewal()
        {
            renewal.await;
        }
        self.other_than(refused)
    }

    /// The renewal in progress, or a new one; `None` if the last one failed less than [`RENEWAL_PAUSE`] ago.
    fn renewal(&self) -> Option<Shared<BoxFuture<'static, ()>>> {
        let mut renewal = self.renewal.lock().expect("not poisoned");
        if let Some(CredentialRenewal { begun, ended }) = &*renewal {
            let in_progress = result_of(ended).is_none();
            if in_progress || begun.elapsed() < RENEWAL_PAUSE {
                return in_progress.then(|| ended.clone());
            }
        }
        let (done, answered) = oneshot::channel();
        let refusal = TokenRefusal { cluster: self.name.to_string(), done };
        self.refusals.try_send(refusal).ok()?;
        let ended = timeout(RENEWAL_TIMEOUT, answered).map(drop).boxed().shared();
        *renewal = Some(CredentialRenewal { begun: Instant::now(), ended: ended.clone() });
        Some(ended)
    }

    fn other_than(&self, client: &Arc<MemberClient>) -> Option<Arc<MemberClient>> {
        Some(self.client()).filter(|current| !Arc::ptr_eq(current, client))
    }

    /// Last result of discovery of custom metrics; `None` before the first.
    pub fn discovered(&self) -> Option<Arc<Discovered>> {
        self.discovered.load_full()
    }

    /// The version of custom metrics that discovery found, or the preferred one.
    pub fn version(&self) -> Version {
        self.discovered().and_then(|discovered| discovered.version).unwrap_or(Version::V1Beta2)
    }

    /// Last result of discovery of external metrics; `None` before the first.
    pub fn external(&self) -> Option<Arc<Reserved<Catalog>>> {
        self.external.load_full()
    }

    /// Stores the result of discovery of custom metrics; returns whether it changed.
    ///
    /// # Errors
    /// If there is no memory left for the list. The catalog is empty then.
    pub fn set_custom_metrics(
        &self,
        version: Option<Version>,
        mut entries: Vec<DiscoveryEntry>,
    ) -> Result<bool, Exhausted> {
        entries.retain(DiscoveryEntry::is_custom);
        let mut recent = self.recent.lock().expect("not poisoned");
        let known = self.discovered();
        let mut is_complete = !entries.is_empty();
        let unlisted = recent.entries(&entries);
        let version = version.or_else(|| known.as_ref()?.version.filter(|_| !unlisted.is_empty()));
        entries.extend(unlisted);
        entries.sort_unstable();
        if let Some(known) = &known {
            if known.version == version
                && known.is_complete == is_complete
                && known.catalog.entries_equal(&entries)
            {
                return Ok(false);
            }
            let former = known.catalog.entries().iter();
            for former in former.filter(|former| entries.binary_search(former).is_err()) {
                recent.add(&former.name, None);
            }
        }
        self.has_recent.store(!recent.is_empty(), Ordering::Relaxed);
        let (catalog, result) = self.catalog(entries);
        is_complete &= result.is_ok();
        self.discovered.store(Some(Arc::new(Discovered { version, catalog, is_complete })));
        self.entries.note_change();
        result
    }

    /// Stores the result of discovery of external metrics; returns whether it changed.
    ///
    /// # Errors
    /// If there is no memory left for the list. The catalog is empty then.
    pub fn set_external_metrics(&self, mut entries: Vec<DiscoveryEntry>) -> Result<bool, Exhausted> {
        entries.retain(DiscoveryEntry::is_external);
        if self.external().is_some_and(|known| known.entries_equal(&entries)) {
            return Ok(false);
        }
        let (catalog, result) = self.catalog(entries);
        self.external.store(Some(Arc::new(catalog)));
        self.entries.note_change();
        result
    }

    /// A catalog of these entries; an empty one if there is no memory left.
    fn catalog(&self, entries: Vec<DiscoveryEntry>) -> (Reserved<Catalog>, Result<bool, Exhausted>) {
        match self.entries.catalog(entries) {
            Ok(catalog) => (catalog, Ok(true)),
            Err(exhausted) => (self.entries.empty(), Err(exhausted)),
        }
    }

    /// Adds a custom metric of which the member has just returned values in this version, if discovery does not list it. If that
    /// changes the catalog, waits until the united catalog has the metric too, but at most for [`PUBLISHING`].
    pub async fn add_custom_metric(&self, version: Version, resource: &str, metric: &str, namespaced: bool) {
        let is_listed =
            |known: &Discovered| known.version.is_some() && known.catalog.contains(resource, metric);
        if !self.has_recent.load(Ordering::Relaxed)
            && self.discovered().is_some_and(|known| is_listed(&known))
        {
            return;
        }
        if let Some(change) = self.list_recent(version, resource, metric, namespaced, is_listed) {
            // If it takes longer, the metric is listed later.
            let _ = timeout(PUBLISHING, self.entries.published(change)).await;
        }
    }

    fn list_recent(
        &self,
        version: Version,
        resource: &str,
        metric: &str,
        namespaced: bool,
        is_listed: impl Fn(&Discovered) -> bool,
    ) -> Option<u64> {
        let name = format!("{resource}/{metric}");
        let mut recent = self.recent.lock().expect("not poisoned");
        let known = self.discovered();
        if known.as_ref().is_some_and(|known| is_listed(known)) {
            if recent.may_have(&name) {
                recent.add(&name, None);
            }
            return None;
        }
        let entry = recent.add(&name, DiscoveryEntry::custom_metric(resource, metric, namespaced));
        self.has_recent.store(true, Ordering::Relaxed);
        let (version, is_complete) = match known.as_deref() {
            Some(Discovered { version: Some(known), is_complete, .. }) => (*known, *is_complete),
            _ => (version, false),
        };
        let empty = Catalog::default();
        let catalog = known.as_ref().map_or(&empty, |known| &known.catalog);
        // Without memory for it, the metric is not listed.
        let catalog = self.entries.with(catalog, entry?).ok()?;
        self.discovered.store(Some(Arc::new(Discovered { version: Some(version), catalog, is_complete })));
        Some(self.entries.note_change())
    }

    /// Whether discovery shows that the member does not have a custom metric, and it has not had it lately.
    pub fn has_no_metric(&self, resource: &str, metric: &str) -> bool {
        let is_missing = |known: &Discovered| known.is_complete && !known.catalog.contains(resource, metric);
        self.discovered().is_some_and(|known| is_missing(&known))
            && !self.recent.lock().expect("not poisoned").may_have(&format!("{resource}/{metric}"))
    }
}

impl Probe for MemberProbe {
    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn is_answering(&self, target: &ProbeTarget) -> Option<impl Future<Output = bool> + Send + 'static> {
        let member = self.member.upgrade()?;
        let (client, rate, limit) = (member.client(), member.rate.clone(), member.timeout);
        let target = target.clone();
        Some(async move {
            let progress = Progress::default();
            let asking = async {
                match &target {
                    ProbeTarget::Server => client.probe().await.is_ok(),
                    // A response for which there is no memory (NoRoom) proves nothing.
                    ProbeTarget::Api(group, path) => {
                        wait_for_token(rate.as_deref(), &progress).await;
                        match client.get(*group, path, ACCEPT, &progress).await {
                            Ok(_) => true,
                            Err(failure) => failure.is_response(),
                        }
                    }
                }
            };
            timeout(limit, asking).await.unwrap_or(false)
        })
    }
}

/// Waits until the rate limit allows one more request, if there is a limit.
async fn wait_for_token(rate: Option<&Bucket>, progress: &Progress) {
    if let Some(rate) = rate {
        progress.set(Stage::Throttled);
        rate.token().await;
        progress.set(Stage::Waiting);
    }
}

impl TokenRefusal {
    /// Whether no query waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }
}
