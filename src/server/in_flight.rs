//! How many requests are worked on at a time, and how long a URL may be.

use axum::body::Body;
use axum::response::Response;
use http::Uri;
use prometheus_client::registry::Registry;

use super::error::ApiError;
use super::request_info::RequestInfo;
use super::response_body::ResponseBody;
use crate::access::user::User;
use crate::process::budget::{Budget, Share};

/// Most bytes of a URL's path and query. A selector over a hundred names has a tenth of that.
const URL: usize = 16 * 1024;

/// The bound on requests in flight (`WithMaxInFlightLimit` of `k8s.io/apiserver`).
pub struct InFlightLimit {
    requests: Budget,
}

impl InFlightLimit {
    /// A bound of so many; 0 means none. Registers how many there are under Kubernetes' name.
    pub fn register(registry: &mut Registry, most: usize) -> Self {
        let requests = Budget::new(most);
        let help = "Queries that are being answered and count towards --max-requests-inflight";
        registry.sub_registry_with_label(("request_kind".into(), "readOnly".into())).register(
            "apiserver_current_inflight_requests",
            help,
            requests.gauge(),
        );
        Self { requests }
    }

    /// Lets a request in, which counts as long as the share is kept. What kube-apiserver's probes and clients' discovery
    /// ask for is never refused, nor is anybody in `system:masters`.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn admit(&self, user: &User, info: &RequestInfo) -> Result<Option<Share>, ApiError> {
        if user.is_master() || is_exempt(info) {
            return Ok(None);
        }
        let mut share = self.requests.share();
        share.grow(1).map_err(|_| ApiError::TooManyRequests)?;
        Ok(Some(share))
    }
}

/// Refuses a URL that is too long.
pub(super) fn check_url(url: &Uri) -> Result<(), ApiError> {
    let length = url.path_and_query().map_or(0, |text| text.as_str().len());
    if length > URL { Err(ApiError::UrlTooLong(URL)) } else { Ok(()) }
}

/// Keeps a share until the answer has gone out: one that is not taken still takes memory.
pub(super) fn hold_until_sent(share: Option<Share>, response: Response) -> Response {
    match share {
        Some(share) => response.map(|body| Body::new(ResponseBody::new(body, share))),
        None => response,
    }
}

/// What is answered from memory.
fn is_exempt(info: &RequestInfo) -> bool {
    let first = info.target.path.trim_start_matches('/').split('/').next().unwrap_or("");
    let light = ["", "api", "apis", "healthz", "livez", "metrics", "openapi", "readyz", "version"];
    info.resource.is_none() && light.contains(&first)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn info(path: &str) -> RequestInfo {
        RequestInfo::read(&Request::get(path).body(()).expect("a request")).expect("a well-formed path")
    }

    #[test]
    fn what_probes_and_discovery_ask_for_is_light_and_queries_are_not() {
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
