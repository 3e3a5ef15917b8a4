//! TLS for those who ask: which certificate is shown, which versions and suites are spoken, and how a client's
//! certificate is asked for without being judged.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use thiserror::Error;

use crate::config::{ServingTls, TlsVersion};

/// Names under which kube-apiserver reaches the adapter in a usual installation.
const NAMES: [&str; 3] = [
    "localhost",
    "karmada-metrics-adapter.karmada-system.svc",
    "karmada-metrics-adapter.karmada-system.svc.cluster.local",
];

/// Why TLS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag}: {path} cannot be read: {source}")]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM of what it should be.
    #[error("{flag}: {path} has no {what} in PEM")]
    Pem {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// Certificate and key cannot be served.
    #[error("--tls-cert-file and --tls-private-key-file cannot be served: {0}")]
    Pair(#[source] rustls::Error),
    /// No suite is left.
    #[error("--tls-cipher-suites: none of the given suites is served; for TLS 1.3 leave it out")]
    NoSuite,
    /// A certificate cannot be made.
    #[error("a serving certificate cannot be generated: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A certificate chain and its key.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The TLS settings of the secure port.
///
/// # Errors
/// If there is nothing to serve with.
pub fn server_config(config: &ServingTls, http2: bool) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(config)?);
    let versions = match config.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
        TlsVersion::Tls13 => &[&TLS13][..],
    };
    let Pair { chain, key } = match &config.certificate {
        Some((certificate, key)) => read_pair(certificate, key)?,
        None => generated_pair(config.cert_dir.as_deref())?,
    };
    let asking = AskOnly { algorithms: provider.signature_verification_algorithms };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|_| TlsError::NoSuite)?
        .with_client_cert_verifier(Arc::new(asking))
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    server.alpn_protocols =
        if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(server)
}

/// The suites that are named, as far as they are known; as in Go, names concern TLS 1.2 only, and all of TLS 1.3's
/// are always served.
fn provider(config: &ServingTls) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if config.cipher_suites.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &rustls::SupportedCipherSuite| {
        let name = suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_");
        // Go leaves the hash out of the names of these two.
        let short =
            name.strip_suffix("_SHA256").filter(|short| short.ends_with("POLY1305")).map(str::to_owned);
        (name, short)
    };
    let known: Vec<(String, Option<String>)> = provider.cipher_suites.iter().map(name).collect();
    let is = |wanted: &String, (name, short): &(String, Option<String>)| {
        wanted == name || Some(wanted) == short.as_ref()
    };
    for wanted in &config.cipher_suites {
        if !known.iter().any(|suite| is(wanted, suite)) {
            tracing::warn!(
                suite = wanted,
                "--tls-cipher-suites names a suite that is not served; it is passed over"
            );
        }
    }
    provider.cipher_suites.retain(|suite| {
        suite.tls13().is_some() || config.cipher_suites.iter().any(|wanted| is(wanted, &name(suite)))
    });
    let tls12_left = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let tls13_named = known.iter().zip(aws_lc_rs::default_provider().cipher_suites).any(|(suite, of)| {
        of.tls13().is_some() && config.cipher_suites.iter().any(|wanted| is(wanted, suite))
    });
    if tls12_left || tls13_named { Ok(provider) } else { Err(TlsError::NoSuite) }
}

fn read_pair(certificate: &Path, key: &Path) -> Result<Pair, TlsError> {
    let flag = "--tls-cert-file";
    let pem =
        fs::read(certificate).map_err(|source| TlsError::Read { flag, path: certificate.into(), source })?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(TlsError::Pem { flag, path: certificate.into(), what: "certificate" });
    }
    let flag = "--tls-private-key-file";
    let pem = fs::read(key).map_err(|source| TlsError::Read { flag, path: key.into(), source })?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::Pem {
        flag,
        path: key.into(),
        what: "private key",
    })?;
    Ok(Pair { chain, key })
}

/// A self-signed pair: the one in `directory`, or a new one that is kept there, or in memory where that cannot be
/// (`SecureServingOptions.MaybeDefaultWithSelfSignedCerts`).
fn generated_pair(directory: Option<&Path>) -> Result<Pair, TlsError> {
    let files = directory.map(|directory| (directory.join("apiserver.crt"), directory.join("apiserver.key")));
    if let Some((certificate, key)) = &files
        && certificate.exists()
        && key.exists()
    {
        return read_pair(certificate, key);
    }
    let names = NAMES.map(str::to_owned);
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let kept = files.as_ref().is_some_and(|(certificate, key)| {
        keep(certificate, cert.pem().as_bytes())
            .and_then(|()| keep(key, signing_key.serialize_pem().as_bytes()))
            .is_ok()
    });
    tracing::warn!(
        kept,
        "no --tls-cert-file is given: a self-signed certificate is served, which no APIService with a caBundle trusts"
    );
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    Ok(Pair { chain: vec![cert.der().clone()], key })
}

fn keep(path: &Path, pem: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(pem)
}

/// Asks for a certificate and proves that the client holds its key; whether its chain holds is found out when a
/// request comes, since a client with a bad certificate may still be somebody by other means.
#[derive(Debug)]
struct AskOnly {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
