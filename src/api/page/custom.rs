//! A `MetricValueList` of `custom.metrics.k8s.io`, of either version.

pub(super) mod json;
pub(super) mod protobuf;

use super::{Format, Items, Page, Span};
use crate::api::meta::LabelSelector;
use crate::api::quantity::Quantity;
use crate::api::text::Text;
use crate::api::time::Timestamp;

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct ItemRef<'a> {
    page: &'a Page,
    item: &'a Item,
}

/// Where the parts of one item lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
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

impl Item {
    /// What it takes beside its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        self.value.heap_bytes()
    }
}

/// The custom metrics of a page, in the member's order.
pub fn items(page: &Page) -> impl ExactSizeIterator<Item = ItemRef<'_>> {
    let items: &[Item] = if let Items::Custom(items) = &page.items { items } else { &[] };
    items.iter().map(move |item| ItemRef { page, item })
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
        let span = self.item.selector;
        if span.start == span.end {
            return None;
        }
        match self.page.format {
            Format::Json => LabelSelector::from_json(self.page.raw(span)).ok().flatten(),
            Format::Protobuf => LabelSelector::from_protobuf(self.page.message(span)).ok(),
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
        let Item {
            kind,
            namespace,
            name,
            uid,
            api_version,
            resource_version,
            field_path,
            metric,
            selector,
            ..
        } = self.item;
        let texts = [kind, namespace, name, uid, api_version, resource_version, field_path, metric, selector];
        texts.into_iter().map(|text| text.len()).sum::<usize>() + self.item.heap_bytes()
    }

    /// The value.
    pub fn value(self) -> &'a Quantity {
        &self.item.value
    }
}
