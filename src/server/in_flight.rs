//! Limits on the number of requests in flight and on the length of a URL.

use axum::body::Body;
use axum::response::Response;
use http::Uri;
use prometheus_client::registry::Registry;

use super::error::ApiError;
use super::request_info::RequestInfo;
use super::response_body::ResponseBody;
use crate::access::user::User;
use crate::process::budget::{Budget, Share};

/// Maximum length of a URL's path and query, in bytes. A selector with a hundred names needs a tenth of it.
const MAX_URL_BYTES: usize = 16 * 1024;

/// Limit of requests in flight (`WithMaxInFlightLimit` of `k8s.io/apiserver`).
pub struct InFlightLimit {
    requests: Budget,
}

impl InFlightLimit {
    /// A limit of `limit` requests; 0 means no limit. Registers a gauge of the requests in flight under the name that
    /// Kubernetes uses.
    pub fn register(registry: &mut Registry, limit: usize) -> Self {
        let requests = Budget::new(limit);
        let help = "Queries in flight that count towards --max-requests-inflight";
        registry.sub_registry_with_label(("request_kind".into(), "readOnly".into())).register(
            "apiserver_current_inflight_requests",
            help,
            requests.gauge(),
        );
        Self { requests }
    }

    /// Counts a request until the share is dropped. `None` for requests that have no limit: probes of kube-apiserver, discovery
    /// of clients, and users in `system:masters`.
    ///
    /// # Errors
    /// If the limit is reached.
    pub(super) fn admit(&self, user: &User, info: &RequestInfo) -> Result<Option<Share>, ApiError> {
        if user.is_master() || is_exempt(info) {
            return Ok(None);
        }
        let mut share = self.requests.share();
        share.grow(1).map_err(|_| ApiError::TooManyRequests)?;
        Ok(Some(share))
    }
}

/// Checks the length of a URL.
///
/// # Errors
/// If the URL is longer than [`MAX_URL_BYTES`].
pub(super) fn check_url(url: &Uri) -> Result<(), ApiError> {
    let length = url.path_and_query().map_or(0, |text| text.as_str().len());
    if length > MAX_URL_BYTES { Err(ApiError::UrlTooLong(MAX_URL_BYTES)) } else { Ok(()) }
}

/// Holds the share until the response is sent: a response that the client does not read uses memory.
pub(super) fn hold_until_sent(share: Option<Share>, response: Response) -> Response {
    match share {
        Some(share) => response.map(|body| Body::new(ResponseBody::new(body, share))),
        None => response,
    }
}

/// Whether the response is served from memory.
fn is_exempt(info: &RequestInfo) -> bool {
    let first = info.target.path.trim_start_matches('/').split('/').next().unwrap_or("");
    let exempt = ["", "api", "apis", "healthz", "livez", "metrics", "openapi", "readyz", "version"];
    info.resource.is_none() && exempt.contains(&first)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn info(path: &str) -> RequestInfo {
        RequestInfo::read(&Request::get(path).body(()).expect("a request")).expect("a well-formed path")
    }

    #[test]
    fn probes_and_discovery_are_exempt_and_queries_are_not() {
        for path in [
            "/",
            "/apis",
            "/apis/custom.metrics.k8s.io",
            "/apis/custom.metrics.k8s.io/v1beta2",
            "/healthz",
            "/livez/ping",
            "/metrics",
            "/openapi/v3/apis/custom.metrics.k8s.io/v1beta2",
            "/readyz?verbose",
            "/version",
        ] {
            assert!(is_exempt(&info(path)), "{path}");
        }
        for path in ["/apis/custom.metrics.k8s.io/v1beta2/nodes/*/m", "/nowhere"] {
            assert!(!is_exempt(&info(path)), "{path}");
        }
    }
}
