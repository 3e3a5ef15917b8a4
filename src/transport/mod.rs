//! HTTP to API servers, of members and of the control plane: how they are dialled, the connections to each, and how far an
//! attempt at a request has come.

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

/// How often a request is sent at most, each time on another connection.
const TRIES: usize = 3;

/// How an API server is connected to.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Most connections over HTTP/1.1; with HTTP/2 one is enough.
    pub connections: usize,
    /// The number of shares into which connections and streams are divided, so that no kind of request can take all.
    pub shares: usize,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How it is found out that nobody is at the other end any more.
    pub liveness: Liveness,
    /// Bounds how many TLS handshakes go on at a time.
    pub handshakes: Arc<Semaphore>,
}

/// How it is found out that nobody is at the other end of a connection any more: by a ping over HTTP/2, and by a request
/// on another connection over HTTP/1.1.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// After how long without a frame a ping is sent, and how long its answer may take. Only while requests are open.
    pub ping: (Duration, Duration),
    /// After how long without a response `/livez` is asked for, and how long that may take.
    pub probe: (Duration, Duration),
}

/// The connections to one API server with one set of credentials.
pub struct Transport {
    credentials: Credentials,
    liveness: Liveness,
    pool: Pool,
}

/// The body of a response. The connection is free for the next request once it has been read to its end; dropped before, it
/// cancels the request.
pub struct TransportBody {
    incoming: Incoming,
    lease: Option<Lease>,
    silence: Duration,
}

impl Liveness {
    /// How long an HTTP/2 connection may be without an answer to a ping.
    fn silence(&self) -> Duration {
        self.ping.0 + self.ping.1
    }
}

impl Transport {
    /// A transport; nothing is dialled yet.
    ///
    /// # Errors
    /// If the endpoint, the CA bundle or the proxy cannot be used.
    pub fn new(credentials: Credentials, settings: &TransportSettings) -> Result<Self, TlsConfigError> {
        let dialer = Dialer::new(&credentials, settings.handshakes.clone(), settings.connect_timeout)?;
        let liveness = settings.liveness;
        let pool = Pool::new(dialer, settings.connections, settings.shares, liveness);
        Ok(Self { credentials, liveness, pool })
    }

    /// What it was made of.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Sends a request, whose URI is absolute, and waits for the head of the response. Redirects are not followed. What the
    /// server has not processed is sent again on another connection, three times in all; what it may have processed is sent
    /// once more if its connection was used before and its method is safe, as Go's `http.Transport` does. Dropping the
    /// future cancels the request.
    ///
    /// # Errors
    /// If there is no connection, or it breaks. How long it may take is the caller's matter: `progress` then says why there
    /// is no response.
    pub async fn send(
        &self,
        request: impl Fn() -> Request<Full<Bytes>>,
        share: usize,
        progress: &Progress,
    ) -> Result<Response<TransportBody>, SendError> {
        let mut resend = None;
        let mut tries = 0;
        loop {
            let mut lease = self.pool.lease(share, resend.as_ref(), progress).await?;
            progress.set(Stage::Sent);
            tries += 1;
            let request = request();
            let is_safe = request.method().is_safe();
            let response = lease.send(request);
            drop(resend.take());
            let error = match self.unless_silent(response).await? {
                Ok(response) => {
                    progress.set(Stage::Reading);
                    let silence = self.liveness.silence();
                    return Ok(response.map(|incoming| TransportBody {
                        incoming,
                        lease: Some(lease),
                        silence,
                    }));
                }
                Err(error) => error,
            };
            let processed = Processed::of(&error);
            let again = match processed {
                Processed::No => tries < TRIES,
                Processed::Maybe => tries == 1 && lease.is_reused() && is_safe,
                Processed::Yes => false,
            };
            if processed != Processed::Yes {
                lease.retire();
            }
            if !again {
                return Err(SendError::of(&error, self.liveness.silence()));
            }
            resend = Some(self.pool.resend(share));
        }
    }

    /// The head of the response to a request on a connection of its own, beside all bounds.
    ///
    /// # Errors
    /// If there is none.
    pub async fn head(&self, path: &str) -> Result<Parts, SendError> {
        self.pool.head(self.pool.turn().await, self.request(self.uri(path)?)).await
    }

    /// The absolute URI of a path below the endpoint, encoded already.
    ///
    /// # Errors
    /// If the path has characters that no path may have.
    pub fn uri(&self, path: &str) -> Result<Uri, SendError> {
        self.credentials.endpoint.uri(path).map_err(|error| SendError::Url(error.to_string()))
    }

    /// A GET with these credentials and without a body.
    pub fn request(&self, uri: Uri) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        if let Some(token) = &self.credentials.login.token {
            request.headers_mut().insert(AUTHORIZATION, token.authorization());
        }
        request
    }

    /// Waits for `work` on a response. Over HTTP/1.1, where no ping tells, a request on another connection finds out whether
    /// the server still answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn unless_silent<T>(&self, work: impl Future<Output = T>) -> Result<T, SendError> {
        let mut work = std::pin::pin!(work);
        if !self.pool.speaks_http1() {
            return Ok(work.await);
        }
        let (after, within) = self.liveness.probe;
        let silent = async {
            tokio::time::sleep(after).await;
            // That a turn to shake hands comes late says nothing of the server.
            let turn = self.pool.turn().await;
            let probe = async { self.pool.head(turn, self.request(self.uri("/livez")?)).await };
            match tokio::time::timeout(within, probe).await {
                Ok(Ok(_)) => std::future::pending().await,
                Ok(Err(_)) | Err(_) => SendError::NoAnswer(after + within),
            }
        };
        tokio::select! {
            done = &mut work => Ok(done),
            error = silent => Err(error),
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
                return Poll::Ready(Some(Err(SendError::of(&error, self.silence))));
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
        };
        if (frame.is_none() || self.incoming.is_end_stream())
            && let Some(lease) = self.lease.take()
        {
            lease.done();
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

    /// A transport to an endpoint, and the turns to shake hands: there are none yet.
    fn without_turns(endpoint: &str) -> (Transport, Arc<Semaphore>) {
        let credentials = Credentials {
            endpoint: Endpoint::parse(endpoint).unwrap(),
            login: UserCredentials::default(),
            trust: ServerVerification::Anything,
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
    async fn a_failure_that_no_request_has_seen_is_not_the_result_of_a_later_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (transport, handshakes) = without_turns(&format!("https://{}", listener.local_addr().unwrap()));
        let (uri, progress) = (transport.uri("/").unwrap(), Progress::default());
        let request = || transport.request(uri.clone());
        let left = tokio::time::timeout(Duration::from_millis(200), transport.send(request, 0, &progress));
        assert!(left.await.is_err());
        handshakes.add_permits(1);
        drop(listener.accept().await.unwrap());
        // The turn comes back when the connection has failed.
        drop(handshakes.acquire().await.unwrap());
        tokio::select! {
            accepted = listener.accept() => drop(accepted.unwrap()),
            result = transport.send(request, 0, &progress) => panic!("no connection was tried: {:?}", result.err()),
        }
    }

    /// The next connection, once a whole request has come on it.
    async fn request_on(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream
    }

    #[tokio::test]
    async fn a_connection_that_failed_beside_a_busy_one_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (transport, handshakes) = without_turns(&format!("http://{address}"));
        handshakes.add_permits(1);
        let (uri, progress) = (transport.uri("/").unwrap(), Progress::default());
        let request = || transport.request(uri.clone());
        let mut first = std::pin::pin!(transport.send(request, 0, &progress));
        let busy = tokio::select! {
            busy = request_on(&listener) => busy,
            _ = &mut first => unreachable!("nothing answers"),
        };
        drop(listener);
        let late = Progress::default();
        let second = transport.send(request, 0, &late);
        let serving = async {
            for stage in [Stage::Connecting, Stage::Waiting] {
                while late.stage() != stage {
                    tokio::task::yield_now().await;
                }
            }
            let listener = TcpListener::bind(address).await.unwrap();
            let mut stream = request_on(&listener).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let both = async { tokio::join!(second, serving).0 };
        let response = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it is tried again");
        assert_eq!(response.unwrap().status(), http::StatusCode::NO_CONTENT);
        drop(busy);
    }

    #[tokio::test]
    async fn a_request_that_waits_for_its_turn_to_shake_hands_is_waiting_and_not_connecting() {
        let (transport, handshakes) = without_turns("https://127.0.0.1:1");
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
