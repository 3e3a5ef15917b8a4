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

const DEFAULT_SERVICE: &str = "karmada-metrics-adapter";
/// Timeout for the connection and the TLS handshake with an address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DAY: i64 = 24 * 60 * 60;

/// The certificates of a file or an address.
struct SourceCertificates {
    chain: Vec<CertificateDer<'static>>,
    /// Whether the first certificate is a server's certificate.
    is_served: bool,
}

/// The content of a certificate, and its problems.
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
    /// Whole days until it expires. Negative if it is expired.
    days_left: i64,
    /// The server name that the aggregation layer uses.
    service_name: String,
    covers_service: bool,
    problems: Vec<CertificateProblem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum CertificateProblem {
    NotYetValid,
    Expired,
    #[serde(rename = "EndsSoon")]
    ExpiresSoon,
    #[serde(rename = "LacksServiceName")]
    ServiceNameMissing,
}

/// Why `certs show` fails.
#[derive(Debug, Error)]
pub enum ShowError {
    /// The result cannot be printed.
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
    /// The certificates of some sources cannot be read. Contains each source with its reason.
    #[error("{0}")]
    Sources(String),
    /// Some certificates have problems. Contains their number and the number of all certificates.
    #[error("{0} of {1} certificates have problems: see the column STATUS")]
    Problems(usize, usize),
}

/// Why the certificates of a source cannot be read.
#[derive(Debug, Error)]
enum SourceError {
    #[error("this file does not exist, and this is not HOST:PORT")]
    Nothing,
    #[error("cannot read the file: {0}")]
    File(io::Error),
    #[error("no certificate in PEM")]
    NoCertificate,
    #[error("invalid certificate")]
    Malformed,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("no TLS handshake within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the host is not a valid TLS server name")]
    Name,
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Prints the certificates of all sources.
///
/// # Errors
/// If the certificates of a source cannot be read, or a certificate has a problem.
pub async fn run(flags: &CertsShowFlags) -> Result<(), ShowError> {
    let sources = join_all(flags.sources.iter().map(|source| async move {
        let name = source.display().to_string();
        match certificates(source, flags).await.and_then(|found| reports(&name, &found, flags)) {
            Ok(reports) => Ok(reports),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }));
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for source in sources.await {
        match source {
            Ok(found) => reports.extend(found),
            Err(failure) => failures.push(failure),
        }
    }
    match flags.output {
        Some(OutputFormat::Json) => {
            let json = serde_json::to_string_pretty(&reports).expect("strings and numbers are valid JSON");
            print(&(json + "\n"))?;
        }
        None if reports.is_empty() => {}
        None => print(&table(&rows(&reports)))?,
    }
    let bad = reports.iter().filter(|report| !report.problems.is_empty()).count();
    match (failures.is_empty(), bad) {
        (false, _) => Err(ShowError::Sources(failures.join("; "))),
        (true, 0) => Ok(()),
        (true, bad) => Err(ShowError::Problems(bad, reports.len())),
    }
}

/// Reads the certificates of a file, or those that a server at an address presents.
async fn certificates(source: &OsStr, flags: &CertsShowFlags) -> Result<SourceCertificates, SourceError> {
    let path = Path::new(source);
    match fs::read(path) {
        Ok(pem) => {
            let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
            if chain.is_empty() {
                Err(SourceError::NoCertificate)
            } else {
                Ok(SourceCertificates { chain, is_served: false })
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let address = source.to_str().and_then(host_and_port).ok_or(SourceError::Nothing)?;
            let presented = tokio::time::timeout(CONNECT_TIMEOUT, served_chain(address, flags)).await;
            Ok(SourceCertificates { chain: presented.map_err(|_| SourceError::Timeout)??, is_served: true })
        }
        Err(error) => Err(SourceError::File(error)),
    }
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

/// Connects as the aggregation layer does. The server name is that of `--service`, or else the host. Any certificate is
/// accepted.
async fn served_chain(
    (host, port): (&str, u16),
    flags: &CertsShowFlags,
) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let server_name = flags.service.as_ref().map(|service| service_name(service, &flags.namespace));
    let server_name = server_name.unwrap_or_else(|| host.to_owned());
    let server_name = ServerName::try_from(server_name).map_err(|_| SourceError::Name)?;
    let connector = TlsConnector::from(Arc::new(client_config(&ServerVerification::AnyCertificate)?));
    let stream = TcpStream::connect((host, port)).await.map_err(SourceError::Connect)?;
    let stream = connector.connect(server_name, stream).await.map_err(SourceError::Handshake)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

fn reports(
    source: &str,
    found: &SourceCertificates,
    flags: &CertsShowFlags,
) -> Result<Vec<CertificateReport>, SourceError> {
    let each = found.chain.iter().enumerate();
    each.map(|(index, der)| report(source, der, found.is_served && index == 0, flags)).collect()
}

fn report(
    source: &str,
    der: &CertificateDer<'_>,
    is_served: bool,
    flags: &CertsShowFlags,
) -> Result<CertificateReport, SourceError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| SourceError::Malformed)?;
    let period = certificate.validity();
    let (from, until) = (period.not_before.timestamp(), period.not_after.timestamp());
    let is_ca = certificate.is_ca();
    let service_name = service_name(flags.service.as_deref().unwrap_or(DEFAULT_SERVICE), &flags.namespace);
    let covers_service = covers(der, &service_name);
    let now = now();
    let notice = i64::try_from(flags.warn.as_secs()).unwrap_or(i64::MAX);
    let mut problems = Vec::new();
    if now < from {
        problems.push(CertificateProblem::NotYetValid);
    }
    match until - now {
        ..=0 => problems.push(CertificateProblem::Expired),
        left if left <= notice => problems.push(CertificateProblem::ExpiresSoon),
        _ => {}
    }
    // A CA certificate in a file does not need the Service's name.
    if flags.service.is_some() && (is_served || !is_ca) && !covers_service {
        problems.push(CertificateProblem::ServiceNameMissing);
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

/// Whether the certificate is valid for this name. The common name is ignored, as in Go's `VerifyHostname`.
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

fn rows(reports: &[CertificateReport]) -> Vec<[String; 9]> {
    let heading = ["SOURCE", "SUBJECT", "ISSUER", "FROM", "UNTIL", "DAYS", "SERVICE", "STATUS", "NAMES"];
    let row = |certificate: &CertificateReport| {
        let problems = certificate.problems.iter().map(|problem| match problem {
            CertificateProblem::NotYetValid => "not yet valid".to_owned(),
            CertificateProblem::Expired => "expired".to_owned(),
            CertificateProblem::ExpiresSoon => "expires soon".to_owned(),
            CertificateProblem::ServiceNameMissing => format!("not valid for {}", certificate.service_name),
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
    [heading.map(str::to_owned)].into_iter().chain(reports.iter().map(row)).collect()
}
