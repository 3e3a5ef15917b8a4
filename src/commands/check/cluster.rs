//! One member, link by link: what leads to it, the way there, its metrics APIs, and a sample query.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use http::StatusCode;
use http::header::DATE;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use tokio::time::timeout;

use super::control_plane::{ClustersAndSecrets, RegisteredCluster};
use super::finding::{CheckStatus, Finding};
use super::member::{CheckedMember, JsonResponse, broken, refused, status_and_message};
use super::sample::{self, Sample};
use crate::api::cause::Cause;
use crate::api::group::Group;
use crate::api::text::shorten;
use crate::member::client::{MemberClient, MemberLimits};
use crate::query::request_target::SEGMENT;
use crate::transport::SendError;

/// From how much on clocks differ too much: values are a minute old or less.
const SKEW: Duration = Duration::from_secs(30);

/// What KEDA lists in place of its metrics; it logs an error when it is asked for it.
const KEDA: &str = "externalmetrics";

/// A metrics API of a member.
struct ApiCheck {
    group: Group,
    /// The version that is served, and what it lists.
    served: Option<(&'static str, Value)>,
    finding: Finding,
}

/// What a member's own API server says about the APIServices of a group.
enum ApiServiceState {
    Absent,
    Available,
    Unavailable(String),
    Unknown,
}

/// Goes from link to link and stops where one is broken.
pub(super) async fn check(
    name: &str,
    joined: &ClustersAndSecrets,
    limits: &MemberLimits,
    sample: Option<&Sample>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let RegisteredCluster { spec, readiness } = &joined.clusters[name];
    if !spec.ready {
        let what = format!("Karmada says that it is not Ready, so that it is not asked: {readiness}");
        findings.push(broken(name, "Cluster", Cause::NotReady, what));
    }
    let secret = match spec.secret.as_ref().and_then(|secret| joined.secrets.get(secret)) {
        Some(Err(trouble)) => {
            let what = format!("its Secret cannot be read: {}", trouble.message);
            findings.push(broken(name, "credentials", trouble.cause(), what));
            return findings;
        }
        Some(Ok(secret)) => Some(secret),
        None => None,
    };
    let credentials = match spec.credentials(secret) {
        Ok(credentials) => credentials,
        Err(error) => {
            findings.push(broken(name, "credentials", error.cause(), error.to_string()));
            return findings;
        }
    };
    let what = match &spec.secret {
        Some(secret) => format!("token of Secret {}/{}", secret.namespace, secret.name),
        None => String::new(),
    };
    findings.push(Finding::ok(Some(name), "credentials", what));
    let endpoint = credentials.endpoint.to_string();
    let client = match MemberClient::new(credentials, limits) {
        Ok(client) => client,
        Err(error) => {
            findings.push(broken(name, "credentials", Cause::CredentialsMalformed, error.to_string()));
            return findings;
        }
    };
    if !reach(name, &endpoint, &client, limits.timeout, &mut findings).await {
        return findings;
    }
    let member = CheckedMember { name, client, limits };
    let mut apis = join_all(Group::ALL.map(|group| member.api(group, sample))).await;
    let serves = |group| apis.iter().any(|api: &ApiCheck| api.group == group && api.served.is_some());
    let external = serves(Group::External);
    for api in &mut apis {
        // A cluster that has no custom metrics may be there for others, such as one with KEDA alone.
        if api.finding.cause == Some(Cause::APIMissing) && external && sample.is_none() {
            api.finding.verdict = CheckStatus::Warning;
        }
    }
    let custom = apis.iter_mut().find(|api| api.group == Group::Custom).and_then(|api| api.served.take());
    findings.extend(apis.into_iter().map(|api| api.finding));
    // That there is no such API has been said.
    if let (Some(sample), Some((version, listed))) = (sample, custom) {
        findings.push(sample::take(&member, sample, version, &listed).await);
    }
    findings
}

/// Connects and asks for `/version`. Whether the member can be asked for more.
async fn reach(
    name: &str,
    endpoint: &str,
    client: &MemberClient,
    limit: Duration,
    findings: &mut Vec<Finding>,
) -> bool {
    let head = timeout(limit, client.head("/version")).await;
    let head = match head.unwrap_or_else(|_| Err(SendError::NoAnswer(limit).into())) {
        Ok(head) => head,
        Err(failure) => {
            findings.push(broken(name, "connection", failure.cause(), failure.to_string()));
            return false;
        }
    };
    let refusal = match head.status {
        StatusCode::UNAUTHORIZED => None,
        StatusCode::NOT_FOUND => Some(Cause::NotAPIServer),
        status if status.is_redirection() => Some(Cause::NotAPIServer),
        status if status.is_server_error() => Some(Cause::NoAnswer),
        _ => None,
    };
    if let Some(cause) = refusal {
        let what = format!("{endpoint} answers /version with HTTP {}", head.status.as_u16());
        findings.push(broken(name, "connection", cause, what));
        return false;
    }
    findings.push(Finding::ok(Some(name), "connection", endpoint));
    let date = head.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    if let Some((apart, side)) = date.map(skew).filter(|(apart, _)| *apart > SKEW) {
        let what = format!("its clock is {} s {side} this one", apart.as_secs());
        findings.push(Finding::problem(Some(name), "clock", CheckStatus::Warning, Cause::ClockSkew, what));
    }
    if head.status == StatusCode::UNAUTHORIZED {
        findings.push(broken(name, "token", Cause::Unauthorized, "the API server does not accept the token"));
        return false;
    }
    true
}

/// How far a member's clock is from this one, and on which side.
fn skew(theirs: SystemTime) -> (Duration, &'static str) {
    match theirs.duration_since(SystemTime::now()) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    }
}

impl CheckedMember<'_> {
    /// Whether the API is there and may be read. Only custom metrics are missed by everybody.
    async fn api(&self, group: Group, sample: Option<&Sample>) -> ApiCheck {
        let examined = |served, finding| ApiCheck { group, served, finding };
        let mut trouble = None;
        for version in group.versions() {
            match self.get(&format!("/apis/{group}/{version}")).await {
                Ok(JsonResponse { status: StatusCode::OK, body, latency }) => {
                    let resources = body["resources"].as_array().map_or(0, Vec::len);
                    let what = format!("{version}, {resources} listed, {} ms", latency.as_millis());
                    // A sample query finds out by itself.
                    let asked = sample.is_some() && group == Group::Custom;
                    let refusal =
                        if asked { None } else { self.refusal(group, version, &body, sample).await };
                    let finding = match refusal {
                        Some((cause, what)) => self.api_problem(group, cause, what),
                        None => self.ok(group.name(), what),
                    };
                    return examined(Some((*version, body)), finding);
                }
                // That one version is not there says nothing about the other one.
                Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) => {}
                Ok(answer) => trouble = Some(Ok(answer)),
                Err(failure) => {
                    trouble = Some(Err(failure));
                    break;
                }
            }
        }
        if let Some(Ok(answer)) = &trouble
            && let Some(cause) = refused(answer.status)
        {
            return examined(None, self.api_problem(group, cause, status_and_message(answer)));
        }
        let registration = match &trouble {
            Some(Err(failure)) if failure.is_unreachable() => ApiServiceState::Unknown,
            _ => self.registration(group).await,
        };
        let (cause, what) = match (trouble, registration) {
            (_, ApiServiceState::Unavailable(what)) => (Cause::APIUnavailable, what),
            (Some(Ok(answer)), _) => (Cause::APIFailing, status_and_message(&answer)),
            (Some(Err(failure)), _) => (failure.cause(), failure.to_string()),
            (None, ApiServiceState::Available) => {
                let what = "the APIService is available, and what it leads to does not have the API";
                (Cause::APIFailing, what.to_owned())
            }
            (None, ApiServiceState::Absent) => {
                (Cause::APIMissing, "there is no such API: no APIService is registered".to_owned())
            }
            (None, ApiServiceState::Unknown) => (Cause::APIMissing, "there is no such API".to_owned()),
        };
        // Nobody needs an API that was never installed, save that of custom metrics.
        let finding = if cause == Cause::APIMissing && group != Group::Custom {
            self.ok(group.name(), format!("{what}; it is not needed for custom metrics"))
        } else {
            self.api_problem(group, cause, what)
        };
        examined(None, finding)
    }

    fn api_problem(&self, group: Group, cause: Cause, what: String) -> Finding {
        let verdict = if group == Group::Custom { CheckStatus::Broken } else { CheckStatus::Warning };
        Finding::problem(Some(self.name), group.name(), verdict, cause, what)
    }

    /// Whether the token may not read what is listed, or nothing answers queries: discovery shows neither.
    async fn refusal(
        &self,
        group: Group,
        version: &str,
        listed: &Value,
        sample: Option<&Sample>,
    ) -> Option<(Cause, String)> {
        let namespace = sample.map_or("default", |sample| &sample.namespace);
        let namespace = utf8_percent_encode(namespace, SEGMENT);
        let encoded = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        let names = listed["resources"].as_array().into_iter().flatten();
        let mut names =
            names.filter(|entry| entry["namespaced"] == true).filter_map(|entry| entry["name"].as_str());
        // prometheus-adapter answers 500 for a kind of object that its cluster lacks.
        let mut always_there = true;
        let path = match group {
            Group::Resource => format!("namespaces/{namespace}/pods?limit=1"),
            Group::External => {
                format!("namespaces/{namespace}/{}", encoded(names.find(|name| *name != KEDA)?))
            }
            Group::Custom => {
                let metrics: Vec<_> = names.filter_map(|name| name.split_once('/')).collect();
                let of_pods = metrics.iter().find(|(resource, _)| *resource == "pods");
                always_there = of_pods.is_some();
                let (resource, metric) = of_pods.or(metrics.first())?;
                format!("namespaces/{namespace}/{}/%2A/{}", encoded(resource), encoded(metric))
            }
        };
        match self.get(&format!("/apis/{group}/{version}/{path}")).await {
            Ok(answer) if answer.status.is_server_error() && always_there => {
                Some((Cause::APIFailing, format!("a query of it: {}", status_and_message(&answer))))
            }
            Ok(answer) => refused(answer.status).map(|cause| (cause, status_and_message(&answer))),
            Err(failure) => Some((failure.cause(), format!("a query of it: {failure}"))),
        }
    }

    async fn registration(&self, group: Group) -> ApiServiceState {
        let mut found = ApiServiceState::Absent;
        for version in group.versions() {
            let name = format!("{version}.{group}");
            let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
            let body = match self.get(&path).await {
                Ok(JsonResponse { status: StatusCode::OK, body, .. }) => body,
                Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) => continue,
                _ => return ApiServiceState::Unknown,
            };
            let conditions = body["status"]["conditions"].as_array().into_iter().flatten();
            let available = conditions.into_iter().find(|condition| condition["type"] == "Available");
            let text =
                |key: &str| available.map_or("", |condition| condition[key].as_str().unwrap_or_default());
            if text("status") != "True" {
                let what =
                    format!("APIService {name} is not available: {}: {}", text("reason"), text("message"));
                return ApiServiceState::Unavailable(shorten(&what));
            }
            found = ApiServiceState::Available;
        }
        found
    }
}
