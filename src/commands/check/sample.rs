//! A sample query in one member, and why it has no values.

use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::cluster::{Answer, Patient, message};
use super::finding::{Cause, Verdict};
use crate::api::custom_metrics::Version;
use crate::gather::query::{CustomQuery, SEGMENT, Subject};

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

pub(super) async fn take(patient: &mut Patient<'_>, sample: &Sample) {
    for version in Version::ALL {
        let listed = patient.get(&format!("/apis/{}", version.group_version())).await;
        let Ok(Answer { status: StatusCode::OK, body, .. }) = listed else { continue };
        match patient.get(&sample.path(version, &sample.selector)).await {
            Ok(Answer { status: StatusCode::OK, body, latency }) if !items(&body).is_empty() => {
                let items = items(&body);
                let newest =
                    items.iter().filter_map(|item| item["timestamp"].as_str()).max().unwrap_or("no time");
                let what = format!(
                    "{} values, the first {}, the newest of {newest}, {} ms",
                    items.len(),
                    items[0]["value"].as_str().unwrap_or_default(),
                    latency.as_millis()
                );
                patient.ok(LINK, what);
            }
            Ok(Answer { status: StatusCode::FORBIDDEN, body, .. }) => {
                patient.amiss(LINK, Verdict::Broken, Cause::Forbidden, message(&body));
            }
            Ok(Answer { status, .. }) if status == StatusCode::OK || status == StatusCode::NOT_FOUND => {
                let (cause, what) = why_nothing(patient, sample, version, &body).await;
                patient.amiss(LINK, Verdict::Broken, cause, what);
            }
            Ok(Answer { status, body: answer, .. }) => {
                // prometheus-adapter answers 500 for a kind of object that its cluster lacks.
                let (cause, what) = match unknown(sample, &body) {
                    Some(what) => (Cause::MetricUnknown, what),
                    None => (Cause::ApiFailing, format!("HTTP {}: {}", status.as_u16(), message(&answer))),
                };
                patient.amiss(LINK, Verdict::Broken, cause, what);
            }
            Err(failure) => patient.amiss(LINK, Verdict::Broken, Cause::ApiFailing, failure.to_string()),
        }
        return;
    }
    // That there is no such API has been said.
}

/// Why a query that was answered has no values: the metric, the selector, the namespace, or the series.
async fn why_nothing(
    patient: &Patient<'_>,
    sample: &Sample,
    version: Version,
    listed: &Value,
) -> (Cause, String) {
    let Sample { metric, resource, namespace, selector } = sample;
    if let Some(what) = unknown(sample, listed) {
        return (Cause::MetricUnknown, what);
    }
    let has = async |path: String| match patient.get(&path).await {
        Ok(Answer { status: StatusCode::OK, body, .. }) => Some(!items(&body).is_empty()),
        Ok(Answer { status: StatusCode::NOT_FOUND, .. }) => Some(false),
        _ => None,
    };
    if !selector.is_empty() && has(sample.path(version, "")).await == Some(true) {
        let what = format!("{resource} of {namespace} have {metric}, and none of them matches {selector:?}");
        return (Cause::SelectorMatchesNothing, what);
    }
    // What the objects themselves say, where the token may see them: only pods can be listed without discovery.
    if resource == "pods" {
        let pods = format!("/api/v1/namespaces/{}/pods", utf8_percent_encode(namespace, SEGMENT));
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
        format!("the member lists {} metrics, and no {metric}", names.len())
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
            subject: Subject::Namespaced { namespace, resource, name: "*".to_owned() },
            metric: self.metric.clone(),
            label_selector: selector.to_owned(),
            metric_label_selector: String::new(),
        };
        query.path(version)
    }
}
