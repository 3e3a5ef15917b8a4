//! `fleet up`: members with fixed values behind a control plane, to explore and to measure.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use testkit::control_plane::{EXTERNAL_METRICS, RESOURCE_METRICS};
use testkit::fleet::Fleet;
use testkit::member::wire::Version;
use testkit::member::{Fault, Formats, Member, MemberOptions, Protocols};

/// The fleet to serve.
#[derive(Args)]
pub(super) struct Options {
    /// Number of member clusters, named member1, member2, ….
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    members: u16,
    /// Number of pods in each member; each has a value of the metric.
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Number of nodes in each member.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Name of the pods' metric.
    #[arg(long, default_value = "http_requests")]
    metric: String,
    /// Formats of the members' responses.
    #[arg(long, value_enum, default_value_t = Format::Both)]
    formats: Format,
    /// Versions of the custom metrics API that the members serve.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["v1beta1", "v1beta2"])]
    versions: Vec<ApiVersion>,
    /// Protocols of the members.
    #[arg(long, value_enum, default_value_t = Protocol::Both)]
    protocols: Protocol,
    /// Delay of the members' responses, in milliseconds.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    latency: u64,
    /// Number of frozen members (the last ones).
    #[arg(long, default_value_t = 0)]
    frozen: usize,
    /// Binary of an adapter to start behind the control plane.
    #[arg(long, value_name = "PATH")]
    adapter: Option<PathBuf>,
    /// File for the adapter's output.
    #[arg(long, value_name = "PATH", requires = "adapter")]
    log: Option<PathBuf>,
    /// Print addresses and files as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Further flags for the adapter, after `--`.
    #[arg(last = true, requires = "adapter")]
    flags: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Protobuf or JSON, as requested
    Both,
    /// JSON only
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum ApiVersion {
    V1beta1,
    V1beta2,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    /// HTTP/2 or HTTP/1.1, as negotiated
    Both,
    /// HTTP/2 only
    Http2,
    /// HTTP/1.1 only
    Http1,
}

/// Serves until it is dropped or the adapter exits.
pub(super) async fn serve(options: Options) -> anyhow::Result<()> {
    let mut members = Vec::new();
    for number in 1..=options.members {
        let member = Member::start_with(&format!("member{number}"), options.of_a_member()).await?;
        let member = member.with_pods(&options.metric, options.pods).with_nodes(options.nodes);
        if options.latency > 0 {
            member.fault(Fault::Delay(Duration::from_millis(options.latency)));
        }
        members.push(member);
    }
    let fleet = Fleet::start(members).await?;
    for member in fleet.members.iter().rev().take(options.frozen) {
        member.fault(Fault::Frozen);
    }
    let mut adapter = None;
    if let Some(binary) = &options.adapter {
        let started = fleet.start_adapter(binary, &options.flags, options.log.clone()).await?;
        fleet.register(&started, &[RESOURCE_METRICS, EXTERNAL_METRICS])?;
        adapter = Some(started);
    }

    let path = format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/{}?labelSelector=app%3Dsample-app",
        options.metric
    );
    let kubeconfig = fleet.plane.admin_kubeconfig()?;
    if options.json {
        let members: Vec<_> = fleet
            .members
            .iter()
            .map(|member| json!({"name": member.name(), "endpoint": member.access().endpoint}))
            .collect();
        let line = json!({
            "controlPlane": fleet.plane.url(),
            "kubeconfig": kubeconfig,
            "adapterKubeconfig": fleet.plane.adapter_kubeconfig()?,
            "query": path,
            "members": members,
            "adapter": adapter.as_ref().map(|adapter| json!({
                "url": format!("https://{}", adapter.address()),
                "metrics": format!("http://{}/metrics", adapter.metrics_address()),
                "log": adapter.log(),
                "pid": adapter.id(),
            })),
        });
        println!("{line}");
    } else {
        println!("{} members of {} pods joined {}", options.members, options.pods, fleet.plane.url());
        println!("  kubeconfig of the administrator: {}", kubeconfig.display());
        println!("  kubeconfig of the adapter:       {}", fleet.plane.adapter_kubeconfig()?.display());
        match &adapter {
            Some(adapter) => {
                println!("  adapter: https://{}, log {}", adapter.address(), adapter.log().display());
                println!("  adapter's own metrics: http://{}/metrics", adapter.metrics_address());
            }
            None => println!("  no adapter (start one with --adapter PATH)"),
        }
        println!("\n  kubectl --kubeconfig {} get clusters", kubeconfig.display());
        if adapter.is_some() {
            println!("  kubectl --kubeconfig {} get --raw \"{path}\"", kubeconfig.display());
            println!("  kubectl --kubeconfig {} top pods -n default", kubeconfig.display());
        }
        println!("\nStop with Ctrl-C.");
    }
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(adapter) = &mut adapter {
            adapter.check()?;
        }
    }
}

impl Options {
    fn of_a_member(&self) -> MemberOptions {
        let version = |version: &ApiVersion| match version {
            ApiVersion::V1beta1 => Version::V1Beta1,
            ApiVersion::V1beta2 => Version::V1Beta2,
        };
        MemberOptions {
            versions: self.versions.iter().map(version).collect(),
            formats: match self.formats {
                Format::Both => Formats::Both,
                Format::Json => Formats::Json,
            },
            protocols: match self.protocols {
                Protocol::Both => Protocols::Both,
                Protocol::Http2 => Protocols::Http2,
                Protocol::Http1 => Protocols::Http1,
            },
            ..MemberOptions::default()
        }
    }
}
