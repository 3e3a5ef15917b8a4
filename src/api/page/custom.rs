//! Items of a `MetricValueList` of `custom.metrics.k8s.io`, v1beta1 or v1beta2.

pub(super) mod json;
pub(super) mod protobuf;

use super::body::{Body, BodyFormat, Span};
use crate::api::meta::LabelSelector;
use crate::api::quantity::Quantity;
use crate::api::text::JsonText;
use crate::api::time::Timestamp;

/// A reference to one item of a page.
#[derive(Clone, Copy, Debug)]
pub struct CustomItemRef<'a> {
    body: &'a Body,
    item: &'a CustomItem,
}

/// The values of one item, and the positions of its strings and its selector.
#[derive(Clone, Debug, Default)]
pub(super) struct CustomItem {
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

impl CustomItem {
    /// A reference to this item. `body` must be the body that the item was read from.
    pub(super) fn item_ref<'a>(&'a self, body: &'a Body) -> CustomItemRef<'a> {
        CustomItemRef { body, item: self }
    }

    /// Heap memory of the item in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.value.heap_bytes()
    }
}

impl<'a> CustomItemRef<'a> {
    /// `describedObject.kind`.
    pub fn kind(self) -> JsonText<'a> {
        self.body.text(self.item.kind)
    }

    /// `describedObject.namespace`.
    pub fn namespace(self) -> JsonText<'a> {
        self.body.text(self.item.namespace)
    }

    /// `describedObject.name`.
    pub fn name(self) -> JsonText<'a> {
        self.body.text(self.item.name)
    }

    /// `describedObject.uid`.
    pub fn uid(self) -> JsonText<'a> {
        self.body.text(self.item.uid)
    }

    /// `describedObject.apiVersion`.
    pub fn api_version(self) -> JsonText<'a> {
        self.body.text(self.item.api_version)
    }

    /// `describedObject.resourceVersion`.
    pub fn resource_version(self) -> JsonText<'a> {
        self.body.text(self.item.resource_version)
    }

    /// `describedObject.fieldPath`.
    pub fn field_path(self) -> JsonText<'a> {
        self.body.text(self.item.field_path)
    }

    /// The metric's name.
    pub fn metric(self) -> JsonText<'a> {
        self.body.text(self.item.metric)
    }

    /// The metric's own selector.
    pub fn selector(self) -> Option<LabelSelector<'a>> {
        let span = self.item.selector;
        if span.start == span.end {
            return None;
        }
        match self.body.format {
            BodyFormat::Json => LabelSelector::from_json(self.body.raw(span)).ok().flatten(),
            BodyFormat::Protobuf => LabelSelector::from_protobuf(self.body.message(span)).ok(),
        }
    }

    /// The time when the value was measured.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.item.timestamp
    }

    /// The measurement window of the value in seconds.
    pub fn window_seconds(self) -> Option<i64> {
        self.item.window_seconds
    }

    /// The approximate size of the item in the page, in bytes.
    pub fn bytes(self) -> usize {
        let CustomItem {
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

    pub fn value(self) -> &'a Quantity {
        &self.item.value
    }
}
