//! Items of `PodMetrics`, `NodeMetrics` and their lists, of `metrics.k8s.io`.

mod usage;

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Body, BodyFormat, Span, vec_memory};
use super::{Expected, PageError, list};
use crate::api::codec::json;
use crate::api::codec::protobuf::{Envelope, FieldValue, Fields, Writer};
use crate::api::duration::GoDuration;
use crate::api::group::MetricsResource;
use crate::api::memory::Reserve;
use crate::api::meta::ObjectMeta;
use crate::api::quantity::Quantity;
use crate::api::text::{JsonText, json_text};
use crate::api::time::Timestamp;
use usage::{ContainerUsage, ResourceAmount, Usage};

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ResourceItemRef<'a> {
    body: &'a Body,
    objects: &'a Objects,
    item: &'a ResourceItem,
}

/// The usage of one container of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// The name of the container; empty for a node.
    pub name: JsonText<'a>,
    /// The amount of each resource that the container uses.
    pub usage: ResourceList<'a>,
}

/// `v1.ResourceList`: the amount of each resource, such as `cpu` and `memory`, sorted by name within each container.
#[derive(Clone, Copy, Debug)]
pub struct ResourceList<'a> {
    body: &'a Body,
    amounts: &'a [ResourceAmount],
}

/// The pods or nodes of a page.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    resource: MetricsResource,
    items: Vec<ResourceItem>,
    usage: Usage,
}

/// The values of one item, and the positions of its strings and metadata.
#[derive(Clone, Debug)]
struct ResourceItem {
    namespace: Span,
    name: Span,
    metadata: Span,
    timestamp: Option<Timestamp>,
    window: GoDuration,
    /// The item's containers, as indexes into [`Usage`]. A node has one container without a name.
    containers: Range<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonObjectMetrics<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    window: Option<&'a RawValue>,
    #[serde(borrow)]
    containers: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

impl Objects {
    /// Reads all items of the list in `body`.
    pub(super) fn from_list(
        resource: MetricsResource,
        format: BodyFormat,
        body: &[u8],
        reserve: &mut Reserve<'_>,
    ) -> Result<Self, PageError> {
        let (expected, mut usage) = (Expected::List(resource), Usage::default());
        let items = match format {
            BodyFormat::Json => list::json(expected, body, reserve, |index, object, reserve| {
                from_json(resource, body, index, &object, &mut usage, reserve)
            }),
            BodyFormat::Protobuf => list::protobuf(expected, body, reserve, |index, _, message, reserve| {
                from_protobuf(resource, body, index, message, &mut usage, reserve)
            }),
        }?;
        Ok(Self { resource, items, usage })
    }

    /// Reads the single object in `body`.
    pub(super) fn from_object(
        resource: MetricsResource,
        format: BodyFormat,
        body: &[u8],
        reserve: &mut Reserve<'_>,
    ) -> Result<Self, PageError> {
        let (expected, mut usage) = (Expected::Object(resource), Usage::default());
        let item = match format {
            BodyFormat::Json => {
                let text = str::from_utf8(body).map_err(|_| PageError::Utf8)?;
                let object: JsonObjectMetrics<'_> = serde_json::from_str(text)?;
                expected.check(&object.kind, &object.api_version)?;
                from_json(resource, body, 0, &object, &mut usage, reserve)
            }
            BodyFormat::Protobuf => {
                let Envelope { kind, api_version, raw } = Envelope::read(body)?;
                expected.check(kind, api_version)?;
                from_protobuf(resource, body, 0, raw, &mut usage, reserve)
            }
        }?;
        Ok(Self { resource, items: vec![item], usage })
    }

    /// All items, in the member's order.
    pub(super) fn items<'a>(&'a self, body: &'a Body) -> impl Iterator<Item = ResourceItemRef<'a>> {
        self.items.iter().map(move |item| ResourceItemRef { body, objects: self, item })
    }

    /// Number of items.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Memory of the items in bytes, without the body.
    pub(super) fn memory(&self) -> usize {
        vec_memory(&self.items, |_| 0) + self.usage.memory()
    }
}

impl<'a> ResourceItemRef<'a> {
    /// `metadata.namespace`.
    pub fn namespace(self) -> JsonText<'a> {
        self.body.text(self.item.namespace)
    }

    /// `metadata.name`.
    pub fn name(self) -> JsonText<'a> {
        self.body.text(self.item.name)
    }

    /// The whole `metadata`.
    pub fn metadata(self) -> ObjectMeta<'a> {
        let span = self.item.metadata;
        match self.body.format {
            _ if span.start == span.end => ObjectMeta::default(),
            BodyFormat::Json => ObjectMeta::from_json(self.body.raw(span)).unwrap_or_default(),
            BodyFormat::Protobuf => ObjectMeta::from_protobuf(self.body.message(span)).unwrap_or_default(),
        }
    }

    /// The time of the measurement.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.item.timestamp
    }

    /// The window of the measurement.
    pub fn window(self) -> GoDuration {
        self.item.window
    }

    /// Pods or nodes.
    pub fn resource(self) -> MetricsResource {
        self.objects.resource
    }

    /// The usage of each container, in the member's order. A node has one container without a name.
    pub fn containers(self) -> impl Iterator<Item = Container<'a>> {
        self.usage().iter().map(move |container| Container {
            name: self.body.text(container.name),
            usage: self.amounts_of(container.amounts.clone()),
        })
    }

    /// The usage of the node, or of all containers of the pod, one after the other.
    pub fn amounts(self) -> ResourceList<'a> {
        match self.usage() {
            [] => self.amounts_of(0..0),
            [first, .., last] => self.amounts_of(first.amounts.start..last.amounts.end),
            [only] => self.amounts_of(only.amounts.clone()),
        }
    }

    /// The approximate size of the item in the page, in bytes, and its number of containers and amounts.
    pub fn bytes(self) -> (usize, usize) {
        let (mut bytes, mut parts) = (self.item.metadata.len(), 0);
        for container in self.usage() {
            let amounts = self.amounts_of(container.amounts.clone()).amounts;
            let amount = |amount: &ResourceAmount| amount.resource.len() + amount.quantity.heap_bytes();
            bytes += container.name.len() + amounts.iter().map(amount).sum::<usize>();
            parts += 1 + amounts.len();
        }
        (bytes, parts)
    }

    fn usage(self) -> &'a [ContainerUsage] {
        self.objects.usage.containers(&self.item.containers)
    }

    fn amounts_of(self, range: Range<u32>) -> ResourceList<'a> {
        ResourceList { body: self.body, amounts: self.objects.usage.amounts(&range) }
    }
}

impl<'a> ResourceList<'a> {
    /// All resources with their amounts.
    pub fn iter(self) -> impl Iterator<Item = (JsonText<'a>, &'a Quantity)> {
        self.amounts.iter().map(move |amount| (self.body.text(amount.resource), &amount.quantity))
    }

    /// Writes the resources as a JSON object.
    pub fn write_json(self, out: &mut Vec<u8>) {
        out.push(b'{');
        json::comma_separated(out, self.iter(), |out, (name, amount)| {
            json::string(out, name);
            json::display(out, format_args!(r#":"{amount}""#));
        });
        out.push(b'}');
    }

    /// Writes the resources as a protobuf map with the number `field`.
    pub fn write_protobuf(self, out: &mut Writer, field: u64) {
        for (name, amount) in self.iter() {
            out.message(field, |entry| {
                entry.text(1, name);
                entry.quantity(2, amount);
            });
        }
    }
}

fn from_json(
    resource: MetricsResource,
    body: &[u8],
    index: usize,
    object: &JsonObjectMetrics<'_>,
    usage: &mut Usage,
    reserve: &mut Reserve<'_>,
) -> Result<ResourceItem, PageError> {
    let metadata = object.metadata.map_or("null", RawValue::get);
    let read = ObjectMeta::from_json(metadata).map_err(|source| PageError::Metadata { index, source })?;
    let containers = usage.add_json(resource, body, index, object, reserve)?;
    let window = json_text(object.window)?.decode();
    let window = if window.is_empty() { Ok(GoDuration::default()) } else { window.parse() };
    Ok(ResourceItem {
        namespace: Span::of_text(body, read.namespace),
        name: Span::of_text(body, read.name),
        metadata: Span::of(body, metadata.as_bytes()),
        timestamp: list::timestamp(index, object.timestamp)?,
        window: window.map_err(|source| PageError::Window { index, source })?,
        containers,
    })
}

fn from_protobuf(
    resource: MetricsResource,
    body: &[u8],
    index: usize,
    message: &[u8],
    usage: &mut Usage,
    reserve: &mut Reserve<'_>,
) -> Result<ResourceItem, PageError> {
    let mut item = ResourceItem {
        namespace: Span::default(),
        name: Span::default(),
        metadata: Span::default(),
        timestamp: None,
        window: GoDuration::default(),
        containers: usage.add_protobuf(resource, body, index, message, reserve)?,
    };
    for field in Fields::of(message) {
        match field? {
            (1, metadata) => {
                let read = ObjectMeta::from_protobuf(metadata.bytes())
                    .map_err(|source| PageError::Metadata { index, source })?;
                item.namespace = Span::of_text(body, read.namespace);
                item.name = Span::of_text(body, read.name);
                item.metadata = Span::of(body, metadata.bytes());
            }
            (2, time) => item.timestamp = list::protobuf_timestamp(index, time.bytes())?,
            (3, window) => item.window = window_of(window)?,
            _ => {}
        }
    }
    Ok(item)
}

/// Reads a `metav1.Duration`: nanoseconds.
fn window_of(message: FieldValue<'_>) -> Result<GoDuration, PageError> {
    let mut nanos = 0;
    for field in Fields::of(message.bytes()) {
        if let (1, value) = field? {
            nanos = value.number();
        }
    }
    Ok(GoDuration::from_nanos(nanos))
}
