//! OpenAPI requests of the aggregation layer and kubectl.

use http::StatusCode;
use serde_json::{Map, Value};
use testkit::Kubectl;
use testkit::api_client::Answer;
use testkit::control_plane::{CUSTOM_METRICS, EXTERNAL_METRICS, RESOURCE_METRICS};

use crate::stage::{Stage, members};

const KEYS: [&str; 4] = [
    "apis/custom.metrics.k8s.io/v1beta1",
    "apis/custom.metrics.k8s.io/v1beta2",
    "apis/external.metrics.k8s.io/v1beta1",
    "apis/metrics.k8s.io/v1beta1",
];

#[tokio::test(flavor = "multi_thread")]
async fn v2_document_is_json() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for (accept, expected) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        (
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf, application/json;q=0.5",
            "application/json",
        ),
        ("text/html, application/*;q=0.1", "application/json"),
    ] {
        let response = get(&stage, "/openapi/v2", &[("Accept", accept)]).await;
        assert_eq!(
            (response.status, header(&response, "content-type")),
            (StatusCode::OK, expected),
            "{accept}"
        );
        assert_eq!(header(&response, "vary"), "Accept");
        assert_eq!(header(&response, "cache-control"), "no-cache, private");
        let again = [("Accept", accept), ("If-None-Match", header(&response, "etag"))];
        let again = get(&stage, "/openapi/v2", &again).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{accept}");
    }
    let protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    for path in ["/openapi/v2", "/openapi/v3/apis/metrics.k8s.io/v1beta1"] {
        for accept in ["text/html, application/json;q=0", protobuf] {
            let response = get(&stage, path, &[("Accept", accept)]).await;
            assert_eq!(response.status, StatusCode::NOT_ACCEPTABLE, "{path}: {accept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_index_has_exactly_one_document_per_group_version() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let paths = index(&stage).await;
    assert_eq!(paths.keys().collect::<Vec<_>>(), KEYS);
    for (key, entry) in &paths {
        let url = entry["serverRelativeURL"].as_str().expect("a URL");
        let response = get(&stage, url, &[("Accept", "application/json")]).await;
        assert_eq!(response.status, StatusCode::OK, "{url}");
        assert_eq!(header(&response, "cache-control"), "public, immutable");
        assert_eq!(header(&response, "vary"), "Accept");
        let hash = url.split_once("?hash=").expect("a hash").1;
        assert_eq!(header(&response, "etag"), format!("\"{hash}\""));
        assert!(header(&response, "expires").ends_with(" GMT"));
        let document = response.json().expect("JSON");
        assert_eq!(document["openapi"], "3.0.0");
        let described = document["paths"].as_object().expect("paths");
        assert!(described.keys().all(|path| path.starts_with(&format!("/{key}/"))), "{described:?}");
    }
    let nowhere = get(&stage, "/openapi/v3/apis/metrics.k8s.io/v1", &[]).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_or_missing_hash_returns_an_uncacheable_document() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for query in ["", "?hash=", "?hash=E8FCF159&timeout=32s"] {
        let response = get(&stage, &format!("/openapi/v3/{}{query}", KEYS[3]), &[]).await;
        assert_eq!(response.status, StatusCode::OK, "{query}");
        assert_eq!(header(&response, "cache-control"), "no-cache, private");
        assert!(!response.headers.contains_key("expires"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_all_three_groups() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    let services = [CUSTOM_METRICS[0], CUSTOM_METRICS[1], EXTERNAL_METRICS, RESOURCE_METRICS];
    let adapter = &stage.adapter;
    plane
        .register_backend(adapter.address(), Some(adapter.ca_pem()), &services)
        .expect("the APIServices are registered");
    for service in services {
        plane.available(service).await.expect("the APIService is registered");
    }
    let fetched = plane.poll_discovery_now(RESOURCE_METRICS).await.expect("the APIService is registered");
    let accepted = [Some(StatusCode::OK), Some(StatusCode::NOT_MODIFIED)];
    assert!(fetched.iter().all(|(_, status)| accepted.contains(status)), "{fetched:?}");

    let merged = plane.admin_client().get("/openapi/v2").await.expect("a response").json().expect("JSON");
    for key in KEYS {
        let prefix = format!("/{key}/");
        let paths = merged["paths"].as_object().expect("paths");
        assert!(paths.keys().any(|path| path.starts_with(&prefix)), "{key} is not merged: {paths:?}");
    }
    for kubectl in testkit::kubectls(&plane.admin_kubeconfig().expect("a kubeconfig")) {
        assert_explains(&kubectl, "podmetrics", &["PodMetrics", "metrics.k8s.io", "containers", "timestamp"])
            .await;
        assert_explains(&kubectl, "nodemetrics.usage", &["usage", "map[string]", "cpu in cores"]).await;
        assert_explains(
            &kubectl,
            "podmetrics.containers",
            &["containers", "The resource usage of a container"],
        )
        .await;
        let resources = kubectl.run(&["api-resources"]).await.expect("kubectl lists the resources");
        assert!(resources.contains("NodeMetrics") && resources.contains("PodMetrics"), "{resources}");
        let versions = kubectl.run(&["api-versions"]).await.expect("kubectl lists the versions");
        for key in KEYS {
            let version = key.strip_prefix("apis/").expect("each key has the prefix");
            assert!(versions.lines().any(|line| line == version), "{version} is not in {versions}");
        }
    }
}

async fn assert_explains(kubectl: &Kubectl, resource: &str, words: &[&str]) {
    let text = kubectl.run(&["explain", resource]).await.expect("kubectl explains the resource");
    for word in words {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

async fn index(stage: &Stage) -> Map<String, Value> {
    let index = get(stage, "/openapi/v3", &[]).await;
    assert_eq!(header(&index, "content-type"), "application/json");
    index.json().expect("JSON")["paths"].as_object().expect("paths").clone()
}

/// Sends a request as the aggregation layer's user, which has no groups.
async fn get(stage: &Stage, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("X-Remote-User", "system:aggregator")], headers].concat();
    stage.get_with(path, &headers).await
}

fn header<'a>(response: &'a Answer, name: &str) -> &'a str {
    response.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
}
