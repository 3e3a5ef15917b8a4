//! Authentication of bearer tokens by TokenReviews of the control plane. Results are cached
//! (`k8s.io/apiserver/pkg/authentication/request/bearertoken` and `…/token/cache`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Api;
use kube::api::PostParams;
use moka::future::Cache;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::user::User;
use crate::control::Clients;

/// Timeout of one review.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum cached results.
const MAX_CACHED: u64 = 10_000;
/// Maximum requests that wait for a review: they are not authenticated yet, and each takes memory.
const MAX_WAITING: usize = 100;
/// Maximum bytes of a token. Usual tokens have one or two thousand, with many groups ten thousand.
const MAX_BYTES: usize = 16 * 1024;

/// Sends TokenReviews to the control plane. Reviews of the same token at the same time share one request.
pub struct TokenReviewer {
    clients: Clients,
    /// By the token's SHA-256, so that no token stays in memory; `None` for an unknown token.
    results: Cache<[u8; 32], Option<Arc<User>>>,
    waiting: Semaphore,
    failing: AtomicBool,
}

/// Why a token is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// The control plane does not accept the token.
    #[error("the bearer token is unknown")]
    Unknown,
    /// The control plane refused the review or is not reachable. Not cached.
    #[error("the control plane did not review the bearer token: {0}")]
    ControlPlane(String),
    /// The control plane did not respond. Not cached.
    #[error("the control plane did not review the bearer token within {TIMEOUT:?}")]
    Timeout,
    /// The token is too long.
    #[error("the bearer token has more than {MAX_BYTES} bytes")]
    TooLong,
    /// Too many requests wait for a review.
    #[error("{MAX_WAITING} requests with bearer tokens already wait for the control plane; try again later")]
    TooMany,
}

impl TokenReviewer {
    /// A reviewer that uses the current client and caches results for `ttl`; zero disables the cache.
    pub fn new(clients: Clients, ttl: Duration) -> Self {
        Self {
            clients,
            results: Cache::builder().max_capacity(MAX_CACHED).time_to_live(ttl).build(),
            waiting: Semaphore::new(MAX_WAITING),
            failing: AtomicBool::new(false),
        }
    }

    /// The user of a token.
    ///
    /// # Errors
    /// If the token is unknown, there is no result, or too many requests wait for one.
    pub async fn review(&self, token: &str) -> Result<User, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let key = digest.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        let user = match self.results.get(&key).await {
            Some(user) => user,
            None => {
                let _waiting = self.waiting.try_acquire().map_err(|_| TokenError::TooMany)?;
                let result = self.results.try_get_with(key, self.send_review(token)).await;
                result.map_err(|error: Arc<TokenError>| (*error).clone())?
            }
        };
        user.map(|user| (*user).clone()).ok_or(TokenError::Unknown)
    }

    async fn send_review(&self, token: &str) -> Result<Option<Arc<User>>, TokenError> {
        // Without audiences, the API server's own audience is required.
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let api = Api::<TokenReview>::all(self.clients.current());
        let request = tokio::time::timeout(TIMEOUT, api.create(&parameters, &review));
        let response = match request.await {
            // A proxy on the way may quote the request in its error.
            Ok(response) => response
                .map_err(|error| TokenError::ControlPlane(error.to_string().replace(token, "(the token)"))),
            Err(_) => Err(TokenError::Timeout),
        };
        self.note(response.as_ref().err());
        let status = response?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.map(|user| Arc::new(User::from(user))))
    }

    /// Logs the first failure, and the first success after failures.
    fn note(&self, failure: Option<&TokenError>) {
        match failure {
            Some(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    %error,
                    "bearer tokens are refused until the control plane reviews them; \
                     --authentication-kubeconfig must be allowed to create tokenreviews.authentication.k8s.io"
                );
            }
            None if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("the control plane reviews bearer tokens again");
            }
            _ => {}
        }
    }
}

/// The token of the header `Authorization`; `None` if the header is missing or has no bearer token.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = String::from_utf8_lossy(headers.get(AUTHORIZATION)?.as_bytes());
    let mut words = value.trim().split(' ');
    let is_bearer = words.next()?.eq_ignore_ascii_case("bearer");
    words.next().filter(|token| is_bearer && !token.is_empty()).map(str::to_owned)
}

impl From<UserInfo> for User {
    fn from(info: UserInfo) -> Self {
        Self {
            name: info.username.unwrap_or_default(),
            uid: info.uid.unwrap_or_default(),
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_token_is_read_as_in_kubernetes() {
        let read = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.try_into().expect("a header's value"));
            bearer(&headers)
        };
        for value in ["Bearer abc", "bearer abc", "BEARER abc def", "  Bearer abc "] {
            assert_eq!(read(value.as_bytes()).as_deref(), Some("abc"), "{value}");
        }
        for value in ["", "Bearer", "Bearer ", "Bearer  abc", "Basic abc", "abc", "Bearerabc"] {
            assert_eq!(read(value.as_bytes()), None, "{value}");
        }
        assert_eq!(read(b"Bearer \xff").as_deref(), Some("\u{fffd}"), "invalid UTF-8 is replaced");
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
