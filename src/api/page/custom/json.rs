//! Reads a `MetricValueList` in JSON without copying strings.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::CustomItem;
use crate::api::memory::Reserve;
use crate::api::meta::LabelSelector;
use crate::api::page::body::Span;
use crate::api::page::{Expected, PageError, list};
use crate::api::text::json_text;

/// A `MetricValue` of both versions: v1beta1 has the fields `metricName`, `window` and `selector`; v1beta2 has `metric` and
/// `windowSeconds`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonMetricValue<'a> {
    #[serde(borrow, default)]
    described_object: ObjectReference<'a>,
    #[serde(borrow)]
    metric_name: Option<&'a RawValue>,
    #[serde(borrow)]
    selector: Option<&'a RawValue>,
    window: Option<i64>,
    #[serde(borrow)]
    metric: Option<MetricIdentifier<'a>>,
    window_seconds: Option<i64>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference<'a> {
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    #[serde(borrow)]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_version: Option<&'a RawValue>,
    #[serde(borrow)]
    field_path: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MetricIdentifier<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    selector: Option<&'a RawValue>,
}

/// Reads all items of the list in `body`.
pub(in crate::api::page) fn items(
    body: &[u8],
    reserve: &mut Reserve<'_>,
) -> Result<Vec<CustomItem>, PageError> {
    list::json(Expected::MetricValues, body, reserve, |index, value, reserve| {
        item(body, index, &value, reserve)
    })
}

fn item(
    body: &[u8],
    index: usize,
    value: &JsonMetricValue<'_>,
    reserve: &mut Reserve<'_>,
) -> Result<CustomItem, PageError> {
    let object = &value.described_object;
    let (name, selector) = match &value.metric {
        Some(metric) => (metric.name, metric.selector),
        None => (value.metric_name, value.selector),
    };
    let selector = selector.map(RawValue::get).filter(|raw| *raw != "null").unwrap_or_default();
    if !selector.is_empty() {
        LabelSelector::from_json(selector)?;
    }
    let span = |raw| json_text(raw).map(|text| Span::of_text(body, text));
    Ok(CustomItem {
        kind: span(object.kind)?,
        namespace: span(object.namespace)?,
        name: span(object.name)?,
        uid: span(object.uid)?,
        api_version: span(object.api_version)?,
        resource_version: span(object.resource_version)?,
        field_path: span(object.field_path)?,
        metric: span(name)?,
        selector: Span::of(body, selector.as_bytes()),
        timestamp: list::timestamp(index, value.timestamp)?,
        window_seconds: value.window_seconds.or(value.window),
        value: list::json_quantity(index, value.value, reserve)?,
    })
}
