//! A ready path in, bytes out: one member's API server over its pooled connections.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::response::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::credentials::Credentials;
use super::failure::{Failure, NoRoom};
use super::pool::{Ping, Pool};
use super::route::Dialer;
use super::tls::TrustError;
use crate::config::Rate;
use crate::process::budget::{Budget, Claim, Share};

/// How much memory is taken at once for a body that says how long it is.
const EXPECTED: usize = 1024 * 1024;

/// How much is read of a body that explains why there is no answer.
const EXPLANATION: usize = 64 * 1024;

/// Limits that all transports share or take from the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections to one member over HTTP/1.1; with HTTP/2 one is enough.
    pub connections: usize,
    /// How long an answer waits for a member. What finds out whether anybody is there takes less.
    pub timeout: Duration,
    /// How long one answer's body may be, in bytes.
    pub body_bytes: usize,
    /// How many bytes of all members' bodies are held at a time.
    pub inflight: Budget,
    /// Members that shake hands at a time.
    pub handshakes: Arc<Semaphore>,
    /// How often one member is asked; `None` for as often as clients ask.
    pub rate: Option<Rate>,
}

/// The way to one member with one set of credentials.
pub struct Transport {
    credentials: Credentials,
    timeout: Duration,
    body_bytes: usize,
    inflight: Budget,
    pool: Pool,
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
    /// What the body takes of `--inflight-bytes`, to be kept as long as the body is.
    pub room: Share,
}

impl Transport {
    /// A transport; nothing is dialled yet.
    ///
    /// # Errors
    /// If the endpoint, the CA bundle or the proxy cannot be used.
    pub fn new(credentials: Credentials, limits: &Limits) -> Result<Self, TrustError> {
        let Limits { connections, timeout, body_bytes, ref inflight, ref handshakes, .. } = *limits;
        let dialer = Dialer::new(&credentials, handshakes.clone(), timeout * 4 / 5)?;
        let ping = Ping {
            after: Duration::from_secs(1).min(timeout / 4),
            timeout: Duration::from_secs(2).min(timeout / 3),
        };
        let inflight = inflight.clone();
        Ok(Self { credentials, timeout, body_bytes, inflight, pool: Pool::new(dialer, connections, ping) })
    }

    /// What it was made of.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Asks for a path below the endpoint, encoded already, and reads the whole answer. Redirects are not followed.
    /// Dropping the future cancels the request.
    ///
    /// # Errors
    /// If there is no connection, it breaks, nobody is at its other end any more, or the body is too long. How long
    /// the answer may take is the caller's matter.
    pub async fn get(&self, path: &str, accept: &'static str, claim: Claim) -> Result<Reply, Failure> {
        let mut lease = self.pool.lease(false).await?;
        let mut answer = self.unless_dead(lease.send(self.request(path, accept)?)).await?;
        // A connection that was used before may have been closed meanwhile, which shows only now: as Go's
        // `http.Transport` does, the request is sent once more.
        if answer.as_ref().is_err_and(|error| lease.reused && connection_broke(error)) {
            lease = self.pool.lease(true).await?;
            answer = self.unless_dead(lease.send(self.request(path, accept)?)).await?;
        }
        let response = answer.map_err(|error| Failure::lost(&error))?;
        let reply = self.unless_dead(self.read(response, claim)).await??;
        lease.done();
        Ok(reply)
    }

    /// Whether there is a connection, or was one until now.
    pub fn is_connected(&self) -> bool {
        self.pool.is_settled()
    }

    /// Whether anybody answers at all, on a connection of its own: any HTTP answer will do.
    ///
    /// # Errors
    /// If nobody does.
    pub async fn probe(&self) -> Result<(), Failure> {
        self.head("/livez").await.map(drop)
    }

    /// The head of the answer to a request on a connection of its own.
    ///
    /// # Errors
    /// If there is none.
    pub async fn head(&self, path: &str) -> Result<Parts, Failure> {
        let response = self.pool.probe(self.request(path, "*/*")?).await?;
        Ok(response.into_parts().0)
    }

    /// Waits for `work`. Over HTTP/1.1, where no ping tells, another connection finds out in time whether the other
    /// end is alive.
    async fn unless_dead<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        if !self.pool.speaks_http1() {
            return Ok(work.await);
        }
        let dead = async {
            tokio::time::sleep(self.timeout / 2).await;
            match tokio::time::timeout(self.timeout / 4, self.probe()).await {
                Ok(Ok(())) => std::future::pending().await,
                Ok(Err(_)) | Err(_) => Failure::Silent,
            }
        };
        tokio::select! {
            done = &mut work => Ok(done),
            failure = dead => Err(failure),
        }
    }

    fn request(&self, path: &str, accept: &'static str) -> Result<Request<Empty<Bytes>>, Failure> {
        let uri = self.credentials.endpoint.uri(path).map_err(|error| Failure::Connect(error.to_string()))?;
        let mut request = Request::new(Empty::new());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(token) = &self.credentials.login.token {
            headers.insert(AUTHORIZATION, token.authorization());
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        *request.uri_mut() = uri;
        Ok(request)
    }

    /// Reads the body within its limit. What explains a failure is cut off where nobody would read on.
    async fn read(&self, response: Response<Incoming>, claim: Claim) -> Result<Reply, Failure> {
        let (head, mut body) = response.into_parts();
        let explains = head.status != StatusCode::OK;
        let limit = if explains { EXPLANATION } else { self.body_bytes };
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if !explains && declared.is_some_and(|length: usize| length > limit) {
            return Err(Failure::TooLarge(limit));
        }
        let mut room = self.inflight.share(claim);
        let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0).min(EXPECTED));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::lost(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                if explains {
                    break;
                }
                return Err(Failure::TooLarge(limit));
            }
            room.grow(data.len()).map_err(|_| NoRoom)?;
            bytes.extend_from_slice(&data);
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        // It may be kept for long, and only what it holds is counted.
        let spare = bytes.capacity() - bytes.len();
        let body = if spare > bytes.len() / 8 { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() };
        Ok(Reply { status: head.status, content_type: media_type, body, room })
    }
}

/// Whether a connection ended before it brought anything: not a stream that the member reset, and not a ping that
/// was not answered.
fn connection_broke(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match cause {
        Some(error) => {
            error.is_io() || error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
        }
        None => !error.is_timeout() && !error.is_parse(),
    }
}
