//! The reference adapter in this harness, where someone has its binary: it must answer what it was recorded to answer.
//! Then what [`crate::contract`] decides otherwise is all that there is between the two.
//!
//! `make contract REFERENCE=path` runs it; where the environment variable `REFERENCE` is not set it is left out.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::fleet::Fleet;
use testkit::member::wire::NodeMetrics;
use testkit::member::{Member, Pod};

use crate::contract::{self, Case, ask, recorded_members};
use crate::stage::{GENEROUS, Stage};

/// Cases whose bodies are of the build that answers and not of the recording, and why. A release other than the
/// recorded one may need more of them.
const OF_THE_BUILD: [(&str, &str); 3] = [
    ("index", "it lists the paths of the Kubernetes release that the reference was built with"),
    ("readyz-verbose", "it lists the hooks of that release"),
    ("version", "it is stamped into the binary"),
];
/// The secure port of the recording, which discovery tells.
const RECORDED_PORT: &str = ":16443";
/// How Kubernetes' protobuf begins.
const PROTOBUF: &[u8] = b"k8s\0";

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_answers_every_case_as_it_was_recorded() {
    let Some(binary) = env::var_os("REFERENCE").filter(|path| !path.is_empty()) else {
        eprintln!("REFERENCE names no binary: the reference adapter itself is not asked");
        return;
    };
    let cases = contract::cases();
    let members = recorded_members(&cases).await;
    members.iter().for_each(add_objects);
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    fleet.plane.add_token("good-token", "fhpa", &["system:masters"]);
    let adapter = fleet.start_adapter(Path::new(&binary), &[], None).await.expect("the reference starts");
    let stage = Stage::of(fleet, adapter);

    // It is ready before it knows its members, and says nowhere when it does.
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
fn a_recording_in_any_order_differs_in_nothing_and_another_in_its_body() {
    for case in contract::cases() {
        let mut body = case.upstream["body"].clone();
        if let Some(items) = body.get_mut("items").and_then(Value::as_array_mut) {
            items.reverse();
        }
        let answer = Answer { body: recorded_bytes(&body).into(), ..recorded_answer(&case) };
        assert_eq!(differences(&case, &answer, RECORDED_PORT), [""; 0]);
        let found = differences(&case, &Answer { body: "other".into(), ..answer }, RECORDED_PORT);
        assert_eq!(found.len(), usize::from(!is_of_the_build(&case)), "{}: {found:?}", case.name);
    }
}

/// The objects that the recorded members had: the reference looks for pods and nodes before it asks what they use.
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
        let answer = ask(stage, case, case.request["path"].as_str().expect("a path")).await;
        found.extend(differences(case, &answer, &port));
    }
    found
}

/// What differs from the recording in status, headers and body; the order of items is random in the reference.
fn differences(case: &Case, answer: &Answer, port: &str) -> Vec<String> {
    let recorded = recorded_answer(case);
    let mut parts =
        vec![("status".to_owned(), json!(answer.status.as_u16()), json!(recorded.status.as_u16()))];
    for (name, value) in &recorded.headers {
        let text = |value: &HeaderValue| json!(String::from_utf8_lossy(value.as_bytes()));
        parts.push((name.to_string(), answer.headers.get(name).map_or(Value::Null, text), text(value)));
    }
    if !is_of_the_build(case) {
        let here = String::from_utf8_lossy(&recorded.body).replace(RECORDED_PORT, port);
        let recorded = if recorded.body.starts_with(PROTOBUF) { &recorded.body } else { here.as_bytes() };
        parts.push(("body".to_owned(), comparable(&answer.body), comparable(recorded)));
    }
    let different = parts.into_iter().filter(|(_, answered, recorded)| answered != recorded);
    different
        .map(|(part, answered, recorded)| {
            format!("{}: {part}\n  answered {answered}\n  recorded {recorded}", case.name)
        })
        .collect()
}

fn is_of_the_build(case: &Case) -> bool {
    OF_THE_BUILD.iter().any(|(name, _)| *name == case.name)
}

/// The recorded answer as it came.
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

/// A body's bytes: recorded as an object, as text, or in hexadecimal digits.
fn recorded_bytes(body: &Value) -> Vec<u8> {
    match (body.as_str(), body["hex"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(digits)) => {
            let byte = |place: usize| u8::from_str_radix(&digits[place..place + 2], 16).expect("two digits");
            (0..digits.len()).step_by(2).map(byte).collect()
        }
        (None, None) => body.to_string().into_bytes(),
    }
}

/// A body without the order of its items: JSON with sorted lists, protobuf as all of its bytes sorted, else the text.
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
