//! Reads the response of one member, in JSON or in protobuf.
//!
//! Reading a page checks each quantity, timestamp and selector, so merging and encoding cannot fail. A page keeps the response
//! body and the positions of the strings of each item. It does not copy strings.

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
use super::meta::{ObjectMetaError, QUOTE_BLOCK_BYTES, has_long_string};
use super::quantity::QuantityError;
pub use body::BodyFormat;
use body::{Body, vec_memory};

/// The checked list of one member.
#[derive(Clone, Debug)]
pub struct Page {
    body: Body,
    items: Items,
    /// Memory of the page in bytes, with body and items.
    memory: usize,
}

/// The expected kind of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A `MetricValueList` of custom metrics, v1beta1 or v1beta2.
    MetricValues,
    /// An `ExternalMetricValueList`.
    ExternalValues,
    /// A `PodMetricsList` or `NodeMetricsList`.
    List(MetricsResource),
    /// One `PodMetrics` or `NodeMetrics`.
    Object(MetricsResource),
}

/// Why a member's response body is not a valid page.
#[derive(Debug, Error)]
pub enum PageError {
    /// The body is not JSON, or a field has the wrong type.
    #[error("the body is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is not UTF-8.
    #[error("the body is not UTF-8")]
    Utf8,
    /// The body is not protobuf.
    #[error("the body is not the expected protobuf: {0}")]
    Protobuf(#[from] MalformedProtobuf),
    /// The body is an object of another kind.
    #[error("the body is a {kind:?} of {api_version:?}, not the expected {expected}")]
    Kind {
        /// The kind in the body.
        kind: String,
        /// Group and version in the body.
        api_version: String,
        /// The expected kind.
        expected: &'static str,
    },
    /// A value is not a quantity.
    #[error("the value of item {index} is not a quantity: {source}")]
    Quantity {
        /// The item, counted from 0.
        index: usize,
        source: QuantityError,
    },
    /// A timestamp is not RFC 3339.
    #[error("the timestamp of item {index} is not RFC 3339")]
    Timestamp {
        /// The item, counted from 0.
        index: usize,
    },
    /// A window is not a duration.
    #[error("the window of item {index} is not a duration: {source}")]
    Window {
        /// The item, counted from 0.
        index: usize,
        source: DurationError,
    },
    /// An object's metadata is malformed.
    #[error("the metadata of item {index} is malformed: {source}")]
    Metadata {
        /// The item, counted from 0.
        index: usize,
        /// The error of the metadata.
        source: ObjectMetaError,
    },
    /// The body has more items than real items fit into its size. They would need many times the memory of the body.
    #[error("the body has too many items for its {0} bytes")]
    TooManyItems(usize),
    /// The body has a string, a number or white space that is too long.
    #[error("the body has {QUOTE_BLOCK_BYTES} bytes in a row in which no string starts or ends")]
    LongString,
    /// The body is longer than 4 GiB, the limit of 32-bit positions.
    #[error("the body has more than 4 GiB")]
    TooLong,
    /// Reading stopped early.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The items, with positions in the body.
#[derive(Clone, Debug)]
enum Items {
    Custom(Vec<custom::CustomItem>),
    External(Vec<external::ExternalItem>),
    Resource(resource::Objects),
}

impl Page {
    /// Reads and checks `body`. It reserves the memory for the items before it allocates it. [`Page::memory`] returns the
    /// final size.
    ///
    /// # Errors
    /// If the body does not have the expected format and kind, if a part of it is malformed, or if `reserve` returns an error.
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
            // The parser needs one byte for each level of nesting, in a buffer that doubles when it grows. Because
            // `has_long_string` requires frequent strings, a level has at least four bytes of the body.
            reserve(body.len() / 2)?;
        }
        let items = match (expected, format) {
            (Expected::MetricValues, BodyFormat::Json) => Items::Custom(custom::json::items(&body, reserve)?),
            (Expected::MetricValues, BodyFormat::Protobuf) => {
                Items::Custom(custom::protobuf::items(&body, reserve)?)
            }
            (Expected::ExternalValues, _) => Items::External(external::read(format, &body, reserve)?),
            (Expected::List(resource), _) => {
                Items::Resource(resource::Objects::from_list(resource, format, &body, reserve)?)
            }
            (Expected::Object(resource), _) => {
                Items::Resource(resource::Objects::from_object(resource, format, &body, reserve)?)
            }
        };
        let memory = size_of::<Self>() + body.capacity() + items.memory();
        Ok(Self { body: Body { bytes: body, format }, items, memory })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Custom(items) => items.len(),
            Items::External(items) => items.len(),
            Items::Resource(objects) => objects.len(),
        }
    }

    /// Whether the page has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The custom metrics, in the member's order.
    pub fn custom(&self) -> impl ExactSizeIterator<Item = custom::CustomItemRef<'_>> {
        let items: &[custom::CustomItem] = if let Items::Custom(items) = &self.items { items } else { &[] };
        items.iter().map(|item| item.item_ref(&self.body))
    }

    /// The external metrics, in the member's order.
    pub fn external(&self) -> impl ExactSizeIterator<Item = external::ExternalItemRef<'_>> {
        let items: &[external::ExternalItem] =
            if let Items::External(items) = &self.items { items } else { &[] };
        items.iter().map(|item| item.item_ref(&self.body))
    }

    /// The pods or nodes, in the member's order.
    pub fn resources(&self) -> impl Iterator<Item = resource::ResourceItemRef<'_>> {
        let objects = if let Items::Resource(objects) = &self.items { Some(objects) } else { None };
        objects.into_iter().flat_map(|objects| objects.items(&self.body))
    }

    /// Size of the body in bytes.
    pub fn bytes(&self) -> usize {
        self.body.bytes.len()
    }

    /// Memory of the page in bytes, with the body.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl Items {
    fn memory(&self) -> usize {
        match self {
            Self::Custom(items) => vec_memory(items, custom::CustomItem::heap_bytes),
            Self::External(items) => vec_memory(items, external::ExternalItem::heap_bytes),
            Self::Resource(objects) => objects.memory(),
        }
    }
}

impl Expected {
    /// The `kind` of the body.
    fn kind(self) -> &'static str {
        match self {
            Self::MetricValues => "MetricValueList",
            Self::ExternalValues => "ExternalMetricValueList",
            Self::List(resource) => resource.list_kind(),
            Self::Object(resource) => resource.kind(),
        }
    }

    /// Returns an error if kind or version are not the expected ones.
    fn check(self, kind: &str, api_version: &str) -> Result<(), PageError> {
        let ours = match self {
            Self::MetricValues => Group::Custom.has_version(api_version),
            Self::ExternalValues => Group::External.has_version(api_version),
            Self::List(_) | Self::Object(_) => Group::Resource.has_version(api_version),
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
