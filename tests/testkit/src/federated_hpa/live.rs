//! The loop around the algorithm: reads members and the control plane over HTTPS, decides, and divides the replicas.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::metrics;
use super::{
    Decision, DecisionError, FederatedHpa, Metric, MetricsError, Phase, Pod, Reading, Scale, divide,
};
use crate::api_client::{Answer, ApiClient};

/// Timeout for the read of a cluster's scale. After it the cluster counts as unreadable. Karmada's client waits for 32 s. That
/// is too long for a walkthrough, and the decision is the same.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// The controller's delay after the first failure, and its maximum (`--rate-limiter-base-delay`, `-max-delay`).
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(1000);

/// client-go's maximum of retries for a response with `Retry-After`.
const RETRIES: u32 = 10;

/// Sets the replicas of one member's Deployment. A failure is retried in the next round.
pub type ScaleTo = Arc<dyn Fn(u32) -> BoxFuture<'static, io::Result<()>> + Send + Sync>;

/// The scaled workload.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// The labels of its pods, as a selector.
    pub selector: String,
}

/// A cluster that the target is propagated to.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its static weight in the PropagationPolicy.
    pub weight: u32,
    /// The desired replicas of its Deployment: the last number that reached the cluster.
    pub wanted: u32,
    /// A client of its API server.
    pub member: ApiClient,
    /// Sets its Deployment's replicas.
    pub scale_to: ScaleTo,
}

/// A FederatedHPA with its fleet.
pub struct Loop {
    hpa: FederatedHpa,
    target: Target,
    control_plane: ApiClient,
    clusters: Vec<Cluster>,
    /// The desired replicas of the template in the control plane.
    replicas: i32,
    read_limit: Duration,
}

/// A loop that runs until it is dropped.
pub struct RunningLoop {
    /// Receives each round when it ends. The channel closes when the loop ends.
    pub rounds: mpsc::UnboundedReceiver<Round>,
    _task: AbortOnDropHandle<()>,
}

/// Readings and results of one round.
#[derive(Clone, Debug)]
pub struct Round {
    /// Start of the round.
    pub began: Instant,
    /// The readings of the clusters.
    pub clusters: Vec<ClusterReading>,
    /// The queries for metrics, in the order of the spec. Empty if the decision used no metrics.
    pub queries: Vec<MetricsQuery>,
    /// The decision.
    pub decision: Result<Decision, DecisionError>,
    /// The desired replicas of the template after the decision.
    pub replicas: i32,
}

/// The reading of one cluster in a round.
#[derive(Clone, Debug)]
pub struct ClusterReading {
    /// The name of the cluster.
    pub name: String,
    /// The desired replicas of its Deployment at the time of the read.
    pub wanted: u32,
    /// Its pods, or the reason why the cluster was left out.
    pub pods: Result<Vec<Pod>, String>,
}

/// One query through the control plane.
#[derive(Clone, Debug)]
pub struct MetricsQuery {
    /// Time of the request.
    pub sent: Instant,
    /// Duration of the query.
    pub took: Duration,
    /// The `Warning` headers of the response.
    pub warnings: Vec<String>,
    /// The values, or the error.
    pub reading: Result<Reading, MetricsError>,
}

/// The fields of a `PodList` that the algorithm needs.
#[derive(Deserialize)]
struct PodList {
    items: Vec<PodObject>,
}

#[derive(Deserialize)]
struct PodObject {
    metadata: PodMetadata,
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadata {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct PodStatus {
    phase: String,
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// The fields of a `Cluster` that `getTargetCluster` needs.
#[derive(Deserialize)]
struct ClusterObject {
    #[serde(default)]
    status: ClusterStatus,
}

#[derive(Default, Deserialize)]
struct ClusterStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Loop {
    /// A loop for a target with `replicas` desired replicas. A cluster with a different share gets its own in the first round.
    pub fn new(
        hpa: FederatedHpa,
        target: Target,
        control_plane: ApiClient,
        clusters: Vec<Cluster>,
        replicas: i32,
    ) -> Self {
        Self { hpa, target, control_plane, clusters, replicas, read_limit: READ_LIMIT }
    }

    /// Sets the timeout of a cluster's read. The default is 1 s.
    #[must_use]
    pub fn with_read_limit(self, read_limit: Duration) -> Self {
        Self { read_limit, ..self }
    }

    /// Runs rounds until the result is dropped.
    ///
    /// The next round starts `period` (Karmada: 15 s) after the end of a successful round. A round fails also if it scaled on
    /// only some of its metrics. A failed round is repeated after a delay that starts at 5 ms and doubles with each further
    /// failure, up to 1,000 s, as in the workqueue's `ItemExponentialFailureRateLimiter`.
    pub fn start(mut self, period: Duration) -> RunningLoop {
        let (sender, rounds) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut failures = 0;
            loop {
                let round = self.round().await;
                failures = if round.is_success() { 0 } else { failures + 1 };
                let wait = delay_after(failures).unwrap_or(period);
                if sender.send(round).is_err() {
                    return;
                }
                sleep(wait).await;
            }
        });
        RunningLoop { rounds, _task: AbortOnDropHandle::new(task) }
    }

    /// Reads the scale and the metrics, decides, and scales the clusters.
    pub async fn round(&mut self) -> Round {
        let began = Instant::now();
        let clusters = join_all(self.clusters.iter().map(|cluster| self.read_cluster(cluster))).await;
        let pods: Vec<Pod> =
            clusters.iter().filter_map(|cluster| cluster.pods.as_ref().ok()).flatten().cloned().collect();
        let read = clusters.iter().filter(|cluster| cluster.pods.is_ok());
        let spec: u32 = read.map(|cluster| cluster.wanted).sum();
        let scale = Scale { spec: count(spec), status: count(pods.len()) };
        let mut queries = Vec::new();
        if self.hpa.needs_metrics(self.replicas, scale) {
            for metric in &self.hpa.spec().metrics {
                queries.push(self.query(metric).await);
            }
        }
        let readings: Vec<_> = queries.iter().map(|query| query.reading.clone()).collect();
        let decision = self.hpa.decide(Instant::now(), self.replicas, scale, &pods, &readings);
        if let Ok(decision) = &decision {
            self.replicas = decision.desired;
        }
        self.propagate(&clusters).await;
        Round { began, clusters, queries, decision, replicas: self.replicas }
    }

    /// Divides the template's replicas and scales the Deployments with a different number. A cluster that could not be read
    /// gets its share when it is readable again, as Karmada retries a Work that it could not apply.
    async fn propagate(&mut self, readings: &[ClusterReading]) {
        let weights: Vec<u32> = self.clusters.iter().map(|cluster| cluster.weight).collect();
        let shares = divide(self.replicas.max(0).unsigned_abs(), &weights);
        for ((cluster, share), reading) in self.clusters.iter_mut().zip(shares).zip(readings) {
            let is_due = cluster.wanted != share && reading.pods.is_ok();
            if is_due && (cluster.scale_to)(share).await.is_ok() {
                cluster.wanted = share;
            }
        }
    }

    /// Follows `getTargetCluster` and `scaleForTargetCluster`.
    async fn read_cluster(&self, cluster: &Cluster) -> ClusterReading {
        let read = async {
            if self.is_ready(&cluster.name).await? {
                self.read_pods(&cluster.member).await
            } else {
                anyhow::bail!("the cluster is not ready")
            }
        };
        let pods = match timeout(self.read_limit, read).await {
            Ok(read) => read.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no response within {:?}", self.read_limit)),
        };
        ClusterReading { name: cluster.name.clone(), wanted: cluster.wanted, pods }
    }

    async fn is_ready(&self, cluster: &str) -> anyhow::Result<bool> {
        let path = format!("/apis/cluster.karmada.io/v1alpha1/clusters/{cluster}");
        let cluster: ClusterObject = read_object(&self.control_plane.get(&path).await?)?;
        Ok(is_true(&cluster.status.conditions, "Ready"))
    }

    async fn read_pods(&self, member: &ApiClient) -> anyhow::Result<Vec<Pod>> {
        let path = metrics::pods_path(&self.target.namespace, &self.target.selector);
        let list: PodList = read_object(&member.get(&path).await?)?;
        Ok(list.items.into_iter().map(PodObject::into_pod).collect())
    }

    /// Sends a query without its own timeout. The control plane ends a request after one minute.
    async fn query(&self, metric: &Metric) -> MetricsQuery {
        let path = metrics::path(metric, &self.target.namespace, &self.target.selector);
        let sent = Instant::now();
        let (reading, warnings) = match self.get_with_retries(&path).await {
            Ok(answer) => (metrics::read(metric, answer.status.as_u16(), &answer.body), answer.warnings()),
            Err(error) => (Err(MetricsError::Unreachable(format!("{error:#}"))), Vec::new()),
        };
        MetricsQuery { sent, took: sent.elapsed(), warnings, reading }
    }

    /// Follows client-go's `withRetry`: retries a 429 or 5xx after the time in its `Retry-After`.
    async fn get_with_retries(&self, path: &str) -> anyhow::Result<Answer> {
        let mut retries = 0;
        loop {
            let answer = self.control_plane.get(path).await?;
            let Some(wait) = retry_after(&answer).filter(|_| retries < RETRIES) else { return Ok(answer) };
            retries += 1;
            sleep(wait).await;
        }
    }
}

impl Round {
    fn is_success(&self) -> bool {
        self.decision.as_ref().is_ok_and(|decision| decision.metrics_error.is_none())
    }
}

impl PodObject {
    fn into_pod(self) -> Pod {
        let phase = match self.status.phase.as_str() {
            "Pending" => Phase::Pending,
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            _ => Phase::Unknown,
        };
        let ready = is_true(&self.status.conditions, "Ready");
        Pod { name: self.metadata.name, phase, ready, deleting: self.metadata.deletion_timestamp.is_some() }
    }
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let is_retriable = answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error();
    let seconds = answer.headers.get(RETRY_AFTER).filter(|_| is_retriable)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// The delay after this many consecutive failures.
fn delay_after(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?;
    Some(FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY))
}

fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
}

fn read_object<T: serde::de::DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    anyhow::ensure!(answer.status.is_success(), "{}", answer.status);
    serde_json::from_slice(&answer.body).context("the response is not the requested object")
}

fn count(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
