//! Who is believed, and who may do what.

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
async fn names_in_headers_count_only_from_the_front_proxy() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    assert_eq!(stage.get_with(VERSION, &MASTER).await.status, StatusCode::OK);

    let nobody = client(&stage.adapter, Credentials::None);
    let spoofed = get(&nobody, VERSION, &MASTER).await;
    assert_eq!(spoofed.status, StatusCode::FORBIDDEN);
    let body = spoofed.json().expect("JSON");
    let expected = format!("forbidden: User \"system:anonymous\" cannot get path \"{VERSION}\"");
    assert!(body["message"].as_str().is_some_and(|message| message.starts_with(&expected)), "{body}");
    assert_eq!((&body["reason"], &body["details"]), (&json!("Forbidden"), &json!({})));

    let other_name = plane.front_proxy_identity_named("somebody");
    let answer = get(&client(&stage.adapter, Credentials::Certificate(&other_name)), VERSION, &MASTER).await;
    assert_eq!(
        (answer.status, answer.json().expect("JSON")["message"].clone()),
        (StatusCode::UNAUTHORIZED, json!("Unauthorized"))
    );

    let stranger = testkit::pki::Authority::new("front-proxy-ca").client("front-proxy-client", &[]);
    let answer = get(&client(&stage.adapter, Credentials::Certificate(&stranger)), VERSION, &MASTER).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_to_everybody_and_nothing_else_is() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let nobody = client(&stage.adapter, Credentials::None);
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
        assert_eq!(get(&nobody, path, &[]).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aggregation_layers_own_users_gain_the_group_of_the_authenticated() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for user in ["system:aggregator", "system:kube-aggregator"] {
        for path in ["/apis", "/openapi/v2"] {
            let answer = stage.get_with(path, &[("X-Remote-User", user)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{user} {path}");
        }
    }
    let reviews = stage.fleet.plane.reviews();
    let aggregator =
        reviews.iter().find(|review| review.spec["user"] == "system:aggregator").expect("a review");
    assert_eq!(aggregator.spec["groups"], json!(["system:authenticated"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_decides_and_its_verdict_is_kept() {
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
    assert_eq!(stage.get_with(PODS, &alice).await.status, StatusCode::OK, "the verdict is kept");
    let other = PODS.replace("http_requests", "queue_depth");
    assert_eq!(stage.get_with(&other, &alice).await.status, StatusCode::FORBIDDEN, "for this question only");
    assert_eq!(plane.reviews().iter().filter(|review| review.spec["user"] == "alice").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_in_the_name_of_another() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for header in ["Impersonate-User", "impersonate-group", "Impersonate-Extra-scopes", "Impersonate-Uid"] {
        let headers = [&MASTER[..], &[(header, "alice")]].concat();
        for path in [PODS, VERSION] {
            let answer = stage.get_with(path, &headers).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{header} {path}");
            let body = answer.json().expect("JSON");
            let message = body["message"].as_str().expect("a message");
            assert!(message.starts_with("impersonation is not supported"), "{message}");
            assert_eq!(body["reason"], "Forbidden");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_fails_allows_nothing_and_is_not_kept() {
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
async fn a_flood_of_anonymous_requests_is_refused_and_known_users_are_not() {
    const REQUESTS: usize = 150;
    let stage = Stage::start(members(1, 1).await, &[]).await;
    stage.fleet.plane.delay_reviews(Duration::from_secs(2));
    let nobody = client(&stage.adapter, Credentials::None);
    let paths: Vec<_> = (0..REQUESTS).map(|number| format!("{VERSION}/{number}")).collect();
    let asking = paths.iter().map(|path| get(&nobody, path, &[]));
    let alice = [("X-Remote-User", "alice")];
    let (answers, of_known) = join(join_all(asking), stage.get_with(VERSION, &alice)).await;
    assert_eq!(of_known.status, StatusCode::OK, "her verdict was waited for");
    let refused: Vec<_> =
        answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert!((1..=REQUESTS - 100).contains(&refused.len()), "{} are refused", refused.len());
    assert!(refused.iter().all(|answer| answer.headers["retry-after"] == "1"));
    // 500 where the control plane takes more than five seconds for the verdict.
    let judged = [StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR];
    let judged = answers.iter().filter(|answer| judged.contains(&answer.status)).count();
    assert_eq!(refused.len() + judged, REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_proxy_may_come_from_flags() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = testkit::pki::Authority::new("own-front-proxy-ca");
    let file = directory.path().join("front-proxy-ca.crt");
    std::fs::write(&file, authority.pem()).expect("a file");
    let flags = [
        format!("--requestheader-client-ca-file={}", file.display()),
        "--requestheader-allowed-names=one,two".to_owned(),
        "--requestheader-username-headers=X-Our-User".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let stage = Stage::start_bare(members(1, 1).await, &flags).await;
    let ours = authority.client("two", &[]);
    let ours = client(&stage.adapter, Credentials::Certificate(&ours));
    let headers = [("X-Our-User", "admin"), ("X-Remote-Group", "system:masters")];
    assert_eq!(get(&ours, PODS, &headers).await.status, StatusCode::OK);
    assert_eq!(stage.get_with(PODS, &MASTER).await.status, StatusCode::UNAUTHORIZED, "not the ConfigMap's");
}
