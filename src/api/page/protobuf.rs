//! A `MetricValueList` in Kubernetes protobuf (`k8s.io/metrics/pkg/apis/custom_metrics/*/generated.proto`).

use super::{Item, PageError, Span, check_kind, push, quantity};
use crate::api::codec::protobuf::{Envelope, Fields, Malformed};
use crate::api::meta::LabelSelector;
use crate::api::time::Timestamp;

/// Where the parts of each item lie in `body`.
pub(super) fn items(body: &[u8]) -> Result<Vec<Item>, PageError> {
    let envelope = Envelope::read(body)?;
    check_kind(envelope.kind, envelope.api_version)?;
    let v1beta1 = envelope.api_version.ends_with("/v1beta1");
    let mut items = Vec::new();
    for field in Fields::of(envelope.raw) {
        if let (2, value) = field? {
            let mut item = Item::default();
            read(body, value.bytes(), v1beta1, items.len(), &mut item)?;
            push(&mut items, item, body)?;
        }
    }
    Ok(items)
}

fn read(body: &[u8], message: &[u8], v1beta1: bool, index: usize, item: &mut Item) -> Result<(), PageError> {
    let string = |value: &str| Span::of(body, value.as_bytes());
    for field in Fields::of(message) {
        match field? {
            (1, object) => read_object(body, object.bytes(), item)?,
            (2, name) if v1beta1 => item.metric = string(name.text()?),
            (2, metric) => {
                for field in Fields::of(metric.bytes()) {
                    match field? {
                        (1, name) => item.metric = string(name.text()?),
                        (2, selector) => item.selector = checked_selector(body, selector.bytes())?,
                        _ => {}
                    }
                }
            }
            (3, time) => item.timestamp = timestamp(index, time.bytes())?,
            (4, seconds) => item.window_seconds = Some(seconds.number()),
            (5, value) => {
                for field in Fields::of(value.bytes()) {
                    if let (1, text) = field? {
                        item.value = quantity(index, text.text()?)?;
                    }
                }
            }
            (6, selector) if v1beta1 => item.selector = checked_selector(body, selector.bytes())?,
            _ => {}
        }
    }
    Ok(())
}

fn read_object(body: &[u8], message: &[u8], item: &mut Item) -> Result<(), Malformed> {
    for field in Fields::of(message) {
        let (number, value) = field?;
        let part = match number {
            1 => &mut item.kind,
            2 => &mut item.namespace,
            3 => &mut item.name,
            4 => &mut item.uid,
            5 => &mut item.api_version,
            6 => &mut item.resource_version,
            7 => &mut item.field_path,
            _ => continue,
        };
        *part = Span::of(body, value.text()?.as_bytes());
    }
    Ok(())
}

fn checked_selector(body: &[u8], message: &[u8]) -> Result<Span, Malformed> {
    LabelSelector::from_protobuf(message)?;
    Ok(Span::of(body, message))
}

/// `metav1.Timestamp`: seconds and nanoseconds since the epoch; no seconds and no nanoseconds are a zero time.
fn timestamp(index: usize, message: &[u8]) -> Result<Option<Timestamp>, PageError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for field in Fields::of(message) {
        match field? {
            (1, value) => seconds = Some(value.number()),
            (2, value) => nanoseconds = value.number(),
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let nanoseconds = u32::try_from(nanoseconds).map_err(|_| PageError::Timestamp { index })?;
    Timestamp::new(seconds, nanoseconds).map(Some).ok_or(PageError::Timestamp { index })
}
