//! Members whose metrics API fails are stood in for; unreachable ones are left out; hopeless ones are skipped.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::member::{Fault, Protocols, Resource, ScriptedAnswer};

use crate::stage::{GENEROUS, PODS, Stage, clusters, members_over, over_both_protocols, until};

over_both_protocols!(
    a_member_whose_metrics_api_fails_is_stood_in_for_and_named,
    a_member_whose_api_server_is_gone_is_left_out_and_named,
    the_policy_decides_what_a_failure_costs,
    what_stands_in_is_the_reply_to_this_very_query_and_not_too_old,
    a_metric_that_a_member_has_no_more_does_not_come_back,
    a_reply_that_comes_too_late_is_there_for_the_next_answer,
    one_late_reply_is_waited_for_at_a_time,
    late_replies_leave_their_memory_to_answers_that_need_it,
    a_member_that_fails_again_and_again_costs_no_time_and_is_taken_back_soon,
);

const SHORT: &str = "--member-timeout=1s";
/// What fails where the API server itself is well.
const METRICS: &str = "/apis/custom.metrics.k8s.io";

fn boom() -> Fault {
    Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned())
}

/// A fleet of two whose values are known.
async fn known_fleet(protocols: Protocols, flags: &[&str]) -> (Stage, Value) {
    let stage = Stage::start(members_over(protocols, 2, 3).await, flags).await;
    let answer = stage.get(PODS).await;
    assert!(answer.warnings().is_empty(), "{:?}", answer.warnings());
    (stage, answer.json().expect("JSON"))
}

async fn a_member_whose_metrics_api_fails_is_stood_in_for_and_named(protocols: Protocols) {
    let (stage, known) = known_fleet(protocols, &[SHORT]).await;
    for (fault, words) in [
        (boom(), "HTTP 500: boom"),
        (Fault::Garbage, "malformed"),
        (Fault::Hang, "no answer from the metrics API within 1s [Timeout]"),
    ] {
        stage.member(1).fault_on(METRICS, fault);
        let answer = stage.get(PODS).await;
        assert_eq!(answer.status, StatusCode::OK, "{words}");
        assert_eq!(
            answer.json().expect("JSON"),
            known,
            "values and their timestamps are the last known ones"
        );
        let warnings = answer.warnings();
        let expected = "299 - \"values of 1 cluster are the last known ones: member2: ";
        assert!(warnings[0].starts_with(expected) && warnings[0].contains(words), "{warnings:?}");
        stage.member(1).heal();
    }
}

async fn a_member_whose_api_server_is_gone_is_left_out_and_named(protocols: Protocols) {
    let (stage, _) = known_fleet(protocols, &["--member-timeout=3s"]).await;
    for fault in [Fault::Refused, Fault::Frozen] {
        stage.member(1).fault(fault.clone());
        let answer = stage.get(PODS).await;
        assert_eq!(clusters(&answer.json().expect("JSON")), ["member1"], "{fault:?}");
        assert!(
            answer.warnings()[0].contains("values of 1 cluster are missing: member2"),
            "{:?}",
            answer.warnings()
        );
        stage.member(1).heal();
        until(&stage, |names| names.len() == 2).await;
    }
}

async fn the_policy_decides_what_a_failure_costs(protocols: Protocols) {
    for (policy, status, names) in [
        ("last-known", StatusCode::OK, 2),
        ("partial", StatusCode::OK, 1),
        ("fail", StatusCode::SERVICE_UNAVAILABLE, 0),
    ] {
        let (stage, _) = known_fleet(protocols, &[&format!("--on-member-failure={policy}")]).await;
        stage.member(0).fault(boom());
        let answer = stage.get(PODS).await;
        assert_eq!(answer.status, status, "{policy}");
        if status == StatusCode::OK {
            assert_eq!(clusters(&answer.json().expect("JSON")).len(), names, "{policy}");
        } else {
            assert_eq!(answer.json().expect("JSON")["details"]["causes"][0]["field"], "member1");
        }
    }
}

async fn what_stands_in_is_the_reply_to_this_very_query_and_not_too_old(protocols: Protocols) {
    let (stage, _) = known_fleet(protocols, &["--last-known-max-age=1s"]).await;
    stage.member(1).fault(boom());
    let other = stage.get(&format!("{PODS}?labelSelector=app%3Dsample-app")).await;
    assert_eq!(clusters(&other.json().expect("JSON")), ["member1"], "another query has no last reply");
    until(&stage, |names| names == ["member1"]).await;
}

async fn a_metric_that_a_member_has_no_more_does_not_come_back(protocols: Protocols) {
    let (stage, _) = known_fleet(protocols, &[]).await;
    for pod in stage.member(1).store().pods() {
        stage.member(1).store().remove_metric(Resource::PODS, Some("default"), &pod.name, "http_requests");
    }
    assert_eq!(clusters(&stage.get(PODS).await.json().expect("JSON")), ["member1"]);
    stage.member(1).fault(boom());
    assert_eq!(clusters(&stage.get(PODS).await.json().expect("JSON")), ["member1"]);
}

async fn a_reply_that_comes_too_late_is_there_for_the_next_answer(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 3).await, &[SHORT, "--discovery-interval=1h"]).await;
    stage.member(1).reset_counters();
    stage.member(1).fault_on(METRICS, Fault::Delay(Duration::from_secs(3)));
    let first = stage.get(PODS).await;
    assert_eq!(clusters(&first.json().expect("JSON")), ["member1"]);
    let deadline = Instant::now() + GENEROUS;
    let ended = stage.member(1).until(|counters| counters.requests > 0 && counters.in_flight == 0);
    tokio::time::timeout(GENEROUS, ended).await.expect("the late reply comes");
    assert_eq!(stage.member(1).counters().cancelled, 0, "it was waited for");
    loop {
        let answer = stage.get(PODS).await;
        if clusters(&answer.json().expect("JSON")).len() == 2 {
            assert!(answer.warnings()[0].contains("the last known ones: member2"), "{:?}", answer.warnings());
            break;
        }
        assert!(Instant::now() < deadline, "the late reply is not kept");
    }
}

async fn one_late_reply_is_waited_for_at_a_time(protocols: Protocols) {
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
    let second_given_up =
        stage.member(0).until(|counters| counters.in_flight == 1 && counters.cancelled == 1);
    tokio::time::timeout(GENEROUS, second_given_up).await.expect("only the first goes on");
}

async fn late_replies_leave_their_memory_to_answers_that_need_it(protocols: Protocols) {
    /// As many as are waited for of one member.
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
    let answers = join_all(late.iter().map(|path| stage.get(path))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    let kept = stage.metric("inflight_bytes").await;
    // Over HTTP/1.1 some find no connection.
    assert!(kept > 2 * MIB, "{kept} bytes");

    // What its answer takes is more than they leave, and less than there is.
    stage.member(0).answer(PODS, list(4 * MIB));
    let deadline = Instant::now() + GENEROUS;
    while stage.get(PODS).await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "{} bytes are kept", stage.metric("inflight_bytes").await);
    }
    let left = stage.metric("inflight_bytes").await;
    assert!(left < kept / 2, "{left} of {kept} bytes");
}

async fn a_member_that_fails_again_and_again_costs_no_time_and_is_taken_back_soon(protocols: Protocols) {
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
            assert!(
                warnings[0].contains("member2: not asked, since it failed again and again"),
                "{warnings:?}"
            );
        }
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{fault:?}: ten answers took {:?}",
            start.elapsed()
        );
        let healed = Instant::now();
        stage.member(1).heal();
        until(&stage, |names| names.len() == 2).await;
        let taken = healed.elapsed();
        assert!(
            taken < Duration::from_secs(6),
            "{fault:?}: taken back after {taken:?}, two seconds on an idle machine"
        );
        assert_eq!(stage.get(PODS).await.json().expect("JSON"), known);
        let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
        let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        assert_eq!((lines("cluster is skipped"), lines("is asked again")), (1, 1), "{log}");
    }
}
