//! HTTP client for the API servers of members and of the control plane: connecting, connection pools, and the progress of
//! each attempt.

pub mod credentials;
pub mod dial;
pub mod environment;
pub mod error;
mod http1_connections;
mod pool;
mod progress;
mod request_slots;
pub mod signatures;
mod timer;
pub mod tls;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::response::Parts;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::Semaphore;

use credentials::Credentials;
use dial::Dialer;
use error::Processed;
pub use error::SendError;
use pool::{Lease, Pool};
pub use progress::{Progress, Stage};
use tls::TlsConfigError;

/// How many times a request is sent at most. Each try uses another connection.
const MAX_TRIES: usize = 3;

/// Settings of the connections to an API server.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Maximum number of HTTP/1.1 connections. HTTP/2 needs only one connection.
    pub connections: usize,
    /// Connections and streams are divided into this number of shares, so that no kind of request can use all of them.
    pub shares: usize,
    /// The timeout to connect, including the TLS handshake.
    pub connect_timeout: Duration,
    /// How a dead peer is detected.
    pub liveness: Liveness,
    /// Limits concurrent TLS handshakes.
    pub handshakes: Arc<Semaphore>,
}

/// How a dead peer is detected: over HTTP/2 with a ping, over HTTP/1.1 with a request on another connection.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// The time without a frame until a ping is sent, and the timeout of the ping. Only while requests are in flight.
    pub ping: (Duration, Duration),
    /// The time without a response until `/livez` is requested, and the timeout of that request.
    pub probe: (Duration, Duration),
}

/// The connections to one API server with one set of credentials.
pub struct Transport {
    credentials: Credentials,
    liveness: Liveness,
    pool: Pool,
}

/// The body of a response. When the body has been read completely, the connection is free for the next request. Dropping the
/// body earlier cancels the request.
pub struct TransportBody {
    incoming: Incoming,
    lease: Option<Lease>,
    max_silence: Duration,
}

impl Liveness {
    /// The longest time until an HTTP/2 connection to a dead peer is detected: interval and timeout of the ping.
    fn max_silence(&self) -> Duration {
        self.ping.0 + self.ping.1
    }
}

impl Transport {
    /// Creates a transport without connections.
    ///
    /// # Errors
    /// If the endpoint, the CA bundle or the proxy is invalid.
    pub fn new(credentials: Credentials, settings: &TransportSettings) -> Result<Self, TlsConfigError> {
        let dialer = Dialer::new(&credentials, settings.handshakes.clone(), settings.connect_timeout)?;
        let liveness = settings.liveness;
        let pool = Pool::new(dialer, settings.connections, settings.shares, liveness);
        Ok(Self { credentials, liveness, pool })
    }

    /// The credentials of these connections.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Sends a request and waits for the head of the response. The URI of the request must be absolute. Redirects are not
    /// followed. A request that the server did not process is sent again on another connection, three times in total. A
    /// request that the server may have processed is sent a second time if its connection was used before and its method is
    /// safe, as in Go's `http.Transport`. Dropping the future cancels the request.
    ///
    /// # Errors
    /// If there is no connection, or the connection breaks. There is no timeout: the caller sets one. After that timeout,
    /// `progress` has the reason why there is no response.
    pub async fn send(
        &self,
        request: impl Fn() -> Request<Full<Bytes>>,
        share: usize,
        progress: &Progress,
    ) -> Result<Response<TransportBody>, SendError> {
        let mut priority = None;
        let mut tries = 0;
        loop {
            let mut lease = self.pool.lease(share, priority.as_ref(), progress).await?;
            progress.set(Stage::Sent);
            tries += 1;
            let request = request();
            let is_safe = request.method().is_safe();
            let response = lease.send(request);
            drop(priority.take());
            let error = match self.with_liveness_check(response).await? {
                Ok(response) => {
                    progress.set(Stage::Reading);
                    let max_silence = self.liveness.max_silence();
                    return Ok(response.map(|incoming| TransportBody {
                        incoming,
                        lease: Some(lease),
                        max_silence,
                    }));
                }
                Err(error) => error,
            };
            let processed = Processed::of(&error);
            let retry = match processed {
                Processed::No => tries < MAX_TRIES,
                Processed::Maybe => tries == 1 && lease.is_reused() && is_safe,
                Processed::Yes => false,
            };
            if processed != Processed::Yes {
                lease.retire();
            }
            if !retry {
                return Err(SendError::of(&error, self.liveness.max_silence()));
            }
            priority = Some(self.pool.prioritize_retry(share));
        }
    }

    /// Sends a GET on a separate connection and returns the head of the response. The limits for connections and requests do
    /// not apply. The limit for TLS handshakes applies.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn head(&self, path: &str) -> Result<Parts, SendError> {
        self.pool.head(self.pool.handshake_permit().await, self.request(self.uri(path)?)).await
    }

    /// The absolute URI of a path below the endpoint. The path is percent-encoded.
    ///
    /// # Errors
    /// If the path contains characters that are not allowed in a path.
    pub fn uri(&self, path: &str) -> Result<Uri, SendError> {
        self.credentials.endpoint.uri(path).map_err(|error| SendError::Url(error.to_string()))
    }

    /// A GET with these credentials and without a body.
    pub fn request(&self, uri: Uri) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        if let Some(token) = &self.credentials.user.token {
            request.headers_mut().insert(AUTHORIZATION, token.authorization());
        }
        request
    }

    /// Waits for `work` on a response. HTTP/1.1 has no ping: a request on another connection checks that the server responds.
    ///
    /// # Errors
    /// If the server does not respond.
    pub async fn with_liveness_check<T>(&self, work: impl Future<Output = T>) -> Result<T, SendError> {
        let mut work = std::pin::pin!(work);
        if !self.pool.speaks_http1() {
            return Ok(work.await);
        }
        let (after, within) = self.liveness.probe;
        let dead = async {
            tokio::time::sleep(after).await;
            // The wait for a handshake permit does not count: it depends on this process, not on the server.
            let permit = self.pool.handshake_permit().await;
            let probe = async { self.pool.head(permit, self.request(self.uri("/livez")?)).await };
            match tokio::time::timeout(within, probe).await {
                Ok(Ok(_)) => std::future::pending().await,
                Ok(Err(_)) | Err(_) => SendError::NoAnswer(after + within),
            }
        };
        tokio::select! {
            done = &mut work => Ok(done),
            error = dead => Err(error),
        }
    }
}

impl hyper::body::Body for TransportBody {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
            Some(Err(error)) => {
                if let Some(lease) = self.lease.take()
                    && Processed::of(&error) != Processed::Yes
                {
                    lease.retire();
                }
                return Poll::Ready(Some(Err(SendError::of(&error, self.max_silence))));
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
        };
        if (frame.is_none() || self.incoming.is_end_stream())
            && let Some(lease) = self.lease.take()
        {
            lease.release();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use credentials::{Endpoint, ServerVerification, UserCredentials};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A transport to an endpoint, and its handshake permits: there are none at first.
    fn without_permits(endpoint: &str) -> (Transport, Arc<Semaphore>) {
        let credentials = Credentials {
            endpoint: Endpoint::parse(endpoint).unwrap(),
            user: UserCredentials::default(),
            verification: ServerVerification::AnyCertificate,
            server_name: None,
            proxy: None,
        };
        let minute = Duration::from_secs(60);
        let handshakes = Arc::new(Semaphore::new(0));
        let settings = TransportSettings {
            connections: 2,
            shares: 1,
            connect_timeout: minute,
            liveness: Liveness { ping: (minute, minute), probe: (minute, minute) },
            handshakes: handshakes.clone(),
        };
        (Transport::new(credentials, &settings).unwrap(), handshakes)
    }

    #[tokio::test]
    async fn failure_of_an_abandoned_request_is_not_reported_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (transport, handshakes) = without_permits(&format!("https://{}", listener.local_addr().unwrap()));
        let (uri, progress) = (transport.uri("/").unwrap(), Progress::default());
        let request = || transport.request(uri.clone());
        let abandoned =
            tokio::time::timeout(Duration::from_millis(200), transport.send(request, 0, &progress));
        assert!(abandoned.await.is_err());
        handshakes.add_permits(1);
        drop(listener.accept().await.unwrap());
        // The permit is returned when the connection has failed.
        drop(handshakes.acquire().await.unwrap());
        tokio::select! {
            accepted = listener.accept() => drop(accepted.unwrap()),
            result = transport.send(request, 0, &progress) => panic!("no new connection: {:?}", result.err()),
        }
    }

    /// Accepts the next connection and reads one request.
    async fn request_on(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream
    }

    #[tokio::test]
    async fn failed_connection_is_retried_while_another_is_busy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (transport, handshakes) = without_permits(&format!("http://{address}"));
        handshakes.add_permits(1);
        let (uri, progress) = (transport.uri("/").unwrap(), Progress::default());
        let request = || transport.request(uri.clone());
        let mut first = std::pin::pin!(transport.send(request, 0, &progress));
        let busy = tokio::select! {
            busy = request_on(&listener) => busy,
            _ = &mut first => unreachable!("there is no response"),
        };
        drop(listener);
        let second_progress = Progress::default();
        let second = transport.send(request, 0, &second_progress);
        let serving = async {
            for stage in [Stage::Connecting, Stage::Waiting] {
                while second_progress.stage() != stage {
                    tokio::task::yield_now().await;
                }
            }
            let listener = TcpListener::bind(address).await.unwrap();
            let mut stream = request_on(&listener).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let both = async { tokio::join!(second, serving).0 };
        let response =
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("the connection is retried");
        assert_eq!(response.unwrap().status(), http::StatusCode::NO_CONTENT);
        drop(busy);
    }

    #[tokio::test]
    async fn request_without_handshake_permit_is_waiting() {
        let (transport, handshakes) = without_permits("https://127.0.0.1:1");
        let (uri, progress) = (transport.uri("/").unwrap(), Progress::default());
        let sending = transport.send(|| transport.request(uri.clone()), 0, &progress);
        let mut sending = std::pin::pin!(sending);
        let short = Duration::from_millis(200);
        assert!(tokio::time::timeout(short, &mut sending).await.is_err());
        assert_eq!(progress.stage(), Stage::Waiting);
        handshakes.add_permits(1);
        let error = sending.await.err().expect("nothing listens there");
        assert_eq!((error.cause().name(), progress.stage()), ("ConnectionRefused", Stage::Connecting));
    }
}
