//! The flags that mean something here, grouped as help shows them, and what each group amounts to.

// Help would show what is said of a group.
#![allow(clippy::missing_docs_in_private_items)]

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{self, ExternalMergeFlag, ListFlag};
use crate::config::{
    self, ConflictingFlags, LogFormat, OnMemberFailure, RateLimit, SameNamePods, TlsVersion,
};

/// The reference's rate for whichever half of a rate is left out while the other is given.
const DEFAULT_QPS: f32 = 40.0;
const DEFAULT_BURST: u32 = 60;
/// What Go's HTTP/2 server allows by default.
const DEFAULT_STREAMS: u32 = 250;

#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct ServingFlags {
    /// Address to listen on; an unspecified one (0.0.0.0 or ::) means all interfaces, IPv4 and IPv6
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", value_parser = values::ip)]
    bind_address: IpAddr,
    /// Port of HTTPS; 0 lets the system choose a free one, which the log names
    #[arg(long, value_name = "PORT", default_value = "443", value_parser = values::port)]
    secure_port: u16,
    /// Certificate chain in PEM, read again when it changes; without one, a self-signed pair is generated into
    /// --cert-dir
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<OsString>,
    /// Private key of --tls-cert-file in PEM
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<OsString>,
    /// Directory of a generated pair, which the next start uses again; empty keeps it in memory
    #[arg(long, value_name = "DIR", default_value = "apiserver.local.config/certificates")]
    cert_dir: OsString,
    /// Oldest TLS version to speak: VersionTLS12 or VersionTLS13 (VersionTLS10 and VersionTLS11 mean VersionTLS12)
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12", hide_possible_values = true)]
    tls_min_version: TlsVersion,
    /// TLS 1.2 suites to allow, by their IANA names (those of TLS 1.3 are always allowed); without any, all that are
    /// safe
    #[arg(long, value_name = "SUITES", value_parser = values::list)]
    tls_cipher_suites: Vec<ListFlag>,
    /// Offer clients HTTP/1.1 only
    #[arg(long)]
    disable_http2_serving: bool,
    /// Longest time to make one answer, after which it is a 504; a client's own timeout parameter can only be shorter
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::time_span)]
    request_timeout: Duration,
    /// How long a client may take for a handshake, for a request's head and for taking its answer, before it is cut
    /// off
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::time_span)]
    client_timeout: Duration,
    /// How long a client's connection may be without a request before it is closed
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = values::time_span)]
    idle_timeout: Duration,
    /// Most connections of clients at a time; when one more comes, the one that has been idle longest is closed first
    #[arg(long, value_name = "NUMBER", default_value = "1024", value_parser = values::count)]
    max_connections: usize,
    /// Most requests at a time on one HTTP/2 connection of a client; 0 means 250
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = values::streams)]
    http2_max_streams_per_connection: u32,
    /// Most queries to work on at a time, beyond which the answer is 429, but never for probes, discovery and
    /// system:masters; 0 means no limit
    #[arg(long, value_name = "NUMBER", default_value = "400", value_parser = values::limit)]
    max_requests_inflight: usize,
    /// How often certificates, authorities and kubeconfigs are looked at for new content, which is used without a
    /// restart
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::time_span)]
    reload_interval: Duration,
    /// How long requests and new connections are still served after SIGTERM, while /readyz fails, so that load balancers
    /// notice; with 20s for requests in progress after that, it has to be less than terminationGracePeriodSeconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    shutdown_delay_duration: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsFlags {
    /// Address of the plain-HTTP /metrics; 0 or empty turns it off
    #[arg(long, value_name = "HOST:PORT", default_value = ":8080", value_parser = values::metrics_address)]
    metrics_bind_address: values::MetricsAddress,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Control plane")]
pub struct ControlPlaneFlags {
    /// Kubeconfig of the Karmada API server, whose Cluster objects are the members; without one, the environment's
    /// kubeconfig or else the Pod's service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Requests a second to the API server of --kubeconfig, beyond which they wait; unset means no limit (40 beside
    /// --kube-api-burst), and so does 0
    #[arg(long, value_name = "NUMBER", value_parser = values::float)]
    kube_api_qps: Option<f32>,
    /// Requests at once before --kube-api-qps holds; unset means 60
    #[arg(long, value_name = "NUMBER", value_parser = values::int)]
    kube_api_burst: Option<i64>,
    /// How long one watch of the control plane lasts until the next begins; one that is silent on a connection that
    /// lives is noticed when its time is up
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::time_span)]
    watch_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationFlags {
    /// Kubeconfig of the API server that reviews tokens and holds the ConfigMap
    /// kube-system/extension-apiserver-authentication; without one, as for --kubeconfig
    #[arg(long, value_name = "FILE")]
    authentication_kubeconfig: Option<OsString>,
    /// Do not read that ConfigMap: only --client-ca-file and --requestheader-client-ca-file say whom to believe
    #[arg(long)]
    authentication_skip_lookup: bool,
    /// Start even when that ConfigMap cannot be read; it counts as soon as it can be
    #[arg(long)]
    authentication_tolerate_lookup_failure: bool,
    /// How long a token's verdict is kept; 0 reviews each request's token
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Authorities of client certificates in PEM, read again when they change; without it, those of the ConfigMap
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<OsString>,
    /// Authorities of the front proxy in PEM, read again when they change; without it, the ConfigMap says all that
    /// --requestheader-* say
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<OsString>,
    /// Common names, one of which the front proxy's certificate must have; without any, every name will do
    #[arg(long, value_name = "NAMES", value_parser = values::list)]
    requestheader_allowed_names: Vec<ListFlag>,
    /// Headers that name the user, of which a request's first counts
    #[arg(long, value_name = "HEADERS", default_value = "x-remote-user", value_parser = values::headers)]
    requestheader_username_headers: Vec<ListFlag>,
    /// Headers that name the user's groups, which all count
    #[arg(long, value_name = "HEADERS", default_value = "x-remote-group", value_parser = values::headers)]
    requestheader_group_headers: Vec<ListFlag>,
    /// Beginnings of headers that say more of the user; the rest of such a header's name is the key
    #[arg(long, value_name = "PREFIXES", default_value = "x-remote-extra-", value_parser = values::headers)]
    requestheader_extra_headers_prefix: Vec<ListFlag>,
    /// Headers that hold the user's uid, of which a request's first counts
    #[arg(long, value_name = "HEADERS", value_parser = values::headers)]
    requestheader_uid_headers: Vec<ListFlag>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Authorization")]
pub struct AuthorizationFlags {
    /// Kubeconfig of the API server that reviews access; without one, as for --kubeconfig
    #[arg(long, value_name = "FILE")]
    authorization_kubeconfig: Option<OsString>,
    /// Paths that everyone may get without a review; a * at the end makes a prefix
    #[arg(
        long,
        value_name = "PATHS",
        default_value = "/healthz,/readyz,/livez",
        value_parser = values::open_paths
    )]
    authorization_always_allow_paths: Vec<ListFlag>,
    /// How long a permission is kept; 0 reviews each request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long a refusal is kept; 0 reviews each request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Members")]
pub struct MembersFlags {
    /// Kubeconfig whose contexts are the members, in place of the Clusters of --kubeconfig; it and the files that it
    /// refers to are read again when they change
    #[arg(long, value_name = "FILE")]
    fleet_kubeconfig: Option<OsString>,
    /// How long an answer waits for each member, which has failed when the time is up
    #[arg(long, value_name = "DURATION", default_value = values::MEMBER_TIMEOUT, value_parser = values::time_span)]
    member_timeout: Duration,
    /// Most connections to one member over HTTP/1.1, and three at least, one for each metrics API; over HTTP/2 there is
    /// one
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = values::count)]
    member_connections: usize,
    /// Longest body that one member may send; it has failed when it sends more
    #[arg(long, value_name = "BYTES", default_value = "64Mi", value_parser = values::bytes)]
    member_body_bytes: usize,
    /// Most memory that all queries take at a time, from members' bodies to the answers that clients have not read yet; beyond it a query is answered 429
    #[arg(long, value_name = "BYTES", default_value = "256Mi", value_parser = values::bytes)]
    inflight_bytes: usize,
    /// Longest time until each member's metric names are read again, for discovery; a new metric can be queried at once,
    /// and is listed as soon as it has been
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::time_span)]
    discovery_interval: Duration,
    /// Most memory for the metrics that all members list, for discovery, and half of it for one member; the metrics of a
    /// member that lists more are not listed, and can be queried all the same
    #[arg(long, value_name = "BYTES", default_value = "64Mi", value_parser = values::bytes)]
    discovery_bytes: usize,
    /// What becomes of an answer when a member fails: last-known (its last values stand in if only its metrics API
    /// fails), partial (it lacks that member's values) or fail (503); a warning names the member
    #[arg(long, value_name = "POLICY", default_value = "last-known", hide_possible_values = true)]
    on_member_failure: OnMemberFailure,
    /// How old a value may be that stands in for a member whose metrics API fails
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::time_span)]
    last_known_max_age: Duration,
    /// Most memory for the values that may stand in
    #[arg(long, value_name = "BYTES", default_value = "16Mi", value_parser = values::bytes)]
    last_known_bytes: usize,
    /// How long a reply that missed --member-timeout is still waited for, to be the last known one
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::time_span)]
    last_known_late: Duration,
    /// Requests a second to each member, beyond which they wait; unset means no limit (40 beside
    /// --cluster-api-burst), and so does 0
    #[arg(long, value_name = "NUMBER", value_parser = values::float)]
    cluster_api_qps: Option<f32>,
    /// Requests at once to a member before --cluster-api-qps holds; unset means 60
    #[arg(long, value_name = "NUMBER", value_parser = values::int)]
    cluster_api_burst: Option<i64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Merging")]
pub struct MergingFlags {
    /// Label that says which cluster a value came from, and by which a query chooses clusters; empty turns both off
    #[arg(
        long,
        value_name = "KEY",
        default_value = "resource.karmada.io/query-from-cluster",
        value_parser = values::label_key_or_empty
    )]
    cluster_label: String,
    /// What becomes of pods of one name in several clusters, as StatefulSets have them: sum or average (one item with
    /// that) or separate (one for each cluster, by name still a sum)
    #[arg(long, value_name = "RULE", default_value = "sum", hide_possible_values = true)]
    same_name_pods: SameNamePods,
    /// What becomes of series of an external metric that several clusters show with the same labels (the same queue,
    /// seen from each): sum, max, min or avg (one item with that) or each (one for each cluster, as for metrics that
    /// are not named); the last rule for a metric wins
    #[arg(long, value_name = "METRIC=RULE", value_parser = values::external_merges)]
    external_merge: Vec<ExternalMergeFlag>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LoggingFlags {
    /// Shape of a log line on stderr: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    logging_format: LogFormat,
    /// How much to log: 0 is for operation; 2 adds where a line comes from, 4 debug lines, 6 those of libraries, 8
    /// traces
    #[arg(short, long, value_name = "LEVEL", default_value = "0", value_parser = values::level)]
    v: i32,
}

impl TryFrom<ServingFlags> for config::Serving {
    type Error = ConflictingFlags;

    fn try_from(flags: ServingFlags) -> Result<Self, ConflictingFlags> {
        let certificate = match (path(flags.tls_cert_file), path(flags.tls_private_key_file)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(ConflictingFlags::CertificateWithoutKey),
            (None, Some(_)) => return Err(ConflictingFlags::KeyWithoutCertificate),
        };
        Ok(Self {
            bind_address: flags.bind_address,
            port: flags.secure_port,
            tls: config::ServingTls {
                certificate,
                cert_dir: path(Some(flags.cert_dir)),
                min_version: flags.tls_min_version,
                cipher_suites: joined(flags.tls_cipher_suites),
            },
            http2: !flags.disable_http2_serving,
            request_timeout: flags.request_timeout,
            pressure: config::RequestLimits {
                client_timeout: flags.client_timeout,
                idle_timeout: flags.idle_timeout,
                connections: flags.max_connections,
                streams: match flags.http2_max_streams_per_connection {
                    0 => DEFAULT_STREAMS,
                    streams => streams,
                },
                requests: flags.max_requests_inflight,
            },
            reload_interval: flags.reload_interval,
            shutdown_delay: flags.shutdown_delay_duration,
        })
    }
}

impl From<MetricsFlags> for config::Metrics {
    fn from(flags: MetricsFlags) -> Self {
        let bind: Option<SocketAddr> = flags.metrics_bind_address.into();
        Self { bind }
    }
}

impl From<ControlPlaneFlags> for config::ControlPlane {
    fn from(flags: ControlPlaneFlags) -> Self {
        Self {
            kubeconfig: path(flags.kubeconfig),
            rate: rate(flags.kube_api_qps, flags.kube_api_burst),
            watch_timeout: flags.watch_timeout,
        }
    }
}

impl From<AuthenticationFlags> for config::Authentication {
    fn from(flags: AuthenticationFlags) -> Self {
        Self {
            kubeconfig: path(flags.authentication_kubeconfig),
            client_ca_file: path(flags.client_ca_file),
            // The reference, too, reads the other header flags only beside this one.
            request_header: path(flags.requestheader_client_ca_file).map(|ca_file| config::RequestHeader {
                ca_file,
                allowed_names: joined(flags.requestheader_allowed_names),
                username_headers: joined(flags.requestheader_username_headers),
                group_headers: joined(flags.requestheader_group_headers),
                extra_prefixes: joined(flags.requestheader_extra_headers_prefix),
                uid_headers: joined(flags.requestheader_uid_headers),
            }),
            skip_lookup: flags.authentication_skip_lookup,
            tolerate_lookup_failure: flags.authentication_tolerate_lookup_failure,
            token_cache_ttl: flags.authentication_token_webhook_cache_ttl,
        }
    }
}

impl From<AuthorizationFlags> for config::Authorization {
    fn from(flags: AuthorizationFlags) -> Self {
        Self {
            kubeconfig: path(flags.authorization_kubeconfig),
            always_allow_paths: joined(flags.authorization_always_allow_paths),
            allowed_ttl: flags.authorization_webhook_cache_authorized_ttl,
            denied_ttl: flags.authorization_webhook_cache_unauthorized_ttl,
        }
    }
}

impl From<MembersFlags> for config::Members {
    fn from(flags: MembersFlags) -> Self {
        Self {
            fleet_kubeconfig: path(flags.fleet_kubeconfig),
            timeout: flags.member_timeout,
            connections: flags.member_connections,
            body_bytes: flags.member_body_bytes,
            inflight_bytes: flags.inflight_bytes,
            discovery_interval: flags.discovery_interval,
            discovery_bytes: flags.discovery_bytes,
            on_failure: flags.on_member_failure,
            last_known: config::LastKnownConfig {
                max_age: flags.last_known_max_age,
                bytes: flags.last_known_bytes,
                late: flags.last_known_late,
            },
            rate: rate(flags.cluster_api_qps, flags.cluster_api_burst),
        }
    }
}

impl From<MergingFlags> for config::Merging {
    fn from(flags: MergingFlags) -> Self {
        Self {
            cluster_label: Some(flags.cluster_label).filter(|label| !label.is_empty()),
            same_name_pods: flags.same_name_pods,
            external: flags.external_merge.into_iter().flat_map(Vec::from).collect(),
        }
    }
}

impl From<LoggingFlags> for config::Logging {
    fn from(flags: LoggingFlags) -> Self {
        Self { format: flags.logging_format, verbosity: flags.v }
    }
}

/// An empty path is how a flag is unset again.
fn path(text: Option<OsString>) -> Option<PathBuf> {
    text.filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// The values of a list flag in the order of its uses.
fn joined(uses: Vec<ListFlag>) -> Vec<String> {
    uses.into_iter().flat_map(Vec::from).collect()
}

/// The limit that a pair of flags asks for: none when neither is given or the rate is not above zero.
fn rate(qps: Option<f32>, burst: Option<i64>) -> Option<RateLimit> {
    if qps.is_none() && burst.is_none() {
        return None;
    }
    let qps = qps.unwrap_or(DEFAULT_QPS);
    let burst = burst.filter(|&burst| burst > 0);
    let burst = burst.map_or(DEFAULT_BURST, |burst| u32::try_from(burst).unwrap_or(u32::MAX));
    (qps > 0.0).then_some(RateLimit { qps, burst })
}
