use serde_json::{Value, json};

use super::*;
use crate::api::codec::EncodeList as _;
use crate::api::custom_metrics::{MetricValueList, Version};
use crate::api::page::{BodyFormat, Expected, Page};

const LABEL: &str = "resource.karmada.io/query-from-cluster";

fn item(kind: &str, name: &str, value: &str, timestamp: &str, window: u64) -> Value {
    json!({
        "describedObject": {"kind": kind, "namespace": "default", "name": name, "apiVersion": "/v1"},
        "metric": {"name": "http_requests", "selector": {"matchLabels": {"verb": "GET"}}},
        "timestamp": timestamp, "windowSeconds": window, "value": value,
    })
}

/// A cluster and its page.
type Source = (&'static str, Page);

fn page(cluster: &'static str, items: &[Value]) -> Source {
    let body = json!({
        "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "items": items,
    });
    let page = Page::read(Expected::MetricValues, BodyFormat::Json, body.to_string().into(), &mut |_| Ok(()));
    (cluster, page.expect("a page"))
}

fn merged(sources: &[Source], rule: SameNamePods, by_name: bool) -> Vec<Value> {
    let pages: Vec<_> = sources.iter().map(|(cluster, page)| (*cluster, page)).collect();
    let items = merge(&pages, rule, by_name, &mut |_| Ok(())).expect("no limit");
    let list = MetricValueList { version: Version::V1Beta2, items, cluster_label: Some(LABEL) };
    let list: Value =
        serde_json::from_slice(&list.to_json(&mut |_| Ok(())).expect("no limit")).expect("valid JSON");
    list["items"].as_array().expect("items").clone()
}

fn values(items: &[Value]) -> Vec<(&str, &str)> {
    let name = |item: &'_ Value| item["describedObject"]["name"].as_str().map(str::len).unwrap_or_default();
    assert!(items.iter().all(|item| name(item) > 0));
    items
        .iter()
        .map(|item| {
            (
                item["describedObject"]["name"].as_str().expect("a name"),
                item["value"].as_str().expect("a value"),
            )
        })
        .collect()
}

fn two_clusters() -> [Source; 2] {
    [
        page(
            "a",
            &[
                item("Pod", "web-1", "2", "2026-01-01T00:00:05Z", 30),
                item("Pod", "db-0", "1", "2026-01-01T00:00:05Z", 30),
            ],
        ),
        page("b", &[item("Pod", "db-0", "500m", "2026-01-01T00:00:01Z", 60)]),
    ]
}

#[test]
fn a_shared_object_is_one_item_with_the_sum_the_oldest_time_and_the_longest_window() {
    let pages = two_clusters();
    let items = merged(&pages, SameNamePods::Sum, false);
    assert_eq!(values(&items), [("db-0", "1500m"), ("web-1", "2")]);
    assert_eq!(items[0]["timestamp"], "2026-01-01T00:00:01Z");
    assert_eq!(items[0]["windowSeconds"], 60);
    assert_eq!(
        items[0]["metric"]["selector"],
        json!({"matchLabels": {"verb": "GET"}, "matchExpressions": [{"key": LABEL, "operator": "In", "values": ["a", "b"]}]})
    );
    assert_eq!(items[1]["metric"]["selector"], json!({"matchLabels": {"verb": "GET", LABEL: "a"}}));
}

#[test]
fn pods_may_be_averaged_or_kept_apart() {
    let pages = two_clusters();
    assert_eq!(values(&merged(&pages, SameNamePods::Average, false)), [("db-0", "750m"), ("web-1", "2")]);
    let apart = merged(&pages, SameNamePods::Separate, false);
    assert_eq!(values(&apart), [("db-0", "1"), ("db-0", "500m"), ("web-1", "2")]);
}

#[test]
fn what_is_no_pod_is_always_summed() {
    let service = |value| [item("Service", "front", value, "2026-01-01T00:00:00Z", 1)];
    let pages = [page("a", &service("1")), page("b", &service("2")), page("c", &service("4"))];
    for rule in [SameNamePods::Sum, SameNamePods::Average, SameNamePods::Separate] {
        assert_eq!(values(&merged(&pages, rule, false)), [("front", "7")]);
    }
}

#[test]
fn query_by_name_yields_one_item_under_every_rule() {
    let pages = [
        page("a", &[item("Pod", "db-0", "1", "2026-01-01T00:00:00Z", 1)]),
        page("b", &[item("Pod", "db-0", "2", "2026-01-01T00:00:00Z", 1)]),
    ];
    let expected =
        [(SameNamePods::Sum, "3"), (SameNamePods::Average, "1500m"), (SameNamePods::Separate, "3")];
    for (rule, value) in expected {
        assert_eq!(values(&merged(&pages, rule, true)), [("db-0", value)], "{rule:?}");
    }
}

#[test]
fn objects_of_other_groups_are_other_objects() {
    let mut other = item("Pod", "x", "1", "2026-01-01T00:00:00Z", 1);
    other["describedObject"]["apiVersion"] = json!("example.org/v1");
    let mut core = item("Pod", "x", "2", "2026-01-01T00:00:00Z", 1);
    core["describedObject"]["apiVersion"] = json!("v1");
    let slashed = item("Pod", "x", "4", "2026-01-01T00:00:00Z", 1);
    let items = merged(&[page("a", &[other, core]), page("b", &[slashed])], SameNamePods::Sum, false);
    assert_eq!(values(&items), [("x", "6"), ("x", "1")]);
}
