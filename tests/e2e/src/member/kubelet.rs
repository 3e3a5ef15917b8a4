//! The work of a node: binds the pods of a cluster to itself, runs their replicas, and reports their state and usage.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::app::Endpoints;
use testkit::https::{self, HTTP_VERSIONS, Server};
use testkit::timestamp;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::replica::{Replica, Usage};
use crate::api::Api;
use crate::cluster::Cluster;

/// The file in a cluster's directory with the addresses of its pods, for Prometheus' file-based discovery. Debian's Prometheus
/// has no discovery for Kubernetes.
pub const TARGETS: &str = "targets.json";
/// Interval of updates from the API server.
const PERIOD: Duration = Duration::from_millis(300);
/// Timeout of an update. The replicas keep running while the API server is frozen.
const LIMIT: Duration = Duration::from_secs(3);

/// The kubelet of a node. Drop stops it and the replicas of its pods.
pub struct Kubelet {
    node: Arc<Node>,
    server: Server,
    _task: AbortOnDropHandle<()>,
}

struct Node {
    name: String,
    api: Api,
    targets: PathBuf,
    /// The addresses of each application's ready replicas, by the pod label `app`.
    applications: BTreeMap<String, watch::Sender<Vec<SocketAddr>>>,
    /// The running pods by namespace and name.
    pods: Mutex<BTreeMap<(String, String), Running>>,
}

struct Running {
    application: String,
    replica: Replica,
}

impl Kubelet {
    /// Registers a node and runs the pods of these applications.
    ///
    /// # Errors
    /// If the API server rejects the node, or no port can be bound.
    pub async fn start(cluster: &Cluster, applications: &[&str]) -> anyhow::Result<Self> {
        let (api, name) = (&cluster.api, format!("{}-node", cluster.name));
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"capacity": {"cpu": "2", "memory": "2Gi", "pods": "110"}},
        });
        api.create("/api/v1/nodes", &node).await?;
        let senders = applications.iter().map(|app| ((*app).to_owned(), watch::Sender::default()));
        let node = Arc::new(Node {
            name,
            api: api.clone(),
            targets: cluster.directory().join(TARGETS),
            applications: senders.collect(),
            pods: Mutex::default(),
        });
        let metrics = node.clone();
        let handler: https::Handler = Arc::new(move |_, _| {
            let body = https::full(metrics.exposition());
            async { Ok(https::response(StatusCode::OK, "text/plain; version=0.0.4", body)) }.boxed()
        });
        let serving = cluster.serving_identity(&["127.0.0.1"]);
        let server = Server::start(https::tls(&serving, None, &HTTP_VERSIONS)?, handler).await?;
        let task = AbortOnDropHandle::new(tokio::spawn(node.clone().run()));
        Ok(Self { node, server, _task: task })
    }

    /// The addresses of an application's ready replicas.
    ///
    /// # Errors
    /// If the node does not run the application.
    pub fn endpoints(&self, application: &str) -> anyhow::Result<Endpoints> {
        let sender = self.node.applications.get(application);
        Ok(sender.with_context(|| format!("the node runs no application {application}"))?.subscribe())
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// The address that serves the usage of its pods.
    pub fn metrics_address(&self) -> SocketAddr {
        self.server.address()
    }
}

impl Node {
    async fn run(self: Arc<Self>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A failed update is retried: the API server may be frozen or starting.
            let _ = timeout(LIMIT, self.update()).await;
        }
    }

    /// Starts and stops replicas to match the pods of the API server.
    async fn update(&self) -> anyhow::Result<()> {
        let list = self.api.get("/api/v1/pods").await?;
        let pods = list["items"].as_array().context("the list has no items")?;
        let wanted: Vec<_> = pods.iter().filter_map(key).collect();
        self.pods().retain(|key, _| wanted.contains(key));
        for pod in pods {
            let Some(key) = key(pod) else { continue };
            let path = format!("/api/v1/namespaces/{}/pods/{}", key.0, key.1);
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.pods().remove(&key);
                self.publish()?;
                self.api.delete(&path).await?;
            } else if !self.pods().contains_key(&key) {
                self.adopt(&key, &path, pod).await?;
            }
        }
        self.publish()?;
        Ok(())
    }

    /// Starts the replica of a pod and reports the pod as ready.
    async fn adopt(&self, key: &(String, String), path: &str, pod: &Value) -> anyhow::Result<()> {
        if pod["spec"]["nodeName"].is_null() {
            let binding = json!({
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": key.1},
                "target": {"apiVersion": "v1", "kind": "Node", "name": self.name},
            });
            self.api.create(&format!("{path}/binding"), &binding).await?;
        }
        let application = pod["metadata"]["labels"]["app"].as_str().unwrap_or_default().to_owned();
        let replica = Replica::start().await?;
        let address = replica.address();
        let now = timestamp::format(timestamp::now());
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "phase": "Running",
            "podIP": address.ip(),
            "podIPs": [{"ip": address.ip()}],
            "startTime": now,
            "conditions": [condition("PodScheduled"), condition("ContainersReady"), condition("Ready")],
        }});
        self.api.patch(&format!("{path}/status"), &status).await?;
        self.pods().insert(key.clone(), Running { application, replica });
        Ok(())
    }

    /// Publishes the addresses of the replicas to the load generator and to Prometheus.
    fn publish(&self) -> io::Result<()> {
        let pods = self.pods();
        for (application, sender) in &self.applications {
            let own = pods.values().filter(|pod| pod.application == *application);
            sender.send_replace(own.map(|pod| pod.replica.address()).collect());
        }
        let targets = pods.iter().map(|((namespace, pod), running)| {
            let labels = json!({"namespace": namespace, "pod": pod, "service": running.application});
            json!({"targets": [running.replica.address()], "labels": labels})
        });
        let targets = Value::from_iter(targets).to_string();
        if fs::read_to_string(&self.targets).ok().as_ref() != Some(&targets) {
            let next = self.targets.with_extension("next");
            fs::write(&next, targets)?;
            fs::rename(next, &self.targets)?;
        }
        Ok(())
    }

    /// The text of the kubelet's `/metrics/resource`.
    fn exposition(&self) -> String {
        let mut text = String::new();
        let mut node = Usage::default();
        for ((namespace, pod), running) in self.pods().iter() {
            let usage = running.replica.usage();
            node = Usage { cpu: node.cpu + usage.cpu, memory: node.memory + usage.memory };
            let labels = format!("{{namespace={namespace:?},pod={pod:?},container=\"app\"}}");
            let cpu = usage.cpu.as_secs_f64();
            let _ = writeln!(text, "container_cpu_usage_seconds_total{labels} {cpu}");
            let _ = writeln!(text, "container_memory_working_set_bytes{labels} {}", usage.memory);
        }
        let _ = writeln!(text, "node_cpu_usage_seconds_total {}", node.cpu.as_secs_f64());
        let _ = writeln!(text, "node_memory_working_set_bytes {}", node.memory);
        text
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<(String, String), Running>> {
        self.pods.lock().expect("not poisoned")
    }
}

fn key(pod: &Value) -> Option<(String, String)> {
    let part = |name: &str| pod["metadata"][name].as_str().map(str::to_owned);
    Some((part("namespace")?, part("name")?))
}
