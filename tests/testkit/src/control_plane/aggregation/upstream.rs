//! The client with which the aggregation layer calls a backend.

use std::fmt::Write as _;
use std::io;
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
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::https::Body;
use crate::pki::{self, Identity};

/// A streaming client with a connection pool. Uses HTTP/2 if the server offers it. Clones share the pool.
#[derive(Clone)]
pub(crate) struct Upstream {
    pool: Client<HttpsConnector<HttpConnector>, Body>,
}

/// The reason for a missing response: all causes, outermost first, or Go's text for a certificate that is not accepted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SendError(String);

impl Upstream {
    /// A client for a server with this name at any address. The server's certificate must come from the CA `authority` (PEM).
    /// Without a CA, any certificate is accepted.
    ///
    /// # Errors
    /// If the CA or the name is malformed.
    pub(crate) fn new(authority: Option<&str>, name: &str, identity: &Identity) -> anyhow::Result<Self> {
        let tls = ClientConfig::builder();
        let tls = match authority {
            Some(pem) => tls.with_root_certificates(pki::roots(pem)?),
            None => {
                let verifier = Unverified::new(tls.crypto_provider());
                tls.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let tls = tls.with_client_auth_cert(identity.chain(), identity.private_key())?;
        let name = ServerName::try_from(name.to_owned()).context("the server's name")?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
        // Go writes header names in this form over HTTP/1.1.
        let pool = Client::builder(TokioExecutor::new())
            .http1_title_case_headers(true)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector.enable_all_versions().build());
        Ok(Self { pool })
    }

    /// Sends a request with an absolute URI. Returns when the headers of the response have arrived.
    ///
    /// # Errors
    /// If there is no response.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        self.pool.request(request).await.map_err(|error| SendError(chain(&error)))
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(go_text) = of_tls(cause).and_then(go_text) {
            return go_text;
        }
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// The TLS error in an error. An I/O error holds it as its inner error, not as its source.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => of_tls(error.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// The text of Go's `tls.CertificateVerificationError`, if the error is one.
fn go_text(error: &rustls::Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    let what = match error {
        CertificateError::NotValidForNameContext { expected, presented } => {
            // Each text has the form `DnsName("localhost")`.
            let presented: Vec<&str> =
                presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            format!("certificate is valid for {}, not {}", presented.join(", "), expected.to_str())
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        _ => "certificate signed by unknown authority".to_owned(),
    };
    Some(format!("tls: failed to verify certificate: x509: {what}"))
}

/// Accepts any server certificate, but checks that the server has its key.
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
