//! `metav1.Status`: how an API server reports an error.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Document;
use super::metrics::ListMeta;
use crate::protobuf::Message;

/// An error with its reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Status {
    pub kind: String,
    pub api_version: String,
    pub metadata: ListMeta,
    pub status: String,
    pub message: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    pub code: u16,
}

/// The object of the error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i64,
}

/// One of several causes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct StatusCause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Status {
    /// A failure without details.
    pub fn failure(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: ListMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code: code.as_u16(),
        }
    }

    /// A 500 as `apierrors.NewInternalError` makes it: its message is also the cause.
    pub fn internal_error(message: &str) -> Self {
        let cause = StatusCause { message: message.to_owned(), ..StatusCause::default() };
        Self {
            details: Some(StatusDetails { causes: vec![cause], ..StatusDetails::default() }),
            ..Self::failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                format!("Internal error occurred: {message}"),
            )
        }
    }

    /// The error as a response with its own code.
    pub(in crate::member) fn into_answer(self) -> (StatusCode, Document) {
        let code = StatusCode::from_u16(self.code).expect("a Status is made from a status code");
        (code, Document::Status(self.into()))
    }

    /// Encodes the status as Kubernetes protobuf.
    pub fn to_protobuf(&self) -> Vec<u8> {
        let metadata = Message::new()
            .string(1, &self.metadata.self_link)
            .string(2, &self.metadata.resource_version)
            .string(3, "");
        Message::new()
            .message(1, &metadata)
            .string(2, &self.status)
            .string(3, &self.message)
            .string(4, &self.reason)
            .repeated(5, self.details.iter().map(details))
            .integer(6, self.code.into())
            .into_envelope(&self.api_version, &self.kind)
    }
}

/// An API server's response to a malformed request.
pub(in crate::member) fn bad_request(message: impl Into<String>) -> Box<Status> {
    Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message).into()
}

fn details(details: &StatusDetails) -> Message {
    let cause = |cause: &StatusCause| {
        Message::new().string(1, &cause.reason).string(2, &cause.message).string(3, &cause.field)
    };
    Message::new()
        .string(1, &details.name)
        .string(2, &details.group)
        .string(3, &details.kind)
        .repeated(4, details.causes.iter().map(cause))
        .integer(5, details.retry_after_seconds)
        .string(6, "")
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_zero(seconds: &i64) -> bool {
    *seconds == 0
}
