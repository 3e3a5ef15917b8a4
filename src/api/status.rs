//! `metav1.Status`: the error response of Kubernetes APIs.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::codec::Encode;
use super::codec::protobuf::{Envelope, Fields, MalformedProtobuf, Writer};

/// A failure in the form that Kubernetes clients read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: StatusMetadata,
    status: &'static str,
    /// Description of the failure, for humans.
    pub message: String,
    /// Machine-readable reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The object of the failure. Go's API server writes empty details in many places, and clients see them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status code.
    pub code: u16,
}

/// `metav1.StatusReason`: the values that this server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::missing_docs_in_private_items, reason = "the names are those of Kubernetes")]
pub enum Reason {
    BadRequest,
    Conflict,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Timeout,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The single causes of the failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// The client may retry after this many seconds.
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusCause {
    /// Machine-readable reason of the cause.
    pub reason: Cow<'static, str>,
    /// Description of the cause, for humans.
    pub message: String,
    /// The name of the member cluster.
    pub field: String,
}

/// The `Status` in a member's response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Description of the failure, for humans.
    pub message: String,
    /// Machine-readable reason, such as `NotFound`.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct StatusMetadata {}

impl Status {
    /// A failure with the given HTTP status code.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: StatusMetadata {},
            status: "Failure",
            message: message.into(),
            reason: Some(reason),
            details: None,
            code,
        }
    }

    /// A 429 response: the client may retry after one second.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        let details = Details { retry_after_seconds: Some(1), ..Details::default() };
        Self::failure(429, Reason::TooManyRequests, message).with_details(details)
    }

    /// The same status with details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(details);
        self
    }
}

impl Encode for Status {
    fn to_json(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec(self).expect("strings and numbers always serialize");
        body.push(b'\n');
        body
    }

    fn to_protobuf(&self) -> Vec<u8> {
        Writer::object(self.api_version, self.kind, 256 + self.message.len(), |out| {
            out.list_meta(1);
            out.string(2, self.status);
            out.string(3, &self.message);
            out.string(4, self.reason.map_or("", Reason::name));
            if let Some(details) = &self.details {
                out.message(5, |out| details.write_protobuf(out));
            }
            out.number(6, self.code.into());
        })
    }
}

impl Reason {
    /// The reason, spelled as in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Conflict => "Conflict",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

impl Details {
    fn write_protobuf(&self, out: &mut Writer) {
        out.string(1, &self.name);
        out.string(2, &self.group);
        out.string(3, &self.kind);
        for StatusCause { reason, message, field } in &self.causes {
            out.message(4, |out| {
                out.string(1, reason);
                out.string(2, message);
                out.string(3, field);
            });
        }
        out.number(5, self.retry_after_seconds.unwrap_or_default().into());
        // The field `uid`, which is always empty here.
        out.string(6, "");
    }
}

impl MemberStatus {
    /// Reads a JSON body; `None` if it is not a `Status`.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct JsonStatus {
            kind: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            reason: String,
        }
        let wire: JsonStatus = serde_json::from_slice(body).ok()?;
        (wire.kind == "Status").then_some(Self { message: wire.message, reason: wire.reason })
    }

    /// Reads a protobuf body; `None` if it is not a `Status`.
    pub fn from_protobuf(body: &[u8]) -> Option<Self> {
        let envelope = Envelope::read(body).ok().filter(|envelope| envelope.kind == "Status")?;
        Self::read(envelope.raw).ok()
    }

    fn read(message: &[u8]) -> Result<Self, MalformedProtobuf> {
        let mut status = Self::default();
        for field in Fields::of(message) {
            match field? {
                (3, text) => status.message = text.text()?.to_owned(),
                (4, text) => status.reason = text.text()?.to_owned(),
                _ => {}
            }
        }
        Ok(status)
    }
}
