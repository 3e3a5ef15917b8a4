//! Authentication by certificate, token and headers, and the caching of reviews.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use serde_json::{Value, json};
use testkit::api_client::{ApiClient, Credentials};
use testkit::pki::{Authority, Identity};

use crate::stage::{GENEROUS, PODS, Stage, client, members, send};

const AS_ADMIN: [(&str, &str); 1] = [("X-Remote-User", "admin")];

/// The spec of the access review that a request causes. `None` if the response is 401.
async fn reviewed_spec(stage: &Stage, client: &ApiClient, headers: &[(&str, &str)]) -> Option<Value> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let path = format!("/request/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let response = send(client, "GET", &path, headers, "").await;
    if response.status == StatusCode::UNAUTHORIZED {
        return None;
    }
    let specs = stage.fleet.plane.reviews().into_iter().map(|review| review.spec);
    let spec = specs.into_iter().find(|spec| spec["nonResourceAttributes"]["path"] == path);
    Some(spec.unwrap_or_else(|| panic!("{path} caused no review: {}", response.status)))
}

async fn user_name(stage: &Stage, client: &ApiClient, headers: &[(&str, &str)]) -> Option<String> {
    Some(reviewed_spec(stage, client, headers).await?["user"].as_str().expect("a name").to_owned())
}

fn certificate_client(stage: &Stage, identity: &Identity) -> ApiClient {
    client(&stage.adapter, Credentials::Certificate(identity))
}

fn token_client(stage: &Stage, token: &str) -> ApiClient {
    client(&stage.adapter, Credentials::Token(token))
}

/// The number of token reviews so far.
fn token_reviews(stage: &Stage) -> usize {
    stage.fleet.plane.reviews().iter().filter(|review| review.kind == "TokenReview").count()
}

/// Flags to trust one CA for both the front proxy and clients.
fn shared_ca_flags(ca: &Authority, directory: &tempfile::TempDir) -> Vec<String> {
    let file = directory.path().join("shared-ca.crt");
    std::fs::write(&file, ca.pem()).expect("a file");
    vec![
        format!("--client-ca-file={}", file.display()),
        format!("--requestheader-client-ca-file={}", file.display()),
        "--requestheader-allowed-names=proxy".to_owned(),
    ]
}

async fn stage_with(flags: &[String]) -> Stage {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Stage::start_bare(members(1, 1).await, &flags).await
}

/// This number of seconds from now, as the time since 1970.
fn in_seconds(seconds: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    Duration::from_secs(now.as_secs() + seconds)
}

/// Repeats requests on one connection until the client is authenticated (`known`) or gets 401.
async fn until_known(stage: &Stage, client: &ApiClient, known: bool) {
    let deadline = Instant::now() + GENEROUS;
    while reviewed_spec(stage, client, &[]).await.is_some() != known {
        assert!(Instant::now() < deadline, "authenticated is still not {known}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificate_provides_user_group_and_uid() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let alice = stage.fleet.plane.client_identity("alice", &["devs"]);
    let spec = reviewed_spec(&stage, &certificate_client(&stage, &alice), &AS_ADMIN)
        .await
        .expect("alice is authenticated");
    assert_eq!((&spec["user"], &spec["groups"]), (&json!("alice"), &json!(["devs", "system:authenticated"])));
    let id = &spec["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(id.as_str().is_some_and(|id| id.starts_with("X509SHA256=") && id.len() == 75), "{id}");
    stage.fleet.plane.allow("devs", &["get"], "custom.metrics.k8s.io", &["pods/http_requests"]);
    assert_eq!(send(&certificate_client(&stage, &alice), "GET", PODS, &[], "").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_client_certificate_is_rejected() {
    type Adjust = fn(&mut CertificateParams);
    let invalid: [(&str, Adjust); 5] = [
        ("expired", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
        ("not yet valid", |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1)),
        ("for servers", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ("for mail", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]),
        ("with an empty uid", |params| {
            let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
            params.distinguished_name.push(uid, "");
        }),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let ca = Authority::new("shared-ca");
    let stage = stage_with(&shared_ca_flags(&ca, &directory)).await;
    stage.fleet.plane.add_token("good-token", "bob", &[]);
    let good = certificate_client(&stage, &ca.client("proxy", &[]));
    assert_eq!(user_name(&stage, &good, &AS_ADMIN).await.as_deref(), Some("admin"));
    for (case, adjust) in invalid {
        let client = certificate_client(&stage, &ca.client_with("proxy", &["devs"], adjust));
        assert_eq!(user_name(&stage, &client, &[]).await, None, "{case}");
        if case != "with an empty uid" {
            assert_eq!(user_name(&stage, &client, &AS_ADMIN).await, None, "{case}, as a front proxy");
        }
        let token = [("Authorization", "Bearer good-token")];
        assert_eq!(
            user_name(&stage, &client, &token).await.as_deref(),
            Some("bob"),
            "{case}, beside a token"
        );
    }
    let other_ca = certificate_client(&stage, &Authority::new("shared-ca").client("proxy", &[]));
    assert_eq!(user_name(&stage, &other_ca, &AS_ADMIN).await, None, "a CA with the same name");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_validity_is_checked_on_open_connections() {
    let directory = tempfile::tempdir().expect("a directory");
    let ca = Authority::new("shared-ca");
    let stage = stage_with(&shared_ca_flags(&ca, &directory)).await;
    let early = ca.client_with("early", &[], |params| {
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + in_seconds(5);
    });
    let late = ca.client_with("late", &[], |params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + in_seconds(7);
    });
    let (early, late) = (certificate_client(&stage, &early), certificate_client(&stage, &late));
    assert_eq!(user_name(&stage, &early, &[]).await, None);
    assert_eq!(user_name(&stage, &late, &[]).await.as_deref(), Some("late"));
    tokio::join!(until_known(&stage, &early, true), until_known(&stage, &late, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn front_proxy_and_clients_can_share_a_ca() {
    let directory = tempfile::tempdir().expect("a directory");
    let ca = Authority::new("shared-ca");
    let stage = stage_with(&shared_ca_flags(&ca, &directory)).await;
    let proxy = certificate_client(&stage, &ca.client("proxy", &[]));
    let alice = certificate_client(&stage, &ca.client("alice", &[]));
    assert_eq!(user_name(&stage, &proxy, &AS_ADMIN).await.as_deref(), Some("admin"));
    assert_eq!(
        user_name(&stage, &proxy, &[]).await.as_deref(),
        Some("proxy"),
        "no user header: the proxy itself is the user"
    );
    assert_eq!(
        user_name(&stage, &alice, &AS_ADMIN).await.as_deref(),
        Some("alice"),
        "headers of clients are ignored"
    );
    let foreign = certificate_client(&stage, &stage.fleet.plane.front_proxy_identity());
    assert_eq!(
        user_name(&stage, &foreign, &AS_ADMIN).await,
        None,
        "the front proxy of the ConfigMap is not trusted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn first_successful_authenticator_wins() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("good-token", "bob", &[]);
    let front = certificate_client(&stage, &plane.front_proxy_identity());
    let alice = certificate_client(&stage, &plane.client_identity("alice", &[]));
    let evil = certificate_client(&stage, &Authority::new("evil-ca").client("evil", &[]));
    let anonymous = client(&stage.adapter, Credentials::None);
    let good = ("Authorization", "Bearer good-token");
    let bad = ("Authorization", "Bearer bad");
    let admin = AS_ADMIN[0];
    for (client, headers, expected) in [
        (&front, &[admin, good][..], Some("admin")),
        (&front, &[admin, bad], Some("admin")),
        (&front, &[good], Some("bob")),
        (&front, &[], None),
        (&alice, &[admin, good], Some("alice")),
        (&alice, &[bad], Some("alice")),
        (&evil, &[good], Some("bob")),
        (&evil, &[bad], None),
        (&evil, &[("Authorization", "Basic YTpi")], None),
        (&anonymous, &[admin, good], Some("bob")),
        (&anonymous, &[bad], None),
        (&anonymous, &[("Authorization", "Basic YTpi")], Some("system:anonymous")),
        (&anonymous, &[("Authorization", "Bearer")], Some("system:anonymous")),
        (&anonymous, &[], Some("system:anonymous")),
    ] {
        assert_eq!(user_name(&stage, client, headers).await.as_deref(), expected, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn front_proxy_user_names_can_be_non_ascii() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let front = certificate_client(&stage, &stage.fleet.plane.front_proxy_identity());
    let headers = [("X-Remote-User", "jürgen"), ("X-Remote-Group", "büro"), ("X-Remote-Group", "")];
    let spec = reviewed_spec(&stage, &front, &headers).await.expect("the user is authenticated");
    assert_eq!(
        (&spec["user"], &spec["groups"]),
        (&json!("jürgen"), &json!(["büro", "system:authenticated"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_share_one_token_review() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("good-token", "bob", &["devs"]);
    plane.delay_reviews(Duration::from_millis(300));
    let client = token_client(&stage, "good-token");
    let requests: Vec<_> = (0..20).map(|_| send(&client, "GET", PODS, &[], "")).collect();
    let responses = futures::future::join_all(requests).await;
    assert!(responses.iter().all(|response| response.status == StatusCode::FORBIDDEN));
    let (tokens, access): (Vec<_>, Vec<_>) = plane
        .reviews()
        .into_iter()
        .filter(|review| review.kind == "TokenReview" || review.spec["user"] == "bob")
        .partition(|review| review.kind == "TokenReview");
    assert_eq!((tokens.len(), access.len()), (1, 1), "concurrent reviews are shared");
    assert_eq!(tokens[0].spec, json!({"token": "(redacted)"}), "without audiences");
    assert_eq!(access[0].spec["groups"], json!(["devs", "system:authenticated"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_review_results_are_cached_for_the_configured_time() {
    for (flag, reviews) in [("1h", 2), ("0s", 4)] {
        let flag = format!("--authentication-token-webhook-cache-ttl={flag}");
        let stage = Stage::start(members(1, 1).await, &[&flag]).await;
        let plane = &stage.fleet.plane;
        plane.add_token("first", "bob", &[]);
        let (first, second) = (token_client(&stage, "first"), token_client(&stage, "second"));
        assert_eq!(user_name(&stage, &first, &[]).await.as_deref(), Some("bob"));
        assert_eq!(user_name(&stage, &second, &[]).await, None);
        plane.remove_token("first");
        plane.add_token("second", "bob", &[]);
        let cached = reviews == 2;
        assert_eq!(user_name(&stage, &first, &[]).await.is_some(), cached, "{flag}");
        assert_eq!(user_name(&stage, &second, &[]).await.is_some(), !cached, "{flag}");
        assert_eq!(token_reviews(&stage), reviews, "{flag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_flood_is_throttled_and_cached_tokens_work() {
    const TOKENS: usize = 150;
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("known", "bob", &[]);
    let known = token_client(&stage, "known");
    assert_eq!(user_name(&stage, &known, &[]).await.as_deref(), Some("bob"));

    plane.delay_reviews(Duration::from_secs(3));
    let client = client(&stage.adapter, Credentials::None);
    let tokens: Vec<_> = (0..TOKENS).map(|token| format!("Bearer {token}")).collect();
    let headers: Vec<_> = tokens.iter().map(|token| [("authorization", token.as_str())]).collect();
    let requests = headers.iter().map(|headers| send(&client, "GET", PODS, headers, ""));
    let (responses, known_response) =
        futures::future::join(futures::future::join_all(requests), send(&known, "GET", PODS, &[], "")).await;
    assert_eq!(known_response.status, StatusCode::FORBIDDEN, "the token is cached");
    let throttled: Vec<_> =
        responses.iter().filter(|response| response.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert!((1..=TOKENS - 100).contains(&throttled.len()), "{} are throttled", throttled.len());
    assert!(throttled.iter().all(|response| response.headers["retry-after"] == "1"));
    let unknown = responses.iter().filter(|response| response.status == StatusCode::UNAUTHORIZED).count();
    assert_eq!(throttled.len() + unknown, TOKENS);

    plane.delay_reviews(Duration::ZERO);
    assert_eq!(user_name(&stage, &token_client(&stage, &"a".repeat(16 << 10)), &[]).await, None);
    let reviews = token_reviews(&stage);
    assert_eq!(user_name(&stage, &token_client(&stage, &"a".repeat((16 << 10) + 1)), &[]).await, None);
    assert_eq!(token_reviews(&stage), reviews, "a longer token causes no review");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_token_review_is_401_and_not_cached() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("adapter.log");
    let fleet = testkit::fleet::Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let flags = ["--v=10".to_owned()];
    let adapter = fleet.start_adapter(crate::stage::binary(), &flags, Some(log.clone())).await;
    let stage = Stage::of(fleet, adapter.expect("the adapter starts"));
    let plane = &stage.fleet.plane;
    plane.add_token("a-token-that-is-secret", "bob", &[]);
    let client = token_client(&stage, "a-token-that-is-secret");
    plane.fail_reviews(Some(StatusCode::SERVICE_UNAVAILABLE));
    for _ in 0..3 {
        assert_eq!(user_name(&stage, &client, &[]).await, None);
    }
    plane.fail_reviews(None);
    assert_eq!(user_name(&stage, &client, &[]).await.as_deref(), Some("bob"));
    assert_eq!(user_name(&stage, &token_client(&stage, "another-secret"), &[]).await, None);
    let text = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(text.matches("bearer tokens are refused until").count(), 1, "logged once");
    assert_eq!(text.matches("reviews bearer tokens again").count(), 1, "logged once");
    assert!(text.contains("the bearer token is unknown"), "this log level has rejected requests");
    for token in ["a-token-that-is-secret", "another-secret"] {
        assert!(!text.contains(token), "{token} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_token_review_times_out_after_five_seconds() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("good-token", "bob", &[]);
    plane.delay_reviews(GENEROUS);
    let started = Instant::now();
    let (token, alice) = (token_client(&stage, "good-token"), plane.client_identity("alice", &[]));
    let alice = certificate_client(&stage, &alice);
    let (token, access) =
        tokio::join!(send(&token, "GET", PODS, &[], ""), send(&alice, "GET", PODS, &[], ""));
    assert_eq!((token.status, access.status), (StatusCode::UNAUTHORIZED, StatusCode::INTERNAL_SERVER_ERROR));
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_secs(4) && elapsed < Duration::from_secs(20), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_and_denied_reviews_have_separate_cache_times() {
    for (allowed, denied) in [("1h", "0s"), ("0s", "1h")] {
        let flags = [
            format!("--authorization-webhook-cache-authorized-ttl={allowed}"),
            format!("--authorization-webhook-cache-unauthorized-ttl={denied}"),
        ];
        let stage = stage_with(&flags).await;
        let plane = &stage.fleet.plane;
        let client = certificate_client(&stage, &plane.client_identity("alice", &[]));
        let may = async |metric: &str| {
            let path = PODS.replace("http_requests", metric);
            send(&client, "GET", &path, &[], "").await.status != StatusCode::FORBIDDEN
        };
        plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["pods/first"]);
        assert!(may("first").await && !may("second").await);
        plane.revoke("alice");
        plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["pods/second"]);
        assert_eq!(may("first").await, allowed == "1h", "a permission is cached for {allowed}");
        assert_eq!(may("second").await, denied == "0s", "a refusal is cached for {denied}");
    }
}
