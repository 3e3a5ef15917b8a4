//! Who asks, and whether they may.

pub mod certificate;
pub mod request_header;
pub mod review;
pub mod trust;
pub mod user;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use thiserror::Error;

use certificate::{Presented, Unverified};
use trust::Trust;
use user::User;

/// Finds out who asks: the front proxy's word, else nobody in particular.
pub struct Authenticators {
    trust: Arc<ArcSwap<Trust>>,
}

/// Why a request is nobody's: something was shown that does not hold, and nothing else that does.
#[derive(Debug, Error)]
pub enum Unauthenticated {
    /// The certificate.
    #[error("the client certificate does not hold: {0}")]
    Certificate(#[from] Unverified),
}

impl Authenticators {
    /// Authenticators that follow `trust` as it changes.
    pub fn new(trust: Arc<ArcSwap<Trust>>) -> Self {
        Self { trust }
    }

    /// Who sent a request with these headers over a connection with this certificate. The first authenticator that
    /// succeeds wins; the failure of one is no verdict while another may succeed
    /// (`authenticatorfactory.DelegatingAuthenticatorConfig.New` of the generic API server).
    ///
    /// # Errors
    /// If none succeeds and one has failed.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        presented: Option<&Presented>,
    ) -> Result<User, Unauthenticated> {
        let trust = self.trust.load();
        let mut failed = None;
        if let (Some(front_proxy), Some(presented)) = (&trust.front_proxy, presented) {
            match front_proxy.authenticate(headers, presented) {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(User::anonymous()),
        }
    }
}
