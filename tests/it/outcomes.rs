//! Members that fail or have nothing: the same rules for custom, external and resource metrics.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::member::wire::{ExternalMetricValue, PodMetrics};
use testkit::member::{Fault, Member};

use crate::stage::{CLUSTER_LABEL, GENEROUS, PODS, Stage, item_clusters};

/// One of the metrics APIs: where it is, a list that all members of [`stage`] have a part of, and what it is called.
struct Api {
    prefix: &'static str,
    list: &'static str,
    subject: &'static str,
    /// A list that nobody has any part of, and how it is answered.
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
    nothing: ("/apis/metrics.k8s.io/v1beta1/nodes?labelSelector=nobody", StatusCode::OK),
};
const APIS: [Api; 4] = [CUSTOM, EXTERNAL, OF_PODS, OF_NODES];

const PARTIAL: &str = "--on-member-failure=partial";
const SHORT: &str = "--member-timeout=1s";
const SHARED: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/shared-0";

/// Three members that have something of everything.
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

/// The clusters of a list's items, each once, whatever the API.
fn clusters(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let list = answer.json().expect("JSON");
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

/// The failed clusters and why.
fn causes(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.body);
    assert_eq!(answer.headers.get("retry-after"), None, "client-go would ask again at once");
    let body = answer.json().expect("JSON");
    assert_eq!((&body["kind"], &body["reason"]), (&json!("Status"), &json!("ServiceUnavailable")));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let causes = body["details"]["causes"].as_array().expect("causes").iter();
    causes.map(|cause| (text(&cause["field"]), text(&cause["reason"]))).collect()
}

/// The one warning.
fn warning(answer: &Answer) -> String {
    let warnings = answer.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    warnings[0].clone()
}

async fn known(stage: &Stage, api: &Api) -> Answer {
    let answer = stage.get(api.list).await;
    assert_eq!(clusters(&answer), ["member1", "member2", "member3"], "{}", api.list);
    assert_eq!(answer.warnings(), [""; 0]);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_api_of_one_member_is_missing_from_that_apis_answers_alone() {
    let stage = stage(&[SHORT, PARTIAL, "--member-body-bytes=1Mi"]).await;
    let faults = [
        (boom(), "HTTP 500: boom"),
        (Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "service unavailable".to_owned()), "HTTP 503"),
        (Fault::Garbage, "the answer is malformed"),
        (Fault::WrongKind, "the answer is malformed: the body is a \\\"PodList\\\""),
        (Fault::BadQuantity, "the answer is malformed: item 0 has a value that is no quantity"),
        (Fault::DeepJson, "the answer is malformed"),
        (Fault::Endless, "the answer has more than 1048576 bytes"),
        (Fault::Truncated, "the connection broke"),
        (Fault::Hang, "no answer from the metrics API within 1s [Timeout]"),
    ];
    for api in &APIS {
        for (fault, words) in &faults {
            stage.member(1).fault_on(api.prefix, fault.clone());
            let answer = stage.get(api.list).await;
            assert_eq!(clusters(&answer), ["member1", "member3"], "{} {fault:?}", api.list);
            let warning = warning(&answer);
            let expected = "299 - \"values of 1 cluster are missing: member2: ";
            assert!(warning.starts_with(expected) && warning.contains(words), "{}: {warning}", api.list);
            for other in APIS.iter().filter(|other| other.prefix != api.prefix) {
                known(&stage, other).await;
            }
            stage.member(1).heal();
            known(&stage, api).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_the_answer_names_each_and_why() {
    let stage = stage(&[SHORT, PARTIAL]).await;
    for (index, fault) in [(0, boom()), (1, Fault::Hang), (2, Fault::Garbage)] {
        stage.member(index).fault(fault);
    }
    for api in &APIS {
        let answer = stage.get(api.list).await;
        let expected = [("member1", "APIFailing"), ("member2", "Timeout"), ("member3", "Malformed")];
        assert_eq!(causes(&answer), expected.map(|(cluster, why)| (cluster.to_owned(), why.to_owned())));
        let message = answer.json().expect("JSON")["message"].as_str().expect("text").to_owned();
        let expected =
            format!("{} cannot be answered, since 3 clusters failed: member1: HTTP 500", api.subject);
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_not_there_unless_one_that_failed_may_have_it() {
    let stage = stage(&[PARTIAL]).await;
    for Api { prefix, nothing: (path, status), .. } in &APIS {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, *status, "{path}");
        if *status == StatusCode::OK {
            assert_eq!(answer.json().expect("JSON")["items"], json!([]), "{path}");
        }
        // Discovery of custom metrics knows that it has others only, which a broken connection does not say.
        stage.member(2).fault_on(prefix, Fault::Abort);
        let answer = stage.get(path).await;
        assert_eq!(causes(&answer), [("member3".to_owned(), "ConnectionLost".to_owned())], "{path}");
        stage.member(2).heal();
    }
}

/// prometheus-adapter answers 500 for custom metrics that its cluster lacks; of the other APIs a 500 is a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_500_means_that_a_metric_is_missing_for_custom_metrics_alone() {
    let stage = stage(&[PARTIAL, "--discovery-interval=1h"]).await;
    for member in &stage.fleet.members {
        member.fault(boom());
    }
    for Api { nothing: (path, _), .. } in &APIS {
        let answer = stage.get(path).await;
        if path.starts_with(CUSTOM.prefix) {
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
        } else {
            assert_eq!(causes(&answer).len(), 3, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ill_api_is_stood_in_for_and_an_unreachable_cluster_is_left_out() {
    let stage = stage(&[SHORT]).await;
    for api in &APIS {
        let before = known(&stage, api).await;
        for (fault, words) in [(boom(), "HTTP 500: boom"), (Fault::Garbage, "malformed"), (Fault::Hang, "1s")]
        {
            stage.member(1).fault_on(api.prefix, fault);
            let answer = stage.get(api.list).await;
            assert_eq!(
                answer.body, before.body,
                "{words}: values and their timestamps are the last known ones"
            );
            let warning = warning(&answer);
            let expected = "299 - \"values of 1 cluster are the last known ones: member2: ";
            assert!(warning.starts_with(expected) && warning.contains(words), "{warning}");
            assert!(warning.ends_with(" s old)\""), "{warning}");
            stage.member(1).heal();
        }
        known(&stage, api).await;
    }
    stage.member(1).fault(Fault::Refused);
    for api in &APIS {
        let answer = stage.get(api.list).await;
        assert_eq!(clusters(&answer), ["member1", "member3"], "{}", api.list);
        assert!(warning(&answer).contains("values of 1 cluster are missing: member2: "), "{}", api.list);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_fail_one_failure_is_everybodys() {
    let stage = stage(&["--on-member-failure=fail"]).await;
    for api in &APIS {
        known(&stage, api).await;
        stage.member(1).fault_on(api.prefix, boom());
        assert_eq!(causes(&stage.get(api.list).await), [("member2".to_owned(), "APIFailing".to_owned())]);
        stage.member(1).heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_skipped_for_the_api_that_hangs_and_asked_for_the_others() {
    let stage = stage(&[SHORT, PARTIAL, "--discovery-interval=1h"]).await;
    for (ill, well) in [(&CUSTOM, [&EXTERNAL, &OF_PODS]), (&OF_NODES, [&EXTERNAL, &CUSTOM])] {
        stage.member(1).fault_on(ill.prefix, Fault::Hang);
        for _ in 0..3 {
            assert_eq!(clusters(&stage.get(ill.list).await), ["member1", "member3"]);
        }
        let start = Instant::now();
        let skipped = warning(&stage.get(ill.list).await);
        assert!(skipped.contains("member2: not asked, since it failed again and again"), "{skipped}");
        for api in well {
            known(&stage, api).await;
        }
        assert!(start.elapsed() < Duration::from_secs(1), "nobody waited: {:?}", start.elapsed());
        let metrics = stage.metrics().await;
        for (api, number) in [(ill, 1), (well[0], 0), (well[1], 0)] {
            let group = api.prefix.trim_start_matches("/apis/");
            let line = format!(
                "karmada_metrics_adapter_member_skipped{{cluster=\"member2\",group=\"{group}\"}} {number}"
            );
            assert!(metrics.contains(&line), "{line}");
        }
        stage.member(1).heal();
        let deadline = Instant::now() + GENEROUS;
        while clusters(&stage.get(ill.list).await).len() < 3 {
            assert!(Instant::now() < deadline, "it is asked again once it answers");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_stand_in_do_so_in_every_form_of_the_same_query_and_in_no_other() {
    let stage = stage(&[]).await;
    known(&stage, &OF_PODS).await;
    stage.member(1).fault_on(OF_PODS.prefix, boom());
    let table = [
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ];
    let answer = stage.get_with(OF_PODS.list, &table).await;
    assert_eq!(answer.json().expect("JSON")["rows"].as_array().map(Vec::len), Some(6));
    assert!(warning(&answer).contains("the last known ones: member2"), "{:?}", answer.warnings());
    for other in ["/apis/metrics.k8s.io/v1beta1/pods", &format!("{}?labelSelector=app", OF_PODS.list)] {
        assert_eq!(clusters(&stage.get(other).await), ["member1", "member3"], "{other}");
    }
    // Another order of the same requirements is the same query.
    stage.member(1).heal();
    let selected = |selector: &str| format!("{}?labelSelector={selector}", OF_PODS.list);
    stage.get(&selected("app,tier!%3Ddb")).await;
    stage.member(1).fault_on(OF_PODS.prefix, boom());
    assert_eq!(clusters(&stage.get(&selected("tier!%3Ddb,app")).await).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_by_name_may_be_where_a_failure_is() {
    let stage = stage(&[]).await;
    let usage = |cpu: &str| PodMetrics::new("default", "shared-0", cpu, "1Mi");
    stage.member(0).store().set_pod_usage(usage("1m"));
    stage.member(2).fault_on(OF_PODS.prefix, boom());
    let found = stage.get(SHARED).await;
    assert_eq!(found.json().expect("JSON")["metadata"]["annotations"][CLUSTER_LABEL], "member1");
    assert!(warning(&found).contains("values of 1 cluster are missing: member3: HTTP 500"));

    stage.member(0).fault_on(OF_PODS.prefix, boom());
    let old = stage.get(SHARED).await;
    assert_eq!(old.body, found.body, "the last known one");
    let expected = "values of 1 cluster are missing, and of 1 cluster the last known ones: member1: ";
    assert!(warning(&old).contains(expected), "{:?}", old.warnings());

    stage.member(1).store().set_pod_usage(usage("2m"));
    let both = stage.get(SHARED).await;
    assert_eq!(both.status, StatusCode::CONFLICT, "what stands in counts");
    stage.member(0).heal();
    stage.member(0).store().remove_pod_usage("default", "shared-0");
    stage.member(1).store().remove_pod_usage("default", "shared-0");
    assert_eq!(causes(&stage.get(SHARED).await), [("member3".to_owned(), "APIFailing".to_owned())]);
    stage.member(2).heal();
    assert_eq!(stage.get(SHARED).await.status, StatusCode::NOT_FOUND);
}
