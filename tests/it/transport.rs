//! How members are reached: proxies, trust, rates.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::control_plane::MemberSpec;
use testkit::fleet::Fleet;
use testkit::member::Protocols;
use testkit::pki::Authority;
use testkit::proxy::{Kind, Proxy};

use crate::stage::{PODS, Stage, clusters, member_over, members_over, over_both_protocols, until};

over_both_protocols!(
    a_member_behind_a_proxy_is_asked_through_it,
    a_proxy_that_speaks_tls_is_trusted_as_the_system_trusts,
    a_proxy_that_refuses_is_named_with_its_status,
    trust_is_what_the_cluster_and_its_secret_say,
    a_cluster_without_a_secret_is_no_member_and_no_failure,
    a_rate_that_is_given_is_kept,
);

/// Over HTTP/2 one connection is enough.
fn is_as_few_as_can_be(protocols: Protocols, connections: usize) -> bool {
    if protocols == Protocols::Http1 { (1..=8).contains(&connections) } else { connections == 1 }
}

async fn a_member_behind_a_proxy_is_asked_through_it(protocols: Protocols) {
    for kind in [Kind::Http, Kind::Socks5] {
        let stage = Stage::start(Vec::new(), &[]).await;
        let member = member_over(protocols, "member1").await.with_pods("http_requests", 2);
        let proxy = Proxy::start(kind).await.expect("a proxy starts");
        let joined = stage.fleet.plane.join(&MemberSpec {
            proxy_url: Some(proxy.url()),
            proxy_header: vec![("X-Tenant".to_owned(), "one,two".to_owned())],
            ..MemberSpec::from(&member)
        });
        joined.expect("it joins");
        until(&stage, |names| names == ["member1"]).await;
        let tunnels = proxy.tunnels();
        assert!(is_as_few_as_can_be(protocols, tunnels.len()), "{kind:?}: {tunnels:?}");
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

async fn a_proxy_that_speaks_tls_is_trusted_as_the_system_trusts(protocols: Protocols) {
    let proxy = Proxy::start(Kind::Https).await.expect("a proxy starts");
    let roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(roots.path(), proxy.ca_pem()).expect("written");
    let member = member_over(protocols, "member1").await.with_pods("http_requests", 2);
    let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
    fleet
        .plane
        .join(&MemberSpec { proxy_url: Some(proxy.url()), ..MemberSpec::from(&member) })
        .expect("it joins");
    let environment = vec![("SSL_CERT_FILE".to_owned(), roots.path().display().to_string())];
    let stage = Stage::start_in(fleet, &[], environment).await;
    until(&stage, |names| names == ["member1"]).await;
    drop(stage);
    let before = proxy.tunnels().len();
    assert!(is_as_few_as_can_be(protocols, before), "{before}");

    // Without it, the proxy is a stranger.
    let fleet = Fleet::start(Vec::new()).await.expect("the fleet starts");
    fleet
        .plane
        .join(&MemberSpec { proxy_url: Some(proxy.url()), ..MemberSpec::from(&member) })
        .expect("it joins");
    let stranger = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(stranger.path(), Authority::new("somebody-else").pem()).expect("written");
    let environment = vec![("SSL_CERT_FILE".to_owned(), stranger.path().display().to_string())];
    let stage = Stage::start_in(fleet, &[], environment).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.tunnels().len(), before);
}

/// What a client reads of the only member, which cannot be reached.
async fn complaint(stage: &Stage) -> String {
    let deadline = Instant::now() + crate::stage::GENEROUS;
    loop {
        let answer = stage.get(PODS).await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            return answer.json().expect("JSON")["message"].as_str().expect("a message").to_owned();
        }
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

async fn a_proxy_that_refuses_is_named_with_its_status(protocols: Protocols) {
    let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
    let nobody = proxy.url().replace("proxy-user:proxy-password@", "");
    for (proxy_url, endpoint, words) in [
        (nobody, None, "lets no connection through: HTTP 407 Proxy Authentication Required [ProxyFailed]"),
        (
            proxy.url(),
            Some("https://127.0.0.1:1"),
            "lets no connection through: HTTP 502 Bad Gateway [ProxyFailed]",
        ),
    ] {
        let stage = Stage::start(Vec::new(), &[]).await;
        let member = member_over(protocols, "member1").await.with_pods("http_requests", 2);
        let mut spec = MemberSpec { proxy_url: Some(proxy_url), ..MemberSpec::from(&member) };
        spec.endpoint = endpoint.map_or(spec.endpoint, str::to_owned);
        stage.fleet.plane.join(&spec).expect("it joins");
        let complaint = complaint(&stage).await;
        assert!(complaint.contains(words), "{complaint}");
        assert!(!complaint.contains("proxy-password"), "{complaint}");
    }
}

async fn trust_is_what_the_cluster_and_its_secret_say(protocols: Protocols) {
    let stage = Stage::start(Vec::new(), &[]).await;
    let mut members = Vec::new();
    for name in ["bundle", "insecure", "stranger"] {
        members.push(member_over(protocols, name).await.with_pods("http_requests", 1));
    }
    let other = Authority::new("somebody-else").pem();
    stage.fleet.plane.join(&MemberSpec::from(&members[0])).expect("it joins");
    let insecure =
        MemberSpec { insecure: true, ca_bundle: Some(other.clone()), ..MemberSpec::from(&members[1]) };
    stage.fleet.plane.join(&insecure).expect("it joins");
    stage
        .fleet
        .plane
        .join(&MemberSpec { ca_bundle: Some(other), ..MemberSpec::from(&members[2]) })
        .expect("it joins");
    until(&stage, |names| names == ["bundle", "insecure"]).await;
    let answer = stage.get(PODS).await;
    assert_eq!(clusters(&answer.json().expect("JSON")), ["bundle", "insecure"]);
    let warnings = answer.warnings();
    assert!(warnings[0].contains("stranger: the API server's certificate is not signed"), "{warnings:?}");
}

async fn a_cluster_without_a_secret_is_no_member_and_no_failure(protocols: Protocols) {
    let stage = Stage::start(members_over(protocols, 1, 1).await, &[]).await;
    let pull = MemberSpec { name: "pull".to_owned(), ready: true, ..MemberSpec::default() };
    stage.fleet.plane.join(&pull).expect("it joins");
    let outside = r#"karmada_metrics_adapter_clusters{standing="outside"} 1"#;
    let deadline = Instant::now() + crate::stage::GENEROUS;
    while !stage.metrics().await.contains(outside) {
        assert!(Instant::now() < deadline, "{}", stage.metrics().await);
    }
    let answer = stage.get(PODS).await;
    assert_eq!((answer.status, answer.warnings()), (StatusCode::OK, Vec::new()));
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert_eq!(log.lines().filter(|line| line.contains("cluster is not asked")).count(), 1, "{log}");
}

async fn a_rate_that_is_given_is_kept(protocols: Protocols) {
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
