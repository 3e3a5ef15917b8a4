//! Authentication, authorization and reviews.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::api_client::Credentials;
use testkit::control_plane::{ADAPTER_USER, ControlPlane};

use super::{CLUSTERS, SECRETS, within};

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

#[tokio::test]
async fn callers_authenticate_by_certificate_or_token() {
    let plane = ControlPlane::start().await.unwrap();
    plane.add_token("good", "alice", &["devs"]);
    let anonymous = plane.client(Credentials::None);
    let alice = plane.client(Credentials::Token("good"));
    let unknown_token = plane.client(Credentials::Token("bad"));
    assert_eq!(anonymous.get("/healthz").await.unwrap().body, "ok");
    assert_eq!(alice.get("/apis").await.unwrap().status, 200);
    let unknown = unknown_token.get("/healthz").await.unwrap();
    assert_eq!((unknown.status.as_u16(), &unknown.json().unwrap()["message"]), (401, &json!("Unauthorized")));
    for (client, path, message) in [
        (&anonymous, "/apis", "forbidden: User \"system:anonymous\" cannot get path \"/apis\""),
        (
            &alice,
            CLUSTERS,
            "clusters.cluster.karmada.io is forbidden: User \"alice\" cannot list resource \"clusters\" in API \
             group \"cluster.karmada.io\" at the cluster scope",
        ),
        (
            &alice,
            "/api/v1/namespaces/karmada-cluster/secrets/s",
            "secrets \"s\" is forbidden: User \"alice\" cannot get resource \"secrets\" in API group \"\" in the \
             namespace \"karmada-cluster\"",
        ),
    ] {
        let answer = client.get(path).await.unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(answer.json().unwrap()["message"], message);
    }
    plane.allow("devs", &["list"], "cluster.karmada.io", &["clusters"]);
    assert_eq!(alice.get(CLUSTERS).await.unwrap().status, 200);
    plane.revoke("devs");
    assert_eq!(alice.get(CLUSTERS).await.unwrap().status, 403);
    let users: Vec<String> = plane.requests().into_iter().map(|request| request.user).collect();
    assert!(["system:anonymous", "alice", ""].iter().all(|user| users.iter().any(|seen| seen == user)));
}

#[tokio::test]
async fn role_is_limited_to_its_namespace_and_names() {
    let plane = ControlPlane::start().await.unwrap();
    plane.add_token("good", "alice", &[]);
    plane.bind(
        "alice",
        &json!({"metadata": {"namespace": "kube-system"}, "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "watch"], "resourceNames": ["one"]},
        ]}),
    );
    let alice = plane.client(Credentials::Token("good"));
    for (path, status) in [
        ("/api/v1/namespaces/kube-system/configmaps/one", 404),
        ("/api/v1/namespaces/kube-system/configmaps/two", 403),
        ("/api/v1/namespaces/kube-system/configmaps", 403),
        ("/api/v1/namespaces/default/configmaps/one", 403),
    ] {
        assert_eq!(alice.get(path).await.unwrap().status, status, "{path}");
    }
    assert_eq!(plane.unused("alice"), ["watch configmaps"]);
}

#[tokio::test]
async fn adapter_may_read_and_not_write() {
    let plane = ControlPlane::start().await.unwrap();
    let identity = plane.client_identity(ADAPTER_USER, &[]);
    let adapter = plane.client(Credentials::Certificate(&identity));
    for path in [CLUSTERS, SECRETS, "/api/v1/secrets", "/api/v1/namespaces/kube-system/configmaps"] {
        assert_eq!(adapter.get(path).await.unwrap().status, 200, "{path}");
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    assert_eq!(adapter.send_json(Method::POST, SECRETS, &secret).await.unwrap().status, 403);
    assert_eq!(adapter.send_json(Method::DELETE, CLUSTERS, &json!({})).await.unwrap().status, 403);
    assert_eq!(plane.count("list", CLUSTERS), 1);
    within(plane.wait_for_request(|request| request.verb == "create" && request.user == ADAPTER_USER)).await;
}

#[tokio::test]
async fn token_reviews_use_the_known_tokens() {
    let plane = ControlPlane::start().await.unwrap();
    plane.add_token("good", "alice", &["devs"]);
    let status = review(&plane, TOKEN_REVIEWS, "TokenReview", json!({"token": "good"})).await;
    assert_eq!(
        status,
        json!({
            "authenticated": true,
            "user": {"username": "alice", "uid": "", "groups": ["devs", "system:authenticated"]},
        })
    );
    let status = review(&plane, TOKEN_REVIEWS, "TokenReview", json!({"token": "bad"})).await;
    assert!(status.get("authenticated").is_none() && status["error"].is_string());
    plane.remove_token("good");
    let status = review(&plane, TOKEN_REVIEWS, "TokenReview", json!({"token": "good"})).await;
    assert!(status.get("authenticated").is_none());
    assert!(!format!("{:?}", plane.reviews()).contains("good"), "tokens are not recorded");
}

#[tokio::test]
async fn access_reviews_follow_rbac() {
    let plane = ControlPlane::start().await.unwrap();
    plane.allow("hpa", &["get"], "custom.metrics.k8s.io", &["*"]);
    let path = |path: &str| json!({"path": path, "verb": "get"});
    let pods = json!({
        "group": "custom.metrics.k8s.io", "version": "v1beta2", "resource": "pods", "subresource": "http_requests",
        "namespace": "default", "name": "*", "verb": "get",
    });
    for (user, group, attributes, requested, allowed) in [
        ("a", "system:masters", "resourceAttributes", pods.clone(), true),
        ("a", "system:authenticated", "resourceAttributes", pods.clone(), false),
        ("hpa", "system:authenticated", "resourceAttributes", pods, true),
        ("a", "system:authenticated", "nonResourceAttributes", path("/apis/custom.metrics.k8s.io"), true),
        ("a", "system:authenticated", "nonResourceAttributes", path("/openapi/v2"), true),
        ("a", "system:authenticated", "nonResourceAttributes", path("/metrics"), false),
        ("a", "system:unauthenticated", "nonResourceAttributes", path("/readyz"), true),
        ("a", "system:unauthenticated", "nonResourceAttributes", path("/apis"), false),
    ] {
        let spec = json!({"user": user, "groups": [group], attributes: requested});
        let status = review(&plane, ACCESS_REVIEWS, "SubjectAccessReview", spec.clone()).await;
        let expected =
            if allowed { json!({"allowed": true}) } else { json!({"allowed": false, "reason": "fleet"}) };
        assert_eq!(status, expected, "{spec}");
    }
    assert_eq!(plane.reviews().len(), 8);
    assert_eq!(plane.reviews()[0].spec["groups"], json!(["system:masters"]));
}

#[tokio::test]
async fn reviews_can_fail_and_be_delayed() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.admin_client();
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "t"}});
    plane.fail_reviews(Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(client.send_json(Method::POST, TOKEN_REVIEWS, &body).await.unwrap().status, 500);
    plane.fail_reviews(None);
    plane.delay_reviews(Duration::from_millis(300));
    let begun = Instant::now();
    assert_eq!(client.send_json(Method::POST, TOKEN_REVIEWS, &body).await.unwrap().status, 201);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

async fn review(plane: &ControlPlane, path: &str, kind: &str, spec: Value) -> Value {
    let identity = plane.client_identity(ADAPTER_USER, &[]);
    let client = plane.client(Credentials::Certificate(&identity));
    let version = path.trim_start_matches("/apis/").rsplit_once('/').unwrap().0;
    let body = json!({"apiVersion": version, "kind": kind, "spec": spec});
    let answer = within(client.send_json(Method::POST, path, &body)).await.unwrap();
    assert_eq!(answer.status, 201);
    answer.json().unwrap()["status"].clone()
}

#[tokio::test]
async fn kubeconfig_is_written_once() {
    let plane = ControlPlane::start().await.unwrap();
    let written = plane.kubeconfig("alice", &["devs"]).unwrap();
    let text = std::fs::read_to_string(&written).unwrap();
    assert_eq!(plane.kubeconfig("alice", &["devs"]).unwrap(), written);
    assert_eq!(std::fs::read_to_string(&written).unwrap(), text);
    assert_ne!(plane.kubeconfig("alice", &["ops"]).unwrap(), written);
}
