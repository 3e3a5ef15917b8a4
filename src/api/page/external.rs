//! Items of an `ExternalMetricValueList` of `external.metrics.k8s.io`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Body, BodyFormat, Span};
use super::{Expected, PageError, list};
use crate::api::codec::protobuf::{Fields, MalformedProtobuf};
use crate::api::memory::Reserve;
use crate::api::meta::{KeyValue, ObjectEntries, add, read_entry};
use crate::api::quantity::Quantity;
use crate::api::text::{JsonText, json_text};
use crate::api::time::Timestamp;

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ExternalItemRef<'a> {
    body: &'a Body,
    item: &'a ExternalItem,
}

/// The values of one item, and the positions of its strings and labels.
#[derive(Clone, Debug, Default)]
pub(super) struct ExternalItem {
    metric: Span,
    /// In JSON the object with the labels, in protobuf the whole item.
    labels: Span,
    timestamp: Option<Timestamp>,
    window_seconds: Option<i64>,
    value: Quantity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonExternalMetricValue<'a> {
    #[serde(borrow)]
    metric_name: Option<&'a RawValue>,
    #[serde(borrow)]
    metric_labels: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    window: Option<i64>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// Reads all items of the list in `body`.
pub(super) fn read(
    format: BodyFormat,
    body: &[u8],
    reserve: &mut Reserve<'_>,
) -> Result<Vec<ExternalItem>, PageError> {
    let expected = Expected::ExternalValues;
    match format {
        BodyFormat::Json => list::json(expected, body, reserve, |index, value, reserve| {
            from_json(body, index, &value, reserve)
        }),
        BodyFormat::Protobuf => list::protobuf(expected, body, reserve, |index, _, message, reserve| {
            from_protobuf(body, index, message, reserve)
        }),
    }
}

impl ExternalItem {
    /// A reference to this item. `body` must be the body that the item was read from.
    pub(super) fn item_ref<'a>(&'a self, body: &'a Body) -> ExternalItemRef<'a> {
        ExternalItemRef { body, item: self }
    }

    /// Heap memory of the item in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.value.heap_bytes()
    }
}

impl<'a> ExternalItemRef<'a> {
    /// The metric's name.
    pub fn metric(self) -> JsonText<'a> {
        self.body.text(self.item.metric)
    }

    /// The labels of the series, in the member's order. They identify a series of the metric.
    pub fn labels(self) -> Vec<KeyValue<'a>> {
        let span = self.item.labels;
        match self.body.format {
            BodyFormat::Json => json_labels(self.body.raw(span)).unwrap_or_default(),
            BodyFormat::Protobuf => protobuf_labels(self.body.message(span)).unwrap_or_default(),
        }
    }

    /// The time when the value was measured.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.item.timestamp
    }

    /// The measurement window of the value in seconds.
    pub fn window_seconds(self) -> Option<i64> {
        self.item.window_seconds
    }

    /// The approximate size of the item in the page, in bytes.
    pub fn bytes(self) -> usize {
        self.item.metric.len() + self.item.labels.len() + self.item.heap_bytes()
    }

    pub fn value(self) -> &'a Quantity {
        &self.item.value
    }
}

fn from_json(
    body: &[u8],
    index: usize,
    value: &JsonExternalMetricValue<'_>,
    reserve: &mut Reserve<'_>,
) -> Result<ExternalItem, PageError> {
    let labels = value.metric_labels.map_or("", RawValue::get);
    json_labels(labels)?;
    Ok(ExternalItem {
        metric: Span::of_text(body, json_text(value.metric_name)?),
        labels: Span::of(body, labels.as_bytes()),
        timestamp: list::timestamp(index, value.timestamp)?,
        window_seconds: value.window,
        value: list::json_quantity(index, value.value, reserve)?,
    })
}

fn json_labels(raw: &str) -> Result<Vec<KeyValue<'_>>, serde_json::Error> {
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Option<ObjectEntries<'_>>>(raw)?.unwrap_or_default().texts()
}

fn protobuf_labels(item: &[u8]) -> Result<Vec<KeyValue<'_>>, MalformedProtobuf> {
    let mut labels = Vec::new();
    for field in Fields::of(item) {
        if let (2, label) = field? {
            add(&mut labels, read_entry(label.bytes())?)?;
        }
    }
    Ok(labels)
}

fn from_protobuf(
    body: &[u8],
    index: usize,
    message: &[u8],
    reserve: &mut Reserve<'_>,
) -> Result<ExternalItem, PageError> {
    protobuf_labels(message)?;
    let mut item = ExternalItem { labels: Span::of(body, message), ..ExternalItem::default() };
    for field in Fields::of(message) {
        match field? {
            (1, name) => item.metric = Span::of(body, name.text()?.as_bytes()),
            (3, time) => item.timestamp = list::protobuf_timestamp(index, time.bytes())?,
            (4, seconds) => item.window_seconds = Some(seconds.number()),
            (5, value) => item.value = list::protobuf_quantity(index, value.bytes(), reserve)?,
            _ => {}
        }
    }
    Ok(item)
}
