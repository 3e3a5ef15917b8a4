//! Tests of authentication and authorization.

use std::time::Duration;

use futures::future::{join, join_all};
use http::StatusCode;
use serde_json::json;
use testkit::api_client::{Answer, ApiClient, Credentials};

use crate::stage::{PODS, Stage, client, members, send};

const VERSION: &str = "/apis/custom.metrics.k8s.io/v1beta2";

async fn get(client: &ApiClient, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(client, "GET", path, headers, "").await
}

const MASTER: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];

#[tokio::test(flavor = "multi_thread")]
async fn user_headers_are_used_only_from_the_front_proxy() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    assert_eq!(stage.get_with(VERSION, &MASTER).await.status, StatusCode::OK);

    let anonymous = client(&stage.adapter, Credentials::None);
    let spoofed = get(&anonymous, VERSION, &MASTER).await;
    assert_eq!(spoofed.status, StatusCode::FORBIDDEN);
    let body = spoofed.json().expect("JSON");
    let expected = format!("forbidden: User \"system:anonymous\" cannot get path \"{VERSION}\"");
    assert!(body["message"].as_str().is_some_and(|message| message.starts_with(&expected)), "{body}");
    assert_eq!((&body["reason"], &body["details"]), (&json!("Forbidden"), &json!({})));

    let other_name = plane.front_proxy_identity_named("other-proxy");
    let response =
        get(&client(&stage.adapter, Credentials::Certificate(&other_name)), VERSION, &MASTER).await;
    assert_eq!(
        (response.status, response.json().expect("JSON")["message"].clone()),
        (StatusCode::UNAUTHORIZED, json!("Unauthorized"))
    );

    let other_ca = testkit::pki::Authority::new("front-proxy-ca").client("front-proxy-client", &[]);
    let response = get(&client(&stage.adapter, Credentials::Certificate(&other_ca)), VERSION, &MASTER).await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_health_paths_are_public() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let anonymous = client(&stage.adapter, Credentials::None);
    for (path, status) in [
        ("/healthz", StatusCode::OK),
        ("/livez", StatusCode::OK),
        ("/readyz", StatusCode::OK),
        ("/readyz/ping", StatusCode::FORBIDDEN),
        ("/metrics", StatusCode::FORBIDDEN),
        ("/apis", StatusCode::FORBIDDEN),
        ("/openapi/v2", StatusCode::FORBIDDEN),
        ("/nowhere", StatusCode::FORBIDDEN),
        (PODS, StatusCode::FORBIDDEN),
    ] {
        assert_eq!(get(&anonymous, path, &[]).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn front_proxy_users_get_the_authenticated_group() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for user in ["system:aggregator", "system:kube-aggregator"] {
        for path in ["/apis", "/openapi/v2"] {
            let response = stage.get_with(path, &[("X-Remote-User", user)]).await;
            assert_eq!(response.status, StatusCode::OK, "{user} {path}");
        }
    }
    let reviews = stage.fleet.plane.reviews();
    let aggregator =
        reviews.iter().find(|review| review.spec["user"] == "system:aggregator").expect("a review");
    assert_eq!(aggregator.spec["groups"], json!(["system:authenticated"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_reviews_decide_and_are_cached() {
    let stage = Stage::start(members(1, 1).await, &["--authorization-webhook-cache-authorized-ttl=1h"]).await;
    let plane = &stage.fleet.plane;
    let bob = [
        ("X-Remote-User", "bob"),
        ("X-Remote-Group", "devs"),
        ("X-Remote-Uid", "not a configured header"),
        ("X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id", "X509SHA256=91b3"),
    ];
    let denied = stage.get_with(PODS, &bob).await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    let body = denied.json().expect("JSON");
    assert_eq!(
        body["message"],
        "pods.custom.metrics.k8s.io \"*\" is forbidden: User \"bob\" cannot get resource \"pods/http_requests\" \
         in API group \"custom.metrics.k8s.io\" in the namespace \"default\": fleet"
    );
    assert_eq!(body["details"], json!({"group": "custom.metrics.k8s.io", "kind": "pods", "name": "*"}));

    let spec = plane
        .reviews()
        .into_iter()
        .map(|review| review.spec)
        .find(|spec| spec["user"] == "bob")
        .expect("a review");
    assert_eq!(spec["groups"], json!(["devs", "system:authenticated"]));
    assert_eq!(spec["extra"], json!({"authentication.kubernetes.io/credential-id": ["X509SHA256=91b3"]}));
    assert_eq!(
        spec["resourceAttributes"],
        json!({
            "verb": "get", "group": "custom.metrics.k8s.io", "version": "v1beta2", "namespace": "default",
            "resource": "pods", "subresource": "http_requests", "name": "*",
        })
    );

    plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["pods/http_requests"]);
    let alice = [("X-Remote-User", "alice")];
    assert_eq!(stage.get_with(PODS, &alice).await.status, StatusCode::OK);
    plane.clear_reviews();
    plane.revoke("alice");
    assert_eq!(stage.get_with(PODS, &alice).await.status, StatusCode::OK, "the decision is cached");
    let other = PODS.replace("http_requests", "queue_depth");
    assert_eq!(
        stage.get_with(&other, &alice).await.status,
        StatusCode::FORBIDDEN,
        "the cache entry is only for this resource"
    );
    assert_eq!(plane.reviews().iter().filter(|review| review.spec["user"] == "alice").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_is_rejected() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for header in ["Impersonate-User", "impersonate-group", "Impersonate-Extra-scopes", "Impersonate-Uid"] {
        let headers = [&MASTER[..], &[(header, "alice")]].concat();
        for path in [PODS, VERSION] {
            let response = stage.get_with(path, &headers).await;
            assert_eq!(response.status, StatusCode::FORBIDDEN, "{header} {path}");
            let body = response.json().expect("JSON");
            let message = body["message"].as_str().expect("a message");
            assert!(message.starts_with("impersonation is not supported"), "{message}");
            assert_eq!(body["reason"], "Forbidden");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_access_review_denies_and_is_not_cached() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.allow("carol", &["get"], "custom.metrics.k8s.io", &["pods/http_requests"]);
    plane.fail_reviews(Some(StatusCode::SERVICE_UNAVAILABLE));
    let carol = [("X-Remote-User", "carol")];
    assert_eq!(stage.get_with(PODS, &carol).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let master = stage.get_with(PODS, &MASTER).await;
    assert_eq!(master.status, StatusCode::OK, "system:masters needs no review");
    plane.fail_reviews(None);
    assert_eq!(stage.get_with(PODS, &carol).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_flood_is_throttled_and_cached_users_work() {
    const REQUESTS: usize = 150;
    let stage = Stage::start(members(1, 1).await, &[]).await;
    stage.fleet.plane.delay_reviews(Duration::from_secs(2));
    let anonymous = client(&stage.adapter, Credentials::None);
    let paths: Vec<_> = (0..REQUESTS).map(|number| format!("{VERSION}/{number}")).collect();
    let anonymous_requests = paths.iter().map(|path| get(&anonymous, path, &[]));
    let alice = [("X-Remote-User", "alice")];
    let (responses, known) = join(join_all(anonymous_requests), stage.get_with(VERSION, &alice)).await;
    assert_eq!(known.status, StatusCode::OK, "a known user waits for the review");
    let throttled: Vec<_> =
        responses.iter().filter(|response| response.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert!((1..=REQUESTS - 100).contains(&throttled.len()), "{} are throttled", throttled.len());
    assert!(throttled.iter().all(|response| response.headers["retry-after"] == "1"));
    // 500 if the review takes more than five seconds.
    let reviewed = [StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR];
    let reviewed = responses.iter().filter(|response| reviewed.contains(&response.status)).count();
    assert_eq!(throttled.len() + reviewed, REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn front_proxy_can_be_configured_by_flags() {
    let directory = tempfile::tempdir().expect("a directory");
    let ca = testkit::pki::Authority::new("own-front-proxy-ca");
    let file = directory.path().join("front-proxy-ca.crt");
    std::fs::write(&file, ca.pem()).expect("a file");
    let flags = [
        format!("--requestheader-client-ca-file={}", file.display()),
        "--requestheader-allowed-names=one,two".to_owned(),
        "--requestheader-username-headers=X-Our-User".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let stage = Stage::start_bare(members(1, 1).await, &flags).await;
    let proxy = ca.client("two", &[]);
    let proxy = client(&stage.adapter, Credentials::Certificate(&proxy));
    let headers = [("X-Our-User", "admin"), ("X-Remote-Group", "system:masters")];
    assert_eq!(get(&proxy, PODS, &headers).await.status, StatusCode::OK);
    assert_eq!(
        stage.get_with(PODS, &MASTER).await.status,
        StatusCode::UNAUTHORIZED,
        "the front proxy of the ConfigMap is not trusted"
    );
}
