//! The simulated member cluster, compared with recordings of real ones.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::api_client::{Answer, ApiClient};
use testkit::member::wire::Version;
use testkit::member::{
    Access, ExternalMetrics, Formats, Member, MemberOptions, Pod, Protocols, Resource, ScriptedAnswer,
    Series, recorded_answers,
};
use testkit::timestamp;
use tokio::time::timeout;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const LIST: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";

/// A generous limit. The tests end in milliseconds unless something hangs.
const LIMIT: Duration = Duration::from_secs(20);

async fn get(client: &ApiClient, path: &str, accept: &str) -> Result<Answer> {
    let request = Request::builder().uri(path).header("accept", accept).body(Bytes::new())?;
    timeout(LIMIT, client.send(request)).await?
}

/// The cluster of the recording `real/members.json`.
async fn recorded_member() -> Member {
    let options = MemberOptions {
        resource_metrics: false,
        external_metrics: ExternalMetrics::Absent,
        ..MemberOptions::default()
    };
    let member = Member::start_with("member1", options).await.unwrap();
    for (suffix, value) in [("dgq7m", "600m"), ("txz9q", "800m"), ("wcb8j", "600m")] {
        member.set_metric(recorded_pod(suffix, value, "2026-11-21T21:19:22Z"));
    }
    let namespace = Series::new(Resource::NAMESPACES, None, "default", "http_requests", "2");
    member.set_metric(Series { timestamp: timestamp::parse("2026-11-21T21:19:23Z").unwrap(), ..namespace });
    member.set_metric(Series::new(Resource::JOBS, Some("default"), "crunch", "http_requests", "1"));
    member
}

fn recorded_pod(suffix: &str, value: &str, time: &str) -> Series {
    let name = format!("sample-app-599dc6d544-{suffix}");
    let series = Series::new(Resource::PODS, Some("default"), &name, "http_requests", value);
    let series = series.object_label("app", "sample-app").label("pod", &name);
    Series { timestamp: timestamp::parse(time).unwrap(), ..series }
}

/// A member with three pods that offers `protocols`.
async fn member_speaking(protocols: Protocols) -> Member {
    let options = MemberOptions { protocols, ..MemberOptions::default() };
    Member::start_with("member1", options).await.unwrap().with_pods("http_requests", 3)
}

#[tokio::test]
async fn every_recorded_response_is_reproduced_from_values() {
    let member = recorded_member().await;
    let known = member.access().client();
    let stranger = Access { token: "wrong".to_owned(), ..member.access() }.client();
    let mut compared = 0;
    for row in recorded_answers().unwrap() {
        // Rows with a failing prometheus-adapter are tested with faults.
        if row.name.starts_with("adapter-") || row.answer.is_none() {
            continue;
        }
        let client = if row.name.starts_with("wrong-token") { &stranger } else { &known };
        let path = row.path.replace("POD", "sample-app-599dc6d544-dgq7m");
        if row.name == "metric-selector" {
            // This row was recorded one second after the lists.
            member.set_metric(recorded_pod("dgq7m", "600m", "2026-11-21T21:19:23Z"));
        }
        let answer = get(client, &path, &row.accept).await.unwrap();
        let expected = row.answer.as_ref().unwrap();
        assert_eq!(answer.status, expected.status, "{row}");
        assert_eq!(answer.headers["content-type"], expected.content_type, "{row}");
        assert_eq!(answer.headers["cache-control"], "no-cache, private", "{row}");
        assert_eq!(answer.body, expected.body, "{row}: {}", String::from_utf8_lossy(&answer.body));
        compared += 1;
    }
    assert_eq!(compared, 39);
}

#[tokio::test]
async fn only_the_rotated_token_is_accepted() {
    let member = member_speaking(Protocols::Both).await;
    let before = member.access().client();
    assert_eq!(before.get("/livez").await.unwrap().status, StatusCode::OK);
    let token = member.rotate_token();
    assert_eq!(token, member.token());
    assert_eq!(before.get("/livez").await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(member.access().client().get("/livez").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn api_server_with_a_prefix_responds_only_below_it() {
    let options = MemberOptions { path_prefix: "/k8s/clusters/c-1".to_owned(), ..MemberOptions::default() };
    let member = Member::start_with("member1", options).await.unwrap().with_pods("http_requests", 1);
    let mut access = member.access();
    assert!(access.endpoint.ends_with("/k8s/clusters/c-1"));
    assert_eq!(access.client().get(LIST).await.unwrap().status, StatusCode::OK);
    access.endpoint = access.endpoint.replace("/k8s/clusters/c-1", "");
    assert_eq!(access.client().get(LIST).await.unwrap().status, StatusCode::NOT_FOUND);
    assert!(member.requests()[0].path_and_query.starts_with("/k8s/clusters/c-1/apis/"));
}

#[tokio::test]
async fn members_differ_in_versions_and_formats() {
    let options = MemberOptions {
        versions: vec![Version::V1Beta1],
        formats: Formats::Json,
        ..MemberOptions::default()
    };
    let old = Member::start_with("old", options).await.unwrap().with_pods("http_requests", 1);
    let client = old.access().client();
    let newest = get(&client, LIST, PROTOBUF).await.unwrap();
    assert_eq!((newest.status, &newest.body[..]), (StatusCode::NOT_FOUND, &b"404 page not found\n"[..]));
    let list = get(&client, &LIST.replace("beta2", "beta1"), "application/vnd.kubernetes.protobuf, */*")
        .await
        .unwrap();
    assert_eq!(list.headers["content-type"], JSON);
    assert_eq!(list.json().unwrap()["items"][0]["metricName"], "http_requests");
    let refused = get(&client, &LIST.replace("beta2", "beta1"), PROTOBUF).await.unwrap();
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
    let group = client.get("/apis/custom.metrics.k8s.io").await.unwrap().json().unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v1beta1");

    let options = MemberOptions {
        versions: Vec::new(),
        resource_metrics: false,
        external_metrics: ExternalMetrics::Absent,
        ..MemberOptions::default()
    };
    let without = Member::start_with("without", options).await.unwrap();
    let client = without.access().client();
    assert_eq!(client.get(LIST).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(client.get("/apis").await.unwrap().json().unwrap()["groups"], json!([]));
}

#[tokio::test]
async fn all_forms_of_queries_find_their_objects() {
    let member = Member::start("member1").await.unwrap();
    member.set_metric(Series::new(Resource::NODES, None, "node-1", "load", "3"));
    member.set_metric(Series::new(Resource::JOBS, Some("default"), "crunch", "queue_depth", "35621m"));
    member.set_metric(Series::new(Resource::INGRESSES, Some("default"), "front", "hits", "11121m"));
    for (namespace, value) in [("default", "6409m"), ("kube-system", "86423m")] {
        member.set_metric(Series::new(Resource::NAMESPACES, None, namespace, "http_requests", value));
    }
    let get = Series::new(Resource::SERVICES, Some("default"), "shop", "hits", "5").label("verb", "GET");
    let post = Series::new(Resource::SERVICES, Some("default"), "shop", "hits", "7").label("verb", "POST");
    member.set_metric(Series { window: Some(60), ..get });
    member.set_metric(post);
    let client = member.access().client();
    let prefix = "/apis/custom.metrics.k8s.io/v1beta2";
    for (path, expected) in [
        ("/nodes/*/load", json!(["Node node-1 3"])),
        ("/nodes/node-1/load", json!(["Node node-1 3"])),
        ("/namespaces/default/jobs.batch/%2A/queue_depth", json!(["Job crunch 35621m"])),
        ("/namespaces/default/ingresses.networking.k8s.io/front/hits", json!(["Ingress front 11121m"])),
        (
            "/namespaces/*/metrics/http_requests",
            json!(["Namespace default 6409m", "Namespace kube-system 86423m"]),
        ),
        ("/namespaces/default/services/shop/hits?metricLabelSelector=verb%3DGET", json!(["Service shop 5"])),
        ("/namespaces/default/services/*/hits?metricLabelSelector=verb+in+(POST)", json!(["Service shop 7"])),
    ] {
        let list = client.get(&format!("{prefix}{path}")).await.unwrap().json().unwrap();
        let item = |item: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let object = &item["describedObject"];
            [text(&object["kind"]), text(&object["name"]), text(&item["value"])].join(" ")
        };
        let items: Vec<String> =
            list["items"].as_array().unwrap_or_else(|| panic!("{path}: {list}")).iter().map(item).collect();
        assert_eq!(json!(items), expected, "{path}");
    }
    let job = client.get(&format!("{prefix}/namespaces/default/jobs.batch/*/queue_depth")).await.unwrap();
    assert_eq!(job.json().unwrap()["items"][0]["describedObject"]["apiVersion"], "batch/v1");
    let refused = client.send_json(http::Method::POST, LIST, &json!({})).await.unwrap();
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn scripted_response_goes_first_and_needs_the_token() {
    let member = member_speaking(Protocols::Both).await;
    let scripted = ScriptedAnswer::json(StatusCode::NOT_FOUND, &json!({"kind": "Status", "code": 404}));
    member.answer(&LIST.replace('*', "%2A"), scripted.clone());
    let mut access = member.access();
    let answer = access.client().get(&format!("{LIST}?timeout=32s")).await.unwrap();
    assert_eq!((answer.status, answer.body), (StatusCode::NOT_FOUND, scripted.body));
    assert_eq!(
        access.client().get(&format!("{LIST}?labelSelector=a")).await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    access.token = "wrong".to_owned();
    assert_eq!(access.client().get(LIST).await.unwrap().status, StatusCode::UNAUTHORIZED);
    member.clear_answers();
    assert_eq!(member.access().client().get(LIST).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn recorded_requests_do_not_print_the_token() {
    let member = member_speaking(Protocols::Both).await;
    let client = member.access().client();
    client.get(&LIST.replace('*', "%2A")).await.unwrap();
    client.get("/version?timeout=32s").await.unwrap();
    let requests = member.requests();
    assert_eq!(requests[0].path_and_query, LIST.replace('*', "%2A"));
    assert_eq!(requests[0].headers["accept"], "application/json, */*");
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {}", member.token()).as_str());
    assert_eq!(requests[1].path_and_query, "/version?timeout=32s");
    assert!(!format!("{requests:?} {:?}", member.access()).contains(&member.token()));
    assert_eq!(member.requests_to("/version").len(), 1);
    assert_eq!((member.connections(), member.counters().requests), (1, 2));
    member.until(|counters| counters.in_flight == 0).await;
    member.reset_counters();
    assert_eq!((member.connections(), member.counters().requests, member.requests().len()), (0, 0, 0));
}

#[tokio::test]
async fn http2_multiplexes_requests_and_http1_does_not() {
    for (protocols, connections) in [(Protocols::Http2, 1), (Protocols::Both, 1), (Protocols::Http1, 5)] {
        let member = member_speaking(protocols).await;
        let client = member.access().client();
        client.get("/livez").await.unwrap();
        member.fault(testkit::member::Fault::Hang);
        let hanging: Vec<_> = (0..5)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.get(LIST).await })
            })
            .collect();
        timeout(LIMIT, member.until(|counters| counters.in_flight == 5)).await.unwrap();
        assert_eq!(member.connections(), connections, "{protocols:?}");
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
        timeout(LIMIT, member.until(|counters| counters.cancelled == 5 && counters.in_flight == 0))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn pods_and_nodes_are_listed_for_the_scaling_loop() {
    let member = member_speaking(Protocols::Both).await;
    member.store().set_pod(Pod { ready: false, phase: "Pending", ..Pod::running("other", "lone", &[]) });
    let client = member.access().client();
    let list = async |path: &str| client.get(path).await.unwrap().json().unwrap();
    let pods = list("/api/v1/namespaces/default/pods?labelSelector=app%3Dsample-app").await;
    assert_eq!(pods["kind"], "PodList");
    assert_eq!(pods["items"].as_array().unwrap().len(), 3);
    let pod = &pods["items"][0];
    assert_eq!(pod["metadata"]["labels"], json!({"app": "sample-app"}));
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["conditions"][2]["type"], "Ready");
    assert_eq!(pod["status"]["conditions"][2]["status"], "True");
    assert!(timestamp::parse(pod["status"]["startTime"].as_str().unwrap()).is_some());
    assert_eq!(list("/api/v1/pods").await["items"].as_array().unwrap().len(), 4);
    let lone = list("/api/v1/pods?fieldSelector=metadata.name%3Dlone").await;
    assert_eq!(lone["items"][0]["status"]["conditions"][2]["status"], "False");
    assert_eq!(list("/api/v1/nodes").await["items"][0]["metadata"]["name"], "member1-node-1");
    assert_eq!(list("/api/v1").await["resources"][1]["name"], "pods");
    assert_eq!(list("/api").await["versions"], json!(["v1"]));
    let refused = client.get("/api/v1/pods?labelSelector=%3D").await.unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn every_cluster_has_the_default_namespaces() {
    let member = member_speaking(Protocols::Both).await;
    let client = member.access().client();
    let status = async |name: &str| client.get(&format!("/api/v1/namespaces/{name}")).await.unwrap().status;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(status(name).await, StatusCode::OK, "{name}");
    }
    assert_eq!(status("other").await, StatusCode::NOT_FOUND);
    member.store().set_pod(Pod::running("other", "lone", &[]));
    assert_eq!(status("other").await, StatusCode::OK);
}

#[tokio::test]
async fn pod_watch_sends_changes_until_its_timeout() {
    let member = member_speaking(Protocols::Both).await;
    let client = member.access().client();
    let version =
        client.get("/api/v1/pods").await.unwrap().json().unwrap()["metadata"]["resourceVersion"].clone();
    let path =
        format!("/api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion={}", version.as_str().unwrap());
    let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
    let watching = timeout(LIMIT, client.open(request)).await.unwrap().unwrap();
    member.store().set_pod(Pod::running("default", "new", &[]));
    member.store().remove_pod("default", "sample-app-member1-0001");
    let ended = timeout(LIMIT, watching.into_body().collect()).await.unwrap().unwrap().to_bytes();
    let events = String::from_utf8(ended.to_vec()).unwrap();
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["object"]["kind"], "Pod");
        format!("{} {}", event["type"], event["object"]["metadata"]["name"]).replace('"', "")
    };
    let mut events: Vec<String> = events.lines().map(event).collect();
    events.sort();
    assert_eq!(events, ["ADDED new", "DELETED sample-app-member1-0001"]);
    let too_old = client.get("/api/v1/pods?watch=1&resourceVersion=1").await.unwrap().json().unwrap();
    assert_eq!((&too_old["type"], &too_old["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let refused = client.get("/api/v1/nodes?watch=1&sendInitialEvents=true").await.unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}
