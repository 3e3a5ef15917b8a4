//! Test setup: a fleet, the adapter's process and a client that authenticates as the front proxy.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use testkit::adapter::{AdapterProcess, Invocation};
use testkit::api_client::{Answer, ApiClient, Credentials};
use testkit::fleet::Fleet;
use testkit::member::{Member, MemberOptions, Protocols};

/// The label of an item with the name of its cluster.
pub const CLUSTER_LABEL: &str = "resource.karmada.io/query-from-cluster";
/// The query of the FederatedHPA tutorial.
pub const PODS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A/http_requests";
/// A timeout that is long enough for every successful step, also on a slow machine.
pub const GENEROUS: Duration = Duration::from_secs(60);

/// A fleet with an adapter in front of it.
pub struct Stage {
    pub fleet: Fleet,
    pub adapter: AdapterProcess,
    front: ApiClient,
}

impl Stage {
    /// Starts the fleet and the adapter. `flags` are appended to the production flags.
    pub async fn start(members: Vec<Member>, flags: &[&str]) -> Self {
        let fleet = Fleet::start(members).await.expect("the fleet starts");
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let adapter = fleet.start_adapter(binary(), &flags, None).await.expect("the adapter starts");
        Self::of(fleet, adapter)
    }

    /// Like [`Self::start`], for flags with which the adapter does not trust the control plane's front proxy.
    pub async fn start_bare(members: Vec<Member>, flags: &[&str]) -> Self {
        let fleet = Fleet::start(members).await.expect("the fleet starts");
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("the adapter starts");
        adapter.ready(GENEROUS).await.expect("the adapter is ready");
        Self::of(fleet, adapter)
    }

    /// Uses a fleet and an adapter that run already.
    pub fn of(fleet: Fleet, adapter: AdapterProcess) -> Self {
        let front = front(&fleet, &adapter);
        Self { fleet, adapter, front }
    }

    /// Starts the adapter for a running fleet with these environment variables.
    pub async fn start_in(fleet: Fleet, flags: &[&str], environment: Vec<(String, String)>) -> Self {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let invocation = fleet.invocation(binary(), &flags).expect("a kubeconfig is written");
        let mut adapter =
            AdapterProcess::start(&Invocation { environment, ..invocation }).expect("the adapter starts");
        adapter.ready(GENEROUS).await.expect("the adapter is ready");
        Self::of(fleet, adapter)
    }

    /// Registers APIServices and waits until the aggregation layer reports them as available.
    pub async fn register(&self, names: &[&str]) {
        self.fleet.register(&self.adapter, names).expect("names of APIServices");
        for name in names {
            let available = tokio::time::timeout(GENEROUS, self.fleet.plane.available(name)).await;
            available.expect("the APIService is available in time").expect("the APIService is registered");
        }
        self.fleet.plane.poll_discovery_now(names[0]).await.expect("the APIService is registered");
    }

    /// The member with this index.
    pub fn member(&self, index: usize) -> &Member {
        &self.fleet.members[index]
    }

    /// Sends a GET request through the front proxy, for a user in `system:masters`.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")]).await
    }

    /// Sends a GET request through the front proxy with only these headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    /// Sends a request through the front proxy.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Answer {
        send(&self.front, method, path, headers, body).await
    }

    /// Waits until at least this number of log lines contain these words.
    pub async fn logged(&self, words: &str, times: usize) {
        let deadline = Instant::now() + GENEROUS;
        loop {
            let log = std::fs::read_to_string(self.adapter.log()).expect("a log");
            if log.lines().filter(|line| line.contains(words)).count() >= times {
                return;
            }
            assert!(Instant::now() < deadline, "the log has less than {times} lines with {words:?}:\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The adapter's own metrics, from the secure port.
    pub async fn metrics(&self) -> String {
        String::from_utf8(self.get("/metrics").await.body.to_vec()).expect("text")
    }

    /// The value of one of these metrics. `name` has no prefix; it includes the labels.
    pub async fn metric(&self, name: &str) -> usize {
        let (series, metrics) = (format!("karmada_metrics_adapter_{name} "), self.metrics().await);
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap_or_else(|| panic!("no {series}in\n{metrics}")).parse().expect("a number")
    }
}

/// Starts members that each have `pods` pods with the metric `http_requests`.
pub async fn members(count: usize, pods: usize) -> Vec<Member> {
    let mut members = Vec::new();
    for number in 1..=count {
        let member = Member::start(&format!("member{number}")).await.expect("a member starts");
        members.push(member.with_pods("http_requests", pods));
    }
    members
}

/// Like [`members`], for members that support only these protocols.
pub async fn members_over(protocols: Protocols, count: usize, pods: usize) -> Vec<Member> {
    let mut members = Vec::new();
    for number in 1..=count {
        members
            .push(member_over(protocols, &format!("member{number}")).await.with_pods("http_requests", pods));
    }
    members
}

/// A member without metrics that supports only these protocols.
pub async fn member_over(protocols: Protocols, name: &str) -> Member {
    let options = MemberOptions { protocols, ..MemberOptions::default() };
    Member::start_with(name, options).await.expect("a member starts")
}

/// Generates two tests for each function: one with members that support only HTTP/2, one with only HTTP/1.1.
macro_rules! over_both_protocols {
    ($($name:ident),+ $(,)?) => {
        mod over_http2 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(testkit::member::Protocols::Http2).await;
            })+
        }

        mod over_http1 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(testkit::member::Protocols::Http1).await;
            })+
        }
    };
}

pub(crate) use over_both_protocols;

/// A variant of [`PODS`] for each number. The adapter does not share responses between them.
pub fn distinct(number: usize) -> String {
    format!("{PODS}?labelSelector=app%3Dsample-app,a%21%3D{number}")
}

/// The adapter's binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_karmada-metrics-adapter"))
}

/// A client with the front proxy's certificate.
pub fn front(fleet: &Fleet, adapter: &AdapterProcess) -> ApiClient {
    let identity = fleet.plane.front_proxy_identity();
    client(adapter, Credentials::Certificate(&identity))
}

/// A client of the adapter.
pub fn client(adapter: &AdapterProcess, credentials: Credentials<'_>) -> ApiClient {
    let base = format!("https://{}", adapter.address());
    ApiClient::new(&base, adapter.ca_pem(), credentials).expect("a client")
}

/// Sends a request with these headers.
pub async fn send(
    client: &ApiClient,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Bytes::from_static(body.as_bytes())).expect("a request");
    let response = tokio::time::timeout(GENEROUS, client.send(request)).await;
    response.expect("a response in time").expect("a response")
}

/// The clusters of a list's items, sorted and without duplicates.
pub fn clusters(list: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        list["items"].as_array().expect("items").iter().flat_map(item_clusters).collect();
    names.sort();
    names.dedup();
    names
}

/// The clusters of one item.
pub fn item_clusters(item: &Value) -> Vec<String> {
    let selector = if item["metric"].is_object() { &item["metric"]["selector"] } else { &item["selector"] };
    if let Some(cluster) = selector["matchLabels"][CLUSTER_LABEL].as_str() {
        return vec![cluster.to_owned()];
    }
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let values = expressions
        .filter(|expression| expression["key"] == CLUSTER_LABEL)
        .map(|expression| &expression["values"]);
    values.filter_map(Value::as_array).flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}

/// Repeats the query until `wanted` accepts the clusters in the response. Tests need this because a change of the fleet has no
/// other visible effect.
pub async fn until(stage: &Stage, wanted: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + GENEROUS;
    loop {
        let response = stage.get(PODS).await;
        let names = if response.status == StatusCode::OK {
            clusters(&response.json().expect("JSON"))
        } else {
            Vec::new()
        };
        if wanted(&names) {
            return;
        }
        assert!(Instant::now() < deadline, "the response still has {names:?}");
    }
}
