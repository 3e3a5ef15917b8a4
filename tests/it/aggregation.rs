//! Requests, with their headers, that a real kube-apiserver, FederatedHPA controller and kubectl sent.

use http::StatusCode;
use serde_json::Value;
use testkit::api_client::Answer;
use testkit::member::contract_directory;

use crate::stage::{Stage, members};

#[tokio::test(flavor = "multi_thread")]
async fn recorded_aggregation_requests_get_expected_responses() {
    let stage = Stage::start(members(2, 3).await, &[]).await;
    let mut checked = 0;
    for recorded in recorded_requests() {
        let line = recorded["request"].as_str().expect("a request line");
        let path = line.strip_prefix("GET ").expect("all are GET");
        let conditional = header(&recorded, "If-None-Match").is_some();
        let response = if conditional {
            // The recorded ETag belongs to the reference's document. The request needs the ETag of this adapter's document.
            let first = send(&stage, path, &recorded, None).await;
            let tag = first.headers.get("etag").map(|tag| tag.to_str().expect("ASCII").to_owned());
            send(&stage, path, &recorded, tag.as_deref()).await
        } else {
            send(&stage, path, &recorded, None).await
        };
        match path {
            "/apis" => check_groups(&response, conditional),
            "/apis/custom.metrics.k8s.io/v1beta2" => {
                assert_eq!(response.status, StatusCode::OK);
                assert_eq!(response.json().expect("JSON")["kind"], "APIResourceList");
            }
            "/openapi/v2" | "/openapi/v3" => check_openapi(&response, conditional),
            path if path.starts_with("/openapi/v3/") => check_stale(&response),
            path if path.starts_with("/apis/custom.metrics.k8s.io/") => check_list(&response, &recorded),
            _ => continue,
        }
        checked += 1;
    }
    assert_eq!(checked, 8);
}

fn check_groups(response: &Answer, conditional: bool) {
    let header = |name| response.headers.get(name).map(|value| value.to_str().expect("ASCII"));
    assert_eq!(header("cache-control"), Some("public"));
    assert_eq!(header("vary"), Some("Accept"));
    assert!(header("etag").is_some_and(|tag| tag.starts_with('"') && tag.ends_with('"')));
    if conditional {
        assert_eq!((response.status, response.body.len()), (StatusCode::NOT_MODIFIED, 0));
    } else {
        let expected = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!((response.status, header("content-type")), (StatusCode::OK, Some(expected)));
    }
}

fn check_openapi(response: &Answer, conditional: bool) {
    assert_eq!(response.headers["cache-control"], "no-cache, private");
    assert!(response.headers.contains_key("etag"));
    if conditional {
        assert_eq!((response.status, response.body.len()), (StatusCode::NOT_MODIFIED, 0));
    } else {
        assert_eq!(response.status, StatusCode::OK);
        assert!(response.json().expect("JSON")["paths"].is_object());
    }
}

/// The recorded hash belongs to another document, so the response must not be cacheable.
fn check_stale(response: &Answer) {
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers["cache-control"], "no-cache, private");
    assert_eq!(response.json().expect("JSON")["openapi"], "3.0.0");
}

fn check_list(response: &Answer, recorded: &Value) {
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    for pair in recorded["reference"]["headers"].as_array().expect("headers") {
        let (name, value) = (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value"));
        assert_eq!(response.headers.get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}");
    }
    assert_eq!(response.json().expect("JSON")["items"].as_array().map(Vec::len), Some(6));
    // The audit ID lets users find the request in the logs of both servers.
    assert_eq!(
        response.headers.get("audit-id").and_then(|id| id.to_str().ok()),
        header(recorded, "Audit-Id")
    );
}

fn recorded_requests() -> Vec<Value> {
    let file = contract_directory().join("real/aggregation.json");
    let recorded: Value =
        serde_json::from_slice(&std::fs::read(file).expect("recorded")).expect("valid JSON");
    recorded["requests"].as_array().expect("requests").clone()
}

fn header<'a>(recorded: &'a Value, name: &str) -> Option<&'a str> {
    let headers = recorded["headers"].as_array().expect("headers");
    headers.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}

/// Sends a request with its recorded headers, but with this ETag (or none) in `If-None-Match`.
async fn send(stage: &Stage, path: &str, recorded: &Value, tag: Option<&str>) -> Answer {
    let mut headers: Vec<(&str, &str)> = recorded["headers"]
        .as_array()
        .expect("headers")
        .iter()
        .map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value")))
        .filter(|(name, _)| *name != "If-None-Match")
        .collect();
    headers.extend(tag.map(|tag| ("If-None-Match", tag)));
    stage.get_with(path, &headers).await
}
