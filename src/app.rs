//! Starts the server: connects all parts, serves, and shuts down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::access::Authenticators;
use crate::access::config_map::PublishedSettings;
use crate::access::review::Reviewer;
use crate::access::settings::AuthenticationSettings;
use crate::access::token::TokenReviewer;
use crate::config::{Authentication, Config, ControlPlane, Members, member_share};
use crate::control::Clients;
use crate::fleet::Fleet;
use crate::fleet::discovery::Discovery;
use crate::fleet::karmada::KarmadaSource;
use crate::fleet::kubeconfig::KubeconfigSource;
use crate::fleet::metrics::FleetMetrics;
use crate::fleet::roster::Roster;
use crate::gather::metrics::GatherMetrics;
use crate::member::client as member;
use crate::member::metrics::MemberMetrics;
use crate::member::shared_entries::SharedEntries;
use crate::process::budget::Budget;
use crate::process::expiry::Expiry;
use crate::process::metrics::{MEDIA_TYPE, MetricsRegistry};
use crate::process::telemetry;
use crate::response::Responder;
use crate::server::connection::ConnectionTimeouts;
use crate::server::documents::DiscoveryDocuments;
use crate::server::health::HealthSources;
use crate::server::in_flight::InFlightLimit;
use crate::server::listener::ListenerConfig;
use crate::server::metrics::RequestMetrics;
use crate::server::{ServerState, listener, router, tls};

/// Maximum number of concurrent TLS handshakes with members.
const MAX_HANDSHAKES: usize = 16;

/// Keeps the fleet up to date with its source until it is dropped.
pub struct FleetSource {
    /// The current fleet.
    pub fleet: watch::Receiver<Arc<Fleet>>,
    /// Whether the first fleet is complete.
    pub synced: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// Serves until `shutdown` is cancelled.
///
/// # Errors
/// If the process cannot start because of a file, a flag or a response of the control plane.
pub async fn serve(mut config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.members.timeout = config.members.timeout.min(member_share(config.serving.request_timeout));
    let address = SocketAddr::new(config.serving.bind_address, config.serving.port);
    let secure = listener::bind(address)
        .await
        .with_context(|| format!("--secure-port: cannot listen on {address}"))?;
    let address = secure.local_addr()?;

    let mut metrics = Registry::default();
    telemetry::register(&mut metrics);
    let expiry = Expiry::register(&mut metrics);
    let (tls, _certificate) = tls::server_config(&config.serving, &expiry)?;
    let _warnings = expiry.clone().warn();
    let admission = InFlightLimit::register(&mut metrics, config.serving.limits.requests);
    let inflight = Budget::new(config.members.inflight_bytes);
    let help = "Memory of all queries in flight in bytes, until the clients have their responses";
    metrics.register("karmada_metrics_adapter_inflight_bytes", help, inflight.gauge());
    let names = Arc::new(SharedEntries::new(config.members.discovery_bytes));
    let help = "Memory of the metric names of all members in bytes, for discovery";
    metrics.register("karmada_metrics_adapter_discovery_bytes", help, names.gauge());
    let fleet_metrics = Arc::new(FleetMetrics::register(&mut metrics));
    let gather_metrics = Arc::new(GatherMetrics::register(&mut metrics));
    let member_metrics = Arc::new(MemberMetrics::register(&mut metrics));
    let requests = RequestMetrics::register(&mut metrics);
    let metrics = Arc::new(MetricsRegistry::new(metrics));

    let (reload, watch) = (config.serving.reload_interval, config.control_plane.watch_timeout);
    let limits = member_limits(&config.members, inflight.clone(), names.clone(), member_metrics);
    let source = FleetSource::begin(&config.members, &config.control_plane, limits, reload, fleet_metrics)?;
    let (fleet, synced) = (source.fleet.clone(), source.synced.clone());
    let Members { discovery_interval, timeout, .. } = config.members;
    let (discovery, catalog, discovered) = Discovery::new(fleet.clone(), discovery_interval, timeout, names);
    let _discovery = AbortOnDropHandle::new(tokio::spawn(discovery.run(synced.clone())));

    let kubeconfig = config.authentication.kubeconfig.as_deref();
    let clients = Clients::open("--authentication-kubeconfig", kubeconfig, reload, watch, None)?;
    let (authenticators, _settings_tasks) = tokio::select! {
        // A control plane that does not respond must not block the shutdown.
        () = shutdown.cancelled() => return Ok(()),
        result = authenticators(&config.authentication, clients, reload, watch, expiry) => result?,
    };
    let kubeconfig = config.authorization.kubeconfig.as_deref();
    let reviews = Clients::open("--authorization-kubeconfig", kubeconfig, reload, watch, None)?;
    let serving = ServerState {
        authenticators,
        reviewer: Reviewer::new(reviews, &config.authorization),
        in_flight: admission,
        responder: Responder::new(fleet, &config.members, config.merging, inflight, gather_metrics),
        documents: DiscoveryDocuments::new(catalog, format!(":{}", address.port())),
        health: HealthSources { synced, discovered, shutdown: shutdown.clone() },
        metrics: metrics.clone(),
        requests,
        request_timeout: config.serving.request_timeout,
    };

    // Load balancers need this delay to notice that /readyz fails. Until then they send requests.
    let closing = CancellationToken::new();
    let close = closing.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(config.serving.shutdown_delay).await;
        close.cancel();
    });
    let listener_config = |router| ListenerConfig {
        router,
        limits: ConnectionTimeouts::new(&config.serving),
        connections: config.serving.limits.connections,
        closing: closing.clone(),
    };
    let plain = async {
        if let Some(address) = config.metrics.bind {
            let listener = listener::bind(address)
                .await
                .with_context(|| format!("--metrics-bind-address: cannot listen on {address}"))?;
            listener::serve_plain(listener, listener_config(metrics_router(metrics))).await;
        }
        anyhow::Ok(())
    };
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");
    let secure = async {
        listener::serve_tls(secure, Arc::new(tls), listener_config(router(Arc::new(serving)))).await;
        anyhow::Ok(())
    };
    tokio::try_join!(plain, secure)?;
    tracing::info!("server stopped");
    Ok(())
}

/// The authenticators. Their settings are reloaded until the returned handles are dropped.
async fn authenticators(
    config: &Authentication,
    clients: Clients,
    reload_interval: Duration,
    watch_timeout: Duration,
    expiry: Expiry,
) -> anyhow::Result<(Authenticators, Vec<AbortOnDropHandle<()>>)> {
    let settings = Arc::new(AuthenticationSettings::new(expiry));
    let mut tasks = settings.follow_files(config, reload_interval)?;
    if let Some(mut published) = PublishedSettings::new(clients.clone(), settings.clone(), config) {
        if config.skip_lookup {
            tracing::warn!(
                "--authentication-skip-lookup: only --client-ca-file and --requestheader-client-ca-file are used"
            );
        } else {
            match published.lookup().await {
                Err(error) if config.tolerate_lookup_failure => {
                    tracing::warn!(%error, "starting without the ConfigMap; it is loaded when possible");
                }
                result => result?,
            }
            tasks.push(AbortOnDropHandle::new(tokio::spawn(published.follow(watch_timeout))));
        }
    }
    let tokens = TokenReviewer::new(clients, config.token_cache_ttl);
    Ok((Authenticators::new(settings, tokens), tasks))
}

impl FleetSource {
    /// Starts to follow the source of the members: the kubeconfig of `members` or the Clusters of the control plane.
    ///
    /// # Errors
    /// If a kubeconfig cannot be used.
    pub fn begin(
        members: &Members,
        control_plane: &ControlPlane,
        limits: member::MemberLimits,
        reload_interval: Duration,
        metrics: Arc<FleetMetrics>,
    ) -> anyhow::Result<Self> {
        let roster = Roster::new(limits, metrics.clone());
        let (fleet, synced) = (roster.fleet(), roster.synced());
        let task = if let Some(path) = &members.fleet_kubeconfig {
            tokio::spawn(KubeconfigSource::open(path, reload_interval, roster)?.run())
        } else {
            let ControlPlane { ref kubeconfig, rate, watch_timeout: watch } = *control_plane;
            let clients = Clients::open("--kubeconfig", kubeconfig.as_deref(), reload_interval, watch, rate)?;
            tokio::spawn(KarmadaSource::new(clients, watch, roster, metrics).run())
        };
        Ok(Self { fleet, synced, _task: AbortOnDropHandle::new(task) })
    }
}

/// The limits of requests to members. `inflight` is the memory budget of responses; `names` stores the members' metric
/// names.
pub fn member_limits(
    members: &Members,
    inflight: Budget,
    names: Arc<SharedEntries>,
    metrics: Arc<MemberMetrics>,
) -> member::MemberLimits {
    member::MemberLimits {
        connections: members.connections,
        timeout: members.timeout,
        body_bytes: members.body_bytes,
        inflight,
        names,
        metrics,
        handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        rate: members.rate,
    }
}

fn metrics_router(metrics: Arc<MetricsRegistry>) -> Router {
    Router::new().route("/metrics", get(async move || ([(CONTENT_TYPE, MEDIA_TYPE)], metrics.encode())))
}
