//! prometheus-adapter's responses under `/apis/custom.metrics.k8s.io`. Error texts are identical to the original.

use http::StatusCode;

use super::store::{Labels, Resource, Store, values_of};
use super::wire::{
    ApiGroup, ApiResource, ApiResourceList, Document, LabelSelector, LabelSelectorRequirement, MetricValue,
    MetricValueList, Status, Version, bad_request,
};
use crate::selector::{Operator, Selector};

/// The API's group.
pub(super) const GROUP: &str = "custom.metrics.k8s.io";

/// The selectors of a query, not parsed yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    pub labels: String,
    pub metric_labels: String,
}

/// A query, parsed from the path after the version.
struct Query<'a> {
    resource: &'a str,
    namespace: Option<&'a str>,
    object: &'a str,
    metric: &'a str,
}

/// The group with the served versions, newest first. The newest is the preferred version.
pub(super) fn group(versions: &[Version]) -> Option<ApiGroup> {
    let mut versions = versions.to_vec();
    versions.sort_by(|one, other| other.cmp(one));
    ApiGroup::new(GROUP, &versions.into_iter().map(Version::name).collect::<Vec<_>>())
}

/// The metrics that have a value now, each as a subresource.
pub(super) fn discovery(store: &Store, version: Version) -> ApiResourceList {
    let entry = |(resource, metric): (Resource, String)| ApiResource {
        name: format!("{}/{metric}", resource.qualified()),
        singular_name: "",
        namespaced: resource != Resource::NAMESPACES && resource != Resource::NODES,
        kind: "MetricValueList",
        verbs: &["get"],
    };
    let mut resources: Vec<_> = store.metrics().into_iter().map(entry).collect();
    resources.sort_by(|one, other| one.name.cmp(&other.name));
    ApiResourceList::new(version.api_version(), resources)
}

/// Responds to a query. `path` is the part after the version, in decoded segments.
pub(super) fn answer(
    store: &Store,
    version: Version,
    path: &[&str],
    selectors: &Selectors,
) -> (StatusCode, Document) {
    match list(store, version, path, selectors) {
        Ok(list) => (StatusCode::OK, Document::Metrics(list)),
        Err(status) => status.into_answer(),
    }
}

/// `prometheusProvider.GetMetricByName` and `GetMetricBySelector`.
fn list(
    store: &Store,
    version: Version,
    path: &[&str],
    selectors: &Selectors,
) -> Result<MetricValueList, Box<Status>> {
    let query = Query::parse(path).ok_or_else(|| bad_request("invalid request path"))?;
    let labels = Selector::parse(&selectors.labels).map_err(bad_request)?;
    let metric_labels = Selector::parse(&selectors.metric_labels).map_err(bad_request)?;
    let resource = resource_named(store, query.resource);
    let is_list = query.object == "*";
    let chosen = |name: &str, object_labels: &Labels| match is_list {
        true => labels.matches(values_of(object_labels)),
        false => name == query.object,
    };

    let resource = match resource {
        Some(resource) => resource,
        None if is_list => return Err(Status::internal_error("unable to list matching resources").into()),
        None => return Err(not_found(&query, None)),
    };
    if is_list && !store.has_object(resource, query.namespace, chosen) {
        return Err(not_found(&query, None));
    }
    let metric = (resource, query.metric.to_owned());
    if !store.metrics().contains(&metric) {
        return Err(not_found(&query, None));
    }
    let series = store.select(&metric, query.namespace, &metric_labels, chosen);
    if !is_list && series.is_empty() {
        return Err(not_found(&query, Some(query.object)));
    }

    let selector = label_selector(&metric_labels);
    let items = series.into_iter().map(|series| MetricValue {
        described_object: series.described_object(),
        metric: series.metric,
        selector: selector.clone(),
        timestamp: Some(series.timestamp),
        window: series.window,
        value: series.value,
    });
    Ok(MetricValueList { items: items.collect(), ..MetricValueList::new(version) })
}

impl<'a> Query<'a> {
    fn parse(path: &[&'a str]) -> Option<Self> {
        Some(match *path {
            ["namespaces", namespace, "metrics", metric] => {
                Self { resource: "namespaces", namespace: None, object: namespace, metric }
            }
            ["namespaces", namespace, resource, object, metric] => {
                Self { resource, namespace: Some(namespace), object, metric }
            }
            [resource, object, metric] if resource != "namespaces" => {
                Self { resource, namespace: None, object, metric }
            }
            _ => return None,
        })
    }
}

fn resource_named(store: &Store, qualified: &str) -> Option<Resource> {
    let of_series = store.metrics().into_iter().map(|(resource, _)| resource);
    Resource::BUILT_IN.into_iter().chain(of_series).find(|resource| resource.qualified() == qualified)
}

/// `provider.NewMetricNotFoundError`, or `NewMetricNotFoundForError` with an object.
fn not_found(query: &Query<'_>, object: Option<&str>) -> Box<Status> {
    let mut message = format!("the server could not find the metric {} for {}", query.metric, query.resource);
    if let Some(object) = object {
        message = format!("{message} {object}");
    }
    Status::failure(StatusCode::NOT_FOUND, "NotFound", message).into()
}

/// The selector as an object, as prometheus-adapter puts it into an item. `None` for an empty selector.
fn label_selector(selector: &Selector) -> Option<LabelSelector> {
    let mut object = LabelSelector::default();
    for requirement in selector.requirements() {
        let key = requirement.key.clone();
        let values: Vec<String> = requirement.values.iter().cloned().collect();
        let operator = match requirement.operator {
            Operator::Equals => {
                object.match_labels.insert(key, values.concat());
                continue;
            }
            Operator::In => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan => "Gt",
            Operator::LessThan => "Lt",
        };
        let operator = operator.to_owned();
        object.match_expressions.push(LabelSelectorRequirement { key, operator, values });
    }
    (!selector.requirements().is_empty()).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_object_matches_prometheus_adapter() {
        let selector = Selector::parse("zone in (b,a),pod=x,tier!=y,!old").unwrap();
        assert_eq!(
            serde_json::to_value(label_selector(&selector)).unwrap(),
            serde_json::json!({
                "matchLabels": {"pod": "x"},
                "matchExpressions": [
                    {"key": "old", "operator": "DoesNotExist"},
                    {"key": "tier", "operator": "NotIn", "values": ["y"]},
                    {"key": "zone", "operator": "In", "values": ["a", "b"]},
                ],
            })
        );
        assert!(label_selector(&Selector::default()).is_none());
    }
}
