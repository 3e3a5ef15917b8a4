//! The last-known cache: a failing metrics API gets last-known values, an unreachable member is left out, and repeated failures
//! open the circuit breaker.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::member::{Fault, Protocols, Resource, ScriptedAnswer};

use crate::stage::{GENEROUS, PODS, Stage, clusters, members_over, over_both_protocols, until};

over_both_protocols!(
    failing_metrics_api_gets_last_known_values_and_a_warning,
    unreachable_member_is_left_out_with_a_warning,
    policy_decides_the_effect_of_a_failure,
    last_known_values_are_per_query_and_expire,
    deleted_metric_clears_the_last_known_values,
    late_response_is_used_for_the_next_query,
    only_one_late_response_is_awaited,
    late_responses_free_memory_for_queries,
    failing_member_is_skipped_and_recovers_soon,
);

const SHORT: &str = "--member-timeout=1s";
/// The path of the metrics API, which fails while the API server works.
const METRICS: &str = "/apis/custom.metrics.k8s.io";

fn boom() -> Fault {
    Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned())
}

/// A fleet of two members, with their values in the cache.
async fn known_fleet(protocols: Protocols, flags: &[&str]) -> (Stage, Value) {
    let stage = Stage::start(members_over(protocols, 2, 3).await, flags).await;
    let response = stage.get(PODS).await;
    assert!(response.warnings().is_empty(), "{:?}", response.warnings());
    (stage, response.json().expect("JSON"))
}

async fn failing_metrics_api_gets_last_known_values_and_a_warning(protocols: Protocols) {
    let (stage, known) = known_fleet(protocols, &[SHORT]).await;
    for (fault, words) in [
        (boom(), "HTTP 500: boom"),
        (Fault::Garbage, "malformed"),
        (Fault::Hang, "no response from the metrics API within 1s [Timeout]"),
    ] {
        stage.member(1).fault_on(METRICS, fault);
        let response = stage.get(PODS).await;
        assert_eq!(response.status, StatusCode::OK, "{words}");
        assert_eq!(
            response.json().expect("JSON"),
            known,
            "values and their timestamps are the last known ones"
        );
        let warnings = response.warnings();
        let expected = "299 - \"values of 1 cluster are the last known ones: member2: ";
        assert!(warnings[0].starts_with(expected) && warnings[0].contains(words), "{warnings:?}");
        stage.member(1).clear_faults();
    }
}

async fn unreachable_member_is_left_out_with_a_warning(protocols: Protocols) {
    let (stage, _) = known_fleet(protocols, &["--member-timeout=3s"]).await;
    for fault in [Fault::Refused, Fault::Frozen] {
        stage.member(1).fault(fault.clone());
        let response = stage.get(PODS).await;
        assert_eq!(clusters(&response.json().expect("JSON")), ["member1"], "{fault:?}");
        assert!(
            response.warnings()[0].contains("values of 1 cluster are missing: member2"),
            "{:?}",
            response.warnings()
        );
        stage.member(1).clear_faults();
        until(&stage, |names| names.len() == 2).await;
    }
}

async fn policy_decides_the_effect_of_a_failure(protocols: Protocols) {
    for (policy, status, names) in [
        ("last-known", StatusCode::OK, 2),
        ("partial", StatusCode::OK, 1),
        ("fail", StatusCode::SERVICE_UNAVAILABLE, 0),
    ] {
        let (stage, _) = known_fleet(protocols, &[&format!("--on-member-failure={policy}")]).await;
        stage.member(0).fault(boom());
        let response = stage.get(PODS).await;
        assert_eq!(response.status, status, "{policy}");
        if status == StatusCode::OK {
            assert_eq!(clusters(&response.json().expect("JSON")).len(), names, "{policy}");
        } else {
            assert_eq!(response.json().expect("JSON")["details"]["causes"][0]["field"], "member1");
        }
    }
}

async fn last_known_values_are_per_query_and_expire(protocols: Protocols) {
    let (stage, _) = known_fleet(protocols, &["--last-known-max-age=1s"]).await;
    stage.member(1).fault(boom());
    let other = stage.get(&format!("{PODS}?labelSelector=app%3Dsample-app")).await;
    assert_eq!(clusters(&other.json().expect("JSON")), ["member1"], "another query has no cached page");
    until(&stage, |names| names == ["member1"]).await;
}

async fn deleted_metric_clears_the_last_known_values(protocols: Protocols) {
    let (stage, _) = known_fleet(protocols, &[]).await;
    for pod in stage.member(1).store().pods() {
        stage.member(1).store().remove_metric(Resource::PODS, Some("default"), &pod.name, "http_requests");
    }
    assert_eq!(clusters(&stage.get(PODS).await.json().expect("JSON")), ["member1"]);
    stage.member(1).fault(boom());
    assert_eq!(clusters(&stage.get(PODS).await.json().expect("JSON")), ["member1"]);
}

async fn late_response_is_used_for_the_next_query(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 3).await, &[SHORT, "--discovery-interval=1h"]).await;
    stage.member(1).reset_counters();
    stage.member(1).fault_on(METRICS, Fault::Delay(Duration::from_secs(3)));
    let first = stage.get(PODS).await;
    assert_eq!(clusters(&first.json().expect("JSON")), ["member1"]);
    let deadline = Instant::now() + GENEROUS;
    let ended = stage.member(1).until(|counters| counters.requests > 0 && counters.in_flight == 0);
    tokio::time::timeout(GENEROUS, ended).await.expect("the late response arrives");
    assert_eq!(stage.member(1).counters().cancelled, 0, "the request was not cancelled");
    loop {
        let response = stage.get(PODS).await;
        if clusters(&response.json().expect("JSON")).len() == 2 {
            assert!(
                response.warnings()[0].contains("the last known ones: member2"),
                "{:?}",
                response.warnings()
            );
            break;
        }
        assert!(Instant::now() < deadline, "the late response is not cached");
    }
}

async fn only_one_late_response_is_awaited(protocols: Protocols) {
    let stage = Stage::start(
        members_over(protocols, 1, 1).await,
        &["--member-timeout=300ms", "--discovery-interval=1h"],
    )
    .await;
    stage.member(0).reset_counters();
    stage.member(0).fault_on(METRICS, Fault::Hang);
    for _ in 0..2 {
        assert_eq!(stage.get(PODS).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let second_cancelled =
        stage.member(0).until(|counters| counters.in_flight == 1 && counters.cancelled == 1);
    tokio::time::timeout(GENEROUS, second_cancelled).await.expect("only the first request continues");
}

async fn late_responses_free_memory_for_queries(protocols: Protocols) {
    /// The limit of late responses of one member.
    const LATE: usize = 8;
    const MIB: usize = 1 << 20;
    let flags = [SHORT, "--discovery-interval=1h", "--last-known-late=1h", "--inflight-bytes=16Mi"];
    let stage = Stage::start(members_over(protocols, 2, 1).await, &flags).await;
    let list = |bytes: usize| {
        let pod = |number: usize| {
            json!({
                "describedObject": {"kind": "Pod", "namespace": "default", "name": number.to_string(), "apiVersion": "/v1"},
                "metric": {"name": "http_requests"}, "timestamp": "2026-01-01T00:00:00Z", "value": "1",
                "unknown": "x".repeat(400),
            })
        };
        let pods: Vec<_> = (0..bytes / 600).map(pod).collect();
        let list = json!({
            "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {}, "items": pods,
        });
        ScriptedAnswer::json(StatusCode::OK, &list)
    };
    let late: Vec<_> = (0..LATE).map(|query| format!("{PODS}?labelSelector=a%21%3D{query}")).collect();
    late.iter().for_each(|path| stage.member(1).answer(path, list(MIB)));
    stage.member(1).fault_on(METRICS, Fault::Stalled);
    let responses = join_all(late.iter().map(|path| stage.get(path))).await;
    assert!(responses.iter().all(|response| response.status == StatusCode::OK));
    let in_use = stage.metric("inflight_bytes").await;
    // In HTTP/1.1, some requests get no connection.
    assert!(in_use > 2 * MIB, "{in_use} bytes");

    // This response needs more than the free memory, but less than the budget.
    stage.member(0).answer(PODS, list(4 * MIB));
    let deadline = Instant::now() + GENEROUS;
    while stage.get(PODS).await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "{} bytes are in use", stage.metric("inflight_bytes").await);
    }
    let left = stage.metric("inflight_bytes").await;
    assert!(left < in_use / 2, "{left} of {in_use} bytes");
}

async fn failing_member_is_skipped_and_recovers_soon(protocols: Protocols) {
    for fault in [Fault::Hang, Fault::Frozen, Fault::Refused] {
        let (stage, known) = known_fleet(protocols, &[SHORT, "--on-member-failure=partial"]).await;
        stage.member(1).fault(fault.clone());
        for _ in 0..3 {
            assert_eq!(clusters(&stage.get(PODS).await.json().expect("JSON")), ["member1"], "{fault:?}");
        }
        stage.get(PODS).await;
        let skipped =
            r#"karmada_metrics_adapter_member_skipped{cluster="member2",group="custom.metrics.k8s.io"} 1"#;
        assert!(stage.metrics().await.contains(skipped), "{fault:?}");
        let start = Instant::now();
        for _ in 0..10 {
            let warnings = stage.get(PODS).await.warnings();
            assert!(warnings[0].contains("member2: skipped after repeated failures"), "{warnings:?}");
        }
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{fault:?}: ten responses took {:?}",
            start.elapsed()
        );
        let healed = Instant::now();
        stage.member(1).clear_faults();
        until(&stage, |names| names.len() == 2).await;
        let taken = healed.elapsed();
        assert!(
            taken < Duration::from_secs(6),
            "{fault:?}: queried again after {taken:?}, expected two seconds on an idle machine"
        );
        assert_eq!(stage.get(PODS).await.json().expect("JSON"), known);
        let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
        let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        assert_eq!((lines("cluster is skipped"), lines("is queried again")), (1, 1), "{log}");
    }
}
