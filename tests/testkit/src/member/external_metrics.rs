//! Responses under `/apis/external.metrics.k8s.io`, as from prometheus-adapter or from KEDA's metrics server.

use http::StatusCode;

use super::ExternalMetrics;
use super::store::{Labels, Store, values_of};
use super::wire::{
    ApiGroup, ApiResource, ApiResourceList, Document, ExternalMetricValueList, ListMeta, Status, bad_request,
};
use crate::selector::Selector;

/// The API's group.
pub(super) const GROUP: &str = "external.metrics.k8s.io";
/// Its only version.
pub(super) const VERSION: &str = "v1beta1";

/// The group with its version.
pub(super) fn group() -> Option<ApiGroup> {
    ApiGroup::new(GROUP, &[VERSION])
}

/// All metrics, or for KEDA its placeholder.
pub(super) fn discovery(store: &Store, server: ExternalMetrics) -> ApiResourceList {
    let metric = |name: String| ApiResource {
        name,
        singular_name: "",
        namespaced: true,
        kind: "ExternalMetricValueList",
        verbs: &["get"],
    };
    let names = match server {
        ExternalMetrics::Keda => ["externalmetrics".to_owned()].into(),
        ExternalMetrics::Absent | ExternalMetrics::PrometheusAdapter => store.external_metrics(),
    };
    ApiResourceList::new(format!("{GROUP}/{VERSION}"), names.into_iter().map(metric).collect())
}

/// The series of a metric that match a selector; may be empty. An unknown metric is a 404.
pub(super) fn answer(
    store: &Store,
    namespace: &str,
    metric: &str,
    label_selector: &str,
) -> (StatusCode, Document) {
    match list(store, namespace, metric, label_selector) {
        Ok(list) => (StatusCode::OK, Document::ExternalMetrics(list)),
        Err(status) => status.into_answer(),
    }
}

fn list(
    store: &Store,
    namespace: &str,
    metric: &str,
    label_selector: &str,
) -> Result<ExternalMetricValueList, Box<Status>> {
    let labels = Selector::parse(label_selector).map_err(bad_request)?;
    let mut items = store.external_metric(namespace, metric).ok_or_else(|| not_found(namespace, metric))?;
    let none = Labels::new();
    items.retain(|item| labels.matches(values_of(item.metric_labels.as_ref().unwrap_or(&none))));
    Ok(ExternalMetricValueList { metadata: ListMeta::default(), items })
}

/// `provider.NewMetricNotFoundError`. prometheus-adapter uses the resource `namespaces` in the namespace `default` and an empty
/// resource elsewhere.
fn not_found(namespace: &str, metric: &str) -> Box<Status> {
    let resource = if namespace == "default" { "namespaces" } else { "" };
    let message = format!("the server could not find the metric {metric} for {resource}");
    Status::failure(StatusCode::NOT_FOUND, "NotFound", message).into()
}
