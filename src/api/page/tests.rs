use std::borrow::Cow;

use serde_json::Value;

use super::*;
use crate::api::codec::protobuf::{Envelope, Fields};
use crate::api::codec::{Encode, EncodeList};
use crate::api::custom_metrics::{MetricValue, MetricValueList, SourceClusters, Version};
use crate::api::external_metrics::{ExternalMetricValue, ExternalMetricValueList};
use crate::api::resource_metrics::{ObjectMetrics, ObjectMetricsList, SingleObjectMetrics};
use crate::api::status::{Details, Reason, Status};

/// An object in JSON and in protobuf.
type Written = (Value, Vec<u8>);

fn written(object: &impl Encode) -> Written {
    (serde_json::from_slice(&object.to_json()).expect("valid JSON"), object.to_protobuf())
}

fn written_list(list: &impl EncodeList) -> Written {
    let json = list.to_json(&mut |_| Ok(())).expect("no limit");
    let protobuf = list.to_protobuf(&mut |_| Ok(())).expect("no limit");
    (serde_json::from_slice(&json).expect("valid JSON"), protobuf)
}

fn read(expected: Expected, format: BodyFormat, body: impl Into<Vec<u8>>) -> Result<Page, PageError> {
    Page::read(expected, format, body.into(), &mut |_| Ok(()))
}

/// Encodes a page as this server does, without the names of clusters.
fn rewritten(page: &Page, expected: Expected, version: Version) -> Written {
    let objects = || page.resources().map(|item| ObjectMetrics { item, cluster: None });
    match expected {
        Expected::MetricValues => {
            let items = page.custom().map(|item| MetricValue {
                item,
                value: Cow::Borrowed(item.value()),
                timestamp: item.timestamp(),
                window_seconds: item.window_seconds(),
                clusters: SourceClusters::One("member1"),
            });
            written_list(&MetricValueList { version, items: items.collect(), cluster_label: None })
        }
        Expected::ExternalValues => {
            let items = page.external().map(|item| ExternalMetricValue {
                item,
                labels: item.labels().into_iter().map(|(key, value)| (key, value.decode())).collect(),
                value: Cow::Borrowed(item.value()),
                timestamp: item.timestamp(),
                window_seconds: item.window_seconds(),
            });
            written_list(&ExternalMetricValueList { items: items.collect() })
        }
        Expected::List(resource) => written_list(&ObjectMetricsList { resource, items: objects().collect() }),
        Expected::Object(resource) => {
            written(&SingleObjectMetrics { resource, item: objects().next().expect("one object") })
        }
    }
}

fn contract(file: &str) -> Value {
    let path = format!("{}/tests/contract/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("the contract exists")).expect("valid JSON")
}

fn expected_of(object: &Value) -> Option<Expected> {
    let kind = object["kind"].as_str().expect("a kind");
    let objects = MetricsResource::ALL.map(|resource| [Expected::Object(resource), Expected::List(resource)]);
    let all =
        [Expected::MetricValues, Expected::ExternalValues].into_iter().chain(objects.into_iter().flatten());
    all.into_iter().find(|expected| expected.kind() == kind)
}

fn bytes_of(row: &Value) -> Vec<u8> {
    let hex = row["hex"].as_str().expect("hex").as_bytes();
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    hex.chunks(2).map(byte).collect()
}

/// The fields of a list in protobuf without its metadata, or all fields of an object.
fn content(expected: Expected, body: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let raw = Envelope::read(body).expect("an envelope").raw;
    let list = !matches!(expected, Expected::Object(_));
    let fields = Fields::of(raw).map(|field| field.expect("well-formed"));
    fields
        .filter(|(number, _)| !list || *number != 1)
        .map(|(number, value)| (number, value.bytes().to_vec()))
        .collect()
}

#[test]
fn protobuf_vectors_equal_json_and_are_written_byte_for_byte() {
    let mut kinds = std::collections::BTreeSet::new();
    for row in contract("vectors/protobuf.json").as_array().expect("rows") {
        let (mut object, bytes) = (row["object"].clone(), bytes_of(row));
        let Some(expected) = expected_of(&object) else {
            assert_eq!(object["kind"], "Status", "an unexpected kind");
            continue;
        };
        kinds.insert(expected.kind());
        let of = |version: &Version| object["apiVersion"] == version.group_version();
        let version = Version::ALL.into_iter().find(of).unwrap_or(Version::V1Beta2);
        let page = read(expected, BodyFormat::Protobuf, bytes.clone()).expect("a page");
        let json_page = read(expected, BodyFormat::Json, object.to_string()).expect("a page");
        let dropped = matches!(&object["metadata"], Value::Object(fields) if fields.contains_key("selfLink"));
        for page in [page, json_page] {
            let (json, protobuf) = rewritten(&page, expected, version);
            // This server writes its own list metadata. One row has list metadata of a member, which is dropped.
            if dropped {
                object["metadata"] = serde_json::json!({});
                assert_eq!(content(expected, &protobuf), content(expected, &bytes));
            } else {
                assert_eq!(protobuf, bytes, "{object}");
            }
            assert_eq!(json, object);
        }
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

#[test]
fn status_is_written_byte_for_byte() {
    let rows = contract("vectors/protobuf.json");
    let row = rows.as_array().expect("rows").iter().find(|row| row["object"]["kind"] == "Status");
    let row = row.expect("a row of Status");
    let (name, group, kind) = ("x".to_owned(), "g".to_owned(), "pods".to_owned());
    let details = Details { name, group, kind, retry_after_seconds: Some(3), ..Details::default() };
    let status = Status::failure(404, Reason::NotFound, "nope").with_details(details);
    assert_eq!(written(&status), (row["object"].clone(), bytes_of(row)));
}

#[test]
fn escaped_strings_are_unchanged() {
    let body = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[{
        "describedObject":{"kind":"Pod","namespace":"default","name":"caf\u00e9\n\"x\"","apiVersion":"/v1"},
        "metric":{"name":"m","selector":{"matchLabels":{"a\\b":"\u2603"}}},"timestamp":null,"value":"1"}]}"#;
    let page = read(Expected::MetricValues, BodyFormat::Json, body).expect("a page");
    let (written, _) = rewritten(&page, Expected::MetricValues, Version::V1Beta2);
    assert_eq!(written["items"][0]["describedObject"]["name"], "café\n\"x\"");
    assert_eq!(written["items"][0]["metric"]["selector"]["matchLabels"]["a\\b"], "☃");
}

#[test]
fn number_and_null_are_quantities() {
    let body = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1",
        "items":[{"describedObject":{"name":"a"},"metricName":"m","value":1.5},
        {"describedObject":{"name":"b"},"metricName":"m","value":null},{"describedObject":{"name":"c"},"metricName":"m"}]}"#;
    let page = read(Expected::MetricValues, BodyFormat::Json, body).expect("a page");
    let values: Vec<String> = page.custom().map(|item| item.value().to_string()).collect();
    assert_eq!(values, ["1500m", "0", "0"]);
}

#[test]
fn invalid_pages_are_rejected() {
    let list = |items: &str| {
        let body = format!(
            r#"{{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":{items}}}"#
        );
        read(Expected::MetricValues, BodyFormat::Json, body)
    };
    assert!(matches!(list(r#"[{"value":"many"}]"#), Err(PageError::Quantity { index: 0, .. })));
    let one = r#"{"describedObject":{"name":"a"},"metric":{"name":"m"}}"#;
    assert!(matches!(
        list(&format!(r#"[{one},{{"timestamp":"today"}}]"#)),
        Err(PageError::Timestamp { index: 1 })
    ));
    assert!(matches!(list(&format!("[{}{{}}]", "{},".repeat(9_999))), Err(PageError::TooManyItems(_))));
    assert!(matches!(list(r#"[{"metric":{"selector":7}}]"#), Err(PageError::Json(_))));
    assert!(matches!(list(r#"[{"describedObject":{"name":"\ud800"}}]"#), Err(PageError::Json(_))));
    assert!(matches!(list("{}"), Err(PageError::Json(_))));
    assert!(list("null").is_ok_and(|page| page.is_empty()));
    let of = |format, body: &[u8]| read(Expected::MetricValues, format, body);
    assert!(matches!(
        of(BodyFormat::Json, br#"{"kind":"PodList","apiVersion":"v1","items":[]}"#),
        Err(PageError::Kind { .. })
    ));
    assert!(matches!(of(BodyFormat::Json, b"\xff{}"), Err(PageError::Utf8)));
    assert!(matches!(of(BodyFormat::Protobuf, b"{}"), Err(PageError::Protobuf(MalformedProtobuf::Magic))));
    assert!(matches!(
        of(BodyFormat::Protobuf, b"k8s\0\x12\x05a"),
        Err(PageError::Protobuf(MalformedProtobuf::Truncated))
    ));
}

#[test]
fn invalid_pods_are_rejected() {
    let list = |item: &str| {
        let body =
            format!(r#"{{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","items":[{item}]}}"#);
        read(Expected::List(MetricsResource::Pods), BodyFormat::Json, body)
    };
    assert!(list(r#"{"metadata":null,"timestamp":null,"window":"","containers":null}"#).is_ok());
    assert!(matches!(list(r#"{"metadata":[]}"#), Err(PageError::Metadata { index: 0, .. })));
    let metadata = r#"{"metadata":{"creationTimestamp":"soon"}}"#;
    assert!(matches!(list(metadata), Err(PageError::Metadata { index: 0, .. })));
    assert!(matches!(list(r#"{"window":"15"}"#), Err(PageError::Window { index: 0, .. })));
    assert!(matches!(list(r#"{"timestamp":"15s"}"#), Err(PageError::Timestamp { index: 0 })));
    let usage = r#"{"containers":[{"name":"a","usage":{"cpu":"much"}}]}"#;
    assert!(matches!(list(usage), Err(PageError::Quantity { index: 0, .. })));
    assert!(matches!(list(r#"{"containers":{}}"#), Err(PageError::Json(_))));
    let body = r#"{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","items":[]}"#;
    let nodes = read(Expected::List(MetricsResource::Pods), BodyFormat::Json, body);
    let error = nodes.expect_err("nodes instead of pods").to_string();
    assert!(error.contains("NodeMetricsList") && error.contains("PodMetricsList"), "{error}");
}

#[test]
fn containers_keep_order_and_their_amounts_are_sorted() {
    let body = r#"{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","items":[
        {"metadata":{"name":"none"}},
        {"metadata":{"name":"two"},"containers":[
            {"name":"z","usage":{"memory":"2Ki","cpu":"1m"}},{"name":"a","usage":{"cpu":"3m"}}]},
        {"metadata":{"name":"one"},"containers":[{"name":"only","usage":{"cpu":"5m"}}]}]}"#;
    let page = read(Expected::List(MetricsResource::Pods), BodyFormat::Json, body).expect("a page");
    let amounts = |amounts: resource::ResourceList<'_>| {
        let amounts = amounts.iter().map(|(name, amount)| format!("{}={amount}", name.decode()));
        amounts.collect::<Vec<_>>().join(",")
    };
    let containers: Vec<Vec<String>> = page
        .resources()
        .map(|item| {
            let container = |container: resource::Container<'_>| {
                format!("{}:{}", container.name.decode(), amounts(container.usage))
            };
            item.containers().map(container).collect()
        })
        .collect();
    assert_eq!(containers, [vec![], vec!["z:cpu=1m,memory=2Ki", "a:cpu=3m"], vec!["only:cpu=5m"]]);
    let whole: Vec<String> = page.resources().map(|item| amounts(item.amounts())).collect();
    assert_eq!(whole, ["", "cpu=1m,memory=2Ki,cpu=3m", "cpu=5m"]);
}

#[test]
fn object_with_too_many_entries_is_rejected() {
    let many = |element: &str| vec![element; crate::api::meta::MAX_ENTRIES + 1].join(",");
    let pods = |item: String| {
        let body =
            format!(r#"{{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","items":[{item}]}}"#);
        read(Expected::List(MetricsResource::Pods), BodyFormat::Json, body)
    };
    assert!(matches!(pods(format!(r#"{{"containers":[{}]}}"#, many("{}"))), Err(PageError::Json(_))));
    let labels = format!(r#"{{"metadata":{{"labels":{{{}}}}}}}"#, many(r#""a":"""#));
    assert!(matches!(pods(labels), Err(PageError::Metadata { index: 0, .. })));
    let crowded = |expected: Expected, api_version, item: Vec<u8>| {
        let body = crate::api::codec::protobuf::Writer::object(api_version, expected.kind(), 0, |list| {
            list.message(2, |out| out.append(&item));
        });
        let read = read(expected, BodyFormat::Protobuf, body);
        assert!(
            matches!(read, Err(PageError::Protobuf(MalformedProtobuf::TooManyEntries))),
            "{expected:?}: {read:?}"
        );
    };
    let empty = |tag: u8| [tag, 0].repeat(crate::api::meta::MAX_ENTRIES + 1);
    crowded(Expected::List(MetricsResource::Pods), "metrics.k8s.io/v1beta1", empty(0x22));
    crowded(Expected::List(MetricsResource::Nodes), "metrics.k8s.io/v1beta1", empty(0x22));
    crowded(Expected::ExternalValues, "external.metrics.k8s.io/v1beta1", empty(0x12));
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body: Vec<u8>) {
        let objects = MetricsResource::ALL.map(|resource| [Expected::Object(resource), Expected::List(resource)]);
        for expected in [Expected::MetricValues, Expected::ExternalValues].into_iter().chain(objects.into_iter().flatten()) {
            let _ = read(expected, BodyFormat::Json, body.clone());
            let mut api_version = "custom.metrics.k8s.io/v1beta2";
            if expected != Expected::MetricValues {
                api_version = match expected {
                    Expected::ExternalValues => "external.metrics.k8s.io/v1beta1",
                    _ => "metrics.k8s.io/v1beta1",
                };
            }
            let enveloped = crate::api::codec::protobuf::Writer::object(api_version, expected.kind(), 0, |list| {
                list.message(2, |item| item.append(&body));
                list.append(&body);
            });
            if let Ok(page) = read(expected, BodyFormat::Protobuf, enveloped) {
                rewritten(&page, expected, Version::V1Beta2);
            }
        }
    }
}
