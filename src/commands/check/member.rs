//! One member that is asked by itself.

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

/// A member that can be asked.
pub(super) struct CheckedMember<'a> {
    pub(super) name: &'a str,
    pub(super) client: MemberClient,
    pub(super) limits: &'a MemberLimits,
}

/// An answer in JSON, whatever its status.
pub(super) struct JsonResponse {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    pub(super) latency: Duration,
}

impl CheckedMember<'_> {
    /// Asks for a path, in JSON.
    pub(super) async fn get(&self, path: &str) -> Result<JsonResponse, Failure> {
        let begun = Instant::now();
        let (progress, limit) = (Progress::default(), self.limits.timeout);
        // One request at a time: whose share it takes does not matter.
        let asking = self.client.get(Group::Custom, path, "application/json", &progress);
        let reply = timeout(limit, asking).await;
        let reply = reply.unwrap_or_else(|_| Err(Failure::late(&progress, limit)))?;
        let body = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|_| Value::String(shorten(&String::from_utf8_lossy(&reply.body))));
        Ok(JsonResponse { status: reply.status, body, latency: begun.elapsed() })
    }

    pub(super) fn ok(&self, link: &str, message: impl Into<String>) -> Finding {
        Finding::ok(Some(self.name), link, message)
    }

    pub(super) fn broken(&self, link: &str, cause: Cause, message: impl Into<String>) -> Finding {
        broken(self.name, link, cause, message)
    }
}

/// The status of an answer with what it says: a `Status`, or a text in its place.
pub(super) fn status_and_message(answer: &JsonResponse) -> String {
    let text = answer.body["message"].as_str().or(answer.body.as_str()).unwrap_or_default();
    format!("HTTP {}: {}", answer.status.as_u16(), shorten(text))
}

/// What a status says about the token, whatever it was asked for with.
pub(super) fn refused(status: StatusCode) -> Option<Cause> {
    match status {
        StatusCode::UNAUTHORIZED => Some(Cause::Unauthorized),
        StatusCode::FORBIDDEN => Some(Cause::Forbidden),
        _ => None,
    }
}

pub(super) fn broken(cluster: &str, link: &str, cause: Cause, message: impl Into<String>) -> Finding {
    Finding::problem(Some(cluster), link, CheckStatus::Broken, cause, message)
}
