//! `check`: what is wrong with a member is named by its cause, and nobody else is called broken.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::adapter::AdapterProcess;
use testkit::black_hole::BlackHole;
use testkit::control_plane::{EXTERNAL_METRICS, MemberSpec, RESOURCE_METRICS};
use testkit::fleet::Fleet;
use testkit::member::{
    ExternalMetrics, Fault, Flaw, Member, MemberOptions, Pod, Registration, Resource, Series,
};
use testkit::proxy::{Kind, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::process::run;
use crate::stage::{GENEROUS, binary, members};

const CLUSTER_NAMESPACE: &str = "karmada-cluster";
const CUSTOM: &str = "custom.metrics.k8s.io";
const QUERY: &str = "sample query";
/// What every row is asked for.
const SAMPLE: [&str; 3] = ["--metric=http_requests", "-n=default", "-l=app=sample-app"];

/// A cluster with this name and misconfiguration: which link is called broken, by which cause, in which words.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("other-authority", "connection", "UnknownAuthority", "not signed by the CA bundle"),
    ("bundle-of-another", "connection", "UnknownAuthority", "not signed by the CA bundle"),
    ("expired-certificate", "connection", "CertificateExpired", "has expired"),
    ("early-certificate", "connection", "CertificateNotYetValid", "not valid yet"),
    (
        "name-of-another",
        "connection",
        "CertificateNameMismatch",
        "not for 127.0.0.1, but for elsewhere.example",
    ),
    ("expired-token", "token", "Unauthorized", "does not accept the token"),
    ("no-secret", "credentials", "SecretMissing", "karmada-cluster/no-secret does not exist"),
    ("no-token", "credentials", "TokenMissing", "has no token"),
    ("no-bundle", "connection", "UnknownAuthority", "no CA bundle is given"),
    ("malformed-token", "credentials", "CredentialsMalformed", "the token has characters"),
    ("password-in-endpoint", "credentials", "CredentialsMalformed", "is no URL of an API server"),
    ("not-ready", "Cluster", "NotReady", "ClusterNotReachable: cluster is not reachable"),
    ("pull-mode", "credentials", "PullMode", "Pull mode"),
    ("nobody-of-that-name", "connection", "NameUnknown", "member.invalid:6443"),
    ("refused", "connection", "ConnectionRefused", "nothing listens there"),
    ("black-hole", "connection", "NoConnection", "timeout after"),
    ("frozen", "connection", "NoAnswer", "no answer from the API server within"),
    ("hung", "connection", "NoAnswer", "no answer from the API server within"),
    ("no-tls", "connection", "TLSFailed", "does not speak TLS"),
    ("no-prefix", "connection", "NotAPIServer", "HTTP 404"),
    ("proxy-refuses", "connection", "ProxyFailed", "refuses connections"),
    ("proxy-black-hole", "connection", "ProxyFailed", "timeout after"),
    ("proxy-refuses-us", "connection", "ProxyFailed", "lets no connection through: HTTP"),
    ("proxy-leads-nowhere", "connection", "ProxyFailed", "lets no connection through: HTTP"),
    ("proxy-certificate", "connection", "ProxyFailed", "certificate"),
    ("forbidden", QUERY, "Forbidden", "cannot get resource"),
    ("discovery-forbidden", CUSTOM, "Forbidden", "cannot get path"),
    ("no-prometheus-adapter", CUSTOM, "APIMissing", "no APIService is registered"),
    ("api-service-absent", CUSTOM, "APIMissing", "no APIService is registered"),
    ("api-service-unavailable", CUSTOM, "APIUnavailable", "MissingEndpoints: endpoints have no addresses"),
    ("one-version-unavailable", CUSTOM, "APIUnavailable", "v1beta1.custom.metrics.k8s.io is not available"),
    ("hung-metrics", CUSTOM, "Timeout", "no answer from the metrics API within"),
    ("failing-metrics", QUERY, "APIFailing", "HTTP 500: no prometheus"),
    ("unknown-metric", QUERY, "MetricUnknown", "lists metrics (1), and no http_requests"),
    ("metric-of-services", QUERY, "MetricUnknown", "for services, and not for pods"),
    ("no-series", QUERY, "NoSeries", "have no values of it"),
    ("wrong-namespace", QUERY, "WrongNamespace", "no pods in the namespace default"),
    ("wrong-selector", QUERY, "SelectorMatchesNothing", "none of them matches"),
    ("wrong-selector-no-values", QUERY, "SelectorMatchesNothing", "no pod of default matches"),
];

/// What stands between the control plane and members, and must outlive a check.
struct Surroundings {
    black_hole: BlackHole,
    proxy: Proxy,
    secure_proxy: Proxy,
    plain: SocketAddr,
}

/// A fleet with an adapter that serves all four APIServices.
pub async fn served(members: Vec<Member>) -> (Fleet, AdapterProcess) {
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    let adapter = fleet.start_adapter(binary(), &[], None).await.expect("the adapter starts");
    let names = [RESOURCE_METRICS, EXTERNAL_METRICS];
    fleet.register(&adapter, &names).expect("they are registered");
    for name in names {
        let available = tokio::time::timeout(GENEROUS, fleet.plane.available(name)).await;
        available.expect("it is available in time").expect("it is registered");
    }
    (fleet, adapter)
}

/// What `check -o json` prints as whoever the kubeconfig names, and its exit code.
pub async fn check(kubeconfig: &Path, flags: &[&str]) -> (Option<i32>, Value) {
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let (code, out, err) = run(&[&["check", "-o", "json", &kubeconfig], flags].concat()).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    for finding in report["findings"].as_array().expect("findings") {
        let (is_ok, has_remedy) = (finding["verdict"] == "ok", finding["remedy"].is_string());
        assert_eq!((is_ok, is_ok), (finding["cause"].is_null(), !has_remedy), "{finding}");
    }
    (code, report)
}

/// What is not well, as `cluster: link: verdict: cause`, `-` standing for the control plane.
pub fn amiss(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line =
        |finding: &Value| ["cluster", "link", "verdict", "cause"].map(|key| text(&finding[key])).join(": ");
    findings.filter(|finding| finding["verdict"] != "ok").map(line).collect()
}

/// The message about a link that is not well.
pub fn message(report: &Value, cause: &str) -> String {
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["cause"] == cause);
    found.and_then(|finding| finding["message"].as_str()).unwrap_or_default().to_owned()
}

/// A server that speaks HTTP without TLS, for as long as the test takes.
async fn plain_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // What the client says is read, or the answer would be lost with a reset.
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    Ok(address)
}

async fn start(name: &str) -> Member {
    let options = match name {
        "no-prometheus-adapter" => MemberOptions {
            versions: Vec::new(),
            external_metrics: ExternalMetrics::Absent,
            ..MemberOptions::default()
        },
        "no-prefix" => {
            MemberOptions { path_prefix: "/k8s/clusters/c-1".to_owned(), ..MemberOptions::default() }
        }
        _ => MemberOptions::default(),
    };
    let member = Member::start_with(name, options).await.expect("a member starts");
    let value =
        |resource, namespace, name| Series::new(resource, Some(namespace), name, "http_requests", "1");
    let own_pod = |namespace, app| Pod::running(namespace, "some-pod", &[("app", app)]);
    match name {
        "unknown-metric" => return member.with_pods("other_metric", 1),
        "metric-of-services" => {
            member.store().set_pod(own_pod("default", "sample-app"));
            member.set_metric(value(Resource::SERVICES, "default", "some-service"));
        }
        "no-series" => {
            member.store().set_pod(own_pod("default", "sample-app"));
            member.set_metric(value(Resource::PODS, "elsewhere", "another-pod"));
        }
        "wrong-namespace" => {
            member.store().set_pod(own_pod("elsewhere", "sample-app"));
            member
                .set_metric(value(Resource::PODS, "elsewhere", "some-pod").object_label("app", "sample-app"));
        }
        "wrong-selector" => {
            member.store().set_pod(own_pod("default", "other"));
            member.set_metric(value(Resource::PODS, "default", "some-pod").object_label("app", "other"));
        }
        "wrong-selector-no-values" => {
            member.store().set_pod(own_pod("default", "other"));
            member.set_metric(value(Resource::PODS, "elsewhere", "another-pod"));
        }
        _ => return member.with_pods("http_requests", 2),
    }
    member
}

fn spoil(fleet: &Fleet, member: &Member, around: &Surroundings) {
    let name = member.name();
    let well = MemberSpec::from(member);
    let join = |spec: MemberSpec| fleet.plane.join(&spec).expect("it joins");
    let through = |url: String| join(MemberSpec { proxy_url: Some(url), ..MemberSpec::from(member) });
    let refuse = |prefix, text: &str| {
        member.fault_on(prefix, Fault::Refusal(StatusCode::FORBIDDEN, "Forbidden", text.to_owned()));
    };
    let unavailable = || Registration::Unavailable {
        reason: "MissingEndpoints".to_owned(),
        message: "endpoints have no addresses".to_owned(),
    };
    let [newer, older] = ["v1beta2.custom.metrics.k8s.io", "v1beta1.custom.metrics.k8s.io"];
    match name {
        "other-authority" => member.fault(Fault::BadCertificate(Flaw::OtherAuthority)),
        "bundle-of-another" => join(MemberSpec { ca_bundle: Some(fleet.plane.ca_pem()), ..well }),
        "expired-certificate" => member.fault(Fault::BadCertificate(Flaw::Expired)),
        "name-of-another" => member.fault(Fault::BadCertificate(Flaw::WrongName)),
        "early-certificate" => member.fault(Fault::BadCertificate(Flaw::NotYetValid)),
        "expired-token" => drop(member.rotate_token()),
        "no-secret" => assert!(fleet.plane.delete("Secret", CLUSTER_NAMESPACE, name)),
        "no-token" => drop(
            fleet
                .plane
                .apply(json!({
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": name, "namespace": CLUSTER_NAMESPACE},
                    "data": {},
                }))
                .expect("it is applied"),
        ),
        "no-bundle" => join(MemberSpec { ca_bundle: None, ..well }),
        "malformed-token" => join(MemberSpec { token: Some(format!("{}\nx", member.token())), ..well }),
        "password-in-endpoint" => {
            let endpoint = "https://user:proxy-password@127.0.0.1:6443".to_owned();
            join(MemberSpec { endpoint, ..well });
        }
        "not-ready" => fleet.plane.set_ready(name, false),
        "pull-mode" => join(MemberSpec { token: None, ..well }),
        "nobody-of-that-name" => {
            join(MemberSpec { endpoint: "https://member.invalid:6443".to_owned(), ..well });
        }
        "refused" => member.fault(Fault::Refused),
        "black-hole" => {
            join(MemberSpec { endpoint: format!("https://{}", around.black_hole.address()), ..well });
        }
        "frozen" => member.fault(Fault::Frozen),
        "hung" => member.fault(Fault::Hang),
        "no-tls" => join(MemberSpec { endpoint: format!("https://{}", around.plain), ..well }),
        "no-prefix" => {
            let endpoint = well.endpoint.trim_end_matches("/k8s/clusters/c-1").to_owned();
            join(MemberSpec { endpoint, ..well });
        }
        // Where nobody listens.
        "proxy-refuses" => through("http://proxy-user:proxy-password@127.0.0.1:1".to_owned()),
        "proxy-black-hole" => through(format!("socks5://{}", around.black_hole.address())),
        "proxy-refuses-us" => through(around.proxy.url().replace("proxy-password", "other-password")),
        "proxy-leads-nowhere" => {
            member.fault(Fault::Refused);
            through(around.proxy.url());
        }
        "proxy-certificate" => through(around.secure_proxy.url()),
        "forbidden" => refuse(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces",
            "cannot get resource \"pods/http_requests\"",
        ),
        "discovery-forbidden" => refuse("/apis/custom.metrics.k8s.io", "cannot get path"),
        "api-service-absent" => {
            [newer, older].iter().for_each(|version| member.set_api_service(version, Registration::Absent));
        }
        "api-service-unavailable" => {
            [newer, older].iter().for_each(|version| member.set_api_service(version, unavailable()));
        }
        "one-version-unavailable" => {
            member.set_api_service(newer, Registration::Absent);
            member.set_api_service(older, unavailable());
        }
        "hung-metrics" => member.fault_on("/apis/custom.metrics.k8s.io", Fault::Hang),
        "failing-metrics" => member.fault_on(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces",
            Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "no prometheus".to_owned()),
        ),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misconfiguration_is_named_by_its_cause_and_nobody_else_is_called_broken() {
    let mut all = members(2, 1).await;
    for (name, ..) in BROKEN {
        all.push(start(name).await);
    }
    let (fleet, _adapter) = served(all).await;
    let around = Surroundings {
        black_hole: BlackHole::start().await.expect("a black hole"),
        proxy: Proxy::start(Kind::Http).await.expect("a proxy"),
        secure_proxy: Proxy::start(Kind::Https).await.expect("a proxy"),
        plain: plain_server().await.expect("a server"),
    };
    let mut secrets: Vec<String> = fleet.members.iter().map(Member::token).collect();
    fleet.members.iter().for_each(|member| spoil(&fleet, member, &around));
    secrets.extend(fleet.members.iter().map(Member::token));
    secrets.extend(["proxy-password", "other-password"].map(str::to_owned));
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let line = |(name, link, cause, _): &(&str, &str, &str, &str)| format!("{name}: {link}: broken: {cause}");

    // An application need not be in each cluster.
    let beside_others = |row: &(&str, &str, &str, &str)| {
        let is_absent = ["WrongNamespace", "SelectorMatchesNothing"].contains(&row.2);
        line(row).replace("broken", if is_absent { "warning" } else { "broken" })
    };
    let (code, report) = check(&kubeconfig, &[&["--member-timeout=3s"][..], &SAMPLE].concat()).await;
    assert_eq!(amiss(&report), BROKEN.iter().map(beside_others).collect::<BTreeSet<_>>());
    assert_eq!(code, Some(1));
    for (_, _, cause, words) in BROKEN {
        let findings = report["findings"].as_array().expect("findings").iter();
        let mut messages = findings
            .filter(|finding| finding["cause"] == *cause)
            .filter_map(|finding| finding["message"].as_str());
        assert!(messages.any(|message| message.contains(words)), "{cause}: nobody says {words:?}");
    }
    let printed = report.to_string();
    assert!(secrets.iter().all(|secret| !printed.contains(secret)), "a secret is in {printed}");

    // And each by itself.
    let each = stream::iter(BROKEN).map(async |row| {
        let only = format!("--cluster={}", row.0);
        let (code, report) =
            check(&kubeconfig, &[&["--member-timeout=3s", &only][..], &SAMPLE].concat()).await;
        assert_eq!((code, amiss(&report)), (Some(1), [line(row)].into()));
        assert!(message(&report, row.2).contains(row.3), "{report}");
    });
    each.buffer_unordered(4).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_order_is_called_so_and_values_are_shown() {
    let (fleet, _adapter) = served(members(3, 2).await).await;
    for kubeconfig in [fleet.plane.adapter_kubeconfig(), fleet.plane.admin_kubeconfig()] {
        let (code, report) = check(&kubeconfig.expect("a kubeconfig"), &SAMPLE).await;
        assert_eq!((code, amiss(&report)), (Some(0), BTreeSet::new()), "{report}");
        let findings = report["findings"].as_array().expect("findings").iter();
        let values: Vec<_> = findings.filter(|finding| finding["link"] == QUERY).collect();
        assert_eq!(values.len(), 3, "{report}");
        assert!(
            values
                .iter()
                .all(|found| found["message"].as_str().is_some_and(|text| text.starts_with("values: 2, ")))
        );
    }
    // For people: a table, and nothing to do.
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, out, err) = run(&["check", "--kubeconfig", &kubeconfig.display().to_string()]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.ends_with(" links, 0 broken, 0 with a warning\n") && !out.contains("What to do"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_no_value_away_is_a_warning_and_no_failure() {
    let mut all = members(3, 1).await;
    let keda = MemberOptions {
        versions: Vec::new(),
        external_metrics: ExternalMetrics::Keda,
        ..MemberOptions::default()
    };
    all.push(Member::start_with("keda-only", keda).await.expect("a member starts"));
    let (fleet, _adapter) = served(all).await;
    fleet.members[0].fault(Fault::ClockAhead(120));
    fleet.members[1].fault(Fault::ClockAhead(-3600));
    let cpu =
        Registration::Unavailable { reason: "Gone".to_owned(), message: "no metrics-server".to_owned() };
    fleet.members[2].set_api_service(RESOURCE_METRICS, cpu);
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &[]).await;
    let expected = [
        "keda-only: custom.metrics.k8s.io: warning: APIMissing",
        "member1: clock: warning: ClockSkew",
        "member2: clock: warning: ClockSkew",
        "member3: metrics.k8s.io: warning: APIUnavailable",
    ];
    assert_eq!((code, amiss(&report)), (Some(0), expected.map(str::to_owned).into()));
    let messages = report.to_string();
    assert!(
        messages.contains(" s ahead of this one") && messages.contains(" s behind this one"),
        "{messages}"
    );

    // Who asks for a custom metric misses those of the cluster with KEDA alone.
    let (code, report) = check(&kubeconfig, &[&["--cluster=keda-only"][..], &SAMPLE].concat()).await;
    let expected = "keda-only: custom.metrics.k8s.io: broken: APIMissing".to_owned();
    assert_eq!((code, amiss(&report)), (Some(1), [expected].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_read_metrics_is_found_without_a_sample_query() {
    let (fleet, _adapter) = served(members(4, 1).await).await;
    for (member, prefix) in fleet
        .members
        .iter()
        .zip(["/apis/custom.metrics.k8s.io/v1beta2/namespaces", "/apis/metrics.k8s.io/v1beta1/namespaces"])
    {
        member.fault_on(prefix, Fault::Refusal(StatusCode::FORBIDDEN, "Forbidden", "Forbidden".to_owned()));
    }
    fleet.members[2].fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces", Fault::Hang);
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &["--member-timeout=2s"]).await;
    let expected = [
        "member1: custom.metrics.k8s.io: broken: Forbidden",
        "member2: metrics.k8s.io: warning: Forbidden",
        "member3: custom.metrics.k8s.io: broken: Timeout",
    ];
    assert_eq!((code, amiss(&report)), (Some(1), expected.map(str::to_owned).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_prometheus_is_gone_is_found_without_a_sample_query() {
    let (fleet, _adapter) = served(members(2, 1).await).await;
    // A kind of object that the cluster lacks is a 500 too, and no fault.
    for member in &fleet.members {
        member.set_metric(Series::new(Resource::SERVICES, Some("default"), "s", "http_requests", "1"));
    }
    for (member, resource) in fleet.members.iter().zip(["pods", "services"]) {
        let said = "Internal error occurred: unable to fetch metrics".to_owned();
        let fault = Fault::Refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", said);
        member
            .fault_on(&format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/{resource}/"), fault);
    }
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &[]).await;
    let expected = "member1: custom.metrics.k8s.io: broken: APIFailing".to_owned();
    assert_eq!((code, amiss(&report)), (Some(1), [expected].into()));
    let said = "a query of it: HTTP 500: Internal error occurred: unable to fetch metrics";
    assert_eq!(message(&report, "APIFailing"), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_a_member_does_not_have_is_named_for_any_resource() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let member = &fleet.members[0];
    member.set_metric(Series::new(Resource::SERVICES, Some("default"), "s", "http_requests", "1"));
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    for resource in ["--resource=pods", "--resource=services"] {
        let (code, report) = check(&kubeconfig, &["--metric=http_requests", "-n=nowhere", resource]).await;
        let expected = format!("member1: {QUERY}: broken: WrongNamespace");
        assert_eq!((code, amiss(&report)), (Some(1), [expected].into()), "{resource}");
        assert!(message(&report, "WrongNamespace").contains("no namespace nowhere"), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_members_of_which_five_are_black_holes_take_no_longer_than_one() {
    let all = members(30, 1).await;
    let (fleet, _adapter) = served(all).await;
    let hole = BlackHole::start().await.expect("a black hole");
    for member in &fleet.members[..5] {
        let endpoint = format!("https://{}", hole.address());
        fleet.plane.join(&MemberSpec { endpoint, ..member.into() }).expect("it joins");
    }
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let begun = Instant::now();
    let (code, report) = check(&kubeconfig, &[&["--member-timeout=5s"][..], &SAMPLE].concat()).await;
    let took = begun.elapsed();
    let expected =
        (1..=5).map(|number| format!("member{number}: connection: broken: NoConnection")).collect();
    assert_eq!((code, amiss(&report)), (Some(1), expected));
    // One after the other they would take 25 s.
    assert!(took < Duration::from_secs(15), "{took:?}");
}
