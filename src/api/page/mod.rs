//! Reads what one member answers, in JSON or in protobuf.
//!
//! A page is checked when it is read: each quantity, timestamp and selector is well-formed, so that merging and
//! encoding cannot fail. It keeps the body and where each item's parts lie in it, and owns no strings.

mod body;
pub mod custom;
pub mod external;
mod list;
pub mod resource;

use thiserror::Error;

use super::codec::protobuf::MalformedProtobuf;
use super::duration::DurationError;
use super::group::{Group, MetricsResource};
use super::memory::{Reserve, Stopped};
use super::meta::{ObjectMetaError, STRINGS_WITHIN, has_long_string};
use super::quantity::QuantityError;
pub use body::BodyFormat;
use body::{Body, memory_of};

/// A checked answer of one member.
#[derive(Clone, Debug)]
pub struct Page {
    body: Body,
    items: Items,
    /// In bytes, with all of the above.
    memory: usize,
}

/// What a body has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A `MetricValueList` of custom metrics, of either version.
    MetricValues,
    /// An `ExternalMetricValueList`.
    ExternalValues,
    /// A `PodMetricsList` or `NodeMetricsList`.
    List(MetricsResource),
    /// One `PodMetrics` or `NodeMetrics`.
    Object(MetricsResource),
}

/// Why a member's body is no page.
#[derive(Debug, Error)]
pub enum PageError {
    /// The body is no JSON, or its fields have other types.
    #[error("the body is not the JSON that was asked for: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is not UTF-8.
    #[error("the body is not UTF-8")]
    Utf8,
    /// The body is no protobuf.
    #[error("the body is not the protobuf that was asked for: {0}")]
    Protobuf(#[from] MalformedProtobuf),
    /// The body is some other object.
    #[error("the body is a {kind:?} of {api_version:?}, not the {expected} that was asked for")]
    Kind {
        /// The object's kind.
        kind: String,
        /// Its group and version.
        api_version: String,
        /// The kind that was asked for.
        expected: &'static str,
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
    /// A window is no duration.
    #[error("item {index} has a window that is no duration: {source}")]
    Window {
        /// The item, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: DurationError,
    },
    /// An object's metadata is malformed.
    #[error("item {index} has malformed metadata: {source}")]
    Metadata {
        /// The item, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: ObjectMetaError,
    },
    /// The body has more items than real ones would fit into it; they would take many times its own size.
    #[error("the body has more items than fit into {0} bytes")]
    Crowded(usize),
    /// The body has a string, a number or white space of a length that no real one has.
    #[error("the body has {STRINGS_WITHIN} bytes in which no string begins or ends")]
    LongString,
    /// The body is longer than offsets reach.
    #[error("the body has more than 4 GiB")]
    TooLong,
    /// It was not read to its end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Where the items' parts lie.
#[derive(Clone, Debug)]
enum Items {
    Custom(Vec<custom::CustomItem>),
    External(Vec<external::ExternalItem>),
    Resource(resource::Objects),
}

impl Page {
    /// Reads and checks `body`. Memory for what is read beside it, [`Page::memory`] says how much that is at last, is
    /// reserved before it is allocated.
    ///
    /// # Errors
    /// If anything in it is not as the format and what is expected demand, or `reserve` stops it.
    pub fn read(
        expected: Expected,
        format: BodyFormat,
        body: Vec<u8>,
        reserve: &mut Reserve<'_>,
    ) -> Result<Self, PageError> {
        if u32::try_from(body.len()).is_err() {
            return Err(PageError::TooLong);
        }
        if format == BodyFormat::Json {
            if has_long_string(&body) {
                return Err(PageError::LongString);
            }
            // The parser takes a byte for each level of nesting, in a buffer that doubles as it grows; a level has four bytes at
            // least where strings are as frequent as they have to be.
            reserve(body.len() / 2)?;
        }
        let items = match (expected, format) {
            (Expected::MetricValues, BodyFormat::Json) => Items::Custom(custom::json::items(&body, reserve)?),
            (Expected::MetricValues, BodyFormat::Protobuf) => {
                Items::Custom(custom::protobuf::items(&body, reserve)?)
            }
            (Expected::ExternalValues, _) => Items::External(external::read(format, &body, reserve)?),
            (Expected::List(resource), _) => {
                Items::Resource(resource::Objects::of_list(resource, format, &body, reserve)?)
            }
            (Expected::Object(resource), _) => {
                Items::Resource(resource::Objects::of_one(resource, format, &body, reserve)?)
            }
        };
        let memory = size_of::<Self>() + body.capacity() + items.memory();
        Ok(Self { body: Body { bytes: body, format }, items, memory })
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Custom(items) => items.len(),
            Items::External(items) => items.len(),
            Items::Resource(objects) => objects.len(),
        }
    }

    /// Whether the member has no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The custom metrics, in the member's order.
    pub fn custom(&self) -> impl ExactSizeIterator<Item = custom::CustomItemRef<'_>> {
        let items: &[custom::CustomItem] = if let Items::Custom(items) = &self.items { items } else { &[] };
        items.iter().map(|item| item.of(&self.body))
    }

    /// The external metrics, in the member's order.
    pub fn external(&self) -> impl ExactSizeIterator<Item = external::ExternalItemRef<'_>> {
        let items: &[external::ExternalItem] =
            if let Items::External(items) = &self.items { items } else { &[] };
        items.iter().map(|item| item.of(&self.body))
    }

    /// The pods or nodes, in the member's order.
    pub fn resources(&self) -> impl Iterator<Item = resource::ResourceItemRef<'_>> {
        let objects = if let Items::Resource(objects) = &self.items { Some(objects) } else { None };
        objects.into_iter().flat_map(|objects| objects.items(&self.body))
    }

    /// How many bytes its body has.
    pub fn bytes(&self) -> usize {
        self.body.bytes.len()
    }

    /// How many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl Items {
    fn memory(&self) -> usize {
        match self {
            Self::Custom(items) => memory_of(items, custom::CustomItem::heap_bytes),
            Self::External(items) => memory_of(items, external::ExternalItem::heap_bytes),
            Self::Resource(objects) => objects.memory(),
        }
    }
}

impl Expected {
    /// The kind.
    fn kind(self) -> &'static str {
        match self {
            Self::MetricValues => "MetricValueList",
            Self::ExternalValues => "ExternalMetricValueList",
            Self::List(resource) => resource.list_kind(),
            Self::Object(resource) => resource.kind(),
        }
    }

    /// Refuses what is another object.
    fn check(self, kind: &str, api_version: &str) -> Result<(), PageError> {
        let ours = match self {
            Self::MetricValues => Group::Custom.has(api_version),
            Self::ExternalValues => Group::External.has(api_version),
            Self::List(_) | Self::Object(_) => Group::Resource.has(api_version),
        };
        if ours && kind == self.kind() {
            return Ok(());
        }
        let short = |text: &str| text.chars().take(80).collect();
        Err(PageError::Kind { kind: short(kind), api_version: short(api_version), expected: self.kind() })
    }
}

#[cfg(test)]
mod tests;
