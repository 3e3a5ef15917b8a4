//! The aggregation layer: APIServices, and forwarding of requests to their backends as kube-apiserver does it.

pub(super) mod availability;
mod registration;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{CONNECTION, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode, Version, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;

use self::availability::ApiService;
use self::upstream::Upstream;
use super::access::User;
use super::reply::text_response;
use crate::go_duration;
use crate::go_url::{Query, encode_path};
use crate::https::Body;
use crate::pki::Identity;

/// The Service name in a backend's certificate.
pub const BACKEND_SERVICE: &str = "karmada-metrics-adapter";
/// The namespace of that Service.
pub const BACKEND_NAMESPACE: &str = "karmada-system";

/// kube-apiserver's timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of a request for a discovery document, `/apis/GROUP/VERSION`.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers that the aggregation layer removes or writes itself.
const REPLACED: [&str; 7] = [
    "authorization",
    "host",
    "x-forwarded-host",
    "x-forwarded-uri",
    "x-forwarded-proto",
    "x-forwarded-for",
    "audit-id",
];

/// The APIServices, by name.
pub(crate) struct Aggregation {
    services: Mutex<BTreeMap<String, Arc<ApiService>>>,
    /// Whether the availability probe accepts any certificate.
    pub(crate) probes_unverified: AtomicBool,
}

/// A server behind the aggregation layer.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    /// Client that verifies the certificate, for requests and the availability probe.
    pub(crate) proxy: Upstream,
    /// Client without verification, as for the availability probe up to Kubernetes 1.34.
    pub(crate) unverified: Upstream,
    /// The CA (PEM). `None` disables verification for requests too.
    pub(crate) authority: Option<String>,
}

impl Aggregation {
    pub(crate) fn new() -> Self {
        Self { services: Mutex::default(), probes_unverified: AtomicBool::new(false) }
    }

    pub(crate) fn insert(&self, service: Arc<ApiService>) {
        self.map().insert(service.name.clone(), service);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.map().remove(name);
    }

    pub(crate) fn service(&self, name: &str) -> Option<Arc<ApiService>> {
        self.map().get(name).cloned()
    }

    pub(crate) fn services(&self) -> Vec<Arc<ApiService>> {
        self.map().values().cloned().collect()
    }

    /// The APIService that serves a path. For an OpenAPI v3 document it is any APIService with that document in its backend.
    pub(crate) fn of_path(&self, path: &str) -> Option<Arc<ApiService>> {
        if let Some(key) = path.strip_prefix("/openapi/v3/") {
            return self.services().into_iter().find(|service| service.openapi_v3()[key].is_object());
        }
        let mut segments = path.strip_prefix("/apis/")?.split('/');
        let (group, version) = (segments.next()?, segments.next()?);
        self.service(&format!("{version}.{group}"))
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<ApiService>>> {
        self.services.lock().expect("not poisoned")
    }
}

impl Backend {
    /// # Errors
    /// If the CA is not PEM.
    pub(crate) fn new(
        address: SocketAddr,
        authority: Option<&str>,
        identity: &Identity,
    ) -> anyhow::Result<Self> {
        let name = format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc");
        Ok(Self {
            address,
            proxy: Upstream::new(authority, &name, identity)?,
            unverified: Upstream::new(None, &name, identity)?,
            authority: authority.map(str::to_owned),
        })
    }

    /// The `spec` of an APIService of this backend.
    pub(crate) fn api_service_spec(&self, group: &str, version: &str) -> Value {
        let mut spec = json!({
            "group": group,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": if version.ends_with('2') { 200 } else { 100 },
            "service": {"namespace": BACKEND_NAMESPACE, "name": BACKEND_SERVICE, "port": 443},
        });
        match &self.authority {
            Some(pem) => spec["caBundle"] = json!(BASE64_STANDARD.encode(pem.as_bytes())),
            None => spec["insecureSkipTLSVerify"] = json!(true),
        }
        spec
    }

    /// Forwards a request. Follows kube-aggregator's `proxyHandler.ServeHTTP`, which uses Go's `ReverseProxy`.
    pub(crate) async fn forward(
        &self,
        head: &request::Parts,
        path: &[u8],
        query: &Query,
        headers: HeaderMap,
        body: Incoming,
    ) -> Response<Body> {
        let mut target = format!("https://{}{}", self.address, encode_path(path));
        let encoded = query.encode();
        if !encoded.is_empty() {
            target = format!("{target}?{encoded}");
        }
        let mut request = Request::new(body.map_err(io::Error::other).boxed());
        *request.method_mut() = head.method.clone();
        match target.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return unreachable(&error),
        }
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let requested = requested_timeout(query).unwrap_or(REQUEST_TIMEOUT);
        // Follows `proxy.NewRequestForProxy`: a timeout of discovery means that the backend is unreachable.
        let is_discovery =
            path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).count() == 3;
        let limit = if is_discovery { requested.min(DISCOVERY_TIMEOUT) } else { requested };
        match timeout(limit, self.proxy.send(request)).await {
            Ok(Ok(response)) => {
                let (mut head, body) = response.into_parts();
                head.version = Version::HTTP_11;
                remove_hop_by_hop(&mut head.headers);
                Response::from_parts(head, body.map_err(io::Error::other).boxed())
            }
            Ok(Err(error)) => unreachable(&error),
            Err(_) if limit < requested => unreachable(&"context deadline exceeded"),
            Err(_) => timed_out(),
        }
    }
}

/// The headers of a request that is forwarded to a host: `User-Agent` first, the others sorted as Go writes them.
pub(crate) fn forwarded_headers(
    head: &request::Parts,
    host: &str,
    path: &[u8],
    user: &User,
    client: IpAddr,
    audit_id: &HeaderValue,
) -> HeaderMap {
    let mut incoming = head.headers.clone();
    remove_hop_by_hop(&mut incoming);
    let mut pairs: Vec<(String, HeaderValue)> = incoming
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.clone()))
        .filter(|(name, _)| !name.starts_with("x-remote-") && !REPLACED.contains(&name.as_str()))
        .collect();
    let hops =
        incoming.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok().map(str::to_owned));
    let hops: Vec<String> = hops.chain([client.to_string()]).collect();
    let mut add = |name: &str, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            pairs.push((name.to_owned(), value));
        }
    };
    add("x-forwarded-for", &hops.join(", "));
    add("x-forwarded-host", host);
    add("x-forwarded-proto", "https");
    add("x-forwarded-uri", &encode_path(path));
    add("x-remote-user", &user.name);
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("x-remote-extra-{}", escape_key(key)), value);
        }
    }
    pairs.push(("audit-id".to_owned(), audit_id.clone()));
    pairs.sort_by(|(left, _), (right, _)| {
        (left.as_str() != USER_AGENT.as_str(), left).cmp(&(right.as_str() != USER_AGENT.as_str(), right))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.append(name, value);
        }
    }
    headers
}

/// Follows `transport.headerKeyEscape`: percent-encodes `%` and bytes that are not valid in a header name.
fn escape_key(key: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes()
        .map(|byte| if legal(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

/// Removes the headers that concern only one connection.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_lowercase()))
        .collect();
    for name in listed.iter().map(String::as_str).chain([
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "trailer",
    ]) {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// The client's `timeout` parameter, at most kube-apiserver's own timeout. `None` for zero.
fn requested_timeout(query: &Query) -> Option<Duration> {
    let requested = u64::try_from(go_duration::nanoseconds(&query.value("timeout")?)?).ok()?;
    Some(Duration::from_nanos(requested).min(REQUEST_TIMEOUT)).filter(|requested| !requested.is_zero())
}

/// The response of kube-apiserver's timeout filter: a `Status` without `kind` and without a content type.
fn timed_out() -> Response<Body> {
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": "Timeout: request did not complete within the allotted timeout",
        "reason": "Timeout",
        "details": {},
        "code": 504,
    });
    text_response(StatusCode::GATEWAY_TIMEOUT, &status.to_string())
}

fn unreachable(error: &dyn Display) -> Response<Body> {
    text_response(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {error}"))
}
