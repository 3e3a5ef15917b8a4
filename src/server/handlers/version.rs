//! `/version`, in the format of `version.Info` of Kubernetes.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::api::version::VersionInfo;
use crate::server::document::uncached;

pub(super) async fn version() -> Response {
    uncached(Json(VersionInfo::current()).into_response())
}
