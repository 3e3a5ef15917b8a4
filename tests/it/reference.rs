//! Runs these tests against Karmada's built-in adapter (the reference), if its binary is available. Its responses must match
//! the recording. Then the differences that [`crate::contract`] decides are the only ones between the two adapters.
//!
//! `make contract REFERENCE=path` runs this test. It is skipped if the environment variable `REFERENCE` is not set.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::fleet::Fleet;
use testkit::member::wire::NodeMetrics;
use testkit::member::{Member, Pod};

use crate::contract::{self, Case, recorded_members, send_request};
use crate::stage::{GENEROUS, Stage};

/// Cases in which the body depends on the build of the reference, with the reason. Another release than the recorded one may
/// need more cases here.
const BUILD_SPECIFIC: [(&str, &str); 3] = [
    ("index", "the list has the paths of the Kubernetes release of the reference"),
    ("readyz-verbose", "the list has the hooks of that release"),
    ("version", "the version is part of the binary"),
];
/// The secure port of the recording, which is part of discovery documents.
const RECORDED_PORT: &str = ":16443";
/// The prefix of Kubernetes' protobuf encoding.
const PROTOBUF: &[u8] = b"k8s\0";

#[tokio::test(flavor = "multi_thread")]
async fn reference_responses_match_the_recording() {
    let Some(binary) = env::var_os("REFERENCE").filter(|path| !path.is_empty()) else {
        eprintln!("skipped: REFERENCE is not set");
        return;
    };
    let cases = contract::cases();
    let members = recorded_members(&cases).await;
    members.iter().for_each(add_objects);
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    fleet.plane.add_token("good-token", "fhpa", &["system:masters"]);
    let adapter = fleet.start_adapter(Path::new(&binary), &[], None).await.expect("the reference starts");
    let stage = Stage::of(fleet, adapter);

    // The reference is ready before it has found its members, so this test repeats its requests.
    let deadline = Instant::now() + GENEROUS;
    loop {
        let found = all_differences(&stage, &cases).await;
        if found.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} differences from the recording:\n\n{}\n\n{}",
            found.len(),
            found.join("\n\n"),
            stage.adapter.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn comparison_ignores_order_and_detects_another_body() {
    for case in contract::cases() {
        let mut body = case.upstream["body"].clone();
        if let Some(items) = body.get_mut("items").and_then(Value::as_array_mut) {
            items.reverse();
        }
        let response = Answer { body: recorded_bytes(&body).into(), ..recorded_answer(&case) };
        assert_eq!(differences(&case, &response, RECORDED_PORT), [""; 0]);
        let found = differences(&case, &Answer { body: "other".into(), ..response }, RECORDED_PORT);
        assert_eq!(found.len(), usize::from(!is_build_specific(&case)), "{}: {found:?}", case.name);
    }
}

/// Adds the objects of the recorded members: the reference looks up pods and nodes before it queries their usage.
fn add_objects(member: &Member) {
    let name = member.name();
    for pod in ["shared-0", &format!("sample-app-{name}-0001"), &format!("sample-app-{name}-0002")] {
        member.store().set_pod(Pod::running("default", pod, &[("app", "sample-app")]));
    }
    for number in 0..3 {
        let node = NodeMetrics::new(&format!("{name}-node-{number}"), "1", "2Gi");
        member.store().set_node_usage(node.label("app", "sample-app"));
    }
}

async fn all_differences(stage: &Stage, cases: &[Case]) -> Vec<String> {
    let port = format!(":{}", stage.adapter.address().port());
    let mut found = Vec::new();
    for case in cases {
        let response = send_request(stage, case, case.request["path"].as_str().expect("a path")).await;
        found.extend(differences(case, &response, &port));
    }
    found
}

/// The differences from the recording in status, headers and body. The order of items is ignored: it is random in the
/// reference.
fn differences(case: &Case, response: &Answer, port: &str) -> Vec<String> {
    let recorded = recorded_answer(case);
    let mut parts =
        vec![("status".to_owned(), json!(response.status.as_u16()), json!(recorded.status.as_u16()))];
    for (name, value) in &recorded.headers {
        let text = |value: &HeaderValue| json!(String::from_utf8_lossy(value.as_bytes()));
        parts.push((name.to_string(), response.headers.get(name).map_or(Value::Null, text), text(value)));
    }
    if !is_build_specific(case) {
        let with_port = String::from_utf8_lossy(&recorded.body).replace(RECORDED_PORT, port);
        let recorded =
            if recorded.body.starts_with(PROTOBUF) { &recorded.body } else { with_port.as_bytes() };
        parts.push(("body".to_owned(), comparable(&response.body), comparable(recorded)));
    }
    let different = parts.into_iter().filter(|(_, actual, recorded)| actual != recorded);
    different
        .map(|(part, actual, recorded)| {
            format!("{}: {part}\n  actual {actual}\n  recorded {recorded}", case.name)
        })
        .collect()
}

fn is_build_specific(case: &Case) -> bool {
    BUILD_SPECIFIC.iter().any(|(name, _)| *name == case.name)
}

/// The recorded response.
fn recorded_answer(case: &Case) -> Answer {
    let upstream = &case.upstream;
    let status = upstream["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let mut headers = HeaderMap::new();
    let content_type = [("content-type", &upstream["contentType"])];
    let others = upstream["headers"].as_object().expect("headers");
    for (name, value) in
        content_type.into_iter().chain(others.iter().map(|(name, value)| (name.as_str(), value)))
    {
        let name = HeaderName::try_from(name).expect("a header's name");
        headers.insert(name, HeaderValue::try_from(value.as_str().expect("text")).expect("a header's value"));
    }
    Answer {
        status: StatusCode::from_u16(status.expect("a status")).expect("a status"),
        headers,
        body: recorded_bytes(&upstream["body"]).into(),
    }
}

/// The bytes of a body that was recorded as an object, as text or in hexadecimal digits.
fn recorded_bytes(body: &Value) -> Vec<u8> {
    match (body.as_str(), body["hex"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(digits)) => {
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
            (0..digits.len()).step_by(2).map(byte).collect()
        }
        (None, None) => body.to_string().into_bytes(),
    }
}

/// A body in a form that does not depend on the order of items: JSON with sorted lists, the sorted bytes of protobuf, or the
/// text.
fn comparable(body: &[u8]) -> Value {
    if body.starts_with(PROTOBUF) {
        let mut bytes = body.to_vec();
        bytes.sort_unstable();
        return json!(bytes);
    }
    let Ok(mut object) = serde_json::from_slice::<Value>(body) else {
        return json!(String::from_utf8_lossy(body));
    };
    for list in ["items", "resources", "rows"] {
        if let Some(list) = object.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_cached_key(Value::to_string);
        }
    }
    object
}
