//! A member replays the recorded responses of a real kube-apiserver with a real prometheus-adapter. Each must have the decided
//! outcome.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::member::{Fault, Member, RecordedAnswer, ScriptedAnswer, recorded_answers};

use crate::stage::{PODS, Stage, clusters};

const POD: &str = "sample-app-599dc6d544-dgq7m";
const GROUP: &str = "/apis/custom.metrics.k8s.io";

/// A fleet of one member with recorded discovery of these versions.
async fn recorded_member(versions: &[&str], flags: &[&str]) -> Stage {
    let member = Member::start("member1").await.expect("a member starts");
    for (name, version) in [("discovery", "v1beta2"), ("discovery-v1beta1", "v1beta1")] {
        let name = if versions.contains(&version) { name } else { "external" };
        member.answer(&format!("{GROUP}/{version}"), recorded_response(name, "application/json"));
    }
    Stage::start(vec![member], flags).await
}

fn recorded_response(name: &str, accept: &str) -> ScriptedAnswer {
    let rows = recorded_answers().expect("the recording exists");
    let row = rows.into_iter().find(|row| row.name == name && row.accept == accept);
    row.and_then(|row| row.answer).unwrap_or_else(|| panic!("{name} was not recorded for {accept}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_member_responses_have_the_decided_outcome() {
    // Each response is checked alone: discovery is rare and last-known values are off.
    let flags = ["--discovery-interval=1h", "--on-member-failure=partial"];
    let (new, old) =
        (recorded_member(&["v1beta2", "v1beta1"], &flags), recorded_member(&["v1beta1"], &flags));
    let (new, old) = tokio::join!(new, old);
    let rows = recorded_answers().expect("the recording exists");
    let mut replayed = 0;
    for row in rows.iter().filter(|row| row.path.contains(GROUP) && row.path.split('/').count() > 5) {
        let Some(recorded) = &row.answer else { continue };
        let path = row.path.replace("POD", POD);
        let stage = if path.contains("/v1beta1/") { &old } else { &new };
        stage.member(0).clear_answers();
        stage.member(0).answer(&path, recorded.clone());
        let response = stage.get(&path).await;
        let context = format!("{} ({}): {:?}", row.name, row.accept, response.body);
        assert_eq!(response.status, expected_status(row), "{context}");
        let body = response.json().expect("JSON");
        match response.status {
            StatusCode::OK => check_values(row, &body),
            StatusCode::SERVICE_UNAVAILABLE => check_failure(row, &body),
            _ => assert_eq!(body["kind"], "Status", "{context}"),
        }
        replayed += 1;
    }
    assert!(replayed >= 30, "only {replayed} responses were replayed");
}

fn expected_status(row: &RecordedAnswer) -> StatusCode {
    match row.name.as_str() {
        // Client errors, which are not sent to members.
        "bad-selector" | "namespaces-root" => StatusCode::BAD_REQUEST,
        // Not found: an empty list, a 404, or a 500 for a resource that discovery does not list.
        "metric-selector-none"
        | "unknown-resource"
        | "by-name-missing"
        | "no-such-metric"
        | "no-such-namespace"
        | "selector-none"
        | "nodes-root" => StatusCode::NOT_FOUND,
        "wrong-token" | "wrong-token-protobuf" | "adapter-unavailable" | "adapter-unavailable-protobuf" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::OK,
    }
}

/// Checks the values of the response. The recorded format does not matter.
fn check_values(row: &RecordedAnswer, body: &Value) {
    let json = if row.name == "list-v1beta1" { "list-v1beta1" } else { row.name.as_str() };
    let recorded: Value =
        serde_json::from_slice(&recorded_response(json, "application/json").body).expect("valid JSON");
    assert_eq!(body["apiVersion"], recorded["apiVersion"]);
    let values = |list: &Value| -> Vec<(Value, Value, Value)> {
        let items = list["items"].as_array().expect("items").iter();
        items
            .map(|item| (item["describedObject"].clone(), item["value"].clone(), item["timestamp"].clone()))
            .collect()
    };
    assert_eq!(values(body), values(&recorded), "{} ({})", row.name, row.accept);
    assert_eq!(clusters(body), ["member1"]);
}

fn check_failure(row: &RecordedAnswer, body: &Value) {
    let (reason, message) = if row.name.starts_with("wrong-token") {
        ("Unauthorized", "HTTP 401: Unauthorized")
    } else {
        ("APIUnavailable", "HTTP 503: error trying to reach service: net/http: TLS handshake timeout")
    };
    assert_eq!(body["reason"], "ServiceUnavailable");
    assert_eq!(
        body["details"]["causes"],
        json!([{"reason": reason, "message": message, "field": "member1"}])
    );
    let text = body["message"].as_str().expect("a message");
    assert!(text.contains("member1") && text.contains(message), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn member_with_hung_prometheus_times_out() {
    let stage = recorded_member(&["v1beta2"], &["--member-timeout=1s"]).await;
    stage.member(0).fault(Fault::Hang);
    let response = stage.get(PODS).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers.get("retry-after"), None, "client-go would retry at once");
    assert_eq!(
        response.json().expect("JSON")["details"]["causes"][0]["message"],
        "no response from the metrics API within 1s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_reads_both_formats_and_keeps_the_last_valid_result() {
    for accept in ["application/json", "application/vnd.kubernetes.protobuf"] {
        let member = Member::start("member1").await.expect("a member starts");
        member.answer(&format!("{GROUP}/v1beta2"), recorded_response("discovery", accept));
        let stage = Stage::start(vec![member], &["--discovery-interval=100ms"]).await;
        let names = async || -> Vec<String> {
            let list = stage.get("/apis/custom.metrics.k8s.io/v1beta1").await.json().expect("JSON");
            let resources = list["resources"].as_array().expect("a list").iter();
            resources.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
        };
        let known = ["jobs.batch/http_requests", "namespaces/http_requests", "pods/http_requests"];
        assert_eq!(names().await, known, "{accept}");
        let unavailable = recorded_response("adapter-unavailable-discovery", "application/json");
        stage.member(0).answer(&format!("{GROUP}/v1beta2"), unavailable);
        for _ in 0..3 {
            stage.member(0).arrived_at(&format!("{GROUP}/v1beta2")).await;
        }
        assert_eq!(names().await, known, "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_404_means_api_not_served() {
    let absent = recorded_response("external", "application/json");
    assert_eq!(
        (absent.status, absent.content_type.as_str()),
        (StatusCode::NOT_FOUND, "text/plain; charset=utf-8")
    );
    let member = Member::start("member1").await.expect("a member starts");
    for version in ["v1beta1", "v1beta2"] {
        member.answer(&format!("{GROUP}/{version}"), absent.clone());
    }
    let stage = Stage::start(vec![member], &[]).await;
    stage.member(0).reset_counters();
    let response = stage.get(PODS).await;
    assert_eq!(response.status, StatusCode::NOT_FOUND);
    let requests = stage.member(0).requests_to(&format!("{GROUP}/"));
    assert_eq!(requests.len(), 1, "the query does not start discovery: {requests:?}");
}
