//! Requests to one member.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

use super::finding::{CheckStatus, Finding};
use crate::api::cause::Cause;
use crate::api::group::Group;
use crate::api::text::shorten;
use crate::member::Failure;
use crate::member::client::{MemberClient, MemberLimits};
use crate::transport::Progress;

/// A member with a client.
pub(super) struct CheckedMember<'a> {
    pub(super) name: &'a str,
    pub(super) client: MemberClient,
    pub(super) limits: &'a MemberLimits,
}

/// A response with its JSON body, of any status. A body that is not JSON becomes a JSON string, shortened.
pub(super) struct JsonResponse {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    pub(super) latency: Duration,
}

impl CheckedMember<'_> {
    /// Sends a GET request for JSON.
    pub(super) async fn get(&self, path: &str) -> Result<JsonResponse, Failure> {
        let started = Instant::now();
        let (progress, limit) = (Progress::default(), self.limits.timeout);
        // All requests of the check use the connection share of custom metrics. They are too few to need the other shares.
        let request = self.client.get(Group::Custom, path, "application/json", &progress);
        let response = timeout(limit, request).await;
        let response = response.unwrap_or_else(|_| Err(Failure::late(&progress, limit)))?;
        let body = serde_json::from_slice(&response.body)
            .unwrap_or_else(|_| Value::String(shorten(&String::from_utf8_lossy(&response.body))));
        Ok(JsonResponse { status: response.status, body, latency: started.elapsed() })
    }

    pub(super) fn ok(&self, check: &str, message: impl Into<String>) -> Finding {
        Finding::ok(Some(self.name), check, message)
    }

    pub(super) fn broken(&self, check: &str, cause: Cause, message: impl Into<String>) -> Finding {
        broken(self.name, check, cause, message)
    }
}

/// The HTTP status of a response, with the message of its Kubernetes `Status` or its text.
pub(super) fn status_and_message(response: &JsonResponse) -> String {
    let text = response.body["message"].as_str().or(response.body.as_str()).unwrap_or_default();
    format!("HTTP {}: {}", response.status.as_u16(), shorten(text))
}

/// The cause if the member rejects the token (401) or the token has no permission (403).
pub(super) fn token_problem(status: StatusCode) -> Option<Cause> {
    match status {
        StatusCode::UNAUTHORIZED => Some(Cause::Unauthorized),
        StatusCode::FORBIDDEN => Some(Cause::Forbidden),
        _ => None,
    }
}

pub(super) fn broken(cluster: &str, check: &str, cause: Cause, message: impl Into<String>) -> Finding {
    Finding::problem(Some(cluster), check, CheckStatus::Broken, cause, message)
}
