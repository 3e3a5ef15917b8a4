//! A simulated member cluster: an API server with a prometheus-adapter and a metrics-server behind it.
//!
//! It answers as the recorded real one (`tests/contract/real/members.json`) in JSON and in protobuf, from values that a
//! test sets, from scripted answers, or from the sample application of [`crate::app`]; and it falls ill on command.

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
use crate::https::{self, HTTP_VERSIONS, Line, Peer, Server};
use crate::pki::{self, Authority, Identity};

/// A running member cluster; it stops when dropped.
pub struct Member {
    state: Arc<State>,
    server: Server,
    authority: Mutex<Authority>,
    clients: Authority,
    identity: Mutex<Identity>,
    flawed: AtomicBool,
    connections_before: AtomicUsize,
}

/// What kind of API server a member has.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// The versions of the custom metrics API; without any there is no such API.
    pub versions: Vec<Version>,
    /// Whether there is a metrics-server, and so the resource metrics API.
    pub resource_metrics: bool,
    /// Who serves the external metrics API.
    pub external_metrics: ExternalMetrics,
    /// The formats that are served.
    pub formats: Formats,
    /// The protocols that are offered in the TLS handshake.
    pub protocols: Protocols,
    /// The path that every request must begin with, `/k8s/clusters/c-1` for an API server behind a proxy; or empty.
    pub path_prefix: String,
}

/// Who serves a member's external metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalMetrics {
    /// Nobody: there is no such API.
    Absent,
    /// prometheus-adapter, whose discovery lists every metric.
    PrometheusAdapter,
    /// KEDA's metrics server, whose discovery lists a placeholder.
    Keda,
}

/// The encodings that a member serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// JSON and protobuf, the first that the client lists.
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

    /// Adds ready pods `sample-app-{member}-0001`… of the namespace `default`, labelled `app=sample-app`, each with a
    /// value of `metric` and with cpu and memory that its container `app` uses.
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

    /// Adds nodes `{member}-node-1`… with cpu and memory that they use, labelled with their names as
    /// `kubernetes.io/hostname`.
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

    /// How to reach it now.
    pub fn access(&self) -> Access {
        Access {
            name: self.name().to_owned(),
            endpoint: format!("https://{}{}", self.server.address(), self.state.options.path_prefix),
            ca_pem: self.authority().pem(),
            token: self.token(),
        }
    }

    /// The newest token that it accepts.
    pub fn token(&self) -> String {
        self.state.tokens().current.clone()
    }

    /// Accepts another token from now on, and no longer the old one.
    pub fn rotate_token(&self) -> String {
        let token = new_token();
        *self.state.tokens() = Tokens { current: token.clone(), previous: None };
        token
    }

    /// Accepts another token from now on, and still the one before it, as Kubernetes does until that expires.
    pub fn rotate_token_keeping_old(&self) -> String {
        let token = new_token();
        let mut tokens = self.state.tokens();
        tokens.previous = Some(std::mem::replace(&mut tokens.current, token.clone()));
        token
    }

    /// A client certificate that it accepts in place of a token.
    pub fn client_certificate(&self) -> Identity {
        self.clients.client("metrics-adapter", &[])
    }

    /// Whether a request has come with the newest token.
    pub fn is_asked_with_newest_token(&self) -> bool {
        let newest = self.token();
        let requests = self.state.traffic.requests();
        requests.iter().rev().any(|request| serve::bearer(&request.headers) == Some(&newest))
    }

    /// Waits until it is so.
    pub async fn asked_with_newest_token(&self) {
        self.until(|_| self.is_asked_with_newest_token()).await;
    }

    /// Makes another authority, which signs the certificate from [`Member::renew_certificate`] on, and returns it.
    pub fn rotate_authority(&self) -> String {
        let authority = Authority::new(&format!("{}-ca", self.name()));
        let pem = authority.pem();
        *self.authority() = authority;
        pem
    }

    /// Shows a certificate of its present authority to new connections, and returns it; open ones are left alone.
    pub fn renew_certificate(&self) -> String {
        let identity = self.authority().server(&HOST_NAMES);
        self.adopt(identity)
    }

    /// Shows new connections a certificate that is its own authority, and returns it.
    pub fn sign_itself(&self) -> String {
        self.adopt(Identity::self_signed(&HOST_NAMES))
    }

    /// What is in the cluster.
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

    /// Answers requests with the right token to this path and query always like this. Paths are compared decoded and
    /// without the parameter `timeout`; the path prefix does not belong to them.
    pub fn answer(&self, path_and_query: &str, answer: ScriptedAnswer) {
        self.state.script.set(path_and_query, answer);
    }

    /// Answers every query of a path (decoded) with the same list, whatever its parameters. The list is encoded once in each
    /// format, so that an answer costs a benchmark's member as little as possible.
    pub fn answer_list(&self, path: &str, encode: impl Fn(Format) -> Vec<u8>) {
        self.state.script.set_list(path, encode);
    }

    /// Forgets the scripted answers.
    pub fn clear_answers(&self) {
        self.state.script.clear();
    }

    /// Makes the whole member ill, in place of what it had as a whole before.
    pub fn fault(&self, fault: Fault) {
        self.faults().unset("");
        if !matches!(fault, Fault::BadCertificate(_)) {
            self.certify();
        }
        if !matches!(fault, Fault::Refused | Fault::Frozen) {
            self.server.set_line(Line::Open);
        }
        self.fault_on("", fault);
    }

    /// Makes the paths ill that start with `prefix` (decoded, without the member's own path prefix); the longest prefix
    /// decides. Faults of the line and the certificate are always the whole member's.
    pub fn fault_on(&self, prefix: &str, fault: Fault) {
        match fault {
            Fault::Refused => self.server.set_line(Line::Refused),
            Fault::Frozen => self.server.set_line(Line::Frozen),
            Fault::BadCertificate(flaw) => {
                self.flawed.store(true, Ordering::Relaxed);
                self.present(&self.flawed_identity(flaw));
            }
            fault => self.faults().set(prefix, fault),
        }
    }

    /// Ends all faults. Requests that hang keep hanging.
    pub fn heal(&self) {
        self.faults().clear();
        self.server.set_line(Line::Open);
        self.certify();
    }

    /// The requests so far, the oldest first (the last 2,000 are kept; [`Member::counters`] counts all).
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state.traffic.requests().iter().cloned().collect()
    }

    /// The requests whose raw path and query start with `prefix`.
    pub fn requests_to(&self, prefix: &str) -> Vec<RecordedRequest> {
        let requests = self.state.traffic.requests();
        requests.iter().filter(|request| request.path_and_query.starts_with(prefix)).cloned().collect()
    }

    /// The connections that were accepted so far.
    pub fn connections(&self) -> usize {
        self.server.connections() - self.connections_before.load(Ordering::Relaxed)
    }

    /// The connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.server.open_connections()
    }

    /// The numbers now.
    pub fn counters(&self) -> Counters {
        *self.state.traffic.counters().borrow()
    }

    /// Requests whose answer has not been sent completely.
    pub fn in_flight(&self) -> usize {
        self.counters().in_flight
    }

    /// Starts all counts at nothing, save that of the requests in flight.
    pub fn reset_counters(&self) {
        self.connections_before.store(self.server.connections(), Ordering::Relaxed);
        self.state.traffic.reset();
    }

    /// Waits for the first request since the last reset, at once if it has arrived already.
    pub async fn arrived(&self) {
        self.until(|counters| counters.requests > 0).await;
    }

    /// Waits for the first request since the last reset whose raw path starts with `prefix`.
    pub async fn arrived_at(&self, prefix: &str) {
        self.until(|_| !self.requests_to(prefix).is_empty()).await;
    }

    /// Waits until the numbers are as wanted: `|counters| counters.cancelled == 1`.
    pub async fn until(&self, wanted: impl Fn(&Counters) -> bool) -> Counters {
        let mut counters = self.state.traffic.counters();
        *counters.wait_for(|counters| wanted(counters)).await.expect("the sender lives as long as the member")
    }

    /// Shows another certificate to new connections, also after it is healed.
    fn adopt(&self, identity: Identity) -> String {
        self.offer(&identity);
        let certificate = identity.certificate.clone();
        *self.identity() = identity;
        certificate
    }

    /// Shows its own certificate again, if it showed another.
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
        self.authority.lock().expect("no holder panics")
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().expect("no holder panics")
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.state.faults.lock().expect("no holder panics")
    }

    /// Shows another certificate, also to the clients that are connected now: their connections are cut.
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
