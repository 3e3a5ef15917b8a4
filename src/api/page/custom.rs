//! A `MetricValueList` of `custom.metrics.k8s.io`, of either version.

pub(super) mod json;
pub(super) mod protobuf;

use super::body::{Body, Format, Span};
use crate::api::meta::LabelSelector;
use crate::api::quantity::Quantity;
use crate::api::text::Text;
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
    /// `describedObject.kind`.
    pub fn kind(self) -> Text<'a> {
        self.body.text(self.item.kind)
    }

    /// `describedObject.namespace`.
    pub fn namespace(self) -> Text<'a> {
        self.body.text(self.item.namespace)
    }

    /// `describedObject.name`.
    pub fn name(self) -> Text<'a> {
        self.body.text(self.item.name)
    }

    /// `describedObject.uid`.
    pub fn uid(self) -> Text<'a> {
        self.body.text(self.item.uid)
    }

    /// `describedObject.apiVersion`.
    pub fn api_version(self) -> Text<'a> {
        self.body.text(self.item.api_version)
    }

    /// `describedObject.resourceVersion`.
    pub fn resource_version(self) -> Text<'a> {
        self.body.text(self.item.resource_version)
    }

    /// `describedObject.fieldPath`.
    pub fn field_path(self) -> Text<'a> {
        self.body.text(self.item.field_path)
    }

    /// The metric's name.
    pub fn metric(self) -> Text<'a> {
        self.body.text(self.item.metric)
    }

    /// The metric's own selector.
    pub fn selector(self) -> Option<LabelSelector<'a>> {
        let span = self.item.selector;
        if span.start == span.end {
            return None;
        }
        match self.body.format {
            Format::Json => LabelSelector::from_json(self.body.raw(span)).ok().flatten(),
            Format::Protobuf => LabelSelector::from_protobuf(self.body.message(span)).ok(),
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
