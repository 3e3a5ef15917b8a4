//! Middleware of every request, outermost first: log and count; timeout; authentication, limit of requests and authorization.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::request::Parts;

use super::ServerState;
use super::error::{self, ApiError, Denial};
use super::in_flight;
use super::negotiation::accepted;
use super::request_info::RequestInfo;
use crate::access::certificate::ClientChain;
use crate::access::user::User;
use crate::api::codec::negotiate::Offer;
use crate::api::duration::GoDuration;
use crate::process::budget::Share;

const AUDIT_ID: &str = "audit-id";

/// Adds the middleware to the routes.
pub fn add_middleware(
    routes: Router<Arc<ServerState>>,
    state: &Arc<ServerState>,
) -> Router<Arc<ServerState>> {
    routes
        .layer(from_fn_with_state(state.clone(), authorize))
        .layer(from_fn_with_state(state.clone(), limit_time))
        .layer(from_fn_with_state(state.clone(), observe))
}

/// Counts and logs the request. The response and the log line have an `Audit-ID`, by which the request can be found in the
/// API server's audit log. An `Audit-ID` of the request is kept if it has 1 to 64 bytes; otherwise a new one is generated.
async fn observe(State(state): State<Arc<ServerState>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let incoming = request.headers().get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= 64).cloned();
    let audit_id = incoming.unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::try_from(id).expect("a UUID is ASCII")
    });
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let info = in_flight::check_url(&uri).and_then(|()| Ok(Arc::new(RequestInfo::read(&request)?)));
    let (info, mut response) = match info {
        Ok(info) => {
            let encoding = accepted(request.headers(), &info, Offer::FullOnly).map(|(encoding, _)| encoding);
            request.extensions_mut().insert(info.clone());
            (Some(info), error::encode_status(next.run(request).await, encoding.unwrap_or_default()))
        }
        Err(error) => (None, error.into_response()),
    };
    let elapsed = start.elapsed();
    state.requests.observe(info.as_deref(), response.status(), elapsed);
    tracing::debug!(
        %method, path = uri.path(), query = uri.query().unwrap_or(""), status = response.status().as_u16(),
        milliseconds = elapsed.as_millis(), audit_id = audit_id.to_str().unwrap_or(""), "request"
    );
    response.headers_mut().insert(AUDIT_ID, audit_id);
    response
}

/// Timeout of the request, for handlers that derive their own timeouts from it.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimeout(pub Duration);

/// Ends a request after `--request-timeout`, or earlier if the client sets the parameter `timeout`.
async fn limit_time(State(state): State<Arc<ServerState>>, mut request: Request, next: Next) -> Response {
    let info = request.extensions().get::<Arc<RequestInfo>>();
    let requested = info.map_or("", |info| info.target.parameter("timeout"));
    let Some(timeout) = effective_timeout(requested, state.request_timeout) else {
        return ApiError::TimeoutParameter.into_response();
    };
    request.extensions_mut().insert(RequestTimeout(timeout));
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

/// The shorter of `requested` and `limit`; `None` if `requested` is not a duration. If it is empty or zero: `limit`.
fn effective_timeout(requested: &str, limit: Duration) -> Option<Duration> {
    if requested.is_empty() {
        return Some(limit);
    }
    let requested = Duration::try_from(requested.parse::<GoDuration>().ok()?).ok()?;
    Some(if requested.is_zero() { limit } else { requested.min(limit) })
}

/// Authenticates the user, reserves one of the requests in flight, and checks that the user has permission.
async fn authorize(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match admit(&state, &mut head).await {
        Ok(share) => in_flight::hold_until_sent(share, next.run(Request::from_parts(head, body)).await),
        Err(error) => {
            tracing::debug!(%error, "request rejected");
            error.into_response()
        }
    }
}

async fn admit(state: &ServerState, head: &mut Parts) -> Result<Option<Share>, ApiError> {
    let (user, info) = authenticate(state, head).await?;
    let share = state.in_flight.admit(&user, &info)?;
    check_permission(state, user, info).await?;
    Ok(share)
}

async fn authenticate(state: &ServerState, head: &Parts) -> Result<(User, Arc<RequestInfo>), ApiError> {
    let info = head.extensions.get::<Arc<RequestInfo>>().ok_or(ApiError::NotFound)?.clone();
    let client_chain = head.extensions.get::<Arc<ClientChain>>().map(AsRef::as_ref);
    let user = state.authenticators.authenticate(&head.headers, client_chain).await?;
    // The Karmada API server handles impersonation and does not forward these headers.
    if head.headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(ApiError::Impersonation);
    }
    Ok((user, info))
}

async fn check_permission(state: &ServerState, user: User, info: Arc<RequestInfo>) -> Result<(), ApiError> {
    let decision = state.reviewer.review(&user, info.action()).await?;
    if decision.allowed {
        Ok(())
    } else {
        Err(ApiError::Forbidden(Box::new(Denial { user, info, decision })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_can_only_shorten_the_timeout() {
        let limit = Duration::from_secs(30);
        assert_eq!(effective_timeout("", limit), Some(limit));
        assert_eq!(effective_timeout("0s", limit), Some(limit));
        assert_eq!(effective_timeout("1500ms", limit), Some(Duration::from_millis(1500)));
        assert_eq!(effective_timeout("1h", limit), Some(limit));
        assert_eq!(effective_timeout("-1s", limit), None);
        assert_eq!(effective_timeout("soon", limit), None);
    }
}
