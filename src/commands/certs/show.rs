//! `certs show`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::text::{date, service_name};
use crate::cli::commands::{CertsShowFlags, OutputFormat};
use crate::commands::output::print;
use crate::commands::table::table;
use crate::process::expiry::now;
use crate::transport::credentials::ServerVerification;
use crate::transport::tls::{TlsConfigError, client_config};

/// The service whose name is looked for where none is given.
const SERVICE: &str = "karmada-metrics-adapter";
/// How long an address may take to present a certificate.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DAY: i64 = 24 * 60 * 60;

/// The certificates of a source.
struct SourceCertificates {
    chain: Vec<CertificateDer<'static>>,
    /// Whether the first of them is what a server is known by.
    serves: bool,
}

/// What a certificate says, and what is wrong with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateReport {
    /// The file or the address.
    source: String,
    subject: String,
    issuer: String,
    #[serde(rename = "isCA")]
    is_ca: bool,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    /// Whole days until its end; below zero once it has ended.
    days_left: i64,
    /// The name by which the aggregation layer asks.
    service_name: String,
    covers_service: bool,
    problems: Vec<CertificateProblem>,
}

/// Why a certificate does not do, or not for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum CertificateProblem {
    NotYetValid,
    Expired,
    EndsSoon,
    LacksServiceName,
}

/// Why a command that shows certificates fails.
#[derive(Debug, Error)]
pub enum ShowError {
    /// Some sources show none; each with its reason.
    #[error("{0}")]
    Sources(String),
    /// All were shown, and some are not in order.
    #[error("{0} of {1} certificates are not in order: see their status")]
    Problems(usize, usize),
}

/// Why a source shows no certificates.
#[derive(Debug, Error)]
enum SourceError {
    #[error("no such file, and no HOST:PORT either")]
    Nothing,
    #[error("it cannot be read: {0}")]
    File(io::Error),
    #[error("it has no certificate in PEM")]
    NoCertificate,
    #[error("it has a certificate that cannot be read")]
    Malformed,
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("no certificate within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the host is no name that TLS can ask for")]
    Name,
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Prints what the certificates of all sources say.
///
/// # Errors
/// If a source shows none, or one of them is not in order.
pub async fn run(order: &CertsShowFlags) -> Result<(), ShowError> {
    let sources = join_all(order.sources.iter().map(|source| async move {
        let name = source.display().to_string();
        match certificates(source, order).await.and_then(|found| read(&name, &found, order)) {
            Ok(shown) => Ok(shown),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }));
    let (mut shown, mut failures) = (Vec::new(), Vec::new());
    for source in sources.await {
        match source {
            Ok(certificates) => shown.extend(certificates),
            Err(failure) => failures.push(failure),
        }
    }
    match order.output {
        Some(OutputFormat::Json) => {
            print(&(serde_json::to_string_pretty(&shown).expect("texts and numbers are JSON") + "\n"));
        }
        None if shown.is_empty() => {}
        None => print(&table(&rows(&shown))),
    }
    let bad = shown.iter().filter(|certificate| !certificate.problems.is_empty()).count();
    match (failures.is_empty(), bad) {
        (false, _) => Err(ShowError::Sources(failures.join("; "))),
        (true, 0) => Ok(()),
        (true, bad) => Err(ShowError::Problems(bad, shown.len())),
    }
}

/// The certificates of a file, or those that an address presents.
async fn certificates(source: &OsStr, order: &CertsShowFlags) -> Result<SourceCertificates, SourceError> {
    let path = Path::new(source);
    match fs::read(path) {
        Ok(pem) => {
            let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
            if chain.is_empty() {
                Err(SourceError::NoCertificate)
            } else {
                Ok(SourceCertificates { chain, serves: false })
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let address = source.to_str().and_then(host_and_port).ok_or(SourceError::Nothing)?;
            let presented = tokio::time::timeout(CONNECT_TIMEOUT, served_chain(address, order)).await;
            Ok(SourceCertificates { chain: presented.map_err(|_| SourceError::Timeout)??, serves: true })
        }
        Err(error) => Err(SourceError::File(error)),
    }
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

/// Asks as the aggregation layer does for a service that is named, and believes anything.
async fn served_chain(
    (host, port): (&str, u16),
    order: &CertsShowFlags,
) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let asked = order.service.as_ref().map(|service| service_name(service, &order.namespace));
    let asked = asked.unwrap_or_else(|| host.to_owned());
    let asked = ServerName::try_from(asked).map_err(|_| SourceError::Name)?;
    let connector = TlsConnector::from(Arc::new(client_config(&ServerVerification::Anything)?));
    let stream = TcpStream::connect((host, port)).await.map_err(SourceError::Connect)?;
    let stream = connector.connect(asked, stream).await.map_err(SourceError::Handshake)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

fn read(
    source: &str,
    found: &SourceCertificates,
    order: &CertsShowFlags,
) -> Result<Vec<CertificateReport>, SourceError> {
    let each = found.chain.iter().enumerate();
    each.map(|(index, der)| shown(source, der, found.serves && index == 0, order)).collect()
}

fn shown(
    source: &str,
    der: &CertificateDer<'_>,
    serves: bool,
    order: &CertsShowFlags,
) -> Result<CertificateReport, SourceError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| SourceError::Malformed)?;
    let period = certificate.validity();
    let (from, until) = (period.not_before.timestamp(), period.not_after.timestamp());
    let is_ca = certificate.is_ca();
    let service_name = service_name(order.service.as_deref().unwrap_or(SERVICE), &order.namespace);
    let covers_service = covers(der, &service_name);
    let now = now();
    let notice = i64::try_from(order.warn.as_secs()).unwrap_or(i64::MAX);
    let mut problems = Vec::new();
    if now < from {
        problems.push(CertificateProblem::NotYetValid);
    }
    match until - now {
        ..=0 => problems.push(CertificateProblem::Expired),
        left if left <= notice => problems.push(CertificateProblem::EndsSoon),
        _ => {}
    }
    // An authority that a file holds beside it needs no such name.
    if order.service.is_some() && (serves || !is_ca) && !covers_service {
        problems.push(CertificateProblem::LacksServiceName);
    }
    Ok(CertificateReport {
        source: source.to_owned(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        is_ca,
        names: names(&certificate),
        not_before: date(from),
        not_after: date(until),
        days_left: (until - now).div_euclid(DAY),
        service_name,
        covers_service,
        problems,
    })
}

/// Whether a client that asks for this name would take the certificate for it, as Go's `VerifyHostname` does: the common
/// name does not count.
fn covers(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            (*name).to_owned()
        }
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(bytes) => std::net::Ipv4Addr::from(bytes).to_string(),
            Err(_) => match <[u8; 16]>::try_from(*bytes) {
                Ok(bytes) => std::net::Ipv6Addr::from(bytes).to_string(),
                Err(_) => name.to_string(),
            },
        },
        _ => name.to_string(),
    };
    names.value.general_names.iter().map(text).collect()
}

fn rows(shown: &[CertificateReport]) -> Vec<[String; 9]> {
    let heading = ["SOURCE", "SUBJECT", "ISSUER", "FROM", "UNTIL", "DAYS", "SERVICE", "STATUS", "NAMES"];
    let row = |certificate: &CertificateReport| {
        let problems = certificate.problems.iter().map(|problem| match problem {
            CertificateProblem::NotYetValid => "not yet valid".to_owned(),
            CertificateProblem::Expired => "expired".to_owned(),
            CertificateProblem::EndsSoon => "ends soon".to_owned(),
            CertificateProblem::LacksServiceName => format!("lacks {}", certificate.service_name),
        });
        let status = problems.collect::<Vec<_>>().join(", ");
        [
            certificate.source.clone(),
            certificate.subject.clone(),
            certificate.issuer.clone(),
            certificate.not_before.clone(),
            certificate.not_after.clone(),
            certificate.days_left.to_string(),
            match (certificate.covers_service, certificate.is_ca) {
                (true, _) => "yes",
                (false, true) => "-",
                (false, false) => "no",
            }
            .to_owned(),
            if status.is_empty() { "ok".to_owned() } else { status },
            certificate.names.join(","),
        ]
    };
    [heading.map(str::to_owned)].into_iter().chain(shown.iter().map(row)).collect()
}
