//! Whom a request is taken for, by certificate, token and header, and what becomes of reviews.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use serde_json::{Value, json};
use testkit::api_client::{ApiClient, Credentials};
use testkit::pki::{Authority, Identity};

use crate::stage::{GENEROUS, PODS, Stage, client, members, send};

const AS_ADMIN: [(&str, &str); 1] = [("X-Remote-User", "admin")];

/// The user of the review that a request leads to; none if it is refused as nobody's.
async fn taken_for(stage: &Stage, client: &ApiClient, headers: &[(&str, &str)]) -> Option<Value> {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let path = format!("/who/{}", ASKED.fetch_add(1, Ordering::Relaxed));
    let answer = send(client, "GET", &path, headers, "").await;
    if answer.status == StatusCode::UNAUTHORIZED {
        return None;
    }
    let specs = stage.fleet.plane.reviews().into_iter().map(|review| review.spec);
    let spec = specs.into_iter().find(|spec| spec["nonResourceAttributes"]["path"] == path);
    Some(spec.unwrap_or_else(|| panic!("{path} led to no review: {}", answer.status)))
}

async fn name(stage: &Stage, client: &ApiClient, headers: &[(&str, &str)]) -> Option<String> {
    Some(taken_for(stage, client, headers).await?["user"].as_str().expect("a name").to_owned())
}

fn with(stage: &Stage, identity: &Identity) -> ApiClient {
    client(&stage.adapter, Credentials::Certificate(identity))
}

fn bearer(stage: &Stage, token: &str) -> ApiClient {
    client(&stage.adapter, Credentials::Token(token))
}

/// How many tokens the control plane was asked about.
fn token_reviews(stage: &Stage) -> usize {
    stage.fleet.plane.reviews().iter().filter(|review| review.kind == "TokenReview").count()
}

/// Trust in one authority for the front proxy and for clients.
fn shared(authority: &Authority, directory: &tempfile::TempDir) -> Vec<String> {
    let file = directory.path().join("shared-ca.crt");
    std::fs::write(&file, authority.pem()).expect("a file");
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

/// So many seconds from now, counted from 1970, where certificates' dates begin here.
fn in_seconds(seconds: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970");
    Duration::from_secs(now.as_secs() + seconds)
}

/// Asks again and again over the same connection until it is taken for somebody, or for nobody.
async fn until_known(stage: &Stage, client: &ApiClient, known: bool) {
    let deadline = Instant::now() + GENEROUS;
    while taken_for(stage, client, &[]).await.is_some() != known {
        assert!(Instant::now() < deadline, "still not {known}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_names_a_user_a_group_and_a_uid() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let alice = stage.fleet.plane.client_identity("alice", &["devs"]);
    let spec = taken_for(&stage, &with(&stage, &alice), &AS_ADMIN).await.expect("she is known");
    assert_eq!((&spec["user"], &spec["groups"]), (&json!("alice"), &json!(["devs", "system:authenticated"])));
    let id = &spec["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(id.as_str().is_some_and(|id| id.starts_with("X509SHA256=") && id.len() == 75), "{id}");
    stage.fleet.plane.allow("devs", &["get"], "custom.metrics.k8s.io", &["pods/http_requests"]);
    assert_eq!(send(&with(&stage, &alice), "GET", PODS, &[], "").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_hold_is_nobodys_whoever_signed_it() {
    type Adjust = fn(&mut CertificateParams);
    let spoiled: [(&str, Adjust); 5] = [
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
    let authority = Authority::new("shared-ca");
    let stage = stage_with(&shared(&authority, &directory)).await;
    stage.fleet.plane.add_token("good-token", "bob", &[]);
    let good = with(&stage, &authority.client("proxy", &[]));
    assert_eq!(name(&stage, &good, &AS_ADMIN).await.as_deref(), Some("admin"));
    for (what, adjust) in spoiled {
        let client = with(&stage, &authority.client_with("proxy", &["devs"], adjust));
        assert_eq!(name(&stage, &client, &[]).await, None, "{what}");
        if what != "with an empty uid" {
            assert_eq!(name(&stage, &client, &AS_ADMIN).await, None, "{what}, as a front proxy");
        }
        let token = [("Authorization", "Bearer good-token")];
        assert_eq!(name(&stage, &client, &token).await.as_deref(), Some("bob"), "{what}, beside a token");
    }
    let stranger = with(&stage, &Authority::new("shared-ca").client("proxy", &[]));
    assert_eq!(name(&stage, &stranger, &AS_ADMIN).await, None, "of an authority with the same name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificates_time_begins_and_ends_also_on_a_connection_that_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("shared-ca");
    let stage = stage_with(&shared(&authority, &directory)).await;
    let early = authority.client_with("early", &[], |params| {
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + in_seconds(5);
    });
    let late = authority.client_with("late", &[], |params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + in_seconds(7);
    });
    let (early, late) = (with(&stage, &early), with(&stage, &late));
    assert_eq!(name(&stage, &early, &[]).await, None);
    assert_eq!(name(&stage, &late, &[]).await.as_deref(), Some("late"));
    tokio::join!(until_known(&stage, &early, true), until_known(&stage, &late, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_may_be_shared_by_the_front_proxy_and_clients() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("shared-ca");
    let stage = stage_with(&shared(&authority, &directory)).await;
    let proxy = with(&stage, &authority.client("proxy", &[]));
    let alice = with(&stage, &authority.client("alice", &[]));
    assert_eq!(name(&stage, &proxy, &AS_ADMIN).await.as_deref(), Some("admin"));
    assert_eq!(name(&stage, &proxy, &[]).await.as_deref(), Some("proxy"), "it names nobody: it asks itself");
    assert_eq!(name(&stage, &alice, &AS_ADMIN).await.as_deref(), Some("alice"), "her headers do not count");
    let foreign = with(&stage, &stage.fleet.plane.front_proxy_identity());
    assert_eq!(name(&stage, &foreign, &AS_ADMIN).await, None, "the ConfigMap's front proxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_authenticator_that_succeeds_wins() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("good-token", "bob", &[]);
    let front = with(&stage, &plane.front_proxy_identity());
    let alice = with(&stage, &plane.client_identity("alice", &[]));
    let evil = with(&stage, &Authority::new("evil-ca").client("evil", &[]));
    let nobody = client(&stage.adapter, Credentials::None);
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
        (&nobody, &[admin, good], Some("bob")),
        (&nobody, &[bad], None),
        (&nobody, &[("Authorization", "Basic YTpi")], Some("system:anonymous")),
        (&nobody, &[("Authorization", "Bearer")], Some("system:anonymous")),
        (&nobody, &[], Some("system:anonymous")),
    ] {
        assert_eq!(name(&stage, client, headers).await.as_deref(), expected, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_proxy_may_name_users_in_any_letters() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let front = with(&stage, &stage.fleet.plane.front_proxy_identity());
    let headers = [("X-Remote-User", "jürgen"), ("X-Remote-Group", "büro"), ("X-Remote-Group", "")];
    let spec = taken_for(&stage, &front, &headers).await.expect("he is known");
    assert_eq!(
        (&spec["user"], &spec["groups"]),
        (&json!("jürgen"), &json!(["büro", "system:authenticated"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_shown_by_many_at_once_is_reviewed_once() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("good-token", "bob", &["devs"]);
    plane.delay_reviews(Duration::from_millis(300));
    let client = bearer(&stage, "good-token");
    let asking: Vec<_> = (0..20).map(|_| send(&client, "GET", PODS, &[], "")).collect();
    let answers = futures::future::join_all(asking).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::FORBIDDEN));
    let (tokens, access): (Vec<_>, Vec<_>) = plane
        .reviews()
        .into_iter()
        .filter(|review| review.kind == "TokenReview" || review.spec["user"] == "bob")
        .partition(|review| review.kind == "TokenReview");
    assert_eq!((tokens.len(), access.len()), (1, 1), "neither question is asked twice at a time");
    assert_eq!(tokens[0].spec, json!({"token": "(redacted)"}), "without audiences");
    assert_eq!(access[0].spec["groups"], json!(["devs", "system:authenticated"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tokens_verdict_is_kept_as_long_as_told_for_and_against() {
    for (flag, reviews) in [("1h", 2), ("0s", 4)] {
        let flag = format!("--authentication-token-webhook-cache-ttl={flag}");
        let stage = Stage::start(members(1, 1).await, &[&flag]).await;
        let plane = &stage.fleet.plane;
        plane.add_token("first", "bob", &[]);
        let (first, second) = (bearer(&stage, "first"), bearer(&stage, "second"));
        assert_eq!(name(&stage, &first, &[]).await.as_deref(), Some("bob"));
        assert_eq!(name(&stage, &second, &[]).await, None);
        plane.remove_token("first");
        plane.add_token("second", "bob", &[]);
        let kept = reviews == 2;
        assert_eq!(name(&stage, &first, &[]).await.is_some(), kept, "{flag}");
        assert_eq!(name(&stage, &second, &[]).await.is_some(), !kept, "{flag}");
        assert_eq!(token_reviews(&stage), reviews, "{flag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_tokens_is_refused_and_those_that_are_known_are_not() {
    const TOKENS: usize = 150;
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("known", "bob", &[]);
    let known = bearer(&stage, "known");
    assert_eq!(name(&stage, &known, &[]).await.as_deref(), Some("bob"));

    plane.delay_reviews(Duration::from_secs(3));
    let client = client(&stage.adapter, Credentials::None);
    let tokens: Vec<_> = (0..TOKENS).map(|token| format!("Bearer {token}")).collect();
    let headers: Vec<_> = tokens.iter().map(|token| [("authorization", token.as_str())]).collect();
    let asking = headers.iter().map(|headers| send(&client, "GET", PODS, headers, ""));
    let (answers, of_known) =
        futures::future::join(futures::future::join_all(asking), send(&known, "GET", PODS, &[], "")).await;
    assert_eq!(of_known.status, StatusCode::FORBIDDEN, "it is known who asks");
    let refused: Vec<_> =
        answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert!((1..=TOKENS - 100).contains(&refused.len()), "{} are refused", refused.len());
    assert!(refused.iter().all(|answer| answer.headers["retry-after"] == "1"));
    let unknown = answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count();
    assert_eq!(refused.len() + unknown, TOKENS);

    plane.delay_reviews(Duration::ZERO);
    assert_eq!(name(&stage, &bearer(&stage, &"a".repeat(16 << 10)), &[]).await, None);
    let reviews = token_reviews(&stage);
    assert_eq!(name(&stage, &bearer(&stage, &"a".repeat((16 << 10) + 1)), &[]).await, None);
    assert_eq!(token_reviews(&stage), reviews, "a longer token is no question");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_review_that_fails_identifies_nobody_and_is_not_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("adapter.log");
    let fleet = testkit::fleet::Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let flags = ["--v=10".to_owned()];
    let adapter = fleet.start_adapter(crate::stage::binary(), &flags, Some(log.clone())).await;
    let stage = Stage::of(fleet, adapter.expect("the adapter starts"));
    let plane = &stage.fleet.plane;
    plane.add_token("a-token-that-is-secret", "bob", &[]);
    let client = bearer(&stage, "a-token-that-is-secret");
    plane.fail_reviews(Some(StatusCode::SERVICE_UNAVAILABLE));
    for _ in 0..3 {
        assert_eq!(name(&stage, &client, &[]).await, None);
    }
    plane.fail_reviews(None);
    assert_eq!(name(&stage, &client, &[]).await.as_deref(), Some("bob"));
    assert_eq!(name(&stage, &bearer(&stage, "another-secret"), &[]).await, None);
    let text = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(text.matches("bearer tokens are refused until").count(), 1, "said once");
    assert_eq!(text.matches("reviews bearer tokens again").count(), 1, "said once");
    assert!(text.contains("the bearer token is nobody's"), "the level shows refusals");
    for token in ["a-token-that-is-secret", "another-secret"] {
        assert!(!text.contains(token), "{token} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_hangs_ends_after_five_seconds_and_allows_nothing() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.add_token("good-token", "bob", &[]);
    plane.delay_reviews(GENEROUS);
    let began = Instant::now();
    let (token, alice) = (bearer(&stage, "good-token"), plane.client_identity("alice", &[]));
    let alice = with(&stage, &alice);
    let (token, access) =
        tokio::join!(send(&token, "GET", PODS, &[], ""), send(&alice, "GET", PODS, &[], ""));
    assert_eq!((token.status, access.status), (StatusCode::UNAUTHORIZED, StatusCode::INTERNAL_SERVER_ERROR));
    let elapsed = began.elapsed();
    assert!(elapsed > Duration::from_secs(4) && elapsed < Duration::from_secs(20), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_refusals_are_kept_for_times_of_their_own() {
    for (allowed, denied) in [("1h", "0s"), ("0s", "1h")] {
        let flags = [
            format!("--authorization-webhook-cache-authorized-ttl={allowed}"),
            format!("--authorization-webhook-cache-unauthorized-ttl={denied}"),
        ];
        let stage = stage_with(&flags).await;
        let plane = &stage.fleet.plane;
        let client = with(&stage, &plane.client_identity("alice", &[]));
        let may = async |metric: &str| {
            let path = PODS.replace("http_requests", metric);
            send(&client, "GET", &path, &[], "").await.status != StatusCode::FORBIDDEN
        };
        plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["pods/first"]);
        assert!(may("first").await && !may("second").await);
        plane.revoke("alice");
        plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["pods/second"]);
        assert_eq!(may("first").await, allowed == "1h", "a permission is kept for {allowed}");
        assert_eq!(may("second").await, denied == "0s", "a refusal is kept for {denied}");
    }
}
