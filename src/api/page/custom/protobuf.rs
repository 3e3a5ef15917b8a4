//! Reads a `MetricValueList` in Kubernetes protobuf (`k8s.io/metrics/pkg/apis/custom_metrics/*/generated.proto`).

use super::CustomItem;
use crate::api::codec::protobuf::{Fields, MalformedProtobuf};
use crate::api::memory::Reserve;
use crate::api::meta::LabelSelector;
use crate::api::page::body::Span;
use crate::api::page::{Expected, PageError, list};

/// Reads all items of the list in `body`.
pub(in crate::api::page) fn items(
    body: &[u8],
    reserve: &mut Reserve<'_>,
) -> Result<Vec<CustomItem>, PageError> {
    list::protobuf(Expected::MetricValues, body, reserve, |index, envelope, message, reserve| {
        item(body, index, message, envelope.api_version.ends_with("/v1beta1"), reserve)
    })
}

fn item(
    body: &[u8],
    index: usize,
    message: &[u8],
    v1beta1: bool,
    reserve: &mut Reserve<'_>,
) -> Result<CustomItem, PageError> {
    let mut item = CustomItem::default();
    let string = |value: &str| Span::of(body, value.as_bytes());
    for field in Fields::of(message) {
        match field? {
            (1, object) => read_object(body, object.bytes(), &mut item)?,
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
            (3, time) => item.timestamp = list::protobuf_timestamp(index, time.bytes())?,
            (4, seconds) => item.window_seconds = Some(seconds.number()),
            (5, value) => item.value = list::protobuf_quantity(index, value.bytes(), reserve)?,
            (6, selector) if v1beta1 => item.selector = checked_selector(body, selector.bytes())?,
            _ => {}
        }
    }
    Ok(item)
}

fn read_object(body: &[u8], message: &[u8], item: &mut CustomItem) -> Result<(), MalformedProtobuf> {
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

fn checked_selector(body: &[u8], message: &[u8]) -> Result<Span, MalformedProtobuf> {
    LabelSelector::from_protobuf(message)?;
    Ok(Span::of(body, message))
}
