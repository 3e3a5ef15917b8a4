//! Requests to one member's API server with one set of credentials.

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
use crate::api::memory::reserve_capacity;
use crate::config::RateLimit;
use crate::process::budget::{Budget, Reserved};
use crate::transport::credentials::Credentials;
use crate::transport::tls::TlsConfigError;
use crate::transport::{Liveness, Progress, Transport, TransportBody, TransportSettings};

/// Maximum memory that is allocated in advance for a body with `Content-Length`, in bytes.
const MAX_PREALLOCATED: usize = 1024 * 1024;

/// Maximum bytes that are read of the body of an error response.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Limits of members, from the configuration or shared by all members.
#[derive(Clone, Debug)]
pub struct MemberLimits {
    /// Maximum connections to one member over HTTP/1.1. HTTP/2 uses one.
    pub connections: usize,
    /// Timeout of a query. Pings and probes have shorter timeouts, derived from it.
    pub timeout: Duration,
    /// Maximum bytes of one response body.
    pub body_bytes: usize,
    /// The memory budget of all queries.
    pub inflight: Budget,
    /// The entries of all members' catalogs.
    pub names: Arc<SharedEntries>,
    pub metrics: Arc<MemberMetrics>,
    /// Limit of concurrent TLS handshakes with all members.
    pub handshakes: Arc<Semaphore>,
    /// Rate limit of requests to one member; `None` for no limit.
    pub rate: Option<RateLimit>,
}

/// Sends requests to one member with one set of credentials.
pub struct MemberClient {
    transport: Transport,
    body_bytes: usize,
    inflight: Budget,
}

/// A complete response of a member, of any status.
#[derive(Debug)]
pub struct MemberResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type, without parameters, in lower case.
    pub content_type: String,
    /// The complete body, with its share of `--inflight-bytes`.
    pub body: Reserved<Vec<u8>>,
}

impl MemberClient {
    /// A client without connections.
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

    pub fn credentials(&self) -> &Credentials {
        self.transport.credentials()
    }

    /// Sends a GET for an encoded path of a metrics API and reads the complete response. Redirects are not followed. Dropping the future
    /// cancels the request.
    ///
    /// # Errors
    /// If there is no connection, it breaks, the server no longer responds to pings, or the body is too long. The caller sets the
    /// deadline; `progress` then tells why there is no response.
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
        self.transport.with_liveness_check(self.read(response)).await?
    }

    /// Probes the API server on a new connection. Any HTTP response is a success.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn probe(&self) -> Result<(), Failure> {
        self.head("/livez").await.map(drop)
    }

    /// Sends a request on a new connection and returns the head of the response.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn head(&self, path: &str) -> Result<Parts, Failure> {
        Ok(self.transport.head(path).await?)
    }

    /// Reads the body within its limit. The body of an error response is cut off at [`MAX_ERROR_BODY`] bytes.
    async fn read(&self, response: Response<TransportBody>) -> Result<MemberResponse, Failure> {
        let (head, mut body) = response.into_parts();
        let is_error = head.status != StatusCode::OK;
        let limit = if is_error { MAX_ERROR_BODY } else { self.body_bytes };
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if !is_error && declared.is_some_and(|length: usize| length > limit) {
            return Err(Failure::TooLarge(limit));
        }
        let (mut share, mut bytes) = (self.inflight.share_of_half(), Vec::new());
        let mut reserve = |bytes| Ok(share.grow(bytes)?);
        reserve_capacity(&mut bytes, declared.unwrap_or(0).min(MAX_PREALLOCATED).min(limit), &mut reserve)?;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                if is_error {
                    break;
                }
                return Err(Failure::TooLarge(limit));
            }
            reserve_capacity(&mut bytes, data.len(), &mut reserve)?;
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
