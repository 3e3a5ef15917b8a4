//! The flags that have an effect, in the groups of `--help`, and their conversion into the configuration.

// clap would print a doc comment of a group in `--help`.
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

/// Defaults of Karmada's built-in adapter. They apply if only one of the two flags (QPS or burst) is given.
const DEFAULT_QPS: f32 = 40.0;
const DEFAULT_BURST: u32 = 60;
/// The default of Go's HTTP/2 server.
const DEFAULT_STREAMS: u32 = 250;

#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct ServingFlags {
    /// Address to listen on; 0.0.0.0 or :: listens on all interfaces, IPv4 and IPv6
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", value_parser = values::ip)]
    bind_address: IpAddr,
    /// HTTPS port; with 0 the system chooses a free port, which is logged
    #[arg(long, value_name = "PORT", default_value = "443", value_parser = values::port)]
    secure_port: u16,
    /// Certificate chain in PEM, reloaded when the file changes; if unset, a self-signed certificate and its key are
    /// generated in --cert-dir
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<OsString>,
    /// Private key of --tls-cert-file in PEM
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<OsString>,
    /// Directory of the generated certificate and key, which are used again after a restart; if empty, they stay in memory
    #[arg(long, value_name = "DIR", default_value = "apiserver.local.config/certificates")]
    cert_dir: OsString,
    /// Minimum TLS version: VersionTLS12 or VersionTLS13 (VersionTLS10 and VersionTLS11 mean VersionTLS12)
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12", hide_possible_values = true)]
    tls_min_version: TlsVersion,
    /// TLS 1.2 cipher suites to allow, by IANA name; TLS 1.3 suites are always allowed; if unset, all secure suites are
    /// allowed
    #[arg(long, value_name = "SUITES", value_parser = values::list)]
    tls_cipher_suites: Vec<ListFlag>,
    /// Offer clients HTTP/1.1 only
    #[arg(long)]
    disable_http2_serving: bool,
    /// Deadline for the response to a request, then 504; a client's timeout parameter can only shorten it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::positive_duration)]
    request_timeout: Duration,
    /// Timeout for a client's TLS handshake, for the head of a request, and for reading the response; then the connection
    /// is closed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::positive_duration)]
    client_timeout: Duration,
    /// How long a client's connection may be idle before it is closed
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = values::positive_duration)]
    idle_timeout: Duration,
    /// Maximum number of client connections; a new connection above it closes the one that is idle for longest
    #[arg(long, value_name = "NUMBER", default_value = "1024", value_parser = values::count)]
    max_connections: usize,
    /// Maximum number of concurrent requests on one HTTP/2 connection of a client; 0 means 250
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = values::streams)]
    http2_max_streams_per_connection: u32,
    /// Maximum number of queries in flight; queries above it get 429; probes, discovery and system:masters are exempt;
    /// 0 means no limit
    #[arg(long, value_name = "NUMBER", default_value = "400", value_parser = values::limit)]
    max_requests_inflight: usize,
    /// How often certificates, CA bundles and kubeconfigs are checked for changes; changes take effect without a restart
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::positive_duration)]
    reload_interval: Duration,
    /// How long new connections and requests are accepted after SIGTERM while /readyz fails, so that load balancers
    /// notice; then requests in flight have 20s; the sum must be less than terminationGracePeriodSeconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    shutdown_delay_duration: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsFlags {
    /// Address of the plain-HTTP endpoint /metrics; 0 or empty disables it
    #[arg(long, value_name = "HOST:PORT", default_value = ":8080", value_parser = values::metrics_address)]
    metrics_bind_address: values::MetricsAddress,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Control plane")]
pub struct ControlPlaneFlags {
    /// Kubeconfig of the Karmada API server; its Cluster objects are the members; if unset, the file in $KUBECONFIG or
    /// ~/.kube/config, or else the Pod's service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Maximum requests per second to the API server of --kubeconfig; requests above it wait; unset or 0 means no limit;
    /// unset with --kube-api-burst means 40
    #[arg(long, value_name = "NUMBER", value_parser = values::float)]
    kube_api_qps: Option<f32>,
    /// Number of requests in a burst before --kube-api-qps limits them; unset means 60
    #[arg(long, value_name = "NUMBER", value_parser = values::int)]
    kube_api_burst: Option<i64>,
    /// How long one watch of the control plane lasts before it is renewed; a watch that hangs on an open connection is
    /// noticed after this time
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    watch_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationFlags {
    /// Kubeconfig of the API server for TokenReviews and for the ConfigMap
    /// kube-system/extension-apiserver-authentication; if unset, same rules as for --kubeconfig
    #[arg(long, value_name = "FILE")]
    authentication_kubeconfig: Option<OsString>,
    /// Do not read that ConfigMap: trust only --client-ca-file and --requestheader-client-ca-file
    #[arg(long)]
    authentication_skip_lookup: bool,
    /// Start even if that ConfigMap cannot be read; it is used as soon as it can be read
    #[arg(long)]
    authentication_tolerate_lookup_failure: bool,
    /// How long the result of a TokenReview is cached; 0 reviews the token of each request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// CA bundle for client certificates in PEM, reloaded when the file changes; if unset, the CA bundle in the ConfigMap
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<OsString>,
    /// CA bundle for the front proxy's certificate in PEM, reloaded when the file changes; if unset, the ConfigMap
    /// replaces all --requestheader-* flags
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<OsString>,
    /// Allowed common names of the front proxy's certificate; if unset, every name is allowed
    #[arg(long, value_name = "NAMES", value_parser = values::list)]
    requestheader_allowed_names: Vec<ListFlag>,
    /// Headers with the user's name; the first one that a request has is used
    #[arg(long, value_name = "HEADERS", default_value = "x-remote-user", value_parser = values::headers)]
    requestheader_username_headers: Vec<ListFlag>,
    /// Headers with the user's groups; all of them are used
    #[arg(long, value_name = "HEADERS", default_value = "x-remote-group", value_parser = values::headers)]
    requestheader_group_headers: Vec<ListFlag>,
    /// Prefixes of headers with extra fields of the user; the rest of the header's name is the key
    #[arg(long, value_name = "PREFIXES", default_value = "x-remote-extra-", value_parser = values::headers)]
    requestheader_extra_headers_prefix: Vec<ListFlag>,
    /// Headers with the user's UID; the first one that a request has is used
    #[arg(long, value_name = "HEADERS", value_parser = values::headers)]
    requestheader_uid_headers: Vec<ListFlag>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Authorization")]
pub struct AuthorizationFlags {
    /// Kubeconfig of the API server for SubjectAccessReviews; if unset, same rules as for --kubeconfig
    #[arg(long, value_name = "FILE")]
    authorization_kubeconfig: Option<OsString>,
    /// Paths that need no authorization; a * at the end makes a prefix
    #[arg(
        long,
        value_name = "PATHS",
        default_value = "/healthz,/readyz,/livez",
        value_parser = values::open_paths
    )]
    authorization_always_allow_paths: Vec<ListFlag>,
    /// How long an allowed SubjectAccessReview is cached; 0 reviews each request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long a denied SubjectAccessReview is cached; 0 reviews each request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Members")]
pub struct MembersFlags {
    /// Kubeconfig with the members as contexts, instead of the Clusters of --kubeconfig; this file and the files that
    /// it refers to are reloaded when they change
    #[arg(long, value_name = "FILE")]
    fleet_kubeconfig: Option<OsString>,
    /// Timeout for each member's response to a query; after it, the member counts as failed
    #[arg(long, value_name = "DURATION", default_value = values::MEMBER_TIMEOUT, value_parser = values::positive_duration)]
    member_timeout: Duration,
    /// Maximum number of HTTP/1.1 connections to one member, at least three (one for each metrics API); with HTTP/2 there
    /// is only one connection
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = values::count)]
    member_connections: usize,
    /// Maximum size of a member's response body; a larger body is a failure of the member
    #[arg(long, value_name = "BYTES", default_value = "64Mi", value_parser = values::bytes)]
    member_body_bytes: usize,
    /// Memory limit of all queries in flight, from the members' response bodies to the responses that clients have not
    /// read yet; queries above it get 429
    #[arg(long, value_name = "BYTES", default_value = "256Mi", value_parser = values::bytes)]
    inflight_bytes: usize,
    /// Maximum interval between two reads of each member's metric names, for discovery; a new metric can be queried
    /// immediately, and discovery lists it after its first query
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    discovery_interval: Duration,
    /// Memory limit for the metric names of all members, for discovery; one member may use half of it; if a member has
    /// more, discovery does not list its metrics, but they can still be queried
    #[arg(long, value_name = "BYTES", default_value = "64Mi", value_parser = values::bytes)]
    discovery_bytes: usize,
    /// What to return if a member fails: last-known (use the member's last-known values if only its metrics API fails),
    /// partial (leave out the member's values) or fail (503); a warning names the member
    #[arg(long, value_name = "POLICY", default_value = "last-known", hide_possible_values = true)]
    on_member_failure: OnMemberFailure,
    /// Maximum age of last-known values
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::positive_duration)]
    last_known_max_age: Duration,
    /// Memory limit of the last-known cache
    #[arg(long, value_name = "BYTES", default_value = "16Mi", value_parser = values::bytes)]
    last_known_bytes: usize,
    /// How long to wait for a response that missed --member-timeout; a late response only updates the last-known cache
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::positive_duration)]
    last_known_late: Duration,
    /// Maximum requests per second to each member; requests above it wait; unset or 0 means no limit; unset with
    /// --cluster-api-burst means 40
    #[arg(long, value_name = "NUMBER", value_parser = values::float)]
    cluster_api_qps: Option<f32>,
    /// Number of requests to a member in a burst before --cluster-api-qps limits them; unset means 60
    #[arg(long, value_name = "NUMBER", value_parser = values::int)]
    cluster_api_burst: Option<i64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Merging")]
pub struct MergingFlags {
    /// Label with the cluster of a value, also used in selectors to choose clusters; empty disables both
    #[arg(
        long,
        value_name = "KEY",
        default_value = "resource.karmada.io/query-from-cluster",
        value_parser = values::label_key_or_empty
    )]
    cluster_label: String,
    /// How to merge pods with the same name in several clusters, such as pods of StatefulSets: sum or average (one item),
    /// or separate (one item for each cluster; a query by name still returns the sum)
    #[arg(long, value_name = "RULE", default_value = "sum", hide_possible_values = true)]
    same_name_pods: SameNamePods,
    /// How to merge series of an external metric with the same labels in several clusters, such as one queue that every
    /// cluster reports: sum, max, min or avg (one item), or each (one item for each cluster, the default); the last rule
    /// for a metric wins
    #[arg(long, value_name = "METRIC=RULE", value_parser = values::external_merges)]
    external_merge: Vec<ExternalMergeFlag>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LoggingFlags {
    /// Format of log lines on stderr: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    logging_format: LogFormat,
    /// Log verbosity: 0 is for normal operation; 2 adds the source of each line, 4 debug lines, 6 debug lines of
    /// libraries, 8 traces
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
            limits: config::RequestLimits {
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
            // Karmada's built-in adapter also ignores the other --requestheader-* flags without this one.
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

/// An empty text unsets a path.
fn path(text: Option<OsString>) -> Option<PathBuf> {
    text.filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// All values of a list flag that was given several times, in order.
fn joined(uses: Vec<ListFlag>) -> Vec<String> {
    uses.into_iter().flat_map(Vec::from).collect()
}

/// The limit of a pair of flags. There is none if both flags are unset or the rate is not above zero.
fn rate(qps: Option<f32>, burst: Option<i64>) -> Option<RateLimit> {
    if qps.is_none() && burst.is_none() {
        return None;
    }
    let qps = qps.unwrap_or(DEFAULT_QPS);
    let burst = burst.filter(|&burst| burst > 0);
    let burst = burst.map_or(DEFAULT_BURST, |burst| u32::try_from(burst).unwrap_or(u32::MAX));
    (qps > 0.0).then_some(RateLimit { qps, burst })
}
