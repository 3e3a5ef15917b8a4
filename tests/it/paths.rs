//! Clients and members cannot inject text into other parts of paths, headers or log lines.

use http::StatusCode;
use testkit::member::Fault;

use crate::stage::{PODS, Stage, clusters, members};

#[tokio::test(flavor = "multi_thread")]
async fn paths_cannot_reach_other_member_apis() {
    let stage = Stage::start(members(1, 1).await, &["--discovery-interval=1h"]).await;
    stage.member(0).reset_counters();
    let below = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";
    for (path, status) in [
        ("/pods/..%2F..%2F..%2F..%2F..%2F..%2Fapi%2Fv1%2Fsecrets/m", StatusCode::BAD_REQUEST),
        ("/pods/%2e%2e/m", StatusCode::BAD_REQUEST),
        ("/pods/%2E/m", StatusCode::BAD_REQUEST),
        ("/pods//m", StatusCode::BAD_REQUEST),
        ("/pods/a%252Fb/m", StatusCode::BAD_REQUEST),
        ("/..%2Fkube-system/a/m", StatusCode::BAD_REQUEST),
        ("/pods/a/m%2F..%2Fsecrets", StatusCode::BAD_REQUEST),
        ("/pods/a/m/more", StatusCode::NOT_FOUND),
        ("/pods/a/%ff", StatusCode::BAD_REQUEST),
        ("/pods/a/m%", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(stage.get(&format!("{below}{path}")).await.status, status, "{path}");
    }
    assert_eq!(stage.member(0).counters().requests, 0, "{:?}", stage.member(0).requests());

    // Characters with a meaning in URLs are encoded as part of the name.
    for name in ["a%3Fwatch%3D1", "a%23b", "a%20b%0D%0AX-Evil:%201", "http:%3A"] {
        stage.get(&format!("{below}/pods/{name}/m?labelSelector=a%26watch%3D1")).await;
    }
    for request in stage.member(0).requests() {
        let (path, query) = request.path_and_query.split_once('?').unwrap_or((&request.path_and_query, ""));
        assert!(path.starts_with(&format!("{below}/pods/")) && path.split('/').count() == 9, "{path}");
        assert!(!query.contains("watch=1"), "{query}");
        assert!(!request.headers.contains_key("x-evil"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn member_text_cannot_inject_headers_or_log_lines() {
    let stage = Stage::start(members(2, 1).await, &["--on-member-failure=partial", "--v=5"]).await;
    let words = "boom\" \\\r\nX-Evil: 1\r\n\r\n\u{7}{\"level\":\"INFO\"} ".repeat(40);
    stage.member(1).fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, words));
    let response = stage.get(PODS).await;
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1"]);
    assert!(!response.headers.contains_key("x-evil"));
    let warnings = response.warnings();
    assert!(warnings.len() == 1 && warnings[0].len() < 600, "{warnings:?}");
    assert!(warnings[0].starts_with("299 - \"") && warnings[0].ends_with('"'), "{warnings:?}");
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert!(log.lines().all(|line| line.starts_with("20")), "each line begins with its time: {log}");
}
