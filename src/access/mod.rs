//! Who asks, and whether they may.

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

/// Finds out who asks: the front proxy's word, a client certificate, a bearer token, else nobody in particular.
pub struct Authenticators {
    settings: Arc<AuthenticationSettings>,
    tokens: TokenReviewer,
}

/// Why a request is nobody's: something was shown that does not hold, and nothing else that does. Holds what each
/// authenticator says.
#[derive(Debug, Error)]
pub struct Unauthenticated(Vec<AuthenticatorError>);

/// Why one authenticator knows nobody.
#[derive(Debug, Error)]
enum AuthenticatorError {
    #[error("no front proxy: {0}")]
    FrontProxy(#[source] ClientCertificateError),
    #[error("no client certificate: {0}")]
    Certificate(#[source] ClientCertificateError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Authenticators {
    /// Authenticators that follow `settings` as it changes.
    pub fn new(settings: Arc<AuthenticationSettings>, tokens: TokenReviewer) -> Self {
        Self { settings, tokens }
    }

    /// Who sent a request with these headers over a connection with this certificate. The first authenticator that
    /// succeeds wins; the failure of one is no verdict while another may succeed
    /// (`authenticatorfactory.DelegatingAuthenticatorConfig.New` of the generic API server).
    ///
    /// # Errors
    /// If none succeeds and one has failed.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        presented: Option<&ClientChain>,
    ) -> Result<User, Unauthenticated> {
        let mut failures = Vec::new();
        if let Some(presented) = presented {
            match self.front_proxy(headers, presented) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(error) => failures.push(AuthenticatorError::FrontProxy(error)),
            }
            match self.client(presented) {
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
        presented: &ClientChain,
    ) -> Result<Option<User>, ClientCertificateError> {
        let Some(front_proxy) = self.settings.front_proxy() else { return Ok(None) };
        front_proxy.authenticate(headers, presented)
    }

    fn client(&self, presented: &ClientChain) -> Result<Option<User>, ClientCertificateError> {
        let Some(authority) = self.settings.clients() else { return Ok(None) };
        presented.verify(&authority)?.user()
    }
}

impl Unauthenticated {
    /// Whether too many requests wait to be identified; it may be identified later.
    pub fn is_too_early(&self) -> bool {
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
