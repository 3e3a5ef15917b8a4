//! OpenAPI. The documents never change while the process runs and are encoded when the first of them is asked for.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, EXPIRES, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::api::codec::accept::choose;
use crate::api::openapi;
use crate::server::document::{Document, JSON, UNCACHED, only_get};
use crate::server::error::ApiError;
use crate::server::negotiation::accept;
use crate::server::request_info::RequestInfo;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

static DOCUMENTS: LazyLock<OpenApiDocuments> = LazyLock::new(OpenApiDocuments::new);

struct OpenApiDocuments {
    v2: Document,
    /// `/openapi/v3`: where the documents below stand.
    v3: Document,
    /// By group and version.
    below: BTreeMap<(&'static str, &'static str), Document>,
}

impl OpenApiDocuments {
    fn new() -> Self {
        let json = |value: &Value| Document::json(value, JSON, UNCACHED);
        let below: BTreeMap<_, _> = openapi::v3()
            .into_iter()
            .map(|(group, version, document)| ((group.name(), version), json(&document)))
            .collect();
        // The aggregation layer joins the keys of all its backends, so that there must be no others.
        let paths: Map<String, Value> = below
            .iter()
            .map(|((group, version), document)| {
                let key = format!("apis/{group}/{version}");
                let url = format!("/openapi/v3/{key}?hash={}", document.hash());
                (key, json!({"serverRelativeURL": url}))
            })
            .collect();
        Self { v2: json(&openapi::v2()), v3: json(&json!({"paths": paths})), below }
    }
}

/// `/openapi/v2`, as JSON alone: kube-apiserver joins the documents of its backends and encodes the whole for its clients.
pub(super) async fn v2(headers: HeaderMap) -> Response {
    if takes_json(&headers) { DOCUMENTS.v2.response(&headers) } else { not_acceptable() }
}

/// `/openapi/v3`.
pub(super) async fn v3(headers: HeaderMap) -> Response {
    DOCUMENTS.v3.response(&headers)
}

/// `/openapi/v3/apis/<group>/<version>`. With the hash of this very document it may be kept for ever, as
/// `OpenAPIService.HandleGroupVersion` of `k8s.io/kube-openapi` says. With another hash that answers a redirect, which
/// a client behind the aggregation layer does not follow well: here it is the document, not to be kept.
pub(super) fn group_version(
    request: &Request,
    info: &RequestInfo,
    group: &str,
    version: &str,
) -> Result<Response, ApiError> {
    let document = DOCUMENTS.below.get(&(group, version)).ok_or(ApiError::NotFound)?;
    only_get(request, || {
        if !takes_json(request.headers()) {
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

fn takes_json(headers: &HeaderMap) -> bool {
    choose(accept(headers), (), |clause| clause.takes("application", "json").then_some(())).is_some()
}

/// As there: a bare status.
fn not_acceptable() -> Response {
    (StatusCode::NOT_ACCEPTABLE, [(CACHE_CONTROL, UNCACHED), (VARY, "Accept")]).into_response()
}
