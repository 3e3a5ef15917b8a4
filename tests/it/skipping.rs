//! Who is skipped, and who is not: what a client, this server's own limits or one slow metric do says nothing of a member.

use std::time::Duration;

use http::StatusCode;
use testkit::member::wire::PodMetrics;
use testkit::member::{Fault, Protocols, Series};

use crate::stage::{
    GENEROUS, PODS, Stage, clusters, distinct, member_over, members_over, over_both_protocols,
};

over_both_protocols!(
    clients_in_a_hurry_skip_nobody,
    a_metric_that_takes_too_long_does_not_take_the_others_along,
    a_rate_that_is_used_up_is_no_failure_of_the_member,
    a_member_that_has_left_is_not_looked_after,
    pods_whose_metrics_have_no_labels_are_believed_to_be_the_ones_asked_for,
);

const SHORT: &str = "--member-timeout=1s";
const SLOW: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A/slow";

async fn nobody_is_skipped(stage: &Stage) {
    let metrics = stage.metrics().await;
    let skipped =
        |line: &&str| line.starts_with("karmada_metrics_adapter_member_skipped{") && line.ends_with(" 1");
    assert_eq!(metrics.lines().find(skipped), None);
}

async fn clients_in_a_hurry_skip_nobody(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &["--discovery-interval=1h"]).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    for member in &stage.fleet.members {
        member.fault(Fault::Delay(Duration::from_millis(500)));
    }
    for number in 0..5 {
        let answer = stage.get(&format!("{}&timeout=100ms", distinct(number))).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.body);
    }
    let answer = stage.get(PODS).await;
    assert!(answer.warnings().is_empty(), "{:?}", answer.warnings());
    assert_eq!(clusters(&answer.json().expect("JSON")), ["member1", "member2"]);
    nobody_is_skipped(&stage).await;
}

async fn a_metric_that_takes_too_long_does_not_take_the_others_along(protocols: Protocols) {
    let member = member_over(protocols, "member1").await.with_pods("http_requests", 1);
    let slow =
        Series::new(testkit::member::Resource::PODS, Some("default"), "sample-app-member1-0001", "slow", "1");
    member.set_metric(slow);
    let stage = Stage::start(vec![member], &[SHORT, "--on-member-failure=partial"]).await;
    stage.member(0).fault_on(&SLOW.replace("%2A", "*"), Fault::Hang);
    for _ in 0..4 {
        let (late, quick) = tokio::join!(stage.get(SLOW), async {
            // Asked while the other one is waited for.
            stage.member(0).until(|counters| counters.in_flight > 0).await;
            stage.get(PODS).await
        });
        assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", late.body);
        assert_eq!(quick.status, StatusCode::OK, "{:?}", quick.body);
        assert!(quick.warnings().is_empty(), "{:?}", quick.warnings());
    }
    nobody_is_skipped(&stage).await;
}

async fn a_rate_that_is_used_up_is_no_failure_of_the_member(protocols: Protocols) {
    let flags = ["--cluster-api-qps=0.01", "--cluster-api-burst=3", SHORT, "--discovery-interval=1h"];
    let stage = Stage::start(members_over(protocols, 1, 1).await, &flags).await;
    // Discovery takes two of the three.
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    for number in 0..4 {
        let answer = stage.get(&distinct(number)).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let body = String::from_utf8(answer.body.to_vec()).expect("text");
        assert!(body.contains("asked as often as it may be (--cluster-api-qps)"), "{body}");
        assert!(body.contains(r#""reason":"Throttled""#), "{body}");
    }
    nobody_is_skipped(&stage).await;
}

async fn a_member_that_has_left_is_not_looked_after(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 2, 1).await, &[SHORT, "--discovery-interval=1h"]).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    stage.member(1).fault(Fault::Hang);
    let skipped = async {
        while !stage.get(PODS).await.warnings().iter().any(|warning| warning.contains("again and again")) {}
    };
    tokio::time::timeout(GENEROUS, skipped).await.expect("it is skipped");
    stage.fleet.plane.remove("member2");
    let left = stage.member(1).until(|counters| counters.in_flight == 0);
    let asked = tokio::time::timeout(GENEROUS, left).await.expect("what was asked ends").requests;
    // Twice as long as an attempt and the pause after it take.
    let again = stage.member(1).until(|counters| counters.requests > asked);
    let again = tokio::time::timeout(Duration::from_secs(4), again).await;
    assert!(again.is_err(), "it is still asked");
}

async fn pods_whose_metrics_have_no_labels_are_believed_to_be_the_ones_asked_for(protocols: Protocols) {
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
    let answer = stage.get(&format!("{path}?labelSelector=app%3Dweb")).await.json().expect("JSON");
    assert_eq!(answer["items"][0]["metadata"]["name"], "web-1", "{answer}");
}
