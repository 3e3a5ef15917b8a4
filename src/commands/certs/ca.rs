//! The CA that signs serving certificates: a new one, or an existing one from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::text::date;
use crate::process::expiry::now;
use crate::process::file::{FileError, Files};

/// Lifetime of a new CA in seconds: ten years.
const CA_LIFETIME: i64 = 3650 * 24 * 60 * 60;
/// Certificates are valid from this many seconds in the past, for clients with a slow clock. The value is that of
/// `signer.backdate` of kube-controller-manager.
const BACKDATE: i64 = 5 * 60;
const CA_NAME: &str = "karmada-metrics-adapter-ca";

/// A CA: its certificate and its private key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

/// A certificate and its private key, in PEM.
pub struct CertificateAndKey {
    pub certificate: String,
    /// The key (PKCS#8).
    pub key: String,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
}

/// Why no certificate was issued.
#[derive(Debug, Error)]
pub enum CertificateAuthorityError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file of `--ca-cert` contains no certificate.
    #[error("--ca-cert: {} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate cannot be parsed.
    #[error("--ca-cert: {} contains an invalid certificate", .0.display())]
    Malformed(PathBuf),
    /// The file of `--ca-key` contains no private key.
    #[error("--ca-key: {} has no private key in PEM (decrypt an encrypted key first)", .0.display())]
    NoKey(PathBuf),
    /// The type of the private key is not supported.
    #[error("--ca-key: {} cannot sign: {source}", .path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// The cause.
        source: rcgen::Error,
    },
    /// No certificate in `--ca-cert` matches the key.
    #[error("--ca-key does not belong to --ca-cert: use the private key of this CA")]
    Mismatch,
    /// The certificate may not sign other certificates. Contains its subject.
    #[error("--ca-cert: {0} is not a CA: this certificate may not sign other certificates")]
    NotACa(String),
    /// The CA certificate is expired or not yet valid.
    #[error("--ca-cert: {name} is valid from {from} to {until}: renew it, or correct the system clock")]
    Period {
        /// The subject of the CA.
        name: String,
        /// The first moment of its validity.
        from: String,
        /// The moment when it expires.
        until: String,
    },
    /// The certificate cannot be created.
    #[error("the certificate cannot be created: {0}")]
    Make(#[from] rcgen::Error),
    /// Clients that trust the CA would reject the certificate.
    #[error("--ca-cert cannot sign this certificate, because clients would reject it: {0}")]
    Rejected(#[from] rustls::Error),
}

impl CertificateAuthority {
    /// Creates a CA and its key. The CA is valid for ten years, or for `lifetime` if that is longer. It cannot sign another CA.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn new(lifetime: Duration) -> Result<(Self, CertificateAndKey), CertificateAuthorityError> {
        let not_before = now() - BACKDATE;
        let not_after = now() + CA_LIFETIME.max(seconds(lifetime));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, CA_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = at(not_before).into();
        params.not_after = at(not_after).into();
        let key = KeyPair::generate()?;
        let signed = params.self_signed(&key)?;
        let pair = CertificateAndKey { certificate: signed.pem(), key: key.serialize_pem(), not_after };
        let certificate = signed.der().clone();
        Ok((Self { issuer: Issuer::new(params, key), certificate, not_before, not_after }, pair))
    }

    /// Reads a CA from files. If the first file contains several certificates, the one that matches the key is used.
    ///
    /// # Errors
    /// If a file cannot be used, or if the CA may not sign now.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateAuthorityError> {
        let pem = Files::new([("--ca-cert", certificate)]).read()?.concat();
        let key_pem = Files::new([("--ca-key", key)]).read()?.concat();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(CertificateAuthorityError::NoCertificate(certificate.to_owned()));
        }
        let malformed = || CertificateAuthorityError::Malformed(certificate.to_owned());
        let key_der = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| CertificateAuthorityError::NoKey(key.to_owned()))?;
        let key = KeyPair::try_from(&key_der)
            .map_err(|source| CertificateAuthorityError::Key { path: key.to_owned(), source })?;
        for der in chain {
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
            if parsed.public_key().raw == key.subject_public_key_info() {
                let (not_before, not_after) = ca_validity(&parsed, now())?;
                let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| malformed())?;
                return Ok(Self { issuer, certificate: der.clone(), not_before, not_after });
            }
        }
        Err(CertificateAuthorityError::Mismatch)
    }

    /// The certificate of the CA.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Creates a serving certificate for these DNS names and IP addresses. It expires no later than the CA.
    ///
    /// # Errors
    /// If a client that trusts only this CA would reject the certificate.
    pub fn sign(
        &self,
        common_name: &str,
        names: &[String],
        lifetime: Duration,
    ) -> Result<CertificateAndKey, CertificateAuthorityError> {
        let not_after = (now() + seconds(lifetime)).min(self.not_after);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = at((now() - BACKDATE).max(self.not_before)).into();
        params.not_after = at(not_after).into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        for name in names.iter().filter(|name| !name.starts_with('*')) {
            self.verify(certificate.der(), name)?;
        }
        Ok(CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem(), not_after })
    }

    /// Checks the certificate as a client does: the copy of the CA's subject may differ from the original, and the name
    /// constraints of the CA may exclude a name.
    fn verify(&self, certificate: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).map(drop)
    }
}

/// Start and end of a CA's validity in seconds since 1970. An error if the CA may not sign now.
fn ca_validity(certificate: &X509Certificate<'_>, now: i64) -> Result<(i64, i64), CertificateAuthorityError> {
    let name = certificate.subject().to_string();
    let constraints = certificate.basic_constraints().ok().flatten();
    let is_ca = constraints.is_some_and(|constraints| constraints.value.ca);
    let may_sign =
        certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    if !is_ca || !may_sign {
        return Err(CertificateAuthorityError::NotACa(name));
    }
    let period = certificate.validity();
    let (from, until) = (period.not_before.timestamp(), period.not_after.timestamp());
    if now < from || now >= until {
        return Err(CertificateAuthorityError::Period { name, from: date(from), until: date(until) });
    }
    Ok((from, until))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2)
}

/// Converts seconds since 1970. A negative number becomes zero.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
