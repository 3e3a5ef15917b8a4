//! The sample application: real replicas, their pods and rates in a member, and the load.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::api_client::ApiClient;
use testkit::app::{Deployment, DeploymentOptions, LoadGenerator, Replica};
use testkit::member::Member;
use tokio::time::{sleep, timeout};

const LIST: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
const PODS: &str = "/api/v1/namespaces/default/pods?labelSelector=app%3Dsample-app";

/// A generous limit. The tests end in well under one second unless something hangs.
const LIMIT: Duration = Duration::from_secs(20);

struct Cluster {
    member: Member,
    client: ApiClient,
    deployment: Deployment,
}

impl Cluster {
    async fn start(name: &str) -> Self {
        let member = Member::start(name).await.unwrap();
        let client = member.access().client();
        let options = DeploymentOptions {
            startup: Duration::from_millis(50),
            scrape_interval: Duration::from_millis(100),
            ..DeploymentOptions::default()
        };
        let deployment = Deployment::start_with(&member, options);
        Self { member, client, deployment }
    }

    async fn scale(&self, replicas: usize) {
        self.deployment.scale_to(replicas).await.unwrap();
        timeout(LIMIT, self.deployment.ready(replicas)).await.unwrap();
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        let answer = self.client.get(path).await.unwrap().json().unwrap();
        answer["items"].as_array().cloned().unwrap_or_default()
    }

    /// Queries until the metrics match `wanted`. They change with every scrape.
    async fn metrics_until(&self, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let asking = async {
            loop {
                let items = self.items(LIST).await;
                if wanted(&items) {
                    return items;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, asking).await.expect("the metrics match in time")
    }
}

fn milli(item: &Value) -> i64 {
    let value = item["value"].as_str().unwrap();
    match value.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap(),
        None => value.parse::<i64>().unwrap() * 1000,
    }
}

#[tokio::test]
async fn replica_counts_requests_but_not_scrapes() {
    let replica = Replica::start().await.unwrap();
    let base = format!("http://{}", replica.address());
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let get = async |path: &str| {
        let response = http.get(format!("{base}{path}").parse().unwrap()).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert!(get("/metrics").await.ends_with("\nhttp_requests_total 0\n"));
    assert!(get("/").await.contains("served 0 requests"));
    get("/").await;
    assert!(get("/metrics").await.contains("# TYPE http_requests_total counter\nhttp_requests_total 2\n"));
    assert_eq!(replica.served(), 2);
}

#[tokio::test]
async fn pods_start_unready_and_get_a_metric_after_two_scrapes() {
    let member = Member::start("member1").await.unwrap();
    let options = DeploymentOptions {
        startup: Duration::from_secs(3600),
        scrape_interval: Duration::from_secs(3600),
        ..DeploymentOptions::default()
    };
    let deployment = Deployment::start_with(&member, options);
    deployment.scale_to(2).await.unwrap();
    let pods = member.store().pods();
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        assert!(!pod.ready);
        assert_eq!(pod.labels["app"], "sample-app");
        let parts: Vec<&str> = pod.name.rsplitn(3, '-').collect();
        assert_eq!((parts[0].len(), parts[1].len(), parts[2]), (5, 10, "sample-app"));
    }
    let client = member.access().client();
    assert_eq!(client.get(LIST).await.unwrap().status, 404, "one scrape at most");

    let cluster = Cluster::start("member2").await;
    cluster.scale(1).await;
    let items = cluster.metrics_until(|items| items.len() == 1).await;
    assert_eq!((milli(&items[0]), items[0]["describedObject"]["kind"].as_str()), (0, Some("Pod")));
}

#[tokio::test]
async fn stopped_replicas_lose_their_pods_and_values() {
    let cluster = Cluster::start("member1").await;
    cluster.scale(3).await;
    assert_eq!(cluster.deployment.wanted(), 3);
    cluster.metrics_until(|items| items.len() == 3).await;
    cluster.scale(1).await;
    let (pods, metrics) = (cluster.items(PODS).await, cluster.items(LIST).await);
    assert_eq!((pods.len(), metrics.len()), (1, 1));
    assert_eq!(pods[0]["metadata"]["name"], metrics[0]["describedObject"]["name"]);
    cluster.scale(0).await;
    assert_eq!(cluster.client.get(LIST).await.unwrap().status, 404);
    assert!(cluster.member.store().pods().is_empty());
}

#[tokio::test]
async fn load_is_spread_over_all_replicas_and_its_rate_is_the_metric() {
    let (one, two) = (Cluster::start("member1").await, Cluster::start("member2").await);
    one.scale(2).await;
    two.scale(1).await;
    let load = LoadGenerator::start(vec![one.deployment.endpoints(), two.deployment.endpoints()]);
    load.set_rate(90.0);
    for cluster in [&one, &two] {
        // 30 requests per second for each replica, three per scrape. The rate is exact on average, not at every scrape.
        let near = |items: &[Value]| {
            !items.is_empty() && items.iter().all(|item| (15_000..=45_000).contains(&milli(item)))
        };
        cluster.metrics_until(near).await;
    }
    load.set_rate(0.0);
    for cluster in [&one, &two] {
        cluster.metrics_until(|items| items.iter().all(|item| milli(item) == 0)).await;
    }
    let served = (one.deployment.served(), two.deployment.served());
    let counted = async {
        while load.done() + load.failed() < served.0 + served.1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, counted).await.expect("the last responses arrive");
    assert_eq!((load.done(), load.failed()), (served.0 + served.1, 0));
    assert!(served.0.abs_diff(2 * served.1) <= 3, "{served:?}");
}

#[tokio::test]
async fn load_keeps_its_rate_and_fails_without_replicas() {
    let cluster = Cluster::start("member1").await;
    let load = LoadGenerator::start(vec![cluster.deployment.endpoints()]);
    sleep(Duration::from_millis(150)).await; // idle
    let began = Instant::now();
    load.set_rate(1000.0);
    let failing = async {
        while load.failed() < 100 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, failing).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(95), "no burst");
    assert_eq!(load.done(), 0);
    cluster.scale(1).await;
    let waiting = async {
        while load.done() < 50 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, waiting).await.unwrap();
}
