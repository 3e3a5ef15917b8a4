//! An `ExternalMetricValueList` of `external.metrics.k8s.io`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Body, Format, Span};
use super::{Expected, PageError, list};
use crate::api::codec::protobuf::{Fields, Malformed};
use crate::api::memory::Reserve;
use crate::api::meta::{Entries, Entry, add, read_entry};
use crate::api::quantity::Quantity;
use crate::api::text::{Text, json_text};
use crate::api::time::Timestamp;

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ItemRef<'a> {
    body: &'a Body,
    item: &'a Item,
}

/// Where the parts of one item lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    metric: Span,
    /// The labels' object in JSON, the whole item in protobuf.
    labels: Span,
    timestamp: Option<Timestamp>,
    window_seconds: Option<i64>,
    value: Quantity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValue<'a> {
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

/// Where the parts of each item lie in `body`.
pub(super) fn read(format: Format, body: &[u8], reserve: &mut Reserve<'_>) -> Result<Vec<Item>, PageError> {
    let expected = Expected::ExternalValues;
    match format {
        Format::Json => list::json(expected, body, reserve, |index, value, reserve| {
            from_json(body, index, &value, reserve)
        }),
        Format::Protobuf => list::protobuf(expected, body, reserve, |index, _, message, reserve| {
            from_protobuf(body, index, message, reserve)
        }),
    }
}

impl Item {
    /// It in its body.
    pub(super) fn of<'a>(&'a self, body: &'a Body) -> ItemRef<'a> {
        ItemRef { body, item: self }
    }

    /// What it takes beside its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        self.value.heap_bytes()
    }
}

impl<'a> ItemRef<'a> {
    /// The metric's name.
    pub fn metric(self) -> Text<'a> {
        self.body.text(self.item.metric)
    }

    /// What tells the series of a metric apart, in the member's order.
    pub fn labels(self) -> Vec<Entry<'a>> {
        let span = self.item.labels;
        match self.body.format {
            Format::Json => json_labels(self.body.raw(span)).unwrap_or_default(),
            Format::Protobuf => protobuf_labels(self.body.message(span)).unwrap_or_default(),
        }
    }

    /// When the value was taken.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.item.timestamp
    }

    /// Over how many seconds the value was taken.
    pub fn window_seconds(self) -> Option<i64> {
        self.item.window_seconds
    }

    /// How many bytes of the page it is made of, about.
    pub fn bytes(self) -> usize {
        self.item.metric.len() + self.item.labels.len() + self.item.heap_bytes()
    }

    /// The value.
    pub fn value(self) -> &'a Quantity {
        &self.item.value
    }
}

fn from_json(
    body: &[u8],
    index: usize,
    value: &ExternalMetricValue<'_>,
    reserve: &mut Reserve<'_>,
) -> Result<Item, PageError> {
    let labels = value.metric_labels.map_or("", RawValue::get);
    json_labels(labels)?;
    Ok(Item {
        metric: Span::of_text(body, json_text(value.metric_name)?),
        labels: Span::of(body, labels.as_bytes()),
        timestamp: list::timestamp(index, value.timestamp)?,
        window_seconds: value.window,
        value: list::json_quantity(index, value.value, reserve)?,
    })
}

fn json_labels(raw: &str) -> Result<Vec<Entry<'_>>, serde_json::Error> {
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Option<Entries<'_>>>(raw)?.unwrap_or_default().texts()
}

fn protobuf_labels(item: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
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
) -> Result<Item, PageError> {
    protobuf_labels(message)?;
    let mut item = Item { labels: Span::of(body, message), ..Item::default() };
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
