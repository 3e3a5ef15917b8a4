//! Compares the adapter with the recorded responses of Karmada's built-in adapter, case by case. Decided differences are listed
//! here.

use std::collections::BTreeMap;
use std::fs;

use http::StatusCode;
use serde_json::{Map, Value, json};
use testkit::api_client::{Answer, Credentials};
use testkit::member::{Member, ScriptedAnswer, contract_directory};
use testkit::pki::Authority;

use crate::stage::{CLUSTER_LABEL, Stage, client, send};

/// The parameter with which the reference queried resource metrics. This adapter does not send it; it enforces the deadline
/// itself.
const TIMEOUT: &str = "timeout=32s";

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) request: Value,
    /// The recorded requests to each member and its responses.
    members: BTreeMap<String, Vec<Value>>,
    pub(crate) upstream: Value,
}

/// Whether items name their clusters. The reference's custom metrics do not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tags {
    On,
    Off,
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_cases_match_or_differ_as_decided() {
    run_cases(Tags::On, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_match_the_recording_bytewise_without_tags() {
    run_cases(Tags::Off, &["--cluster-label="]).await;
}

async fn run_cases(tags: Tags, flags: &[&str]) {
    let cases = cases();
    assert!(cases.len() >= 57, "only {} cases were found", cases.len());
    let stage = Stage::start(recorded_members(&cases).await, flags).await;
    stage.fleet.plane.add_token("good-token", "fhpa", &["system:masters"]);
    for case in &cases {
        let recorded = case.request["path"].as_str().expect("a path");
        for path in [recorded.to_owned(), recorded.replace("/*/", "/%2A/")] {
            let response = send_request(&stage, case, &path).await;
            check(case, tags, &path, &response);
        }
    }
}

fn check(case: &Case, tags: Tags, path: &str, response: &Answer) {
    let context = format!("{} ({path})", case.name);
    let upstream = &case.upstream;
    let (mut status, mut content_type) = (upstream["status"].as_u64(), upstream["contentType"].as_str());
    match case.name.as_str() {
        // A client error is a 400 here.
        "custom-bad-metric-selector" => status = Some(400),
        "discovery-aggregated" => content_type = content_type.map(str::trim),
        // The reference reports a failure; here it is a conflict.
        "resource-pod-in-three-clusters" => status = Some(409),
        // The reference serves the API with no values; here no member has the metric.
        "external-metric" => status = Some(404),
        _ => {}
    }
    assert_eq!(Some(u64::from(response.status.as_u16())), status, "{context}: {:?}", response.body);
    let header =
        |name: &str| response.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    assert_eq!(header("content-type").as_deref(), content_type, "{context}");
    for (name, value) in upstream["headers"].as_object().expect("headers") {
        assert_eq!(header(name).as_deref(), value.as_str(), "{context}: {name}");
    }
    check_body(case, tags, &context, response);
}

fn check_body(case: &Case, tags: Tags, context: &str, response: &Answer) {
    let upstream = &case.upstream["body"];
    match case.name.as_str() {
        "readyz-verbose" => {
            let text = String::from_utf8(response.body.to_vec()).expect("text");
            let lines: Vec<&str> = text.lines().collect();
            let (last, checks) = lines.split_last().expect("lines");
            assert_eq!(*last, "readyz check passed");
            assert!(checks.iter().all(|line| line.starts_with("[+]") && line.ends_with(" ok")), "{text}");
        }
        "index" => {
            let paths = response.json().expect("JSON")["paths"].clone();
            let paths: Vec<&str> =
                paths.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
            assert!(paths.is_sorted());
            // The names of the health checks differ; the APIs must be the same.
            let recorded = upstream["paths"].as_array().expect("a list").iter().filter_map(Value::as_str);
            let apis = recorded.filter(|path| path.starts_with("/apis") || path.starts_with("/openapi"));
            for path in apis.chain(["/livez", "/readyz/informer-sync"]) {
                assert!(paths.contains(&path), "{path} is not in {paths:?}");
            }
        }
        "auth-anonymous-healthz" => assert_eq!(Some(&*response.body), upstream.as_str().map(str::as_bytes)),
        "version" => assert_eq!(keys(&response.json().expect("JSON")), keys(upstream)),
        "custom-bad-metric-selector" => {
            let mut expected = upstream.clone();
            expected["code"] = json!(400);
            expected["reason"] = json!("BadRequest");
            assert_eq!(response.json().expect("JSON"), expected);
        }
        "discovery-root" => check_groups(&response.json().expect("JSON"), upstream),
        // Both versions are listed. The newer one is preferred.
        "discovery-group" => {
            let body = response.json().expect("JSON");
            assert_eq!(
                (&body["kind"], &body["apiVersion"], &body["name"]),
                (&upstream["kind"], &upstream["apiVersion"], &upstream["name"])
            );
            check_versions(&body);
        }
        // Each metric is listed once, sorted by name.
        "discovery-version" | "discovery-version-v1beta1" => {
            let mut expected = upstream.clone();
            let resources = expected["resources"].as_array_mut().expect("a list");
            resources.sort_by_key(|entry| entry["name"].as_str().expect("a name").to_owned());
            resources.dedup();
            assert_eq!(response.json().expect("JSON"), expected, "{context}");
        }
        "external-metric" => {
            let message = response.json().expect("JSON")["message"].clone();
            assert_eq!(
                message,
                "the server could not find the external metric queue_messages_ready in namespace default"
            );
        }
        "resource-pod-in-three-clusters" => {
            let body = response.json().expect("JSON");
            assert_eq!(body["reason"], "Conflict");
            let message = body["message"].as_str().expect("a message");
            assert!(message.contains("member1, member2, member3"), "{message}");
        }
        "discovery-aggregated" => check_aggregated(&response.json().expect("JSON"), upstream),
        // Clients treat an empty list as an error.
        "external-discovery" => {
            let mut expected = upstream.clone();
            expected["resources"] = json!([{
                "name": "metrics/none-discovered-yet", "singularName": "", "namespaced": true,
                "kind": "ExternalMetricValueList", "verbs": ["get"],
            }]);
            assert_eq!(response.json().expect("JSON"), expected, "{context}");
        }
        _ if upstream["kind"] == "MetricValueList" => {
            let mut expected = upstream.clone();
            for item in expected["items"].as_array_mut().expect("items") {
                if tags == Tags::On {
                    tag(item, &case.members);
                }
            }
            sort(&mut expected);
            assert_eq!(response.json().expect("JSON"), expected, "{context}");
        }
        _ if case.name.starts_with("resource-") => {
            let (mut expected, mut body) = (upstream.clone(), response.json().expect("JSON"));
            if tags == Tags::Off {
                metadata_of(&mut expected).into_iter().for_each(|metadata| {
                    metadata.as_object_mut().expect("an object").remove("annotations");
                });
            } else {
                // Without tags, the order of equal names in different clusters is undefined.
                sort(&mut expected);
                assert_eq!(body, expected, "{context}: in order");
            }
            sort(&mut expected);
            sort(&mut body);
            assert_eq!(body, expected, "{context}");
        }
        // With tags, other tests check these formats.
        "custom-yaml" | "custom-protobuf" | "custom-protobuf-list" | "custom-accept-list"
            if tags == Tags::On => {}
        "custom-yaml" => assert_eq!(str::from_utf8(&response.body).ok(), upstream.as_str(), "{context}"),
        "custom-protobuf" | "custom-accept-list" => assert_eq!(response.body, unhex(upstream), "{context}"),
        // The reference does not sort the list.
        "custom-protobuf-list" => {
            let sorted = |body: &[u8]| {
                let mut list = fields(&fields(&body[4..])[1].1);
                list.sort_unstable();
                list
            };
            assert_eq!(sorted(&response.body), sorted(&unhex(upstream)), "{context}");
        }
        _ => assert_eq!(&response.json().expect("JSON"), upstream, "{context}"),
    }
}

/// Both versions of custom metrics are listed. The server address is that of this adapter.
fn check_groups(body: &Value, upstream: &Value) {
    let mut expected = upstream.clone();
    let groups = expected["groups"].as_array_mut().expect("groups");
    for (index, expected) in groups.iter_mut().enumerate() {
        let address = &body["groups"][index]["serverAddressByClientCIDRs"][0]["serverAddress"];
        assert!(address.as_str().expect("an address").starts_with(':'), "{address}");
        expected["serverAddressByClientCIDRs"][0]["serverAddress"] = address.clone();
    }
    let custom = &body["groups"][0];
    check_versions(custom);
    for key in ["versions", "preferredVersion"] {
        groups[0][key] = custom[key].clone();
    }
    assert_eq!(*body, expected);
}

fn check_versions(group: &Value) {
    let versions = ["v1beta2", "v1beta1"].map(
        |version| json!({"groupVersion": format!("custom.metrics.k8s.io/{version}"), "version": version}),
    );
    assert_eq!(group["versions"], json!(versions));
    assert_eq!(group["preferredVersion"], versions[0]);
}

/// This adapter also lists custom and external metrics; the reference does not. Custom metrics are subresources of a parent
/// without its own kind.
fn check_aggregated(body: &Value, upstream: &Value) {
    assert_eq!(body["apiVersion"], upstream["apiVersion"]);
    let groups = body["items"].as_array().expect("groups");
    let names: Vec<&Value> = groups.iter().map(|group| &group["metadata"]["name"]).collect();
    assert_eq!(names, ["custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io"]);
    assert_eq!(groups[2], upstream["items"][0]);
    let versions = body["items"][0]["versions"].as_array().expect("versions");
    assert_eq!(
        versions.iter().map(|version| &version["version"]).collect::<Vec<_>>(),
        ["v1beta2", "v1beta1"]
    );
    let resources = versions[0]["resources"].as_array().expect("resources");
    let pods = resources.iter().find(|resource| resource["resource"] == "pods").expect("pods");
    assert_eq!(pods["responseKind"], json!({"group": "", "version": "", "kind": ""}));
    let metrics: Vec<&Value> =
        pods["subresources"].as_array().expect("a list").iter().map(|entry| &entry["subresource"]).collect();
    assert!(metrics.contains(&&json!("http_requests")), "{metrics:?}");
}

/// Adds the names of the clusters that returned the item's object.
fn tag(item: &mut Value, members: &BTreeMap<String, Vec<Value>>) {
    let object = item["describedObject"].clone();
    let has = |responses: &Vec<Value>| {
        let items = responses.iter().filter_map(|response| response["body"]["items"].as_array()).flatten();
        items.into_iter().any(|item| item["describedObject"] == object)
    };
    let clusters: Vec<&String> =
        members.iter().filter(|(_, responses)| has(responses)).map(|(name, _)| name).collect();
    let selector = match clusters[..] {
        [cluster] => json!({"matchLabels": {CLUSTER_LABEL: cluster}}),
        _ => json!({"matchExpressions": [{"key": CLUSTER_LABEL, "operator": "In", "values": clusters}]}),
    };
    match item.get_mut("metric") {
        Some(metric) => metric["selector"] = selector,
        None => item["selector"] = selector,
    }
}

/// Sorts items and rows by namespace, name and cluster.
fn sort(list: &mut Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let key = |item: &Value| {
        let object = &item["describedObject"];
        let metadata =
            if item["object"].is_object() { &item["object"]["metadata"] } else { &item["metadata"] };
        let identity = if object.is_object() { object } else { metadata };
        let cluster = &metadata["annotations"][CLUSTER_LABEL];
        (
            text(&identity["namespace"]),
            text(&identity["name"]),
            text(cluster),
            item["timestamp"].to_string() + &item.to_string(),
        )
    };
    for items in ["items", "rows"] {
        if let Some(items) = list.get_mut(items).and_then(Value::as_array_mut) {
            items.sort_by_key(key);
        }
    }
}

/// The metadata of an object, of a list's items or of a table's rows.
fn metadata_of(object: &mut Value) -> Vec<&mut Value> {
    let list = if object["rows"].is_array() { "rows" } else { "items" };
    if object.get(list).is_none() {
        return object.get_mut("metadata").into_iter().collect();
    }
    let items = object[list].as_array_mut().expect("a list").iter_mut();
    items
        .map(|item| if list == "rows" { &mut item["object"]["metadata"] } else { &mut item["metadata"] })
        .collect()
}

/// The fields of a protobuf message that has only strings and messages.
fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut fields = Vec::new();
    while let [tag, rest @ ..] = message {
        assert_eq!(tag & 7, 2, "a string or a message");
        let (mut length, mut count) = (0, 0);
        loop {
            length |= usize::from(rest[count] & 0x7f) << (7 * count);
            count += 1;
            if rest[count - 1] < 0x80 {
                break;
            }
        }
        let (field, after) = rest[count..].split_at(length);
        fields.push((tag >> 3, field.to_vec()));
        message = after;
    }
    fields
}

fn unhex(body: &Value) -> Vec<u8> {
    let hex = body["hex"].as_str().expect("hexadecimal digits").as_bytes();
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("a byte");
    hex.chunks(2).map(byte).collect()
}

fn keys(object: &Value) -> Vec<&String> {
    let mut keys: Vec<&String> = object.as_object().map(Map::keys).expect("an object").collect();
    keys.sort();
    keys
}

pub(crate) async fn send_request(stage: &Stage, case: &Case, path: &str) -> Answer {
    let plane = &stage.fleet.plane;
    let identity = match case.request["as"].as_str().expect("a name") {
        "front" => Some(plane.front_proxy_identity()),
        "badfront" => Some(plane.front_proxy_identity_named("other-proxy")),
        "plain" => Some(plane.client_identity("admin", &["system:masters"])),
        "evil" => Some(Authority::new("evil-ca").client("admin", &["system:masters"])),
        "anonymous" | "spoof" | "token" => None,
        other => panic!("{}: unknown identity {other}", case.name),
    };
    let headers: Vec<(&str, &str)> = case.request["headers"]
        .as_array()
        .expect("headers")
        .iter()
        .map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value")))
        .collect();
    let method = case.request["method"].as_str().expect("a method");
    let body = if case.request["body"] == "{}" { "{}" } else { "" };
    let credentials = identity.as_ref().map_or(Credentials::None, Credentials::Certificate);
    send(&client(&stage.adapter, credentials), method, path, &headers, body).await
}

/// Members with the recorded responses of all cases.
pub(crate) async fn recorded_members(cases: &[Case]) -> Vec<Member> {
    let mut members = Vec::new();
    for name in ["member1", "member2", "member3"] {
        let member = Member::start(name).await.expect("a member starts");
        for response in cases.iter().filter_map(|case| case.members.get(name)).flatten() {
            let request = response["request"].as_str().expect("a request");
            let path = request.strip_prefix("GET ").expect("all requests to members are GET");
            let status = response["status"].as_u64().and_then(|status| u16::try_from(status).ok());
            let status = StatusCode::from_u16(status.expect("a status")).expect("a status");
            let path = path.trim_end_matches(TIMEOUT).trim_end_matches(['?', '&']);
            member.answer(path, ScriptedAnswer::json(status, &response["body"]));
        }
        // For this case, the recording has no responses of members: here each member has the pod.
        let pods = cases.iter().find(|case| case.name == "resource-pods").expect("the pods of all members");
        let items = pods.members[name][0]["body"]["items"].as_array().expect("items");
        let shared = items.iter().find(|item| item["metadata"]["name"] == "shared-0").expect("a shared pod");
        let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/shared-0";
        member.answer(path, ScriptedAnswer::json(StatusCode::OK, shared));
        members.push(member);
    }
    members
}

pub(crate) fn cases() -> Vec<Case> {
    let mut files: Vec<_> = fs::read_dir(contract_directory().join("cases"))
        .expect("the directory of the cases exists")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let cases = files.iter().map(|file| {
        let case: Value =
            serde_json::from_slice(&fs::read(file).expect("a readable file")).expect("valid JSON");
        let members = case["members"].as_object().expect("members");
        Case {
            name: case["name"].as_str().expect("a name").to_owned(),
            request: case["request"].clone(),
            members: members
                .iter()
                .map(|(name, responses)| (name.clone(), responses.as_array().expect("a list").clone()))
                .collect(),
            upstream: case["upstream"].clone(),
        }
    });
    cases.collect()
}
