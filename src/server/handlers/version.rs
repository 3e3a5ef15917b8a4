//! `/version`, in the shape of Kubernetes' `version.Info`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use super::document::uncached;
use crate::api::version::Info;

pub(super) async fn version() -> Response {
    uncached(Json(Info::current()).into_response())
}
