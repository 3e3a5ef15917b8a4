//! HTTP: what comes in from the API server's aggregation layer, and what goes out.

mod certificate;
pub mod connection;
mod connection_limit;
mod document;
pub mod documents;
pub mod error;
pub mod handlers;
pub mod health;
pub mod in_flight;
pub mod layers;
pub mod listener;
pub mod metrics;
pub mod negotiation;
pub mod request_info;
mod response_body;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;

use crate::access::Authenticators;
use crate::access::review::Reviewer;
use crate::process::metrics::MetricsRegistry;
use crate::response::Responder;
use documents::DiscoveryDocuments;
use health::HealthSources;
use in_flight::InFlightLimit;
use metrics::RequestMetrics;

/// What requests are served from.
pub struct ServerState {
    /// Who asks.
    pub authenticators: Authenticators,
    /// Whether they may.
    pub reviewer: Reviewer,
    /// Metrics of members.
    pub answers: Responder,
    /// How many requests are worked on at a time.
    pub admission: InFlightLimit,
    /// Discovery.
    pub documents: DiscoveryDocuments,
    /// Health checks.
    pub health: HealthSources,
    /// This process' own metrics.
    pub metrics: Arc<MetricsRegistry>,
    /// What is counted of requests.
    pub requests: RequestMetrics,
    /// How long a request may take.
    pub request_timeout: Duration,
}

/// The service of the secure port.
pub fn router(serving: Arc<ServerState>) -> Router {
    layers::around(handlers::routes(), &serving).with_state(serving)
}
