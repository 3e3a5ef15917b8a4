//! The responses of a member's API server, in JSON and in Kubernetes protobuf, with the fields in the order of the Go types.

mod discovery;
mod external_metrics;
mod metrics;
mod resource_metrics;
mod status;

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::protobuf::Message;
use crate::timestamp;

pub use discovery::{ApiGroup, ApiResource, ApiResourceList};
pub use external_metrics::{ExternalMetricValue, ExternalMetricValueList};
pub use metrics::{
    LabelSelector, LabelSelectorRequirement, ListMeta, MetricValue, MetricValueList, ObjectReference, Version,
};
pub use resource_metrics::{
    ContainerMetrics, MetricsList, NodeMetrics, ObjectMeta, PodMetrics, ResourceMetrics, Usage,
};
pub(super) use status::bad_request;
pub use status::{Status, StatusCause, StatusDetails};

/// The format of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// A response body before it is encoded.
#[derive(Debug)]
pub(super) enum Document {
    Metrics(MetricValueList),
    ResourceMetrics(ResourceMetrics),
    ExternalMetrics(ExternalMetricValueList),
    Resources(ApiResourceList),
    Group(ApiGroup),
    Groups(Vec<ApiGroup>),
    Status(Box<Status>),
    /// An object that is served as JSON only.
    Json(serde_json::Value),
    /// `text/plain`
    Text(&'static str),
    /// JSON that is sent unchanged.
    Raw(&'static str),
}

/// An encoded document.
#[derive(Debug)]
pub(super) struct Encoded {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

impl Document {
    pub(super) fn encode(&self, status: StatusCode, format: Format) -> Encoded {
        let (content_type, body) = match (self, format) {
            (Self::Text(text), _) => ("text/plain; charset=utf-8", text.as_bytes().to_vec()),
            (Self::Raw(text), _) => (Format::Json.media_type(), text.as_bytes().to_vec()),
            (Self::Json(value), _) => (Format::Json.media_type(), json(value)),
            (Self::Metrics(list), _) => (format.media_type(), list.encode(format)),
            (Self::ResourceMetrics(answer), _) => (format.media_type(), answer.encode(format)),
            (Self::ExternalMetrics(list), _) => (format.media_type(), list.encode(format)),
            (Self::Resources(list), Format::Json) => (format.media_type(), json(list)),
            (Self::Resources(list), Format::Protobuf) => (format.media_type(), list.to_protobuf()),
            (Self::Group(group), Format::Json) => (format.media_type(), discovery::group_json(group)),
            (Self::Group(group), Format::Protobuf) => (format.media_type(), discovery::group_protobuf(group)),
            (Self::Groups(groups), Format::Json) => (format.media_type(), discovery::groups_json(groups)),
            (Self::Groups(groups), Format::Protobuf) => {
                (format.media_type(), discovery::groups_protobuf(groups))
            }
            (Self::Status(status), Format::Json) => (format.media_type(), json(status.as_ref())),
            (Self::Status(status), Format::Protobuf) => (format.media_type(), status.to_protobuf()),
        };
        Encoded { status, content_type, body }
    }

    /// Sets every quantity of the metrics to this text.
    pub(super) fn set_quantities(&mut self, text: &str) {
        match self {
            Self::Metrics(list) => list.items.iter_mut().for_each(|item| text.clone_into(&mut item.value)),
            Self::ResourceMetrics(answer) => answer.set_quantities(text),
            Self::ExternalMetrics(list) => {
                list.items.iter_mut().for_each(|item| text.clone_into(&mut item.value));
            }
            _ => {}
        }
    }
}

impl ListMeta {
    /// A list with these items as a message.
    fn message_with(&self, items: impl Iterator<Item = Message>) -> Message {
        let metadata =
            Message::new().string(1, &self.self_link).string(2, &self.resource_version).string(3, "");
        Message::new().message(1, &metadata).repeated(2, items)
    }
}

/// Encodes a list of metric values of one of the three APIs, given as JSON, in either format.
///
/// # Errors
/// If the object is not such a list.
pub(super) fn reencode(object: &serde_json::Value, format: Format) -> anyhow::Result<Vec<u8>> {
    Ok(match object["apiVersion"].as_str() {
        Some("metrics.k8s.io/v1beta1") => ResourceMetrics::from_json(object)?.encode(format),
        Some("external.metrics.k8s.io/v1beta1") => {
            ExternalMetricValueList::deserialize(object)?.encode(format)
        }
        _ => MetricValueList::from_json(object)?.encode(format),
    })
}

/// An object with `apiVersion` and `kind` in front.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Typed<'a, Object> {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    object: &'a Object,
}

/// The JSON of an object that has no `apiVersion` and `kind` of its own.
fn typed_json(api_version: &'static str, kind: &'static str, object: &impl Serialize) -> Vec<u8> {
    json(&Typed { kind, api_version, object })
}

/// JSON as Go's encoder writes it: one line with a line feed, and `<`, `>` and `&` escaped.
fn json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("plain data with string keys is JSON");
    let mut text = text.replace('<', r"\u003c").replace('>', r"\u003e").replace('&', r"\u0026");
    text.push('\n');
    text.into_bytes()
}

/// A time as a message. The message is empty if the text is not a time.
fn time(text: &str) -> Message {
    let seconds = timestamp::parse(text);
    seconds.map_or_else(Message::new, |seconds| Message::new().integer(1, seconds).integer(2, 0))
}

/// The entries of a map as messages.
fn string_map(map: &BTreeMap<String, String>) -> impl Iterator<Item = Message> {
    map.iter().map(|(key, value)| Message::new().string(1, key).string(2, value))
}
