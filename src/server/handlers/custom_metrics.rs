//! `/apis/custom.metrics.k8s.io/<version>/…`: the values of metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, WARNING};
use http::{HeaderValue, Method};

use super::super::Serving;
use super::super::error::Error;
use super::super::request_info::RequestInfo;
use super::uncached;
use crate::answer::{Answer, Key};
use crate::api::custom_metrics::Version;
use crate::api::selector::{Requirement, Selector};
use crate::gather::query::{Query, Subject};
use crate::process::budget::Claim;

/// Parameters that this API does not have and that are taken for one that it has.
const MISTAKEN: [(&str, &str); 6] = [
    ("selector", "labelSelector"),
    ("labelselector", "labelSelector"),
    ("label_selector", "labelSelector"),
    ("metricSelector", "metricLabelSelector"),
    ("metricLabelselector", "metricLabelSelector"),
    ("metric_label_selector", "metricLabelSelector"),
];

pub(super) async fn answer(
    serving: &Serving,
    method: &Method,
    claim: Claim,
    info: &RequestInfo,
    allowed: Duration,
    version: Version,
    below: &[&str],
) -> Result<Response, Error> {
    let (subject, metric) = subject(below)?;
    if method != Method::GET {
        return Err(Error::MethodNotAllowed);
    }
    let label_selector = info.parameter("labelSelector");
    label_selector.parse::<Selector>()?;
    let (clusters, metric_label_selector) =
        choose_clusters(info.parameter("metricLabelSelector"), serving.answers.cluster_label())?;
    let query = Query { subject, metric, label_selector: label_selector.to_owned(), metric_label_selector };
    // What is left after that is for merging and for the way back, so that late members cost only their own values.
    let member_timeout = serving.answers.member_timeout().min(allowed * 9 / 10);
    let answered = serving.answers.answer(Key { query, clusters, version, member_timeout, claim }).await;
    let Answer { body, warning } =
        answered.map_err(|status| Error::Status(Box::new(Arc::unwrap_or_clone(status))))?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mistaken = MISTAKEN.iter().filter(|(name, _)| info.parameters.iter().any(|(key, _)| key == name));
    for (name, meant) in mistaken {
        headers.append(
            WARNING,
            warn(&format!("unknown parameter {name:?} is ignored; did you mean {meant:?}?")),
        );
    }
    if !warning.is_empty() {
        headers.append(WARNING, warn(&warning));
    }
    Ok(uncached(response))
}

/// Whose metric the segments below the version ask for, and which; the routes of custom-metrics-apiserver's
/// `MetricsAPIInstaller.registerResourceHandlers`.
fn subject(segments: &[&str]) -> Result<(Subject, String), Error> {
    let found = match *segments {
        ["namespaces", namespace, resource, name, metric] => {
            let (namespace, resource) = (namespace.to_owned(), resource.to_owned());
            (Subject::Namespaced { namespace, resource, name: name.to_owned() }, metric.to_owned())
        }
        ["namespaces", name, "metrics", metric] => {
            (Subject::Namespace { name: name.to_owned() }, metric.to_owned())
        }
        ["namespaces", _, _] => return Err(Error::MetricPath),
        [resource, name, metric] => {
            (Subject::Root { resource: resource.to_owned(), name: name.to_owned() }, metric.to_owned())
        }
        _ => return Err(Error::NotFound),
    };
    // Nothing is called so (`path.IsValidPathSegmentName` of apimachinery), and a server that decodes before it
    // splits would take it for another place.
    let strange = |segment: &&str| matches!(*segment, "" | "." | "..") || segment.contains(['/', '%']);
    if segments.iter().any(strange) {
        return Err(Error::MetricPath);
    }
    Ok(found)
}

/// Takes the requirements on the cluster label out of a metric's selector; the rest is passed on, as it came if
/// there are none.
fn choose_clusters(selector: &str, label: Option<&str>) -> Result<(Vec<Requirement>, String), Error> {
    let parsed = selector.parse::<Selector>()?;
    let Some(label) = label else { return Ok((Vec::new(), selector.to_owned())) };
    let (clusters, rest) = parsed.split_off(label);
    let rest = if clusters.is_empty() { selector.to_owned() } else { rest.to_string() };
    Ok((clusters, rest))
}

/// A warning as kubectl shows it: `299`, no agent, a quoted text (`net.NewWarningHeader` of apimachinery).
fn warn(text: &str) -> HeaderValue {
    let mut quoted = String::with_capacity(text.len() + 8);
    quoted.push_str("299 - \"");
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    HeaderValue::from_bytes(quoted.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static("299 - \"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_on_the_cluster_label_chooses_clusters_and_is_not_passed_on() {
        let (clusters, rest) =
            choose_clusters("cluster in (a,b),verb=GET", Some("cluster")).expect("a selector");
        assert_eq!((clusters.len(), rest.as_str()), (1, "verb=GET"));
        let (clusters, rest) = choose_clusters("verb = GET", Some("cluster")).expect("a selector");
        assert_eq!((clusters.len(), rest.as_str()), (0, "verb = GET"));
        let (clusters, rest) = choose_clusters("cluster=a", None).expect("a selector");
        assert_eq!((clusters.len(), rest.as_str()), (0, "cluster=a"));
    }

    #[test]
    fn names_that_would_be_places_in_a_path_are_refused() {
        for name in ["", ".", "..", "a/b", "../../secrets", "%2e%2e", "a%2Fb"] {
            let refused = subject(&["namespaces", "default", "pods", name, "m"]);
            assert!(matches!(refused, Err(Error::MetricPath)), "{name:?}");
        }
        assert!(subject(&["namespaces", "default", "pods", "*", "m"]).is_ok());
    }

    #[test]
    fn a_warning_cannot_break_out_of_its_header() {
        assert_eq!(warn("a \"b\" \\ c\r\nX-Evil: 1"), r#"299 - "a \"b\" \\ cX-Evil: 1""#);
    }
}
