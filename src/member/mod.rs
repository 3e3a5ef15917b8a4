//! One member cluster: how it is reached, and what was learned of it.

pub mod credentials;
pub mod examine;
pub mod failure;
pub mod health;
mod pool;
mod route;
pub mod tls;
pub mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::StatusCode;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::api::custom_metrics::Version;
use crate::api::discovery::{Catalog, ExternalCatalog};
use crate::api::duration::GoDuration;
use crate::api::group::Group;
use crate::process::budget::Claim;
use crate::process::rate::Bucket;
use credentials::Credentials;
pub use failure::Failure;
use health::{Health, Skip};
pub use tls::TrustError;
use transport::{Limits, Reply, Transport};

/// What members are asked for: protobuf, or JSON.
pub const ACCEPT: &str = "application/vnd.kubernetes.protobuf,application/json";

/// How long the credentials of a member that refuses them are not asked for again.
const SPARE: Duration = Duration::from_secs(1);
/// How long a query waits for newer credentials.
const PATIENCE: Duration = Duration::from_secs(2);

/// Our live handle on one cluster. It outlives its credentials: a new token, CA or proxy swaps the transport and
/// keeps what was learned.
pub struct Member {
    name: String,
    id: u64,
    rate: Option<Bucket>,
    timeout: Duration,
    health: Health,
    transport: ArcSwap<Transport>,
    discovered: ArcSwapOption<Discovered>,
    external: ArcSwapOption<ExternalCatalog>,
    refusals: mpsc::Sender<Refused>,
    /// When newer credentials were last asked for.
    asked: Mutex<Option<Instant>>,
}

/// A member has refused its token: whoever knows newer credentials renews the member and then drops this.
pub struct Refused {
    /// The cluster's name.
    pub cluster: String,
    done: oneshot::Sender<()>,
}

/// What a member's discovery of custom metrics said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The version to ask it in; `None` if it has no custom metrics API.
    pub version: Option<Version>,
    /// Its metrics.
    pub catalog: Catalog,
}

impl Member {
    /// A member that nothing is known of yet. When it refuses its token it says so on `refusals`.
    ///
    /// # Errors
    /// If the credentials cannot be used.
    pub fn new(
        name: String,
        credentials: Credentials,
        limits: &Limits,
        refusals: mpsc::Sender<Refused>,
    ) -> Result<Self, TrustError> {
        let rate = limits.rate.and_then(Bucket::new);
        let transport = ArcSwap::from_pointee(Transport::new(credentials, limits)?);
        static IDS: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            name,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            rate,
            timeout: limits.timeout,
            health: Health::default(),
            transport,
            discovered: ArcSwapOption::empty(),
            external: ArcSwapOption::empty(),
            refusals,
            asked: Mutex::default(),
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

    /// Why an API of it is not asked at present; `None` if it is.
    pub fn skipped(&self, group: Group) -> Option<Skip> {
        self.health.skipped(group)
    }

    /// Takes note of how a request for a path of an API ended that began at `begun`: a member that fails again and again
    /// is skipped, and looked after in the background.
    pub fn note(
        self: &Arc<Self>,
        group: Group,
        path: &Arc<str>,
        begun: std::time::Instant,
        failure: Option<&Failure>,
    ) {
        self.health.note(self, group, path, begun, failure);
    }

    /// How it is reached at present.
    pub fn transport(&self) -> Arc<Transport> {
        self.transport.load_full()
    }

    /// Swaps the transport if the credentials differ; says whether they did. Requests in flight end on the old one.
    ///
    /// # Errors
    /// If the new credentials cannot be used; the old ones stay.
    pub fn renew(&self, credentials: Credentials, limits: &Limits) -> Result<bool, TrustError> {
        if *self.transport.load().credentials() == credentials {
            return Ok(false);
        }
        self.transport.store(Arc::new(Transport::new(credentials, limits)?));
        Ok(true)
    }

    /// Waits until the rate allows one more request.
    pub async fn token(&self) {
        if let Some(rate) = &self.rate {
            rate.token().await;
        }
    }

    /// Asks for a path, encoded already. `claim` says whether the room for answers bounds it. If the credentials have been
    /// replaced by the time that they fail, it asks once more with the new ones.
    ///
    /// # Errors
    /// If no whole answer came.
    pub async fn get(&self, path: &str, claim: Claim) -> Result<Reply, Failure> {
        let transport = self.transport();
        let result = transport.get(path, ACCEPT, claim).await;
        let renewed = match &result {
            Ok(reply) if reply.status == StatusCode::UNAUTHORIZED => self.after_refusal(&transport).await,
            Err(Failure::Connect(_)) => self.other_than(&transport),
            _ => None,
        };
        match renewed {
            Some(transport) => transport.get(path, ACCEPT, claim).await,
            None => result,
        }
    }

    /// The transport after `refused`. If there is none yet, newer credentials are asked for, once for all queries that
    /// are refused at a time.
    async fn after_refusal(&self, refused: &Arc<Transport>) -> Option<Arc<Transport>> {
        if let Some(renewed) = self.other_than(refused) {
            return Some(renewed);
        }
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|asked| asked.elapsed() >= SPARE) && self.other_than(refused).is_none() {
            *asked = Some(Instant::now());
            let (done, answered) = oneshot::channel();
            let refusal = Refused { cluster: self.name.clone(), done };
            if self.refusals.try_send(refusal).is_ok() {
                let _ = timeout(PATIENCE, answered).await;
            }
        }
        self.other_than(refused)
    }

    fn other_than(&self, transport: &Arc<Transport>) -> Option<Arc<Transport>> {
        Some(self.transport()).filter(|current| !Arc::ptr_eq(current, transport))
    }

    /// What it means that no answer came within `timeout`: a member that is still being connected to is unreachable.
    pub fn too_late(&self, timeout: Duration) -> Failure {
        if self.transport.load().is_connected() {
            Failure::Timeout(timeout)
        } else {
            Failure::Connect(format!("no connection within {}", GoDuration::from(timeout)))
        }
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
    pub fn external(&self) -> Option<Arc<ExternalCatalog>> {
        self.external.load_full()
    }

    /// Notes what discovery of custom metrics said; tells whether that is news.
    pub fn learn(&self, discovered: Discovered) -> bool {
        learn(&self.discovered, discovered)
    }

    /// Notes what discovery of external metrics said; tells whether that is news.
    pub fn learn_external(&self, external: ExternalCatalog) -> bool {
        learn(&self.external, external)
    }
}

fn learn<T: PartialEq>(known: &ArcSwapOption<T>, said: T) -> bool {
    let news = known.load().as_deref() != Some(&said);
    if news {
        known.store(Some(Arc::new(said)));
    }
    news
}

impl Refused {
    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }
}
