//! Responses: JSON documents, and failures as Kubernetes' `Status`.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::resources::qualify;
use super::store::RevisionError;
use crate::https::{Body, full};

/// A request that failed; becomes a `Status`.
#[derive(Debug)]
pub(super) struct Failure {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

impl Failure {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub(super) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
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
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with_details(json!({
            "group": "meta.k8s.io",
            "kind": "ListOptions",
            "causes": [{"reason": "FieldValueForbidden", "message": cause, "field": field}],
        }))
    }

    /// A list at a revision that is gone or has not come yet.
    pub(super) fn revision(asked: u64, error: &RevisionError) -> Self {
        match error {
            RevisionError::Expired { oldest } => {
                let message = format!("too old resource version: {asked} ({oldest})");
                Self::new(StatusCode::GONE, "Expired", message)
            }
            RevisionError::Future { newest } => {
                let message = format!("Too large resource version: {asked}, current: {newest}");
                let cause =
                    json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
                Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}"))
                    .with_details(json!({"causes": [cause], "retryAfterSeconds": 1}))
            }
        }
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(super) fn response(&self) -> Response<Body> {
        json_response(self.code, &self.status())
    }
}

/// A Status' `details` for one object.
pub(super) fn details(plural: &str, group: &str, name: &str) -> Value {
    let mut details = json!({"kind": plural});
    for (field, value) in [("group", group), ("name", name)] {
        if !value.is_empty() {
            details[field] = json!(value);
        }
    }
    details
}

pub(super) fn json_response(code: StatusCode, document: &Value) -> Response<Body> {
    typed(code, "application/json", format!("{document}\n"))
}

/// What Go's `http.Error` writes.
pub(super) fn text_response(code: StatusCode, text: &str) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", format!("{text}\n"))
}

pub(super) fn typed(code: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What kube-apiserver answers for a path that it does not know.
pub(super) fn unknown_path() -> Response<Body> {
    typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned())
}
