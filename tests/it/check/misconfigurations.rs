//! Members with one misconfiguration each, and the expected findings of `check`.

use std::net::{Ipv4Addr, SocketAddr};

use http::StatusCode;
use serde_json::json;
use testkit::black_hole::BlackHole;
use testkit::control_plane::MemberSpec;
use testkit::fleet::Fleet;
use testkit::member::{
    ExternalMetrics, Fault, Flaw, Member, MemberOptions, Pod, Registration, Resource, Series,
};
use testkit::proxy::{Kind, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const CLUSTER_NAMESPACE: &str = "karmada-cluster";
const CUSTOM: &str = "custom.metrics.k8s.io";
/// The link for the sample query.
pub const QUERY: &str = "sample query";

/// Cluster name, broken link, cause and a part of the message. The cluster has the misconfiguration of its name.
pub const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("other-authority", "connection", "UnknownAuthority", "not signed by a CA in the given CA bundle"),
    ("bundle-of-another", "connection", "UnknownAuthority", "not signed by a CA in the given CA bundle"),
    ("expired-certificate", "connection", "CertificateExpired", "has expired"),
    ("early-certificate", "connection", "CertificateNotYetValid", "not valid yet"),
    (
        "name-of-another",
        "connection",
        "CertificateNameMismatch",
        "not valid for 127.0.0.1; it is valid for elsewhere.example",
    ),
    ("expired-token", "token", "Unauthorized", "does not accept the token"),
    ("no-secret", "credentials", "SecretMissing", "karmada-cluster/no-secret does not exist"),
    ("no-token", "credentials", "TokenMissing", "has no token"),
    ("no-bundle", "connection", "UnknownAuthority", "no CA bundle is given"),
    ("malformed-token", "credentials", "CredentialsMalformed", "the token contains characters"),
    ("password-in-endpoint", "credentials", "CredentialsMalformed", "is not the URL of an API server"),
    ("not-ready", "Cluster", "NotReady", "ClusterNotReachable: cluster is not reachable"),
    ("pull-mode", "credentials", "PullMode", "Pull mode"),
    ("unknown-host", "connection", "NameUnknown", "member.invalid:6443"),
    ("refused", "connection", "ConnectionRefused", "nothing listens there"),
    ("black-hole", "connection", "NoConnection", "timeout after"),
    ("frozen", "connection", "NoAnswer", "no response from the API server within"),
    ("hung", "connection", "NoAnswer", "no response from the API server within"),
    ("no-tls", "connection", "TLSFailed", "does not speak TLS"),
    ("no-prefix", "connection", "NotAPIServer", "HTTP 404"),
    ("proxy-refuses", "connection", "ProxyFailed", "refuses connections"),
    ("proxy-black-hole", "connection", "ProxyFailed", "timeout after"),
    ("proxy-refuses-us", "connection", "ProxyFailed", "failed to connect: HTTP"),
    ("proxy-leads-nowhere", "connection", "ProxyFailed", "failed to connect: HTTP"),
    ("proxy-certificate", "connection", "ProxyFailed", "certificate"),
    ("forbidden", QUERY, "Forbidden", "cannot get resource"),
    ("discovery-forbidden", CUSTOM, "Forbidden", "cannot get path"),
    ("no-prometheus-adapter", CUSTOM, "APIMissing", "no APIService is registered"),
    ("api-service-absent", CUSTOM, "APIMissing", "no APIService is registered"),
    ("api-service-unavailable", CUSTOM, "APIUnavailable", "MissingEndpoints: endpoints have no addresses"),
    ("one-version-unavailable", CUSTOM, "APIUnavailable", "v1beta1.custom.metrics.k8s.io is not available"),
    ("hung-metrics", CUSTOM, "Timeout", "no response from the metrics API within"),
    ("failing-metrics", QUERY, "APIFailing", "HTTP 500: no prometheus"),
    ("unknown-metric", QUERY, "MetricUnknown", "lists other metrics (1), but not http_requests"),
    ("metric-of-services", QUERY, "MetricUnknown", "for services, but not for pods"),
    ("no-series", QUERY, "NoSeries", "have no values"),
    ("wrong-namespace", QUERY, "WrongNamespace", "no pods in the namespace default"),
    ("wrong-selector", QUERY, "SelectorMatchesNothing", "none of them matches"),
    ("wrong-selector-no-values", QUERY, "SelectorMatchesNothing", "no pod in the namespace default matches"),
];

/// Servers between the control plane and the members. They must run until the check has ended.
pub struct Environment {
    black_hole: BlackHole,
    proxy: Proxy,
    secure_proxy: Proxy,
    plain: SocketAddr,
}

impl Environment {
    pub async fn start() -> Self {
        Self {
            black_hole: BlackHole::start().await.expect("a black hole"),
            proxy: Proxy::start(Kind::Http).await.expect("a proxy"),
            secure_proxy: Proxy::start(Kind::Https).await.expect("a proxy"),
            plain: plain_server().await.expect("a server"),
        }
    }
}

/// An HTTP server without TLS. It runs until the test ends.
async fn plain_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // Read the request first: unread data causes a reset, which can drop the response.
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    Ok(address)
}

/// Starts a member with this name, prepared for its misconfiguration.
pub async fn start(name: &str) -> Member {
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

/// Applies the misconfiguration of the member's name in a running fleet.
pub fn misconfigure(fleet: &Fleet, member: &Member, environment: &Environment) {
    let name = member.name();
    let valid = MemberSpec::from(member);
    let join = |spec: MemberSpec| fleet.plane.join(&spec).expect("the cluster joins");
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
        "bundle-of-another" => join(MemberSpec { ca_bundle: Some(fleet.plane.ca_pem()), ..valid }),
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
                .expect("the Secret is applied"),
        ),
        "no-bundle" => join(MemberSpec { ca_bundle: None, ..valid }),
        "malformed-token" => join(MemberSpec { token: Some(format!("{}\nx", member.token())), ..valid }),
        "password-in-endpoint" => {
            let endpoint = "https://user:proxy-password@127.0.0.1:6443".to_owned();
            join(MemberSpec { endpoint, ..valid });
        }
        "not-ready" => fleet.plane.set_ready(name, false),
        "pull-mode" => join(MemberSpec { token: None, ..valid }),
        "unknown-host" => {
            join(MemberSpec { endpoint: "https://member.invalid:6443".to_owned(), ..valid });
        }
        "refused" => member.fault(Fault::Refused),
        "black-hole" => {
            join(MemberSpec { endpoint: format!("https://{}", environment.black_hole.address()), ..valid });
        }
        "frozen" => member.fault(Fault::Frozen),
        "hung" => member.fault(Fault::Hang),
        "no-tls" => join(MemberSpec { endpoint: format!("https://{}", environment.plain), ..valid }),
        "no-prefix" => {
            let endpoint = valid.endpoint.trim_end_matches("/k8s/clusters/c-1").to_owned();
            join(MemberSpec { endpoint, ..valid });
        }
        // No process listens on this port.
        "proxy-refuses" => through("http://proxy-user:proxy-password@127.0.0.1:1".to_owned()),
        "proxy-black-hole" => through(format!("socks5://{}", environment.black_hole.address())),
        "proxy-refuses-us" => through(environment.proxy.url().replace("proxy-password", "other-password")),
        "proxy-leads-nowhere" => {
            member.fault(Fault::Refused);
            through(environment.proxy.url());
        }
        "proxy-certificate" => through(environment.secure_proxy.url()),
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
