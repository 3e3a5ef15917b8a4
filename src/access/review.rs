//! Whether somebody may do something: the control plane decides, and its verdicts are kept for a while.

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

/// How long one review may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much memory verdicts may take, in bytes: whoever asks chooses how long a path is.
const VERDICTS: u64 = 8 * 1024 * 1024;
/// Most anonymous requests that wait for a verdict at a time: each takes memory. Those of known users are never refused here:
/// queries are counted before, and kube-apiserver takes the whole API for unavailable after one 429.
const WAITING: usize = 100;

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Something with an API object.
    Resource {
        /// `get`, `list`, …
        verb: String,
        /// The API group.
        group: String,
        /// Its version.
        version: String,
        /// The namespace; empty for none.
        namespace: String,
        /// The resource.
        resource: String,
        /// The subresource; empty for none.
        subresource: String,
        /// The object's name; empty for none.
        name: String,
    },
    /// Something with a path.
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// The decoded path.
        path: String,
    },
}

/// The control plane's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, as far as the control plane says.
    pub reason: String,
}

/// Why there is no verdict. It is not kept, and allows nothing.
#[derive(Clone, Debug, Error)]
pub enum ReviewError {
    /// The control plane refused or could not be reached.
    #[error("the control plane gave no verdict on access: {0}")]
    ControlPlane(String),
    /// The control plane did not answer.
    #[error("the control plane gave no verdict on access within {TIMEOUT:?}")]
    Timeout,
    /// Too many anonymous requests wait for a verdict.
    #[error(
        "{WAITING} anonymous requests wait for the control plane's verdict already, please try again later"
    )]
    TooMany,
}

/// Asks the control plane, once for identical questions at a time.
pub struct Reviewer {
    clients: Clients,
    always_allow_paths: Vec<String>,
    verdicts: Cache<(User, Action), Decision>,
    anonymous: Semaphore,
}

/// Allowed and denied have times of their own.
struct DecisionTtl {
    allowed: Duration,
    denied: Duration,
}

impl Reviewer {
    /// A reviewer that asks through the current client.
    pub fn new(clients: Clients, config: &Authorization) -> Self {
        let kept = DecisionTtl { allowed: config.allowed_ttl, denied: config.denied_ttl };
        Self {
            clients,
            always_allow_paths: config.always_allow_paths.clone(),
            verdicts: Cache::builder()
                .weigher(cache_weight)
                .max_capacity(VERDICTS)
                .expire_after(kept)
                .build(),
            anonymous: Semaphore::new(WAITING),
        }
    }

    /// Whether `user` may do `action`. `system:masters` may do everything, and some paths are open to all.
    ///
    /// # Errors
    /// If the control plane gives no verdict, or too many wait for one.
    pub async fn review(&self, user: &User, action: Action) -> Result<Decision, ReviewError> {
        if user.is_master() || self.is_open(&action) {
            return Ok(Decision { allowed: true, reason: String::new() });
        }
        let key = (user.clone(), action);
        if let Some(decision) = self.verdicts.get(&key).await {
            return Ok(decision);
        }
        let place = user.is_anonymous().then(|| self.anonymous.try_acquire()).transpose();
        let _waiting = place.map_err(|_| ReviewError::TooMany)?;
        let asking = self.ask(key.clone());
        self.verdicts.try_get_with(key, asking).await.map_err(|error: Arc<ReviewError>| (*error).clone())
    }

    fn is_open(&self, action: &Action) -> bool {
        let Action::Path { path, .. } = action else { return false };
        self.always_allow_paths.iter().any(|open| match open.strip_suffix('*') {
            Some(prefix) => path.trim_start_matches('/').starts_with(prefix.trim_start_matches('/')),
            None => path.trim_start_matches('/') == open.trim_start_matches('/'),
        })
    }

    async fn ask(&self, (user, action): (User, Action)) -> Result<Decision, ReviewError> {
        let review = SubjectAccessReview { spec: spec(user, action), ..SubjectAccessReview::default() };
        let parameters = PostParams::default();
        let api = Api::<SubjectAccessReview>::all(self.clients.current());
        let asking = api.create(&parameters, &review);
        let answer = tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| ReviewError::Timeout)?;
        let status = answer.map_err(|error| ReviewError::ControlPlane(error.to_string()))?.status;
        let status = status.unwrap_or_default();
        let allowed = status.allowed && !status.denied.unwrap_or(false);
        Ok(Decision { allowed, reason: status.reason.unwrap_or_default() })
    }
}

/// About how many bytes a verdict takes.
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
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    match action {
        Action::Resource { verb, group, version, namespace, resource, subresource, name } => {
            spec.resource_attributes = Some(ResourceAttributes {
                verb: Some(verb),
                group: given(group),
                version: given(version),
                namespace: given(namespace),
                resource: given(resource),
                subresource: given(subresource),
                name: given(name),
                ..ResourceAttributes::default()
            });
        }
        Action::Path { verb, path } => {
            spec.non_resource_attributes = Some(NonResourceAttributes { verb: Some(verb), path: Some(path) });
        }
    }
    spec
}
