//! Checks of one cluster: its Cluster object and Secret, the connection, the metrics APIs, and a sample query.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use http::StatusCode;
use http::header::DATE;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use tokio::time::timeout;

use super::control_plane::{ClustersAndSecrets, RegisteredCluster};
use super::finding::{CheckStatus, Finding};
use super::member::{CheckedMember, JsonResponse, broken, status_and_message, token_problem};
use super::sample::{self, Sample};
use crate::api::cause::Cause;
use crate::api::group::Group;
use crate::api::text::shorten;
use crate::member::client::{MemberClient, MemberLimits};
use crate::query::request_target::SEGMENT;
use crate::transport::SendError;

/// Maximum clock difference. Values are at most about a minute old.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// KEDA lists this name instead of its metrics. A query for this name makes KEDA log an error.
const KEDA_PLACEHOLDER: &str = "externalmetrics";

/// The result of the check of one metrics API.
struct ApiCheck {
    group: Group,
    /// The version of the API, and its discovery document. `None` if the member does not serve the API.
    served: Option<(&'static str, Value)>,
    finding: Finding,
}

/// The state of the APIServices of a group in the member.
enum ApiServiceState {
    Absent,
    Available,
    Unavailable(String),
    Unknown,
}

/// Runs the checks in order. Stops if a broken check makes the next checks impossible.
pub(super) async fn check(
    name: &str,
    objects: &ClustersAndSecrets,
    limits: &MemberLimits,
    sample: Option<&Sample>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let RegisteredCluster { spec, readiness } = &objects.clusters[name];
    if !spec.ready {
        let message = format!("the cluster is not Ready, so the adapter does not query it: {readiness}");
        findings.push(broken(name, "Cluster", Cause::NotReady, message));
    }
    let secret = match spec.secret.as_ref().and_then(|secret| objects.secrets.get(secret)) {
        Some(Err(error)) => {
            let message = format!("the Secret cannot be read: {}", error.message);
            findings.push(broken(name, "credentials", error.cause(), message));
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
    let message = match &spec.secret {
        Some(secret) => format!("token of Secret {}/{}", secret.namespace, secret.name),
        None => String::new(),
    };
    findings.push(Finding::ok(Some(name), "credentials", message));
    let endpoint = credentials.endpoint.to_string();
    let client = match MemberClient::new(credentials, limits) {
        Ok(client) => client,
        Err(error) => {
            findings.push(broken(name, "credentials", Cause::CredentialsMalformed, error.to_string()));
            return findings;
        }
    };
    if !check_connection(name, &endpoint, &client, limits.timeout, &mut findings).await {
        return findings;
    }
    let member = CheckedMember { name, client, limits };
    let mut apis = join_all(Group::ALL.map(|group| member.check_api(group, sample))).await;
    let serves = |group| apis.iter().any(|api: &ApiCheck| api.group == group && api.served.is_some());
    let external = serves(Group::External);
    for api in &mut apis {
        // A cluster may serve only external metrics, for example with KEDA.
        if api.finding.cause == Some(Cause::APIMissing) && external && sample.is_none() {
            api.finding.status = CheckStatus::Warning;
        }
    }
    let custom = apis.iter_mut().find(|api| api.group == Group::Custom).and_then(|api| api.served.take());
    findings.extend(apis.into_iter().map(|api| api.finding));
    // If the API does not exist, a finding already reports this.
    if let (Some(sample), Some((version, listed))) = (sample, custom) {
        findings.push(sample::run(&member, sample, version, &listed).await);
    }
    findings
}

/// Connects and requests `/version`. Returns false if further checks of the member are impossible.
async fn check_connection(
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
    let cause = match head.status {
        StatusCode::UNAUTHORIZED => None,
        StatusCode::NOT_FOUND => Some(Cause::NotAPIServer),
        status if status.is_redirection() => Some(Cause::NotAPIServer),
        status if status.is_server_error() => Some(Cause::NoAnswer),
        _ => None,
    };
    if let Some(cause) = cause {
        let message = format!("{endpoint}: /version returned HTTP {}", head.status.as_u16());
        findings.push(broken(name, "connection", cause, message));
        return false;
    }
    findings.push(Finding::ok(Some(name), "connection", endpoint));
    let date = head.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    if let Some((apart, side)) = date.map(skew).filter(|(apart, _)| *apart > MAX_CLOCK_SKEW) {
        let message = format!("the member's clock is {} s {side} the local clock", apart.as_secs());
        findings.push(Finding::problem(Some(name), "clock", CheckStatus::Warning, Cause::ClockSkew, message));
    }
    if head.status == StatusCode::UNAUTHORIZED {
        findings.push(broken(name, "token", Cause::Unauthorized, "the API server does not accept the token"));
        return false;
    }
    true
}

/// The difference between a member's clock and the local clock, and its direction.
fn skew(member_time: SystemTime) -> (Duration, &'static str) {
    match member_time.duration_since(SystemTime::now()) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    }
}

impl CheckedMember<'_> {
    /// Checks whether the API exists and can be queried.
    async fn check_api(&self, group: Group, sample: Option<&Sample>) -> ApiCheck {
        let result = |served, finding| ApiCheck { group, served, finding };
        let mut problem = None;
        for version in group.versions() {
            match self.get(&format!("/apis/{group}/{version}")).await {
                Ok(JsonResponse { status: StatusCode::OK, body, latency }) => {
                    let resources = body["resources"].as_array().map_or(0, Vec::len);
                    let message = format!("{version}, {resources} resources, {} ms", latency.as_millis());
                    // The sample query replaces the test query.
                    let has_sample_query = sample.is_some() && group == Group::Custom;
                    let failure = if has_sample_query {
                        None
                    } else {
                        self.test_query(group, version, &body, sample).await
                    };
                    let finding = match failure {
                        Some((cause, message)) => self.api_problem(group, cause, message),
                        None => self.ok(group.name(), message),
                    };
                    return result(Some((*version, body)), finding);
                }
                // The other version may exist.
                Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) => {}
                Ok(response) => problem = Some(Ok(response)),
                Err(failure) => {
                    problem = Some(Err(failure));
                    break;
                }
            }
        }
        if let Some(Ok(response)) = &problem
            && let Some(cause) = token_problem(response.status)
        {
            return result(None, self.api_problem(group, cause, status_and_message(response)));
        }
        let api_service = match &problem {
            Some(Err(failure)) if failure.is_unreachable() => ApiServiceState::Unknown,
            _ => self.api_service(group).await,
        };
        let (cause, message) = match (problem, api_service) {
            (_, ApiServiceState::Unavailable(message)) => (Cause::APIUnavailable, message),
            (Some(Ok(response)), _) => (Cause::APIFailing, status_and_message(&response)),
            (Some(Err(failure)), _) => (failure.cause(), failure.to_string()),
            (None, ApiServiceState::Available) => {
                let message = "the APIService is available, but its Service does not serve this API";
                (Cause::APIFailing, message.to_owned())
            }
            (None, ApiServiceState::Absent) => {
                (Cause::APIMissing, "the API does not exist: no APIService is registered".to_owned())
            }
            (None, ApiServiceState::Unknown) => (Cause::APIMissing, "the API does not exist".to_owned()),
        };
        // Only the API for custom metrics is required.
        let finding = if cause == Cause::APIMissing && group != Group::Custom {
            self.ok(group.name(), format!("{message}; custom metrics do not need it"))
        } else {
            self.api_problem(group, cause, message)
        };
        result(None, finding)
    }

    fn api_problem(&self, group: Group, cause: Cause, message: String) -> Finding {
        let status = if group == Group::Custom { CheckStatus::Broken } else { CheckStatus::Warning };
        Finding::problem(Some(self.name), group.name(), status, cause, message)
    }

    /// Sends a test query. Discovery does not reveal a missing permission, or an API that fails only for queries. Returns the
    /// cause and the message of a failure.
    async fn test_query(
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
        // prometheus-adapter returns 500 for a kind of object that does not exist in its cluster. The kind Pod always exists.
        let mut kind_exists = true;
        let path = match group {
            Group::Resource => format!("namespaces/{namespace}/pods?limit=1"),
            Group::External => {
                format!("namespaces/{namespace}/{}", encoded(names.find(|name| *name != KEDA_PLACEHOLDER)?))
            }
            Group::Custom => {
                let metrics: Vec<_> = names.filter_map(|name| name.split_once('/')).collect();
                let of_pods = metrics.iter().find(|(resource, _)| *resource == "pods");
                kind_exists = of_pods.is_some();
                let (resource, metric) = of_pods.or(metrics.first())?;
                format!("namespaces/{namespace}/{}/%2A/{}", encoded(resource), encoded(metric))
            }
        };
        match self.get(&format!("/apis/{group}/{version}/{path}")).await {
            Ok(response) if response.status.is_server_error() && kind_exists => {
                Some((Cause::APIFailing, format!("a test query failed: {}", status_and_message(&response))))
            }
            Ok(response) => {
                token_problem(response.status).map(|cause| (cause, status_and_message(&response)))
            }
            Err(failure) => Some((failure.cause(), format!("a test query failed: {failure}"))),
        }
    }

    async fn api_service(&self, group: Group) -> ApiServiceState {
        let mut state = ApiServiceState::Absent;
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
            let field =
                |key: &str| available.map_or("", |condition| condition[key].as_str().unwrap_or_default());
            if field("status") != "True" {
                let message =
                    format!("APIService {name} is not available: {}: {}", field("reason"), field("message"));
                return ApiServiceState::Unavailable(shorten(&message));
            }
            state = ApiServiceState::Available;
        }
        state
    }
}
