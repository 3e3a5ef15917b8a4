//! Availability probes of a backend, and kube-apiserver's own requests for discovery and OpenAPI.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, ETAG, HeaderName, IF_NONE_MATCH, USER_AGENT};
use http::{Request, StatusCode, response};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Backend;
use super::upstream::Upstream;
use crate::control_plane::Plane;
use crate::control_plane::objects::resources::API_SERVICES;
use crate::control_plane::objects::store::Mode;
use crate::https::{Body, full};
use crate::timestamp;

/// The interval of kube-apiserver's probes.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(30);

const ATTEMPTS: usize = 5;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const DISCOVERY_EVERY: Duration = Duration::from_secs(60);
/// Maximum size of a discovery document in bytes.
const DOCUMENT_BYTES: usize = 64 << 20;
/// Maximum of recorded failures and transitions.
const REMEMBERED: usize = 1024;
const DISCOVERY_USER: (&str, &[&str]) = ("system:kube-aggregator", &["system:masters"]);
const OPENAPI_USER: (&str, &[&str]) = ("system:aggregator", &[]);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// The condition `Available` of an APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    /// Whether the condition is True.
    pub available: bool,
    /// `Passed` or `FailedDiscoveryCheck`; empty before the first probe.
    pub reason: String,
    /// The failed check and its error.
    pub message: String,
}

/// A registered APIService.
pub(crate) struct ApiService {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) backend: Arc<Backend>,
    documents: Arc<Documents>,
    availability: watch::Sender<Availability>,
    past: Mutex<Past>,
}

/// The discovery and OpenAPI documents of a backend. Its APIServices share them.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Fetched>);

#[derive(Default)]
struct Fetched {
    etags: BTreeMap<&'static str, String>,
    /// The groups of the aggregated list.
    groups: Value,
    openapi_v2: Value,
    /// The paths of the OpenAPI v3 documents.
    openapi_v3: Value,
}

#[derive(Default)]
struct Past {
    transitions: VecDeque<Availability>,
    failures: VecDeque<String>,
}

impl ApiService {
    /// Creates an APIService from its name, `v1beta2.custom.metrics.k8s.io`.
    pub(crate) fn new(name: &str, backend: Arc<Backend>, documents: Arc<Documents>) -> Option<Self> {
        let (version, group) = name.split_once('.')?;
        let unknown = Availability { available: false, reason: String::new(), message: String::new() };
        Some(Self {
            name: name.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            backend,
            documents,
            availability: watch::Sender::new(unknown),
            past: Mutex::default(),
        })
    }

    pub(crate) async fn fetch_discovery(&self) -> Vec<(&'static str, Option<StatusCode>)> {
        self.documents.fetch(&self.backend).await
    }

    pub(crate) fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    pub(crate) fn is_available(&self) -> bool {
        self.availability.borrow().available
    }

    pub(crate) fn transitions(&self) -> Vec<Availability> {
        self.past().transitions.iter().cloned().collect()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.past().failures.iter().cloned().collect()
    }

    /// This version's entry in the aggregated discovery document.
    pub(crate) fn discovery(&self) -> Value {
        let found = self.documents.version(&self.group, &self.version);
        let mut entry = found.unwrap_or_else(|| json!({"version": self.version, "resources": []}));
        entry["freshness"] = json!(if self.is_available() { "Current" } else { "Stale" });
        entry
    }

    /// The backend's OpenAPI v2 document. `null` if there is none.
    pub(crate) fn openapi_v2(&self) -> Value {
        self.documents.fetched().openapi_v2.clone()
    }

    /// The keys and paths of the backend's OpenAPI v3 documents. `null` if there are none.
    pub(crate) fn openapi_v3(&self) -> Value {
        self.documents.fetched().openapi_v3.clone()
    }

    /// Probes the backend and updates the condition until the task is dropped.
    pub(crate) async fn keep(self: Arc<Self>, plane: Arc<Plane>) {
        let mut interval = plane.probe_interval.subscribe();
        loop {
            let every = *interval.borrow_and_update();
            self.probe(&plane).await;
            let pause = if self.is_available() { every } else { every.min(RETRY_AFTER) };
            tokio::select! {
                () = sleep(pause) => {}
                changed = interval.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Follows `AvailableConditionController.sync`: sends five requests at the same time. One success is enough, and the
    /// condition does not wait for the other requests.
    pub(crate) async fn probe(&self, plane: &Plane) -> Availability {
        let url = format!("https://{}/apis/{}/{}", self.backend.address, self.group, self.version);
        let unverified = plane.aggregation.probes_unverified.load(Ordering::Relaxed);
        let client = if unverified { &self.backend.unverified } else { &self.backend.proxy };
        let mut attempts = JoinSet::new();
        for _ in 0..ATTEMPTS {
            attempts.spawn(attempt(client.clone(), url.clone()));
        }
        let (mut passed, mut last) = (false, String::new());
        while let Some(outcome) = attempts.join_next().await {
            match outcome {
                Ok(Ok(())) if passed => {}
                Ok(Ok(())) => {
                    passed = true;
                    self.set(plane, true, "Passed", "all checks passed");
                }
                Ok(Err(failure)) => {
                    remember(&mut self.past().failures, failure.clone());
                    last = failure;
                }
                Err(error) => last = error.to_string(),
            }
        }
        if !passed {
            self.set(plane, false, "FailedDiscoveryCheck", &last);
        }
        self.availability.borrow().clone()
    }

    fn set(&self, plane: &Plane, available: bool, reason: &str, message: &str) {
        let new = Availability { available, reason: reason.to_owned(), message: message.to_owned() };
        let mut flipped = false;
        let changed = self.availability.send_if_modified(|old| {
            flipped = old.available != available || old.reason.is_empty();
            let changed = *old != new;
            new.clone_into(old);
            changed
        });
        if flipped {
            remember(&mut self.past().transitions, new.clone());
        }
        if changed {
            self.publish(plane, &new, flipped);
        }
    }

    /// Writes the APIService object with its first or changed condition.
    fn publish(&self, plane: &Plane, state: &Availability, flipped: bool) {
        let now = || json!(timestamp::format(timestamp::now()));
        let before = plane.store.object(&API_SERVICES, "", &self.name);
        let since = before.map(|object| object["status"]["conditions"][0]["lastTransitionTime"].clone());
        let condition = json!({
            "type": "Available",
            "status": if state.available { "True" } else { "False" },
            "reason": state.reason,
            "message": state.message,
            "lastTransitionTime": since.filter(|since| since.is_string() && !flipped).unwrap_or_else(now),
        });
        self.write(plane, &json!({"conditions": [condition]}));
    }

    /// Writes the APIService object.
    pub(crate) fn write(&self, plane: &Plane, status: &Value) {
        let object = json!({
            "metadata": {"name": self.name},
            "spec": self.backend.api_service_spec(&self.group, &self.version),
            "status": status,
        });
        plane.store.write(&API_SERVICES, object, Mode::Apply).expect("the object has a name");
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().expect("not poisoned")
    }
}

impl Documents {
    /// Fetches discovery regularly while `service` is available, until the task is dropped.
    pub(crate) async fn keep(self: Arc<Self>, service: Arc<ApiService>) {
        let mut availability = service.availability();
        while availability.wait_for(|state| state.available).await.is_ok() {
            self.fetch(&service.backend).await;
            sleep(DISCOVERY_EVERY).await;
        }
    }

    /// Fetches the aggregated discovery and both OpenAPI roots, as kube-apiserver does every minute.
    ///
    /// Returns each path with its status. The status is `None` if there was no response in time.
    pub(crate) async fn fetch(&self, backend: &Backend) -> Vec<(&'static str, Option<StatusCode>)> {
        let mut statuses = Vec::new();
        for (path, accept, user) in [
            ("/apis", Some(AGGREGATED), DISCOVERY_USER),
            ("/openapi/v2", Some("application/json"), OPENAPI_USER),
            ("/openapi/v3", None, OPENAPI_USER),
        ] {
            let etag = self.fetched().etags.get(path).cloned();
            let headers: Vec<(HeaderName, &str)> = [(ACCEPT, accept), (IF_NONE_MATCH, etag.as_deref())]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let request = request(backend, path, user, &headers);
            let Ok(Ok((head, body))) = timeout(RESPONSE_TIMEOUT, whole(&backend.proxy, request)).await else {
                statuses.push((path, None));
                continue;
            };
            statuses.push((path, Some(head.status)));
            if head.status == StatusCode::OK {
                let etag = head.headers.get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
                self.fetched().keep(path, etag, serde_json::from_slice(&body).ok());
            }
        }
        statuses
    }

    fn version(&self, group: &str, version: &str) -> Option<Value> {
        let fetched = self.fetched();
        let groups = fetched.groups.as_array()?;
        let group = groups.iter().find(|known| known["metadata"]["name"] == group)?;
        let versions = group["versions"].as_array()?;
        versions.iter().find(|known| known["version"] == version && known.is_object()).cloned()
    }

    fn fetched(&self) -> MutexGuard<'_, Fetched> {
        self.0.lock().expect("not poisoned")
    }
}

impl Fetched {
    fn keep(&mut self, path: &'static str, etag: Option<String>, document: Option<Value>) {
        match etag {
            Some(etag) => drop(self.etags.insert(path, etag)),
            None => drop(self.etags.remove(path)),
        }
        let Some(mut document) = document else { return };
        match path {
            "/openapi/v2" => self.openapi_v2 = document,
            "/openapi/v3" => self.openapi_v3 = document["paths"].take(),
            _ if document["kind"] == "APIGroupDiscoveryList" => self.groups = document["items"].take(),
            _ => {}
        }
    }
}

/// A request that kube-apiserver sends to a backend for itself, as a user with groups.
fn request(
    backend: &Backend,
    path: &str,
    (user, groups): (&str, &[&str]),
    headers: &[(HeaderName, &str)],
) -> Request<Body> {
    let mut request = Request::get(format!("https://{}{path}", backend.address));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request = request.header("x-forwarded-host", backend.address.to_string());
    request = request.header("x-forwarded-proto", "https").header("x-forwarded-uri", path);
    for group in groups {
        request = request.header("x-remote-group", *group);
    }
    let request = request.header("x-remote-user", user).header(ACCEPT_ENCODING, "gzip");
    request.body(full("")).expect("the ETag came from a header")
}

async fn whole(client: &Upstream, request: Request<Body>) -> anyhow::Result<(response::Parts, Bytes)> {
    let (head, body) = client.send(request).await?.into_parts();
    Ok((
        head,
        Limited::new(body, DOCUMENT_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes(),
    ))
}

/// One of the five requests. The error is the message of the condition.
async fn attempt(client: Upstream, url: String) -> Result<(), String> {
    let request = Request::get(&url)
        .header(USER_AGENT, "Go-http-client/1.1")
        .header("x-remote-group", "system:masters")
        .header("x-remote-user", "system:kube-aggregator")
        .header(ACCEPT_ENCODING, "gzip")
        .body(full(""));
    let request = request.map_err(|error| error.to_string())?;
    let failing = |cause: String| format!("failing or missing response from {url}: {cause}");
    match timeout(RESPONSE_TIMEOUT, client.send(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) => Err(failing(format!("bad status from {url}: {}", response.status().as_u16()))),
        Ok(Err(error)) => Err(failing(format!("Get \"{url}\": {error}"))),
        Err(_) => Err(failing(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ))),
    }
}

fn remember<T>(past: &mut VecDeque<T>, one: T) {
    if past.len() == REMEMBERED {
        past.pop_front();
    }
    past.push_back(one);
}
