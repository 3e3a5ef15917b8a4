//! One member, link by link: what leads to it, the way there, its metrics APIs, and a sample query.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

use super::finding::{Cause, Finding, Verdict};
use super::sample::{self, Sample};
use crate::api::group::Group;
use crate::fleet::registry::{ClusterSecret, ClusterSpec, NotAMember};
use crate::member::Failure;
use crate::member::credentials::Credentials;
use crate::member::examine::{Greeting, Hop, Obstacle, examine};
use crate::member::failure::shortened;
use crate::member::transport::{Limits, Transport};
use crate::process::budget::Claim;

/// From how much on clocks differ too much: values are a minute old or less.
const SKEW: Duration = Duration::from_secs(30);

/// A member that can be asked, and what is found.
pub(super) struct Patient<'a> {
    pub(super) name: &'a str,
    pub(super) transport: Transport,
    pub(super) limits: &'a Limits,
    pub(super) findings: Vec<Finding>,
}

/// An answer in JSON, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    pub(super) latency: Duration,
}

/// Goes from link to link and stops where one is broken.
pub(super) async fn check(
    name: &str,
    spec: &ClusterSpec,
    secret: Option<&Option<ClusterSecret>>,
    limits: &Limits,
    sample: Option<&Sample>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !spec.ready {
        let what = "Karmada says that it is not Ready, so that it is not asked";
        findings.push(broken(name, "Cluster", Cause::NotReady, what));
    }
    let credentials = match spec.credentials(secret) {
        Ok(credentials) => credentials,
        Err(error) => {
            findings.push(broken(name, "credentials", not_a_member(&error), error.to_string()));
            return findings;
        }
    };
    let what = match &spec.secret {
        Some(secret) => format!("token of Secret {}/{}", secret.namespace, secret.name),
        None => String::new(),
    };
    findings.push(Finding::ok(Some(name), "credentials", what));
    if !reach(name, &credentials, limits, &mut findings).await {
        return findings;
    }
    let transport = match Transport::new(credentials, limits) {
        Ok(transport) => transport,
        Err(error) => {
            findings.push(broken(name, "credentials", Cause::CredentialsMalformed, error.to_string()));
            return findings;
        }
    };
    let mut patient = Patient { name, transport, limits, findings };
    for group in Group::ALL {
        patient.api(group).await;
    }
    if let Some(sample) = sample {
        sample::take(&mut patient, sample).await;
    }
    patient.findings
}

async fn reach(name: &str, credentials: &Credentials, limits: &Limits, findings: &mut Vec<Finding>) -> bool {
    let Greeting { status, skew } = match examine(credentials, limits).await {
        Ok(greeting) => greeting,
        Err(obstacle) => {
            findings.push(broken(name, "connection", cause_of(&obstacle), obstacle.to_string()));
            return false;
        }
    };
    findings.push(Finding::ok(Some(name), "connection", credentials.endpoint.to_string()));
    if let Some((apart, ahead)) = skew.filter(|(apart, _)| *apart > SKEW) {
        let side = if ahead { "ahead of" } else { "behind" };
        let what = format!("its clock is {} s {side} this one", apart.as_secs());
        findings.push(Finding::amiss(Some(name), "clock", Verdict::Warning, Cause::ClockSkew, what));
    }
    if status == StatusCode::UNAUTHORIZED {
        findings.push(broken(name, "token", Cause::TokenRefused, "the API server does not accept the token"));
        return false;
    }
    true
}

impl Patient<'_> {
    /// Asks for a path, in JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let asking = self.transport.get(path, "application/json", Claim::Exempt);
        let reply = timeout(self.limits.timeout, asking).await;
        let reply = reply.unwrap_or(Err(Failure::Timeout(self.limits.timeout)))?;
        let body = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|_| Value::String(shortened(&String::from_utf8_lossy(&reply.body))));
        Ok(Answer { status: reply.status, body, latency: begun.elapsed() })
    }

    pub(super) fn ok(&mut self, link: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::ok(Some(self.name), link, message));
    }

    pub(super) fn amiss(
        &mut self,
        link: impl Into<String>,
        verdict: Verdict,
        cause: Cause,
        message: impl Into<String>,
    ) {
        self.findings.push(Finding::amiss(Some(self.name), link, verdict, cause, message));
    }

    /// Whether the API is there. Only custom metrics are missed by everybody.
    async fn api(&mut self, group: Group) {
        let link = group.name();
        let verdict = if group == Group::Custom { Verdict::Broken } else { Verdict::Warning };
        let mut last = None;
        for version in group.versions() {
            match self.get(&format!("/apis/{group}/{version}")).await {
                Ok(Answer { status: StatusCode::OK, body, latency }) => {
                    let resources = body["resources"].as_array().map_or(0, Vec::len);
                    self.ok(link, format!("{version}, {resources} listed, {} ms", latency.as_millis()));
                    return;
                }
                other => last = last.or(Some(other)),
            }
        }
        let (cause, what) = match last {
            None | Some(Ok(Answer { status: StatusCode::NOT_FOUND, .. })) => self.absent(group).await,
            Some(Ok(Answer { status: StatusCode::FORBIDDEN, body, .. })) => {
                (Cause::Forbidden, message(&body))
            }
            Some(Ok(Answer { status: StatusCode::SERVICE_UNAVAILABLE, body, .. })) => {
                self.unavailable(group).await.unwrap_or((Cause::ApiFailing, message(&body)))
            }
            Some(Ok(Answer { status, body, .. })) => {
                (Cause::ApiFailing, format!("HTTP {}: {}", status.as_u16(), message(&body)))
            }
            Some(Err(failure)) => {
                self.unavailable(group).await.unwrap_or((Cause::ApiFailing, failure.to_string()))
            }
        };
        // Nobody needs an API that was never installed, save that of custom metrics.
        if cause == Cause::ApiAbsent && group != Group::Custom {
            self.ok(link, format!("{what}; it is not needed for custom metrics"));
        } else {
            self.amiss(link, verdict, cause, what);
        }
    }

    async fn absent(&self, group: Group) -> (Cause, String) {
        let registered = self.unavailable(group).await;
        registered.unwrap_or((
            Cause::ApiAbsent,
            "the member has no such API: no APIService is registered".to_owned(),
        ))
    }

    /// What the member's own API server says about the APIService.
    async fn unavailable(&self, group: Group) -> Option<(Cause, String)> {
        for version in group.versions() {
            let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{version}.{group}");
            let Ok(Answer { status: StatusCode::OK, body, .. }) = self.get(&path).await else { continue };
            let conditions = body["status"]["conditions"].as_array().into_iter().flatten();
            let available = conditions.into_iter().find(|condition| condition["type"] == "Available");
            let text =
                |key: &str| available.map_or("", |condition| condition[key].as_str().unwrap_or_default());
            if text("status") != "True" {
                let (reason, message) = (text("reason"), text("message"));
                let what = format!("APIService {version}.{group} is not available: {reason}: {message}");
                return Some((Cause::ApiUnavailable, shortened(&what)));
            }
        }
        None
    }
}

/// What a `Status` says, or a text in its place.
pub(super) fn message(body: &Value) -> String {
    let text = body["message"].as_str().or(body.as_str()).unwrap_or_default();
    shortened(text)
}

fn not_a_member(error: &NotAMember) -> Cause {
    match error {
        NotAMember::NoEndpoint | NotAMember::NoSecretRef => Cause::PullMode,
        NotAMember::NoSecret(_) => Cause::SecretMissing,
        // It was not shown to this identity.
        NotAMember::Unread(_) => Cause::ControlPlaneForbidden,
        NotAMember::NoToken(_) => Cause::SecretKeyMissing,
        NotAMember::Credentials(_) => Cause::CredentialsMalformed,
    }
}

fn cause_of(obstacle: &Obstacle) -> Cause {
    match obstacle {
        Obstacle::Settings(_) => Cause::CredentialsMalformed,
        Obstacle::Name { hop: Hop { is_proxy: true, .. }, .. }
        | Obstacle::Refused(Hop { is_proxy: true, .. })
        | Obstacle::Silent { hop: Hop { is_proxy: true, .. }, .. }
        | Obstacle::Handshake { hop: Hop { is_proxy: true, .. }, .. }
        | Obstacle::Proxy { .. } => Cause::ProxyDead,
        Obstacle::Name { .. } => Cause::NameUnknown,
        Obstacle::Refused(_) => Cause::Refused,
        Obstacle::Silent { .. } => Cause::BlackHole,
        Obstacle::Authority => Cause::WrongAuthority,
        Obstacle::Expired => Cause::CertificateExpired,
        Obstacle::NotYetValid => Cause::CertificateNotYetValid,
        Obstacle::CertificateName { .. } => Cause::CertificateName,
        Obstacle::Tls(_) => Cause::Tls,
        Obstacle::Handshake { .. } | Obstacle::Answer(_) => Cause::NoAnswer,
    }
}

fn broken(cluster: &str, link: &str, cause: Cause, message: impl Into<String>) -> Finding {
    Finding::amiss(Some(cluster), link, Verdict::Broken, cause, message)
}
