//! The validated, typed configuration from the command line. Each layer gets its own part by value and does not know any
//! flag. Durations are above zero unless the doc comment of the field allows zero.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// The configuration of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// For `server`.
    pub serving: Serving,
    /// For the listener of `/metrics`.
    pub metrics: Metrics,
    pub control_plane: ControlPlane,
    /// For `access`: authentication.
    pub authentication: Authentication,
    /// For `access`: authorization.
    pub authorization: Authorization,
    /// For `member`, `fleet` and `gather`.
    pub members: Members,
    /// For `merge`.
    pub merging: Merging,
    /// For `process::telemetry`.
    pub logging: Logging,
}

/// The HTTPS listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// `0.0.0.0` and `::` mean all interfaces, IPv4 and IPv6, as in Go's listener.
    pub bind_address: IpAddr,
    /// With 0 the system chooses a free port.
    pub port: u16,
    /// The TLS settings.
    pub tls: ServingTls,
    /// Whether HTTP/2 is offered in addition to HTTP/1.1.
    pub http2: bool,
    /// Deadline for one response. A client's own `timeout` parameter can only shorten it.
    pub request_timeout: Duration,
    /// Limits for clients.
    pub limits: RequestLimits,
    /// How often files are checked for changes.
    pub reload_interval: Duration,
    /// How long new connections and requests are accepted after SIGTERM, while `/readyz` fails. May be zero.
    pub shutdown_delay: Duration,
}

/// Timeouts and limits for clients. All values are above zero, except where a doc comment allows zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestLimits {
    /// Timeout for a TLS handshake, for a request's head after its first byte, for a pause while the client reads a
    /// response, and for reading the whole response.
    pub client_timeout: Duration,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Maximum number of requests in flight; 0 means no limit.
    pub requests: usize,
}

/// The serving certificate, and the allowed TLS versions and cipher suites.
#[derive(Clone, Debug, PartialEq)]
pub struct ServingTls {
    /// Paths of the certificate chain and its key. `None`: a self-signed certificate and its key are generated.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Directory of a generated certificate and its key. `None`: they stay in memory.
    pub cert_dir: Option<PathBuf>,
    /// The minimum TLS version.
    pub min_version: TlsVersion,
    /// Names of Go and IANA, not validated here. Empty: the defaults of rustls.
    pub cipher_suites: Vec<String>,
}

/// The minimum TLS version. The names of versions 1.0 and 1.1 mean 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    #[value(name = "VersionTLS12", aliases = ["", "VersionTLS10", "VersionTLS11"])]
    Tls12,
    #[value(name = "VersionTLS13")]
    Tls13,
}

/// The plain-HTTP listener of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// `None` disables it. `0.0.0.0` and `::` mean all interfaces, IPv4 and IPv6.
    pub bind: Option<SocketAddr>,
}

/// The Karmada API server that has the Cluster objects.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlane {
    /// `None`: the file in `$KUBECONFIG` or `~/.kube/config`, or else the service account of the Pod.
    pub kubeconfig: Option<PathBuf>,
    /// `None`: no client-side rate limit.
    pub rate: Option<RateLimit>,
    /// How long one watch lasts. A watch that hangs is noticed after this time.
    pub watch_timeout: Duration,
}

/// A token bucket. Each request takes one token. Both numbers are above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// New tokens per second.
    pub qps: f32,
    /// Maximum number of tokens.
    pub burst: u32,
}

/// How the user of a request is authenticated.
#[derive(Clone, Debug, PartialEq)]
pub struct Authentication {
    /// The API server for TokenReviews and for the `ConfigMap` `kube-system/extension-apiserver-authentication`.
    pub kubeconfig: Option<PathBuf>,
    /// The CA bundle for client certificates. `None`: the CA bundle in the `ConfigMap`.
    pub client_ca_file: Option<PathBuf>,
    /// The settings of the front proxy. `None`: all of them come from the `ConfigMap`.
    pub request_header: Option<RequestHeader>,
    /// Never read the `ConfigMap`.
    pub skip_lookup: bool,
    /// Start even if the `ConfigMap` cannot be read.
    pub tolerate_lookup_failure: bool,
    /// How long the result of a TokenReview is cached. Zero disables the cache.
    pub token_cache_ttl: Duration,
}

/// The trusted front proxy, and the headers in which it passes the user. Header names are lower case and valid.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHeader {
    /// The CA bundle for the proxy's certificate, in PEM.
    pub ca_file: PathBuf,
    /// Allowed common names of the proxy's certificate. Empty: every certificate of these CAs is allowed.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name. The first one that a request has is used.
    pub username_headers: Vec<String>,
    /// Headers with the user's groups. All of them are used.
    pub group_headers: Vec<String>,
    /// Prefixes of headers with extra fields. The rest of the header's name is the key, percent-encoded.
    pub extra_prefixes: Vec<String>,
    /// Headers with the user's UID. The first one that a request has is used.
    pub uid_headers: Vec<String>,
}

/// How requests of an authenticated user are authorized.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// The API server for SubjectAccessReviews.
    pub kubeconfig: Option<PathBuf>,
    /// Paths that need no authorization. A path that ends in `*` is a prefix. There is no other `*`.
    pub always_allow_paths: Vec<String>,
    /// How long an allowed SubjectAccessReview is cached. Zero disables the cache.
    pub allowed_ttl: Duration,
    /// How long a denied SubjectAccessReview is cached. Zero disables the cache.
    pub denied_ttl: Duration,
}

/// The source of the members, and how they are queried.
#[derive(Clone, Debug, PartialEq)]
pub struct Members {
    /// The kubeconfig with the members as contexts. `None`: the Clusters of the Karmada API server are the members.
    pub fleet_kubeconfig: Option<PathBuf>,
    /// Timeout for each member's response.
    pub timeout: Duration,
    /// Maximum number of HTTP/1.1 connections to one member. Above zero.
    pub connections: usize,
    /// Maximum size of one member's response body, in bytes.
    pub body_bytes: usize,
    /// Memory limit in bytes for all queries in flight, from the members' response bodies to unread responses to clients.
    pub inflight_bytes: usize,
    /// Maximum interval between two reads of each member's metric names.
    pub discovery_interval: Duration,
    /// Memory limit in bytes for the metric names of all members. Above zero.
    pub discovery_bytes: usize,
    /// What to return if a member fails.
    pub on_failure: OnMemberFailure,
    /// Limits of the last-known cache.
    pub last_known: LastKnownConfig,
    /// The rate limit for each member. `None`: no client-side rate limit.
    pub rate: Option<RateLimit>,
}

/// What to return if a member fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnMemberFailure {
    /// If a member's metrics API fails, its last-known values are used. If its API server is unreachable, its values are
    /// left out. A warning names the member in both cases.
    LastKnown,
    /// The values of a failed member are left out. A warning names the member.
    Partial,
    /// The query fails with 503.
    Fail,
}

/// Limits of the last-known cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastKnownConfig {
    /// Maximum age of a cached page.
    pub max_age: Duration,
    /// Memory limit in bytes for all cached pages.
    pub bytes: usize,
    /// How long to wait for a late response of a member after the client got its response.
    pub late: Duration,
}

/// How the members' pages are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merging {
    /// The label with the cluster of a value. `None` disables this label.
    pub cluster_label: Option<String>,
    /// The rule for objects with the same group, kind, namespace and name in several clusters.
    pub same_name_pods: SameNamePods,
    /// The rules for external metrics, by metric name. The default is [`ExternalMerge::Each`].
    pub external: BTreeMap<String, ExternalMerge>,
}

/// How to merge objects with the same group, kind, namespace and name in several clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SameNamePods {
    /// One item with the sum of the values.
    Sum,
    /// One item with the mean of the values.
    Average,
    /// One item for each cluster. A query by name still returns the sum.
    Separate,
}

/// How to merge series of an external metric that have the same labels in several clusters, such as one queue that every
/// cluster reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExternalMerge {
    /// One item with the sum of the values.
    Sum,
    /// One item with the largest value.
    Max,
    /// One item with the smallest value.
    Min,
    /// One item with the mean of the values.
    #[value(name = "avg")]
    Average,
    /// One item for each cluster.
    Each,
}

/// Logs on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The format of a line.
    pub format: LogFormat,
    /// klog's level: 0 logs least, 10 logs everything.
    pub verbosity: i32,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Valid flags that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConflictingFlags {
    /// A certificate without its key.
    #[error(
        "--tls-cert-file without --tls-private-key-file: set both, or neither for a self-signed certificate"
    )]
    CertificateWithoutKey,
    /// A key without its certificate.
    #[error(
        "--tls-private-key-file without --tls-cert-file: set both, or neither for a self-signed certificate"
    )]
    KeyWithoutCertificate,
}

/// The part of a request's deadline in which members must respond: 90 %. The rest is for merging and for sending the
/// response, so that only a late member's own values are missing.
#[must_use]
pub fn member_share(request_time: Duration) -> Duration {
    request_time / 10 * 9
}
