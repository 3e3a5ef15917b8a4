//! Creates kube clients on top of this crate's transport: one HTTP/2 connection carries all requests of a kubeconfig.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::AuthInfo;
use kube::{Client, Config};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::{BoxError, service_fn};
use tower_http::timeout::TimeoutBody;

use super::ControlError;
use super::plugin_transports::{NoPluginCredentials, PluginTransports};
use crate::api::duration::GoDuration;
use crate::kubeconfig::Context;
use crate::transport::{self, Liveness, Progress, Transport, TransportSettings};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2: the time without a frame until a ping is sent, and the timeout of the ping. client-go uses 30 s and 15 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// HTTP/1.1: the time without a response until another connection is tried, and the timeout of that try.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Maximum number of HTTP/1.1 connections. Each watch needs a separate connection.
const MAX_CONNECTIONS: usize = 128;
/// Two shares: other requests and watches. So watches never use all streams or connections.
const SHARES: usize = 2;
/// A response may be silent for the timeout of a watch plus this margin.
const MARGIN: Duration = Duration::from_secs(10);

/// The API server of one context.
struct ApiServer {
    /// The connections with the credentials of the context itself.
    transport: Arc<Transport>,
    /// The connections with the credentials of the exec plugin, if there is one. They are used instead of `transport`.
    plugin: Option<PluginTransports>,
    /// The maximum time without data from the API server.
    max_silence: Duration,
}

/// Creates kube's client for a context. A response without data for longer than `watch_timeout` plus 10 s is an error.
///
/// # Errors
/// If the endpoint, the CA bundle, the proxy or the impersonation of the context is invalid.
pub(super) fn client(
    flag: &'static str,
    context: Context,
    watch_timeout: Duration,
) -> Result<Client, ControlError> {
    let Context { credentials, plugin, namespace, impersonation } = context;
    let settings = TransportSettings {
        connections: MAX_CONNECTIONS,
        shares: SHARES,
        connect_timeout: CONNECT_TIMEOUT,
        liveness: Liveness { ping: PING, probe: PROBE },
        handshakes: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    };
    let invalid = |source| ControlError::Client { flag, source: Box::new(source) };
    let base = credentials.endpoint.uri("/");
    let mut config = Config::new(base.map_err(|error| invalid(kube::Error::HttpError(error)))?);
    if let Some(impersonation) = impersonation {
        config.auth_info = AuthInfo {
            impersonate: impersonation.user,
            impersonate_uid: impersonation.uid,
            impersonate_groups: impersonation.groups,
            impersonate_user_extra: impersonation.extra,
            ..AuthInfo::default()
        };
    }
    let transport = Transport::new(credentials.clone(), &settings);
    let transport = Arc::new(transport.map_err(|source| ControlError::Tls { flag, source })?);
    let plugin = plugin.map(|plugin| PluginTransports::new(plugin, credentials, settings));
    let api_server = Arc::new(ApiServer { transport, plugin, max_silence: watch_timeout + MARGIN });
    let service = service_fn(move |request| api_server.clone().send(request));
    let headers = config.extra_headers_layer().map_err(invalid)?;
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let builder = ClientBuilder::new(service, namespace);
    Ok(builder.with_layer(&headers).with_layer(&config.base_uri_layer()).build())
}

/// Whether a request was not sent because the exec plugin returned no valid credentials.
pub fn has_no_credentials(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(error) if error.is::<NoPluginCredentials>())
}

impl ApiServer {
    async fn send(
        self: Arc<Self>,
        request: Request<Body>,
    ) -> Result<Response<TimeoutBody<transport::TransportBody>>, BoxError> {
        let transport = match &self.plugin {
            Some(plugin) => plugin.current().await?,
            None => self.transport.clone(),
        };
        let (mut head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        head.headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        if let Some(token) = &transport.credentials().user.token {
            head.headers.insert(AUTHORIZATION, token.authorization());
        }
        let share = usize::from(is_watch(&head.uri));
        let request = || Request::from_parts(head.clone(), Full::<Bytes>::new(body.clone()));
        let progress = Progress::default();
        let response = timeout(self.max_silence, transport.send(request, share, &progress)).await;
        let timed_out = || format!("no response within {}", GoDuration::from(self.max_silence));
        let response = response.map_err(|_| timed_out())??;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(plugin) = &self.plugin
        {
            plugin.note_rejection(&transport);
        }
        Ok(response.map(|body| TimeoutBody::new(self.max_silence, body)))
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter == "watch=true"))
}
