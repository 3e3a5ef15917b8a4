//! The encodings of responses: JSON, YAML and protobuf, chosen by the Accept header.

use http::StatusCode;
use serde::Deserialize as _;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::member::wire::{
    ExternalMetricValue, ExternalMetricValueList, Format, MetricValueList, NodeMetrics, PodMetrics,
    ResourceMetrics, Status,
};
use testkit::member::{Fault, Member, Resource, Series};

use crate::stage::{PODS, Stage};

const TIME: &str = "2026-01-02T03:04:05Z";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The Accept header of `kubectl top`.
const TOP: &str = "application/vnd.kubernetes.protobuf, */*";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue";
const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1";
const NODE: &str = "/apis/metrics.k8s.io/v1beta1/nodes/n1";
/// Strings that a YAML parser could read as another type if they were not quoted.
const TRICKY: [&str; 12] =
    ["yes", "on", "n", "null", "~", "1e3", "0x1f", "017", "12:30:45", "2026-01-02", "a: #b", "é\n\"\\\t"];

/// Paths of all groups and versions, for lists and single objects.
fn paths() -> Vec<String> {
    vec![
        PODS.to_owned(),
        PODS.replace("v1beta2", "v1beta1"),
        EXTERNAL.to_owned(),
        format!("{RESOURCE}/pods"),
        format!("{RESOURCE}/nodes"),
        format!("{RESOURCE}/namespaces/default/pods/p1"),
        NODE.to_owned(),
        format!("{RESOURCE}/namespaces/nowhere/pods"),
    ]
}

async fn stage() -> Stage {
    let mut members = Vec::new();
    for name in ["member1", "member2"] {
        let member = Member::start(name).await.expect("a member starts");
        let series = Series::new(Resource::PODS, Some("default"), "shared-0", "http_requests", "1500m");
        member.set_metric(Series { window: Some(60), ..series });
        let mut queue = ExternalMetricValue::new("queue", "12");
        TIME.clone_into(&mut queue.timestamp);
        for (index, text) in TRICKY.iter().enumerate() {
            queue = queue.label(&format!("label{index:02}"), text);
        }
        member.set_external_metric("default", queue);
        members.push(member);
    }
    let mut pod = PodMetrics::new("default", "p1", "12345678n", "20Mi").label("app", "sample-app");
    let mut node = NodeMetrics::new("n1", "1500m", "1Gi");
    for (metadata, timestamp) in
        [(&mut pod.metadata, &mut pod.timestamp), (&mut node.metadata, &mut node.timestamp)]
    {
        TIME.clone_into(&mut metadata.creation_timestamp);
        TIME.clone_into(timestamp);
    }
    members[0].store().set_pod_usage(pod);
    members[1].store().set_node_usage(node);
    Stage::start(members, &["--on-member-failure=partial"]).await
}

async fn send(stage: &Stage, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let identity = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
    stage.send(method, path, &[&identity[..], headers].concat(), "").await
}

async fn accept(stage: &Stage, path: &str, accept: &str) -> Answer {
    send(stage, "GET", path, &[("Accept", accept)]).await
}

fn header<'a>(response: &'a Answer, name: &str) -> &'a str {
    response.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
}

/// Encodes a response's JSON as protobuf with the test kit.
fn protobuf_of(object: &Value) -> Vec<u8> {
    match object["kind"].as_str().expect("a kind") {
        "MetricValueList" => {
            MetricValueList::from_json(object).expect("the object has this kind").encode(Format::Protobuf)
        }
        "ExternalMetricValueList" => ExternalMetricValueList::deserialize(object)
            .expect("the object has this kind")
            .encode(Format::Protobuf),
        "Status" => Status::deserialize(object).expect("the object has this kind").to_protobuf(),
        _ => ResourceMetrics::from_json(object).expect("the object has this kind").encode(Format::Protobuf),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_protobuf_have_the_same_content() {
    let stage = stage().await;
    for path in paths() {
        let json = accept(&stage, &path, "application/json").await;
        assert_eq!(
            (json.status, header(&json, "content-type")),
            (StatusCode::OK, "application/json"),
            "{path}"
        );
        assert!(json.body.ends_with(b"}\n") && json.body.iter().filter(|byte| **byte == b'\n').count() == 1);
        for accepted in [PROTOBUF, TOP] {
            let protobuf = accept(&stage, &path, accepted).await;
            assert_eq!(
                (protobuf.status, header(&protobuf, "content-type")),
                (StatusCode::OK, PROTOBUF),
                "{path}"
            );
            assert_eq!(protobuf.body, protobuf_of(&json.json().expect("JSON")), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_fields_are_sorted_and_ambiguous_strings_quoted() {
    let stage = stage().await;
    let node = accept(&stage, NODE, "application/yaml").await;
    assert_eq!(header(&node, "content-type"), "application/yaml");
    let expected = "\
apiVersion: metrics.k8s.io/v1beta1
kind: NodeMetrics
metadata:
  annotations:
    resource.karmada.io/query-from-cluster: member2
  creationTimestamp: \"2026-01-02T03:04:05Z\"
  name: n1
timestamp: \"2026-01-02T03:04:05Z\"
usage:
  cpu: 1500m
  memory: 1Gi
window: 15s
";
    assert_eq!(str::from_utf8(&node.body), Ok(expected));
    let empty = accept(&stage, &format!("{RESOURCE}/namespaces/nowhere/pods"), "application/yaml").await;
    let expected = "apiVersion: metrics.k8s.io/v1beta1\nitems: []\nkind: PodMetricsList\nmetadata: {}\n";
    assert_eq!(str::from_utf8(&empty.body), Ok(expected));
    let queue = accept(&stage, EXTERNAL, "application/yaml").await;
    let queue = str::from_utf8(&queue.body).expect("text");
    for (index, text) in TRICKY.iter().enumerate() {
        // A JSON string is also a double-quoted YAML string.
        let line = format!("    label{index:02}: {}\n", json!(text));
        assert!(queue.contains(&line), "{line} is not in\n{queue}");
    }
    assert!(queue.contains("  value: \"12\"\n"), "{queue}");
}

#[tokio::test(flavor = "multi_thread")]
async fn best_accepted_media_type_is_chosen() {
    let stage = stage().await;
    let (json, yaml) = ("application/json", "application/yaml");
    for (accepted, expected) in [
        ("", json),
        ("*/*", json),
        ("application/*", json),
        (TOP, PROTOBUF),
        ("application/json, application/vnd.kubernetes.protobuf", json),
        ("application/json;q=0.5, application/vnd.kubernetes.protobuf;q=0.9", PROTOBUF),
        ("application/yaml;q=0.1,text/html", yaml),
        ("text/html, application/xhtml+xml, */*;q=0.8", json),
        ("*/*;q=0.9, application/yaml;q=0.9", yaml),
        ("application/json;q=0, application/yaml", yaml),
        ("application/vnd.kubernetes.protobuf;stream=watch, application/yaml", yaml),
        ("application/json;as=Table;v=v1;g=example.org, application/yaml", yaml),
    ] {
        for path in [PODS, EXTERNAL, NODE] {
            let response = accept(&stage, path, accepted).await;
            assert_eq!(response.status, StatusCode::OK, "{accepted} {path}");
            assert_eq!(header(&response, "content-type"), expected, "{accepted} {path}");
            assert_eq!(header(&response, "vary"), "Accept", "{accepted} {path}");
            assert_eq!(header(&response, "cache-control"), "no-cache, private", "{accepted} {path}");
            assert_eq!(
                header(&response, "content-length"),
                response.body.len().to_string(),
                "{accepted} {path}"
            );
        }
    }
    for accepted in ["text/html", "application/json;q=0", "application/json;stream=watch", "application/cbor"]
    {
        for path in [PODS, EXTERNAL, NODE] {
            let response = accept(&stage, path, accepted).await;
            assert_eq!(response.status, StatusCode::NOT_ACCEPTABLE, "{accepted} {path}");
            assert_eq!(header(&response, "content-type"), json, "{accepted} {path}");
            assert_eq!(response.json().expect("JSON")["reason"], "NotAcceptable", "{accepted} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interactive_clients_get_indented_json() {
    let stage = stage().await;
    for path in paths() {
        let plain = accept(&stage, &path, "application/json").await;
        for (parameter, headers, lines) in [
            ("?pretty=true", &[][..], true),
            ("?pretty=1", &[("Accept", "application/json")], true),
            ("", &[("Accept", "application/json;pretty=1")], true),
            ("", &[("User-Agent", "curl/8.5.0"), ("Accept", "*/*")], true),
            ("", &[("User-Agent", "Wget/1.21.4")], true),
            ("", &[("User-Agent", "Mozilla/5.0 (X11)")], true),
            ("?pretty=false", &[("User-Agent", "curl/8.5.0")], false),
            ("", &[("User-Agent", "kubectl/v1.32.4")], false),
        ] {
            let response = send(&stage, "GET", &format!("{path}{parameter}"), headers).await;
            let context = format!("{path}{parameter} {headers:?}");
            assert_eq!(response.json().expect("JSON"), plain.json().expect("JSON"), "{context}");
            assert_eq!(response.body.starts_with(b"{\n  \"kind\": \""), lines, "{context}");
        }
    }
    let protobuf = send(&stage, "GET", &format!("{NODE}?pretty=1"), &[("Accept", PROTOBUF)]).await;
    assert!(protobuf.body.starts_with(b"k8s\0"), "protobuf has no indented form");
    let missing =
        send(&stage, "GET", &format!("{RESOURCE}/nodes/ghost"), &[("User-Agent", "curl/8.5.0")]).await;
    assert!(missing.body.starts_with(b"{\n  \"kind\": \"Status\""), "{:?}", missing.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_use_the_accepted_encoding() {
    let stage = stage().await;
    for member in &stage.fleet.members {
        member.store().set_node_usage(NodeMetrics::new("shared", "1", "1Gi"));
        member.fault_on("/apis/external.metrics.k8s.io", Fault::Abort);
    }
    let unknown = PODS.replace("http_requests", "unknown");
    for (method, path, status) in [
        ("GET", format!("{RESOURCE}/nodes/ghost"), StatusCode::NOT_FOUND),
        ("GET", unknown, StatusCode::NOT_FOUND),
        ("GET", "/apis/metrics.k8s.io/v1/nodes".to_owned(), StatusCode::NOT_FOUND),
        ("GET", format!("{RESOURCE}/nodes/shared"), StatusCode::CONFLICT),
        ("GET", format!("{RESOURCE}/nodes?labelSelector=%3D"), StatusCode::BAD_REQUEST),
        ("GET", format!("{RESOURCE}/nodes?timeout=soon"), StatusCode::BAD_REQUEST),
        ("GET", format!("{RESOURCE}/nodes?watch=1"), StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", NODE.to_owned(), StatusCode::METHOD_NOT_ALLOWED),
        ("GET", EXTERNAL.to_owned(), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let request = async |accepted: &str| {
            let response = send(&stage, method, &path, &[("Accept", accepted)]).await;
            assert_eq!(response.status, status, "{path} {accepted}");
            response
        };
        let json = request("application/json").await;
        let body = json.json().expect("JSON");
        assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(status.as_u16())), "{path}");
        for accepted in [PROTOBUF, TOP] {
            let protobuf = request(accepted).await;
            assert_eq!(header(&protobuf, "content-type"), PROTOBUF, "{path}");
            assert_eq!(protobuf.body, protobuf_of(&body), "{path}");
        }
        let yaml = request("application/yaml").await;
        assert_eq!(header(&yaml, "content-type"), "application/yaml", "{path}");
        let text = str::from_utf8(&yaml.body).expect("text");
        let has = |line: String| text.lines().any(|yaml_line| yaml_line == line);
        let reason = body["reason"].as_str().expect("a reason");
        assert!(has("kind: Status".to_owned()) && has(format!("reason: {reason}")), "{text}");
    }
    let deleted = send(&stage, "DELETE", NODE, &[("Accept", "text/html")]).await;
    let expected = (StatusCode::METHOD_NOT_ALLOWED, "application/json");
    assert_eq!(
        (deleted.status, header(&deleted, "content-type")),
        expected,
        "JSON if no accepted type is served"
    );
    let forbidden = stage.get_with(NODE, &[("X-Remote-User", "alice"), ("Accept", PROTOBUF)]).await;
    assert_eq!((forbidden.status, header(&forbidden, "content-type")), (StatusCode::FORBIDDEN, PROTOBUF));
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_sent_in_every_encoding() {
    let stage = stage().await;
    stage.member(0).fault(Fault::Abort);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    for path in [PODS, EXTERNAL, &format!("{RESOURCE}/nodes")] {
        let mut accepted = vec!["application/json", "application/yaml", TOP];
        if path.starts_with(RESOURCE) {
            accepted.extend([table, metadata]);
        }
        for accepted in accepted {
            let response = accept(&stage, &format!("{path}?selector=x"), accepted).await;
            assert_eq!(response.status, StatusCode::OK, "{path} {accepted}: {:?}", response.body);
            let warnings = response.warnings();
            assert_eq!(warnings.len(), 2, "{path} {accepted}: {warnings:?}");
            assert!(warnings[0].contains("unknown parameter"), "{warnings:?}");
            assert!(warnings[1].contains("values of 1 cluster are missing: member1: "), "{warnings:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_apis_accept_only_get() {
    let stage = stage().await;
    for path in paths() {
        for method in ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let response = send(&stage, method, &path, &[]).await;
            assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            if method == "HEAD" {
                assert!(response.body.is_empty());
                continue;
            }
            let message = "the server does not allow this method on the requested resource";
            assert_eq!(response.json().expect("JSON")["message"], message, "{method} {path}");
        }
    }
}
