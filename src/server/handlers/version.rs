//! `/version`, in the shape of Kubernetes' `version.Info`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::api::version::Info;
use crate::server::document::uncached;

pub(super) async fn version() -> Response {
    uncached(Json(Info::current()).into_response())
}
