use serde_json::Value;

use super::*;
use crate::api::custom_metrics::{Clusters, MetricValue, Version, to_json};

/// The items as this server writes them, without cluster tags.
fn rewritten(page: &Page, version: Version) -> Value {
    let items: Vec<MetricValue<'_>> = page
        .items()
        .map(|item| MetricValue {
            item,
            value: std::borrow::Cow::Borrowed(item.value()),
            timestamp: item.timestamp(),
            window_seconds: item.window_seconds(),
            clusters: Clusters::One("member1"),
        })
        .collect();
    serde_json::from_slice(&to_json(version, &items, None)).expect("valid JSON")
}

fn contract(file: &str) -> Value {
    let path = format!("{}/tests/contract/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("the contract is there")).expect("valid JSON")
}

#[test]
fn every_protobuf_vector_of_custom_metrics_reads_as_its_json_twin() {
    let mut read = 0;
    for row in contract("vectors/protobuf.json").as_array().expect("rows") {
        let mut object = row["object"].clone();
        let Some(version) = object["apiVersion"]
            .as_str()
            .and_then(|text| Version::ALL.into_iter().find(|version| version.group_version() == text))
        else {
            continue;
        };
        let hex = row["hex"].as_str().expect("hex").as_bytes();
        let bytes: Vec<u8> = hex
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
            .collect();
        let page = Page::read(Format::Protobuf, bytes.into()).expect("a page");
        object["metadata"] = serde_json::json!({});
        assert_eq!(rewritten(&page, version), object);
        let json = Page::read(Format::Json, object.to_string().into()).expect("a page");
        assert_eq!(rewritten(&json, version), object);
        read += 1;
    }
    assert!(read >= 4, "only {read} rows are of custom metrics");
}

#[test]
fn strings_with_escapes_come_out_as_they_went_in() {
    let body = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[{
        "describedObject":{"kind":"Pod","namespace":"default","name":"caf\u00e9\n\"x\"","apiVersion":"/v1"},
        "metric":{"name":"m","selector":{"matchLabels":{"a\\b":"\u2603"}}},"timestamp":null,"value":"1"}]}"#;
    let page = Page::read(Format::Json, body.into()).expect("a page");
    let written = rewritten(&page, Version::V1Beta2);
    assert_eq!(written["items"][0]["describedObject"]["name"], "café\n\"x\"");
    assert_eq!(written["items"][0]["metric"]["selector"]["matchLabels"]["a\\b"], "☃");
}

#[test]
fn a_number_and_null_are_quantities_too() {
    let body = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1",
        "items":[{"describedObject":{"name":"a"},"metricName":"m","value":1.5},
        {"describedObject":{"name":"b"},"metricName":"m","value":null},{"describedObject":{"name":"c"},"metricName":"m"}]}"#;
    let page = Page::read(Format::Json, body.into()).expect("a page");
    let values: Vec<String> = page.items().map(|item| item.value().to_string()).collect();
    assert_eq!(values, ["1500m", "0", "0"]);
}

#[test]
fn what_is_no_page_is_told_apart() {
    let list = |items: &str| {
        let body = format!(
            r#"{{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":{items}}}"#
        );
        Page::read(Format::Json, body.into())
    };
    assert!(matches!(list(r#"[{"value":"many"}]"#), Err(PageError::Quantity { index: 0, .. })));
    let one = r#"{"describedObject":{"name":"a"},"metric":{"name":"m"}}"#;
    assert!(matches!(
        list(&format!(r#"[{one},{{"timestamp":"today"}}]"#)),
        Err(PageError::Timestamp { index: 1 })
    ));
    assert!(matches!(list(&format!("[{}{{}}]", "{},".repeat(9_999))), Err(PageError::Crowded(_))));
    assert!(matches!(list(r#"[{"metric":{"selector":7}}]"#), Err(PageError::Json(_))));
    assert!(matches!(list(r#"[{"describedObject":{"name":"\ud800"}}]"#), Err(PageError::Json(_))));
    assert!(matches!(list("{}"), Err(PageError::Json(_))));
    assert!(list("null").is_ok_and(|page| page.is_empty()));
    let of = |format, body: &'static [u8]| Page::read(format, Bytes::from_static(body));
    assert!(matches!(
        of(Format::Json, br#"{"kind":"PodList","apiVersion":"v1","items":[]}"#),
        Err(PageError::Kind { .. })
    ));
    assert!(matches!(of(Format::Json, b"\xff{}"), Err(PageError::Utf8)));
    assert!(matches!(of(Format::Protobuf, b"{}"), Err(PageError::Protobuf(Malformed::Magic))));
    assert!(matches!(
        of(Format::Protobuf, b"k8s\0\x12\x05a"),
        Err(PageError::Protobuf(Malformed::Truncated))
    ));
}

proptest::proptest! {
    #[test]
    fn no_body_makes_the_reader_panic(body: Vec<u8>) {
        let _ = Page::read(Format::Json, body.clone().into());
        let mut enveloped = b"k8s\0\x0a\x30\x0a\x1dcustom.metrics.k8s.io/v1beta2\x12\x0fMetricValueList\x12".to_vec();
        enveloped.push(u8::try_from(body.len().min(127)).expect("small"));
        enveloped.extend(body.iter().take(127));
        let _ = Page::read(Format::Protobuf, enveloped.into());
    }
}
