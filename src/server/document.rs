//! A response document that is encoded once and served from memory. With its `ETag`, clients need not load it again.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::server::error::ApiError;

/// Media type of most documents.
pub(super) const JSON: &str = "application/json";
/// `Cache-Control` of responses that caches must not keep; the default of the generic API server.
pub(super) const UNCACHED: &str = "no-cache, private";

/// An encoded document and its headers.
pub(super) struct Document {
    media_type: &'static str,
    cache_control: &'static str,
    /// SHA-256 of the body, in hexadecimal.
    hash: String,
    body: Bytes,
}

impl Document {
    /// Encodes a value as JSON with a final newline. `media_type` is its `Content-Type`.
    pub(super) fn json(
        value: &impl Serialize,
        media_type: &'static str,
        cache_control: &'static str,
    ) -> Self {
        let mut body = serde_json::to_vec(value).expect("the document can be encoded as JSON");
        body.push(b'\n');
        body.shrink_to_fit();
        Self::new(body, media_type, cache_control)
    }

    /// A document with this body.
    pub(super) fn new(body: Vec<u8>, media_type: &'static str, cache_control: &'static str) -> Self {
        let hash = digest(&SHA256, &body).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self { media_type, cache_control, hash, body: body.into() }
    }

    /// The `ETag` without quotes: the SHA-256 of the body, in hexadecimal.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// The response to a GET with these headers: 200 with the document, or 304 if `If-None-Match` contains its `ETag`.
    pub(super) fn response(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let etags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let not_modified = etags
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == etag);
        let body = if not_modified { Body::empty() } else { Body::from(self.body.clone()) };
        let mut response = Response::new(body);
        if not_modified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        }
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(self.cache_control));
        headers.insert(ETAG, HeaderValue::try_from(etag).expect("hexadecimal digits are ASCII"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// Runs `handle` if the method is GET.
///
/// # Errors
/// [`ApiError::MethodNotAllowed`] for any other method.
pub(super) fn only_get(request: &Request, handle: impl FnOnce() -> Response) -> Result<Response, ApiError> {
    if request.method() == Method::GET { Ok(handle()) } else { Err(ApiError::MethodNotAllowed) }
}

/// Adds `Cache-Control`: caches must not keep the response.
pub(super) fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(UNCACHED));
    response
}
