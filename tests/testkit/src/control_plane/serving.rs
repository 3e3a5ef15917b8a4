//! How the control plane handles a request: authentication, attributes, authorization, then the response.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::Plane;
use super::access::{User, forbidden};
use super::aggregation::forwarded_headers;
use super::discovery;
use super::objects::resources::Resource;
use super::objects::rest::{self, Call};
use super::openapi;
use super::reply::{Failure, text_response, unknown_path};
use super::request::{Attributes, Recorded};
use crate::go_url::{Query, decode_path};
use crate::https::{Body, Peer};

/// kube-apiserver's limit for request bodies in bytes.
const BODY_BYTES: usize = 3 << 20;

/// A request, parsed as far as authorization needs it.
struct ParsedRequest {
    head: request::Parts,
    /// The decoded path.
    path: Vec<u8>,
    query: Query,
    attributes: Attributes,
    audit_id: HeaderValue,
}

pub(super) async fn serve(
    plane: Arc<Plane>,
    request: Request<Incoming>,
    peer: Arc<Peer>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let fresh =
        || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a UUID is a valid header value");
    let audit_id = head.headers.get("audit-id").cloned().unwrap_or_else(fresh);
    let Some(path) = decode_path(head.uri.path()) else {
        return Ok(text_response(StatusCode::BAD_REQUEST, "400 Bad Request"));
    };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let attributes = Attributes::read(&head.method, &String::from_utf8_lossy(&path), &query);
    let asked = ParsedRequest { head, path, query, attributes, audit_id: audit_id.clone() };
    let mut response = answer(&plane, asked, body, &peer).await.unwrap_or_else(|failure| failure.response());
    let headers = response.headers_mut();
    headers.insert("audit-id", audit_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

async fn answer(
    plane: &Arc<Plane>,
    asked: ParsedRequest,
    body: Incoming,
    peer: &Peer,
) -> Result<Response<Body>, Failure> {
    let user = plane.access.authenticate(peer, &asked.head.headers);
    plane.recorder.record(asked.record(user.as_ref()));
    let user = user.ok_or_else(Failure::unauthorized)?;
    if !plane.access.allows(&user, &asked.attributes) {
        return Err(forbidden(&user, &asked.attributes));
    }
    if let Some(service) = plane.aggregation.of_path(&asked.attributes.path) {
        if !service.is_available() {
            return Ok(discovery::unavailable());
        }
        let host = service.backend.address.to_string();
        let headers =
            forwarded_headers(&asked.head, &host, &asked.path, &user, peer.address.ip(), &asked.audit_id);
        return Ok(service.backend.forward(&asked.head, &asked.path, &asked.query, headers, body).await);
    }
    asked.answer(plane, &user, body).await
}

impl ParsedRequest {
    /// The control plane's own response.
    async fn answer(
        &self,
        plane: &Arc<Plane>,
        user: &User,
        body: Incoming,
    ) -> Result<Response<Body>, Failure> {
        let Some(resource) = &self.attributes.resource else {
            if let Some(response) = openapi::answer(plane, &self.attributes.path, &self.head.headers) {
                return Ok(response);
            }
            return Ok(discovery::answer(plane, &self.attributes.path, &self.head.headers));
        };
        let verb = self.attributes.verb.as_str();
        match (resource.group.as_str(), resource.version.as_str(), resource.resource.as_str(), verb) {
            ("authentication.k8s.io", "v1", "tokenreviews", "create")
            | ("authorization.k8s.io", "v1", "subjectaccessreviews" | "selfsubjectaccessreviews", "create") =>
            {
                let body = read(body).await?;
                return plane.reviews.answer(&plane.access, &resource.resource, &body, user).await;
            }
            _ => {}
        }
        let known = Resource::named(&resource.group, &resource.version, &resource.resource);
        match known.filter(|known| {
            resource.subresource.is_empty() || known.status && resource.subresource == "status"
        }) {
            Some(known) => {
                let body = read(body).await?;
                let (query, headers) = (&self.query, &self.head.headers);
                rest::answer(
                    plane,
                    &Call { verb, resource: known, requested: resource, query, headers, body: &body },
                )
            }
            None => Ok(unknown_path()),
        }
    }

    fn record(&self, user: Option<&User>) -> Recorded {
        let agent = self.head.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Recorded {
            verb: self.attributes.verb.clone(),
            path: self.head.uri.path().to_owned(),
            query: self.head.uri.query().unwrap_or_default().to_owned(),
            user: user.map(|user| user.name.clone()).unwrap_or_default(),
            agent: agent.unwrap_or_default().to_owned(),
        }
    }
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let whole = Limited::new(body, BODY_BYTES).collect().await;
    let whole = whole.map_err(|error| {
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", format!("the body: {error}"))
    })?;
    Ok(whole.to_bytes())
}
