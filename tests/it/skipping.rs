//! The circuit breaker: client deadlines, this server's own limits and one slow metric do not count as failures of a member.

use std::time::Duration;

use http::StatusCode;
use testkit::member::wire::PodMetrics;
use testkit::member::{Fault, Protocols, Series};

use crate::stage::{
    GENEROUS, PODS, Stage, clusters, distinct, member_over, members_over, over_both_protocols,
};

over_both_protocols!(
    short_deadlines_do_not_open_the_circuit_breaker,
    slow_metric_does_not_affect_other_metrics,
    exhausted_rate_does_not_count_as_member_failure,
    removed_member_is_not_probed,
    member_with_oversized_response_is_queried_again_after_it_recovers,
    pod_metrics_without_labels_are_assumed_to_match_the_selector,
);

const SHORT: &str = "--member-timeout=1s";
const SLOW: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A/slow";

async fn assert_no_member_skipped(stage: &Stage) {
    let metrics = stage.metrics().await;
    let skipped =
        |line: &&str| line.starts_with("karmada_metrics_adapter_member_skipped{") && line.ends_with(" 1");
    assert_eq!(metrics.lines().find(skipped), None);
}

async fn short_deadlines_do_not_open_the_circuit_breaker(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &["--discovery-interval=1h"]).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    for member in &stage.fleet.members {
        member.fault(Fault::Delay(Duration::from_millis(500)));
    }
    for number in 0..5 {
        let response = stage.get(&format!("{}&timeout=100ms", distinct(number))).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", response.body);
    }
    let response = stage.get(PODS).await;
    assert!(response.warnings().is_empty(), "{:?}", response.warnings());
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1", "member2"]);
    assert_no_member_skipped(&stage).await;
}

async fn slow_metric_does_not_affect_other_metrics(protocols: Protocols) {
    let member = member_over(protocols, "member1").await.with_pods("http_requests", 1);
    let slow =
        Series::new(testkit::member::Resource::PODS, Some("default"), "sample-app-member1-0001", "slow", "1");
    member.set_metric(slow);
    let stage = Stage::start(vec![member], &[SHORT, "--on-member-failure=partial"]).await;
    stage.member(0).fault_on(&SLOW.replace("%2A", "*"), Fault::Hang);
    for _ in 0..4 {
        let (late, quick) = tokio::join!(stage.get(SLOW), async {
            // This query is sent while the other one waits.
            stage.member(0).until(|counters| counters.in_flight > 0).await;
            stage.get(PODS).await
        });
        assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", late.body);
        assert_eq!(quick.status, StatusCode::OK, "{:?}", quick.body);
        assert!(quick.warnings().is_empty(), "{:?}", quick.warnings());
    }
    assert_no_member_skipped(&stage).await;
}

async fn exhausted_rate_does_not_count_as_member_failure(protocols: Protocols) {
    let flags = ["--cluster-api-qps=0.01", "--cluster-api-burst=3", SHORT, "--discovery-interval=1h"];
    let stage = Stage::start(members_over(protocols, 1, 1).await, &flags).await;
    // Discovery uses two of the three requests.
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    for number in 0..4 {
        let response = stage.get(&distinct(number)).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        let body = String::from_utf8(response.body.to_vec()).expect("text");
        assert!(body.contains("the rate limit is used up (--cluster-api-qps)"), "{body}");
        assert!(body.contains(r#""reason":"Throttled""#), "{body}");
    }
    assert_no_member_skipped(&stage).await;
}

async fn removed_member_is_not_probed(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &[SHORT, "--discovery-interval=1h"]).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    stage.member(1).fault(Fault::Hang);
    let skipped = async {
        while !stage
            .get(PODS)
            .await
            .warnings()
            .iter()
            .any(|warning| warning.contains("skipped after repeated failures"))
        {}
    };
    tokio::time::timeout(GENEROUS, skipped).await.expect("the member is skipped in time");
    stage.fleet.plane.remove("member2");
    let left = stage.member(1).until(|counters| counters.in_flight == 0);
    let before = tokio::time::timeout(GENEROUS, left).await.expect("requests in flight end").requests;
    // Twice the time of a probe and the pause after it.
    let again = stage.member(1).until(|counters| counters.requests > before);
    let again = tokio::time::timeout(Duration::from_secs(4), again).await;
    assert!(again.is_err(), "the removed member is still queried");
}

async fn pod_metrics_without_labels_are_assumed_to_match_the_selector(protocols: Protocols) {
    let member = member_over(protocols, "old").await;
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    let mut pod = serde_json::to_value(PodMetrics::new("default", "web-1", "10m", "5Mi")).expect("JSON");
    pod["metadata"].as_object_mut().expect("an object").remove("labels");
    let list = serde_json::json!({
        "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": [pod],
    });
    let scripted = testkit::member::ScriptedAnswer::json(StatusCode::OK, &list);
    member.answer(&format!("{path}?labelSelector=app%3Dweb"), scripted);
    let stage = Stage::start(vec![member], &[]).await;
    let response = stage.get(&format!("{path}?labelSelector=app%3Dweb")).await.json().expect("JSON");
    assert_eq!(response["items"][0]["metadata"]["name"], "web-1", "{response}");
}

async fn member_with_oversized_response_is_queried_again_after_it_recovers(protocols: Protocols) {
    const POD: &str =
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/sample-app-member1-0001/http_requests";
    let flags = [SHORT, "--member-body-bytes=4096", "--discovery-interval=1h", "--on-member-failure=partial"];
    let stage = Stage::start(members_over(protocols, 1, 100).await, &flags).await;
    assert_eq!(stage.get(POD).await.status, StatusCode::OK);
    // The path of the last response is the path that is probed.
    let body = String::from_utf8(stage.get(PODS).await.body.to_vec()).expect("text");
    assert!(body.contains("(--member-body-bytes)"), "{body}");
    stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
    let skipped = async {
        while !String::from_utf8_lossy(&stage.get(POD).await.body).contains("skipped after repeated failures")
        {
        }
    };
    tokio::time::timeout(GENEROUS, skipped).await.expect("the member is skipped");
    stage.member(0).clear_faults();
    let recovers = async { while stage.get(POD).await.status != StatusCode::OK {} };
    tokio::time::timeout(GENEROUS, recovers).await.expect("the member is queried again");
}
