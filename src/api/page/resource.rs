//! `PodMetrics`, `NodeMetrics` and lists of them, of `metrics.k8s.io`.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Expected, Format, Items, Page, PageError, Span, list};
use crate::api::codec::json;
use crate::api::codec::protobuf::{Envelope, Fields, Malformed, Value, Writer};
use crate::api::duration::GoDuration;
use crate::api::meta::{Bounded, Entries, MOST, ObjectMeta, json_text};
use crate::api::quantity::Quantity;
use crate::api::resource_metrics::Resource;
use crate::api::text::Text;
use crate::api::time::Timestamp;

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ItemRef<'a> {
    page: &'a Page,
    objects: &'a Objects,
    item: &'a Item,
}

/// What one container of a pod takes.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Its name.
    pub name: Text<'a>,
    /// What it takes.
    pub usage: Amounts<'a>,
}

/// `v1.ResourceList`: how much of each resource, such as `cpu` and `memory`, in the order of their names.
#[derive(Clone, Copy, Debug)]
pub struct Amounts<'a> {
    page: &'a Page,
    amounts: &'a [Amount],
}

/// The pods or nodes of a page.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    resource: Resource,
    items: Vec<Item>,
    usage: Usage,
}

/// Where the parts of one item lie.
#[derive(Clone, Debug)]
struct Item {
    namespace: Span,
    name: Span,
    metadata: Span,
    timestamp: Option<Timestamp>,
    window: GoDuration,
    /// Which of all containers are its own. A node is one container without a name.
    containers: Range<u32>,
}

/// What all objects of a page take, one after the other.
#[derive(Clone, Debug, Default)]
struct Usage {
    containers: Vec<ContainerUsage>,
    amounts: Vec<Amount>,
}

#[derive(Clone, Debug)]
struct ContainerUsage {
    name: Span,
    /// Which of all amounts are its own.
    amounts: Range<u32>,
}

/// How much of one resource.
#[derive(Clone, Debug)]
struct Amount {
    resource: Span,
    quantity: Quantity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetrics<'a> {
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

#[derive(Deserialize)]
struct ContainerMetrics<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<Entries<'a>>,
}

/// The pods or nodes of a page, in the member's order.
pub fn items(page: &Page) -> impl Iterator<Item = ItemRef<'_>> {
    let objects = if let Items::Resource(objects) = &page.items { Some(objects) } else { None };
    objects
        .into_iter()
        .flat_map(move |objects| objects.items.iter().map(move |item| ItemRef { page, objects, item }))
}

impl Objects {
    /// Where the parts of each item of a list lie in `body`.
    pub(super) fn of_list(resource: Resource, format: Format, body: &[u8]) -> Result<Self, PageError> {
        let (expected, mut usage) = (Expected::List(resource), Usage::default());
        let items = match format {
            Format::Json => list::json(expected, body, |index, object| {
                from_json(resource, body, index, &object, &mut usage)
            }),
            Format::Protobuf => list::protobuf(expected, body, |index, _, message| {
                from_protobuf(resource, body, index, message, &mut usage)
            }),
        }?;
        Ok(Self { resource, items, usage })
    }

    /// Where the parts of a single object lie in `body`.
    pub(super) fn of_one(resource: Resource, format: Format, body: &[u8]) -> Result<Self, PageError> {
        let (expected, mut usage) = (Expected::Object(resource), Usage::default());
        let item = match format {
            Format::Json => {
                let text = str::from_utf8(body).map_err(|_| PageError::Utf8)?;
                let object: ObjectMetrics<'_> = serde_json::from_str(text)?;
                expected.check(&object.kind, &object.api_version)?;
                from_json(resource, body, 0, &object, &mut usage)
            }
            Format::Protobuf => {
                let Envelope { kind, api_version, raw } = Envelope::read(body)?;
                expected.check(kind, api_version)?;
                from_protobuf(resource, body, 0, raw, &mut usage)
            }
        }?;
        Ok(Self { resource, items: vec![item], usage })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many bytes of memory they take beside the body, about.
    pub(super) fn memory(&self) -> usize {
        self.items.capacity() * size_of::<Item>()
            + self.usage.containers.capacity() * size_of::<ContainerUsage>()
            + self.usage.amounts.capacity() * size_of::<Amount>()
    }
}

impl<'a> ItemRef<'a> {
    /// `metadata.namespace`.
    pub fn namespace(self) -> Text<'a> {
        self.page.text(self.item.namespace)
    }

    /// `metadata.name`.
    pub fn name(self) -> Text<'a> {
        self.page.text(self.item.name)
    }

    /// All of `metadata`.
    pub fn metadata(self) -> ObjectMeta<'a> {
        let span = self.item.metadata;
        match self.page.format {
            _ if span.start == span.end => ObjectMeta::default(),
            Format::Json => ObjectMeta::from_json(self.page.raw(span)).unwrap_or_default(),
            Format::Protobuf => ObjectMeta::from_protobuf(self.page.message(span)).unwrap_or_default(),
        }
    }

    /// When the usage was measured.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.item.timestamp
    }

    /// Over which time the usage was measured.
    pub fn window(self) -> GoDuration {
        self.item.window
    }

    /// What the object is.
    pub fn resource(self) -> Resource {
        self.objects.resource
    }

    /// What each container of a pod takes, in the member's order. A node is one container without a name.
    pub fn containers(self) -> impl Iterator<Item = Container<'a>> {
        self.usage().iter().map(move |container| Container {
            name: self.page.text(container.name),
            usage: self.amounts_of(container.amounts.clone()),
        })
    }

    /// What the node takes, or all containers of the pod, one after the other.
    pub fn amounts(self) -> Amounts<'a> {
        match self.usage() {
            [] => self.amounts_of(0..0),
            [first, .., last] => self.amounts_of(first.amounts.start..last.amounts.end),
            [only] => self.amounts_of(only.amounts.clone()),
        }
    }

    fn usage(self) -> &'a [ContainerUsage] {
        part(&self.objects.usage.containers, &self.item.containers)
    }

    fn amounts_of(self, range: Range<u32>) -> Amounts<'a> {
        Amounts { page: self.page, amounts: part(&self.objects.usage.amounts, &range) }
    }
}

impl<'a> Amounts<'a> {
    /// Each resource with its amount.
    pub fn iter(self) -> impl Iterator<Item = (Text<'a>, &'a Quantity)> {
        self.amounts.iter().map(move |amount| (self.page.text(amount.resource), &amount.quantity))
    }

    /// Writes the JSON object.
    pub fn write_json(self, out: &mut Vec<u8>) {
        out.push(b'{');
        json::separated(out, self.iter(), |out, (name, amount)| {
            json::string(out, name);
            json::display(out, format_args!(r#":"{amount}""#));
        });
        out.push(b'}');
    }

    /// Writes a map in protobuf.
    pub fn write_protobuf(self, out: &mut Writer, field: u64) {
        for (name, amount) in self.iter() {
            out.message(field, |entry| {
                entry.text(1, name);
                entry.quantity(2, amount);
            });
        }
    }
}

impl Usage {
    /// Adds what an object takes: its `containers`, or its `usage` if it is a node.
    fn add_json(
        &mut self,
        resource: Resource,
        body: &[u8],
        index: usize,
        object: &ObjectMetrics<'_>,
    ) -> Result<Range<u32>, PageError> {
        let first = self.containers.len();
        match resource {
            Resource::Nodes => {
                let usage: Option<Entries<'_>> = json_value(object.usage)?;
                self.add_json_container(body, index, ContainerMetrics { name: None, usage })?;
            }
            Resource::Pods => {
                let containers: Option<Bounded<ContainerMetrics<'_>>> = json_value(object.containers)?;
                for container in containers.unwrap_or_default().0 {
                    self.add_json_container(body, index, container)?;
                }
            }
        }
        range(first, self.containers.len())
    }

    fn add_json_container(
        &mut self,
        body: &[u8],
        index: usize,
        container: ContainerMetrics<'_>,
    ) -> Result<(), PageError> {
        let (first, name) = (self.amounts.len(), json_text(container.name)?);
        for (resource, amount) in container.usage.unwrap_or_default().iter() {
            let resource = Span::of_text(body, json_text(Some(resource))?);
            self.amounts.push(Amount { resource, quantity: list::json_quantity(index, Some(amount))? });
        }
        self.end_container(Format::Json, body, name, first)
    }

    /// Adds what an object takes: its containers, or its amounts if it is a node.
    fn add_protobuf(
        &mut self,
        resource: Resource,
        body: &[u8],
        index: usize,
        message: &[u8],
    ) -> Result<Range<u32>, PageError> {
        let first = self.containers.len();
        match resource {
            Resource::Nodes => self.add_protobuf_container(body, index, "", message, 4)?,
            Resource::Pods => {
                for field in Fields::of(message) {
                    let (4, container) = field? else { continue };
                    if self.containers.len() - first == MOST {
                        return Err(Malformed::Crowded.into());
                    }
                    let mut name = "";
                    for field in Fields::of(container.bytes()) {
                        if let (1, text) = field? {
                            name = text.text()?;
                        }
                    }
                    self.add_protobuf_container(body, index, name, container.bytes(), 2)?;
                }
            }
        }
        range(first, self.containers.len())
    }

    /// Adds the entries of the map that is this field of the message.
    fn add_protobuf_container(
        &mut self,
        body: &[u8],
        index: usize,
        name: &str,
        message: &[u8],
        map: u64,
    ) -> Result<(), PageError> {
        let first = self.amounts.len();
        for field in Fields::of(message) {
            let (number, entry) = field?;
            if number != map {
                continue;
            }
            if self.amounts.len() - first == MOST {
                return Err(Malformed::Crowded.into());
            }
            let (mut resource, mut quantity) = ("", Quantity::default());
            for field in Fields::of(entry.bytes()) {
                match field? {
                    (1, text) => resource = text.text()?,
                    (2, value) => quantity = list::protobuf_quantity(index, value.bytes())?,
                    _ => {}
                }
            }
            self.amounts.push(Amount { resource: Span::of_text(body, Text::Plain(resource)), quantity });
        }
        self.end_container(Format::Protobuf, body, Text::Plain(name), first)
    }

    /// Makes the amounts from `first` on those of a container.
    fn end_container(
        &mut self,
        format: Format,
        body: &[u8],
        name: Text<'_>,
        first: usize,
    ) -> Result<(), PageError> {
        self.amounts[first..].sort_by_key(|amount| format.text(body, amount.resource));
        let amounts = range(first, self.amounts.len())?;
        self.containers.push(ContainerUsage { name: Span::of_text(body, name), amounts });
        Ok(())
    }
}

fn range(start: usize, end: usize) -> Result<Range<u32>, PageError> {
    let index = |index| u32::try_from(index).map_err(|_| PageError::TooLong);
    Ok(index(start)?..index(end)?)
}

fn part<'a, T>(all: &'a [T], range: &Range<u32>) -> &'a [T] {
    &all[range.start as usize..range.end as usize]
}

/// A value that may be absent.
fn json_value<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, serde_json::Error> {
    raw.map_or(Ok(None), |raw| serde_json::from_str(raw.get()))
}

fn from_json(
    resource: Resource,
    body: &[u8],
    index: usize,
    object: &ObjectMetrics<'_>,
    usage: &mut Usage,
) -> Result<Item, PageError> {
    let metadata = object.metadata.map_or("null", RawValue::get);
    let read = ObjectMeta::from_json(metadata).map_err(|source| PageError::Metadata { index, source })?;
    let containers = usage.add_json(resource, body, index, object)?;
    let window = json_text(object.window)?.decode();
    let window = if window.is_empty() { Ok(GoDuration::default()) } else { window.parse() };
    Ok(Item {
        namespace: Span::of_text(body, read.namespace),
        name: Span::of_text(body, read.name),
        metadata: Span::of(body, metadata.as_bytes()),
        timestamp: list::timestamp(index, object.timestamp)?,
        window: window.map_err(|source| PageError::Window { index, source })?,
        containers,
    })
}

fn from_protobuf(
    resource: Resource,
    body: &[u8],
    index: usize,
    message: &[u8],
    usage: &mut Usage,
) -> Result<Item, PageError> {
    let mut item = Item {
        namespace: Span::default(),
        name: Span::default(),
        metadata: Span::default(),
        timestamp: None,
        window: GoDuration::default(),
        containers: usage.add_protobuf(resource, body, index, message)?,
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

/// `metav1.Duration`: nanoseconds.
fn window_of(message: Value<'_>) -> Result<GoDuration, PageError> {
    let mut nanos = 0;
    for field in Fields::of(message.bytes()) {
        if let (1, value) = field? {
            nanos = value.number();
        }
    }
    Ok(GoDuration::from_nanos(nanos))
}
