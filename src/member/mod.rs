//! One member cluster: how it is reached, and what was learned of it.

pub mod client;
pub mod failure;
mod health;
pub mod metrics;
pub mod shared_entries;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

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
use shared_entries::SharedEntries;

/// What members are asked for: protobuf, or JSON.
pub const ACCEPT: &str = "application/vnd.kubernetes.protobuf,application/json";

/// How long newer credentials are not asked for again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// How long queries wait for newer credentials.
const RENEWAL: Duration = Duration::from_secs(2);
/// How many metrics a list gains between two discoveries: clients choose their names.
const ADDED: usize = 100;

/// Our live handle on one cluster. It outlives its credentials: a new token, CA or proxy swaps the client and
/// keeps what was learned.
pub struct Member {
    name: Arc<str>,
    id: u64,
    series: MemberSeries,
    rate: Option<Bucket>,
    timeout: Duration,
    health: MemberHealth,
    client: ArcSwap<MemberClient>,
    names: Arc<SharedEntries>,
    discovered: ArcSwapOption<Discovered>,
    /// How many metrics its list has gained since its last discovery. Held while that changes.
    added: Mutex<usize>,
    external: ArcSwapOption<Reserved<Catalog>>,
    refusals: mpsc::Sender<TokenRefusal>,
    renewal: Mutex<Option<CredentialRenewal>>,
}

/// Newer credentials that are asked for.
struct CredentialRenewal {
    begun: Instant,
    /// Shared by all queries that wait for them.
    ended: Shared<BoxFuture<'static, ()>>,
}

/// Asks a member in the background, which it does not keep alive.
struct MemberProbe {
    cluster: Arc<str>,
    member: Weak<Member>,
}

/// A member has refused its token: whoever knows newer credentials renews the member and then drops this.
pub struct TokenRefusal {
    /// The cluster's name.
    pub cluster: String,
    done: oneshot::Sender<()>,
}

/// What a member's discovery of custom metrics said.
#[derive(Debug)]
pub struct Discovered {
    /// The version to ask it in; `None` if it has no custom metrics API.
    pub version: Option<Version>,
    /// Its metrics.
    pub catalog: Reserved<Catalog>,
}

impl Member {
    /// A member that nothing is known of yet. When it refuses its token it says so on `refusals`.
    ///
    /// # Errors
    /// If the credentials cannot be used.
    pub fn new(
        name: String,
        credentials: Credentials,
        limits: &MemberLimits,
        refusals: mpsc::Sender<TokenRefusal>,
    ) -> Result<Self, TlsConfigError> {
        let rate = limits.rate.and_then(Bucket::new);
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
            names: limits.names.clone(),
            discovered: ArcSwapOption::empty(),
            added: Mutex::default(),
            external: ArcSwapOption::empty(),
            refusals,
            renewal: Mutex::default(),
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another number for each member that ever was, also of the same name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts a query to it.
    pub fn count(&self, group: Group, ended: &QueryEnd) {
        self.series.count(group, ended);
    }

    /// Why an API of it is not asked at present; `None` if it is.
    pub fn skipped(&self, group: Group) -> Option<Skip> {
        self.health.skipped(group)
    }

    /// Takes note of how a request for a path of an API ended that began at `begun`: a member that fails again and again
    /// is skipped, and looked after in the background.
    pub fn note(self: &Arc<Self>, group: Group, path: &Arc<str>, begun: Instant, failure: Option<&Failure>) {
        let probe = || MemberProbe { cluster: self.name.clone(), member: Arc::downgrade(self) };
        self.health.note(probe, group, path, begun, failure);
    }

    /// What asks it at present.
    fn client(&self) -> Arc<MemberClient> {
        self.client.load_full()
    }

    /// Swaps the client if the credentials differ; says whether they did. Requests in flight end on the old one.
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

    /// Waits until the rate allows one more request.
    pub async fn token(&self) {
        if let Some(rate) = &self.rate {
            rate.token().await;
        }
    }

    /// Asks an API for a path, encoded already. If the credentials have been replaced by the time that they fail, it asks
    /// once more with the new ones.
    ///
    /// # Errors
    /// If no whole answer came.
    pub async fn get(
        &self,
        group: Group,
        path: &str,
        progress: &Progress,
    ) -> Result<MemberResponse, Failure> {
        let client = self.client();
        let result = client.get(group, path, ACCEPT, progress).await;
        let renewed = match &result {
            Ok(reply) if reply.status == StatusCode::UNAUTHORIZED => {
                progress.set(Stage::Refused);
                self.after_refusal(&client).await
            }
            Err(Failure::Send(SendError::Connect(_))) => self.other_than(&client),
            _ => None,
        };
        match renewed {
            Some(client) => client.get(group, path, ACCEPT, progress).await,
            None => result,
        }
    }

    /// The client after one that was refused. If there is none yet, newer credentials are asked for, once for all queries
    /// that are refused at a time.
    async fn after_refusal(&self, refused: &Arc<MemberClient>) -> Option<Arc<MemberClient>> {
        if self.other_than(refused).is_none()
            && let Some(renewal) = self.renewal()
        {
            renewal.await;
        }
        self.other_than(refused)
    }

    /// The renewal that is in progress, or a new one; `None` if one has ended in vain a moment ago.
    fn renewal(&self) -> Option<Shared<BoxFuture<'static, ()>>> {
        let mut renewal = self.renewal.lock().expect("no holder panics");
        if let Some(CredentialRenewal { begun, ended }) = &*renewal {
            let in_progress = result_of(ended).is_none();
            if in_progress || begun.elapsed() < RENEWAL_PAUSE {
                return in_progress.then(|| ended.clone());
            }
        }
        let (done, answered) = oneshot::channel();
        let refusal = TokenRefusal { cluster: self.name.to_string(), done };
        self.refusals.try_send(refusal).ok()?;
        let ended = timeout(RENEWAL, answered).map(drop).boxed().shared();
        *renewal = Some(CredentialRenewal { begun: Instant::now(), ended: ended.clone() });
        Some(ended)
    }

    fn other_than(&self, client: &Arc<MemberClient>) -> Option<Arc<MemberClient>> {
        Some(self.client()).filter(|current| !Arc::ptr_eq(current, client))
    }

    /// What discovery of custom metrics last said; `None` until it has.
    pub fn discovered(&self) -> Option<Arc<Discovered>> {
        self.discovered.load_full()
    }

    /// The version to ask it in: the one that discovery found, else the preferred one.
    pub fn version(&self) -> Version {
        self.discovered().and_then(|discovered| discovered.version).unwrap_or(Version::V1Beta2)
    }

    /// What discovery of external metrics last said; `None` until it has.
    pub fn external(&self) -> Option<Arc<Reserved<Catalog>>> {
        self.external.load_full()
    }

    /// Notes what discovery of custom metrics said; tells whether that is news.
    ///
    /// # Errors
    /// If there is no memory left for the list. Then nothing is known of its metrics.
    pub fn add_metric(
        &self,
        version: Option<Version>,
        mut entries: Vec<DiscoveryEntry>,
    ) -> Result<bool, Exhausted> {
        entries.retain(DiscoveryEntry::is_custom);
        let mut added = self.added.lock().expect("no holder panics");
        *added = 0;
        if let Some(known) = self.discovered()
            && known.version == version
            && known.catalog.is_of(&entries)
        {
            return Ok(false);
        }
        let (catalog, result) = self.catalog(entries);
        self.discovered.store(Some(Arc::new(Discovered { version, catalog })));
        self.names.note_addition();
        result
    }

    /// The same for external metrics.
    ///
    /// # Errors
    /// If there is no memory left for the list. Then nothing is known of its external metrics.
    pub fn add_external_metric(&self, mut entries: Vec<DiscoveryEntry>) -> Result<bool, Exhausted> {
        entries.retain(DiscoveryEntry::is_external);
        if self.external().is_some_and(|known| known.is_of(&entries)) {
            return Ok(false);
        }
        let (catalog, result) = self.catalog(entries);
        self.external.store(Some(Arc::new(catalog)));
        self.names.note_addition();
        result
    }

    /// A list that is news; an empty one if there is no memory left for it.
    fn catalog(&self, entries: Vec<DiscoveryEntry>) -> (Reserved<Catalog>, Result<bool, Exhausted>) {
        match self.names.catalog(entries) {
            Ok(catalog) => (catalog, Ok(true)),
            Err(exhausted) => (self.names.empty(), Err(exhausted)),
        }
    }

    /// Notes that it has values of a custom metric, which came since its discovery if that does not list it.
    pub fn has(&self, resource: &str, metric: &str, namespaced: bool) {
        let lacks = |known: &Discovered| known.version.is_some() && !known.catalog.contains(resource, metric);
        if !self.discovered().is_some_and(|known| lacks(&known)) {
            return;
        }
        let mut added = self.added.lock().expect("no holder panics");
        let Some(known) = self.discovered().filter(|known| *added < ADDED && lacks(known)) else { return };
        let Some(entry) = DiscoveryEntry::of(resource, metric, namespaced) else { return };
        // If there is no memory left for it, it is not listed.
        if let Ok(catalog) = self.names.with(&known.catalog, entry) {
            *added += 1;
            self.discovered.store(Some(Arc::new(Discovered { version: known.version, catalog })));
            self.names.note_addition();
        }
    }
}

impl Probe for MemberProbe {
    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn is_answering(&self, target: &ProbeTarget) -> Option<impl Future<Output = bool> + Send + 'static> {
        let member = self.member.upgrade()?;
        let (client, limit, target) = (member.client(), member.timeout, target.clone());
        Some(async move {
            let progress = Progress::default();
            let asking = async {
                match &target {
                    ProbeTarget::Server => client.probe().await.is_ok(),
                    // Whether one that there is no memory for is well again remains unknown.
                    ProbeTarget::Api(group, path) => {
                        client.get(*group, path, ACCEPT, &progress).await.is_ok()
                    }
                }
            };
            timeout(limit, asking).await.unwrap_or(false)
        })
    }
}

impl TokenRefusal {
    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }
}
