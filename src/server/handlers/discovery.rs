//! Discovery from memory: whatever members do, it is answered at once.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

use super::super::Serving;
use crate::api::custom_metrics::Version;
use crate::api::discovery::{self, Aggregated, Catalog};

const JSON: &str = "application/json";
const UNCACHED: &str = "no-cache, private";

/// The encoded documents of the members' metrics as last known.
pub struct Documents {
    catalog: watch::Receiver<Arc<Catalog>>,
    address: String,
    encoded: ArcSwap<Encoded>,
}

/// One generation of documents.
struct Encoded {
    of: Arc<Catalog>,
    groups: Document,
    aggregated: [Document; 2],
    group: Document,
    versions: [Document; 2],
}

struct Document {
    media_type: &'static str,
    cache_control: &'static str,
    etag: HeaderValue,
    body: Bytes,
}

impl Documents {
    /// Documents that follow the catalog. `address` is where this server listens, such as `:443`.
    pub fn new(catalog: watch::Receiver<Arc<Catalog>>, address: String) -> Self {
        let encoded = Encoded::new(catalog.borrow().clone(), &address);
        Self { encoded: ArcSwap::from_pointee(encoded), catalog, address }
    }

    /// The newest generation, encoded by the first request after a change.
    fn current(&self) -> Arc<Encoded> {
        let catalog = self.catalog.borrow().clone();
        let encoded = self.encoded.load_full();
        if Arc::ptr_eq(&encoded.of, &catalog) {
            return encoded;
        }
        let encoded = Arc::new(Encoded::new(catalog, &self.address));
        self.encoded.store(encoded.clone());
        encoded
    }
}

impl Encoded {
    fn new(catalog: Arc<Catalog>, address: &str) -> Self {
        let plain = |value| Document::new(&value, JSON, UNCACHED);
        let aggregated =
            |format: Aggregated| Document::new(&catalog.aggregated(format), format.media_type(), "public");
        Self {
            groups: plain(discovery::group_list(address)),
            aggregated: [aggregated(Aggregated::V2), aggregated(Aggregated::V2Beta1)],
            group: plain(discovery::group()),
            versions: Version::ALL.map(|version| plain(catalog.resource_list(version))),
            of: catalog,
        }
    }
}

impl Document {
    fn new(value: &Value, media_type: &'static str, cache_control: &'static str) -> Self {
        let mut body = value.to_string();
        body.push('\n');
        let hash = digest(&SHA256, body.as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let etag = HeaderValue::try_from(format!("\"{hex}\"")).expect("hexadecimal digits are ASCII");
        Self { media_type, cache_control, etag, body: body.into() }
    }

    fn response(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let etag = self.etag.to_str().unwrap_or_default();
        let fresh = known
            .flat_map(|value| value.split(','))
            .any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag);
        let mut response = Response::new(if fresh { Body::empty() } else { Body::from(self.body.clone()) });
        if fresh {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        }
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.cache_control));
        headers.insert(ETAG, self.etag.clone());
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// `/apis`, plain or aggregated.
pub(super) async fn groups(State(serving): State<Arc<Serving>>, request: Request) -> Response {
    let encoded = serving.documents.current();
    let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wanted = accept.flat_map(|value| value.split(',')).find_map(Wanted::of).unwrap_or(Wanted::Plain);
    let document = match wanted {
        Wanted::Plain => &encoded.groups,
        Wanted::Aggregated(Aggregated::V2) => &encoded.aggregated[0],
        Wanted::Aggregated(Aggregated::V2Beta1) => &encoded.aggregated[1],
    };
    document.response(request.headers())
}

/// `/apis/custom.metrics.k8s.io`.
pub(super) fn group(serving: &Serving, request: &Request) -> Response {
    serving.documents.current().group.response(request.headers())
}

/// `/apis/custom.metrics.k8s.io/<version>`.
pub(super) fn resources(serving: &Serving, request: &Request, version: Version) -> Response {
    let encoded = serving.documents.current();
    let documents = Version::ALL.iter().zip(&encoded.versions);
    let (_, document) =
        documents.into_iter().find(|(of, _)| **of == version).expect("all versions are encoded");
    document.response(request.headers())
}

/// The form of `/apis` that one clause of an Accept header asks for.
enum Wanted {
    Plain,
    Aggregated(Aggregated),
}

impl Wanted {
    /// `None` if the clause asks for something that is not served.
    fn of(clause: &str) -> Option<Self> {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            return None;
        }
        let parameters: Vec<&str> = parts.collect();
        if parameters.iter().all(|parameter| !parameter.starts_with("as=")) {
            return Some(Self::Plain);
        }
        if !parameters.contains(&"as=APIGroupDiscoveryList") || !parameters.contains(&"g=apidiscovery.k8s.io")
        {
            return None;
        }
        match () {
            () if parameters.contains(&"v=v2") => Some(Self::Aggregated(Aggregated::V2)),
            () if parameters.contains(&"v=v2beta1") => Some(Self::Aggregated(Aggregated::V2Beta1)),
            () => None,
        }
    }
}
