//! `/healthz`, `/livez` and `/readyz`, as `k8s.io/apiserver/pkg/server/healthz` serves them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use super::super::ServerState;
use super::super::error::ApiError;
use super::super::request_info::RequestInfo;
use crate::server::document::uncached;
use crate::server::health::HealthSources;

/// The endpoints and their checks. Readiness does not depend on the health of members.
pub(super) const ENDPOINTS: [(&str, &[HealthCheck]); 3] =
    [("healthz", LIVE), ("livez", LIVE), ("readyz", READY)];

const LIVE: &[HealthCheck] = &[HealthCheck::Ping];
const READY: &[HealthCheck] =
    &[HealthCheck::Ping, HealthCheck::InformerSync, HealthCheck::Discovery, HealthCheck::Shutdown];

type Info = axum::extract::Extension<Arc<RequestInfo>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HealthCheck {
    /// The server responds.
    Ping,
    /// The watches of the control plane have synced.
    InformerSync,
    /// The first discovery of each member has finished or timed out.
    Discovery,
    /// The process is not shutting down.
    Shutdown,
}

impl HealthCheck {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::InformerSync => "informer-sync",
            Self::Discovery => "discovery",
            Self::Shutdown => "shutdown",
        }
    }

    fn passes(self, health: &HealthSources) -> bool {
        match self {
            Self::Ping => true,
            Self::InformerSync => *health.synced.borrow(),
            Self::Discovery => *health.discovered.borrow(),
            Self::Shutdown => !health.shutdown.is_cancelled(),
        }
    }
}

pub(super) async fn healthz(State(state): State<Arc<ServerState>>, info: Info) -> Response {
    run_all("healthz", LIVE, &state.health, &info)
}

pub(super) async fn livez(State(state): State<Arc<ServerState>>, info: Info) -> Response {
    run_all("livez", LIVE, &state.health, &info)
}

pub(super) async fn readyz(State(state): State<Arc<ServerState>>, info: Info) -> Response {
    run_all("readyz", READY, &state.health, &info)
}

pub(super) async fn healthz_check(
    State(state): State<Arc<ServerState>>,
    Path(check): Path<String>,
) -> Result<Response, ApiError> {
    run_one(LIVE, &check, &state.health)
}

pub(super) async fn livez_check(
    State(state): State<Arc<ServerState>>,
    Path(check): Path<String>,
) -> Result<Response, ApiError> {
    run_one(LIVE, &check, &state.health)
}

pub(super) async fn readyz_check(
    State(state): State<Arc<ServerState>>,
    Path(check): Path<String>,
) -> Result<Response, ApiError> {
    run_one(READY, &check, &state.health)
}

/// `ok`, or a line for each check if a check fails or the parameter `verbose` is set (`handleRootHealth` of
/// `k8s.io/apiserver`). A failed check gives status 500.
fn run_all(endpoint: &str, checks: &[HealthCheck], health: &HealthSources, info: &RequestInfo) -> Response {
    let excluded: Vec<&str> = info
        .target
        .parameters
        .iter()
        .filter(|(key, _)| key == "exclude")
        .map(|(_, value)| value.as_str())
        .collect();
    let mut text = String::new();
    let mut failed = false;
    for check in checks {
        let name = check.name();
        let line = if excluded.contains(&name) {
            format!("[+]{name} excluded: ok")
        } else if check.passes(health) {
            format!("[+]{name} ok")
        } else {
            failed = true;
            format!("[-]{name} failed: reason withheld")
        };
        writeln!(text, "{line}").expect("writing to a String does not fail");
    }
    let unknown = excluded.iter().filter(|name| checks.iter().all(|check| check.name() != **name));
    let unknown: Vec<String> = unknown.map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        writeln!(text, "warn: some health checks cannot be excluded: no matches for {names}")
            .expect("writing to a String does not fail");
    }
    if failed {
        tracing::debug!(endpoint, checks = %text.replace('\n', " "), "health check failed");
        return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n"));
    }
    if info.target.parameters.iter().any(|(key, _)| key == "verbose") {
        return plain(StatusCode::OK, format!("{text}{endpoint} check passed\n"));
    }
    plain(StatusCode::OK, "ok".to_owned())
}

fn run_one(checks: &[HealthCheck], name: &str, health: &HealthSources) -> Result<Response, ApiError> {
    let check = checks.iter().find(|check| check.name() == name).ok_or(ApiError::NotFound)?;
    if check.passes(health) {
        return Ok(plain(StatusCode::OK, "ok".to_owned()));
    }
    let text = format!("internal server error: {name} has not passed\n");
    Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, text))
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    uncached(response)
}
