//! A client that sees an answer while it comes, on a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testkit::member::Access;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Asks over HTTP/1.1 and returns with the head of the answer.
pub async fn open(access: &Access, path: &str) -> Response<Incoming> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(access.ca_pem.as_bytes()).unwrap()).unwrap();
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let address = access.endpoint.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .uri(path)
        .header(HOST, address)
        .header(AUTHORIZATION, format!("Bearer {}", access.token))
        .body(Empty::<Bytes>::new());
    sender.send_request(request.unwrap()).await.unwrap()
}
