//! A ready path in, bytes out: requests to one member's API server with one set of credentials.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use super::failure::Failure;
use super::metrics::MemberMetrics;
use super::shared_entries::SharedEntries;
use crate::api::group::Group;
use crate::api::memory::make_room;
use crate::config::RateLimit;
use crate::process::budget::{Budget, Reserved};
use crate::transport::credentials::Credentials;
use crate::transport::tls::TlsConfigError;
use crate::transport::{Liveness, Progress, Transport, TransportBody, TransportSettings};

/// How much memory is taken at once for a body that says how long it is.
const EXPECTED: usize = 1024 * 1024;

/// How much is read of a body that explains why there is no answer.
const EXPLANATION: usize = 64 * 1024;

/// Limits that all members share or take from the configuration.
#[derive(Clone, Debug)]
pub struct MemberLimits {
    /// Connections to one member over HTTP/1.1; with HTTP/2 one is enough.
    pub connections: usize,
    /// How long an answer waits for a member. What finds out whether anybody is there takes less.
    pub timeout: Duration,
    /// How long one answer's body may be, in bytes.
    pub body_bytes: usize,
    /// How many bytes all queries hold at a time.
    pub inflight: Budget,
    /// What all of them list.
    pub names: Arc<SharedEntries>,
    /// What they make of queries.
    pub metrics: Arc<MemberMetrics>,
    /// Members that shake hands at a time.
    pub handshakes: Arc<Semaphore>,
    /// How often one member is asked; `None` for as often as clients ask.
    pub rate: Option<RateLimit>,
}

/// Sends requests to one member with one set of credentials.
pub struct MemberClient {
    transport: Transport,
    body_bytes: usize,
    inflight: Budget,
}

/// An answer of a member, whatever its status.
#[derive(Debug)]
pub struct MemberResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type, without parameters, in lower case.
    pub content_type: String,
    /// The whole body, and what it takes of `--inflight-bytes`.
    pub body: Reserved<Vec<u8>>,
}

impl MemberClient {
    /// A client; nothing is dialled yet.
    ///
    /// # Errors
    /// If the endpoint, the CA bundle or the proxy cannot be used.
    pub fn new(credentials: Credentials, limits: &MemberLimits) -> Result<Self, TlsConfigError> {
        let timeout = limits.timeout;
        let settings = TransportSettings {
            connections: limits.connections,
            // One for each metrics API.
            shares: Group::ALL.len(),
            connect_timeout: timeout * 4 / 5,
            liveness: Liveness {
                ping: (Duration::from_secs(1).min(timeout / 4), timeout * 3 / 10),
                probe: (timeout / 2, timeout / 4),
            },
            handshakes: limits.handshakes.clone(),
        };
        let transport = Transport::new(credentials, &settings)?;
        Ok(Self { transport, body_bytes: limits.body_bytes, inflight: limits.inflight.clone() })
    }

    /// What it was made of.
    pub fn credentials(&self) -> &Credentials {
        self.transport.credentials()
    }

    /// Asks for a path of a metrics API below the endpoint, encoded already, and reads the whole answer. Redirects are not
    /// followed. Dropping the future cancels the request.
    ///
    /// # Errors
    /// If there is no connection, it breaks, nobody is at its other end any more, or the body is too long. How long
    /// the answer may take is the caller's matter: `progress` then says why there is none.
    pub async fn get(
        &self,
        group: Group,
        path: &str,
        accept: &'static str,
        progress: &Progress,
    ) -> Result<MemberResponse, Failure> {
        let uri = self.transport.uri(path)?;
        let request = || {
            let mut request = self.transport.request(uri.clone());
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
            request
        };
        let response = self.transport.send(request, group as usize, progress).await?;
        self.transport.unless_silent(self.read(response)).await?
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
        Ok(self.transport.head(path).await?)
    }

    /// Reads the body within its limit. What explains a failure is cut off where nobody would read on.
    async fn read(&self, response: Response<TransportBody>) -> Result<MemberResponse, Failure> {
        let (head, mut body) = response.into_parts();
        let explains = head.status != StatusCode::OK;
        let limit = if explains { EXPLANATION } else { self.body_bytes };
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if !explains && declared.is_some_and(|length: usize| length > limit) {
            return Err(Failure::TooLarge(limit));
        }
        let (mut share, mut bytes) = (self.inflight.share_of_half(), Vec::new());
        let mut reserve = |bytes| Ok(share.grow(bytes)?);
        make_room(&mut bytes, declared.unwrap_or(0).min(EXPECTED).min(limit), &mut reserve)?;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                if explains {
                    break;
                }
                return Err(Failure::TooLarge(limit));
            }
            make_room(&mut bytes, data.len(), &mut reserve)?;
            bytes.extend_from_slice(&data);
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        Ok(MemberResponse {
            status: head.status,
            content_type: media_type,
            body: Reserved::fitted(bytes, share),
        })
    }
}
