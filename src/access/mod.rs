//! Authentication and authorization.

pub mod certificate;
pub mod config_map;
pub mod request_header;
pub mod review;
pub mod settings;
pub mod token;
pub mod user;

use std::fmt::{self, Display};
use std::sync::Arc;

use http::HeaderMap;
use thiserror::Error;

use certificate::{ClientCertificateError, ClientChain};
use settings::AuthenticationSettings;
use token::{TokenError, TokenReviewer};
use user::User;

/// Authenticates requests by front proxy headers, client certificate or bearer token, in this order. A request without any
/// of these credentials is anonymous.
pub struct Authenticators {
    settings: Arc<AuthenticationSettings>,
    tokens: TokenReviewer,
}

/// 401: a credential was presented and is invalid, and no other authenticator succeeded. Contains the error of each
/// authenticator that failed.
#[derive(Debug, Error)]
pub struct Unauthenticated(Vec<AuthenticatorError>);

/// Why one authenticator failed.
#[derive(Debug, Error)]
enum AuthenticatorError {
    #[error("front proxy authentication failed: {0}")]
    FrontProxy(#[source] ClientCertificateError),
    #[error("client certificate authentication failed: {0}")]
    Certificate(#[source] ClientCertificateError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Authenticators {
    /// Authenticators that always use the current `settings`.
    pub fn new(settings: Arc<AuthenticationSettings>, tokens: TokenReviewer) -> Self {
        Self { settings, tokens }
    }

    /// Authenticates a request by its headers and the client certificate of its connection. The first authenticator that
    /// succeeds decides. If one fails, the next one is tried (`authenticatorfactory.DelegatingAuthenticatorConfig.New` of the
    /// generic API server).
    ///
    /// # Errors
    /// If no authenticator succeeds and at least one fails.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        client_chain: Option<&ClientChain>,
    ) -> Result<User, Unauthenticated> {
        let mut failures = Vec::new();
        if let Some(client_chain) = client_chain {
            match self.front_proxy(headers, client_chain) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(error) => failures.push(AuthenticatorError::FrontProxy(error)),
            }
            match self.client_certificate(client_chain) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(error) => failures.push(AuthenticatorError::Certificate(error)),
            }
        }
        if let Some(token) = token::bearer(headers) {
            match self.tokens.review(&token).await {
                Ok(user) => return Ok(user.authenticated()),
                Err(error) => failures.push(error.into()),
            }
        }
        if failures.is_empty() { Ok(User::anonymous()) } else { Err(Unauthenticated(failures)) }
    }

    fn front_proxy(
        &self,
        headers: &HeaderMap,
        client_chain: &ClientChain,
    ) -> Result<Option<User>, ClientCertificateError> {
        let Some(front_proxy) = self.settings.front_proxy() else { return Ok(None) };
        front_proxy.authenticate(headers, client_chain)
    }

    fn client_certificate(&self, client_chain: &ClientChain) -> Result<Option<User>, ClientCertificateError> {
        let Some(ca) = self.settings.client_ca() else { return Ok(None) };
        client_chain.verify(&ca)?.user()
    }
}

impl Unauthenticated {
    /// Whether too many requests wait for authentication. A later request may succeed.
    pub fn is_throttled(&self) -> bool {
        self.0.iter().any(|failure| matches!(failure, AuthenticatorError::Token(TokenError::TooMany)))
    }
}

impl Display for Unauthenticated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(formatter, "{separator}{failure}")?;
        }
        Ok(())
    }
}
