//! The fleet as Karmada's control plane has it: `Cluster` objects and the Secrets that they refer to, watched.
//!
//! Secrets are watched in the namespaces that Clusters refer to, nowhere else, and one that no Cluster refers to is
//! dropped as it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::metrics::FleetMetrics;
use super::registry::{ClusterSecret, ClusterSpec, Registry, SecretName};

/// How many changes may wait for the registry; watches wait when it is full.
const QUEUE: usize = 256;

/// Watches the control plane and keeps the registry in line with it.
pub struct KarmadaSource {
    client: Client,
    registry: Registry,
    metrics: Arc<FleetMetrics>,
    changes: mpsc::Sender<(Instant, Change)>,
    queue: mpsc::Receiver<(Instant, Change)>,
    clusters_synced: bool,
    /// Clusters that the list in progress has named.
    listed_clusters: BTreeSet<String>,
    namespaces: BTreeMap<String, Namespace>,
    synced: watch::Sender<bool>,
}

/// One namespace whose Secrets are watched.
struct Namespace {
    synced: bool,
    /// Secrets that the list in progress has named.
    listed: BTreeSet<String>,
    _watch: AbortOnDropHandle<()>,
}

enum Change {
    Cluster(Event<DynamicObject>),
    Secret(String, Event<Secret>),
    /// A Secret that was asked for by name, since its event came before any Cluster referred to it.
    Fetched(SecretName, Option<Secret>),
}

impl KarmadaSource {
    /// A source that has not started. The receiver says when all Clusters and Secrets have been seen once.
    pub fn new(
        client: Client,
        registry: Registry,
        metrics: Arc<FleetMetrics>,
    ) -> (Self, watch::Receiver<bool>) {
        let (changes, queue) = mpsc::channel(QUEUE);
        let (synced, receiver) = watch::channel(false);
        let source = Self {
            client,
            registry,
            metrics,
            changes,
            queue,
            clusters_synced: false,
            listed_clusters: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            synced,
        };
        (source, receiver)
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let kind = GroupVersionKind::gvk("cluster.karmada.io", "v1alpha1", "Cluster");
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let _watch = forward("clusters", events, self.changes.clone(), Change::Cluster);
        while let Some((queued, change)) = self.queue.recv().await {
            self.metrics.queued(queued.elapsed());
            self.take(change);
            let (asked, not_ready, outside) = self.registry.census();
            self.metrics.clusters(asked, not_ready, outside);
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Cluster(event) => {
                self.take_cluster(event);
                self.watch_namespaces();
            }
            Change::Secret(namespace, event) => self.take_secret(&namespace, event),
            Change::Fetched(name, secret) => {
                self.registry.apply_secret(name, secret.map(ClusterSecret::from));
            }
        }
        let synced = self.clusters_synced && self.namespaces.values().all(|namespace| namespace.synced);
        if synced && !*self.synced.borrow() {
            self.registry.report_outsiders();
            tracing::info!(members = self.registry.fleet().borrow().entries().count(), "the fleet is known");
            self.synced.send_replace(true);
        }
    }

    fn take_cluster(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listed_clusters.clear(),
            Event::InitApply(object) => {
                self.listed_clusters.insert(object.name_any());
                self.apply_cluster(&object);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_clusters);
                let known = self.registry.clusters().map(|(name, _)| name.to_owned());
                for gone in known.filter(|name| !listed.contains(name)).collect::<Vec<_>>() {
                    self.registry.remove_cluster(&gone);
                }
                self.clusters_synced = true;
            }
            Event::Apply(object) => self.apply_cluster(&object),
            Event::Delete(object) => self.registry.remove_cluster(&object.name_any()),
        }
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
                tracing::warn!(cluster = name, %error, "the Cluster object is malformed and passed over");
                return;
            }
        };
        let secret = spec.secret.clone();
        self.registry.apply_cluster(&name, spec);
        if let Some(secret) = secret
            && self.namespaces.get(&secret.namespace).is_some_and(|namespace| namespace.synced)
            && !self.registry.secrets().any(|known| *known == secret)
        {
            self.fetch(secret);
        }
    }

    /// Watches the namespaces that Clusters refer to, and no others.
    fn watch_namespaces(&mut self) {
        let referred = self.registry.clusters().filter_map(|(_, spec)| spec.secret.as_ref());
        let wanted: BTreeSet<String> = referred.map(|secret| secret.namespace.clone()).collect();
        if self.clusters_synced {
            self.namespaces.retain(|namespace, _| wanted.contains(namespace));
        }
        for namespace in wanted {
            if self.namespaces.contains_key(&namespace) {
                continue;
            }
            let api = Api::<Secret>::namespaced(self.client.clone(), &namespace);
            let events = watcher(api, watcher::Config::default()).default_backoff();
            let tag = namespace.clone();
            let into_change = move |event| Change::Secret(tag.clone(), event);
            let watch = forward("secrets", events, self.changes.clone(), into_change);
            let state = Namespace { synced: false, listed: BTreeSet::new(), _watch: watch };
            self.namespaces.insert(namespace, state);
        }
        let unwatched = |secret: &&SecretName| !self.namespaces.contains_key(&secret.namespace);
        for secret in self.registry.secrets().filter(unwatched).cloned().collect::<Vec<_>>() {
            self.registry.apply_secret(secret, None);
        }
    }

    fn take_secret(&mut self, namespace: &str, event: Event<Secret>) {
        // A watch that was given up may still have events in the queue.
        let Some(state) = self.namespaces.get_mut(namespace) else { return };
        match event {
            Event::Init => state.listed.clear(),
            Event::InitApply(secret) => {
                state.listed.insert(secret.name_any());
                self.apply_secret(secret);
            }
            Event::InitDone => {
                state.synced = true;
                let listed = std::mem::take(&mut state.listed);
                let gone =
                    |secret: &&SecretName| secret.namespace == namespace && !listed.contains(&secret.name);
                for secret in self.registry.secrets().filter(gone).cloned().collect::<Vec<_>>() {
                    self.registry.apply_secret(secret, None);
                }
            }
            Event::Apply(secret) => self.apply_secret(secret),
            Event::Delete(secret) => self.registry.apply_secret(secret_name(&secret), None),
        }
    }

    fn apply_secret(&mut self, secret: Secret) {
        let name = secret_name(&secret);
        if self.registry.refers_to(&name) {
            self.registry.apply_secret(name, Some(secret.into()));
        }
    }

    fn fetch(&self, name: SecretName) {
        let api = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
        let changes = self.changes.clone();
        tokio::spawn(async move {
            match api.get_opt(&name.name).await {
                Ok(secret) => {
                    let _ = changes.send((Instant::now(), Change::Fetched(name, secret))).await;
                }
                Err(error) => {
                    let SecretName { namespace, name } = name;
                    tracing::warn!(namespace, name, %error, "the Secret of a cluster cannot be read");
                }
            }
        });
    }
}

/// Moves a watch's events into the queue; troubles are logged, and the watch goes on with backoff.
fn forward<K: Debug + Send + 'static>(
    resource: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    changes: mpsc::Sender<(Instant, Change)>,
    into_change: impl Fn(Event<K>) -> Change + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    if changes.send((Instant::now(), into_change(event))).await.is_err() {
                        return;
                    }
                }
                // Said once, until the watch has recovered.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(resource, %error, "watching the control plane failed; trying again");
                }
                Err(error) => tracing::debug!(resource, %error, "watching the control plane failed again"),
            }
        }
    }))
}

/// Reads what leads to the API server out of a `Cluster`.
fn read_cluster(object: &DynamicObject) -> Result<ClusterSpec, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        api_endpoint: String,
        secret_ref: Option<Reference>,
        #[serde(rename = "insecureSkipTLSVerification")]
        insecure: bool,
        #[serde(rename = "proxyURL")]
        proxy_url: String,
        proxy_header: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    struct Reference {
        #[serde(default)]
        namespace: String,
        name: String,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
    }
    #[derive(Deserialize)]
    struct Cluster {
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    let Cluster { spec, status } = Cluster::deserialize(&object.data)?;
    let ready =
        status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
    Ok(ClusterSpec {
        uid: object.uid().unwrap_or_default(),
        api_endpoint: spec.api_endpoint,
        secret: spec.secret_ref.map(|Reference { namespace, name }| SecretName { namespace, name }),
        insecure: spec.insecure,
        proxy_url: spec.proxy_url,
        proxy_header: spec.proxy_header,
        ready,
    })
}

fn secret_name(secret: &Secret) -> SecretName {
    SecretName { namespace: secret.namespace().unwrap_or_default(), name: secret.name_any() }
}

impl From<Secret> for ClusterSecret {
    fn from(secret: Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let mut part = |key| data.remove(key).map(|bytes| bytes.0);
        Self { token: part("token"), ca_bundle: part("caBundle") }
    }
}
