//! A ready path in, bytes out: one member's API server over a pinned, pooled client.
//!
//! The protocol is settled by one handshake that offers both, and pinned: a client that negotiates for each request
//! cannot share a connection that is still being made, and opens dozens under a burst. It is settled again after a
//! failed connect, so that an API server behind a new load balancer is not lost.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::{Mutex, Semaphore};

use super::credentials::Credentials;
use super::failure::Failure;
use super::route::{Bounds, Dialer, Protocol, Route};
use super::tls::{TrustError, client_config};
use crate::config::Rate;

/// How many requests one HTTP/2 connection carries at a time; Go's servers allow 250 streams.
const STREAMS: usize = 200;
/// HTTP/2: after how long without a frame a ping asks whether the other end is alive, while streams are open.
const PING_AFTER: Duration = Duration::from_secs(1);
/// HTTP/2: how long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an idle connection is kept; scaling controllers ask every 15 s.
const IDLE: Duration = Duration::from_secs(90);

/// Limits that all transports share or take from the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections to one member; with HTTP/2 one is enough unless the member closes it.
    pub connections: usize,
    /// How long connecting and the TLS handshake may take.
    pub connect_timeout: Duration,
    /// How long one answer's body may be, in bytes.
    pub body_bytes: usize,
    /// Members that shake hands at a time.
    pub handshakes: Arc<Semaphore>,
    /// How often one member is asked; `None` for as often as clients ask.
    pub rate: Option<Rate>,
}

/// The way to one member with one set of credentials.
pub struct Transport {
    credentials: Credentials,
    route: Route,
    tls: ClientConfig,
    limits: Limits,
    pinned: ArcSwapOption<Pinned>,
    settling: Mutex<()>,
}

/// An answer of a member, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type, without parameters, in lower case.
    pub content_type: String,
    /// The whole body.
    pub body: Bytes,
}

/// A client whose protocol is settled.
struct Pinned {
    client: legacy::Client<Dialer, Empty<Bytes>>,
    permits: Semaphore,
}

impl Transport {
    /// A transport; nothing is dialled yet.
    ///
    /// # Errors
    /// If the CA bundle or the proxy cannot be used.
    pub fn new(credentials: Credentials, limits: Limits) -> Result<Self, TrustError> {
        Ok(Self {
            route: Route::new(credentials.proxy.as_ref())?,
            tls: client_config(&credentials.trust)?,
            credentials,
            limits,
            pinned: ArcSwapOption::empty(),
            settling: Mutex::new(()),
        })
    }

    /// What it was made of.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Asks for a path below the endpoint, encoded already, and reads the whole answer. Redirects are not followed.
    /// Dropping the future cancels the request.
    ///
    /// # Errors
    /// If there is no connection, it breaks, or the body is too long.
    pub async fn get(&self, path: &str, accept: &'static str) -> Result<Reply, Failure> {
        let pinned = self.pinned().await?;
        let _permit = pinned.permits.acquire().await.map_err(|_| Failure::Busy)?;
        let mut response = pinned.client.request(self.request(path, accept)?).await;
        // A connection that was idle may have been closed meanwhile, which shows only now: as Go's
        // `http.Transport` does, the request is sent once more. A ping that was not answered is another matter.
        if response.as_ref().is_err_and(|error| !error.is_connect() && !timed_out(error)) {
            response = pinned.client.request(self.request(path, accept)?).await;
        }
        let response = response.map_err(|error| {
            if error.is_connect() {
                self.unpin(&pinned);
                return Failure::Connect(root_cause(&error));
            }
            Failure::Lost(root_cause(&error))
        })?;
        self.read(response).await
    }

    fn request(&self, path: &str, accept: &'static str) -> Result<Request<Empty<Bytes>>, Failure> {
        let uri = self.credentials.endpoint.uri(path).map_err(|error| Failure::Connect(error.to_string()))?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(AUTHORIZATION, self.credentials.token.authorization());
        headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        Ok(request)
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Reply, Failure> {
        let (head, mut body) = response.into_parts();
        let limit = self.limits.body_bytes;
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: usize| length > limit) {
            return Err(Failure::TooLarge(limit));
        }
        let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Lost(root_cause(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Failure::TooLarge(limit));
            }
            bytes.extend_from_slice(&data);
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        Ok(Reply { status: head.status, content_type: media_type, body: bytes.freeze() })
    }

    /// The client, whose protocol the first caller settles while the others wait.
    async fn pinned(&self) -> Result<Arc<Pinned>, Failure> {
        if let Some(pinned) = self.pinned.load_full() {
            return Ok(pinned);
        }
        let _settling = self.settling.lock().await;
        if let Some(pinned) = self.pinned.load_full() {
            return Ok(pinned);
        }
        let pinned = Arc::new(self.settle().await?);
        self.pinned.store(Some(pinned.clone()));
        Ok(pinned)
    }

    async fn settle(&self) -> Result<Pinned, Failure> {
        let uri = self.credentials.endpoint.uri("/").map_err(|error| Failure::Connect(error.to_string()))?;
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let dialing = self.dialer(Protocol::Either, &connections).dial(uri).await;
        let connection = dialing.map_err(|error| Failure::Connect(root_cause(error.as_ref())))?;
        let http2 = connection.speaks_http2();
        let dialer = self.dialer(if http2 { Protocol::Http2 } else { Protocol::Http1 }, &connections);
        dialer.keep(connection);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(self.limits.connections)
            .http2_only(http2)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(false)
            .http2_adaptive_window(true)
            .build(dialer);
        Ok(Pinned { client, permits: Semaphore::new(if http2 { STREAMS } else { self.limits.connections }) })
    }

    fn unpin(&self, failed: &Arc<Pinned>) {
        let current = self.pinned.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            self.pinned.compare_and_swap(&current, None);
        }
    }

    fn dialer(&self, protocol: Protocol, connections: &Arc<Semaphore>) -> Dialer {
        let bounds = Bounds {
            connections: connections.clone(),
            handshakes: self.limits.handshakes.clone(),
            timeout: self.limits.connect_timeout,
        };
        Dialer::new(self.route.clone(), self.tls.clone(), protocol, bounds)
    }
}

/// Whether a ping was not answered in time.
fn timed_out(error: &legacy::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_timeout)
}

/// The innermost error: the layers above it say only that something failed.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(error) = cause.downcast_ref::<hyper::Error>()
            && error.is_timeout()
        {
            return "it did not answer a ping in time".to_owned();
        }
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::UnexpectedEof
        {
            return "the other end closed it".to_owned();
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return cause.to_string(),
        }
    }
}
