//! The client with which the aggregation layer calls a backend.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::https::Body;
use crate::pki::{self, Identity};

/// Which servers are believed.
#[derive(Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// Those with a certificate of this authority (PEM) for this name, whatever their address.
    Authority { pem: &'a str, name: &'a str },
    /// All of them.
    Anyone,
}

/// A pooled client that streams; HTTP/2 where the server offers it. Clones share the pool.
#[derive(Clone)]
pub(crate) struct Upstream {
    pool: Client<HttpsConnector<HttpConnector>, Body>,
}

/// Why there was no response; every cause, outermost first.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SendError(String);

impl Upstream {
    /// # Errors
    /// If the authority or the name is malformed.
    pub(crate) fn new(trust: Trust<'_>, identity: &Identity) -> anyhow::Result<Self> {
        let tls = ClientConfig::builder();
        let tls = match trust {
            Trust::Authority { pem, .. } => tls.with_root_certificates(pki::roots(pem)?),
            Trust::Anyone => {
                let verifier = Unverified::new(tls.crypto_provider());
                tls.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let tls = tls.with_client_auth_cert(identity.chain(), identity.private_key())?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let connector = match trust {
            Trust::Authority { name, .. } => {
                let name = ServerName::try_from(name.to_owned()).context("the server's name")?;
                connector.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            Trust::Anyone => connector,
        };
        // Go spells header names that way over HTTP/1.1.
        let pool = Client::builder(TokioExecutor::new())
            .http1_title_case_headers(true)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector.enable_all_versions().build());
        Ok(Self { pool })
    }

    /// Sends a request, whose URI is absolute, and returns when the response's head has arrived.
    ///
    /// # Errors
    /// If none arrives.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        self.pool.request(request).await.map_err(|error| SendError(chain(&error)))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Takes any server's certificate, but no signature that is not its own.
#[derive(Debug)]
struct Unverified {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Unverified {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
