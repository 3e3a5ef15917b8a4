//! Bounds on what is worked on at a time: queries, and the memory that they take.

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

async fn ask(client: &ApiClient, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(Method::GET).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(Bytes::new()).expect("a request")).await.expect("an answer")
}

fn is_refused(answer: &Answer, words: &str) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{:?}", answer.body);
    assert_eq!(answer.headers.get("retry-after").map(http::HeaderValue::as_bytes), Some(&b"1"[..]));
    let body = answer.json().expect("JSON");
    assert_eq!((&body["kind"], &body["reason"]), (&"Status".into(), &"TooManyRequests".into()));
    assert_eq!(body["details"]["retryAfterSeconds"], 1);
    assert!(body["message"].as_str().is_some_and(|message| message.contains(words)), "{body}");
}

/// What kube-apiserver's probes and clients' discovery ask for.
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
async fn more_queries_than_allowed_are_sent_away_and_probes_discovery_and_masters_never() {
    let forever = ["--member-timeout=1h", "--request-timeout=1h", "--on-member-failure=partial"];
    let stage = stage(1, &[&["--max-requests-inflight=2"], &forever[..]].concat()).await;
    let member = stage.member(0);
    member.reset_counters();
    member.fault(Fault::Hang);
    let client = front(&stage.fleet, &stage.adapter);
    let hanging: Vec<_> = (0..2)
        .map(|number| {
            let (client, path) = (client.clone(), format!("{PODS}?labelSelector=a%21%3D{number}"));
            tokio::spawn(async move { ask(&client, &path, &ALICE).await })
        })
        .collect();
    member.until(|counters| counters.in_flight == 2).await;

    is_refused(&ask(&client, PODS, &ALICE).await, "too many requests, please try again later");
    for path in LIGHT {
        assert_eq!(ask(&client, path, &ALICE).await.status, StatusCode::OK, "{path}");
    }
    for (path, status) in [("/metrics", StatusCode::FORBIDDEN), ("/openapi/v2", StatusCode::OK)] {
        assert_eq!(ask(&client, path, &ALICE).await.status, status, "{path}");
    }
    let query = format!("{PODS}?timeout=200ms");
    assert_eq!(
        ask(&client, &query, &CONTROLLER).await.status,
        StatusCode::OK,
        "with the other member's values"
    );
    let metrics = stage.metrics().await;
    let line = r#"apiserver_current_inflight_requests{request_kind="readOnly"} 2"#;
    assert!(metrics.lines().any(|found| found == line), "{metrics}");

    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    member.heal();
    let gone = member.until(|counters| counters.in_flight == 0);
    tokio::time::timeout(GENEROUS, gone).await.expect("who leaves takes the members' requests along");
    assert_eq!(ask(&client, PODS, &ALICE).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_for_which_there_is_no_memory_is_sent_away_whoever_asks() {
    let stage = stage(200, &["--inflight-bytes=192Ki"]).await;
    for _ in 0..3 {
        is_refused(&stage.get_with(PODS, &ALICE).await, "--inflight-bytes");
        is_refused(&stage.get(PODS).await, "--inflight-bytes");
        // Nothing is held beyond a query, and discovery of members goes on.
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
async fn members_that_send_without_end_at_the_same_time_take_no_more_than_the_room_for_all() {
    let flags = ["--inflight-bytes=4Mi", "--member-body-bytes=64Mi", "--member-timeout=30s"];
    let stage = stage(1, &flags).await;
    let before = stage.adapter.resident_bytes().expect("it runs");
    for member in &stage.fleet.members {
        member.fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces", Fault::Endless);
    }
    let client = front(&stage.fleet, &stage.adapter);
    let paths = (0..20).map(|number| format!("{PODS}?labelSelector=a%21%3D{number}"));
    let asked = paths.map(|path| {
        let client = client.clone();
        async move { ask(&client, &path, &ALICE).await }
    });
    for answer in futures::future::join_all(asked).await {
        // 503 where each of them was stopped at its half of the room.
        let refused = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        assert!(refused.contains(&answer.status), "{}", answer.status);
        assert!(String::from_utf8_lossy(&answer.body).contains("--inflight-bytes"), "{:?}", answer.body);
    }
    let grown = stage.adapter.resident_bytes().expect("it runs").saturating_sub(before);
    assert!(grown < 64 << 20, "it has grown by {grown} bytes");
}
