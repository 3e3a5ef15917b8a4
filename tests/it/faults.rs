//! Members that fail: what a client sees, and that nobody else's values suffer.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::api_client::Answer;
use testkit::fleet::PREFERRED;
use testkit::member::{Fault, Flaw, Member, Protocols};
use tokio::process::Command;

use crate::stage::{PODS, Stage, clusters, members, members_over, over_both_protocols, until};

over_both_protocols!(
    each_fault_of_a_member_is_that_members_failure_and_nobody_elses,
    a_frozen_member_delays_no_answer_past_its_deadline_and_no_discovery_at_all,
    when_all_members_fail_the_answer_names_each_and_why,
    a_failure_beside_members_without_the_metric_is_no_404,
    a_client_that_leaves_takes_its_members_requests_along,
    a_clients_own_timeout_shortens_the_wait_and_not_the_answer,
);

/// The longest that an answer waits for a member in these tests.
const MEMBER_TIMEOUT: &str = "--member-timeout=2s";
/// Without it some failures are stood in for, which `last_known` tests.
const PARTIAL: &str = "--on-member-failure=partial";
/// What else an answer may take, on a machine that has a lot to do.
const SLACK: Duration = Duration::from_secs(8);

/// Asks for the pods' metric and checks that only `member2` is missing and named, with these words.
async fn missing_member2(stage: &Stage, words: &str) -> Answer {
    let answer = stage.get(PODS).await;
    assert_eq!(answer.status, StatusCode::OK, "{words}: {:?}", answer.body);
    assert_eq!(clusters(&answer.json().expect("JSON")), ["member1", "member3"], "{words}");
    let warnings = answer.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = "299 - \"values of 1 cluster are missing: member2: ";
    assert!(warnings[0].starts_with(expected) && warnings[0].contains(words), "{words}: {warnings:?}");
    answer
}

async fn whole(stage: &Stage) {
    let answer = stage.get(PODS).await;
    assert!(answer.warnings().is_empty(), "{:?}", answer.warnings());
    assert_eq!(clusters(&answer.json().expect("JSON")), ["member1", "member2", "member3"]);
}

async fn each_fault_of_a_member_is_that_members_failure_and_nobody_elses(protocols: Protocols) {
    let flags = [MEMBER_TIMEOUT, PARTIAL, "--member-body-bytes=1Mi"];
    let stage = Stage::start(members_over(protocols, 3, 2).await, &flags).await;
    for (fault, words) in faults() {
        // Its API server is well, unless the fault is one of the whole member.
        stage.member(1).fault_on("/apis/custom.metrics.k8s.io", fault);
        let start = Instant::now();
        missing_member2(&stage, words).await;
        assert!(start.elapsed() < Duration::from_secs(2) + SLACK, "{words}: {:?}", start.elapsed());
        stage.member(1).heal();
        whole(&stage).await;
    }
}

/// What may be wrong with a member, and what the client reads of it.
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
        (Fault::Endless, "the answer has more than 1048576 bytes"),
        (Fault::Garbage, "the answer is malformed"),
        (Fault::WrongKind, "the answer is malformed: the body is a"),
        (Fault::Headers { count: 1, bytes: 512 << 10 }, "the connection broke"),
        (Fault::BadQuantity, "the answer is malformed: item 0 has a value that is no quantity"),
        (Fault::DeepJson, "the answer is malformed"),
        (Fault::SlowDrip(Duration::from_millis(200)), "no answer from the metrics API within 2s [Timeout]"),
        (Fault::Hang, "no answer from the metrics API within 2s [Timeout]"),
        (Fault::Delay(Duration::from_secs(4)), "no answer from the metrics API within 2s [Timeout]"),
        (Fault::Redirect("https://127.0.0.1:1/".to_owned()), "HTTP 307"),
        (Fault::Refused, "[ConnectionRefused]"),
        (Fault::BadCertificate(Flaw::OtherAuthority), "[UnknownAuthority]"),
        (Fault::BadCertificate(Flaw::WrongName), "[CertificateNameMismatch]"),
        (Fault::BadCertificate(Flaw::Expired), "[CertificateExpired]"),
        (Fault::Frozen, "[NoAnswer]"),
    ]
}

async fn a_frozen_member_delays_no_answer_past_its_deadline_and_no_discovery_at_all(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 3, 2).await, &[MEMBER_TIMEOUT]).await;
    whole(&stage).await;
    stage.member(1).fault(Fault::Frozen);
    let start = Instant::now();
    missing_member2(&stage, "member2").await;
    assert!(start.elapsed() < Duration::from_secs(2) + SLACK);
    // The API server gives a backend 5 s; what waits for a member takes 2 s here, what does not a few milliseconds.
    let discovery = median_discovery(&stage).await;
    assert!(discovery < Duration::from_secs(1), "{discovery:?}");
    let state = stage.fleet.plane.probe_now(PREFERRED).await.expect("a registered APIService");
    assert!(state.available, "{state:?}");
    assert_eq!(stage.fleet.plane.probe_failures(PREFERRED).expect("registered"), Vec::<String>::new());
    stage.member(1).heal();
    whole(&stage).await;
}

async fn median_discovery(stage: &Stage) -> Duration {
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        let answer = stage.get("/apis/custom.metrics.k8s.io/v1beta2").await;
        assert_eq!(answer.status, StatusCode::OK);
        times.push(start.elapsed());
    }
    times.sort();
    times[5]
}

async fn when_all_members_fail_the_answer_names_each_and_why(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &[MEMBER_TIMEOUT, PARTIAL]).await;
    stage.member(0).fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned()));
    stage.member(1).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
    let answer = stage.get(PODS).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers.get("retry-after"), None, "client-go would ask again at once");
    let body = answer.json().expect("JSON");
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

async fn a_failure_beside_members_without_the_metric_is_no_404(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &[MEMBER_TIMEOUT, PARTIAL]).await;
    let path = PODS.replace("http_requests", "unknown");
    assert_eq!(stage.get(&path).await.status, StatusCode::NOT_FOUND);
    stage.member(0).fault(Fault::Refused);
    assert_eq!(stage.get(&path).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_ready_is_not_asked_and_named() {
    let stage = Stage::start(members(3, 1).await, &[]).await;
    stage.fleet.plane.set_ready("member2", false);
    until(&stage, |names| names == ["member1", "member3"]).await;
    missing_member2(&stage, "the cluster is not Ready").await;
    for name in ["member1", "member3"] {
        stage.fleet.plane.set_ready(name, false);
    }
    let refused = async { while stage.get(PODS).await.status != StatusCode::SERVICE_UNAVAILABLE {} };
    tokio::time::timeout(crate::stage::GENEROUS, refused).await.expect("no cluster is Ready");
    let list = stage.get("/apis/custom.metrics.k8s.io/v1beta2").await.json().expect("JSON");
    assert_eq!(list["resources"][0]["name"], "pods/http_requests", "discovery keeps what it knows");
    for name in ["member1", "member3"] {
        stage.fleet.plane.set_ready(name, true);
    }
    stage.fleet.plane.set_ready("member2", true);
    until(&stage, |names| names.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_join_and_leave_while_it_runs() {
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
    stage.fleet.plane.join(&spec).expect("it joins");
    until(&stage, |names| names == ["late", "member1", "member2"]).await;
    assert!(stage.metrics().await.contains("cluster=\"member1\""));
    stage.fleet.plane.remove("member1");
    until(&stage, |names| names == ["late", "member2"]).await;
    let deadline = Instant::now() + crate::stage::GENEROUS;
    while stage.metrics().await.contains("cluster=\"member1\"") {
        assert!(Instant::now() < deadline, "what has left is still counted");
    }
}

async fn a_client_that_leaves_takes_its_members_requests_along(protocols: Protocols) {
    let stage =
        Stage::start(members_over(protocols, 2, 1).await, &["--member-timeout=1h", "--request-timeout=1h"])
            .await;
    for index in [0, 1] {
        stage.member(index).reset_counters();
        stage.member(index).fault(Fault::Hang);
    }
    let both_asked = async {
        for index in [0, 1] {
            stage.member(index).until(|counters| counters.in_flight == 1).await;
        }
    };
    tokio::select! {
        _ = stage.get(PODS) => panic!("hung members gave an answer"),
        () = both_asked => {}
    }
    for index in [0, 1] {
        let gone = stage.member(index).until(|counters| counters.cancelled == 1 && counters.in_flight == 0);
        tokio::time::timeout(crate::stage::GENEROUS, gone).await.expect("the request is cancelled");
    }
}

async fn a_clients_own_timeout_shortens_the_wait_and_not_the_answer(protocols: Protocols) {
    let stage =
        Stage::start(members_over(protocols, 3, 1).await, &["--member-timeout=1h", "--request-timeout=1h"])
            .await;
    stage.member(1).fault(Fault::Hang);
    let answer = stage.get(&format!("{PODS}?timeout=2s")).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(clusters(&answer.json().expect("JSON")), ["member1", "member3"]);
    assert!(
        answer.warnings()[0].contains("member2: no answer from the metrics API within 1.8s"),
        "{:?}",
        answer.warnings()
    );
}

/// Stops the adapter's process, or lets it go on.
async fn signal(stage: &Stage, signal: &str) {
    let id = stage.adapter.id().expect("it runs").to_string();
    assert!(Command::new("kill").args([signal, &id]).status().await.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_that_was_answered_while_this_process_had_no_cpu_makes_nobody_unreachable() {
    // A ping goes out after 1 s and has 6 s.
    let stage = Stage::start(members_over(Protocols::Http2, 1, 1).await, &["--member-timeout=20s"]).await;
    stage.get(PODS).await;
    stage.member(0).fault(Fault::Frozen);
    let answer = async { stage.get(PODS).await };
    let pause = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        signal(&stage, "-STOP").await;
        stage.member(0).heal();
        tokio::time::sleep(Duration::from_secs(6)).await;
        signal(&stage, "-CONT").await;
    };
    let (answer, ()) = tokio::join!(answer, pause);
    assert!(answer.warnings().is_empty(), "{:?}", answer.warnings());
    assert_eq!(clusters(&answer.json().expect("JSON")), ["member1"]);
}
