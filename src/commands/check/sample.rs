//! A sample query in one member. If there are no values, further requests find the reason.

use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::finding::{CheckStatus, Finding};
use super::member::{CheckedMember, JsonResponse, status_and_message, token_problem};
use crate::api::cause::Cause;
use crate::api::custom_metrics::Version;
use crate::query::request_target::SEGMENT;
use crate::query::{CustomQuery, MetricTarget};

/// A query for a custom metric of the objects in a namespace.
#[derive(Clone, Debug)]
pub struct Sample {
    pub metric: String,
    /// The resource, such as `pods` or `jobs.batch`.
    pub resource: String,
    pub namespace: String,
    /// A label selector for the objects. Empty for all objects.
    pub selector: String,
}

const CHECK: &str = "sample query";

/// Sends the query to a member. `listed` is the member's discovery document of `version`.
pub(super) async fn run(
    member: &CheckedMember<'_>,
    sample: &Sample,
    version: &str,
    listed: &Value,
) -> Finding {
    let version = Version::from_name(version).unwrap_or(Version::ALL[0]);
    let response = match member.get(&sample.path(version, &sample.selector)).await {
        Ok(response) => response,
        Err(failure) => return member.broken(CHECK, failure.cause(), failure.to_string()),
    };
    if let Some(cause) = token_problem(response.status) {
        return member.broken(CHECK, cause, status_and_message(&response));
    }
    match response.status {
        StatusCode::OK if !items(&response.body).is_empty() => member.ok(CHECK, values(&response)),
        StatusCode::OK | StatusCode::NOT_FOUND => {
            let (cause, message) = explain_no_values(member, sample, version, listed).await;
            member.broken(CHECK, cause, message)
        }
        // prometheus-adapter returns 500 for a kind of object that does not exist in its cluster.
        _ => match unknown_metric(sample, listed) {
            Some(message) => member.broken(CHECK, Cause::MetricUnknown, message),
            None => member.broken(CHECK, Cause::APIFailing, status_and_message(&response)),
        },
    }
}

/// An application may be missing in some clusters. If one cluster has values, missing values of the others are a warning.
pub(super) fn downgrade_absence(findings: &mut [Finding]) {
    if !findings.iter().any(|finding| finding.check == CHECK && finding.status == CheckStatus::Ok) {
        return;
    }
    for finding in findings.iter_mut().filter(|finding| finding.check == CHECK) {
        if matches!(finding.cause, Some(Cause::WrongNamespace | Cause::SelectorMatchesNothing)) {
            finding.status = CheckStatus::Warning;
            finding.message.push_str("; other clusters have values");
        }
    }
}

fn values(response: &JsonResponse) -> String {
    let items = items(&response.body);
    let newest = items.iter().filter_map(|item| item["timestamp"].as_str()).max().unwrap_or("none");
    format!(
        "values: {}, first value {}, newest timestamp {newest}, {} ms",
        items.len(),
        items[0]["value"].as_str().unwrap_or_default(),
        response.latency.as_millis()
    )
}

/// Why a successful query has no values: because of the metric, the selector, the namespace or the series.
async fn explain_no_values(
    member: &CheckedMember<'_>,
    sample: &Sample,
    version: Version,
    listed: &Value,
) -> (Cause, String) {
    let Sample { metric, resource, namespace, selector } = sample;
    if let Some(message) = unknown_metric(sample, listed) {
        return (Cause::MetricUnknown, message);
    }
    let has = async |path: String| match member.get(&path).await {
        Ok(JsonResponse { status: StatusCode::OK, body, .. }) => Some(!items(&body).is_empty()),
        Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) => Some(false),
        _ => None,
    };
    if !selector.is_empty() && has(sample.path(version, "")).await == Some(true) {
        let message = format!(
            "{resource} in the namespace {namespace} have {metric}, but none of them matches {selector:?}"
        );
        return (Cause::SelectorMatchesNothing, message);
    }
    let namespace_path = format!("/api/v1/namespaces/{}", utf8_percent_encode(namespace, SEGMENT));
    if let Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) = member.get(&namespace_path).await {
        return (Cause::WrongNamespace, format!("the member has no namespace {namespace}"));
    }
    // Checks the pods, if the token may list them. Other resources cannot be listed without discovery.
    if resource == "pods" {
        let pods = format!("{namespace_path}/pods");
        let chosen = format!("{pods}?limit=1&labelSelector={}", utf8_percent_encode(selector, SEGMENT));
        match (has(format!("{pods}?limit=1")).await, has(chosen).await) {
            (Some(false), _) => {
                let message = format!("the member has no pods in the namespace {namespace}");
                return (Cause::WrongNamespace, message);
            }
            (_, Some(false)) => {
                let message = format!("no pod in the namespace {namespace} matches {selector:?}");
                return (Cause::SelectorMatchesNothing, message);
            }
            _ => {}
        }
    }
    let message = format!(
        "the member lists {metric} for {resource}, but those in the namespace {namespace} have no values"
    );
    (Cause::NoSeries, message)
}

/// A message if the member lists other metrics but not this one.
fn unknown_metric(sample: &Sample, listed: &Value) -> Option<String> {
    let Sample { metric, resource, .. } = sample;
    let names: Vec<&str> =
        listed["resources"].as_array()?.iter().filter_map(|entry| entry["name"].as_str()).collect();
    if names.iter().any(|name| name.split_once('/') == Some((resource, metric))) {
        return None;
    }
    let others = names.iter().filter_map(|name| name.split_once('/'));
    let elsewhere: Vec<&str> =
        others.filter(|(_, other)| other == metric).map(|(resource, _)| resource).collect();
    Some(if elsewhere.is_empty() {
        format!("the member lists other metrics ({}), but not {metric}", names.len())
    } else {
        format!("the member lists {metric} for {}, but not for {resource}", elsewhere.join(", "))
    })
}

fn items(body: &Value) -> &[Value] {
    body["items"].as_array().map_or(&[], Vec::as_slice)
}

impl Sample {
    fn path(&self, version: Version, selector: &str) -> String {
        let (namespace, resource) = (self.namespace.clone(), self.resource.clone());
        let query = CustomQuery {
            version,
            subject: MetricTarget::Namespaced { namespace, resource, name: "*".to_owned() },
            metric: self.metric.clone(),
            label_selector: selector.to_owned(),
            metric_label_selector: String::new(),
        };
        query.path(version)
    }
}
