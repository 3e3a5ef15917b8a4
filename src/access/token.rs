//! Bearer tokens: the control plane says whose they are, and its verdicts are kept for a while
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

/// How long one review may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many verdicts are kept.
const VERDICTS: u64 = 10_000;
/// Most requests that wait for a verdict at a time: nothing is known yet of who sent them, and each takes memory.
const WAITING: usize = 100;
/// Most bytes of a token. Real ones have one or two thousand, with many groups ten.
const LONGEST: usize = 16 * 1024;

/// Asks the control plane whose a token is, once for the same token at a time.
pub struct TokenReviewer {
    clients: Clients,
    /// By the token's SHA-256, so that no token stays in memory; `None` for nobody's.
    verdicts: Cache<[u8; 32], Option<Arc<User>>>,
    waiting: Semaphore,
    failing: AtomicBool,
}

/// Why a token is no identity.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// The control plane knows no such token.
    #[error("the bearer token is nobody's")]
    Unknown,
    /// The control plane refused or could not be reached. It is not kept, and identifies nobody.
    #[error("the control plane gave no verdict on a bearer token: {0}")]
    ControlPlane(String),
    /// The control plane did not answer. It is not kept, and identifies nobody.
    #[error("the control plane gave no verdict on a bearer token within {TIMEOUT:?}")]
    Timeout,
    /// It is longer than any real one.
    #[error("the bearer token has more than {LONGEST} bytes")]
    TooLong,
    /// Too many requests wait for a verdict.
    #[error(
        "{WAITING} requests with bearer tokens wait for the control plane already, please try again later"
    )]
    TooMany,
}

impl TokenReviewer {
    /// A reviewer that asks through the current client and keeps verdicts for `kept`; zero keeps none.
    pub fn new(clients: Clients, kept: Duration) -> Self {
        Self {
            clients,
            verdicts: Cache::builder().max_capacity(VERDICTS).time_to_live(kept).build(),
            waiting: Semaphore::new(WAITING),
            failing: AtomicBool::new(false),
        }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// If it is nobody's, or the control plane gives no verdict, or too many wait for one.
    pub async fn review(&self, token: &str) -> Result<User, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::TooLong);
        }
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let key = digest.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        let user = match self.verdicts.get(&key).await {
            Some(user) => user,
            None => {
                let _waiting = self.waiting.try_acquire().map_err(|_| TokenError::TooMany)?;
                let verdict = self.verdicts.try_get_with(key, self.ask(token)).await;
                verdict.map_err(|error: Arc<TokenError>| (*error).clone())?
            }
        };
        user.map(|user| (*user).clone()).ok_or(TokenError::Unknown)
    }

    async fn ask(&self, token: &str) -> Result<Option<Arc<User>>, TokenError> {
        // No audiences: whatever the API server itself takes is good.
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let api = Api::<TokenReview>::all(self.clients.current());
        let asking = tokio::time::timeout(TIMEOUT, api.create(&parameters, &review));
        let answer = match asking.await {
            // What stands in the way there may quote what it was sent.
            Ok(answer) => answer
                .map_err(|error| TokenError::ControlPlane(error.to_string().replace(token, "(the token)"))),
            Err(_) => Err(TokenError::Timeout),
        };
        self.note(answer.as_ref().err());
        let status = answer?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.map(|user| Arc::new(User::from(user))))
    }

    /// Says once that reviews fail, and once that they succeed again.
    fn note(&self, failure: Option<&TokenError>) {
        match failure {
            Some(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    %error,
                    "bearer tokens are refused until the control plane answers; \
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

/// The token of a request's `Authorization`; `None` if that is missing or something else.
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
    fn a_bearer_token_is_read_as_kubernetes_reads_it() {
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
        assert_eq!(read(b"Bearer \xff").as_deref(), Some("\u{fffd}"), "it is shown, and nobody's");
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
