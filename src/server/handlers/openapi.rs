//! OpenAPI. The documents never change while the process runs and are encoded when the first of them is asked for.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, EXPIRES, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::document::{Document, JSON, UNCACHED, only_get};
use crate::api::codec::accept::choose;
use crate::api::openapi;
use crate::server::error::Error;
use crate::server::negotiation::accept;
use crate::server::request_info::RequestInfo;

/// The media type of a v2 document in protobuf.
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Its subtype, and what that was before it was found to be malformed.
const PROTOBUF: [&str; 2] =
    ["com.github.proto-openapi.spec.v2.v1.0+protobuf", "com.github.proto-openapi.spec.v2@v1.0+protobuf"];
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(Documents::new);

struct Documents {
    v2: Document,
    v2_protobuf: Document,
    /// `/openapi/v3`: where the documents below stand.
    v3: Document,
    /// By group and version.
    below: BTreeMap<(&'static str, &'static str), Document>,
}

impl Documents {
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
        let v2 = openapi::v2();
        Self {
            v2_protobuf: Document::new(openapi::to_protobuf(&v2), PROTOBUF_V2, UNCACHED),
            v2: json(&v2),
            v3: json(&json!({"paths": paths})),
            below,
        }
    }
}

/// `/openapi/v2`.
pub(super) async fn v2(headers: HeaderMap) -> Response {
    match offered(&headers, &DOCUMENTS.v2, Some(&DOCUMENTS.v2_protobuf)) {
        Some(document) => document.response(&headers),
        None => not_acceptable(),
    }
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
) -> Result<Response, Error> {
    let document = DOCUMENTS.below.get(&(group, version)).ok_or(Error::NotFound)?;
    only_get(request, || {
        if offered(request.headers(), document, None).is_none() {
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

/// The form of a document that the client likes best, if it takes any.
fn offered<'a>(
    headers: &HeaderMap,
    json: &'a Document,
    protobuf: Option<&'a Document>,
) -> Option<&'a Document> {
    choose(accept(headers), json, |clause| match clause {
        clause if clause.takes("application", "json") => Some(json),
        clause => protobuf.filter(|_| PROTOBUF.iter().any(|subtype| clause.takes("application", subtype))),
    })
}

/// As there: a bare status.
fn not_acceptable() -> Response {
    (StatusCode::NOT_ACCEPTABLE, [(CACHE_CONTROL, UNCACHED), (VARY, "Accept")]).into_response()
}
