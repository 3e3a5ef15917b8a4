//! Failures and missing metrics have the same rules for custom, external and resource metrics.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::member::wire::{ExternalMetricValue, PodMetrics};
use testkit::member::{Fault, Member};

use crate::stage::{CLUSTER_LABEL, GENEROUS, PODS, Stage, item_clusters};

/// A metrics API: its path prefix, a list that each member of [`stage`] has a part of, and its name in messages.
struct Api {
    prefix: &'static str,
    list: &'static str,
    subject: &'static str,
    /// A list for which no member has items, and the status of its response.
    nothing: (&'static str, StatusCode),
}

const CUSTOM: Api = Api {
    prefix: "/apis/custom.metrics.k8s.io",
    list: PODS,
    subject: "the metric http_requests for pods",
    nothing: (
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A/unknown",
        StatusCode::NOT_FOUND,
    ),
};
const EXTERNAL: Api = Api {
    prefix: "/apis/external.metrics.k8s.io",
    list: "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_ready",
    subject: "the external metric queue_ready",
    nothing: ("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/unknown", StatusCode::NOT_FOUND),
};
const OF_PODS: Api = Api {
    prefix: "/apis/metrics.k8s.io",
    list: "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods",
    subject: "metrics of pods",
    nothing: ("/apis/metrics.k8s.io/v1beta1/namespaces/nowhere/pods", StatusCode::OK),
};
const OF_NODES: Api = Api {
    prefix: "/apis/metrics.k8s.io",
    list: "/apis/metrics.k8s.io/v1beta1/nodes",
    subject: "metrics of nodes",
    nothing: ("/apis/metrics.k8s.io/v1beta1/nodes?labelSelector=absent", StatusCode::OK),
};
const APIS: [Api; 4] = [CUSTOM, EXTERNAL, OF_PODS, OF_NODES];

const PARTIAL: &str = "--on-member-failure=partial";
const SHORT: &str = "--member-timeout=1s";
const SHARED: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/shared-0";

/// Starts three members that serve all APIs.
async fn stage(flags: &[&str]) -> Stage {
    let mut members = Vec::new();
    for name in ["member1", "member2", "member3"] {
        let member = Member::start(name).await.expect("a member starts");
        let queue = ExternalMetricValue::new("queue_ready", "5").label("queue", "orders");
        member.set_external_metric("default", queue);
        members.push(member.with_pods("http_requests", 2).with_nodes(1));
    }
    Stage::start(members, flags).await
}

fn boom() -> Fault {
    Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned())
}

/// The clusters of a list's items, sorted and without duplicates, for every API.
fn clusters(response: &Answer) -> Vec<String> {
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    let list = response.json().expect("JSON");
    let of = |item: &Value| {
        let tags = [&item["metadata"]["annotations"], &item["metricLabels"]]
            .map(|tags| tags[CLUSTER_LABEL].as_str());
        let tags = tags.into_iter().flatten().map(str::to_owned);
        tags.chain(item_clusters(item)).collect::<Vec<_>>()
    };
    let mut names: Vec<String> = list["items"].as_array().expect("items").iter().flat_map(of).collect();
    names.sort();
    names.dedup();
    names
}

/// The failed clusters and their causes.
fn causes(response: &Answer) -> Vec<(String, String)> {
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", response.body);
    assert_eq!(response.headers.get("retry-after"), None, "client-go would retry at once");
    let body = response.json().expect("JSON");
    assert_eq!((&body["kind"], &body["reason"]), (&json!("Status"), &json!("ServiceUnavailable")));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let causes = body["details"]["causes"].as_array().expect("causes").iter();
    causes.map(|cause| (text(&cause["field"]), text(&cause["reason"]))).collect()
}

/// The only warning of a response.
fn warning(response: &Answer) -> String {
    let warnings = response.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    warnings[0].clone()
}

async fn known(stage: &Stage, api: &Api) -> Answer {
    let response = stage.get(api.list).await;
    assert_eq!(clusters(&response), ["member1", "member2", "member3"], "{}", api.list);
    assert_eq!(response.warnings(), [""; 0]);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_api_of_a_member_affects_only_that_api() {
    let stage = stage(&[SHORT, PARTIAL, "--member-body-bytes=1Mi"]).await;
    let faults = [
        (boom(), "HTTP 500: boom"),
        (Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "service unavailable".to_owned()), "HTTP 503"),
        (Fault::Garbage, "the response is malformed"),
        (Fault::WrongKind, "the response is malformed: the body is a \\\"PodList\\\""),
        (Fault::BadQuantity, "the response is malformed: the value of item 0 is not a quantity"),
        (Fault::DeepJson, "the response is malformed"),
        (Fault::Endless, "the response has more than 1048576 bytes"),
        (Fault::Truncated, "the connection broke"),
        (Fault::Hang, "no response from the metrics API within 1s [Timeout]"),
    ];
    for api in &APIS {
        for (fault, words) in &faults {
            stage.member(1).fault_on(api.prefix, fault.clone());
            let response = stage.get(api.list).await;
            assert_eq!(clusters(&response), ["member1", "member3"], "{} {fault:?}", api.list);
            let warning = warning(&response);
            let expected = "299 - \"values of 1 cluster are missing: member2: ";
            assert!(warning.starts_with(expected) && warning.contains(words), "{}: {warning}", api.list);
            for other in APIS.iter().filter(|other| other.prefix != api.prefix) {
                known(&stage, other).await;
            }
            stage.member(1).clear_faults();
            known(&stage, api).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn response_names_each_failed_member_with_its_cause() {
    let stage = stage(&[SHORT, PARTIAL]).await;
    for (index, fault) in [(0, boom()), (1, Fault::Hang), (2, Fault::Garbage)] {
        stage.member(index).fault(fault);
    }
    for api in &APIS {
        let response = stage.get(api.list).await;
        let expected = [("member1", "APIFailing"), ("member2", "Timeout"), ("member3", "Malformed")];
        assert_eq!(causes(&response), expected.map(|(cluster, why)| (cluster.to_owned(), why.to_owned())));
        let message = response.json().expect("JSON")["message"].as_str().expect("text").to_owned();
        let expected =
            format!("{} cannot be answered, since 3 clusters failed: member1: HTTP 500", api.subject);
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_metric_is_404_unless_a_member_failed() {
    let stage = stage(&[PARTIAL]).await;
    for Api { prefix, nothing: (path, status), .. } in &APIS {
        let response = stage.get(path).await;
        assert_eq!(response.status, *status, "{path}");
        if *status == StatusCode::OK {
            assert_eq!(response.json().expect("JSON")["items"], json!([]), "{path}");
        }
        // Discovery shows that this member has only other metrics, but a broken connection is still a failure.
        stage.member(2).fault_on(prefix, Fault::Abort);
        let response = stage.get(path).await;
        assert_eq!(causes(&response), [("member3".to_owned(), "ConnectionLost".to_owned())], "{path}");
        stage.member(2).clear_faults();
    }
}

/// prometheus-adapter responds with 500 for custom metrics that its cluster does not have. In other APIs, a 500 is a failure.
#[tokio::test(flavor = "multi_thread")]
async fn status_500_means_not_found_only_for_custom_metrics() {
    let stage = stage(&[PARTIAL, "--discovery-interval=1h"]).await;
    for member in &stage.fleet.members {
        member.fault(boom());
    }
    for Api { nothing: (path, _), .. } in &APIS {
        let response = stage.get(path).await;
        if path.starts_with(CUSTOM.prefix) {
            assert_eq!(response.status, StatusCode::NOT_FOUND);
        } else {
            assert_eq!(causes(&response).len(), 3, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_api_gets_last_known_values_and_unreachable_cluster_is_left_out() {
    let stage = stage(&[SHORT]).await;
    for api in &APIS {
        let before = known(&stage, api).await;
        for (fault, words) in [(boom(), "HTTP 500: boom"), (Fault::Garbage, "malformed"), (Fault::Hang, "1s")]
        {
            stage.member(1).fault_on(api.prefix, fault);
            let response = stage.get(api.list).await;
            assert_eq!(
                response.body, before.body,
                "{words}: values and their timestamps are the last known ones"
            );
            let warning = warning(&response);
            let expected = "299 - \"values of 1 cluster are the last known ones: member2: ";
            assert!(warning.starts_with(expected) && warning.contains(words), "{warning}");
            assert!(warning.ends_with(" s old)\""), "{warning}");
            stage.member(1).clear_faults();
        }
        known(&stage, api).await;
    }
    stage.member(1).fault(Fault::Refused);
    for api in &APIS {
        let response = stage.get(api.list).await;
        assert_eq!(clusters(&response), ["member1", "member3"], "{}", api.list);
        assert!(warning(&response).contains("values of 1 cluster are missing: member2: "), "{}", api.list);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_fail_fails_the_query_if_one_member_fails() {
    let stage = stage(&["--on-member-failure=fail"]).await;
    for api in &APIS {
        known(&stage, api).await;
        stage.member(1).fault_on(api.prefix, boom());
        assert_eq!(causes(&stage.get(api.list).await), [("member2".to_owned(), "APIFailing".to_owned())]);
        stage.member(1).clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn member_is_skipped_only_for_its_hung_api() {
    let stage = stage(&[SHORT, PARTIAL, "--discovery-interval=1h"]).await;
    for (failing, working) in [(&CUSTOM, [&EXTERNAL, &OF_PODS]), (&OF_NODES, [&EXTERNAL, &CUSTOM])] {
        stage.member(1).fault_on(failing.prefix, Fault::Hang);
        for _ in 0..3 {
            assert_eq!(clusters(&stage.get(failing.list).await), ["member1", "member3"]);
        }
        let start = Instant::now();
        let skipped = warning(&stage.get(failing.list).await);
        assert!(skipped.contains("member2: skipped after repeated failures"), "{skipped}");
        for api in working {
            known(&stage, api).await;
        }
        assert!(start.elapsed() < Duration::from_secs(1), "no query waited: {:?}", start.elapsed());
        let metrics = stage.metrics().await;
        for (api, number) in [(failing, 1), (working[0], 0), (working[1], 0)] {
            let group = api.prefix.trim_start_matches("/apis/");
            let line = format!(
                "karmada_metrics_adapter_member_skipped{{cluster=\"member2\",group=\"{group}\"}} {number}"
            );
            assert!(metrics.contains(&line), "{line}");
        }
        stage.member(1).clear_faults();
        let deadline = Instant::now() + GENEROUS;
        while clusters(&stage.get(failing.list).await).len() < 3 {
            assert!(Instant::now() < deadline, "the member is queried again after it recovers");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_known_pods_are_used_in_every_representation_of_the_same_query() {
    let stage = stage(&[]).await;
    known(&stage, &OF_PODS).await;
    stage.member(1).fault_on(OF_PODS.prefix, boom());
    let table = [
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ];
    let response = stage.get_with(OF_PODS.list, &table).await;
    assert_eq!(response.json().expect("JSON")["rows"].as_array().map(Vec::len), Some(6));
    assert!(warning(&response).contains("the last known ones: member2"), "{:?}", response.warnings());
    for other in ["/apis/metrics.k8s.io/v1beta1/pods", &format!("{}?labelSelector=app", OF_PODS.list)] {
        assert_eq!(clusters(&stage.get(other).await), ["member1", "member3"], "{other}");
    }
    // The same requirements in another order are the same query.
    stage.member(1).clear_faults();
    let selected = |selector: &str| format!("{}?labelSelector={selector}", OF_PODS.list);
    stage.get(&selected("app,tier!%3Ddb")).await;
    stage.member(1).fault_on(OF_PODS.prefix, boom());
    assert_eq!(clusters(&stage.get(&selected("tier!%3Ddb,app")).await).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_lookup_by_name_considers_failed_members() {
    let stage = stage(&[]).await;
    let usage = |cpu: &str| PodMetrics::new("default", "shared-0", cpu, "1Mi");
    stage.member(0).store().set_pod_usage(usage("1m"));
    stage.member(2).fault_on(OF_PODS.prefix, boom());
    let found = stage.get(SHARED).await;
    assert_eq!(found.json().expect("JSON")["metadata"]["annotations"][CLUSTER_LABEL], "member1");
    assert!(warning(&found).contains("values of 1 cluster are missing: member3: HTTP 500"));

    stage.member(0).fault_on(OF_PODS.prefix, boom());
    let old = stage.get(SHARED).await;
    assert_eq!(old.body, found.body, "the last-known value");
    let expected = "values of 1 cluster are missing, and of 1 cluster the last known ones: member1: ";
    assert!(warning(&old).contains(expected), "{:?}", old.warnings());

    stage.member(1).store().set_pod_usage(usage("2m"));
    let both = stage.get(SHARED).await;
    assert_eq!(both.status, StatusCode::CONFLICT, "last-known values count");
    stage.member(0).clear_faults();
    stage.member(0).store().remove_pod_usage("default", "shared-0");
    stage.member(1).store().remove_pod_usage("default", "shared-0");
    assert_eq!(causes(&stage.get(SHARED).await), [("member3".to_owned(), "APIFailing".to_owned())]);
    stage.member(2).clear_faults();
    assert_eq!(stage.get(SHARED).await.status, StatusCode::NOT_FOUND);
}
