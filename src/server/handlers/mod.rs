//! What is served: fixed paths by their routes, and everything under a group version by one fallback that
//! dispatches on the request info that authorization saw.

mod custom_metrics;
pub mod discovery;
mod document;
mod external_metrics;
pub mod health;
mod openapi;
mod query;
mod resource_metrics;
mod version;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde_json::json;

use super::Serving;
use super::error::Error;
use super::request_info::RequestInfo;
use crate::api::custom_metrics::{GROUP, Version};
use crate::api::group::Group;
use crate::api::selector::Requirement;
use crate::api::{external_metrics as external, resource_metrics as resource};
use crate::gather::query::Question;
use crate::process::metrics::MEDIA_TYPE;
use document::UNCACHED;
use query::{Asked, Asking};

/// What a path below a group version names.
enum Subject<'a> {
    Custom(Version, custom_metrics::Named),
    External([&'a str; 2]),
    Resource(resource_metrics::Subject<'a>),
}

/// All routes.
pub fn routes() -> Router<Arc<Serving>> {
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
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
}

async fn dispatch(State(serving): State<Arc<Serving>>, request: Request) -> Result<Response, Error> {
    let info = request.extensions().get::<Arc<RequestInfo>>().ok_or(Error::NotFound)?;
    let segments: Vec<&str> = info.segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["apis", group] => serving.documents.current().await.below(&request, group, ""),
        ["apis", group, version] => serving.documents.current().await.below(&request, group, version),
        ["openapi", "v3", "apis", group, version] => openapi::group_version(&request, info, group, version),
        ref segments => {
            let (subject, asking) = (Subject::read(segments)?, Asking::of(&serving, &request, info));
            asking.answer(|| subject.asked(info, asking.cluster_label())).await
        }
    }
}

/// What a path asks of members, and by requirements on `cluster_label` of which: what would be asked to serve it.
///
/// # Errors
/// If it asks for no metrics.
pub fn question(
    info: &RequestInfo,
    cluster_label: Option<&str>,
) -> Result<(Question, Vec<Requirement>), Error> {
    let segments: Vec<&str> = info.segments.iter().map(String::as_str).collect();
    let asked = Subject::read(&segments)?.asked(info, cluster_label)?;
    Ok((asked.question, asked.clusters))
}

impl<'a> Subject<'a> {
    fn read(segments: &[&'a str]) -> Result<Self, Error> {
        match *segments {
            ["apis", GROUP, version, ref below @ ..] => {
                let version = Version::from_name(version).ok_or(Error::NotFound)?;
                Ok(Self::Custom(version, custom_metrics::subject(below)?))
            }
            ["apis", external::GROUP, external::VERSION, ref below @ ..] => {
                external_metrics::subject(below).map(Self::External)
            }
            ["apis", resource::GROUP, resource::VERSION, ref below @ ..] => {
                resource_metrics::subject(below).map(Self::Resource)
            }
            _ => Err(Error::NotFound),
        }
    }

    /// What is asked of it.
    fn asked(self, info: &RequestInfo, cluster_label: Option<&str>) -> Result<Asked, Error> {
        match self {
            Self::Custom(version, subject) => custom_metrics::asked(version, subject, info, cluster_label),
            Self::External(subject) => external_metrics::asked(subject, info, cluster_label),
            Self::Resource(subject) => resource_metrics::asked(&subject, info),
        }
    }
}

fn only_get(request: &Request, handle: impl FnOnce() -> Response) -> Result<Response, Error> {
    if request.method() == Method::GET { Ok(handle()) } else { Err(Error::MethodNotAllowed) }
}

/// The paths that there are.
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

/// This process' own metrics.
async fn metrics(State(serving): State<Arc<Serving>>) -> Response {
    let mut response = serving.metrics.encode().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    uncached(response)
}

/// Says that nobody may keep the response.
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(UNCACHED));
    response
}
