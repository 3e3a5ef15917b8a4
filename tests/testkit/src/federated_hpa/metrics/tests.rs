//! Paths of queries, and parsing of responses.

use serde_json::{Value, json};

use super::*;

fn pods() -> Metric {
    Metric::pods("http_requests", 700)
}

fn object(resource: &str) -> Metric {
    Metric::Object {
        resource: resource.to_owned(),
        object: "front".to_owned(),
        name: "hits".to_owned(),
        selector: String::new(),
        target: super::super::ObjectTarget::Value(1),
    }
}

#[test]
fn paths_match_the_recorded_controller() {
    let recorded = include_str!("../../../../contract/real/aggregation.json");
    let url = format!("\"GET {}\"", path(&pods(), "default", "app=sample-app"));
    assert!(recorded.contains(&url), "{url}");
}

#[test]
fn objects_are_queried_by_name() {
    let base = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";
    assert_eq!(path(&object("services"), "default", ""), format!("{base}/services/front/hits"));
    assert_eq!(path(&object("namespaces"), "default", ""), format!("{base}/metrics/hits"));
}

#[test]
fn metric_selector_follows_the_pod_selector() {
    let selector = "resource.karmada.io/query-from-cluster in (member1,member2)".to_owned();
    let encoded = "metricLabelSelector=resource.karmada.io%2Fquery-from-cluster+in+%28member1%2Cmember2%29";
    let pods = Metric::Pods { name: "hits".to_owned(), selector: selector.clone(), average_value: 1 };
    let url = path(&pods, "default", "app=sample-app");
    assert!(url.ends_with(&format!("/pods/%2A/hits?labelSelector=app%3Dsample-app&{encoded}")), "{url}");
    let mut services = object("services");
    let Metric::Object { selector: of_services, .. } = &mut services else { unreachable!() };
    *of_services = selector;
    let url = path(&services, "default", "app=sample-app");
    assert!(url.ends_with(&format!("/services/front/hits?{encoded}")), "{url}");
}

#[test]
fn values_are_in_thousandths_and_rounded_up() {
    for (text, milli) in [
        ("600m", 600),
        ("0", 0),
        ("7", 7000),
        ("0.5", 500),
        ("1.5k", 1_500_000),
        ("1Ki", 1_024_000),
        ("1u", 1),
        ("1500001u", 1501),
        ("-1500001u", -1501),
        ("2e3", 2_000_000),
        ("1E", i64::MAX),
        ("5e-5", 1),
        ("9e999", i64::MAX),
    ] {
        assert_eq!(milli_value(text), Some(milli), "{text}");
    }
    for text in ["", "m", "1.2.3", "1x", "--1", "NaN", "1e", "."] {
        assert_eq!(milli_value(text), None, "{text}");
    }
}

#[test]
fn error_message_comes_from_the_status_or_the_body() {
    let status = br#"{"kind":"Status","message":"no member responded"}"#;
    let refused = |status, message: &str| MetricsError::Refused { status, message: message.to_owned() };
    assert_eq!(read(&pods(), 503, status), Err(refused(503, "no member responded")));
    assert_eq!(read(&pods(), 503, b"service unavailable\n"), Err(refused(503, "service unavailable")));
}

fn list(items: &Value) -> Value {
    json!({"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "items": items})
}

fn read_list(metric: &Metric, list: &Value) -> Result<Reading, MetricsError> {
    read(metric, 200, list.to_string().as_bytes())
}

#[test]
fn empty_list_and_two_values_of_one_object_are_errors() {
    let item = json!({"describedObject": {"kind": "Service", "name": "front"}, "value": "2"});
    assert_eq!(read_list(&pods(), &list(&json!([]))), Err(MetricsError::Empty));
    assert_eq!(read_list(&pods(), &list(&Value::Null)), Err(MetricsError::Empty));
    let services = object("services");
    assert_eq!(read_list(&services, &list(&json!([item]))), Ok(Reading::Object(2000)));
    assert_eq!(read_list(&services, &list(&json!([item, item]))), Err(MetricsError::NotOne(2)));
}

#[test]
fn undecodable_responses_are_malformed() {
    let services = object("services");
    let read_item = |item: Value| read_list(&services, &list(&json!([item])));
    let object = json!({"name": "front"});
    for item in [
        json!({"describedObject": object, "value": "2", "timestamp": "2026-11-22T04:53:20Z"}),
        json!({"describedObject": object, "value": "2", "timestamp": "2026-11-22T05:53:20.25+01:00"}),
        json!({"describedObject": object, "value": "2", "timestamp": null, "windowSeconds": 60}),
        json!({"describedObject": object, "value": 2}),
        json!({"value": 2.0}),
    ] {
        assert_eq!(read_item(item.clone()), Ok(Reading::Object(2000)), "{item}");
    }
    assert_eq!(read_item(json!({"describedObject": object})), Ok(Reading::Object(0)));
    for item in [
        json!({"describedObject": object, "value": "2", "timestamp": "yesterday"}),
        json!({"describedObject": object, "value": "2", "timestamp": "2026-11-22 04:53:20Z"}),
        json!({"describedObject": object, "value": "2", "timestamp": 1_795_323_200}),
        json!({"describedObject": object, "value": "2", "windowSeconds": "60"}),
        json!({"describedObject": object, "value": "two"}),
        json!({"describedObject": object, "value": true}),
        json!({"describedObject": "front", "value": "2"}),
    ] {
        let found = read_item(item.clone());
        assert!(matches!(found, Err(MetricsError::Malformed(_))), "{item}: {found:?}");
    }
}

#[test]
fn list_is_recognized_by_its_kind_in_either_version() {
    let item = json!([{"describedObject": {"name": "front"}, "value": "2"}]);
    for (kind, api_version, is_known) in [
        ("MetricValueList", "custom.metrics.k8s.io/v1beta2", true),
        ("MetricValueList", "custom.metrics.k8s.io/v1beta1", true),
        ("MetricValueList", "external.metrics.k8s.io/v1beta1", false),
        ("List", "custom.metrics.k8s.io/v1beta2", false),
        ("", "", false),
    ] {
        let list = json!({"kind": kind, "apiVersion": api_version, "items": item});
        let found = read_list(&object("services"), &list);
        assert_eq!(found.is_ok(), is_known, "{kind} of {api_version}: {found:?}");
    }
}
