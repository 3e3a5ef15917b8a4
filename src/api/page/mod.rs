//! Reads one member's `MetricValueList`, of either version, in JSON or in protobuf.
//!
//! A page is checked when it is read: each quantity, timestamp and selector is well-formed, so that merging and
//! encoding cannot fail. It keeps the body and where each item's parts lie in it, and owns no strings.

mod json;
mod protobuf;

use bytes::Bytes;
use thiserror::Error;

use super::codec::protobuf::Malformed;
use super::meta::LabelSelector;
use super::quantity::{Quantity, QuantityError};
use super::text::Text;
use super::time::Timestamp;

/// A checked `MetricValueList` of one member.
#[derive(Clone, Debug)]
pub struct Page {
    body: Bytes,
    format: Format,
    items: Vec<Item>,
}

/// How a member encoded its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// Why a member's body is no page.
#[derive(Debug, Error)]
pub enum PageError {
    /// The body is no JSON, or its fields have other types.
    #[error("the body is not the JSON of a MetricValueList: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is not UTF-8.
    #[error("the body is not UTF-8")]
    Utf8,
    /// The body is no protobuf.
    #[error("the body is not the protobuf of a MetricValueList: {0}")]
    Protobuf(#[from] Malformed),
    /// The body is some other object.
    #[error("the body is a {kind:?} of {api_version:?}, not a MetricValueList")]
    Kind {
        /// The object's kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
    /// A value is no quantity.
    #[error("item {index} has a value that is no quantity: {source}")]
    Quantity {
        /// The item, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: QuantityError,
    },
    /// A timestamp is not RFC 3339.
    #[error("item {index} has a timestamp that is not RFC 3339")]
    Timestamp {
        /// The item, counted from 0.
        index: usize,
    },
    /// The body has more items than real ones would fit into it; they would take many times its own size.
    #[error("the body has more items than fit into {0} bytes")]
    Crowded(usize),
    /// The body is longer than offsets reach.
    #[error("the body has more than 4 GiB")]
    TooLong,
}

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ItemRef<'a> {
    page: &'a Page,
    item: &'a Item,
}

/// Where the parts of one item lie.
#[derive(Clone, Debug, Default)]
struct Item {
    kind: Span,
    namespace: Span,
    name: Span,
    uid: Span,
    api_version: Span,
    resource_version: Span,
    field_path: Span,
    metric: Span,
    selector: Span,
    timestamp: Option<Timestamp>,
    window_seconds: Option<i64>,
    value: Quantity,
}

/// A part of the body: strings without their quotes, selectors whole; empty where absent.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Page {
    /// Reads and checks `body`.
    ///
    /// # Errors
    /// If anything in it is not as the format and `MetricValueList` demand.
    pub fn read(format: Format, body: Bytes) -> Result<Self, PageError> {
        if u32::try_from(body.len()).is_err() {
            return Err(PageError::TooLong);
        }
        let items = match format {
            Format::Json => json::items(&body)?,
            Format::Protobuf => protobuf::items(&body)?,
        };
        Ok(Self { body, format, items })
    }

    /// The items, in the member's order.
    pub fn items(&self) -> impl ExactSizeIterator<Item = ItemRef<'_>> {
        self.items.iter().map(|item| ItemRef { page: self, item })
    }

    /// How many bytes its body has.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// How many bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        self.body.len() + self.items.capacity() * size_of::<Item>()
    }

    /// Whether the member has no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn text(&self, span: Span) -> Text<'_> {
        let bytes = &self.body[span.start as usize..span.end as usize];
        let text = str::from_utf8(bytes).unwrap_or_default();
        match self.format {
            Format::Json => Text::from_json(text),
            Format::Protobuf => Text::Plain(text),
        }
    }
}

impl<'a> ItemRef<'a> {
    /// `describedObject.kind`.
    pub fn kind(self) -> Text<'a> {
        self.page.text(self.item.kind)
    }

    /// `describedObject.namespace`.
    pub fn namespace(self) -> Text<'a> {
        self.page.text(self.item.namespace)
    }

    /// `describedObject.name`.
    pub fn name(self) -> Text<'a> {
        self.page.text(self.item.name)
    }

    /// `describedObject.uid`.
    pub fn uid(self) -> Text<'a> {
        self.page.text(self.item.uid)
    }

    /// `describedObject.apiVersion`.
    pub fn api_version(self) -> Text<'a> {
        self.page.text(self.item.api_version)
    }

    /// `describedObject.resourceVersion`.
    pub fn resource_version(self) -> Text<'a> {
        self.page.text(self.item.resource_version)
    }

    /// `describedObject.fieldPath`.
    pub fn field_path(self) -> Text<'a> {
        self.page.text(self.item.field_path)
    }

    /// The metric's name.
    pub fn metric(self) -> Text<'a> {
        self.page.text(self.item.metric)
    }

    /// The metric's own selector.
    pub fn selector(self) -> Option<LabelSelector<'a>> {
        let Span { start, end } = self.item.selector;
        let raw = &self.page.body[start as usize..end as usize];
        if raw.is_empty() {
            return None;
        }
        match self.page.format {
            Format::Json => {
                str::from_utf8(raw).ok().and_then(|raw| LabelSelector::from_json(raw).ok().flatten())
            }
            Format::Protobuf => LabelSelector::from_protobuf(raw).ok(),
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

    /// The value.
    pub fn value(self) -> &'a Quantity {
        &self.item.value
    }
}

/// Adds an item to those of `body`, as long as that many can be real: one of a pod has 80 bytes in protobuf.
fn push(items: &mut Vec<Item>, item: Item, body: &[u8]) -> Result<(), PageError> {
    const HANDFUL: usize = 64;
    const SMALLEST: usize = 32;
    if items.len() >= HANDFUL && items.len() * SMALLEST > body.len() {
        return Err(PageError::Crowded(body.len()));
    }
    items.push(item);
    Ok(())
}

impl Span {
    /// Where `part`, a slice of `body`, lies in it.
    fn of(body: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
        match (u32::try_from(start), u32::try_from(start.wrapping_add(part.len()))) {
            (Ok(start), Ok(end)) if end as usize <= body.len() => Self { start, end },
            _ => Self::default(),
        }
    }
}

/// Refuses what is no `MetricValueList` of custom metrics.
fn check_kind(kind: &str, api_version: &str) -> Result<(), PageError> {
    let ours = matches!(api_version, "custom.metrics.k8s.io/v1beta1" | "custom.metrics.k8s.io/v1beta2");
    if ours && kind == "MetricValueList" {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(80).collect();
    Err(PageError::Kind { kind: short(kind), api_version: short(api_version) })
}

/// The quantity of item `index`; nothing is zero, as in Go.
fn quantity(index: usize, text: &str) -> Result<Quantity, PageError> {
    if text.is_empty() {
        return Ok(Quantity::default());
    }
    text.parse().map_err(|source| PageError::Quantity { index, source })
}

#[cfg(test)]
mod tests;
