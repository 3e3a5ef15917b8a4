//! OpenAPI documents. They do not change while the process runs. The first request for one of them encodes all.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, EXPIRES, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::api::codec::accept::best_match;
use crate::api::openapi;
use crate::server::document::{Document, JSON, UNCACHED, only_get};
use crate::server::error::ApiError;
use crate::server::negotiation::accept_values;
use crate::server::request_info::RequestInfo;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

static DOCUMENTS: LazyLock<OpenApiDocuments> = LazyLock::new(OpenApiDocuments::new);

struct OpenApiDocuments {
    v2: Document,
    /// `/openapi/v3`: the paths of the documents in `by_version`.
    v3: Document,
    /// By group and version.
    by_version: BTreeMap<(&'static str, &'static str), Document>,
}

impl OpenApiDocuments {
    fn new() -> Self {
        let json = |value: &Value| Document::json(value, JSON, UNCACHED);
        let by_version: BTreeMap<_, _> = openapi::v3()
            .into_iter()
            .map(|(group, version, document)| ((group.name(), version), json(&document)))
            .collect();
        // Only keys of this server: the aggregation layer merges the keys of all its backends.
        let paths: Map<String, Value> = by_version
            .iter()
            .map(|((group, version), document)| {
                let key = format!("apis/{group}/{version}");
                let url = format!("/openapi/v3/{key}?hash={}", document.hash());
                (key, json!({"serverRelativeURL": url}))
            })
            .collect();
        Self { v2: json(&openapi::v2()), v3: json(&json!({"paths": paths})), by_version }
    }
}

/// `/openapi/v2`, only as JSON: kube-apiserver merges the documents of its backends and encodes the result for its clients.
pub(super) async fn v2(headers: HeaderMap) -> Response {
    if accepts_json(&headers) { DOCUMENTS.v2.response(&headers) } else { not_acceptable() }
}

/// `/openapi/v3`: the list of documents.
pub(super) async fn v3(headers: HeaderMap) -> Response {
    DOCUMENTS.v3.response(&headers)
}

/// `/openapi/v3/apis/<group>/<version>`. If the parameter `hash` is the hash of the document, caches may keep the response for
/// ever, as in `OpenAPIService.HandleGroupVersion` of `k8s.io/kube-openapi`. For another hash that function redirects, but
/// clients behind the aggregation layer do not follow redirects well. Here the response is the document, and caches must not
/// keep it.
pub(super) fn group_version(
    request: &Request,
    info: &RequestInfo,
    group: &str,
    version: &str,
) -> Result<Response, ApiError> {
    let document = DOCUMENTS.by_version.get(&(group, version)).ok_or(ApiError::NotFound)?;
    only_get(request, || {
        if !accepts_json(request.headers()) {
            return not_acceptable();
        }
        let mut response = document.response(request.headers());
        if info.target.parameter("hash") == document.hash() {
            let expires = httpdate::fmt_http_date(SystemTime::now() + YEAR);
            let expires = HeaderValue::try_from(expires).expect("a date is ASCII");
            response.headers_mut().insert(EXPIRES, expires);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        }
        response
    })
}

fn accepts_json(headers: &HeaderMap) -> bool {
    best_match(accept_values(headers), (), |clause| clause.accepts("application", "json").then_some(()))
        .is_some()
}

/// Status 406 without a body, as in `k8s.io/kube-openapi`.
fn not_acceptable() -> Response {
    (StatusCode::NOT_ACCEPTABLE, [(CACHE_CONTROL, UNCACHED), (VARY, "Accept")]).into_response()
}
