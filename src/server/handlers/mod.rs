//! Routes and handlers. Fixed paths have routes; a fallback handles the paths of groups and group versions. The fallback uses
//! the same [`RequestInfo`] as authorization, so both always see the same path.

mod discovery;
mod health;
mod openapi;
mod query;
mod version;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::ServerState;
use super::error::ApiError;
use super::request_info::RequestInfo;
use crate::api::group::Group;
use crate::process::metrics::MEDIA_TYPE;
use crate::server::document::uncached;

pub fn routes() -> Router<Arc<ServerState>> {
    Router::new()
        .route("/", get(index))
        .route("/apis", get(discovery::groups))
        .route("/apis/", get(discovery::groups))
        .route("/healthz", get(health::healthz))
        .route("/healthz/{check}", get(health::healthz_check))
        .route("/livez", get(health::livez))
        .route("/livez/{check}", get(health::livez_check))
        .route("/readyz", get(health::readyz))
        .route("/readyz/{check}", get(health::readyz_check))
        .route("/openapi/v2", get(openapi::v2))
        .route("/openapi/v3", get(openapi::v3))
        .route("/version", get(version::version))
        .route("/metrics", get(metrics))
        .fallback(dispatch)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

async fn dispatch(State(state): State<Arc<ServerState>>, request: Request) -> Result<Response, ApiError> {
    let info = request.extensions().get::<Arc<RequestInfo>>().ok_or(ApiError::NotFound)?;
    let segments: Vec<&str> = info.target.segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["apis", group] => state.documents.current().await.serve_group(&request, group, ""),
        ["apis", group, version] => state.documents.current().await.serve_group(&request, group, version),
        ["openapi", "v3", "apis", group, version] => openapi::group_version(&request, info, group, version),
        _ => {
            let (head, timeout) = ((request.method(), request.headers()), request.extensions().get());
            query::handle(&state, head, timeout, info).await
        }
    }
}

/// `/`: the list of all paths.
async fn index() -> Response {
    let mut paths = ["/apis", "/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/version"]
        .map(str::to_owned)
        .to_vec();
    for group in Group::ALL {
        paths.push(format!("/apis/{}", group.name()));
        paths.extend(group.versions().iter().map(|version| format!("/apis/{}/{version}", group.name())));
    }
    for (endpoint, checks) in health::ENDPOINTS {
        paths.push(format!("/{endpoint}"));
        paths.extend(checks.iter().map(|check| format!("/{endpoint}/{}", check.name())));
    }
    paths.sort_unstable();
    uncached(Json(json!({"paths": paths})).into_response())
}

/// `/metrics`: metrics of this process.
async fn metrics(State(state): State<Arc<ServerState>>) -> Response {
    let mut response = state.metrics.encode().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    uncached(response)
}
