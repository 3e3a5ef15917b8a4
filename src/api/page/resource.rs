//! `PodMetrics`, `NodeMetrics` and lists of them, of `metrics.k8s.io`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Expected, Format, Items, Page, PageError, Span, list};
use crate::api::codec::json;
use crate::api::codec::protobuf::{Envelope, Fields, Value, Writer};
use crate::api::duration::GoDuration;
use crate::api::meta::{Bounded, Entries, ObjectMeta, add, json_text};
use crate::api::quantity::Quantity;
use crate::api::resource_metrics::Resource;
use crate::api::text::Text;
use crate::api::time::Timestamp;

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ItemRef<'a> {
    page: &'a Page,
    item: &'a Item,
}

/// What an object takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage<'a> {
    /// A node as a whole.
    Node(Amounts<'a>),
    /// A pod, container by container.
    Pod(Vec<Container<'a>>),
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// Its name.
    pub name: Text<'a>,
    /// What it takes.
    pub usage: Amounts<'a>,
}

/// `v1.ResourceList`: how much of each resource, such as `cpu` and `memory`, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts<'a>(Vec<(Text<'a>, Quantity)>);

/// Where the parts of one item lie.
#[derive(Clone, Debug)]
pub(super) struct Item {
    resource: Resource,
    namespace: Span,
    name: Span,
    metadata: Span,
    /// `containers` or `usage` in JSON, the whole item in protobuf.
    usage: Span,
    timestamp: Option<Timestamp>,
    window: GoDuration,
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
pub fn items(page: &Page) -> impl ExactSizeIterator<Item = ItemRef<'_>> {
    let items: &[Item] = if let Items::Resource(items) = &page.items { items } else { &[] };
    items.iter().map(move |item| ItemRef { page, item })
}

/// Where the parts of each item of a list lie in `body`.
pub(super) fn read_list(resource: Resource, format: Format, body: &[u8]) -> Result<Vec<Item>, PageError> {
    let expected = Expected::List(resource);
    match format {
        Format::Json => list::json(expected, body, |index, object| from_json(resource, body, index, &object)),
        Format::Protobuf => {
            list::protobuf(expected, body, |index, _, message| from_protobuf(resource, body, index, message))
        }
    }
}

/// Where the parts of a single object lie in `body`.
pub(super) fn read_object(resource: Resource, format: Format, body: &[u8]) -> Result<Item, PageError> {
    let expected = Expected::Object(resource);
    match format {
        Format::Json => {
            let text = str::from_utf8(body).map_err(|_| PageError::Utf8)?;
            let object: ObjectMetrics<'_> = serde_json::from_str(text)?;
            expected.check(&object.kind, &object.api_version)?;
            from_json(resource, body, 0, &object)
        }
        Format::Protobuf => {
            let Envelope { kind, api_version, raw } = Envelope::read(body)?;
            expected.check(kind, api_version)?;
            from_protobuf(resource, body, 0, raw)
        }
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

    /// What the object takes.
    pub fn usage(self) -> Usage<'a> {
        let Item { resource, usage, .. } = *self.item;
        // It was read once before, when the page was checked.
        match self.page.format {
            Format::Json => Usage::from_json(resource, 0, self.page.raw(usage)),
            Format::Protobuf => Usage::from_protobuf(resource, 0, self.page.message(usage)),
        }
        .unwrap_or_else(|_| Usage::Pod(Vec::new()))
    }
}

impl Amounts<'_> {
    /// Each resource with its amount.
    pub fn iter(&self) -> impl Iterator<Item = (Text<'_>, &Quantity)> {
        self.0.iter().map(|(name, amount)| (*name, amount))
    }

    /// Writes the JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        json::separated(out, &self.0, |out, (name, amount)| {
            json::string(out, *name);
            json::display(out, format_args!(r#":"{amount}""#));
        });
        out.push(b'}');
    }

    /// Writes a map in protobuf.
    pub fn write_protobuf(&self, out: &mut Writer, field: u64) {
        for (name, amount) in &self.0 {
            out.message(field, |entry| {
                entry.text(1, *name);
                entry.quantity(2, amount);
            });
        }
    }
}

impl<'a> Usage<'a> {
    fn from_json(resource: Resource, index: usize, raw: &'a str) -> Result<Self, PageError> {
        let raw = if raw.is_empty() { "null" } else { raw };
        match resource {
            Resource::Nodes => {
                let entries: Option<Entries<'a>> = serde_json::from_str(raw)?;
                Ok(Self::Node(Amounts::from_json(index, entries)?))
            }
            Resource::Pods => {
                let containers: Option<Bounded<ContainerMetrics<'a>>> = serde_json::from_str(raw)?;
                let container = |container: ContainerMetrics<'a>| {
                    let (name, usage) = (json_text(container.name)?, container.usage);
                    Ok(Container { name, usage: Amounts::from_json(index, usage)? })
                };
                containers
                    .unwrap_or_default()
                    .0
                    .into_iter()
                    .map(container)
                    .collect::<Result<_, _>>()
                    .map(Self::Pod)
            }
        }
    }

    fn from_protobuf(resource: Resource, index: usize, message: &'a [u8]) -> Result<Self, PageError> {
        match resource {
            Resource::Nodes => Amounts::from_protobuf(index, message, 4).map(Self::Node),
            Resource::Pods => {
                let mut containers = Vec::new();
                for field in Fields::of(message) {
                    if let (4, container) = field? {
                        let mut name = "";
                        for field in Fields::of(container.bytes()) {
                            if let (1, text) = field? {
                                name = text.text()?;
                            }
                        }
                        let usage = Amounts::from_protobuf(index, container.bytes(), 2)?;
                        add(&mut containers, Container { name: Text::Plain(name), usage })?;
                    }
                }
                Ok(Self::Pod(containers))
            }
        }
    }
}

impl<'a> Amounts<'a> {
    fn from_json(index: usize, entries: Option<Entries<'a>>) -> Result<Self, PageError> {
        let entries = entries.unwrap_or_default();
        let amounts = entries
            .iter()
            .map(|(name, amount)| Ok((json_text(Some(name))?, list::json_quantity(index, Some(amount))?)));
        amounts.collect::<Result<Vec<_>, PageError>>().map(Self::sorted)
    }

    /// The entries of the map that is this field of the message.
    fn from_protobuf(index: usize, message: &'a [u8], map: u64) -> Result<Self, PageError> {
        let mut amounts = Vec::new();
        for field in Fields::of(message) {
            let (number, entry) = field?;
            if number != map {
                continue;
            }
            let (mut name, mut amount) = ("", Quantity::default());
            for field in Fields::of(entry.bytes()) {
                match field? {
                    (1, text) => name = text.text()?,
                    (2, value) => amount = list::protobuf_quantity(index, value.bytes())?,
                    _ => {}
                }
            }
            add(&mut amounts, (Text::Plain(name), amount))?;
        }
        Ok(Self::sorted(amounts))
    }

    fn sorted(mut amounts: Vec<(Text<'a>, Quantity)>) -> Self {
        amounts.sort_by_key(|(name, _)| *name);
        Self(amounts)
    }
}

fn from_json(
    resource: Resource,
    body: &[u8],
    index: usize,
    object: &ObjectMetrics<'_>,
) -> Result<Item, PageError> {
    let metadata = object.metadata.map_or("null", RawValue::get);
    let read = ObjectMeta::from_json(metadata).map_err(|source| PageError::Metadata { index, source })?;
    let usage = match resource {
        Resource::Nodes => object.usage,
        Resource::Pods => object.containers,
    };
    let usage = usage.map_or("", RawValue::get);
    Usage::from_json(resource, index, usage)?;
    let window = json_text(object.window)?.decode();
    let window = if window.is_empty() { Ok(GoDuration::default()) } else { window.parse() };
    Ok(Item {
        resource,
        namespace: Span::of_text(body, read.namespace),
        name: Span::of_text(body, read.name),
        metadata: Span::of(body, metadata.as_bytes()),
        usage: Span::of(body, usage.as_bytes()),
        timestamp: list::timestamp(index, object.timestamp)?,
        window: window.map_err(|source| PageError::Window { index, source })?,
    })
}

fn from_protobuf(resource: Resource, body: &[u8], index: usize, message: &[u8]) -> Result<Item, PageError> {
    Usage::from_protobuf(resource, index, message)?;
    let mut item = Item {
        resource,
        namespace: Span::default(),
        name: Span::default(),
        metadata: Span::default(),
        usage: Span::of(body, message),
        timestamp: None,
        window: GoDuration::default(),
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
