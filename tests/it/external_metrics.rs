//! External metrics: each cluster's series are returned separately, or chosen and merged.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::control_plane::EXTERNAL_METRICS;
use testkit::federated_hpa::milli_value;
use testkit::member::wire::ExternalMetricValue;
use testkit::member::{ExternalMetrics, Formats, Member, MemberOptions};

use crate::stage::{CLUSTER_LABEL, Stage};

const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_ready";
const TAG: &str = "resource.karmada.io%2Fquery-from-cluster";

fn series(value: &str, queue: &str, timestamp: &str, window: Option<i64>) -> ExternalMetricValue {
    let series = ExternalMetricValue::new("queue_ready", value).label("queue", queue);
    ExternalMetricValue { timestamp: timestamp.to_owned(), window, ..series }
}

/// Starts four members. member1 has prometheus-adapter, member2 has KEDA, member3 has no external metrics API, and member4
/// serves only JSON and only other metrics. member1 and member2 both have the queue `orders`; member1 also has `mails`, member2
/// also has `bills`.
async fn stage(flags: &[&str]) -> Stage {
    let options = MemberOptions::default;
    let keda = MemberOptions { external_metrics: ExternalMetrics::Keda, ..options() };
    let absent = MemberOptions { external_metrics: ExternalMetrics::Absent, ..options() };
    let json = MemberOptions { formats: Formats::Json, ..options() };
    let mut members = Vec::new();
    for (name, options) in [("member1", options()), ("member2", keda), ("member3", absent), ("member4", json)]
    {
        members.push(Member::start_with(name, options).await.expect("a member starts"));
    }
    for series in [
        series("1500m", "orders", "2026-01-02T03:04:06Z", Some(60)),
        series("7", "mails", "2026-01-02T03:04:05Z", None),
    ] {
        members[0].set_external_metric("default", series);
    }
    for series in [
        series("2", "orders", "2026-01-02T03:04:05Z", Some(30)),
        series("-4", "bills", "2026-01-02T03:04:07Z", None),
    ] {
        members[1].set_external_metric("default", series);
    }
    let temperature = ExternalMetricValue::new("temperature", "21").label(CLUSTER_LABEL, "elsewhere");
    members[3].set_external_metric("default", temperature);
    Stage::start(members, flags).await
}

/// The items of a list as queue, clusters and value.
fn values(response: &Answer) -> Vec<[String; 3]> {
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    assert!(response.warnings().is_empty(), "{:?}", response.warnings());
    let list = response.json().expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().expect("items").iter();
    items
        .map(|item| {
            let labels = &item["metricLabels"];
            [text(&labels["queue"]), text(&labels[CLUSTER_LABEL]), text(&item["value"])]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn series_have_a_cluster_label() {
    let stage = stage(&[]).await;
    let response = stage.get(QUEUE).await;
    let item = |queue: &str, cluster: &str, timestamp: &str, window: Option<i64>, value: &str| {
        let labels = json!({"queue": queue, CLUSTER_LABEL: cluster});
        let mut item = json!({
            "metricName": "queue_ready", "metricLabels": labels, "timestamp": timestamp, "value": value,
        });
        if let Some(seconds) = window {
            item["window"] = json!(seconds);
        }
        item
    };
    let expected = json!({
        "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
        "items": [
            item("bills", "member2", "2026-01-02T03:04:07Z", None, "-4"),
            item("mails", "member1", "2026-01-02T03:04:05Z", None, "7"),
            item("orders", "member1", "2026-01-02T03:04:06Z", Some(60), "1500m"),
            item("orders", "member2", "2026-01-02T03:04:05Z", Some(30), "2"),
        ],
    });
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    assert_eq!(response.json().expect("JSON"), expected);
    let temperature = stage.get(&QUEUE.replace("queue_ready", "temperature")).await;
    assert_eq!(values(&temperature), [["", "member4", "21"]], "the member's own tag is replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_unchanged_without_tags() {
    let stage = stage(&["--cluster-label="]).await;
    stage.member(1).set_external_metric("default", ExternalMetricValue::new("plain", "3"));
    let plain = stage.get(&QUEUE.replace("queue_ready", "plain")).await.json().expect("JSON");
    assert_eq!(plain["items"][0]["metricLabels"], Value::Null, "null as in KEDA's response");
    let mails = stage.get(&format!("{QUEUE}?labelSelector=queue%3Dmails")).await.json().expect("JSON");
    assert_eq!(mails["items"][0]["metricLabels"], json!({"queue": "mails"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn selector_is_forwarded_unchanged() {
    let stage = stage(&["--discovery-interval=1h"]).await;
    let member = stage.member(1);
    for selector in [
        "scaledobject.keda.sh/name=orders",
        "queue in (orders,  bills) , queue==orders",
        "b!=2,a,!c",
        "queue=orders,",
    ] {
        member.reset_counters();
        let encoded = percent_encoding::utf8_percent_encode(selector, percent_encoding::NON_ALPHANUMERIC);
        let response = stage.get(&format!("{QUEUE}?labelSelector={encoded}")).await;
        let requests = member.requests();
        if selector.ends_with(',') {
            assert_eq!(
                (response.status, requests.len()),
                (StatusCode::BAD_REQUEST, 0),
                "{selector} is invalid"
            );
            continue;
        }
        assert_eq!(requests.len(), 1, "{selector}");
        let target = percent_decode_str(&requests[0].path_and_query).decode_utf8_lossy();
        assert_eq!(target, format!("{QUEUE}?labelSelector={selector}"));
    }
    member.reset_counters();
    let chosen = format!("{QUEUE}?labelSelector=queue+in+(orders,bills),{TAG}%3Dmember2");
    assert_eq!(values(&stage.get(&chosen).await).len(), 2);
    let target = member.requests()[0].path_and_query.clone();
    let target = percent_decode_str(&target).decode_utf8_lossy();
    assert_eq!(
        target,
        format!("{QUEUE}?labelSelector=queue in (bills,orders)"),
        "the rest of the selector is equivalent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn selector_chooses_clusters() {
    let stage = stage(&[]).await;
    let of = async |selector: &str| {
        let response = stage.get(&format!("{QUEUE}?labelSelector={selector}")).await;
        if response.status != StatusCode::OK {
            return vec![response.status.to_string()];
        }
        let mut clusters = Vec::from_iter(values(&response).into_iter().map(|[_, cluster, _]| cluster));
        clusters.sort();
        clusters.dedup();
        clusters
    };
    assert_eq!(of(&format!("{TAG}%3Dmember2")).await, ["member2"]);
    assert_eq!(of(&format!("{TAG}+in+(member1,member3)")).await, ["member1"]);
    assert_eq!(of(&format!("{TAG}+notin+(member1)")).await, ["member2"]);
    assert_eq!(of(&format!("{TAG}!%3Dmember2")).await, ["member1"]);
    assert_eq!(of(&format!("{TAG},queue%3Dorders")).await, ["member1", "member2"]);
    assert_eq!(of(&format!("{TAG}%3Dmember1,queue%3Dbills")).await, ["404 Not Found"]);
    assert_eq!(of(&format!("!{TAG}")).await, ["404 Not Found"]);
    assert_eq!(of(&format!("{TAG}%3Dnowhere")).await, ["404 Not Found"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_does_not_restrict_queries() {
    let stage = stage(&["--discovery-interval=1h"]).await;
    let list = stage.get(EXTERNAL).await.json().expect("JSON");
    let listed = list["resources"].as_array().expect("resources").iter();
    let listed: Vec<&str> = listed.map(|resource| resource["name"].as_str().expect("a name")).collect();
    assert_eq!(listed, ["externalmetrics", "queue_ready", "temperature"]);
    let keda = stage.member(1);
    keda.set_external_metric("default", ExternalMetricValue::new("s0-rabbitmq-orders", "12"));
    for member in &stage.fleet.members {
        member.reset_counters();
    }
    let response = stage.get(&QUEUE.replace("queue_ready", "s0-rabbitmq-orders")).await;
    assert_eq!(values(&response), [["", "member2", "12"]]);
    for member in &stage.fleet.members {
        assert_eq!(member.counters().requests, 1, "{}: {:?}", member.name(), member.requests());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_series_are_merged_by_rule() {
    for (rule, orders) in [("sum", "3500m"), ("max", "2"), ("min", "1500m"), ("avg", "1750m")] {
        let stage = stage(&[&format!("--external-merge=other=each,queue_ready={rule}")]).await;
        let response = stage.get(QUEUE).await;
        let expected =
            [["bills", "member2", "-4"], ["mails", "member1", "7"], ["orders", "member1,member2", orders]];
        assert_eq!(values(&response), expected, "{rule}");
        let orders = &response.json().expect("JSON")["items"][2];
        let when = (&orders["timestamp"], &orders["window"]);
        assert_eq!(when, (&json!("2026-01-02T03:04:05Z"), &json!(60)), "oldest timestamp and longest window");
        assert_eq!(values(&stage.get(&QUEUE.replace("queue_ready", "temperature")).await).len(), 1);
    }
    let each = stage(&["--external-merge=queue_ready=each"]).await;
    assert_eq!(values(&each.get(QUEUE).await), values(&stage(&[]).await.get(QUEUE).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeating_decimal_mean_is_rounded_up() {
    let stage = stage(&["--external-merge=queue_ready=avg"]).await;
    stage.member(3).set_external_metric("default", series("1", "orders", "2026-01-02T03:04:05Z", None));
    for (index, value) in [(0, "1"), (1, "3")] {
        let series = series(value, "orders", "2026-01-02T03:04:05Z", None);
        stage.member(index).set_external_metric("default", series);
    }
    let orders = stage.get(&format!("{QUEUE}?labelSelector=queue%3Dorders")).await;
    assert_eq!(values(&orders), [["orders", "member1,member2,member4", "1666666667n"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_metric_or_api_is_not_found() {
    let stage = stage(&[]).await;
    for metric in ["unknown", "queue_ready?labelSelector=queue%3Dnone"] {
        let response = stage.get(&QUEUE.replace("queue_ready", metric)).await;
        assert_eq!(response.status, StatusCode::NOT_FOUND, "{metric}");
        let name = metric.split('?').next().expect("a name");
        let message = format!("the server could not find the external metric {name} in namespace default");
        let body = response.json().expect("JSON");
        assert_eq!((&body["message"], &body["reason"]), (&json!(message), &json!("NotFound")));
    }
    for path in [
        QUEUE.replace("/default/", "/other/"),
        QUEUE.replace("v1beta1", "v1beta2"),
        QUEUE.replace("v1beta1", "v1"),
        format!("{EXTERNAL}/queue_ready"),
        format!("{EXTERNAL}/namespaces/default"),
        format!("{QUEUE}/more"),
    ] {
        assert_eq!(stage.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let response = stage.get(&format!("{QUEUE}?labelSelector=a+in+b")).await;
    let message = "unable to parse requirement: found 'b' expected: '('";
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    assert_eq!(response.json().expect("JSON")["message"], message);
    assert_eq!(stage.get(&format!("{QUEUE}?watch=1")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let suspicious = stage.get(&format!("{QUEUE}?metricLabelSelector=queue%3Dorders")).await;
    assert_eq!(suspicious.status, StatusCode::OK);
    assert!(
        suspicious.warnings()[0].contains(r#"did you mean \"labelSelector\"?"#),
        "{:?}",
        suspicious.warnings()
    );
}

/// The controller sums the values of the list (`GetExternalMetric` of its metrics client), also with merged series.
#[tokio::test(flavor = "multi_thread")]
async fn controller_sums_the_intended_values() {
    for (flags, expected) in [(&[][..], 3500), (&["--external-merge=queue_ready=max"], 2000)] {
        let stage = stage(flags).await;
        stage.register(&[EXTERNAL_METRICS]).await;
        let controller = stage.fleet.plane.admin_client();
        let response =
            controller.get(&format!("{QUEUE}?labelSelector=queue%3Dorders")).await.expect("a response");
        let milli = values(&response).into_iter().map(|[.., value]| milli_value(&value).expect("a quantity"));
        assert_eq!(milli.sum::<i64>(), expected, "{flags:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_external_metrics_through_the_aggregation_layer() {
    let stage = stage(&[]).await;
    stage.register(&[EXTERNAL_METRICS]).await;
    for kubectl in testkit::kubectls(&stage.fleet.plane.admin_kubeconfig().expect("a kubeconfig")) {
        let printed = kubectl.run(&["get", "--raw", QUEUE]).await.expect("kubectl gets the metric");
        let list: Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(4), "{kubectl}");
    }
}
