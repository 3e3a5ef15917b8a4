//! The fleet as Karmada's control plane has it: `Cluster` objects and the Secrets that they refer to, watched.
//!
//! Secrets are watched in the namespaces that Clusters refer to, nowhere else, and one that no Cluster refers to is
//! dropped as it is read. A list is not believed when it lacks what was known: each such object is asked for by name,
//! and only a 404 makes it gone.

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
use super::roster::Roster;
use super::task::{Generation, Generations, WaitingMembers};
use crate::api::cause::Cause;
use crate::control::Clients;
use crate::control::watcher::{Watch, Watcher, is_status};
use crate::member::TokenRefusal;

/// How many changes may wait for the registry; watches wait when it is full.
const QUEUE: usize = 256;
/// How long changes are collected until there is a new snapshot.
const BURST: Duration = Duration::from_millis(20);
/// How many objects are asked for by name at a time.
const LOOK_UPS: usize = 16;
/// How long asking for one may take, and how long to wait before it is asked for again.
const LOOK_UP: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// Watches the control plane and keeps the registry in line with it.
pub struct KarmadaSource {
    clusters: Watch,
    clients: Clients,
    registry: Registry,
    watches: Watcher<Change>,
    changes: mpsc::Sender<(Instant, Change)>,
    queue: mpsc::Receiver<(Instant, Change)>,
    clusters_synced: bool,
    /// Clusters that the list in progress has named.
    listed_clusters: BTreeSet<String>,
    namespaces: BTreeMap<String, NamespaceWatch>,
    generations: Generations,
    look_ups: BTreeMap<LookupKey, Lookup>,
    looking_up: Arc<Semaphore>,
}

/// One namespace whose Secrets are watched.
struct NamespaceWatch {
    generation: Generation,
    synced: bool,
    /// Secrets that the list in progress has named.
    listed: BTreeSet<String>,
    watching: Watch,
}

/// An object that is asked for by name. An event of the same object ends it: what a watch says later is newer.
struct Lookup {
    generation: Generation,
    /// Whether a list lacked it.
    missed: bool,
    waiting: WaitingMembers,
    _asking: AbortOnDropHandle<()>,
}

/// What can be asked for by name.
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
    /// A source whose watches have begun; each watch lasts for `watch_timeout`.
    pub fn new(clients: Clients, watch_timeout: Duration, roster: Roster) -> Self {
        let (changes, queue) = mpsc::channel(QUEUE);
        let what = "clusters.cluster.karmada.io".to_owned();
        let watches = Watcher::new(clients.clone(), watch_timeout, changes.clone());
        Self {
            clusters: watches.begin(what, watcher::Config::default(), cluster_api, Change::Cluster),
            watches,
            clients,
            registry: Registry::new(roster),
            changes,
            queue,
            clusters_synced: false,
            listed_clusters: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            generations: Generations::default(),
            look_ups: BTreeMap::new(),
            looking_up: Arc::new(Semaphore::new(LOOK_UPS)),
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                Some(first) = self.queue.recv() => {
                    // More may follow, and are one change for everybody else.
                    sleep(BURST).await;
                    self.handle_changes(first);
                }
                Some(refused) = self.registry.roster().refused() => self.handle_token_refusal(refused),
                else => return,
            }
        }
    }

    /// Takes what has come, as much as the queue holds at most.
    fn handle_changes(&mut self, first: (Instant, Change)) {
        let more = std::iter::from_fn(|| self.queue.try_recv().ok()).take(QUEUE);
        let changes: Vec<_> = std::iter::once(first).chain(more).collect();
        for (queued, change) in changes {
            self.registry.roster().queued(queued.elapsed());
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
                let look_up = self.end_look_up(&LookupKey::Cluster(name.clone()), generation);
                let Some(Lookup { missed, .. }) = look_up else { return };
                if missed && found.is_some() {
                    self.clusters.suspect();
                }
                match found {
                    Some(cluster) => self.apply_cluster(&cluster),
                    None => self.registry.remove_cluster(&name),
                }
            }
            Change::FoundSecret { name, generation, found } => {
                let look_up = self.end_look_up(&LookupKey::Secret(name.clone()), generation);
                let Some(Lookup { missed, waiting, .. }) = look_up else { return };
                if let Some(namespace) = self.namespaces.get(&name.namespace)
                    && missed
                    && found.is_some()
                {
                    namespace.watching.suspect();
                }
                self.registry.apply_secret(name, found.map(ClusterSecret::from));
                drop(waiting);
            }
        }
    }

    fn end_look_up(&mut self, named: &LookupKey, generation: Generation) -> Option<Lookup> {
        self.look_ups.get(named).filter(|look_up| look_up.generation == generation)?;
        self.look_ups.remove(named)
    }

    /// Reads the member's Secret anew; the member learns by the registry whether that has brought another token.
    fn handle_token_refusal(&mut self, refused: TokenRefusal) {
        if let Some(secret) = self.registry.secret_of(&refused.cluster).cloned() {
            tracing::info!(
                cluster = refused.cluster,
                "the cluster refuses its token; its Secret is read again"
            );
            self.look_up(LookupKey::Secret(secret)).waiting.push(refused);
        }
    }

    fn handle_cluster(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed_clusters.clear(),
            Event::InitApply(object) => {
                self.listed_clusters.insert(object.name_any());
                self.apply_seen_cluster(&object);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_clusters);
                let known = self.registry.clusters().map(|(name, _)| name.to_owned());
                for missing in known.filter(|name| !listed.contains(name)).collect::<Vec<_>>() {
                    self.look_up(LookupKey::Cluster(missing)).missed = true;
                }
                self.clusters_synced = true;
            }
            Event::Apply(object) => self.apply_seen_cluster(&object),
            Event::Delete(object) => {
                let name = object.name_any();
                self.registry.remove_cluster(&name);
                self.look_ups.remove(&LookupKey::Cluster(name));
            }
        }
    }

    fn apply_seen_cluster(&mut self, object: &DynamicObject) {
        self.look_ups.remove(&LookupKey::Cluster(object.name_any()));
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
                tracing::warn!(cluster = name, cause, %error, "the Cluster object is malformed and passed over");
                return;
            }
        };
        let secret = spec.secret.clone();
        self.registry.apply_cluster(&name, spec);
        // Its event may have come before any Cluster referred to it.
        if let Some(secret) = secret
            && self.namespaces.get(&secret.namespace).is_some_and(|namespace| namespace.synced)
            && !self.registry.has_read(&secret)
        {
            self.look_up(LookupKey::Secret(secret));
        }
    }

    /// Watches the namespaces that Clusters refer to, and no others, as soon as all Clusters are known: before that
    /// Secrets would come that no Cluster seems to refer to.
    fn watch_namespaces(&mut self) {
        if !self.clusters_synced {
            return;
        }
        let referred = self.registry.clusters().filter_map(|(_, spec)| spec.secret.as_ref());
        let wanted: BTreeSet<String> = referred.map(|secret| secret.namespace.clone()).collect();
        self.namespaces.retain(|namespace, _| wanted.contains(namespace));
        for namespace in wanted {
            if self.namespaces.contains_key(&namespace) {
                continue;
            }
            let generation = self.generations.next();
            let (of, tag) = (namespace.clone(), namespace.clone());
            let watching = self.watches.begin(
                format!("secrets in the namespace {namespace}"),
                watcher::Config::default(),
                move |client| Api::namespaced(client, &of),
                move |event| Change::Secret { namespace: tag.clone(), generation, event },
            );
            let state = NamespaceWatch { generation, synced: false, listed: BTreeSet::new(), watching };
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
                    let missed = !listed.contains(&secret.name);
                    self.look_up(LookupKey::Secret(secret)).missed |= missed;
                }
            }
            Event::Apply(secret) => self.apply_secret(secret),
            Event::Delete(secret) => {
                let name = secret_name(&secret);
                self.registry.apply_secret(name.clone(), None);
                self.look_ups.remove(&LookupKey::Secret(name));
            }
        }
    }

    fn apply_secret(&mut self, secret: Secret) {
        let name = secret_name(&secret);
        self.registry.apply_secret(name.clone(), Some(secret.into()));
        self.look_ups.remove(&LookupKey::Secret(name));
    }

    /// Asks for an object until there is an answer.
    fn look_up(&mut self, named: LookupKey) -> &mut Lookup {
        self.look_ups.entry(named).or_insert_with_key(|named| {
            let generation = self.generations.next();
            let (clients, changes) = (self.clients.clone(), self.changes.clone());
            let (named, permits) = (named.clone(), self.looking_up.clone());
            let asking = async move {
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
                missed: false,
                waiting: WaitingMembers::default(),
                _asking: AbortOnDropHandle::new(tokio::spawn(asking)),
            }
        })
    }
}

/// Asks for an object again and again; `None` if it does not exist.
async fn find<K: Clone + DeserializeOwned + fmt::Debug>(
    clients: &Clients,
    permits: &Semaphore,
    named: &LookupKey,
    api: impl Fn(Client) -> Api<K>,
    name: &str,
) -> Option<K> {
    let mut said = false;
    loop {
        let permit = permits.acquire().await;
        let asked = timeout(LOOK_UP.0, api(clients.current()).get_opt(name)).await;
        let error = match asked {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) if is_status(&error, 403) => {
                format!("{error}; grant this user the verb get on it")
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", LOOK_UP.0),
        };
        if !said {
            tracing::warn!(object = %named, error, "the control plane does not show an object; trying again");
            said = true;
        }
        drop(permit);
        sleep(LOOK_UP.1).await;
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
