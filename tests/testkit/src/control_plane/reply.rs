//! Responses: JSON documents, and failures as a Kubernetes `Status`.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::objects::resources::qualify;
use super::objects::store::RevisionError;
use crate::https::{Body, full, response};
use crate::member::wire::{Status, StatusCause, StatusDetails};

/// A failed request. It becomes a `Status`.
#[derive(Debug)]
pub(super) struct Failure {
    code: StatusCode,
    status: Box<Status>,
}

impl Failure {
    pub(super) fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self { code, status: Status::failure(code, reason, message).into() }
    }

    pub(super) fn with_details(mut self, details: StatusDetails) -> Self {
        self.status.details = Some(details);
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// Follows `errors.NewNotFound`.
    pub(super) fn not_found(plural: &str, group: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualify(plural, group));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with_details(details(plural, group, name))
    }

    /// Follows `errors.NewInvalid` for one forbidden field of the list options.
    pub(super) fn forbidden_option(field: &str, detail: &str) -> Self {
        let cause = format!("Forbidden: {detail}");
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: {cause}");
        let cause =
            StatusCause { reason: "FieldValueForbidden".to_owned(), message: cause, field: field.to_owned() };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with_details(StatusDetails {
            group: "meta.k8s.io".to_owned(),
            kind: "ListOptions".to_owned(),
            causes: vec![cause],
            ..StatusDetails::default()
        })
    }

    /// A list at a revision that has expired or does not exist yet.
    pub(super) fn revision(requested: u64, error: &RevisionError) -> Self {
        match error {
            RevisionError::Expired { oldest } => {
                let message = format!("too old resource version: {requested} ({oldest})");
                Self::new(StatusCode::GONE, "Expired", message)
            }
            RevisionError::Future { newest } => {
                let message = format!("Too large resource version: {requested}, current: {newest}");
                let cause = StatusCause {
                    reason: "ResourceVersionTooLarge".to_owned(),
                    message: "Too large resource version".to_owned(),
                    ..StatusCause::default()
                };
                let causes = vec![cause];
                Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}")).with_details(
                    StatusDetails { causes, retry_after_seconds: 1, ..StatusDetails::default() },
                )
            }
        }
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        json!(self.status)
    }

    pub(super) fn response(&self) -> Response<Body> {
        json_response(self.code, &self.status())
    }
}

/// The `details` of a `Status` for one object.
pub(super) fn details(plural: &str, group: &str, name: &str) -> StatusDetails {
    StatusDetails {
        kind: plural.to_owned(),
        group: group.to_owned(),
        name: name.to_owned(),
        ..StatusDetails::default()
    }
}

pub(super) fn json_response(code: StatusCode, document: &Value) -> Response<Body> {
    response(code, "application/json", full(format!("{document}\n")))
}

/// The format of Go's `http.Error`.
pub(super) fn text_response(code: StatusCode, text: &str) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", full(format!("{text}\n")))
}

/// kube-apiserver's response to an unknown path.
pub(super) fn unknown_path() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, "404 page not found")
}
