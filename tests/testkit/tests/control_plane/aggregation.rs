//! The aggregation layer in front of a server that records its requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use serde_json::{Value, json};
use testkit::api_client::Credentials;
use testkit::control_plane::{
    BACKEND_NAMESPACE, BACKEND_SERVICE, CUSTOM_METRICS, ControlPlane, EXTERNAL_METRICS, RESOURCE_METRICS,
};
use testkit::https::{self, Body, Handler, Server, full};
use testkit::pki::{self, Authority};

use super::{get, within};

const OPENAPI_V3: &str = "/openapi/v3/apis/custom.metrics.k8s.io/v1beta2?hash=1";
const V1BETA2: &str = "v1beta2.custom.metrics.k8s.io";
const PODS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";

/// A request as the backend received it: request line, version, and headers in order.
#[derive(Clone, Debug)]
struct Got {
    line: String,
    version: Version,
    headers: Vec<(String, String)>,
}

/// A backend in place of the adapter.
struct Backend {
    server: Server,
    authority: Authority,
    got: Arc<Mutex<Vec<Got>>>,
    /// The number of next probes that fail.
    failing: Arc<AtomicUsize>,
}

impl Backend {
    async fn start(plane: &ControlPlane, protocols: &[&str]) -> Self {
        let authority = Authority::new("adapter-ca");
        let identity = authority.server(&[&format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc")]);
        let front_proxies = pki::roots(&plane.front_proxy_ca_pem()).unwrap();
        let tls = https::tls(&identity, Some(front_proxies), protocols).unwrap();
        let (got, failing) = (Arc::<Mutex<Vec<Got>>>::default(), Arc::<AtomicUsize>::default());
        let handler: Handler = {
            let (got, failing) = (got.clone(), failing.clone());
            Arc::new(move |request, peer| {
                assert!(peer.certificate.is_some(), "the front proxy presents a certificate");
                got.lock().unwrap().push(Got::of(&request));
                let response = answer(&request, &failing);
                Box::pin(async move { Ok(response) })
            })
        };
        let server = Server::start(tls, handler).await.unwrap();
        Self { server, authority, got, failing }
    }

    async fn registered(plane: &ControlPlane, protocols: &[&str]) -> Self {
        let backend = Self::start(plane, protocols).await;
        let pem = backend.authority.pem();
        plane.register_backend(backend.server.address(), Some(&pem), &CUSTOM_METRICS).unwrap();
        for name in CUSTOM_METRICS {
            within(plane.available(name)).await.unwrap();
        }
        backend
    }

    fn got(&self, line: &str) -> Vec<Got> {
        self.got.lock().unwrap().iter().filter(|got| got.line == line).cloned().collect()
    }
}

impl Got {
    fn of<T>(request: &Request<T>) -> Self {
        let pairs = request.headers().iter();
        let pairs = pairs.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Self {
            line: format!("{} {}", request.method(), request.uri().path_and_query().unwrap()),
            version: request.version(),
            headers: pairs.collect(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A handler without authentication.
fn without_authentication() -> Handler {
    Arc::new(|request, _| {
        let response = answer(&request, &AtomicUsize::new(0));
        Box::pin(async move { Ok(response) })
    })
}

fn answer<T>(request: &Request<T>, failing: &AtomicUsize) -> Response<Body> {
    let known = request.headers().get("if-none-match").is_some_and(|etag| etag == "\"1\"");
    let document = match request.uri().path() {
        "/apis" if known => return respond(StatusCode::NOT_MODIFIED, ""),
        "/apis" => json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "items": [{"metadata": {"name": "custom.metrics.k8s.io"}, "versions": [{
                "version": "v1beta2",
                "resources": [{
                    "resource": "pods",
                    "responseKind": {"group": "", "version": "", "kind": ""},
                    "scope": "Namespaced",
                    "singularResource": "",
                    "verbs": [],
                    "subresources": [{
                        "subresource": "http_requests",
                        "responseKind": {"group": "", "version": "", "kind": "MetricValueList"},
                        "verbs": ["get"],
                    }],
                }],
            }]}],
        }),
        "/openapi/v2" if known => return respond(StatusCode::NOT_MODIFIED, ""),
        "/openapi/v2" => openapi(),
        "/openapi/v3" => {
            json!({"paths": {"apis/custom.metrics.k8s.io/v1beta2": {"serverRelativeURL": OPENAPI_V3}}})
        }
        path if path.starts_with("/openapi") => json!({"openapi": "3.0.0"}),
        path if path.matches('/').count() == 3 => {
            let fails = failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() {
                return respond(StatusCode::TOO_MANY_REQUESTS, "later\n");
            }
            json!({"kind": "APIResourceList", "apiVersion": "v1", "resources": []})
        }
        _ => json!({"kind": "MetricValueList", "items": []}),
    };
    respond(StatusCode::OK, &document.to_string())
}

fn openapi() -> Value {
    let returning = |name: &str| {
        let schema = json!({"$ref": format!("#/definitions/{name}")});
        json!({"get": {"responses": {"200": {"description": "OK", "schema": schema}}}})
    };
    json!({
        "swagger": "2.0",
        "paths": {
            "/apis/custom.metrics.k8s.io/v1beta2/nodes": returning("List"),
            "/apis/elsewhere/v1/nodes": returning("Other"),
        },
        "definitions": {
            "List": {"properties": {"items": {"items": {"$ref": "#/definitions/Item"}}}},
            "Item": {"type": "object"},
            "Other": {"type": "object"},
        },
    })
}

fn respond(status: StatusCode, body: &str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("etag", "\"1\"")
        .header("warning", "299 - \"member1 is unreachable\"")
        .body(full(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn request_is_forwarded_as_by_kube_apiserver() {
    let recorded: Value = serde_json::from_str(
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../contract/real/aggregation.json"))
            .unwrap(),
    )
    .unwrap();
    let recorded = &recorded["requests"][0];
    for protocols in [["http/1.1"], ["h2"]] {
        let plane = ControlPlane::start().await.unwrap();
        let backend = Backend::registered(&plane, &protocols).await;
        let mut request = Request::get(format!("{PODS}?labelSelector=app%3Dsample-app"));
        for header in recorded["headers"].as_array().unwrap() {
            let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
            if !name.starts_with("X-") {
                request = request.header(name, value);
            }
        }
        let request = request.header("X-Remote-User", "mallory").header("X-Remote-Group", "system:masters");
        let request = request.header("X-Forwarded-Host", "mallory.example.com");
        let answer = within(plane.admin_client().send(request.body(Bytes::new()).unwrap())).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json().unwrap()["kind"], "MetricValueList");
        assert_eq!(answer.warnings(), ["299 - \"member1 is unreachable\""]);

        let got = backend.got(recorded["request"].as_str().unwrap()).remove(0);
        assert_eq!(got.version, if protocols == ["h2"] { Version::HTTP_2 } else { Version::HTTP_11 });
        // The recording has no values that change with each run.
        let host = backend.server.address().to_string();
        assert_eq!(got.header("x-forwarded-host"), Some(&*host));
        let headers: Vec<_> =
            got.headers.iter().filter(|(name, _)| name != "host" && name != "x-forwarded-host").collect();
        for (header, (name, value)) in recorded["headers"].as_array().unwrap().iter().zip(&headers) {
            assert_eq!(*name, header[0].as_str().unwrap().to_lowercase());
            if name.starts_with("x-remote-extra-") {
                assert!(value.starts_with("X509SHA256=") && value.len() == "X509SHA256=".len() + 64);
            } else {
                assert_eq!(*value, header[1].as_str().unwrap(), "{name}");
            }
        }
        assert_eq!(headers.len(), recorded["headers"].as_array().unwrap().len());
    }
}

#[tokio::test]
async fn path_is_reencoded_as_in_go() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["h2"]).await;
    for (sent, arrives) in [
        ("pods/*/m?b=2&a=x%20y", "pods/%2A/m?a=x+y&b=2"),
        ("pods/%2a/m", "pods/%2A/m"),
        ("pods/a%2Fb(1)/m", "pods/a/b%281%29/m"),
    ] {
        let root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/";
        assert_eq!(get(&plane, &format!("{root}{sent}")).await.status, 200);
        assert_eq!(backend.got(&format!("GET {root}{arrives}")).len(), 1, "{sent}");
    }
    assert_eq!(get(&plane, "/apis/custom.metrics.k8s.io/v1beta2/%zz").await.status, 400);
}

#[tokio::test]
async fn one_backend_can_serve_all_three_metrics_apis() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["h2"]).await;
    let paths = [
        (EXTERNAL_METRICS, "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length"),
        (RESOURCE_METRICS, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"),
    ];
    for (name, path) in paths {
        assert_eq!(get(&plane, path).await.status, 404, "{name} is not registered");
        let pem = backend.authority.pem();
        plane.register_backend(backend.server.address(), Some(&pem), &[name]).unwrap();
        within(plane.available(name)).await.unwrap();
        assert_eq!(get(&plane, path).await.status, 200);
        assert_eq!(backend.got(&format!("GET {path}")).len(), 1);
    }
}

#[tokio::test]
async fn control_plane_authorizes_before_it_forwards() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["h2"]).await;
    plane.add_token("good", "alice", &[]);
    let alice = plane.client(Credentials::Token("good"));
    let answer = alice.get(PODS).await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.json().unwrap()["message"],
        "pods.custom.metrics.k8s.io \"*\" is forbidden: User \"alice\" cannot get resource \"pods/http_requests\" in \
         API group \"custom.metrics.k8s.io\" in the namespace \"default\""
    );
    let line = format!("GET {}", PODS.replace('*', "%2A"));
    assert!(backend.got(&line).is_empty());
    plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["*"]);
    assert_eq!(alice.get(PODS).await.unwrap().status, 200);
    let got = &backend.got(&line)[0];
    assert_eq!(got.header("x-remote-user"), Some("alice"));
    assert_eq!(got.header("authorization"), None);
    let posted = alice.send_json(Method::POST, PODS, &json!({})).await.unwrap();
    assert_eq!(posted.status, 403);
}

#[tokio::test]
async fn one_success_of_five_probes_is_enough() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["http/1.1"]).await;
    let line = "GET /apis/custom.metrics.k8s.io/v1beta2";
    let arrived = async |count| {
        while backend.got(line).len() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(arrived(5)).await;
    plane.probe_now(V1BETA2).await.unwrap();
    let probes = backend.got(line);
    assert_eq!(probes.len(), 10);
    let sent = ["user-agent", "x-remote-group", "x-remote-user", "accept-encoding"];
    let values = ["Go-http-client/1.1", "system:masters", "system:kube-aggregator", "gzip"];
    assert_eq!(sent.map(|name| probes[0].header(name).unwrap()), values);

    backend.failing.store(4, Ordering::SeqCst);
    assert!(plane.probe_now(V1BETA2).await.unwrap().available);
    let failures = plane.probe_failures(V1BETA2).unwrap();
    assert_eq!(failures.len(), 4);
    assert!(failures[0].ends_with("/apis/custom.metrics.k8s.io/v1beta2: 429"), "{}", failures[0]);

    backend.failing.store(usize::MAX, Ordering::SeqCst);
    let state = plane.probe_now(V1BETA2).await.unwrap();
    assert!(!state.available);
    assert_eq!(state.reason, "FailedDiscoveryCheck");
    let refused = get(&plane, PODS).await;
    assert_eq!((refused.status.as_u16(), &refused.body[..]), (503, b"service unavailable\n".as_slice()));
    assert_eq!(refused.headers["content-type"], "text/plain; charset=utf-8");

    backend.failing.store(0, Ordering::SeqCst);
    assert!(plane.probe_now(V1BETA2).await.unwrap().available);
    let flips: Vec<bool> = plane.transitions(V1BETA2).unwrap().iter().map(|state| state.available).collect();
    assert_eq!(flips, [true, false, true]);
    let object = plane.object("APIService", "", V1BETA2).unwrap();
    assert_eq!(object["status"]["conditions"][0]["reason"], "Passed");
}

#[tokio::test]
async fn hanging_backend_times_out() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["h2"]).await;
    backend.server.set_network(testkit::https::Network::Frozen);
    let began = Instant::now();
    let (list, document) = tokio::join!(
        get(&plane, "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/x/m?timeout=1s"),
        get(&plane, "/apis/custom.metrics.k8s.io/v1beta2"),
    );
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(
        (list.status.as_u16(), list.headers["content-type"].as_bytes()),
        (504, &b"text/plain; charset=utf-8"[..])
    );
    let status = list.json().unwrap();
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&json!(null), &json!("Timeout"), &json!(504))
    );
    assert_eq!(document.status, 503);
    assert_eq!(document.body, "error trying to reach service: context deadline exceeded\n");
}

#[tokio::test]
async fn missing_backend_is_unavailable_until_it_starts() {
    let plane = ControlPlane::start().await.unwrap();
    plane.set_probe_interval(Duration::from_millis(50));
    let backend = Backend::start(&plane, &["h2"]).await;
    backend.server.set_network(testkit::https::Network::Refused);
    plane.register_backend(backend.server.address(), None, &[V1BETA2]).unwrap();
    let mut state = plane.availability(V1BETA2).unwrap();
    let reason = within(state.wait_for(|state| !state.available && !state.reason.is_empty())).await.unwrap();
    assert!(reason.message.starts_with("failing or missing response from https://127.0.0.1:"));
    drop(reason);
    backend.server.set_network(testkit::https::Network::Open);
    within(plane.available(V1BETA2)).await.unwrap();
    assert_eq!(get(&plane, PODS).await.status, 200);
    plane.deregister_backend(&[V1BETA2]);
    assert_eq!(get(&plane, PODS).await.status, 404);
}

#[tokio::test]
async fn backend_with_a_wrong_certificate_is_unavailable() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::start(&plane, &["h2"]).await;
    let other = Authority::new("another-ca");
    let elsewhere = other.server(&["other.karmada-system.svc"]);
    let server = Server::start(https::tls(&elsewhere, None, &["h2"]).unwrap(), without_authentication())
        .await
        .unwrap();
    for (address, message) in [
        (backend.server.address(), "certificate signed by unknown authority".to_owned()),
        (
            server.address(),
            format!(
                "certificate is valid for other.karmada-system.svc, not {BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc"
            ),
        ),
    ] {
        plane.register_backend(address, Some(&other.pem()), &[V1BETA2]).unwrap();
        let state = plane.probe_now(V1BETA2).await.unwrap();
        assert_eq!((state.available, state.reason.as_str()), (false, "FailedDiscoveryCheck"));
        let url = format!("https://{address}/apis/custom.metrics.k8s.io/v1beta2");
        let expected = format!(
            "failing or missing response from {url}: Get \"{url}\": tls: failed to verify certificate: x509: {message}"
        );
        assert_eq!(state.message, expected);
        assert_eq!(get(&plane, PODS).await.body, "service unavailable\n");
    }
}

#[tokio::test]
async fn older_probe_accepts_any_certificate_but_requests_fail() {
    let plane = ControlPlane::start().await.unwrap();
    plane.probe_without_verifying();
    let backend = Backend::start(&plane, &["h2"]).await;
    let other = Authority::new("another-ca").pem();
    plane.register_backend(backend.server.address(), Some(&other), &[V1BETA2]).unwrap();
    within(plane.available(V1BETA2)).await.unwrap();
    let answer = get(&plane, PODS).await;
    assert_eq!(answer.status, 503);
    let message = "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by \
                unknown authority\n";
    assert_eq!(answer.body, message);
}

#[tokio::test]
async fn discovery_is_fetched_with_etags_and_merged() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["h2"]).await;
    plane.poll_discovery_now(CUSTOM_METRICS[0]).await.unwrap();
    let again = plane.poll_discovery_now(CUSTOM_METRICS[0]).await.unwrap();
    assert_eq!(again[0], ("/apis", Some(StatusCode::NOT_MODIFIED)));
    assert_eq!(again[1], ("/openapi/v2", Some(StatusCode::NOT_MODIFIED)));
    let openapi = &backend.got("GET /openapi/v3")[0];
    assert_eq!(
        (openapi.header("x-remote-user"), openapi.header("x-remote-group")),
        (Some("system:aggregator"), None)
    );

    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = Request::get("/apis").header("accept", accept).body(Bytes::new()).unwrap();
    let answer = plane.admin_client().send(request).await.unwrap();
    assert_eq!(
        answer.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let document = answer.json().unwrap();
    let groups = document["items"].as_array().unwrap();
    let custom = groups.iter().find(|group| group["metadata"]["name"] == "custom.metrics.k8s.io").unwrap();
    assert_eq!(custom["versions"][0]["version"], "v1beta2");
    assert_eq!(custom["versions"][0]["resources"][0]["subresources"][0]["subresource"], "http_requests");
    assert_eq!(custom["versions"][0]["freshness"], "Current");
    assert_eq!(custom["versions"][1]["version"], "v1beta1");
    let plain = get(&plane, "/apis/custom.metrics.k8s.io").await.json().unwrap();
    assert_eq!(plain["preferredVersion"]["groupVersion"], "custom.metrics.k8s.io/v1beta2");
}

#[tokio::test]
async fn openapi_documents_come_from_the_backend() {
    let plane = ControlPlane::start().await.unwrap();
    let backend = Backend::registered(&plane, &["h2"]).await;
    plane.poll_discovery_now(V1BETA2).await.unwrap();
    let merged = get(&plane, "/openapi/v2").await.json().unwrap();
    let keys = |key: &str| merged[key].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("paths"), ["/apis/custom.metrics.k8s.io/v1beta2/nodes"]);
    assert_eq!(keys("definitions"), ["Item", "List"]);

    let index = get(&plane, "/openapi/v3").await.json().unwrap();
    assert_eq!(index["paths"]["apis/custom.metrics.k8s.io/v1beta2"]["serverRelativeURL"], OPENAPI_V3);
    assert_eq!(get(&plane, OPENAPI_V3).await.json().unwrap()["openapi"], "3.0.0");
    let forwarded = &backend.got(&format!("GET {OPENAPI_V3}"))[0];
    assert_eq!(forwarded.header("x-remote-user"), Some("admin"));
    assert_eq!(get(&plane, "/openapi/v3/apis/custom.metrics.k8s.io/v1beta1").await.status, 404);
}
