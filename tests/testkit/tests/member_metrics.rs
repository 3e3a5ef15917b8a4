//! The three metrics APIs of a simulated member, in both formats.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use testkit::api_client::{Answer, ApiClient};
use testkit::member::wire::{
    ExternalMetricValue, Format, MetricValueList, NodeMetrics, PodMetrics, ResourceMetrics, Status,
};
use testkit::member::{
    Access, ExternalMetrics, Fault, Member, MemberOptions, ScriptedAnswer, contract_directory,
};
use tokio::time::timeout;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
const CUSTOM_LIST: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
const TIME: &str = "2023-06-14T09:09:54Z";

/// A generous limit. The tests end in milliseconds unless something hangs.
const LIMIT: Duration = Duration::from_secs(20);

async fn get_as(client: &ApiClient, path: &str, accept: &str) -> Result<Answer> {
    let request = Request::builder().uri(path).header("accept", accept).body(Bytes::new())?;
    timeout(LIMIT, client.send(request)).await?
}

async fn get(member: &Member, path: &str) -> Answer {
    get_as(&member.access().client(), path, JSON).await.unwrap()
}

/// The items of a list as `namespace/name`, or the values.
async fn listed(member: &Member, path: &str) -> Vec<String> {
    let list = get(member, path).await.json().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |item: &Value| match item["value"].as_str() {
        Some(value) => value.to_owned(),
        None => format!("{}/{}", text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"])),
    };
    list["items"].as_array().unwrap_or_else(|| panic!("{path}: {list}")).iter().map(name).collect()
}

fn vectors() -> Vec<(Value, String)> {
    let vectors = std::fs::read(contract_directory().join("vectors/protobuf.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_slice(&vectors).unwrap();
    let vector = |vector: Value| (vector["object"].clone(), vector["hex"].as_str().unwrap().to_owned());
    vectors.into_iter().map(vector).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_protobuf_vector_is_reproduced() {
    for (object, bytes) in vectors() {
        if object["kind"] == "Status" {
            let status: Status = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(hex(&status.to_protobuf()), bytes, "{object}");
            continue;
        }
        let json = ScriptedAnswer::metrics(&object, Format::Json).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&json.body).unwrap(), object);
        let protobuf = ScriptedAnswer::metrics(&object, Format::Protobuf).unwrap();
        assert_eq!(hex(&protobuf.body), bytes, "{object}");
    }
    assert!(MetricValueList::from_json(&json!({"kind": "PodMetrics"})).is_err());
    assert!(ResourceMetrics::from_json(&json!({"kind": "Pod"})).is_err());
}

#[tokio::test]
async fn recorded_cases_can_be_served_as_protobuf() {
    let member = Member::start("member1").await.unwrap();
    for (case, path) in [
        ("custom-pods-tutorial-query", CUSTOM_LIST.to_owned()),
        ("resource-pods", format!("{RESOURCE}/namespaces/default/pods")),
        ("resource-node", format!("{RESOURCE}/nodes/member1-node-0")),
    ] {
        let file = contract_directory().join(format!("cases/{case}.json"));
        let case: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let row = case["members"]["member1"].as_array().unwrap().last().unwrap();
        member.answer(&path, ScriptedAnswer::metrics(&row["body"], Format::Protobuf).unwrap());
        let answer = get(&member, &path).await;
        assert_eq!(answer.headers["content-type"], PROTOBUF);
        assert!(answer.body.starts_with(b"k8s\0"), "{case}");
    }
}

#[tokio::test]
async fn pods_and_nodes_match_metrics_server() {
    let member = Member::start("member1").await.unwrap();
    let measured = |pod: PodMetrics| {
        let mut pod = PodMetrics { timestamp: TIME.to_owned(), ..pod };
        TIME.clone_into(&mut pod.metadata.creation_timestamp);
        pod
    };
    let pod = PodMetrics::new("default", "p", "12345678n", "20Mi").label("app", "x");
    member.store().set_pod_usage(measured(pod));
    member.store().set_pod_usage(measured(PodMetrics::new("other", "q", "1", "1Gi")));
    let mut node = NodeMetrics::new("n1", "12345678n", "20Mi");
    node.metadata.creation_timestamp = String::new();
    member.store().set_node_usage(NodeMetrics {
        timestamp: TIME.to_owned(),
        window: "10s".to_owned(),
        ..node
    });

    let expected = json!({
        "metadata": {
            "name": "p", "namespace": "default", "creationTimestamp": TIME, "labels": {"app": "x"},
        },
        "timestamp": TIME,
        "window": "15s",
        "containers": [{"name": "app", "usage": {"cpu": "12345678n", "memory": "20Mi"}}],
    });
    let list = get(&member, &format!("{RESOURCE}/namespaces/default/pods")).await.json().unwrap();
    let envelope = json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}});
    let mut whole = envelope;
    whole["items"] = json!([expected]);
    assert_eq!(list, whole);
    let one = get(&member, &format!("{RESOURCE}/namespaces/default/pods/p")).await.json().unwrap();
    let mut whole = expected;
    whole["kind"] = json!("PodMetrics");
    whole["apiVersion"] = json!("metrics.k8s.io/v1beta1");
    assert_eq!(one, whole);

    let client = member.access().client();
    for (kind, path) in [("NodeMetricsList", "/nodes"), ("NodeMetrics", "/nodes/n1")] {
        let path = format!("{RESOURCE}{path}");
        let (_, bytes) = vectors().into_iter().find(|(object, _)| object["kind"] == kind).unwrap();
        let protobuf = get_as(&client, &path, &format!("{PROTOBUF}, {JSON}")).await.unwrap();
        assert_eq!(protobuf.headers["content-type"], PROTOBUF);
        assert_eq!(hex(&protobuf.body), bytes);
        assert_eq!(get(&member, &path).await.json().unwrap()["kind"], kind);
    }
}

#[tokio::test]
async fn kubectl_top_reads_a_member() {
    let member = Member::start("member1").await.unwrap().with_pods("http_requests", 2).with_nodes(1);
    let directory = tempfile::tempdir().unwrap();
    let (kubeconfig, ca) = (directory.path().join("kubeconfig"), directory.path().join("ca.crt"));
    let Access { endpoint, token, ca_pem, .. } = member.access();
    std::fs::write(&kubeconfig, "").unwrap();
    std::fs::write(&ca, ca_pem).unwrap();
    let ca = ca.display().to_string();
    for kubectl in testkit::kubectls(&kubeconfig) {
        let access = ["--server", &endpoint, "--token", &token, "--certificate-authority", &ca];
        let top = async |arguments: &[&str]| {
            let printed = kubectl.run(&[&access[..], &["top"], arguments].concat()).await.unwrap();
            let rows: Vec<Vec<String>> =
                printed.lines().map(|row| row.split_whitespace().map(str::to_owned).collect()).collect();
            rows
        };
        let pods = top(&["pods", "-n", "default", "-l", "app=sample-app"]).await;
        assert_eq!(pods[0], ["NAME", "CPU(cores)", "MEMORY(bytes)"], "{kubectl}");
        assert_eq!(pods[1], ["sample-app-member1-0001", "14m", "21Mi"], "{kubectl}");
        assert_eq!(pods[2], ["sample-app-member1-0002", "26m", "22Mi"], "{kubectl}");
        let pod = top(&["pod", "sample-app-member1-0002", "-n", "default", "--containers"]).await;
        assert_eq!(pod[1][1..], ["app", "26m", "22Mi"], "{kubectl}");
    }
}

#[tokio::test]
async fn label_selectors_filter_and_field_selectors_are_ignored() {
    let member = Member::start("member1").await.unwrap().with_pods("http_requests", 2).with_nodes(2);
    member.store().set_pod_usage(PodMetrics::new("other", "lone", "1m", "1Mi").label("tier", "db"));
    let (first, second) = ("default/sample-app-member1-0001", "default/sample-app-member1-0002");
    for (path, expected) in [
        ("/pods", vec![first, second, "other/lone"]),
        ("/namespaces/default/pods", vec![first, second]),
        ("/namespaces/nowhere/pods", vec![]),
        ("/pods?labelSelector=tier%3Ddb", vec!["other/lone"]),
        ("/namespaces/default/pods?labelSelector=app+in+(sample-app)", vec![first, second]),
        ("/namespaces/default/pods?labelSelector=tier%3Ddb", vec![]),
        ("/namespaces/default/pods?fieldSelector=metadata.name%3Dnone", vec![first, second]),
        ("/nodes", vec!["/member1-node-1", "/member1-node-2"]),
        ("/nodes?labelSelector=kubernetes.io/hostname%3Dmember1-node-2", vec!["/member1-node-2"]),
    ] {
        assert_eq!(listed(&member, &format!("{RESOURCE}{path}")).await, expected, "{path}");
    }
    let pods = get(&member, &format!("{RESOURCE}/pods")).await.json().unwrap();
    let usage = |pod: usize| &pods["items"][pod]["containers"][0]["usage"];
    assert_ne!(usage(0)["cpu"], usage(1)["cpu"]);
    assert_ne!(usage(0)["memory"], usage(1)["memory"]);
    let refused = get(&member, &format!("{RESOURCE}/pods?labelSelector=%3D%3D")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let nodes = get(&member, "/api/v1/nodes").await.json().unwrap();
    assert_eq!(nodes["items"][1]["metadata"]["name"], "member1-node-2", "these are the cluster's nodes");
}

#[tokio::test]
async fn missing_object_is_a_status_and_unknown_path_is_text() {
    let member = Member::start("member1").await.unwrap();
    for (path, kind, name) in
        [("/namespaces/default/pods/ghost", "pods", "ghost"), ("/nodes/ghost", "nodes", "ghost")]
    {
        let missing = get(&member, &format!("{RESOURCE}{path}")).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
        let status = missing.json().unwrap();
        assert_eq!(status["message"], format!("{kind} \"{name}\" not found"));
        assert_eq!(status["details"], json!({"name": name, "kind": kind}));
    }
    let unknown = get(&member, &format!("{EXTERNAL}/namespaces/default/queue")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let message = "the server could not find the metric queue for namespaces";
    assert_eq!(unknown.json().unwrap()["message"], message);
    for path in [
        format!("{RESOURCE}/services"),
        format!("{EXTERNAL}/queue"),
        "/apis/metrics.k8s.io/v1/pods".to_owned(),
    ] {
        let nothing = get(&member, &path).await;
        assert_eq!(
            (nothing.status, &nothing.body[..]),
            (StatusCode::NOT_FOUND, &b"404 page not found\n"[..])
        );
    }
    let client = member.access().client();
    let refused = client.send_json(Method::POST, &format!("{RESOURCE}/pods"), &json!({})).await.unwrap();
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn external_metrics_are_selected_by_namespace_name_and_labels() {
    let member = Member::start("member1").await.unwrap();
    let value = |value: &str| ExternalMetricValue::new("queue", value);
    member.set_external_metric("default", value("12").label("queue", "orders"));
    member.set_external_metric("default", value("13").label("queue", "orders"));
    member.set_external_metric("default", value("1500m").label("queue", "mails"));
    member.set_external_metric("default", value("7"));
    member.set_external_metric("other", value("99"));
    let queue = format!("{EXTERNAL}/namespaces/default/queue");
    assert_eq!(listed(&member, &queue).await, ["7", "1500m", "13"]);
    assert_eq!(listed(&member, &format!("{queue}?labelSelector=queue%3Dorders")).await, ["13"]);
    assert_eq!(listed(&member, &format!("{queue}?labelSelector=queue%3Dnone")).await, [""; 0]);
    assert_eq!(listed(&member, &format!("{EXTERNAL}/namespaces/other/queue")).await, ["99"]);
    let items = get(&member, &queue).await.json().unwrap()["items"].clone();
    assert_eq!((&items[0]["metricName"], &items[0]["metricLabels"]), (&json!("queue"), &Value::Null));
    assert_eq!(items[1]["metricLabels"], json!({"queue": "mails"}));
    let refused = get(&member, &format!("{queue}?labelSelector=%3D%3D")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    member.store().remove_external_metric("default", "queue");
    assert_eq!(get(&member, &queue).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn discovery_lists_the_existing_metrics() {
    let resources = async |member: &Member, path: &str| {
        let list = get(member, path).await.json().unwrap();
        assert_eq!(list["groupVersion"], path.trim_start_matches("/apis/"));
        list["resources"].clone()
    };
    let member = Member::start("member1").await.unwrap();
    let case = std::fs::read(contract_directory().join("cases/resource-discovery.json")).unwrap();
    let case: Value = serde_json::from_slice(&case).unwrap();
    assert_eq!(resources(&member, RESOURCE).await, case["upstream"]["body"]["resources"]);
    assert_eq!(resources(&member, EXTERNAL).await, json!([]));
    for namespace in ["default", "other"] {
        member.set_external_metric(namespace, ExternalMetricValue::new("queue", "1"));
    }
    let metric = |name: &str| {
        json!([{
            "name": name, "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"],
        }])
    };
    assert_eq!(resources(&member, EXTERNAL).await, metric("queue"));
    let options = MemberOptions { external_metrics: ExternalMetrics::Keda, ..MemberOptions::default() };
    let keda = Member::start_with("keda", options).await.unwrap();
    keda.set_external_metric("default", ExternalMetricValue::new("queue", "1"));
    assert_eq!(resources(&keda, EXTERNAL).await, metric("externalmetrics"));
    assert_eq!(listed(&keda, &format!("{EXTERNAL}/namespaces/default/queue")).await, ["1"]);

    let groups = get(&member, "/apis").await.json().unwrap()["groups"].clone();
    let names: Vec<&str> =
        groups.as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io"]);
    let group = get(&member, "/apis/metrics.k8s.io").await.json().unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1");
}

#[tokio::test]
async fn missing_api_is_a_plain_text_404() {
    let options = MemberOptions {
        resource_metrics: false,
        external_metrics: ExternalMetrics::Absent,
        ..MemberOptions::default()
    };
    let member =
        Member::start_with("member1", options).await.unwrap().with_pods("http_requests", 1).with_nodes(1);
    member.set_external_metric("default", ExternalMetricValue::new("queue", "1"));
    for path in [
        format!("{RESOURCE}/pods"),
        format!("{RESOURCE}/nodes"),
        RESOURCE.to_owned(),
        EXTERNAL.to_owned(),
        format!("{EXTERNAL}/namespaces/default/queue"),
        "/apis/metrics.k8s.io".to_owned(),
    ] {
        let nothing = get(&member, &path).await;
        assert_eq!(
            (nothing.status, &nothing.body[..]),
            (StatusCode::NOT_FOUND, &b"404 page not found\n"[..])
        );
    }
    assert_eq!(get(&member, "/apis").await.json().unwrap()["groups"].as_array().unwrap().len(), 1);
    assert_eq!(get(&member, CUSTOM_LIST).await.status, StatusCode::OK);
}

#[tokio::test]
async fn one_api_can_fail_alone() {
    let member = Member::start("member1").await.unwrap().with_pods("http_requests", 1);
    member.fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
    let client = member.access().client();
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.get(CUSTOM_LIST).await }
    });
    timeout(LIMIT, member.arrived()).await.unwrap();
    assert_eq!(listed(&member, &format!("{RESOURCE}/pods")).await, ["default/sample-app-member1-0001"]);
    hanging.abort();
}

#[tokio::test]
async fn faults_have_the_format_of_their_api() {
    let member = Member::start("member1").await.unwrap().with_pods("http_requests", 1).with_nodes(1);
    member.set_external_metric("default", ExternalMetricValue::new("queue", "1"));
    member.fault(Fault::BadQuantity);
    let pods = get(&member, &format!("{RESOURCE}/pods")).await.json().unwrap();
    let usage = &pods["items"][0]["containers"][0]["usage"];
    assert_eq!(usage, &json!({"cpu": "12 apples", "memory": "12 apples"}));
    let node = get(&member, &format!("{RESOURCE}/nodes/member1-node-1")).await.json().unwrap();
    assert_eq!(node["usage"]["cpu"], "12 apples");
    let queue = format!("{EXTERNAL}/namespaces/default/queue");
    assert_eq!(get(&member, &queue).await.json().unwrap()["items"][0]["value"], "12 apples");

    member.fault(Fault::DeepJson);
    for (path, kind) in [
        (format!("{RESOURCE}/pods"), "PodMetricsList"),
        (format!("{RESOURCE}/nodes"), "NodeMetricsList"),
        (queue, "ExternalMetricValueList"),
        (CUSTOM_LIST.to_owned(), "MetricValueList"),
    ] {
        let body = get(&member, &path).await.body;
        let start = format!(r#"{{"kind":"{kind}","#);
        assert!(body.starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&body[..100]));
    }
}
