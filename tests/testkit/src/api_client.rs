//! An HTTPS client like client-go: it trusts one CA and presents a client certificate or a token.

use std::fmt;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::pki::{self, Identity};

/// A client of one server. Clones share its connection pool.
#[derive(Clone)]
pub struct ApiClient {
    base: String,
    token: Option<HeaderValue>,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The credentials of a client.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// No credentials (anonymous).
    None,
    /// A client certificate.
    Certificate(&'a Identity),
    /// A bearer token.
    Token(&'a str),
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl ApiClient {
    /// A client of the server at `base` (`https://127.0.0.1:6443`). The CA `ca_pem` must have signed the certificate of the
    /// server.
    ///
    /// # Errors
    /// If the CA or the credentials are malformed.
    pub fn new(base: &str, ca_pem: &str, credentials: Credentials<'_>) -> anyhow::Result<Self> {
        let tls = ClientConfig::builder().with_root_certificates(pki::roots(ca_pem)?);
        let (tls, token) = match credentials {
            Credentials::None => (tls.with_no_client_auth(), None),
            Credentials::Certificate(identity) => {
                (tls.with_client_auth_cert(identity.chain(), identity.private_key())?, None)
            }
            Credentials::Token(token) => {
                let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
                bearer.set_sensitive(true);
                (tls.with_no_client_auth(), Some(bearer))
            }
        };
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(https);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, http })
    }

    /// Sends a GET for a path with its query. There is no timeout.
    ///
    /// # Errors
    /// If the server cannot be reached or the response breaks off. A response with an error status is not an error.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let request = Request::builder().uri(path).header(http::header::ACCEPT, "application/json, */*");
        self.send(request.body(Bytes::new())?).await
    }

    /// Sends `body` as JSON.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn send_json(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, "application/json");
        self.send(request.body(Bytes::from(serde_json::to_vec(body)?))?).await
    }

    /// Sends any request with a path as URI.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn send(&self, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let (head, body) = self.open(request).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// Sends any request with a path as URI. Returns when the headers of the response have arrived; the caller reads the body.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn open(&self, mut request: Request<Bytes>) -> anyhow::Result<Response<Incoming>> {
        *request.uri_mut() = format!("{}{}", self.base, request.uri()).parse()?;
        if let Some(token) = &self.token {
            request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| token.clone());
        }
        Ok(self.http.request(request.map(Full::new)).await?)
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If the body is not JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// All `Warning` headers.
    pub fn warnings(&self) -> Vec<String> {
        let values = self.headers.get_all(http::header::WARNING);
        values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiClient").field("base", &self.base).finish_non_exhaustive()
    }
}
