//! Subcommands and their flags. Their flags are parsed by the same rules as the flags of the server.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values;

/// A command that runs, prints a result and exits.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Issue serving certificates, and inspect existing ones
    #[command(subcommand, arg_required_else_help = false)]
    Certs(CertsCommand),
    /// Check each step between a FederatedHPA and a metric; print what is broken and how to fix it
    Check(CheckFlags),
    /// Query a metric in all members and print the values of each cluster
    Query(Box<QueryFlags>),
}

/// The subcommands of `certs`.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Issue a serving certificate for the adapter, signed by a new CA or by an existing one
    Issue(CertsIssueFlags),
    /// Print certificates; fail if one is expired, expires soon or does not contain the adapter's name
    Show(CertsShowFlags),
}

/// `certs issue`.
#[derive(Debug, Args)]
pub struct CertsIssueFlags {
    /// Service in the control plane that the APIServices refer to
    #[arg(long, value_name = "NAME", default_value = "karmada-metrics-adapter", value_parser = values::dns_label)]
    pub service: String,
    /// Namespace of that Service
    #[arg(long, value_name = "NAME", default_value = "karmada-system", value_parser = values::dns_label)]
    pub namespace: String,
    /// DNS domain of the cluster, for the Service's longest name
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::dns_name)]
    pub cluster_domain: String,
    /// Additional DNS names for the certificate
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = values::dns_name)]
    pub dns_name: Vec<String>,
    /// Additional IP addresses for the certificate
    #[arg(long, value_name = "IPS", value_delimiter = ',', value_parser = values::ip)]
    pub ip: Vec<IpAddr>,
    /// CA certificate that signs, in PEM, such as Karmada's CA; if unset, a new CA is created, valid for ten years
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// Private key of --ca-cert in PEM
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// How long the certificate is valid, in days or as a duration; it never outlives its CA
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = values::lifetime)]
    pub validity: Duration,
    /// Directory for tls.crt and tls.key, and for ca.crt and ca.key if a CA is created
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out_dir: PathBuf,
    /// Replace these files if they exist
    #[arg(long)]
    pub force: bool,
}

/// `certs show`.
#[derive(Debug, Args)]
pub struct CertsShowFlags {
    /// PEM files, and addresses of TLS servers
    #[arg(value_name = "FILE|HOST:PORT", required = true)]
    pub sources: Vec<OsString>,
    /// Service that serving certificates must be valid for; if unset, karmada-metrics-adapter, and a certificate
    /// without that name is not a failure
    #[arg(long, value_name = "NAME", value_parser = values::dns_label)]
    pub service: Option<String>,
    /// Namespace of that Service
    #[arg(long, value_name = "NAME", default_value = "karmada-system", value_parser = values::dns_label)]
    pub namespace: String,
    /// Fail if a certificate expires within this time, in days or as a duration
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = values::days_or_duration)]
    pub warn: Duration,
    /// Output format: json for programs; if unset, a table
    #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<OutputFormat>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckFlags {
    /// Kubeconfig of the Karmada API server; if unset, the file in $KUBECONFIG or ~/.kube/config, or else the Pod's service
    /// account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Check only this cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Timeout for each step of the check
    #[arg(long, value_name = "DURATION", default_value = values::MEMBER_TIMEOUT, value_parser = values::positive_duration)]
    pub member_timeout: Duration,
    /// Custom metric to query in each member
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Resource that has the metric, with its API group, such as pods or jobs.batch
    #[arg(long, value_name = "NAME", default_value = "pods", requires = "metric")]
    pub resource: String,
    /// Namespace of the sample query
    #[arg(short, long, value_name = "NAME", default_value = "default", value_parser = values::dns_label)]
    pub namespace: String,
    /// Label selector for the objects
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Service that the APIServices must refer to
    #[arg(long, value_name = "NAME", default_value = "karmada-metrics-adapter", value_parser = values::dns_label)]
    pub service: String,
    /// Namespace of that Service
    #[arg(long, value_name = "NAME", default_value = "karmada-system", value_parser = values::dns_label)]
    pub service_namespace: String,
    /// Output format: json for programs; if unset, a table
    #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<OutputFormat>,
}

/// `query`.
#[derive(Debug, Args)]
pub struct QueryFlags {
    /// Path to query, as for kubectl get --raw; or use --metric and its related flags instead
    #[arg(value_name = "PATH", required_unless_present_any = ["metric", "group"], conflicts_with_all = ["metric", "group", "resource", "namespace", "name", "selector", "metric_selector"])]
    pub path: Option<String>,
    /// Metric to query; not needed with --group=resource
    #[arg(long, value_name = "NAME", required_if_eq_any = [("group", "custom"), ("group", "external")])]
    pub metric: Option<String>,
    /// Metrics API to query: custom, external or resource (CPU and memory)
    #[arg(long, value_name = "API", default_value = "custom", hide_possible_values = true)]
    pub group: MetricsApi,
    /// Resource that has the metric, with its API group, such as pods or jobs.batch
    #[arg(long, value_name = "NAME", default_value = "pods")]
    pub resource: String,
    /// Namespace; ignored for nodes and namespaces; empty for other cluster-scoped objects, and for the CPU and memory of
    /// the pods in all namespaces
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Query only this object
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Label selector for the objects, or for the series of an external metric
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Label selector for the series of a custom metric
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub metric_selector: String,
    /// Query only this cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Kubeconfig of the Karmada API server; its Clusters are the members; if unset, the file in $KUBECONFIG or
    /// ~/.kube/config, or else the Pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig with the members as contexts, instead of the Clusters of the Karmada API server
    #[arg(long, value_name = "FILE")]
    pub fleet_kubeconfig: Option<PathBuf>,
    /// Timeout for each member's response
    #[arg(long, value_name = "DURATION", default_value = values::MEMBER_TIMEOUT, value_parser = values::positive_duration)]
    pub member_timeout: Duration,
    /// Repeat the query until interrupted, with this pause (--watch=5s); without a value, every 15s
    #[arg(short, long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "15s", value_parser = values::positive_duration)]
    pub watch: Option<Duration>,
    /// Output format: json for programs, with --watch one line for each query; if unset, a table
    #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<OutputFormat>,
}

/// A metrics API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsApi {
    /// `custom.metrics.k8s.io`.
    Custom,
    /// `external.metrics.k8s.io`.
    External,
    /// `metrics.k8s.io`.
    Resource,
}

/// The format of a command's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// JSON, indented.
    Json,
}
