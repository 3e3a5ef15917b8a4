//! What can be done instead of serving, and the flags of each. Its flags are read as those of serving.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values;

/// Runs, prints a result and ends.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Issue serving certificates, and look at those that are there
    #[command(subcommand, arg_required_else_help = false)]
    Certs(CertsCommand),
    /// Check every link between a FederatedHPA and a metric, and say what is broken and what to do about it
    Check(CheckFlags),
    /// Ask all members for a metric, and show its values by cluster
    Query(Box<QueryFlags>),
}

/// What is done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Issue a serving certificate for the adapter, by an authority that is made for it or by a given one
    Issue(CertsIssueFlags),
    /// Show what certificates say, and fail if one has ended, ends soon or lacks the adapter's name
    Show(CertsShowFlags),
}

/// `certs issue`.
#[derive(Debug, Args)]
pub struct CertsIssueFlags {
    /// Service in the control plane by which the APIServices name the adapter
    #[arg(long, value_name = "NAME", default_value = "karmada-metrics-adapter", value_parser = values::dns_label)]
    pub service: String,
    /// Namespace of that Service
    #[arg(long, value_name = "NAME", default_value = "karmada-system", value_parser = values::dns_label)]
    pub namespace: String,
    /// Domain of the cluster's Services, for the longest of the Service's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::dns_name)]
    pub cluster_domain: String,
    /// More names for the certificate
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = values::dns_name)]
    pub dns_name: Vec<String>,
    /// More addresses for the certificate
    #[arg(long, value_name = "IPS", value_delimiter = ',', value_parser = values::ip)]
    pub ip: Vec<IpAddr>,
    /// Authority that signs, in PEM, such as Karmada's; without one, an authority is made that lasts ten years
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// Private key of --ca-cert in PEM
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// How long the certificate is valid, in days or as a duration, but no longer than its authority
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = values::lifetime)]
    pub validity: Duration,
    /// Directory for tls.crt and tls.key, and for ca.crt and ca.key if an authority is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out_dir: PathBuf,
    /// Replace these files if they exist
    #[arg(long)]
    pub force: bool,
}

/// `certs show`.
#[derive(Debug, Args)]
pub struct CertsShowFlags {
    /// Files in PEM, and addresses that present their certificates in a TLS handshake
    #[arg(value_name = "FILE|HOST:PORT", required = true)]
    pub sources: Vec<OsString>,
    /// Service whose name in the control plane serving certificates must have; without it, a certificate that lacks
    /// the name of karmada-metrics-adapter is no failure
    #[arg(long, value_name = "NAME", value_parser = values::dns_label)]
    pub service: Option<String>,
    /// Namespace of that Service
    #[arg(long, value_name = "NAME", default_value = "karmada-system", value_parser = values::dns_label)]
    pub namespace: String,
    /// How long before its end a certificate is taken for one that ends soon, in days or as a duration
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = values::notice)]
    pub warn: Duration,
    /// Shape of the answer: json for machines; without it, a table
    #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<OutputFormat>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckFlags {
    /// Kubeconfig of the Karmada API server; without one, the environment's kubeconfig or else the Pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The only cluster to look at
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// How long each step of the way to a member may take
    #[arg(long, value_name = "DURATION", default_value = values::MEMBER_TIMEOUT, value_parser = values::time_span)]
    pub member_timeout: Duration,
    /// Custom metric to ask each member for
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Resource whose metric that is, with its group, such as pods or jobs.batch
    #[arg(long, value_name = "NAME", default_value = "pods", requires = "metric")]
    pub resource: String,
    /// Namespace of the sample query
    #[arg(short, long, value_name = "NAME", default_value = "default", value_parser = values::dns_label)]
    pub namespace: String,
    /// Which objects, as a label selector
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Service that the APIServices should lead to
    #[arg(long, value_name = "NAME", default_value = "karmada-metrics-adapter", value_parser = values::dns_label)]
    pub service: String,
    /// Namespace of that Service
    #[arg(long, value_name = "NAME", default_value = "karmada-system", value_parser = values::dns_label)]
    pub service_namespace: String,
    /// Shape of the answer: json for machines; without it, a table
    #[arg(short, long, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<OutputFormat>,
}

/// `query`.
#[derive(Debug, Args)]
pub struct QueryFlags {
    /// Path to ask for, as it is given to kubectl get --raw; in place of it, --metric and the flags beside it
    #[arg(value_name = "PATH", required_unless_present_any = ["metric", "group"], conflicts_with_all = ["metric", "group", "resource", "namespace", "name", "selector", "metric_selector"])]
    pub path: Option<String>,
    /// Metric to ask for; --group=resource needs none
    #[arg(long, value_name = "NAME", required_if_eq_any = [("group", "custom"), ("group", "external")])]
    pub metric: Option<String>,
    /// API to ask: custom, external or resource (CPU and memory)
    #[arg(long, value_name = "API", default_value = "custom", hide_possible_values = true)]
    pub group: MetricsApi,
    /// Resource whose metric it is, with its group, such as pods or jobs.batch
    #[arg(long, value_name = "NAME", default_value = "pods")]
    pub resource: String,
    /// Namespace, which counts for nothing if the resource is nodes or namespaces; empty for other objects that are in
    /// none, and for the CPU and memory of all pods
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// The only object to ask for
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Which objects, or which series of an external metric, as a label selector
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Which series of a custom metric, as a label selector
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub metric_selector: String,
    /// The only cluster to ask
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Kubeconfig of the Karmada API server, whose Clusters are the members; without one, the environment's kubeconfig
    /// or else the Pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig whose contexts are the members, in place of those Clusters
    #[arg(long, value_name = "FILE")]
    pub fleet_kubeconfig: Option<PathBuf>,
    /// How long to wait for each member
    #[arg(long, value_name = "DURATION", default_value = values::MEMBER_TIMEOUT, value_parser = values::time_span)]
    pub member_timeout: Duration,
    /// Ask again and again until interrupted, after so long each time (--watch=5s); without a value, after 15s
    #[arg(short, long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "15s", value_parser = values::time_span)]
    pub watch: Option<Duration>,
    /// Shape of the answer: json for machines, with --watch one line each time; without it, a table
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

/// The shape of a command's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// JSON, indented.
    Json,
}
