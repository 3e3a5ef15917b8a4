//! HTTP server: handles requests from the aggregation layer of the API server.

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

/// State that all request handlers share.
pub struct ServerState {
    /// Authenticates the user of a request.
    pub authenticators: Authenticators,
    /// Checks the user's permission.
    pub reviewer: Reviewer,
    /// Queries metrics of members.
    pub responder: Responder,
    /// Limit of requests in flight.
    pub in_flight: InFlightLimit,
    pub documents: DiscoveryDocuments,
    /// State of the health checks.
    pub health: HealthSources,
    /// Metrics of this process.
    pub metrics: Arc<MetricsRegistry>,
    /// Number and duration of requests.
    pub requests: RequestMetrics,
    pub request_timeout: Duration,
}

/// The routes and middleware of the secure port.
pub fn router(state: Arc<ServerState>) -> Router {
    layers::add_middleware(handlers::routes(), &state).with_state(state)
}
