//! The load: clients that send one query after the other over one HTTP/2 connection with the front proxy's certificate, like
//! kube-apiserver's aggregation layer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use testkit::pki::{self, Identity};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// HTTP/2 windows of Go's client in bytes: per stream and per connection.
const WINDOWS: (u32, u32) = (4 << 20, 1 << 30);

/// Time limit for the queries of one run.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// A connection to the measured program.
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    authority: String,
    _driver: AbortOnDropHandle<()>,
}

/// The queries and the number of clients.
pub struct Load {
    /// Paths with queries. Client *n* sends the one at index *n* modulo their number.
    pub paths: Vec<String>,
    /// The value of `Accept`.
    pub accept: HeaderValue,
    /// Number of clients, each with one query at a time.
    pub clients: usize,
}

/// Durations of a number of queries.
pub struct Timing {
    /// From the first request to the end of the last response.
    pub elapsed: Duration,
    /// The duration of each query, in any order.
    pub latencies: Vec<Duration>,
}

impl Connection {
    /// Connects as the front proxy.
    ///
    /// # Errors
    /// If no program listens, or the certificate is not from this CA.
    pub async fn open(address: SocketAddr, ca_pem: &str, front_proxy: &Identity) -> anyhow::Result<Self> {
        let tls = ClientConfig::builder().with_root_certificates(pki::roots(ca_pem)?);
        let mut tls = tls.with_client_auth_cert(front_proxy.chain(), front_proxy.private_key())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, authority: address.to_string(), _driver: AbortOnDropHandle::new(driver) })
    }

    /// The complete body of the response to one query.
    ///
    /// # Errors
    /// If the status is not 200, the response has a `Warning`, or it breaks off.
    pub async fn get(&self, load: &Load) -> anyhow::Result<Bytes> {
        Ok(self.send(&load.paths[0], &load.accept).await?.collect().await?.to_bytes())
    }

    /// Sends this number of queries. Each response must have `length` bytes.
    ///
    /// # Errors
    /// If a response differs, or all queries take longer than three minutes; see also [`Connection::get`].
    pub async fn run(&self, load: &Load, queries: usize, length: usize) -> anyhow::Result<Timing> {
        let sent = AtomicUsize::new(0);
        let begin = Instant::now();
        let client = async |number: usize| {
            let path = &load.paths[number % load.paths.len()];
            let mut latencies = Vec::new();
            while sent.fetch_add(1, Ordering::Relaxed) < queries {
                let begin = Instant::now();
                let received = self.length(path, &load.accept).await?;
                latencies.push(begin.elapsed());
                ensure!(received == length, "{path}: a response of {received} bytes instead of {length}");
            }
            anyhow::Ok(latencies)
        };
        let latencies = timeout(RUN_LIMIT, try_join_all((0..load.clients).map(client))).await;
        let latencies =
            latencies.with_context(|| format!("not all queries ended after {} s", RUN_LIMIT.as_secs()))??;
        Ok(Timing { elapsed: begin.elapsed(), latencies: latencies.concat() })
    }

    async fn length(&self, path: &str, accept: &HeaderValue) -> anyhow::Result<usize> {
        let mut body = self.send(path, accept).await?;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }

    async fn send(&self, path: &str, accept: &HeaderValue) -> anyhow::Result<Incoming> {
        let uri = Uri::builder().scheme("https").authority(self.authority.as_str()).path_and_query(path);
        let request = Request::builder()
            .uri(uri.build()?)
            .header(ACCEPT, accept)
            .header("x-remote-user", "system:serviceaccount:karmada-system:karmada-controller-manager")
            .header("x-remote-group", "system:masters")
            .body(Empty::new())?;
        let response = self.sender.clone().send_request(request).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK || head.headers.contains_key(header::WARNING) {
            let warning = head.headers.get(header::WARNING).cloned();
            let body = body.collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
            bail!("{path}: {} {warning:?} {body}", head.status);
        }
        Ok(body)
    }
}
