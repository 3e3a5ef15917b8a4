//! A certificate that a client has shown: a different thing from an identity until its chain is verified.

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

/// The certificate chain of one connection; the handshake has proved that the client holds its key.
#[derive(Debug)]
pub struct ClientChain {
    chain: Vec<CertificateDer<'static>>,
    /// What is known so far, for each authority that still counts.
    verdicts: Mutex<Vec<Verification>>,
}

/// A set of authorities that client certificates are checked against.
#[derive(Debug)]
pub struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
    end: Option<i64>,
}

/// Whom a verified certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The common name; empty if it has none.
    pub common_name: String,
    /// The organizations.
    pub organizations: Vec<String>,
    /// The elements that Kubernetes reads as a user's uid; `None` for one that is no text.
    uids: Vec<Option<String>>,
    /// The certificate's SHA-256 in hexadecimal.
    fingerprint: String,
}

/// Why a certificate is no identity.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ClientCertificateError {
    /// The chain, a date or the usage does not hold.
    #[error("{0}")]
    Chain(rustls::Error),
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// The name is not among those that a front proxy may have.
    #[error("the common name {0:?} is not an allowed front proxy (--requestheader-allowed-names)")]
    NameNotAllowed(String),
    /// There is a uid, and it is not one text with something in it.
    #[error("the subject's uid ({UID}) is empty, no text or there more than once")]
    Uid,
}

/// Why a bundle is no authority.
#[derive(Debug, Error)]
pub enum ClientCaError {
    /// There is no certificate in it.
    #[error("it has no certificate in PEM")]
    Empty,
    /// It breaks off, or what is in it is no PEM.
    #[error("it is no PEM: {0}")]
    Pem(#[from] pem::Error),
    /// One of its certificates cannot be read.
    #[error("a certificate in it cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// rustls refuses it.
    #[error("it cannot be used: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// What an authority says of a chain.
#[derive(Debug)]
struct Verification {
    of: Weak<ClientCa>,
    /// When the next date in the chain passes, in seconds since 1970; the verdict says nothing from then on.
    until: u64,
    subject: Result<CertificateIdentity, ClientCertificateError>,
}

/// The object identifier of a user's uid in a subject (`k8s.io/apiserver/pkg/apis/asn1.X509UID`).
const UID: &str = "1.3.6.1.4.1.57683.2";
/// Under which key a user's extra information names the certificate (`user.CredentialIDKey`).
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

impl ClientChain {
    /// The chain that a client has shown; `None` if it has shown none.
    pub fn new(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let chain: Vec<_> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        (!chain.is_empty()).then(|| Self { chain, verdicts: Mutex::default() })
    }

    /// The subject, once the chain has been verified against `authority`: once for a connection, and anew when the
    /// authority has changed or a date in the chain has passed.
    ///
    /// # Errors
    /// If the chain does not hold.
    pub fn verify(&self, authority: &Arc<ClientCa>) -> Result<CertificateIdentity, ClientCertificateError> {
        let now = UnixTime::now();
        let mut verdicts = self.verdicts.lock().expect("no holder panics");
        // A weak reference keeps the address from being given to the next authority.
        let is_known = |verdict: &&Verification| {
            std::ptr::eq(verdict.of.as_ptr(), Arc::as_ptr(authority)) && now.as_secs() < verdict.until
        };
        if let Some(known) = verdicts.iter().find(is_known) {
            return known.subject.clone();
        }
        let subject = self.check(authority, now);
        verdicts.retain(|verdict| {
            verdict.of.strong_count() > 0 && !std::ptr::eq(verdict.of.as_ptr(), Arc::as_ptr(authority))
        });
        verdicts.push(Verification {
            of: Arc::downgrade(authority),
            until: self.next_date(now),
            subject: subject.clone(),
        });
        subject
    }

    fn check(
        &self,
        authority: &ClientCa,
        now: UnixTime,
    ) -> Result<CertificateIdentity, ClientCertificateError> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(ClientCertificateError::Malformed)?;
        authority
            .verifier
            .verify_client_cert(leaf, intermediates, now)
            .map_err(ClientCertificateError::Chain)?;
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| ClientCertificateError::Malformed)?;
        Ok(CertificateIdentity::new(certificate.subject(), leaf))
    }

    /// The next time at which a certificate of the chain becomes or ceases to be valid.
    fn next_date(&self, now: UnixTime) -> u64 {
        let certificates = self.chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        let dates = certificates.flat_map(|(_, certificate)| {
            let validity = certificate.validity();
            // A certificate is still valid in the last second.
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
    /// If it has no certificate, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ClientCaError> {
        let mut roots = RootCertStore::empty();
        let mut end = None;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate?;
            end = end.max(expiry::end(&certificate));
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(ClientCaError::Empty);
        }
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { verifier, end })
    }

    /// When the last of its certificates ends, in seconds since 1970.
    pub fn end(&self) -> Option<i64> {
        self.end
    }
}

impl CertificateIdentity {
    fn new(name: &X509Name<'_>, certificate: &CertificateDer<'_>) -> Self {
        let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let uids = name.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == UID);
        let digest = digest::digest(&digest::SHA256, certificate);
        Self {
            // Of several the last counts, as in Go.
            common_name: name.iter_common_name().filter_map(text).last().unwrap_or_default(),
            organizations: name.iter_organization().filter_map(text).collect(),
            uids: uids.map(text).collect(),
            fingerprint: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The user who holds the certificate: the common name, with the organizations as groups; `None` without a
    /// common name (`x509.CommonNameUserConversion` of Kubernetes 1.36).
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
    fn a_subject_names_a_user_as_in_kubernetes() {
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
        assert_eq!(user(&[(ORGANIZATION, TEXT, "system:masters")]), Ok(None), "no name is nobody");
        for uids in [
            &[(USER_ID, TEXT, "")][..],
            &[(USER_ID, NUMBER, "1")],
            &[(USER_ID, TEXT, "1"), (USER_ID, TEXT, "2")],
        ] {
            assert_eq!(user(&[&bob[..1], uids].concat()), Err(ClientCertificateError::Uid), "{uids:?}");
        }
    }

    #[test]
    fn a_bundle_is_refused_as_a_whole() {
        let ca = testkit::pki::Authority::new("ca").pem();
        assert!(ClientCa::from_pem(format!("# two\n{ca}{ca}").as_bytes()).is_ok());
        for (text, complaint) in [
            (String::new(), "it has no certificate in PEM"),
            ("nonsense".to_owned(), "it has no certificate in PEM"),
            (ca[..200].to_owned(), "it is no PEM: "),
            (format!("{ca}{}", &ca[..200]), "it is no PEM: "),
            (
                format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "a certificate in it cannot be used: ",
            ),
        ] {
            let error = ClientCa::from_pem(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(complaint), "{error}");
        }
    }
}
