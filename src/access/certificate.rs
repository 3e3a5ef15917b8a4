//! Client certificates. A presented certificate is not an identity until its chain is verified.

use std::sync::{Arc, Mutex, Weak};

use aws_lc_rs::digest;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::user::User;
use crate::process::expiry;

/// The certificate chain of one connection. The handshake has proved that the client has its private key.
#[derive(Debug)]
pub struct ClientChain {
    chain: Vec<CertificateDer<'static>>,
    /// Cached results, one for each CA in use.
    results: Mutex<Vec<Verification>>,
}

/// A CA bundle that verifies client certificates.
#[derive(Debug)]
pub struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
    expires: Option<i64>,
}

/// The subject of a verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The common name; empty if there is none.
    pub common_name: String,
    pub organizations: Vec<String>,
    /// The elements that Kubernetes reads as the user's uid; `None` for an element that is not text.
    uids: Vec<Option<String>>,
    /// The certificate's SHA-256 in hexadecimal.
    fingerprint: String,
}

/// Why a client certificate is refused.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ClientCertificateError {
    /// The chain is not valid: its signatures, a date or the key usage.
    #[error("{0}")]
    Chain(rustls::Error),
    /// The certificate is malformed.
    #[error("the certificate is malformed")]
    Malformed,
    /// The common name is not an allowed name of a front proxy.
    #[error("the common name {0:?} is not an allowed front proxy (--requestheader-allowed-names)")]
    NameNotAllowed(String),
    /// The uid is empty, is not text, or occurs more than once.
    #[error("the subject's uid ({UID}) is empty, is not text, or occurs more than once")]
    Uid,
}

/// Why a CA bundle is refused.
#[derive(Debug, Error)]
pub enum ClientCaError {
    /// The bundle has no certificate.
    #[error("it has no certificate in PEM")]
    Empty,
    /// The bundle is truncated or is not PEM.
    #[error("it is not PEM: {0}")]
    Pem(#[from] pem::Error),
    /// A certificate in the bundle is not usable.
    #[error("a certificate in it is not usable: {0}")]
    Certificate(#[from] rustls::Error),
    /// rustls refuses the bundle.
    #[error("it is not usable: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The cached result of a verification.
#[derive(Debug)]
struct Verification {
    of: Weak<ClientCa>,
    /// The result is valid until then: the next validity date in the chain, in seconds since 1970.
    until: u64,
    subject: Result<CertificateIdentity, ClientCertificateError>,
}

/// The object identifier of a user's uid in a subject (`k8s.io/apiserver/pkg/apis/asn1.X509UID`).
const UID: &str = "1.3.6.1.4.1.57683.2";
/// The key of the certificate's id in a user's extra information (`user.CredentialIDKey`).
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

impl ClientChain {
    /// The chain that a client presented; `None` if it presented none.
    pub fn new(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let chain: Vec<_> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        (!chain.is_empty()).then(|| Self { chain, results: Mutex::default() })
    }

    /// Verifies the chain with `ca` and returns its subject. The result is cached for the connection until the CA changes or a
    /// date in the chain passes.
    ///
    /// # Errors
    /// If the chain is not valid.
    pub fn verify(&self, ca: &Arc<ClientCa>) -> Result<CertificateIdentity, ClientCertificateError> {
        let now = UnixTime::now();
        let mut results = self.results.lock().expect("not poisoned");
        // While the weak reference exists, no other CA can have this address.
        let is_known = |result: &&Verification| {
            std::ptr::eq(result.of.as_ptr(), Arc::as_ptr(ca)) && now.as_secs() < result.until
        };
        if let Some(known) = results.iter().find(is_known) {
            return known.subject.clone();
        }
        let subject = self.check(ca, now);
        results.retain(|result| {
            result.of.strong_count() > 0 && !std::ptr::eq(result.of.as_ptr(), Arc::as_ptr(ca))
        });
        results.push(Verification {
            of: Arc::downgrade(ca),
            until: self.next_date(now),
            subject: subject.clone(),
        });
        subject
    }

    fn check(&self, ca: &ClientCa, now: UnixTime) -> Result<CertificateIdentity, ClientCertificateError> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(ClientCertificateError::Malformed)?;
        ca.verifier.verify_client_cert(leaf, intermediates, now).map_err(ClientCertificateError::Chain)?;
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| ClientCertificateError::Malformed)?;
        Ok(CertificateIdentity::new(certificate.subject(), leaf))
    }

    /// The next time at which a certificate of the chain becomes valid or expires.
    fn next_date(&self, now: UnixTime) -> u64 {
        let certificates = self.chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        let dates = certificates.flat_map(|(_, certificate)| {
            let validity = certificate.validity();
            // A certificate is still valid in its last second.
            [validity.not_before.timestamp(), validity.not_after.timestamp().saturating_add(1)]
        });
        let dates = dates.filter_map(|date| u64::try_from(date).ok());
        dates.filter(|&date| date > now.as_secs()).min().unwrap_or(u64::MAX)
    }
}

impl ClientCa {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    /// If the bundle has no certificate, or one that is not usable.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ClientCaError> {
        let mut roots = RootCertStore::empty();
        let mut expires = None;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate?;
            expires = expires.max(expiry::not_after(&certificate));
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(ClientCaError::Empty);
        }
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { verifier, expires })
    }

    /// When the last certificate of the bundle expires, in seconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }
}

impl CertificateIdentity {
    fn new(name: &X509Name<'_>, certificate: &CertificateDer<'_>) -> Self {
        let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let uids = name.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == UID);
        let digest = digest::digest(&digest::SHA256, certificate);
        Self {
            // If there are several, the last one counts, as in Go.
            common_name: name.iter_common_name().filter_map(text).last().unwrap_or_default(),
            organizations: name.iter_organization().filter_map(text).collect(),
            uids: uids.map(text).collect(),
            fingerprint: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The user of the certificate: the common name, with the organizations as groups; `None` without a common name
    /// (`x509.CommonNameUserConversion` of Kubernetes 1.36).
    ///
    /// # Errors
    /// If the subject's uid is malformed.
    pub fn user(self) -> Result<Option<User>, ClientCertificateError> {
        if self.common_name.is_empty() {
            return Ok(None);
        }
        let uid = match <[Option<String>; 1]>::try_from(self.uids) {
            Ok([Some(uid)]) if !uid.is_empty() => uid,
            Err(none) if none.is_empty() => String::new(),
            _ => return Err(ClientCertificateError::Uid),
        };
        let id = format!("X509SHA256={}", self.fingerprint);
        Ok(Some(User {
            name: self.common_name,
            uid,
            groups: self.organizations,
            extra: [(CREDENTIAL_ID.to_owned(), vec![id])].into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    const ORGANIZATION: &[u8] = &[0x55, 4, 10];
    const USER_ID: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xc2, 0x53, 2];
    const TEXT: u8 = 0x0c;
    const NUMBER: u8 = 0x02;

    fn user(elements: &[(&[u8], u8, &str)]) -> Result<Option<User>, ClientCertificateError> {
        let der = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let element = |(oid, tag, text): &(&[u8], u8, &str)| {
            der(0x31, &der(0x30, &[der(6, oid), der(*tag, text.as_bytes())].concat()))
        };
        let name = der(0x30, &elements.iter().flat_map(element).collect::<Vec<u8>>());
        let (_, name) = X509Name::from_der(&name).unwrap();
        CertificateIdentity::new(&name, &CertificateDer::from(b"a certificate".as_slice())).user()
    }

    #[test]
    fn subject_becomes_a_user_as_in_kubernetes() {
        let bob = [
            (COMMON_NAME, TEXT, "alice"),
            (ORGANIZATION, TEXT, "devs"),
            (USER_ID, TEXT, "4711"),
            (ORGANIZATION, TEXT, "ops"),
            (COMMON_NAME, TEXT, "bob"),
        ];
        let id = "X509SHA256=81acd762140fa692a142822d2fbe4dc6f54bcaa501f68ab37e5aeed0bafe4d99";
        let user_bob = user(&bob).unwrap().unwrap();
        assert_eq!((user_bob.name.as_str(), user_bob.uid.as_str()), ("bob", "4711"));
        assert_eq!(user_bob.groups, ["devs", "ops"]);
        assert_eq!(user_bob.extra[CREDENTIAL_ID], [id]);
        assert_eq!(user(&[(COMMON_NAME, TEXT, "carol")]).unwrap().unwrap().uid, "");
        assert_eq!(
            user(&[(ORGANIZATION, TEXT, "system:masters")]),
            Ok(None),
            "a certificate without a common name has no user"
        );
        for uids in [
            &[(USER_ID, TEXT, "")][..],
            &[(USER_ID, NUMBER, "1")],
            &[(USER_ID, TEXT, "1"), (USER_ID, TEXT, "2")],
        ] {
            assert_eq!(user(&[&bob[..1], uids].concat()), Err(ClientCertificateError::Uid), "{uids:?}");
        }
    }

    #[test]
    fn bundle_with_an_error_is_refused() {
        let ca = testkit::pki::Authority::new("ca").pem();
        assert!(ClientCa::from_pem(format!("# two\n{ca}{ca}").as_bytes()).is_ok());
        for (text, expected) in [
            (String::new(), "it has no certificate in PEM"),
            ("nonsense".to_owned(), "it has no certificate in PEM"),
            (ca[..200].to_owned(), "it is not PEM: "),
            (format!("{ca}{}", &ca[..200]), "it is not PEM: "),
            (
                format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "a certificate in it is not usable: ",
            ),
        ] {
            let error = ClientCa::from_pem(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
