//! Converts every failure of a request into an HTTP response.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use super::request_info::RequestInfo;
use crate::access::Unauthenticated;
use crate::access::review::{Action, Decision, ReviewError};
use crate::access::user::User;
use crate::api::codec::Encode as _;
use crate::api::codec::negotiate::{Encoding, NotAcceptable};
use crate::api::status::{Details, Reason, Status};
use crate::api::table::IncludeObjectError;
use crate::query::QueryError;
use crate::query::request_target::PathError;

/// Why a request fails.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The path or the query string is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The request has credentials, but none of them is valid.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// The user has no permission.
    #[error("{} may not {} {}: {}", .0.user.name, .0.info.verb, .0.info.target.path, .0.decision.reason)]
    Forbidden(Box<Denial>),
    /// The request has impersonation headers.
    #[error(
        "impersonation is not supported by karmada-metrics-adapter: send Impersonate-* headers to the Karmada API server"
    )]
    Impersonation,
    /// The permission check failed.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// Nothing is served at this path.
    #[error("the server could not find the requested resource")]
    NotFound,
    /// The path does not support this method.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// The query for metrics is invalid.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The parameter `includeObject` is invalid.
    #[error(transparent)]
    IncludeObject(#[from] IncludeObjectError),
    /// The client accepts none of the offered formats.
    #[error(transparent)]
    NotAcceptable(#[from] NotAcceptable),
    /// The URL is longer than allowed.
    #[error("the URL has more than {0} bytes")]
    UrlTooLong(usize),
    /// Too many requests are in flight.
    #[error("too many requests, please try again later (--max-requests-inflight)")]
    TooManyRequests,
    /// The request exceeded its timeout.
    #[error("the request exceeded its timeout (--request-timeout or the parameter timeout)")]
    Timeout,
    /// The parameter `timeout` is not a duration.
    #[error("invalid timeout specified in the request URL: use a duration such as 10s")]
    TimeoutParameter,
    /// A status from elsewhere, such as the combined failures of members.
    #[error("{}", .0.message)]
    Status(Box<Status>),
}

/// A denied request.
#[derive(Debug)]
pub struct Denial {
    /// The authenticated user.
    pub user: User,
    /// The denied request.
    pub info: Arc<RequestInfo>,
    /// The decision of the control plane.
    pub decision: Decision,
}

impl ApiError {
    /// The failure as a Kubernetes `Status`.
    pub fn status(self) -> Status {
        let text = self.to_string();
        let empty = Details::default;
        match self {
            Self::Path(_)
            | Self::Query(QueryError::Path | QueryError::Selector(_) | QueryError::FieldSelector(_))
            | Self::IncludeObject(_)
            | Self::TimeoutParameter => Status::failure(400, Reason::BadRequest, text),
            Self::NotAcceptable(NotAcceptable::MediaType) => {
                Status::failure(406, Reason::NotAcceptable, text).with_details(empty())
            }
            Self::NotAcceptable(NotAcceptable::Parameters) => {
                Status::failure(406, Reason::NotAcceptable, text)
            }
            Self::Query(QueryError::NotWatched { resource: kind, group }) => {
                let details = Details { group: group.to_owned(), kind, ..Details::default() };
                Status::failure(405, Reason::MethodNotAllowed, text).with_details(details)
            }
            Self::Unauthenticated(error) if error.is_throttled() => {
                Status::too_many_requests("too many requests wait for authentication, please try again later")
            }
            Self::Unauthenticated(_) => Status::failure(401, Reason::Unauthorized, "Unauthorized"),
            Self::Forbidden(denial) => forbidden(&denial),
            Self::Impersonation => Status::failure(403, Reason::Forbidden, text).with_details(empty()),
            Self::TooManyRequests | Self::Review(ReviewError::TooMany) => Status::too_many_requests(text),
            Self::Review(_) => {
                Status::failure(500, Reason::InternalError, format!("Internal error occurred: {text}"))
            }
            Self::NotFound | Self::Query(QueryError::NotFound) => {
                Status::failure(404, Reason::NotFound, text).with_details(empty())
            }
            Self::MethodNotAllowed => {
                Status::failure(405, Reason::MethodNotAllowed, text).with_details(empty())
            }
            Self::UrlTooLong(_) => Status::failure(414, Reason::BadRequest, text),
            Self::Timeout => Status::failure(504, Reason::Timeout, text).with_details(empty()),
            Self::Status(status) => *status,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let forbidden = matches!(self, Self::Forbidden(_));
        let status = self.status();
        let mut response = Response::new(Body::from(status.to_json()));
        *response.status_mut() =
            StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if forbidden {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Arc::new(status));
        response
    }
}

/// Encodes the `Status` of a failure in the encoding that the client accepts. Other responses are not changed.
pub fn encode_status(mut response: Response, encoding: Encoding) -> Response {
    if encoding == Encoding::Json {
        return response;
    }
    if let Some(status) = response.extensions_mut().remove::<Arc<Status>>() {
        *response.body_mut() = Body::from(encoding.body(&*status));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    }
    response
}

/// `responsewriters.Forbidden` and `forbiddenMessage` of `k8s.io/apiserver`.
fn forbidden(Denial { user, info, decision }: &Denial) -> Status {
    let user = &user.name;
    let reason = if decision.reason.is_empty() { String::new() } else { format!(": {}", decision.reason) };
    match info.action() {
        Action::Path { verb, path } => {
            let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}{reason}");
            Status::failure(403, Reason::Forbidden, message).with_details(Details::default())
        }
        Action::Resource { verb, group, namespace, resource, subresource, name, .. } => {
            let qualified = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            let object = if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
            let full_resource =
                if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let message = format!(
                "{object} is forbidden: User {user:?} cannot {verb} resource {full_resource:?} \
                 in API group {group:?} {scope}{reason}"
            );
            let details = Details { name, group, kind: resource, ..Details::default() };
            Status::failure(403, Reason::Forbidden, message).with_details(details)
        }
    }
}
