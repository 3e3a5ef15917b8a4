//! A simulated Karmada control plane: an API server over HTTPS with the objects that the adapter watches, reviews, discovery
//! and the aggregation layer.
//!
//! It behaves like kube-apiserver 1.36 without the WatchList feature. It reports version 1.31, which is compatible with every
//! kubectl of the tests.

mod access;
mod aggregation;
mod discovery;
mod joining;
mod objects;
mod openapi;
mod reply;
mod request;
mod serving;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use self::access::Access;
use self::access::review::Reviews;
use self::aggregation::Aggregation;
use self::aggregation::availability::PROBE_EVERY;
use self::objects::resources::{CLUSTERS, Resource, STORED};
use self::objects::store::{Mode, Store};
use self::objects::watching::Switches;
use self::request::Recorder;
use crate::api_client::{ApiClient, Credentials};
use crate::https::{self, HTTP_VERSIONS, Handler, Network, Server};
use crate::kubeconfig;
use crate::pki::{self, Authority, Identity};

pub use self::access::ADAPTER_USER;
pub use self::access::review::Review;
pub use self::aggregation::availability::Availability;
pub use self::aggregation::{BACKEND_NAMESPACE, BACKEND_SERVICE};
pub use self::joining::{CLUSTER_NAMESPACE, MemberSpec};
pub use self::request::Recorded;

/// The APIServices of `custom.metrics.k8s.io`.
pub const CUSTOM_METRICS: [&str; 2] = ["v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"];
/// The APIService of `external.metrics.k8s.io`.
pub const EXTERNAL_METRICS: &str = "v1beta1.external.metrics.k8s.io";
/// The APIService of `metrics.k8s.io`.
pub const RESOURCE_METRICS: &str = "v1beta1.metrics.k8s.io";

/// The only common name of the front proxy's certificates.
const FRONT_PROXY: &str = "front-proxy-client";

/// A running control plane. Drop stops it.
pub struct ControlPlane {
    plane: Arc<Plane>,
    server: Server,
    directory: TempDir,
    serving_authority: Authority,
    client_authority: Authority,
    front_proxy_authority: Authority,
    front_proxy: Identity,
    /// Per APIService: the tasks that update its condition and fetch the discovery of its backend.
    tasks: Mutex<BTreeMap<String, Vec<AbortOnDropHandle<()>>>>,
}

/// State that all requests share.
struct Plane {
    store: Store,
    access: Access,
    reviews: Reviews,
    recorder: Recorder,
    watches: Switches,
    aggregation: Aggregation,
    probe_interval: watch::Sender<Duration>,
    empty_lists: AtomicBool,
}

impl Plane {
    fn lists_are_empty(&self) -> bool {
        self.empty_lists.load(Ordering::Relaxed)
    }
}

/// Start and identities.
impl ControlPlane {
    /// Starts a control plane without members on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be bound or no temporary directory can be created.
    pub async fn start() -> anyhow::Result<Self> {
        let serving_authority = Authority::new("karmada-serving-ca");
        let client_authority = Authority::new("karmada-client-ca");
        let front_proxy_authority = Authority::new("front-proxy-ca");
        let plane = Arc::new(Plane {
            store: Store::new(),
            access: Access::new(),
            reviews: Reviews::new(),
            recorder: Recorder::new(),
            watches: Switches::new(),
            aggregation: Aggregation::new(),
            probe_interval: watch::Sender::new(PROBE_EVERY),
            empty_lists: AtomicBool::new(false),
        });
        let handler: Handler = {
            let plane = plane.clone();
            Arc::new(move |request, peer| Box::pin(serving::serve(plane.clone(), request, peer)))
        };
        let serving = serving_authority.server(&[
            "127.0.0.1",
            "localhost",
            "karmada-apiserver.karmada-system.svc.cluster.local",
        ]);
        let clients = pki::roots(&client_authority.pem())?;
        let tls = https::tls(&serving, Some(clients), &HTTP_VERSIONS)?;
        let started = Self {
            server: Server::start(tls, handler).await?,
            plane,
            directory: tempfile::tempdir().context("cannot create a directory for kubeconfigs")?,
            front_proxy: front_proxy_authority.client(FRONT_PROXY, &[]),
            serving_authority,
            client_authority,
            front_proxy_authority,
            tasks: Mutex::default(),
        };
        started.bootstrap()?;
        Ok(started)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The number of accepted connections so far.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// A temporary directory. It is deleted when the control plane is dropped.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The CA of its serving certificate (PEM).
    pub fn ca_pem(&self) -> String {
        self.serving_authority.pem()
    }

    /// The CA of client certificates (PEM): the adapter's `--client-ca-file`.
    pub fn client_ca_pem(&self) -> String {
        self.client_authority.pem()
    }

    /// The CA of the front proxy's certificate (PEM).
    pub fn front_proxy_ca_pem(&self) -> String {
        self.front_proxy_authority.pem()
    }

    /// The client certificate that the aggregation layer presents to backends.
    pub fn front_proxy_identity(&self) -> Identity {
        self.front_proxy.clone()
    }

    /// A certificate of the front proxy's CA with another common name.
    pub fn front_proxy_identity_named(&self, common_name: &str) -> Identity {
        self.front_proxy_authority.client(common_name, &[])
    }

    /// A client certificate of a user and its groups.
    pub fn client_identity(&self, user: &str, groups: &[&str]) -> Identity {
        self.client_authority.client(user, groups)
    }

    /// An HTTPS client of this control plane.
    pub fn client(&self, credentials: Credentials<'_>) -> ApiClient {
        ApiClient::new(&self.url(), &self.ca_pem(), credentials).expect("the kit's certificates are valid")
    }

    /// An HTTPS client with all permissions.
    pub fn admin_client(&self) -> ApiClient {
        self.client(Credentials::Certificate(&self.client_identity("admin", &["system:masters"])))
    }

    /// The path of a kubeconfig with an embedded client certificate. The file is written once and not changed later.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let path = self.directory().join(kubeconfig::file_name(user, groups));
        if !path.exists() {
            let identity = self.client_identity(user, groups);
            kubeconfig::write(&path, &self.url(), &self.ca_pem(), user, &identity)?;
        }
        Ok(path)
    }

    /// The path of a kubeconfig with all permissions.
    ///
    /// # Errors
    /// As [`ControlPlane::kubeconfig`].
    pub fn admin_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig("admin", &["system:masters"])
    }

    /// The path of the adapter's kubeconfig. Its user may read clusters, Secrets and ConfigMaps, and create reviews.
    ///
    /// # Errors
    /// As [`ControlPlane::kubeconfig`].
    pub fn adapter_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig(ADAPTER_USER, &[])
    }

    fn bootstrap(&self) -> anyhow::Result<()> {
        for name in ["default", "kube-system", BACKEND_NAMESPACE, CLUSTER_NAMESPACE] {
            let status = json!({"phase": "Active"});
            self.apply(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {}, "status": status,
            }))?;
        }
        self.apply(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {
                "client-ca-file": self.client_ca_pem(),
                "requestheader-client-ca-file": self.front_proxy_ca_pem(),
                "requestheader-allowed-names": json!([FRONT_PROXY]).to_string(),
                "requestheader-username-headers": json!(["X-Remote-User"]).to_string(),
                "requestheader-group-headers": json!(["X-Remote-Group"]).to_string(),
                "requestheader-extra-headers-prefix": json!(["X-Remote-Extra-"]).to_string(),
            },
        }))?;
        Ok(())
    }
}

/// Objects.
impl ControlPlane {
    /// Creates or replaces an object. Only `apiVersion`, `kind` and the name are checked.
    ///
    /// # Errors
    /// If the type is not stored here or the name is missing.
    pub fn apply(&self, object: Value) -> anyhow::Result<Arc<Value>> {
        let (api_version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let resource = api_version.zip(kind).and_then(|(version, kind)| Resource::of_object(version, kind));
        let resource =
            resource.ok_or_else(|| anyhow!("{api_version:?} {kind:?} is not a stored resource"))?;
        Ok(self.plane.store.write(resource, object, Mode::Apply)?)
    }

    /// Deletes an object at once, also with finalizers. Returns false if it does not exist. `namespace` is empty for `Cluster`.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let resource = STORED.into_iter().find(|resource| resource.kind == kind);
        resource.is_some_and(|resource| self.plane.store.delete(resource, namespace, name).is_some())
    }

    /// The current state of an object.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let resource = STORED.into_iter().find(|resource| resource.kind == kind)?;
        self.plane.store.object(resource, namespace, name)
    }

    /// Joins a member cluster, or updates one that has already joined.
    ///
    /// # Errors
    /// If it has no name.
    pub fn join(&self, member: &MemberSpec) -> anyhow::Result<()> {
        for object in member.objects() {
            self.apply(object)?;
        }
        Ok(())
    }

    /// Sets the condition `Ready` of a member. Does nothing if the member has not joined.
    pub fn set_ready(&self, name: &str, ready: bool) {
        if let Some(cluster) = self.plane.store.object(&CLUSTERS, "", name) {
            let mut cluster = Value::clone(&cluster);
            cluster["status"] = json!({"conditions": [joining::ready_condition(ready)]});
            self.plane.store.write(&CLUSTERS, cluster, Mode::Apply).expect("the object already exists");
        }
    }

    /// Removes a member cluster with its Secrets.
    pub fn remove(&self, name: &str) {
        self.delete("Cluster", "", name);
        self.delete("Secret", CLUSTER_NAMESPACE, name);
        self.delete("Secret", CLUSTER_NAMESPACE, &format!("{name}-impersonator"));
    }
}

/// Faults.
impl ControlPlane {
    /// Discards the history: running watches expire, and older revisions are no longer readable.
    pub fn compact(&self) {
        self.plane.store.compact();
    }

    /// Breaks off all running watches.
    pub fn drop_watches(&self) {
        self.plane.watches.drop_all();
    }

    /// While `silent`, watches stay open without events, also past their timeout. Afterwards they catch up.
    pub fn silence_watches(&self, silent: bool) {
        self.plane.watches.silence(silent);
    }

    /// Stalls the watches that are open now: they never send an event again and never end.
    pub fn stall_watches(&self) {
        self.plane.watches.stall();
    }

    /// Responds with 410 to a watch from a revision that is no longer in the history, as before the watch cache. kube-apiserver
    /// starts such a watch and sends an ERROR event.
    pub fn refuse_gone_watches(&self) {
        self.plane.watches.refuse_gone();
    }

    /// Sends a bookmark to every watch that allows bookmarks.
    pub fn send_bookmarks(&self) {
        self.plane.watches.bookmark();
    }

    /// While `empty`, all lists are empty, as from an API server that has lost its storage.
    pub fn empty_lists(&self, empty: bool) {
        self.plane.empty_lists.store(empty, Ordering::Relaxed);
    }

    /// Cuts, freezes or restores the network.
    pub fn set_line(&self, line: Network) {
        self.server.set_network(line);
    }

    /// Cuts all connections, refuses new ones until no client can connect, and then serves again.
    pub async fn restart(&self) {
        self.set_line(Network::Refused);
        while TcpStream::connect(self.address()).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        self.set_line(Network::Open);
        while TcpStream::connect(self.address()).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Permissions, reviews and recorded requests.
impl ControlPlane {
    /// Makes a bearer token valid.
    pub fn add_token(&self, token: &str, user: &str, groups: &[&str]) {
        self.plane.access.add_token(token, user, groups);
    }

    /// Makes a bearer token invalid.
    pub fn remove_token(&self, token: &str) {
        self.plane.access.remove_token(token);
    }

    /// Allows a user or group `verbs` on `resources` (`pods`, `pods/http_requests`) of an API group. `*` means all.
    pub fn allow(&self, subject: &str, verbs: &[&str], group: &str, resources: &[&str]) {
        self.plane.access.grant(subject, verbs, group, resources);
    }

    /// Binds a user or group to a Role (in its namespace) or a ClusterRole.
    pub fn bind(&self, subject: &str, role: &Value) {
        self.plane.access.bind(subject, role);
    }

    /// The permissions that a user or group has and has not used, as `watch secrets`.
    pub fn unused(&self, subject: &str) -> Vec<String> {
        self.plane.access.unused(subject)
    }

    /// Removes all permissions of a user or group.
    pub fn revoke(&self, subject: &str) {
        self.plane.access.revoke(subject);
    }

    /// TokenReviews and SubjectAccessReviews fail with this status. `None` ends the failure.
    pub fn fail_reviews(&self, status: Option<StatusCode>) {
        self.plane.reviews.fail(status);
    }

    /// Delays TokenReviews and SubjectAccessReviews.
    pub fn delay_reviews(&self, delay: Duration) {
        self.plane.reviews.delay(delay);
    }

    /// The received reviews, oldest first (the last 4,096).
    pub fn reviews(&self) -> Vec<Review> {
        self.plane.reviews.received()
    }

    /// Removes the recorded reviews.
    pub fn clear_reviews(&self) {
        self.plane.reviews.clear();
    }

    /// The received requests, oldest first (the last 16,384).
    pub fn requests(&self) -> Vec<Recorded> {
        self.plane.recorder.all()
    }

    /// The number of recorded requests with this verb (`get`, `list`, `watch`, …) and path.
    pub fn count(&self, verb: &str, path: &str) -> usize {
        self.requests().iter().filter(|request| request.verb == verb && request.path == path).count()
    }

    /// Waits for a request that matches, and returns it. Returns at once if one is already in [`Self::requests`].
    pub async fn wait_for_request(&self, matches: impl Fn(&Recorded) -> bool) -> Recorded {
        self.plane.recorder.seen(matches).await
    }
}
