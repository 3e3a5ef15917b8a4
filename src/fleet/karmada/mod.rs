//! Fleet source that watches Karmada's control plane: `Cluster` objects and the Secrets that they refer to.
//!
//! Secrets are watched only in namespaces that Clusters refer to. A Secret without references is dropped when it is read. If a new
//! list omits a known object, the object is fetched by name and removed only on 404.

pub mod objects;
pub mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::objects::{read_cluster, secret_name};
use self::registry::{ClusterSecret, Registry, SecretName};
use super::metrics::FleetMetrics;
use super::roster::Roster;
use super::task::{Generation, Generations, WaitingMembers};
use crate::api::cause::Cause;
use crate::control::Clients;
use crate::control::watcher::{Watch, Watcher, is_status};
use crate::member::TokenRefusal;

/// Maximum queued changes. Watches wait when the queue is full.
const QUEUE: usize = 256;
/// How long changes are collected before a new snapshot is published.
const BURST: Duration = Duration::from_millis(20);
/// Maximum concurrent lookups by name.
const MAX_LOOKUPS: usize = 16;
/// Timeout of a lookup, and the pause before it is repeated.
const LOOKUP: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// Watches the control plane and updates the registry.
pub struct KarmadaSource {
    clusters: Watch,
    clients: Clients,
    registry: Registry,
    metrics: Arc<FleetMetrics>,
    watches: Watcher<Change>,
    changes: mpsc::Sender<(Instant, Change)>,
    queue: mpsc::Receiver<(Instant, Change)>,
    clusters_synced: bool,
    /// Names of clusters in the current list so far.
    listed_clusters: BTreeSet<String>,
    namespaces: BTreeMap<String, NamespaceWatch>,
    generations: Generations,
    lookups: BTreeMap<LookupKey, Lookup>,
    lookup_permits: Arc<Semaphore>,
}

/// The watch of one namespace's Secrets.
struct NamespaceWatch {
    generation: Generation,
    synced: bool,
    /// Names of Secrets in the current list so far.
    listed: BTreeSet<String>,
    watch: Watch,
}

/// A lookup of an object by name. An event of the same object ends the lookup, since the event is newer.
struct Lookup {
    generation: Generation,
    /// Whether a list omitted the object.
    omitted: bool,
    waiting: WaitingMembers,
    _task: AbortOnDropHandle<()>,
}

/// The object of a lookup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LookupKey {
    Cluster(String),
    Secret(SecretName),
}

enum Change {
    Cluster(Event<DynamicObject>),
    Secret { namespace: String, generation: Generation, event: Event<Secret> },
    FoundCluster { name: String, generation: Generation, found: Option<Box<DynamicObject>> },
    FoundSecret { name: SecretName, generation: Generation, found: Option<Secret> },
}

impl KarmadaSource {
    /// Starts the source. Each watch request lasts for `watch_timeout`.
    pub fn new(
        clients: Clients,
        watch_timeout: Duration,
        roster: Roster,
        metrics: Arc<FleetMetrics>,
    ) -> Self {
        let (changes, queue) = mpsc::channel(QUEUE);
        let what = "clusters.cluster.karmada.io".to_owned();
        let watches = Watcher::new(clients.clone(), watch_timeout, changes.clone());
        Self {
            clusters: watches.start(what, watcher::Config::default(), cluster_api, Change::Cluster),
            watches,
            clients,
            registry: Registry::new(roster),
            metrics,
            changes,
            queue,
            clusters_synced: false,
            listed_clusters: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            generations: Generations::default(),
            lookups: BTreeMap::new(),
            lookup_permits: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                Some(first) = self.queue.recv() => {
                    // Changes that follow shortly are published in the same snapshot.
                    sleep(BURST).await;
                    self.handle_changes(first);
                }
                refused = self.registry.roster().refused() => {
                    refused.into_iter().for_each(|refusal| self.handle_token_refusal(refusal));
                }
                else => return,
            }
        }
    }

    /// Handles the queued changes, up to [`QUEUE`] of them, and publishes a snapshot.
    fn handle_changes(&mut self, first: (Instant, Change)) {
        let more = std::iter::from_fn(|| self.queue.try_recv().ok()).take(QUEUE);
        let changes: Vec<_> = std::iter::once(first).chain(more).collect();
        for (queued, change) in changes {
            self.metrics.queued(queued.elapsed());
            self.handle_change(change);
        }
        self.watch_namespaces();
        self.registry.roster().publish();
        if self.clusters_synced && self.namespaces.values().all(|namespace| namespace.synced) {
            self.registry.roster().set_synced();
        }
    }

    fn handle_change(&mut self, change: Change) {
        match change {
            Change::Cluster(event) => self.handle_cluster(event),
            Change::Secret { namespace, generation, event } => {
                self.handle_secret(&namespace, generation, event);
            }
            Change::FoundCluster { name, generation, found } => {
                let lookup = self.end_lookup(&LookupKey::Cluster(name.clone()), generation);
                let Some(Lookup { omitted, .. }) = lookup else { return };
                if omitted && found.is_some() {
                    self.clusters.request_relist();
                }
                match found {
                    Some(cluster) => self.apply_cluster(&cluster),
                    None => self.registry.remove_cluster(&name),
                }
            }
            Change::FoundSecret { name, generation, found } => {
                let lookup = self.end_lookup(&LookupKey::Secret(name.clone()), generation);
                let Some(Lookup { omitted, waiting, .. }) = lookup else { return };
                if let Some(namespace) = self.namespaces.get(&name.namespace)
                    && omitted
                    && found.is_some()
                {
                    namespace.watch.request_relist();
                }
                self.registry.apply_secret(name, found.map(ClusterSecret::from));
                drop(waiting);
            }
        }
    }

    fn end_lookup(&mut self, named: &LookupKey, generation: Generation) -> Option<Lookup> {
        self.lookups.get(named).filter(|lookup| lookup.generation == generation)?;
        self.lookups.remove(named)
    }

    /// Reads the member's Secret again. The registry passes a new token to the member.
    fn handle_token_refusal(&mut self, refused: TokenRefusal) {
        if let Some(secret) = self.registry.secret_of(&refused.cluster).cloned() {
            tracing::info!(
                cluster = refused.cluster,
                "the cluster refused its token; reading its Secret again"
            );
            self.lookup(LookupKey::Secret(secret)).waiting.push(refused);
        }
    }

    fn handle_cluster(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed_clusters.clear(),
            Event::InitApply(object) => {
                self.listed_clusters.insert(object.name_any());
                self.handle_cluster_event(&object);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_clusters);
                let known = self.registry.clusters().map(|(name, _)| name.to_owned());
                for missing in known.filter(|name| !listed.contains(name)).collect::<Vec<_>>() {
                    self.lookup(LookupKey::Cluster(missing)).omitted = true;
                }
                self.clusters_synced = true;
            }
            Event::Apply(object) => self.handle_cluster_event(&object),
            Event::Delete(object) => {
                let name = object.name_any();
                self.registry.remove_cluster(&name);
                self.lookups.remove(&LookupKey::Cluster(name));
            }
        }
    }

    fn handle_cluster_event(&mut self, object: &DynamicObject) {
        self.lookups.remove(&LookupKey::Cluster(object.name_any()));
        self.apply_cluster(object);
    }

    fn apply_cluster(&mut self, object: &DynamicObject) {
        let name = object.name_any();
        if object.metadata.deletion_timestamp.is_some() {
            self.registry.remove_cluster(&name);
            return;
        }
        let spec = match read_cluster(object) {
            Ok(spec) => spec,
            Err(error) => {
                let cause = Cause::ClusterMalformed.name();
                tracing::warn!(cluster = name, cause, %error, "the Cluster object is malformed and is ignored");
                return;
            }
        };
        let secret = spec.secret.clone();
        self.registry.apply_cluster(&name, spec);
        // The Secret's event may have come before this Cluster referred to it.
        if let Some(secret) = secret
            && self.namespaces.get(&secret.namespace).is_some_and(|namespace| namespace.synced)
            && !self.registry.has_read(&secret)
        {
            self.lookup(LookupKey::Secret(secret));
        }
    }

    /// Watches the namespaces that Clusters refer to, and no others, and ends lookups of Secrets that no Cluster refers to. Starts
    /// when all Clusters are known: before that, a Secret of a Cluster that is not listed yet would be dropped.
    fn watch_namespaces(&mut self) {
        if !self.clusters_synced {
            return;
        }
        let referred: BTreeSet<&SecretName> =
            self.registry.clusters().filter_map(|(_, spec)| spec.secret.as_ref()).collect();
        let wanted: BTreeSet<String> = referred.iter().map(|secret| secret.namespace.clone()).collect();
        self.lookups.retain(|key, _| match key {
            LookupKey::Cluster(_) => true,
            LookupKey::Secret(secret) => referred.contains(secret),
        });
        self.namespaces.retain(|namespace, _| wanted.contains(namespace));
        for namespace in wanted {
            if self.namespaces.contains_key(&namespace) {
                continue;
            }
            let generation = self.generations.next();
            let (of, tag) = (namespace.clone(), namespace.clone());
            let watch = self.watches.start(
                format!("secrets in the namespace {namespace}"),
                watcher::Config::default(),
                move |client| Api::namespaced(client, &of),
                move |event| Change::Secret { namespace: tag.clone(), generation, event },
            );
            let state = NamespaceWatch { generation, synced: false, listed: BTreeSet::new(), watch };
            self.namespaces.insert(namespace, state);
        }
    }

    fn handle_secret(&mut self, namespace: &str, generation: Generation, event: Event<Secret>) {
        let state = self.namespaces.get_mut(namespace).filter(|state| state.generation == generation);
        let Some(state) = state else { return };
        match event {
            Event::Init => state.listed.clear(),
            Event::InitApply(secret) => {
                state.listed.insert(secret.name_any());
                self.apply_secret(secret);
            }
            Event::InitDone => {
                state.synced = true;
                let listed = std::mem::take(&mut state.listed);
                let referred = self.registry.clusters().filter_map(|(_, spec)| spec.secret.as_ref());
                let missing: BTreeSet<SecretName> = referred
                    .filter(|secret| secret.namespace == namespace)
                    .filter(|secret| !listed.contains(&secret.name) || !self.registry.has_read(secret))
                    .cloned()
                    .collect();
                for secret in missing {
                    let omitted = !listed.contains(&secret.name);
                    self.lookup(LookupKey::Secret(secret)).omitted |= omitted;
                }
            }
            Event::Apply(secret) => self.apply_secret(secret),
            Event::Delete(secret) => {
                let name = secret_name(&secret);
                self.registry.apply_secret(name.clone(), None);
                self.lookups.remove(&LookupKey::Secret(name));
            }
        }
    }

    fn apply_secret(&mut self, secret: Secret) {
        let name = secret_name(&secret);
        self.registry.apply_secret(name.clone(), Some(secret.into()));
        self.lookups.remove(&LookupKey::Secret(name));
    }

    /// Starts a lookup of an object, or returns the one in progress.
    fn lookup(&mut self, named: LookupKey) -> &mut Lookup {
        self.lookups.entry(named).or_insert_with_key(|named| {
            let generation = self.generations.next();
            let (clients, changes) = (self.clients.clone(), self.changes.clone());
            let (named, permits) = (named.clone(), self.lookup_permits.clone());
            let task = async move {
                let change = match &named {
                    LookupKey::Cluster(name) => {
                        let found = find(&clients, &permits, &named, cluster_api, name).await.map(Box::new);
                        Change::FoundCluster { name: name.clone(), generation, found }
                    }
                    LookupKey::Secret(name) => {
                        let api = |client| Api::namespaced(client, &name.namespace);
                        let found = find(&clients, &permits, &named, api, &name.name).await;
                        Change::FoundSecret { name: name.clone(), generation, found }
                    }
                };
                let _ = changes.send((Instant::now(), change)).await;
            };
            Lookup {
                generation,
                omitted: false,
                waiting: WaitingMembers::default(),
                _task: AbortOnDropHandle::new(tokio::spawn(task)),
            }
        })
    }
}

/// Fetches an object, and retries until there is a result; `None` if the object does not exist.
async fn find<K: Clone + DeserializeOwned + fmt::Debug>(
    clients: &Clients,
    permits: &Semaphore,
    named: &LookupKey,
    api: impl Fn(Client) -> Api<K>,
    name: &str,
) -> Option<K> {
    let mut is_logged = false;
    loop {
        let permit = permits.acquire().await;
        let result = timeout(LOOKUP.0, api(clients.current()).get_opt(name)).await;
        let error = match result {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) if is_status(&error, 403) => {
                format!("{error}; grant this user the verb get on it")
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {:?}", LOOKUP.0),
        };
        if !is_logged {
            tracing::warn!(object = %named, error, "an object of the control plane cannot be read; retrying");
            is_logged = true;
        }
        drop(permit);
        sleep(LOOKUP.1).await;
    }
}

/// Karmada's `Cluster` objects.
pub fn cluster_api(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cluster.karmada.io", "v1alpha1", "Cluster");
    Api::all_with(client, &ApiResource::from_gvk(&kind))
}

impl fmt::Display for LookupKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(formatter, "Cluster {name}"),
            Self::Secret(SecretName { namespace, name }) => write!(formatter, "Secret {namespace}/{name}"),
        }
    }
}
