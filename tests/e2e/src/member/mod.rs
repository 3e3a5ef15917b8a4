//! A member cluster: real API server, Prometheus and adapter, and a sample application in real processes.

mod kubelet;
pub mod replica;

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::app::Endpoints;
use testkit::control_plane::MemberSpec;
use tokio::net::TcpSocket;

use self::kubelet::{Kubelet, TARGETS};
use crate::cluster::{Cluster, free_port, write_identity};
use crate::process::Process;
use crate::tools::{MemberAdapter, Tools};

/// The control plane's service account in a member: namespace and name.
pub const SERVICE_ACCOUNT: (&str, &str) = ("karmada-cluster", "karmada-control-plane");
/// The namespace of the member's adapter.
const MONITORING: &str = "monitoring";
/// The name of the Service of the member's adapter.
const ADAPTER_SERVICE: &str = "prometheus-adapter";
/// The controllers that create the pods of a Deployment.
const CONTROLLERS: [&str; 2] = ["deployment-controller", "replicaset-controller"];
/// The APIServices of the member's adapter.
const APIS: [(&str, &str); 3] = [
    ("custom.metrics.k8s.io", "v1beta1"),
    ("custom.metrics.k8s.io", "v1beta2"),
    ("metrics.k8s.io", "v1beta1"),
];

/// A running member cluster.
pub struct Member {
    /// The cluster itself.
    pub cluster: Cluster,
    /// Its Prometheus.
    pub prometheus: Process,
    /// The server of its metrics APIs.
    pub adapter: Process,
    kubelet: Kubelet,
    _ports: [TcpSocket; 2],
}

impl Member {
    /// Starts a member. `flags` are added to its API server's flags, and its node runs `applications`.
    ///
    /// # Errors
    /// If a program cannot be run or the API server rejects an object.
    pub async fn start(
        name: &str,
        flags_of_api_server: &[&str],
        applications: &[&str],
        tools: &Tools,
        directory: &Path,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let cluster = Cluster::start(name, &CONTROLLERS, flags_of_api_server, tools, directory, logs).await?;
        let kubelet = Kubelet::start(&cluster, applications).await?;
        let ports = [free_port()?, free_port()?];
        let (prometheus, adapter) = (ports[0].local_addr()?.port(), ports[1].local_addr()?.port());
        cluster.api.apply("member", &objects(&cluster, adapter)).await?;
        let (adapter_program, flags) = adapter_command(&cluster, tools, prometheus, adapter)?;
        let flags_of_prometheus = prometheus_flags(&cluster, &kubelet, prometheus)?;
        let prometheus =
            Process::start(format!("{name}-prometheus"), &tools.prometheus, flags_of_prometheus, logs)?;
        let adapter = Process::start(format!("{name}-adapter"), adapter_program, flags, logs)?;
        Ok(Self { cluster, prometheus, adapter, kubelet, _ports: ports })
    }

    /// The objects that `karmadactl join` creates in the control plane, with a token that is valid for ten minutes.
    ///
    /// # Errors
    /// If the member issues no token.
    pub async fn spec(&self) -> anyhow::Result<MemberSpec> {
        Ok(MemberSpec {
            name: self.cluster.name.clone(),
            endpoint: self.cluster.url().to_owned(),
            ca_bundle: Some(self.cluster.ca_pem()),
            token: Some(self.token().await?),
            ready: true,
            ..MemberSpec::default()
        })
    }

    /// A token for the control plane, valid for ten minutes.
    ///
    /// # Errors
    /// If the member issues no token.
    pub async fn token(&self) -> anyhow::Result<String> {
        let (namespace, name) = SERVICE_ACCOUNT;
        self.cluster.token(namespace, name).await
    }

    /// The addresses of an application's ready replicas.
    ///
    /// # Errors
    /// If the member does not run the application.
    pub fn endpoints(&self, application: &str) -> anyhow::Result<Endpoints> {
        self.kubelet.endpoints(application)
    }

    /// Checks that all programs of the member still run.
    ///
    /// # Errors
    /// If a program has exited.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.cluster.check()?;
        self.prometheus.check()?;
        self.adapter.check()
    }

    /// Ends every fault: all programs run again.
    ///
    /// # Errors
    /// If a program does not start.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.cluster.heal()?;
        self.prometheus.ensure_running()?;
        self.adapter.ensure_running()
    }
}

/// The initial objects of the member's API server: Karmada's service account with all permissions, as `karmadactl join` grants
/// them, and the registration of the adapter.
fn objects(cluster: &Cluster, adapter: u16) -> Vec<Value> {
    let (namespace, name) = SERVICE_ACCOUNT;
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MONITORING}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": MONITORING, "name": ADAPTER_SERVICE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }),
    ];
    let bundle = STANDARD.encode(cluster.ca_pem());
    objects.extend(APIS.map(|(group, version)| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": format!("{version}.{group}")},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": if version == "v1beta2" { 200 } else { 100 },
                "caBundle": bundle,
                "service": {"namespace": MONITORING, "name": ADAPTER_SERVICE, "port": adapter},
            },
        })
    }));
    objects
}

fn adapter_command<'a>(
    cluster: &Cluster,
    tools: &'a Tools,
    prometheus: u16,
    port: u16,
) -> anyhow::Result<(&'a Path, Vec<String>)> {
    let directory = cluster.directory();
    let service = format!("{ADAPTER_SERVICE}.{MONITORING}.svc");
    let serving = cluster.serving_identity(&[&service]);
    let file = |name: &str| directory.join(name).display().to_string();
    write_identity(directory, "adapter", &serving)?;
    let kubeconfig = cluster.kubeconfig().display();
    let mut flags = vec![
        format!("--prometheus-url=http://127.0.0.1:{prometheus}"),
        "--metrics-relist-interval=2s".to_owned(),
        format!("--lister-kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file("adapter.crt")),
        format!("--tls-private-key-file={}", file("adapter.key")),
    ];
    Ok(match &tools.member_adapter {
        MemberAdapter::Own(binary) => (binary, flags),
        MemberAdapter::Prometheus(binary) => {
            flags.push(format!("--config={}/prometheus-adapter.yaml", env!("CARGO_MANIFEST_DIR")));
            (binary, flags)
        }
    })
}

fn prometheus_flags(cluster: &Cluster, kubelet: &Kubelet, port: u16) -> anyhow::Result<Vec<String>> {
    let directory = cluster.directory();
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "pods",
                "file_sd_configs": [{"files": [directory.join(TARGETS)]}],
            },
            {
                "job_name": "kubelet",
                "scheme": "https",
                "metrics_path": "/metrics/resource",
                "honor_labels": true,
                "tls_config": {"ca_file": directory.join("ca.crt")},
                "static_configs": [{
                    "targets": [kubelet.metrics_address().to_string()],
                    "labels": {"node": kubelet.node()},
                }],
            },
        ],
    });
    // JSON is valid YAML.
    let file = directory.join("prometheus.yml");
    fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    Ok(vec![
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", directory.join("prometheus").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ])
}
