//! Authorization by SubjectAccessReviews of the control plane. Decisions are cached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use moka::Expiry;
use moka::future::Cache;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::user::User;
use crate::config::Authorization;
use crate::control::Clients;

/// Timeout of one review.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum memory of cached decisions, in bytes. The limit is in bytes because clients choose the length of paths.
const MAX_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Maximum anonymous requests that wait for a decision: each takes memory. Requests of known users are never refused here:
/// queries are counted before, and kube-apiserver treats the whole API as unavailable after one 429.
const MAX_WAITING: usize = 100;

/// The action that a request needs permission for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An action on an API resource.
    Resource {
        /// `get`, `list`, …
        verb: String,
        /// The API group.
        group: String,
        version: String,
        /// The namespace; empty for none.
        namespace: String,
        resource: String,
        /// The subresource; empty for none.
        subresource: String,
        /// The object's name; empty for none.
        name: String,
    },
    /// An action on a non-resource path.
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// The decoded path.
        path: String,
    },
}

/// The control plane's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the action is allowed.
    pub allowed: bool,
    /// The control plane's reason; may be empty.
    pub reason: String,
}

/// Why there is no decision. Not cached; the action is not allowed.
#[derive(Clone, Debug, Error)]
pub enum ReviewError {
    /// The control plane refused the review or is not reachable.
    #[error("the control plane made no decision on access: {0}")]
    ControlPlane(String),
    /// The control plane did not respond.
    #[error("the control plane made no decision on access within {TIMEOUT:?}")]
    Timeout,
    /// Too many anonymous requests wait for a decision.
    #[error(
        "{MAX_WAITING} anonymous requests already wait for a decision of the control plane; try again later"
    )]
    TooMany,
}

/// Sends reviews to the control plane. Identical reviews at the same time share one request.
pub struct Reviewer {
    clients: Clients,
    always_allow_paths: Vec<String>,
    decisions: Cache<(User, Action), Decision>,
    anonymous: Semaphore,
}

/// Cache lifetimes of allowed and denied decisions.
struct DecisionTtl {
    allowed: Duration,
    denied: Duration,
}

impl Reviewer {
    /// A reviewer that uses the current client.
    pub fn new(clients: Clients, config: &Authorization) -> Self {
        let ttl = DecisionTtl { allowed: config.allowed_ttl, denied: config.denied_ttl };
        Self {
            clients,
            always_allow_paths: config.always_allow_paths.clone(),
            decisions: Cache::builder()
                .weigher(cache_weight)
                .max_capacity(MAX_CACHE_BYTES)
                .expire_after(ttl)
                .build(),
            anonymous: Semaphore::new(MAX_WAITING),
        }
    }

    /// Whether `user` may do `action`. `system:masters` may do everything, and some paths are always allowed.
    ///
    /// # Errors
    /// If there is no decision, or too many requests wait for one.
    pub async fn review(&self, user: &User, action: Action) -> Result<Decision, ReviewError> {
        if user.is_master() || self.is_always_allowed(&action) {
            return Ok(Decision { allowed: true, reason: String::new() });
        }
        let key = (user.clone(), action);
        if let Some(decision) = self.decisions.get(&key).await {
            return Ok(decision);
        }
        let permit = user.is_anonymous().then(|| self.anonymous.try_acquire()).transpose();
        let _waiting = permit.map_err(|_| ReviewError::TooMany)?;
        let review = self.send_review(key.clone());
        self.decisions.try_get_with(key, review).await.map_err(|error: Arc<ReviewError>| (*error).clone())
    }

    fn is_always_allowed(&self, action: &Action) -> bool {
        let Action::Path { path, .. } = action else { return false };
        self.always_allow_paths.iter().any(|open| match open.strip_suffix('*') {
            Some(prefix) => path.trim_start_matches('/').starts_with(prefix.trim_start_matches('/')),
            None => path.trim_start_matches('/') == open.trim_start_matches('/'),
        })
    }

    async fn send_review(&self, (user, action): (User, Action)) -> Result<Decision, ReviewError> {
        let review = SubjectAccessReview { spec: spec(user, action), ..SubjectAccessReview::default() };
        let parameters = PostParams::default();
        let api = Api::<SubjectAccessReview>::all(self.clients.current());
        let request = api.create(&parameters, &review);
        let response = tokio::time::timeout(TIMEOUT, request).await.map_err(|_| ReviewError::Timeout)?;
        let status = response.map_err(|error| ReviewError::ControlPlane(error.to_string()))?.status;
        let status = status.unwrap_or_default();
        let allowed = status.allowed && !status.denied.unwrap_or(false);
        Ok(Decision { allowed, reason: status.reason.unwrap_or_default() })
    }
}

/// Memory of a cached decision, in bytes, about.
fn cache_weight((user, action): &(User, Action), decision: &Decision) -> u32 {
    let extra =
        user.extra.iter().map(|(key, values)| key.len() + values.iter().map(String::len).sum::<usize>());
    let user = user.name.len()
        + user.uid.len()
        + user.groups.iter().map(String::len).sum::<usize>()
        + extra.sum::<usize>();
    let action = match action {
        Action::Path { verb, path } => verb.len() + path.len(),
        Action::Resource { verb, group, version, namespace, resource, subresource, name } => {
            [verb, group, version, namespace, resource, subresource, name].iter().map(|part| part.len()).sum()
        }
    };
    u32::try_from(512 + user + action + decision.reason.len()).unwrap_or(u32::MAX)
}

impl Expiry<(User, Action), Decision> for DecisionTtl {
    fn expire_after_create(&self, _: &(User, Action), decision: &Decision, _: Instant) -> Option<Duration> {
        Some(if decision.allowed { self.allowed } else { self.denied })
    }
}

fn spec(user: User, action: Action) -> SubjectAccessReviewSpec {
    let mut spec = SubjectAccessReviewSpec {
        user: Some(user.name),
        uid: Some(user.uid).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups),
        extra: Some(user.extra).filter(|extra| !extra.is_empty()),
        ..SubjectAccessReviewSpec::default()
    };
    let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
    match action {
        Action::Resource { verb, group, version, namespace, resource, subresource, name } => {
            spec.resource_attributes = Some(ResourceAttributes {
                verb: Some(verb),
                group: non_empty(group),
                version: non_empty(version),
                namespace: non_empty(namespace),
                resource: non_empty(resource),
                subresource: non_empty(subresource),
                name: non_empty(name),
                ..ResourceAttributes::default()
            });
        }
        Action::Path { verb, path } => {
            spec.non_resource_attributes = Some(NonResourceAttributes { verb: Some(verb), path: Some(path) });
        }
    }
    spec
}
