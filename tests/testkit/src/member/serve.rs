//! How a member handles a request: faults first, then the token, then scripted responses, then the store.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::time::sleep;

use super::cluster_api::{self, ListOptions};
use super::custom_metrics::{self, Selectors};
use super::fault::{Fault, Faults};
use super::registrations::{self, Registrations};
use super::script::Script;
use super::store::Store;
use super::traffic::Traffic;
use super::wire::{ApiGroup, Document, Encoded, Format, Status};
use super::{ExternalMetrics, Formats, MemberOptions, external_metrics, resource_metrics};
use crate::go_url::Query;
use crate::https::{Body, Peer, full, response};

/// The state that the request handler uses.
pub(super) struct State {
    pub name: String,
    pub options: MemberOptions,
    pub tokens: Mutex<Tokens>,
    pub store: Arc<Store>,
    pub faults: Mutex<Faults>,
    pub script: Script,
    pub registrations: Registrations,
    pub traffic: Arc<Traffic>,
}

/// The accepted bearer tokens.
pub(super) struct Tokens {
    pub current: String,
    pub previous: Option<String>,
}

/// A request with its path in decoded segments.
struct Call<'a> {
    method: &'a Method,
    segments: Vec<String>,
    query: Query,
}

/// The result of a route.
enum Found {
    Document(StatusCode, Document),
    Stream(Body),
}

pub(super) async fn serve(
    state: Arc<State>,
    request: Request<Incoming>,
    peer: &Peer,
) -> io::Result<Response<Body>> {
    let flight = state.traffic.arrive(&request);
    match state.respond(&request, peer).await {
        Ok(response) => Ok(flight.carry(response)),
        Err(error) => {
            flight.abort();
            Err(error)
        }
    }
}

impl State {
    async fn respond(&self, request: &Request<Incoming>, peer: &Peer) -> io::Result<Response<Body>> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let Some(target) = target.strip_prefix(&self.options.path_prefix) else {
            return Ok(encoded(page_not_found()));
        };
        let path = target.split('?').next().unwrap_or_default();
        let path = percent_decode_str(path).decode_utf8_lossy();
        let format = self.options.formats.negotiate(request.headers());
        let fault = self.faults.lock().expect("not poisoned").of(&path);
        match &fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Delay(time)) => sleep(*time).await,
            Some(Fault::Abort) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(fault) => {
                if let Some(answer) = fault.answer(&path, format.unwrap_or(Format::Json)) {
                    return Ok(answer);
                }
            }
            None => {}
        }
        let answer = self.well(request, peer, target, format, fault.as_ref());
        match fault {
            Some(fault) => fault.spoil(answer).await,
            None => Ok(answer),
        }
    }

    /// The response without faults, except for faults that change the values of a list.
    fn well(
        &self,
        request: &Request<Incoming>,
        peer: &Peer,
        target: &str,
        format: Option<Format>,
        fault: Option<&Fault>,
    ) -> Response<Body> {
        let format_or_json = format.unwrap_or(Format::Json);
        if peer.certificate.is_none() && !self.knows(request.headers()) {
            let status = Status::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
            return encoded(Document::Status(status.into()).encode(StatusCode::UNAUTHORIZED, format_or_json));
        }
        if let Some(answer) = self.script.answer(target, format_or_json) {
            let mut scripted = Response::new(full(answer.body));
            *scripted.status_mut() = answer.status;
            if let Ok(content_type) = HeaderValue::try_from(answer.content_type) {
                scripted.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            return scripted;
        }
        let (status, mut document) = match self.route(&Call::new(request.method(), target)) {
            Some(Found::Document(status, document)) => (status, document),
            Some(Found::Stream(body)) => return response(StatusCode::OK, Format::Json.media_type(), body),
            None => return encoded(page_not_found()),
        };
        if format.is_none() && !matches!(document, Document::Text(_)) {
            let message = "only the following media types are accepted: application/json, \
                           application/vnd.kubernetes.protobuf";
            let status = Status::failure(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message);
            return encoded(Document::Status(status.into()).encode(StatusCode::NOT_ACCEPTABLE, Format::Json));
        }
        if fault == Some(&Fault::BadQuantity) {
            document.set_quantities("12 apples");
        }
        encoded(document.encode(status, format_or_json))
    }

    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().expect("not poisoned")
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let tokens = self.tokens();
        bearer(headers).is_some_and(|bearer| {
            bearer == tokens.current || tokens.previous.as_ref().is_some_and(|previous| bearer == previous)
        })
    }

    fn route(&self, call: &Call<'_>) -> Option<Found> {
        let ok = |document| Found::Document(StatusCode::OK, document);
        let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
        if let Some(rejection) = self.registrations.rejection(&self.options, &segments) {
            return Some(document(rejection));
        }
        let found = match *segments {
            ["version"] => ok(Document::Raw(cluster_api::VERSION)),
            ["healthz" | "livez" | "readyz", ..] => ok(Document::Text("ok")),
            ["api"] => ok(cluster_api::versions()),
            ["api", "v1"] => ok(Document::Resources(cluster_api::core_resources())),
            ["api", "v1", "pods"] => self.pods(None, call),
            ["api", "v1", "namespaces", namespace, "pods"] => self.pods(Some(namespace), call),
            ["api", "v1", "namespaces", name] => document(cluster_api::namespace(&self.store, name)),
            ["api", "v1", "nodes"] => match call.list_options() {
                options if options.watch => self.watch(None, options),
                _ => document(cluster_api::nodes(&self.store, &self.name)),
            },
            ["apis", registrations::GROUP, "v1", "apiservices", name] => {
                document(self.registrations.answer(&self.options, name))
            }
            ["apis"] => ok(Document::Groups(self.options.groups())),
            ["apis", name] => {
                let mut groups = self.options.groups().into_iter();
                ok(Document::Group(groups.find(|group| group.name() == name)?))
            }
            ["apis", custom_metrics::GROUP, version, ref path @ ..] => {
                let mut versions = self.options.versions.iter().copied();
                let version = versions.find(|served| served.name() == version)?;
                match path {
                    [] => ok(Document::Resources(custom_metrics::discovery(&self.store, version))),
                    path => {
                        document(custom_metrics::answer(&self.store, version, path, &call.metric_selectors()))
                    }
                }
            }
            ["apis", resource_metrics::GROUP, resource_metrics::VERSION, ref path @ ..]
                if self.options.resource_metrics =>
            {
                document(resource_metrics::answer(&self.store, path, &call.parameter("labelSelector"))?)
            }
            ["apis", external_metrics::GROUP, external_metrics::VERSION, ref path @ ..]
                if self.options.external_metrics != ExternalMetrics::Absent =>
            {
                match *path {
                    [] => ok(Document::Resources(external_metrics::discovery(
                        &self.store,
                        self.options.external_metrics,
                    ))),
                    ["namespaces", namespace, metric] => {
                        let labels = call.parameter("labelSelector");
                        document(external_metrics::answer(&self.store, namespace, metric, &labels))
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some(if call.method == Method::GET { found } else { method_not_allowed() })
    }

    fn pods(&self, namespace: Option<&str>, call: &Call<'_>) -> Found {
        let options = call.list_options();
        if options.watch {
            return self.watch(Some(namespace.map(str::to_owned)), options);
        }
        document(cluster_api::pods(&self.store, namespace, &options))
    }

    fn watch(&self, namespace: Option<Option<String>>, options: ListOptions) -> Found {
        match cluster_api::watch(self.store.clone(), namespace, options) {
            Ok(events) => Found::Stream(events),
            Err(status) => Found::Document(StatusCode::UNPROCESSABLE_ENTITY, Document::Status(status)),
        }
    }
}

impl MemberOptions {
    /// The groups of the existing APIs.
    fn groups(&self) -> Vec<ApiGroup> {
        let custom = custom_metrics::group(&self.versions);
        let external = external_metrics::group().filter(|_| self.external_metrics != ExternalMetrics::Absent);
        let resource = resource_metrics::group().filter(|_| self.resource_metrics);
        [custom, external, resource].into_iter().flatten().collect()
    }
}

impl Formats {
    /// The first served format in `Accept`. `None` if none is served.
    fn negotiate(self, headers: &HeaderMap) -> Option<Format> {
        let accept: Vec<&str> =
            headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if accept.is_empty() {
            return Some(Format::Json);
        }
        accept.iter().flat_map(|value| value.split(',')).find_map(|range| {
            let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
            match media_type.trim() {
                _ if parameters.contains("as=") => None,
                "application/vnd.kubernetes.protobuf" if self == Self::Both => Some(Format::Protobuf),
                "application/json" | "application/*" | "*/*" => Some(Format::Json),
                _ => None,
            }
        })
    }
}

impl<'a> Call<'a> {
    fn new(method: &'a Method, target: &str) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method,
            segments: path.trim_start_matches('/').split('/').map(decode).collect(),
            query: Query::parse(query),
        }
    }

    fn parameter(&self, name: &str) -> String {
        self.query.value(name).unwrap_or_default().into_owned()
    }

    fn metric_selectors(&self) -> Selectors {
        Selectors {
            labels: self.parameter("labelSelector"),
            metric_labels: self.parameter("metricLabelSelector"),
        }
    }

    fn list_options(&self) -> ListOptions {
        ListOptions {
            labels: self.parameter("labelSelector"),
            fields: self.parameter("fieldSelector"),
            watch: self.query.flag("watch"),
            send_initial_events: self.query.flag("sendInitialEvents"),
            resource_version: self.parameter("resourceVersion"),
            limit: self.parameter("limit").parse().ok().filter(|limit| *limit > 0),
            timeout: self.parameter("timeoutSeconds").parse().ok().map(Duration::from_secs),
        }
    }
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
}

fn document((status, document): (StatusCode, Document)) -> Found {
    Found::Document(status, document)
}

fn method_not_allowed() -> Found {
    let message = "the server does not allow this method on the requested resource";
    let status = Status::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
    Found::Document(StatusCode::METHOD_NOT_ALLOWED, Document::Status(status.into()))
}

fn page_not_found() -> Encoded {
    Document::Text("404 page not found\n").encode(StatusCode::NOT_FOUND, Format::Json)
}

fn encoded(encoded: Encoded) -> Response<Body> {
    let mut response = response(encoded.status, encoded.content_type, full(encoded.body));
    let headers = response.headers_mut();
    let audit_id = uuid::Uuid::new_v4().to_string();
    headers.insert("audit-id", HeaderValue::try_from(audit_id).expect("a UUID is ASCII"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if encoded.status == StatusCode::NOT_FOUND && encoded.content_type.starts_with("text/plain") {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}
