//! kube's client over this process' own connections: one over HTTP/2 for all requests of a kubeconfig.

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
use super::login::{LoginError, PluginLogins};
use crate::api::duration::GoDuration;
use crate::kubeconfig::Context;
use crate::transport::{self, Liveness, Progress, Transport, TransportSettings};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// HTTP/2: after how long without a frame a ping is sent, and how long its answer may take; client-go waits 30 s and 15 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// HTTP/1.1: after how long without a response another connection is tried, and how long that may take.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Most connections over HTTP/1.1, on which each watch has one of its own.
const CONNECTIONS: usize = 128;
/// Watches have a share of their own, so that they never take all streams or connections.
const SHARES: usize = 2;
/// How much longer than a watch a response may be silent.
const MARGIN: Duration = Duration::from_secs(10);

/// The API server of one context.
struct ApiServer {
    /// The connections as whoever the context itself names.
    transport: Arc<Transport>,
    /// Those that are used instead where a plugin says who asks.
    logins: Option<PluginLogins>,
    /// How long a response may be silent.
    silence: Duration,
}

/// kube's client of a context. A response that is silent for longer than `watch_timeout` and a margin is an error.
///
/// # Errors
/// If no connection can be made with what the context says.
pub(super) fn client(
    flag: &'static str,
    context: Context,
    watch_timeout: Duration,
) -> Result<Client, ControlError> {
    let Context { credentials, plugin, namespace, impersonation } = context;
    let settings = TransportSettings {
        connections: CONNECTIONS,
        shares: SHARES,
        connect_timeout: CONNECT,
        liveness: Liveness { ping: PING, probe: PROBE },
        handshakes: Arc::new(Semaphore::new(CONNECTIONS)),
    };
    let refused = |source| ControlError::Client { flag, source: Box::new(source) };
    let base = credentials.endpoint.uri("/");
    let mut config = Config::new(base.map_err(|error| refused(kube::Error::HttpError(error)))?);
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
    let transport = Arc::new(transport.map_err(|source| ControlError::Trust { flag, source })?);
    let logins = plugin.map(|plugin| PluginLogins::new(plugin, credentials, settings));
    let api_server = Arc::new(ApiServer { transport, logins, silence: watch_timeout + MARGIN });
    let service = service_fn(move |request| api_server.clone().send(request));
    let headers = config.extra_headers_layer().map_err(refused)?;
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let builder = ClientBuilder::new(service, namespace);
    Ok(builder.with_layer(&headers).with_layer(&config.base_uri_layer()).build())
}

/// Whether a request could not be sent because there are no credentials.
pub fn lacks_credentials(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(error) if error.is::<LoginError>())
}

impl ApiServer {
    async fn send(
        self: Arc<Self>,
        request: Request<Body>,
    ) -> Result<Response<TimeoutBody<transport::TransportBody>>, BoxError> {
        let transport = match &self.logins {
            Some(logins) => logins.current().await?,
            None => self.transport.clone(),
        };
        let (mut head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        head.headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        if let Some(token) = &transport.credentials().login.token {
            head.headers.insert(AUTHORIZATION, token.authorization());
        }
        let share = usize::from(is_watch(&head.uri));
        let request = || Request::from_parts(head.clone(), Full::<Bytes>::new(body.clone()));
        let progress = Progress::default();
        let response = timeout(self.silence, transport.send(request, share, &progress)).await;
        let late = || format!("no response within {}", GoDuration::from(self.silence));
        let response = response.map_err(|_| late())??;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(logins) = &self.logins
        {
            logins.note_refusal(&transport);
        }
        Ok(response.map(|body| TimeoutBody::new(self.silence, body)))
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter == "watch=true"))
}
