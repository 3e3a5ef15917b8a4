//! The scaling loop over real sockets: members, control plane and aggregation layer. A simple backend without faults replaces
//! the adapter.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use testkit::control_plane::{BACKEND_NAMESPACE, BACKEND_SERVICE, CUSTOM_METRICS};
use testkit::federated_hpa::{
    Cluster, DecisionError, FederatedHpa, Loop, Metric, MetricsError, Round, ScaleTo, Spec, Target,
};
use testkit::fleet::Fleet;
use testkit::https::{self, Handler, Server, full};
use testkit::member::{Fault, Member, Pod};
use testkit::pki::Authority;

/// The values in the backend's responses, by pod name.
type Values = Arc<Mutex<Vec<(String, String)>>>;
/// The replicas that the clusters' Deployments received, in order.
type Reached = Arc<Mutex<Vec<(String, u32)>>>;
/// How many queries the backend rejects next, and the seconds of their `Retry-After` (`None`: no such header).
type Refusals = Arc<Mutex<(u32, Option<u32>)>>;
/// The queried metrics: the name when the query arrives, and the name after a `/` when the response is sent.
type Queried = Arc<Mutex<Vec<String>>>;

/// A healthy cluster needs milliseconds, except on a busy machine.
const READ_LIMIT: Duration = Duration::from_secs(5);

struct Scene {
    fleet: Fleet,
    scaling: Loop,
    values: Values,
    reached: Reached,
    queried: Queried,
    refusals: Refusals,
    _backend: Server,
}

impl Scene {
    /// Two members with the numbers of pods in `pods`, which are also the desired replicas of their Deployments.
    async fn with(pods: [u32; 2], spec: Spec) -> Self {
        let mut members = Vec::new();
        for (name, count) in ["member1", "member2"].into_iter().zip(pods) {
            let member = Member::start(name).await.unwrap();
            for number in 0..count {
                let name = format!("{name}-{number}");
                member.store().set_pod(Pod::running("default", &name, &[("app", "sample-app")]));
            }
            members.push(member);
        }
        let fleet = Fleet::start(members).await.unwrap();
        let values = Values::default();
        let (queried, refusals) = (Queried::default(), Refusals::default());
        let (backend, authority) = backend(values.clone(), queried.clone(), refusals.clone()).await;
        fleet.plane.register_backend(backend.address(), Some(&authority), &CUSTOM_METRICS).unwrap();
        fleet.plane.available(CUSTOM_METRICS[1]).await.unwrap();

        let reached = Reached::default();
        let clusters = fleet.members.iter().zip(pods).map(|(member, wanted)| {
            let access = member.access();
            let (name, log) = (access.name.clone(), reached.clone());
            let scale_to: ScaleTo = Arc::new(move |replicas| {
                log.lock().unwrap().push((name.clone(), replicas));
                async { Ok(()) }.boxed()
            });
            Cluster { member: access.client(), name: access.name, weight: 1, wanted, scale_to }
        });
        let target = Target { namespace: "default".to_owned(), selector: "app=sample-app".to_owned() };
        let replicas = i32::try_from(pods.iter().sum::<u32>()).unwrap();
        let control_plane = fleet.plane.admin_client();
        let scaling = Loop::new(FederatedHpa::new(spec), target, control_plane, clusters.collect(), replicas)
            .with_read_limit(READ_LIMIT);
        Self { fleet, scaling, values, reached, queried, refusals, _backend: backend }
    }

    fn set_values(&self, values: &[(&str, &str)]) {
        *self.values.lock().unwrap() =
            values.iter().map(|(pod, value)| ((*pod).to_owned(), (*value).to_owned())).collect();
    }

    async fn round(&mut self) -> Round {
        tokio::time::timeout(Duration::from_secs(60), self.scaling.round()).await.expect("the round ends")
    }

    fn reached(&self) -> Vec<(String, u32)> {
        std::mem::take(&mut *self.reached.lock().unwrap())
    }

    fn queried(&self) -> Vec<String> {
        std::mem::take(&mut *self.queried.lock().unwrap())
    }
}

/// A server that responds to every query with `values`, and the CA of its certificate.
async fn backend(values: Values, queried: Queried, refusals: Refusals) -> (Server, String) {
    let authority = Authority::new("backend-ca");
    let identity = authority.server(&[&format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc")]);
    let tls = https::tls(&identity, None, &[]).unwrap();
    let handler: Handler = Arc::new(move |request, _| {
        let items: Vec<_> = values
            .lock()
            .unwrap()
            .iter()
            .map(|(pod, value)| json!({"describedObject": {"kind": "Pod", "name": pod}, "value": value}))
            .collect();
        let list =
            json!({"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "items": items});
        let body = full(list.to_string());
        let mut response = https::response(StatusCode::OK, "application/json", body);
        response.headers_mut().insert("warning", HeaderValue::from_static("299 - \"a warning\""));
        let (queried, refusals) = (queried.clone(), refusals.clone());
        async move {
            if let Some((_, metric)) = request.uri().path().rsplit_once("/pods/%2A/") {
                if let (count @ 1.., retry_after) = &mut *refusals.lock().unwrap() {
                    *count -= 1;
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    retry_after.map(|seconds| response.headers_mut().insert("retry-after", seconds.into()));
                }
                queried.lock().unwrap().push(metric.to_owned());
                tokio::time::sleep(Duration::from_millis(20)).await;
                queried.lock().unwrap().push(format!("/{metric}"));
            }
            Ok(response)
        }
        .boxed()
    });
    (Server::start(tls, handler).await.unwrap(), authority.pem())
}

fn spec() -> Spec {
    let metric = Metric::pods("http_requests", 1000);
    Spec { downscale_stabilization: Duration::ZERO, ..Spec::new(metric, 1..=10) }
}

#[tokio::test]
async fn replicas_are_divided_between_all_clusters() {
    let mut scene = Scene::with([1, 1], spec()).await;
    scene.set_values(&[("member1-0", "2"), ("member2-0", "500m")]);
    let round = scene.round().await;
    // (2 + 0.5) / 2 with a target of 1, × 2.
    assert_eq!(round.decision.unwrap().desired, 3);
    assert_eq!(round.queries[0].warnings, ["299 - \"a warning\""]);
    assert_eq!(scene.reached(), [("member1".to_owned(), 2)], "member2 has its share already");
}

#[tokio::test]
async fn frozen_cluster_gets_its_share_when_it_responds_again() {
    let mut scene = Scene::with([2, 2], spec()).await;
    scene.fleet.members[1].fault(Fault::Frozen);
    scene.set_values(&[("member1-0", "2"), ("member1-1", "2")]);
    let round = scene.round().await;
    assert_eq!(round.clusters[1].pods, Err("no response within 5s".to_owned()));
    // 2 × 2 pods, divided by the readable half.
    assert_eq!(round.decision.unwrap().desired, 8);
    assert_eq!(scene.reached(), [("member1".to_owned(), 4)]);

    scene.fleet.members[1].clear_faults();
    scene.set_values(&[("member1-0", "1"), ("member1-1", "1"), ("member2-0", "1"), ("member2-1", "1")]);
    let round = scene.round().await;
    assert_eq!(round.clusters[1].pods.as_ref().map(Vec::len), Ok(2));
    assert_eq!(scene.reached(), [("member2".to_owned(), 4)]);
}

#[tokio::test]
async fn cluster_that_is_not_ready_is_left_out() {
    let mut scene = Scene::with([1, 1], spec()).await;
    scene.fleet.plane.set_ready("member1", false);
    scene.set_values(&[("member2-0", "1")]);
    let round = scene.round().await;
    assert_eq!(round.clusters[0].pods, Err("the cluster is not ready".to_owned()));
    assert_eq!(round.decision.unwrap().desired, 2);
}

#[tokio::test]
async fn no_change_without_clusters_or_values() {
    let mut scene = Scene::with([1, 1], spec()).await;
    let round = scene.round().await;
    assert_eq!(round.queries[0].reading, Err(MetricsError::Empty));
    assert_eq!((round.decision.is_err(), round.replicas), (true, 2));
    for member in &scene.fleet.members {
        member.fault(Fault::Refused);
    }
    scene.set_values(&[("member1-0", "9")]);
    let round = scene.round().await;
    assert_eq!((round.decision, round.replicas), (Err(DecisionError::NoReplicas), 2));
    assert_eq!(scene.reached(), []);
    assert_eq!(scene.queried(), ["http_requests", "/http_requests"], "in the first round only");
}

#[tokio::test]
async fn replicas_outside_the_limits_need_no_metrics() {
    let mut scene = Scene::with([1, 1], Spec { min_replicas: 3, ..spec() }).await;
    assert_eq!(scene.round().await.replicas, 3);
    assert_eq!(scene.queried(), [""; 0]);
}

#[tokio::test]
async fn metrics_are_queried_one_after_the_other() {
    let mut spec = spec();
    spec.metrics.push(Metric::pods("errors", 1000));
    let mut scene = Scene::with([1, 1], spec).await;
    scene.set_values(&[("member1-0", "1"), ("member2-0", "1")]);
    assert_eq!(scene.round().await.queries.len(), 2);
    assert_eq!(scene.queried(), ["http_requests", "/http_requests", "errors", "/errors"]);
}

#[tokio::test]
async fn failed_rounds_are_repeated_with_backoff() {
    let scene = Scene::with([1, 1], spec()).await;
    let values = scene.values.clone();
    let mut running = scene.scaling.start(Duration::from_secs(3600));
    let mut next = async || {
        let round = tokio::time::timeout(Duration::from_secs(20), running.rounds.recv()).await;
        round.expect("the next round starts soon").expect("the loop continues")
    };
    let mut began = next().await.began;
    for failures in 0..6 {
        let round = next().await;
        assert!(round.decision.is_err());
        let waited = round.began - began;
        assert!(waited >= Duration::from_millis(5 << failures), "{waited:?} after {} failures", failures + 1);
        began = round.began;
    }
    *values.lock().unwrap() = ["member1-0", "member2-0"].map(|pod| (pod.to_owned(), "1".to_owned())).to_vec();
    while next().await.decision.is_err() {}
    let early = tokio::time::timeout(Duration::from_secs(1), running.rounds.recv()).await;
    assert!(early.is_err(), "the next round must start only after an hour");
}

#[tokio::test]
async fn period_starts_at_the_end_of_a_round() {
    let scene = Scene::with([1, 1], spec()).await;
    scene.set_values(&[("member1-0", "1"), ("member2-0", "1")]);
    let delay = Duration::from_millis(400);
    scene.fleet.members[0].fault(Fault::Delay(delay));
    let mut running = scene.scaling.start(delay);
    let first = running.rounds.recv().await.unwrap();
    let second = running.rounds.recv().await.unwrap();
    let between = second.began - first.began;
    assert!(between >= 2 * delay, "{between:?}");
}

#[tokio::test]
async fn retry_after_is_followed_ten_times_per_query() {
    let mut scene = Scene::with([1, 1], spec()).await;
    scene.set_values(&[("member1-0", "1"), ("member2-0", "1")]);
    for (refusals, retry_after, queries, succeeds) in
        [(1, None, 1, false), (1, Some(1), 2, true), (10, Some(0), 11, true), (11, Some(0), 11, false)]
    {
        *scene.refusals.lock().unwrap() = (refusals, retry_after);
        let round = scene.round().await;
        assert_eq!(round.decision.is_ok(), succeeds, "{refusals} refusals: {round:?}");
        assert_eq!(scene.queried().len(), 2 * queries, "{refusals} refusals");
        assert!(round.queries[0].took >= Duration::from_secs(retry_after.unwrap_or_default().into()));
    }
}

#[tokio::test]
async fn missing_backend_fails_the_query() {
    let mut scene = Scene::with([1, 1], spec()).await;
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    scene.fleet.plane.register_backend(nowhere, None, &CUSTOM_METRICS).unwrap();
    let round = scene.round().await;
    let refused = round.queries[0].reading.as_ref().unwrap_err();
    assert!(matches!(refused, MetricsError::Refused { status: 503, .. }), "{refused}");
    assert_eq!(round.replicas, 2);
}
