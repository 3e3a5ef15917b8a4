//! TokenReview, SubjectAccessReview and SelfSubjectAccessReview, with results from the control plane's own tokens and
//! permissions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Access, User};
use crate::control_plane::reply::{Failure, json_response};
use crate::control_plane::request::{Attributes, ResourceAttributes};
use crate::https::Body;

/// Maximum of recorded reviews.
const REMEMBERED: usize = 4096;

/// A received review.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// `TokenReview`, `SubjectAccessReview` or `SelfSubjectAccessReview`.
    pub kind: String,
    /// The `spec` of the review as received. The token is redacted.
    pub spec: Value,
    /// The user that sent it.
    pub by: String,
}

/// The received reviews, and the faults that tests inject.
pub(crate) struct Reviews {
    received: Mutex<VecDeque<Review>>,
    fault: Mutex<Fault>,
}

#[derive(Clone, Copy, Default)]
struct Fault {
    status: Option<StatusCode>,
    delay: Duration,
}

impl Reviews {
    pub(crate) fn new() -> Self {
        Self { received: Mutex::default(), fault: Mutex::default() }
    }

    pub(crate) fn received(&self) -> Vec<Review> {
        self.reviews().iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.reviews().clear();
    }

    pub(crate) fn fail(&self, status: Option<StatusCode>) {
        self.fault.lock().expect("not poisoned").status = status;
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.fault.lock().expect("not poisoned").delay = delay;
    }

    /// Responds to a review that the user `by` has posted to the resource `plural`.
    pub(crate) async fn answer(
        &self,
        access: &Access,
        plural: &str,
        body: &[u8],
        by: &User,
    ) -> Result<Response<Body>, Failure> {
        let mut review: Value = serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the review is not JSON: {error}")))?;
        let kind = match plural {
            "tokenreviews" => "TokenReview",
            "selfsubjectaccessreviews" => "SelfSubjectAccessReview",
            _ => "SubjectAccessReview",
        };
        if review["kind"] != kind {
            return Err(Failure::bad_request(format!("{} in the body, {kind} in the path", review["kind"])));
        }
        self.remember(Review { kind: kind.to_owned(), spec: redacted(&review["spec"]), by: by.name.clone() });
        let fault = *self.fault.lock().expect("not poisoned");
        tokio::time::sleep(fault.delay).await;
        if let Some(status) = fault.status {
            return Err(Failure::new(status, "InternalError", "injected failure"));
        }
        review["status"] = match kind {
            "TokenReview" => token_status(access, &review["spec"]),
            "SelfSubjectAccessReview" => access_status(access, by, &review["spec"]),
            _ => access_status(access, &reviewed(&review["spec"]), &review["spec"]),
        };
        Ok(json_response(StatusCode::CREATED, &review))
    }

    fn remember(&self, review: Review) {
        let mut reviews = self.reviews();
        if reviews.len() == REMEMBERED {
            reviews.pop_front();
        }
        reviews.push_back(review);
    }

    fn reviews(&self) -> MutexGuard<'_, VecDeque<Review>> {
        self.received.lock().expect("not poisoned")
    }
}

fn token_status(access: &Access, spec: &Value) -> Value {
    match access.token(spec["token"].as_str().unwrap_or_default()) {
        Some(user) => {
            let mut status = json!({
                "authenticated": true,
                "user": {"username": user.name, "uid": "", "groups": user.groups},
            });
            if let Some(audiences) = spec.get("audiences") {
                status["audiences"] = audiences.clone();
            }
            status
        }
        None => json!({"user": {}, "error": "[invalid bearer token, unknown token]"}),
    }
}

/// The user of a SubjectAccessReview.
fn reviewed(spec: &Value) -> User {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: BTreeMap::new(),
    }
}

fn access_status(access: &Access, user: &User, spec: &Value) -> Value {
    if access.allows(user, &attributes(spec)) {
        json!({"allowed": true})
    } else {
        json!({"allowed": false, "reason": "fleet"})
    }
}

fn attributes(spec: &Value) -> Attributes {
    let field = |part: &Value, name: &str| part[name].as_str().unwrap_or_default().to_owned();
    match spec.get("resourceAttributes").filter(|asked| asked.is_object()) {
        Some(asked) => Attributes {
            verb: field(asked, "verb"),
            path: String::new(),
            resource: Some(ResourceAttributes {
                group: field(asked, "group"),
                version: field(asked, "version"),
                resource: field(asked, "resource"),
                subresource: field(asked, "subresource"),
                namespace: field(asked, "namespace"),
                name: field(asked, "name"),
            }),
        },
        None => {
            let asked = &spec["nonResourceAttributes"];
            Attributes { verb: field(asked, "verb"), path: field(asked, "path"), resource: None }
        }
    }
}

fn redacted(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(token) = spec.get_mut("token") {
        *token = json!("(redacted)");
    }
    spec
}
