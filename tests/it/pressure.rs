//! Limits on concurrent queries and on their memory.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use testkit::api_client::{Answer, ApiClient};
use testkit::member::Fault;

use crate::stage::{GENEROUS, PODS, Stage, front, members};

const ALICE: [(&str, &str); 1] = [("X-Remote-User", "alice")];
const CONTROLLER: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];

async fn stage(pods: usize, flags: &[&str]) -> Stage {
    let stage = Stage::start(members(2, pods).await, flags).await;
    stage.fleet.plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["*"]);
    stage
}

async fn get(client: &ApiClient, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(Method::GET).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(Bytes::new()).expect("a request")).await.expect("a response")
}

fn assert_throttled(response: &Answer, words: &str) {
    assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS, "{:?}", response.body);
    assert_eq!(response.headers.get("retry-after").map(http::HeaderValue::as_bytes), Some(&b"1"[..]));
    let body = response.json().expect("JSON");
    assert_eq!((&body["kind"], &body["reason"]), (&"Status".into(), &"TooManyRequests".into()));
    assert_eq!(body["details"]["retryAfterSeconds"], 1);
    assert!(body["message"].as_str().is_some_and(|message| message.contains(words)), "{body}");
}

/// The paths of kube-apiserver's probes and of clients' discovery.
const LIGHT: [&str; 7] = [
    "/healthz",
    "/livez",
    "/readyz",
    "/apis",
    "/apis/custom.metrics.k8s.io",
    "/apis/custom.metrics.k8s.io/v1beta2",
    "/version",
];

#[tokio::test(flavor = "multi_thread")]
async fn excess_queries_get_429_and_exempt_requests_do_not() {
    let forever = ["--member-timeout=1h", "--request-timeout=1h", "--on-member-failure=partial"];
    let stage = stage(1, &[&["--max-requests-inflight=2"], &forever[..]].concat()).await;
    let member = stage.member(0);
    member.reset_counters();
    member.fault(Fault::Hang);
    let client = front(&stage.fleet, &stage.adapter);
    let hanging: Vec<_> = (0..2)
        .map(|number| {
            let (client, path) = (client.clone(), format!("{PODS}?labelSelector=a%21%3D{number}"));
            tokio::spawn(async move { get(&client, &path, &ALICE).await })
        })
        .collect();
    member.until(|counters| counters.in_flight == 2).await;

    assert_throttled(&get(&client, PODS, &ALICE).await, "too many requests, please try again later");
    for path in LIGHT {
        assert_eq!(get(&client, path, &ALICE).await.status, StatusCode::OK, "{path}");
    }
    for (path, status) in [("/metrics", StatusCode::FORBIDDEN), ("/openapi/v2", StatusCode::OK)] {
        assert_eq!(get(&client, path, &ALICE).await.status, status, "{path}");
    }
    let query = format!("{PODS}?timeout=200ms");
    assert_eq!(
        get(&client, &query, &CONTROLLER).await.status,
        StatusCode::OK,
        "with the other member's values"
    );
    let metrics = stage.metrics().await;
    let line = r#"apiserver_current_inflight_requests{request_kind="readOnly"} 2"#;
    assert!(metrics.lines().any(|found| found == line), "{metrics}");

    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    member.clear_faults();
    let cancelled = member.until(|counters| counters.in_flight == 0);
    tokio::time::timeout(GENEROUS, cancelled).await.expect("the requests to the member are cancelled");
    assert_eq!(get(&client, PODS, &ALICE).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn query_without_memory_gets_429() {
    let stage = stage(200, &["--inflight-bytes=192Ki"]).await;
    for _ in 0..3 {
        assert_throttled(&stage.get_with(PODS, &ALICE).await, "--inflight-bytes");
        assert_throttled(&stage.get(PODS).await, "--inflight-bytes");
        // A query releases all its memory, and discovery of members continues.
        let one = PODS.replace("%2A", "sample-app-member1-0001");
        assert_eq!(stage.get_with(&one, &ALICE).await.status, StatusCode::OK);
    }
    let metrics = stage.metrics().await;
    assert!(metrics.lines().any(|line| line == "karmada_metrics_adapter_inflight_bytes 0"), "{metrics}");
    for path in LIGHT {
        assert_eq!(stage.get_with(path, &ALICE).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_member_responses_stay_within_the_budget() {
    let flags = ["--inflight-bytes=4Mi", "--member-body-bytes=64Mi", "--member-timeout=30s"];
    let stage = stage(1, &flags).await;
    let before = stage.adapter.resident_bytes().expect("the adapter runs");
    for member in &stage.fleet.members {
        member.fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces", Fault::Endless);
    }
    let client = front(&stage.fleet, &stage.adapter);
    let paths = (0..20).map(|number| format!("{PODS}?labelSelector=a%21%3D{number}"));
    let queries = paths.map(|path| {
        let client = client.clone();
        async move { get(&client, &path, &ALICE).await }
    });
    for response in futures::future::join_all(queries).await {
        // 503 if each member exceeded its half of the memory.
        let expected = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        assert!(expected.contains(&response.status), "{}", response.status);
        assert!(String::from_utf8_lossy(&response.body).contains("--inflight-bytes"), "{:?}", response.body);
    }
    let grown = stage.adapter.resident_bytes().expect("the adapter runs").saturating_sub(before);
    assert!(grown < 64 << 20, "memory has grown by {grown} bytes");
}
