//! Failing members: the response to the client is correct and the values of other members are not affected.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::api_client::Answer;
use testkit::fleet::PREFERRED;
use testkit::member::{Fault, Flaw, Member, Protocols};
use tokio::process::Command;

use crate::stage::{PODS, Stage, clusters, members, members_over, over_both_protocols, until};

over_both_protocols!(
    member_fault_affects_only_that_member,
    frozen_member_does_not_delay_responses_or_discovery,
    response_names_each_member_if_all_fail,
    failure_beside_members_without_the_metric_is_not_404,
    client_disconnect_cancels_member_requests,
    client_timeout_shortens_the_wait,
);

/// The longest time that a query waits for a member in these tests.
const MEMBER_TIMEOUT: &str = "--member-timeout=2s";
/// Without this flag, some failures get last-known values; `last_known` tests those.
const PARTIAL: &str = "--on-member-failure=partial";
/// Additional time for a response on a busy machine.
const SLACK: Duration = Duration::from_secs(8);

/// Queries the pods' metric and checks that only `member2` is missing, with one warning that contains `words`.
async fn missing_member2(stage: &Stage, words: &str) -> Answer {
    let response = stage.get(PODS).await;
    assert_eq!(response.status, StatusCode::OK, "{words}: {:?}", response.body);
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1", "member3"], "{words}");
    let warnings = response.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = "299 - \"values of 1 cluster are missing: member2: ";
    assert!(warnings[0].starts_with(expected) && warnings[0].contains(words), "{words}: {warnings:?}");
    response
}

async fn assert_all_members(stage: &Stage) {
    let response = stage.get(PODS).await;
    assert!(response.warnings().is_empty(), "{:?}", response.warnings());
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1", "member2", "member3"]);
}

async fn member_fault_affects_only_that_member(protocols: Protocols) {
    let flags = [MEMBER_TIMEOUT, PARTIAL, "--member-body-bytes=1Mi"];
    let stage = Stage::start(members_over(protocols, 3, 2).await, &flags).await;
    for (fault, words) in faults() {
        // The API server works, unless the fault affects the whole member.
        stage.member(1).fault_on("/apis/custom.metrics.k8s.io", fault);
        let start = Instant::now();
        missing_member2(&stage, words).await;
        assert!(start.elapsed() < Duration::from_secs(2) + SLACK, "{words}: {:?}", start.elapsed());
        stage.member(1).clear_faults();
        assert_all_members(&stage).await;
    }
}

/// Faults of a member and the text that the client gets for each.
fn faults() -> Vec<(Fault, &'static str)> {
    vec![
        (Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned()), "HTTP 500: boom"),
        (Fault::Refusal(StatusCode::FORBIDDEN, "Forbidden", "not you".to_owned()), "HTTP 403: not you"),
        (Fault::Status(StatusCode::FORBIDDEN, String::new()), "HTTP 403"),
        (Fault::Status(StatusCode::TOO_MANY_REQUESTS, "slow down".to_owned()), "HTTP 429: slow down"),
        (Fault::Status(StatusCode::NO_CONTENT, String::new()), "HTTP 204"),
        (Fault::Abort, "the connection broke"),
        (Fault::Reset, "the connection broke"),
        (Fault::Truncated, "the connection broke"),
        (Fault::Endless, "the response has more than 1048576 bytes"),
        (Fault::Garbage, "the response is malformed"),
        (Fault::WrongKind, "the response is malformed: the body is a"),
        (Fault::Headers { count: 1, bytes: 512 << 10 }, "the connection broke"),
        (Fault::BadQuantity, "the response is malformed: the value of item 0 is not a quantity"),
        (Fault::DeepJson, "the response is malformed"),
        (Fault::SlowDrip(Duration::from_millis(200)), "no response from the metrics API within 2s [Timeout]"),
        (Fault::Hang, "no response from the metrics API within 2s [Timeout]"),
        (Fault::Delay(Duration::from_secs(4)), "no response from the metrics API within 2s [Timeout]"),
        (Fault::Redirect("https://127.0.0.1:1/".to_owned()), "HTTP 307"),
        (Fault::Refused, "[ConnectionRefused]"),
        (Fault::BadCertificate(Flaw::OtherAuthority), "[UnknownAuthority]"),
        (Fault::BadCertificate(Flaw::WrongName), "[CertificateNameMismatch]"),
        (Fault::BadCertificate(Flaw::Expired), "[CertificateExpired]"),
        (Fault::Frozen, "[NoAnswer]"),
    ]
}

async fn frozen_member_does_not_delay_responses_or_discovery(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 3, 2).await, &[MEMBER_TIMEOUT]).await;
    assert_all_members(&stage).await;
    stage.member(1).fault(Fault::Frozen);
    let start = Instant::now();
    missing_member2(&stage, "member2").await;
    assert!(start.elapsed() < Duration::from_secs(2) + SLACK);
    // The API server's discovery timeout for a backend is 5 s. A request that waits for a member takes 2 s here, other requests
    // a few milliseconds.
    let discovery = median_discovery(&stage).await;
    assert!(discovery < Duration::from_secs(1), "{discovery:?}");
    let state = stage.fleet.plane.probe_now(PREFERRED).await.expect("a registered APIService");
    assert!(state.available, "{state:?}");
    assert_eq!(stage.fleet.plane.probe_failures(PREFERRED).expect("registered"), Vec::<String>::new());
    stage.member(1).clear_faults();
    assert_all_members(&stage).await;
}

async fn median_discovery(stage: &Stage) -> Duration {
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        let response = stage.get("/apis/custom.metrics.k8s.io/v1beta2").await;
        assert_eq!(response.status, StatusCode::OK);
        times.push(start.elapsed());
    }
    times.sort();
    times[5]
}

async fn response_names_each_member_if_all_fail(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &[MEMBER_TIMEOUT, PARTIAL]).await;
    stage.member(0).fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned()));
    stage.member(1).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
    let response = stage.get(PODS).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers.get("retry-after"), None, "client-go would retry at once");
    let body = response.json().expect("JSON");
    let causes: Vec<(&str, &str)> = body["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .map(|cause| {
            (cause["field"].as_str().expect("a cluster"), cause["reason"].as_str().expect("a reason"))
        })
        .collect();
    assert_eq!(causes, [("member1", "APIFailing"), ("member2", "Timeout")]);
}

async fn failure_beside_members_without_the_metric_is_not_404(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &[MEMBER_TIMEOUT, PARTIAL]).await;
    let path = PODS.replace("http_requests", "unknown");
    assert_eq!(stage.get(&path).await.status, StatusCode::NOT_FOUND);
    stage.member(0).fault(Fault::Refused);
    assert_eq!(stage.get(&path).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn not_ready_cluster_is_named_and_not_queried() {
    let stage = Stage::start(members(3, 1).await, &[]).await;
    stage.fleet.plane.set_ready("member2", false);
    until(&stage, |names| names == ["member1", "member3"]).await;
    missing_member2(&stage, "the cluster is not Ready").await;
    for name in ["member1", "member3"] {
        stage.fleet.plane.set_ready(name, false);
    }
    let unavailable = async { while stage.get(PODS).await.status != StatusCode::SERVICE_UNAVAILABLE {} };
    tokio::time::timeout(crate::stage::GENEROUS, unavailable).await.expect("no cluster is Ready");
    let list = stage.get("/apis/custom.metrics.k8s.io/v1beta2").await.json().expect("JSON");
    assert_eq!(list["resources"][0]["name"], "pods/http_requests", "discovery keeps the known metrics");
    for name in ["member1", "member3"] {
        stage.fleet.plane.set_ready(name, true);
    }
    stage.fleet.plane.set_ready("member2", true);
    until(&stage, |names| names.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_join_and_leave_at_run_time() {
    let stage = Stage::start(members(2, 1).await, &[]).await;
    let late = Member::start("late").await.expect("a member starts").with_pods("http_requests", 1);
    let access = late.access();
    let spec = testkit::control_plane::MemberSpec {
        name: access.name,
        endpoint: access.endpoint,
        ca_bundle: Some(access.ca_pem),
        token: Some(access.token),
        ready: true,
        ..Default::default()
    };
    stage.fleet.plane.join(&spec).expect("the cluster joins");
    until(&stage, |names| names == ["late", "member1", "member2"]).await;
    assert!(stage.metrics().await.contains("cluster=\"member1\""));
    stage.fleet.plane.remove("member1");
    until(&stage, |names| names == ["late", "member2"]).await;
    let deadline = Instant::now() + crate::stage::GENEROUS;
    while stage.metrics().await.contains("cluster=\"member1\"") {
        assert!(Instant::now() < deadline, "metrics of the removed cluster remain");
    }
}

async fn client_disconnect_cancels_member_requests(protocols: Protocols) {
    let stage =
        Stage::start(members_over(protocols, 2, 1).await, &["--member-timeout=1h", "--request-timeout=1h"])
            .await;
    for index in [0, 1] {
        stage.member(index).reset_counters();
        stage.member(index).fault(Fault::Hang);
    }
    let both_queried = async {
        for index in [0, 1] {
            stage.member(index).until(|counters| counters.in_flight == 1).await;
        }
    };
    tokio::select! {
        _ = stage.get(PODS) => panic!("hung members gave a response"),
        () = both_queried => {}
    }
    for index in [0, 1] {
        let cancelled =
            stage.member(index).until(|counters| counters.cancelled == 1 && counters.in_flight == 0);
        tokio::time::timeout(crate::stage::GENEROUS, cancelled).await.expect("the request is cancelled");
    }
}

async fn client_timeout_shortens_the_wait(protocols: Protocols) {
    let stage =
        Stage::start(members_over(protocols, 3, 1).await, &["--member-timeout=1h", "--request-timeout=1h"])
            .await;
    stage.member(1).fault(Fault::Hang);
    let response = stage.get(&format!("{PODS}?timeout=2s")).await;
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1", "member3"]);
    assert!(
        response.warnings()[0].contains("member2: no response from the metrics API within 1.8s"),
        "{:?}",
        response.warnings()
    );
}

/// Sends a signal to the adapter's process.
async fn signal(stage: &Stage, signal: &str) {
    let id = stage.adapter.id().expect("the adapter runs").to_string();
    assert!(Command::new("kill").args([signal, &id]).status().await.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_ping_response_does_not_make_members_unreachable() {
    // A ping is sent after 1 s and times out after 6 s.
    let stage = Stage::start(members_over(Protocols::Http2, 1, 1).await, &["--member-timeout=20s"]).await;
    stage.get(PODS).await;
    stage.member(0).fault(Fault::Frozen);
    let response = async { stage.get(PODS).await };
    let pause = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        signal(&stage, "-STOP").await;
        stage.member(0).clear_faults();
        tokio::time::sleep(Duration::from_secs(6)).await;
        signal(&stage, "-CONT").await;
    };
    let (response, ()) = tokio::join!(response, pause);
    assert!(response.warnings().is_empty(), "{:?}", response.warnings());
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1"]);
}
