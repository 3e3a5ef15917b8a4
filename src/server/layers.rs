//! What every request goes through, outermost first: it is observed, bounded in time, and its sender is authorized.

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

/// Puts the layers around the routes.
pub fn around(routes: Router<Arc<ServerState>>, serving: &Arc<ServerState>) -> Router<Arc<ServerState>> {
    routes
        .layer(from_fn_with_state(serving.clone(), authorize))
        .layer(from_fn_with_state(serving.clone(), bound))
        .layer(from_fn_with_state(serving.clone(), observe))
}

/// Counts and logs the request, and gives it an id that the API server's audit log can be searched for; one that
/// came along is kept.
async fn observe(State(serving): State<Arc<ServerState>>, mut request: Request, next: Next) -> Response {
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
            let encoding = accepted(request.headers(), &info, Offer::Whole).map(|(encoding, _)| encoding);
            request.extensions_mut().insert(info.clone());
            (Some(info), error::encoded(next.run(request).await, encoding.unwrap_or_default()))
        }
        Err(error) => (None, error.into_response()),
    };
    let elapsed = start.elapsed();
    serving.requests.observe(info.as_deref(), response.status(), elapsed);
    tracing::debug!(
        %method, path = uri.path(), query = uri.query().unwrap_or(""), status = response.status().as_u16(),
        milliseconds = elapsed.as_millis(), audit_id = audit_id.to_str().unwrap_or(""), "request"
    );
    response.headers_mut().insert(AUDIT_ID, audit_id);
    response
}

/// How long a request may take, for handlers that have to end in time by themselves.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimeout(pub Duration);

/// Ends a request that takes longer than it may; a client's own `timeout` shortens that.
async fn bound(State(serving): State<Arc<ServerState>>, mut request: Request, next: Next) -> Response {
    let info = request.extensions().get::<Arc<RequestInfo>>();
    let asked = info.map_or("", |info| info.target.parameter("timeout"));
    let Some(timeout) = shortest(asked, serving.request_timeout) else {
        return ApiError::TimeoutParameter.into_response();
    };
    request.extensions_mut().insert(RequestTimeout(timeout));
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

/// The shorter of the two; `None` if `asked` is no duration. Nothing and zero leave it at `most`.
fn shortest(asked: &str, most: Duration) -> Option<Duration> {
    if asked.is_empty() {
        return Some(most);
    }
    let asked = Duration::try_from(asked.parse::<GoDuration>().ok()?).ok()?;
    Some(if asked.is_zero() { most } else { asked.min(most) })
}

/// Finds out who asks, whether there is room for the request, and whether they may.
async fn authorize(State(serving): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match admitted(&serving, &mut head).await {
        Ok(share) => in_flight::hold_until_sent(share, next.run(Request::from_parts(head, body)).await),
        Err(error) => {
            tracing::debug!(%error, "request refused");
            error.into_response()
        }
    }
}

async fn admitted(serving: &ServerState, head: &mut Parts) -> Result<Option<Share>, ApiError> {
    let (user, info) = identified(serving, head).await?;
    let share = serving.admission.admit(&user, &info)?;
    review(serving, user, info).await?;
    Ok(share)
}

async fn identified(serving: &ServerState, head: &Parts) -> Result<(User, Arc<RequestInfo>), ApiError> {
    let info = head.extensions.get::<Arc<RequestInfo>>().ok_or(ApiError::NotFound)?.clone();
    let presented = head.extensions.get::<Arc<ClientChain>>().map(AsRef::as_ref);
    let user = serving.authenticators.authenticate(&head.headers, presented).await?;
    // The Karmada API server impersonates by itself and passes none of these headers on.
    if head.headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(ApiError::Impersonation);
    }
    Ok((user, info))
}

async fn review(serving: &ServerState, user: User, info: Arc<RequestInfo>) -> Result<(), ApiError> {
    let decision = serving.reviewer.review(&user, info.action()).await?;
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
    fn a_client_may_shorten_its_time_and_never_lengthen_it() {
        let most = Duration::from_secs(30);
        assert_eq!(shortest("", most), Some(most));
        assert_eq!(shortest("0s", most), Some(most));
        assert_eq!(shortest("1500ms", most), Some(Duration::from_millis(1500)));
        assert_eq!(shortest("1h", most), Some(most));
        assert_eq!(shortest("-1s", most), None);
        assert_eq!(shortest("soon", most), None);
    }
}
