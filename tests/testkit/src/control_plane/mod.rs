//! A simulated Karmada control plane: an API server over HTTPS with the objects that the adapter watches,
//! reviews, discovery and the aggregation layer.
//!
//! It answers as kube-apiserver 1.36 does without the WatchList feature, and says that it is 1.31, a version that is near
//! enough to every kubectl that is tried with it.

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
use crate::https::{self, HTTP_VERSIONS, Handler, Line, Server};
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

/// The one common name that the front proxy's certificates have.
const FRONT_PROXY: &str = "front-proxy-client";

/// A running control plane; it stops when dropped.
pub struct ControlPlane {
    plane: Arc<Plane>,
    server: Server,
    directory: TempDir,
    serving_authority: Authority,
    client_authority: Authority,
    front_proxy_authority: Authority,
    front_proxy: Identity,
    /// What keeps each APIService's condition and its backend's discovery.
    tasks: Mutex<BTreeMap<String, Vec<AbortOnDropHandle<()>>>>,
}

/// What requests share.
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

/// Life and identities.
impl ControlPlane {
    /// Starts a control plane without members on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If there is no port or no temporary directory.
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
            directory: tempfile::tempdir().context("no directory for kubeconfigs")?,
            front_proxy: front_proxy_authority.client(FRONT_PROXY, &[]),
            serving_authority,
            client_authority,
            front_proxy_authority,
            tasks: Mutex::default(),
        };
        started.bootstrap()?;
        Ok(started)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// A directory of its own, removed when it stops.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The authority of its serving certificate, PEM.
    pub fn ca_pem(&self) -> String {
        self.serving_authority.pem()
    }

    /// The authority of client certificates, PEM: the adapter's `--client-ca-file`.
    pub fn client_ca_pem(&self) -> String {
        self.client_authority.pem()
    }

    /// The authority of the front proxy's certificate, PEM.
    pub fn front_proxy_ca_pem(&self) -> String {
        self.front_proxy_authority.pem()
    }

    /// The certificate with which the aggregation layer calls backends.
    pub fn front_proxy_identity(&self) -> Identity {
        self.front_proxy.clone()
    }

    /// A certificate of the front proxy's authority under another name.
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

    /// An HTTPS client that may do everything.
    pub fn admin_client(&self) -> ApiClient {
        self.client(Credentials::Certificate(&self.client_identity("admin", &["system:masters"])))
    }

    /// A kubeconfig with a client certificate in it; the file is written once and stays as it is.
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

    /// A kubeconfig that may do everything.
    ///
    /// # Errors
    /// As [`ControlPlane::kubeconfig`].
    pub fn admin_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig("admin", &["system:masters"])
    }

    /// The adapter's kubeconfig: it reads clusters, Secrets and ConfigMaps, and creates reviews.
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
    /// Creates or replaces an object, whatever is in it besides `apiVersion`, `kind` and a name.
    ///
    /// # Errors
    /// If the type is not stored here or the name is missing.
    pub fn apply(&self, object: Value) -> anyhow::Result<Arc<Value>> {
        let (api_version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let resource = api_version.zip(kind).and_then(|(version, kind)| Resource::of_object(version, kind));
        let resource = resource.ok_or_else(|| anyhow!("{api_version:?} {kind:?} is not stored here"))?;
        Ok(self.plane.store.write(resource, object, Mode::Apply)?)
    }

    /// Deletes an object at once, finalizers or not; false if there is none. `namespace` is empty for
    /// `Cluster`.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let resource = STORED.into_iter().find(|resource| resource.kind == kind);
        resource.is_some_and(|resource| self.plane.store.delete(resource, namespace, name).is_some())
    }

    /// An object as it is now.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let resource = STORED.into_iter().find(|resource| resource.kind == kind)?;
        self.plane.store.object(resource, namespace, name)
    }

    /// Joins a member cluster, or changes one that has joined.
    ///
    /// # Errors
    /// If it has no name.
    pub fn join(&self, member: &MemberSpec) -> anyhow::Result<()> {
        for object in member.objects() {
            self.apply(object)?;
        }
        Ok(())
    }

    /// Sets a member's Ready condition; nothing happens if it has not joined.
    pub fn set_ready(&self, name: &str, ready: bool) {
        if let Some(cluster) = self.plane.store.object(&CLUSTERS, "", name) {
            let mut cluster = Value::clone(&cluster);
            cluster["status"] = json!({"conditions": [joining::ready_condition(ready)]});
            self.plane.store.write(&CLUSTERS, cluster, Mode::Apply).expect("it is the object that was there");
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
    /// Throws the history away: running watches expire, and older revisions are gone.
    pub fn compact(&self) {
        self.plane.store.compact();
    }

    /// Breaks all running watches off.
    pub fn drop_watches(&self) {
        self.plane.watches.drop_all();
    }

    /// Lets watches stay open and silent, also past their time; when it ends they catch up.
    pub fn silence_watches(&self, silent: bool) {
        self.plane.watches.silence(silent);
    }

    /// Lets the watches that are open now never say or end anything again.
    pub fn stall_watches(&self) {
        self.plane.watches.stall();
    }

    /// Answers a watch that starts at a revision whose history is gone with the 410 itself, as before the watch cache;
    /// kube-apiserver begins it with an ERROR event.
    pub fn refuse_gone_watches(&self) {
        self.plane.watches.refuse_gone();
    }

    /// Sends a bookmark to every watch that allows them.
    pub fn send_bookmarks(&self) {
        self.plane.watches.bookmark();
    }

    /// Lets every list be empty, as from an API server that has lost its storage.
    pub fn empty_lists(&self, empty: bool) {
        self.plane.empty_lists.store(empty, Ordering::Relaxed);
    }

    /// Cuts, freezes or restores the line.
    pub fn set_line(&self, line: Line) {
        self.server.set_line(line);
    }

    /// Cuts all connections, refuses new ones until nobody can connect, and then serves again.
    pub async fn restart(&self) {
        self.set_line(Line::Refused);
        while TcpStream::connect(self.address()).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        self.set_line(Line::Open);
        while TcpStream::connect(self.address()).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Who may do what, and what was asked.
impl ControlPlane {
    /// Makes a bearer token valid.
    pub fn add_token(&self, token: &str, user: &str, groups: &[&str]) {
        self.plane.access.add_token(token, user, groups);
    }

    /// Makes a bearer token invalid.
    pub fn remove_token(&self, token: &str) {
        self.plane.access.remove_token(token);
    }

    /// Allows a user or group `verbs` on `resources` (`pods`, `pods/http_requests`) of an API group; `*`
    /// stands for all of them.
    pub fn allow(&self, subject: &str, verbs: &[&str], group: &str, resources: &[&str]) {
        self.plane.access.grant(subject, verbs, group, resources);
    }

    /// Allows a user or group what the rules of a Role (in its namespace) or a ClusterRole say, as a binding does.
    pub fn bind(&self, subject: &str, role: &Value) {
        self.plane.access.bind(subject, role);
    }

    /// What a user or group was allowed and has not needed, as `watch secrets`.
    pub fn unused(&self, subject: &str) -> Vec<String> {
        self.plane.access.unused(subject)
    }

    /// Takes back all that was allowed to a user or group.
    pub fn revoke(&self, subject: &str) {
        self.plane.access.revoke(subject);
    }

    /// Lets TokenReviews and SubjectAccessReviews fail with a status; none ends it.
    pub fn fail_reviews(&self, status: Option<StatusCode>) {
        self.plane.reviews.fail(status);
    }

    /// Delays TokenReviews and SubjectAccessReviews.
    pub fn delay_reviews(&self, delay: Duration) {
        self.plane.reviews.delay(delay);
    }

    /// The reviews that were asked for, oldest first (the last 4,096).
    pub fn reviews(&self) -> Vec<Review> {
        self.plane.reviews.received()
    }

    /// Forgets the reviews so far.
    pub fn clear_reviews(&self) {
        self.plane.reviews.clear();
    }

    /// The requests that arrived, oldest first (the last 16,384).
    pub fn requests(&self) -> Vec<Recorded> {
        self.plane.recorder.all()
    }

    /// How many of them have this verb (`get`, `list`, `watch`, …) and path.
    pub fn count(&self, verb: &str, path: &str) -> usize {
        self.requests().iter().filter(|request| request.verb == verb && request.path == path).count()
    }

    /// Waits until a request has arrived that matches, and returns it; at once if it is among
    /// [`Self::requests`].
    pub async fn seen(&self, matches: impl Fn(&Recorded) -> bool) -> Recorded {
        self.plane.recorder.seen(matches).await
    }
}
