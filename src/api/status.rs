//! `metav1.Status`: how Kubernetes says that something went wrong.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::codec::protobuf::{Envelope, Fields, Malformed};

/// A failure as a client of Kubernetes reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    /// What went wrong, for people.
    pub message: String,
    /// What went wrong, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What it concerns; Go's API server writes an empty one in many places, and clients see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status.
    pub code: u16,
}

/// `metav1.StatusReason`: the ones that this server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is named as in Kubernetes")]
pub enum Reason {
    BadRequest,
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
    /// What led to it, one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// After how many seconds to try again.
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The kind of cause, for programs.
    pub reason: Cow<'static, str>,
    /// The cause, for people.
    pub message: String,
    /// What it concerns; a member cluster's name.
    pub field: String,
}

/// What a member's `Status` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// For people.
    pub message: String,
    /// For programs, such as `NotFound`.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Metadata {}

impl Status {
    /// A failure of the given code.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata {},
            status: "Failure",
            message: message.into(),
            reason: Some(reason),
            details: None,
            code,
        }
    }

    /// Something is asked too often; the client may try again in a second.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        let details = Details { retry_after_seconds: Some(1), ..Details::default() };
        Self::failure(429, Reason::TooManyRequests, message).with_details(details)
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(details);
        self
    }

    /// The body, as Go's API server writes it: one line with a line feed.
    pub fn to_json(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec(self).expect("strings and numbers always serialize");
        body.push(b'\n');
        body
    }
}

impl MemberStatus {
    /// Reads a body that claims to be JSON; `None` if it is no Status.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            kind: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            reason: String,
        }
        let wire: Wire = serde_json::from_slice(body).ok()?;
        (wire.kind == "Status").then_some(Self { message: wire.message, reason: wire.reason })
    }

    /// Reads a body that claims to be protobuf; `None` if it is no Status.
    pub fn from_protobuf(body: &[u8]) -> Option<Self> {
        let envelope = Envelope::read(body).ok().filter(|envelope| envelope.kind == "Status")?;
        Self::read(envelope.raw).ok()
    }

    fn read(message: &[u8]) -> Result<Self, Malformed> {
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
