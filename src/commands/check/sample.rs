//! A sample query in one member, and why it has no values.

use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::finding::{CheckStatus, Finding};
use super::member::{CheckedMember, JsonResponse, refused, status_and_message};
use crate::api::cause::Cause;
use crate::api::custom_metrics::Version;
use crate::query::request_target::SEGMENT;
use crate::query::{CustomQuery, MetricTarget};

/// What is asked for: a custom metric of the objects of a namespace.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The metric.
    pub metric: String,
    /// The resource, such as `pods` or `jobs.batch`.
    pub resource: String,
    /// Where.
    pub namespace: String,
    /// Which objects; empty for all.
    pub selector: String,
}

const LINK: &str = "sample query";

/// Asks a member for it; `listed` is what its discovery of `version` has.
pub(super) async fn take(
    member: &CheckedMember<'_>,
    sample: &Sample,
    version: &str,
    listed: &Value,
) -> Finding {
    let version = Version::from_name(version).unwrap_or(Version::ALL[0]);
    let answer = match member.get(&sample.path(version, &sample.selector)).await {
        Ok(answer) => answer,
        Err(failure) => return member.broken(LINK, failure.cause(), failure.to_string()),
    };
    if let Some(cause) = refused(answer.status) {
        return member.broken(LINK, cause, status_and_message(&answer));
    }
    match answer.status {
        StatusCode::OK if !items(&answer.body).is_empty() => member.ok(LINK, values(&answer)),
        StatusCode::OK | StatusCode::NOT_FOUND => {
            let (cause, what) = explain_no_values(member, sample, version, listed).await;
            member.broken(LINK, cause, what)
        }
        // prometheus-adapter answers 500 for a kind of object that its cluster lacks.
        _ => match unknown(sample, listed) {
            Some(what) => member.broken(LINK, Cause::MetricUnknown, what),
            None => member.broken(LINK, Cause::APIFailing, status_and_message(&answer)),
        },
    }
}

/// An application need not be in every cluster: where one has values, those without it get a warning only.
pub(super) fn downgrade_absence(findings: &mut [Finding]) {
    if !findings.iter().any(|finding| finding.link == LINK && finding.verdict == CheckStatus::Ok) {
        return;
    }
    for finding in findings.iter_mut().filter(|finding| finding.link == LINK) {
        if matches!(finding.cause, Some(Cause::WrongNamespace | Cause::SelectorMatchesNothing)) {
            finding.verdict = CheckStatus::Warning;
            finding.message.push_str("; other clusters have values");
        }
    }
}

fn values(answer: &JsonResponse) -> String {
    let items = items(&answer.body);
    let newest = items.iter().filter_map(|item| item["timestamp"].as_str()).max().unwrap_or("no time");
    format!(
        "values: {}, the first {}, the newest of {newest}, {} ms",
        items.len(),
        items[0]["value"].as_str().unwrap_or_default(),
        answer.latency.as_millis()
    )
}

/// Why a query that was answered has no values: the metric, the selector, the namespace, or the series.
async fn explain_no_values(
    member: &CheckedMember<'_>,
    sample: &Sample,
    version: Version,
    listed: &Value,
) -> (Cause, String) {
    let Sample { metric, resource, namespace, selector } = sample;
    if let Some(what) = unknown(sample, listed) {
        return (Cause::MetricUnknown, what);
    }
    let has = async |path: String| match member.get(&path).await {
        Ok(JsonResponse { status: StatusCode::OK, body, .. }) => Some(!items(&body).is_empty()),
        Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) => Some(false),
        _ => None,
    };
    if !selector.is_empty() && has(sample.path(version, "")).await == Some(true) {
        let what = format!("{resource} of {namespace} have {metric}, and none of them matches {selector:?}");
        return (Cause::SelectorMatchesNothing, what);
    }
    let place = format!("/api/v1/namespaces/{}", utf8_percent_encode(namespace, SEGMENT));
    if let Ok(JsonResponse { status: StatusCode::NOT_FOUND, .. }) = member.get(&place).await {
        return (Cause::WrongNamespace, format!("the member has no namespace {namespace}"));
    }
    // What the objects themselves say, where the token may see them: only pods can be listed without discovery.
    if resource == "pods" {
        let pods = format!("{place}/pods");
        let chosen = format!("{pods}?limit=1&labelSelector={}", utf8_percent_encode(selector, SEGMENT));
        match (has(format!("{pods}?limit=1")).await, has(chosen).await) {
            (Some(false), _) => {
                let what = format!("the member has no pods in the namespace {namespace}");
                return (Cause::WrongNamespace, what);
            }
            (_, Some(false)) => {
                let what = format!("no pod of {namespace} matches {selector:?}");
                return (Cause::SelectorMatchesNothing, what);
            }
            _ => {}
        }
    }
    let what = format!("{metric} is listed for {resource}, and those of {namespace} have no values of it");
    (Cause::NoSeries, what)
}

/// Says so if the member lists other metrics and not this one.
fn unknown(sample: &Sample, listed: &Value) -> Option<String> {
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
        format!("the member lists metrics ({}), and no {metric}", names.len())
    } else {
        format!("the member lists {metric} for {}, and not for {resource}", elsewhere.join(", "))
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
