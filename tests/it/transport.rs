//! Connections to members: proxies, TLS trust and rate limits.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::control_plane::MemberSpec;
use testkit::fleet::Fleet;
use testkit::member::Protocols;
use testkit::pki::Authority;
use testkit::proxy::{Kind, Proxy};

use crate::stage::{PODS, Stage, clusters, member_over, members_over, over_both_protocols, until};

over_both_protocols!(
    member_is_queried_through_its_proxy,
    https_proxy_is_verified_with_the_system_roots,
    proxy_error_is_reported_with_its_status,
    tls_trust_comes_from_cluster_and_secret,
    cluster_without_a_secret_is_not_a_member,
    member_rate_is_limited,
);

/// Whether this number of connections is minimal. HTTP/2 needs one connection.
fn is_minimal(protocols: Protocols, connections: usize) -> bool {
    if protocols == Protocols::Http1 { (1..=8).contains(&connections) } else { connections == 1 }
}

async fn member_is_queried_through_its_proxy(protocols: Protocols) {
    for kind in [Kind::Http, Kind::Socks5] {
        let stage = Stage::start(Vec::new(), &[]).await;
        let member = member_over(protocols, "member1").await.with_pods("http_requests", 2);
        let proxy = Proxy::start(kind).await.expect("a proxy starts");
        let joined = stage.fleet.plane.join(&MemberSpec {
            proxy_url: Some(proxy.url()),
            proxy_header: vec![("X-Tenant".to_owned(), "one,two".to_owned())],
            ..MemberSpec::from(&member)
        });
        joined.expect("the cluster joins");
        until(&stage, |names| names == ["member1"]).await;
        let tunnels = proxy.tunnels();
        assert!(is_minimal(protocols, tunnels.len()), "{kind:?}: {tunnels:?}");
        assert_eq!(format!("https://{}", tunnels[0].to), member.access().endpoint);
        let tenants: Vec<&String> = tunnels[0]
            .headers
            .iter()
            .filter(|line| line.to_ascii_lowercase().starts_with("x-tenant: "))
            .collect();
        assert_eq!(tenants.len(), if kind == Kind::Http { 2 } else { 0 }, "{:?}", tunnels[0].headers);
        assert!(member.requests().iter().all(|request| !request.headers.contains_key("x-tenant")));
    }
}

async fn https_proxy_is_verified_with_the_system_roots(protocols: Protocols) {
    let proxy = Proxy::start(Kind::Https).await.expect("a proxy starts");
    let roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(roots.path(), proxy.ca_pem()).expect("written");
    let member = member_over(protocols, "member1").await.with_pods("http_requests", 2);
    let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
    fleet
        .plane
        .join(&MemberSpec { proxy_url: Some(proxy.url()), ..MemberSpec::from(&member) })
        .expect("the cluster joins");
    let environment = vec![("SSL_CERT_FILE".to_owned(), roots.path().display().to_string())];
    let stage = Stage::start_in(fleet, &[], environment).await;
    until(&stage, |names| names == ["member1"]).await;
    drop(stage);
    let before = proxy.tunnels().len();
    assert!(is_minimal(protocols, before), "{before}");

    // With other roots, the proxy is not trusted.
    let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
    fleet
        .plane
        .join(&MemberSpec { proxy_url: Some(proxy.url()), ..MemberSpec::from(&member) })
        .expect("the cluster joins");
    let other_roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(other_roots.path(), Authority::new("other-ca").pem()).expect("written");
    let environment = vec![("SSL_CERT_FILE".to_owned(), other_roots.path().display().to_string())];
    let stage = Stage::start_in(fleet, &[], environment).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.tunnels().len(), before);
}

/// The error that a client gets for the only member, which is unreachable.
async fn error(stage: &Stage) -> String {
    let deadline = Instant::now() + crate::stage::GENEROUS;
    loop {
        let response = stage.get(PODS).await;
        if response.status == StatusCode::SERVICE_UNAVAILABLE {
            return response.json().expect("JSON")["message"].as_str().expect("a message").to_owned();
        }
        assert!(Instant::now() < deadline, "{response:?}");
    }
}

async fn proxy_error_is_reported_with_its_status(protocols: Protocols) {
    let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
    let anonymous = proxy.url().replace("proxy-user:proxy-password@", "");
    for (proxy_url, endpoint, words) in [
        (anonymous, None, "failed to connect: HTTP 407 Proxy Authentication Required [ProxyFailed]"),
        (proxy.url(), Some("https://127.0.0.1:1"), "failed to connect: HTTP 502 Bad Gateway [ProxyFailed]"),
    ] {
        let stage = Stage::start(Vec::new(), &[]).await;
        let member = member_over(protocols, "member1").await.with_pods("http_requests", 2);
        let mut spec = MemberSpec { proxy_url: Some(proxy_url), ..MemberSpec::from(&member) };
        spec.endpoint = endpoint.map_or(spec.endpoint, str::to_owned);
        stage.fleet.plane.join(&spec).expect("the cluster joins");
        let error = error(&stage).await;
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("proxy-password"), "{error}");
    }
}

async fn tls_trust_comes_from_cluster_and_secret(protocols: Protocols) {
    let stage = Stage::start(Vec::new(), &[]).await;
    let mut members = Vec::new();
    for name in ["bundle", "insecure", "untrusted"] {
        members.push(member_over(protocols, name).await.with_pods("http_requests", 1));
    }
    let other = Authority::new("other-ca").pem();
    stage.fleet.plane.join(&MemberSpec::from(&members[0])).expect("the cluster joins");
    let insecure =
        MemberSpec { insecure: true, ca_bundle: Some(other.clone()), ..MemberSpec::from(&members[1]) };
    stage.fleet.plane.join(&insecure).expect("the cluster joins");
    stage
        .fleet
        .plane
        .join(&MemberSpec { ca_bundle: Some(other), ..MemberSpec::from(&members[2]) })
        .expect("the cluster joins");
    until(&stage, |names| names == ["bundle", "insecure"]).await;
    let response = stage.get(PODS).await;
    assert_eq!(clusters(&response.json().expect("JSON")), ["bundle", "insecure"]);
    let warnings = response.warnings();
    assert!(warnings[0].contains("untrusted: the API server's certificate is not signed"), "{warnings:?}");
}

async fn cluster_without_a_secret_is_not_a_member(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 1, 1).await, &[]).await;
    let pull = MemberSpec { name: "pull".to_owned(), ready: true, ..MemberSpec::default() };
    stage.fleet.plane.join(&pull).expect("the cluster joins");
    let unusable = r#"karmada_metrics_adapter_clusters{standing="outside"} 1"#;
    let deadline = Instant::now() + crate::stage::GENEROUS;
    while !stage.metrics().await.contains(unusable) {
        assert!(Instant::now() < deadline, "{}", stage.metrics().await);
    }
    let response = stage.get(PODS).await;
    assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()));
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert_eq!(log.lines().filter(|line| line.contains("the cluster is not queried")).count(), 1, "{log}");
}

async fn member_rate_is_limited(protocols: Protocols) {
    let flags =
        ["--cluster-api-qps=5", "--cluster-api-burst=1", "--discovery-interval=1h", "--member-timeout=30s"];
    let stage = Stage::start(members_over(protocols, 1, 1).await, &flags).await;
    let start = Instant::now();
    for _ in 0..6 {
        assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    }
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "six queries took {:?} at 5 a second",
        start.elapsed()
    );
}
