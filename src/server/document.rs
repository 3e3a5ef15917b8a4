//! A document that is encoded once and answered from memory, with a tag that saves its body.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::server::error::ApiError;

/// The media type of most documents.
pub(super) const JSON: &str = "application/json";
/// Says that nobody may keep a response, as the generic API server does by default.
pub(super) const UNCACHED: &str = "no-cache, private";

/// The bytes of a document and what is said of them.
pub(super) struct Document {
    media_type: &'static str,
    cache_control: &'static str,
    hash: String,
    body: Bytes,
}

impl Document {
    /// A JSON document that is served as `media_type`.
    pub(super) fn json(
        value: &impl Serialize,
        media_type: &'static str,
        cache_control: &'static str,
    ) -> Self {
        let mut body = serde_json::to_vec(value).expect("a document has a JSON form");
        body.push(b'\n');
        body.shrink_to_fit();
        Self::new(body, media_type, cache_control)
    }

    /// Any document.
    pub(super) fn new(body: Vec<u8>, media_type: &'static str, cache_control: &'static str) -> Self {
        let hash = digest(&SHA256, &body).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self { media_type, cache_control, hash, body: body.into() }
    }

    /// What its tag holds between quotes.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// The answer to a request with these headers: the document, or that it is still the one that the client has.
    pub(super) fn response(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let fresh = known
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == etag);
        let mut response = Response::new(if fresh { Body::empty() } else { Body::from(self.body.clone()) });
        if fresh {
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

/// The response of a document, to which nothing but a GET may be done.
pub(super) fn only_get(request: &Request, handle: impl FnOnce() -> Response) -> Result<Response, ApiError> {
    if request.method() == Method::GET { Ok(handle()) } else { Err(ApiError::MethodNotAllowed) }
}

/// Says that nobody may keep the response.
pub(super) fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(UNCACHED));
    response
}
