//! A simulated member cluster: an API server with prometheus-adapter and metrics-server.
//!
//! The member responds like the recorded real one (`tests/contract/real/members.json`), in JSON and in protobuf. Its values
//! come from the test, from scripted responses, or from the sample application of [`crate::app`]. A test can inject faults.

mod access;
mod cluster_api;
mod custom_metrics;
mod external_metrics;
mod fault;
mod registrations;
mod resource_metrics;
mod script;
mod serve;
mod store;
mod traffic;
pub mod wire;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;

pub use self::access::Access;
use self::fault::Faults;
pub use self::fault::{Fault, Flaw};
pub use self::registrations::Registration;
use self::registrations::Registrations;
pub use self::script::{RecordedAnswer, ScriptedAnswer, contract_directory, recorded_answers};
use self::serve::{State, Tokens};
pub use self::store::{Labels, Pod, Resource, Series, Store};
pub use self::traffic::{Counters, RecordedRequest};
use self::wire::{ExternalMetricValue, Format, NodeMetrics, PodMetrics, Version};
use crate::https::{self, HTTP_VERSIONS, Network, Peer, Server};
use crate::pki::{self, Authority, Identity};

/// A running member cluster. Drop stops it.
pub struct Member {
    state: Arc<State>,
    server: Server,
    authority: Mutex<Authority>,
    clients: Authority,
    identity: Mutex<Identity>,
    flawed: AtomicBool,
    connections_before: AtomicUsize,
}

/// Options of a member's API server.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// The versions of the custom metrics API. If empty, the API does not exist.
    pub versions: Vec<Version>,
    /// Whether metrics-server, and so the resource metrics API, exists.
    pub resource_metrics: bool,
    /// The server of the external metrics API.
    pub external_metrics: ExternalMetrics,
    /// The formats of responses.
    pub formats: Formats,
    /// The protocols that the TLS handshake offers.
    pub protocols: Protocols,
    /// The path that every request must begin with, for example `/k8s/clusters/c-1` for an API server behind a proxy. May be
    /// empty.
    pub path_prefix: String,
}

/// The server of a member's external metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalMetrics {
    /// None: the API does not exist.
    Absent,
    /// prometheus-adapter. Its discovery lists every metric.
    PrometheusAdapter,
    /// KEDA's metrics server. Its discovery lists a placeholder.
    Keda,
}

/// The formats that a member serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// JSON and protobuf: the first supported one in the client's `Accept`.
    Both,
    /// JSON only.
    Json,
}

/// The protocols that a member speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/2 only.
    Http2,
    /// HTTP/1.1 only.
    Http1,
}

impl Member {
    /// Starts an empty cluster with all APIs, versions, formats and protocols.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, MemberOptions::default()).await
    }

    /// Starts an empty cluster.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start_with(name: &str, options: MemberOptions) -> anyhow::Result<Self> {
        let authority = Authority::new(&format!("{name}-ca"));
        let identity = authority.server(&HOST_NAMES);
        let clients = Authority::new(&format!("{name}-client-ca"));
        let tls = https::tls(&identity, Some(pki::roots(&clients.pem())?), options.protocols.alpn())?;
        let state = Arc::new(State {
            name: name.to_owned(),
            options,
            tokens: Mutex::new(Tokens { current: new_token(), previous: None }),
            store: Arc::new(Store::new()),
            faults: Mutex::default(),
            script: script::Script::default(),
            registrations: Registrations::default(),
            traffic: Arc::default(),
        });
        let handler = state.clone();
        let handler = Arc::new(move |request, peer: Arc<Peer>| {
            let state = handler.clone();
            async move { serve::serve(state, request, &peer).await }.boxed()
        });
        let server = Server::start(tls, handler).await?;
        Ok(Self {
            state,
            server,
            authority: Mutex::new(authority),
            clients,
            identity: Mutex::new(identity),
            flawed: AtomicBool::new(false),
            connections_before: AtomicUsize::new(0),
        })
    }

    /// Adds ready pods `sample-app-{member}-0001`… in the namespace `default`, labelled `app=sample-app`. Each has a value of
    /// `metric` and CPU and memory usage of its container `app`.
    #[must_use]
    pub fn with_pods(self, metric: &str, count: usize) -> Self {
        for number in 1..=count {
            let name = format!("sample-app-{}-{number:04}", self.name());
            self.store().set_pod(Pod::running("default", &name, &[("app", "sample-app")]));
            let value = format!("{}m", 1 + number * 37 % 999);
            let series = Series::new(Resource::PODS, Some("default"), &name, metric, &value);
            self.set_metric(series.object_label("app", "sample-app"));
            let cpu = format!("{}n", 1_000_000 + number * 12_345_679 % 999_999_937);
            let usage = PodMetrics::new("default", &name, &cpu, &format!("{}Mi", 20 + number % 480));
            self.store().set_pod_usage(usage.label("app", "sample-app"));
        }
        self
    }

    /// Adds nodes `{member}-node-1`… with CPU and memory usage. The label `kubernetes.io/hostname` of each is its name.
    #[must_use]
    pub fn with_nodes(self, count: usize) -> Self {
        for number in 1..=count {
            let name = format!("{}-node-{number}", self.name());
            let cpu = format!("{}m", 100 + number * 37 % 3900);
            let usage = NodeMetrics::new(&name, &cpu, &format!("{}Mi", 1024 + number % 7168));
            self.store().set_node_usage(usage.label("kubernetes.io/hostname", &name));
        }
        self
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The current address and credentials.
    pub fn access(&self) -> Access {
        Access {
            name: self.name().to_owned(),
            endpoint: format!("https://{}{}", self.server.address(), self.state.options.path_prefix),
            ca_pem: self.authority().pem(),
            token: self.token(),
        }
    }

    /// The newest accepted token.
    pub fn token(&self) -> String {
        self.state.tokens().current.clone()
    }

    /// Replaces the accepted token. The old token is rejected from now on.
    pub fn rotate_token(&self) -> String {
        let token = new_token();
        *self.state.tokens() = Tokens { current: token.clone(), previous: None };
        token
    }

    /// Adds a new accepted token. The previous token is accepted too, as in Kubernetes until it expires.
    pub fn rotate_token_keeping_old(&self) -> String {
        let token = new_token();
        let mut tokens = self.state.tokens();
        tokens.previous = Some(std::mem::replace(&mut tokens.current, token.clone()));
        token
    }

    /// A client certificate that the member accepts instead of a token.
    pub fn client_certificate(&self) -> Identity {
        self.clients.client("metrics-adapter", &[])
    }

    /// Whether a request with the newest token has arrived.
    pub fn is_queried_with_newest_token(&self) -> bool {
        let newest = self.token();
        let requests = self.state.traffic.requests();
        requests.iter().rev().any(|request| serve::bearer(&request.headers) == Some(&newest))
    }

    /// Waits for a request with the newest token.
    pub async fn queried_with_newest_token(&self) {
        self.until(|_| self.is_queried_with_newest_token()).await;
    }

    /// Creates a new CA and returns its certificate. It signs certificates from the next [`Member::renew_certificate`] on.
    pub fn rotate_authority(&self) -> String {
        let authority = Authority::new(&format!("{}-ca", self.name()));
        let pem = authority.pem();
        *self.authority() = authority;
        pem
    }

    /// Presents a new certificate of the current CA to new connections and returns it. Open connections stay open.
    pub fn renew_certificate(&self) -> String {
        let identity = self.authority().server(&HOST_NAMES);
        self.adopt(identity)
    }

    /// Presents a self-signed certificate to new connections and returns it.
    pub fn sign_itself(&self) -> String {
        self.adopt(Identity::self_signed(&HOST_NAMES))
    }

    /// The contents of the cluster.
    pub fn store(&self) -> &Arc<Store> {
        &self.state.store
    }

    /// Sets the value of a series.
    pub fn set_metric(&self, series: Series) {
        self.state.store.set_metric(series);
    }

    /// Sets the value of an external metric's series.
    pub fn set_external_metric(&self, namespace: &str, value: ExternalMetricValue) {
        self.state.store.set_external_metric(namespace, value);
    }

    /// Sets the response to requests with a valid token for this path and query. Paths are compared decoded, without the
    /// parameter `timeout` and without the path prefix.
    pub fn answer(&self, path_and_query: &str, answer: ScriptedAnswer) {
        self.state.script.set(path_and_query, answer);
    }

    /// Responds to every query of a path (decoded) with the same list, regardless of the parameters. The list is encoded once
    /// in each format, so that a response costs a member of a benchmark little CPU.
    pub fn answer_list(&self, path: &str, encode: impl Fn(Format) -> Vec<u8>) {
        self.state.script.set_list(path, encode);
    }

    /// Removes the scripted responses.
    pub fn clear_answers(&self) {
        self.state.script.clear();
    }

    /// Sets the fault of the whole member. Replaces its previous fault.
    pub fn fault(&self, fault: Fault) {
        self.faults().unset("");
        if !matches!(fault, Fault::BadCertificate(_)) {
            self.certify();
        }
        if !matches!(fault, Fault::Refused | Fault::Frozen) {
            self.server.set_network(Network::Open);
        }
        self.fault_on("", fault);
    }

    /// Sets a fault for the paths that start with `prefix` (decoded, without the member's own path prefix). The longest prefix
    /// wins. Faults of the network and of the certificate always affect the whole member.
    pub fn fault_on(&self, prefix: &str, fault: Fault) {
        match fault {
            Fault::Refused => self.server.set_network(Network::Refused),
            Fault::Frozen => self.server.set_network(Network::Frozen),
            Fault::BadCertificate(flaw) => {
                self.flawed.store(true, Ordering::Relaxed);
                self.present(&self.flawed_identity(flaw));
            }
            fault => self.faults().set(prefix, fault),
        }
    }

    /// Removes all faults. Requests that already hang stay so.
    pub fn clear_faults(&self) {
        self.faults().clear();
        self.server.set_network(Network::Open);
        self.certify();
    }

    /// The requests so far, oldest first. Only the last 2,000 are kept; [`Member::counters`] counts all.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state.traffic.requests().iter().cloned().collect()
    }

    /// The kept requests with a raw path and query that start with `prefix`.
    pub fn requests_to(&self, prefix: &str) -> Vec<RecordedRequest> {
        let requests = self.state.traffic.requests();
        requests.iter().filter(|request| request.path_and_query.starts_with(prefix)).cloned().collect()
    }

    /// The number of accepted connections since the start or the last reset.
    pub fn connections(&self) -> usize {
        self.server.connections() - self.connections_before.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        self.server.open_connections()
    }

    /// The current numbers.
    pub fn counters(&self) -> Counters {
        *self.state.traffic.counters().borrow()
    }

    /// The number of requests in flight: the response has not been sent completely.
    pub fn in_flight(&self) -> usize {
        self.counters().in_flight
    }

    /// Sets all counts to 0, except the count of requests in flight.
    pub fn reset_counters(&self) {
        self.connections_before.store(self.server.connections(), Ordering::Relaxed);
        self.state.traffic.reset();
    }

    /// Waits for the first request since the last reset. Returns at once if a request has already arrived.
    pub async fn arrived(&self) {
        self.until(|counters| counters.requests > 0).await;
    }

    /// Waits for the first request since the last reset with a raw path that starts with `prefix`.
    pub async fn arrived_at(&self, prefix: &str) {
        self.until(|_| !self.requests_to(prefix).is_empty()).await;
    }

    /// Waits until the numbers match `wanted`, for example `|counters| counters.cancelled == 1`.
    pub async fn until(&self, wanted: impl Fn(&Counters) -> bool) -> Counters {
        let mut counters = self.state.traffic.counters();
        *counters.wait_for(|counters| wanted(counters)).await.expect("the sender lives as long as the member")
    }

    /// Presents another certificate to new connections. It stays the member's own certificate when faults are removed.
    fn adopt(&self, identity: Identity) -> String {
        self.offer(&identity);
        let certificate = identity.certificate.clone();
        *self.identity() = identity;
        certificate
    }

    /// Presents the member's own certificate again, if a fault had replaced it.
    fn certify(&self) {
        if self.flawed.swap(false, Ordering::Relaxed) {
            let identity = self.identity().clone();
            self.present(&identity);
        }
    }

    fn flawed_identity(&self, flaw: Flaw) -> Identity {
        match flaw {
            Flaw::OtherAuthority => Authority::new(&format!("{}-ca", self.name())).server(&HOST_NAMES),
            Flaw::WrongName => self.authority().server(&["elsewhere.example"]),
            Flaw::Expired => self.authority().expired_server(&HOST_NAMES),
            Flaw::NotYetValid => self.authority().future_server(&HOST_NAMES),
        }
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().expect("not poisoned")
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().expect("not poisoned")
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.state.faults.lock().expect("not poisoned")
    }

    /// Presents another certificate to all clients: the open connections are cut.
    fn present(&self, identity: &Identity) {
        self.offer(identity);
        self.server.cut();
    }

    fn offer(&self, identity: &Identity) {
        let clients = pki::roots(&self.clients.pem()).expect("the kit's certificates are valid");
        let tls = https::tls(identity, Some(clients), self.state.options.protocols.alpn());
        self.server.set_tls(tls.expect("the key belongs to the certificate"));
    }
}

impl Protocols {
    fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Both => &HTTP_VERSIONS,
            Self::Http2 => &["h2"],
            Self::Http1 => &["http/1.1"],
        }
    }
}

impl Default for MemberOptions {
    fn default() -> Self {
        Self {
            versions: vec![Version::V1Beta1, Version::V1Beta2],
            resource_metrics: true,
            external_metrics: ExternalMetrics::PrometheusAdapter,
            formats: Formats::Both,
            protocols: Protocols::Both,
            path_prefix: String::new(),
        }
    }
}

const HOST_NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

fn new_token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
