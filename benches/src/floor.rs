//! The floor: the minimum cost of a query.
//!
//! The floor sends the same requests as the adapter, with the same protocol, TLS suites, windows and number of connections, and
//! forwards the received DATA frames without a copy. It does no parsing, no merging and no access control.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{ACCEPT, AUTHORIZATION};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};
use testkit::pki::{self, Identity};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The `Accept` of the adapter's requests to members.
const MEMBER_ACCEPT: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf,application/json");

/// HTTP/2 windows in bytes of a stream and of a connection, as in `src/transport/pool.rs`.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// The `User-Agent` of its requests to members.
pub const USER_AGENT: &str = "floor";

/// The floor's configuration file.
#[derive(Serialize, Deserialize)]
pub struct Config {
    /// Its serving certificate, PEM.
    pub certificate: String,
    /// The certificate's key, PEM.
    pub key: String,
    /// The members.
    pub members: Vec<Upstream>,
    /// Paths with fixed responses, and their bodies.
    pub documents: Vec<(String, String)>,
}

/// A member.
#[derive(Serialize, Deserialize)]
pub struct Upstream {
    /// `https://127.0.0.1:port`
    pub endpoint: String,
    /// The CA of its serving certificate, PEM.
    pub ca: String,
    /// The bearer token.
    pub token: String,
}

struct Fleet {
    members: Vec<Member>,
    documents: Vec<(String, Bytes)>,
}

/// The only connection to a member.
struct Member {
    sender: SendRequest<Empty<Bytes>>,
    authority: Authority,
    authorization: HeaderValue,
}

/// A response: the frames of all members' responses. Each member's frames follow when its response is complete.
type Frames = BoxStream<'static, anyhow::Result<Frame<Bytes>>>;

/// Connects to all members, then serves on `port` of 127.0.0.1 until the process is killed.
///
/// # Errors
/// If the configuration cannot be read, a member cannot be reached or the port is in use.
pub async fn serve(config: &Path, port: u16) -> anyhow::Result<()> {
    let config = std::fs::read(config).with_context(|| format!("cannot read {}", config.display()))?;
    let config: Config = serde_json::from_slice(&config).context("the configuration is malformed")?;
    let fleet = Arc::new(Fleet {
        members: try_join_all(config.members.iter().map(Upstream::connect)).await?,
        documents: config.documents.into_iter().map(|(path, body)| (path, body.into())).collect(),
    });
    let identity = Identity { certificate: config.certificate, key: config.key };
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.private_key())?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.with_context(|| format!("cannot bind port {port}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, fleet) = (acceptor.clone(), fleet.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let stream = acceptor.accept(stream).await?;
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(&fleet, request.uri());
                async move { Ok::<_, Infallible>(response) }
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_send_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(stream), service)
                .await?;
            anyhow::Ok(())
        });
    }
}

fn answer(fleet: &Fleet, uri: &Uri) -> Response<StreamBody<Frames>> {
    let frames = match fleet.documents.iter().find(|(path, _)| path == uri.path()) {
        Some((_, body)) => stream::iter([Ok(Frame::data(body.clone()))]).boxed(),
        None => {
            let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            let answers: FuturesUnordered<_> =
                fleet.members.iter().map(|member| member.frames(&path)).collect();
            answers.map_ok(|frames| stream::iter(frames).map(Ok)).try_flatten().boxed()
        }
    };
    Response::new(StreamBody::new(frames))
}

impl Member {
    fn frames(&self, path: &PathAndQuery) -> impl Future<Output = anyhow::Result<Vec<Frame<Bytes>>>> + use<> {
        let mut request = Request::new(Empty::new());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(path.clone());
        *request.uri_mut() = Uri::from_parts(uri).expect("the URI has all parts");
        request.headers_mut().insert(ACCEPT, MEMBER_ACCEPT);
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let answer = self.sender.clone().send_request(request);
        async move {
            let answer = answer.await?;
            ensure!(answer.status() == StatusCode::OK, "a member responds with {}", answer.status());
            let mut body = answer.into_body();
            let mut frames = Vec::new();
            while let Some(frame) = body.frame().await {
                frames.push(frame?);
            }
            Ok(frames)
        }
    }
}

impl Upstream {
    async fn connect(&self) -> anyhow::Result<Member> {
        let authority: Authority = self.endpoint.trim_start_matches("https://").parse()?;
        let mut tls =
            ClientConfig::builder().with_root_certificates(pki::roots(&self.ca)?).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(authority.as_str()).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(authority.host().to_owned())?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Member {
            sender,
            authority,
            authorization: HeaderValue::try_from(format!("Bearer {}", self.token))?,
        })
    }
}
