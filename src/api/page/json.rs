//! A `MetricValueList` in JSON, read without copying a string.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Item, PageError, Span, check_kind, push, quantity};
use crate::api::meta::{LabelSelector, json_text};
use crate::api::text::Text;
use crate::api::time::Timestamp;

/// The list without its items, which are read one by one.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
}

/// A `MetricValue` of either version: v1beta1 has `metricName`, `window` and `selector` where v1beta2 has `metric`
/// and `windowSeconds`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue<'a> {
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

/// Where the parts of each item lie in `body`.
pub(super) fn items(body: &[u8]) -> Result<Vec<Item>, PageError> {
    let text = str::from_utf8(body).map_err(|_| PageError::Utf8)?;
    let list: List<'_> = serde_json::from_str(text)?;
    check_kind(&list.kind, &list.api_version)?;
    let raw = list.items.map_or("null", RawValue::get);
    if raw == "null" {
        return Ok(Vec::new());
    }
    let (mut items, mut wrong) = (Vec::new(), None);
    let read = Items { body, items: &mut items, wrong: &mut wrong }
        .deserialize(&mut serde_json::Deserializer::from_str(raw));
    match wrong {
        Some(wrong) => Err(wrong),
        None => Ok(read.map(|()| items)?),
    }
}

/// Reads the items one by one, so that a list takes no more memory than what is kept of it.
struct Items<'b> {
    body: &'b [u8],
    items: &'b mut Vec<Item>,
    /// What is wrong with an item, where serde's own words would say less.
    wrong: &'b mut Option<PageError>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of metric values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(value) = sequence.next_element::<MetricValue<'de>>()? {
            let item = item(self.body, self.items.len(), &value);
            if let Err(error) = item.and_then(|item| push(self.items, item, self.body)) {
                *self.wrong = Some(error);
                return Err(A::Error::custom("an item is malformed"));
            }
        }
        Ok(())
    }
}

fn item(body: &[u8], index: usize, value: &MetricValue<'_>) -> Result<Item, PageError> {
    let object = &value.described_object;
    let (name, selector) = match &value.metric {
        Some(metric) => (metric.name, metric.selector),
        None => (value.metric_name, value.selector),
    };
    let selector = selector.map(RawValue::get).filter(|raw| *raw != "null").unwrap_or_default();
    if !selector.is_empty() {
        LabelSelector::from_json(selector)?;
    }
    let span = |raw| json_text(raw).map(|text| string_span(body, text));
    Ok(Item {
        kind: span(object.kind)?,
        namespace: span(object.namespace)?,
        name: span(object.name)?,
        uid: span(object.uid)?,
        api_version: span(object.api_version)?,
        resource_version: span(object.resource_version)?,
        field_path: span(object.field_path)?,
        metric: span(name)?,
        selector: Span::of(body, selector.as_bytes()),
        timestamp: timestamp(index, value.timestamp)?,
        window_seconds: value.window_seconds.or(value.window),
        value: quantity_of(index, value.value)?,
    })
}

fn string_span(body: &[u8], text: Text<'_>) -> Span {
    let (Text::Plain(text) | Text::Escaped(text)) = text;
    if text.is_empty() { Span::default() } else { Span::of(body, text.as_bytes()) }
}

fn timestamp(index: usize, raw: Option<&RawValue>) -> Result<Option<Timestamp>, PageError> {
    let text = json_text(raw)?.decode();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| PageError::Timestamp { index })
}

/// A quantity is a string or, as Go accepts it, a bare number.
fn quantity_of(index: usize, raw: Option<&RawValue>) -> Result<crate::api::quantity::Quantity, PageError> {
    match raw.map(RawValue::get) {
        Some(number) if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            quantity(index, number)
        }
        _ => quantity(index, &json_text(raw)?.decode()),
    }
}
