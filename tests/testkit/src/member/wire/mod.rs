//! What a member's API server sends, in JSON and in Kubernetes protobuf, with the fields in the order of the Go types.

mod discovery;
mod metrics;
mod status;

use http::StatusCode;
use serde::Serialize;

pub use discovery::{ApiGroup, ApiResource, ApiResourceList};
pub use metrics::{
    LabelSelector, LabelSelectorRequirement, ListMeta, MetricValue, MetricValueList, ObjectReference, Version,
};
pub use status::{Status, StatusCause, StatusDetails};

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What is answered, before it is encoded.
#[derive(Debug)]
pub(super) enum Document {
    Metrics(MetricValueList),
    Resources(ApiResourceList),
    Group(ApiGroup),
    Groups(Vec<ApiGroup>),
    Status(Box<Status>),
    /// An object that is served as JSON only.
    Json(serde_json::Value),
    /// `text/plain`
    Text(&'static str),
    /// JSON that is sent as it stands.
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
}

/// JSON as Go's encoder writes it: one line with a line feed, and no `<`, `>` or `&` in the raw.
fn json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("plain data with string keys is JSON");
    let mut text = text.replace('<', r"\u003c").replace('>', r"\u003e").replace('&', r"\u0026");
    text.push('\n');
    text.into_bytes()
}
