//! What the process is told to do: the validated, typed result of the command line. Each layer takes its own
//! part by value and never sees a flag. Durations are above zero unless their field says otherwise.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// Everything that `serve` needs to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// For `server`.
    pub serving: Serving,
    /// For the listener of `/metrics`.
    pub metrics: Metrics,
    /// For `control`.
    pub control_plane: ControlPlane,
    /// For `access`: who asks.
    pub authentication: Authentication,
    /// For `access`: whether they may.
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
    /// An unspecified address means every interface of both families, as a Go listener takes it.
    pub bind_address: IpAddr,
    /// 0 lets the system choose a free port.
    pub port: u16,
    /// The handshake.
    pub tls: ServingTls,
    /// Whether HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
    /// Bounds the making of one answer; a client's own `timeout` parameter only shortens it.
    pub request_timeout: Duration,
    /// What clients may take of this process.
    pub pressure: RequestLimits,
    /// How often files are looked at for new content.
    pub reload_interval: Duration,
    /// How long connections are accepted and served after a signal to end, while the process is not ready any more; may be
    /// zero.
    pub shutdown_delay: Duration,
}

/// How long clients may keep the process waiting and how many of them there may be at a time. All above zero, unless
/// said otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestLimits {
    /// Bounds a handshake, a request's head once it has begun, a pause in taking an answer, and the taking of an
    /// answer as a whole.
    pub client_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// Most connections at a time.
    pub connections: usize,
    /// Most requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Most requests at a time that are worked on; 0 means no limit.
    pub requests: usize,
}

/// The certificate that is presented and what a handshake may choose.
#[derive(Clone, Debug, PartialEq)]
pub struct ServingTls {
    /// Paths of the certificate chain and of its key; without them a pair is generated.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where a generated pair is kept; `None` keeps it in memory.
    pub cert_dir: Option<PathBuf>,
    /// The oldest version that a handshake may choose.
    pub min_version: TlsVersion,
    /// Names as Go and IANA spell them, unknown ones included; empty means rustls' own choice.
    pub cipher_suites: Vec<String>,
}

/// The oldest TLS version that a client may speak. The names of versions 1.0 and 1.1 are read as 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[value(name = "VersionTLS12", aliases = ["", "VersionTLS10", "VersionTLS11"])]
    Tls12,
    /// TLS 1.3.
    #[value(name = "VersionTLS13")]
    Tls13,
}

/// The plain-HTTP listener of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// `None` turns it off. An unspecified address means every interface of both families.
    pub bind: Option<SocketAddr>,
}

/// The Karmada API server whose clusters are asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlane {
    /// `None`: the kubeconfig of the environment, else the service account of the Pod.
    pub kubeconfig: Option<PathBuf>,
    /// `None`: no limit on the client's side.
    pub rate: Option<RateLimit>,
    /// How long one watch lasts; one that has gone silent is noticed when its time is up.
    pub watch_timeout: Duration,
}

/// A token bucket, one token a request. Both numbers are above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Tokens that it gains in a second.
    pub qps: f32,
    /// Tokens that it holds at most.
    pub burst: u32,
}

/// How a request's user becomes known.
#[derive(Clone, Debug, PartialEq)]
pub struct Authentication {
    /// Where tokens are reviewed and the `ConfigMap` `kube-system/extension-apiserver-authentication` is read.
    pub kubeconfig: Option<PathBuf>,
    /// The authorities of client certificates; `None` takes that key of the `ConfigMap`.
    pub client_ca_file: Option<PathBuf>,
    /// The front proxy; `None` takes all of it from the `ConfigMap`.
    pub request_header: Option<RequestHeader>,
    /// Never read the `ConfigMap`.
    pub skip_lookup: bool,
    /// Start without the `ConfigMap` when it cannot be read.
    pub tolerate_lookup_failure: bool,
    /// How long a token's verdict is kept; zero keeps none.
    pub token_cache_ttl: Duration,
}

/// Whom to believe as a front proxy, and the headers in which it says who asks. Header names are lower case and
/// well formed.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHeader {
    /// The authorities of the proxy's certificate in PEM.
    pub ca_file: PathBuf,
    /// Common names of the proxy's certificate; empty allows every certificate of the authority.
    pub allowed_names: Vec<String>,
    /// The first of them that a request has names the user.
    pub username_headers: Vec<String>,
    /// All that a request has of them name groups.
    pub group_headers: Vec<String>,
    /// What follows the prefix is an extra's key, percent-encoded.
    pub extra_prefixes: Vec<String>,
    /// The first of them that a request has holds the user's uid.
    pub uid_headers: Vec<String>,
}

/// Whether a known user may do what is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// Where access is reviewed.
    pub kubeconfig: Option<PathBuf>,
    /// Paths open to everyone; one that ends in `*` is a prefix, and no other `*` occurs.
    pub always_allow_paths: Vec<String>,
    /// How long a permission is kept; zero keeps none.
    pub allowed_ttl: Duration,
    /// How long a refusal is kept; zero keeps none.
    pub denied_ttl: Duration,
}

/// Which clusters are members, and how they are asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Members {
    /// The kubeconfig whose contexts they are; `None`: the Clusters of the Karmada API server.
    pub fleet_kubeconfig: Option<PathBuf>,
    /// How long an answer waits for each member.
    pub timeout: Duration,
    /// Most connections to one member over HTTP/1.1; above zero.
    pub connections: usize,
    /// Most bytes of one member's body.
    pub body_bytes: usize,
    /// Most bytes that all queries hold at a time, from members' bodies to the answers that clients have not read yet.
    pub inflight_bytes: usize,
    /// How often each member's metric names are read again.
    pub discovery_interval: Duration,
    /// Most bytes that are counted for what members list; above zero.
    pub discovery_bytes: usize,
    /// What becomes of an answer when a member fails.
    pub on_failure: OnMemberFailure,
    /// What is kept to stand in.
    pub last_known: LastKnownConfig,
    /// For each member; `None`: no limit on the client's side.
    pub rate: Option<RateLimit>,
}

/// What becomes of an answer when a member fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnMemberFailure {
    /// A member whose metrics API fails is stood in for by its last reply; one whose API server cannot be reached
    /// is left out. Both are named.
    LastKnown,
    /// It is left out and named.
    Partial,
    /// There is no answer.
    Fail,
}

/// Replies that are kept to stand in for a member's next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastKnownConfig {
    /// How old they may become.
    pub max_age: Duration,
    /// How much memory all of them may take.
    pub bytes: usize,
    /// How long a reply is waited for after the answer has gone without it.
    pub late: Duration,
}

/// How members' answers become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merging {
    /// The label that says which cluster a value came from; `None` turns cluster tags off.
    pub cluster_label: Option<String>,
    /// The rule for objects that several clusters share.
    pub same_name_pods: SameNamePods,
    /// The rules for external metrics by name; those that are not named stay [`ExternalMerge::Each`].
    pub external: BTreeMap<String, ExternalMerge>,
}

/// What becomes of objects that several clusters share: same group, kind, namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SameNamePods {
    /// One item with the sum.
    Sum,
    /// One item with the mean.
    Average,
    /// One item for each cluster; a query by name stays a sum.
    Separate,
}

/// What becomes of series of an external metric that several clusters show with the same labels: the same queue, seen
/// from each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExternalMerge {
    /// One item with the sum.
    Sum,
    /// One item with the largest value.
    Max,
    /// One item with the smallest value.
    Min,
    /// One item with the mean.
    #[value(name = "avg")]
    Average,
    /// One item for each cluster.
    Each,
}

/// What the process writes to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The shape of a line.
    pub format: LogFormat,
    /// The level as klog counts it: 0 is terse, 10 shows everything.
    pub verbosity: i32,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For reading.
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags that are well formed each and cannot hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConflictingFlags {
    /// A certificate is of no use without its key.
    #[error("--tls-cert-file is set without --tls-private-key-file: set both, or neither to generate a pair")]
    CertificateWithoutKey,
    /// A key is of no use without its certificate.
    #[error("--tls-private-key-file is set without --tls-cert-file: set both, or neither to generate a pair")]
    KeyWithoutCertificate,
}
